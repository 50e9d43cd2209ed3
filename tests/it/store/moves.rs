//! Timers that a client moves in plain SQL: the new moment counts, whatever the timer had been waiting for.

use tokio_postgres::Client;

use crate::support;

/// A timer `a` that waits for its third attempt.
const WAITING: &str = "
    insert into walclock.timers (namespace, id, execute_at, callback_url, attempts, retry_at, first_attempt_at, last_error)
    values ('n', 'a', '2029-01-01 00:00+00', 'http://example.com/', 2, '2029-01-01 00:05+00', '2029-01-01 00:00+00', 'answered 500')
    on conflict (namespace, id) do update set execute_at = excluded.execute_at, retry_at = excluded.retry_at,
        attempts = excluded.attempts, first_attempt_at = excluded.first_attempt_at, last_error = excluded.last_error";

/// When it is due, its attempts, and whether there is anything left of them.
async fn standing(client: &Client) -> (String, i32, bool) {
    let ask = "select to_char(due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), attempts,
                      (first_attempt_at, last_error, retry_at) is distinct from (null, null, null)
               from walclock.timers where id = 'a'";
    let row = client.query_one(ask, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_timer_is_due_at_its_new_moment_and_not_at_that_of_its_retry() {
    let client = support::connect(&support::migrated().await).await;
    for change in [
        "update walclock.timers set execute_at = '2030-06-01 00:00+00'",
        "update walclock.timers set execute_at = execute_at + interval '516 days', payload = '{}'",
        "insert into walclock.timers (namespace, id, execute_at, callback_url)
         values ('n', 'a', '2030-06-01 00:00+00', 'http://example.com/')
         on conflict (namespace, id) do update set execute_at = excluded.execute_at",
    ] {
        client.batch_execute(WAITING).await.unwrap();
        client.batch_execute(change).await.unwrap();
        assert_eq!(standing(&client).await, ("2030-06-01 00:00".to_owned(), 0, false), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_no_timer_leaves_its_attempts() {
    let client = support::connect(&support::migrated().await).await;
    for (change, due_at) in [
        ("update walclock.timers set payload = '{\"b\": 1}'", "2029-01-01 00:05"),
        ("update walclock.timers set execute_at = execute_at, payload = null", "2029-01-01 00:05"),
        ("update walclock.timers set execute_at = '2030-01-01', retry_at = '2030-01-01 00:07+00'", "2030-01-01 00:07"),
    ] {
        client.batch_execute(WAITING).await.unwrap();
        client.batch_execute(change).await.unwrap();
        assert_eq!(standing(&client).await, (due_at.to_owned(), 2, true), "{change}");
    }
}
