//! The world around the simulated dispatchers: a calendar of what happens when, clients, a network that loses things,
//! and the one true clock. Everything follows from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use walclock::clock::Timestamp;
use walclock::dispatch::engine::{Effect, Event};
use walclock::dispatch::ports::{ClaimRequest, LeaseRequest};
use walclock::dispatch::shards;
use walclock::domain::callback::{Callback, Verdict};
use walclock::domain::lease::Owner;
use walclock::domain::retry::RetryPolicy;
use walclock::domain::run::{Attempt, Run};
use walclock::domain::timer::{Definition, Timer, TimerKey};

use crate::ledger::Ledger;
use crate::model::Model;
use crate::plan::Plan;
use crate::process::{Message, Planted, Process, Wish, lost};

/// When the world begins.
const EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// How long everything may take to be over once clients and faults have stopped.
const CALM: Duration = Duration::from_secs(60);
/// How long a call waits for an answer that was lost.
const TIMEOUT: Duration = Duration::from_millis(400);

/// A process and its start: what is addressed to an earlier start is lost.
type Address = (usize, u32);

/// What happens at a moment.
#[derive(Debug)]
enum Happening {
    Wake(Address),
    /// A request arrives at the store; its answer is lost or not.
    Arrives {
        from: Address,
        wish: Wish,
        answered: bool,
    },
    Message(Address, Box<Message>),
    News(usize),
    Client,
    Crash(usize),
    Pause(usize),
    ClockStep(usize),
    FeedOutage,
    FeedGap,
}

/// The world.
pub struct World {
    plan: Plan,
    planted: Planted,
    rng: Rng,
    model: Model,
    ledger: Ledger,
    processes: Vec<Process>,
    starts: Vec<u32>,
    calendar: BTreeMap<(Timestamp, u64), Happening>,
    count: u64,
    feed_back_at: Timestamp,
    busy_until: Timestamp,
}

/// What a world came to.
#[derive(Debug)]
pub struct Outcome {
    pub sends: usize,
    pub stale: u64,
    /// What went wrong; nothing where all invariants held.
    pub broken: Vec<String>,
}

impl World {
    /// Runs the world of this seed to its end.
    pub fn run(seed: u64, plan: fn(&mut Rng) -> Plan, planted: Planted) -> Outcome {
        let mut rng = Rng::with_seed(seed);
        let plan = plan(&mut rng);
        let mut model = Model::new(EPOCH);
        model.wrongs.ignores_epochs = planted == Planted::StoreIgnoresEpochs;
        model.wrongs.ignores_cancels = planted == Planted::StoreIgnoresCancels;
        let busy_until = EPOCH.after(plan.busy);
        let mut world = Self {
            processes: Vec::new(),
            starts: vec![0; plan.processes],
            plan,
            planted,
            rng,
            model,
            ledger: Ledger::default(),
            calendar: BTreeMap::new(),
            count: 0,
            feed_back_at: Timestamp::MIN,
            busy_until,
        };
        world.begin();
        world.go_on()
    }

    fn begin(&mut self) {
        let hidden_max = std::mem::take(&mut self.plan.hidden_max);
        for _ in 0..self.rng.usize(0..6) {
            self.client();
        }
        self.plan.hidden_max = hidden_max;
        for index in 0..self.plan.processes {
            let process = self.new_process(index);
            self.processes.push(process);
            self.at(EPOCH, Happening::Wake((index, 0)));
        }
        let plan = self.plan.clone();
        let processes = plan.processes;
        self.sprinkle(plan.operations, |_| Happening::Client);
        self.sprinkle(plan.crashes, |rng| Happening::Crash(rng.usize(0..processes)));
        self.sprinkle(plan.pauses, |rng| Happening::Pause(rng.usize(0..processes)));
        self.sprinkle(plan.clock_steps, |rng| Happening::ClockStep(rng.usize(0..processes)));
        self.sprinkle(plan.feed_outages, |_| Happening::FeedOutage);
        self.sprinkle(plan.feed_gaps, |_| Happening::FeedGap);
    }

    fn sprinkle(&mut self, times: usize, happening: impl Fn(&mut Rng) -> Happening) {
        for _ in 0..times {
            let at = EPOCH.after(Duration::from_micros(self.rng.u64(0..self.micros(self.plan.busy))));
            let happening = happening(&mut self.rng);
            self.at(at, happening);
        }
    }

    fn micros(&self, span: Duration) -> u64 {
        u64::try_from(span.as_micros()).unwrap()
    }

    fn new_process(&mut self, index: usize) -> Process {
        let owner = Owner(format!("process-{index}-{}", self.starts[index]));
        let mut process = Process::start(owner, &self.plan, self.planted, self.model.now);
        if self.planted == Planted::ClockAhead {
            process.clock_offset = 1_000;
        }
        if self.feed_is_up() {
            process.feed_at = Some(self.model.feed.len());
        }
        process
    }

