//! The contract of the dispatcher's port for schedules on a real PostgreSQL: a database of its own for each case.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::Client;
use walclock::clock::Timestamp;
use walclock::dispatch::ports::{ClaimRequest, LeaseGrant, Store as _};
use walclock::domain::callback::Callback as Target;
use walclock::domain::retry::RetryPolicy;
use walclock::domain::run::{Run, Settlement};
use walclock::domain::schedule::{Definition, Rule};
use walclock::domain::shard::Shard;
use walclock::domain::timer::TimerKey;
use walclock::store::timers::Written;
use walclock::store::{Store, schedules};

use crate::contract::schedules::{Callback, Moment, NAMESPACE, Row, State, World, key};
use crate::contract::{self, World as _};
use crate::store::world::Postgres;
use crate::support;

/// A migrated database, and a dispatcher that holds all shards and has claimed these runs.
struct OnPostgres {
    tables: Postgres,
    grant: LeaseGrant,
    runs: Mutex<BTreeMap<TimerKey, Run>>,
}

impl OnPostgres {
    async fn new() -> Self {
        let tables = Postgres::new().await;
        let grant = contract::lease(&tables, &contract::owner("a"), Shard::COUNT).await;
        Self { tables, grant, runs: Mutex::default() }
    }

    fn client(&self) -> &Client {
        &self.tables.client
    }

    /// The timer of a moment, whose id it is.
    fn timer_of(id: &str, at: Timestamp) -> TimerKey {
        key(&format!("{id}@{at}"))
    }

    async fn settle_run(&self, key: &TimerKey, settlement: impl FnOnce(&Run) -> Settlement) {
        let run = self.runs.lock().remove(key).expect("its callback is under way");
        let settled = contract::settle(&self.tables, &contract::owner("a"), &[settlement(&run)]).await;
        assert_eq!(settled, [true]);
    }
}

impl World for OnPostgres {
    type Store = Store;
    type Hold = Client;

    fn store(&self) -> &Store {
        &self.tables.store
    }

    async fn now(&self) -> Timestamp {
        self.client().query_one("select clock_timestamp()", &[]).await.unwrap().get(0)
    }

    async fn put(&self, id: &str, rule: &Rule, paused: bool) {
        let callback = Target {
            url: "https://example.com/".to_owned(),
            method: "POST".to_owned(),
            headers: Default::default(),
            timeout: Duration::from_secs(7),
        };
        let (key, rule, retry) = (key(id), rule.clone(), RetryPolicy::default());
        let definition = Definition { key, rule, paused, callback, payload: None, retry };
        let client = self.tables.store.client().await.unwrap();
        assert_eq!(schedules::create(&client, &definition, true).await.unwrap(), Written::Done(()));
    }

    async fn delete(&self, id: &str) {
        let client = self.tables.store.client().await.unwrap();
        assert_eq!(schedules::delete(&client, &key(id)).await.unwrap(), Written::Done(()));
    }

    async fn trigger(&self, id: &str) -> bool {
        let client = self.tables.store.client().await.unwrap();
        match schedules::trigger(&client, &key(id)).await.unwrap() {
            Written::Done(timer_id) => {
                let at: Timestamp = timer_id.strip_prefix(&format!("{id}@")).unwrap().parse().unwrap();
                assert!(self.callback(id, at).await.is_some(), "{timer_id}");
                true
            }
            Written::Missing => false,
            other => panic!("{other:?}"),
        }
    }

    async fn set_back(&self, id: &str, next_at: Timestamp, buffered_at: Option<Timestamp>) {
        let sql = "update walclock.schedules set next_at = $2, buffered_at = $3 where id = $1";
        assert_eq!(self.client().execute(sql, &[&id, &next_at, &buffered_at]).await.unwrap(), 1);
    }

    async fn hold(&self, id: &str) -> Client {
        let client = support::connect(&self.tables.url).await;
        client.batch_execute("begin").await.unwrap();
        let sql = "select from walclock.schedules where id = $1 for update";
        assert_eq!(client.execute(sql, &[&id]).await.unwrap(), 1);
        client
    }

    async fn end(&self, hold: Client) {
        hold.batch_execute("rollback").await.unwrap();
    }

