//! Looks for what would keep walclock from working on a database, and says how to repair it. Changes nothing.

mod failover;
mod slot;

use std::collections::BTreeSet;

use tokio_postgres::{Client, Row};

use super::migrate::{self, SERVER_VERSION_MIN};
use super::{Error, pool};
use crate::pg;

const READ_SERVER: &str = include_str!("../../sql/queries/doctor/read_server.sql");
const LIST_MISSING_RIGHTS: &str = include_str!("../../sql/queries/doctor/list_missing_rights.sql");
const READ_PUBLICATIONS: &str = include_str!("../../sql/queries/doctor/read_publications.sql");
const LIST_PUBLISHED_TABLES: &str = include_str!("../../sql/queries/doctor/list_published_tables.sql");
const LIST_TABLE_FAULTS: &str = include_str!("../../sql/queries/doctor/list_table_faults.sql");
const LIST_UNFIT_PUBLICATIONS: &str = include_str!("../../sql/queries/doctor/list_unfit_publications.sql");
const READ_FAILOVER: &str = include_str!("../../sql/queries/doctor/read_failover.sql");
const LIST_SLOTS: &str = include_str!("../../sql/queries/doctor/list_slots.sql");

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and will not for ever.
    Warning,
    /// It cannot work.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was found, in a sentence.
    pub what: String,
    /// What repairs it.
    pub fix_sql: Option<String>,
}

impl Finding {
    fn ok(what: String) -> Self {
        Self { level: Level::Ok, what, fix_sql: None }
    }

    fn warning(what: String, fix_sql: String) -> Self {
        Self { level: Level::Warning, what, fix_sql: Some(fix_sql) }
    }

    /// What no statement repairs.
    fn fatal(what: String) -> Self {
        Self { level: Level::Error, what, fix_sql: None }
    }

    fn error(what: String, fix_sql: String) -> Self {
        Self { level: Level::Error, what, fix_sql: Some(fix_sql) }
    }
}

/// Looks at the server, the slots, the role, the schema and what is published, in this order and as far as the role may.
/// `selector_columns` are the names that a scope column may have, the best first; `feed` are the publications that the feed
/// reads.
pub async fn examine(
    settings: &pg::Settings,
    selector_columns: &[String],
    feed: &[String],
) -> Result<Vec<Finding>, Error> {
    let client = pool::connect_to_read(settings).await?;
    let row = ask_one(&client, READ_SERVER).await?;
    let mut findings = server(&row);
    findings.extend(ask(&client, LIST_SLOTS).await?.iter().map(|row| slot::Slot::read(row).judge()));
    findings.extend(failover::Failover::read(&ask_one(&client, READ_FAILOVER).await?).judge());
    let rights = rights(row.get("role"), &ask(&client, LIST_MISSING_RIGHTS).await?);
    let may_look = rights.iter().all(|finding| finding.level == Level::Ok);
    findings.extend(rights);
    if !may_look {
        return Ok(findings);
    }
    let schema = schema(&client).await?;
    let is_there = schema.level == Level::Ok;
    findings.push(schema);
    if !is_there {
        return Ok(findings);
    }
    findings.extend(publications(&ask_one(&client, READ_PUBLICATIONS).await?));
    let unfit = client.query(LIST_UNFIT_PUBLICATIONS, &[&feed]).await;
    findings
        .extend(unfit.map_err(Error::unavailable("looking at the publications"))?.iter().flat_map(unfit_publication));
    let asking = Error::unavailable("looking at the published tables");
    let tables = client.query(LIST_PUBLISHED_TABLES, &[&selector_columns, &feed]).await.map_err(asking)?;
    let asking = Error::unavailable("looking for faults of the published tables");
    let faults = client.query(LIST_TABLE_FAULTS, &[&selector_columns, &feed]).await.map_err(asking)?;
    let faulty: BTreeSet<&str> = faults.iter().map(|row| row.get("name")).collect();
    findings.extend(tables.iter().flat_map(|row| table(row, &faulty)));
    findings.extend(faults.iter().map(fault));
    Ok(findings)
}

async fn schema(client: &Client) -> Result<Finding, Error> {
    match migrate::missing(client).await {
        Ok(missing) if missing.is_empty() => Ok(Finding::ok("the schema is up to date".to_owned())),
        Ok(missing) => {
            let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
            Ok(Finding::fatal(format!("the schema lacks {}: run `walclock migrate`", names.join(", "))))
        }
        Err(migrate::Error::Unavailable(error)) => Err(error),
        Err(other) => Ok(Finding::fatal(other.to_string())),
    }
}

async fn ask(client: &Client, sql: &str) -> Result<Vec<Row>, Error> {
    client.query(sql, &[]).await.map_err(Error::unavailable("examining the database"))
}

async fn ask_one(client: &Client, sql: &str) -> Result<Row, Error> {
    client.query_one(sql, &[]).await.map_err(Error::unavailable("examining the database"))
}