    fn feed_is_up(&self) -> bool {
        self.feed_back_at <= self.model.now
    }

    fn at(&mut self, at: Timestamp, happening: Happening) -> (Timestamp, u64) {
        self.count += 1;
        self.calendar.insert((at, self.count), happening);
        (at, self.count)
    }

    fn soon(&mut self, micros: std::ops::Range<u64>) -> Timestamp {
        self.model.now.after(Duration::from_micros(self.rng.u64(micros)))
    }

    fn is_busy(&self) -> bool {
        self.model.now < self.busy_until
    }

    fn go_on(mut self) -> Outcome {
        let end = self.busy_until.after(CALM);
        while let Some(((at, _), happening)) = self.calendar.pop_first() {
            self.model.now = self.model.now.max(at);
            if self.ledger.is_broken() || at > end || (!self.is_busy() && self.model.open().is_empty()) {
                break;
            }
            self.happen(happening);
        }
        self.ledger.close(&self.model);
        let found: u64 = self.processes.iter().map(|process| process.found).sum();
        if self.plan.good_feed && found > 0 {
            self.ledger.break_with(format!("the sweep had to find {found} timers though the feed was good"));
        }
        let stale = self.processes.iter().map(|process| process.stale).sum();
        Outcome { sends: self.ledger.sends(), stale, broken: self.ledger.broken() }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake(address) => self.step(address, None, Happening::Wake(address)),
            Happening::Message(address, message) => self.message(address, message),
            Happening::Arrives { from, wish, answered } => self.arrive(from, wish, answered),
            Happening::News(index) => self.news(index),
            Happening::Client => self.client(),
            Happening::Crash(index) => self.crash(index),
            Happening::Pause(index) => {
                let until = self.soon(10_000..4_000_000);
                self.processes[index].paused_until = until;
            }
            Happening::ClockStep(index) if self.planted != Planted::ClockAhead => {
                self.processes[index].clock_offset = -self.rng.i64(0..300_000);
            }
            Happening::ClockStep(_) => {}
            Happening::FeedOutage => self.feed_outage(),
            Happening::FeedGap => self.feed_gap(),
        }
    }

    fn crash(&mut self, index: usize) {
        self.starts[index] += 1;
        let back_at = self.soon(1_000..3_000_000);
        self.processes[index] = self.new_process(index);
        self.processes[index].paused_until = back_at;
        let wake = self.at(back_at, Happening::Wake((index, self.starts[index])));
        self.processes[index].wake = Some(wake);
    }

    /// The feed is away; who loses it goes on where it was.
    fn feed_outage(&mut self) {
        self.feed_back_at = self.soon(10_000..3_000_000);
        for index in 0..self.processes.len() {
            self.at(self.feed_back_at, Happening::News(index));
        }
    }

    /// The feed begins anew for everybody, and what it had not told is not told any more.
    fn feed_gap(&mut self) {
        for index in 0..self.processes.len() {
            if self.processes[index].feed_at.is_some() {
                self.processes[index].feed_at = None;
                self.at(self.model.now, Happening::News(index));
            }
        }
    }

    /// A process asks the feed.
    fn news(&mut self, index: usize) {
        let address = (index, self.starts[index]);
        if self.processes[index].paused_until > self.model.now {
            self.at(self.processes[index].paused_until, Happening::News(index));
            return;
        }
        if !self.feed_is_up() {
            return; // It asks again once the feed is back.
        }
        let end = self.model.feed.len();
        let process = &mut self.processes[index];
        let Some(start) = process.feed_at.replace(end) else {
            return self.message(address, Box::new(Message::Engine(Event::Gap)));
        };
        let news = self.model.feed[start..].iter().filter(|entry| process.followed.contains(&entry.key.shard()));
        let news: Vec<_> = news.cloned().collect();
        if !news.is_empty() {
            self.message(address, Box::new(Message::Engine(Event::Noted(news))));
        }
    }

    /// A client does something, in a transaction of its own.
    fn client(&mut self) {
        let key = TimerKey::new("n", &format!("timer-{}", self.rng.usize(0..self.plan.ids)));
        match self.rng.usize(0..10) {
            0..=5 => self.client_puts(&key),
            6 | 7 => {
                if let Some(timer) = self.model.cancel(&key) {
                    self.ledger.ended(&timer, self.model.now);
                }
            }
            _ => {
                let until = self.soon(1_000..1_500_000);
                self.model.lock(&key, until);
            }
        }
    }

    fn client_puts(&mut self, key: &TimerKey) {
        let now = self.model.now;
        let ahead = if self.rng.bool() { self.rng.i64(-500_000..1_000_000) } else { self.rng.i64(0..7_000_000) };
        let execute_at = Timestamp::from_micros(now.micros() + ahead);
        let before = self.model.pending(key).cloned();
        let timer = new_timer(key, self.ledger.next_version(), execute_at, now);
        let hidden = Duration::from_micros(self.rng.u64(0..=self.plan.hidden_max));
        if self.model.put(timer.clone(), now.after(hidden)) {
            if let Some(before) = before {
                self.ledger.ended(&before, now);
            }
            self.ledger.began(&timer);
            self.tell();
        }
    }

    /// The feed has something new.
    fn tell(&mut self) {
        for index in 0..self.processes.len() {
            let at = self.soon(100..30_000);
            self.at(at, Happening::News(index));
        }
    }

    fn message(&mut self, address: Address, message: Box<Message>) {
        let paused_until = self.processes[address.0].paused_until;
        if self.starts[address.0] == address.1 && paused_until > self.model.now {
            self.at(paused_until, Happening::Message(address, message));
        } else {
            self.step(address, Some(*message), Happening::Wake(address));
        }
    }

    /// The process does a step, unless it is gone; later, if it stands still.
    fn step(&mut self, address: Address, message: Option<Message>, later: Happening) {
        let (index, start) = address;
        if self.starts[index] != start {
            return;
        }
        let now = self.model.now;
        let process = &mut self.processes[index];
        if process.paused_until > now {
            let until = process.paused_until;
            self.at(until, later);
            return;
        }
        let wishes = process.step(now, message);
        let wake_at = process.wake_at(now);
        if let Some(old) = process.wake.take() {
            self.calendar.remove(&old);
        }
        let wake = self.at(wake_at, Happening::Wake(address));
        self.processes[index].wake = Some(wake);
        for wish in wishes {
            match wish {
                Wish::Engine(Effect::Deliver(run)) => self.deliver(address, run),
                wish => self.call(address, wish),
            }
        }
    }

    /// A request leaves for the store. It may never arrive, arrive after its sender has given up, or lose its answer.
    fn call(&mut self, from: Address, wish: Wish) {
        let fails = self.is_busy() && self.plan.lost_one_in > 0 && self.rng.usize(0..self.plan.lost_one_in) == 0;
        let arrives_at = match fails && self.rng.bool() {
            true => self.soon(0..1_500_000),
            false => self.soon(50..20_000),
        };
        if fails {
            let failed = failure(&wish);
            let at = self.model.now.after(TIMEOUT);
            self.at(at, Happening::Message(from, Box::new(failed)));
        }
        let never_arrives = fails && self.rng.usize(0..3) == 0;
        if !never_arrives {
            self.at(arrives_at, Happening::Arrives { from, wish, answered: !fails });
        }
    }

    /// The store does what was asked.
    fn arrive(&mut self, from: Address, wish: Wish, answered: bool) {
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
                let written = Ok(self.model.settle(&owner, &settlements));
                Message::Engine(Event::Settled { settlements, written })
            }
            Wish::Engine(other) => unreachable!("{other:?} is not for the store"),
        };
        if self.model.feed.len() > told {
            self.tell();
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

    /// A callback leaves, and is answered at some time.
    fn deliver(&mut self, from: Address, run: Box<Run>) {
        let owner = &self.processes[from.0].owner;
        self.ledger.sent(&self.model, owner, &run);
        let sent_at = self.model.now;
        let takes = if self.rng.usize(0..8) == 0 { 1..4_000_000 } else { 500..50_000 };
        let answered_at = self.soon(takes);
        let fails = self.is_busy() && self.plan.fails_one_in > 0 && self.rng.usize(0..self.plan.fails_one_in) == 0;
        let verdict = match self.rng.usize(0..8) {
            _ if !fails => Verdict::Succeeded,
            0 => Verdict::Failed { error: "refused".to_owned() },
            1 => Verdict::Reschedule(self.soon(0..2_000_000)),
            _ => Verdict::Retry { not_before: None, error: "no answer".to_owned() },
        };
        let attempt = Attempt { sent_at, answered_at, status: None, reply_head: String::new(), verdict };
        let message = Message::Engine(Event::Attempted { run, attempt });
        self.at(answered_at, Happening::Message(from, Box::new(message)));
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

fn new_timer(key: &TimerKey, version: u64, execute_at: Timestamp, now: Timestamp) -> Timer {
    let callback = Callback {
        url: format!("http://receiver/{version}"),
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
    Timer {
        definition,
        retry_at: None,
        attempts: 0,
        first_attempt_at: None,
        last_error: None,
        created_at: now,
        updated_at: now,
    }
}
