//! A publication that goes and comes back under load: what was left out is told as a gap, on every version.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use walclock::domain::sequence::Sequence;
use walclock::feed::query;

use super::DEADLINE;
use super::feed::{filled, id, insert};
use crate::support;

/// PostgreSQL 18 only warns, the versions before it end the stream. Either way nothing is left out between two changes
/// that a reader is told one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn no_hole_opens_while_a_publication_comes_and_goes() {
    let url = support::database().await;
    let (client, _, running, mut since) = filled(&url).await;
    let (written, mut count) = watch::channel(10);
    let done = AtomicBool::new(false);
    let write = async {
        let mut next = 10;
        while !done.load(Ordering::Relaxed) {
            insert(&client, next..next + 1).await;
            next += 1;
            written.send_replace(next);
        }
        next
    };
    let publish = async {
        let admin = support::connect(&url).await;
        for _ in 0..2 {
            let mut more = async |rows: i32| {
                let goal = *count.borrow() + rows;
                count.wait_for(|written| *written >= goal).await.unwrap();
            };
            more(20).await;
            admin.batch_execute("drop publication feed").await.unwrap();
            more(20).await;
            admin.batch_execute("create publication feed for table notes").await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    let (mut next, ()) = tokio::join!(write, publish);
    let last = i64::from(next);

    let (mut gaps, mut previous) = (0, Some(9));
    support::eventually(DEADLINE, "the feed tells of a gap and of what came behind it", async || {
        match running.changes(since).await {
            Ok(page) => {
                for one in &page.changes {
                    let id = id(&one.body);
                    assert!(previous.is_none_or(|previous| id == previous + 1), "{id} follows {previous:?}");
                    previous = Some(id);
                }
                since = page.last;
            }
            Err(query::Error::TooOld) => {
                (since, previous) = (Sequence::ZERO, None);
                gaps += 1;
            }
            Err(error) => panic!("{error}"),
        }
        insert(&client, next..next + 1).await;
        next += 1;
        (gaps > 0 && previous >= Some(last)).then_some(())
    })
    .await;
    running.stop().await;
}
