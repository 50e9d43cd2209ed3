//! A timer: a callback at a moment. It is pending for as long as it stands in `walclock.timers`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use url::Host;

use super::callback::{self, Callback};
use super::invalid::{Field, Invalid};
use super::retry::{self, RetryPolicy};
use super::run::State;
use super::shard::Shard;
use super::{callback_url, limits, namespace};
use crate::clock::Timestamp;

/// What names a timer: unique among the pending ones. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    /// The namespace, 1 to 255 bytes.
    pub namespace: Arc<str>,
    /// The id within the namespace, 1 to 255 characters, none of them a control character.
    pub id: Arc<str>,
}

impl TimerKey {
    /// The key of these two names, taken as they are.
    pub fn new(namespace: &str, id: &str) -> Self {
        Self { namespace: Arc::from(namespace), id: Arc::from(id) }
    }

    /// Checks both names.
    pub fn check(&self) -> Result<(), Invalid> {
        namespace::check(&self.namespace)?;
        let fits = (1..=limits::TIMER_ID_CHARS_MAX).contains(&self.id.chars().count());
        match fits && !self.id.contains(namespace::is_control) {
            true => Ok(()),
            false => {
                let allowed = format!("1 to {} characters, none a control character", limits::TIMER_ID_CHARS_MAX);
                Err(Invalid::new(Field::Id, &self.id, allowed))
            }
        }
    }

    /// The shard that the timer belongs to.
    pub fn shard(&self) -> Shard {
        Shard::of(&self.namespace, &self.id)
    }
}

impl fmt::Display for TimerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

/// What a client asks for: everything of a timer that is not the server's own bookkeeping.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Namespace and id.
    pub key: TimerKey,
    /// When the callback is to leave. The first attempt never leaves earlier by PostgreSQL's clock.
    pub execute_at: Timestamp,
    /// Whom to call and how.
    pub callback: Callback,
    /// The JSON that travels with the callback, byte for byte as it was given; none is sent as null.
    pub payload: Option<Box<RawValue>>,
    /// What to do after a failed attempt.
    pub retry: RetryPolicy,
}

impl Definition {
    /// Checks all but its moment, which only who knows PostgreSQL's clock can judge ([`check_execute_at`]), and returns the
    /// host that is to be called.
    pub fn check(&self) -> Result<Host, Invalid> {
        self.key.check()?;
        self.payload.as_deref().map_or(Ok(()), check_payload)?;
        self.retry.check()?;
        self.callback.check()
    }

    /// How much memory its payload and its headers take, in bytes.
    pub fn bytes(&self) -> usize {
        let payload = self.payload.as_deref().map_or(0, |payload| payload.get().len());
        let headers = self.callback.headers.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        headers.fold(payload, usize::saturating_add)
    }
}

/// What a client wants to be different about a pending timer. What is none stays.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// A new moment; the attempts are counted anew from there.
    pub execute_at: Option<Timestamp>,
    /// Another URL to call.
    pub callback_url: Option<String>,
    /// Another method.
    pub callback_method: Option<String>,
    /// Other further headers, all of them.
    pub callback_headers: Option<BTreeMap<String, String>>,
    /// Another bound on one attempt.
    pub callback_timeout: Option<Duration>,
    /// Another payload; `Some(None)` takes it away.
    pub payload: Option<Option<Box<RawValue>>>,
    /// What is to be different about the policy.
    pub retry: retry::Update,
}

impl Update {
    /// Checks all that is to be different but the moment ([`check_execute_at`]), and returns the new host, if there is one.
    pub fn check(&self) -> Result<Option<Host>, Invalid> {
        self.payload.iter().flatten().try_for_each(|payload| check_payload(payload))?;
        self.retry.check()?;
        self.callback_method.as_deref().map_or(Ok(()), callback::check_method)?;
        self.callback_headers.as_ref().map_or(Ok(()), callback::check_headers)?;
        self.callback_timeout.map_or(Ok(()), callback::check_timeout)?;
        self.callback_url.as_deref().map(callback_url::check).transpose()
    }
}

/// Checks that `at` is a moment that a timer may be set to at the moment `now` of PostgreSQL's clock: later, and by at most
/// `limits::EXECUTE_AT_AHEAD_MAX`.
pub fn check_execute_at(at: Timestamp, now: Timestamp) -> Result<(), Invalid> {
    if at <= now {
        return Err(Invalid::new(Field::ExecuteAt, at, "a future timestamp"));
    }
    if at > now.after(limits::EXECUTE_AT_AHEAD_MAX) {
        return Err(Invalid::new(Field::ExecuteAt, at, "at most 100 years ahead"));
    }
    Ok(())
}

/// Checks that it is an object within the bounds.
pub(super) fn check_payload(payload: &RawValue) -> Result<(), Invalid> {
    let text = payload.get();
    let refuse = |allowed: String| Err(Invalid::new(Field::Payload, text, allowed));
    if !text.starts_with('{') {
        return refuse("a JSON object".to_owned());
    }
    if text.len() > limits::PAYLOAD_BYTES_MAX {
        return refuse(format!("at most {} bytes of JSON", limits::PAYLOAD_BYTES_MAX));
    }
    if depth(text) > limits::PAYLOAD_DEPTH_MAX {
        return refuse(format!("nested at most {} deep", limits::PAYLOAD_DEPTH_MAX));
    }
    Ok(())
}

/// How deep the arrays and objects of a JSON text nest.
fn depth(json: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A timer as it stands: its definition, and what has happened to it so far.
#[derive(Clone, Debug)]
pub struct Timer {
    /// What the client asked for.
    pub definition: Definition,
    /// Set once an attempt has failed: when the next one leaves.
    pub retry_at: Option<Timestamp>,
    /// Attempts that were made for this `execute_at`.
    pub attempts: u32,
    /// When the first of these attempts left: the policy's `attempts_duration` counts from here.
    pub first_attempt_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When the row was first stored.
    pub created_at: Timestamp,
    /// When the definition last changed.
    pub updated_at: Timestamp,
}

impl Timer {
    /// One that is stored now, and that nothing has happened to yet.
    pub fn new(definition: Definition, now: Timestamp) -> Self {
        Self {
            definition,
            retry_at: None,
            attempts: 0,
            first_attempt_at: None,
            last_error: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// When the next attempt is due: `retry_at` where there is one, else `execute_at`.
    pub fn due_at(&self) -> Timestamp {
        self.retry_at.unwrap_or(self.definition.execute_at)
    }
}

/// A timer as its readers see it: pending, or what its latest run became.
#[derive(Clone, Debug)]
pub struct Status {
    /// The timer; with a run, as it was when it was claimed, its attempt counted.
    pub timer: Timer,
    /// Whether it is pending, or how its run stands.
    pub state: State,
    /// When the receiver took it; none unless `state` is succeeded.
    pub executed_at: Option<Timestamp>,
}
