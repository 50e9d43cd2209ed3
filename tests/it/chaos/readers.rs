//! Readers: they follow `/changes` by long poll, whatever becomes of the server, and note what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use tokio_postgres::{IsolationLevel, NoTls};
use tokio_util::sync::CancellationToken;
use walclock::domain::sequence::Sequence;

use super::ledger::{Base, History, Life, Page, Told};
use super::writers::read_tables;
use crate::support::http;

/// An answer that takes longer is given up: the server may be frozen.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between a call that failed and the next.
const RETRY: Duration = Duration::from_millis(20);

/// Where the server is now: it may start anew on another port.
pub type Place = Arc<Mutex<String>>;

/// A running reader.
pub struct Reader {
    history: Arc<Mutex<History>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Reader {
    /// Follows from the oldest change on; beginnings anew read the tables in `database`.
    pub fn start(place: &Place, database: &str, rng: &mut fastrand::Rng, history: History) -> Self {
        let history = Arc::new(Mutex::new(history));
        let stop = CancellationToken::new();
        let following = Following {
            place: Arc::clone(place),
            database: database.to_owned(),
            rng: rng.fork(),
            history: Arc::clone(&history),
        };
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = following.run() => {}
                }
            }
        });
        Self { history, stop, task }
    }

    /// Its cursor.
    pub fn at(&self) -> Sequence {
        let history = self.history.lock();
        history.lives.last().and_then(|life| life.pages.last()).map_or(Sequence::ZERO, |page| page.last)
    }

    /// How many changes it was told.
    pub fn told(&self) -> usize {
        self.history.lock().lives.iter().flat_map(Life::changes).count()
    }

    /// How often it was sent back to a beginning.
    pub fn gaps(&self) -> usize {
        self.history.lock().lives.len() - 1
    }

    /// Whether it is still well: one that met a wrong answer is not.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// All that it has been told so far.
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// Ends it, and gives all that it was told.
    pub async fn finish(self) -> History {
        self.stop.cancel();
        self.task.await.unwrap();
        self.history.lock().clone()
    }
}

struct Following {
    place: Place,
    database: String,
    rng: fastrand::Rng,
    history: Arc<Mutex<History>>,
}

enum Answer {
    Page(Page),
    TooOld,
    /// Nobody is there, or not ready, or gone in the middle of the answer.
    Nothing,
}

impl Following {
    async fn run(mut self) {
        loop {
            match self.ask().await {
                Answer::Page(page) => self.life(|life| life.pages.push(page)),
                Answer::TooOld => {
                    let base = self.base().await;
                    let life = Life { base: Some(base), pages: Vec::new() };
                    self.history.lock().lives.push(life);
                }
                Answer::Nothing => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn life<T>(&self, act: impl FnOnce(&mut Life) -> T) -> T {
        act(self.history.lock().lives.last_mut().expect("it has always begun"))
    }

    async fn ask(&mut self) -> Answer {
        let (since, snapshot) = self.life(|life| {
            let since = life.pages.last().map_or(Sequence::ZERO, |page| page.last);
            (since, life.base.as_ref().map(|base| base.snapshot.clone()))
        });
        let mut query = format!("/changes?limit={}&block={}", self.rng.usize(1..=60), self.rng.u8(0..=2));
        for scope in self.history.lock().scopes.iter().filter(|scope| !scope.is_empty()) {
            query.push_str(&format!("&scope={scope}"));
        }
        if since != Sequence::ZERO {
            query.push_str(&format!("&since={since}"));
        }
        if let Some(snapshot) = snapshot {
            let open: Vec<String> = snapshot.in_progress().iter().map(u64::to_string).collect();
            query.push_str(&format!("&snapshot={}:{}:{}", snapshot.xmin, snapshot.xmax, open.join(",")));
        }
        let place = self.place.lock().clone();
        let call = http::try_request("GET", &place, &query, &[], "");
        let Ok(Some(answer)) = tokio::time::timeout(ANSWER_MAX, call).await else { return Answer::Nothing };
        let body = std::str::from_utf8(&answer.body).unwrap();
        match answer.status {
            200 => Answer::Page(page(since, body)),
            400 if body.contains("SNAPSHOT_TOO_OLD") => Answer::TooOld,
            503 => Answer::Nothing,
            status => panic!("{query}: {status} {body}"),
        }
    }

    /// Reads the tables, until PostgreSQL lets it.
    async fn base(&self) -> Base {
        loop {
            if let Ok(base) = read_base(&self.database).await {
                return base;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The tables and the snapshot that they were read in.
pub async fn read_base(database: &str) -> Result<Base, tokio_postgres::Error> {
    let (mut client, connection) = tokio_postgres::connect(database, NoTls).await?;
    tokio::spawn(connection);
    let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await?;
    let snapshot: String = transaction.query_one("select pg_current_snapshot()::text", &[]).await?.get(0);
    let rows = read_tables(&transaction).await?;
    transaction.commit().await?;
    Ok(Base { snapshot: snapshot.parse().unwrap(), rows })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePage<'a> {
    last_sequence: String,
    #[serde(borrow)]
    changes: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireChange {
    operation: u8,
    table: String,
    sequence: String,
    commit_sequence: u64,
    txid: u64,
    #[serde(default)]
    new_row: Option<BTreeMap<String, WireValue>>,
    #[serde(default)]
    old_row: Option<BTreeMap<String, WireValue>>,
}

#[derive(Deserialize)]
struct WireValue {
    value: serde_json::Value,
}

fn page(since: Sequence, body: &str) -> Page {
    let page: WirePage<'_> = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let changes = page.changes.iter().map(|raw| told(raw.get())).collect();
    Page { since, last: page.last_sequence.parse().unwrap(), changes }
}

fn told(raw: &str) -> Told {
    let change: WireChange = serde_json::from_str(raw).unwrap_or_else(|error| panic!("{error}: {raw}"));
    let sequence: Sequence = change.sequence.parse().unwrap();
    assert_eq!(sequence.lsn.0, change.commit_sequence, "{raw}");
    let row = if change.operation == 3 { &change.old_row } else { &change.new_row };
    let text = |name: &str| row.as_ref().and_then(|row| row.get(name)).and_then(|cell| cell.value.as_str());
    let number = |name: &str| text(name).map_or(0, |text| text.parse().unwrap());
    let body = text("body").filter(|_| change.operation < 3).map(str::to_owned);
    let seen = (change.operation, (change.table, number("id")), number("n"));
    Told { sequence, txid: change.txid, seen, body, raw: raw.to_owned() }
}
