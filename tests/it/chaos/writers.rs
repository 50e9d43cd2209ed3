//! Writers: seeded transactions of every kind, each noted in the ledger before and after.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use super::ledger::{Act, Key, Outcome, Row, Rows, Scopes, Transaction};

/// The tables, which the feed publishes, and the writers' own note of what was committed, which it does not.
const SCHEMA: &str = "
    create table plain (id bigint primary key, n bigint not null, body text not null, _change_selector text);
    create table tagged (id bigint primary key, n bigint not null, body text not null, _change_selector text[]);
    create table brief (id bigint primary key, n bigint not null, body text not null, _change_selector text);
    create table kept (number bigint primary key, txid xid8 not null);
    alter table plain alter body set storage external, replica identity full;
    alter table tagged alter body set storage external, replica identity full;
    alter table brief replica identity full;
    select walclock.publish('plain'), walclock.publish('tagged'), walclock.publish('brief')";
const READ: &str = "
    select 'public.plain', id, n, body, array[coalesce(_change_selector, '')] from plain union all
    select 'public.brief', id, n, body, array[coalesce(_change_selector, '')] from brief union all
    select 'public.tagged', id, n, body, case when cardinality(_change_selector) > 0 then _change_selector else '{\"\"}' end
    from tagged";
/// The scopes of the rows; with the empty one beside them.
pub const SCOPES: [&str; 4] = ["a", "b", "c", "d"];
/// Few, so that rows are met again and again.
const IDS_OF_WRITER: i64 = 10;

/// Makes the tables in a database with the schema.
pub async fn make_tables(client: &Client) {
    client.batch_execute(SCHEMA).await.unwrap();
}

/// What the tables hold, as one statement sees them.
pub async fn read_tables(client: &impl tokio_postgres::GenericClient) -> Result<Rows, tokio_postgres::Error> {
    let rows = client.query(READ, &[]).await?;
    let read = rows.iter().map(|row| {
        let scopes: Vec<String> = row.get(4);
        let held = Row { n: row.get(2), body: row.get(3), scopes: scopes.into_iter().collect() };
        ((row.get::<_, &str>(0).to_owned(), row.get(1)), held)
    });
    Ok(read.collect())
}

/// Running writers and their ledger.
pub struct Load {
    url: String,
    book: Arc<Mutex<Vec<Transaction>>>,
    stop: CancellationToken,
    rests: Arc<AtomicBool>,
    pause_max: Duration,
    /// How many there ever were.
    writers: usize,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts so many writers on a database with the tables. `pause_max` is the longest pause between two transactions,
    /// and inside of one.
    pub fn start(url: &str, rng: &mut fastrand::Rng, writers: usize, pause_max: Duration) -> Self {
        let (book, stop, rests) = (Arc::default(), CancellationToken::new(), Arc::default());
        let mut load = Self { url: url.to_owned(), book, stop, rests, pause_max, writers: 0, tasks: Vec::new() };
        for _ in 0..writers {
            let writer = load.writer(rng);
            load.tasks.push(tokio::spawn(writer.run(load.stop.clone())));
        }
        load
    }

    /// One more writer, with rows of its own.
    fn writer(&mut self, rng: &mut fastrand::Rng) -> Writer {
        self.writers += 1;
        Writer {
            index: self.writers - 1,
            rng: rng.fork(),
            rows: Rows::new(),
            n: 0,
            book: Arc::clone(&self.book),
            url: self.url.clone(),
            rests: Arc::clone(&self.rests),
            pause_max: self.pause_max,
            last: None,
        }
    }

    /// Begins a transaction that stays open. It has rows for readers of every scope, but for bad luck.
    pub async fn hold(&mut self, rng: &mut fastrand::Rng) -> Held {
        let mut writer = self.writer(rng);
        let client = writer.connect().await.expect("PostgreSQL is there");
        let mut plan = Plan::default();
        for _ in 0..12 {
            writer.act(&mut plan);
        }
        let open = writer.begin(&client, plan).await.expect("PostgreSQL is there");
        Held { writer, client, open }
    }

    /// Lets the writers rest, but for what they have begun, or go on.
    pub fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// How many transactions were committed so far, as far as is known.
    pub fn committed(&self) -> usize {
        self.book.lock().iter().filter(|transaction| transaction.committed()).count()
    }

    /// How many writers are no more: none, as long as nothing failed.
    pub fn ended(&self) -> usize {
        self.tasks.iter().filter(|task| task.is_finished()).count()
    }

