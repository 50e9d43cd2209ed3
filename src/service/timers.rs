//! Timers: create, get, update, delete, list. The rules are the domain's; the races are settled here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use deadpool_postgres::GenericClient;
use ipnet::IpNet;
use url::Host;

use super::Error;
use crate::clock::Clock;
use crate::delivery::guard;
use crate::domain::invalid::{Field, Invalid};
use crate::domain::run::State;
use crate::domain::timer::{Definition, Status, Timer, TimerKey, Update};
use crate::domain::{limits, namespace};
use crate::store::Store;
pub use crate::store::timers::ListRequest;
use crate::store::timers::{self as rows, Written};

/// How often a write is made that finds no pending timer although there is one the next moment. Each time somebody else
/// must have put it there in between, so that this many are only reached under many writers of one id.
const WRITES_MAX: usize = 20;

/// The settings of this part.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Whether the first timer of an unknown namespace makes it; else it is refused.
    pub auto_create: bool,
    /// Ranges of addresses that may be called although they are not public.
    pub callback_allow: Vec<IpNet>,
}

/// The timers. Cheap to clone.
#[derive(Clone)]
pub struct Timers {
    config: Arc<Config>,
    store: Store,
    clock: Clock,
}

impl Timers {
    /// The timers of this database, judged by this clock.
    pub fn new(config: Config, store: Store, clock: Clock) -> Self {
        Self { config: Arc::new(config), store, clock }
    }

    /// Stores a timer; whatever there was under that name, pending or over, it is a new one.
    pub async fn create(&self, definition: Definition) -> Result<Timer, Error> {
        self.check_host(&definition.check(self.clock.now())?, &definition.callback.url)?;
        let client = self.store.client().await?;
        match rows::create(&client, &definition, self.config.auto_create, None).await? {
            Written::Done(created_at) => Ok(Timer {
                definition,
                retry_at: None,
                attempts: 0,
                first_attempt_at: None,
                last_error: None,
                created_at,
                updated_at: created_at,
            }),
            Written::Missing => Err(unknown_namespace(&definition.key.namespace)),
            Written::Refused(constraint) => Err(Error::Refused { constraint }),
        }
    }

    /// The pending timer of that name, else its latest run.
    pub async fn get(&self, key: &TimerKey) -> Result<Status, Error> {
        key.check()?;
        let client = self.store.client().await?;
        rows::get(&client, key).await?.ok_or_else(|| Error::NotFound { key: key.clone() })
    }

    /// Changes a pending timer, and returns it as it is then.
    pub async fn update(&self, key: &TimerKey, update: &Update) -> Result<Timer, Error> {
        key.check()?;
        if let (Some(host), Some(url)) = (update.check(self.clock.now())?, &update.callback_url) {
            self.check_host(&host, url)?;
        }
        let client = self.store.client().await?;
        for _ in 0..WRITES_MAX {
            match rows::update(&client, key, update, None).await? {
                Written::Done(timer) => return Ok(timer),
                Written::Missing => look(&client, key).await?,
                Written::Refused(constraint) => return Err(Error::Refused { constraint }),
            }
        }
        Err(Error::Contended { key: key.clone() })
    }

    /// Cancels a pending timer: once this has returned, its callback does not start.
    pub async fn delete(&self, key: &TimerKey) -> Result<(), Error> {
        key.check()?;
        let client = self.store.client().await?;
        for _ in 0..WRITES_MAX {
            match rows::delete(&client, key).await? {
                true => return Ok(()),
                false => look(&client, key).await?,
            }
        }
        Err(Error::Contended { key: key.clone() })
    }

    /// One page of the timers of a namespace, in the order of their ids; at most `limits::LIST_LIMIT_MAX` of them.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<Status>, Error> {
        namespace::check(&request.namespace)?;
        let client = self.store.client().await?;
        let limit = request.limit.min(limits::LIST_LIMIT_MAX);
        Ok(rows::list(&client, &ListRequest { limit, ..request }).await?)
    }

    /// Refuses a URL whose host is an address that is never called, however it is written. What a name stands for is
    /// judged at every call, when it has been resolved.
    fn check_host(&self, host: &Host, url: &str) -> Result<(), Invalid> {
        let address = match host {
            Host::Ipv4(v4) => Some(IpAddr::V4(*v4)),
            Host::Ipv6(v6) => Some(IpAddr::V6(*v6)),
            Host::Domain(name) => is_localhost(name).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        match address.map_or(Ok(()), |address| guard::check(address, &self.config.callback_allow)) {
            Ok(()) => Ok(()),
            Err(guard::Blocked) => {
                Err(Invalid::new(Field::CallbackUrl, url, "a URL of a public address, or of a range that is allowed"))
            }
        }
    }
}

/// Says why a write has found no pending timer; returns where it is worth another try.
///
/// A write that waited for a claim finds the timer gone, and does not yet see the run: only a statement after it does.
/// Between the two a failed run may have come back as pending, or somebody may have created the timer anew.
async fn look(client: &impl GenericClient, key: &TimerKey) -> Result<(), Error> {
    match rows::get(client, key).await?.map(|status| status.state) {
        None => Err(Error::NotFound { key: key.clone() }),
        Some(State::Pending) => Ok(()),
        Some(state @ (State::Running | State::Succeeded | State::Failed)) => {
            Err(Error::NotPending { key: key.clone(), state })
        }
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn unknown_namespace(name: &str) -> Error {
    Error::Invalid(Invalid::new(Field::Namespace, name, format!("a namespace that exists, and {name:?} does not")))
}
