//! The way from a process to the store and to the receivers, and back. Requests and answers are late, or lost.

use std::time::Duration;

use walclock::dispatch::engine::{Effect, Event};
use walclock::dispatch::ports::{ClaimRequest, LeaseRequest, Unmade};
use walclock::dispatch::shards;
use walclock::domain::callback::Verdict;
use walclock::domain::lease::Owner;
use walclock::domain::run::{Attempt, Run};
use walclock::domain::shard::Shard;

use super::{Address, Happening, World};
use crate::plan::{FAILING, Gateway};
use crate::process::{Message, Planted, Wish, lost};
use crate::watch::{client_of, host_of};

/// How often a host that is down may be tried in a few seconds.
const PROBES_MAX: usize = 8;
/// A host whose answers take seconds.
pub(super) const HANGING: &str = "hanging";
/// How long a call waits for an answer that was lost.
const TIMEOUT: Duration = Duration::from_millis(400);

impl World {
    /// A request leaves for the store. It may never arrive, arrive after its sender has given up, or lose its answer.
    pub(super) fn call(&mut self, from: Address, wish: Wish) {
        let fails = self.is_busy() && self.plan.lost_one_in > 0 && self.rng.usize(0..self.plan.lost_one_in) == 0;
        let arrives_at = match fails && self.rng.bool() {
            true => self.soon(0..1_500_000),
            false => self.soon(50..20_000),
        };
        if fails {
            let failed = failure(&wish);
            let at = self.model.now.after(TIMEOUT);
            self.ledger.fault(self.model.now, at.max(arrives_at));
            self.at(at, Happening::Message(from, Box::new(failed)));
        }
        let never_arrives = fails && self.rng.usize(0..3) == 0;
        if !never_arrives {
            // It may have begun, and stand still until then.
            if fails && self.rng.bool() {
                self.model.write_until(arrives_at, &shards_written(&wish));
            }
            self.at(arrives_at, Happening::Arrives { from, wish, answered: !fails });
        }
    }

    /// The store does what was asked.
    pub(super) fn arrive(&mut self, from: Address, wish: Wish, answered: bool) {
        let owner = Owner(format!("process-{}-{}", from.0, from.1));
        let told = self.model.feed.len();
        let message = match wish {
            Wish::Lease(request) => self.lease(&request),
            Wish::Engine(Effect::Load(request)) => Message::Engine(Event::Loaded(Ok(self.model.load(&request)))),
            Wish::Engine(Effect::Claim { id, timers, until }) => {
                let answer = Ok(self.model.claim(&ClaimRequest { owner, timers, until }));
                Message::Engine(Event::Claimed { id, answer })
            }
            Wish::Engine(Effect::Adopt { .. }) if self.planted == Planted::NoAdoption => {
                Message::Engine(Event::Adopted(Ok(Vec::new())))
            }
            Wish::Engine(Effect::Adopt { leases, limit }) => {
                Message::Engine(Event::Adopted(Ok(self.model.adopt(&owner, &leases, limit))))
            }
            Wish::Engine(Effect::Settle(settlements)) => {
                let written = Ok(self.model.settle(&owner, &settlements).into_iter().map(Ok).collect());
                Message::Engine(Event::Settled { settlements, written })
            }
            Wish::Engine(other) => unreachable!("{other:?} is not for the store"),
        };
        if self.model.feed.len() > told {
            self.tell();
        }
        for timer in std::mem::take(&mut self.model.superseded) {
            self.ledger.superseded(&timer, self.model.now);
        }
        if self.model.fence_broken > 0 {
            self.ledger.break_with("I3: a write under a lease that was not current changed a row".to_owned());
        }
        if answered {
            let at = self.soon(50..20_000);
            self.at(at, Happening::Message(from, Box::new(message)));
        }
    }

    fn lease(&mut self, request: &LeaseRequest) -> Message {
        Message::Shards(shards::Event::Answered(Ok(self.model.lease(request))))
    }

    /// A run joins the line of its server.
    pub(super) fn line_up(&mut self, from: Address, run: Box<Run>) {
        if self.plan.line_max.is_zero() {
            return self.deliver(from, run);
        }
        let at = self.soon(0..self.micros(self.plan.line_max));
        self.at(at, Happening::Turn(from, run));
    }

    /// It is the run's turn to be sent.
    pub(super) fn turn(&mut self, from: Address, run: Box<Run>) {
        let process = &self.processes[from.0];
        if self.starts[from.0] != from.1 {
            return;
        }
        if process.paused_until > self.model.now {
            self.at(process.paused_until, Happening::Turn(from, run));
        } else if process.may_send(self.model.now, &run) {
            self.deliver(from, run);
        } else {
            self.message(from, Box::new(Message::Engine(Event::Unsent(run))));
        }
    }

