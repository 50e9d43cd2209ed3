//! `walclock timers`: create, show, list, change and delete timers, straight in the database. Prints tables for people, or
//! with `--json` what the API would answer, a line each, and beside it the method and the headers, which the API has not.

mod batch;
mod show;
mod update;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use self::update::Update;
use super::database::{explained, load};
use super::flags::{Page, Select};
use super::{callback, flags, history, output};
use crate::clock::Timestamp;
use crate::config::DatabaseFlags;
use crate::domain::retry::RetryPolicy;
use crate::domain::run::State;
use crate::domain::timer::{Definition, TimerKey};
use crate::domain::{duration, moment};
use crate::service::timers::{Config, ListRequest, Timers};
use crate::store::{self, Store};

const CREATE_EXAMPLES: &str = "\
Examples:
  walclock timers create --id tea --in 3m --url https://example.com/hook
  walclock timers create --id tea --in 3m --url https://example.com/hook --method PUT --header 'X-Tenant: 7'
  walclock timers create --batch timers.jsonl

A line of a batch is what POST /api/v1/timers/create takes:
  {\"namespace\":\"default\",\"id\":\"tea\",\"executeAt\":\"2030-12-20T15:30:00Z\",\"callbackUrl\":\"https://example.com/hook\"}";

/// The flags of `walclock timers`.
#[derive(Args)]
pub struct Flags {
    #[command(flatten)]
    database: DatabaseFlags,
    #[command(subcommand)]
    command: Command,
}

/// What to do with timers.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Store a timer, or many; one of the same id is overwritten, all of it.
    #[command(after_help = format!("{}\n\n{CREATE_EXAMPLES}", callback::defaults()))]
    Create(Box<Create>),
    /// Show a timer, or what became of it.
    Get(Select),
    /// Show the attempts of a timer: when each was due, sent and answered, how it went, and what the receiver said.
    #[command(after_help = "Example:\n  walclock timers history --id tea")]
    History(History),
    /// List the timers of a namespace and what became of them, by id.
    List(List),
    /// Change a pending timer: its moment, or whatever else is given. All the rest stays.
    #[command(after_help = "\
        --payload null, --max-attempts none and --no-headers take away; --header replaces all headers.\n\n\
        Examples:\n  walclock timers update --id tea --in 10m\n  \
        walclock timers update --id tea --at 2030-12-20T15:30:00Z --url https://example.com/other --payload null")]
    Update(Box<Update>),
    /// Cancel a pending timer.
    Delete(Select),
}

/// The flags of `create`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("when").required(true).args(["batch", "wait", "at"]))]
pub struct Create {
    /// Store those of a file, one JSON object a line; - reads the standard input. A thousand at a time are one transaction.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["namespace", "id", "url", "callback"])]
    batch: Option<PathBuf>,
    /// The namespace that the id belongs to.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// The id that the timer gets.
    #[arg(long, required_unless_present = "batch", default_value = "", hide_default_value = true)]
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// How long from now the timer fires: 300ms, 10s, 1h30m.
    #[arg(long = "in", value_name = "SPAN", value_parser = duration::parse, allow_hyphen_values = true)]
    wait: Option<Duration>,
    /// When the timer fires: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    at: Option<Timestamp>,
    /// The URL that the timer calls, absolute http or https.
    #[arg(long, required_unless_present = "batch", default_value = "", hide_default_value = true)]
    url: String,
    #[command(flatten)]
    callback: callback::Flags,
    /// Make the namespace if there is none of that name.
    #[arg(long)]
    make_namespace: bool,
}

/// The flags of `history`.
#[derive(Args, Clone, Debug)]
pub struct History {
    #[command(flatten)]
    select: Select,
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = flags::count())]
    #[arg(help = flags::counted("How many attempts to show at most, the latest ones"))]
    limit: u32,
}

/// The flags of `list`.
#[derive(Args, Clone, Debug)]
pub struct List {
    #[command(flatten)]
    page: Page,
    /// List only timers that stand so.
    #[arg(long)]
    status: Option<Wanted>,
    /// Print JSON, a timer a line.
    #[arg(long)]
    json: bool,
}

/// A state to look for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Wanted {
    /// Not yet claimed.
    Pending,
    /// Its callback is under way.
    Running,
    /// The receiver took it.
    Succeeded,
    /// Refused, or given up.
    Failed,
}

/// Does it in the database that the settings name, and prints to the standard output.
pub(super) async fn main(flags: Flags) -> anyhow::Result<()> {
    let (settings, database) = load(flags.database)?;
    let make_namespace = match &flags.command {
        Command::Create(create) => create.make_namespace,
        Command::Get(_) | Command::History(_) | Command::List(_) | Command::Update(_) | Command::Delete(_) => false,
    };
    let config = Config {
        auto_create: make_namespace || settings.auto_create_namespaces,
        // Whoever can write to the database is not kept from it here; the dispatcher judges every call by its own list.
        callback_allow: vec![IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())],
    };
    let timers = Timers::new(config, Store::new(store::Config::new(database.clone()))?);
    if let Command::Create(create) = &flags.command
        && let Some(file) = &create.batch
    {
        // It may be long, and is printed as it comes.
        let stored = batch::create(file, create.json, &timers, output::write, io::stderr()).await;
        // How far it came is to be said in any case.
        return stored.map_err(|error| {
            let place = error.to_string();
            explained(error, &database).context(place)
        });
    }
    let mut out = Vec::new();
    run(flags.command, &timers, &mut out).await.map_err(|error| explained(error, &database))?;
    output::write(&out)
}

