//! The flags that say how a timer or a schedule calls and what follows a call that failed, and how both are shown to people.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::value::RawValue;

use crate::domain::callback::{self, Callback, METHOD_DEFAULT, TIMEOUT_DEFAULT};
use crate::domain::retry::{self, RetryPolicy};
use crate::domain::{duration, limits};

/// What a call has where no flag says otherwise, and what follows a failed one, as the help of a command says it.
pub(super) fn defaults() -> String {
    let RetryPolicy { attempts_max, attempts_duration, interval_first, multiplier, interval_max } =
        RetryPolicy::default();
    let attempts_max = attempts_max.map_or_else(|| "none".to_owned(), |max| max.to_string());
    format!(
        "What is not given has its default, also where there is one of that id already: --method {METHOD_DEFAULT}, \
        no --header, --timeout {}, --max-attempts {attempts_max}, --max-attempts-duration {}, --initial-interval {}, \
        --backoff-multiplier {multiplier}, --max-interval {}.",
        TIMEOUT_DEFAULT.as_secs(),
        duration::format(attempts_duration),
        duration::format(interval_first),
        duration::format(interval_max)
    )
}

/// How it calls. A flag that is not given says nothing.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[group(id = "callback")]
pub struct Flags {
    /// The payload of its calls: a JSON object.
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// The method of its calls: GET, POST, PUT, PATCH or DELETE.
    #[arg(long)]
    method: Option<String>,
    /// A further header of its calls, such as 'X-Tenant: 7'; once for each.
    #[arg(long = "header", value_name = "NAME: VALUE", allow_hyphen_values = true)]
    headers: Vec<String>,
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    #[arg(help = format!("How long one attempt may take: {}", callback::timeout_allowed()))]
    timeout: Option<i64>,
    /// How often each callback is tried at most; none stands for as often as the duration allows.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_attempts: Option<String>,
    /// How long each callback is tried at most, from the first attempt on: 24h.
    #[arg(long, value_name = "SPAN", value_parser = duration::parse, allow_hyphen_values = true)]
    max_attempts_duration: Option<Duration>,
    /// The wait before the second attempt: 300ms, 10s.
    #[arg(long, value_name = "SPAN", value_parser = duration::parse, allow_hyphen_values = true)]
    initial_interval: Option<Duration>,
    /// By how much each wait is longer than the one before, from 1.0 to 100.
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    backoff_multiplier: Option<String>,
    /// The longest wait between two attempts: 5m.
    #[arg(long, value_name = "SPAN", value_parser = duration::parse, allow_hyphen_values = true)]
    max_interval: Option<Duration>,
}

impl Flags {
    /// The callback that they make of this URL, with the usual rest.
    pub(super) fn callback(&self, url: String) -> anyhow::Result<Callback> {
        let usual = Callback::new(url);
        Ok(Callback {
            method: self.method().unwrap_or(usual.method),
            headers: self.headers()?.unwrap_or(usual.headers),
            timeout: self.timeout()?.unwrap_or(usual.timeout),
            url: usual.url,
        })
    }

    pub(super) fn method(&self) -> Option<String> {
        self.method.clone()
    }

    /// The further headers, where there is one.
    pub(super) fn headers(&self) -> anyhow::Result<Option<BTreeMap<String, String>>> {
        let mut headers = BTreeMap::<String, String>::new();
        for header in &self.headers {
            let Some((name, value)) = header.split_once(':') else {
                return Err(anyhow!("--header must be a name and a value, such as 'X-Tenant: 7', not {header:?}"));
            };
            // A request has no order by which a receiver could tell which of the two is meant.
            if headers.keys().any(|other| other.eq_ignore_ascii_case(name)) {
                return Err(anyhow!("--header must have another name each time, not {name:?} again"));
            }
            headers.insert(name.to_owned(), value.trim_matches([' ', '\t']).to_owned());
        }
        Ok((!headers.is_empty()).then_some(headers))
    }

    /// The time-out. Its bounds are the domain's to judge; a span of less than nothing is nobody's.
    pub(super) fn timeout(&self) -> anyhow::Result<Option<Duration>> {
        let wrong = |seconds| anyhow!("--timeout must be {}, not \"{seconds}\"", callback::timeout_allowed());
        let seconds = |seconds| u64::try_from(seconds).map(Duration::from_secs).map_err(|_| wrong(seconds));
        self.timeout.map(seconds).transpose()
    }

