//! `walclock schedules`: create, show, list, pause, delete and trigger schedules, straight in the database; and the moments of
//! one that there is or may be. Prints lines for people, or with `--json` an object a line.

mod next;
mod show;

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use super::database::{explained, load};
use super::flags::{Page, Select};
use super::{callback, flags, output};
use crate::clock::{Clock, Timestamp};
use crate::config::DatabaseFlags;
use crate::domain::invalid::Invalid;
use crate::domain::retry::RetryPolicy;
use crate::domain::schedule::{CatchUp, Definition, Overlap, Rule, When};
use crate::domain::{duration, limits, moment};
use crate::service::schedules::Schedules;
use crate::store::{self, Store};
use next::Next;

const CREATE_EXAMPLES: &str = "\
Examples:
  walclock schedules create --id report --cron '0 9 * * MON-FRI' --url https://example.com/hook
  walclock schedules create --id poll --every 90s --url https://example.com/hook --header 'X-Tenant: 7'";

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
    /// Store a schedule; one of the same id is replaced, all of it.
    #[command(after_help = format!("{}\n\n{CREATE_EXAMPLES}", callback::defaults()))]
    Create(Box<Create>),
    /// Show a schedule.
    Get(Select),
    /// List the schedules of a namespace, by id.
    List(List),
    /// Pause a schedule: it fires nothing until it is resumed.
    Pause(Select),
    /// Resume a schedule; what was missed goes by its catch-up policy.
    Resume(Select),
    /// Delete a schedule; what it has fired goes on.
    Delete(Select),
    /// Fire a schedule now, besides its moments.
    Trigger(Select),
    /// Show the next moments of a schedule; or of a cron expression or an interval, which needs no database.
    #[command(after_help = "Examples:\n  walclock schedules next --id report\n  \
        walclock schedules next --cron '30 2 * * *' --time-zone Europe/Berlin --count 3\n  \
        walclock schedules next --every 90s --start-at 2030-01-01T00:00:00Z")]
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
#[command(group = ArgGroup::new("when").required(true).args(["cron", "every"]))]
#[command(mut_arg("id", |id| id.help("The id that the schedule gets")))]
pub struct Create {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    recurrence: Recurring,
    /// The last moment that the schedule may have.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    end_at: Option<Timestamp>,
    #[arg(long, value_name = "SPAN", value_parser = duration::parse, default_value = "0s")]
    #[arg(help = format!("By how much the schedule's callbacks are spread, up to {}", duration::format(limits::SCHEDULE_JITTER_MAX)))]
    jitter: Duration,
    /// What the schedule does while its last callback is not over: skip, allow, buffer_one or cancel_other.
    #[arg(long, value_name = "POLICY", default_value = "skip")]
    overlap: String,
    /// What the schedule does about moments that were missed: none, last or all.
    #[arg(long, value_name = "POLICY", default_value = "last")]
    catch_up: String,
    /// How far back a missed moment counts.
    #[arg(long, value_name = "SPAN", value_parser = duration::parse, default_value = "24h")]
    catch_up_window: Duration,
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(help = format!("How many missed moments are made up for at once, up to {}", limits::CATCH_UP_MAX.end()))]
    catch_up_max: u32,
    /// Create the schedule paused: it fires nothing until it is resumed.
    #[arg(long)]
    paused: bool,
    /// The URL that the schedule calls, absolute http or https.
    #[arg(long)]
    url: String,
    #[command(flatten)]
    callback: callback::Flags,
    /// Make the namespace if there is none of that name.
    #[arg(long)]
    make_namespace: bool,
}

/// When something recurs.
#[derive(Args, Clone, Debug)]
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

impl Recurring {
    /// The rule that they make, with the usual rest.
    fn rule(self) -> Rule {
        let when = match self.cron {
            Some(cron) => When::Cron(cron),
            None => When::Every(self.every.unwrap_or_default()),
        };
        Rule { time_zone: self.time_zone, start_at: self.start_at, ..Rule::new(when) }
    }
}

