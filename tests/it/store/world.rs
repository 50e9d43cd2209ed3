//! The contract's world on a real PostgreSQL: a database of its own for each case.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio_postgres::Client;
use tokio_postgres::types::Json;
use walclock::clock::Timestamp;
use walclock::domain::callback::Callback;
use walclock::domain::lease::Epoch;
use walclock::domain::retry::RetryPolicy;
use walclock::domain::run::State;
use walclock::domain::shard::Shard;
use walclock::domain::timer::{Definition, Timer, TimerKey};
use walclock::pg::Settings;
use walclock::store::time::Span;
use walclock::store::{Config, Store};

use crate::contract::{AttemptRow, RunRow, World};
use crate::support;

/// A migrated database, its store, and a client that works behind the store's back.
pub struct Postgres {
    pub url: String,
    pub store: Store,
    pub client: Client,
}

impl Postgres {
    pub async fn new() -> Self {
        Self::new_on(&support::migrated().await).await
    }

    pub async fn new_on(url: &str) -> Self {
        let store = Store::new(Config::new(Settings::parse(url).unwrap())).unwrap();
        Self { url: url.to_owned(), store, client: support::connect(url).await }
    }
}

impl World for Postgres {
    type Store = Store;
    type Hold = Client;

    fn store(&self) -> &Store {
        &self.store
    }

