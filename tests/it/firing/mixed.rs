//! Everything at once, by a seed: each step is a fault, and the load never stops.

use walclock::localpg::Cluster;

use super::sink::Mood;
use super::world::{Node, PATIENCE, World};
use crate::chaos::proxy::{End, Proxy, Weather};
use crate::chaos::soak;
use crate::support::server::migrate;
use crate::support::{connect, eventually, new_cluster};

/// Faults of the short run.
const STEPS: usize = 12;
const NODES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn any_faults_in_any_order() {
    let settings = [("fsync", "on"), ("wal_sender_timeout", "3s")];
    let cluster = tokio::task::spawn_blocking(move || new_cluster(&settings)).await.unwrap();
    let database = cluster.url("postgres");
    migrate(&database);
    let mut proxies = Vec::new();
    for _ in 0..NODES {
        proxies.push(Proxy::start(cluster.port()).await);
    }
    let nodes = proxies.iter().map(|proxy| Node::new(&proxy.url(&database), &[])).collect();
    let mut world = World::start_with(&database, nodes).await;
    world.load();
    let mut chaos = Chaos { world, proxies, cluster: Some(cluster) };
    for _ in 0..STEPS * soak() {
        let pause = chaos.world.span(0..400);
        tokio::time::sleep(pause).await;
        chaos.step().await;
    }
    let Chaos { mut world, .. } = chaos;
    for at in 0..NODES {
        world.restart(at);
    }
    world.finish().await;
}

struct Chaos {
    world: World,
    proxies: Vec<Proxy>,
    cluster: Option<Cluster>,
}

impl Chaos {
    async fn step(&mut self) {
        let at = self.world.rng.usize(0..NODES);
        let runs = self.world.nodes[at].server.is_some();
        self.world.broken("one of many");
        match self.world.rng.u8(0..12) {
            _ if !runs => self.world.restart(at),
            0 | 1 => self.world.kill(at),
            2 => {
                self.world.kill(at);
                self.world.restart(at);
            }
            3 | 4 => {
                self.world.freeze(at);
                let frozen = self.world.span(100..5_000);
                tokio::time::sleep(frozen).await;
                self.world.thaw(at);
            }
            5 => self.proxies[at].end(End::Cut),
            6 => self.proxies[at].end(End::Reset),
            7 => self.proxies[at].end(End::HalfClose),
            8 => self.proxies[at].end(End::Forget),
            9 => {
                let (up_stalls, down_stalls) = (self.world.rng.bool(), self.world.rng.bool());
                self.proxies[at].set(Weather { up_stalls, down_stalls, ..Weather::default() });
                let stalled = self.world.span(100..4_000);
                tokio::time::sleep(stalled).await;
                self.proxies[at].set(Weather::default());
            }
            10 => self.crash().await,
            _ => {
                self.world.sink.set(Mood::Held);
                let held = self.world.span(100..1_500);
                tokio::time::sleep(held).await;
                self.world.sink.set(Mood::Well);
                self.lose_the_slot(at).await;
            }
        }
    }

    async fn crash(&mut self) {
        self.world.crashes();
        let mut cluster = self.cluster.take().unwrap();
        let crash = tokio::task::spawn_blocking(move || {
            cluster.crash();
            cluster.restart().unwrap();
            cluster
        });
        self.cluster = Some(crash.await.unwrap());
    }

    /// Somebody drops the slot of a process that is away.
    async fn lose_the_slot(&mut self, at: usize) {
        self.world.kill(at);
        let sql = connect(&self.world.database).await;
        let drop_it = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
        let slot = self.world.nodes[at].slot().to_owned();
        let dropped = async || sql.execute(drop_it, &[&slot]).await.ok();
        eventually(PATIENCE, "the slot is dropped", dropped).await;
        self.world.restart(at);
    }
}
