//! What a purge means for readers of a server that is busy with something old, and where the machine's clock is set; and that
//! one purge waits for no other.

use std::time::Duration;

use super::firing::clocks::{HOUR, WallClock};
use super::support::server::{Server, folder, migrate};
use super::support::{connect, database, eventually, migrated, say_skipped};

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

/// The first sequence that is there, and all ids.
async fn kept(server: &Server) -> (String, Vec<i64>) {
    let (status, page) = server.get("/changes?scope=s&limit=10000").await;
    assert_eq!(status, 200, "{page}");
    let id = |change: &serde_json::Value| change["newRow"]["id"]["value"].as_str().unwrap().parse().unwrap();
    let ids = page["changes"].as_array().unwrap().iter().map(id).collect();
    (page["firstSequence"].as_str().unwrap().to_owned(), ids)
}

/// A purge for the size looks at the ages, too, and shows when it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_forward_makes_no_change_older() {
    const ROWS: i64 = 200;
    let Some(clock) = WallClock::new() else {
        let test = "a_wall_clock_that_is_set_forward_makes_no_change_older";
        return say_skipped(test, "nothing can be preloaded");
    };
    let (url, folder) = (database().await, folder());
    let flags = ["--roles", "changeserver", "--max-age", "1h", "--max-size", "1MiB"];
    migrate(&url);
    let start = || Server::spawn_among(&clock.variables(), &url, &folder, &flags);
    let mut server = start();
    server.until_ready().await;
    let sql = connect(&url).await;
    let table = "create table notes (id bigint primary key, body text, _change_selector text);
                 alter publication walclock add table notes";
    sql.batch_execute(table).await.unwrap();
    let insert = async |first: i64| {
        let rows = "insert into notes select n, repeat('x', 2000), 's' from generate_series($1::int8, $2::int8) n";
        sql.execute(rows, &[&first, &(first + ROWS - 1)]).await.unwrap();
    };
    insert(0).await;
    insert(ROWS).await;
    for (round, is_restarted) in [(2, false), (3, true)] {
        let newest = async || (kept(&server).await.1.last() == Some(&(round * ROWS - 1))).then_some(());
        eventually(PATIENCE, "all is there", newest).await;
        if is_restarted {
            server.kill();
            server = start();
            server.until_ready().await;
        }
        let (before, _) = kept(&server).await;
        clock.set(2 * HOUR);
        insert(round * ROWS).await;
        let purged = async || {
            let (first, ids) = kept(&server).await;
            (first != before).then_some(ids)
        };
        let ids = eventually(PATIENCE, "the oldest go, since they are too much", purged).await;
        assert!(ids.first().is_some_and(|oldest| *oldest < round * ROWS), "what is young went, too: {ids:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_schedule_goes_also_where_the_days_of_history_cannot_be_made() {
    let url = migrated().await;
    let sql = connect(&url).await;
    let old = "drop function walclock.make_partitions;
               insert into walclock.occurrences (namespace, schedule, scheduled_for, state, made_at)
               values ('default', 'tea', now() - interval '30 days', 'skipped', now() - interval '30 days')";
    sql.batch_execute(old).await.unwrap();
    let _server = Server::spawn_unmigrated(&url, &folder(), &["--roles", "api"]);
    let left = "select count(*) from walclock.occurrences";
    let gone = async || (sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(());
    eventually(PATIENCE, "the old occurrence is gone", gone).await;
}
