//! The flags that timers and schedules share, and how a command says which one is wrong.

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use crate::domain::invalid::{Field, Invalid};
use crate::domain::namespace;
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
    /// What it is called.
    pub(super) fn key(&self) -> TimerKey {
        TimerKey::new(&self.namespace, &self.id)
    }

    /// What a program reads of one that is no more.
    pub(super) fn key_json(&self) -> serde_json::Value {
        json!({ "namespace": self.namespace, "id": self.id })
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

/// The error of a create in this namespace, as [`by_flag`] has it, and what helps where the namespace is not there.
pub(super) fn by_flag_within(name: &str, invalid: &Invalid) -> anyhow::Error {
    match invalid.field == Field::Namespace && namespace::check(name).is_ok() {
        // There is nothing wrong with the name: it is that of no namespace.
        true => anyhow!("{}: --make-namespace makes it", by_flag(invalid)),
        false => by_flag(invalid),
    }
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
        Field::CallbackMethod => "--method",
        Field::CallbackHeaders => "--header",
        Field::RetryDuration => "--max-attempts-duration",
        Field::RetryIntervalFirst => "--initial-interval",
        Field::RetryMultiplier => "--backoff-multiplier",
        Field::RetryIntervalMax => "--max-interval",
    }
}
