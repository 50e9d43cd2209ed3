//! `walclock schedules`: create, show, list, pause, delete and trigger schedules, straight in the database; and the moments of
//! one that there is or may be. Prints lines for people, or with `--json` an object a line.

mod show;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;
use serde_json::value::RawValue;

use super::database::{explained, load};
use super::flags::{Page, Select};
use super::{flags, output};
use crate::clock::{Clock, Timestamp};
use crate::config::DatabaseFlags;
use crate::domain::callback::Callback;
use crate::domain::invalid::Invalid;
use crate::domain::recurrence::{Recurrence, Zone};
use crate::domain::retry::RetryPolicy;
use crate::domain::schedule::{CatchUp, Definition, Overlap, Rule, When};
use crate::domain::{duration, moment};
use crate::service::schedules::{Error, Schedules};
use crate::store::{self, Store};

/// The flags of `walclock schedules`.
#[derive(Args)]
pub struct Flags {
    #[command(flatten)]
    database: DatabaseFlags,
    #[command(subcommand)]
    command: Command,
}

/// What to do with schedules.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Store a schedule; one of the same id is replaced.
    #[command(after_help = "Examples:\n  \
        walclock schedules create --id report --cron '0 9 * * MON-FRI' --url https://example.com/hook\n  \
        walclock schedules create --id poll --every 90s --url https://example.com/hook")]
    Create(Box<Create>),
    /// Show a schedule.
    Get(Select),
    /// List the schedules of a namespace, by id.
    List(List),
    /// Make nothing of it until it is resumed.
    Pause(Select),
    /// Let it go on; what was missed goes by its catch-up policy.
    Resume(Select),
    /// Delete it; what it has fired goes on.
    Delete(Select),
    /// Fire it now, besides its moments.
    Trigger(Select),
    /// Show the next moments of a cron expression or an interval. Needs no database.
    #[command(
        after_help = "Examples:\n  walclock schedules next --cron '30 2 * * *' --time-zone Europe/Berlin --count 3\n  \
        walclock schedules next --every 90s --start-at 2030-01-01T00:00:00Z"
    )]
    Next(Next),
}

/// The flags of `list`.
#[derive(Args, Clone, Debug)]
pub struct List {
    #[command(flatten)]
    page: Page,
    /// Print JSON, a schedule a line.
    #[arg(long)]
    json: bool,
}

/// The flags of `create`.
#[derive(Args, Clone, Debug)]
pub struct Create {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    recurrence: Recurring,
    /// No moment is later.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    end_at: Option<Timestamp>,
    /// By how much its callbacks are spread at most.
    #[arg(long, value_name = "SPAN", value_parser = duration::parse, default_value = "0s")]
    jitter: Duration,
    /// What it does while its last callback is not over: skip, allow, buffer_one or cancel_other.
    #[arg(long, value_name = "POLICY", default_value = "skip")]
    overlap: String,
    /// What it does about moments that were missed: none, last or all.
    #[arg(long, value_name = "POLICY", default_value = "last")]
    catch_up: String,
    /// How far back a missed moment counts.
    #[arg(long, value_name = "SPAN", value_parser = duration::parse, default_value = "24h")]
    catch_up_window: Duration,
    /// How many missed moments are made up for at once.
    #[arg(long, value_name = "N", default_value_t = 100)]
    catch_up_max: u32,
    /// Make nothing of it until it is resumed.
    #[arg(long)]
    paused: bool,
    /// Whom it calls: an absolute http or https URL.
    #[arg(long)]
    url: String,
    /// What it carries: a JSON object.
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// How often each callback is tried at most.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_attempts: Option<i64>,
    /// How long one attempt may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, allow_negative_numbers = true)]
    timeout: i64,
}

/// The flags of `next`.
#[derive(Args, Clone, Debug)]
pub struct Next {
    #[command(flatten)]
    recurrence: Recurring,
    /// Only moments later than this; now, unless it is given.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    after: Option<Timestamp>,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Print JSON, a moment a line.
    #[arg(long)]
    json: bool,
}

