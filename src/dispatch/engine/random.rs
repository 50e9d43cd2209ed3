//! Numbers that spread retries. Seeded from outside, so that the engine stays a function of what it is told.

/// SplitMix64 (Steele, Lea and Flood 2014): enough for jitter, never for secrets.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number from 0 to 1, evenly spread.
    pub(super) fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let upper = u32::try_from(mixed >> 32).unwrap_or(u32::MAX);
        f64::from(upper) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_spread_over_the_whole_range() {
        let mut random = Random::new(7);
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let fraction = random.fraction();
            assert!((0.0..=1.0).contains(&fraction), "{fraction}");
            for (tenth, count) in (0_u32..).zip(&mut tenths) {
                *count += i32::from(fraction >= f64::from(tenth) / 10.0 && fraction < f64::from(tenth + 1) / 10.0);
            }
        }
        assert!(tenths.iter().all(|count| (60..=140).contains(count)), "{tenths:?}");
    }
}
