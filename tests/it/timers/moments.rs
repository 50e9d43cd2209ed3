//! What lies in the future is judged by PostgreSQL's clock, in the statement itself: whatever the clock of this machine shows.

use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::domain::callback::Callback;
use walclock::domain::limits;
use walclock::domain::retry::RetryPolicy;
use walclock::domain::timer::{Definition, TimerKey, Update};
use walclock::pg;
use walclock::store::timers::{self, Written};
use walclock::store::{Config, Store};

use crate::support;

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn definition(id: &str, execute_at: Timestamp) -> Definition {
    Definition {
        key: TimerKey::new("n", id),
        execute_at,
        callback: Callback {
            url: "https://example.com/".to_owned(),
            method: "POST".to_owned(),
            headers: std::collections::BTreeMap::new(),
            timeout: Duration::from_secs(30),
        },
        payload: None,
        retry: RetryPolicy::default(),
    }
}

/// What is said of a moment; none where it is good.
fn said(written: &Written<Timestamp>) -> Option<&str> {
    match written {
        Written::Done(_) => None,
        Written::Untimely(invalid) => Some(&invalid.allowed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_future_is_the_databases() {
    let url = support::migrated().await;
    let store = Store::new(Config::new(pg::Settings::parse(&url).unwrap())).unwrap();
    let client = store.client().await.unwrap();
    let micro = Duration::from_micros(1);
    // By the clock of this machine the first lies far behind, and the second far ahead.
    for now in [moment("2001-01-01T00:00:00Z"), moment("2085-01-01T00:00:00Z")] {
        let last = now.after(limits::EXECUTE_AT_AHEAD_MAX);
        for (at, allowed) in [
            (now.after(micro), None),
            (last, None),
            (now, Some("a future timestamp")),
            (now.before(Duration::from_secs(1)), Some("a future timestamp")),
            (last.after(micro), Some("at most 100 years ahead")),
        ] {
            let one = definition("one", at);
            let written = timers::create(&client, &one, true, Some(now)).await.unwrap();
            assert_eq!(said(&written), allowed, "{at} at {now}");
            let others = [&definition("other", at), &definition("good", now.after(micro))];
            let wait = Duration::from_secs(1);
            let written = timers::create_many(&client, &others, true, wait, Some(now)).await.unwrap();
            assert_eq!(said(written[0].as_ref().unwrap()), allowed, "{at} at {now}");
            assert_eq!(said(written[1].as_ref().unwrap()), None);

            let update = Update { execute_at: Some(at), ..Update::default() };
            let written = timers::update(&client, &TimerKey::new("n", "good"), &update, Some(now)).await.unwrap();
            match (written, allowed) {
                (Written::Done(timer), None) => assert_eq!(timer.definition.execute_at, at),
                (Written::Untimely(invalid), Some(allowed)) => assert_eq!(invalid.allowed, allowed),
                (other, _) => panic!("{other:?}"),
            }
        }
        let there = client.query("delete from walclock.timers returning execute_at", &[]).await.unwrap();
        let moments: Vec<Timestamp> = there.iter().map(|row| row.get(0)).collect();
        assert!(moments.iter().all(|at| *at > now && *at <= last), "{moments:?}");
    }
}
