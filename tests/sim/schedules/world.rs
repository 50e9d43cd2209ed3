//! The world around the simulated materialisers: what happens when, clients, a network that loses answers, and processes
//! that stand still, die, and take each other for dead. Everything follows from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use walclock::clock::Timestamp;
use walclock::dispatch::ports::{Planned, Unavailable};
use walclock::dispatch::schedules::{Effect, Event, Schedules};
use walclock::domain::schedule::{CatchUp, Overlap, Rule, When};
use walclock::domain::shard::Shard;

use super::Planted;
use super::ledger::{Ledger, Moments};
use super::model::{Model, Moment};

/// When the world begins.
const EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// For how long clients and faults are active, and how long it is calm behind that.
const BUSY: Duration = Duration::from_secs(150);
const CALM: Duration = Duration::from_secs(50);
/// How long a call waits for an answer that was lost.
const TIMEOUT: Duration = Duration::from_millis(400);
/// How long before its moment a timer is claimed.
const LEAD: Duration = Duration::from_millis(100);
const ATTEMPTS_MAX: u32 = 3;

/// A process and its start: what is addressed to an earlier start is lost.
type Address = (usize, u32);

#[derive(Debug)]
enum Happening {
    Step(Address, Event),
    Arrives {
        from: Address,
        effect: Effect,
        moments: Moments,
        answered: bool,
    },
    Client,
    Crash(usize),
    Pause(usize),
    /// All processes stand still.
    Blackout,
    ClockStep(usize),
    /// A process gets other shards, whoever else has them.
    Shards(usize),
    Claim(Moment),
    Call(Moment, u32),
    Answer(Moment, Option<Duration>),
}

#[derive(Debug)]
struct Process {
    machine: Schedules,
    shards: Vec<Shard>,
    /// Its clock minus PostgreSQL's, in microseconds.
    clock_offset: i64,
    paused_until: Timestamp,
    /// When it last read.
    loaded_at: Timestamp,
    start: u32,
}

/// What a world came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub ledger: Ledger,
    /// Plans that were carried out, and that came too late.
    pub settled: u64,
    pub stale: u64,
}

pub struct World {
    rng: Rng,
    planted: Planted,
    model: Model,
    ledger: Ledger,
    processes: Vec<Process>,
    calendar: BTreeMap<(Timestamp, u64), Happening>,
    count: u64,
    ids: usize,
    lost_one_in: usize,
    slow: Duration,
    /// Every shard is held by somebody when it is calm.
    are_all_held: bool,
    dark_until: Timestamp,
    settled: u64,
    stale: u64,
}

impl World {
    /// Runs the world of this seed to its end.
    pub fn run(seed: u64, planted: Planted) -> Outcome {
        let mut rng = Rng::with_seed(seed);
        let mut world = Self {
            planted,
            model: Model::new(EPOCH, planted),
            ledger: Ledger::default(),
            processes: Vec::new(),
            calendar: BTreeMap::new(),
            count: 0,
            ids: rng.usize(1..=4),
            lost_one_in: if rng.bool() { 0 } else { rng.usize(4..=30) },
            slow: Duration::from_millis(rng.u64(10..=8_000)),
            are_all_held: rng.bool(),
            dark_until: EPOCH,
            settled: 0,
            stale: 0,
            rng,
        };
        world.begin();
        world.go_on()
    }

