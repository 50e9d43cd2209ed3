//! `walclock migrate` and `walclock doctor`: the commands that only talk to the database; and how every command that does
//! says why that failed.

use anyhow::anyhow;
use serde_json::json;

use super::exit::AlreadySaid;
use super::output;
use crate::config::{DatabaseFlags, DoctorFlags, SettingFlags, Settings};
use crate::pg;
use crate::store;
use crate::store::doctor::{self, Level};
use crate::store::migrate as schema;

/// The settings of such a command, and of those the database's.
pub(super) fn load<C>(flags: SettingFlags<C>) -> anyhow::Result<(Settings, pg::Settings)> {
    let settings = Settings::load(flags.layer, flags.config.as_deref())?;
    let database = pg::Settings::parse(settings.database_url()?.reveal())?;
    Ok((settings, database))
}

/// Brings the schema up to date, or says what that would take.
pub(super) async fn migrate(flags: DatabaseFlags, dry_run: bool, json: bool) -> anyhow::Result<()> {
    let (_, database) = load(flags)?;
    let (done, verb) = match dry_run {
        true => (schema::dry_run(&database).await, "would apply"),
        false => (schema::run(&database).await, "applied"),
    };
    let done = done.map_err(|error| match error {
        schema::Error::Unavailable(error) => explained(error.into(), &database),
        error => error.into(),
    })?;
    if done.is_empty() && !json {
        return output::line("the schema is up to date");
    }
    done.iter().try_for_each(|migration| match json {
        true => output::line(&json!({ "migration": migration, "applied": !dry_run }).to_string()),
        false => output::line(&format!("{verb} {migration}")),
    })
}

/// Prints what is wrong with the database, with the SQL that repairs it.
pub(super) async fn examine(flags: DoctorFlags, json: bool) -> anyhow::Result<()> {
    let (settings, database) = load(flags)?;
    let findings = doctor::examine(&database, &settings.selector_columns, &settings.publications).await;
    let findings = findings.map_err(|error| explained(error.into(), &database))?;
    for finding in &findings {
        let word = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        if json {
            output::line(&json!({ "level": word, "what": finding.what, "fixSql": finding.fix_sql }).to_string())?;
            continue;
        }
        output::line(&format!("{word:<8} {}", finding.what))?;
        if let Some(fix) = &finding.fix_sql {
            output::line(&format!("         {fix}"))?;
        }
    }
    match findings.iter().any(|finding| finding.level == Level::Error) {
        true => Err(AlreadySaid.into()),
        false => Ok(()),
    }
}

/// Why the database did not do it, with what helps where that is known: its own words name a table, and neither the server nor
/// a command.
pub(super) fn explained(error: anyhow::Error, database: &pg::Settings) -> anyhow::Error {
    let Some(cause) = error.chain().find_map(|cause| cause.downcast_ref::<store::Error>()) else { return error };
    let (code, words) = (cause.sql_state().map(|state| state.code()), error.root_cause());
    match code {
        // No such schema, table, column or function.
        Some("3F000" | "42P01" | "42703" | "42883") => {
            anyhow!("the schema of walclock is missing or old at {database}: run `walclock migrate`: {words}")
        }
        Some("42501") => {
            anyhow!("the role of {database} lacks a right, `walclock doctor` prints those of a server: {words}")
        }
        // What PostgreSQL answered to a statement says enough.
        Some(code) if !code.starts_with("28") && code != "3D000" => error,
        _ => anyhow!("{cause} at {database}: {words}"),
    }
}
