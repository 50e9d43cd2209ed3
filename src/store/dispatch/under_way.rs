//! The claims of this process, and of which runs each has not seen the end: so a claim is forgotten together with its last
//! run, and nobody has to look for its end.
//!
//! What counts is that every run of a claim was seen to be settled, which is for good on one and the same server: no lease and no
//! clock has a say. What is not seen here, because an answer was lost or another dispatcher took over, is left to who looks
//! (`forget.sql`). So all of it may be dropped at any time.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::domain::lease::Lease;
use crate::domain::limits::CLAIMS_KNOWN_MAX;
use crate::domain::run::RunKey;

/// What is known of this process's claims.
#[derive(Default)]
pub struct UnderWay(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By the moment of the claim, which all of its runs bear.
    claims: HashMap<Timestamp, Claim>,
    /// Of which nothing is under way any more, and which were not forgotten with their last runs, as these were settled at once by
    /// several statements.
    over: Vec<i64>,
    /// For which leases runs are being adopted, and the last claim that was looked at.
    adopting: Option<(Vec<Lease>, i64)>,
}

/// What was claimed at one moment.
#[derive(Default)]
struct Claim {
    /// The number of the claim; of several where they were of one moment.
    numbers: Vec<i64>,
    /// The [`sum`] of the runs whose end was not seen: 0 once there is none.
    left: u64,
}

impl UnderWay {
    /// Drops all that is known. To be called before anything is asked on another connection: it may lead to a standby that was
    /// promoted without the last settles that were seen, and on which their runs are under way again.
    pub fn forget(&self) {
        *self.0.lock() = Known::default();
    }

    /// Takes in a claim of these runs, all of one moment.
    pub fn claimed<'a>(&self, number: i64, runs: impl Iterator<Item = &'a RunKey>) {
        let mut known = self.0.lock();
        if known.claims.len() >= CLAIMS_KNOWN_MAX {
            known.claims.clear();
        }
        for (at, claimed) in sum(runs) {
            let claim = known.claims.entry(at).or_default();
            claim.numbers.push(number);
            claim.left = claim.left.wrapping_add(claimed);
        }
    }

    /// The claims of which nothing is under way any more once these runs are settled, each of which is told once.
    pub fn over_with<'a>(&self, runs: impl Iterator<Item = &'a RunKey>) -> Vec<i64> {
        let mut known = self.0.lock();
        let mut over = std::mem::take(&mut known.over);
        for (at, settling) in sum(runs) {
            if let Some(claim) = known.claims.get(&at).filter(|claim| claim.left == settling) {
                over.extend(&claim.numbers);
            }
        }
        over
    }

    /// Takes in runs that are surely settled, each once, and which claims were forgotten with them.
    pub fn settled<'a>(&self, runs: impl Iterator<Item = &'a RunKey>, forgotten: &[i64]) {
        let mut known = self.0.lock();
        for (at, settled) in sum(runs) {
            let Some(claim) = known.claims.get_mut(&at) else { continue };
            claim.left = claim.left.wrapping_sub(settled);
            if claim.left == 0
                && let Some(claim) = known.claims.remove(&at)
            {
                known.over.extend(claim.numbers.iter().filter(|number| !forgotten.contains(number)));
            }
        }
        // More than that are found without being told.
        known.over.truncate(CLAIMS_KNOWN_MAX);
    }

    /// The claim that an adoption for these leases goes on with; none where it begins. It goes on once: whatever becomes of it, the
    /// next one begins anew unless it was told of.
    ///
    /// What older epochs of these leases left was all there before they were granted: nothing is added before that claim.
    pub fn adopts_from(&self, leases: &[Lease]) -> Option<i64> {
        let adopting = self.0.lock().adopting.take();
        adopting.filter(|(of, _)| of == leases).map(|(_, last)| last)
    }

    /// Takes in that as many runs as were asked for were adopted for these leases, the last one of this claim: there may be more.
    pub fn adopted(&self, leases: &[Lease], last: i64) {
        self.0.lock().adopting = Some((leases.to_vec(), last));
    }
}

