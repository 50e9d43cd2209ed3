//! Every metric of the server in one place: name, kind, unit, meaning. The recorder has no listener of its own; the
//! management face hands out its text.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over buckets.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name, as Prometheus shows it.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its base unit.
    pub unit: Unit,
    /// What it says.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

/// Bounds of the buckets of every span, in seconds: from a tenth of a millisecond to a minute.
const BUCKETS_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// All metrics that the parts record.
pub static METRICS: &[Metric] = &[
    metric("walclock_feed_lag_bytes", Kind::Gauge, Unit::Bytes, "WAL between PostgreSQL and the journal"),
    metric("walclock_feed_lag_seconds", Kind::Gauge, Unit::Seconds, "Age of the oldest WAL that has not arrived"),
    metric("walclock_feed_slot_retained_bytes", Kind::Gauge, Unit::Bytes, "WAL that PostgreSQL keeps for the slot"),
    metric(
        "walclock_feed_slot_budget_ratio",
        Kind::Gauge,
        Unit::Count,
        "How much that is of what max_slot_wal_keep_size allows, from 0 to 1; 0 where it allows all",
    ),
    metric("walclock_feed_changes_total", Kind::Counter, Unit::Count, "Changes taken into the journal"),
    metric("walclock_feed_transactions_total", Kind::Counter, Unit::Count, "Transactions taken into the journal"),
    metric("walclock_feed_reconnects_total", Kind::Counter, Unit::Count, "Connections to the slot that broke"),
    metric("walclock_feed_gaps_total", Kind::Counter, Unit::Count, "Times the feed began anew, changes missing"),
    metric(
        "walclock_feed_unpublished_total",
        Kind::Counter,
        Unit::Count,
        "Times that tables, or kinds of changes, were taken out of the publications, be it for a while",
    ),
    metric(
        "walclock_feed_reloads_total",
        Kind::Counter,
        Unit::Count,
        "Times the dispatcher read the near future anew, because the feed could not go on",
    ),
    metric(
        "walclock_feed_scope_unknown_total",
        Kind::Counter,
        Unit::Count,
        "Changes whose scope PostgreSQL did not send: see walclock doctor",
    ),
    metric(
        "walclock_feed_scopes_cut_total",
        Kind::Counter,
        Unit::Count,
        "Rows that named more than 10,000 scopes, and are told to the first of them alone",
    ),
    metric(
        "walclock_feed_scopes_unaskable_total",
        Kind::Counter,
        Unit::Count,
        "Scopes that rows named and no reader can ask for: too long, or with other characters",
    ),
    metric("walclock_journal_bytes", Kind::Gauge, Unit::Bytes, "Size of the journal"),
    metric("walclock_journal_changes_total", Kind::Counter, Unit::Count, "Changes written to the journal"),
    metric("walclock_journal_commits_total", Kind::Counter, Unit::Count, "Transactions written to the journal"),
    metric("walclock_journal_failures_total", Kind::Counter, Unit::Count, "Failed writes and fsyncs of the journal"),
    metric("walclock_journal_sync_seconds", Kind::Histogram, Unit::Seconds, "Time of one fsync of the journal"),
    metric("walclock_waiters", Kind::Gauge, Unit::Count, "Readers that wait for a change"),
    metric("walclock_timer_requests_total", Kind::Counter, Unit::Count, "Operations on timers, by what came of them"),
    metric("walclock_timer_request_seconds", Kind::Histogram, Unit::Seconds, "How long operations on timers took"),
    metric(
        "walclock_changes_refused_total",
        Kind::Counter,
        Unit::Count,
        "Calls of /changes that were refused, by code",
    ),
    metric("walclock_snapshots_running", Kind::Gauge, Unit::Count, "Snapshots that are being read"),
    metric("walclock_snapshots_total", Kind::Counter, Unit::Count, "Snapshots that ended, by outcome"),
    metric("walclock_snapshots_bytes_total", Kind::Counter, Unit::Bytes, "Bytes of snapshots handed to their readers"),
    metric(
        "walclock_snapshots_refused_total",
        Kind::Counter,
        Unit::Count,
        "Calls of /snapshots that were refused, by code",
    ),
    metric("walclock_due_queue_entries", Kind::Gauge, Unit::Count, "Timers of the near future in memory"),
    metric("walclock_claims_total", Kind::Counter, Unit::Count, "Claim statements"),
    metric("walclock_claimed_timers_total", Kind::Counter, Unit::Count, "Timers claimed"),
    metric(
        "walclock_callbacks_total",
        Kind::Counter,
        Unit::Count,
        "Callbacks that were answered or given up, by outcome",
    ),
    metric("walclock_callbacks_inflight", Kind::Gauge, Unit::Count, "Runs claimed and not finished"),
    metric(
        "walclock_callbacks_waiting",
        Kind::Gauge,
        Unit::Count,
        "Those that are due and wait for others of their host",
    ),
    metric(
        "walclock_callbacks_deferred_total",
        Kind::Counter,
        Unit::Count,
        "Claimed timers that were put back without an attempt, because their host was spared, the server stopped or was short of something",
    ),
    metric(
        "walclock_hosts_spared",
        Kind::Gauge,
        Unit::Count,
        "Hosts of callbacks that are spared because they fail, once for all and once for each namespace alone",
    ),
    metric(
        "walclock_hosts_spared_total",
        Kind::Counter,
        Unit::Count,
        "Times that a host began to be spared, or went on",
    ),
    metric(
        "walclock_lateness_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From the due moment to the callback's request",
    ),
    metric(
        "walclock_stale_writes_total",
        Kind::Counter,
        Unit::Count,
        "Outcomes that changed nothing because the shard has a new owner",
    ),
    metric(
        "walclock_sweep_found_total",
        Kind::Counter,
        Unit::Count,
        "Due timers that only the sweep found, and the feed did not tell of within 30 s, or while it was away; above zero with a healthy feed it is a bug",
    ),
    metric(
        "walclock_occurrences_total",
        Kind::Counter,
        Unit::Count,
        "Moments of schedules that were settled, by outcome: fired, buffered, skipped, missed, or taken, where another timer has the id",
    ),
    metric(
        "walclock_schedule_errors_total",
        Kind::Counter,
        Unit::Count,
        "Schedules of which nothing can be made until they are changed; their column error says why",
    ),
    metric(
        "walclock_adopted_runs_total",
        Kind::Counter,
        Unit::Count,
        "Callbacks under way that were taken over from an earlier lease",
    ),
    metric(
        "walclock_abandoned_attempts_total",
        Kind::Counter,
        Unit::Count,
        "Attempts given up because one dispatcher after the other was gone before they were over",
    ),
    metric("walclock_shards_held", Kind::Gauge, Unit::Count, "Shards that this dispatcher holds"),
    metric("walclock_lease_epoch_max", Kind::Gauge, Unit::Count, "The highest epoch among the held shards"),
    metric(
        "walclock_clock_offset_seconds",
        Kind::Gauge,
        Unit::Seconds,
        "By how much this machine's clock is ahead of the database's",
    ),
    metric("walclock_clock_error_seconds", Kind::Gauge, Unit::Seconds, "How wrong that may be, on either side"),
    metric("walclock_clock_age_seconds", Kind::Gauge, Unit::Seconds, "How long ago the database's clock was read last"),
    metric(
        "walclock_firing_held_back",
        Kind::Gauge,
        Unit::Count,
        "1 while no timer is fired because the clock is not trusted",
    ),
    metric(
        "walclock_feed_malformed_total",
        Kind::Counter,
        Unit::Count,
        "Changes of timers that could not be read; the sweep finds those timers",
    ),
    metric(
        "walclock_unclaimable_timers_total",
        Kind::Counter,
        Unit::Count,
        "Times a timer's own row kept it from being claimed; the log names it",
    ),
    metric(
        "walclock_clock_steps_total",
        Kind::Counter,
        Unit::Count,
        "Times the database's clock was found to have been set",
    ),
    metric("walclock_store_failures_total", Kind::Counter, Unit::Count, "Statements of the dispatcher that failed"),
    metric("walclock_delivery_attempts_total", Kind::Counter, Unit::Count, "Attempts to call back, by outcome"),
    metric(
        "walclock_delivery_attempt_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From the begin of an attempt to its answer",
    ),
    metric("walclock_delivery_connections_open", Kind::Gauge, Unit::Count, "Connections to callbacks' servers"),
    metric(
        "walclock_delivery_connections_opened_total",
        Kind::Counter,
        Unit::Count,
        "Connections to callbacks' servers that were made",
    ),
    metric(
        "walclock_delivery_keepalive_retries_total",
        Kind::Counter,
        Unit::Count,
        "Requests sent again because a kept connection had been closed",
    ),
    metric(
        "walclock_delivery_shortages_total",
        Kind::Counter,
        Unit::Count,
        "Callbacks that did not leave because the process was short of something, by what it was",
    ),
];

/// Hands out the recorded values.
#[derive(Clone)]
pub struct Exposition(PrometheusHandle);

impl Exposition {
    /// All metrics in Prometheus' text form.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what histograms have gathered into their buckets, so that they do not grow where nobody asks. For a tick.
    pub fn fold(&self) {
        self.0.run_upkeep();
    }
}

impl std::fmt::Debug for Exposition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exposition")
    }
}

/// Makes the recorder of the whole process. In a process that has one already (tests), its values stay with that one.
pub fn start_metrics() -> Exposition {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS_SECONDS)
        .expect("the list of buckets is not empty")
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        METRICS.iter().for_each(describe);
    }
    Exposition(handle)
}

fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
        Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
        Kind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
    }
}
