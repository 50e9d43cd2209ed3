//! From a host's name to its addresses, by the machine's own resolver.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Turns a host's name into its addresses. Tests put their own in its place.
pub type Resolver = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Names that are looked up at once. A lookup blocks a thread, and a name server that does not answer must not use up
/// the threads that others need.
const LOOKUPS_MAX: usize = 64;

/// Asks the machine's own resolver.
pub fn system_resolver() -> Resolver {
    bounded(LOOKUPS_MAX, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

/// Runs a blocking lookup aside, at most `lookups_max` of them at once. Who asks for a name that is being looked up already
/// gets that answer: a name server that does not answer holds up those who wait for its names, and next to no one else.
fn bounded<F>(lookups_max: usize, lookup: F) -> Resolver
where
    F: Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
{
    let (lookup, permits) = (Arc::new(lookup), Arc::new(Semaphore::new(lookups_max)));
    let under_way = Lookups::default();
    Arc::new(move |host, port| {
        let (lookup, permits) = (lookup.clone(), permits.clone());
        let found = under_way.join(host.clone(), port, async move {
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            let found = tokio::task::spawn_blocking(move || {
                // It goes with the thread, not with who waits for it: a lookup cannot be called off.
                let _permit = permit;
                lookup(&host, port)
            });
            found.await.map_err(io::Error::other)?
        });
        Box::pin(async move { found.await.map_err(|error| io::Error::new(error.kind(), error)) })
    })
}

/// What a lookup came to, for all who have waited for it.
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// A host's name, and the port.
type Name = (String, u16);

/// The lookups that somebody waits for.
#[derive(Clone, Default)]
struct Lookups(Arc<Mutex<HashMap<Name, WeakShared<BoxFuture<'static, Found>>>>>);

impl Lookups {
    /// The lookup of this name that is under way, or else this one. It is given up when nobody waits for it any more.
    fn join(
        &self,
        host: String,
        port: u16,
        lookup: impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Found>> {
        let name = (host, port);
        let mut under_way = self.0.lock();
        if let Some(found) = under_way.get(&name).and_then(WeakShared::upgrade) {
            return found;
        }
        let over = Over { lookups: self.clone(), name: name.clone() };
        let found = async move {
            let _over = over;
            lookup.await.map_err(Arc::new)
        };
        let found = found.boxed().shared();
        under_way.extend(found.downgrade().map(|weak| (name, weak)));
        found
    }
}

/// Forgets a lookup once it is over or given up: the next one asks anew.
struct Over {
    lookups: Lookups,
    name: Name,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.lookups.0.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn lookups_that_do_not_end_hold_few_threads() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let (now, peak) = (running.clone(), most.clone());
        let resolver = bounded(2, move |_, _| {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let passed = gate.lock().recv();
            now.fetch_sub(1, Ordering::SeqCst);
            passed.map(|()| Vec::new()).map_err(io::Error::other)
        });
        let mut lookups = tokio::task::JoinSet::new();
        for number in 0..20 {
            lookups.spawn(resolver(format!("{number}.test"), 80));
        }
        while running.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        (0..20).for_each(|_| go.send(()).expect("lookups wait"));
        for found in lookups.join_all().await {
            assert_eq!(found.expect("a list"), []);
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_name_that_is_looked_up_for_long_holds_up_no_other() {
        let count = Arc::new(AtomicUsize::new(0));
        let (go, gate) = mpsc::channel::<()>();
        let (asked, gate) = (count.clone(), Mutex::new(gate));
        let resolver = bounded(2, move |host, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            match host {
                "dead.test" => gate.lock().recv().map_err(io::Error::other).and(Err(io::ErrorKind::NotFound.into())),
                _ => Ok(Vec::new()),
            }
        });
        let mut lookups = tokio::task::JoinSet::new();
        for _ in 0..10 {
            lookups.spawn(resolver("dead.test".to_owned(), 80));
        }
        tokio::task::yield_now().await;
        let other = tokio::time::timeout(Duration::from_secs(60), resolver("live.test".to_owned(), 80));
        assert_eq!(other.await.expect("it does not wait for the other name").expect("a list"), []);
        go.send(()).expect("a lookup waits");
        for found in lookups.join_all().await {
            assert_eq!(found.expect_err("not found").kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(count.load(Ordering::SeqCst), 2, "each name once");
        // What was found is not kept.
        resolver("live.test".to_owned(), 80).await.expect("a list");
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }
}
