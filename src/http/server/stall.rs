//! A connection that fails when its peer takes nothing for too long. Keep-alive and retransmission notice a peer that is
//! gone; this notices one that is there and does not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream whose writes must go on. Reading may take as long as it likes.
#[derive(Debug)]
pub(super) struct Unstalled<S> {
    inner: S,
    stall_max: Duration,
    /// When a write that is held up fails; none while nothing is held up, so that an idle connection keeps no timer.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Unstalled<S> {
    /// `inner`, where no write may be held up for longer than `stall_max`.
    pub(super) fn new(inner: S, stall_max: Duration) -> Self {
        Self { inner, stall_max, deadline: None }
    }

    /// The stream itself.
    pub(super) fn inner(&self) -> &S {
        &self.inner
    }

    /// Passes on how a write went, unless it has been held up for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.stall_max)));
        deadline.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = duplex(8);
        let mut ours = Unstalled::new(ours, SHORT);
        let failure = ours.write_all(b"more than eight").await.expect_err("nobody reads");
        assert_eq!(failure.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn every_byte_that_is_taken_begins_the_time_anew() {
        let (ours, mut theirs) = duplex(1);
        let mut ours = Unstalled::new(ours, Duration::from_secs(60));
        ours.write_all(b"x").await.expect("there is room");
        let mut held_up = Box::pin(ours.write_all(b"y"));
        assert!(futures_util::poll!(&mut held_up).is_pending());
        theirs.read_u8().await.expect("a byte");
        held_up.await.expect("there is room again");
        assert!(ours.deadline.is_none(), "nothing is left of it while nothing is held up");
    }

    #[tokio::test]
    async fn who_waits_for_a_request_may_wait() {
        let (ours, mut theirs) = duplex(8);
        let mut ours = Unstalled::new(ours, Duration::ZERO);
        let mut reading = Box::pin(ours.read_u8());
        assert!(futures_util::poll!(&mut reading).is_pending());
        theirs.write_u8(7).await.expect("there is room");
        assert_eq!(reading.await.expect("a byte"), 7);
    }
}
