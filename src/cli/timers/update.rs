//! `walclock timers update`: what is given becomes different, and all the rest stays.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;

use super::show;
use crate::cli::callback;
use crate::cli::flags::{self, Select};
use crate::clock::Timestamp;
use crate::domain::{duration, moment, timer};
use crate::service::timers::Timers;

/// The flags of `update`.
#[derive(Args, Clone, Debug)]
pub struct Update {
    #[command(flatten)]
    select: Select,
    /// How long from now the timer fires, its attempts counted anew: 300ms, 10s, 1h30m.
    #[arg(long = "in", value_name = "SPAN", value_parser = duration::parse, allow_hyphen_values = true, conflicts_with = "at")]
    wait: Option<Duration>,
    /// When the timer fires, its attempts counted anew: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    at: Option<Timestamp>,
    /// The URL that the timer calls, absolute http or https.
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    callback: callback::Flags,
    /// Take all further headers away.
    #[arg(long, conflicts_with = "headers")]
    no_headers: bool,
}

/// Changes the timer, and prints it as it is then.
pub(super) async fn update(flags: Update, timers: &Timers, out: &mut impl Write) -> anyhow::Result<()> {
    let (key, json) = (flags.select.key(), flags.select.json);
    let execute_at = match flags.wait {
        Some(wait) => Some(timers.now().await.map_err(flags::explained)?.after(wait)),
        None => flags.at,
    };
    let timer = timers.update(&key, &changes(flags, execute_at)?).await.map_err(flags::explained)?;
    match json {
        true => writeln!(out, "{}", show::json(&timer)),
        false => writeln!(out, "updated {key}, due {}", timer.due_at()),
    }
    .context("printing")
}

fn changes(flags: Update, execute_at: Option<Timestamp>) -> anyhow::Result<timer::Update> {
    let Update { url, callback, no_headers, .. } = flags;
    if execute_at.is_none() && url.is_none() && !no_headers && callback == callback::Flags::default() {
        return Err(anyhow!("what is to be different must be given, such as --in, --at, --url or --payload"));
    }
    let payload = callback.payload()?;
    Ok(timer::Update {
        execute_at,
        callback_url: url,
        callback_method: callback.method(),
        callback_headers: if no_headers { Some(BTreeMap::new()) } else { callback.headers()? },
        callback_timeout: callback.timeout()?,
        payload: payload.map(|payload| Some(payload).filter(|payload| payload.get() != "null")),
        retry: callback.retry()?,
    })
}
