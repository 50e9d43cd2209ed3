//! What this face's operations take and answer, for the description of the API.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{Content, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::error;
use crate::domain::callback;
use crate::domain::duration;
use crate::domain::limits;
use crate::domain::retry::RetryPolicy;
use crate::domain::run::State;
use crate::http::common::describe::{coded, method_not_allowed, not_serving, text};

/// How a timer is created.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "requests are read field by field; this describes them")]
pub(super) struct CreateTimerRequest {
    #[schema(schema_with = namespace)]
    namespace: (),
    #[schema(schema_with = id)]
    id: (),
    #[schema(schema_with = execute_at)]
    execute_at: (),
    #[schema(schema_with = callback_url)]
    callback_url: (),
    #[schema(schema_with = payload, required = false)]
    payload: (),
    #[schema(nullable)]
    retry_policy: Option<RetryPolicyRequest>,
    #[schema(schema_with = timeout_or_default, required = false)]
    callback_timeout_seconds: (),
}

/// Many timers to create.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "requests are read field by field; this describes them")]
pub(super) struct CreateTimersRequest {
    #[schema(min_items = 1, max_items = 1000)]
    timers: Vec<CreateTimerRequest>,
}

/// How a timer is changed. What is left out stays.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "requests are read field by field; this describes them")]
pub(super) struct UpdateTimerRequest {
    #[schema(schema_with = namespace)]
    namespace: (),
    #[schema(schema_with = id)]
    timer_id: (),
    #[schema(schema_with = execute_at, required = false)]
    execute_at: (),
    #[schema(schema_with = callback_url, required = false)]
    callback_url: (),
    #[schema(schema_with = payload, required = false)]
    payload: (),
    /// Replaces the whole policy.
    #[schema(nullable)]
    retry_policy: Option<RetryPolicyRequest>,
    #[schema(schema_with = timeout, required = false)]
    callback_timeout_seconds: (),
}

/// Which timer.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "requests are read field by field; this describes them")]
pub(super) struct TimerSelection {
    #[schema(schema_with = namespace)]
    namespace: (),
    #[schema(schema_with = id)]
    timer_id: (),
}

/// How failed calls are made again. What is left out has the default.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "requests are read field by field; this describes them")]
pub(super) struct RetryPolicyRequest {
    #[schema(schema_with = attempts, required = false)]
    max_attempts: (),
    #[schema(schema_with = retries, required = false)]
    max_retries: (),
    #[schema(schema_with = attempts_duration, required = false)]
    max_attempts_duration: (),
    #[schema(schema_with = interval_first, required = false)]
    initial_interval: (),
    #[schema(schema_with = multiplier, required = false)]
    backoff_multiplier: (),
    #[schema(schema_with = interval_max, required = false)]
    max_interval: (),
}

fn namespace() -> Schema {
    let bytes = format!("At most {} bytes, without control characters.", limits::NAMESPACE_BYTES_MAX);
    text().min_length(Some(1)).max_length(Some(limits::NAMESPACE_BYTES_MAX)).description(Some(bytes)).into()
}

fn id() -> Schema {
    let schema = text().min_length(Some(1)).max_length(Some(limits::TIMER_ID_CHARS_MAX));
    schema.description(Some("Names the timer within its namespace; without control characters.")).into()
}

fn execute_at() -> Schema {
    let schema = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    schema.description(Some("RFC 3339 with an offset; in the future, at most 100 years ahead.")).into()
}

fn callback_url() -> Schema {
    let rule = "Absolute http or https, without user-info and fragment. It is called by POST: 200 with `{\"ok\":true}` is \
        success, 4xx is given up, all else is repeated by the policy.";
    text().max_length(Some(limits::URL_BYTES_MAX)).description(Some(rule)).into()
}

fn payload() -> Schema {
    let rule = format!(
        "A JSON object, at most {} bytes, nested at most {} deep. Null is none.",
        limits::PAYLOAD_BYTES_MAX,
        limits::PAYLOAD_DEPTH_MAX
    );
    nullable(Type::Object).description(Some(rule)).into()
}

fn timeout() -> Schema {
    seconds().into()
}

fn timeout_or_default() -> Schema {
    seconds().default(Some(json!(callback::TIMEOUT_DEFAULT.as_secs()))).into()
}

fn seconds() -> ObjectBuilder {
    nullable(Type::Integer)
        .minimum(Some(*limits::CALLBACK_TIMEOUT_SECONDS.start()))
        .maximum(Some(*limits::CALLBACK_TIMEOUT_SECONDS.end()))
        .description(Some("How long its call may take."))
}

fn attempts() -> Schema {
    let schema = nullable(Type::Integer).minimum(Some(1)).maximum(Some(limits::RETRY_ATTEMPTS_MAX));
    schema.description(Some("How many calls to make at most.")).into()
}

