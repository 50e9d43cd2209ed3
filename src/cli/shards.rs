//! `walclock shards`: who holds which shards, in which epoch, with how much left, by PostgreSQL's clock.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::database::{explained, load};
use super::output;
use crate::clock::Timestamp;
use crate::config::DatabaseFlags;
use crate::domain::lease::Owner;
use crate::domain::limits::LEASE_TTL;
use crate::domain::shard::Shard;
use crate::store::shards::{Dispatcher, Held, Ring, read};

/// How much of an owner's name the table shows: enough to tell owners apart and to find them in a log.
const OWNER_CHARS: usize = 12;

/// The flags of `walclock shards`.
#[derive(Args)]
pub(super) struct Flags {
    #[command(flatten)]
    database: DatabaseFlags,
    /// Print JSON: the dispatchers, and every shard.
    #[arg(long)]
    json: bool,
}

/// Reads the ring of the database that the settings name, and prints it to the standard output.
pub(super) async fn main(flags: Flags) -> anyhow::Result<()> {
    let (_, database) = load(flags.database)?;
    let ring = read(&database).await.map_err(|error| explained(error.into(), &database))?;
    let mut out = Vec::new();
    match flags.json {
        true => serde_json::to_writer(&mut out, &whole(&ring)).map_err(io::Error::other).and_then(|()| writeln!(out)),
        false => table(&ring, &mut out),
    }
    .context("printing")?;
    output::write(&out)
}

/// What one owner has, and what of it has run out.
#[derive(Default)]
struct Part<'a> {
    held: Vec<&'a Held>,
    expired: Vec<&'a Held>,
    /// Of those that are held, what lies farther ahead than any lease can.
    ahead: Vec<&'a Held>,
}

/// The shards by their owners, and those that nobody has.
#[derive(Default)]
struct Parts<'a> {
    owners: BTreeMap<&'a Owner, Part<'a>>,
    free: Vec<&'a Held>,
}

impl<'a> Parts<'a> {
    fn of(ring: &'a Ring) -> Self {
        let mut parts = Self::default();
        for held in &ring.shards {
            let Some(owner) = &held.owner else {
                parts.free.push(held);
                continue;
            };
            let part = parts.owners.entry(owner).or_default();
            match held.expires_at > ring.now {
                true => part.held.push(held),
                false => part.expired.push(held),
            }
            if is_ahead(held.expires_at, ring.now) {
                part.ahead.push(held);
            }
        }
        parts
    }

    /// How many are held, and how many have run out.
    fn counts(&self) -> (usize, usize) {
        let parts = self.owners.values();
        parts.fold((0, 0), |(held, expired), part| (held + part.held.len(), expired + part.expired.len()))
    }
}

/// Whether a lease that runs out at this moment lies farther ahead than the longest lasts. PostgreSQL's clock was set back, or
/// a standby whose clock is behind was promoted, and no dispatcher has asked for leases since.
fn is_ahead(expires_at: Timestamp, now: Timestamp) -> bool {
    expires_at > now.after(*LEASE_TTL.end())
}