/// When something recurs.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("when").required(true).args(["cron", "every"]))]
pub struct Recurring {
    /// A cron expression: minute, hour, day, month, weekday; or six fields with the second first.
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// A fixed interval, such as 90s or 12h.
    #[arg(long, value_name = "SPAN", value_parser = duration::parse)]
    every: Option<Duration>,
    /// The place whose clocks the cron expression goes by.
    #[arg(long, value_name = "NAME", default_value = "UTC")]
    time_zone: String,
    /// The first moment of an interval, and nothing of a cron expression before it.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    start_at: Option<Timestamp>,
}

/// Does it in the database that the settings name, where it needs one, and prints to the standard output.
pub(super) async fn main(flags: Flags) -> anyhow::Result<()> {
    let mut out = Vec::new();
    if let Command::Next(flags) = &flags.command {
        next(flags, Clock::system().now(), &mut out)?;
        return output::write(&out);
    }
    let (_, database) = load(flags.database)?;
    let schedules = Schedules::new(Store::new(store::Config::new(database.clone()))?);
    run(flags.command, &schedules, &mut out).await.map_err(|error| explained(error, &database))?;
    output::write(&out)
}

async fn run(command: Command, schedules: &Schedules, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Next(flags) => next(&flags, Clock::system().now(), out),
        Command::Create(flags) => {
            let (select, definition) = (flags.select.clone(), definition(*flags)?);
            schedules.create(&definition).await.map_err(by_flag)?;
            done("created", &select, schedules, out).await
        }
        Command::Get(flags) => {
            let status = schedules.get(&flags.key()).await.map_err(by_flag)?;
            match flags.json {
                true => show::json(&status, out),
                false => show::lines(&status, out).context("printing"),
            }
        }
        Command::List(List { page: Page { namespace, after, limit }, json }) => {
            let listed = schedules.list(&namespace, &after, limit).await.map_err(by_flag)?;
            match json {
                true => listed.iter().try_for_each(|status| show::json(status, out)),
                false => show::table(&listed, limit, out).context("printing"),
            }
        }
        Command::Pause(flags) => {
            schedules.pause(&flags.key(), true).await.map_err(by_flag)?;
            done("paused", &flags, schedules, out).await
        }
        Command::Resume(flags) => {
            schedules.pause(&flags.key(), false).await.map_err(by_flag)?;
            done("resumed", &flags, schedules, out).await
        }
        Command::Delete(flags) => {
            schedules.delete(&flags.key()).await.map_err(by_flag)?;
            match flags.json {
                true => Ok(()),
                false => Ok(writeln!(out, "deleted {}", flags.key())?),
            }
        }
        Command::Trigger(flags) => {
            let timer = schedules.trigger(&flags.key()).await.map_err(by_flag)?;
            match flags.json {
                true => Ok(writeln!(out, "{}", json!({ "namespace": flags.namespace, "timerId": timer }))?),
                false => Ok(writeln!(out, "triggered {}: timer {}", flags.key(), output::printable(&timer))?),
            }
        }
    }
}

/// Says what was done; for programs, the schedule as it stands now.
async fn done(act: &str, select: &Select, schedules: &Schedules, out: &mut impl Write) -> anyhow::Result<()> {
    match select.json {
        true => show::json(&schedules.get(&select.key()).await.map_err(by_flag)?, out),
        false => Ok(writeln!(out, "{act} {}", select.key())?),
    }
}

fn definition(flags: Create) -> anyhow::Result<Definition> {
    let by_flag = |error: Invalid| flags::by_flag(&error);
    let Recurring { cron, every, time_zone, start_at } = flags.recurrence;
    let when = match cron {
        Some(cron) => When::Cron(cron),
        None => When::Every(every.unwrap_or_default()),
    };
    let payload = flags.payload.map(RawValue::from_string).transpose();
    Ok(Definition {
        key: flags.select.key(),
        rule: Rule {
            when,
            time_zone,
            start_at,
            end_at: flags.end_at,
            jitter: flags.jitter,
            overlap: Overlap::parse(&flags.overlap).map_err(by_flag)?,
            catch_up: CatchUp::parse(&flags.catch_up).map_err(by_flag)?,
            catch_up_window: flags.catch_up_window,
            catch_up_max: flags.catch_up_max,
        },
        paused: flags.paused,
        callback: Callback {
            url: flags.url,
            method: "POST".to_owned(),
            headers: BTreeMap::new(),
            timeout: flags::timeout(flags.timeout)?,
        },
        payload: payload.map_err(|error| anyhow!("--payload must be a JSON object: {error}"))?,
        retry: RetryPolicy { attempts_max: flags::attempts_max(flags.max_attempts)?, ..RetryPolicy::default() },
    })
}

