//! One dispatcher that nothing ever happens to, its store, and the hosts that it calls, by a virtual clock: for what is
//! judged by how many requests leave when, with bounds as they are in use. Its calls of the store are never late nor lost.

use std::collections::BTreeMap;
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::engine::{Config, Effect, Engine, Event};
use walclock::dispatch::ports::{ClaimRequest, LeaseRequest};
use walclock::dispatch::shards::Holding;
use walclock::domain::callback::{Callback, Verdict};
use walclock::domain::lease::Owner;
use walclock::domain::retry::RetryPolicy;
use walclock::domain::run::{Attempt, Run};
use walclock::domain::shard::Shard;
use walclock::domain::timer::{Definition, Timer, TimerKey};

use crate::model::Model;
use crate::watch::host_of;

/// When the world begins.
const BEGIN: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// How long a request to the store takes, and its answer.
const STORE_TAKES: Duration = Duration::from_millis(2);
/// Steps from one check of the engine's invariants to the next: each looks at all that the engine has.
const STEPS_UNCHECKED: u64 = 1_000;

/// The moment so many milliseconds after the beginning.
pub fn at(millis: u64) -> Timestamp {
    BEGIN.after(Duration::from_millis(millis))
}

/// A request that left.
#[derive(Debug)]
pub struct Sent {
    pub host: String,
    pub due_at: Timestamp,
    pub at: Timestamp,
}

impl Sent {
    pub fn late(&self) -> Duration {
        self.at.since(self.due_at)
    }
}

/// What was in a world.
pub struct Past {
    /// What has left, in its order.
    pub sent: Vec<Sent>,
    /// What is left in the store.
    pub model: Model,
    /// Rows that were loaded as hints, each as often as it was.
    pub rows_read: usize,
}

/// How a host answers at a moment: after how long, and whether it does at all.
pub type Host = Box<dyn Fn(&str, Timestamp) -> (Duration, bool)>;

/// What happens at a moment.
enum Happening {
    Wake,
    /// A request arrives at the store.
    Arrives(Effect),
    Answer(Event),
    /// A client makes a timer, and the feed tells of it.
    Client(Timer),
}

/// The world.
pub struct World {
    model: Model,
    engine: Engine,
    owner: Owner,
    host: Host,
    steps: u64,
    calendar: BTreeMap<(Timestamp, u64), Happening>,
    count: u64,
    wake: Option<(Timestamp, u64)>,
    sent: Vec<Sent>,
    rows_read: usize,
}

impl World {
    pub fn new(bounds: Config, host: impl Fn(&str, Timestamp) -> (Duration, bool) + 'static) -> Self {
        Self {
            model: Model::new(BEGIN),
            engine: Engine::new(bounds),
            owner: Owner("dispatcher".to_owned()),
            host: Box::new(host),
            steps: 0,
            calendar: BTreeMap::new(),
            count: 0,
            wake: None,
            sent: Vec::new(),
            rows_read: 0,
        }
    }

    /// Adds a timer that is there from the beginning; its id says how many there were before.
    pub fn put(&mut self, namespace: &str, host: &str, due_at: Timestamp) {
        let timer = self.timer(namespace, host, due_at);
        assert!(self.model.put(timer, BEGIN));
    }

    /// Has a client add one at a moment.
    pub fn put_at(&mut self, moment: Timestamp, namespace: &str, host: &str, due_at: Timestamp) {
        let timer = self.timer(namespace, host, due_at);
        self.at(moment, Happening::Client(timer));
    }

    fn timer(&mut self, namespace: &str, host: &str, due_at: Timestamp) -> Timer {
        self.count += 1;
        let key = TimerKey::new(namespace, &format!("timer-{}", self.count));
        let callback = Callback::new(format!("http://{host}/"));
        let definition = Definition { key, execute_at: due_at, callback, payload: None, retry: RetryPolicy::default() };
        Timer::new(definition, BEGIN)
    }

    /// Lets it go on until `end`.
    pub fn run(mut self, end: Timestamp) -> Past {
        let lease = LeaseRequest {
            owner: self.owner.clone(),
            ttl: Duration::from_secs(86_400),
            release: Vec::new(),
            anew: Vec::new(),
            shards_max: Shard::COUNT,
        };
        let held = self.model.lease(&lease).held;
        self.step(Event::Holding(Holding { held, ..Holding::default() }));
        while let Some(((at, _), happening)) = self.calendar.pop_first().filter(|((at, _), _)| *at <= end) {
            self.model.now = at;
            match happening {
                Happening::Wake => self.step(Event::Tick),
                Happening::Answer(event) => self.step(event),
                Happening::Arrives(effect) => {
                    let answer = self.arrive(effect);
                    self.at(at.after(STORE_TAKES), Happening::Answer(answer));
                }
                Happening::Client(timer) => {
                    let told = self.model.feed.len();
                    assert!(self.model.put(timer, at));
                    self.step(Event::Noted(self.model.feed[told..].to_vec()));
                }
            }
        }
        self.engine.assert_invariants();
        Past { sent: self.sent, model: self.model, rows_read: self.rows_read }
    }

    fn at(&mut self, at: Timestamp, happening: Happening) -> (Timestamp, u64) {
        self.count += 1;
        self.calendar.insert((at, self.count), happening);
        (at, self.count)
    }

    fn step(&mut self, event: Event) {
        let (now, mut effects) = (self.model.now, Vec::new());
        self.engine.step(now, [event], &mut effects);
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_UNCHECKED) {
            self.engine.assert_invariants();
        }
        for effect in effects {
            match effect {
                Effect::Deliver(run) => self.deliver(run),
                Effect::Spared(..) | Effect::Back(_) => {}
                effect => drop(self.at(now.after(STORE_TAKES), Happening::Arrives(effect))),
            }
        }
        if let Some(old) = self.wake.take() {
            self.calendar.remove(&old);
        }
        let soonest = now.after(Duration::from_micros(1));
        self.wake = self.engine.next_wake().map(|at| self.at(at.max(soonest), Happening::Wake));
    }

    fn arrive(&mut self, effect: Effect) -> Event {
        let owner = self.owner.clone();
        match effect {
            Effect::Load(request) => {
                let page = self.model.load(&request);
                self.rows_read += page.len();
                Event::Loaded(Ok(page))
            }
            Effect::Claim { id, timers, until } => {
                Event::Claimed { id, answer: Ok(self.model.claim(&ClaimRequest { owner, timers, until })) }
            }
            Effect::Adopt { leases, limit } => Event::Adopted(Ok(self.model.adopt(&owner, &leases, limit))),
            Effect::Settle(settlements) => {
                let written = Ok(self.model.settle(&owner, &settlements).into_iter().map(Ok).collect());
                Event::Settled { settlements, written }
            }
            other => panic!("where nothing fails, nobody asks for {other:?}"),
        }
    }

    fn deliver(&mut self, run: Box<Run>) {
        let (host, now) = (host_of(&run), self.model.now);
        let (takes, is_well) = (self.host)(&host, now);
        self.sent.push(Sent { host, due_at: run.timer.due_at(), at: now });
        let answered_at = now.after(takes);
        let verdict = match is_well {
            true => Verdict::Succeeded,
            false => Verdict::Retry { not_before: None, error: "refused".to_owned() },
        };
        let attempt =
            Attempt { sent_at: now, answered_at, connected: is_well, status: None, reply_head: String::new(), verdict };
        self.at(answered_at, Happening::Answer(Event::Attempted { run, attempt }));
    }
}
