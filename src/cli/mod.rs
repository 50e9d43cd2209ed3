//! The commands of the binary: they read flags, call the app or a server, and print.

mod callback;
mod changes;
mod client;
mod database;
mod dev;
mod exit;
mod flags;
mod history;
mod namespaces;
mod output;
mod schedules;
mod serve;
mod shards;
pub mod timers;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::config::{self, DatabaseFlags, DoctorFlags, LogFormat, ServeFlags};
use crate::telemetry::{Logs, start_logs};

const EXAMPLES: &str = "\
Examples:
  walclock dev                                   everything at once, with a private PostgreSQL
  walclock migrate --database-url postgres://…   make or update the schema
  walclock serve --database-url postgres://…     all roles beside that database
  walclock changes --scope tenant:7 --follow     watch the feed

Settings also come from variables (WALCLOCK_PORT for --port) and from a file (--config).
DATABASE_URL is read for --database-url by every command that needs it.";

/// A change feed and a durable clock beside PostgreSQL.
#[derive(Parser)]
#[command(name = "walclock", version, after_help = EXAMPLES, max_term_width = 120)]
struct Cli {
    /// How log lines look (or WALCLOCK_LOG_FORMAT): human, json, or auto, which is human on a terminal [default: auto].
    #[arg(
        long,
        value_name = "FORMAT",
        global = true,
        value_enum,
        help_heading = "Logging",
        hide_possible_values = true
    )]
    log_format: Option<LogFormat>,
    /// What is logged (or WALCLOCK_LOG), such as debug or walclock=debug,warn.
    #[arg(long, value_name = "FILTER", global = true, help_heading = "Logging")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process with a private PostgreSQL in a folder.
    #[command(after_help = "Examples:\n  walclock dev\n  walclock dev --ephemeral --port 9000")]
    Dev(dev::Flags),
    /// Serve beside a PostgreSQL of yours.
    #[command(after_help = "Examples:\n  walclock serve --database-url postgres://walclock@db/app --bind 0.0.0.0\n  \
        walclock serve --roles dispatcher --changes-url http://changes:8080 --config /etc/walclock.toml")]
    Serve(Box<ServeFlags>),
    /// Make or update walclock's schema in the database.
    #[command(after_help = "Examples:\n  walclock migrate --database-url postgres://owner@db/app --dry-run")]
    Migrate {
        #[command(flatten)]
        database: DatabaseFlags,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print JSON, a migration a line.
        #[arg(long)]
        json: bool,
    },
    /// Check the database for what keeps walclock from working, and print the SQL that repairs it.
    #[command(after_help = "Exits with 1 where an error was found; a warning alone is no failure.\n\n\
        Examples:\n  walclock doctor --database-url postgres://walclock@db/app\n  walclock doctor --publication orders --json")]
    Doctor {
        #[command(flatten)]
        database: DoctorFlags,
        /// Print JSON, a finding a line.
        #[arg(long)]
        json: bool,
    },
    /// Read the change feed of a server.
    #[command(after_help = "Examples:\n  walclock changes --scope tenant:7\n  \
        walclock changes --scope tenant:7 --since now --follow --json")]
    Changes(changes::Flags),
    /// Create, show, list, change and delete timers.
    #[command(after_help = "Examples:\n  walclock timers create --id tea --in 3m --url https://example.com/hook\n  \
        walclock timers get --id tea\n  walclock timers update --id tea --in 10m\n  walclock timers history --id tea\n  walclock timers list --status failed --json")]
    Timers(timers::Flags),
    /// Create, show, list, pause, delete and trigger schedules, and show when one fires.
    #[command(after_help = "Examples:\n  \
        walclock schedules create --id report --cron '0 9 * * MON-FRI' --url https://example.com/hook\n  \
        walclock schedules list\n  walclock schedules pause --id report\n  \
        walclock schedules next --cron '0 9 * * MON-FRI' --time-zone America/New_York")]
    Schedules(Box<schedules::Flags>),
    /// Create, show, list and delete namespaces, and replace the secrets that sign their callbacks.
    #[command(after_help = "Examples:\n  walclock namespaces create shop --make-secret\n  \
        walclock namespaces rotate shop --make-secret\n  walclock namespaces retire shop\n  walclock namespaces list")]
    Namespaces(namespaces::Flags),
    /// Show which dispatcher holds which shards, in which epoch, and for how long still.
    #[command(
        after_help = "Examples:\n  walclock shards --database-url postgres://walclock@db/app\n  walclock shards --json"
    )]
    Shards(shards::Flags),
    /// Print the completions of a shell.
    #[command(after_help = "Examples:\n  walclock completions bash > /etc/bash_completion.d/walclock")]
    Completions {
        /// The shell that is to complete.
        shell: clap_complete::Shell,
    },
}

/// How long the end waits for threads that block.
const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    exit::code(run(std::env::args_os()))
}

fn run(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let format = match cli.log_format {
        Some(format) => Some(format),
        None => config::log_format()?,
    };
    let filter = cli.log.or_else(config::log_filter);
    start_logs(&Logs { format: format.unwrap_or(LogFormat::Auto), filter })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    run_on(runtime, async {
        match cli.command {
            Command::Dev(flags) => dev::run(flags).await,
            Command::Serve(flags) => serve::run(*flags).await,
            Command::Migrate { database, dry_run, json } => database::migrate(database, dry_run, json).await,
            Command::Doctor { database, json } => database::examine(database, json).await,
            Command::Changes(flags) => changes::run(flags).await,
            Command::Timers(flags) => timers::main(flags).await,
            Command::Schedules(flags) => schedules::main(*flags).await,
            Command::Namespaces(flags) => namespaces::main(flags).await,
            Command::Shards(flags) => shards::main(flags).await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "walclock", &mut script);
                output::write(&script)
            }
        }
    })
}

/// Does a command's work to its end.
fn run_on<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    // Dropped, it would wait for ever for a thread that a disk or a name server does not answer. All that was to be durable is.
    runtime.shutdown_timeout(BLOCKED_MAX);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_blocked_for_ever_holds_up_no_end() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
        let (blocked, is_blocked) = std::sync::mpsc::channel();
        let work = async move {
            tokio::task::spawn_blocking(move || {
                blocked.send(()).expect("somebody waits");
                loop {
                    std::thread::park();
                }
            });
            is_blocked.recv().expect("it begins");
        };
        run_on(runtime, work);
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
