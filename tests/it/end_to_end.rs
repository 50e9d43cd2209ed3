//! From an INSERT to a callback, through the built binary, a real PostgreSQL and real sockets.

use std::time::Duration;

use serde_json::json;
use walclock::clock::{Timestamp, wall};

use super::support::receiver::Receiver;
use super::support::server::{Server, folder};
use super::support::{PATIENCE, connect, database, eventually};

/// How far ahead a timer is due that something is done about before, on a busy machine, too.
const AHEAD: Duration = Duration::from_secs(8);

/// A server with a database and a receiver of its own.
struct World {
    server: Server,
    receiver: Receiver,
    sql: tokio_postgres::Client,
}

impl World {
    async fn new() -> Self {
        let url = database().await;
        // Those of a real server: a busy machine does not lose them.
        let server = Server::start_flagged(&url, &folder(), &["--lease-ttl", "10s"]).await;
        Self { server, receiver: Receiver::start().await, sql: connect(&url).await }
    }

    async fn insert(&self, id: &str, due_in: Duration) {
        let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url, payload)
            values ('default', $1, now() + $2::bigint * interval '1 microsecond', $3, '{\"n\": 1}')";
        let micros = i64::try_from(due_in.as_micros()).unwrap();
        self.sql.execute(insert, &[&id, &micros, &self.receiver.url()]).await.unwrap();
    }

    /// Waits until a timer inserted now has arrived: whatever was due before it has had its chance.
    async fn barrier(&self) {
        self.insert("barrier", Duration::ZERO).await;
        self.arrives("barrier").await;
    }

    async fn arrives(&self, id: &str) -> super::support::receiver::Call {
        let look = async || self.receiver.by_timer().remove(id).map(|mut calls| calls.remove(0));
        eventually(PATIENCE, &format!("{id} arrives"), look).await
    }

    async fn status(&self, id: &str) -> Option<String> {
        let query =
            "select status from walclock.timer_status where id = $1 order by claimed_at desc nulls first limit 1";
        self.sql.query_opt(query, &[&id]).await.unwrap().map(|row| row.get(0))
    }

    async fn settles_as(&self, id: &str, status: &str) {
        let look = async || (self.status(id).await.as_deref() == Some(status)).then_some(());
        eventually(PATIENCE, &format!("{id} is {status}"), look).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_by_sql_fires_at_its_time_and_never_early() {
    let world = World::new().await;
    for tens in 0..20_u32 {
        world.insert(&format!("t{tens}"), Duration::from_millis(u64::from(tens) * 70)).await;
    }
    for tens in 0..20 {
        let id = format!("t{tens}");
        let call = world.arrives(&id).await;
        assert!(call.at >= call.scheduled_for(), "{id} was due at {} and came at {}", call.scheduled_for(), call.at);
        assert_eq!(call.body["namespace"], "default");
        assert_eq!(call.body["payload"], json!({"n": 1}));
        assert_eq!(call.body["attempt"], 1);
        world.settles_as(&id, "succeeded").await;
    }
    assert_eq!(world.receiver.calls().len(), 20, "each exactly once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_by_http_fires_at_its_time_and_never_early() {
    let world = World::new().await;
    let execute_at = wall().after(AHEAD);
    let timer = json!({"namespace": "default", "id": "h", "executeAt": execute_at.to_string(),
        "callbackUrl": world.receiver.url(), "payload": {"user": "ünï", "n": [1, 2.50]}});
    let (status, body) = world.server.post("/api/v1/timers/create", &timer).await;
    assert_eq!(status, 200, "{body}");
    let call = world.arrives("h").await;
    assert!(call.at >= execute_at);
    assert_eq!(call.scheduled_for(), execute_at);
    assert_eq!(call.body["payload"], timer["payload"]);
    world.settles_as("h", "succeeded").await;
    let (_, got) = world.server.post("/api/v1/timers/get", &json!({"namespace": "default", "timerId": "h"})).await;
    assert_eq!(got["status"], "succeeded");
    assert!(got["executedAt"].as_str().unwrap().parse::<Timestamp>().unwrap() >= execute_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_insert_never_fires() {
    let mut world = World::new().await;
    let url = world.receiver.url();
    let transaction = world.sql.transaction().await.unwrap();
    let insert =
        "insert into walclock.timers (namespace, id, execute_at, callback_url) values ('default', 'no', now(), $1)";
    transaction.execute(insert, &[&url]).await.unwrap();
    transaction.rollback().await.unwrap();
    world.barrier().await;
    assert_eq!(world.receiver.by_timer().keys().collect::<Vec<_>>(), ["barrier"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_or_an_update_before_the_due_time_wins() {
    let world = World::new().await;
    for id in ["deleted", "moved", "redirected"] {
        world.insert(id, AHEAD).await;
    }
    let deleted = world.sql.execute("delete from walclock.timers where id = 'deleted'", &[]).await.unwrap();
    let moved = "update walclock.timers set execute_at = execute_at + interval '1 second' where id = 'moved'
                 returning execute_at";
    let moved_to: Timestamp = world.sql.query_one(moved, &[]).await.unwrap().get(0);
    let body = json!({"namespace": "default", "timerId": "redirected", "payload": {"n": 2}});
    let (status, _) = world.server.post("/api/v1/timers/update", &body).await;
    assert_eq!((deleted, status), (1, 200), "all three came before the claim");
    let moved = world.arrives("moved").await;
    assert!(moved.at >= moved.scheduled_for() && moved.scheduled_for() == moved_to);
    assert_eq!(world.arrives("redirected").await.body["payload"], json!({"n": 2}));
    world.barrier().await;
    assert!(!world.receiver.by_timer().contains_key("deleted"));
    assert_eq!(world.receiver.by_timer()["moved"].len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_shows_a_table_of_the_users() {
    let world = World::new().await;
    world
        .sql
        .batch_execute(
            "create table notes (id int primary key, _change_selector text, body text);
             alter table notes replica identity full;
             select walclock.publish('notes');
             insert into notes values (1, 'tenant:7', 'hello')",
        )
        .await
        .unwrap();
    let (status, page) = world.server.get("/changes?scope=tenant:7&block=20").await;
    assert_eq!(status, 200, "{page}");
    let row = &page["changes"][0]["newRow"];
    assert_eq!(page["changes"].as_array().unwrap().len(), 1);
    assert_eq!(page["changes"][0]["table"], "public.notes");
    assert_eq!(row["body"], json!({"value": "hello", "type": 25}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_server_leaves_nothing_running() {
    let world = World::new().await;
    for n in 0..50 {
        world.insert(&format!("d{n}"), Duration::ZERO).await;
    }
    world.arrives("d49").await;
    let World { server, sql, .. } = world;
    assert_eq!(server.terminate().await, 0);
    let running: i64 =
        sql.query_one("select count(*) from walclock.runs where state = 'running'", &[]).await.unwrap().get(0);
    assert_eq!(running, 0);
    let leased: i64 =
        sql.query_one("select count(*) from walclock.shards where expires_at > now()", &[]).await.unwrap().get(0);
    assert_eq!(leased, 0, "its leases are free at once");
}