    fn begin(&mut self) {
        let count = self.rng.usize(1..=3);
        for index in 0..count {
            let shards = self.some_shards();
            let process = Process {
                machine: Schedules::default(),
                shards,
                clock_offset: if self.planted == Planted::ClockAhead { 1_500_000 } else { 0 },
                paused_until: EPOCH,
                loaded_at: EPOCH,
                start: 0,
            };
            self.processes.push(process);
            self.at(EPOCH, Happening::Step((index, 0), Event::Tick));
        }
        for _ in 0..self.ids {
            self.client_writes();
        }
        let operations = self.rng.usize(0..=40);
        self.sprinkle(operations, |_| Happening::Client);
        let some = |rng: &mut Rng, max: usize| if rng.bool() { 0 } else { rng.usize(0..=max) };
        let times = [some(&mut self.rng, 5), some(&mut self.rng, 6), some(&mut self.rng, 6), some(&mut self.rng, 10)];
        self.sprinkle(times[0], |rng| Happening::Crash(rng.usize(0..count)));
        self.sprinkle(times[1], |rng| Happening::Pause(rng.usize(0..count)));
        self.sprinkle(times[2], |rng| Happening::ClockStep(rng.usize(0..count)));
        self.sprinkle(times[3], |rng| Happening::Shards(rng.usize(0..count)));
        let blackouts = self.rng.usize(0..=2);
        self.sprinkle(blackouts, |_| Happening::Blackout);
        // The last word on who has what.
        self.at(EPOCH.after(BUSY), Happening::Shards(0));
    }

    fn sprinkle(&mut self, times: usize, happening: impl Fn(&mut Rng) -> Happening) {
        for _ in 0..times {
            let at = EPOCH.after(Duration::from_micros(self.rng.u64(0..150_000_000)));
            let happening = happening(&mut self.rng);
            self.at(at, happening);
        }
    }

    fn at(&mut self, at: Timestamp, happening: Happening) {
        self.count += 1;
        self.calendar.insert((at, self.count), happening);
    }

    fn soon(&mut self, micros: std::ops::Range<u64>) -> Timestamp {
        self.model.now.after(Duration::from_micros(self.rng.u64(micros)))
    }

    fn is_busy(&self) -> bool {
        self.model.now < EPOCH.after(BUSY)
    }

    fn some_shards(&mut self) -> Vec<Shard> {
        let of = self.rng.u8(1..=3);
        let own = self.rng.u8(0..=of);
        Shard::all().filter(|shard| shard.0 % of == own).collect()
    }

