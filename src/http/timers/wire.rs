//! The face's words, and their translation from and to the domain's.

use std::sync::LazyLock;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::callback::{self, Callback, TIMEOUT_DEFAULT};
use crate::domain::invalid::Field;
use crate::domain::retry::{self, RetryPolicy};
use crate::domain::run::State;
use crate::domain::timer::{self, Definition, Status, TimerKey, Update};
use crate::domain::{duration, limits, moment};
use crate::http::common::fields::{Error, Fields};

/// The word for a timer's id where one is created, and everywhere else.
pub(super) const CREATE_ID: &str = "id";
pub(super) const ID: &str = "timerId";

pub(super) const CREATE_FIELDS: &[&str] =
    &["namespace", "id", "executeAt", "callbackUrl", "payload", "retryPolicy", "callbackTimeoutSeconds"];
pub(super) const BATCH_FIELDS: &[&str] = &["timers"];
pub(super) const UPDATE_FIELDS: &[&str] =
    &["namespace", "timerId", "executeAt", "callbackUrl", "payload", "retryPolicy", "callbackTimeoutSeconds"];
pub(super) const SELECTION_FIELDS: &[&str] = &["namespace", "timerId"];
pub(super) const RETRY_FIELDS: &[&str] =
    &["maxAttempts", "maxRetries", "maxAttemptsDuration", "initialInterval", "backoffMultiplier", "maxInterval"];

const A_TEXT: &str = "a text";
const A_MOMENT: &str = "an RFC 3339 timestamp with an offset, such as 2030-12-20T15:30:00Z";
const A_DURATION: &str = "a duration such as 300ms, 30s or 1h30m";
const A_POLICY: &str = "an object";
static A_TIMEOUT: LazyLock<String> = LazyLock::new(callback::timeout_allowed);
static A_COUNT: LazyLock<String> = LazyLock::new(|| format!("a whole number from 1 to {}", limits::RETRY_ATTEMPTS_MAX));
static A_COUNT_OR_NONE: LazyLock<String> =
    LazyLock::new(|| format!("a whole number from 0 to {}", limits::RETRY_ATTEMPTS_MAX - 1));
static A_MULTIPLIER: LazyLock<String> = LazyLock::new(|| {
    let (least, most) = (limits::RETRY_MULTIPLIER.start(), limits::RETRY_MULTIPLIER.end());
    format!("a number from {least:.1} to {most}")
});
static A_BATCH: LazyLock<String> = LazyLock::new(|| format!("an array of 1 to {} timers", limits::CREATE_BATCH_MAX));

