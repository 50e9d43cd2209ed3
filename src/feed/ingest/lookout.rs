//! The lookout: whether the other ends of both connections are still there. A cable that was pulled, or a host that
//! vanished, ends no connection by itself, and what lies between may take all that is sent.
//!
//! It must never give up a walsender that is only busy: one that decodes a large transaction may not answer for long, and
//! begins it anew for whoever comes back. So silence alone is no proof. What PostgreSQL says of the session is, or that
//! nothing gets through on a new connection either.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::report::Received;
use crate::feed::source::{Error, Server, Session, Walsender};
use crate::pg::Settings;

/// A session that has waited for us for so long, while we have waited for its answer, which is for longer, has had no question
/// or has given its answer away.
const DESERTED_MIN: Duration = Duration::from_secs(5);
/// So many looks are taken within the longest silence.
const TICKS: u32 = 5;

/// The signs of life on both connections.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// How often something came on the stream.
    heard: AtomicU64,
    /// How many questions were not answered since the last that was.
    unanswered: AtomicU64,
}

impl Signs {
    /// Something came on the stream.
    pub fn heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// A question was answered.
    pub fn answered(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// A question was not answered in time.
    pub fn unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where it looks.
pub(super) struct Lookout<'a> {
    /// The connection for questions, and the session behind it.
    pub server: &'a Server,
    pub session: Session,
    /// Of a new connection to the same server.
    pub settings: &'a Settings,
    /// The walsender of the stream.
    pub walsender: i32,
    /// How the walsender is asked for an answer.
    pub received: &'a Received,
    pub signs: &'a Signs,
    /// How long nothing may come before it is asked, and how long it has for its answer.
    pub silence_max: Duration,
    pub answer_max: Duration,
}

impl Lookout<'_> {
    /// Looks until one of the connections is lost for certain.
    pub async fn run(self) -> Error {
        let mut ticks = tokio::time::interval(self.silence_max / TICKS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silence = Silence::new(self.silence_max, self.answer_max);
        let mut doubted = 0;
        loop {
            ticks.tick().await;
            let heard = self.signs.heard.load(Ordering::Relaxed);
            let unanswered = self.signs.unanswered.load(Ordering::Relaxed);
            let looked = match silence.step(heard, self.received.is_asking(), Instant::now()) {
                Step::Ask => {
                    self.received.ask_back();
                    Ok(())
                }
                Step::Look => self.look(&mut silence, true).await,
                Step::GiveUp => Err(Error::Swallowed { waited: silence.since.elapsed() }),
                // A stream that is asked for an answer is looked after soon, and the questions with it.
                Step::Wait if unanswered > doubted && silence.phase == Phase::Silent => {
                    doubted = unanswered;
                    self.look(&mut silence, false).await
                }
                Step::Wait => {
                    doubted = doubted.min(unanswered);
                    Ok(())
                }
            };
            if let Err(error) = looked {
                return error;
            }
        }
    }

    /// A question was not answered, or the walsender has not and `is_silent`. A new connection tells whether PostgreSQL is
    /// slow, or one of those that there are is lost.
    async fn look(&self, silence: &mut Silence, is_silent: bool) -> Result<(), Error> {
        match self.ask_anew().await {
            Ok((walsender, is_deserted)) => {
                if is_deserted {
                    self.ask_again().await?;
                }
                if is_silent { silence.seen(walsender) } else { Ok(()) }
            }
            // What says no is there, and the walsender may be too.
            Err(Error::Refused { .. }) if is_silent => match self.server.walsender(self.walsender).await {
                Err(error @ Error::Unanswered { .. }) => {
                    debug!(error = &error as &dyn std::error::Error, "PostgreSQL does not say how its stream is");
                    silence.spared();
                    Ok(())
                }
                answered => silence.seen(answered?),
            },
            Err(other) if is_silent => {
                // This thread may have been held up for all the while. By the next look what has come is read.
                tokio::time::sleep(self.silence_max / TICKS).await;
                match self.signs.heard.load(Ordering::Relaxed) == silence.heard {
                    true => Err(Error::Unreachable { waited: silence.since.elapsed(), other: Box::new(other) }),
                    false => Ok(()),
                }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "PostgreSQL answers no question, on an old connection or a new one; its stream flows");
                Ok(())
            }
        }
    }

    /// PostgreSQL says that it has answered. Its answer is here now, if it came while this thread was held up, and so is
    /// that to one more question.
    async fn ask_again(&self) -> Result<(), Error> {
        match tokio::time::timeout(self.silence_max, self.server.walsender(self.walsender)).await {
            Err(_) | Ok(Err(Error::Unanswered { .. })) => Err(Error::Deserted),
            Ok(answered) => answered.map(drop),
        }
    }

    /// What the walsender does, and whether the session of the questions waits for us.
    async fn ask_anew(&self) -> Result<(Walsender, bool), Error> {
        let server = Server::connect(self.settings).await?;
        Ok((server.walsender(self.walsender).await?, server.is_deserted(self.session, DESERTED_MIN).await?))
    }
}

