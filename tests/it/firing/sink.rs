//! The receiver of the callbacks: it notes each call and answers as the call's path says. Each kind of answer has a host
//! of its own, so that what befalls one does not touch the others.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use walclock::clock::{Timestamp, wall};

use super::ledger::{AGAIN, BUSY, Call, Failure, Script};
use crate::delivery::receiver::{Request, answer, read};

/// How many connections may wait to be accepted: a herd comes at once.
const BACKLOG: u32 = 16_384;
const FAILURES: [(Failure, &str); 9] = [
    (Failure::Error, "error"),
    (Failure::Busy, "busy"),
    (Failure::NotDone, "not-done"),
    (Failure::Hang, "hang"),
    (Failure::Drip, "drip"),
    (Failure::Huge, "huge"),
    (Failure::Redirect, "redirect"),
    (Failure::Reset, "reset"),
    (Failure::Headers, "headers"),
];

/// How all endpoints are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As each call's path says.
    Well,
    /// Nobody gets an answer yet.
    Held,
    /// The first so many calls as each call's path says; those that come behind them get no answer yet.
    HeldAfter(usize),
    /// Those that hang do not even hang up; the others as each call's path says.
    Stuck,
    /// 503 to everybody.
    Down,
}

impl Mood {
    /// Whether the call of this number, counted from 0, waits for its answer.
    fn holds(self, number: usize) -> bool {
        match self {
            Self::Held => true,
            Self::HeldAfter(calls) => number >= calls,
            Self::Well | Self::Stuck | Self::Down => false,
        }
    }
}

/// A running receiver.
pub struct Sink {
    port: u16,
    calls: Arc<Mutex<Vec<Call>>>,
    answered: Arc<AtomicUsize>,
    mood: watch::Sender<Mood>,
    open: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Sink {
    pub fn start() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let listener: TcpListener = socket.listen(BACKLOG).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (calls, mood) = (Arc::<Mutex<Vec<Call>>>::default(), watch::Sender::new(Mood::Well));
        let (open, answered) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let stop = CancellationToken::new();
        let sink = Self {
            port,
            calls: Arc::clone(&calls),
            answered: Arc::clone(&answered),
            mood: mood.clone(),
            open: Arc::clone(&open),
            _stop: stop.clone().drop_guard(),
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, answered) = (Arc::clone(&calls), Arc::clone(&answered));
                let connection = Connection { calls, answered, mood: mood.subscribe(), port };
                let open = Arc::clone(&open);
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    open.fetch_add(1, Ordering::Relaxed);
                    // Who leaves in the middle of an answer has heard enough.
                    let _ = connection.serve(stream).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                }));
            }
        }));
        sink
    }

    /// Where a timer with this script calls.
    pub fn url(&self, script: Script) -> String {
        let (host, path) = match script {
            Script::Takes | Script::Outlasts => (1, "takes".to_owned()),
            Script::Refuses => (2, "refuses".to_owned()),
            Script::Again(times) => (3, format!("again/{times}")),
            Script::Fails(failure, times) => {
                let index = FAILURES.iter().position(|(known, _)| *known == failure).unwrap();
                (4 + index, format!("{}/{times}", FAILURES[index].1))
            }
        };
        format!("http://127.0.8.{host}:{}/{path}", self.port)
    }

    /// The same for a load at random. What fails there is spread over many hosts: one that fails often in a row is spared,
    /// and what is due for it may then be minutes late. Those that only ask for another attempt have hosts of their own.
    pub fn url_at_random(&self, script: Script) -> String {
        match script {
            Script::Fails(Failure::Busy | Failure::NotDone, _) => self.url_at(10, fastrand::u8(1..=250), script),
            Script::Fails(..) => self.url_on(fastrand::u8(1..=250), script),
            Script::Takes | Script::Outlasts | Script::Refuses | Script::Again(_) => self.url(script),
        }
    }

    /// The same on one of many hosts.
    pub fn url_on(&self, host: u8, script: Script) -> String {
        self.url_at(9, host, script)
    }

    fn url_at(&self, network: u8, host: u8, script: Script) -> String {
        let path = self.url(script).splitn(4, '/').nth(3).unwrap().to_owned();
        format!("http://127.0.{network}.{host}:{}/{path}", self.port)
    }

    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    pub fn count(&self) -> usize {
        self.calls.lock().len()
    }

    /// Calls that have their answer, or whose caller has left without it.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

