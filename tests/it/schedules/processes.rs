//! Several processes over one database, some of which are killed: each moment once, and none left out.

use crate::support::receiver::Receiver;
use crate::support::server::{Server, folder, migrate};
use crate::support::{PATIENCE, connect, database, eventually};

const SCHEDULES: i64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_second_fires_once_while_processes_are_killed() {
    let (url, receiver) = (database().await, Receiver::start().await);
    migrate(&url);
    let sql = connect(&url).await;
    let folders = [folder(), folder(), folder()];
    let start = |folder: &std::path::PathBuf| Server::spawn_unmigrated(&url, folder, &[]);
    let mut servers: Vec<Server> = folders.iter().map(start).collect();
    for server in &servers {
        server.until_ready().await;
    }
    let insert = "insert into walclock.schedules (namespace, id, cron, callback_url, overlap, catch_up, catch_up_max)
                  select 'default', 's' || n, '* * * * * *', $1, 'allow', 'all', 1000 from generate_series(1, $2::bigint) n";
    sql.execute(insert, &[&receiver.url(), &SCHEDULES]).await.unwrap();
    let fired = "select count(*) from walclock.occurrences where state = 'fired'";
    let count = async || sql.query_one(fired, &[]).await.unwrap().get::<_, i64>(0);
    let reaches = async |wanted: i64| {
        eventually(PATIENCE, &format!("{wanted} have fired"), async || (count().await >= wanted).then_some(())).await;
    };
    for (victim, folder) in folders.iter().enumerate() {
        reaches(count().await + 3 * SCHEDULES).await;
        servers.remove(0).kill();
        reaches(count().await + 3 * SCHEDULES).await;
        servers.push(start(folder));
        servers[2].until_ready().await;
        assert!(victim < 3);
    }
    sql.batch_execute("update walclock.schedules set paused = true").await.unwrap();
    let over = "select count(*) from walclock.occurrences o where not exists (
                    select from walclock.runs r where r.namespace = o.namespace and r.id = o.timer_id and state = 'succeeded')";
    let all_over = async || (sql.query_one(over, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(());
    eventually(PATIENCE, "every occurrence has succeeded", all_over).await;

    // Each second of each schedule has its row from the first to the last, and each row its one run.
    let odd = "select count(*) from (
                   select scheduled_for - lag(scheduled_for) over (partition by schedule order by scheduled_for) as gap
                   from walclock.occurrences) as gaps where gap <> interval '1 second'";
    assert_eq!(sql.query_one(odd, &[]).await.unwrap().get::<_, i64>(0), 0);
    let twice = "select count(*) from (select from walclock.runs group by namespace, id having count(*) > 1) as twice";
    assert_eq!(sql.query_one(twice, &[]).await.unwrap().get::<_, i64>(0), 0);
    let rows = sql.query("select timer_id from walclock.occurrences", &[]).await.unwrap();
    let calls = receiver.by_timer();
    assert!(rows.iter().all(|row| calls.contains_key(row.get::<_, &str>(0))), "every one was called");
    assert_eq!(rows.len(), calls.len(), "and nothing else");
}
