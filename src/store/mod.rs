//! PostgreSQL at rest: one Rust function per file of `sql/queries`. Here is all SQL but what the feed asks on connections of
//! its own, for the slot and for snapshots.
//!
//! Five pools keep the parts out of each other's way: requests of the API can never use up the connections on which
//! leases are renewed, nor can schedules; claims, which alone need not be durable, have sessions of their own; and who
//! watches the database waits for none of them.

pub mod clock;
pub mod dev;
mod dispatch;
pub mod doctor;
mod error;
pub mod migrate;
pub mod namespaces;
pub mod partitions;
mod pool;
mod rows;
pub mod schedules;
pub mod shards;
pub mod time;
pub mod timers;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;

pub use self::error::Error;
pub use self::pool::Lent;
use crate::pg;

/// Connections for the dispatcher's durable statements: all that it ever asks at the same time, which is two
/// settles and the repetition of one, a load, an adoption, a lease and the clock. A lease that waited for one of the others might come too late.
const DISPATCH_CONNECTIONS: usize = 7;
/// Connections for claims: as many as the dispatcher has under way.
const CLAIM_CONNECTIONS: usize = 3;

/// Connections for schedules, whose statements come one after the other.
const SCHEDULE_CONNECTIONS: usize = 1;

/// Connections for [`clock::ping`].
const WATCH_CONNECTIONS: usize = 1;

/// How to reach the database, and with how many connections.
#[derive(Clone)]
pub struct Config {
    /// Where and as whom.
    pub settings: pg::Settings,
    /// The most connections for general use, 1 to 1000; the dispatcher's own few come on top, as it needs them.
    pub connections: usize,
    /// Longest wait for a free or a new connection.
    pub connect_timeout: Duration,
}

impl Config {
    /// The usual bounds.
    pub fn new(settings: pg::Settings) -> Self {
        Self { settings, connections: 16, connect_timeout: Duration::from_secs(5) }
    }
}

/// The database. Cheap to clone; clones share the connections, which are made when they are first needed.
#[derive(Clone)]
pub struct Store {
    general: Pool,
    dispatch: Pool,
    claims: Pool,
    schedules: Pool,
    watch: Pool,
    process: Arc<dispatch::Process>,
    under_way: Arc<dispatch::UnderWay>,
}

impl Store {
    /// Prepares the pools; connects to nothing yet. Fails where the settings' certificates are of no use.
    pub fn new(config: Config) -> Result<Self, pg::Error> {
        let tls = config.settings.connector()?;
        let connections = config.connections.clamp(1, 1000);
        let under_way: Arc<dispatch::UnderWay> = Arc::default();
        let known = under_way.clone();
        let opens = move || known.forget();
        Ok(Self {
            general: pool::new(&config, tls.clone(), connections, &[pool::OPEN]),
            dispatch: pool::telling(&config, tls.clone(), DISPATCH_CONNECTIONS, &[pool::OPEN, pool::DISPATCH], opens),
            schedules: pool::new(&config, tls.clone(), SCHEDULE_CONNECTIONS, &[pool::OPEN]),
            watch: pool::new(&config, tls.clone(), WATCH_CONNECTIONS, &[pool::OPEN]),
            claims: pool::new(&config, tls, CLAIM_CONNECTIONS, &[pool::OPEN, pool::DISPATCH, pool::CLAIMS]),
            process: Arc::new(dispatch::Process::own()),
            under_way,
        })
    }

    /// A connection for general use. Its `prepare_cached` keeps statements over uses.
    pub async fn client(&self) -> Result<Lent, Error> {
        Lent::from(&self.general).await
    }
}
