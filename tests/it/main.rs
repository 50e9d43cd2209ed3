//! Integration tests: real PostgreSQL, real sockets. Each test has its own database, made from a template.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]

mod bulk;
mod changes;
mod chaos;
mod cli;
#[path = "../contract/mod.rs"]
mod contract;
mod degraded;
mod delivery;
mod disk;
mod dispatch;
mod end_to_end;
mod faults;
mod firing;
mod journal;
mod manage;
mod namespaces;
mod openapi;
mod pgoutput;
mod retention;
mod ring;
mod schedules;
mod several;
mod snapshots;
mod source;
mod store;
mod support;
mod timers;
mod wired;

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_a_shard_is_the_databases() {
    let client = support::connect(&support::database().await).await;
    let texts: Vec<String> = (0..200).map(|length| "walclock/ü-".chars().cycle().take(length).collect()).collect();
    let rows = client.query("select t, hashtextextended(t, 0) from unnest($1::text[]) t", &[&texts]).await.unwrap();
    for row in rows {
        let (text, hash): (String, i64) = (row.get(0), row.get(1));
        assert_eq!(walclock::domain::hash::hash_text(text.as_bytes(), 0).cast_signed(), hash, "{text}");
    }
}
