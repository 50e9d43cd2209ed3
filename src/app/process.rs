//! What the process asks of its operating system: file descriptors, and its signals.

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a process that was told twice to stop: it left work behind.
const IMPATIENT: i32 = 130;

/// Raises the number of files and sockets that may be open to what the system allows: each reader is one.
pub(super) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(files = ?limit.maximum, "raised the limit of open files"),
        Err(error) => tracing::warn!(%error, files = ?limit.current, "the limit of open files stays as it is"),
    }
}

/// How many connections may be open at once: as many as are wanted, or fewer, with a warning, where the limit of open files
/// leaves no more beside the `own` ones of the process.
pub(super) fn connections_within_files(wanted: usize, own: usize) -> usize {
    let Some(files) = getrlimit(Resource::Nofile).current else { return wanted };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let most = connections_of(files, own);
    if wanted <= most {
        return wanted;
    }
    tracing::warn!(
        "--connections-max is {wanted}, and only {files} files may be open: at most {most} connections are held; \
         raise the limit (ulimit -n, LimitNOFILE) or lower the setting"
    );
    most
}

/// The connections that so many files leave. Where there are very few files, the process gets by with half of them: callbacks
/// are most of what it may need.
fn connections_of(files: usize, own: usize) -> usize {
    files.saturating_sub(own.min(files / 2)).max(1)
}

/// Cancels the token at the first SIGTERM or SIGINT; the second one ends the process at once.
pub(super) fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let stop = CancellationToken::new();
    tokio::spawn(watch(terminate, interrupt, stop.clone()));
    Ok(stop)
}

async fn watch(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            tracing::warn!("told twice to stop: leaving at once");
            std::process::exit(IMPATIENT);
        }
        tracing::info!("stopping: finishing what is under way; a second signal ends it at once");
        stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_process() {
        for (files, own, connections) in [
            (1_048_576, 17_000, 1_031_576),
            (65_536, 17_000, 48_536),
            (1024, 17_000, 512),
            (256, 100, 156),
            (1, 9, 1),
            (0, 9, 1),
        ] {
            assert_eq!(connections_of(files, own), connections, "{files} files, {own} own ones");
        }
    }
}
