//! Timers: create, get, update, delete, list. The rules are the domain's; the races are settled here.
//!
//! What is the future, PostgreSQL's clock says: in the statement itself, whatever the clock of this machine shows.

mod creates;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use url::Host;

use self::creates::Creates;
use super::{Error, unknown_namespace};
use crate::clock::Timestamp;
use crate::delivery::guard;
use crate::domain::invalid::{Field, Invalid};
use crate::domain::run::{PastAttempt, State};
use crate::domain::timer::{Definition, Status, Timer, TimerKey, Update};
use crate::domain::{limits, namespace};
pub use crate::store::timers::ListRequest;
use crate::store::timers::{self as rows, Written};
use crate::store::{self, Lent, Store};

/// What they are called where one is missing or held.
const WHAT: &str = "timer";
/// How often a write is made that finds no pending timer although there is one the next moment. Each time somebody else
/// must have put it there in between, so that this many are only reached under many writers of one id.
const WRITES_MAX: usize = 20;
/// How long a batch waits for a row that another transaction holds, as a single create does.
const LOCK_WAIT: Duration = Duration::from_secs(1);

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
    creates: Creates,
}

/// What became of each timer of a batch, in its order.
pub type Created = Vec<Result<Timer, Error>>;

impl Timers {
    /// The timers of this database.
    pub fn new(config: Config, store: Store) -> Self {
        let creates = Creates::new(store.clone(), config.auto_create);
        Self { config: Arc::new(config), store, creates }
    }

    /// This moment by PostgreSQL's clock.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        Ok(store::clock::read(&self.store.client().await?).await?)
    }

    /// Stores a timer; whatever there was under that name, pending or over, it is a new one.
    pub async fn create(&self, definition: Definition) -> Result<Timer, Error> {
        measured("create", async {
            self.check(&definition)?;
            let definition = Arc::new(definition);
            let written = self.creates.store(definition.clone()).await?;
            created(Arc::unwrap_or_clone(definition), written)
        })
        .await
    }

    /// Creates that stand in line, to be written together once those before them are.
    pub fn creates_waiting(&self) -> usize {
        self.creates.waiting()
    }

    /// Stores timers as [`Self::create`] would one after the other, at most `limits::CREATE_BATCH_MAX` of them. Those that
    /// can be stored are there all at once, in one transaction; what is wrong with another keeps back no one else.
    pub async fn create_batch(&self, definitions: Vec<Definition>) -> Result<Created, Error> {
        assert!(definitions.len() <= limits::CREATE_BATCH_MAX, "who asks keeps to the bound");
        measured("create_batch", async {
            let checked: Vec<Result<Definition, Error>> =
                definitions.into_iter().map(|definition| self.check(&definition).map(|()| definition)).collect();
            let good: Vec<&Definition> = checked.iter().flatten().collect();
            let mut written = match good.is_empty() {
                true => Vec::new(),
                false => {
                    let client = self.store.client().await?;
                    rows::create_many(&client, &good, self.config.auto_create, LOCK_WAIT, None).await?
                }
            }
            .into_iter();
            let mut next = || written.next().expect("each good one has an answer");
            Ok(checked.into_iter().map(|checked| checked.and_then(|timer| created(timer, next()?))).collect())
        })
        .await
    }

    /// The pending timer of that name, else its latest run.
    pub async fn get(&self, key: &TimerKey) -> Result<Status, Error> {
        measured("get", async {
            key.check()?;
            let client = self.store.client().await?;
            rows::get(&client, key).await?.ok_or_else(|| absent(key))
        })
        .await
    }

    /// The latest attempts of the timer of that name, oldest first; at most `limits::LIST_LIMIT_MAX` of them.
    pub async fn history(&self, key: &TimerKey, limit: u32) -> Result<Vec<PastAttempt>, Error> {
        measured("history", async {
            key.check()?;
            let client = self.store.client().await?;
            let attempts = rows::history(&client, key, limit.min(limits::LIST_LIMIT_MAX)).await?;
            if attempts.is_empty() && rows::get(&client, key).await?.is_none() {
                return Err(absent(key));
            }
            Ok(attempts)
        })
        .await
    }

    /// Changes a pending timer, and returns it as it is then.
    pub async fn update(&self, key: &TimerKey, update: &Update) -> Result<Timer, Error> {
        measured("update", async {
            key.check()?;
            if let (Some(host), Some(url)) = (update.check()?, &update.callback_url) {
                self.check_host(&host, url)?;
            }
            let client = self.store.client().await?;
            for _ in 0..WRITES_MAX {
                let written = rows::update(&client, key, update, None).await?;
                if let Some(timer) = done(&client, key, written).await? {
                    return Ok(timer);
                }
            }
            Err(contended(key))
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
            Err(contended(key))
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

    /// Checks all that can be known without the database.
    fn check(&self, definition: &Definition) -> Result<(), Error> {
        Ok(self.check_host(&definition.check()?, &definition.callback.url)?)
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

/// The timer that was stored, or why it was not.
fn created(definition: Definition, written: Written<Timestamp>) -> Result<Timer, Error> {
    let created_at = super::done(WHAT, &definition.key, written)?;
    let created_at = created_at.ok_or_else(|| unknown_namespace(&definition.key.namespace))?;
    Ok(Timer::new(definition, created_at))
}

/// What a write has done, none where it found no pending timer and is worth another try; or why it never will.
///
/// A write that waited for a claim finds the timer gone, and does not yet see the run: only a statement after it does.
/// Between the two a failed run may have come back as pending, or somebody may have created the timer anew.
async fn done<T>(client: &Lent, key: &TimerKey, written: Written<T>) -> Result<Option<T>, Error> {
    if let Some(done) = super::done(WHAT, key, written)? {
        return Ok(Some(done));
    }
    match rows::get(client, key).await?.map(|status| status.state) {
        None => Err(absent(key)),
        Some(State::Pending) => Ok(None),
        Some(state @ (State::Running | State::Succeeded | State::Failed)) => {
            Err(Error::NotPending { key: key.clone(), state })
        }
    }
}

fn absent(key: &TimerKey) -> Error {
    Error::NotFound { what: WHAT, key: key.clone() }
}

fn contended(key: &TimerKey) -> Error {
    Error::Contended { what: WHAT, key: key.clone() }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}
