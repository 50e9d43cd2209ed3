//! A disk that fails, and a file system that turns read-only, under the whole server: what is served stays, nothing is
//! acknowledged meanwhile, and all goes on once it works again.

use std::path::Path;
use std::process::Command;

use super::super::support::server::{Server, folder, migrate};
use super::super::support::{PATIENCE, connect, database, eventually, preload, say_skipped};
use super::{Reader, TABLE, confirmed, insert, on_disk, until_acknowledged, until_given_up};

/// Segments of 4 MiB, so that the next one soon has to be made.
const SMALL: [&str; 2] = ["--max-size", "16MiB"];

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_turns_read_only_stops_nothing_but_the_way_in() {
    let name = "a_file_system_that_turns_read_only_stops_nothing_but_the_way_in";
    let Some((url, folder, server)) = on_disk(name, 64 << 20, 0, &SMALL).await else { return };
    // The server has files open for writing, so the disk itself is busy: what it opens from now on is read-only.
    let read_only = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0""#;
    let place = folder.clone();
    let set = move |server: &Server, fails: bool| {
        let script = if fails { read_only } else { r#"umount "$0""# };
        let pid = server.pid().as_raw_nonzero().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-U", "-m", "--preserve-credentials", "sh", "-c", script]).arg(&place);
        assert!(command.status().unwrap().success(), "{script}");
    };
    stops_and_goes_on(&url, &folder, server, "Read-only file system", set).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_stops_nothing_but_the_way_in() {
    let Some(library) = preload::library("disk/failing.c") else {
        return say_skipped("a_disk_that_fails_stops_nothing_but_the_way_in", "nothing can be preloaded here");
    };
    for (call, error) in [("sync", "Input/output error"), ("readonly", "Read-only file system")] {
        let (url, folder) = (database().await, folder());
        let faults = folder.with_extension("faults");
        std::fs::create_dir_all(&faults).unwrap();
        migrate(&url);
        let variables = preload::variables(&library, "DISK_FAULTS", &faults);
        let server = Server::spawn_among(&variables, &url, &folder, &SMALL);
        let switch = faults.join(call);
        let set = move |_: &Server, fails: bool| match fails {
            true => drop(std::fs::File::create(&switch).unwrap()),
            false => std::fs::remove_file(&switch).unwrap(),
        };
        stops_and_goes_on(&url, &folder, server, error, set).await;
    }
}

/// `set` lets the disk fail or work; while it fails, the server's reason names `error`.
async fn stops_and_goes_on(url: &str, folder: &Path, server: Server, error: &str, set: impl Fn(&Server, bool)) {
    server.until_ready().await;
    let slot = folder.file_name().unwrap().to_str().unwrap();
    let sql = connect(url).await;
    sql.batch_execute(TABLE).await.unwrap();
    let mut reader = Reader::new("s");
    insert(&sql, 0..500).await;
    let some = async || {
        reader.catch_up(&server).await;
        (reader.ids.len() == 500).then_some(())
    };
    eventually(PATIENCE, "it takes changes", some).await;
    // What is read is visible, which it is before it is durable; what is not durable may go when the disk fails.
    until_acknowledged(&sql, slot, &reader).await;

    set(&server, true);
    insert(&sql, 500..2500).await;
    until_given_up(&sql, slot, &server, error).await;
    assert!(server.get("/health").await.0 == 200, "a restart would not help");
    let stuck = confirmed(&sql, slot).await;
    // Where a sync takes long, all that came meanwhile was visible when it failed.
    reader.catch_up(&server).await;
    let read = reader.ids.len();
    insert(&sql, 2500..3000).await;
    reader.catch_up(&server).await;
    assert_eq!(reader.ids.len(), read, "it takes nothing more");
    let mut fresh = Reader::new("s");
    fresh.catch_up(&server).await;
    assert!(fresh.ids.starts_with(&(0..500).collect::<Vec<_>>()), "what was there is served");
    assert_eq!(confirmed(&sql, slot).await, stuck, "nothing is acknowledged");

    set(&server, false);
    let all = async || {
        reader.catch_up(&server).await;
        (reader.ids.len() >= 3000).then_some(())
    };
    eventually(PATIENCE, "it takes changes again", all).await;
    let expected: Vec<i64> = (0..3000).collect();
    assert_eq!(reader.ids, expected, "each once, and in order");
    fresh = Reader::new("s");
    fresh.catch_up(&server).await;
    assert_eq!(fresh.ids, expected, "the same from the beginning");
    server.until_ready().await;
    let acknowledged = async || (confirmed(&sql, slot).await != stuck).then_some(());
    eventually(PATIENCE, "the slot moves on", acknowledged).await;
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}
