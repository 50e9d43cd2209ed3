//! What a purge means for readers of a server that is busy with something old.

use std::time::Duration;

use super::support::server::{Server, folder};
use super::support::{connect, database, eventually};

const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_snapshot_is_good_although_a_transaction_is_open_for_longer_than_changes_are_kept() {
    let (url, folder) = (database().await, folder());
    let server = Server::start_flagged(&url, &folder, &["--max-age", "3s"]).await;
    let (sql, beside) = (connect(&url).await, connect(&url).await);
    let table = "create table notes (id int primary key, _change_selector text);
                 alter publication walclock add table notes";
    sql.batch_execute(table).await.unwrap();
    let snapshot =
        async || -> String { sql.query_one("select pg_current_snapshot()::text", &[]).await.unwrap().get(0) };
    let before = snapshot().await;
    beside.batch_execute("begin; create temporary table old ()").await.unwrap();
    sql.batch_execute("insert into notes values (1, 's')").await.unwrap();
    let ask = async |snapshot: &str| server.get(&format!("/changes?scope=s&snapshot={snapshot}")).await;
    let purged = async || (ask(&before).await.0 == 400).then_some(());
    eventually(PATIENCE, "the row is purged, and the snapshot from before it too old", purged).await;
    let fresh = snapshot().await;
    let (status, page) = ask(&fresh).await;
    assert_eq!(status, 200, "{fresh} shows what is purged: {page}");
}