    async fn refuse(&self, id: &str) {
        let sql = format!("alter table walclock.timers add constraint refuses_{id} check (id not like '{id}@%')");
        self.client().batch_execute(&sql).await.unwrap();
    }

    async fn put_timer(&self, id: &str, at: Timestamp, due_at: Timestamp) {
        self.tables.put(&contract::definition(&Self::timer_of(id, at), due_at)).await;
    }

    async fn claim(&self, id: &str, at: Timestamp) {
        let timer = Self::timer_of(id, at);
        let timers = vec![(timer.clone(), contract::epoch(&self.grant, timer.shard()))];
        let request = ClaimRequest { owner: contract::owner("a"), timers, until: Timestamp::MAX };
        let claimed = self.tables.store.claim(request).await.unwrap();
        let run = claimed.runs.into_iter().next().expect("it is pending");
        self.runs.lock().insert(timer, run);
    }

    async fn retry(&self, id: &str, at: Timestamp, again_at: Timestamp) {
        self.settle_run(&Self::timer_of(id, at), |run| contract::retry_at(run, again_at)).await;
    }

    async fn finish(&self, id: &str, at: Timestamp) {
        self.settle_run(&Self::timer_of(id, at), contract::succeeded).await;
    }

    async fn age(&self, id: &str, at: Timestamp, span: Duration) {
        let made_at = self.now().await.before(span);
        let sql = "update walclock.occurrences set made_at = $3 where schedule = $1 and scheduled_for = $2";
        assert_eq!(self.client().execute(sql, &[&id, &at, &made_at]).await.unwrap(), 1);
    }

    async fn purge(&self, retention: Duration) {
        schedules::purge(&self.tables.store, retention).await.unwrap();
    }

    async fn row(&self, id: &str) -> Option<Row> {
        let sql = "select * from walclock.schedules where namespace = $1 and id = $2";
        let row = self.client().query_opt(sql, &[&NAMESPACE, &id]).await.unwrap()?;
        Some(Row {
            paused: row.get("paused"),
            next_at: row.get("next_at"),
            buffered_at: row.get("buffered_at"),
            changed_at: row.get("changed_at"),
            revision: row.get("revision"),
            error: row.get("error"),
        })
    }

    async fn moments(&self, id: &str) -> Vec<Moment> {
        let sql = "select * from walclock.occurrences where namespace = $1 and schedule = $2 order by scheduled_for";
        let rows = self.client().query(sql, &[&NAMESPACE, &id]).await.unwrap();
        let read = |row: &tokio_postgres::Row| {
            let state = match row.get("state") {
                "fired" => State::Fired,
                "buffered" => State::Buffered,
                "skipped" => State::Skipped,
                "cancelled" => State::Cancelled,
                other => panic!("{other}"),
            };
            let scheduled_for: Timestamp = row.get("scheduled_for");
            let has_fired = matches!(state, State::Fired | State::Cancelled);
            let timer_id = has_fired.then(|| format!("{id}@{scheduled_for}"));
            assert_eq!(row.get::<_, Option<String>>("timer_id"), timer_id);
            Moment { scheduled_for, state, reason: row.get("reason"), through: row.get("through_at") }
        };
        rows.iter().map(read).collect()
    }

    async fn callback(&self, id: &str, at: Timestamp) -> Option<Callback> {
        let sql = "select due_at, attempts, false as running, false as cancelled
                   from walclock.timers where namespace = $1 and id = $2
                   union all
                   select due_at, attempts, true, cancelled
                   from walclock.runs where namespace = $1 and id = $2 and answered_at is null";
        let timer = Self::timer_of(id, at);
        let row = self.client().query_opt(sql, &[&NAMESPACE, &&*timer.id]).await.unwrap()?;
        Some(Callback {
            due_at: row.get("due_at"),
            attempts: row.get::<_, i32>("attempts").try_into().unwrap(),
            running: row.get("running"),
            cancelled: row.get("cancelled"),
        })
    }
}

macro_rules! on_postgresql {
    ($case:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            crate::contract::schedules::$case(&OnPostgres::new().await).await;
        }
    };
}

crate::contract::schedules::for_each_schedule_case!(on_postgresql);
