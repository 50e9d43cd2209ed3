//! Partitioned tables: under the name of their root where the publication says so, whatever becomes of the partitions.

use serde_json::Value;

use super::DEADLINE;
use super::feed::Feed;
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
        let seen = support::eventually(DEADLINE, "all changes are in", async || {
            let seen: Vec<Value> = running.bodies().await;
            (seen.len() >= EXPECTED.len()).then_some(seen)
        })
        .await;
        let told = seen.iter().map(|change| {
            let row = if change["newRow"].is_null() { &change["oldRow"] } else { &change["newRow"] };
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (change["operation"].as_u64().unwrap(), text(&change["table"]), text(&row["id"]["value"]))
        });
        let expected = EXPECTED.map(|(operation, leaf, id)| {
            let table = if via_root { "public.parts".to_owned() } else { format!("public.{leaf}") };
            (operation, table, id.to_owned())
        });
        assert_eq!(told.collect::<Vec<_>>(), expected, "through the root: {via_root}");
        running.stop().await;
    }
}
