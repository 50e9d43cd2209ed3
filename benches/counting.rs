//! The least that a client of a slot can do: take its messages from the socket and count them. It reads as libpq does,
//! whenever something is there and into 16 KiB, but spares itself libpq's poll() before each read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;

/// libpq's first buffer.
const BUFFER_BYTES: usize = 16 * 1024;
/// How often it says that it is still there.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What a count took.
pub struct Counted {
    pub messages: usize,
    pub took: Duration,
    /// CPU seconds of the thread that counted.
    pub cpu: f64,
}

/// Counts the messages of a slot up to the position `end`.
pub fn count(port: u16, slot: &str, end: u64) -> Counted {
    let start = Instant::now();
    let cpu = thread_seconds();
    let mut client = Client::connect(port);
    client
        .query(&format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'walclock')"));
    let mut messages = 0;
    let mut said = Instant::now();
    loop {
        let (kind, body) = client.message();
        let at = match (kind, body.first()) {
            (b'd', Some(b'w' | b'k')) => u64::from_be_bytes(body[1..9].try_into().expect("a position")),
            (b'd' | b'W', _) => 0,
            _ => panic!("the server says {}: {}", char::from(kind), String::from_utf8_lossy(body)),
        };
        messages += 1;
        if at >= end {
            break;
        }
        if said.elapsed() > STATUS_EVERY {
            said = Instant::now();
            client.status();
        }
    }
    Counted { messages, took: start.elapsed(), cpu: thread_seconds() - cpu }
}

struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer has been received and not been handed out.
    held: std::ops::Range<usize>,
}

impl Client {
    fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("PostgreSQL listens");
        socket.set_nodelay(true).expect("a socket option");
        let mut client = Self { socket, buffer: vec![0; BUFFER_BYTES], held: 0..0 };
        let mut startup = BytesMut::new();
        let words = [("user", "postgres"), ("database", "postgres"), ("replication", "database")];
        frontend::startup_message(words, &mut startup).expect("no zero in it");
        client.socket.write_all(&startup).expect("PostgreSQL reads");
        while client.message().0 != b'Z' {}
        client
    }

    fn query(&mut self, text: &str) {
        let mut query = BytesMut::new();
        frontend::query(text, &mut query).expect("no zero in it");
        self.socket.write_all(&query).expect("PostgreSQL reads");
    }

    /// Tells that nothing is confirmed, but that somebody listens.
    fn status(&mut self) {
        let mut status = BytesMut::new();
        status.put_u8(b'd');
        status.put_i32(38);
        status.put_u8(b'r');
        status.put_bytes(0, 33);
        self.socket.write_all(&status).expect("PostgreSQL reads");
    }

    /// The next message: its tag and what is behind its length.
    fn message(&mut self) -> (u8, &[u8]) {
        loop {
            let held = &self.buffer[self.held.clone()];
            if let Some(head) = held.first_chunk::<5>() {
                let length = 1 + u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if held.len() >= length {
                    let (kind, start) = (head[0], self.held.start);
                    self.held.start += length;
                    return (kind, &self.buffer[start + 5..start + length]);
                }
                if length > self.buffer.len() {
                    self.buffer.resize(length, 0);
                }
            }
            self.fill();
        }
    }

    fn fill(&mut self) {
        self.buffer.copy_within(self.held.clone(), 0);
        self.held = 0..self.held.len();
        let read = self.socket.read(&mut self.buffer[self.held.end..]).expect("PostgreSQL sends");
        assert!(read > 0, "PostgreSQL hung up");
        self.held.end += read;
    }
}

/// CPU seconds of this thread so far.
fn thread_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds: f64 = stat.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN);
    nanoseconds / 1e9
}