    pub(super) fn payload(&self) -> anyhow::Result<Option<Box<RawValue>>> {
        let payload = self.payload.clone().map(RawValue::from_string).transpose();
        payload.map_err(|error| anyhow!("--payload must be a JSON object: {error}"))
    }

    /// What they say of the policy.
    pub(super) fn retry(&self) -> anyhow::Result<retry::Update> {
        Ok(retry::Update {
            attempts_max: self.max_attempts.as_deref().map(attempts_max).transpose()?,
            attempts_duration: self.max_attempts_duration,
            interval_first: self.initial_interval,
            multiplier: self.backoff_multiplier.as_deref().map(multiplier).transpose()?,
            interval_max: self.max_interval,
        })
    }
}

/// So many attempts at most, or no bound.
fn attempts_max(text: &str) -> anyhow::Result<Option<u32>> {
    let most = limits::RETRY_ATTEMPTS_MAX;
    let count = text.parse().ok().filter(|count| (1..=most).contains(count));
    match (count, text) {
        (Some(count), _) => Ok(Some(count)),
        (None, "none") => Ok(None),
        (None, _) => Err(anyhow!("--max-attempts must be a whole number from 1 to {most}, or none, not {text:?}")),
    }
}

/// A number. Its bounds are the domain's to judge.
fn multiplier(text: &str) -> anyhow::Result<f64> {
    let (least, most) = (limits::RETRY_MULTIPLIER.start(), limits::RETRY_MULTIPLIER.end());
    let wrong = |_| anyhow!("--backoff-multiplier must be a number from {least:.1} to {most}, not {text:?}");
    text.parse().map_err(wrong)
}

/// What there is to say of it, by names.
pub(super) fn lines(
    callback: &Callback,
    payload: Option<&RawValue>,
    retry: &RetryPolicy,
) -> Vec<(&'static str, Option<String>)> {
    let mut lines = vec![("url", Some(callback.url.clone())), ("method", Some(callback.method.clone()))];
    lines.extend(callback.headers.iter().map(|(name, value)| ("header", Some(format!("{name}: {value}")))));
    lines.push(("timeout", Some(duration::format(callback.timeout))));
    lines.push(("retries", Some(retries(retry))));
    lines.push(("payload", payload.map(|payload| payload.get().to_owned())));
    lines
}

/// A policy as a person says it.
fn retries(policy: &RetryPolicy) -> String {
    let RetryPolicy { attempts_max, attempts_duration, interval_first, multiplier, interval_max } = policy;
    let span = |span: &Duration| duration::format(*span);
    let attempts = attempts_max.map_or_else(String::new, |max| format!("at most {max} attempts, "));
    let (first, most) = (span(interval_first), span(interval_max));
    format!(
        "{attempts}for {}; after {first}, then {multiplier} times the wait each, up to {most}",
        span(attempts_duration)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_said_in_words() {
        let policy = RetryPolicy { attempts_max: Some(3), multiplier: 1.5, ..RetryPolicy::default() };
        let said = "at most 3 attempts, for 24h; after 1s, then 1.5 times the wait each, up to 5m";
        assert_eq!(retries(&policy), said);
        let said = "for 24h; after 1s, then 2 times the wait each, up to 5m";
        assert_eq!(retries(&RetryPolicy::default()), said);
    }

    #[test]
    fn the_help_tells_the_defaults() {
        let told = "--method POST, no --header, --timeout 30, --max-attempts none, --max-attempts-duration 24h, \
            --initial-interval 1s, --backoff-multiplier 2, --max-interval 5m.";
        assert!(defaults().ends_with(told), "{}", defaults());
    }

    #[test]
    fn headers_are_names_and_values() {
        let headers = |given: &[&str]| {
            let flags = Flags { headers: given.iter().map(ToString::to_string).collect(), ..Flags::default() };
            flags.headers().map_err(|error| error.to_string())
        };
        assert_eq!(headers(&[]), Ok(None));
        let found = headers(&["X-A:b", "x-c:  d: e\t", "empty:"]).expect("they are good");
        let expected = [("X-A", "b"), ("empty", ""), ("x-c", "d: e")];
        assert_eq!(found, Some(expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into()));
        for (given, why) in [
            (&["x"][..], "--header must be a name and a value, such as 'X-Tenant: 7', not \"x\""),
            (&["a: 1", "A: 2"], "--header must have another name each time, not \"A\" again"),
        ] {
            assert_eq!(headers(given), Err(why.to_owned()));
        }
    }
}
