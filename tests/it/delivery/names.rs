//! Hosts' names whose name server does not answer: they hold up their own namespace, and no attempt is counted for a wait that is
//! not their receivers' fault.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use walclock::clock::Clock;
use walclock::delivery::{Client, Config, Resolver};
use walclock::dispatch::ports::{Delivery, Unmade};
use walclock::domain::callback::Verdict;
use walclock::domain::limits::LOOKUPS_PER_NAMESPACE_MAX;
use walclock::domain::run::Run;
use walclock::domain::timer::TimerKey;

use super::receiver::{Receiver, ok};
use super::run;
use crate::support::server::{Server, folder, migrate};
use crate::support::{PATIENCE, connect, database, eventually, preload};

/// Asks a name server that never answers for `*.dead.test`; any other name is this machine's. Counts what it is asked.
fn resolver() -> (Resolver, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let resolver: Resolver = Arc::new(move |host, port| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match host.ends_with(".dead.test") {
                true => pending().await,
                false => Ok(vec![([127, 0, 0, 1], port).into()]),
            }
        })
    });
    (resolver, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_lookup_is_no_attempt_and_another_namespace_has_none() {
    let receiver = Receiver::start(|_, _| ok()).await;
    let (resolver, asked) = resolver();
    // Whoever asks for a dead name waits as long as its own time-out.
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    let config = Config { allow, connect_timeout: Duration::from_secs(300), ..Config::default() };
    let client = Arc::new(Client::with_resolver(config, Clock::system(), resolver));
    let mut hanging = tokio::task::JoinSet::new();
    for number in 0..LOOKUPS_PER_NAMESPACE_MAX {
        let (client, run) = (client.clone(), run(&format!("http://{number}.dead.test/")));
        hanging.spawn(async move { client.attempt(&run).await });
    }
    let all_asked = async || (asked.load(Ordering::SeqCst) == LOOKUPS_PER_NAMESPACE_MAX).then_some(());
    eventually(PATIENCE, "each dead name is being looked up", all_asked).await;

    let url = format!("http://live.test:{}/", receiver.port);
    let soon_over = |mut run: Run| {
        run.timer.definition.callback.timeout = Duration::from_secs(1);
        run
    };
    let reason = "not sent: too many names are being looked up".to_owned();
    assert_eq!(client.attempt(&soon_over(run(&url))).await, Err(Unmade { reason }));
    // Who asks for a name that is being looked up has its answer to wait for.
    let made = client.attempt(&soon_over(run("http://0.dead.test/"))).await.unwrap();
    assert!(matches!(made.verdict, Verdict::Retry { .. }), "{made:?}");
    let mut other = run(&url);
    other.key.timer = TimerKey::new("other", "1");
    assert_eq!(client.attempt(&other).await.unwrap().verdict, Verdict::Succeeded);
    // By now it is known, and takes no place.
    assert_eq!(client.attempt(&run(&url)).await.unwrap().verdict, Verdict::Succeeded);
    assert_eq!(asked.load(Ordering::SeqCst), LOOKUPS_PER_NAMESPACE_MAX + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_whose_names_hang_does_not_keep_another_from_its_receiver() {
    let Some(library) = preload::library("delivery/names.c") else { return };
    let url = database().await;
    migrate(&url);
    let server = Server::spawn_among(&[("LD_PRELOAD".to_owned(), library)], &url, &folder(), &[]);
    server.until_ready().await;
    let sql = connect(&url).await;
    let mut receiver = Receiver::start(|_, _| ok()).await;
    // More of them than names are looked up at once, whosever they are.
    sql.batch_execute(
        "insert into walclock.timers (namespace, id, execute_at, callback_url)
         select 'bad', n::text, now(), 'http://' || n || '.dead.test/' from generate_series(1, 400) n",
    )
    .await
    .unwrap();
    let put_off = async || {
        let row = sql
            .query_one(
                "select count(*) from walclock.timers
                 where namespace = 'bad' and attempts = 0 and last_error = 'not sent: too many names are being looked up'",
                &[],
            )
            .await
            .unwrap();
        (row.get::<_, i64>(0) > 0).then_some(())
    };
    eventually(PATIENCE, "some of them are put off, and no attempt is counted", put_off).await;
    let insert = format!(
        "insert into walclock.timers (namespace, id, execute_at, callback_url)
         values ('good', '1', now(), 'http://live.test:{}/')",
        receiver.port
    );
    sql.batch_execute(&insert).await.unwrap();
    assert_eq!(receiver.request().await.headers["walclock-attempt"], "1");
    let short = server.metric(r#"walclock_delivery_shortages_total{what="lookups"}"#).await;
    assert!(short.is_some_and(|count| count >= 1.0), "{short:?}");
    assert!(server.log().contains("a callback is put off"), "{}", server.log());
}
