//! Builds the parts, and decides the order in which they start and stop.

mod database;
pub mod dev;
mod dispatcher;
mod faces;
mod feed;
mod in_process;
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

use crate::clock::{self, Clock};
use crate::config::{Role, Settings};
use crate::delivery::changes::Follower;
use crate::domain::limits;
use crate::http::{self, manage, server};
use crate::pg;
use crate::service::changes::Changes;
use crate::service::health::Health;
use crate::service::snapshots::Snapshots;
use crate::service::timers::{self, Timers};
use crate::store::{self, Store};
use crate::telemetry::{Exposition, start_metrics};

use faces::Faces;
use feed::Feed;
use parts::{Part, Parts};
use process::Crowds;

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
    let app = App::new(settings).await?;
    let main = listen::exactly(app.settings.bind, app.settings.port, "port")?;
    app.run(main, Router::new(), stop, |_| Ok(())).await
}

/// All that a process needs to serve, built and not yet running.
struct App {
    settings: Settings,
    database: pg::Settings,
    health: Health,
    metrics: Exposition,
    store: Store,
    /// Where this process is a changeserver.
    feed: Option<Feed>,
    /// The dispatcher keeps it to the database's.
    clock: Clock,
}

impl App {
    async fn new(settings: Settings) -> anyhow::Result<Self> {
        let database = pg::Settings::parse(settings.database_url()?.reveal())?;
        let connections = settings.database_connections;
        let store = Store::new(store::Config { connections, ..store::Config::new(database.clone()) })?;
        let metrics = start_metrics();
        let feed = match settings.has(Role::Changeserver) {
            true => Some(Feed::open(&settings, &database).await?),
            false => None,
        };
        let clock = Clock::with_limits(clock::Limits {
            age_max: settings.clock_age_max,
            error_max: settings.clock_error_max,
            offset_max: settings.clock_offset_max,
        });
        let settings = within_files(settings, feed.as_ref().map_or(0, |feed| feed.files_max()));
        Ok(Self { settings, database, health: Health::new(), metrics, store, feed, clock })
    }

    /// Runs until `stop`, or until a part fails. `calls` are answered beside those of the roles; `started` is told the
    /// address once the process can serve.
    async fn run(
        mut self,
        main: TcpListener,
        calls: Router,
        stop: CancellationToken,
        started: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let address = main.local_addr().context("asking for the own address")?;
        let mut parts = Parts::default();
        let reader = self.feed.as_ref().map(Feed::reader);
        let calls = self.calls().merge(calls);
        self.start_ticks(&mut parts);
        self.start_dispatcher(&mut parts)?;
        if let Some(feed) = self.feed.take() {
            feed.start(&mut parts, self.health.add("feed"));
        }
        self.start_faces(&mut parts, main, calls).await?;
        let roles: Vec<&str> = self.settings.roles.iter().map(|role| role.as_str()).collect();
        tracing::info!(%address, roles = roles.join(","), "serving");

        let failure = self.until_over(&mut parts, &stop, || started(address)).await;
        self.health.shut_down();
        if let Some(reader) = reader {
            reader.release_all();
        }
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
        // Out of service for good: others may have the shards.
        parts.tell(Part::Dispatcher);
        tokio::select! {
            () = stop.cancelled() => None,
            error = parts.failure() => Some(error),
        }
    }

    fn start_ticks(&self, parts: &mut Parts) {
        let check = self.health.add("database");
        let watch = database::Watch::new(self.database.clone(), self.store.clone(), check);
        let watch = Arc::new(tokio::sync::Mutex::new(watch));
        parts.start(Part::Database, |stop| async move {
            let look = || async { watch.lock().await.look().await };
            ticks::drive(Part::Database, DATABASE_INTERVAL, stop, look).await;
            Ok(())
        });
        if self.settings.has(Role::Dispatcher) || self.settings.has(Role::Api) {
            let (store, retention) = (self.store.clone(), self.settings.retention);
            parts.start(Part::Partitions, move |stop| async move {
                let tick = || store::partitions::tick(&store, retention);
                ticks::drive(Part::Partitions, store::partitions::INTERVAL, stop, tick).await;
                Ok(())
            });
            let store = self.store.clone();
            // By itself: days that cannot be made or dropped keep no occurrence.
            parts.start(Part::Occurrences, move |stop| async move {
                let tick = || store::schedules::purge(&store, retention);
                ticks::drive(Part::Occurrences, store::schedules::PURGE_INTERVAL, stop, tick).await;
                Ok(())
            });
        }
        let metrics = self.metrics.clone();
        parts.start(Part::Metrics, |stop| async move {
            let fold = || async {
                metrics.fold();
                anyhow::Ok(())
            };
            ticks::drive(Part::Metrics, METRICS_INTERVAL, stop, fold).await;
            Ok(())
        });
    }

