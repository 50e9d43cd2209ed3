//! What the reads cost PostgreSQL: a few pages for each row of the answer, however much a namespace holds. A scan of a
//! whole table would look at more than a thousand.

use serde_json::Value;
use tokio_postgres::types::ToSql;

use crate::support;

const GET: &str = include_str!("../../../sql/queries/timers/get.sql");
const LIST: &str = include_str!("../../../sql/queries/timers/list.sql");

/// 10,000 pending timers, and for each of them and 2,000 others two runs, one of today and one of yesterday.
const FILL: &str = "
    insert into walclock.timers (namespace, id, execute_at, callback_url)
    select 'n', 't' || g, now() + interval '1 day', 'http://example.com/' from generate_series(1, 10000) g;
    insert into walclock.runs
        (namespace, id, claimed_at, shard, epoch, state, execute_at, due_at, callback_url, callback_method,
         callback_headers, callback_timeout_seconds, retry_duration, retry_interval_first, retry_multiplier,
         retry_interval_max, attempts, created_at, updated_at, answered_at)
    select 'n', 't' || g, now() - day * interval '1 day', 0, 1, 'failed', now(), now(), 'http://example.com/', 'POST',
           '{}', 30, '1 h', '1 s', 2, '1 h', 1, now(), now(), now()
    from generate_series(1, 12000) g, generate_series(0, 1) day;
    update walclock.runs set state = 'succeeded' where namespace = 'n' and id = 't11999' and claimed_at > now() - interval '1 h';
    analyze walclock.timers, walclock.runs";

#[tokio::test(flavor = "multi_thread")]
async fn reads_walk_the_keys_and_stop() {
    let client = support::connect(&support::migrated().await).await;
    client.batch_execute(FILL).await.unwrap();
    let (none, pending, failed, rare) = (None::<&str>, Some("pending"), Some("failed"), Some("succeeded"));
    // Statement, parameters, rows that it answers, pages that it may look at: a few for each partition and row.
    let cases: &[(&str, &[&(dyn ToSql + Sync)], i64, i64)] = &[
        (GET, &[&"n", &"t7"], 1, 50),
        (GET, &[&"n", &"t11000"], 1, 50),
        (GET, &[&"n", &"absent"], 0, 50),
        (LIST, &[&"n", &"t2", &10_i64, &none], 10, 1000),
        (LIST, &[&"n", &"t2", &10_i64, &pending], 10, 1000),
        (LIST, &[&"n", &"t1", &10_i64, &failed], 10, 1000),
        // One among 24,000: each is looked at once.
        (LIST, &[&"n", &"", &10_i64, &rare], 1, 30_000),
    ];
    for (statement, parameters, rows, pages_max) in cases {
        let explain = format!("explain (analyze, buffers, format json)\n{statement}");
        let plan: Value = client.query_one(&explain, parameters).await.unwrap().get(0);
        let plan = &plan[0]["Plan"];
        assert_eq!(plan["Actual Rows"].as_f64(), Some(*rows as f64), "{plan:#}");
        let pages = plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
        assert!(pages <= *pages_max, "{pages} pages: {plan:#}");
    }
}
