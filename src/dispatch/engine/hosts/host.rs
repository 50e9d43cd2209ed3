//! One host: its places, and the runs that wait for one, in a lane for each namespace. Lanes with runs take turns, so that one
//! with very many holds up no other; and each may have eight places for each that is free, so that one whose requests hang
//! leaves places for the others.
//!
//! How many requests it gets at once, and how many a second, is for the host's sake, whosever they are. What fails is judged
//! apart for each namespace: behind one gateway their receivers are different ones, and one that answers 500, or not at all, says
//! nothing of the others. Only where there is no connection it is the host that fails, for all of them: each finding that out by
//! itself would cost each the attempts of its own timers, and a host that is back would meet all of them at once.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::breaker::{Breaker, Gate, Sign, Turn};
use super::{Admission, Bounds, News};
use crate::clock::Timestamp;
use crate::domain::callback::Verdict;
use crate::domain::run::{Attempt, Run, RunKey};

/// Requests above the rate that may leave at once, as a span of the rate.
const RATE_BURST: Duration = Duration::from_millis(100);

/// Places that a namespace may have for each that is free: one alone 8 of 9, two 8 of 17 each. What is left is for newcomers; where
/// there are fewer than nine, none is left (the dynamic thresholds of Choudhury and Hahne, 1998).
const SHARE: usize = 8;

/// What an attempt says of its host, and of the receiver that its namespace has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signs {
    host: Sign,
    lane: Sign,
}

impl Signs {
    /// It never came to a request.
    pub(super) const NONE: Self = Self { host: Sign::None, lane: Sign::None };

    pub(super) fn of(attempt: &Attempt) -> Self {
        let (host, lane) = match (attempt.status, &attempt.verdict) {
            (None, Verdict::Retry { .. }) if !attempt.connected => (Sign::Failed, Sign::None),
            (Some(500..), _) | (None, Verdict::Retry { .. }) => (Sign::Alive, Sign::Failed),
            (Some(_), _) | (None, Verdict::Succeeded | Verdict::Reschedule(_)) => (Sign::Alive, Sign::Alive),
            (None, Verdict::Failed { .. }) => (Sign::None, Sign::None),
        };
        Self { host, lane }
    }
}

/// What namespaces share at a host.
#[derive(Debug)]
struct Door {
    inflight: usize,
    breaker: Breaker,
    /// When its next request is due by the rate.
    next_at: Timestamp,
    /// When it is looked at again though nothing happened.
    wake_at: Option<Timestamp>,
}

/// What is known of one namespace at a host.
#[derive(Debug, Default)]
struct Lane {
    inflight: usize,
    /// Due runs that may not leave yet, in their order.
    waiting: VecDeque<Box<Run>>,
    breaker: Breaker,
    standing: Standing,
}

/// Where a namespace stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// None of its runs waits, or they wait for answers to its own requests.
    #[default]
    Out,
    /// In line.
    Line,
    /// Aside, with so many requests under way, until so many are within its share.
    Aside(usize),
}

/// What a run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// A place, or the rate.
    Turn,
    /// Its namespace has all that is its share.
    Share,
    /// Its namespace comes back, with few requests at a time.
    Answer,
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.inflight == 0 && self.waiting.is_empty() && self.standing == Standing::Out
    }
}

impl Door {
    /// Puts a run off where the host, or its namespace there, is spared.
    fn turn_away(&mut self, now: Timestamp, lane: &mut Lane) -> Option<Admission> {
        match (self.breaker.gate(now), lane.breaker.gate(now)) {
            (Gate::Shut(from), _) => Some(self.breaker.defer(from)),
            (_, Gate::Shut(from)) => Some(lane.breaker.defer(from)),
            _ => None,
        }
    }

    /// Places that are free.
    fn free(&self, now: Timestamp, bounds: Bounds) -> usize {
        self.breaker.gate(now).window().min(bounds.inflight_max).saturating_sub(self.inflight)
    }

    /// What the next run of this namespace waits for, but for the rate.
    fn hold(&self, now: Timestamp, lane: &Lane, bounds: Bounds) -> Option<Hold> {
        let free = self.free(now, bounds);
        if lane.inflight >= lane.breaker.gate(now).window() {
            Some(Hold::Answer)
        } else if free == 0 {
            Some(Hold::Turn)
        } else {
            (lane.inflight >= free.saturating_mul(SHARE)).then_some(Hold::Share)
        }
    }

    fn admit(&mut self, now: Timestamp, lane: &mut Lane, run: &RunKey, bounds: Bounds) -> Admission {
        if let Some(deferral) = self.turn_away(now, lane) {
            return deferral;
        }
        self.wake_at = None;
        if self.hold(now, lane, bounds).is_some() {
            return Admission::Wait;
        }
        self.wake_at = self.too_early(now, bounds);
        if self.wake_at.is_some() {
            return Admission::Wait;
        }
        self.breaker.pass(now, run);
        lane.breaker.pass(now, run);
        self.inflight += 1;
        lane.inflight += 1;
        if let Some(interval) = bounds.interval() {
            self.next_at = self.next_at.max(now).after(interval);
        }
        Admission::Send
    }

