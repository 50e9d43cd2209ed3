//! A callback: the HTTP request that a timer makes, and what its answer means.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;

/// The request that leaves when a timer is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Absolute http or https URL without user-info.
    pub url: String,
    /// The method, upper case; `POST` unless the timer says otherwise.
    pub method: String,
    /// Further headers, name to value.
    pub headers: BTreeMap<String, String>,
    /// How long one attempt may take in all, 1 to 300 s.
    pub timeout: Duration,
}

/// What came back from an attempt, as far as the rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most `limits::REPLY_BYTES_MAX` bytes of it.
    pub body: Vec<u8>,
    /// The `Retry-After` header, as the moment it names.
    pub retry_after: Option<Timestamp>,
}

/// What an attempt's reply means for its timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has taken it: the run is over.
    Succeeded,
    /// The receiver wants to be called again at this moment, attempts counted anew.
    Reschedule(Timestamp),
    /// The attempt failed; the retry policy decides, not before the given moment.
    Retry {
        /// A lower bound that the receiver asked for.
        not_before: Option<Timestamp>,
        /// Why, in a few words, for `last_error`.
        error: String,
    },
    /// The receiver refuses this timer for good.
    Failed {
        /// Why, in a few words, for `last_error`.
        error: String,
    },
}
