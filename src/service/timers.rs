//! Timers: create, get, update, delete, list. The rules are the domain's; the races are settled here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

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
        measured("create", async {
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
                Written::Locked => Err(Error::Contended { key: definition.key }),
            }
        })
        .await
    }

    /// The pending timer of that name, else its latest run.
    pub async fn get(&self, key: &TimerKey) -> Result<Status, Error> {
        measured("get", async {
            key.check()?;
            let client = self.store.client().await?;
            rows::get(&client, key).await?.ok_or_else(|| Error::NotFound { key: key.clone() })
        })
        .await
    }

    /// Changes a pending timer, and returns it as it is then.
    pub async fn update(&self, key: &TimerKey, update: &Update) -> Result<Timer, Error> {
        measured("update", async {
            key.check()?;
            if let (Some(host), Some(url)) = (update.check(self.clock.now())?, &update.callback_url) {
                self.check_host(&host, url)?;
            }
            let client = self.store.client().await?;
            for _ in 0..WRITES_MAX {
                let written = rows::update(&client, key, update, None).await?;
                if let Some(timer) = done(&client, key, written).await? {
                    return Ok(timer);
                }
            }
            Err(Error::Contended { key: key.clone() })
        })
        .await
    }

    /// Cancels a pending timer: once this has returned, its callback does not start.
    pub async fn delete(&self, key: &TimerKey) -> Result<(), Error> {
        measured("delete", async {
            key.check()?;
            let client = self.store.client().await?;
            for _ in 0..WRITES_MAX {
                let written = rows::delete(&client, key).await?;
                if let Some(()) = done(&client, key, written).await? {
                    return Ok(());
                }
            }
            Err(Error::Contended { key: key.clone() })
        })
        .await
    }

    /// One page of the timers of a namespace, in the order of their ids; at most `limits::LIST_LIMIT_MAX` of them.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<Status>, Error> {
        measured("list", async {
            namespace::check(&request.namespace)?;
            let client = self.store.client().await?;
            let limit = request.limit.min(limits::LIST_LIMIT_MAX);
            Ok(rows::list(&client, &ListRequest { limit, ..request }).await?)
        })
        .await
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

/// Counts the operation by what came of it, and how long it took.
async fn measured<T>(operation: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let start = Instant::now();
    let result = work.await;
    let outcome = result.as_ref().err().map_or("done", Error::word);
    metrics::counter!("walclock_timer_requests_total", "operation" => operation, "outcome" => outcome).increment(1);
    metrics::histogram!("walclock_timer_request_seconds", "operation" => operation)
        .record(start.elapsed().as_secs_f64());
    result
}

/// What a write has done, none where it found no pending timer and is worth another try; or why it never will.
///
/// A write that waited for a claim finds the timer gone, and does not yet see the run: only a statement after it does.
/// Between the two a failed run may have come back as pending, or somebody may have created the timer anew.
async fn done<T>(client: &impl GenericClient, key: &TimerKey, written: Written<T>) -> Result<Option<T>, Error> {
    match written {
        Written::Done(done) => return Ok(Some(done)),
        Written::Missing => {}
        Written::Refused(constraint) => return Err(Error::Refused { constraint }),
        Written::Locked => return Err(Error::Contended { key: key.clone() }),
    }
    match rows::get(client, key).await?.map(|status| status.state) {
        None => Err(Error::NotFound { key: key.clone() }),
        Some(State::Pending) => Ok(None),
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
    Error::Invalid(Invalid::new(Field::Namespace, name, format!("one that exists, and {name:?} does not")))
}
