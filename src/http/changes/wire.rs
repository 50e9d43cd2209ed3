//! The words of this face: its parameters, and the frame of a page. The changes themselves come rendered from the feed.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::error::Failure;
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::domain::sequence::Sequence;
use crate::domain::snapshot::Snapshot;
use crate::feed::query::{Page, Query};
use crate::http::common::parameters::{self, Text};
use crate::http::common::refusal::Details;
use crate::http::common::scopes;

/// What a position must be.
pub(super) const POSITION: &str = "a sequence as an answer has it: hi.lo.index or timeline.hi.lo.index, in hexadecimal";
/// What a snapshot must be.
const SNAPSHOT: &str = "a snapshot as pg_current_snapshot() has it: xmin:xmax:xip,xip, in whole numbers";

/// What stands behind the changes of a page.
pub(super) const PAGE_END: Bytes = Bytes::from_static(b"]}");

/// What stands before the changes of a page.
pub(super) fn page_head(page: &Page) -> Bytes {
    format!("{{\"firstSequence\":\"{}\",\"lastSequence\":\"{}\",\"changes\":[", page.first, page.last).into()
}

/// A call, understood.
#[derive(Debug)]
pub(super) struct Request {
    /// What is asked.
    pub(super) query: Query,
    /// Whether the answer is for human eyes.
    pub(super) pretty: bool,
}

/// Reads the parameters. They are checked in the contract's order, whatever order they came in.
pub(super) fn request(query: &str) -> Result<Request, Failure> {
    let given = Given::read(query);
    let limit = limit(&given.limit)?;
    let block = block(&given.block)?;
    let scopes = scopes(&given.scopes)?;
    let since = parsed(&given.since, "since", POSITION)?.unwrap_or(Sequence::ZERO);
    let snapshot = parsed::<Snapshot>(&given.snapshot, "snapshot", SNAPSHOT)?;
    Ok(Request { query: Query { scopes, since, limit, block, snapshot }, pretty: given.pretty })
}

/// The parameters as they came, those without a value left out.
#[derive(Debug, Default)]
struct Given<'a> {
    limit: Option<Text<'a>>,
    block: Option<Text<'a>>,
    since: Option<Text<'a>>,
    snapshot: Option<Text<'a>>,
    scopes: scopes::Given<'a>,
    pretty: bool,
}

impl<'a> Given<'a> {
    fn read(query: &'a str) -> Self {
        let mut given = Self::default();
        for (name, value) in parameters::pairs(query) {
            // A name that cannot be read is none of ours, and unknown parameters are ignored.
            let Ok(name) = name else { continue };
            if name == "pretty" {
                given.pretty = true;
            }
            let Some(value) = given.scopes.take(&name, value) else { continue };
            if value.as_deref() == Ok("") {
                continue;
            }
            let place = match &*name {
                "limit" => &mut given.limit,
                "block" => &mut given.block,
                "since" => &mut given.since,
                "snapshot" => &mut given.snapshot,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        given
    }
}

fn limit(given: &Option<Text<'_>>) -> Result<usize, Failure> {
    let Some(given) = given else { return Ok(limits::CHANGES_LIMIT_DEFAULT) };
    let details = || limit_details(parameters::given(given), 0);
    let limit = whole_number(given).ok_or_else(|| Failure::parameter("limit", details()))?;
    match usize::try_from(limit) {
        Ok(limit) if limit <= limits::CHANGES_LIMIT_MAX => Ok(limit),
        Ok(_) | Err(_) => {
            let description = format!("limit too high, exceeds max {}", limits::CHANGES_LIMIT_MAX);
            Err(Failure::parameter(description, details()))
        }
    }
}

/// What is wrong with a limit, which must be at least `least`.
pub(super) fn limit_details(value: &str, least: usize) -> Details {
    Details::new("limit", value, format!("a whole number from {least} to {}", limits::CHANGES_LIMIT_MAX))
}

fn block(given: &Option<Text<'_>>) -> Result<Duration, Failure> {
    let Some(given) = given else { return Ok(Duration::ZERO) };
    let details = || Details::new("block", parameters::given(given), "a whole number of seconds from 0");
    whole_number(given).map(Duration::from_secs).ok_or_else(|| Failure::parameter("block", details()))
}

/// A whole number from 0; one too large to be held counts as the largest that can be.
fn whole_number(given: &Text<'_>) -> Option<u64> {
    let digits = given.as_deref().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

fn scopes(given: &scopes::Given<'_>) -> Result<Vec<Scope>, Failure> {
    let scopes = given.parse()?;
    Ok(if scopes.is_empty() { vec![Scope::empty()] } else { scopes })
}

fn parsed<T: std::str::FromStr>(
    given: &Option<Text<'_>>,
    name: &'static str,
    allowed: &str,
) -> Result<Option<T>, Failure> {
    let Some(given) = given else { return Ok(None) };
    let value = given.as_ref().ok().map(Cow::as_ref).and_then(|text| text.parse().ok());
    let details = || Details::new(name, parameters::given(given), allowed);
    value.map(Some).ok_or_else(|| Failure::parameter(name, details()))
}