struct Connection {
    calls: Arc<Mutex<Vec<Call>>>,
    answered: Arc<AtomicUsize>,
    mood: watch::Receiver<Mood>,
    port: u16,
}

/// What becomes of the connection after an answer.
enum Then {
    Next,
    Close,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream, 0).await {
            let call = note(&request);
            let number = {
                let mut calls = self.calls.lock();
                calls.push(call.clone());
                calls.len() - 1
            };
            let mood = *self.mood.wait_for(|mood| !mood.holds(number)).await.map_err(std::io::Error::other)?;
            let path = request.line.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
            let then = match mood {
                Mood::Down => send(&mut stream, 503, "", "down").await,
                Mood::Well | Mood::Held | Mood::HeldAfter(_) | Mood::Stuck => {
                    self.answer(&mut stream, &path, &call).await
                }
            };
            self.answered.fetch_add(1, Ordering::Relaxed);
            if matches!(then?, Then::Close) {
                break;
            }
        }
        Ok(())
    }

    async fn answer(&self, stream: &mut BufReader<TcpStream>, path: &str, call: &Call) -> std::io::Result<Then> {
        let (kind, times) = path.split_once('/').unwrap_or((path, "0"));
        let times: u32 = times.parse().unwrap();
        if kind == "refuses" {
            return send(stream, 400, "", "{}").await;
        }
        if kind == "again" && call.execute_at < call.first_due.after(AGAIN * times) {
            let next = call.execute_at.after(AGAIN);
            return send(stream, 200, "", &format!(r#"{{"ok":false,"nextExecuteAt":"{next}"}}"#)).await;
        }
        let failure = FAILURES.iter().find(|(_, name)| *name == kind).map(|(failure, _)| *failure);
        match failure.filter(|_| call.attempt <= times) {
            None => send(stream, 200, "", r#"{"ok":true}"#).await,
            Some(failure) => self.fail(stream, failure).await,
        }
    }

    async fn fail(&self, stream: &mut BufReader<TcpStream>, failure: Failure) -> std::io::Result<Then> {
        match failure {
            Failure::Error => return send(stream, 500, "", "no").await,
            Failure::Busy => return send(stream, 429, &format!("retry-after: {}\r\n", BUSY.as_secs()), "").await,
            Failure::NotDone => return send(stream, 200, "", r#"{"ok":false}"#).await,
            Failure::Redirect => {
                let location = format!("location: http://127.0.8.1:{}/takes\r\n", self.port);
                return send(stream, 307, &location, "").await;
            }
            Failure::Headers => {
                use std::fmt::Write;
                let mut headers = String::new();
                (0..10_000).for_each(|n| write!(headers, "x-{n}: {n}\r\n").unwrap());
                return send(stream, 200, &headers, r#"{"ok":true}"#).await;
            }
            // Until the caller leaves, or is let go.
            Failure::Hang => {
                let mut mood = self.mood.clone();
                tokio::select! {
                    _ = stream.read_u8() => {}
                    _ = mood.wait_for(|mood| *mood != Mood::Stuck) => {}
                }
            }
            Failure::Drip => {
                stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 1000000\r\n\r\n").await?;
                loop {
                    stream.write_all(b" ").await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Failure::Huge => {
                stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 1000000000\r\n\r\n").await?;
                let piece = vec![b' '; 1 << 16];
                loop {
                    stream.write_all(&piece).await?;
                }
            }
            Failure::Reset => {
                stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 11\r\n\r\n{\"ok").await?;
                sockopt::set_socket_linger(stream.get_ref(), Some(Duration::ZERO))?;
            }
        }
        Ok(Then::Close)
    }
}

async fn send(stream: &mut BufReader<TcpStream>, status: u16, headers: &str, body: &str) -> std::io::Result<Then> {
    stream.write_all(&answer(status, headers, body)).await?;
    Ok(Then::Next)
}

fn note(request: &Request) -> Call {
    let at = wall();
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let header = |name: &str| request.headers[name].as_str();
    let number = |name: &str| body["payload"][name].as_i64().unwrap();
    Call {
        timer: body["timerId"].as_str().unwrap().to_owned(),
        number: number("n"),
        first_due: Timestamp::from_micros(number("due")),
        execute_at: body["executeAt"].as_str().unwrap().parse().unwrap(),
        scheduled_for: header("walclock-scheduled-for").parse().unwrap(),
        webhook_id: header("webhook-id").to_owned(),
        fence: header("walclock-fence").parse().unwrap(),
        attempt: header("walclock-attempt").parse().unwrap(),
        at,
    }
}