fn retries() -> Schema {
    let schema = nullable(Type::Integer).minimum(Some(0)).maximum(Some(limits::RETRY_ATTEMPTS_MAX - 1));
    schema.description(Some("One less than `maxAttempts`, in place of it.")).into()
}

fn attempts_duration() -> Schema {
    span("How long to go on.", RetryPolicy::default().attempts_duration)
}

fn interval_first() -> Schema {
    span("The wait before the second call.", RetryPolicy::default().interval_first)
}

fn interval_max() -> Schema {
    span("The longest wait.", RetryPolicy::default().interval_max)
}

fn span(description: &str, default: std::time::Duration) -> Schema {
    let description = format!("{description} Numbers with units, largest first: `300ms`, `30s`, `1h30m`.");
    nullable(Type::String).default(Some(json!(duration::format(default)))).description(Some(description)).into()
}

fn multiplier() -> Schema {
    nullable(Type::Number)
        .minimum(Some(*limits::RETRY_MULTIPLIER.start()))
        .maximum(Some(*limits::RETRY_MULTIPLIER.end()))
        .default(Some(json!(RetryPolicy::default().multiplier)))
        .description(Some("By how much each wait is longer than the one before."))
        .into()
}

/// A field that may be null, which counts as left out.
fn nullable(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(utoipa::openapi::schema::SchemaType::from_iter([kind, Type::Null]))
}

/// How a timer stands.
pub(super) fn status() -> Schema {
    let states = [State::Pending, State::Running, State::Succeeded, State::Failed];
    text().enum_values(Some(states.map(State::as_str))).description(Some("How it stands.")).into()
}

/// The refusals of an operation, with the words that its 400 may have.
fn refusals(invalid: &[&str], may_be_absent: bool) -> BTreeMap<String, RefOr<Response>> {
    let refusal = |description: &str, codes: &[&str]| {
        let content = Content::new(Some(coded::<error::Body>("error", codes)));
        ResponseBuilder::new().description(description).content("application/json", content).build()
    };
    let wrong = "The request breaks a rule: `INVALID_INPUT`, `details` names the field. Or the timer is running or over: \
        `TIMER_NOT_PENDING`, where it is among the words.";
    let mut responses = vec![
        ("400", refusal(wrong, invalid)),
        ("405", method_not_allowed(coded::<error::Body>("error", &["METHOD_NOT_ALLOWED"])).build()),
        (
            "500",
            refusal(
                "The database is unavailable, or another transaction holds the timer: try again. It may have happened.",
                &["INTERNAL_ERROR"],
            ),
        ),
        ("503", not_serving("The process is marked down.", None).build()),
    ];
    if may_be_absent {
        responses.push(("404", refusal("There is no such timer, and no run of one.", &["TIMER_NOT_FOUND"])));
    }
    responses.into_iter().map(|(status, response)| (status.to_owned(), response.into())).collect()
}

/// The refusals of a create.
pub(super) struct RefusalsOfCreate;

impl IntoResponses for RefusalsOfCreate {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&["INVALID_INPUT"], false)
    }
}

/// The refusals of a get.
pub(super) struct RefusalsOfGet;

impl IntoResponses for RefusalsOfGet {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&["INVALID_INPUT"], true)
    }
}

/// The refusals of an update and of a delete.
pub(super) struct RefusalsOfChange;

impl IntoResponses for RefusalsOfChange {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&["INVALID_INPUT", "TIMER_NOT_PENDING"], true)
    }
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;

    use super::super::{batch, wire};
    use super::*;

    /// The attribute takes no constant.
    #[test]
    fn a_batch_has_as_many_timers_as_it_may() {
        let lists = [(CreateTimersRequest::schema(), "timers"), (batch::Results::schema(), "results")];
        for (schema, list) in lists {
            let schema = serde_json::to_value(schema).expect("a schema is JSON");
            assert_eq!(schema["properties"][list]["maxItems"], limits::CREATE_BATCH_MAX, "{schema}");
        }
    }

    #[test]
    fn the_fields_of_requests_are_those_that_are_read() {
        fn check<T: ToSchema>(fields: &[&str]) {
            let schema = serde_json::to_value(T::schema()).expect("a schema is JSON");
            let mut described: Vec<&str> =
                schema["properties"].as_object().expect("properties").keys().map(String::as_str).collect();
            let mut read = fields.to_vec();
            described.sort_unstable();
            read.sort_unstable();
            assert_eq!(described, read);
            assert_eq!(schema["additionalProperties"], false);
        }
        check::<CreateTimerRequest>(wire::CREATE_FIELDS);
        check::<CreateTimersRequest>(wire::BATCH_FIELDS);
        check::<UpdateTimerRequest>(wire::UPDATE_FIELDS);
        check::<TimerSelection>(wire::SELECTION_FIELDS);
        check::<RetryPolicyRequest>(wire::RETRY_FIELDS);
    }
}