    async fn put(&self, definition: &Definition) {
        let sql = "insert into walclock.timers (namespace, id, execute_at, callback_url, callback_method,
                       callback_headers, callback_timeout_seconds, payload, retry_attempts_max, retry_duration,
                       retry_interval_first, retry_multiplier, retry_interval_max)
                   values ($1, $2, $3, $4, $5, $6, $7, $8::text::json, $9, $10, $11, $12, $13)
                   on conflict (namespace, id) do update set execute_at = excluded.execute_at,
                       callback_url = excluded.callback_url, attempts = 0, retry_at = null, first_attempt_at = null";
        let Definition { key, execute_at, callback, payload, retry } = definition;
        let seconds = i16::try_from(callback.timeout.as_secs()).unwrap();
        let payload = payload.as_ref().map(|payload| payload.get());
        let attempts_max = retry.attempts_max.map(|max| i32::try_from(max).unwrap());
        let written = self
            .client
            .execute(
                sql,
                &[
                    &&*key.namespace,
                    &&*key.id,
                    execute_at,
                    &callback.url,
                    &callback.method,
                    &Json(&callback.headers),
                    &seconds,
                    &payload,
                    &attempts_max,
                    &Span(retry.attempts_duration),
                    &Span(retry.interval_first),
                    &retry.multiplier,
                    &Span(retry.interval_max),
                ],
            )
            .await;
        assert_eq!(written.unwrap(), 1);
    }

    async fn delete(&self, key: &TimerKey) {
        let sql = include_str!("../../../sql/queries/timers/delete.sql");
        assert_eq!(self.client.execute(sql, &[&&*key.namespace, &&*key.id]).await.unwrap(), 1);
    }

    async fn hold(&self, key: &TimerKey) -> Client {
        let client = support::connect(&self.url).await;
        client.batch_execute("begin").await.unwrap();
        let sql = "select from walclock.timers where namespace = $1 and id = $2 for update";
        assert_eq!(client.execute(sql, &[&&*key.namespace, &&*key.id]).await.unwrap(), 1);
        client
    }

    async fn write_under(&self, shard: Shard) -> Client {
        let client = support::connect(&self.url).await;
        client.batch_execute("begin").await.unwrap();
        let sql = "select from walclock.shards where shard = $1 for key share";
        assert_eq!(client.execute(sql, &[&i16::from(shard.0)]).await.unwrap(), 1);
        client
    }

    async fn end(&self, hold: Client) {
        hold.batch_execute("rollback").await.unwrap();
    }

    async fn expire(&self, shard: Shard) {
        let sql = "update walclock.shards set expires_at = clock_timestamp() - interval '1 second' where shard = $1";
        assert_eq!(self.client.execute(sql, &[&i16::from(shard.0)]).await.unwrap(), 1);
    }

    async fn set_back(&self, span: Duration) {
        // As it is left: every moment that was written down lies farther ahead.
        for sql in [
            "update walclock.shards set expires_at = expires_at + make_interval(secs => $1) where owner is not null",
            "update walclock.dispatchers set expires_at = expires_at + make_interval(secs => $1)",
        ] {
            self.client.execute(sql, &[&span.as_secs_f64()]).await.unwrap();
        }
    }

    async fn expiries(&self, shard: Shard) -> Option<(Timestamp, Timestamp)> {
        let sql = "select shards.expires_at, dispatchers.expires_at
                   from walclock.shards join walclock.dispatchers using (owner) where shard = $1";
        let row = self.client.query_opt(sql, &[&i16::from(shard.0)]).await.unwrap()?;
        Some((row.get(0), row.get(1)))
    }

    async fn set_secrets(&self, namespace: &str, secrets: &[&str]) {
        let sql = "insert into walclock.namespaces (name, secrets) values ($1, $2)
                   on conflict (name) do update set secrets = excluded.secrets";
        self.client.execute(sql, &[&namespace, &secrets]).await.unwrap();
    }

    async fn timer(&self, key: &TimerKey) -> Option<Timer> {
        let sql = "select *, payload::text as payload_text from walclock.timers where namespace = $1 and id = $2";
        let row = self.client.query_opt(sql, &[&&*key.namespace, &&*key.id]).await.unwrap()?;
        let span = |name: &str| row.get::<_, Span>(name).0;
        let definition = Definition {
            key: key.clone(),
            execute_at: row.get("execute_at"),
            callback: Callback {
                url: row.get("callback_url"),
                method: row.get("callback_method"),
                headers: row.get::<_, Json<_>>("callback_headers").0,
                timeout: Duration::from_secs(row.get::<_, i16>("callback_timeout_seconds").try_into().unwrap()),
            },
            payload: row.get::<_, Option<String>>("payload_text").map(|text| RawValue::from_string(text).unwrap()),
            retry: RetryPolicy {
                attempts_max: row.get::<_, Option<i32>>("retry_attempts_max").map(|max| max.try_into().unwrap()),
                attempts_duration: span("retry_duration"),
                interval_first: span("retry_interval_first"),
                multiplier: row.get("retry_multiplier"),
                interval_max: span("retry_interval_max"),
            },
        };
        let timer = Timer {
            definition,
            retry_at: row.get("retry_at"),
            attempts: row.get::<_, i32>("attempts").try_into().unwrap(),
            first_attempt_at: row.get("first_attempt_at"),
            last_error: row.get("last_error"),
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
        };
        assert_eq!(timer.due_at(), row.get::<_, Timestamp>("due_at"));
        Some(timer)
    }

    async fn runs(&self, key: &TimerKey) -> Vec<RunRow> {
        let sql = "select * from walclock.runs where namespace = $1 and id = $2 order by claimed_at";
        let rows = self.client.query(sql, &[&&*key.namespace, &&*key.id]).await.unwrap();
        let states = [State::Running, State::Succeeded, State::Failed];
        let read = |row: &tokio_postgres::Row| RunRow {
            claimed_at: row.get("claimed_at"),
            epoch: Epoch(row.get("epoch")),
            state: states.into_iter().find(|state| state.as_str() == row.get::<_, &str>("state")).unwrap(),
            attempts: row.get::<_, i32>("attempts").try_into().unwrap(),
            sent_at: row.get("sent_at"),
            answered_at: row.get("answered_at"),
            status: row.get::<_, Option<i16>>("status").map(|status| status.try_into().unwrap()),
            reply: row.get("reply"),
            last_error: row.get("last_error"),
        };
        rows.iter().map(read).collect()
    }

    async fn attempts(&self, key: &TimerKey) -> Vec<AttemptRow> {
        let sql = "select * from walclock.attempts where namespace = $1 and id = $2 order by claimed_at";
        let rows = self.client.query(sql, &[&&*key.namespace, &&*key.id]).await.unwrap();
        let read = |row: &tokio_postgres::Row| AttemptRow {
            attempt: row.get::<_, i32>("attempt").try_into().unwrap(),
            due_at: row.get("due_at"),
            sent_at: row.get("sent_at"),
            answered_at: row.get("answered_at"),
            status: row.get::<_, Option<i16>>("status").map(|status| status.try_into().unwrap()),
            error: row.get("error"),
        };
        rows.iter().map(read).collect()
    }
}
