//! The socket as hyper sees it: bytes that are already here come first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::stall::Unstalled;

/// A socket and what was read from it ahead of time.
#[derive(Debug)]
pub(super) struct Wire {
    ahead: Bytes,
    socket: TokioIo<Unstalled<TcpStream>>,
    /// Whether the peer takes nothing at the moment.
    held_up: Arc<AtomicBool>,
}

impl Wire {
    /// The bytes of `ahead`, and behind them what comes from the socket.
    pub(super) fn new(ahead: Bytes, socket: Unstalled<TcpStream>) -> Self {
        Self { ahead, socket: TokioIo::new(socket), held_up: Arc::default() }
    }

    /// Whether the last that was to be written is not written yet.
    pub(super) fn held_up(&self) -> Arc<AtomicBool> {
        self.held_up.clone()
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.held_up.store(written.is_pending(), Ordering::Relaxed);
        written
    }

    /// The bytes that were not read, and the socket.
    pub(super) fn into_parts(self) -> (Bytes, Unstalled<TcpStream>) {
        (self.ahead, self.socket.into_inner())
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.chunk()[..length]);
        self.ahead.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
