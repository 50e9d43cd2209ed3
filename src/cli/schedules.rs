//! `walclock schedules`: the moments of a schedule, shown before there is one.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{flags, output};
use crate::clock::{Clock, Timestamp};
use crate::domain::recurrence::{Recurrence, Zone};
use crate::domain::{duration, moment};

/// The flags of `walclock schedules`.
#[derive(Args)]
pub struct Flags {
    #[command(subcommand)]
    command: Command,
}

/// What to do with schedules.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the next moments of a cron expression or an interval. Needs no database.
    #[command(
        after_help = "Examples:\n  walclock schedules next --cron '30 2 * * *' --time-zone Europe/Berlin --count 3\n  \
        walclock schedules next --every 90s --start-at 2030-01-01T00:00:00Z"
    )]
    Next(Next),
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
}

/// When something recurs.
#[derive(Args, Clone, Debug)]
pub struct Recurring {
    /// A cron expression: minute, hour, day, month, weekday; or six fields with the second first.
    #[arg(long, value_name = "EXPRESSION", required_unless_present = "every", conflicts_with = "every")]
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

/// Does it, and prints to the standard output.
pub(super) fn main(flags: Flags) -> anyhow::Result<()> {
    let mut out = Vec::new();
    match flags.command {
        Command::Next(flags) => next(&flags, Clock::system().now(), &mut out)?,
    }
    output::write(&out)
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
        writeln!(out, "{}", zone.show(at))?;
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
        let Command::Next(flags) = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?.command;
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
