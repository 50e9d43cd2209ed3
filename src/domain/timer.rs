//! A timer: a callback at a moment. It is pending for as long as it stands in `walclock.timers`.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::callback::Callback;
use super::retry::RetryPolicy;
use super::shard::Shard;
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
    /// When the next attempt is due: `retry_at` where there is one, else `execute_at`.
    pub fn due_at(&self) -> Timestamp {
        self.retry_at.unwrap_or(self.definition.execute_at)
    }
}