/// Does it in the database that the settings name, where it needs one, and prints to the standard output.
pub(super) async fn main(flags: Flags) -> anyhow::Result<()> {
    let mut out = Vec::new();
    if let Command::Next(flags) = &flags.command
        && !flags.is_of_stored()
    {
        next::of_expression(flags, Clock::system().now(), &mut out)?;
        return output::write(&out);
    }
    let (settings, database) = load(flags.database)?;
    let make_namespace = match &flags.command {
        Command::Create(create) => create.make_namespace,
        Command::Get(_)
        | Command::List(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Delete(_)
        | Command::Trigger(_)
        | Command::Next(_) => false,
    };
    let store = Store::new(store::Config::new(database.clone()))?;
    let schedules = Schedules::new(store, make_namespace || settings.auto_create_namespaces);
    run(flags.command, &schedules, &mut out).await.map_err(|error| explained(error, &database))?;
    output::write(&out)
}

async fn run(command: Command, schedules: &Schedules, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Next(flags) => {
            let status = schedules.get(&flags.key()).await.map_err(flags::explained)?;
            next::of_stored(&flags, &status, Clock::system().now(), out)
        }
        Command::Create(flags) => {
            let (select, definition) = (flags.select.clone(), definition(*flags)?);
            let created = schedules.create(&definition).await;
            created.map_err(|error| flags::explained_within(&select.namespace, error))?;
            done("created", &select, schedules, out).await
        }
        Command::Get(flags) => {
            let status = schedules.get(&flags.key()).await.map_err(flags::explained)?;
            match flags.json {
                true => show::json(&status, out),
                false => show::lines(&status, out).context("printing"),
            }
        }
        Command::List(List { page: Page { namespace, after, limit }, json }) => {
            let listed = schedules.list(&namespace, &after, limit).await.map_err(flags::explained)?;
            match json {
                true => listed.iter().try_for_each(|status| show::json(status, out)),
                false => show::table(&listed, limit, out).context("printing"),
            }
        }
        Command::Pause(flags) => {
            schedules.pause(&flags.key(), true).await.map_err(flags::explained)?;
            done("paused", &flags, schedules, out).await
        }
        Command::Resume(flags) => {
            schedules.pause(&flags.key(), false).await.map_err(flags::explained)?;
            done("resumed", &flags, schedules, out).await
        }
        Command::Delete(flags) => {
            schedules.delete(&flags.key()).await.map_err(flags::explained)?;
            match flags.json {
                true => Ok(writeln!(out, "{}", flags.key_json())?),
                false => Ok(writeln!(out, "deleted {}", flags.key())?),
            }
        }
        Command::Trigger(flags) => {
            let timer = schedules.trigger(&flags.key()).await.map_err(flags::explained)?;
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
        true => show::json(&schedules.get(&select.key()).await.map_err(flags::explained)?, out),
        false => Ok(writeln!(out, "{act} {}", select.key())?),
    }
}

fn definition(flags: Create) -> anyhow::Result<Definition> {
    let by_flag = |error: Invalid| flags::by_flag(&error);
    Ok(Definition {
        key: flags.select.key(),
        rule: Rule {
            end_at: flags.end_at,
            jitter: flags.jitter,
            overlap: Overlap::parse(&flags.overlap).map_err(by_flag)?,
            catch_up: CatchUp::parse(&flags.catch_up).map_err(by_flag)?,
            catch_up_window: flags.catch_up_window,
            catch_up_max: flags.catch_up_max,
            ..flags.recurrence.rule()
        },
        paused: flags.paused,
        payload: flags.callback.payload()?,
        retry: flags.callback.retry()?.of(RetryPolicy::default()),
        callback: flags.callback.callback(flags.url)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        _command: Command,
    }

    /// The help of `--id` of one of the commands.
    fn help_of_id(command: &str) -> String {
        let cli = Cli::command();
        let command = cli.find_subcommand(command).expect("it is a command");
        let id = command.get_arguments().find(|argument| argument.get_id() == "id").expect("it has an id");
        id.get_help().expect("it has a help").to_string()
    }

    #[test]
    fn who_creates_gives_the_id_and_all_others_name_it() {
        assert_eq!(help_of_id("create"), "The id that the schedule gets");
        for command in ["get", "pause", "resume", "delete", "trigger"] {
            assert_eq!(help_of_id(command), "The id, as it was created", "{command}");
        }
    }
}
