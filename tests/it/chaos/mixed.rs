//! Everything at once, by a seed: each step is a fault, and the load never stops.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use walclock::localpg::Cluster;

use super::proxy::{End, Proxy, Weather};
use super::world::{PATIENCE, World, slot, soak};
use crate::support::{connect, eventually, new_cluster};

/// Faults of the short run.
const STEPS: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn any_faults_in_any_order() {
    let settings = [("fsync", "on"), ("wal_sender_timeout", "2s")];
    let cluster = tokio::task::spawn_blocking(move || new_cluster(&settings)).await.unwrap();
    let database = cluster.url("postgres");
    let proxy = Proxy::start(cluster.port()).await;
    let world = World::start(&database, &proxy.url(&database)).await;
    let mut chaos = Chaos { world, proxy, cluster: Some(cluster), gaps: 0 };
    for _ in 0..STEPS * soak() {
        let pause = chaos.world.span(0..400);
        tokio::time::sleep(pause).await;
        chaos.step().await;
    }
    chaos.proxy.set(Weather::default());
    chaos.world.progress(20).await;
    let histories = chaos.world.finish().await;
    let sent_back = histories.iter().map(|history| history.lives.len() - 1).max().unwrap_or_default();
    assert!(sent_back <= chaos.gaps, "a reader was sent back {sent_back} times at {} gaps", chaos.gaps);
}

struct Chaos {
    world: World,
    proxy: Proxy,
    cluster: Option<Cluster>,
    /// How often changes were really lost.
    gaps: usize,
}

impl Chaos {
    async fn step(&mut self) {
        match self.world.rng.u8(0..12) {
            0 | 1 => {
                self.proxy.set(Weather::default());
                self.world.kill().await;
                self.world.restart();
            }
            2 => self.crash().await,
            3 => {
                let pid = self.world.server().pid();
                kill_process(pid, Signal::STOP).unwrap();
                let frozen = self.world.span(100..3000);
                tokio::time::sleep(frozen).await;
                kill_process(pid, Signal::CONT).unwrap();
            }
            4 => self.proxy.end(End::Cut),
            5 => self.proxy.end(End::Reset),
            6 => self.proxy.end(End::HalfClose),
            7 => self.proxy.end(End::Forget),
            8 | 9 => {
                let rng = &mut self.world.rng;
                let (up_stalls, down_stalls) = (rng.bool(), rng.bool());
                let (piece_bytes_max, delay) = (rng.usize(0..9), Duration::from_micros(rng.u64(0..100)));
                self.proxy.set(Weather { up_stalls, down_stalls, piece_bytes_max, delay });
                let stalled = self.world.span(100..2500);
                tokio::time::sleep(stalled).await;
                self.proxy.set(Weather::default());
            }
            10 => drop(self.world.join().await),
            _ => self.lose_the_slot().await,
        }
    }

    async fn crash(&mut self) {
        let mut cluster = self.cluster.take().unwrap();
        let crash = tokio::task::spawn_blocking(move || {
            cluster.crash();
            cluster.restart().unwrap();
            cluster
        });
        self.cluster = Some(crash.await.unwrap());
    }

    /// Somebody drops the slot while walclock is away: what is committed until it is back is lost, and must be told.
    async fn lose_the_slot(&mut self) {
        self.proxy.set(Weather::default());
        self.world.kill().await;
        let sql = connect(&self.world.database).await;
        // What was on its way through the network at the kill may take the slot for a moment more.
        let dropped = async || sql.execute("select pg_drop_replication_slot($1)", &[&self.world.slot()]).await.ok();
        eventually(PATIENCE, "the slot is dropped", dropped).await;
        self.world.restart();
        self.gaps += 1;
        if self.world.rng.bool() {
            // Killed again between the slot and the journal's new beginning: the slot is ahead, and nobody told it to be.
            let made = async || slot(&sql, self.world.slot()).await.map(drop);
            eventually(PATIENCE, "the slot is made anew", made).await;
            self.world.kill_unchecked();
            self.world.restart();
        }
        let streams = async || {
            let (_, pid) = slot(&sql, self.world.slot()).await?;
            let walsender = "select from pg_stat_replication where pid = $1 and state = 'streaming'";
            sql.query_opt(walsender, &[&pid?]).await.ok()?.map(drop)
        };
        eventually(PATIENCE, "it streams anew", streams).await;
    }
}