/// A number for the runs of each moment, which only these runs have: the hashes of their names, added up. A mere count would take
/// for another one's end that of a run that was adopted, and claimed by somebody else at the very same moment.
fn sum<'a>(runs: impl Iterator<Item = &'a RunKey>) -> HashMap<Timestamp, u64> {
    let mut sums: HashMap<Timestamp, u64> = HashMap::new();
    for run in runs {
        let mut hasher = DefaultHasher::new();
        run.timer.hash(&mut hasher);
        let sum = sums.entry(run.claimed_at).or_default();
        *sum = sum.wrapping_add(hasher.finish());
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::domain::timer::TimerKey;

    fn runs(at: i64, ids: Range<usize>) -> Vec<RunKey> {
        let claimed_at = Timestamp::from_micros(at);
        ids.map(|id| RunKey { timer: TimerKey::new("space", &id.to_string()), claimed_at }).collect()
    }

    /// Settles these runs, and says which claims are over with them.
    fn settle(known: &UnderWay, runs: &[RunKey]) -> Vec<i64> {
        let over = known.over_with(runs.iter());
        known.settled(runs.iter(), &over);
        over
    }

    fn claim(known: &UnderWay, number: i64, at: i64, ids: Range<usize>) -> Vec<RunKey> {
        let runs = runs(at, ids);
        known.claimed(number, runs.iter());
        runs
    }

    #[test]
    fn a_claim_is_over_with_its_last_run_and_told_once() {
        let known = UnderWay::default();
        let (first, second) = (claim(&known, 7, 100, 0..3), claim(&known, 8, 200, 0..1));
        assert_eq!(settle(&known, &first[..2]), [0; 0]);
        let mut over = settle(&known, &[&first[2..], &second].concat());
        over.sort_unstable();
        assert_eq!(over, [7, 8]);
        assert_eq!(settle(&known, &first), [0; 0]);
    }

    #[test]
    fn claims_of_one_moment_are_over_together() {
        let known = UnderWay::default();
        let (first, second) = (claim(&known, 7, 100, 0..2), claim(&known, 8, 100, 2..4));
        assert_eq!(settle(&known, &first), [0; 0]);
        assert_eq!(settle(&known, &second), [7, 8]);
    }

    #[test]
    fn what_another_process_claimed_at_the_same_moment_ends_no_claim() {
        let known = UnderWay::default();
        let own = claim(&known, 7, 100, 0..3);
        // Adopted, and settled before what was claimed here.
        assert_eq!(settle(&known, &runs(100, 3..6)), [0; 0]);
        assert_eq!(settle(&known, &own[..1]), [0; 0]);
        assert_eq!(settle(&known, &own[1..]), [0; 0], "that is left to who looks");
    }

    #[test]
    fn a_claim_that_two_statements_end_at_once_is_told_to_the_next() {
        let known = UnderWay::default();
        let all = claim(&known, 7, 100, 0..5);
        let (one, other) = all.split_at(3);
        let over = [known.over_with(one.iter()), known.over_with(other.iter())];
        assert_eq!(over, [[0; 0]; 2], "neither of them knows what becomes of the other");
        known.settled(one.iter(), &[]);
        known.settled(other.iter(), &[]);
        assert_eq!(settle(&known, &[]), [7]);
        assert_eq!(settle(&known, &[]), [0; 0]);
    }

    #[test]
    fn what_was_not_settled_keeps_its_claim() {
        let known = UnderWay::default();
        let all = claim(&known, 7, 100, 0..3);
        // The statement ended one of them only: so it has forgotten nothing.
        assert_eq!(known.over_with(all.iter()), [7]);
        known.settled(all[..1].iter(), &[]);
        assert_eq!(settle(&known, &all[1..2]), [0; 0]);
        assert_eq!(settle(&known, &all[2..]), [7]);
    }

    #[test]
    fn claims_that_never_end_here_do_not_fill_the_memory() {
        let known = UnderWay::default();
        let first = claim(&known, 0, 0, 0..1);
        for number in 1..=i64::try_from(CLAIMS_KNOWN_MAX).unwrap() {
            claim(&known, number, number, 0..1);
        }
        assert_eq!(known.0.lock().claims.len(), 1);
        // One that was dropped is never told to be over.
        assert_eq!(settle(&known, &first), [0; 0]);
    }
}
