//! A connection that fails when its peer takes nothing for too long, or too little. Keep-alive and retransmission notice a
//! peer that is gone; this notices one that is there and does not read, or reads a little now and then.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::domain::limits::WRITE_RATE_MIN;

/// A stream whose writes must go on. Reading may take as long as it likes.
#[derive(Debug)]
pub(super) struct Unstalled<S> {
    inner: S,
    patience: Patience,
    /// When a write that is held up fails; none while nothing is held up, so that an idle connection keeps no timer.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// How long writes may be held up. It is used up while they are, and what is taken brings it back: a second for each
/// [`WRITE_RATE_MIN`] bytes. In microseconds, so that a connection keeps little of it.
#[derive(Clone, Copy, Debug)]
struct Patience {
    most: u32,
    left: u32,
}

impl Patience {
    fn new(most: Duration) -> Self {
        let most = micros(most.as_micros());
        Self { most, left: most }
    }

    fn left(self) -> Duration {
        Duration::from_micros(self.left.into())
    }

    /// Bytes have been taken, with so much left by then.
    fn taken(&mut self, left: Duration, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let earned = bytes.saturating_mul(1_000_000) / u64::from(WRITE_RATE_MIN);
        self.left = micros(left.as_micros()).saturating_add(micros(earned.into())).min(self.most);
    }
}

/// So many microseconds, at most some 70 minutes.
fn micros(micros: u128) -> u32 {
    u32::try_from(micros).unwrap_or(u32::MAX)
}

impl<S> Unstalled<S> {
    /// `inner`, where no write may be held up for longer than `stall_max`, and none may be so slow.
    pub(super) fn new(inner: S, stall_max: Duration) -> Self {
        Self { inner, patience: Patience::new(stall_max), deadline: None }
    }

    /// The stream itself.
    pub(super) fn inner(&self) -> &S {
        &self.inner
    }

    /// Passes on how a write went, unless it has been held up for too long.
    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            let left = match self.deadline.take() {
                Some(deadline) => deadline.deadline().saturating_duration_since(Instant::now()),
                None => self.patience.left(),
            };
            self.patience.taken(left, bytes);
        }
        if written.is_ready() {
            return written;
        }
        let left = self.patience.left();
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(left)));
        deadline.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes too little")))
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
    async fn a_peer_that_takes_a_little_now_and_then_is_given_up() {
        let (ours, mut theirs) = duplex(8);
        let mut ours = Unstalled::new(ours, 10 * SHORT);
        // Far below the least rate, and each byte in time.
        let taking = async {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(SHORT).await;
            }
        };
        tokio::select! {
            written = ours.write_all(&[b'x'; 500]) => {
                assert_eq!(written.expect_err("too slow").kind(), io::ErrorKind::TimedOut);
            }
            () = taking => panic!("the connection is there"),
        }
    }

    #[tokio::test]
    async fn what_is_taken_brings_time_back_and_leaves_no_timer() {
        let (ours, mut theirs) = duplex(1);
        let mut ours = Unstalled::new(ours, Duration::from_secs(60));
        ours.write_all(b"x").await.expect("there is room");
        let mut held_up = Box::pin(ours.write_all(b"y"));
        assert!(futures_util::poll!(&mut held_up).is_pending());
        theirs.read_u8().await.expect("a byte");
        held_up.await.expect("there is room again");
        assert!(ours.deadline.is_none(), "nothing is left of it while nothing is held up");
    }

    /// The kernel passes on much at once, and then nothing for a while.
    #[test]
    fn a_peer_may_be_as_slow_as_the_least_rate_also_in_bursts() {
        let rate = usize::try_from(WRITE_RATE_MIN).expect("it is small");
        for (every, bytes, holds) in [
            (1, rate, true),
            (50, 50 * rate, true),
            (59, 60 * rate, true),
            (1, rate * 9 / 10, false),
            (50, 25 * rate, false),
        ] {
            let mut patience = Patience::new(Duration::from_secs(60));
            let every = Duration::from_secs(every);
            let mut bursts = 0;
            while bursts < 10_000 && patience.left() > every {
                patience.taken(patience.left() - every, bytes);
                bursts += 1;
            }
            assert_eq!(bursts == 10_000, holds, "{bytes} bytes every {every:?}: {bursts} times");
        }
    }

    #[test]
    fn what_is_taken_at_once_is_no_credit_for_later() {
        let mut patience = Patience::new(Duration::from_secs(60));
        patience.taken(patience.left(), 100 << 20);
        assert_eq!(patience.left(), Duration::from_secs(60));
        patience.taken(Duration::ZERO, 0);
        assert_eq!(patience.left(), Duration::ZERO);
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
