//! Clients that create, move and cancel timers at random, by SQL and by HTTP, most of them about to be due, and note what
//! they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use walclock::clock::{Timestamp, wall};

use super::ledger::{ATTEMPTS_MAX, Act, Deed, Failure, NAMESPACE, Outcome, RETRY_FIRST, RETRY_MAX, Script, Want};
use crate::support::http;

/// Timers of one client: few, so that they are met again and again.
const TIMERS_OF_CLIENT: usize = 12;
/// An answer that takes longer is given up: the server may be frozen.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between a call that failed and the next.
const RETRY: Duration = Duration::from_millis(20);
const FAR: Duration = Duration::from_secs(3600);
const INSERT: &str = "insert into walclock.timers
    (namespace, id, execute_at, callback_url, payload,
     retry_attempts_max, retry_interval_first, retry_multiplier, retry_interval_max)
    values ($1, $2, $3, $4, $5::text::json, $6, $7 * interval '1 ms', 2, $8 * interval '1 ms')";
/// What the API's update does.
const MOVE: &str = "update walclock.timers set execute_at = $3, callback_url = $4, payload = $5::text::json,
    retry_at = null, attempts = 0, first_attempt_at = null, last_error = null where namespace = $1 and id = $2";
const CANCEL: &str = "delete from walclock.timers where namespace = $1 and id = $2";

/// What all clients share.
#[derive(Clone)]
pub struct Desk {
    /// The database, with nothing between.
    pub database: String,
    /// Where the servers' API is now; none while all of them are away.
    pub servers: Arc<Mutex<Vec<String>>>,
    /// Where a timer with this script calls.
    pub url: Arc<dyn Fn(Script) -> String + Send + Sync>,
    pub book: Arc<Mutex<Vec<Act>>>,
    numbers: Arc<AtomicI64>,
}

impl Desk {
    pub fn new(database: &str, url: impl Fn(Script) -> String + Send + Sync + 'static) -> Self {
        let (servers, book, numbers) = (Arc::default(), Arc::default(), Arc::default());
        Self { database: database.to_owned(), servers, url: Arc::new(url), book, numbers }
    }

    /// A want that nobody has had before.
    pub fn want(&self, due: Timestamp, script: Script) -> Want {
        Want { number: self.numbers.fetch_add(1, Ordering::Relaxed), due, script }
    }

    pub fn note(&self, timer: &str, deed: Deed, outcome: Outcome) {
        let act = Act { timer: timer.to_owned(), deed, answered_at: wall(), outcome };
        self.book.lock().push(act);
    }

    pub fn payload(want: Want) -> String {
        json!({"n": want.number, "due": want.due.micros()}).to_string()
    }

    /// Does something by SQL, and notes it. False where the connection broke.
    pub async fn by_sql(&self, sql: &Client, timer: &str, deed: Deed) -> bool {
        let wanted = deed.want().map(|want| (want.due, (self.url)(want.script), Self::payload(want)));
        let endless = deed.want().is_some_and(|want| want.script == Script::Outlasts);
        let attempts = (!endless).then(|| i32::try_from(ATTEMPTS_MAX).unwrap());
        let (first, most) = (millis(RETRY_FIRST), millis(RETRY_MAX));
        let done = match (deed, &wanted) {
            (Deed::Insert(_) | Deed::Create(_), Some((due, url, payload))) => {
                sql.execute(INSERT, &[&NAMESPACE, &timer, due, url, payload, &attempts, &first, &most]).await
            }
            (Deed::Move(_), Some((due, url, payload))) => {
                sql.execute(MOVE, &[&NAMESPACE, &timer, due, url, payload]).await
            }
            _ => sql.execute(CANCEL, &[&NAMESPACE, &timer]).await,
        };
        let (outcome, is_well) = match done {
            Ok(0) => (Outcome::Refused, true),
            Ok(_) => (Outcome::Done, true),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => (Outcome::Refused, true),
            Err(error) => {
                assert!(is_cut(&error), "{error:?} at {deed:?}");
                (Outcome::Unknown, false)
            }
        };
        self.note(timer, deed, outcome);
        is_well
    }

