//! What readers, and those who work on the tables, may do to a snapshot.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::support;
use crate::support::server::{Server, folder};

/// Enough that it does not fit into what sockets hold.
const LARGE: &str = "insert into items (name, _change_selector)
                     select repeat(md5(i::text), 20), 'foo' from generate_series(1, 100000) i";

/// A reader that has asked for a snapshot and takes nothing of it yet.
async fn ask(url: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Waits until the server's session waits for its reader.
async fn until_held_up(feed: &tokio_postgres::Client) {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and application_name = 'walclock snapshot' and wait_event = 'ClientWrite'";
    let held_up = async || (feed.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(());
    support::eventually(PATIENCE, "the session waits for its reader", held_up).await;
}

async fn until_gone(feed: &Feed) {
    let gone = async || (sessions(feed).await == 0).then_some(());
    support::eventually(PATIENCE, "the session is gone", gone).await;
}

/// The chunks of an answer joined, and whether it ended well.
fn unchunked(answer: &[u8]) -> (Vec<u8>, bool) {
    let start = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    let (mut rest, mut body) = (&answer[start..], Vec::new());
    loop {
        let Some(end) = rest.windows(2).position(|part| part == b"\r\n") else { return (body, false) };
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(end + 2..end + 2 + length) else { return (body, false) };
        if length == 0 {
            return (body, true);
        }
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + length + 2..).unwrap_or_default();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_snapshot_for_a_slow_reader_takes_no_memory() {
    let database = support::database().await;
    let folder = folder();
    let server = Server::start(&database, &folder).await;
    let client = support::connect(&database).await;
    client
        .batch_execute(
            "create table items (id serial primary key, name text, _change_selector text);
             select walclock.publish('items', true)",
        )
        .await
        .unwrap();
    // Rows that the feed has nothing to do with: what it takes for them is not measured here.
    client.batch_execute("alter publication walclock set (publish = 'update')").await.unwrap();
    client.batch_execute(LARGE).await.unwrap();
    let before = server.memory();
    let mut stream = ask(&server.url(), "/snapshots?scope=foo").await;
    until_held_up(&client).await;
    let held_up = server.memory();
    let (mut answer, mut buffer, mut most) = (Vec::new(), vec![0; 1 << 20], held_up);
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        answer.extend_from_slice(&buffer[..read]);
        most = most.max(server.memory());
        if read == 0 {
            break;
        }
    }
    let (body, whole) = unchunked(&answer);
    let snapshot: Value = serde_json::from_slice(&body).unwrap();
    assert!(whole);
    assert_eq!(rows(&snapshot, "public.items").len(), 100_000);
    assert!(body.len() > 60 << 20, "{} bytes", body.len());
    assert!(most < before + (24 << 20), "from {before} to {held_up}, at most {most} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_frees_the_transaction() {
    let feed = Feed::start().await;
    feed.client.batch_execute(LARGE).await.unwrap();
    let url = serve(&feed).await;
    let stream = ask(&url, "/snapshots?scope=foo").await;
    until_held_up(&feed.client).await;
    drop(stream);
    until_gone(&feed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_before_the_first_row_frees_the_transaction() {
    let feed = Feed::start().await;
    let far = Duration::from_secs(3600);
    let url = serve_as(&feed, Config { lock_max: far, begin_max: far, ..config(&feed) }, PATIENCE).await;
    // On another connection: a transaction sees the sessions of its beginning.
    let other = support::connect(&feed.database).await;
    other.batch_execute("begin; lock table items").await.unwrap();
    let stream = ask(&url, "/snapshots?scope=foo").await;
    until_locked_out(&feed).await;
    drop(stream);
    // The server is not about to write: it notices because it looks.
    until_gone(&feed).await;
}

async fn until_locked_out(feed: &Feed) {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and application_name = 'walclock snapshot' and wait_event_type = 'Lock'";
    let locked_out = async || (feed.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(());
    support::eventually(PATIENCE, "the session waits for the lock", locked_out).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_off_and_does_not_get_a_whole_answer() {
    let feed = Feed::start().await;
    feed.client.batch_execute(LARGE).await.unwrap();
    let url = serve_as(&feed, config(&feed), Duration::from_millis(300)).await;
    let mut stream = ask(&url, "/snapshots?scope=foo").await;
    // The head of the answer; what follows is left where it is.
    stream.read_exact(&mut [0; 64]).await.unwrap();
    until_gone(&feed).await;
    let mut answer = b"\r\n\r\n".to_vec();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.ends_with(b"\r\n0\r\n\r\n"));
    assert!(answer.len() < 60 << 20, "{}", answer.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_the_middle_breaks_the_answer_off() {
    let feed = Feed::start().await;
    feed.client.batch_execute(LARGE).await.unwrap();
    let mut stream = ask(&serve(&feed).await, "/snapshots?scope=foo").await;
    until_held_up(&feed.client).await;
    let terminate = "select pg_terminate_backend(pid) from pg_stat_activity
                     where datname = current_database() and application_name = 'walclock snapshot'";
    feed.client.batch_execute(terminate).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let (body, whole) = unchunked(&answer);
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(!whole, "a reader must not take it for a whole one");
    assert!(serde_json::from_slice::<Value>(&body).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_in_the_middle_is_told_whole() {
    let feed = Feed::start().await;
    feed.client.batch_execute(LARGE).await.unwrap();
    feed.client.batch_execute("create table later (id int, _change_selector text)").await.unwrap();
    feed.client.batch_execute("insert into later values (1, 'foo')").await.unwrap();
    let mut stream = ask(&serve(&feed).await, "/snapshots?scope=foo").await;
    until_held_up(&feed.client).await;
    let other = support::connect(&feed.database).await;
    let dropping = tokio::spawn(async move { other.batch_execute("drop table later").await });
    let sql = "select count(*) from pg_stat_activity where query = 'drop table later' and wait_event_type = 'Lock'";
    let waits = async || (feed.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(());
    support::eventually(PATIENCE, "the drop waits", waits).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let (body, whole) = unchunked(&answer);
    assert!(whole);
    assert_eq!(column(&serde_json::from_slice(&body).unwrap(), "public.later", "id"), ["1"]);
    dropping.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_rewritten_at_the_very_moment_has_all_its_rows() {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let url = serve(&feed).await;
    let other = support::connect(&feed.database).await;
    // Between the look for the tables and their locks: a transaction that saw the table before has no row of it now.
    other.batch_execute("begin; alter table items alter column name type varchar(40)").await.unwrap();
    let asked = tokio::spawn(async move { take(&url, "scope=foo").await });
    until_locked_out(&feed).await;
    other.batch_execute("commit").await.unwrap();
    let snapshot = asked.await.unwrap();
    assert_eq!(column(&snapshot, "public.items", "name"), ["one"]);
    assert_eq!(rows(&snapshot, "public.items")[0]["name"]["type"], 1043, "varchar");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_at_the_very_moment_is_left_out() {
    let feed = Feed::start().await;
    let url = serve(&feed).await;
    let other = support::connect(&feed.database).await;
    other.batch_execute("begin; drop table items").await.unwrap();
    let asked = tokio::spawn(async move { take(&url, "scope=foo").await });
    until_locked_out(&feed).await;
    other.batch_execute("commit").await.unwrap();
    assert_eq!(tables(&asked.await.unwrap()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_not_waited_for_for_ever() {
    let feed = Feed::start().await;
    let url = serve_as(&feed, Config { lock_max: Duration::from_millis(50), ..config(&feed) }, PATIENCE).await;
    feed.client.batch_execute("begin; lock table items").await.unwrap();
    let answer = http::get(&url, "/snapshots?scope=foo", &[]).await;
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &body["code"]), (503, &json!("TABLE_LOCKED")));
    assert!(body["description"].as_str().unwrap().contains("public.items"), "{body}");
    assert_ne!(answer.header("retry-after"), "");
    feed.client.batch_execute("commit").await.unwrap();
    take(&url, "scope=foo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_have_a_cap() {
    let feed = Feed::start().await;
    feed.client.batch_execute(LARGE).await.unwrap();
    let url = serve_as(&feed, Config { running_max: 1, ..config(&feed) }, PATIENCE).await;
    let stream = ask(&url, "/snapshots?scope=foo").await;
    until_held_up(&feed.client).await;
    let answer = http::get(&url, "/snapshots?scope=foo", &[]).await;
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &body["code"]), (503, &json!("TOO_MANY_SNAPSHOTS")));
    assert_ne!(answer.header("retry-after"), "");
    drop(stream);
    let again = async || (get(&url, "scope=bar").await.0 == 200).then_some(());
    support::eventually(PATIENCE, "the place is free", again).await;
}
