//! `walclock namespaces`: create, show, list and delete namespaces, and replace their secrets, straight in the database. A secret
//! is printed once, when it is made, and never again. Prints lines for people, or with `--json` an object a line.

mod secret;
mod show;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{ArgGroup, Args, Subcommand};

use super::database::{explained, load};
use super::{flags, output};
use crate::config::DatabaseFlags;
use crate::domain::invalid::{Field, Invalid};
use crate::domain::webhook::Secret;
use crate::service::namespaces::{Error, Namespace, Namespaces};
use crate::store::{self, Store};

/// The flags of `walclock namespaces`.
#[derive(Args)]
pub(super) struct Flags {
    #[command(flatten)]
    database: DatabaseFlags,
    #[command(subcommand)]
    command: Command,
}

/// What to do with namespaces.
#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make a namespace; without a secret its callbacks are not signed.
    #[command(after_help = "Examples:\n  walclock namespaces create shop\n  \
        walclock namespaces create shop --make-secret\n  walclock namespaces create shop --secret-file shop.secret")]
    Create(Create),
    /// Show a namespace and what is in it; never its secrets.
    Get(Select),
    /// List the namespaces, by name.
    List(List),
    /// Put a new secret beside the one that there is: callbacks are signed by both until the older one is retired.
    #[command(after_help = "The receivers learn the new secret, then the older one goes:\n  \
        walclock namespaces rotate shop --make-secret\n  walclock namespaces retire shop")]
    Rotate(Rotate),
    /// Drop the older of two secrets.
    Retire(Select),
    /// Delete a namespace in which nothing is pending or under way.
    Delete(Delete),
}

/// Which one.
#[derive(Args, Clone, Debug)]
struct Select {
    /// The name of the namespace.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where a secret comes from. It is no argument, which the list of processes would show.
#[derive(Args, Clone, Debug)]
#[group(id = "secret", multiple = false)]
struct NewSecret {
    /// Take the secret of a file: whsec_ and the base64 of 24 to 64 bytes; - reads the standard input.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Make a secret of 32 random bytes, and print it, this once.
    #[arg(long)]
    make_secret: bool,
}

/// A secret that a flag asked for.
struct Given {
    secret: Secret,
    /// It was made here, and nobody else knows it.
    is_made: bool,
}

impl NewSecret {
    fn given(&self) -> anyhow::Result<Option<Given>> {
        match &self.secret_file {
            Some(file) => Ok(Some(Given { secret: secret::read(file)?, is_made: false })),
            None if self.make_secret => Ok(Some(Given { secret: secret::make()?, is_made: true })),
            None => Ok(None),
        }
    }
}

/// The flags of `create`.
#[derive(Args, Clone, Debug)]
struct Create {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    secret: NewSecret,
}

/// The flags of `rotate`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("new").required(true).args(["secret_file", "make_secret"]))]
struct Rotate {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    secret: NewSecret,
}

/// The flags of `list`.
#[derive(Args, Clone, Debug)]
struct List {
    /// List only names behind this one: the next page.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    after: String,
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = flags::count())]
    #[arg(help = flags::counted("How many to list"))]
    limit: u32,
    /// Print JSON, a namespace a line.
    #[arg(long)]
    json: bool,
}

/// The flags of `delete`.
#[derive(Args, Clone, Debug)]
struct Delete {
    #[command(flatten)]
    select: Select,
    /// Delete its schedules and cancel its pending timers first. Runs under way must be over all the same.
    #[arg(long)]
    cascade: bool,
}

/// Does it in the database that the settings name, and prints to the standard output.
pub(super) async fn main(flags: Flags) -> anyhow::Result<()> {
    let (_, database) = load(flags.database)?;
    let namespaces = Namespaces::new(Store::new(store::Config::new(database.clone()))?);
    let mut out = Vec::new();
    run(flags.command, &namespaces, &mut out).await.map_err(|error| explained(error, &database))?;
    output::write(&out)
}

