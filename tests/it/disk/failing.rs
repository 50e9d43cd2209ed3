//! A disk that fails, and a file system that turns read-only, under the whole server: what is served stays, nothing is
//! acknowledged meanwhile, and all goes on once it works again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::support::server::{Server, folder, migrate};
use super::super::support::{PATIENCE, connect, database, eventually, http, say_skipped, scratch};
use super::{Reader, TABLE, confirmed, insert};

/// Segments of 4 MiB, so that the next one soon has to be made.
const SMALL: [&str; 2] = ["--max-size", "16MiB"];

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_turns_read_only_stops_nothing_but_the_way_in() {
    let (url, folder) = (database().await, folder());
    let Some(server) = Server::spawn_on_disk(&url, &folder, 64 << 20, 0, &SMALL) else {
        return say_skipped(
            "a_file_system_that_turns_read_only_stops_nothing_but_the_way_in",
            "this machine does not permit a disk for a test",
        );
    };
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
    let Some(library) = library() else {
        return say_skipped(
            "a_disk_that_fails_stops_nothing_but_the_way_in",
            "no C compiler, or nothing to preload into",
        );
    };
    for (call, error) in [("sync", "Input/output error"), ("write", "Read-only file system")] {
        let (url, folder) = (database().await, folder());
        let faults = folder.with_extension("faults");
        std::fs::create_dir_all(&faults).unwrap();
        let preload = [("LD_PRELOAD", &library), ("DISK_FAULTS", &faults)];
        let preload = preload.map(|(name, path)| (name.to_owned(), path.clone()));
        migrate(&url);
        let server = Server::spawn_among(&preload, &url, &folder, &SMALL);
        let switch = faults.join(call);
        let set = move |_: &Server, fails: bool| match fails {
            true => drop(std::fs::File::create(&switch).unwrap()),
            false => std::fs::remove_file(&switch).unwrap(),
        };
        stops_and_goes_on(&url, &folder, server, error, set).await;
    }
}

/// Builds what is preloaded, and tries it. None where that cannot be done.
fn library() -> Option<PathBuf> {
    let library = scratch().join("failing.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/disk/failing.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
    let works = |command: &mut Command| command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    // A loader that cannot preload says so, and goes on without.
    let faults = scratch().join("faults");
    std::fs::create_dir_all(&faults).unwrap();
    std::fs::write(faults.join("sync"), "").unwrap();
    let mut sync = Command::new("sync");
    sync.arg("-d").arg(&faults);
    let syncs = cfg!(target_env = "gnu") && works(&mut compile) && works(&mut sync);
    sync.env("LD_PRELOAD", &library).env("DISK_FAULTS", &faults);
    (syncs && !works(&mut sync)).then_some(library)
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

    set(&server, true);
    insert(&sql, 500..2500).await;
    let stopped = async || {
        reader.catch_up(&server).await;
        let ready = http::try_request("GET", &server.management_url(), "/ready?verbose", &[], "").await?;
        let says = String::from_utf8(ready.body.to_vec()).unwrap();
        let is_said = says.lines().any(|line| line.starts_with("feed: ") && line.contains(error));
        // The connection is given up, and with it the last word on what may be forgotten.
        let query = "select from pg_replication_slots where slot_name = $1 and active_pid is null";
        let is_released = sql.query_opt(query, &[&slot]).await.unwrap().is_some();
        (is_said && is_released).then_some(())
    };
    eventually(PATIENCE, "it says why it takes no more", stopped).await;
    assert!(server.get("/health").await.0 == 200, "a restart would not help");
    let stuck = confirmed(&sql, slot).await;
    insert(&sql, 2500..3000).await;
    reader.catch_up(&server).await;
    assert!(reader.ids.len() >= 500 && reader.ids.len() < 2500, "{} of 3000", reader.ids.len());
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
