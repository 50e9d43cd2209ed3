//! Changes of the schema while rows are written: the feed goes on, and every row has the shape that it was written in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio_postgres::Client;
use walclock::feed::ingest::Status;

use super::feed::{Feed, Running};
use super::fold::{Fold, rows};
use super::{PATIENCE, publish_notes};
use crate::support;

/// Each is a statement of its own, and after each a new row must come through in its new shape.
const STEPS: &[&str] = &[
    "alter table notes add column extra int default 7",
    "alter table notes rename column extra to more",
    "alter table notes alter column more type text using more::text || 'x'",
    "create type mood as enum ('a')",
    "alter table notes add column m mood default 'a'",
    "alter type mood add value 'b'",
    "alter table notes alter column m set default 'b'",
    "alter table notes drop column m",
    "drop type mood",
    "create type mood as enum ('c')",
    "alter table notes add column m mood default 'c'",
    "alter table notes drop column more",
    "truncate notes",
    "alter table notes replica identity default",
    "alter table notes replica identity using index notes_pkey",
    "alter table notes replica identity full",
    "alter table notes alter column id type bigint",
    "alter table notes alter column body set storage external",
    "vacuum full notes",
];

/// Writers who neither know nor care what the table looks like. What fails meanwhile has not happened.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub async fn start(url: &str) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for first in [0, 7] {
            let client = support::connect(url).await;
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tasks.push(tokio::spawn(async move {
                for n in (first..).step_by(3) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (add, change, remove) = (n % 97, n % 89, n % 83);
                    for sql in [
                        format!("insert into notes (id, _change_selector) values ({add}, 's') on conflict do nothing"),
                        format!("update notes set body = 'b{n}' where id = {change}"),
                        format!("delete from notes where id = {remove}"),
                    ] {
                        if client.batch_execute(&sql).await.is_ok() {
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }));
        }
        Self { stop, done, tasks }
    }

    /// Some more has been written since.
    pub async fn some(&self) {
        let before = self.done.load(Ordering::Relaxed);
        support::eventually(PATIENCE, "the load goes on", async || {
            (self.done.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }

    /// There is something to compare. The writers delete all of their first rows again, however fast they are.
    pub async fn until_rows(&self, client: &Client) {
        support::eventually(PATIENCE, "the load leaves rows", async || {
            (rows(client, "notes").await.len() > 10).then_some(())
        })
        .await;
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Writes a row and waits until the feed shows it exactly as the table does.
pub async fn probe(client: &Client, fold: &mut Fold, table: &str, id: i64, after: &str) {
    let insert = format!("insert into {table} (id, body, _change_selector) values ({id}, 'probe', 's')");
    client.batch_execute(&insert).await.unwrap();
    let expected = rows(client, &format!("(select * from {table} where id = {id})")).await.remove(&id);
    assert!(expected.is_some());
    support::eventually(PATIENCE, &format!("a new row is right after: {after}"), async || {
        fold.follow().await;
        (fold.rows.get(&id) == expected.as_ref()).then_some(())
    })
    .await;
}

/// Every row is written once more, so that each has the newest shape; then the feed's table is the table.
pub async fn assert_fold_is_table(client: &Client, fold: &mut Fold) {
    client.batch_execute("update notes set body = coalesce(body, '') || '!'").await.unwrap();
    let table = rows(client, "notes").await;
    assert!(!table.is_empty(), "an empty table proves nothing");
    support::eventually(PATIENCE, "the fold is the table", async || {
        fold.follow().await;
        (fold.rows == table).then_some(())
    })
    .await;
}

pub async fn loaded(url: &str) -> (Client, Running, Fold, Load) {
    let client = publish_notes(url).await;
    let running = Feed::new(url).live().await;
    let fold = Fold::new(running.reader.clone());
    (client, running, fold, Load::start(url).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_ddl_under_load_leaves_the_fold_equal_to_the_table() {
    let url = support::database().await;
    let (client, running, mut fold, load) = loaded(&url).await;
    for (id, step) in (1000..).zip(STEPS) {
        load.some().await;
        client.batch_execute(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        probe(&client, &mut fold, "notes", id, step).await;
    }
    // Under another name for a while, then as another table of the old name.
    client.batch_execute("alter table notes rename to memos").await.unwrap();
    probe(&client, &mut fold, "memos", 2000, "rename to memos").await;
    client.batch_execute("alter table memos rename to notes").await.unwrap();
    probe(&client, &mut fold, "notes", 2001, "rename to notes").await;
    load.some().await;
    let again = "drop table notes;
        create table notes (body varchar, id bigint primary key, _change_selector text[] default '{s}');
        alter table notes replica identity full;
        alter publication feed add table notes";
    client.batch_execute(again).await.unwrap();
    client.batch_execute("alter table notes alter column _change_selector type text using 's'").await.unwrap();
    // The drop of a table is no change of its rows; this is.
    client.batch_execute("truncate notes").await.unwrap();
    probe(&client, &mut fold, "notes", 2002, "create it again").await;
    client.batch_execute("alter publication feed drop table notes").await.unwrap();
    load.some().await;
    client.batch_execute("alter publication feed add table notes").await.unwrap();
    client.batch_execute("truncate notes").await.unwrap();
    probe(&client, &mut fold, "notes", 2003, "publish it again").await;
    load.some().await;
    load.until_rows(&client).await;
    load.stop().await;
    assert_fold_is_table(&client, &mut fold).await;
    assert_eq!((fold.gaps, running.status.borrow().clone()), (0, Status::Streaming));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_made_anew_under_load_is_a_gap_and_then_all_is_well() {
    let url = support::database().await;
    let (client, running, mut fold, load) = loaded(&url).await;
    probe(&client, &mut fold, "notes", 1000, "nothing").await;
    client.batch_execute("drop publication feed").await.unwrap();
    load.some().await;
    client.batch_execute("create publication feed for table notes").await.unwrap();
    let mut id = 2000;
    // Until the gap is told, a row may still fall into it.
    support::eventually(PATIENCE, "the gap is told", async || {
        fold.follow().await;
        (fold.gaps > 0).then_some(())
    })
    .await;
    support::eventually(PATIENCE, "rows come again", async || {
        id += 1;
        client.batch_execute(&format!("insert into notes values ({id}, 'b', 's')")).await.unwrap();
        fold.follow().await;
        fold.rows.keys().any(|id| *id >= 2000).then_some(())
    })
    .await;
    client.batch_execute("truncate notes").await.unwrap();
    probe(&client, &mut fold, "notes", 5000, "create the publication again").await;
    load.some().await;
    load.until_rows(&client).await;
    load.stop().await;
    assert_fold_is_table(&client, &mut fold).await;
    assert_eq!(fold.gaps, 1);
    running.stop().await;
}

/// PostgreSQL takes no update or delete of such a table as long as both are published.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_replica_identity_has_inserts_alone() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    client.batch_execute("alter table notes replica identity nothing").await.unwrap();
    let running = Feed::new(&url).live().await;
    let mut fold = Fold::new(running.reader.clone());
    probe(&client, &mut fold, "notes", 1, "replica identity nothing").await;
    for refused in ["update notes set body = 'b'", "delete from notes"] {
        let error = client.batch_execute(refused).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{refused}");
    }
    probe(&client, &mut fold, "notes", 2, "an update was refused").await;
    running.stop().await;
}
