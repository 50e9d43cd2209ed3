//! A server whose 32-bit transaction ids wrap around while the feed follows.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use walclock::domain::scope::Scope;
use walclock::domain::sequence::Sequence;
use walclock::feed::query::Query;
use walclock::localpg::Cluster;

use super::feed::{Feed, Running, while_down};
use super::publish_notes;
use crate::support;

/// Each is within reach of the one before once all is frozen; the last one is 7336 transactions before the wrap.
const JUMPS: [u32; 3] = [2_000_000_000, 4_000_000_000, 4_294_960_000];
/// How many bytes of pg_xact tell of so many transactions: a file of it.
const XACT_BYTES: usize = 256 * 1024;
const XACTS: u32 = 1024 * 1024;

/// Sets the next transaction id of a server that is down.
fn reset_xid(program: &Path, data: &Path, next: u32) {
    let owner = std::fs::metadata(data).unwrap();
    let file = data.join(format!("pg_xact/{:04X}", next / XACTS));
    std::fs::write(&file, vec![0; XACT_BYTES]).unwrap();
    chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    let mut reset = Command::new(program);
    reset.arg("-x").arg(next.to_string()).arg(data).current_dir("/").uid(owner.uid()).gid(owner.gid());
    let output = reset.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn freeze(cluster: &Cluster) {
    let admin = support::connect(&cluster.url("postgres")).await;
    admin.batch_execute("update pg_database set datallowconn = true").await.unwrap();
    for database in ["postgres", "template1", "template0"] {
        support::connect(&cluster.url(database)).await.batch_execute("vacuum (freeze)").await.unwrap();
    }
}

/// The ids that remain when what a snapshot shows is hidden.
async fn behind(running: &Running, snapshot: &str) -> Vec<i64> {
    let snapshot = Some(snapshot.parse().unwrap());
    let scopes = vec![Scope::parse("s").unwrap()];
    let query = Query { scopes, since: Sequence::ZERO, limit: 100_000, block: Duration::ZERO, snapshot };
    let changes = running.reader.changes(query).await.unwrap().changes;
    changes.iter().map(|change| super::feed::id(&change.body)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_ids_and_snapshots_are_right_on_both_sides_of_the_wrap() {
    let folder = support::programs().or_else(walclock::localpg::find_programs).expect("PostgreSQL is installed");
    let program = folder.join("pg_resetwal");
    if !program.exists() {
        // Some packages of PostgreSQL leave it out, and that of another version refuses the folder.
        let test = "transaction_ids_and_snapshots_are_right_on_both_sides_of_the_wrap";
        return support::say_skipped(test, &format!("{} is not there", program.display()));
    }
    let mut cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[("autovacuum", "off")])).await.unwrap();
    freeze(&cluster).await;
    for next in JUMPS {
        let (program, data) = (program.clone(), cluster.data());
        cluster = while_down(cluster, move || reset_xid(&program, &data, next)).await;
        freeze(&cluster).await;
    }
    let url = cluster.url("postgres");
    let client = publish_notes(&url).await;
    client.batch_execute("alter table notes alter body set default pg_current_xact_id()::text").await.unwrap();
    let running = Feed::new(&url).live().await;
    let mut snapshots = Vec::new();
    for ids in [0..3000, 3000..9000, 9000..9100] {
        let insert = format!(
            "do $$ begin for n in {} .. {} loop
                 insert into notes (id, _change_selector) values (n, 's'); commit;
             end loop; end $$",
            ids.start,
            ids.end - 1
        );
        client.batch_execute(&insert).await.unwrap();
        let row = client.query_one("select pg_current_snapshot()::text", &[]).await.unwrap();
        snapshots.push((ids.end, row.get::<_, String>(0)));
    }
    running.ids(9100).await;
    let changes = running.bodies().await;
    let txids: Vec<u64> = changes.iter().map(|change| change["txid"].as_u64().unwrap()).collect();
    let said = changes.iter().map(|change| change["newRow"]["body"]["value"].as_str().unwrap().parse().unwrap());
    assert_eq!(txids, said.collect::<Vec<u64>>(), "as the server itself counts them");
    let wrap = u64::from(u32::MAX);
    assert!(txids[0] < wrap && txids[3000] < wrap && txids[8999] > wrap, "{} to {}", txids[0], txids[9099]);
    for (end, snapshot) in snapshots {
        assert_eq!(behind(&running, &snapshot).await, (end..9100).collect::<Vec<i64>>(), "behind {snapshot}");
    }
    running.stop().await;
}
