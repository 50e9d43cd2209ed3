//! The statement that settles moments, at moments of the test's own choice: who comes too late changes nothing.

use std::time::Duration;

use tokio_postgres::Client;
use walclock::clock::Timestamp;
use walclock::dispatch::ports::{DueRequest, Planned, ScheduleStore};
use walclock::domain::limits;
use walclock::domain::schedule::plan;
use walclock::domain::shard::Shard;
use walclock::store::{Config, Store};

use crate::support::{connect, migrated};

/// A database, and a dispatcher's view of its schedules.
pub struct World {
    pub url: String,
    pub sql: Client,
    pub store: Store,
}

impl World {
    pub async fn new() -> Self {
        let url = migrated().await;
        let settings = walclock::pg::Settings::parse(&url).unwrap();
        let (sql, store) = (connect(&url).await, Store::new(Config::new(settings)).unwrap());
        Self { url, sql, store }
    }

    /// Adds a schedule of every minute; `more` are columns with their values, `overlap = 'allow'`.
    pub async fn add(&self, id: &str, more: &str) {
        let insert = "insert into walclock.schedules (namespace, id, cron, callback_url)
                      values ('n', $1, '* * * * *', 'http://127.0.0.1:9/')";
        self.sql.execute(insert, &[&id]).await.unwrap();
        if !more.is_empty() {
            self.sql.batch_execute(&format!("update walclock.schedules set {more} where id = '{id}'")).await.unwrap();
        }
    }

    /// The first whole minute later than two hours from now, and so many minutes: far from what the clock says.
    pub async fn minute(&self, number: i32) -> Timestamp {
        let ask = "select date_trunc('hour', now()) + interval '2 hours' + $1 * interval '1 minute'";
        self.sql.query_one(ask, &[&f64::from(number)]).await.unwrap().get(0)
    }

    /// What is planned at a moment, as the dispatcher of all shards does it.
    pub async fn planned(&self, now: Timestamp) -> Vec<Planned> {
        let request = DueRequest {
            shards: Shard::all().collect(),
            now,
            until: now.after(limits::SCHEDULE_LEAD),
            overdue: now,
            limit: 500,
        };
        let due = self.store.due(request).await.unwrap();
        let planned = |schedule| Planned { plan: plan(&schedule, now, limits::SCHEDULE_LEAD), schedule };
        due.schedules.into_iter().map(planned).collect()
    }

    /// One look of a dispatcher: how many schedules it settled.
    pub async fn look(&self, now: Timestamp) -> usize {
        let planned = self.planned(now).await;
        self.store.settle(&planned).await.unwrap().into_iter().flatten().count()
    }

