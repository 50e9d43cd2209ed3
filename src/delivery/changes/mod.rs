//! The change feed of another process, followed over HTTP: news for a dispatcher that runs without a feed of its own.
//! What a change of the timers table says is read in `entries`, for the feed in the same process too.

pub mod entries;
mod timestamptz;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use url::Url;

use super::body::Extent;
use super::connect::Connector;
use super::resolve::{Lookups, system_resolver};
use super::transport::{Call, Message, Progress, Transport};
use super::{reply, request};
use crate::clock::Clock;
use crate::dispatch::ports::{Feed, FeedError, News, Unavailable};
use crate::domain::sequence::Sequence;
use crate::domain::shard::Shard;
use entries::Malformed;

/// Changes asked for at once. With the largest payloads, all escaped, they stay below [`BODY_BYTES_MAX`].
const CHANGES_MAX: usize = 500;
/// Most bytes of an answer.
const BODY_BYTES_MAX: usize = 128 << 20;
/// How long an answer may take beyond the wait that was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_MAX: Duration = Duration::from_secs(4);
/// A dispatcher follows with one call at a time; a few more cover calls that are being given up.
const CONNECTIONS_MAX: usize = 16;
/// A scope that no row of ours is in: who asks for it learns where the feed is.
const NO_ROWS: &str = "walclock.position";

/// Follows a changeserver.
pub struct Follower {
    transport: Transport,
    url: Url,
}

/// The URL of the changeserver is not an http or https URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the changeserver's URL must be an absolute http or https URL without user-info")]
pub struct InvalidUrl;

/// Why an answer is no good.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Exchange(#[from] super::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("answered {status}: {head}")]
    Refused { status: u16, head: String },
    #[error("the answer is too long")]
    TooLong,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The body of a good answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    last_sequence: &'a str,
    /// Each by itself, so that one which cannot be read does not take the others along.
    #[serde(borrow)]
    changes: Vec<&'a RawValue>,
}

/// The body of an error.
#[derive(Deserialize)]
struct Refusal {
    code: String,
}

impl Follower {
    /// Follows the changeserver at `url`, which `/changes` is appended to. Must be called within a runtime.
    pub fn new(url: &str, clock: Clock) -> Result<Self, InvalidUrl> {
        let mut url = request::url(url).map_err(|_| InvalidUrl)?;
        let path = format!("{}/changes", url.path().trim_end_matches('/'));
        url.set_path(&path);
        // The operator names the changeserver, and it is mostly in a private network.
        let lookups = Lookups::new(system_resolver(), Duration::ZERO);
        let connector = Connector::new(None, CONNECT_TIMEOUT, lookups, &[]);
        Ok(Self { transport: Transport::new(connector, CONNECTIONS_MAX, IDLE_MAX, clock), url })
    }

    /// One call. Returns the news, and whether there may be more at once.
    async fn call(&self, scopes: &[String], since: Sequence, wait: Duration) -> Result<(News, bool), FeedError> {
        // Whole seconds, and at least one where there is a wait at all: none would have the caller spin.
        let block = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        let url = self.url_of(scopes, since, block);
        let mut progress = Progress::default();
        let until = Instant::now() + Duration::from_secs(block).saturating_add(ANSWER_TIMEOUT);
        let call = Call { url: &url, namespace: "", until };
        let extent = Extent { read_max: BODY_BYTES_MAX, kept_max: BODY_BYTES_MAX };
        let exchange = self.transport.exchange(&call, || get(&url), |_| extent, &mut progress);
        match tokio::time::timeout_at(until, exchange).await {
            Ok(done) => done.map_err(unavailable)?,
            Err(_elapsed) => return Err(unavailable(Error::TimedOut)),
        }
        if progress.status != Some(200) {
            return Err(refusal(&progress));
        }
        if progress.body.is_cut() {
            return Err(unavailable(Error::TooLong));
        }
        let page: Page<'_> =
            serde_json::from_slice(progress.body.kept()).map_err(|e| unavailable(Malformed::Json(e)))?;
        let last = page.last_sequence.parse().map_err(|_| unavailable(Malformed::Field("lastSequence")))?;
        let is_full = page.changes.len() >= CHANGES_MAX;
        let entries = entries::entries(page.changes.iter().map(|change| change.get().as_bytes()));
        Ok((News { entries, last }, is_full))
    }

    fn url_of(&self, scopes: &[String], since: Sequence, block: u64) -> Url {
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
        query.append_pair("since", &since.to_string());
        query.append_pair("block", &block.to_string());
        query.append_pair("limit", &CHANGES_MAX.to_string());
        drop(query);
        url
    }
}

impl Feed for Follower {
    async fn position(&self) -> Result<Sequence, FeedError> {
        let scopes = [NO_ROWS.to_owned()];
        let mut since = Sequence::ZERO;
        loop {
            // A page that is not full ends at the newest change. Changes told to everybody (TRUNCATE) may fill one.
            let (news, is_full) = self.call(&scopes, since, Duration::ZERO).await?;
            if !is_full {
                return Ok(news.last);
            }
            since = news.last;
        }
    }

    async fn follow(&self, shards: &[Shard], since: Sequence, wait: Duration) -> Result<News, FeedError> {
        let scopes: Vec<String> = shards.iter().map(|shard| shard.scope()).collect();
        let (news, _) = self.call(&scopes, since, wait).await?;
        // Zero is the oldest, whatever that is: a gap before the very first change could not be told from there.
        match since == Sequence::ZERO && news.last != Sequence::ZERO {
            true => Err(FeedError::Gap),
            false => Ok(news),
        }
    }
}

fn get(url: &Url) -> Result<Message, super::Error> {
    let headers = HeaderMap::from_iter([
        (HOST, request::host(url)?),
        (ACCEPT, HeaderValue::from_static("application/json")),
        (USER_AGENT, request::AGENT),
    ]);
    Ok(Message { method: Method::GET, target: request::target(url)?, headers, body: Bytes::new() })
}

/// What an answer other than 200 means.
fn refusal(progress: &Progress) -> FeedError {
    let is_gap =
        serde_json::from_slice::<Refusal>(progress.body.kept()).is_ok_and(|refusal| refusal.code == "SNAPSHOT_TOO_OLD");
    match (progress.status, is_gap) {
        (Some(400), true) => FeedError::Gap,
        (status, _) => {
            unavailable(Error::Refused { status: status.unwrap_or(0), head: reply::head(progress.body.kept()) })
        }
    }
}

fn unavailable(source: impl Into<Error>) -> FeedError {
    FeedError::Unavailable(Unavailable { doing: "following the change feed", source: Box::new(source.into()) })
}
