//! The face on a socket of its own, and a client that checks every answer against the specification.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use walclock::clock::Timestamp;
use walclock::http;
use walclock::http::server::{self, Server};
use walclock::pg;
use walclock::service::timers::{Config, Timers};
use walclock::store::{self, Store};

use super::spec;
use crate::support;

/// A moment that lies ahead for some time.
pub const AHEAD: &str = "2090-01-02T03:04:05.000006Z";

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The body as it came.
    pub text: String,
    /// The body as JSON; null where there is none.
    pub json: Value,
    pub allow: Option<String>,
}

/// A running face and a connection to its database.
pub struct Face {
    pub timers: Timers,
    pub sql: tokio_postgres::Client,
    pub database_url: String,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: DropGuard,
}

impl Face {
    /// A face whose namespaces make themselves, on a database of its own.
    pub async fn start() -> Self {
        Self::start_with(Config { auto_create: true, ..Config::default() }).await
    }

    pub async fn start_with(config: Config) -> Self {
        let database_url = support::migrated().await;
        Self::on(&database_url, config, &database_url).await
    }

    /// Another face beside this one, whose store is somewhere else.
    pub async fn beside(&self, store_url: &str) -> Self {
        Self::on(store_url, Config { auto_create: true, ..Config::default() }, &self.database_url).await
    }

    async fn on(store_url: &str, config: Config, database_url: &str) -> Self {
        let sql = support::connect(database_url).await;
        let settings = pg::Settings::parse(store_url).unwrap();
        let timers = Timers::new(config, Store::new(store::Config::new(settings)).unwrap());
        let config = server::Config {
            connections_max: 100,
            head_max: Duration::from_secs(10),
            stall_max: Duration::from_secs(60),
            drain_max: Duration::from_secs(1),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(config, listener, http::timers::routes(timers.clone()));
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { timers, sql, database_url: database_url.to_owned(), address, client, _stop: stop.drop_guard() }
    }

    /// Makes a call and checks its answer against the specification.
    pub async fn call(&self, operation: &str, body: &Value) -> Answer {
        self.call_text(operation, body.to_string()).await
    }

    pub async fn call_text(&self, operation: &str, body: impl Into<Bytes>) -> Answer {
        let request = self.request("POST", &format!("/api/v1/timers/{operation}"));
        let answer = self.send(request.header("content-type", "application/json"), body).await;
        spec::check(operation, answer.status, Some(&answer.json).filter(|body| !body.is_null()));
        answer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        hyper::Request::builder().method(method).uri(format!("http://{}{path}", self.address))
    }

    pub async fn send(&self, request: hyper::http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let answer = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let allow = answer.headers().get("allow").map(|value| value.to_str().unwrap().to_owned());
        let content_type = answer.headers().get("content-type").cloned();
        let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
        let json = match text.is_empty() {
            true => Value::Null,
            false => readable(&text),
        };
        assert_eq!(content_type.is_some_and(|value| value == "application/json"), !text.is_empty());
        Answer { status, text, json, allow }
    }

    /// Stores a timer, which must succeed.
    pub async fn create(&self, id: &str) -> Answer {
        let answer = self.call("create", &create_request(id)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer
    }

    /// Moves a pending timer to a run in this state, as the dispatcher would.
    pub async fn claim(&self, id: &str, state: &str) {
        claim(&self.sql, id, state).await;
    }
}

/// Whether an answer says that the write may be tried again, for somebody had the row for too long.
pub fn gave_up(answer: &str) -> bool {
    answer.contains("being changed by others at this moment, try again")
}

/// Moves a pending timer to a run in this state, as the dispatcher would.
pub async fn claim(sql: &tokio_postgres::Client, id: &str, state: &str) {
    let claim = "with taken as (delete from walclock.timers where namespace = 'n' and id = $1 returning *)
        insert into walclock.runs
            (namespace, id, claimed_at, shard, epoch, state, execute_at, retry_at, due_at, callback_url, callback_method,
             callback_headers, callback_timeout_seconds, payload, retry_attempts_max, retry_duration,
             retry_interval_first, retry_multiplier, retry_interval_max, attempts, first_attempt_at, created_at,
             updated_at, sent_at, answered_at, status, last_error)
        select namespace, id, clock_timestamp(), shard, 1, $2::text, execute_at, retry_at, due_at, callback_url,
               callback_method, callback_headers, callback_timeout_seconds, payload, retry_attempts_max, retry_duration,
               retry_interval_first, retry_multiplier, retry_interval_max, attempts + 1, now(), created_at, updated_at,
               now(), case when $2::text <> 'running' then '2026-01-02 03:04:05.5Z'::timestamptz end, 200,
               case when $2::text = 'failed' then 'answered 404' end
        from taken";
    assert_eq!(sql.execute(claim, &[&id, &state]).await.unwrap(), 1, "{id} is pending");
}

/// A request that is good, with all that is required and no more.
pub fn create_request(id: &str) -> Value {
    json!({ "namespace": "n", "id": id, "executeAt": AHEAD, "callbackUrl": "https://example.com/hook" })
}

/// How a get, an update or a delete names a timer.
pub fn selection(id: &str) -> Value {
    json!({ "namespace": "n", "timerId": id })
}

/// The body with these fields besides, or in place of its own.
pub fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// The body without the moments at which things happened; they must be moments.
pub fn timeless(answer: &Answer) -> Value {
    let mut body = answer.json.clone();
    for field in ["createdAt", "updatedAt", "timestamp"] {
        if let Some(at) = body.as_object_mut().unwrap().remove(field) {
            assert!(at.as_str().unwrap().parse::<Timestamp>().is_ok(), "{field} is {at}");
        }
    }
    body
}

/// The fields of an object. In place of what is JSON and `Value` cannot hold (a lone surrogate, 1e400) stands `{}`.
fn readable(text: &str) -> Value {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).unwrap();
    let value = |raw: Box<RawValue>| serde_json::from_str(raw.get()).unwrap_or_else(|_| json!({}));
    fields.into_iter().map(|(name, raw)| (name, value(raw))).collect::<serde_json::Map<_, _>>().into()
}
