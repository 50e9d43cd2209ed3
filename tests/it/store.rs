//! Integration: store.

use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_connects_to_a_migrated_database() {
    let url = support::migrated().await;
    let settings = walclock::pg::Settings::parse(&url).unwrap();
    assert!(walclock::store::migrate::dry_run(&settings).await.unwrap().is_empty());
    let store = walclock::store::Store::new(walclock::store::Config::new(settings)).unwrap();
    let client = store.client().await.unwrap();
    client.batch_execute("insert into walclock.timers (namespace, id, execute_at, callback_url, callback_headers) values ('n', 'a', now(), 'http://localhost/', '{\"x-y\": \"a b\\t\"}')").await.unwrap();
    for bad in [
        "{\"x y\": \"1\"}",
        "{\"x\": \"a\\nb\"}",
        "{\"x\": \"a\\u007fb\"}",
        "{\"x\": 1}",
        "{\"x\": null}",
        "{\"x\": [\"a\"]}",
        "{\"\": \"a\"}",
    ] {
        let e = client.execute("insert into walclock.timers (namespace, id, execute_at, callback_url, callback_headers) values ('n', 'b', now(), 'http://localhost/', $1::text::jsonb)", &[&bad]).await;
        assert!(e.is_err(), "{bad}");
    }
}