    /// What stands with the moments of a schedule, in their order from the first that is not missed: state, and for those
    /// that are pending a mark.
    pub async fn states(&self, id: &str) -> Vec<String> {
        let ask = "select state || case when t.id is null then '' else ' (pending)' end
                   from walclock.occurrences o left join walclock.timers t on t.namespace = o.namespace and t.id = timer_id
                   where o.namespace = 'n' and schedule = $1 and reason is distinct from 'missed' order by scheduled_for";
        self.sql.query(ask, &[&id]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    pub async fn count(&self, from: &str) -> i64 {
        self.sql.query_one(&format!("select count(*) from {from}"), &[]).await.unwrap().get(0)
    }

    /// Claims all timers, so that their callbacks are under way.
    pub async fn claim_all(&self) {
        let claim = "with taken as (delete from walclock.timers returning *)
            insert into walclock.runs (
                namespace, id, claimed_at, shard, epoch, execute_at, due_at, callback_url, callback_method, callback_headers,
                callback_timeout_seconds, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
                attempts, created_at, updated_at)
            select namespace, id, clock_timestamp(), shard, 1, execute_at, due_at, callback_url, callback_method,
                callback_headers, callback_timeout_seconds, retry_duration, retry_interval_first, retry_multiplier,
                retry_interval_max, 1, created_at, updated_at from taken";
        self.sql.batch_execute(claim).await.unwrap();
    }

    /// Ends all callbacks that are under way.
    pub async fn finish_all(&self) {
        let finish = "update walclock.runs set state = 'succeeded', answered_at = now() where answered_at is null";
        self.sql.batch_execute(finish).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_has_its_row_and_its_timer() {
    let world = World::new().await;
    let more = "payload = '{\"a\": 1}', callback_timeout_seconds = 7, retry_attempts_max = 3, retry_multiplier = 1.5,
                catch_up = 'none', jitter = '1 second'";
    world.add("report", more).await;
    let minute = world.minute(0).await;
    assert_eq!(world.look(minute).await, 1);
    let ask =
        "select o.timer_id = t.id and o.scheduled_for = $1, t.id, t.execute_at between $1 and $1 + interval '1 second',
                      t.payload::text, t.callback_timeout_seconds, t.retry_attempts_max, t.retry_multiplier, s.next_at
               from walclock.timers t join walclock.occurrences o on t.id = o.timer_id
               join walclock.schedules s on s.id = o.schedule";
    let row = world.sql.query_one(ask, &[&minute]).await.unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, bool>(2));
    assert_eq!(row.get::<_, String>(1), format!("report@{minute}"));
    assert_eq!(row.get::<_, String>(3), "{\"a\": 1}");
    assert_eq!((row.get::<_, i16>(4), row.get::<_, i32>(5), row.get::<_, f64>(6)), (7, 3, 1.5));
    assert_eq!(row.get::<_, Timestamp>(7), minute.after(Duration::from_secs(60)));
    // Before it was the hour and more since the schedule was made: left out in one row.
    let skipped = "walclock.occurrences where state = 'skipped' and reason = 'missed' and through_at > scheduled_for";
    assert_eq!((world.count(skipped).await, world.count("walclock.occurrences").await), (1, 2));
    let ask = "select walclock.occurrence_id('a', '2030-01-01 09:00:00.25+00'), walclock.occurrence_id('a', '2030-01-01 09:00+00')";
    let row = world.sql.query_one(ask, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("a@2030-01-01T09:00:00.25Z", "a@2030-01-01T09:00:00Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_ahead_is_withdrawn_when_the_schedule_changes() {
    let world = World::new().await;
    world.add("report", "overlap = 'allow', catch_up = 'none'").await;
    let minutes = [world.minute(0).await, world.minute(1).await];
    for minute in minutes {
        world.look(minute).await;
    }
    // Both lie ahead of the real clock.
    assert_eq!(world.states("report").await, ["fired (pending)", "fired (pending)"]);
    world.sql.batch_execute("update walclock.schedules set callback_url = 'http://127.0.0.1:10/'").await.unwrap();
    assert_eq!((world.count("walclock.timers").await, world.states("report").await), (0, vec![]));
    world.look(minutes[1]).await;
    let ask = "walclock.timers where callback_url like '%:10/'";
    assert_eq!(world.count(ask).await, 1, "the last one is made again from the new definition");

    world.claim_all().await;
    world.sql.batch_execute("update walclock.schedules set cron = '0 0 1 1 *'").await.unwrap();
    assert_eq!(world.states("report").await, ["fired"], "what is under way is not withdrawn");
    world.sql.batch_execute("delete from walclock.schedules").await.unwrap();
    assert_eq!(world.look(minutes[1]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_makes_no_sense_holds_up_no_other() {
    let world = World::new().await;
    for (id, change) in
        [("cron", "cron = '61 * * * *'"), ("zone", "time_zone = 'Mars'"), ("never", "cron = '0 0 30 2 *'")]
    {
        world.add(id, change).await;
    }
    world.add("good", "catch_up = 'none'").await;
    let minute = world.minute(0).await;
    assert_eq!(world.look(minute).await, 4);
    assert_eq!((world.count("walclock.timers").await, world.look(minute).await), (1, 0));
    let errors =
        "select string_agg(split_part(error, ' ', 1), ' ' order by id) from walclock.schedules where error is not null";
    assert_eq!(world.sql.query_one(errors, &[]).await.unwrap().get::<_, String>(0), "cron cron time_zone");
    world.sql.batch_execute("update walclock.schedules set cron = '* * * * *', time_zone = 'UTC'").await.unwrap();
    assert_eq!(world.look(minute).await, 4);
    assert_eq!(world.count("walclock.timers").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_holds_up_itself_only() {
    let world = World::new().await;
    for id in ["a", "poison", "z"] {
        world.add(id, "catch_up = 'none'").await;
    }
    let poison = "alter table walclock.timers add constraint planted check (id not like 'poison%')";
    world.sql.batch_execute(poison).await.unwrap();
    let minute = world.minute(0).await;
    assert_eq!(world.look(minute).await, 2);
    assert_eq!((world.count("walclock.timers").await, world.look(minute).await), (2, 0));
    let error = world.sql.query_one("select error from walclock.schedules where id = 'poison'", &[]).await.unwrap();
    let error: String = error.get(0);
    assert!(error.contains("planted") && !error.contains("Failing row"), "what the row holds is not told: {error}");
}
