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

/// Those who need a file each, and how many of them there may be at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowds {
    /// Connections that are accepted.
    pub(super) connections: usize,
    /// Callbacks under way; 0 where there is no dispatcher.
    pub(super) callbacks: usize,
}

impl Crowds {
    /// As many as are wanted, or fewer, with a warning, where the limit of open files leaves no more beside the `own` ones of the
    /// process.
    pub(super) fn within_files(self, own: usize) -> Self {
        let Some(files) = getrlimit(Resource::Nofile).current else { return self };
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let most = self.divide(files, own);
        let raise = "raise the limit (ulimit -n, LimitNOFILE) or lower the setting";
        if most.connections < self.connections {
            let (wanted, most) = (self.connections, most.connections);
            tracing::warn!(
                "--connections-max is {wanted}, and only {files} files may be open: at most {most} connections are held; {raise}"
            );
        }
        if most.callbacks < self.callbacks {
            let (wanted, most) = (self.callbacks, most.callbacks);
            tracing::warn!(
                "--callbacks-max is {wanted}, and only {files} files may be open: at most {most} callbacks are under way; {raise}"
            );
        }
        most
    }

    /// What so many files leave: half of it each, and what the other does not want. Where there are very few files, the process
    /// gets by with half of them.
    fn divide(self, files: usize, own: usize) -> Self {
        let left = files.saturating_sub(own.min(files / 2)).max(2);
        let callbacks = self.callbacks.min((left / 2).max(left.saturating_sub(self.connections)));
        Self { connections: self.connections.min(left - callbacks), callbacks }
    }
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
    fn crowds_leave_files_for_the_process_and_for_each_other() {
        for (files, own, wanted, most) in [
            (1_048_576, 1_000, (50_000, 16_384), (50_000, 16_384)),
            (65_536, 1_000, (50_000, 16_384), (48_152, 16_384)),
            (65_536, 1_000, (50_000, 0), (50_000, 0)),
            (20_000, 1_000, (50_000, 16_384), (9_500, 9_500)),
            (20_000, 1_000, (4_000, 16_384), (4_000, 15_000)),
            (1_024, 1_000, (50_000, 16_384), (256, 256)),
            (1_024, 1_000, (50_000, 0), (512, 0)),
            (256, 100, (50_000, 10), (146, 10)),
            (1, 9, (50_000, 16_384), (1, 1)),
            (0, 9, (50_000, 0), (2, 0)),
        ] {
            let crowds = |(connections, callbacks)| Crowds { connections, callbacks };
            assert_eq!(crowds(wanted).divide(files, own), crowds(most), "{wanted:?} of {files} files, {own} own ones");
        }
    }
}
