//! The flags that timers and schedules share, and how a command says which one is wrong.

use anyhow::anyhow;
use clap::Args;
use clap::builder::RangedI64ValueParser;
use serde_json::json;

use crate::domain::invalid::{Field, Invalid};
use crate::domain::timer::TimerKey;
use crate::domain::{limits, namespace};
use crate::service::Error;

/// Which timer or schedule.
#[derive(Args, Clone, Debug)]
pub struct Select {
    /// The namespace that the id belongs to.
    #[arg(long, default_value = "default")]
    pub(super) namespace: String,
    /// The id, as it was created.
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
    /// The namespace to list.
    #[arg(long, default_value = "default")]
    pub(super) namespace: String,
    /// List only ids behind this one: the next page.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub(super) after: String,
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(), help = counted("How many to list"))]
    pub(super) limit: u32,
}

/// How many to show: as many as the service gives at once.
pub(super) fn count() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(limits::LIST_LIMIT_MAX))
}

/// The help of a flag that takes such a [`count`].
pub(super) fn counted(what: &str) -> String {
    format!("{what}, from 1 to {}", limits::LIST_LIMIT_MAX)
}

/// The error as a command says it: by its flag.
pub(super) fn by_flag(Invalid { field, value, allowed }: &Invalid) -> anyhow::Error {
    let (flag, value) = (name(*field), format!("{value:?}"));
    match allowed.contains(&value) {
        true => anyhow!("{flag} must be {allowed}"),
        false => anyhow!("{flag} must be {allowed}, not {value}"),
    }
}

/// The error of the service as a command says it: by its flag, where one is wrong.
pub(super) fn explained(error: Error) -> anyhow::Error {
    match error {
        Error::Invalid(invalid) => by_flag(&invalid),
        Error::NotPending { .. }
        | Error::NotFound { .. }
        | Error::Refused { .. }
        | Error::Contended { .. }
        | Error::Unavailable(_) => anyhow!(error),
    }
}

/// The error of a create in this namespace, as [`explained`] has it, and what helps where the namespace is not there.
pub(super) fn explained_within(name: &str, error: Error) -> anyhow::Error {
    match error {
        // There is nothing wrong with the name: it is that of no namespace.
        Error::Invalid(invalid) if invalid.field == Field::Namespace && namespace::check(name).is_ok() => {
            anyhow!("{}: --make-namespace makes it", by_flag(&invalid))
        }
        error => explained(error),
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
