//! A process that is out of files: it has made no attempt, and neither its timers nor their hosts pay for that.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::receiver::{Receiver, ok};
use crate::support::server::{Server, folder, migrate};
use crate::support::{PATIENCE, connect, database, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_files_puts_its_callbacks_off_and_counts_no_attempt() {
    let url = database().await;
    migrate(&url);
    // A single failure would have a host spared.
    let server = Server::spawn_unmigrated(&url, &folder(), &["--callbacks-per-host-failures", "1"]);
    server.until_ready().await;
    let sql = connect(&url).await;
    let set = async |id: &str, callback_url: &str| {
        let insert = format!(
            "insert into walclock.timers (namespace, id, execute_at, callback_url)
             values ('shop', '{id}', now(), '{callback_url}')"
        );
        sql.batch_execute(&insert).await.unwrap();
    };
    // What it needs of the database is there when it has called once.
    let mut first = Receiver::start(|_, _| ok()).await;
    set("first", &first.url()).await;
    first.request().await;

    // What is open stays so, and nothing more can be opened.
    let none = Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(server.pid()), Resource::Nofile, none).unwrap();
    let mut second = Receiver::start(|_, _| ok()).await;
    set("by-address", &second.url()).await;
    set("by-name", "http://nobody.invalid/").await;
    let put_off = async || {
        let row = sql
            .query_one(
                "select count(*) from walclock.timers
                 where attempts = 0 and last_error like 'not sent: no file, port or memory for a connection: %'",
                &[],
            )
            .await
            .unwrap();
        (row.get::<_, i64>(0) == 2).then_some(())
    };
    eventually(PATIENCE, "both are put off, and no attempt is counted", put_off).await;
    assert!(server.log().contains("a callback is put off"), "{}", server.log());
    assert!(!server.log().contains("a host fails again and again"), "{}", server.log());
    prlimit(Some(server.pid()), Resource::Nofile, before).unwrap();
    assert_eq!(second.request().await.headers["walclock-attempt"], "1");
    let short = server.metric(r#"walclock_delivery_shortages_total{what="sockets"}"#).await;
    assert!(short.is_some_and(|count| count >= 2.0), "{short:?}");
}
