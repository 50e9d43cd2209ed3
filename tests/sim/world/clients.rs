//! The clients: each does one thing at a time, in a transaction of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::domain::callback::Callback;
use walclock::domain::retry::RetryPolicy;
use walclock::domain::timer::{Definition, Timer, TimerKey};

use super::World;
use super::network::HANGING;
use crate::process::Planted;

impl World {
    /// A client does something, in a transaction of its own.
    pub(super) fn client(&mut self) {
        let namespace = format!("n{}", self.rng.usize(0..self.plan.namespaces));
        let id = format!("timer-{}", self.rng.usize(0..self.plan.ids));
        let key = self.key(&namespace, &id);
        match self.rng.usize(0..10) {
            0..=5 => self.client_puts(&key),
            6 | 7 => {
                if let Some(timer) = self.model.cancel(&key) {
                    self.ledger.ended(&timer, self.model.now);
                }
            }
            // Who holds a timer makes it late.
            _ if self.plan.crowd > 0 => {}
            _ => {
                let until = self.soon(1_000..1_500_000);
                self.model.lock(&key, until);
                self.ledger.held(&key, until);
            }
        }
    }

    /// The timers of the crowd: all overdue from the start, but for some that fall due as time goes by.
    pub(super) fn crowd(&mut self) {
        let host = if self.plan.gateway.is_some() { "host-0" } else { HANGING };
        for number in 0..self.plan.crowd {
            let key = self.key("crowd", &format!("crowd-{number}"));
            let now = self.model.now;
            let execute_at = Timestamp::from_micros(now.micros() + self.rng.i64(-5_000_000..500_000));
            let timer = new_timer(&key, host, self.ledger.next_version(), execute_at, now);
            assert!(self.model.put(timer.clone(), now), "nobody holds a new timer");
            self.ledger.began(&timer);
        }
    }

    fn key(&self, namespace: &str, id: &str) -> TimerKey {
        match self.planted {
            Planted::OneNamespace => TimerKey::new("all", &format!("{id}-{namespace}")),
            _ => TimerKey::new(namespace, id),
        }
    }

    fn client_puts(&mut self, key: &TimerKey) {
        let now = self.model.now;
        let ahead = if self.rng.bool() { self.rng.i64(-500_000..1_000_000) } else { self.rng.i64(0..7_000_000) };
        let execute_at = Timestamp::from_micros(now.micros() + ahead);
        let host = format!("host-{}", self.rng.usize(0..self.plan.hosts));
        let before = self.model.pending(key).cloned();
        let timer = new_timer(key, &host, self.ledger.next_version(), execute_at, now);
        let hidden = Duration::from_micros(self.rng.u64(0..=self.plan.hidden_max));
        if self.model.put(timer.clone(), now.after(hidden)) {
            if let Some(before) = before {
                self.ledger.ended(&before, now);
            }
            self.ledger.began(&timer);
            self.tell();
        }
    }
}

fn new_timer(key: &TimerKey, host: &str, version: u64, execute_at: Timestamp, now: Timestamp) -> Timer {
    let callback = Callback {
        url: format!("http://{host}/{version}"),
        method: "POST".to_owned(),
        headers: BTreeMap::new(),
        timeout: Duration::from_secs(30),
    };
    let retry = RetryPolicy {
        interval_first: Duration::from_millis(100),
        interval_max: Duration::from_secs(1),
        ..RetryPolicy::default()
    };
    let definition = Definition { key: key.clone(), execute_at, callback, payload: None, retry };
    Timer::new(definition, now)
}
