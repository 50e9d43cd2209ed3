//! From a host's name to its addresses. How many names are looked up at once, and whose they are, is bounded here; what an
//! address may be is not judged here, but where it is connected to.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::shortage::{is_shortage, shortage};
use crate::domain::limits::{LOOKUPS_MAX, LOOKUPS_PER_NAMESPACE_MAX, NAMES_KEPT_MAX};

/// Turns a host's name into its addresses. Tests put their own in its place.
pub type Resolver = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Most addresses of a name that are looked at. More are connected to by nobody, and would only be kept.
const ADDRESSES_READ_MAX: usize = 64;

/// Asks the machine's own resolver. A lookup blocks a thread of the runtime, and cannot be called off.
pub fn system_resolver() -> Resolver {
    Arc::new(|host, port| {
        let lookup = tokio::task::spawn_blocking(move || {
            let found = (&*host, port).to_socket_addrs();
            // Without a file to read or to ask with, the system says that there is no such name.
            Ok(found.map_err(|error| shortage().unwrap_or(error))?.collect())
        });
        Box::pin(async move { lookup.await.map_err(io::Error::other)? })
    })
}

/// Looks names up. Who asks for a name that is being looked up already gets that answer, and takes no place: a name whose
/// server does not answer holds one place as long as the lookup takes, however often it is asked for.
pub(super) struct Lookups {
    resolver: Resolver,
    /// How long what was found is good.
    age_max: Duration,
    names: Names,
    places: Places,
}

/// A host's name, and the port.
type Name = (String, u16);
/// What a lookup came to, for all who have waited for it.
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;
/// The names that are being looked up, and those that were found of late.
type Names = Arc<Mutex<HashMap<Name, Lookup>>>;

struct Lookup {
    found: Shared<BoxFuture<'static, Found>>,
    /// Until when its answer is good; none while it is under way.
    good_until: Option<Instant>,
}

impl Lookups {
    /// Asks this resolver; a name that was found is asked for again after `age_max` only. Its addresses are a copy for each
    /// caller to judge.
    pub(super) fn new(resolver: Resolver, age_max: Duration) -> Self {
        let places = Places::new(LOOKUPS_MAX, LOOKUPS_PER_NAMESPACE_MAX);
        Self { resolver, age_max, names: Names::default(), places }
    }

    /// The addresses of this host. Waits until `place_by` for a place to look it up: one of those that this namespace may
    /// have. How long the lookup takes then is not bounded here.
    pub(super) async fn find(
        &self,
        namespace: &str,
        host: &str,
        port: u16,
        place_by: Instant,
    ) -> Result<Vec<SocketAddr>, Error> {
        let name = (host.to_owned(), port);
        let known = known(&self.names.lock(), &name);
        let found = match known {
            Some(found) => found,
            None => {
                let place = timeout_at(place_by, self.places.take(namespace)).await;
                self.begin(name, place.map_err(|_elapsed| Error::NoLookup)?)
            }
        };
        found.await.map_err(|error| match error.raw_os_error().map(io::Error::from_raw_os_error) {
            Some(error) if is_shortage(&error) => Error::NoSocket(error),
            _ => Error::Resolve(io::Error::new(error.kind(), error)),
        })
    }

    /// Begins to look a name up, unless somebody else has meanwhile. It goes on when nobody waits for it any more: as long as
    /// it does it keeps its place, and whoever asks then gets its answer.
    fn begin(&self, name: Name, place: Place) -> Shared<BoxFuture<'static, Found>> {
        let mut names = self.names.lock();
        if let Some(found) = known(&names, &name) {
            return found;
        }
        if names.len() >= NAMES_KEPT_MAX {
            // Where very many are called none is worth keeping; where few are, they are soon back.
            names.retain(|_, lookup| lookup.good_until.is_none());
        }
        let lookup = (self.resolver)(name.0.clone(), name.1);
        let (age_max, mut over) =
            (self.age_max, Over { names: self.names.clone(), name: name.clone(), good_until: None });
        let task = tokio::spawn(async move {
            let _place = place;
            let mut found = lookup.await?;
            found.truncate(ADDRESSES_READ_MAX);
            over.good_until = Some(Instant::now() + age_max);
            drop(over);
            Ok(found)
        });
        let found = async move { task.await.map_err(io::Error::other).flatten().map_err(Arc::new) };
        let found = found.boxed().shared();
        names.insert(name, Lookup { found: found.clone(), good_until: None });
        found
    }
}

