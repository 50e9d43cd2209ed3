//! A transaction that is larger than the disk: it is named, it is not taken over and over, and it comes whole once there
//! is room for it.

use std::process::Command;

use super::super::support::{PATIENCE, connect, eventually};
use super::{Reader, TABLE, confirmed, insert, on_disk};

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_the_disk_waits_for_room_and_comes_whole() {
    let name = "a_transaction_larger_than_the_disk_waits_for_room_and_comes_whole";
    let Some((url, folder, server)) = on_disk(name, 40 << 20, 0, &[]).await else { return };
    server.until_ready().await;
    let slot = folder.file_name().unwrap().to_str().unwrap();
    let sql = connect(&url).await;
    sql.batch_execute(TABLE).await.unwrap();
    let mut reader = Reader::new("s");
    insert(&sql, 0..10).await;
    // 60 MB.
    let huge = "insert into notes select n, repeat('x', 4000), 's' from generate_series(10, 14999) n";
    sql.execute(huge, &[]).await.unwrap();
    let txid: String = sql.query_one("select xmin::text from notes where id = 10", &[]).await.unwrap().get(0);
    let named = async || {
        let (status, reason) = server.ready().await?;
        let reason = String::from_utf8(reason.to_vec()).unwrap();
        let says =
            reason.starts_with("feed: disk full") && reason.contains(&format!("transaction {txid}, committed at"));
        (status == 503 && says).then_some(())
    };
    eventually(PATIENCE, "it names the transaction", named).await;

    let count = async |name: &str| server.metric(name).await;
    let failures = count("walclock_journal_failures_total").await.unwrap();
    let stuck = confirmed(&sql, slot).await;
    let mut attempts = count("walclock_feed_reconnects_total").await.unwrap();
    for _ in 0..3 {
        let another = async || count("walclock_feed_reconnects_total").await.filter(|now| *now > attempts);
        attempts = eventually(PATIENCE, "it looks for room again", another).await;
        named().await.expect("it is not ready in between");
    }
    assert_eq!(count("walclock_journal_failures_total").await.unwrap(), failures, "it did not fill the disk again");
    assert_eq!(confirmed(&sql, slot).await, stuck);
    reader.catch_up(&server).await;
    assert_eq!(reader.ids, (0..10).collect::<Vec<_>>(), "nothing of it is seen");

    let pid = server.pid().as_raw_nonzero().to_string();
    let mut grow = Command::new("nsenter");
    grow.args(["-t", &pid, "-U", "-m", "--preserve-credentials", "mount", "-o", "remount,size=200m"]).arg(&folder);
    assert!(grow.status().unwrap().success());
    let told = async || {
        reader.catch_up(&server).await;
        (reader.ids.len() > 10).then_some(())
    };
    eventually(PATIENCE, "it comes through", told).await;
    assert_eq!(reader.ids, (0..15_000).collect::<Vec<_>>(), "all of it at once");
    server.until_ready().await;
}