    /// Ends the writers, and settles what is open by what the database holds: the ledger, and the tables.
    pub async fn finish(self) -> (Vec<Transaction>, Rows) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        let client = crate::support::connect(&self.url).await;
        let kept = client.query("select number, txid::text from kept", &[]).await.unwrap();
        let mut ledger = std::mem::take(&mut *self.book.lock());
        for transaction in &mut ledger {
            let row = kept.iter().find(|row| row.get::<_, i64>(0) == transaction.number);
            let is = if row.is_some() { Outcome::Committed } else { Outcome::Aborted };
            assert!(
                matches!(transaction.outcome, Outcome::Unknown) || transaction.outcome == is,
                "the ledger and PostgreSQL disagree on {transaction:?}"
            );
            transaction.outcome = is;
            transaction.txid = row.map(|row| row.get::<_, &str>(1).parse().unwrap());
        }
        let tables = read_tables(&client).await.unwrap();
        let mut expected = Rows::new();
        for transaction in ledger.iter().filter(|transaction| transaction.committed()) {
            transaction.acts.iter().for_each(|act| act.apply(&mut expected));
        }
        assert!(expected == tables, "the ledger does not add up to the tables: the writers are wrong");
        (ledger, tables)
    }
}

/// Owns some ids of each table, so that nobody else changes its rows.
struct Writer {
    index: usize,
    rng: fastrand::Rng,
    /// Its rows, as far as they are committed.
    rows: Rows,
    n: i64,
    book: Arc<Mutex<Vec<Transaction>>>,
    url: String,
    rests: Arc<AtomicBool>,
    pause_max: Duration,
    /// The transaction whose end is not known, and what it leaves if it was committed.
    last: Option<(i64, Rows)>,
}

/// A transaction to be.
#[derive(Default)]
struct Plan {
    sql: String,
    acts: Vec<Act>,
    rows: Rows,
}

/// A transaction that has done its work and is not at its end.
struct Open {
    number: i64,
    /// What its writer's rows are if it commits.
    rows: Rows,
}

/// A transaction that stays open, of a writer of its own.
pub struct Held {
    writer: Writer,
    client: Client,
    open: Open,
}

impl Held {
    /// Does something in it that no reader of the load's scopes sees.
    pub async fn also(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    pub async fn commit(mut self) {
        assert!(self.writer.end(&self.client, self.open, true).await, "it was cut off");
    }
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) {
        let mut client = None;
        while !stop.is_cancelled() || self.last.is_some() {
            if self.rests.load(Ordering::Relaxed) && self.last.is_none() {
                tokio::time::sleep(self.pause()).await;
                continue;
            }
            let connected = match client.take() {
                Some(client) => Some(client),
                None => self.connect().await,
            };
            if let Some(connected) = connected
                && self.transact(&connected).await
            {
                client = Some(connected);
            }
            // The pace of the load.
            tokio::time::sleep(self.pause()).await;
        }
    }

    fn pause(&mut self) -> Duration {
        self.pause_max.mul_f64(self.rng.f64())
    }

