//! A crowd of readers that comes, waits and goes: what it took is given back, and the next one takes no more.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::rude::waiters;
use super::world::PATIENCE;
use crate::support::server::{Server, folder};
use crate::support::{database, eventually};

const READERS: usize = 3_000;
const CROWDS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crowd_took_is_given_back() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let server = Server::start(&database().await, &folder()).await;
    let (mut least_waiting, mut most_waiting) = (u64::MAX, 0);
    for _ in 0..CROWDS {
        let before = server.memory();
        let crowd = crowd(&server);
        let all = async || (waiters(&server).await? >= READERS as f64).then_some(());
        eventually(PATIENCE, "all of them wait", all).await;
        let waiting = server.memory();
        drop(crowd);
        // With an allocator that keeps what it once had, all of it would stay for ever.
        let given_back = async || (server.memory() < before + (waiting - before) / 2).then_some(());
        eventually(PATIENCE, "their memory is given back", given_back).await;
        (least_waiting, most_waiting) = (least_waiting.min(waiting), most_waiting.max(waiting));
    }
    assert!(most_waiting < least_waiting + least_waiting / 4, "from {least_waiting} to {most_waiting} bytes");
}

/// Each waits for a scope of its own.
fn crowd(server: &Server) -> Vec<TcpStream> {
    let port: u16 = server.url().rsplit_once(':').unwrap().1.parse().unwrap();
    let ask = |reader| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        write!(stream, "GET /changes?scope=reader-{reader}&block=300 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        stream
    };
    (0..READERS).map(ask).collect()
}
