//! The stream: messages in, reports out. The two halves live apart, so that reports leave on time whatever the reader
//! is busy with.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tracing::{info, warn};

use super::connection::{Connection, Socket, refused};
use super::copy::{self, Event, Position};
use super::error::{Error, Refusal};
use super::pace::Pace;
use crate::clock;
use crate::domain::sequence::Lsn;

/// How much is read at once: what the kernel has joined meanwhile, in one system call.
const READ_BYTES: usize = 256 * 1024;
/// A buffer that one large message made grow beyond this is given back.
const KEEP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest message: PostgreSQL's own bound on anything that it allocates.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// How long the server may take to end the stream when asked to.
const END_MAX: Duration = Duration::from_secs(2);
/// A header is the tag and the length, which counts itself.
const HEADER_BYTES: usize = 5;

/// The messages of the walsender.
pub struct Stream {
    socket: ReadHalf<Box<dyn Socket>>,
    buffer: BytesMut,
    /// What lies before it in the buffer has been handed out.
    at: usize,
    /// None where waiting joins nothing.
    pace: Option<Pace>,
    /// The last read of a flood has left some of it with the kernel.
    left_some: bool,
    pid: i32,
}

/// What is reported to the walsender.
pub struct Reports {
    socket: WriteHalf<Box<dyn Socket>>,
    buffer: BytesMut,
}

/// Streams from the slot, beginning behind `from`. The names must have passed `Config::validate`.
pub async fn start(
    connection: Connection,
    slot: &str,
    publications: &[String],
    from: Lsn,
) -> Result<(Stream, Reports), Error> {
    let (pid, joins) = (connection.pid(), connection.joins());
    let names = publications.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
    let command = format!(
        "START_REPLICATION SLOT \"{slot}\" LOGICAL {from} \
         (proto_version '1', publication_names '{names}', messages 'true')"
    );
    let (socket, buffer) = connection.start(&command).await?;
    let (reading, writing) = tokio::io::split(socket);
    let stream = Stream {
        socket: reading,
        buffer,
        at: 0,
        pace: joins.then(|| Pace::new(Instant::now())),
        left_some: false,
        pid,
    };
    Ok((stream, Reports { socket: writing, buffer: BytesMut::with_capacity(128) }))
}

