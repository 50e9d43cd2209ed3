//! graphile_worker in a program of its own, for the bench that measures walclock beside it: each job is a POST of its payload to one
//! receiver. It must do no more than that, and as fast as its library and hyper allow.
//!
//! `walclock-peer migrate|work NAME=VALUE…`; the names are those of `Settings`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::SecondsFormat;
use graphile_worker::{IntoTaskHandlerResult, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// The same as walclock's, so that no difference is the allocator's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let settings = Settings::parse(arguments)?;
    let worker = settings.options().init().await?;
    match command.as_str() {
        // The schema and the task's name are there once it is set up.
        "migrate" => Ok(()),
        "work" => Ok(worker.run().await?),
        other => Err(format!("the first argument is migrate or work, not {other:?}").into()),
    }
}

/// What graphile_worker can be tuned by.
struct Settings {
    /// `database`: the URL of the database.
    database: String,
    /// `receiver`: where each job is posted to, at `/hook`.
    receiver: SocketAddr,
    /// `concurrency`: how many jobs run at once.
    concurrency: usize,
    /// `size`: how many jobs a local queue holds.
    size: usize,
    /// `queues`: how many local queues there are.
    queues: usize,
    /// `delay`: milliseconds for which completions are gathered into a batch.
    delay: Duration,
    /// `poll`: milliseconds between two looks for jobs that have become due.
    poll: Duration,
}

impl Settings {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut settings = Self {
            database: String::new(),
            receiver: SocketAddr::from(([127, 0, 0, 1], 0)),
            concurrency: 64,
            size: 500,
            queues: 1,
            delay: Duration::from_millis(5),
            poll: Duration::from_millis(5),
        };
        for argument in arguments {
            let (name, value) = argument.split_once('=').ok_or(format!("NAME=VALUE is expected, not {argument:?}"))?;
            match name {
                "database" => value.clone_into(&mut settings.database),
                "receiver" => settings.receiver = value.parse()?,
                "concurrency" => settings.concurrency = value.parse()?,
                "size" => settings.size = value.parse()?,
                "queues" => settings.queues = value.parse()?,
                "delay" => settings.delay = Duration::from_millis(value.parse()?),
                "poll" => settings.poll = Duration::from_millis(value.parse()?),
                other => return Err(format!("there is no setting {other:?}").into()),
            }
        }
        Ok(settings)
    }

    fn options(&self) -> WorkerOptions {
        WorkerOptions::default()
            .database_url(&self.database)
            .concurrency(self.concurrency)
            .poll_interval(self.poll)
            .complete_job_batch_delay(self.delay)
            .fail_job_batch_delay(self.delay)
            .local_queue(LocalQueueConfig::default().with_size(self.size).with_queue_count(self.queues))
            .add_extension(Receiver { address: self.receiver, idle: Arc::default() })
            .define_job::<Callback>()
    }
}

/// The payload of a job.
#[derive(Deserialize, Serialize)]
struct Callback {
    order: u64,
}

impl TaskHandler for Callback {
    const IDENTIFIER: &'static str = "callback";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let receiver = context.get_ext::<Receiver>().ok_or("the receiver was given to the worker")?;
        let body = serde_json::to_vec(&self).map_err(|error| error.to_string())?;
        let job = context.job();
        let request = Request::post("/hook")
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .header("webhook-id", *job.id())
            .header("walclock-scheduled-for", job.run_at().to_rfc3339_opts(SecondsFormat::Micros, true))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        receiver.post(request).await.map_err(|error| error.to_string())
    }
}

/// Kept connections to the receiver, one for each job that runs at the same time.
#[derive(Clone, Debug)]
struct Receiver {
    address: SocketAddr,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
}

impl Receiver {
    async fn post(&self, request: Request<Full<Bytes>>) -> Result<(), Failure> {
        let kept = self.idle.lock().pop();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        self.idle.lock().push(sender);
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("the receiver answered {status}").into()),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
