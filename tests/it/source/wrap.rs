//! A server whose 32-bit transaction ids wrap around while the feed follows.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
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

/// Where the control file of every version from 14 on has the place and a copy of the last checkpoint, and where the copy has
/// the timeline and the next transaction id. The file and the checkpoint have checksums, which tell whether all this is so.
const CHECKPOINT_AT: usize = 32;
const COPY: std::ops::Range<usize> = 40..80;
const TIMELINE: usize = 8;
const NEXT_XID: usize = 24;
/// A record of the log: its checksum stands at the end of its header, and two bytes before its contents.
const RECORD_SUM: usize = 20;
const RECORD_HEADER: usize = 24;
const RECORD_CONTENTS: usize = 26;
/// The log's pages, the header of one, and its files, as initdb makes them.
const PAGE_BYTES: usize = 8192;
const PAGE_HEADER: usize = 24;
const SEGMENT_BYTES: u64 = 16 << 20;

fn u32_at(bytes: &[u8], place: usize) -> u32 {
    u32::from_le_bytes(bytes[place..place + 4].try_into().unwrap())
}

fn record_sum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[RECORD_HEADER..]), &record[..RECORD_SUM])
}

/// Sets the next transaction id of a server that was stopped: in its control file, and in the checkpoint that it ended with.
/// pg_resetwal can do so, too, but not every package of PostgreSQL has it.
fn set_next_xid(data: &Path, next: u32) {
    let owner = std::fs::metadata(data).unwrap();
    let file = data.join(format!("pg_xact/{:04X}", next / XACTS));
    std::fs::write(&file, vec![0; XACT_BYTES]).unwrap();
    chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();

    let next = u64::from(next).to_le_bytes();
    let path = data.join("global/pg_control");
    let mut control = std::fs::read(&path).unwrap();
    let is_sum = |place: &usize| crc32c::crc32c(&control[..*place]) == u32_at(&control, *place);
    let sum = (COPY.end..512).step_by(4).find(is_sum).expect("a control file ends with its checksum");
    let checkpoint = u64::from_le_bytes(control[CHECKPOINT_AT..CHECKPOINT_AT + 8].try_into().unwrap());
    let timeline = u32_at(&control, COPY.start + TIMELINE);

    let (segment, start) = (checkpoint / SEGMENT_BYTES, usize::try_from(checkpoint % SEGMENT_BYTES).unwrap());
    let log = data.join(format!("pg_wal/{timeline:08X}{:08X}{:08X}", segment >> 8, segment & 0xff));
    let mut bytes = std::fs::read(&log).unwrap();
    let length = usize::try_from(u32_at(&bytes, start)).unwrap();
    // It may go on in the next page, behind that one's header.
    let places: Vec<usize> = (start..)
        .filter(|place| place / PAGE_BYTES == start / PAGE_BYTES || place % PAGE_BYTES >= PAGE_HEADER)
        .take(length)
        .collect();
    let mut record: Vec<u8> = places.iter().map(|place| bytes[*place]).collect();
    assert_eq!(record_sum(&record), u32_at(&record, RECORD_SUM), "the last checkpoint is where the control file says");
    assert_eq!(record[RECORD_CONTENTS..][..COPY.len()], control[COPY], "and is what it has a copy of");

    record[RECORD_CONTENTS + NEXT_XID..][..8].copy_from_slice(&next);
    let changed = record_sum(&record).to_le_bytes();
    record[RECORD_SUM..][..4].copy_from_slice(&changed);
    places.into_iter().zip(record).for_each(|(place, byte)| bytes[place] = byte);
    std::fs::write(&log, bytes).unwrap();
    control[COPY.start + NEXT_XID..][..8].copy_from_slice(&next);
    let changed = crc32c::crc32c(&control[..sum]).to_le_bytes();
    control[sum..][..4].copy_from_slice(&changed);
    std::fs::write(&path, control).unwrap();
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
    let mut cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[("autovacuum", "off")])).await.unwrap();
    freeze(&cluster).await;
    for next in JUMPS {
        let data = cluster.data();
        cluster = while_down(cluster, move || set_next_xid(&data, next)).await;
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