    /// Until when the rate forbids a request; none where it does not.
    fn too_early(&mut self, now: Timestamp, bounds: Bounds) -> Option<Timestamp> {
        let interval = bounds.interval()?;
        // Where the clock was set back, nobody waits for what it had read.
        self.next_at = self.next_at.min(now.after(RATE_BURST.max(interval)));
        let may_at = self.next_at.before(RATE_BURST.saturating_sub(interval));
        (may_at > now).then_some(may_at)
    }
}

#[derive(Debug)]
pub(super) struct Host {
    door: Door,
    lanes: HashMap<Arc<str>, Lane>,
    /// Namespaces with runs that wait, by whose turn it is; each at most once.
    line: VecDeque<Arc<str>>,
    /// Those that have their share, by how many requests they have under way.
    aside: BTreeSet<(usize, Arc<str>)>,
    /// Namespaces whose runs need not wait any longer, because they would not be sent.
    turned_away: VecDeque<Arc<str>>,
}

impl Host {
    pub(super) fn new() -> Self {
        let door = Door { inflight: 0, breaker: Breaker::default(), next_at: Timestamp::MIN, wake_at: None };
        Self {
            door,
            lanes: HashMap::new(),
            line: VecDeque::new(),
            aside: BTreeSet::new(),
            turned_away: VecDeque::new(),
        }
    }

    pub(super) fn inflight(&self) -> usize {
        self.door.inflight
    }

    pub(super) fn knows(&self, namespace: &str) -> bool {
        self.lanes.contains_key(namespace)
    }

    pub(super) fn learn(&mut self, namespace: Arc<str>) {
        self.lanes.insert(namespace, Lane::default());
    }

    /// Whether nobody would miss what is known of this namespace.
    pub(super) fn may_forget(&self, namespace: &str, now: Timestamp) -> bool {
        let is_usual = |lane: &Lane| lane.is_idle() && lane.breaker.is_usual();
        let is_last = self.lanes.len() == 1;
        self.lanes.get(namespace).is_none_or(is_usual)
            && (!is_last || self.door.breaker.is_usual() && self.door.next_at <= now)
    }

    /// Whether nothing of this namespace is under way or waits.
    pub(super) fn is_idle(&self, namespace: &str) -> bool {
        self.lanes.get(namespace).is_none_or(Lane::is_idle)
    }

    /// Forgets a namespace of which nothing is under way or waits; says how many are spared less by that, and whether it was the
    /// last one.
    pub(super) fn forget(&mut self, namespace: &str) -> (usize, bool) {
        let lane = self.lanes.remove(namespace);
        let is_last = self.lanes.is_empty();
        let host = is_last && self.door.breaker.is_open();
        (usize::from(lane.is_some_and(|lane| lane.breaker.is_open())) + usize::from(host), is_last)
    }

    /// Says what is to be done with a due run of a namespace that is known. Those that wait are before it.
    pub(super) fn admit(&mut self, now: Timestamp, run: &Run, bounds: Bounds) -> Admission {
        let Self { door, lanes, line, .. } = self;
        let lane = lanes.get_mut(&run.key.timer.namespace).expect("its namespace was made known");
        match line.is_empty() && lane.waiting.is_empty() {
            true => door.admit(now, lane, &run.key, bounds),
            false => door.turn_away(now, lane).unwrap_or(Admission::Wait),
        }
    }

    /// Keeps a run that was told to wait; says when it may leave though nothing happens.
    pub(super) fn wait(&mut self, now: Timestamp, run: Box<Run>, bounds: Bounds) -> Option<Timestamp> {
        let Self { door, lanes, line, aside, .. } = self;
        let namespace = &run.key.timer.namespace;
        let lane = lanes.get_mut(namespace).expect("it was told to wait, so its namespace is known");
        if lane.standing == Standing::Out {
            // Whom the host does not keep waiting must not stand before the others.
            match door.hold(now, lane, bounds) {
                Some(Hold::Answer) => {}
                Some(Hold::Share) => {
                    lane.standing = Standing::Aside(lane.inflight);
                    aside.insert((lane.inflight, namespace.clone()));
                }
                Some(Hold::Turn) | None => {
                    lane.standing = Standing::Line;
                    line.push_back(namespace.clone());
                }
            }
        }
        lane.waiting.push_back(run);
        door.wake_at
    }

