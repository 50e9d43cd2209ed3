//! PostgreSQL itself goes away and comes back, or has no room.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio_postgres::error::SqlState;
use walclock::clock::wall;
use walclock::localpg::{Cluster, Config};

use super::ledger::{Deed, Script};
use super::world::{PATIENCE, World};
use crate::chaos::soak;
use crate::support::server::migrate;
use crate::support::{connect, eventually, new_cluster, programs, say_skipped, scratch};

async fn cluster(settings: &'static [(&'static str, &'static str)]) -> Cluster {
    let cluster = tokio::task::spawn_blocking(|| new_cluster(settings)).await.unwrap();
    migrate(&cluster.url("postgres"));
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crashes_and_restarts_under_load() {
    let mut cluster = cluster(&[("fsync", "on"), ("wal_sender_timeout", "3s")]).await;
    let mut world = World::start(&cluster.url("postgres"), 2).await;
    world.load();
    for at in 0..2 * soak() {
        world.progress(40).await;
        tokio::time::sleep(world.span(0..300)).await;
        match at % 2 {
            0 => world.crashes(),
            _ => world.broken("PostgreSQL restarts"),
        }
        let restart = tokio::task::spawn_blocking(move || {
            if at % 2 == 0 {
                cluster.crash()
            } else {
                cluster.stop()
            }
            cluster.restart().unwrap();
            cluster
        });
        cluster = restart.await.unwrap();
        world.progress(20).await;
        world.recovered().await;
    }
    world.finish().await;
}

/// The programs of PostgreSQL, of which the server sees a small disk of its own in `disk`. None where this machine does
/// not permit that.
fn on_a_small_disk(disk: &Path) -> Option<PathBuf> {
    let real = programs().or_else(|| {
        let found = Command::new("sh").args(["-c", "ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1"]).output();
        let text = String::from_utf8(found.ok()?.stdout).ok()?;
        Some(PathBuf::from(text.trim())).filter(|folder| folder.join("postgres").exists())
    })?;
    let folder = scratch().join("small-disk-programs");
    std::fs::create_dir_all(&folder).unwrap();
    let _ = std::fs::remove_file(folder.join("initdb"));
    symlink(real.join("initdb"), folder.join("initdb")).unwrap();
    // The first namespace may mount and looks like the root user's; PostgreSQL refuses to run as that.
    let script = |program: &str| {
        format!(
            "#!/bin/sh\nexec unshare -Urm sh -c 'mount -t tmpfs -o size=8m,mode=0777 tmpfs {disk} && \
             exec unshare -U --map-user=1000 {program} \"$@\"' sh \"$@\"\n",
            disk = disk.display(),
        )
    };
    let write = |name: &str, program: &str| {
        let path = folder.join(name);
        std::fs::write(&path, script(program)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let probe = write("probe", "true");
    let permitted = Command::new(probe).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    write("postgres", real.join("postgres").to_str().unwrap());
    permitted.then_some(folder)
}

/// Where the runs have no room, nothing can be claimed; timers wait, and all fire once there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_postgresql_makes_timers_wait() {
    let disk = scratch().join("small-disk");
    std::fs::create_dir_all(&disk).unwrap();
    std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o777)).unwrap();
    let Some(programs) = on_a_small_disk(&disk) else {
        return say_skipped(
            "a_full_disk_of_postgresql_makes_timers_wait",
            "this machine does not permit a disk for a test",
        );
    };
    let settings = vec![("fsync".to_owned(), "off".to_owned())];
    let config = Config { folder: scratch().join("pg-small-disk"), programs: Some(programs), settings };
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(config).unwrap()).await.unwrap();
    let database = cluster.url("postgres");
    migrate(&database);
    let sql = connect(&database).await;
    sql.batch_execute(&format!("create tablespace small location '{}'", disk.display())).await.unwrap();
    sql.batch_execute("select walclock.make_partitions()").await.unwrap();
    let today = "select format('alter table walclock.%I set tablespace small', relname) from pg_class
        where oid in (select inhrelid from pg_inherits where inhparent = 'walclock.runs'::regclass)";
    for row in sql.query(today, &[]).await.unwrap() {
        sql.batch_execute(row.get(0)).await.unwrap();
    }
    let mut world = World::start(&database, 2).await;
    world.load();
    world.progress(30).await;

    world.broken("the disk is full");
    sql.batch_execute(
        "create table filler (bytes text) tablespace small; alter table filler alter bytes set storage plain",
    )
    .await
    .unwrap();
    let full = async || {
        let more = "insert into filler select repeat('x', 4000) from generate_series(1, 4)";
        sql.batch_execute(more).await.err().filter(|error| error.code() == Some(&SqlState::DISK_FULL)).map(drop)
    };
    eventually(PATIENCE, "the disk is full", full).await;
    let mut waiting = 0;
    let refused = async || {
        for _ in 0..50 {
            let want = world.desk.want(wall(), Script::Takes);
            world.desk.by_sql(&sql, &format!("full-{waiting}"), Deed::Insert(want)).await;
            waiting += 1;
        }
        let mut failures = 0.0;
        for node in &world.nodes {
            failures +=
                node.metric("walclock_store_failures_total{doing=\"claiming timers\"}").await.unwrap_or_default();
        }
        (failures > 0.0).then_some(())
    };
    eventually(PATIENCE, "claims find no room", refused).await;
    assert!(world.nodes.iter().all(|node| node.server.is_some()));
    sql.batch_execute("drop table filler").await.unwrap();
    world.recovered().await;
    world.finish().await;
    drop(cluster);
}