/// Does it and prints to `out`. Fails with one line that says why.
async fn run(command: Command, timers: &Timers, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Create(flags) => create(*flags, timers, out).await,
        Command::Get(flags) => get(flags, timers, out).await,
        Command::History(flags) => history(flags, timers, out).await,
        Command::List(flags) => list(flags, timers, out).await,
        Command::Update(flags) => update::update(*flags, timers, out).await,
        Command::Delete(flags) => delete(flags, timers, out).await,
    }
}

async fn create(flags: Create, timers: &Timers, out: &mut impl Write) -> anyhow::Result<()> {
    let (json, namespace) = (flags.json, flags.namespace.clone());
    let now = timers.now().await.map_err(flags::explained)?;
    let created = timers.create(definition(flags, now)?).await;
    let timer = created.map_err(|error| flags::explained_within(&namespace, error))?;
    match json {
        true => writeln!(out, "{}", show::json(&timer)),
        false => {
            let Definition { key, execute_at, .. } = &timer.definition;
            writeln!(out, "created {key}, due {execute_at}")
        }
    }
    .context("printing")
}

fn definition(flags: Create, now: Timestamp) -> anyhow::Result<Definition> {
    Ok(Definition {
        key: TimerKey::new(&flags.namespace, &flags.id),
        execute_at: flags.at.unwrap_or_else(|| now.after(flags.wait.unwrap_or_default())),
        payload: flags.callback.payload()?,
        retry: flags.callback.retry()?.of(RetryPolicy::default()),
        callback: flags.callback.callback(flags.url)?,
    })
}

async fn get(flags: Select, timers: &Timers, out: &mut impl Write) -> anyhow::Result<()> {
    let status = timers.get(&flags.key()).await.map_err(flags::explained)?;
    match flags.json {
        true => writeln!(out, "{}", show::status_json(&status)),
        false => show::lines(&status, out),
    }
    .context("printing")
}

async fn history(flags: History, timers: &Timers, out: &mut impl Write) -> anyhow::Result<()> {
    let attempts = timers.history(&flags.select.key(), flags.limit).await.map_err(flags::explained)?;
    match flags.select.json {
        true => history::json(&attempts, out),
        false => history::table(&attempts, out),
    }
    .context("printing")
}

async fn delete(flags: Select, timers: &Timers, out: &mut impl Write) -> anyhow::Result<()> {
    let key = flags.key();
    timers.delete(&key).await.map_err(flags::explained)?;
    match flags.json {
        true => writeln!(out, "{}", flags.key_json()),
        false => writeln!(out, "deleted {key}"),
    }
    .context("printing")
}

async fn list(flags: List, timers: &Timers, out: &mut impl Write) -> anyhow::Result<()> {
    let state = flags.status.map(|wanted| match wanted {
        Wanted::Pending => State::Pending,
        Wanted::Running => State::Running,
        Wanted::Succeeded => State::Succeeded,
        Wanted::Failed => State::Failed,
    });
    let Page { namespace, after, limit } = flags.page;
    let request = ListRequest { namespace, after, limit, state };
    let listed = timers.list(request).await.map_err(flags::explained)?;
    match flags.json {
        true => listed.iter().try_for_each(|status| writeln!(out, "{}", show::status_json(status))),
        false => show::table(&listed, limit, out),
    }
    .context("printing")
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

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(format!("timers {line}").split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn a_line_is_a_definition() {
        let now = Timestamp::from_micros(1_000_000);
        let Command::Create(flags) =
            parse("create --id a --in 1m30s --url http://x/ --payload {\"a\":1} --max-attempts 3")
                .map_err(|error| error.to_string())
                .expect("it is good")
        else {
            panic!("it is a create");
        };
        let definition = definition(*flags, now).expect("it is good");
        assert_eq!(definition.key, TimerKey::new("default", "a"));
        assert_eq!(definition.execute_at, Timestamp::from_micros(91_000_000));
        assert_eq!(definition.payload.map(|payload| payload.get().to_owned()).as_deref(), Some("{\"a\":1}"));
        assert_eq!(definition.retry.attempts_max, Some(3));
        assert_eq!(definition.callback.timeout, Duration::from_secs(30));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_refused() {
        for line in [
            "create --id a --url http://x/",
            "create --id a --in 1s --at 2030-01-01T00:00:00Z --url http://x/",
            "create --id a --in soon --url http://x/",
            "create --id a --at tomorrow --url http://x/",
            "create --in 1s --url http://x/",
            "create --batch x --method PUT",
            "create --id a --in 1s --url http://x/ --initial-interval soon",
            "update --id a --in 1s --at 2030-01-01T00:00:00Z",
            "update --in 1s",
            "update --id a --no-headers --header a:1",
            "create --id a --in 1s",
            "get",
            "list --limit 0",
            "list --limit 1001",
            "list --status over",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