    /// Takes a run that need not wait any longer, of the namespace whose turn it is, and says what is to be done with it. Where
    /// there is none, when there may be one though nothing happens.
    pub(super) fn next(&mut self, now: Timestamp, bounds: Bounds) -> Result<(Box<Run>, Admission), Option<Timestamp>> {
        let Self { door, lanes, line, aside, turned_away } = self;
        // They take no place, so they need not wait for their turn. Where the host itself is spared, each turn comes at once.
        while let Some(namespace) = turned_away.front() {
            let lane = lanes.get_mut(namespace).filter(|lane| !lane.waiting.is_empty());
            if let Some(lane) = lane
                && let Some(admission) = door.turn_away(now, lane)
                && let Some(run) = lane.waiting.pop_front()
            {
                return Ok((run, admission));
            }
            turned_away.pop_front();
        }
        while let Some(namespace) = line.pop_front() {
            let lane = lanes.get_mut(&namespace).expect("a lane in line is not forgotten");
            lane.standing = Standing::Out;
            let Some(run) = lane.waiting.pop_front() else { continue };
            let admission = door.admit(now, lane, &run.key, bounds);
            if admission != Admission::Wait {
                if !lane.waiting.is_empty() {
                    lane.standing = Standing::Line;
                    line.push_back(namespace);
                }
                return Ok((run, admission));
            }
            lane.waiting.push_front(run);
            match door.hold(now, lane, bounds) {
                // The next answer brings it back.
                Some(Hold::Answer) => {}
                Some(Hold::Share) => {
                    lane.standing = Standing::Aside(lane.inflight);
                    aside.insert((lane.inflight, namespace));
                }
                // It is still its turn.
                Some(Hold::Turn) | None => {
                    lane.standing = Standing::Line;
                    line.push_front(namespace);
                    return Err(door.wake_at);
                }
            }
        }
        Err(None)
    }

    /// Takes the runs of this namespace that wait. Must be called for all of them, one after the other.
    pub(super) fn take_waiting(&mut self, namespace: &str) -> VecDeque<Box<Run>> {
        self.line.clear();
        self.aside.clear();
        let Some(lane) = self.lanes.get_mut(namespace) else { return VecDeque::new() };
        lane.standing = Standing::Out;
        std::mem::take(&mut lane.waiting)
    }

    /// A request is over, or has not left after all: takes in what that shows, and says what is new. `spared` counts those that
    /// are spared, `jitter` is from 0 to 1.
    pub(super) fn heard(
        &mut self,
        now: Timestamp,
        run: &RunKey,
        signs: Signs,
        jitter: f64,
        bounds: Bounds,
        spared: &mut usize,
    ) -> [Option<News>; 2] {
        let Self { door, lanes, line, aside, turned_away } = self;
        let namespace = &run.timer.namespace;
        let lane = lanes.get_mut(namespace).expect("a namespace with a request under way is not forgotten");
        door.inflight -= 1;
        lane.inflight -= 1;
        let open = |door: &Door, lane: &Lane| usize::from(door.breaker.is_open()) + usize::from(lane.breaker.is_open());
        *spared -= open(door, lane);
        let of_host = door.breaker.heard(now, run, signs.host, jitter, bounds);
        let of_lane = lane.breaker.heard(now, run, signs.lane, jitter, bounds);
        *spared += open(door, lane);
        if let Standing::Aside(taken) = lane.standing {
            aside.remove(&(taken, namespace.clone()));
            lane.standing = Standing::Out;
        }
        if !lane.waiting.is_empty() && lane.standing == Standing::Out {
            lane.standing = Standing::Line;
            line.push_back(namespace.clone());
        }
        if matches!(of_lane, Some(Turn::Spared(_))) {
            turned_away.push_back(namespace.clone());
        }
        // One place more is free, so others may be within their share now. More of them than there are places have no use.
        let free = door.free(now, bounds);
        while line.len() < free && aside.first().is_some_and(|(taken, _)| *taken < free.saturating_mul(SHARE)) {
            let (_, other) = aside.pop_first().expect("it was looked at");
            lanes.get_mut(&other).expect("a lane that stands aside is not forgotten").standing = Standing::Line;
            line.push_back(other);
        }
        let of_host = of_host.map(|turn| News { namespace: None, turn });
        [of_host, of_lane.map(|turn| News { namespace: Some(namespace.clone()), turn })]
    }

    /// Whether runs wait that may be able to leave.
    pub(super) fn has_line(&self) -> bool {
        !self.line.is_empty() || !self.turned_away.is_empty()
    }

    /// The runs that wait, for checks.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Run> {
        self.lanes.values().flat_map(|lane| lane.waiting.iter().map(|run| &**run))
    }

    /// How many breakers are open, counted anew for checks.
    pub(super) fn count_spared(&self) -> usize {
        let lanes = self.lanes.values().filter(|lane| lane.breaker.is_open()).count();
        lanes + usize::from(self.door.breaker.is_open())
    }

    /// How many namespaces are known.
    pub(super) fn count_lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Whether the counts are right, no more is under way than may be, and whoever waits is in line or waits for an answer.
    pub(super) fn is_consistent(&self, bounds: Bounds) -> bool {
        let lanes = || self.lanes.values();
        let waits = |lane: &Lane| lane.waiting.is_empty() || lane.standing == Standing::Line || lane.inflight > 0;
        self.door.inflight == lanes().map(|lane| lane.inflight).sum::<usize>()
            && self.door.inflight <= bounds.inflight_max
            && lanes().filter(|lane| lane.standing == Standing::Line).count() == self.line.len()
            && lanes().filter(|lane| matches!(lane.standing, Standing::Aside(_))).count() == self.aside.len()
            && lanes().all(waits)
    }
}
