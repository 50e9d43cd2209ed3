//! What a request got wrong: which value, and what would be right. A face translates the field into its own word for it.

use std::fmt;

use super::limits;

/// A part of a request that a rule is about. Every dialect has its own word for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// A timer's namespace.
    Namespace,
    /// A timer's id.
    Id,
    /// When a timer is to fire.
    ExecuteAt,
    /// Whom a timer calls.
    CallbackUrl,
    /// The method of its call.
    CallbackMethod,
    /// The further headers of its call.
    CallbackHeaders,
    /// How long its call may take.
    CallbackTimeout,
    /// The JSON that it carries.
    Payload,
    /// How many attempts its policy allows.
    RetryAttemptsMax,
    /// How long its policy goes on.
    RetryDuration,
    /// The first wait of its policy.
    RetryIntervalFirst,
    /// The growth of its policy's waits.
    RetryMultiplier,
    /// The longest wait of its policy.
    RetryIntervalMax,
    /// A schedule's cron expression.
    Cron,
    /// The fixed interval of a schedule.
    Every,
    /// The place whose clocks a schedule goes by.
    TimeZone,
    /// When a schedule begins.
    StartAt,
    /// When a schedule ends.
    EndAt,
    /// By how much a schedule's callbacks are spread.
    Jitter,
    /// What a schedule does while its last callback is not over.
    Overlap,
    /// What a schedule does about moments that were missed.
    CatchUp,
    /// How far back missed moments still count.
    CatchUpWindow,
    /// How many missed moments are made up for.
    CatchUpMax,
}

impl fmt::Display for Field {
    /// The name of its column, as those know it who write rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace => "namespace",
            Self::Id => "id",
            Self::ExecuteAt => "execute_at",
            Self::CallbackUrl => "callback_url",
            Self::CallbackMethod => "callback_method",
            Self::CallbackHeaders => "callback_headers",
            Self::CallbackTimeout => "callback_timeout_seconds",
            Self::Payload => "payload",
            Self::RetryAttemptsMax => "retry_attempts_max",
            Self::RetryDuration => "retry_duration",
            Self::RetryIntervalFirst => "retry_interval_first",
            Self::RetryMultiplier => "retry_multiplier",
            Self::RetryIntervalMax => "retry_interval_max",
            Self::Cron => "cron",
            Self::Every => "every",
            Self::TimeZone => "time_zone",
            Self::StartAt => "start_at",
            Self::EndAt => "end_at",
            Self::Jitter => "jitter",
            Self::Overlap => "overlap",
            Self::CatchUp => "catch_up",
            Self::CatchUpWindow => "catch_up_window",
            Self::CatchUpMax => "catch_up_max",
        })
    }
}

/// A value that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {allowed}")]
pub struct Invalid {
    /// The part of the request.
    pub field: Field,
    /// The value as it came, cut where it is long.
    pub value: String,
    /// What it must be; goes on after "must be".
    pub allowed: String,
}

impl Invalid {
    /// Says that `value` is no good for `field`, which must be `allowed`.
    pub fn new(field: Field, value: impl ToString, allowed: impl Into<String>) -> Self {
        Self { field, value: head(&value.to_string()), allowed: allowed.into() }
    }
}

/// The beginning of a text that may be long, for an error to show.
pub fn head(text: &str) -> String {
    match text.char_indices().nth(limits::ERROR_VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_the_name_of_its_column() {
        let invalid = Invalid::new(Field::TimeZone, "Mars", "the name of a place");
        assert_eq!(invalid.to_string(), "time_zone must be the name of a place");
    }

    #[test]
    fn a_long_value_is_shown_by_its_beginning() {
        for (length, shown) in [(0, 0), (limits::ERROR_VALUE_CHARS_MAX, limits::ERROR_VALUE_CHARS_MAX)] {
            assert_eq!(head(&"ü".repeat(length)).chars().count(), shown);
        }
        let cut = head(&"字".repeat(limits::ERROR_VALUE_CHARS_MAX + 1));
        assert_eq!(cut.chars().count(), limits::ERROR_VALUE_CHARS_MAX + 1);
        assert!(cut.ends_with('…'));
    }
}
