//! `walclock migrate` and `walclock doctor`: the commands that only talk to the database.

use super::exit::AlreadySaid;
use super::output;
use crate::config::{DatabaseFlags, Settings};
use crate::pg;
use crate::store::doctor::{self, Level};
use crate::store::migrate as schema;

/// Brings the schema up to date, or says what that would take.
pub(super) async fn migrate(flags: DatabaseFlags, dry_run: bool) -> anyhow::Result<()> {
    let settings = Settings::load(flags.layer, flags.config.as_deref())?;
    let database = pg::Settings::parse(settings.database_url()?.reveal())?;
    let (done, verb) = match dry_run {
        true => (schema::dry_run(&database).await?, "would apply"),
        false => (schema::run(&database).await?, "applied"),
    };
    if done.is_empty() {
        return output::line("the schema is up to date");
    }
    for migration in done {
        output::line(&format!("{verb} {migration}"))?;
    }
    Ok(())
}

/// Prints what is wrong with the database, with the SQL that repairs it.
pub(super) async fn examine(flags: DatabaseFlags) -> anyhow::Result<()> {
    let settings = Settings::load(flags.layer, flags.config.as_deref())?;
    let database = pg::Settings::parse(settings.database_url()?.reveal())?;
    let findings = doctor::examine(&database, &settings.selector_columns, &settings.publications).await?;
    for finding in &findings {
        let word = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
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