/// The lookup of this name that is under way, or whose answer is still good.
fn known(names: &HashMap<Name, Lookup>, name: &Name) -> Option<Shared<BoxFuture<'static, Found>>> {
    let lookup = names.get(name)?;
    lookup.good_until.is_none_or(|until| Instant::now() < until).then(|| lookup.found.clone())
}

/// Notes that a lookup is over. What was not found is asked for anew at once.
struct Over {
    names: Names,
    name: Name,
    good_until: Option<Instant>,
}

impl Drop for Over {
    fn drop(&mut self) {
        let mut names = self.names.lock();
        match names.get_mut(&self.name).filter(|_| self.good_until.is_some()) {
            Some(lookup) => lookup.good_until = self.good_until,
            None => drop(names.remove(&self.name)),
        }
    }
}

/// Who may look names up at once: so many of each namespace, and so many in all. Those of a namespace wait for its own places
/// first; so no namespace has more than that of those in line for the others.
struct Places {
    all: Arc<Semaphore>,
    share_max: usize,
    /// By namespace, as long as anybody of it has a place or waits for one.
    shares: Mutex<HashMap<Box<str>, Weak<Semaphore>>>,
}

/// A place of a namespace, and one of all.
type Place = [OwnedSemaphorePermit; 2];

impl Places {
    fn new(all: usize, share_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), share_max, shares: Mutex::default() }
    }

    async fn take(&self, namespace: &str) -> Place {
        let place = async |places: Arc<Semaphore>| places.acquire_owned().await.expect("it is never closed");
        let own = place(self.share(namespace)).await;
        [own, place(self.all.clone()).await]
    }

    fn share(&self, namespace: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(namespace).and_then(Weak::upgrade) {
            return share;
        }
        if shares.len() == shares.capacity() {
            // Before it grows, those go that nobody uses any more.
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.share_max));
        shares.insert(namespace.into(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    const LONG: Duration = Duration::from_secs(60);

    /// A name server that never answers for `*.dead.test`, has nothing of `none.test`, and knows all others.
    struct Server {
        asked: AtomicUsize,
        go: Notify,
    }

    fn lookups(all: usize, share_max: usize) -> (Arc<Lookups>, Arc<Server>) {
        let server = Arc::new(Server { asked: AtomicUsize::new(0), go: Notify::new() });
        let asked = server.clone();
        let resolver: Resolver = Arc::new(move |host, port| {
            let server = asked.clone();
            server.asked.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                match &*host {
                    "none.test" => Err(io::ErrorKind::NotFound.into()),
                    "slow.test" => {
                        server.go.notified().await;
                        Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))])
                    }
                    dead if dead.ends_with(".dead.test") => std::future::pending().await,
                    _ => Ok(vec![SocketAddr::from(([192, 0, 2, 1], port)); 2 * ADDRESSES_READ_MAX]),
                }
            })
        });
        let lookups = Lookups { places: Places::new(all, share_max), ..Lookups::new(resolver, LONG) };
        (Arc::new(lookups), server)
    }

    impl Server {
        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    /// Asks, with no longer a wait for a place than this.
    async fn find(lookups: &Lookups, namespace: &str, host: &str, wait: Duration) -> Result<usize, Error> {
        let found = lookups.find(namespace, host, 80, Instant::now() + wait).await;
        found.map(|addresses| addresses.len())
    }

    /// As many askers of as many dead names, each with a place.
    async fn hang(lookups: &Arc<Lookups>, server: &Server, namespace: &'static str, count: usize) {
        let before = server.asked();
        for number in 0..count {
            let lookups = lookups.clone();
            let host = format!("{number}.{namespace}.dead.test");
            tokio::spawn(async move { find(&lookups, namespace, &host, LONG).await });
        }
        while server.asked() < before + count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_namespace_whose_names_hang_leaves_places_to_the_others() {
        let (lookups, server) = lookups(4, 2);
        hang(&lookups, &server, "bad", 2).await;
        let refused = find(&lookups, "bad", "live.test", Duration::ZERO).await;
        assert!(matches!(refused, Err(Error::NoLookup)), "it has its share: {refused:?}");
        assert_eq!(find(&lookups, "good", "live.test", Duration::ZERO).await.ok(), Some(ADDRESSES_READ_MAX));
        // What another namespace has found takes no place.
        assert_eq!(find(&lookups, "bad", "live.test", Duration::ZERO).await.ok(), Some(ADDRESSES_READ_MAX));
        hang(&lookups, &server, "worse", 2).await;
        let refused = find(&lookups, "good", "other.test", Duration::ZERO).await;
        assert!(matches!(refused, Err(Error::NoLookup)), "there is none left: {refused:?}");
        assert_eq!(server.asked(), 5);
    }

    #[tokio::test]
    async fn a_name_holds_one_place_however_often_it_is_asked_for() {
        let (lookups, server) = lookups(2, 2);
        for _ in 0..5 {
            // Whoever asked has given up, and the lookup goes on.
            assert!(find(&lookups, "shop", "a.dead.test", LONG).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        assert_eq!(server.asked(), 1);
        assert_eq!(find(&lookups, "shop", "live.test", Duration::ZERO).await.ok(), Some(ADDRESSES_READ_MAX));
    }

    #[tokio::test]
    async fn a_place_is_waited_for_and_given_back() {
        let (lookups, server) = lookups(1, 1);
        let ask = |namespace, host| {
            let lookups = lookups.clone();
            tokio::spawn(async move { find(&lookups, namespace, host, LONG).await.ok() })
        };
        let slow = ask("shop", "slow.test");
        while server.asked() == 0 {
            tokio::task::yield_now().await;
        }
        let waiting = [ask("shop", "slow.test"), ask("shop", "live.test"), ask("other", "live.test")];
        tokio::task::yield_now().await;
        assert_eq!(server.asked(), 1, "the others have no place");
        server.go.notify_one();
        assert_eq!(slow.await.unwrap(), Some(1));
        for (asker, count) in waiting.into_iter().zip([1, ADDRESSES_READ_MAX, ADDRESSES_READ_MAX]) {
            assert_eq!(asker.await.unwrap(), Some(count));
        }
        assert_eq!(server.asked(), 2, "each name once");
    }

    #[tokio::test]
    async fn what_was_found_is_good_for_a_while_and_what_was_not_is_asked_for_anew() {
        for (host, age_max, asked) in [("live.test", LONG, 1), ("live.test", Duration::ZERO, 3), ("none.test", LONG, 3)]
        {
            let (lookups, server) = lookups(2, 2);
            let lookups = Lookups { age_max, ..Arc::into_inner(lookups).expect("nobody else has it") };
            for _ in 0..3 {
                let found = find(&lookups, "shop", host, LONG).await;
                assert_eq!(found.is_ok(), host == "live.test", "{host}: {found:?}");
            }
            assert_eq!(server.asked(), asked, "{host}, good for {age_max:?}");
        }
    }

    #[tokio::test]
    async fn few_names_and_no_namespaces_are_kept() {
        let (lookups, server) = lookups(2, 1);
        hang(&lookups, &server, "bad", 1).await;
        for number in 0..=2 * NAMES_KEPT_MAX {
            let host = format!("{number}.test");
            find(&lookups, &host, &host, LONG).await.expect("found");
            assert!(lookups.names.lock().len() <= NAMES_KEPT_MAX);
            assert!(lookups.places.shares.lock().len() <= 8);
        }
        assert!(known(&lookups.names.lock(), &("0.bad.dead.test".to_owned(), 80)).is_some(), "it is under way");
    }
}
