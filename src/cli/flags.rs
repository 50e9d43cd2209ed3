//! How a command says which of its flags is wrong.

use anyhow::anyhow;

use crate::domain::invalid::{Field, Invalid};

/// The error as a command says it: by its flag.
pub(super) fn by_flag(Invalid { field, value, allowed }: &Invalid) -> anyhow::Error {
    let (flag, value) = (name(*field), format!("{value:?}"));
    match allowed.contains(&value) {
        true => anyhow!("{flag} must be {allowed}"),
        false => anyhow!("{flag} must be {allowed}, not {value}"),
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
        Field::CallbackMethod
        | Field::CallbackHeaders
        | Field::RetryDuration
        | Field::RetryIntervalFirst
        | Field::RetryMultiplier
        | Field::RetryIntervalMax => unreachable!("no command sets {field:?}, and the defaults are good"),
    }
}
