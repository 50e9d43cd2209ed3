//! The dispatcher's statements go by index, whatever the tables held when they were planned.

use tokio_postgres::Client;
use walclock::domain::shard::Shard;

use super::world::Postgres;
use crate::contract;
use crate::support;

const STATEMENTS: &[(&str, &str)] = &[
    ("load", include_str!("../../../sql/queries/timers/load_entries.sql")),
    ("claim", include_str!("../../../sql/queries/timers/claim.sql")),
    ("claim_one", include_str!("../../../sql/queries/timers/claim_one.sql")),
    ("find_left", include_str!("../../../sql/queries/timers/find_left.sql")),
    ("forget", include_str!("../../../sql/queries/runs/forget.sql")),
    ("adopt", include_str!("../../../sql/queries/runs/adopt.sql")),
    ("finish", include_str!("../../../sql/queries/runs/finish.sql")),
    ("put_back", include_str!("../../../sql/queries/runs/put_back.sql")),
];

/// A session like those of the dispatcher, with its statements prepared.
async fn session(world: &Postgres) -> Client {
    let client = support::connect(&world.url).await;
    for settings in [
        include_str!("../../../sql/queries/session/open.sql"),
        include_str!("../../../sql/queries/session/dispatch.sql"),
    ] {
        client.batch_execute(settings).await.unwrap();
    }
    for (name, sql) in STATEMENTS {
        client.batch_execute(&format!("prepare {name} as {sql}")).await.unwrap();
    }
    client
}

async fn lines(client: &Client, explain: &str) -> Vec<String> {
    client.query(explain, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_made_on_empty_tables_go_by_index() {
    let world = Postgres::new().await;
    world.client.batch_execute("vacuum analyze walclock.timers").await.unwrap();
    let client = session(&world).await;
    for (name, _) in STATEMENTS {
        let count = "select cardinality(parameter_types) from pg_prepared_statements where name = $1";
        let count: i32 = client.query_one(count, &[name]).await.unwrap().get(0);
        let nulls = vec!["null"; usize::try_from(count).unwrap()].join(", ");
        let plan = lines(&client, &format!("explain (costs off) execute {name} ({nulls})")).await;
        assert!(plan.iter().any(|line| line.contains("Index")), "{name}: {plan:#?}");
        for bad in ["Seq Scan on", "Hash Join", "Merge Join", "Bitmap"] {
            assert!(plan.iter().all(|line| !line.contains(bad)), "{name}: {plan:#?}");
        }
        // A look-up by key, not a walk over the index. (The claims may be walked: they are few.)
        for (place, line) in plan.iter().enumerate() {
            let condition = plan.get(place + 1).map_or("", String::as_str);
            let is_look_up = condition.contains("Index Cond")
                && (!line.contains("_pkey")
                    || line.contains("shards_pkey")
                    || condition.contains("(name = ")
                    || condition.contains("namespace = "));
            let is_scan = line.contains("Index Scan using") || line.contains("Index Only Scan using");
            assert!(!is_scan || is_look_up || line.contains("claims_pkey"), "{name}: {line}: {plan:#?}");
            assert!(!line.contains("timers_by_due") || *name == "load", "{name}: {plan:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_reads_a_page_and_not_the_table() {
    let world = Postgres::new().await;
    let client = session(&world).await;
    let load = "execute load (decode(repeat('ff', 32), 'hex'), '2030-01-01 00:10+00', '', '', '2040-01-01', 500)";
    // Plans it while there is nothing.
    client.batch_execute(load).await.unwrap();
    let fill = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                select 'space', 'timer-' || n, timestamptz '2030-01-01 00:00+00' + n * interval '10 ms', 'http://localhost'
                from generate_series(1, 100000) n";
    world.client.batch_execute(fill).await.unwrap();
    // The whole table would be 100,000 rows on more than 2,000 pages.
    let plan = lines(&client, &format!("explain (analyze, buffers, costs off, timing off) {load}")).await;
    assert!(plan[0].contains("rows=500"), "{plan:#?}");
    assert!(pages(&plan) < 1000, "{plan:#?}");
}

/// How many pages this plan has read.
fn pages(plan: &[String]) -> u32 {
    let buffers = plan.iter().find_map(|line| line.trim().strip_prefix("Buffers: shared ")).unwrap();
    buffers.split(' ').filter_map(|part| part.split('=').nth(1)?.parse::<u32>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_looks_up_the_runs_of_its_own_shards_only() {
    let world = Postgres::new().await;
    let client = session(&world).await;
    let grant = contract::lease(&world, &contract::owner("a"), Shard::COUNT).await;
    let fill = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                select 'space', n::text, now(), 'http://localhost' from generate_series(1, 2000) n";
    world.client.batch_execute(fill).await.unwrap();
    for from in (1..=2000).step_by(500) {
        let keys: Vec<_> = (from..from + 500).map(|id| contract::key(&id.to_string())).collect();
        let claimed = contract::claim(&world, &contract::owner("a"), &grant, &keys.iter().collect::<Vec<_>>()).await;
        assert_eq!(claimed.runs.len(), 500);
    }
    let leave = "update walclock.shards set epoch = epoch + 1, owner = 'b' where shard = 7 returning epoch";
    let epoch: i64 = world.client.query_one(leave, &[]).await.unwrap().get(0);
    let adopt = format!(
        "explain (analyze, buffers, costs off, timing off) execute adopt ('b', '{{7}}', '{{{epoch}}}', 500, 0)"
    );
    let plan = lines(&client, &adopt).await;
    // Each look-up reads 2 at least.
    assert!(pages(&plan) < 2000, "{plan:#?}");
    let adopted = "select count(*) from walclock.runs where adopted_by = 'b'";
    assert!(world.client.query_one(adopted, &[]).await.unwrap().get::<_, i64>(0) > 0);
}
