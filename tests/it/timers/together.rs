//! Creates that come at the same time share a statement. None of them may notice.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use super::face::{Answer, Face, create_request, timeless, with};
use crate::support::{self, PATIENCE, eventually};

fn start(calls: &mut JoinSet<(String, Answer)>, face: &Arc<Face>, ids: impl IntoIterator<Item = String>) {
    for id in ids {
        let face = face.clone();
        calls.spawn(async move {
            let answer = face.call("create", &with(create_request(&id), json!({ "payload": { "of": id } }))).await;
            (id, answer)
        });
    }
}

/// A face on which the statements that store `x0` and `x1` are under way until somebody opens the gate.
async fn blocked(calls: &mut JoinSet<(String, Answer)>, setup: &str) -> Arc<Face> {
    let face = Arc::new(Face::start().await);
    let gate = "create table public.gate ();
        create function public.wait() returns trigger language plpgsql as
            $$ begin while not exists (select from public.gate) loop perform pg_sleep(0.002); end loop; return new; end $$;
        create trigger wait before insert on walclock.timers for each row
            when (new.id like 'x%') execute function public.wait()";
    face.sql.batch_execute(gate).await.unwrap();
    face.sql.batch_execute(setup).await.unwrap();
    start(calls, &face, ["x0", "x1"].map(str::to_owned));
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    let both = async || (face.sql.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 2).then_some(());
    eventually(PATIENCE, "both wait", both).await;
    face
}

async fn open_gate(face: &Face) {
    face.sql.execute("insert into public.gate default values", &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_come_while_statements_are_under_way_go_together() {
    let mut calls = JoinSet::new();
    let face = blocked(&mut calls, "").await;
    start(&mut calls, &face, (0..50).map(|n| format!("t{n}")));
    let line = async || (face.timers.creates_waiting() == 50).then_some(());
    eventually(PATIENCE, "they stand in line", line).await;
    open_gate(&face).await;
    for (id, answer) in calls.join_all().await {
        assert_eq!((answer.status, &answer.json["id"]), (200, &json!(id)), "{}", answer.text);
    }
    let rows = "select count(*), count(distinct xmin::text), count(*) filter (where payload ->> 'of' = id)
        from walclock.timers where id like 't%'";
    let row = face.sql.query_one(rows, &[]).await.unwrap();
    let (rows, transactions, right): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!((rows, right), (50, 50));
    assert!(transactions <= 2, "{transactions}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_has_its_own_answer() {
    let mut calls = JoinSet::new();
    let setup = "alter table walclock.timers add constraint even check (id <> 'odd');
        create function public.refuse() returns trigger language plpgsql as
            $$ begin if new.id = 'cursed' then raise exception 'no'; end if; return new; end $$;
        create trigger refuse before insert on walclock.timers for each row execute function public.refuse();
        insert into walclock.timers (namespace, id, execute_at, callback_url)
            values ('n', 'held', now(), 'http://example.com/')";
    let face = blocked(&mut calls, setup).await;
    let held = support::connect(&face.database_url).await;
    held.batch_execute("begin; select from walclock.timers where id = 'held' for update").await.unwrap();
    start(&mut calls, &face, (0..20).map(|n| format!("t{n}")));
    start(&mut calls, &face, ["odd", "cursed", "held"].map(str::to_owned));
    let face_of_past = face.clone();
    calls.spawn(async move {
        let past = with(create_request("past"), json!({ "executeAt": "2020-01-01T00:00:00Z" }));
        ("past".to_owned(), face_of_past.call("create", &past).await)
    });
    eventually(PATIENCE, "they stand in line", async || (face.timers.creates_waiting() == 24).then_some(())).await;
    open_gate(&face).await;
    for (id, answer) in calls.join_all().await {
        let message = match id.as_str() {
            "odd" => "the database's check even forbids it",
            "cursed" => "the store is unavailable, try again",
            "held" => "timer n/held is being changed by others at this moment, try again",
            "past" => "executeAt must be a future timestamp",
            _ => {
                assert_eq!((answer.status, &answer.json["id"]), (200, &json!(id)), "{}", answer.text);
                continue;
            }
        };
        assert_eq!(timeless(&answer)["message"], message);
    }
    let row = face.sql.query_one("select count(*) from walclock.timers where id like 't%'", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 20);
}