/// The face's word for a part of a request; `id` is the operation's word for a timer's id.
pub(super) fn field_name(field: Field, id: &'static str) -> &'static str {
    match field {
        Field::Namespace => "namespace",
        Field::Id => id,
        Field::ExecuteAt => "executeAt",
        Field::CallbackUrl => "callbackUrl",
        Field::CallbackMethod => "callbackMethod",
        Field::CallbackHeaders => "callbackHeaders",
        Field::CallbackTimeout => "callbackTimeoutSeconds",
        Field::Payload => "payload",
        Field::RetryAttemptsMax => "retryPolicy.maxAttempts",
        Field::RetryDuration => "retryPolicy.maxAttemptsDuration",
        Field::RetryIntervalFirst => "retryPolicy.initialInterval",
        Field::RetryMultiplier => "retryPolicy.backoffMultiplier",
        Field::RetryIntervalMax => "retryPolicy.maxInterval",
        Field::Cron
        | Field::Every
        | Field::TimeZone
        | Field::StartAt
        | Field::EndAt
        | Field::Jitter
        | Field::Overlap
        | Field::CatchUp
        | Field::CatchUpWindow
        | Field::CatchUpMax => unreachable!("a timer has no {field:?}"),
    }
}

/// Reads a `CreateTimerRequest`.
pub(super) fn create_request(json: &[u8]) -> Result<Definition, Error> {
    let mut fields = Fields::parse(json, CREATE_FIELDS)?;
    let missing = |name: &str| Error::Missing { name: name.to_owned() };
    Ok(Definition {
        key: key(&mut fields, CREATE_ID)?,
        execute_at: fields.parsed("executeAt", A_MOMENT, moment::parse)?.ok_or_else(|| missing("executeAt"))?,
        callback: Callback {
            timeout: timeout(&mut fields)?.unwrap_or(TIMEOUT_DEFAULT),
            ..Callback::new(fields.required::<String>("callbackUrl", A_TEXT)?)
        },
        payload: payload(&mut fields).flatten(),
        retry: retry(&mut fields)?.unwrap_or_default(),
    })
}

/// Reads a `CreateTimersRequest`: each of its timers by itself, as it came.
pub(super) fn batch_request(json: &[u8]) -> Result<Vec<&RawValue>, Error> {
    Fields::parse(json, BATCH_FIELDS)?.list("timers", limits::CREATE_BATCH_MAX, &A_BATCH)
}

/// Where a timer of a batch stands in its request.
pub(super) fn way(index: usize) -> String {
    format!("timers[{index}]")
}

/// Reads an `UpdateTimerRequest`.
pub(super) fn update_request(json: &[u8]) -> Result<(TimerKey, Update), Error> {
    let mut fields = Fields::parse(json, UPDATE_FIELDS)?;
    let key = key(&mut fields, ID)?;
    let update = Update {
        execute_at: fields.parsed("executeAt", A_MOMENT, moment::parse)?,
        callback_url: fields.optional("callbackUrl", A_TEXT)?,
        callback_timeout: timeout(&mut fields)?,
        payload: payload(&mut fields),
        retry: retry(&mut fields)?.map_or_else(retry::Update::default, retry::Update::from),
        ..Update::default()
    };
    Ok((key, update))
}

/// Reads a `TimerSelection`.
pub(super) fn selection(json: &[u8]) -> Result<TimerKey, Error> {
    key(&mut Fields::parse(json, SELECTION_FIELDS)?, ID)
}

fn key(fields: &mut Fields<'_>, id: &str) -> Result<TimerKey, Error> {
    let namespace: String = fields.required("namespace", A_TEXT)?;
    let id: String = fields.required(id, A_TEXT)?;
    Ok(TimerKey::new(&namespace, &id))
}

/// The payload's own bytes; null takes it away, where there was one.
fn payload(fields: &mut Fields<'_>) -> Option<Option<Box<RawValue>>> {
    let given = fields.raw("payload")?;
    Some((given.get() != "null").then(|| given.to_owned()))
}

fn timeout(fields: &mut Fields<'_>) -> Result<Option<Duration>, Error> {
    Ok(fields.optional("callbackTimeoutSeconds", &A_TIMEOUT)?.map(Duration::from_secs))
}

/// Reads a `RetryPolicy`. What it leaves out has the default.
fn retry(fields: &mut Fields<'_>) -> Result<Option<RetryPolicy>, Error> {
    let Some(json) = fields.optional::<&RawValue>("retryPolicy", A_POLICY)? else { return Ok(None) };
    if !json.get().starts_with('{') {
        return Err(Error::wrong("retryPolicy", json.get(), A_POLICY));
    }
    let mut fields = Fields::parse_within("retryPolicy.", json.get().as_bytes(), RETRY_FIELDS)?;
    let default = RetryPolicy::default();
    let attempts_max = fields.optional::<u32>("maxAttempts", &A_COUNT)?;
    let retries_max = fields.optional::<u32>("maxRetries", &A_COUNT_OR_NONE)?;
    if let (Some(_), Some(retries)) = (attempts_max, retries_max) {
        return Err(Error::wrong("retryPolicy.maxRetries", &retries.to_string(), "left out beside maxAttempts"));
    }
    Ok(Some(RetryPolicy {
        attempts_max: attempts_max.or(retries_max.map(|retries| retries.saturating_add(1))),
        attempts_duration: span(&mut fields, "maxAttemptsDuration")?.unwrap_or(default.attempts_duration),
        interval_first: span(&mut fields, "initialInterval")?.unwrap_or(default.interval_first),
        multiplier: fields.optional("backoffMultiplier", &A_MULTIPLIER)?.unwrap_or(default.multiplier),
        interval_max: span(&mut fields, "maxInterval")?.unwrap_or(default.interval_max),
    }))
}

fn span(fields: &mut Fields<'_>, name: &str) -> Result<Option<Duration>, Error> {
    fields.parsed(name, A_DURATION, duration::parse)
}

/// A timer. The last four are told on a get alone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Timer<'a> {
    /// Names it within its namespace.
    id: &'a str,
    /// Isolates ids.
    namespace: &'a str,
    /// When it is due.
    #[schema(format = DateTime)]
    execute_at: String,
    /// Whom it calls.
    callback_url: &'a str,
    /// What it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    payload: Option<&'a RawValue>,
    retry_policy: Policy,
    /// How long its call may take.
    callback_timeout_seconds: u64,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was changed last.
    #[schema(format = DateTime)]
    updated_at: String,
    /// When the receiver took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    executed_at: Option<String>,
    /// How it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = super::description::status)]
    status: Option<&'static str>,
    /// How many calls were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts: Option<u32>,
    /// What became of the last one, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_error: Option<&'a str>,
    /// When the next one leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    next_attempt_at: Option<String>,
}

/// How failed calls are made again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RetryPolicy)]
pub struct Policy {
    /// How many calls to make at most; as many as fit into the duration where it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_attempts: Option<u32>,
    /// How long to go on: `24h`.
    max_attempts_duration: String,
    /// The wait before the second call: `1s`.
    initial_interval: String,
    /// By how much each wait is longer than the one before.
    backoff_multiplier: f64,
    /// The longest wait: `5m`.
    max_interval: String,
}

/// A policy in this face's words.
pub fn policy(retry: &RetryPolicy) -> Policy {
    Policy {
        max_attempts: retry.attempts_max,
        max_attempts_duration: duration::format(retry.attempts_duration),
        initial_interval: duration::format(retry.interval_first),
        backoff_multiplier: retry.multiplier,
        max_interval: duration::format(retry.interval_max),
    }
}

impl<'a> Timer<'a> {
    /// A timer as a create or an update answers it.
    pub(super) fn of(timer: &'a timer::Timer) -> Self {
        let Definition { key, execute_at, callback, payload, retry } = &timer.definition;
        Self {
            id: &key.id,
            namespace: &key.namespace,
            execute_at: execute_at.to_string(),
            callback_url: &callback.url,
            payload: payload.as_deref(),
            retry_policy: policy(retry),
            callback_timeout_seconds: callback.timeout.as_secs(),
            created_at: timer.created_at.to_string(),
            updated_at: timer.updated_at.to_string(),
            executed_at: None,
            status: None,
            attempts: None,
            last_error: None,
            next_attempt_at: None,
        }
    }

    /// A timer as a get answers it.
    pub(super) fn of_status(status: &'a Status) -> Self {
        let Status { timer, state, executed_at } = status;
        Self {
            executed_at: executed_at.map(|at| at.to_string()),
            status: Some(state.as_str()),
            attempts: Some(timer.attempts),
            last_error: timer.last_error.as_deref(),
            next_attempt_at: match state {
                State::Pending => Some(timer.due_at().to_string()),
                State::Running | State::Succeeded | State::Failed => None,
            },
            ..Self::of(timer)
        }
    }
}
