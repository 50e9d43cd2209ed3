//! Partitioned tables: under the name of their root where the publication says so, whatever becomes of the partitions.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use walclock::domain::scope::Scope;
use walclock::domain::sequence::Sequence;
use walclock::feed::query::Query;

use super::PATIENCE;
use super::feed::{Feed, Running};
use crate::support;

const SCHEMA: &str = "
    create table parts (id int primary key, _change_selector text) partition by range (id);
    create table p1 partition of parts for values from (0) to (10);
    create table p2 partition of parts for values from (10) to (20);
    create table p3 (id int primary key, _change_selector text);
    insert into p3 values (20, 's');
    -- That of the root says what the old row is taken for, those of the partitions what the WAL has of it.
    alter table parts replica identity full;
    alter table p1 replica identity full;
    alter table p2 replica identity full;
    alter table p3 replica identity full;
    create publication feed for table parts with (publish_via_partition_root = ";

const STEPS: [&str; 8] = [
    "insert into parts values (1, 's')",
    "insert into p2 values (11, 's')",
    "alter table parts attach partition p3 for values from (20) to (30)",
    "insert into parts values (21, 's')",
    "update parts set id = 12 where id = 1",
    "alter table parts detach partition p1",
    // Nobody published it as a table of its own.
    "insert into p1 values (2, 's')",
    "delete from parts where id = 11",
];

/// Operation, table and id of each change; a move between partitions is a delete and an insert.
const EXPECTED: [(u64, &str, &str); 6] =
    [(1, "p1", "1"), (1, "p2", "11"), (1, "p3", "21"), (3, "p1", "1"), (1, "p2", "12"), (3, "p2", "11")];

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go_and_rows_move_between_them() {
    for via_root in [true, false] {
        let url = support::database().await;
        let client = support::connect(&url).await;
        client.batch_execute(&format!("{SCHEMA}{via_root})")).await.unwrap();
        let running = Feed::new(&url).live().await;
        for step in STEPS {
            client.batch_execute(step).await.unwrap();
        }
        let tell = |(operation, leaf, id): (u64, &str, &str)| {
            let table = if via_root { "public.parts".to_owned() } else { format!("public.{leaf}") };
            (operation, table, id.to_owned())
        };
        let mut expected = EXPECTED.map(tell).to_vec();
        // Its walsender does not notice that a partition it has told of is one no more.
        if support::server_major().await == 14 {
            expected.insert(5, tell((1, "p1", "2")));
        }
        let seen = support::eventually(PATIENCE, "all changes are in", async || {
            let seen: Vec<Value> = running.bodies().await;
            (seen.len() >= expected.len()).then_some(seen)
        })
        .await;
        let told = seen.iter().map(|change| {
            let row = if change["newRow"].is_null() { &change["oldRow"] } else { &change["newRow"] };
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (change["operation"].as_u64().unwrap(), text(&change["table"]), text(&row["id"]["value"]))
        });
        assert_eq!(told.collect::<Vec<_>>(), expected, "through the root: {via_root}");
        running.stop().await;
    }
}

/// The old rows of deletes and updates so far, each with whether it was told to the readers of `s`.
async fn old_rows(running: &Running, count: usize) -> Vec<(bool, Value)> {
    let all = async |scopes: Vec<Scope>| {
        let query = Query { scopes, since: Sequence::ZERO, limit: 1000, block: Duration::ZERO, snapshot: None };
        let changes = running.reader.changes(query).await.unwrap().changes;
        let bodies = changes.iter().map(|change| serde_json::from_slice::<Value>(&change.body).unwrap());
        bodies.filter(|body| !body["oldRow"].is_null()).collect::<Vec<_>>()
    };
    let s = || Scope::parse("s").unwrap();
    let both = support::eventually(PATIENCE, "all changes are in", async || {
        let told = all(vec![Scope::empty(), s()]).await;
        (told.len() >= count).then_some(told)
    })
    .await;
    let to_s = all(vec![s()]).await;
    let is_to_s = |body: &Value| to_s.iter().any(|told| told["sequence"] == body["sequence"]);
    let values = |row: &Value| {
        let cells = row.as_object().unwrap().iter().map(|(name, cell)| (name.clone(), cell["value"].clone()));
        Value::Object(cells.collect())
    };
    both.iter().map(|body| (is_to_s(body), values(&body["oldRow"]))).collect()
}

/// The root says that old rows are whole, and one of its partitions writes their keys alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_lacks_of_a_partitions_old_row_is_never_told_as_null() {
    let url = support::database().await;
    let client = support::connect(&url).await;
    let schema = "create table parts (id int primary key, body text, _change_selector text) partition by range (id);
        create table whole partition of parts for values from (0) to (10);
        create table brief partition of parts for values from (10) to (20);
        alter table parts replica identity full;
        alter table whole replica identity full;
        insert into parts values (1, null, 's'), (2, null, 's'), (3, null, null), (11, 'b', 's'), (12, 'b', 's'), (13, null, 's');
        create publication feed for table parts with (publish_via_partition_root = true)";
    client.batch_execute(schema).await.unwrap();
    let running = Feed::new(&url).live().await;
    let mut expected = Vec::new();
    for (sql, is_to_s, old_row) in [
        ("delete from parts where id = 1", true, json!({"id": "1", "body": null, "_change_selector": "s"})),
        ("delete from parts where id = 11", false, json!({"id": "11"})),
        ("update parts set id = 14 where id = 12", true, json!({"id": "12"})),
        // More than a key is the whole row. What could be a key may be one, and then nulls are what the log lacks.
        ("delete from parts where id = 2", true, json!({"id": "2", "body": null, "_change_selector": "s"})),
        ("delete from parts where id = 3", false, json!({"id": "3"})),
        ("truncate whole", true, Value::Null),
        ("alter table brief replica identity full", true, Value::Null),
        ("delete from parts where id = 13", true, json!({"id": "13", "body": null, "_change_selector": "s"})),
    ] {
        client.batch_execute(sql).await.unwrap();
        if !old_row.is_null() {
            expected.push((is_to_s, old_row));
        }
    }
    assert_eq!(old_rows(&running, expected.len()).await, expected);
    running.stop().await;
}