/// How long nothing has come on the stream. It is counted in looks: while this thread is held up, by the disk above all,
/// nothing is read and nobody is to blame for that.
struct Silence {
    /// Looks that the walsender has for its answer.
    answer_max: u32,
    heard: u64,
    since: Instant,
    phase: Phase,
    /// Looks since the phase began.
    looks: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Silent,
    /// The walsender was asked for an answer.
    Asked,
    /// It was seen to wait, so all that it had to say was on its way.
    Waits,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Ask,
    Look,
    GiveUp,
}

impl Silence {
    fn new(silence_max: Duration, answer_max: Duration) -> Self {
        let looks = answer_max.as_nanos().saturating_mul(u128::from(TICKS)).div_ceil(silence_max.as_nanos().max(1));
        let answer_max = u32::try_from(looks).unwrap_or(u32::MAX);
        Self { answer_max, heard: 0, since: Instant::now(), phase: Phase::Silent, looks: 0 }
    }

    /// One look: so often something has come by now, and the walsender `is_asking` while it is still to be asked.
    fn step(&mut self, heard: u64, is_asking: bool, now: Instant) -> Step {
        if heard != self.heard {
            (self.heard, self.since) = (heard, now);
            self.enter(Phase::Silent);
            return Step::Wait;
        }
        if self.phase == Phase::Asked && is_asking {
            return Step::Wait;
        }
        self.looks = self.looks.saturating_add(1);
        match self.phase {
            Phase::Silent if self.looks >= TICKS => {
                self.enter(Phase::Asked);
                Step::Ask
            }
            Phase::Asked if self.looks >= self.answer_max => Step::Look,
            Phase::Waits if self.looks >= TICKS => Step::GiveUp,
            Phase::Silent | Phase::Asked | Phase::Waits => Step::Wait,
        }
    }

    fn seen(&mut self, walsender: Walsender) -> Result<(), Error> {
        match walsender {
            Walsender::Gone => return Err(Error::Silent { waited: self.since.elapsed() }),
            Walsender::Waiting => self.enter(Phase::Waits),
            Walsender::Working => {
                debug!("PostgreSQL has sent nothing for {:?}, but its walsender is at work", self.since.elapsed());
                self.spared();
            }
        }
        Ok(())
    }

    /// Nothing is known against it: it is asked again.
    fn spared(&mut self) {
        self.enter(Phase::Silent);
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.looks) = (phase, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence() -> Silence {
        Silence::new(Duration::from_secs(5), Duration::from_secs(10))
    }

    /// So many looks at a stream on which nothing comes, and what the last of them calls for.
    fn looks(silence: &mut Silence, count: u32) -> Step {
        let now = Instant::now();
        let steps: Vec<_> = (0..count).map(|_| silence.step(silence.heard, false, now)).collect();
        let (last, before) = steps.split_last().expect("some");
        assert!(before.iter().all(|step| *step == Step::Wait), "{steps:?}");
        *last
    }

    #[test]
    fn a_walsender_that_waits_and_does_not_answer_is_given_up() {
        let mut silence = silence();
        assert_eq!(looks(&mut silence, 5), Step::Ask);
        assert_eq!(looks(&mut silence, 10), Step::Look);
        silence.seen(Walsender::Waiting).expect("its answer may be on its way");
        assert_eq!(looks(&mut silence, 5), Step::GiveUp);
    }

    #[test]
    fn one_that_is_at_work_is_asked_again_and_never_given_up() {
        let mut silence = silence();
        for _ in 0..100 {
            assert_eq!(looks(&mut silence, 5), Step::Ask);
            assert_eq!(looks(&mut silence, 10), Step::Look);
            silence.seen(Walsender::Working).expect("it works");
        }
    }

    #[test]
    fn one_that_is_gone_is_given_up_at_once() {
        let mut silence = silence();
        assert!(matches!(silence.seen(Walsender::Gone), Err(Error::Silent { .. })));
    }

    #[test]
    fn whatever_comes_begins_it_anew() {
        let mut silence = silence();
        for (heard, before) in [(1, 4), (2, 5), (3, 14), (4, 15)] {
            for _ in 0..before {
                silence.step(heard - 1, false, Instant::now());
            }
            assert_eq!(silence.step(heard, false, Instant::now()), Step::Wait, "after {before}");
            assert_eq!((silence.phase, silence.looks), (Phase::Silent, 0), "after {before}");
        }
    }

    /// Reports leave from another thread, which may be held up.
    #[test]
    fn it_has_its_time_from_when_it_was_asked() {
        let mut silence = silence();
        assert_eq!(looks(&mut silence, 5), Step::Ask);
        for _ in 0..100 {
            assert_eq!(silence.step(0, true, Instant::now()), Step::Wait);
        }
        assert_eq!(looks(&mut silence, 10), Step::Look);
    }
}
