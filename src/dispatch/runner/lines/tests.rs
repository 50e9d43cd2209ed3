//! Tests of the lines: that nobody waits for another's answer, and that a fast server is called by few.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;
use crate::domain::callback::{Callback, Verdict};
use crate::domain::lease::Epoch;
use crate::domain::retry::RetryPolicy;
use crate::domain::run::RunKey;
use crate::domain::timer::{Definition, Timer, TimerKey};

const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn run(id: &str, url: &str) -> Box<Run> {
    let callback =
        Callback { url: url.into(), method: "POST".into(), headers: BTreeMap::new(), timeout: Duration::ZERO };
    let key = TimerKey::new("n", id);
    let retry = RetryPolicy::default();
    let definition = Definition { key: key.clone(), execute_at: AT, callback, payload: None, retry };
    let timer = Timer { attempts: 1, ..Timer::new(definition, AT) };
    Box::new(Run {
        key: RunKey { timer: key, claimed_at: AT },
        timer,
        epoch: Epoch(1),
        secrets: Arc::from([]),
        adoptions: 0,
        unwanted: false,
    })
}

/// Servers: "slow" answers when it is let, "bad" panics, all others answer after the other tasks had their turn.
struct Servers {
    under_way: AtomicUsize,
    most: AtomicUsize,
    slow: Semaphore,
}

impl Delivery for Servers {
    async fn attempt(&self, run: &Run) -> Result<Attempt, Unmade> {
        self.most.fetch_max(self.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        match &*callback_url::origin(&run.timer.definition.callback.url) {
            "http://slow" => self.slow.acquire().await.unwrap().forget(),
            "http://bad" => panic!("planted"),
            _ => tokio::task::yield_now().await,
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(Attempt {
            sent_at: AT,
            answered_at: AT,
            connected: true,
            status: Some(200),
            reply_head: String::new(),
            verdict: Verdict::Succeeded,
        })
    }
}

fn lines() -> Lines<Servers> {
    lines_that(Box::new(|_| true))
}

fn lines_that(may_send: MaySend) -> Lines<Servers> {
    let (under_way, most, slow) = (AtomicUsize::new(0), AtomicUsize::new(0), Semaphore::new(0));
    Lines::new(Arc::new(Servers { under_way, most, slow }), Clock::system(), may_send)
}

async fn ended(lines: &Lines<Servers>, count: usize) -> Vec<Ended> {
    let mut ended = lines.take_ended();
    while ended.len() < count {
        lines.news().await;
        ended.extend(lines.take_ended());
    }
    ended
}

#[tokio::test]
async fn a_server_that_answers_at_once_is_called_by_few() {
    let lines = lines();
    // Nobody looks at this line: how many calls end within a look depends on the machine, and what follows from that has a
    // test of its own.
    let unwatched = Line { is_watched: true, ..Line::new("http://fast") };
    lines.0.lines.lock().insert("http://fast".into(), unwatched);
    lines.deliver((0..1_000).map(|n| run(&n.to_string(), "http://fast/hook")));
    let ended = ended(&lines, 1_000).await;
    let ids: std::collections::BTreeSet<_> = ended.iter().map(|(run, _)| run.key.timer.id.clone()).collect();
    assert_eq!(ids.len(), 1_000, "each run was called for once");
    assert!(lines.0.delivery.most.load(Ordering::SeqCst) <= CALLERS_FIRST);
    while !lines.0.lines.lock().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nobody_waits_for_anothers_answer() {
    let lines = lines();
    lines.deliver((0..1_000).map(|n| run(&n.to_string(), "http://slow/")));
    let all_under_way = async {
        while lines.0.delivery.under_way.load(Ordering::SeqCst) < 1_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all_under_way).await.expect("each has a caller");
    lines.deliver((0..10).map(|n| run(&n.to_string(), "http://fast/")));
    assert!(ended(&lines, 10).await.iter().all(|(run, _)| run.timer.definition.callback.url == "http://fast/"));
    lines.0.delivery.slow.add_permits(1_000);
    assert_eq!(ended(&lines, 1_000).await.len(), 1_000);
}

#[tokio::test]
async fn an_attempt_that_panics_has_failed_and_takes_no_other_along() {
    let lines = lines();
    lines.deliver((0..300).map(|n| run(&n.to_string(), "http://bad/")));
    for (_, attempt) in ended(&lines, 300).await {
        assert!(matches!(attempt, Some(Ok(Attempt { verdict: Verdict::Retry { .. }, .. }))));
    }
}

#[tokio::test]
async fn a_run_whose_lease_is_over_when_its_turn_comes_is_not_sent() {
    let is_owner = Arc::new(AtomicBool::new(true));
    let lease = is_owner.clone();
    let lines = lines_that(Box::new(move |_| lease.load(Ordering::SeqCst)));
    let under_way = || lines.0.delivery.under_way.load(Ordering::SeqCst);
    lines.deliver((0..CALLERS_FIRST).map(|n| run(&format!("early{n}"), "http://slow/")));
    while under_way() < CALLERS_FIRST {
        tokio::task::yield_now().await;
    }
    lines.deliver((0..10).map(|n| run(&format!("late{n}"), "http://slow/")));
    is_owner.store(false, Ordering::SeqCst);
    lines.0.delivery.slow.add_permits(CALLERS_FIRST);
    for (run, attempt) in ended(&lines, CALLERS_FIRST + 10).await {
        assert_eq!(attempt.is_some(), run.key.timer.id.starts_with("early"), "{}", run.key.timer);
    }
}

#[test]
fn a_line_grows_as_long_as_that_helps_or_its_server_is_slow() {
    // The calls that end in one look after the other, and how many callers there may be behind the last.
    for (looks, callers_max) in [
        // Each call takes much less than a look.
        (&[128, 200, 1_000][..], 32),
        // Nothing ends at all.
        (&[0, 0, 0, 0, 0, 0, 0], 4_096),
        // Each takes a little less than a look: what 128 callers end is enough.
        (&[36, 72, 144, 144], 128),
        // Each takes two looks, whoever else is called: twice the callers end twice the calls.
        (&[16, 32, 64, 128, 256], 1_024),
        // Each takes five: few callers become more at once, many when those before have helped.
        (&[6, 6, 25, 25, 25], 256),
        // The cores do no more than so many, and twice the callers have made nothing better.
        (&[100, 101, 99, 110, 100], 64),
        // The server has become slow since.
        (&[100, 101, 20, 20, 10], 256),
    ] {
        let mut line = Line::new("http://one");
        line.callers = line.callers_max;
        for ended in looks {
            line.ended = *ended;
            line.look();
            line.callers = line.callers_max;
        }
        assert_eq!(line.callers, callers_max, "{looks:?}");
    }
}

#[test]
fn a_line_does_not_grow_while_those_it_has_started_wait_for_a_core() {
    let mut line = Line::new("http://one");
    (line.callers, line.starting) = (CALLERS_FIRST, 1);
    line.look();
    assert_eq!(line.callers_max, CALLERS_FIRST);
}