impl Stream {
    /// The walsender at the other end.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Reads as much as there is; waits where there is nothing. May be dropped at any await: nothing is lost.
    ///
    /// In a flood it blocks its thread for a moment: a thread that waited for the socket meanwhile would be woken by each
    /// message, and the walsender would pay for that.
    pub async fn fill(&mut self) -> Result<(), Error> {
        let flood = self.pace.as_ref().and_then(|pace| pace.pause(Instant::now()));
        if let Some(pause) = self.pause(flood) {
            #[expect(clippy::disallowed_methods, reason = "being woken is what it must not be")]
            std::thread::sleep(pause);
        }
        if let Some(pace) = &mut self.pace {
            pace.resume(Instant::now());
        }
        self.make_room()?;
        let mut read = self.socket.read_buf(&mut self.buffer).await.map_err(Error::Broken)?;
        if read == 0 {
            return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        // What was joined behind the full buffer comes as soon as there is room for it.
        self.left_some = flood.is_some();
        while self.left_some && read < READ_BYTES {
            tokio::task::yield_now().await;
            match self.socket.read_buf(&mut self.buffer).now_or_never() {
                Some(more @ (Ok(1..) | Err(_))) => read = read.saturating_add(more.map_err(Error::Broken)?),
                // Nothing more, or the end, which the next call finds again.
                None | Some(Ok(_)) => self.left_some = false,
            }
        }
        Ok(())
    }

    /// The pause of a flood. What is there already is read without one, however much it is: a walsender whose buffer is full
    /// waits.
    fn pause(&self, flood: Option<Duration>) -> Option<Duration> {
        flood.filter(|_| !self.left_some)
    }

    /// The next message of what was read; none when it is time to read again.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        while let Some((tag, body)) = self.frame()? {
            self.at = body.end;
            if tag == backend::COPY_DATA_TAG {
                if let Some(pace) = &mut self.pace {
                    pace.count();
                }
                let body = self.buffer.get(body).unwrap_or_default();
                let event = Event::parse(body);
                return event.map(Some).ok_or(Error::Protocol { what: "an unknown message in the stream" });
            }
            self.aside(tag, body)?;
        }
        Ok(None)
    }

    /// Reads on until the server has ended the stream, as it does after [`Reports::end`], and says how it did; what still comes is
    /// dropped. None where it does not end in time.
    pub async fn drain(mut self) -> Option<Error> {
        let drained = async {
            loop {
                let read = match self.next_event() {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => self.fill().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = read {
                    return error;
                }
            }
        };
        tokio::time::timeout(END_MAX, drained).await.ok()
    }

    /// Tag and place of the next frame, if all of it is there.
    fn frame(&self) -> Result<Option<(u8, Range<usize>)>, Error> {
        let Some((tag, length)) = self.header()? else { return Ok(None) };
        let start = self.at.saturating_add(HEADER_BYTES);
        let end = start.saturating_add(length);
        Ok((end <= self.buffer.len()).then_some((tag, start..end)))
    }

    /// Tag and body length of the next frame.
    fn header(&self) -> Result<Option<(u8, usize)>, Error> {
        let header = self.buffer.get(self.at..).and_then(<[u8]>::first_chunk::<HEADER_BYTES>);
        let Some([tag, length @ ..]) = header else { return Ok(None) };
        let length = u32::from_be_bytes(*length).checked_sub(4).and_then(|length| usize::try_from(length).ok());
        match length.filter(|length| *length <= MESSAGE_BYTES_MAX) {
            Some(length) => Ok(Some((*tag, length))),
            None => Err(Error::Protocol { what: "a message of impossible length" }),
        }
    }

    /// What may come between the messages of the stream.
    fn aside(&mut self, tag: u8, body: Range<usize>) -> Result<(), Error> {
        let start = body.start.saturating_sub(HEADER_BYTES);
        let mut frame = BytesMut::from(self.buffer.get(start..body.end).unwrap_or_default());
        match tag {
            backend::COPY_DONE_TAG | backend::COMMAND_COMPLETE_TAG | backend::READY_FOR_QUERY_TAG => Err(Error::Ended),
            backend::PARAMETER_STATUS_TAG => Ok(()),
            backend::ERROR_RESPONSE_TAG | backend::NOTICE_RESPONSE_TAG => {
                match backend::Message::parse(&mut frame).map_err(Error::Broken)? {
                    Some(backend::Message::ErrorResponse(body)) => Err(refused("streaming", &body)),
                    Some(backend::Message::NoticeResponse(body)) => notice(Refusal::read(body.fields())),
                    _ => Err(Error::Protocol { what: "half an error" }),
                }
            }
            _ => Err(Error::Protocol { what: "an unknown message beside the stream" }),
        }
    }

    fn make_room(&mut self) -> Result<(), Error> {
        self.buffer.advance(self.at);
        self.at = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        let missing = match self.header()? {
            Some((_, length)) => length.saturating_add(HEADER_BYTES).saturating_sub(self.buffer.len()),
            None => HEADER_BYTES,
        };
        self.buffer.reserve(missing.max(READ_BYTES));
        Ok(())
    }
}

/// PostgreSQL 18 goes on without a publication that is gone, and says so in a warning alone. Others come under the same
/// code, such as that of a standby that is waited for: which it is tells the plugin that it comes from.
fn notice(notice: Refusal) -> Result<(), Error> {
    const NOT_READY: &str = "55000";
    if notice.code == NOT_READY && notice.file.as_deref() == Some("pgoutput.c") {
        return Err(Error::Skipped { notice: notice.message });
    }
    let is_warning = notice.code == NOT_READY || notice.code.starts_with("01");
    match is_warning {
        true => warn!(code = notice.code, "PostgreSQL warns on the stream: {}", notice.message),
        false => info!(code = notice.code, "PostgreSQL says on the stream: {}", notice.message),
    }
    Ok(())
}

impl Reports {
    /// Reports what was received and what may be forgotten. With `reply` the walsender is asked for a sign of life.
    pub async fn send(&mut self, position: Position, reply: bool) -> Result<(), Error> {
        copy::put_status(&mut self.buffer, position, clock::wall(), reply);
        self.write().await
    }

    /// Asks the server to end the stream. [`Stream::drain`] waits for it.
    pub async fn end(mut self) -> Result<(), Error> {
        frontend::copy_done(&mut self.buffer);
        frontend::terminate(&mut self.buffer);
        self.write().await
    }

