//! Pools of connections whose sessions are set up alike, and whose every wait has a bound.

use std::future::Future;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Client, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
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

/// How long a peer may leave what we sent unacknowledged before the connection counts as broken.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(15);
/// When an idle connection is first asked whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// How long a command waits for its connection.
const COMMAND_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take: a little longer than the server's own bound on a statement.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(25);
/// The name that `pg_stat_activity` shows, unless the settings have one.
const APPLICATION_NAME: &str = "walclock";

/// A pool of at most `connections`, each of which begins with the statements of `session`.
pub fn new(config: &Config, tls: MakeRustlsConnect, connections: usize, session: &[&str]) -> Pool {
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
            Box::pin(async move { client.batch_execute(&session).await.map_err(HookError::Backend) })
        }))
        .build()
        .expect("a pool with time-outs has a runtime")
}

/// A connection of the pool.
pub async fn get(pool: &Pool) -> Result<Client, Error> {
    let connecting = "connecting to the database";
    pool.get().await.map_err(|error| match error {
        // The server's own words, without the pool's about them.
        PoolError::Backend(error) => Error::unavailable(connecting)(error),
        other => Error::unavailable(connecting)(other),
    })
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
/// would wait behind it.
pub struct Lent {
    client: Option<Client>,
    owes_an_answer: AtomicBool,
}

impl Lent {
    /// Takes a connection from the pool.
    pub async fn from(pool: &Pool) -> Result<Self, Error> {
        Ok(Self { client: Some(get(pool).await?), owes_an_answer: AtomicBool::new(false) })
    }

    /// Awaits the answer of a question put on this connection, within [`ANSWER_WAIT_MAX`].
    pub async fn ask<T, E>(&self, doing: &'static str, question: impl Future<Output = Result<T, E>>) -> Result<T, Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.owes_an_answer.store(true, Ordering::Relaxed);
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, question).await.map_err(Error::unavailable(doing))?;
        self.owes_an_answer.store(false, Ordering::Relaxed);
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
        if self.owes_an_answer.load(Ordering::Relaxed)
            && let Some(client) = self.client.take()
        {
            drop(Client::take(client));
        }
    }
}
