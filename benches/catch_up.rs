//! One reader that pages through everything of its scope, beside a reader of the same bytes from a file by sendfile.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::crowd::{head, last_sequence};
use crate::support::{Database, Server, size};
use crate::verdict::{Target, Verdict};

const ROUNDS: usize = 5;
const BUFFER_BYTES: usize = 256 * 1024;

pub async fn run() -> Vec<Verdict> {
    let rows = size("ROWS", 1_000_000);
    let database = Database::start(&[("max_wal_size", "8GB")]);
    let server = Server::start_feed(&database).await;
    let client = database.connect().await;
    let table = "create table rows (id int primary key, _change_selector text, body text);
        alter table rows replica identity full;
        select walclock.publish('rows')";
    client.batch_execute(table).await.expect("a table");
    let load = "insert into rows select n, 'bench', repeat('x', 200)
        from generate_series($1::int * 1000 + 1, $1::int * 1000 + 1000) n";
    let load = client.prepare(load).await.expect("a statement");
    for batch in 0..rows / 1000 {
        client.execute(&load, &[&i32::try_from(batch).expect("a small number")]).await.expect("rows");
    }
    client.execute("insert into rows values (0, 'over', '')", &[]).await.expect("the last row");
    crate::support::Connection::open(&server.url).await.get("/changes?scope=over&block=300").await;

    println!("one reader of {rows} changes in pages of 10,000, beside sendfile");
    let file = database.folder.path().join("pages");
    let bytes = pages(server.port, rows, &mut File::create(&file).expect("a file"));
    let (mut ratios, mut busy) = (Vec::new(), 0.0);
    for round in 1..=ROUNDS {
        let theirs = sendfile(&file, bytes);
        let (start, cpu) = (Instant::now(), server.cpu_seconds());
        assert_eq!(pages(server.port, rows, &mut std::io::sink()), bytes, "the same pages every time");
        let ours = start.elapsed();
        busy += 100.0 * (server.cpu_seconds() - cpu) / ours.as_secs_f64() / ROUNDS as f64;
        let rate = |took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
        println!(
            "  round {round}: sendfile {:5.0} MB/s   walclock {:5.0} MB/s, {:.0} changes/s",
            rate(theirs),
            rate(ours),
            rows as f64 / ours.as_secs_f64()
        );
        ratios.push(theirs.as_secs_f64() / ours.as_secs_f64());
    }
    let limit = format!("walclock is busy for {busy:.0} % of one CPU; the reader takes the bytes meanwhile");
    vec![Verdict::new("catch-up, of sendfile's rate", ratios, Target::AtLeast(0.3), limit)]
}

/// Pages through the scope; writes the bodies, and returns how many bytes they have.
fn pages(port: u16, rows: usize, out: &mut impl Write) -> u64 {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    socket.set_nodelay(true).expect("a socket option");
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut since, mut total) = ("0.0.0".to_owned(), 0);
    for _ in 0..rows.div_ceil(10_000) {
        let request = format!("GET /changes?scope=bench&limit=10000&since={since} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("the server reads");
        let mut filled = 0;
        let (start, length) = loop {
            filled += read(&mut socket, &mut buffer[filled..]);
            // Its first words tell where to follow on.
            if let Some((start, length)) = head(&buffer[..filled])
                && filled > start + 200
            {
                break (start, length);
            }
        };
        since = last_sequence(&String::from_utf8_lossy(&buffer[start..start + 200])).to_owned();
        out.write_all(&buffer[start..filled]).expect("room for the pages");
        let mut rest = length - (filled - start);
        while rest > 0 {
            let filled = read(&mut socket, &mut buffer);
            out.write_all(&buffer[..filled]).expect("room for the pages");
            rest -= filled;
        }
        total += length as u64;
    }
    assert!(total > rows as u64 * 200, "every change is in a page");
    total
}

fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> usize {
    let read = socket.read(buffer).expect("an answer");
    assert!(read > 0, "the server hung up");
    read
}

/// The time to read a file that another thread sends by sendfile.
fn sendfile(path: &Path, bytes: u64) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let file = File::open(path).expect("the pages");
    let start = Instant::now();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let (socket, _) = listener.accept().expect("the reader connects");
            while rustix::fs::sendfile(&socket, &file, None, 1 << 20).expect("the reader reads") > 0 {}
        });
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the sender listens");
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut rest = bytes;
        while rest > 0 {
            rest -= read(&mut socket, &mut buffer) as u64;
        }
    });
    start.elapsed()
}
