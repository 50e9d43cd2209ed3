//! Snapshots on their way to a reader: rendered as they come, and bounded in time. A reader that dawdles or goes away ends
//! its snapshot, for what it sees cannot be vacuumed while it lasts.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::feed::snapshots::{self, Error, Piece, Row, Snapshot, Table};

/// How much is rendered before it is handed over: enough that a chunk is worth its frame.
const CHUNK_BYTES: usize = 64 * 1024;

/// How a face writes a snapshot. What has been written may have left already when the next part comes.
pub trait Form: Send + 'static {
    /// Before everything else.
    fn head(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>);
    /// A table begins.
    fn table(&mut self, table: &Table, out: &mut Vec<u8>);
    /// A row of it.
    ///
    /// # Errors
    ///
    /// Where the row makes no sense.
    fn row(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), Error>;
    /// All of it has been written.
    fn end(&mut self, out: &mut Vec<u8>);
}

/// What readers begin with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    feed: snapshots::Snapshots,
    stall_max: Duration,
    time_max: Duration,
}

impl Snapshots {
    /// Snapshots with the usual bounds on their readers.
    pub fn new(feed: snapshots::Snapshots) -> Self {
        Self { feed, stall_max: limits::SNAPSHOT_STALL_MAX, time_max: limits::SNAPSHOT_TIME_MAX }
    }

    /// The same for readers who may take at most `stall_max` for one part.
    pub fn with_stall_max(self, stall_max: Duration) -> Self {
        Self { stall_max, ..self }
    }

    /// Begins a snapshot of the rows in these scopes, at least one and none of them the empty scope. What it shows is
    /// settled when this returns; the rows follow as they are taken.
    ///
    /// # Errors
    ///
    /// As the feed has them: nothing was begun.
    pub async fn take(&self, scopes: &[Scope], form: impl Form) -> Result<Chunks, Error> {
        let snapshot = self.feed.take(scopes).await?;
        let (sender, receiver) = mpsc::channel(1);
        let outlet = Outlet { sender, stall_max: self.stall_max };
        tokio::spawn(outlet.run(snapshot, form, self.time_max));
        Ok(Chunks { receiver, is_over: false })
    }
}

/// The end that a reader pulls at.
#[derive(Debug)]
pub struct Chunks {
    receiver: mpsc::Receiver<Part>,
    is_over: bool,
}

/// The snapshot ended before it was whole: what has come of it is to be thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot broke off")]
pub struct BrokenOff;

#[derive(Debug)]
enum Part {
    Chunk(Bytes),
    /// Only who has got this has got all of it.
    End,
}

impl Stream for Chunks {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(context).map(|part| match part {
            Some(Part::Chunk(chunk)) => Some(Ok(chunk)),
            Some(Part::End) => {
                self.is_over = true;
                None
            }
            None => {
                self.is_over = true;
                Some(Err(BrokenOff))
            }
        })
    }
}

/// Why a snapshot ended before it was whole.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("its reader went away")]
    Gone,
    #[error("its reader took nothing for {0:?}")]
    Stalled(Duration),
    #[error("it took longer than {0:?}")]
    TooLong(Duration),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// The end that a snapshot is poured into.
struct Outlet {
    sender: mpsc::Sender<Part>,
    stall_max: Duration,
}

impl Outlet {
    async fn run(self, snapshot: Snapshot, form: impl Form, time_max: Duration) {
        let poured = tokio::select! {
            poured = timeout(time_max, self.pour(snapshot, form)) => poured.unwrap_or(Err(Cut::TooLong(time_max))),
            () = self.sender.closed() => Err(Cut::Gone),
        };
        let outcome = match &poured {
            Ok(()) => "whole",
            Err(Cut::Gone) => "gone",
            Err(Cut::Stalled(_) | Cut::TooLong(_)) => "slow",
            Err(Cut::Failed(_)) => "failed",
        };
        metrics::counter!("walclock_snapshots_total", "outcome" => outcome).increment(1);
        match poured {
            Ok(()) => {}
            Err(cut @ Cut::Gone) => tracing::debug!("a snapshot was cut off: {cut}"),
            Err(cut @ (Cut::Stalled(_) | Cut::TooLong(_) | Cut::Failed(_))) => {
                tracing::warn!(error = &cut as &dyn std::error::Error, "a snapshot was cut off");
            }
        }
    }

    async fn pour(&self, mut snapshot: Snapshot, mut form: impl Form) -> Result<(), Cut> {
        let mut out = Vec::with_capacity(CHUNK_BYTES);
        form.head(&snapshot, &mut out);
        while let Some(piece) = snapshot.next().await? {
            match piece {
                Piece::Table(table) => form.table(table, &mut out),
                Piece::Row(row) => form.row(&row, &mut out)?,
            }
            if out.len() >= CHUNK_BYTES {
                self.chunk(std::mem::replace(&mut out, Vec::with_capacity(CHUNK_BYTES))).await?;
            }
        }
        // Nothing is held for the rest of the way.
        drop(snapshot);
        form.end(&mut out);
        self.chunk(out).await?;
        self.send(Part::End).await
    }

    async fn chunk(&self, chunk: Vec<u8>) -> Result<(), Cut> {
        let bytes = chunk.len();
        self.send(Part::Chunk(chunk.into())).await?;
        metrics::counter!("walclock_snapshots_bytes_total").increment(u64::try_from(bytes).unwrap_or(u64::MAX));
        Ok(())
    }

    async fn send(&self, part: Part) -> Result<(), Cut> {
        match timeout(self.stall_max, self.sender.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Cut::Gone),
            Err(_) => Err(Cut::Stalled(self.stall_max)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    async fn pull(parts: Vec<Part>) -> Vec<Result<Bytes, BrokenOff>> {
        let (sender, receiver) = mpsc::channel(parts.len().max(1));
        for part in parts {
            sender.try_send(part).expect("room");
        }
        drop(sender);
        Chunks { receiver, is_over: false }.collect().await
    }

    #[tokio::test]
    async fn only_the_end_ends_a_snapshot_well() {
        let chunk = || Part::Chunk(Bytes::from_static(b"x"));
        let x = || Ok(Bytes::from_static(b"x"));
        assert_eq!(pull(vec![chunk(), Part::End]).await, [x()]);
        assert_eq!(pull(vec![chunk(), chunk()]).await, [x(), x(), Err(BrokenOff)]);
        assert_eq!(pull(vec![]).await, [Err(BrokenOff)]);
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (sender, receiver) = mpsc::channel(1);
        let outlet = Outlet { sender, stall_max: Duration::ZERO };
        outlet.chunk(vec![b'x']).await.expect("the first one is taken");
        assert!(matches!(outlet.chunk(vec![b'y']).await, Err(Cut::Stalled(_))));
        drop(receiver);
        assert!(matches!(outlet.chunk(vec![b'y']).await, Err(Cut::Gone)));
    }
}