/// The error as this command says it: by its flags.
fn by_flag(error: Error) -> anyhow::Error {
    match error {
        Error::Invalid(invalid) => flags::by_flag(&invalid),
        Error::Refused { .. } | Error::NotFound { .. } | Error::Contended { .. } | Error::Unavailable(_) => {
            anyhow!(error)
        }
    }
}

/// Prints the next moments, as the clocks of the place show them.
fn next(flags: &Next, now: Timestamp, out: &mut impl Write) -> anyhow::Result<()> {
    let Recurring { cron, every, time_zone, start_at } = &flags.recurrence;
    let zone = Zone::parse(time_zone).map_err(|error| flags::by_flag(&error))?;
    let after = flags.after.unwrap_or(now);
    let recurrence = match (cron, every) {
        (Some(cron), _) => Recurrence::cron(cron, time_zone),
        (None, every) => Recurrence::every(every.unwrap_or_default(), start_at.unwrap_or(after)),
    };
    let recurrence = recurrence.map_err(|error| flags::by_flag(&error))?;
    // What begins at a moment may have it.
    let behind = start_at.map_or(after, |start| after.max(start.before(Duration::from_micros(1))));
    let moments = std::iter::successors(recurrence.after(behind), |last| recurrence.after(*last));
    for at in moments.take(usize::try_from(flags.count).unwrap_or(usize::MAX)) {
        match flags.json {
            true => writeln!(out, "{}", json!({ "at": at.to_string(), "local": zone.show(at) }))?,
            false => writeln!(out, "{}", zone.show(at))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn run(arguments: &[&str]) -> Result<String, String> {
        let arguments = ["schedules"].iter().chain(arguments);
        let Command::Next(flags) = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?.command else {
            panic!("it is a next");
        };
        let mut out = Vec::new();
        let now = "2026-03-28T12:00:00Z".parse().expect("a moment");
        next(&flags, now, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn the_next_moments_are_shown_as_the_place_has_them() {
        let berlin = ["next", "--cron", "30 2 * * *", "--time-zone", "Europe/Berlin", "--count", "2"];
        assert_eq!(run(&berlin).as_deref(), Ok("2026-03-29T03:00:00+02:00\n2026-03-30T02:30:00+02:00\n"));
        let from = ["next", "--every", "90s", "--start-at", "2030-01-01T00:00:00Z", "--count", "2"];
        assert_eq!(run(&from).as_deref(), Ok("2030-01-01T00:00:00+00:00\n2030-01-01T00:01:30+00:00\n"));
        let every = ["next", "--every", "1h", "--count", "1", "--after", "2026-01-01T00:30:00Z"];
        assert_eq!(run(&every).as_deref(), Ok("2026-01-01T01:30:00+00:00\n"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_flag() {
        for (arguments, said) in [
            (&["next", "--cron", "0 25 * * *"][..], "--cron must be a cron expression; its hour \"25\""),
            (&["next", "--cron", "0 0 30 2 *"], "--cron must be a cron expression that fits some day"),
            (&["next", "--cron", "* * * * *", "--time-zone", "Mars"], "--time-zone must be the name of an IANA"),
            (&["next", "--every", "1ms"], "--every must be a duration from 1s to"),
        ] {
            let error = run(arguments).expect_err("it makes no sense");
            assert!(error.starts_with(said), "{error}");
        }
        for arguments in
            [&["next"][..], &["next", "--cron", "* * * * *", "--every", "1h"], &["next", "--every", "soon"]]
        {
            assert!(run(arguments).is_err(), "{arguments:?}");
        }
    }
}