    fn start_dispatcher(&self, parts: &mut Parts) -> anyhow::Result<()> {
        if !self.settings.has(Role::Dispatcher) {
            return Ok(());
        }
        let check = self.health.add("dispatcher");
        let (settings, clock, store) = (&self.settings, &self.clock, self.store.clone());
        match (&self.feed, &settings.changes_url) {
            (Some(feed), _) => dispatcher::start(parts, settings, clock, check, store, feed.in_process()),
            (None, Some(url)) => {
                let feed = Follower::new(url.as_str(), clock.clone())?;
                dispatcher::start(parts, settings, clock, check, store, feed)
            }
            (None, None) => anyhow::bail!("the dispatcher has no feed to follow"),
        }
    }

    /// The calls of this process's roles.
    fn calls(&self) -> Router {
        let mut calls = http::openapi::routes(&self.settings.path_prefix);
        if self.settings.has(Role::Api) {
            let config = timers::Config {
                auto_create: self.settings.auto_create_namespaces,
                callback_allow: self.settings.callback_allow.clone(),
            };
            let timers = Timers::new(config, self.store.clone());
            calls = calls.merge(http::timers::routes(timers));
        }
        if let Some(feed) = &self.feed {
            let changes = Changes::new(feed.reader(), self.health.clone(), self.settings.block_max);
            calls = calls.merge(http::changes::routes(changes));
            calls = calls.merge(http::snapshots::routes(Snapshots::new(feed.snapshots())));
        }
        calls
    }

    async fn start_faces(&self, parts: &mut Parts, main: TcpListener, calls: Router) -> anyhow::Result<()> {
        let settings = &self.settings;
        let metrics = self.metrics.clone();
        let management = manage::routes(self.health.clone(), Arc::new(move || metrics.render()));
        let own_port = settings.management_port;
        let faces = Faces::new(calls, management, &settings.path_prefix, own_port.is_some(), &self.health);
        let probes = manage::probes(self.health.clone());
        let config = server::Config {
            connections_max: settings.connections_max,
            head_max: HEAD_MAX,
            stall_max: limits::WRITE_STALL_MAX,
            drain_max: settings.drain_max,
        };
        if let (Some(port), Some(router)) = (own_port, faces.management) {
            let listener = listen::exactly(settings.bind, port, "management-port")?;
            let few = config.connections_max.min(limits::MANAGEMENT_CONNECTIONS_MAX);
            let config = server::Config { connections_max: few, ..config.clone() };
            let server = server::Server::new(config, listener, router).with_probes(probes.clone());
            parts.start(Part::Management, |stop| async move {
                server.run(stop).await;
                Ok(())
            });
        }
        // Where the probes have a port of their own, nobody asks for them here.
        let probes = if own_port.is_some() { Router::new() } else { probes };
        let server = server::Server::new(config, main, faces.main).with_probes(probes);
        parts.start(Part::Http, |stop| async move {
            server.run(stop).await;
            Ok(())
        });
        Ok(())
    }

    /// Stops the parts in the order in which they need each other: first what takes in work, last what keeps it.
    async fn stop(&self, parts: &mut Parts) -> anyhow::Result<()> {
        let drain = self.settings.drain_max.saturating_add(STOP_MAX);
        // Both drain at the same time.
        parts.tell(Part::Http);
        // Whoever takes over the shards has its schedules at once.
        let mut results = vec![parts.stop(Part::Schedules, STOP_MAX).await];
        results.extend([parts.stop(Part::Dispatcher, drain).await, parts.stop(Part::Http, drain).await]);
        for part in [
            Part::DispatcherState,
            Part::Database,
            Part::Partitions,
            Part::Occurrences,
            Part::Metrics,
            Part::Purge,
            Part::Feed,
            Part::FeedState,
        ] {
            results.push(parts.stop(part, STOP_MAX).await);
        }
        if self.health.is_marked_down() && self.settings.has(Role::Changeserver) {
            results.push(feed::drop_slot(&self.database, &self.settings.slot).await);
        }
        results.push(parts.stop(Part::Management, STOP_MAX).await);
        results.into_iter().collect()
    }
}

/// The settings with as many connections and callbacks as there are files for, beside those of the process and `of_feed`.
fn within_files(settings: Settings, of_feed: usize) -> Settings {
    let (callbacks, lookups) = match settings.has(Role::Dispatcher) {
        true => (settings.callbacks_max, limits::LOOKUPS_MAX),
        false => (0, 0),
    };
    let own = limits::FILES_OWN + settings.database_connections + lookups + of_feed;
    let Crowds { connections, callbacks } =
        Crowds { connections: settings.connections_max, callbacks }.within_files(own);
    Settings { connections_max: connections, callbacks_max: callbacks, ..settings }
}
