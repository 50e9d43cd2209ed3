//! The management contract, through the built binary.

use super::support::http::{Answer, get, request, try_request};
use super::support::server::{Server, folder, migrate};
use super::support::{PATIENCE, connect, database, eventually};

fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_ready_are_200_without_a_body() {
    let server = Server::start(&database().await, &folder()).await;
    for path in ["/health", "/ready"] {
        let answer = get(&server.url(), path, &[]).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
    }
    // Load balancers look with HEAD; of the feed there is nothing to look at.
    for (path, status, allow) in
        [("/health", 200, ""), ("/ready", 200, ""), ("/changes", 405, "GET"), ("/snapshots?scope=a", 405, "GET")]
    {
        let answer = request("HEAD", &server.url(), path, &[], "").await;
        assert_eq!((answer.status, answer.header("allow"), answer.body.len()), (status, allow, 0), "{path}");
    }
    let verbose = get(&server.url(), "/ready?verbose", &[("accept", "application/json")]).await;
    assert_eq!(json(&verbose)["status"], "Ready");
    assert!(json(&verbose)["checks"].as_array().unwrap().iter().any(|check| check["name"] == "database"));
    let long = format!("/{}", "x".repeat(100));
    for (path, shown) in [
        ("/", "/"),
        ("/nope?scope=a", "/nope"),
        ("/changes/x", "/changes/x"),
        (&long, &format!("{}…", long.split_at(100).0)),
    ] {
        let answer = get(&server.url(), path, &[]).await;
        assert_eq!((answer.status, answer.header("content-type")), (404, "application/json"), "{path}");
        let look = "GET /openapi.json, behind the path prefix if there is one, tells what there is";
        let expected = serde_json::json!({
            "code": "NOT_FOUND", "error": "There is nothing at this path",
            "description": format!("there is nothing at {shown}: {look}"),
        });
        assert_eq!(json(&answer), expected, "{path}");
    }
    let metrics = get(&server.url(), "/metrics", &[]).await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_is_refused_with_an_error_in_json() {
    let server = Server::start(&database().await, &folder()).await;
    for (method, path, allow) in [
        ("DELETE", "/health", "GET,HEAD"),
        ("POST", "/ready", "GET,HEAD"),
        ("OPTIONS", "/metrics", "GET,HEAD"),
        ("PUT", "/markdown", "GET,HEAD,POST"),
        ("POST", "/openapi.json", "GET,HEAD"),
    ] {
        let answer = request(method, &server.url(), path, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{path}");
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        let description = format!("the method must be one that the header Allow names, not {method}");
        let expected = serde_json::json!({
            "code": "METHOD_NOT_ALLOWED", "error": "The method is not supported", "description": description
        });
        assert_eq!(json(&answer), expected, "{path}");
    }
    let long = request(&"X".repeat(200), &server.url(), "/health", &[], "").await;
    let shown = format!(", not {}…", "X".repeat(100));
    assert!(json(&long)["description"].as_str().unwrap().ends_with(&shown), "{:?}", long.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_takes_every_connection_is_no_reason_to_restart_the_process() {
    let port = walclock::localpg::free_port().unwrap();
    let (url, flags) = (database().await, ["--connections-max", "3"]);
    for server in [
        Server::start_flagged(&url, &folder(), &flags).await,
        Server::start_managed(&url, &folder(), &flags, port).await,
    ] {
        let management = server.management_url();
        let mut crowd = Vec::new();
        for base in [server.url(), management.clone()] {
            for _ in 0..3 {
                crowd.push(connected(&base).await);
            }
        }
        // Earlier calls may still have a place for a moment.
        let full = async || (get(&server.url(), "/changes", &[]).await.status == 503).then_some(());
        eventually(PATIENCE, "there is no place left", full).await;
        // A place of theirs that one of the crowd came too early for is taken by another.
        eventually(PATIENCE, "there is no place left for management", async || {
            if get(&management, "/metrics", &[]).await.status == 503 {
                return Some(());
            }
            crowd.push(connected(&management).await);
            None
        })
        .await;
        for path in ["/health", "/ready"] {
            let answer = get(&management, path, &[]).await;
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
            assert_eq!(answer.header("connection"), "close");
        }
        let verbose = get(&management, "/ready?verbose", &[("accept", "application/json")]).await;
        assert_eq!(json(&verbose)["status"], "Ready");
        assert_eq!(get(&management, "/health", &[("walclock-fence", "1")]).await.status, 403);
        let refused = get(&server.url(), "/changes", &[]).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
        drop(crowd);
        let free = async || (get(&server.url(), "/changes", &[]).await.status == 200).then_some(());
        eventually(PATIENCE, "there is a place again", free).await;
    }
}

/// A connection that asks for nothing.
async fn connected(url: &str) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_leaves_files_for_the_process_itself() {
    let url = database().await;
    let server = Server::spawn_within_files(256, &url, &folder());
    server.until_ready().await;
    for warning in [
        "--connections-max is 50000, and only 256 files may be open: at most 64 connections are held",
        "--callbacks-max is 16384, and only 256 files may be open: at most 64 callbacks are under way",
    ] {
        assert!(server.log().contains(warning), "{}", server.log());
    }
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(connected(&server.url()).await);
    }
    // They are taken in their order: all of the crowd has been by then.
    assert_eq!(get(&server.url(), "/health", &[]).await.status, 200);
    // More callbacks are due than there are files, and none is answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let insert = format!(
        "insert into walclock.timers (namespace, id, execute_at, callback_url)
         select 'shop', n::text, now(), 'http://{}/' from generate_series(1, 300) n",
        silent.local_addr().unwrap()
    );
    let sql = connect(&url).await;
    sql.batch_execute(&insert).await.unwrap();
    let fd = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    let open = || std::fs::read_dir(&fd).unwrap().count();
    eventually(PATIENCE, "as many are called as may be", async || (open() > 64 + 56).then_some(())).await;
    let running = sql.query_one("select count(*) from walclock.runs where state = 'running'", &[]).await.unwrap();
    assert!(running.get::<_, i64>(0) <= 64, "{running:?}");
    assert!(open() <= 256 - 32, "{} files are open", open());
    assert_eq!(get(&server.url(), "/health", &[]).await.status, 200);
    for complaint in ["accepting a connection", "Too many open files"] {
        assert!(!server.log().contains(complaint), "{}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_lasts_is_one_line_of_the_log_and_ready_says_why() {
    let folder = folder();
    let url = database().await;
    migrate(&url);
    let server = Server::spawn_unmigrated(&url, &folder, &["--publication", "nowhere"]);
    let tried_again = async || {
        let answer = try_request("GET", &server.url(), "/metrics", &[], "").await?;
        let metrics = String::from_utf8(answer.body.to_vec()).unwrap();
        let tries = metrics.lines().find_map(|line| line.strip_prefix("walclock_feed_reconnects_total "));
        tries.is_some_and(|tries| tries.parse::<f64>().unwrap() >= 4.0).then_some(())
    };
    eventually(PATIENCE, "the feed has tried four times", tried_again).await;
    let log = std::fs::read_to_string(folder.with_extension("log")).unwrap();
    assert_eq!(log.matches("no change feed for now").count(), 1, "{log}");

    let verbose = get(&server.url(), "/ready?verbose", &[]).await;
    let text = String::from_utf8(verbose.body.to_vec()).unwrap();
    assert_eq!(verbose.status, 503);
    assert!(text.contains("\nfeed: not ready: starting: publication nowhere does not exist"), "{text}");
    assert!(text.contains("\ndatabase: ready\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marked_down_server_answers_health_alone_and_takes_its_slot_along() {
    let url = database().await;
    let folder = folder();
    let server = Server::start(&url, &folder).await;
    let waiting = tokio::spawn({
        let base = server.url();
        async move { get(&base, "/changes?scope=nobody&block=60", &[]).await }
    });
    let waits = async || {
        let metrics = String::from_utf8(get(&server.url(), "/metrics", &[]).await.body.to_vec()).unwrap();
        let waiters = metrics.lines().find_map(|line| line.strip_prefix("walclock_waiters "));
        // The dispatcher of the process waits, too.
        waiters.is_some_and(|waiters| waiters.parse::<f64>().unwrap() >= 2.0).then_some(())
    };
    eventually(PATIENCE, "the reader waits", waits).await;

    assert_eq!(get(&server.url(), "/markdown", &[]).await.status, 200);
    let released = waiting.await.unwrap();
    assert_eq!((released.status, &json(&released)["changes"]), (200, &serde_json::json!([])));
    assert_eq!(get(&server.url(), "/health", &[]).await.status, 200);
    for path in ["/ready", "/changes", "/changes?block=60", "/api/v1/timers/create", "/nowhere"] {
        let answer = get(&server.url(), path, &[]).await;
        assert_eq!((answer.status, &answer.body[..]), (503, &b"Marked down"[..]), "{path}");
        assert!(answer.header("content-type").starts_with("text/plain"), "{path}");
        let answer = get(&server.url(), path, &[("accept", "application/json")]).await;
        let expected = serde_json::json!({"status": "NotReady", "reason": "Marked down"});
        assert_eq!((answer.status, json(&answer)), (503, expected), "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
    }

    let slots = "select count(*) from pg_replication_slots where slot_name = $1";
    let slot = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let sql = connect(&url).await;
    let count = async || sql.query_one(slots, &[&slot]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count().await, 1, "until it exits");
    assert_eq!(server.terminate().await, 0);
    assert_eq!(count().await, 0, "the slot goes with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mark_down_the_slot_stays() {
    let url = database().await;
    let folder = folder();
    let server = Server::start(&url, &folder).await;
    assert_eq!(server.terminate().await, 0);
    let slot = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let count = "select count(*) from pg_replication_slots where slot_name = $1";
    let sql = connect(&url).await;
    assert_eq!(sql.query_one(count, &[&slot]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn markdown_works_by_post_and_not_by_delete() {
    let server = Server::start(&database().await, &folder()).await;
    let refused = request("DELETE", &server.url(), "/markdown", &[], "").await;
    assert_eq!(refused.status, 405);
    assert_eq!(get(&server.url(), "/ready", &[]).await.status, 200);
    assert_eq!(request("POST", &server.url(), "/markdown", &[], "").await.status, 200);
    assert_eq!(get(&server.url(), "/ready", &[]).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_its_own_takes_the_management_calls_along_and_no_prefix_covers_them() {
    let port = walclock::localpg::free_port().unwrap();
    let server = Server::start_managed(&database().await, &folder(), &["--path-prefix", "/feed"], port).await;
    let management = server.management_url();
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(get(&management, path, &[]).await.status, 200, "{path}");
        assert_eq!(get(&server.url(), path, &[]).await.status, 404, "{path}");
        assert_eq!(get(&server.url(), &format!("/feed{path}"), &[]).await.status, 404, "{path}");
    }
    assert_eq!(get(&management, "/changes", &[]).await.status, 404);
    assert_eq!(get(&server.url(), "/changes", &[]).await.status, 404);
    assert_eq!(get(&server.url(), "/feed/changes", &[]).await.status, 200);
    let unknown = json(&get(&server.url(), "/feed/nope", &[]).await)["description"].to_string();
    assert!(unknown.starts_with("\"there is nothing at /feed/nope: "), "{unknown}");

    assert_eq!(get(&management, "/markdown", &[]).await.status, 200);
    assert_eq!(get(&management, "/ready", &[]).await.status, 503);
    assert_eq!(get(&server.url(), "/feed/changes", &[]).await.status, 503);
    for path in ["/health", "/metrics"] {
        assert_eq!(get(&management, path, &[]).await.status, 200, "{path}: still read");
        assert_eq!(get(&server.url(), path, &[]).await.status, 503, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_cannot_manage_the_process_that_makes_it() {
    let url = database().await;
    let server = Server::start(&url, &folder()).await;
    for path in ["/health", "/ready", "/markdown", "/metrics"] {
        assert_eq!(get(&server.url(), path, &[("walclock-fence", "1")]).await.status, 403, "{path}");
    }
    let sql = connect(&url).await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url) values ('a', 'a', now(), $1)";
    sql.execute(insert, &[&format!("{}/markdown", server.url())]).await.unwrap();
    let refused = async || {
        let query = "select last_error from walclock.timer_status where id = 'a' and status = 'failed'";
        sql.query_opt(query, &[]).await.unwrap().map(|row| row.get::<_, String>(0))
    };
    let error = eventually(PATIENCE, "the callback is refused", refused).await;
    assert!(error.contains("403"), "{error}");
    assert_eq!(get(&server.url(), "/ready", &[]).await.status, 200, "nobody has marked it down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_not_ready_and_says_what_to_do() {
    let url = database().await;
    let server = Server::spawn_unmigrated(&url, &folder(), &[]);
    let told = async || {
        let (status, body) = server.ready().await?;
        let text = String::from_utf8(body.to_vec()).unwrap();
        (status == 503 && text.contains("run `walclock migrate`")).then_some(())
    };
    eventually(PATIENCE, "it says what is missing", told).await;
    assert_eq!(get(&server.url(), "/health", &[]).await.status, 200);
    migrate(&url);
    server.until_ready().await;
}

/// Before there is a slot, an answer would promise changes that nobody keeps.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_refused_until_the_feed_has_begun() {
    let url = database().await;
    let server = Server::spawn_unmigrated(&url, &folder(), &[]);
    let answers = async || server.ready().await;
    assert_eq!(eventually(PATIENCE, "it answers", answers).await.0, 503);
    let (status, body) = server.get("/changes?scope=a").await;
    assert_eq!((status, body["code"].as_str()), (503, Some("NOT_READY")));
    migrate(&url);
    server.until_ready().await;
    let (status, body) = server.get("/changes?scope=a").await;
    assert_eq!((status, body["lastSequence"].as_str()), (200, Some("0.0.0")));
}
