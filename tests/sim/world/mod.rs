//! The world around the simulated dispatchers: a calendar of what happens when, clients, a network that loses things,
//! and the one true clock. Everything follows from the seed.

mod clients;
mod network;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use walclock::clock::Timestamp;
use walclock::dispatch::engine::{Effect, Event};
use walclock::domain::lease::Owner;
use walclock::domain::run::Run;

use crate::ledger::Ledger;
use crate::model::Model;
use crate::plan::Plan;
use crate::process::{Message, Planted, Process, Wish};

/// When the world begins.
const EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// How long everything may take to be over once clients and faults have stopped.
const CALM: Duration = Duration::from_secs(60);

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
    /// A run is the first in the line of its server.
    Turn(Address, Box<Run>),
    News(usize),
    Client,
    Crash(usize),
    Pause(usize),
    Stop(usize),
    ClockStep(usize),
    FeedOutage,
    FeedGap,
    HostOutage,
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
    left: u64,
    /// Until when each host is down, and what it was sent meanwhile by whom.
    hosts: Vec<HostState>,
    deferred: u64,
}

/// A host that is called.
#[derive(Clone, Debug)]
struct HostState {
    down_until: Timestamp,
    requests: BTreeMap<Owner, usize>,
}

/// What a world came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sends: usize,
    pub stale: u64,
    /// How often a process was stopped and left in good order.
    pub left: u64,
    /// Callbacks that were not of the crowd.
    pub light: usize,
    /// Runs that were put back without an attempt.
    pub deferred: u64,
    /// The waits behind first attempts that failed.
    pub waits: Vec<Duration>,
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
        model.wrongs.forgets_deferrals = planted == Planted::ForgetsDeferrals;
        let host = HostState { down_until: Timestamp::MIN, requests: BTreeMap::new() };
        let (hosts, ledger) =
            (vec![host; plan.hosts], Ledger::new(plan.is_orderly, EPOCH.after(Duration::from_secs(1)), plan.lateness));
        let busy_until = EPOCH.after(plan.busy);
        let mut world = Self {
            processes: Vec::new(),
            starts: vec![0; plan.processes],
            plan,
            planted,
            rng,
            model,
            ledger,
            calendar: BTreeMap::new(),
            count: 0,
            feed_back_at: Timestamp::MIN,
            busy_until,
            left: 0,
            hosts,
            deferred: 0,
        };
        world.begin();
        world.go_on()
    }

    fn begin(&mut self) {
        let hidden_max = std::mem::take(&mut self.plan.hidden_max);
        for _ in 0..self.rng.usize(0..6) {
            self.client();
        }
        self.crowd();
        self.plan.hidden_max = hidden_max;
        for index in 0..self.plan.processes {
            let mut process = self.new_process(index);
            if self.plan.is_orderly && index > 0 {
                process.paused_until = self.soon(0..self.micros(self.plan.busy));
                self.ledger.fault(process.paused_until, process.paused_until);
            }
            self.processes.push(process);
            self.at(EPOCH, Happening::Wake((index, 0)));
        }
        let plan = self.plan.clone();
        let processes = plan.processes;
        self.sprinkle(plan.operations, |_| Happening::Client);
        self.sprinkle(plan.crashes, |rng| Happening::Crash(rng.usize(0..processes)));
        self.sprinkle(plan.pauses, |rng| Happening::Pause(rng.usize(0..processes)));
        self.sprinkle(plan.stops, |rng| Happening::Stop(rng.usize(0..processes)));
        self.sprinkle(plan.clock_steps, |rng| Happening::ClockStep(rng.usize(0..processes)));
        self.sprinkle(plan.feed_outages, |_| Happening::FeedOutage);
        self.sprinkle(plan.feed_gaps, |_| Happening::FeedGap);
        self.sprinkle(plan.host_outages, |_| Happening::HostOutage);
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
            if self.ledger.is_broken() || at > end || (!self.is_busy() && self.model.is_over()) {
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
        let deferred = self.deferred + self.processes.iter().map(|process| process.engine.deferred()).sum::<u64>();
        let (sends, light) = (self.ledger.sends(), self.ledger.light());
        let waits = self.processes.iter_mut().flat_map(|process| process.watch.waits.drain(..)).collect();
        Outcome { sends, stale, left: self.left, light, deferred, waits, broken: self.ledger.broken() }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake(address) => self.step(address, None, Happening::Wake(address)),
            Happening::Message(address, message) => self.message(address, message),
            Happening::Arrives { from, wish, answered } => self.arrive(from, wish, answered),
            Happening::Turn(address, run) => self.turn(address, run),
            Happening::News(index) => self.news(index),
            Happening::Client => self.client(),
            Happening::Crash(index) => self.crash(index),
            Happening::Pause(index) => {
                let until = self.soon(10_000..4_000_000);
                self.ledger.fault(self.model.now, until);
                self.processes[index].pause(self.model.now, until);
            }
            Happening::Stop(index) => {
                // It finishes what is under way, and begins nothing new meanwhile.
                let hears_at = self.model.now.max(self.processes[index].paused_until);
                self.ledger.fault(self.model.now, hears_at.after(self.plan.callback_max));
                self.message((index, self.starts[index]), Box::new(Message::Stop));
            }
            Happening::ClockStep(index) if self.planted != Planted::ClockAhead => {
                self.processes[index].clock_offset = -self.rng.i64(0..300_000);
            }
            Happening::ClockStep(_) => {}
            Happening::FeedOutage => self.feed_outage(),
            Happening::FeedGap => self.feed_gap(),
            Happening::HostOutage => {
                let (host, until) = (self.rng.usize(0..self.plan.hosts), self.soon(2_000_000..6_000_000));
                self.hosts[host] = HostState { down_until: until, requests: BTreeMap::new() };
            }
        }
    }

    fn crash(&mut self, index: usize) {
        self.starts[index] += 1;
        let back_at = self.soon(1_000..3_000_000);
        self.ledger.fault(self.model.now, back_at);
        self.deferred += self.processes[index].engine.deferred();
        self.processes[index] = self.new_process(index);
        self.processes[index].paused_until = back_at;
        let wake = self.at(back_at, Happening::Wake((index, self.starts[index])));
        self.processes[index].wake = Some(wake);
    }

    /// The feed is away; who loses it goes on where it was.
    fn feed_outage(&mut self) {
        self.feed_back_at = self.soon(10_000..3_000_000);
        self.ledger.fault(self.model.now, self.feed_back_at);
        for index in 0..self.processes.len() {
            self.at(self.feed_back_at, Happening::News(index));
        }
    }

    /// The feed begins anew for everybody, and what it had not told is not told any more.
    fn feed_gap(&mut self) {
        self.ledger.fault(self.model.now, self.model.now);
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
        let news = self.model.feed[start..].iter().filter(|entry| process.follows(entry.key.shard()));
        let news: Vec<_> = news.cloned().collect();
        if !news.is_empty() {
            self.message(address, Box::new(Message::Engine(Event::Noted(news))));
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
        for key in process.abandoned.drain(..) {
            self.ledger.abandoned(&key);
        }
        // The feed told of these too early for it, and what it reads now has come too early for them.
        for timer in process.taken.drain(..).flat_map(|shard| self.model.hidden(shard)) {
            self.ledger.overlooked(timer, self.plan.engine.sweep_grace + self.plan.engine.sweep_every);
        }
        let wake_at = process.wake_at(now);
        for what in std::mem::take(&mut process.watch.broken) {
            self.ledger.break_with(what);
        }
        if let Some(old) = process.wake.take() {
            self.calendar.remove(&old);
        }
        let wake = self.at(wake_at, Happening::Wake(address));
        self.processes[index].wake = Some(wake);
        for wish in wishes {
            match wish {
                Wish::Engine(Effect::Deliver(run)) => self.line_up(address, run),
                wish => self.call(address, wish),
            }
        }
        if self.processes[index].may_leave() {
            self.leave(index);
        }
    }

    /// A process is gone in good order, unless its last word is lost; it starts anew.
    fn leave(&mut self, index: usize) {
        let is_lost = self.plan.lost_one_in > 0 && self.rng.usize(0..self.plan.lost_one_in) == 0;
        if !is_lost {
            self.model.leave(&self.processes[index].owner);
            self.left += 1;
        }
        self.crash(index);
    }
}
