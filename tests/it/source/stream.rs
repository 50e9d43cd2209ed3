//! Slots and the stream itself.

use std::time::Duration;

use walclock::domain::sequence::Lsn;
use walclock::feed::source::{self, Connection, Error, Event, Position, Server, Stream, Walsender};

use super::{PATIENCE, config, connect, publish_notes};
use crate::support;

/// Reads until a Commit of pgoutput, and gives the tags of all messages up to it. Descriptions of relations are left
/// out: they come again whenever a catalog's cache is emptied.
async fn read_transaction(stream: &mut Stream) -> String {
    let mut tags = String::new();
    let read = async {
        loop {
            while let Some(event) = stream.next_event().unwrap() {
                if let Event::Data { payload, .. } = event {
                    if payload[0] != b'R' {
                        tags.push(char::from(payload[0]));
                    }
                    if payload[0] == b'C' {
                        return;
                    }
                }
            }
            stream.fill().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap();
    tags
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_made_streamed_from_and_dropped() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let config = config(&url);
    let (server, connection, facts) = connect(&config.settings).await;
    let from = server.create_slot(&config.slot, &facts, PATIENCE).await.unwrap();
    let slot = server.slot(&config.slot, config.settings.config().get_dbname().unwrap()).await.unwrap().unwrap();
    assert_eq!((slot.confirmed, slot.active_pid, slot.lost), (from, None, None));

    let (mut stream, mut reports) = source::start(connection, &config.slot, &config.publications, from).await.unwrap();
    client.batch_execute("insert into notes values (1, 'a', 's'), (2, 'b', 's')").await.unwrap();
    assert_eq!(read_transaction(&mut stream).await, "BIIC");
    client.batch_execute("begin; update notes set body = 'c'; truncate notes; commit").await.unwrap();
    assert_eq!(read_transaction(&mut stream).await, "BUUTC");
    server.heartbeat().await.unwrap();

    // A second reader is told who has the slot.
    let second = Connection::open(&config.settings).await.unwrap();
    let error = source::start(second, &config.slot, &config.publications, from).await.err().unwrap();
    assert!(error.to_string().contains(&stream.pid().to_string()), "{error}");
    assert_eq!(error.code(), Some("55006"));
    assert!(error.may_heal());

    // What is acknowledged is what the slot forgets, and only that.
    let position = Position { received: Lsn(u64::MAX >> 1), acknowledged: Lsn(from.0 + 1) };
    reports.send(position, false).await.unwrap();
    let database = config.settings.config().get_dbname().unwrap();
    support::eventually(PATIENCE, "the slot moves", async || {
        let slot = server.slot(&config.slot, database).await.unwrap().unwrap();
        (slot.confirmed == position.acknowledged).then_some(())
    })
    .await;

    let pid = stream.pid();
    assert_ne!(server.walsender(pid).await.unwrap(), Walsender::Gone);
    reports.end().await.unwrap();
    stream.drain().await;
    support::eventually(PATIENCE, "the walsender goes", async || {
        (server.walsender(pid).await.unwrap() == Walsender::Gone).then_some(())
    })
    .await;
    source::drop_slot(&config.settings, &config.slot).await.unwrap();
    source::drop_slot(&config.settings, &config.slot).await.unwrap();
    assert_eq!(server.slot(&config.slot, database).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_and_many_rows_arrive_whole() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let config = config(&url);
    let (server, connection, facts) = connect(&config.settings).await;
    let from = server.create_slot(&config.slot, &facts, PATIENCE).await.unwrap();
    let sql = "insert into notes select n, repeat('x', case when n = 500 then 3000000 else n % 7 end) \
               from generate_series(1, 20000) n";
    client.batch_execute(sql).await.unwrap();
    let (mut stream, reports) = source::start(connection, &config.slot, &config.publications, from).await.unwrap();
    let tags = read_transaction(&mut stream).await;
    assert_eq!(tags, format!("B{}C", "I".repeat(20_000)));
    reports.end().await.unwrap();
    stream.drain().await;
    source::drop_slot(&config.settings, &config.slot).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_waits_names_who_is_in_the_way() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let config = config(&url);
    let (server, _, facts) = connect(&config.settings).await;
    client.batch_execute("begin; insert into other values (1)").await.unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let error = server.create_slot(&config.slot, &facts, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(&error, Error::SlotWaits { pids, .. } if pids.contains(&pid.to_string())), "{error}");
    assert!(error.may_heal());
    // Nothing of the attempt is left, and the next one succeeds.
    client.batch_execute("commit").await.unwrap();
    let name = config.settings.config().get_dbname().unwrap();
    assert_eq!(server.slot(&config.slot, name).await.unwrap(), None);
    server.create_slot(&config.slot, &facts, PATIENCE).await.unwrap();
    server.drop_slot(&config.slot).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_slots_and_missing_publications_are_named() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let config = config(&url);
    let server = Server::connect(&config.settings).await.unwrap();
    let name = config.settings.config().get_dbname().unwrap();
    let sql = format!(
        "select pg_create_logical_replication_slot('{slot}', 'test_decoding');
         select pg_create_physical_replication_slot('{slot}_physical')",
        slot = config.slot
    );
    client.batch_execute(&sql).await.unwrap();
    for (slot, part) in [(config.slot.clone(), "test_decoding"), (format!("{}_physical", config.slot), "physical")] {
        let error = server.slot(&slot, name).await.unwrap_err();
        assert!(matches!(error, Error::ForeignSlot { .. }) && !error.may_heal(), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        server.drop_slot(&slot).await.unwrap();
    }
    let wanted = ["feed", "gone", "away"].map(str::to_owned);
    let error = server.check_publications(&wanted).await.unwrap_err();
    assert!(matches!(&error, Error::NoPublication { names } if names == "gone, away"), "{error}");
    server.check_publications(&wanted[..1]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_stream_say_what_to_change() {
    let no_wal = tokio::task::spawn_blocking(|| support::new_cluster(&[("wal_level", "replica")])).await.unwrap();
    let settings = walclock::pg::Settings::parse(&no_wal.url("postgres")).unwrap();
    let error = Server::connect(&settings).await.unwrap().facts().await.unwrap_err();
    assert!(error.to_string().contains("set wal_level = logical"), "{error}");
    assert!(!error.may_heal());

    let one_slot = [("max_replication_slots", "1"), ("max_wal_senders", "1")];
    let full = tokio::task::spawn_blocking(move || support::new_cluster(&one_slot)).await.unwrap();
    let settings = walclock::pg::Settings::parse(&full.url("postgres")).unwrap();
    let (server, _walsender, facts) = connect(&settings).await;
    server.create_slot("first", &facts, PATIENCE).await.unwrap();
    let error = server.create_slot("second", &facts, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("max_replication_slots"), "{error}");
    assert!(error.may_heal());
    let error = Connection::open(&settings).await.err().unwrap();
    assert!(error.to_string().contains("max_wal_senders"), "{error}");
    assert!(error.may_heal());
}
