//! A Bloom filter over the scopes of a sealed segment: says at the cost of one cache line that a segment has nothing of
//! a scope, so that a rare scope does not open hundreds of sidecars.

/// Words of one block: a cache line.
const BLOCK_WORDS: usize = 8;
/// Bits per key: with [`PROBES`] about one segment in a hundred is looked into in vain.
const KEY_BITS: usize = 12;
const PROBES: u32 = 6;

/// The filter. It never denies a key that it was built from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter(Vec<u64>);

impl Filter {
    /// A filter of these keys, which are hashes.
    pub fn of(keys: impl ExactSizeIterator<Item = u64>) -> Self {
        let blocks = (keys.len() * KEY_BITS).div_ceil(BLOCK_WORDS * 64);
        let mut filter = Self(vec![0; blocks * BLOCK_WORDS]);
        for key in keys {
            let start = filter.block_of(key);
            if let Some(block) = filter.0.get_mut(start..start + BLOCK_WORDS) {
                for (word, bits) in block.iter_mut().zip(pattern(key)) {
                    *word |= bits;
                }
            }
        }
        filter
    }

    /// The filter that [`Filter::words`] was taken from.
    pub fn from_words(words: Vec<u64>) -> Self {
        Self(words)
    }

    /// What it is made of, for storing it.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// False only where the key is not among those it was built from.
    pub fn may_have(&self, key: u64) -> bool {
        let start = self.block_of(key);
        match self.0.get(start..start + BLOCK_WORDS) {
            Some(block) => block.iter().zip(pattern(key)).all(|(word, bits)| word & bits == bits),
            None => false,
        }
    }

    /// The first word of the key's block.
    fn block_of(&self, key: u64) -> usize {
        let blocks = self.0.len() / BLOCK_WORDS;
        // The upper half of the product spreads the key's upper bits evenly over the blocks.
        let block = (u128::from(key) * blocks as u128) >> 64;
        usize::try_from(block).unwrap_or(0) * BLOCK_WORDS
    }
}

/// The bits of a key within its block, from its lower bits, which do not choose the block.
fn pattern(key: u64) -> [u64; BLOCK_WORDS] {
    let mut words = [0; BLOCK_WORDS];
    for probe in 0..PROBES {
        let bit = key >> (probe * 9) & 511;
        if let Some(word) = words.get_mut(usize::try_from(bit / 64).unwrap_or(0)) {
            *word |= 1 << (bit % 64);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hash::hash_text;

    fn keys(range: std::ops::Range<u32>) -> impl ExactSizeIterator<Item = u64> {
        range.map(|n| hash_text(&n.to_le_bytes(), 0)).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn it_has_its_own_keys_and_few_others() {
        let filter = Filter::of(keys(0..10_000));
        assert!(keys(0..10_000).all(|key| filter.may_have(key)));
        let wrong = keys(10_000..20_000).filter(|key| filter.may_have(*key)).count();
        assert!(wrong < 300, "{wrong} of 10,000 strangers let in");
    }

    #[test]
    fn an_empty_one_has_nothing() {
        assert!(keys(0..100).all(|key| !Filter::of(keys(0..0)).may_have(key)));
    }
}
