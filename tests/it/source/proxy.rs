//! A way to PostgreSQL that can go wrong: it swallows, freezes or loses what is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

/// By how much a slow look at the slot is late.
const LOOK_PAUSE: std::time::Duration = std::time::Duration::from_millis(700);

/// What becomes of the connections that are open at that moment; later ones begin sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// What walsenders send gets lost; all else goes through.
    SwallowStream,
    /// What is said to walsenders and by them goes through; all else gets lost.
    SwallowQuestions,
    /// Nothing moves, in either direction, until the fault is over.
    Freeze,
    /// The client is cut off, and the server never hears of it.
    HalfOpen,
    /// Who asks for a stream, also over a later connection, is kept from it until the fault is over.
    HoldStart,
    /// Who looks at the slot is kept waiting, for longer than a stream takes that ends with its first change.
    SlowLooks,
}

pub struct Proxy {
    port: u16,
    fault: Arc<watch::Sender<Fault>>,
    held: Arc<Notify>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = Arc::new(watch::channel(Fault::None).0);
        let held = Arc::new(Notify::new());
        let accepting = tokio::spawn(accept(listener, server_port, Arc::clone(&fault), Arc::clone(&held)));
        Self { port, fault, held, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// The same database by this way.
    pub fn url(&self, url: &str, server_port: u16) -> String {
        url.replace(&format!(":{server_port}/"), &format!(":{}/", self.port))
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Waits until somebody is kept from a stream.
    pub async fn until_held(&self) {
        self.held.notified().await;
    }
}

async fn accept(listener: TcpListener, server_port: u16, fault: Arc<watch::Sender<Fault>>, held: Arc<Notify>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let replicates = Arc::new(AtomicBool::new(false));
        let (at_start, replicating) = (Arc::clone(&held), Arc::clone(&replicates));
        tokio::spawn(forward(from_client, to_server, fault.subscribe(), at_start, replicating, false));
        tokio::spawn(forward(from_server, to_client, fault.subscribe(), Arc::clone(&held), replicates, true));
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    held: Arc<Notify>,
    replicates: Arc<AtomicBool>,
    from_server: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut lossy = false;
    loop {
        let frozen = *fault.borrow() == Fault::Freeze;
        let read = tokio::select! {
            biased;
            changed = fault.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = *fault.borrow_and_update();
                match now {
                    Fault::None => {}
                    Fault::SwallowStream => lossy |= from_server && replicates.load(Ordering::Relaxed),
                    Fault::SwallowQuestions => lossy |= !replicates.load(Ordering::Relaxed),
                    Fault::Freeze | Fault::HoldStart | Fault::SlowLooks => {}
                    Fault::HalfOpen if from_server => {
                        drop(to);
                        // Held for ever, unread.
                        return std::future::pending().await;
                    }
                    Fault::HalfOpen => {
                        drop(from);
                        return std::future::pending().await;
                    }
                }
                continue;
            }
            read = from.read(&mut buffer), if !frozen => read,
        };
        let Ok(count @ 1..) = read else {
            if lossy {
                // Its end gets lost, too.
                return std::future::pending().await;
            }
            return;
        };
        let says = |words: &[u8]| buffer[..count].windows(words.len()).any(|part| part == words);
        if says(b"replication\0database") {
            replicates.store(true, Ordering::Relaxed);
        }
        let fault_now = *fault.borrow();
        if fault_now == Fault::HoldStart && says(b"START_REPLICATION") {
            held.notify_one();
            let _ = fault.wait_for(|fault| *fault != Fault::HoldStart).await;
        }
        if fault_now == Fault::SlowLooks && !from_server && says(b"pg_replication_slots as slot") {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        if !lossy && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
