//! Callbacks over HTTP/1.1: one attempt from the request to the verdict.

use std::time::Duration;

use ipnet::IpNet;
use metrics::{Counter, Histogram, counter, histogram};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::body::Extent;
use super::connect::Connector;
use super::request::Stamp;
use super::resolve::{Lookups, Resolver, system_resolver};
use super::routes::Routes;
use super::transport::{Call, Progress, Transport};
use super::{Error, reply, request};
use crate::clock::{Clock, Timestamp};
use crate::dispatch::ports::{Delivery, Unmade};
use crate::domain::callback::{Reply, Verdict};
use crate::domain::causes;
use crate::domain::limits;
use crate::domain::run::{Attempt, Run};

/// How callbacks are made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ranges that may be called although they are not public. Metadata services and link-local stay closed.
    pub allow: Vec<IpNet>,
    /// How long a connection may take to come about: name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// How long a name that was found is good: so long nobody asks for it again, nor notices that it has moved.
    pub name_age_max: Duration,
    /// How long a connection is kept after its last request. Many servers close theirs after 5 seconds.
    pub idle_max: Duration,
    /// Connections at all; above it, requests wait within their time-out. At least as many as there are attempts at once.
    pub connections_max: usize,
    /// Certificates that are trusted besides the machine's own.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            name_age_max: Duration::from_secs(5),
            idle_max: Duration::from_secs(4),
            connections_max: 4096,
            roots: Vec::new(),
        }
    }
}

/// A setting is out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {allowed}")]
pub struct InvalidConfig {
    /// The setting.
    pub what: &'static str,
    /// Its bounds.
    pub allowed: &'static str,
}

impl Config {
    /// Checks the bounds.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let spans = Duration::from_millis(1)..=Duration::from_secs(300);
        if !spans.contains(&self.connect_timeout) {
            return Err(InvalidConfig { what: "the callbacks' connect time-out", allowed: "from 1 ms to 300 s" });
        }
        if self.name_age_max > *spans.end() {
            return Err(InvalidConfig { what: "how long a name is good for callbacks", allowed: "at most 300 s" });
        }
        if !spans.contains(&self.idle_max) {
            return Err(InvalidConfig { what: "the callbacks' idle time", allowed: "from 1 ms to 300 s" });
        }
        if self.connections_max == 0 {
            return Err(InvalidConfig { what: "the number of callback connections", allowed: "at least 1" });
        }
        Ok(())
    }
}

/// Makes callbacks.
pub struct Client {
    transport: Transport,
    routes: Routes,
    clock: Clock,
    meters: Meters,
}

/// Registered once, because looking a metric up costs more than counting.
struct Meters {
    succeeded: Counter,
    rescheduled: Counter,
    retry: Counter,
    failed: Counter,
    took: Histogram,
}

impl Meters {
    fn new() -> Self {
        let attempts = |outcome: &'static str| counter!("walclock_delivery_attempts_total", "outcome" => outcome);
        Self {
            succeeded: attempts("succeeded"),
            rescheduled: attempts("rescheduled"),
            retry: attempts("retry"),
            failed: attempts("failed"),
            took: histogram!("walclock_delivery_attempt_seconds"),
        }
    }

    fn count(&self, verdict: &Verdict, took: Duration) {
        let outcome = match verdict {
            Verdict::Succeeded => &self.succeeded,
            Verdict::Reschedule(_) => &self.rescheduled,
            Verdict::Retry { .. } => &self.retry,
            Verdict::Failed { .. } => &self.failed,
        };
        outcome.increment(1);
        self.took.record(took.as_secs_f64());
    }
}

impl Client {
    /// A client that asks the machine's own resolver. Must be called within a runtime.
    pub fn new(config: Config, clock: Clock) -> Self {
        Self::with_resolver(config, clock, system_resolver())
    }

