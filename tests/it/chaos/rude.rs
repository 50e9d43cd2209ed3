//! Readers without manners: slow ones, half ones, and those that leave in the middle. The others notice nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::world::{PATIENCE, World, assert_no_gap, soak};
use crate::support::server::Server;
use crate::support::{connect, database, eventually, http};

/// Of each kind, at the same time.
const RUDE: usize = 20;
/// Of those that read slowly: their pages are far more than answers may hold together.
const SLOW: usize = 80;
/// A row of the fat ones.
const FAT_BYTES: usize = 128_000;
/// What all answers together may take, with what is kept around them.
const ROOM_MIB: u64 = 600;
/// Connections that come and go.
const PASSING: usize = 1500;
/// What the process may open for itself meanwhile, to PostgreSQL and in its journal.
const OWN: usize = 10;
/// That are told one by one meanwhile.
const COMMITS: i32 = 10;
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn rude_readers_harm_nobody_and_leave_nothing_behind() {
    let database = database().await;
    let mut world = World::start(&database, &database).await;
    // Far more than the kernel takes in for a reader that does not read.
    let fat = "create table fat (id int primary key, body text, _change_selector text);
               alter table fat replica identity full;
               select walclock.publish('fat')";
    let sql = connect(&database).await;
    sql.batch_execute(fat).await.unwrap();
    // What is asked for by who reads slowly is no longer in memory; what is asked for again and again is.
    for (first, last, scope) in [(1, 100, "fat"), (101, 300, "between"), (301, 400, "late")] {
        let insert = "insert into fat select n, repeat(md5(n::text), 4000), $3 from generate_series($1::int, $2) n";
        sql.execute(insert, &[&first, &last, &scope]).await.unwrap();
    }
    world.progress(10).await;
    let whole = async || {
        let (_, page) = world.server().get("/changes?scope=late&limit=1000").await;
        page["changes"].as_array()?.iter().any(|change| change["newRow"]["id"]["value"] == "400").then_some(())
    };
    eventually(PATIENCE, "all that is fat is there", whole).await;
    let (before, memory) = (descriptors(world.server()), world.server().memory_peak());

    let gone = CancellationToken::new();
    let port: u16 = world.server().url().rsplit_once(':').unwrap().1.parse().unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    for _ in 0..SLOW {
        tokio::spawn(gone.clone().run_until_cancelled_owned(slow(port, Arc::clone(&begun))));
    }
    for _ in 0..RUDE {
        tokio::spawn(gone.clone().run_until_cancelled_owned(half(port)));
        tokio::spawn(gone.clone().run_until_cancelled_owned(leaving(port)));
    }
    let held = async || (descriptors(world.server()) >= before + SLOW + RUDE).then_some(());
    eventually(PATIENCE, "the rude ones are there", held).await;
    let pass = async {
        for at in 0..PASSING * soak() {
            passing(port, at).await;
        }
    };
    tokio::join!(pass, polite(&world));
    world.progress(20).await;
    let all = async || (begun.load(Ordering::SeqCst) == SLOW).then_some(());
    eventually(PATIENCE, "each slow one has the beginning of its page", all).await;
    let grown = (world.server().memory_peak() - memory) >> 20;
    assert!(grown < ROOM_MIB, "{SLOW} slow readers of {} MiB each took {grown} MiB", (FAT_BYTES * 100) >> 20);
    gone.cancel();

    assert_no_gap(&world.finish().await);
    let few = async || (descriptors(world.server()) <= before + OWN).then_some(());
    eventually(PATIENCE, "their connections are given back", few).await;
    let none = async || (waiters(world.server()).await? == 0.0).then_some(());
    eventually(PATIENCE, "nobody waits any more", none).await;
}

/// Each commit is told before the next one is made, to the call that waits for it: none comes back with nothing. How long that takes
/// is not compared, since it is the machine that would be measured.
async fn polite(world: &World) {
    let sql = connect(&world.database).await;
    let mut since = world.server().get("/changes?scope=polite").await.1["lastSequence"].clone();
    let all = async {
        for id in 1000..1000 + COMMITS {
            sql.execute("insert into fat values ($1, '', 'polite')", &[&id]).await.unwrap();
            let told = async || {
                let query = format!("/changes?scope=polite&block=300&since={}", since.as_str().unwrap());
                let (status, page) = world.server().get(&query).await;
                assert_eq!(status, 200, "{page}");
                since = page["lastSequence"].clone();
                assert!(!page["changes"].as_array().unwrap().is_empty(), "{query} came back with nothing");
                // What is emptied is told to all.
                let mut rows = page["changes"].as_array().unwrap().iter().map(|change| &change["newRow"]);
                rows.find_map(|row| Some(row["id"]["value"].as_str()?.to_owned()))
            };
            assert_eq!(eventually(PATIENCE, "it is told", told).await, id.to_string());
        }
    };
    let through = tokio::time::timeout(PATIENCE, all).await;
    assert!(through.is_ok(), "a reader that waits for one commit after the other is held up by others");
}

/// Open files and sockets of the process.
fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero())).unwrap().count()
}

pub async fn waiters(server: &Server) -> Option<f64> {
    let (_, metrics) = text(&format!("{}/metrics", server.management_url())).await?;
    metrics.lines().find_map(|line| line.strip_prefix("walclock_waiters ")?.parse().ok())
}

/// Status and body of a GET.
pub async fn text(url: &str) -> Option<(u16, String)> {
    let (server, path) = url.split_at(url.match_indices('/').nth(2)?.0);
    let answer = http::try_request("GET", server, path, &[], "").await?;
    Some((answer.status, String::from_utf8(answer.body.to_vec()).ok()?))
}

async fn ask(port: u16, request: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    Some(stream)
}

const FAT: &str = "GET /changes?scope=fat&limit=1000 HTTP/1.1\r\nhost: a\r\n\r\n";
const LATE: &str = "GET /changes?scope=late&limit=1000 HTTP/1.1\r\nhost: a\r\n\r\n";

/// Reads a large page at a kilobyte a second.
async fn slow(port: u16, begun: Arc<AtomicUsize>) {
    let Some(mut stream) = ask(port, FAT).await else { return };
    let mut buffer = [0; 1024];
    if stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        begun.fetch_add(1, Ordering::SeqCst);
    }
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        tokio::time::sleep(SECOND).await;
    }
}

/// Sends half the head of a request.
async fn half(port: u16) {
    let stream = ask(port, &FAT[..30]).await;
    std::future::pending::<()>().await;
    drop(stream);
}

/// Resets the connection in the middle of the body, and comes back.
async fn leaving(port: u16) {
    loop {
        let Some(mut stream) = ask(port, LATE).await else { return };
        let mut buffer = [0; 8192];
        let _ = stream.read(&mut buffer).await;
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        tokio::time::sleep(SECOND / 10).await;
    }
}

/// Connects and leaves: without a word, in the middle of a head, while it waits for a change, in order or with a RST.
async fn passing(port: u16, at: usize) {
    const WAIT: &str = "GET /changes?scope=nobody&block=300 HTTP/1.1\r\nhost: a\r\n\r\n";
    let stream = ask(port, ["", "GET /cha", WAIT, WAIT][at % 4]).await;
    if let Some(stream) = stream.filter(|_| at.is_multiple_of(3)) {
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
}
