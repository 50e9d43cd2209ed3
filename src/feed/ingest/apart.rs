//! A thread for what waits: for a slow disk, and, in a flood, for nothing at all.

use std::io;

use tokio::sync::oneshot;

/// Runs a part on a thread with a runtime of its own. A slow disk keeps nobody else waiting; and while the part blocks its
/// thread, nobody waits for its sockets, so that those who write to them have nobody to wake.
///
/// What the part spawns with `tokio::spawn` ends with it, and stands still while it blocks.
///
/// # Errors
/// Where there can be no thread or no runtime, and where the part panics.
pub(super) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    part: impl Future<Output = T> + Send + 'static,
) -> io::Result<T> {
    let (end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        let result = runtime.block_on(part);
        // A look-up of a name that hangs is nobody's concern any more.
        runtime.shutdown_background();
        // Nobody may be waiting for it any more.
        let _ = end.send(result);
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
    ended.await.map_err(|_| io::Error::other("its thread panicked"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// With one worker: a part that blocked it would wait for ever for what another task has to do.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_part_that_blocks_keeps_nobody_waiting() {
        let (go, gone) = std::sync::mpsc::channel();
        let part = tokio::spawn(on_own_thread("slow", async move { gone.recv().is_ok() }));
        let other = tokio::spawn(async move { go.send(()).is_ok() });
        assert!(tokio::time::timeout(Duration::from_secs(60), other).await.unwrap().unwrap());
        assert!(part.await.unwrap().unwrap());
    }

    /// Threads of another runtime would wait for the part's sockets while it blocks.
    #[tokio::test(flavor = "multi_thread")]
    async fn its_runtime_has_no_other_thread() {
        let flavor = on_own_thread("own", async { tokio::runtime::Handle::current().runtime_flavor() }).await;
        assert_eq!(flavor.unwrap(), tokio::runtime::RuntimeFlavor::CurrentThread);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_that_panics_is_a_failure() {
        let ended: io::Result<()> = on_own_thread("bad", async { panic!("planted") }).await;
        assert_eq!(ended.unwrap_err().to_string(), "its thread panicked");
    }
}
