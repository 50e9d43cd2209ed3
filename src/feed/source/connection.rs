//! The replication connection up to the start of the stream: socket, TLS, login, simple queries.
//!
//! Hand-written over `postgres-protocol`, since the driver has neither CopyBoth nor `replication=database`.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{Error, Refusal};
use super::login;
use super::socket::{self, Channel};
use crate::domain::sequence::Lsn;
use crate::pg::Settings;

/// How long login, and each command before the stream, may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The tag of CopyBothResponse, which `backend::Message::parse` does not know.
const COPY_BOTH_TAG: u8 = b'W';

/// What the replication stream runs over.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// A logged-in replication connection that does not stream yet.
pub struct Connection {
    socket: Box<dyn Socket>,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// The walsender at the other end.
    pid: i32,
    /// The kernel joins what is not read at once.
    joins: bool,
}

/// What IDENTIFY_SYSTEM says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The identifier that initdb gave to the cluster.
    pub id: u64,
    /// The timeline that it is on.
    pub timeline: u32,
    /// Where its WAL ends: what lies before it is on its disk.
    pub wal_end: Lsn,
}

/// A value of a row in text; none for NULL.
type Value = Option<String>;

impl Connection {
    /// Connects to the one host of the settings and logs in.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        within("logging in for replication", async {
            let (socket, channel) = socket::connect(settings).await?;
            let mut connection = Self::over(socket);
            connection.joins = !matches!(channel, Channel::Local);
            login::start_up(&mut connection, settings)?;
            connection.send().await?;
            login::authenticate(&mut connection, settings, &channel).await?;
            connection.wait_until_ready().await?;
            Ok(connection)
        })
        .await
    }

    /// A connection over this socket, on which nothing has been said yet.
    pub(super) fn over(socket: Box<dyn Socket>) -> Self {
        let (incoming, outgoing) = (BytesMut::with_capacity(8192), BytesMut::with_capacity(1024));
        Self { socket, incoming, outgoing, pid: 0, joins: false }
    }

    /// The walsender at the other end.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the kernel joins what is not read at once, as TCP does.
    pub(super) fn joins(&self) -> bool {
        self.joins
    }

    /// Which cluster this is.
    pub async fn identify(&mut self) -> Result<System, Error> {
        let rows = self.query("identifying the system", "IDENTIFY_SYSTEM").await?;
        let system = rows.first().and_then(|row| match row.as_slice() {
            [Some(id), Some(timeline), Some(wal_end), ..] => {
                Some(System { id: id.parse().ok()?, timeline: timeline.parse().ok()?, wal_end: wal_end.parse().ok()? })
            }
            _ => None,
        });
        system.ok_or(Error::Protocol { what: "an answer to IDENTIFY_SYSTEM without id, timeline and position" })
    }

    /// Where a timeline left its parents: the parent's number and the LSN of the fork, for each of them.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<(u32, Lsn)>, Error> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self.query("reading the timeline's history", &format!("TIMELINE_HISTORY {timeline}")).await?;
        match rows.first().map(Vec::as_slice) {
            Some([_, Some(content)]) => Ok(forks(content)),
            _ => Err(Error::Protocol { what: "an answer to TIMELINE_HISTORY without its content" }),
        }
    }

    /// Starts the stream, and gives the socket and what was read ahead of it away.
    pub(super) async fn start(mut self, command: &str) -> Result<(Box<dyn Socket>, BytesMut), Error> {
        const DOING: &str = "starting the replication stream";
        within(DOING, async {
            frontend::query(command, &mut self.outgoing).map_err(Error::Broken)?;
            self.send().await?;
            while self.peek().await? != COPY_BOTH_TAG {
                match self.receive().await? {
                    backend::Message::ErrorResponse(body) => return Err(refused(DOING, &body)),
                    backend::Message::NoticeResponse(_) | backend::Message::ParameterStatus(_) => {}
                    _ => return Err(Error::Protocol { what: "no CopyBoth after START_REPLICATION" }),
                }
            }
            self.skip_frame().await?;
            Ok((self.socket, self.incoming))
        })
        .await
    }

    async fn query(&mut self, doing: &'static str, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
        within(doing, async {
            frontend::query(sql, &mut self.outgoing).map_err(Error::Broken)?;
            self.send().await?;
            let mut rows = Vec::new();
            let mut refusal = None;
            loop {
                match self.receive().await? {
                    backend::Message::DataRow(body) => rows.push(values(&body)?),
                    backend::Message::ErrorResponse(body) => refusal = Some(refused(doing, &body)),
                    backend::Message::ReadyForQuery(_) => return refusal.map_or(Ok(rows), Err),
                    _ => {}
                }
            }
        })
        .await
    }

    async fn wait_until_ready(&mut self) -> Result<(), Error> {
        loop {
            match self.receive().await? {
                backend::Message::BackendKeyData(body) => self.pid = body.process_id(),
                backend::Message::ErrorResponse(body) => return Err(refused("logging in for replication", &body)),
                backend::Message::ReadyForQuery(_) => return Ok(()),
                _ => {}
            }
        }
    }

    /// What is to be sent next.
    pub(super) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Sends it.
    pub(super) async fn send(&mut self) -> Result<(), Error> {
        self.socket.write_all(&self.outgoing).await.map_err(Error::Broken)?;
        self.outgoing.clear();
        self.socket.flush().await.map_err(Error::Broken)
    }

    /// The next message.
    pub(super) async fn receive(&mut self) -> Result<backend::Message, Error> {
        loop {
            if let Some(message) = backend::Message::parse(&mut self.incoming).map_err(Error::Broken)? {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    /// The tag of the next message, which stays where it is.
    async fn peek(&mut self) -> Result<u8, Error> {
        loop {
            if let Some(tag) = self.incoming.first() {
                return Ok(*tag);
            }
            self.read().await?;
        }
    }

    async fn skip_frame(&mut self) -> Result<(), Error> {
        loop {
            let header = backend::Header::parse(&self.incoming).map_err(Error::Broken)?;
            let length = header.and_then(|header| usize::try_from(header.len()).ok()?.checked_add(1));
            if let Some(length) = length
                && self.incoming.len() >= length
            {
                drop(self.incoming.split_to(length));
                return Ok(());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        match self.socket.read_buf(&mut self.incoming).await.map_err(Error::Broken)? {
            0 => Err(Error::Broken(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

/// An answer that took too long is none: the server may be frozen or the network gone.
async fn within<T>(doing: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER_MAX, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Unanswered { doing, waited: ANSWER_MAX }),
    }
}

pub(super) fn refused(doing: &'static str, body: &backend::ErrorResponseBody) -> Error {
    Error::Refused { doing, refusal: Refusal::read(body.fields()) }
}

fn values(row: &backend::DataRowBody) -> Result<Vec<Value>, Error> {
    let text = |range: Option<std::ops::Range<usize>>| {
        let bytes = range.and_then(|range| row.buffer().get(range));
        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    };
    row.ranges().map(text).collect().map_err(Error::Broken)
}

/// Reads a history file: parent, LSN and reason in each line.
fn forks(content: &str) -> Vec<(u32, Lsn)> {
    let fork = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    content.lines().filter_map(fork).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_of_a_timeline() {
        let content = "1\t0/3000158\tno recovery target specified\n\n2\t1/B0\tbefore 2000-01-01 00:00:00+00\n";
        assert_eq!(forks(content), [(1, Lsn(0x0300_0158)), (2, Lsn(0x1_0000_00B0))]);
        assert_eq!(forks("nonsense"), []);
    }
}