async fn run(command: Command, namespaces: &Namespaces, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Create(Create { select, secret }) => {
            let given = secret.given()?;
            let secret = given.as_ref().map(|given| &given.secret);
            let namespace = namespaces.create(&select.name, secret).await.map_err(by_flag)?;
            done("created", &namespace, given.as_ref(), select.json, out)
        }
        Command::Rotate(Rotate { select, secret }) => {
            let given = secret.given()?.context("one of --secret-file and --make-secret must be given")?;
            let namespace = namespaces.rotate(&select.name, &given.secret).await.map_err(by_flag)?;
            done("rotated", &namespace, Some(&given), select.json, out)
        }
        Command::Retire(select) => {
            let namespace = namespaces.retire(&select.name).await.map_err(by_flag)?;
            done("retired the older secret of", &namespace, None, select.json, out)
        }
        Command::Get(select) => {
            let (namespace, contents) = namespaces.get(&select.name).await.map_err(by_flag)?;
            match select.json {
                true => show::json(&namespace, Some(&contents), None, out),
                false => show::lines(&namespace, &contents, out).context("printing"),
            }
        }
        Command::List(List { after, limit, json }) => {
            let listed = namespaces.list(&after, limit).await.map_err(by_flag)?;
            match json {
                true => listed.iter().try_for_each(|namespace| show::json(namespace, None, None, out)),
                false => show::table(&listed, limit, out).context("printing"),
            }
        }
        Command::Delete(Delete { select, cascade }) => {
            namespaces.delete(&select.name, cascade).await.map_err(|error| in_use(error, cascade))?;
            match select.json {
                true => show::name_json(&select.name, out),
                false => Ok(writeln!(out, "deleted {}", select.name)?),
            }
        }
    }
}

/// Says what was done, and the secret that was made; for programs, the namespace as it stands now.
fn done(
    act: &str,
    namespace: &Namespace,
    given: Option<&Given>,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let made = given.filter(|given| given.is_made).map(|given| given.secret.reveal());
    match (json, made) {
        (true, made) => show::json(namespace, None, made.as_deref(), out),
        (false, None) => Ok(writeln!(out, "{act} {}", namespace.name)?),
        (false, Some(secret)) => Ok(writeln!(out, "{act} {}: {secret}", namespace.name)?),
    }
}

/// The error of a delete, with what helps.
fn in_use(error: Error, cascade: bool) -> anyhow::Error {
    match error {
        Error::InUse { contents, .. } if contents.runs > 0 => anyhow!("{error}: try again when they are over"),
        Error::InUse { .. } if !cascade => anyhow!("{error}: --cascade deletes and cancels them with it"),
        error => by_flag(error),
    }
}

/// The error as this command says it: by its arguments.
fn by_flag(error: Error) -> anyhow::Error {
    match error {
        Error::Invalid(Invalid { field: Field::Namespace, value, allowed }) => {
            anyhow!("NAME must be {allowed}, not {value:?}")
        }
        Error::Invalid(invalid) => flags::by_flag(&invalid),
        Error::TwoSecrets { ref name } => anyhow!("{error}, with walclock namespaces retire {name}"),
        Error::SecretLength(_)
        | Error::Refused { .. }
        | Error::NotFound { .. }
        | Error::Exists { .. }
        | Error::SameSecret { .. }
        | Error::NoOlderSecret { .. }
        | Error::InUse { .. }
        | Error::Contended { .. }
        | Error::Unavailable(_) => anyhow!(error),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn a_line_that_makes_no_sense_is_refused() {
        for (line, good) in [
            ("create shop", true),
            ("create shop --make-secret", true),
            ("create shop --secret-file f", true),
            ("create shop --secret-file f --make-secret", false),
            ("create", false),
            ("create shop whsec_AAAA", false),
            ("rotate shop --make-secret --json", true),
            ("rotate shop", false),
            ("rotate shop --secret-file f --make-secret", false),
            ("retire shop", true),
            ("retire", false),
            ("delete shop --cascade", true),
            ("list --limit 0", false),
            ("list --limit 1001", false),
        ] {
            let parsed = Cli::try_parse_from(format!("namespaces {line}").split(' ')).map(|cli| cli.command);
            assert_eq!(parsed.is_ok(), good, "{line}");
        }
    }
}
