//! The flags that timers and schedules share, and how a command says which one is wrong.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use crate::domain::invalid::{Field, Invalid};
use crate::domain::limits;
use crate::domain::timer::TimerKey;

/// Which one.
#[derive(Args, Clone, Debug)]
pub struct Select {
    /// Its namespace.
    #[arg(long, default_value = "default")]
    pub(super) namespace: String,
    /// Its id.
    #[arg(long)]
    pub(super) id: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Select {
    pub(super) fn key(&self) -> TimerKey {
        TimerKey::new(&self.namespace, &self.id)
    }
}

/// Which part of a namespace.
#[derive(Args, Clone, Debug)]
pub struct Page {
    /// Of this namespace.
    #[arg(long, default_value = "default")]
    pub(super) namespace: String,
    /// Only ids behind this one: the next page.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub(super) after: String,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
}

/// The error as a command says it: by its flag.
pub(super) fn by_flag(Invalid { field, value, allowed }: &Invalid) -> anyhow::Error {
    let (flag, value) = (name(*field), format!("{value:?}"));
    match allowed.contains(&value) {
        true => anyhow!("{flag} must be {allowed}"),
        false => anyhow!("{flag} must be {allowed}, not {value}"),
    }
}

/// The time-out that so many seconds are. Its bounds are the domain's to judge; a span of less than nothing is nobody's.
pub(super) fn timeout(seconds: i64) -> anyhow::Result<Duration> {
    let wrong = |_| anyhow!("--timeout must be a whole number of seconds from 1 to 300, not \"{seconds}\"");
    u64::try_from(seconds).map(Duration::from_secs).map_err(wrong)
}

/// So many attempts at most.
pub(super) fn attempts_max(count: Option<i64>) -> anyhow::Result<Option<u32>> {
    let most = limits::RETRY_ATTEMPTS_MAX;
    let wrong = |count| anyhow!("--max-attempts must be a whole number from 1 to {most}, not \"{count}\"");
    count.map(|count| u32::try_from(count).map_err(|_| wrong(count))).transpose()
}

fn name(field: Field) -> &'static str {
    match field {
        Field::Namespace => "--namespace",
        Field::Id => "--id",
        Field::ExecuteAt => "--in or --at",
        Field::CallbackUrl => "--url",
        Field::CallbackTimeout => "--timeout",
        Field::Payload => "--payload",
        Field::RetryAttemptsMax => "--max-attempts",
        Field::Cron => "--cron",
        Field::Every => "--every",
        Field::TimeZone => "--time-zone",
        Field::StartAt => "--start-at",
        Field::EndAt => "--end-at",
        Field::Jitter => "--jitter",
        Field::Overlap => "--overlap",
        Field::CatchUp => "--catch-up",
        Field::CatchUpWindow => "--catch-up-window",
        Field::CatchUpMax => "--catch-up-max",
        Field::CallbackMethod
        | Field::CallbackHeaders
        | Field::RetryDuration
        | Field::RetryIntervalFirst
        | Field::RetryMultiplier
        | Field::RetryIntervalMax => unreachable!("no command sets {field:?}, and the defaults are good"),
    }
}
