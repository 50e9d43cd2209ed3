//! Callbacks per second of `delivery::Client`, beside a plain HTTP client's requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use walclock::clock::{Clock, Timestamp};
use walclock::delivery::{Client, Config};
use walclock::dispatch::ports::Delivery;
use walclock::domain::callback::{Callback, Verdict};
use walclock::domain::lease::Epoch;
use walclock::domain::retry::RetryPolicy;
use walclock::domain::run::{Run, RunKey};
use walclock::domain::timer::{Definition, Timer, TimerKey};

use crate::plain_client;
use crate::receiver::Receiver;

const SLOTS: usize = 64;
const REQUESTS: usize = 2000;
const ROUNDS: usize = 5;

/// Prints the rates of both, round by round in turn, and the ratio of their sums.
pub async fn run() {
    let receiver = Receiver::start(|_| {}).await;
    let (mut plain_sum, mut callbacks_sum) = (0.0, 0.0);
    for round in 1..=ROUNDS {
        let plain = plain_client::rate(receiver.port, SLOTS, REQUESTS).await;
        let callbacks = rate(&receiver.url()).await;
        println!("delivery round {round}: plain client {plain:.0}/s, callbacks {callbacks:.0}/s");
        plain_sum += plain;
        callbacks_sum += callbacks;
    }
    let made = 2 * ROUNDS * SLOTS * REQUESTS;
    assert_eq!(receiver.received(), made as u64, "each request was received once");
    println!("delivery: a callback is made at {:.2} of a plain client's rate", callbacks_sum / plain_sum);
}

/// Callbacks per second with as many slots as the plain client has, signed by one secret.
async fn rate(url: &str) -> f64 {
    let allow = vec!["127.0.0.0/8".parse().expect("a range")];
    let client = Arc::new(Client::new(Config { allow, ..Config::default() }, Clock::system()));
    let timer = timer(url);
    let key = RunKey { timer: timer.definition.key.clone(), claimed_at: timer.created_at };
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret");
    let run =
        Arc::new(Run { key, timer, epoch: Epoch(1), secrets: Arc::from([secret]), adoptions: 0, unwanted: false });
    let start = Instant::now();
    let mut slots = tokio::task::JoinSet::new();
    for _ in 0..SLOTS {
        let (client, run) = (client.clone(), run.clone());
        slots.spawn(async move {
            for _ in 0..REQUESTS {
                assert_eq!(client.attempt(&run).await.map(|made| made.verdict), Ok(Verdict::Succeeded));
            }
        });
    }
    slots.join_all().await;
    (SLOTS * REQUESTS) as f64 / start.elapsed().as_secs_f64()
}

fn timer(url: &str) -> Timer {
    let at = Timestamp::from_micros(1_795_253_400_250_000);
    let callback = Callback {
        url: url.to_owned(),
        method: "POST".to_owned(),
        headers: BTreeMap::new(),
        timeout: Duration::from_secs(30),
    };
    let payload = RawValue::from_string(r#"{"order":7,"amount":"12.50"}"#.to_owned()).expect("JSON");
    let definition = Definition {
        key: TimerKey::new("shop", "payment-retry-456"),
        execute_at: at,
        callback,
        payload: Some(payload),
        retry: RetryPolicy::default(),
    };
    Timer { attempts: 1, ..Timer::new(definition, at) }
}