    async fn write(&mut self) -> Result<(), Error> {
        self.socket.write_all(&self.buffer).await.map_err(Error::Broken)?;
        self.buffer.clear();
        self.socket.flush().await.map_err(Error::Broken)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

    fn stream() -> (DuplexStream, Stream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (reading, _) = tokio::io::split(Box::new(near) as Box<dyn Socket>);
        let pace = Some(Pace::new(Instant::now()));
        (far, Stream { socket: reading, buffer: BytesMut::new(), at: 0, pace, left_some: false, pid: 0 })
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short");
        [&[tag], length.to_be_bytes().as_slice(), body].concat()
    }

    fn data(lsn: u64, payload: &[u8]) -> Vec<u8> {
        frame(b'd', &[b"w".as_slice(), &lsn.to_be_bytes(), &[0; 16], payload].concat())
    }

    fn notice(code: &str, message: &str, file: &str) -> Vec<u8> {
        frame(b'N', format!("SWARNING\0C{code}\0M{message}\0F{file}\0\0").as_bytes())
    }

    /// Everything that the stream gives for these bytes, until it ends.
    async fn all(bytes: &[u8]) -> (Vec<(Lsn, Vec<u8>)>, Error) {
        let (mut far, mut stream) = stream();
        far.write_all(bytes).await.expect("room");
        drop(far);
        let mut events = Vec::new();
        loop {
            match stream.next_event() {
                Ok(Some(Event::Data { lsn, payload })) => events.push((lsn, payload.to_vec())),
                Ok(Some(Event::Keepalive { end, .. })) => events.push((end, Vec::new())),
                Ok(None) => match stream.fill().await {
                    Ok(()) => {}
                    Err(error) => return (events, error),
                },
                Err(error) => return (events, error),
            }
        }
    }

    #[tokio::test]
    async fn messages_larger_than_a_read_arrive_whole() {
        let large = vec![7; READ_BYTES * 2];
        let bytes = [data(1, b"a"), data(2, &large), data(3, b"c"), frame(b'c', b"")].concat();
        let (events, error) = all(&bytes).await;
        assert_eq!(events, [(Lsn(1), b"a".to_vec()), (Lsn(2), large), (Lsn(3), b"c".to_vec())]);
        assert!(matches!(error, Error::Ended));
    }

    /// Whatever language the server speaks.
    #[tokio::test]
    async fn a_skipped_publication_ends_the_stream_and_another_notice_does_not() {
        let skipped = notice("55000", "Publikation \"walclock\" wurde übersprungen", "pgoutput.c");
        let waiting = notice("55000", "replication slot \"standby\" does not have active_pid", "slot.c");
        let (events, error) = all(&[notice("01000", "hm", "x.c"), waiting, data(1, b"a"), skipped].concat()).await;
        assert_eq!(events.len(), 1);
        assert!(matches!(error, Error::Skipped { .. }), "{error}");
    }

    /// Gives no more than one byte at a time.
    struct Drops(DuplexStream);

    impl AsyncRead for Drops {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte);
            let read = Pin::new(&mut self.0).poll_read(cx, &mut one);
            buffer.put_slice(one.filled());
            read
        }
    }

    impl AsyncWrite for Drops {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn after_a_pause_it_reads_until_nothing_is_left() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        let (reading, _) = tokio::io::split(Box::new(Drops(near)) as Box<dyn Socket>);
        let calm = Pace::new(Instant::now());
        let mut stream =
            Stream { socket: reading, buffer: BytesMut::new(), at: 0, pace: Some(calm), left_some: false, pid: 0 };
        far.write_all(&[0; 1_000]).await.expect("room");
        stream.fill().await.expect("bytes");
        assert_eq!(stream.buffer.len(), 1, "without a flood it hurries");
        let mut flood = Pace::new(Instant::now() + Duration::from_secs(60));
        (0..1_000).for_each(|_| flood.count());
        stream.pace = Some(flood);
        stream.fill().await.expect("bytes");
        assert_eq!(stream.buffer.len(), 1_000);
    }

    #[tokio::test]
    async fn there_is_no_pause_while_something_is_left() {
        const PAUSE: Duration = Duration::from_millis(3);
        let (mut far, mut stream) = stream();
        let mut flood = Pace::new(Instant::now() + Duration::from_secs(60));
        (0..1_000).for_each(|_| flood.count());
        far.write_all(&vec![0; READ_BYTES * 2 + 1]).await.expect("room");
        assert_eq!(stream.pause(Some(PAUSE)), Some(PAUSE), "it has read nothing yet");
        let mut pauses = Vec::new();
        for _ in 0..3 {
            stream.pace = Some(flood.clone());
            stream.fill().await.expect("bytes");
            pauses.push(stream.pause(Some(PAUSE)));
            stream.at = stream.buffer.len();
        }
        assert_eq!(pauses, [None, None, Some(PAUSE)]);
    }

    #[tokio::test]
    async fn impossible_lengths_are_refused() {
        for length in [0, 3, u32::MAX] {
            let (_, error) = all(&[b"d".as_slice(), &length.to_be_bytes(), &[0; 8]].concat()).await;
            assert!(matches!(error, Error::Protocol { .. }), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(all(&bytes));
        }
    }
}