/// The bodies of all changes of the empty scope and of `s` behind `since`, each once there are so many.
async fn bodies(running: &Running, since: Sequence, count: usize) -> Vec<Bytes> {
    let scopes = vec![Scope::empty(), Scope::parse("s").unwrap()];
    let query = Query { scopes, since, limit: 1000, block: Duration::ZERO, snapshot: None };
    support::eventually(PATIENCE, "all changes are in", async || {
        let changes = running.reader.changes(query.clone()).await.unwrap().changes;
        (changes.len() >= count).then(|| changes.into_iter().map(|change| change.body).collect())
    })
    .await
}

/// One has told of the partition that writes keys alone, the other has never heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn feeds_that_began_at_different_moments_tell_the_same_bytes() {
    let url = support::database().await;
    let client = support::connect(&url).await;
    let schema = "create table parts (_change_selector text, id int primary key, body text) partition by range (id);
        create table whole partition of parts for values from (0) to (10);
        create table brief partition of parts for values from (10) to (20);
        alter table parts replica identity full;
        alter table whole replica identity full;
        insert into parts values ('s', 1, null), (null, 2, 'b'), ('s', 3, null), ('s', 11, 'b');
        create publication feed for table parts with (publish_via_partition_root = true)";
    client.batch_execute(schema).await.unwrap();
    let early = Feed::new(&url).live().await;
    client.batch_execute("delete from parts where id = 11").await.unwrap();
    bodies(&early, Sequence::ZERO, 1).await;
    let since = early.reader.position();
    let mut late = Feed::new(&url);
    late.config.source.slot.push_str("_late");
    let late = late.live().await;
    let steps = [
        "delete from parts where id = 1",
        "update parts set _change_selector = 's' where id = 2",
        "update parts set _change_selector = null where id = 3",
    ];
    for step in steps {
        client.batch_execute(step).await.unwrap();
    }
    let told = bodies(&early, since, steps.len()).await;
    assert_eq!(told, bodies(&late, Sequence::ZERO, steps.len()).await);
    let old: Vec<Value> =
        told.iter().map(|body| serde_json::from_slice::<Value>(body).unwrap()["oldRow"].clone()).collect();
    assert!(old.iter().all(|row| row.as_object().unwrap().len() == 3), "with their nulls: {old:?}");
    let of_s = async |running: &Running, since| running.changes(since).await.unwrap().changes;
    assert_eq!(of_s(&early, since).await, of_s(&late, Sequence::ZERO).await);
    early.stop().await;
    late.stop().await;
}

/// PostgreSQL sends nothing of it. Were that to change, readers could be told, and the documents would be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_a_partition_as_a_whole_is_not_told_under_its_root() {
    let url = support::database().await;
    let client = support::connect(&url).await;
    let schema = "create table parts (id int primary key, _change_selector text) partition by range (id);
        create table p1 partition of parts for values from (0) to (10);
        create table p2 partition of parts for values from (10) to (20);
        create table p3 partition of parts for values from (20) to (30);
        create table p4 (like parts including all);
        create publication feed for table parts with (publish_via_partition_root = true)";
    client.batch_execute(schema).await.unwrap();
    if support::server_major().await == 14 {
        // Of a table that was written to under a stream, 14 tells nothing under that stream once it is a partition.
        client.batch_execute("insert into p4 values (31, 's')").await.unwrap();
    }
    let running = Feed::new(&url).live().await;
    for (step, told) in [
        ("insert into parts values (1, 's'), (11, 's'), (21, 's')", 3),
        ("insert into p4 values (31, 's') on conflict do nothing", 0),
        ("truncate p1", 0),
        ("alter table parts detach partition p2", 0),
        ("drop table p3", 0),
        ("alter table parts attach partition p4 for values from (30) to (40)", 0),
        // What the documents advise.
        ("delete from p4", 1),
        ("truncate parts", 1),
    ] {
        let before = bodies(&running, Sequence::ZERO, 0).await.len();
        // The row behind it shows that all of it has come.
        client
            .batch_execute(&format!(
                "begin; {step}; insert into parts values (5, 's'); delete from parts where id = 5; commit"
            ))
            .await
            .unwrap();
        let now = bodies(&running, Sequence::ZERO, before + told + 2).await.len();
        assert_eq!(now, before + told + 2, "{step}");
    }
    running.stop().await;
}