    /// None while PostgreSQL is away. What became of the transaction that was cut off is looked up first.
    async fn connect(&mut self) -> Option<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.ok()?;
        tokio::spawn(connection);
        if let Some((number, rows)) = &self.last {
            let kept = client.query_opt("select from kept where number = $1", &[number]).await.ok()?;
            if kept.is_some() {
                self.rows.clone_from(rows);
            }
            self.last = None;
        }
        Some(client)
    }

    /// One transaction; false where the connection broke.
    async fn transact(&mut self, client: &Client) -> bool {
        let plan = self.plan();
        let commits = self.rng.u8(0..8) > 0;
        let Some(open) = self.begin(client, plan).await else { return false };
        if self.rng.u8(0..4) == 0 {
            // It stays open while others commit.
            tokio::time::sleep(self.pause()).await;
        }
        self.end(client, open, commits).await
    }

    /// All of a transaction but its end; none where the connection broke.
    async fn begin(&mut self, client: &Client, plan: Plan) -> Option<Open> {
        let number = self.note(plan.acts);
        let begin = format!(
            "begin; insert into kept values ({number}, pg_current_xact_id()) returning txid::text; {}",
            plan.sql
        );
        let txid = match client.simple_query(&begin).await {
            Ok(messages) => messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(|text| text.parse().unwrap()),
                _ => None,
            }),
            Err(error) => {
                assert!(is_cut(&error), "{error:?} at {}", plan.sql);
                self.settle(number, Outcome::Aborted);
                return None;
            }
        };
        self.book.lock()[usize::try_from(number).unwrap()].txid = txid;
        Some(Open { number, rows: plan.rows })
    }

    /// Commits or rolls back; false where the connection broke.
    async fn end(&mut self, client: &Client, open: Open, commits: bool) -> bool {
        let Open { number, rows } = open;
        match client.batch_execute(if commits { "commit" } else { "rollback" }).await {
            Ok(()) if commits => {
                self.rows = rows;
                self.settle(number, Outcome::Committed);
                true
            }
            Ok(()) => {
                self.settle(number, Outcome::Aborted);
                true
            }
            Err(error) => {
                assert!(is_cut(&error), "{error:?} at the end of {number}");
                self.last = Some((number, rows));
                false
            }
        }
    }

    /// Its number is its place in the ledger.
    fn note(&self, acts: Vec<Act>) -> i64 {
        let mut book = self.book.lock();
        let number = i64::try_from(book.len()).unwrap();
        book.push(Transaction { number, writer: self.index, txid: None, outcome: Outcome::Unknown, acts });
        number
    }

    fn settle(&self, number: i64, outcome: Outcome) {
        self.book.lock()[usize::try_from(number).unwrap()].outcome = outcome;
    }

    fn plan(&mut self) -> Plan {
        let mut plan = Plan { rows: self.rows.clone(), ..Plan::default() };
        for _ in 0..self.rng.usize(1..=4) {
            match self.rng.u8(0..8) {
                0 => self.undone(&mut plan, "savepoint s; ", "rollback to savepoint s; "),
                1 => self.undone(
                    &mut plan,
                    "do $do$ begin ",
                    "raise exception 'no'; exception when raise_exception then null; end $do$; ",
                ),
                2 => {
                    plan.sql.push_str("savepoint s; ");
                    self.act(&mut plan);
                    self.act(&mut plan);
                    plan.sql.push_str("release savepoint s; ");
                }
                _ => self.act(&mut plan),
            }
        }
        plan
    }

    /// Acts that leave nothing, in a subtransaction.
    fn undone(&mut self, plan: &mut Plan, begin: &str, end: &str) {
        let mut lost = Plan { rows: plan.rows.clone(), ..Plan::default() };
        self.act(&mut lost);
        self.act(&mut lost);
        write!(plan.sql, "{begin}{}{end}", lost.sql).unwrap();
    }

    fn act(&mut self, plan: &mut Plan) {
        // The table that is emptied now and then has one writer, who so knows what it holds.
        let tables = if self.index == 0 { 3 } else { 2 };
        let table = ["plain", "tagged", "brief"][self.rng.usize(0..tables)];
        let owned = i64::try_from(self.index).unwrap() * IDS_OF_WRITER;
        let key: Key = (format!("public.{table}"), owned + self.rng.i64(0..IDS_OF_WRITER));
        let act = match plan.rows.get(&key).cloned() {
            _ if table == "brief" && self.rng.u8(0..6) == 0 => Act::Truncate { table: key.0 },
            Some(before) if self.rng.u8(0..4) == 0 => Act::Delete { key, before },
            before => {
                let after = self.row(before.as_ref(), table == "tagged");
                Act::Put { key, before, after }
            }
        };
        plan.sql.push_str(&self.sql(&act));
        act.apply(&mut plan.rows);
        plan.acts.push(act);
    }

    fn row(&mut self, before: Option<&Row>, many: bool) -> Row {
        self.n += 1;
        let body = match before {
            // A large value that an update leaves alone is not sent again by PostgreSQL.
            Some(before) if self.rng.bool() => before.body.clone(),
            _ => {
                let length = if self.rng.u8(0..12) == 0 { 5000 } else { 12 };
                std::iter::repeat_with(|| self.rng.alphanumeric()).take(length).collect()
            }
        };
        let scopes = match before {
            Some(before) if self.rng.bool() => before.scopes.clone(),
            _ => self.scopes(many),
        };
        Row { n: self.n, body, scopes }
    }

    fn scopes(&mut self, many: bool) -> Scopes {
        let chosen: Scopes = match many {
            true => SCOPES.iter().filter(|_| self.rng.u8(0..3) == 0).map(|scope| (*scope).to_owned()).collect(),
            false => {
                SCOPES.get(self.rng.usize(0..=SCOPES.len())).map(|scope| (*scope).to_owned()).into_iter().collect()
            }
        };
        if chosen.is_empty() { Scopes::from([String::new()]) } else { chosen }
    }

    fn sql(&mut self, act: &Act) -> String {
        match act {
            Act::Truncate { table } => format!("truncate {table}; "),
            Act::Delete { key: (table, id), .. } => format!("delete from {table} where id = {id}; "),
            Act::Put { key: (table, id), before, after } => {
                let scopes = self.scope_sql(&after.scopes, table == "public.tagged");
                let (n, body) = (after.n, &after.body);
                match before {
                    None => format!("insert into {table} values ({id}, {n}, '{body}', {scopes}); "),
                    Some(before) => {
                        let body = if before.body == *body { String::new() } else { format!("body = '{body}', ") };
                        format!("update {table} set n = {n}, {body}_change_selector = {scopes} where id = {id}; ")
                    }
                }
            }
        }
    }

    /// The empty scope is written in each of its forms.
    fn scope_sql(&mut self, scopes: &Scopes, many: bool) -> String {
        let names: Vec<&str> = scopes.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        match (names.is_empty() && self.rng.bool(), many) {
            (true, _) => "null".to_owned(),
            (false, true) => format!("'{{{}}}'", names.join(",")),
            (false, false) => format!("'{}'", names.join(",")),
        }
    }
}

/// PostgreSQL went away, or is on its way: no fault of the statement.
fn is_cut(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| matches!(code.code().get(..2), Some("57" | "08")))
}