fn server(row: &Row) -> Vec<Finding> {
    let version: String = row.get("version");
    let encoding: String = row.get("encoding");
    let wal_level: String = row.get("wal_level");
    let role: String = row.get("role");
    let keep: String = row.get("slot_wal_keep_size");
    vec![
        match row.get::<_, i32>("version_number") >= SERVER_VERSION_MIN {
            true => Finding::ok(format!("the server is PostgreSQL {version}")),
            false => Finding::fatal(format!("the server is PostgreSQL {version}, and 14 is the oldest that will do")),
        },
        match encoding.as_str() {
            "UTF8" => Finding::ok("the database's encoding is UTF8".to_owned()),
            _ => Finding::error(
                format!("the database's encoding is {encoding}, and only UTF8 will do"),
                "create database … encoding 'UTF8' template template0".to_owned(),
            ),
        },
        match wal_level.as_str() {
            "logical" => Finding::ok("wal_level is logical".to_owned()),
            _ => Finding::error(
                format!("wal_level is {wal_level}, and the feed needs logical"),
                "alter system set wal_level = 'logical'; -- and restart PostgreSQL".to_owned(),
            ),
        },
        room("replication slots", "max_replication_slots", row.get("slots"), row.get("slots_max")),
        room("walsenders", "max_wal_senders", row.get("walsenders"), row.get("walsenders_max")),
        match row.get::<_, bool>("replicates") {
            true => Finding::ok(format!("the role {role} may replicate")),
            false => Finding::error(
                format!("the role {role} may not replicate, which the feed does"),
                format!("alter role {role} replication"),
            ),
        },
        match keep.as_str() {
            "-1" => Finding::warning(
                "max_slot_wal_keep_size is unlimited: a slot that nobody reads fills the disk".to_owned(),
                "alter system set max_slot_wal_keep_size = '50GB'; select pg_reload_conf()".to_owned(),
            ),
            _ => Finding::ok(format!("max_slot_wal_keep_size is {keep}")),
        },
    ]
}

fn room(what: &str, setting: &str, used: i64, max: i64) -> Finding {
    if used < max {
        return Finding::ok(format!("{used} of {max} {what} are in use"));
    }
    Finding::warning(
        format!("all {max} {what} are in use: another changeserver would get none"),
        format!("alter system set {setting} = {}; -- and restart PostgreSQL", max.saturating_add(10)),
    )
}

fn rights(role: &str, missing: &[Row]) -> Vec<Finding> {
    if missing.is_empty() {
        return vec![Finding::ok(format!("the role {role} may do what is needed in the schema"))];
    }
    let lacks = |row: &Row| {
        let missing: &str = row.get("missing");
        Finding::error(format!("the role {role} lacks {missing}"), format!("grant {missing} to {role}"))
    };
    missing.iter().map(lacks).collect()
}

fn publications(row: &Row) -> Vec<Finding> {
    let days_ahead: i64 = row.get("days_ahead");
    vec![
        match row.get("has_general") {
            true => Finding::ok("the publication walclock is there".to_owned()),
            false => Finding::error(
                "the publication walclock is missing: nothing is told of the user's own tables".to_owned(),
                "create publication walclock with (publish_via_partition_root = true)".to_owned(),
            ),
        },
        match row.get("has_timers") {
            true => Finding::ok("the publication walclock_timers has the timers".to_owned()),
            false => Finding::error(
                "the publication walclock_timers is missing, or not one of inserts and updates of walclock.timers: \
                 timers would be late"
                    .to_owned(),
                "drop publication if exists walclock_timers; \
                 create publication walclock_timers for table walclock.timers with (publish = 'insert, update')"
                    .to_owned(),
            ),
        },
        match days_ahead {
            1.. => Finding::ok(format!("{days_ahead} days ahead have a partition")),
            _ => Finding::error(
                "no day ahead has a partition: from tomorrow on no timer could be claimed".to_owned(),
                "select walclock.make_partitions()".to_owned(),
            ),
        },
    ]
}

/// What is right with a table, if it has no faults, and what keeps its rows from being read for snapshots.
fn table(row: &Row, faulty: &BTreeSet<&str>) -> Vec<Finding> {
    let (name, selector): (&str, Option<&str>) = (row.get("name"), row.get("selector"));
    let fit = (!faulty.contains(name)).then(|| match selector {
        Some(selector) => Finding::ok(format!("{name} is published by its scope column {selector}")),
        None => Finding::ok(format!("{name} is published without a scope")),
    });
    let unread = selector.and(row.get::<_, Option<String>>("snapshot_fix")).map(|fix| {
        Finding::error(format!("the role may not read all rows of {name}: every call of /snapshots is refused"), fix)
    });
    fit.into_iter().chain(unread).collect()
}

/// What keeps a table's changes from being told to the right readers, or is refused because it is published.
fn fault(row: &Row) -> Finding {
    let (what, why, advice): (&str, &str, &str) = (row.get("what"), row.get("why"), row.get("advice"));
    let fix_sql: Option<String> = row.get("fix");
    let what = match fix_sql {
        Some(_) => format!("{what}: {why}"),
        None => format!("{what}: {why}; {advice}"),
    };
    let level = if row.get::<_, &str>("severity") == "fatal" { Level::Error } else { Level::Warning };
    Finding { level, what, fix_sql }
}

/// What a publication should not have, or not tell so.
fn unfit_publication(row: &Row) -> Vec<Finding> {
    let name: &str = row.get("name");
    let own = row.get::<_, Option<&str>>("own").map(|own| {
        let what = format!("the publication {name} has walclock's own tables, which the feed tells nobody: {own}");
        Finding::warning(what, row.get("own_fix"))
    });
    let roots = row.get::<_, Option<&str>>("roots").map(|roots| {
        let what = format!("the publication {name} tells partitions under their own names, not as {roots}");
        Finding::warning(what, row.get("roots_fix"))
    });
    let kinds = row.get::<_, Option<&str>>("untold").map(|untold| {
        let what = format!("the publication {name} leaves out {untold}: readers of its tables are not told of them");
        Finding::warning(what, row.get("kinds_fix"))
    });
    own.into_iter().chain(roots).chain(kinds).collect()
}
