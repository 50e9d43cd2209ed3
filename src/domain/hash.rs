//! PostgreSQL's extended hash of a text (`hashtextextended` under a deterministic collation): Bob Jenkins' lookup3 with
//! a 64-bit seed, as `hash_bytes_extended` of PostgreSQL's `src/common/hashfn.c` defines it on little-endian machines.
//! PostgreSQL keeps it stable, because hash partitions on disk depend on it.

/// The hash of `text`, equal to PostgreSQL's `hashtextextended(text, seed)` read as unsigned.
pub fn hash_text(text: &[u8], seed: u64) -> u64 {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
    let mut state = State { a: start, b: start, c: start };
    if seed != 0 {
        let [s0, s1, s2, s3, s4, s5, s6, s7] = seed.to_be_bytes();
        state.a = state.a.wrapping_add(u32::from_be_bytes([s0, s1, s2, s3]));
        state.b = state.b.wrapping_add(u32::from_be_bytes([s4, s5, s6, s7]));
        state.mix();
    }
    let mut blocks = text.chunks_exact(12);
    for block in &mut blocks {
        state.a = state.a.wrapping_add(word(&block[0..4]));
        state.b = state.b.wrapping_add(word(&block[4..8]));
        state.c = state.c.wrapping_add(word(&block[8..12]));
        state.mix();
    }
    // The lowest byte of c is kept for the length, so that the last bytes enter it one higher.
    let mut last = [0_u8; 12];
    let rest = blocks.remainder();
    let (low, high) = rest.split_at(rest.len().min(8));
    last[..low.len()].copy_from_slice(low);
    last[9..9 + high.len()].copy_from_slice(high);
    state.a = state.a.wrapping_add(word(&last[0..4]));
    state.b = state.b.wrapping_add(word(&last[4..8]));
    state.c = state.c.wrapping_add(word(&last[8..12]));
    state.finish();
    u64::from(state.b) << 32 | u64::from(state.c)
}

/// Up to four bytes as a little-endian number.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn mix(&mut self) {
        let Self { a, b, c } = self;
        *a = a.wrapping_sub(*c) ^ c.rotate_left(4);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(6);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(8);
        *b = b.wrapping_add(*a);
        *a = a.wrapping_sub(*c) ^ c.rotate_left(16);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(19);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(4);
        *b = b.wrapping_add(*a);
    }

    fn finish(&mut self) {
        let Self { a, b, c } = self;
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(14));
        *a = (*a ^ *c).wrapping_sub(c.rotate_left(11));
        *b = (*b ^ *a).wrapping_sub(a.rotate_left(25));
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(16));
        *a = (*a ^ *c).wrapping_sub(c.rotate_left(4));
        *b = (*b ^ *a).wrapping_sub(a.rotate_left(14));
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(24));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by PostgreSQL 15: `select hashtextextended(text, seed)`.
    #[test]
    fn agrees_with_postgresql() {
        for (text, seed, hash) in HASHES_BY_POSTGRESQL {
            assert_eq!(hash_text(text.as_bytes(), *seed), hash.cast_unsigned(), "{text} {seed}");
        }
    }

    const HASHES_BY_POSTGRESQL: &[(&str, u64, i64)] = &[
        ("", 0, -6939563903564495251),
        ("", 7, 2755504096093790112),
        ("", 81985529216486895, 5714803967801994901),
        ("a", 0, 3591986179850072241),
        ("a", 7, 6761863715122467050),
        ("a", 81985529216486895, 5474442009769322144),
        ("abc", 0, -6747756470228489321),
        ("abc", 7, 1967049030278966041),
        ("abc", 81985529216486895, 1707808682428204635),
        ("abcd", 0, -1038429303365892052),
        ("abcd", 7, -1805611576705526402),
        ("abcd", 81985529216486895, 5554817899650624818),
        ("abcdefgh", 0, -8882191227074733005),
        ("abcdefgh", 7, -657836470619280130),
        ("abcdefgh", 81985529216486895, -7862881634097074985),
        ("abcdefghi", 0, -3278210106038014113),
        ("abcdefghi", 7, 2640228520365942430),
        ("abcdefghi", 81985529216486895, 1345559329631573216),
        ("abcdefghijk", 0, 3112909444737856467),
        ("abcdefghijk", 7, -4615438900308943748),
        ("abcdefghijk", 81985529216486895, 3150430116835806880),
        ("abcdefghijkl", 0, -7556637188122330412),
        ("abcdefghijkl", 7, -9039814575907250350),
        ("abcdefghijkl", 81985529216486895, 7159717585609413365),
        ("abcdefghijklm", 0, 8871624171452417744),
        ("abcdefghijklm", 7, 1223120994160335261),
        ("abcdefghijklm", 81985529216486895, 5307507824310379875),
        ("default/user-notification-123", 0, 1871531121670256391),
        ("default/user-notification-123", 7, 1898725508677313948),
        ("default/user-notification-123", 81985529216486895, -5502275585871864374),
        ("größe/ümlaut 字", 0, 2855973326695843145),
        ("größe/ümlaut 字", 7, -4194501358151915129),
        ("größe/ümlaut 字", 81985529216486895, 3550432157941440749),
        (
            "xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/1",
            0,
            -6162258496794539589,
        ),
        (
            "xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/1",
            7,
            -532552509401207689,
        ),
        (
            "xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/xyz/1",
            81985529216486895,
            -5664223361482374802,
        ),
    ];
}