/// The dispatchers, a line each, and what nobody works for.
fn table(ring: &Ring, out: &mut impl Write) -> io::Result<()> {
    let parts = Parts::of(ring);
    let ((held, expired), Parts { owners, free }) = (parts.counts(), parts);
    let alive = ring.dispatchers.iter().filter(|dispatcher| dispatcher.expires_at > ring.now).count();
    writeln!(out, "{} shards at {}: {held} held, {expired} expired, {} free", ring.shards.len(), ring.now, free.len())?;
    writeln!(out, "{alive} {} alive", if alive == 1 { "dispatcher" } else { "dispatchers" })?;
    let known = |owner: &Owner| ring.dispatchers.iter().any(|dispatcher| dispatcher.owner == *owner);
    let unknown = owners.keys().filter(|owner| !known(owner)).map(|owner| Line::unknown(owner));
    // Those that have gone and hold nothing any more are of no interest.
    let of_interest =
        |dispatcher: &&Dispatcher| dispatcher.expires_at > ring.now || owners.contains_key(&dispatcher.owner);
    let lines = ring.dispatchers.iter().filter(of_interest).map(|dispatcher| Line::of(dispatcher, ring.now));
    let lines: Vec<Line<'_>> = lines.chain(unknown).collect();
    let where_width = lines.iter().map(|line| line.place.chars().count()).max().unwrap_or(0).max("PROCESS".len());
    if !lines.is_empty() {
        writeln!(
            out,
            "\n{:<OWNER_CHARS$}  {:<where_width$}  {:<20}  {:>7}  {:>6}  {:>7}  {:>9}  {:>7}  RANGES",
            "OWNER", "PROCESS", "STARTED", "ALIVE", "SHARDS", "LEASES", "EPOCHS", "RUNNING"
        )?;
    }
    for line in &lines {
        let none = Part::default();
        let part = owners.get(line.owner).unwrap_or(&none);
        let owner: String = line.owner.0.chars().take(OWNER_CHARS).collect();
        let left = part.held.iter().map(|held| held.expires_at.since(ring.now)).min().map(seconds);
        let line = format!(
            "{owner:<OWNER_CHARS$}  {:<where_width$}  {:<20}  {:>7}  {:>6}  {:>7}  {:>9}  {:>7}  {}",
            line.place,
            line.started,
            line.alive,
            part.held.len(),
            left.unwrap_or_else(|| "-".to_owned()),
            epochs(&part.held).map_or("-".to_owned(), |epochs| text(&epochs)),
            part.held.iter().map(|held| held.runs).sum::<i64>(),
            ranges(&part.held).join(",")
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    for (owner, part) in owners.iter().filter(|(_, part)| !part.expired.is_empty()) {
        let owner: String = owner.0.chars().take(OWNER_CHARS).collect();
        writeln!(out, "\nexpired, last held by {owner}: {}", ranges(&part.expired).join(","))?;
    }
    for (owner, part) in owners.iter().filter(|(_, part)| !part.ahead.is_empty()) {
        let owner: String = owner.0.chars().take(OWNER_CHARS).collect();
        let ranges = ranges(&part.ahead).join(",");
        writeln!(
            out,
            "\nfarther ahead than a lease lasts, held by {owner}: {ranges}; PostgreSQL's clock was set back, and the next \
             round of any dispatcher cuts them"
        )?;
    }
    match free.is_empty() {
        true => Ok(()),
        false => writeln!(out, "\nfree: {}", ranges(&free).join(",")),
    }
}

/// What is said of a dispatcher itself.
struct Line<'a> {
    owner: &'a Owner,
    place: String,
    started: String,
    alive: String,
}

impl<'a> Line<'a> {
    fn of(dispatcher: &'a Dispatcher, now: Timestamp) -> Self {
        let place = match (&dispatcher.host, dispatcher.pid) {
            (Some(host), Some(pid)) => output::printable(&format!("{host}:{pid}")),
            _ => "-".to_owned(),
        };
        let started = dispatcher.started_at.micros().div_euclid(1_000_000).saturating_mul(1_000_000);
        let alive = match dispatcher.expires_at > now {
            true => seconds(dispatcher.expires_at.since(now)),
            false => "no".to_owned(),
        };
        Self { owner: &dispatcher.owner, place, started: Timestamp::from_micros(started).to_string(), alive }
    }

    /// One that has shards still and has been forgotten otherwise.
    fn unknown(owner: &'a Owner) -> Self {
        Self { owner, place: "-".to_owned(), started: "-".to_owned(), alive: "no".to_owned() }
    }
}

fn seconds(span: Duration) -> String {
    format!("{:.1}s", span.as_secs_f64())
}

fn text(range: &RangeInclusive<i64>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    }
}

/// The lowest and the highest epoch.
fn epochs(held: &[&Held]) -> Option<RangeInclusive<i64>> {
    let least = held.iter().map(|held| held.epoch.0).min()?;
    let most = held.iter().map(|held| held.epoch.0).max()?;
    Some(least..=most)
}

/// The shards as ranges, `0-63` or `7`; they come in order.
fn ranges(held: &[&Held]) -> Vec<String> {
    let mut ranges: Vec<RangeInclusive<i64>> = Vec::new();
    for Shard(shard) in held.iter().map(|held| held.shard) {
        let shard = i64::from(shard);
        match ranges.last_mut() {
            Some(last) if *last.end() + 1 == shard => *last = *last.start()..=shard,
            _ => ranges.push(shard..=shard),
        }
    }
    ranges.iter().map(text).collect()
}

/// The ring as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    now: Timestamp,
    total: usize,
    held: usize,
    expired: usize,
    free: usize,
    dispatchers: Vec<WholeDispatcher<'a>>,
    shards: Vec<WholeShard<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WholeDispatcher<'a> {
    owner: &'a str,
    host: Option<&'a str>,
    pid: Option<i32>,
    started_at: Timestamp,
    is_alive: bool,
    alive_left_seconds: f64,
    shards: usize,
    running: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WholeShard<'a> {
    shard: u8,
    state: &'static str,
    owner: Option<&'a str>,
    epoch: i64,
    left_seconds: f64,
    /// Farther ahead than a lease lasts.
    is_ahead: bool,
    running: i64,
}

