//! Settings of the feed, from the flag to what a reader sees of them.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::support::server::{Server, folder};
use super::support::{PATIENCE, connect, database, eventually};

/// A server with these flags, beside a published table of notes.
async fn serve(flags: &[&str]) -> (Server, tokio_postgres::Client) {
    let url = database().await;
    let server = Server::start_flagged(&url, &folder(), flags).await;
    let sql = connect(&url).await;
    let table = "create table notes (id int primary key, _change_selector text, tenant text, house text, body text);
                 alter publication walclock add table notes";
    sql.batch_execute(table).await.unwrap();
    (server, sql)
}

/// The ids of what a page or a snapshot tells of.
fn ids(rows: &Value) -> Vec<&str> {
    let rows = rows.as_array().unwrap().iter().map(|row| row.get("newRow").unwrap_or(row));
    rows.map(|row| row["id"]["value"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_kept_than_the_size_allows() {
    let (server, sql) = serve(&["--max-size", "1MiB"]).await;
    sql.batch_execute("insert into notes values (0, 's')").await.unwrap();
    let (status, page) = server.get("/changes?scope=s&block=100").await;
    assert_eq!((status, ids(&page["changes"])), (200, vec!["0"]), "{page}");
    let oldest = page["lastSequence"].as_str().unwrap().to_owned();
    // About 4 MiB in transactions of 256 KiB.
    for last in (8..=128).step_by(8) {
        let fill = "insert into notes select n, 's', null, null, (select string_agg(md5(n || '/' || i), '')
                                                                  from generate_series(1, 1024) i)
                    from generate_series($1::int - 7, $1) n";
        sql.execute(fill, &[&last]).await.unwrap();
    }
    let purged = async || (server.get(&format!("/changes?scope=s&since={oldest}")).await.0 == 400).then_some(());
    eventually(PATIENCE, "the oldest change makes room", purged).await;
    let (_, refusal) = server.get(&format!("/changes?scope=s&since={oldest}")).await;
    assert_eq!(refusal["code"], "SNAPSHOT_TOO_OLD");
    let is_there = async || {
        let (status, page) = server.get("/changes?scope=s").await;
        assert_eq!(status, 200, "{page}");
        let kept = ids(&page["changes"]);
        (kept.last() == Some(&"128") && kept.len() <= 32).then_some(page.clone())
    };
    let page = eventually(PATIENCE, "at most 1 MiB, up to the newest", is_there).await;
    assert_eq!(page["firstSequence"], page["changes"][0]["sequence"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_than_the_server_lets_him() {
    let (server, _sql) = serve(&["--block-max", "1s"]).await;
    let call = server.get("/changes?scope=s&block=300");
    let (status, page) = timeout(PATIENCE, call).await.expect("an answer long before the 300 seconds");
    assert_eq!((status, &page["changes"]), (200, &json!([])), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scopes_of_rows_are_in_the_columns_that_are_named() {
    let (server, sql) = serve(&["--selector-column", "tenant", "--selector-column", "house"]).await;
    let tables = "create table rooms (id int primary key, _change_selector text, house text);
                  alter publication walclock add table rooms;
                  insert into notes values (1, 'default', 'first', 'second');
                  insert into rooms values (2, 'default', 'second')";
    sql.batch_execute(tables).await.unwrap();
    for (scope, id, table) in [("second", "2", "public.rooms"), ("first", "1", "public.notes")] {
        let (status, page) = server.get(&format!("/changes?scope={scope}&block=100")).await;
        assert_eq!((status, ids(&page["changes"])), (200, vec![id]), "{scope}: {page}");
        let (status, snapshot) = server.get(&format!("/snapshots?scope={scope}")).await;
        let tables = snapshot["tables"].as_array().unwrap();
        let rows: Vec<_> = tables.iter().filter(|table| table["rows"] != json!([])).collect();
        assert_eq!((status, rows.len(), &rows[0]["name"]), (200, 1, &json!(table)), "{scope}: {snapshot}");
        assert_eq!(ids(&rows[0]["rows"]), [id], "{scope}: {snapshot}");
    }
    let (status, page) = server.get("/changes?scope=default").await;
    assert_eq!((status, &page["changes"]), (200, &json!([])), "no longer a scope's column: {page}");
}
