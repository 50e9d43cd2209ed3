//! Pools of connections whose sessions are set up alike, and whose every wait has a bound.

use std::future::Future;
use std::ops::Deref;
use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
use parking_lot::Mutex;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Config, Error};
use crate::pg;

/// What every session begins with.
pub const OPEN: &str = include_str!("../../sql/queries/session/open.sql");
/// What a dispatcher's session has besides.
pub const DISPATCH: &str = include_str!("../../sql/queries/session/dispatch.sql");
/// What a session for claims has besides.
pub const CLAIMS: &str = include_str!("../../sql/queries/session/claims.sql");

/// Begins a transaction.
pub const BEGIN: &str = "begin";
/// Ends a transaction.
pub const COMMIT: &str = "commit";
/// Undoes a transaction.
pub const ROLLBACK: &str = "rollback";

/// How long a peer may leave what we sent unacknowledged before the connection counts as broken.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(15);
/// When an idle connection is first asked whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// How long a command waits for its connection.
const COMMAND_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take: a little longer than the server's own bound on a statement.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(25);
/// After so long without an answer the connections beside it may have lost their other end, too. Each would be found out only by
/// whoever waits for it, one after the other.
const DOUBT_AFTER: Duration = Duration::from_secs(3);
/// The name that `pg_stat_activity` shows, unless the settings have one.
const APPLICATION_NAME: &str = "walclock";

/// A pool of at most `connections`, each of which begins with the statements of `session`.
pub fn new(config: &Config, tls: MakeRustlsConnect, connections: usize, session: &[&str]) -> Pool {
    telling(config, tls, connections, session, || ())
}

/// The same; `opens` is called for each connection before anybody uses it, and must not wait.
pub fn telling(
    config: &Config,
    tls: MakeRustlsConnect,
    connections: usize,
    session: &[&str],
    opens: impl Fn() + Send + Sync + 'static,
) -> Pool {
    let manager = Manager::from_config(
        driver_config(&config.settings, config.connect_timeout),
        tls,
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    let session = session.concat();
    Pool::builder(manager)
        .max_size(connections)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(config.connect_timeout))
        .create_timeout(Some(config.connect_timeout))
        .recycle_timeout(Some(config.connect_timeout))
        .post_create(Hook::async_fn(move |client, _| {
            let session = session.clone();
            opens();
            Box::pin(async move { client.batch_execute(&session).await.map_err(HookError::Backend) })
        }))
        .build()
        .expect("a pool with time-outs has a runtime")
}

/// A connection apart from the pools, for a command that needs one only.
pub async fn connect(settings: &pg::Settings) -> Result<tokio_postgres::Client, Error> {
    open(settings, &driver_config(settings, COMMAND_CONNECT_TIMEOUT)).await
}

/// The same for who only reads: a standby will do, unless the settings say otherwise.
pub async fn connect_to_read(settings: &pg::Settings) -> Result<tokio_postgres::Client, Error> {
    let mut config = driver_config(settings, COMMAND_CONNECT_TIMEOUT);
    config.target_session_attrs(settings.config().get_target_session_attrs());
    open(settings, &config).await
}

async fn open(settings: &pg::Settings, config: &tokio_postgres::Config) -> Result<tokio_postgres::Client, Error> {
    let tls = settings.connector().map_err(Error::unavailable("preparing TLS"))?;
    let connecting = "connecting to the database";
    let (client, connection) = config.connect(tls).await.map_err(Error::unavailable(connecting))?;
    // It ends when the client is dropped; what goes wrong on it, the client's calls say too.
    tokio::spawn(connection);
    Ok(client)
}

/// The driver's settings: only a server that can write, and no silence without an end.
pub fn driver_config(settings: &pg::Settings, connect_timeout: Duration) -> tokio_postgres::Config {
    let mut config = settings.config().clone();
    if config.get_application_name().is_none() {
        config.application_name(APPLICATION_NAME);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(connect_timeout);
    }
    config
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(PEER_SILENCE_MAX);
    config
}

/// A connection lent for a few questions. One whose answer was not awaited to its end is thrown away: the next user
/// would wait behind it. After a long wait in vain those go as well that lie idle, and have answered nobody since.
pub struct Lent {
    client: Option<Client>,
    pool: Pool,
    /// When the question was put whose answer is still to come.
    asked_at: Mutex<Option<Instant>>,
}

impl Lent {
    /// Takes a connection from the pool.
    pub(super) async fn from(pool: &Pool) -> Result<Self, Error> {
        let connecting = "connecting to the database";
        let client = pool.get().await.map_err(|error| match error {
            // The server's own words, without the pool's about them.
            PoolError::Backend(error) => Error::unavailable(connecting)(error),
            other => Error::unavailable(connecting)(other),
        })?;
        Ok(Self { client: Some(client), pool: pool.clone(), asked_at: Mutex::default() })
    }

    /// Awaits the answer of a question put on this connection, within 25 s: a little longer than the server's own bound on a
    /// statement.
    pub async fn ask<T, E>(&self, doing: &'static str, question: impl Future<Output = Result<T, E>>) -> Result<T, Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        *self.asked_at.lock() = Some(Instant::now());
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, question).await.map_err(Error::unavailable(doing))?;
        *self.asked_at.lock() = None;
        answer.map_err(Error::unavailable(doing))
    }
}

impl Deref for Lent {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(asked_at) = *self.asked_at.get_mut() else { return };
        if let Some(client) = self.client.take() {
            drop(Client::take(client));
        }
        let waited = asked_at.elapsed();
        if waited >= DOUBT_AFTER {
            self.pool.retain(|_, metrics| metrics.last_used() < waited);
        }
    }
}
