//! Writes that meet each other, and the dispatcher's claim.

use std::sync::Arc;

use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use super::face::{Answer, Face, claim, create_request, gave_up, selection, timeless, with};
use crate::support::{self, eventually};

/// Starts an operation on a timer whose row `holder` has locked, and returns once it waits for that lock.
async fn waiting(face: &Arc<Face>, operation: &'static str) -> JoinHandle<Answer> {
    let update = with(selection("a"), json!({ "payload": { "new": true } }));
    let body = if operation == "update" { update } else { selection("a") };
    let caller = Arc::clone(face);
    let call = tokio::spawn(async move { caller.call(operation, &body).await });
    let waits = "select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%walclock.timers%'";
    let asks = async || (!face.sql.query(waits, &[]).await.unwrap().is_empty()).then_some(());
    eventually(support::PATIENCE, "the write waits for the row", asks).await;
    call
}

/// Plays a round on a face of its own, again where its write gave up: a busy machine may take longer than it waits.
async fn answered(round: impl AsyncFn(Arc<Face>, tokio_postgres::Client) -> Answer) -> Answer {
    eventually(support::PATIENCE, "the write does not give up", async || {
        let face = Arc::new(Face::start().await);
        face.create("a").await;
        let dispatcher = support::connect(&face.database_url).await;
        dispatcher.batch_execute("begin").await.unwrap();
        claim(&dispatcher, "a", "running").await;
        Some(round(face, dispatcher).await).filter(|answer| !gave_up(&answer.text))
    })
    .await
}

/// A write that came while a claim was under way is told that the timer is not pending, and never that there is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_behind_a_claim_is_told_of_the_run() {
    for operation in ["update", "delete"] {
        let answer = answered(async |face, dispatcher| {
            let call = waiting(&face, operation).await;
            dispatcher.batch_execute("commit").await.unwrap();
            call.await.unwrap()
        })
        .await;
        assert_eq!((answer.status, &answer.json["error"]), (400, &json!("TIMER_NOT_PENDING")), "{operation}");
    }
}

/// A claim that comes to nothing leaves the write to happen.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_behind_a_claim_that_fails_happens() {
    for (operation, status) in [("update", 200), ("delete", 204)] {
        let answer = answered(async |face, dispatcher| {
            let call = waiting(&face, operation).await;
            dispatcher.batch_execute("rollback").await.unwrap();
            call.await.unwrap()
        })
        .await;
        assert_eq!(answer.status, status, "{operation}");
    }
}

/// A timer that was claimed, failed and put back for a retry while the write waited is pending: the write happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_behind_a_retry_happens() {
    for (operation, status) in [("update", 200), ("delete", 204)] {
        let answer = answered(async |face, dispatcher| {
            let put_back = "with back as (delete from walclock.runs returning *)
                insert into walclock.timers (namespace, id, execute_at, retry_at, callback_url, attempts)
                select namespace, id, execute_at, '2091-01-01Z', callback_url, attempts from back";
            assert_eq!(dispatcher.execute(put_back, &[]).await.unwrap(), 1);
            let call = waiting(&face, operation).await;
            dispatcher.batch_execute("commit").await.unwrap();
            let answer = call.await.unwrap();
            let left = "select count(*) from walclock.timers where payload is null";
            let left: i64 = face.sql.query_one(left, &[]).await.unwrap().get(0);
            assert!(left == 0 || gave_up(&answer.text), "{operation}");
            answer
        })
        .await;
        assert_eq!(answer.status, status, "{operation}");
    }
}

/// Behind a transaction that does not end, a write gives up, and says that it may be tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_behind_a_long_transaction_gives_up() {
    let face = Face::start().await;
    face.create("a").await;
    let holder = support::connect(&face.database_url).await;
    holder.batch_execute("begin; update walclock.timers set payload = '{}'").await.unwrap();
    let moved = with(selection("a"), json!({ "payload": { "new": true } }));
    let (request, selection) = (create_request("a"), selection("a"));
    let calls = (face.call("create", &request), face.call("update", &moved), face.call("delete", &selection));
    let answers = tokio::join!(calls.0, calls.1, calls.2);
    for answer in [answers.0, answers.1, answers.2] {
        let message = "timer n/a is being changed by others at this moment, try again";
        assert_eq!(timeless(&answer), json!({ "error": "INTERNAL_ERROR", "message": message }));
    }
    holder.batch_execute("rollback").await.unwrap();
    assert_eq!(face.call("delete", &selection).await.status, 204);
}

/// The first timers of a namespace all make it.
#[tokio::test(flavor = "multi_thread")]
async fn many_may_be_the_first_of_a_namespace() {
    let face = Arc::new(Face::start().await);
    let mut calls = JoinSet::new();
    for n in 0..20 {
        let face = Arc::clone(&face);
        calls.spawn(async move { face.create(&format!("t{n}")).await });
    }
    assert_eq!(calls.join_all().await.len(), 20);
    let rows = "select (select count(*) from walclock.timers), (select count(*) from walclock.namespaces)";
    let row = face.sql.query_one(rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (20, 1));
}

/// Whatever writes meet on one id, each gets an answer that the specification has, and what the last one left is there.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_meet_are_all_answered() {
    let face = Arc::new(Face::start().await);
    let mut calls = JoinSet::new();
    for n in 0..8 {
        let face = Arc::clone(&face);
        calls.spawn(async move {
            for round in 0..20 {
                let (operation, body, statuses) = match (n + round) % 4 {
                    0 | 1 => ("create", create_request("a"), &[200][..]),
                    2 => ("update", with(selection("a"), json!({ "payload": { "n": n } })), &[200, 404][..]),
                    _ => ("delete", selection("a"), &[204, 404][..]),
                };
                let mut answer = face.call(operation, &body).await;
                for _ in 0..50 {
                    if !gave_up(&answer.text) {
                        break;
                    }
                    answer = face.call(operation, &body).await;
                }
                assert!(statuses.contains(&answer.status), "{operation} answered {}", answer.text);
            }
        });
    }
    calls.join_all().await;
    face.create("a").await;
    assert_eq!(face.call("delete", &selection("a")).await.status, 204);
    assert_eq!(face.call("get", &selection("a")).await.status, 404);
}
