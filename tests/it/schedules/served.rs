//! Through the built binary: from a plain INSERT to callbacks on a real socket.

use std::time::Duration;

use axum::http::StatusCode;
use tokio_postgres::Client;
use walclock::clock::{Timestamp, wall};

use crate::support::receiver::Receiver;
use crate::support::server::{Server, folder};
use crate::support::{PATIENCE, connect, database, eventually};

const SECOND: Duration = Duration::from_secs(1);

struct World {
    server: Server,
    receiver: Receiver,
    sql: Client,
}

impl World {
    async fn new(receiver: Receiver) -> Self {
        let url = database().await;
        let server = Server::start(&url, &folder()).await;
        Self { server, receiver, sql: connect(&url).await }
    }

    async fn insert(&self, id: &str, cron: &str) {
        let insert = "insert into walclock.schedules (namespace, id, cron, callback_url, payload) values ('default', $1, $2, $3, '{}')";
        self.sql.execute(insert, &[&id, &cron, &self.receiver.url()]).await.unwrap();
    }

    /// The moments of a schedule whose callbacks have come, in their order.
    fn moments(&self, id: &str) -> Vec<Timestamp> {
        let calls = self.receiver.calls();
        let own = calls.iter().filter_map(|call| call.timer().strip_prefix(id)?.strip_prefix('@')?.parse().ok());
        let mut moments: Vec<Timestamp> = own.collect();
        moments.sort();
        moments.dedup();
        moments
    }

    async fn fires(&self, id: &str, count: usize) -> Vec<Timestamp> {
        let look = async || Some(self.moments(id)).filter(|moments| moments.len() >= count);
        eventually(PATIENCE, &format!("{id} fires {count} times"), look).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_insert_recurs_each_second_and_never_early() {
    let world = World::new(Receiver::start().await).await;
    world.insert("tick", "* * * * * *").await;
    let moments = world.fires("tick", 4).await;
    assert!(moments.iter().all(|at| at.micros() % 1_000_000 == 0));
    for call in world.receiver.calls() {
        assert!(call.at >= call.scheduled_for() && call.body["attempt"] == 1, "{call:?}");
    }
    // What did not fire was noted: not a second is without its row.
    let gaps = "select count(*) from (
                    select scheduled_for - lag(coalesce(through_at, scheduled_for)) over (order by scheduled_for) as gap
                    from walclock.occurrences where schedule = 'tick') as gaps
                where gap <> interval '1 second'";
    assert_eq!(world.sql.query_one(gaps, &[]).await.unwrap().get::<_, i64>(0), 0);

    let trigger = "select walclock.trigger_schedule('default', 'tick')";
    let id: String = world.sql.query_one(trigger, &[]).await.unwrap().get(0);
    let look = async || world.receiver.by_timer().remove(&id);
    eventually(PATIENCE, "the triggered one arrives", look).await;
    let nobody = world.sql.query_one("select walclock.trigger_schedule('default', 'nobody')", &[]).await.unwrap_err();
    assert_eq!(nobody.as_db_error().unwrap().message(), "there is no schedule default/nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_update_is_followed() {
    let world = World::new(Receiver::start().await).await;
    world.insert("tick", "* * * * * *").await;
    world.insert("beside", "* * * * * *").await;
    world.fires("tick", 2).await;
    for (change, back) in [
        ("paused = true", "paused = false, catch_up = 'none'"),
        ("cron = '61 * * * *'", "cron = '*/1 * * * * *'"),
        ("cron = '0 0 1 1 *'", "cron = '* * * * * *'"),
    ] {
        let set = async |columns: &str| {
            let update = format!("update walclock.schedules set {columns} where id = 'tick'");
            world.sql.batch_execute(&update).await.unwrap();
            // It is committed, however long that took.
            wall()
        };
        let stopped_at = set(change).await;
        // Three more of the one beside it: this one would have had its chance. What had been claimed by then may come.
        world.fires("beside", world.moments("beside").len() + 3).await;
        let late: Vec<_> = world.moments("tick").into_iter().filter(|at| *at > stopped_at.after(SECOND)).collect();
        assert_eq!(late, [], "{change}");
        let begun_at = set(back).await;
        let look = async || world.moments("tick").into_iter().find(|at| *at > begun_at);
        eventually(PATIENCE, &format!("it fires again after {back}"), look).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_whose_place_is_taken_is_not_tried_again() {
    // The first one is held until the second one has come, and fails then.
    let (tell, told) = tokio::sync::watch::channel(Vec::new());
    let calls = told.clone();
    let receiver = Receiver::answering(move |call| {
        let mut is_first = false;
        tell.send_modify(|timers| {
            is_first = timers.is_empty();
            timers.push(call.timer().to_owned());
        });
        let mut told = told.clone();
        Box::pin(async move {
            if !is_first {
                return (StatusCode::OK, r#"{"ok":true}"#.to_owned());
            }
            let _ = told.wait_for(|timers| timers.len() > 1).await;
            (StatusCode::INTERNAL_SERVER_ERROR, String::new())
        })
    });
    let world = World::new(receiver.await).await;
    let insert = "insert into walclock.schedules (namespace, id, cron, callback_url, overlap, retry_interval_first)
                  values ('default', 'tick', '* * * * * *', $1, 'cancel_other', '1 millisecond')";
    world.sql.execute(insert, &[&world.receiver.url()]).await.unwrap();
    world.fires("tick", 3).await;
    let first = calls.borrow()[0].clone();
    let ask = "select last_error from walclock.runs where id = $1 and state = 'failed'";
    let look = async || world.sql.query_opt(ask, &[&first]).await.unwrap().map(|row| row.get::<_, String>(0));
    let error = eventually(PATIENCE, "it has failed", look).await;
    assert_eq!(error, "cancelled: it was deleted, or a later occurrence of its schedule takes its place");
    assert_eq!(world.receiver.by_timer()[&first].len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_whose_timers_id_is_taken_is_not_counted_as_fired() {
    let world = World::new(Receiver::start().await).await;
    // Each has one moment in this test, another second each, and somebody's timer in its place.
    let insert = "with schedules as (
                      insert into walclock.schedules (namespace, id, every, start_at, callback_url)
                      select 'default', 'taken-' || number, '1 year', now() + number * interval '1 second', $1
                      from generate_series(1, 5) as number
                      returning id, start_at
                  )
                  insert into walclock.timers (namespace, id, execute_at, callback_url)
                  select 'default', walclock.occurrence_id(id, start_at), start_at + interval '1 year', $1 from schedules";
    world.sql.execute(insert, &[&world.receiver.url()]).await.unwrap();
    let count = async |outcome: &str| {
        let name = format!("walclock_occurrences_total{{outcome=\"{outcome}\"}}");
        world.server.metric(&name).await.unwrap_or(0.0)
    };
    let one = async || (count("taken").await + count("fired").await > 0.0).then_some(());
    eventually(PATIENCE, "a moment is settled", one).await;
    assert!(count("taken").await > 0.0);
    assert!(count("fired").await == 0.0, "no moment has fired");
}