    fn go_on(mut self) -> Outcome {
        let end = EPOCH.after(BUSY).after(CALM);
        while let Some(((at, _), happening)) = self.calendar.pop_first() {
            self.model.now = self.model.now.max(at);
            if at > end || !self.ledger.broken.is_empty() {
                break;
            }
            self.happen(happening);
        }
        if self.ledger.broken.is_empty() {
            self.ledger.close(&self.model, self.are_all_held);
        }
        Outcome { ledger: self.ledger, settled: self.settled, stale: self.stale }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Step(address, event) => self.step(address, event),
            Happening::Arrives { from, effect, moments, answered } => {
                self.arrive(from, effect, moments, answered);
            }
            Happening::Client => self.client(),
            Happening::Crash(index) => {
                let back_at = self.soon(1_000..10_000_000).max(self.dark_until);
                let process = &mut self.processes[index];
                process.start += 1;
                process.machine = Schedules::default();
                let address = (index, process.start);
                self.at(back_at, Happening::Step(address, Event::Tick));
            }
            Happening::Pause(index) => {
                let until = self.soon(10_000..20_000_000).min(EPOCH.after(BUSY));
                let process = &mut self.processes[index];
                process.paused_until = process.paused_until.max(until);
            }
            Happening::Blackout => {
                self.dark_until = self.soon(20_000_000..100_000_000).min(EPOCH.after(BUSY));
                for process in &mut self.processes {
                    process.paused_until = process.paused_until.max(self.dark_until);
                }
            }
            Happening::ClockStep(index) if self.planted != Planted::ClockAhead => {
                self.processes[index].clock_offset = -self.rng.i64(0..300_000);
            }
            Happening::ClockStep(_) => {}
            Happening::Shards(index) if self.is_busy() => self.processes[index].shards = self.some_shards(),
            Happening::Shards(index) => {
                let shards = if self.are_all_held { Shard::all().collect() } else { Vec::new() };
                self.processes[index].shards = shards;
            }
            Happening::Claim(moment) => self.claim(moment),
            Happening::Call(moment, attempt) => self.call(moment, attempt),
            Happening::Answer(moment, wait) => match self.model.answer(&moment, wait) {
                Some(due_at) => self.at(due_at.before(LEAD), Happening::Claim(moment)),
                None => self.ledger.is_over(&moment.0, self.model.now),
            },
        }
    }

    /// A process does a step, unless it is gone; later, if it stands still.
    fn step(&mut self, address: Address, event: Event) {
        let now = self.model.now;
        let process = &mut self.processes[address.0];
        if process.start != address.1 {
            return;
        }
        if process.paused_until > now {
            let until = process.paused_until;
            return self.at(until, Happening::Step(address, event));
        }
        let reads = Timestamp::from_micros(now.micros() + process.clock_offset);
        let event = self.planted.left_out_of(event);
        let is_tick = matches!(event, Event::Tick);
        match process.machine.step(reads, &process.shards, event) {
            Some(effect) => {
                let effect = self.planted.left_out_of_what_is_asked(effect);
                let moments = Moments { loaded_at: process.loaded_at, planned_at: reads };
                self.ask(address, effect, moments);
            }
            None => {
                let wake = process.machine.next_wake().micros() - process.clock_offset;
                if is_tick && wake <= now.micros() {
                    self.ledger.broken.push(format!("process {} would spin", address.0));
                }
                let wake = Timestamp::from_micros(wake.max(now.micros() + 1));
                self.at(wake, Happening::Step(address, Event::Tick));
            }
        }
    }

    /// A statement leaves for the store. It may never arrive, arrive after its sender has given up, or lose its answer.
    fn ask(&mut self, from: Address, effect: Effect, moments: Moments) {
        let fails = self.is_busy() && self.lost_one_in > 0 && self.rng.usize(0..self.lost_one_in) == 0;
        let arrives_at = match fails && self.rng.bool() {
            true => self.soon(0..5_000_000),
            false => self.soon(50..60_000),
        };
        if fails {
            let lost = Unavailable { doing: "a simulated call", source: "the answer was lost".into() };
            let event = match effect {
                Effect::Load(_) => Event::Loaded(Err(lost)),
                Effect::Settle(_) => Event::Settled(Err(lost)),
            };
            self.at(self.model.now.after(TIMEOUT), Happening::Step(from, event));
        }
        if !fails || self.rng.usize(0..3) > 0 {
            self.at(arrives_at, Happening::Arrives { from, effect, moments, answered: !fails });
        }
    }

    fn arrive(&mut self, from: Address, effect: Effect, moments: Moments, answered: bool) {
        let event = match effect {
            Effect::Load(request) => {
                if answered {
                    self.processes[from.0].loaded_at = self.model.now;
                }
                Event::Loaded(Ok(self.model.due(&request)))
            }
            Effect::Settle(all) => {
                Event::Settled(Ok(all.iter().map(|planned| self.settle(planned, moments)).collect()))
            }
        };
        if answered {
            let at = self.soon(50..60_000);
            self.at(at, Happening::Step(from, event));
        }
    }

    fn settle(&mut self, planned: &Planned, moments: Moments) -> bool {
        let Some(settled) = self.model.settle(planned) else {
            self.stale += 1;
            return false;
        };
        self.settled += 1;
        self.ledger.settled(&self.model, planned, moments, &settled);
        for (at, due_at) in settled.made {
            self.begins((planned.schedule.key.id.to_string(), at), due_at);
        }
        true
    }

    /// A timer is there, and is claimed a moment before it is due.
    fn begins(&mut self, moment: Moment, due_at: Timestamp) {
        let at = self.soon(0..50_000).max(due_at.before(LEAD));
        self.at(at, Happening::Claim(moment));
    }

    fn claim(&mut self, moment: Moment) {
        if self.dark_until > self.model.now {
            return self.at(self.dark_until, Happening::Claim(moment));
        }
        if let Some((attempt, due_at)) = self.model.claim(&moment, self.model.now.after(LEAD)) {
            self.ledger.claimed(&moment);
            self.at(due_at.max(self.model.now), Happening::Call(moment, attempt));
        }
    }

    fn call(&mut self, moment: Moment, attempt: u32) {
        self.ledger.called(&moment, attempt, self.model.now);
        let longest = u64::try_from(self.slow.as_micros()).unwrap();
        let answered_at = self.soon(500..longest);
        let fails = attempt < ATTEMPTS_MAX && self.rng.usize(0..4) == 0;
        let wait = fails.then(|| Duration::from_millis(self.rng.u64(100..2_000)));
        self.at(answered_at, Happening::Answer(moment, wait));
    }

    /// A client does something, in a transaction of its own.
    fn client(&mut self) {
        let id = format!("schedule-{}", self.rng.usize(0..self.ids));
        let now = self.model.now;
        match (self.rng.usize(0..10), self.model.rows.get(&id).cloned()) {
            (0..=2, _) | (_, None) => self.client_writes(),
            (3..=6, Some(row)) => {
                self.ledger.withdrawn(&id, now);
                self.model.put(&id, row.schedule.rule, !row.paused);
            }
            (7, Some(_)) => {
                if self.model.trigger(&id) {
                    self.ledger.triggered(&id, now);
                    self.begins((id, now), now);
                }
            }
            (_, Some(row)) => {
                self.ledger.covers_all(&self.model, &id);
                self.ledger.withdrawn(&id, now);
                self.model.delete(&id);
                if self.rng.usize(0..4) > 0 {
                    // It is there again before anybody has noticed.
                    let rule = if self.rng.bool() { row.schedule.rule } else { self.rule() };
                    self.model.now = now.after(Duration::from_micros(1));
                    self.model.put(&id, rule, false);
                }
            }
        }
    }

    /// A client writes a schedule, in place of the one of that name.
    fn client_writes(&mut self) {
        let id = format!("schedule-{}", self.rng.usize(0..self.ids));
        let mut rule = self.rule();
        // Often it changes the policies only.
        if let Some(row) = self.model.rows.get(&id).filter(|_| self.rng.bool()) {
            let old = &row.schedule.rule;
            (rule.when, rule.start_at, rule.end_at) = (old.when.clone(), old.start_at, old.end_at);
        }
        self.ledger.covers_all(&self.model, &id);
        self.ledger.withdrawn(&id, self.model.now);
        self.model.put(&id, rule, self.rng.usize(0..8) == 0);
    }

    fn rule(&mut self) -> Rule {
        let when = match self.rng.bool() {
            true => When::Every(Duration::from_millis(self.rng.u64(1_000..=9_000))),
            false => When::Cron(format!("*/{} * * * * *", [1, 2, 3, 5, 10, 30][self.rng.usize(0..6)])),
        };
        let now = self.model.now.micros();
        let about = |rng: &mut Rng| Timestamp::from_micros(now + rng.i64(-40_000_000..40_000_000));
        let start_at = (self.rng.usize(0..4) == 0).then(|| about(&mut self.rng));
        let end_at = (self.rng.usize(0..6) == 0).then(|| about(&mut self.rng).after(Duration::from_secs(60)));
        Rule {
            start_at,
            end_at: end_at.filter(|end| start_at.is_none_or(|start| *end >= start)),
            jitter: Duration::from_millis(if self.rng.bool() { 0 } else { self.rng.u64(0..=3_000) }),
            overlap: Overlap::ALL[self.rng.usize(0..4)],
            catch_up: CatchUp::ALL[self.rng.usize(0..3)],
            catch_up_window: Duration::from_secs(self.rng.u64(20..=120)),
            catch_up_max: self.rng.u32(1..=8),
            ..Rule::new(when)
        }
    }
}
