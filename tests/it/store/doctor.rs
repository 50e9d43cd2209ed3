//! The doctor finds what is wrong, and what it prescribes helps.

use walclock::pg::Settings;
use walclock::store::doctor::{Finding, Level, examine};

use super::world::Postgres;
use crate::support;

async fn findings(url: &str) -> Vec<Finding> {
    let selectors = ["_change_selector", "_apid_scope"].map(str::to_owned);
    let feed = ["walclock_timers", "walclock", "mine"].map(str::to_owned);
    examine(&Settings::parse(url).unwrap(), &selectors, &feed).await.unwrap()
}

/// The one finding that says this.
fn says<'a>(findings: &'a [Finding], what: &str) -> &'a Finding {
    let mut matching = findings.iter().filter(|finding| finding.what.contains(what));
    let found = matching.next().unwrap_or_else(|| panic!("nothing says {what}: {findings:#?}"));
    assert!(matching.next().is_none(), "more than one says {what}: {findings:#?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrated_database_has_no_errors() {
    let world = Postgres::new().await;
    let findings = findings(&world.url).await;
    assert!(findings.iter().all(|finding| finding.level < Level::Error), "{findings:#?}");
    assert_eq!(says(&findings, "the schema is up to date").level, Level::Ok);
    assert_eq!(says(&findings, "wal_level is logical").level, Level::Ok);
    assert_eq!(says(&findings, "max_slot_wal_keep_size is unlimited").level, Level::Warning);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_told_to_migrate() {
    let findings = findings(&support::database().await).await;
    assert_eq!(says(&findings, "run `walclock migrate`").level, Level::Error);
}

/// What breaks something, and what is then said about it at which level.
const FAULTS: &[(&str, Level, &str)] = &[
    ("drop publication walclock", Level::Error, "publication walclock is missing"),
    ("drop publication walclock_timers", Level::Error, "publication walclock_timers is missing"),
    ("alter publication walclock_timers set (publish = 'delete')", Level::Error, "publication walclock_timers is"),
    (
        "create table \"Odd one\" (id int primary key, _change_selector text);
         alter publication walclock add table \"Odd one\"",
        Level::Warning,
        "the replica identity of \"Odd one\" lacks its scope column _change_selector",
    ),
    (
        "create table bare (id int); alter publication walclock add table bare",
        Level::Error,
        "bare has no replica identity",
    ),
    (
        "create table deferred (id int primary key deferrable initially deferred);
         alter publication walclock add table deferred",
        Level::Error,
        "deferred has no replica identity",
    ),
    (
        "create table included (id int, _change_selector text, primary key (id) include (_change_selector));
         alter publication walclock add table included",
        Level::Warning,
        "the replica identity of included lacks its scope column _change_selector",
    ),
    (
        "create table moved (id int, _change_selector text, body text, primary key (id, _change_selector));
         select walclock.publish('moved')",
        Level::Warning,
        "the replica identity of moved lacks columns that PostgreSQL may store apart: an update that moves a row",
    ),
    (
        "create table numbered (id int primary key, _change_selector int[]);
         alter table numbered replica identity full;
         select walclock.publish('numbered', force => true)",
        Level::Warning,
        "the scope column _change_selector of numbered is of the type integer[]: no reader can ask",
    ),
    (
        "create table parted (id int, _change_selector text, primary key (id, _change_selector)) partition by range (id);
         create table parted_1 partition of parted for values from (0) to (10);
         create table parted_2 partition of parted for values from (10) to (20);
         create table \"Parted 3\" partition of parted for values from (20) to (30);
         create unique index by_id on \"Parted 3\" (id);
         alter table \"Parted 3\" alter id set not null, replica identity using index by_id;
         select walclock.publish('parted', force => true)",
        Level::Warning,
        "the replica identity of \"Parted 3\" lacks its scope column _change_selector: readers of parted",
    ),
    (
        "alter table parted_2 replica identity nothing",
        Level::Error,
        "parted_2 has no replica identity",
    ),
    (
        "create publication mine for table parted with (publish_via_partition_root = false)",
        Level::Warning,
        "the publication mine tells partitions under their own names, not as parted",
    ),
    (
        "alter publication mine set (publish = 'insert, update')",
        Level::Warning,
        "the publication mine leaves out deletes, truncates: readers of its tables are not told of them",
    ),
    (
        "alter publication mine add table walclock.namespaces, walclock.runs",
        Level::Warning,
        "the publication mine has walclock's own tables",
    ),
    (
        "drop publication mine; create publication mine for all tables with (publish_via_partition_root = true)",
        Level::Warning,
        "the publication mine has walclock's own tables",
    ),
    (
        "select pg_create_logical_replication_slot('orphan_' || current_database(), 'pgoutput')",
        Level::Warning,
        "nobody reads the slot orphan_",
    ),
    (
        "do $$ declare t text; begin
             for t in select inhrelid::regclass::text from pg_inherits
                      where inhparent = 'walclock.runs'::regclass loop
                 execute 'drop table ' || t;
             end loop;
         end $$",
        Level::Error,
        "no day ahead has a partition",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found_and_its_repair_repairs_it() {
    let world = Postgres::new().await;
    for (fault, level, what) in FAULTS {
        world.client.batch_execute(fault).await.unwrap();
        let found = findings(&world.url).await;
        let finding = says(&found, what);
        assert_eq!(finding.level, *level, "{finding:?}");
        world.client.batch_execute(finding.fix_sql.as_ref().unwrap()).await.unwrap();
        let found = findings(&world.url).await;
        assert!(found.iter().all(|finding| !finding.what.contains(what)), "{found:#?}");
    }
}

/// From which version on there is such a table, what makes it, what is then said about it, from which version on a statement
/// repairs that, and what PostgreSQL takes afterwards.
type Hidden = (u32, &'static str, &'static str, u32, &'static str);

/// Tables of which PostgreSQL keeps columns to itself.
const HIDDEN: &[Hidden] = &[
    (
        14,
        "create table computed (id int primary key, tenant int,
             _change_selector text generated always as ('t' || tenant) stored);
         insert into computed values (1, 1);
         alter publication walclock add table computed",
        "the scope column _change_selector of computed is generated and not published: its rows go to those who ask without",
        18,
        "update computed set tenant = 2",
    ),
    (
        15,
        "create table listed (id int primary key, body text, _change_selector text);
         insert into listed values (1);
         alter publication walclock add table listed (id, body)",
        "the list of published columns of listed lacks its scope column _change_selector",
        15,
        "update listed set body = ''",
    ),
    (
        15,
        "create table keyless (id int, key int primary key, body text);
         insert into keyless values (1, 1);
         alter publication walclock add table keyless (id, body)",
        "the list of published columns of keyless does not bear its replica identity: PostgreSQL refuses its updates",
        15,
        "update keyless set body = ''",
    ),
    (
        15,
        "create table whole (id int primary key, body text);
         alter table whole replica identity full;
         insert into whole values (1);
         alter publication walclock add table whole (id, body)",
        "the list of published columns of whole does not bear its replica identity: PostgreSQL refuses its updates",
        15,
        "update whole set body = ''",
    ),
    (
        18,
        "create table doubled (id int primary key, twice int generated always as (2 * id) stored);
         alter table doubled replica identity full;
         insert into doubled values (1);
         alter publication walclock set (publish_generated_columns = none);
         alter publication walclock add table doubled",
        "the replica identity of doubled has generated columns, which are not published: PostgreSQL refuses its updates",
        18,
        "update doubled set id = 2",
    ),
    (
        18,
        "create table virtual (id int primary key, twice int generated always as (2 * id) virtual);
         alter table virtual replica identity full;
         alter publication walclock add table virtual",
        "a unique index over its key and its scope column, none of them generated",
        u32::MAX,
        "",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_postgresql_keeps_to_itself_are_found() {
    let world = Postgres::new().await;
    let major = support::server_major().await;
    for (from, fault, what, repaired_from, then) in HIDDEN {
        if major < *from {
            continue;
        }
        world.client.batch_execute(fault).await.unwrap();
        let found = findings(&world.url).await;
        let finding = says(&found, what);
        assert_eq!(finding.level, Level::Error, "{finding:?}");
        assert_eq!(finding.fix_sql.is_some(), major >= *repaired_from, "{finding:?}");
        let Some(fix) = &finding.fix_sql else { continue };
        world.client.batch_execute(fix).await.unwrap();
        let found = findings(&world.url).await;
        assert!(found.iter().all(|finding| !finding.what.contains(what)), "{found:#?}");
        world.client.batch_execute(then).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_named_with_their_grants() {
    let world = Postgres::new().await;
    let table = "create role stranger login;
                 create table orders (id int primary key, _change_selector text);
                 alter table orders replica identity full, enable row level security;
                 select walclock.publish('orders')";
    world.client.batch_execute(table).await.unwrap();
    let url = world.url.replace("postgres@", "stranger@");
    // One may see only what the grant before allows to look at.
    let mut of_snapshots = 0;
    for _ in 0..4 {
        for finding in findings_as_far_as_allowed(&url).await {
            of_snapshots += usize::from(finding.what.contains("the role may not read all rows of orders"));
            if let (Level::Error, Some(fix)) = (finding.level, finding.fix_sql) {
                world.client.batch_execute(&fix).await.unwrap();
            }
        }
    }
    assert_eq!(of_snapshots, 2, "the grant, and the policies");
    let left = findings(&url).await;
    assert!(left.iter().all(|finding| finding.level < Level::Error), "{left:#?}");
}

async fn findings_as_far_as_allowed(url: &str) -> Vec<Finding> {
    let found = findings(url).await;
    assert!(found.iter().any(|finding| finding.what.contains("stranger")), "{found:#?}");
    found
}
