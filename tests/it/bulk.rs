//! One statement of plain SQL over very many pending timers: paused, cancelled, moved and sent elsewhere, while some of them
//! are being fired. With `SOAK=n` there are a million of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::chaos::soak;
use super::support::receiver::Receiver;
use super::support::server::{Server, folder};
use super::support::{connect, database, eventually};

const PATIENCE: Duration = Duration::from_secs(300);
/// The most that a server may ever have resident: hints of all of them, had they stayed in its memory as they came, and the
/// transactions themselves are each larger.
const MEMORY_MAX: u64 = 400 << 20;

struct World {
    server: Server,
    receiver: Receiver,
    elsewhere: Receiver,
    sql: Client,
    began: Instant,
}

impl World {
    async fn new() -> Self {
        let url = database().await;
        let server = Server::start(&url, &folder()).await;
        let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
        Self { server, receiver, elsewhere, sql: connect(&url).await, began: Instant::now() }
    }

    /// One statement; returns how many rows it changed, once its commit is acknowledged.
    async fn run(&self, statement: &str) -> u64 {
        let start = Instant::now();
        let rows = self.sql.execute(statement, &[]).await.unwrap();
        self.say(&format!("{rows} rows in {:.1?}: {statement}", start.elapsed()));
        rows
    }

    /// Waits until a timer that is due at this moment has arrived, as each that was due before it has had its chance to.
    async fn canary(&self, id: &str, due_at: &str) {
        let start = Instant::now();
        let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
            values ('canary', $1, $2::text::timestamptz, $3)";
        self.sql.execute(insert, &[&id, &due_at, &self.receiver.url()]).await.unwrap();
        let look = async || self.receiver.calls().iter().any(|call| call.timer() == id).then_some(());
        eventually(PATIENCE, &format!("{id} arrives"), look).await;
        self.say(&format!("{id} arrived {:.1?} after its INSERT", start.elapsed()));
    }

    #[expect(clippy::print_stderr, reason = "figures for people")]
    fn say(&self, what: &str) {
        eprintln!("{:6.1?} {:4} MiB  {what}", self.began.elapsed(), self.server.memory_peak() >> 20);
    }

    /// A sweep may see a statement's rows before the feed, which reads them one after the other. None of them was missed.
    async fn nothing_was_missed(&self) {
        let told = async || self.server.metric("walclock_sweep_found_total").await;
        assert_eq!(eventually(PATIENCE, "it tells what was missed", told).await, 0.0);
    }

    async fn one(&self, query: &str) -> i64 {
        self.sql.query_one(query, &[]).await.unwrap().get(0)
    }
}

/// The timers that have called, each of which must have called once.
fn called(receiver: &Receiver) -> BTreeSet<String> {
    let calls = receiver.by_timer();
    for (timer, calls) in &calls {
        assert_eq!(calls.len(), 1, "{timer} fired more than once");
        assert!(calls[0].at >= calls[0].scheduled_for(), "{timer} fired early");
    }
    calls.into_keys().filter(|timer| timer.starts_with('t')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_over_very_many_timers_is_followed() {
    let world = World::new().await;
    let (count, apart) = if soak() > 1 { (1_000_000, "30 microseconds") } else { (50_000, "300 microseconds") };
    let url = world.receiver.url();
    world
        .run(&format!(
            "insert into walclock.timers (namespace, id, execute_at, callback_url)
             select 'n', 't' || lpad(g::text, 7, '0'), now() + interval '5 s' + g * interval '{apart}', '{url}'
             from generate_series(1, {count}) g"
        ))
        .await;
    let last_due = "select max(execute_at)::text from walclock.timers where namespace = 'n'";
    let last_due: Option<String> = world.sql.query_one(last_due, &[]).await.unwrap().get(0);

    // Paused while they are being fired. Whichever the statement has moved does not fire any more.
    let some_fire = async || (!called(&world.receiver).is_empty()).then_some(());
    eventually(PATIENCE, "some fire", some_fire).await;
    let paused = world.run("update walclock.timers set execute_at = '2090-01-01Z' where namespace = 'n'").await;
    assert!(paused > 0, "some were still pending");
    let over = world.one("select count(*) from walclock.runs where namespace = 'n'").await;
    assert_eq!(paused + u64::try_from(over).unwrap(), count, "each is a run or paused");
    world.canary("c1", "now").await;
    world.canary("c2", &last_due.unwrap_or("now".to_owned())).await;
    world.nothing_was_missed().await;
    let fired = called(&world.receiver);
    assert_eq!(fired.len(), usize::try_from(over).unwrap(), "only those that the statement found no more");

    // Cancelled, nearly all of them; the others moved near, and sent elsewhere.
    let cancelled = world.run("delete from walclock.timers where namespace = 'n' and id not like '%77'").await;
    let elsewhere = world.elsewhere.url();
    let moved = format!(
        "update walclock.timers set execute_at = now() + interval '2 s', callback_url = '{elsewhere}' where namespace = 'n'"
    );
    let moved = world.run(&moved).await;
    assert_eq!(cancelled + moved, paused);
    let all_came = async || (called(&world.elsewhere).len() as u64 == moved).then_some(());
    eventually(PATIENCE, "those that were moved fire", all_came).await;
    world.canary("c3", "now").await;
    assert_eq!(called(&world.receiver), fired, "nothing fires by its old definition");
    assert!(called(&world.elsewhere).is_disjoint(&fired));
    assert_eq!(called(&world.elsewhere).len() as u64, moved);
    assert_eq!(world.one("select count(*) from walclock.timers").await, 0);
    world.nothing_was_missed().await;
    let peak = world.server.memory_peak();
    world.say("over");
    assert!(peak <= MEMORY_MAX, "{} MiB", peak >> 20);
}
