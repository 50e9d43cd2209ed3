//! `walclock schedules next`: the moments of a schedule that is stored, or of an expression that might become one.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{ArgGroup, Args};
use serde_json::json;

use super::Recurring;
use crate::cli::flags;
use crate::clock::Timestamp;
use crate::domain::moment;
use crate::domain::recurrence::{Recurrence, Zone};
use crate::domain::schedule::Rule;
use crate::domain::timer::TimerKey;
use crate::service::schedules::Status;

/// The flags of `next`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("when").required(true).args(["cron", "every", "id"]))]
pub struct Next {
    #[command(flatten)]
    recurrence: Recurring,
    /// The schedule of this id, as if it were not paused.
    #[arg(long, conflicts_with_all = ["time_zone", "start_at"])]
    id: Option<String>,
    /// The namespace that the id belongs to.
    #[arg(long, default_value = "default", conflicts_with_all = ["cron", "every"])]
    namespace: String,
    /// Show only moments later than this; now, unless it is given.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    after: Option<Timestamp>,
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = flags::count())]
    #[arg(help = flags::counted("How many moments to show"))]
    count: u32,
    /// Print JSON, a moment a line.
    #[arg(long)]
    json: bool,
}

impl Next {
    /// Whether it is about a schedule of the database.
    pub(super) fn is_of_stored(&self) -> bool {
        self.id.is_some()
    }

    /// The schedule that it is about.
    pub(super) fn key(&self) -> TimerKey {
        TimerKey::new(&self.namespace, self.id.as_deref().unwrap_or_default())
    }
}

/// Prints the next moments of the expression in the flags, as the clocks of the place show them.
pub(super) fn of_expression(flags: &Next, now: Timestamp, out: &mut impl Write) -> anyhow::Result<()> {
    let after = flags.after.unwrap_or(now);
    let rule = flags.recurrence.clone().rule();
    let zone = Zone::parse(&rule.time_zone).map_err(|error| flags::by_flag(&error))?;
    let recurrence = rule.recurrence(after).map_err(|error| flags::by_flag(&error))?;
    print(flags, &rule, &recurrence, &zone, after, out)
}

/// Prints the next moments of a schedule that there is.
pub(super) fn of_stored(flags: &Next, status: &Status, now: Timestamp, out: &mut impl Write) -> anyhow::Result<()> {
    let rule = &status.definition.rule;
    let broken = |error| anyhow!("nothing is made of the schedule {}: {error}", status.definition.key);
    let recurrence = rule.recurrence(status.created_at).map_err(broken)?;
    // An interval goes by no clocks, whatever place its row names.
    let zone = Zone::parse(&rule.time_zone).or_else(|_| Zone::parse("UTC")).map_err(broken)?;
    print(flags, rule, &recurrence, &zone, flags.after.unwrap_or(now), out)
}

fn print(
    flags: &Next,
    rule: &Rule,
    recurrence: &Recurrence,
    zone: &Zone,
    after: Timestamp,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    // What begins at a moment may have it.
    let behind = rule.start_at.map_or(after, |start| after.max(start.before(Duration::from_micros(1))));
    let moments = std::iter::successors(recurrence.after(behind), |last| recurrence.after(*last));
    let moments = moments.take_while(|at| rule.end_at.is_none_or(|end| *at <= end));
    for at in moments.take(usize::try_from(flags.count).unwrap_or(usize::MAX)) {
        match flags.json {
            true => writeln!(out, "{}", json!({ "at": at, "local": zone.show(at) })),
            false => writeln!(out, "{}", zone.show(at)),
        }
        .context("printing")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Command;
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
        of_expression(&flags, now, &mut out).map_err(|error| error.to_string())?;
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
        for arguments in [
            &["next"][..],
            &["next", "--cron", "* * * * *", "--every", "1h"],
            &["next", "--every", "soon"],
            &["next", "--id", "a", "--every", "1h"],
            &["next", "--id", "a", "--time-zone", "UTC"],
            &["next", "--every", "1h", "--namespace", "n"],
        ] {
            assert!(run(arguments).is_err(), "{arguments:?}");
        }
    }
}
