//! `walclock dev`: everything in one process, with a private PostgreSQL in a folder. For trying and for tests.

mod banner;
mod folder;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::pin::pin;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{App, listen, process};
use crate::config::{self, Secret, Settings};
use crate::http;
use crate::localpg::{self, Cluster};
use crate::pg;
use crate::store;

use banner::Banner;
use folder::{Folder, Note};

/// Where everything listens: this machine only, for nobody is asked who they are.
const BIND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The database in the private PostgreSQL; initdb makes it.
const DATABASE: &str = "postgres";

/// Where the data lives.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the data folder of this user.
    Default,
    /// In this folder.
    Folder(PathBuf),
    /// In a temporary folder that goes with the process.
    Ephemeral,
}

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// The port to listen on; none takes the usual one, or the next that is free.
    pub port: Option<u16>,
    /// Where the data lives.
    pub place: Place,
}

/// Runs until a signal ends it, or PostgreSQL ends by itself. `print` gets what the user should read, once everything is ready.
pub async fn run(config: Config, print: impl Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stop = process::stop_on_signals()?;
    process::raise_file_limit();
    let folder = match config.place {
        Place::Ephemeral => Folder::ephemeral()?,
        Place::Folder(path) => Folder::open(path)?,
        Place::Default => Folder::open(default_path()?)?,
    };
    let listener = match config.port {
        Some(port) => listen::exactly(BIND, port, "port")?,
        None => listen::from(BIND, Settings::defaults().port, "port")?,
    };
    let children = signal(SignalKind::child()).context("listening for SIGCHLD")?;
    let mut cluster = start_postgresql(folder.path()).await?;
    let serving = serve(&folder, cluster.url(DATABASE), cluster.psql(), listener, stop.clone(), print);
    let served = beside(&mut cluster, children, serving, stop).await;
    folder.remove_note();
    tokio::task::spawn_blocking(move || cluster.stop()).await.context("stopping PostgreSQL")?;
    served
}

/// Stops what is `serving` where PostgreSQL ends by itself: nothing works without it, and nobody else starts it again.
async fn beside(
    cluster: &mut Cluster,
    mut children: Signal,
    serving: impl Future<Output = anyhow::Result<()>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut serving = pin!(serving);
    let status = loop {
        if let Some(status) = cluster.ended() {
            break status;
        }
        tokio::select! {
            served = &mut serving => return served,
            _ = children.recv() => {}
        }
    };
    tracing::error!("PostgreSQL has ended by itself: stopping");
    stop.cancel();
    if let Err(error) = serving.await {
        tracing::debug!("a failure that follows from that: {error:#}");
    }
    Err(anyhow!("PostgreSQL has ended by itself ({status}); its log is {}", cluster.log().display()))
}

async fn serve(
    folder: &Folder,
    database_url: String,
    psql: Option<PathBuf>,
    listener: TcpListener,
    stop: CancellationToken,
    print: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let settings = settings(folder.path(), &database_url)?;
    store::migrate::run(&pg::Settings::parse(&database_url)?).await.context("making the schema")?;
    let app = App::new(settings).await?;
    store::dev::make_demo_table(&app.store).await?;
    let announced = |url: String| {
        folder.write_note(&Note { url: url.clone(), database_url: database_url.clone() })?;
        let (psql, ephemeral) = (psql.as_deref(), folder.is_ephemeral());
        let program = std::env::current_exe().unwrap_or_else(|_| "walclock".into());
        let (program, folder) = (program.as_path(), folder.path());
        print(&Banner { program, url: &url, database_url: &database_url, psql, folder, ephemeral }.text())
    };
    let echo = http::dev::routes(app.clock.clone());
    app.run(listener, echo, stop, |address| announced(format!("http://{address}"))).await
}

/// The settings of a process that has everything to itself.
fn settings(folder: &Path, database_url: &str) -> anyhow::Result<Settings> {
    let loopback = ["127.0.0.0/8", "::1/128"].map(|range| range.parse().expect("a range"));
    Ok(Settings {
        database_url: Some(Secret::new(database_url)),
        bind: BIND,
        data_dir: Some(folder.to_owned()),
        callback_allow: loopback.to_vec(),
        auto_create_namespaces: true,
        ..Settings::defaults()
    })
}

/// PostgreSQL runs as another user where we are root, and that one cannot get into root's home.
fn default_path() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/walclock/dev"));
    }
    let home = config::data_home().ok_or_else(|| anyhow!("there is no home folder: name one with --data-dir"))?;
    Ok(home.join("walclock/dev"))
}

async fn start_postgresql(folder: &Path) -> anyhow::Result<Cluster> {
    tracing::info!(folder = %folder.display(), "starting PostgreSQL");
    let config = localpg::Config {
        folder: folder.join("postgresql"),
        programs: config::pg_programs(),
        settings: vec![("max_slot_wal_keep_size".to_owned(), "1GB".to_owned())],
    };
    let started = tokio::task::spawn_blocking(move || Cluster::start(config)).await;
    started.context("starting PostgreSQL")?.context("starting PostgreSQL")
}
