//! Very many readers on kept connections, at next to no cost of their own: plain sockets, written and read in turn by
//! one thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for any answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connected readers.
pub struct Crowd {
    sockets: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Crowd {
    pub fn connect(port: u16, count: usize) -> Self {
        let open = |_| {
            let socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
            socket.set_nodelay(true).expect("a socket option");
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
            socket
        };
        Self { sockets: (0..count).map(open).collect(), buffer: vec![0; 64 * 1024] }
    }

    /// Each asks for what the function says of its number.
    pub fn ask(&mut self, path: impl Fn(usize) -> String) {
        for (number, socket) in self.sockets.iter_mut().enumerate() {
            // The headers that a reader usually sends.
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: bench/1.0\r\nAccept: application/json\r\n\r\n",
                path(number)
            );
            socket.write_all(request.as_bytes()).expect("the server reads");
        }
    }

    /// Reads the answer of each; returns the body of the last one.
    pub fn answers(&mut self) -> String {
        let mut last = 0..0;
        for socket in &mut self.sockets {
            last = answer(socket, &mut self.buffer);
        }
        String::from_utf8(self.buffer[last].to_vec()).expect("JSON is UTF-8")
    }
}

/// Reads one answer into the buffer; returns where its body stands.
fn answer(socket: &mut TcpStream, buffer: &mut [u8]) -> std::ops::Range<usize> {
    let mut filled = 0;
    loop {
        let read = socket.read(&mut buffer[filled..]).expect("an answer in time");
        assert!(read > 0, "an answer was cut short");
        filled += read;
        if let Some((start, length)) = head(&buffer[..filled])
            && filled >= start + length
        {
            return start..start + length;
        }
    }
}

/// Where the body begins and how long it is, once the head is there; it must be that of a 200.
pub fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("the length of a page");
    Some((end + 4, length.parse().expect("a number")))
}

/// What a page says under `lastSequence`.
pub fn last_sequence(body: &str) -> &str {
    let (_, behind) = body.split_once(r#""lastSequence":""#).expect("a page");
    behind.split_once('"').expect("a page").0
}