    /// A client that asks this resolver. Must be called within a runtime.
    pub fn with_resolver(config: Config, clock: Clock, resolver: Resolver) -> Self {
        let Config { allow, connect_timeout, name_age_max, idle_max, connections_max, roots } = config;
        let lookups = Lookups::new(resolver, name_age_max);
        let connector = Connector::new(Some(allow), connect_timeout, lookups, &roots);
        let transport = Transport::new(connector, connections_max, idle_max, clock.clone());
        Self { transport, routes: Routes::default(), clock, meters: Meters::new() }
    }

    async fn exchange(
        &self,
        run: &Run,
        begun_at: Timestamp,
        until: Instant,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let route = self.routes.of(&run.timer.definition.callback.url)?;
        let stamp = Stamp { at: begun_at, span: fastrand::u64(1..) };
        let message = || request::message(run, &route, stamp);
        let call = Call { url: &route.url, namespace: &run.key.timer.namespace, until };
        self.transport.exchange(&call, message, extent, progress).await
    }
}

impl Delivery for Client {
    async fn attempt(&self, run: &Run) -> Result<Attempt, Unmade> {
        let timeout = run.timer.definition.callback.timeout;
        let (begun_at, until) = (self.clock.now(), Instant::now() + timeout);
        let mut progress = Progress::default();
        let outcome = tokio::time::timeout_at(until, self.exchange(run, begun_at, until, &mut progress)).await;
        if let Ok(Err(failure)) = &outcome
            && let Some(what) = failure.shortage()
        {
            counter!("walclock_delivery_shortages_total", "what" => what).increment(1);
            return Err(Unmade { reason: format!("not sent: {}", reply::error(&causes::chain(failure))) });
        }
        let sent_at = progress.sent_at.unwrap_or(begun_at);
        // The clock may have been set back meanwhile; an answer never comes before its request.
        let answered_at = self.clock.now().max(sent_at);
        let not_before = reply::retry_after(progress.retry_after.as_ref(), answered_at);
        let reply_head = reply::head(progress.body.kept());
        let connected = !matches!(&outcome, Ok(Err(failure)) if failure.is_of_connecting());
        // The head of a refusal says it all, whether the rest of it comes or not.
        let refused = progress.status.is_some_and(|status| (400..=499).contains(&status));
        let verdict = match outcome {
            Ok(Err(failure)) if !refused => verdict_of_failure(&failure, not_before),
            Err(_elapsed) if !refused => Verdict::Retry { not_before, error: format!("timed out after {timeout:?}") },
            _ => {
                let status = progress.status.unwrap_or(0);
                Reply { status, body: progress.body.kept(), retry_after: not_before }.verdict(answered_at)
            }
        };
        self.meters.count(&verdict, answered_at.since(sent_at));
        Ok(Attempt { sent_at, answered_at, connected, status: progress.status, reply_head, verdict })
    }
}

/// How much of an answer is read. Only the body of a 200 says what becomes of the timer.
fn extent(status: u16) -> Extent {
    let kept_max = if status == 200 { limits::REPLY_BYTES_MAX } else { limits::REPLY_HEAD_BYTES_MAX };
    Extent { read_max: limits::REPLY_BYTES_MAX, kept_max }
}

/// What it means that there was no whole answer: only what lies in the timer itself is final.
fn verdict_of_failure(failure: &Error, not_before: Option<Timestamp>) -> Verdict {
    let error = reply::error(&causes::chain(failure));
    match failure {
        Error::Callback(_) | Error::Header(_) | Error::Blocked(_) => Verdict::Failed { error },
        Error::Resolve(_)
        | Error::NoLookup
        | Error::NoSocket(_)
        | Error::ConnectTimedOut
        | Error::Connect(_)
        | Error::Tls(_)
        | Error::Exchange(_)
        | Error::Cut(_) => Verdict::Retry { not_before, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_bounds() {
        assert_eq!(Config::default().validate(), Ok(()));
        let zero = Duration::ZERO;
        for config in [
            Config { connect_timeout: zero, ..Config::default() },
            Config { connect_timeout: Duration::MAX, ..Config::default() },
            Config { name_age_max: Duration::MAX, ..Config::default() },
            Config { idle_max: zero, ..Config::default() },
            Config { idle_max: Duration::MAX, ..Config::default() },
            Config { connections_max: 0, ..Config::default() },
        ] {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
