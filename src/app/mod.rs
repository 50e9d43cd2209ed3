//! Builds the parts, and decides the order in which they start and stop.

mod database;
pub mod dev;
mod faces;
mod listen;
mod parts;
mod process;
mod ticks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::http::{manage, server};
use crate::pg;
use crate::service::health::Health;
use crate::store::{self, Store};
use crate::telemetry::{Exposition, start_metrics};

use faces::Faces;
use parts::Parts;

/// How long the head of a request may take, and an idle connection stays open.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// What a part that has nothing to drain may take to stop.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How often the database is looked at.
const DATABASE_INTERVAL: Duration = Duration::from_secs(2);
/// How often histograms are folded.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// Serves with these settings until a signal ends it.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    let stop = process::stop_on_signals()?;
    process::raise_file_limit();
    let app = App::new(settings)?;
    let main = listen::exactly(app.settings.bind, app.settings.port, "port").await?;
    app.run(main, Router::new(), stop, |_| Ok(())).await
}

/// All that a process needs to serve, built and not yet running.
struct App {
    settings: Settings,
    database: pg::Settings,
    health: Health,
    metrics: Exposition,
    store: Store,
}

impl App {
    fn new(settings: Settings) -> anyhow::Result<Self> {
        let database = pg::Settings::parse(settings.database_url()?.reveal())?;
        let connections = settings.database_connections;
        let store = Store::new(store::Config { connections, ..store::Config::new(database.clone()) })?;
        Ok(Self { settings, database, health: Health::new(), metrics: start_metrics(), store })
    }

    /// Runs until `stop`, or until a part fails. `calls` are answered beside those of the roles; `started` is told the
    /// address once the process can serve.
    async fn run(
        self,
        main: TcpListener,
        calls: Router,
        stop: CancellationToken,
        started: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let address = main.local_addr().context("asking for the own address")?;
        let mut parts = Parts::default();
        self.start_ticks(&mut parts);
        self.start_faces(&mut parts, main, calls).await?;
        let roles: Vec<&str> = self.settings.roles.iter().map(|role| role.as_str()).collect();
        tracing::info!(%address, roles = roles.join(","), "serving");
        let failure = self.until_over(&mut parts, &stop, || started(address)).await;
        self.health.shut_down();
        let stopped = self.stop(&mut parts).await;
        match failure {
            Some(error) => Err(error),
            None => stopped,
        }
    }

    /// Waits for the end, and returns why where it is a bad one. Calls `ready` once the process can serve.
    async fn until_over(
        &self,
        parts: &mut Parts,
        stop: &CancellationToken,
        ready: impl FnOnce() -> anyhow::Result<()>,
    ) -> Option<anyhow::Error> {
        tokio::select! {
            () = stop.cancelled() => return None,
            error = parts.failure() => return Some(error),
            () = self.health.until_ready() => {}
        }
        if let Err(error) = ready() {
            return Some(error);
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            error = parts.failure() => return Some(error),
            () = self.health.marked_down() => {}
        }
        tokio::select! {
            () = stop.cancelled() => None,
            error = parts.failure() => Some(error),
        }
    }

    fn start_ticks(&self, parts: &mut Parts) {
        let check = self.health.add("database");
        let watch = database::Watch::new(self.database.clone(), self.store.clone(), check);
        let watch = Arc::new(tokio::sync::Mutex::new(watch));
        parts.start("database", |stop| async move {
            let look = || async { watch.lock().await.look().await };
            ticks::drive("database", DATABASE_INTERVAL, stop, look).await;
            Ok(())
        });
        let metrics = self.metrics.clone();
        parts.start("metrics", |stop| async move {
            let fold = || async {
                metrics.fold();
                anyhow::Ok(())
            };
            ticks::drive("metrics", METRICS_INTERVAL, stop, fold).await;
            Ok(())
        });
    }

    async fn start_faces(&self, parts: &mut Parts, main: TcpListener, calls: Router) -> anyhow::Result<()> {
        let settings = &self.settings;
        let metrics = self.metrics.clone();
        let management = manage::routes(self.health.clone(), Arc::new(move || metrics.render()));
        let own_port = settings.management_port;
        let faces = Faces::new(calls, management, &settings.path_prefix, own_port.is_some(), &self.health);
        let config = server::Config {
            connections_max: settings.connections_max,
            head_max: HEAD_MAX,
            drain_max: settings.drain_max,
        };
        if let (Some(port), Some(router)) = (own_port, faces.management) {
            let listener = listen::exactly(settings.bind, port, "management-port").await?;
            let server = server::Server::new(config.clone(), listener, router);
            parts.start("management", |stop| async move {
                server.run(stop).await;
                Ok(())
            });
        }
        let server = server::Server::new(config, main, faces.main);
        parts.start("http", |stop| async move {
            server.run(stop).await;
            Ok(())
        });
        Ok(())
    }

    /// Stops the parts in the order in which they need each other.
    async fn stop(&self, parts: &mut Parts) -> anyhow::Result<()> {
        let drain = self.settings.drain_max;
        parts.stop("http", drain.saturating_add(STOP_MAX)).await?;
        for tick in ["database", "metrics"] {
            parts.stop(tick, STOP_MAX).await?;
        }
        parts.stop("management", STOP_MAX).await
    }
}