    /// A callback leaves, and is answered at some time.
    fn deliver(&mut self, from: Address, run: Box<Run>) {
        if self.is_busy() && self.plan.short_one_in > 0 && self.rng.usize(0..self.plan.short_one_in) == 0 {
            let unmade = Unmade { reason: "not sent".to_owned() };
            return self.message(from, Box::new(Message::Engine(Event::Unmade(run, unmade))));
        }
        let owner = &self.processes[from.0].owner;
        self.ledger.sent(&self.model, owner, &run);
        let sent_at = self.model.now;
        let host = host_of(&run);
        let hangs = self.plan.gateway == Some(Gateway::Hanging) && client_of(&run.key.timer) == "crowd";
        let takes = match () {
            () if host == HANGING || hangs => 2_000_000..4_000_000,
            () if self.plan.slow && self.rng.usize(0..8) == 0 => 1..self.micros(self.plan.callback_max),
            () => 500..50_000,
        };
        let is_down = self.meets_an_outage(from, &host);
        let is_bad =
            self.is_busy() && self.plan.gateway == Some(Gateway::Failing) && client_of(&run.key.timer) == FAILING;
        let answered_at = self.soon(takes);
        let fails = self.is_busy() && self.plan.fails_one_in > 0 && self.rng.usize(0..self.plan.fails_one_in) == 0;
        let verdict = match self.rng.usize(0..8) {
            _ if is_down || is_bad => Verdict::Retry { not_before: None, error: "refused".to_owned() },
            _ if !fails => Verdict::Succeeded,
            0 => Verdict::Failed { error: "refused".to_owned() },
            1 => Verdict::Reschedule(self.soon(0..2_000_000)),
            _ => Verdict::Retry { not_before: None, error: "no answer".to_owned() },
        };
        let attempt =
            Attempt { sent_at, answered_at, connected: !is_down, status: None, reply_head: String::new(), verdict };
        let message = Message::Engine(Event::Attempted { run, attempt });
        self.at(answered_at, Happening::Message(from, Box::new(message)));
    }

    /// Whether the host is down. Counts what it is sent: before the breaker is open some more may leave, then one in a
    /// while.
    fn meets_an_outage(&mut self, from: Address, host: &str) -> bool {
        let number: Option<usize> = host.strip_prefix("host-").and_then(|number| number.parse().ok());
        let Some(state) = number.and_then(|number| self.hosts.get_mut(number)) else { return false };
        if state.down_until <= self.model.now {
            return false;
        }
        let requests = state.requests.entry(self.processes[from.0].owner.clone()).or_default();
        *requests += 1;
        let bounds = &self.plan.engine;
        let most = usize::try_from(bounds.host_failures_max).unwrap() + 2 * bounds.inflight_max + PROBES_MAX;
        if bounds.host_failures_max > 0 && !self.plan.slow && *requests > most {
            let what = format!("I10: {requests} requests to {host}, which is down");
            self.ledger.break_with(what);
        }
        true
    }
}

/// The shards under whose leases a request writes.
fn shards_written(wish: &Wish) -> Vec<Shard> {
    match wish {
        Wish::Engine(Effect::Claim { timers, .. }) => timers.iter().map(|(key, _)| key.shard()).collect(),
        Wish::Engine(Effect::Adopt { leases, .. }) => leases.iter().map(|lease| lease.shard).collect(),
        Wish::Engine(Effect::Settle(settlements)) => {
            settlements.iter().map(|settlement| settlement.run.key.timer.shard()).collect()
        }
        Wish::Engine(_) | Wish::Lease(_) => Vec::new(),
    }
}

/// What the sender of a request is told when no answer comes.
fn failure(wish: &Wish) -> Message {
    match wish {
        Wish::Lease(_) => Message::Shards(shards::Event::Answered(Err(lost()))),
        Wish::Engine(Effect::Load(_)) => Message::Engine(Event::Loaded(Err(lost()))),
        Wish::Engine(Effect::Claim { id, .. }) => Message::Engine(Event::Claimed { id: *id, answer: Err(lost()) }),
        Wish::Engine(Effect::Adopt { .. }) => Message::Engine(Event::Adopted(Err(lost()))),
        Wish::Engine(Effect::Settle(settlements)) => {
            Message::Engine(Event::Settled { settlements: settlements.clone(), written: Err(lost()) })
        }
        Wish::Engine(other) => unreachable!("{other:?} is not for the store"),
    }
}
