//! A TCP proxy between walclock and PostgreSQL, with all that a network can do to a connection.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How the network is, for every connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing gets from the client to the server. It is kept, not dropped: the network repeats what is lost.
    pub up_stalls: bool,
    /// Nothing gets from the server to the client.
    pub down_stalls: bool,
    /// What each piece waits before it goes on.
    pub delay: Duration,
    /// Longest piece that goes on at once, in bytes; 0 for whatever was read.
    pub piece_bytes_max: usize,
}

/// What ends the connections that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both ends are told in the orderly way.
    Cut,
    /// Both ends get a RST.
    Reset,
    /// The server has no more to say, and still listens.
    HalfClose,
    /// Neither end hears of the other any more, and neither is told.
    Forget,
}

/// A running proxy. Its connections end with it.
pub struct Proxy {
    port: u16,
    /// Where new connections go.
    to: Arc<AtomicU16>,
    weather: watch::Sender<Weather>,
    /// How many ends there were, and the last one.
    end: watch::Sender<(u64, End)>,
    accepted: Arc<AtomicUsize>,
    _stop: DropGuard,
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

impl Proxy {
    /// In front of a port of this machine.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (weather, end) = (watch::Sender::new(Weather::default()), watch::Sender::new((0, End::Cut)));
        let (accepted, stop) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let to = Arc::new(AtomicU16::new(to));
        let proxy = Self { port, to, weather, end, accepted, _stop: stop.clone().drop_guard() };
        let (weather, end) = (proxy.weather.clone(), proxy.end.clone());
        let (accepted, to) = (Arc::clone(&proxy.accepted), Arc::clone(&proxy.to));
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (weather, end) = (weather.subscribe(), end.subscribe());
                accepted.fetch_add(1, Ordering::Relaxed);
                let to = to.load(Ordering::Relaxed);
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    // An end that is refused or broken is told by closing the other.
                    let _ = serve(client, to, weather, end).await;
                }));
            }
        }));
        proxy
    }

    /// In front of the server of this database.
    pub async fn before(database: &str) -> Self {
        let (server, _) = database.rsplit_once('/').unwrap();
        let (_, port) = server.rsplit_once(':').unwrap();
        Self::start(port.parse().unwrap()).await
    }

    /// The same database through the proxy.
    pub fn url(&self, direct: &str) -> String {
        let (server, database) = direct.rsplit_once('/').unwrap();
        let (host, _) = server.rsplit_once(':').unwrap();
        format!("{host}:{}/{database}", self.port)
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// New connections go to this port of this machine from now on.
    pub fn aim(&self, to: u16) {
        self.to.store(to, Ordering::Relaxed);
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    pub fn end(&self, end: End) {
        self.end.send_modify(|last| *last = (last.0 + 1, end));
    }

    /// Connections that there ever were.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn serve(
    mut client: TcpStream,
    to: u16,
    weather: watch::Receiver<Weather>,
    mut end: watch::Receiver<(u64, End)>,
) -> io::Result<()> {
    end.mark_unchanged();
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    loop {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let pumps = async {
            tokio::try_join!(
                pump(&mut from_client, &mut to_server, weather.clone(), Way::Up),
                pump(&mut from_server, &mut to_client, weather.clone(), Way::Down),
            )
        };
        tokio::select! {
            over = pumps => return over.map(drop),
            changed = end.changed() => changed.map_err(io::Error::other)?,
        }
        let last = end.borrow_and_update().1;
        match last {
            End::Cut => return Ok(()),
            End::Reset => {
                sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
                return Ok(sockopt::set_socket_linger(&server, Some(Duration::ZERO))?);
            }
            End::HalfClose => client.shutdown().await?,
            // Both sockets stay open, and nobody reads them, until the proxy ends.
            End::Forget => std::future::pending::<()>().await,
        }
    }
}

async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    way: Way,
) -> io::Result<()> {
    let passes = |weather: &Weather| match way {
        Way::Up => !weather.up_stalls,
        Way::Down => !weather.down_stalls,
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let mut rest = &buffer[..read];
        if rest.is_empty() {
            weather.wait_for(passes).await.map_err(io::Error::other)?;
            return to.shutdown().await;
        }
        while !rest.is_empty() {
            let now = *weather.wait_for(passes).await.map_err(io::Error::other)?;
            if !now.delay.is_zero() {
                tokio::time::sleep(now.delay).await;
            }
            let most = if now.piece_bytes_max == 0 { rest.len() } else { fastrand::usize(1..=now.piece_bytes_max) };
            let (piece, left) = rest.split_at(most.min(rest.len()));
            to.write_all(piece).await?;
            rest = left;
            if now.piece_bytes_max > 0 {
                // So that the kernel has a chance to hand them on one by one.
                tokio::task::yield_now().await;
            }
        }
    }
}