    /// Does something by the API of one of the servers, and notes it.
    pub async fn by_http(&self, server: &str, timer: &str, deed: Deed) {
        let policy = json!({"maxAttempts": ATTEMPTS_MAX, "backoffMultiplier": 2.0,
            "initialInterval": format!("{}ms", RETRY_FIRST.as_millis()),
            "maxInterval": format!("{}ms", RETRY_MAX.as_millis())});
        let wanted = |want: Want, id: &str| {
            json!({"namespace": NAMESPACE, id: timer, "executeAt": want.due.to_string(),
                "callbackUrl": (self.url)(want.script), "retryPolicy": policy,
                "payload": {"n": want.number, "due": want.due.micros()}})
        };
        let (operation, body) = match deed {
            Deed::Insert(want) | Deed::Create(want) => ("create", wanted(want, "id")),
            Deed::Move(want) => ("update", wanted(want, "timerId")),
            Deed::Cancel => ("delete", json!({"namespace": NAMESPACE, "timerId": timer})),
        };
        let headers = [("content-type", "application/json")];
        let (path, body) = (format!("/api/v1/timers/{operation}"), body.to_string());
        let call = http::try_request("POST", server, &path, &headers, &body);
        let outcome = match tokio::time::timeout(ANSWER_MAX, call).await {
            Ok(Some(answer)) => match answer.status {
                200 | 204 => Outcome::Done,
                400 | 404 => {
                    let text = String::from_utf8_lossy(&answer.body);
                    let known = ["TIMER_NOT_PENDING", "TIMER_NOT_FOUND", "must be a future timestamp"];
                    assert!(known.iter().any(|known| text.contains(known)), "{operation} {body}: {text}");
                    Outcome::Refused
                }
                500.. => Outcome::Unknown,
                status => panic!("{operation} {body}: {status}"),
            },
            Ok(None) | Err(_) => Outcome::Unknown,
        };
        self.note(timer, deed, outcome);
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// PostgreSQL went away, or is on its way, or has no room: no fault of the statement.
fn is_cut(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| matches!(code.code().get(..2), Some("57" | "08" | "53" | "58")))
}

/// Running clients.
pub struct Load {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    deeds: Arc<AtomicUsize>,
}

impl Load {
    /// Starts so many clients. `pause_max` is the longest pause between two deeds.
    pub fn start(desk: &Desk, rng: &mut fastrand::Rng, clients: usize, pause_max: Duration) -> Self {
        let (stop, deeds) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        // Those of another load begin anew.
        let series = desk.numbers.fetch_add(1, Ordering::Relaxed);
        let start = |index| {
            let timers = (0..TIMERS_OF_CLIENT).map(|timer| (format!("{series}-{index}-{timer}-0"), None)).collect();
            let (desk, rng, deeds) = (desk.clone(), rng.fork(), Arc::clone(&deeds));
            tokio::spawn(Random { desk, rng, timers, pause_max, deeds, sql: None }.run(stop.clone()))
        };
        let tasks = (0..clients).map(start).collect();
        Self { stop, tasks, deeds }
    }

    /// How much was done so far.
    pub fn deeds(&self) -> usize {
        self.deeds.load(Ordering::Relaxed)
    }

    pub async fn finish(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// One client.
struct Random {
    desk: Desk,
    rng: fastrand::Rng,
    /// Each with the moment that it is believed to be due.
    timers: Vec<(String, Option<Timestamp>)>,
    pause_max: Duration,
    deeds: Arc<AtomicUsize>,
    sql: Option<Client>,
}

impl Random {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let at = self.rng.usize(0..self.timers.len());
            self.act(at).await;
            self.deeds.fetch_add(1, Ordering::Relaxed);
            // The pace of the load.
            tokio::time::sleep(self.pause_max.mul_f64(self.rng.f64())).await;
        }
    }

    async fn act(&mut self, at: usize) {
        let (timer, due) = self.timers[at].clone();
        let deed = match (due, self.rng.u8(0..10)) {
            (Some(_), 0..=3) => Deed::Move(self.want()),
            (Some(_), 4..=6) => Deed::Cancel,
            (Some(_), 7) => Deed::Insert(self.want()),
            (None, 0..=4) => Deed::Insert(self.want()),
            _ => Deed::Create(self.want()),
        };
        let server = self.server();
        let by_sql = match deed {
            Deed::Insert(_) => true,
            Deed::Create(_) => false,
            Deed::Move(_) | Deed::Cancel => self.rng.bool(),
        };
        match server.filter(|_| !by_sql) {
            Some(server) => self.desk.by_http(&server, &timer, deed).await,
            None if matches!(deed, Deed::Create(_)) => return tokio::time::sleep(RETRY).await,
            None => {
                if self.sql.as_ref().is_none_or(Client::is_closed) {
                    self.sql = self.connect().await;
                }
                let Some(sql) = &self.sql else { return tokio::time::sleep(RETRY).await };
                if !self.desk.by_sql(sql, &timer, deed).await {
                    self.sql = None;
                }
            }
        }
        let outcome = self.last_outcome(&timer);
        self.timers[at] = match (outcome, deed) {
            // Nobody knows what it is now: its client has another one from here on.
            (Outcome::Unknown, _) => (next_name(&timer), None),
            (Outcome::Done, deed) => (timer, deed.want().map(|want| want.due)),
            (Outcome::Refused, Deed::Insert(_)) => (timer, due),
            (Outcome::Refused, _) => (timer, None),
        };
    }

    fn last_outcome(&self, timer: &str) -> Outcome {
        let book = self.desk.book.lock();
        book.iter().rev().find(|act| act.timer == timer).expect("it was just noted").outcome
    }

    fn server(&mut self) -> Option<String> {
        let servers = self.desk.servers.lock();
        self.rng.choice(servers.iter()).cloned()
    }

    async fn connect(&self) -> Option<Client> {
        let (client, connection) = tokio_postgres::connect(&self.desk.database, NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    fn want(&mut self) -> Want {
        let ahead = match self.rng.u8(0..10) {
            0 => FAR,
            1..=5 => Duration::from_millis(self.rng.u64(5..80)),
            _ => Duration::from_millis(self.rng.u64(80..600)),
        };
        let times = self.rng.u32(1..=ATTEMPTS_MAX);
        let script = match self.rng.u8(0..16) {
            0 => Script::Fails(Failure::Error, times),
            1 => Script::Fails(Failure::Busy, 1),
            2 => Script::Fails(Failure::NotDone, times),
            3 => Script::Fails(Failure::Reset, 1),
            4 => Script::Refuses,
            5 => Script::Again(self.rng.u32(1..=3)),
            _ => Script::Takes,
        };
        self.desk.want(wall().after(ahead + Duration::from_micros(self.rng.u64(0..1000))), script)
    }
}

fn next_name(timer: &str) -> String {
    let (name, count) = timer.rsplit_once('-').unwrap();
    format!("{name}-{}", count.parse::<u32>().unwrap() + 1)
}