fn whole(ring: &Ring) -> Whole<'_> {
    let parts = Parts::of(ring);
    let ((held, expired), Parts { owners, free }) = (parts.counts(), parts);
    let dispatchers = ring.dispatchers.iter().map(|one| {
        let part = owners.get(&one.owner);
        WholeDispatcher {
            owner: &one.owner.0,
            host: one.host.as_deref(),
            pid: one.pid,
            started_at: one.started_at,
            is_alive: one.expires_at > ring.now,
            alive_left_seconds: one.expires_at.since(ring.now).as_secs_f64(),
            shards: part.map_or(0, |part| part.held.len()),
            running: part.map_or(0, |part| part.held.iter().map(|held| held.runs).sum()),
        }
    });
    let shards = ring.shards.iter().map(|held| WholeShard {
        shard: held.shard.0,
        state: match &held.owner {
            Some(_) if held.expires_at > ring.now => "held",
            Some(_) => "expired",
            None => "free",
        },
        owner: held.owner.as_ref().map(|owner| owner.0.as_str()),
        epoch: held.epoch.0,
        left_seconds: held.expires_at.since(ring.now).as_secs_f64(),
        is_ahead: is_ahead(held.expires_at, ring.now),
        running: held.runs,
    });
    Whole {
        now: ring.now,
        total: ring.shards.len(),
        held,
        expired,
        free: free.len(),
        dispatchers: dispatchers.collect(),
        shards: shards.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lease::Epoch;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn held(shard: u8, owner: Option<&str>, epoch: i64, left: f64) -> Held {
        let expires_at = match left > 0.0 {
            true => NOW.after(Duration::from_secs_f64(left)),
            false => NOW.before(Duration::from_secs_f64(-left)),
        };
        let owner = owner.map(|owner| Owner(owner.to_owned()));
        Held { shard: Shard(shard), owner, epoch: Epoch(epoch), expires_at, runs: i64::from(shard) % 2 }
    }

    fn ring() -> Ring {
        let dispatcher = |owner: &str, host: Option<&str>, expires_at| Dispatcher {
            owner: Owner(owner.to_owned()),
            started_at: NOW.before(Duration::from_millis(90_500)),
            expires_at,
            host: host.map(str::to_owned),
            pid: host.map(|_| 4711),
        };
        let shards = vec![
            held(0, Some("0123456789abcdef"), 3, 7.25),
            held(1, Some("0123456789abcdef"), 5, 7.25),
            held(2, Some("bbbb"), 1, -0.5),
            held(3, Some("0123456789abcdef"), 4, 7.25),
            held(4, None, 9, -1.0),
            held(5, None, 9, -1.0),
        ];
        let dispatchers = vec![
            dispatcher("gone", Some("h"), NOW.before(Duration::from_secs(60))),
            dispatcher("0123456789abcdef", Some("db\u{1b}1"), NOW.after(Duration::from_millis(7_250))),
            dispatcher("idle", None, NOW.after(Duration::from_secs(9))),
        ];
        Ring { now: NOW, shards, dispatchers }
    }

    #[test]
    fn the_ring_is_shown_by_owner() {
        let mut out = Vec::new();
        table(&ring(), &mut out).expect("it is written to memory");
        let shown = String::from_utf8(out).expect("text");
        let expected = "\
6 shards at 2023-11-14T22:13:20Z: 3 held, 1 expired, 2 free
2 dispatchers alive

OWNER         PROCESS         STARTED                 ALIVE  SHARDS   LEASES     EPOCHS  RUNNING  RANGES
0123456789ab  db\\u{1b}1:4711  2023-11-14T22:11:49Z     7.2s       3     7.2s        3-5        2  0-1,3
idle          -               2023-11-14T22:11:49Z     9.0s       0        -          -        0
bbbb          -               -                          no       0        -          -        0

expired, last held by bbbb: 2

free: 4-5
";
        assert_eq!(shown, expected, "{shown}");
    }

    #[test]
    fn a_lease_farther_ahead_than_any_lasts_is_told() {
        let mut ring = ring();
        for (shard, left) in [(1, 600.0), (3, 600.5)] {
            ring.shards[shard].expires_at = NOW.after(Duration::from_secs_f64(left));
        }
        let mut out = Vec::new();
        table(&ring, &mut out).expect("it is written to memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(shown.contains("\nfarther ahead than a lease lasts, held by 0123456789ab: 3; PostgreSQL's"), "{shown}");
        let told = whole(&ring).shards.iter().map(|shard| shard.is_ahead).collect::<Vec<_>>();
        assert_eq!(told, [false, false, false, true, false, false]);
    }

    #[test]
    fn programs_read_every_shard() {
        let ring = ring();
        let whole = serde_json::to_value(whole(&ring)).expect("JSON");
        for (pointer, expected) in [
            ("/total", serde_json::json!(6)),
            ("/held", serde_json::json!(3)),
            ("/expired", serde_json::json!(1)),
            ("/free", serde_json::json!(2)),
            ("/dispatchers/1/shards", serde_json::json!(3)),
            ("/dispatchers/1/pid", serde_json::json!(4711)),
            ("/dispatchers/0/isAlive", serde_json::json!(false)),
            ("/shards/0/leftSeconds", serde_json::json!(7.25)),
            ("/shards/2/state", serde_json::json!("expired")),
            ("/shards/2/owner", serde_json::json!("bbbb")),
            ("/shards/4/state", serde_json::json!("free")),
            ("/shards/4/epoch", serde_json::json!(9)),
        ] {
            assert_eq!(whole.pointer(pointer), Some(&expected), "{pointer}");
        }
    }
}
