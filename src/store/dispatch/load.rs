//! The near future, read in order.

use crate::clock::Timestamp;
use crate::dispatch::ports::{Entry, LoadRequest};
use crate::domain::shard::Shard;
use crate::store::Error;
use crate::store::pool::Lent;

const LOAD_ENTRIES: &str = include_str!("../../../sql/queries/timers/load_entries.sql");

/// The next entries of some shards, in order.
pub async fn load(client: &Lent, request: &LoadRequest) -> Result<Vec<Entry>, Error> {
    let shards = bits(&request.shards);
    let limit = i64::try_from(request.limit).unwrap_or(i64::MAX);
    let (due_at, namespace, id) = match &request.after {
        Some(entry) => (entry.due_at, &*entry.key.namespace, &*entry.key.id),
        None => (Timestamp::MIN, "", ""),
    };
    let rows = client.ask("loading timers", async {
        let statement = client.prepare_cached(LOAD_ENTRIES).await?;
        client.query(&statement, &[&shards, &due_at, &namespace, &id, &request.until, &limit]).await
    });
    Ok(rows.await?.iter().map(super::row::entry).collect())
}

/// A set of shards, a bit each, counted from the lowest bit of the first byte.
pub fn bits(shards: &[Shard]) -> Vec<u8> {
    let mut bits = vec![0; Shard::COUNT / 8];
    for Shard(shard) in shards {
        if let Some(byte) = bits.get_mut(usize::from(shard / 8)) {
            *byte |= 1_u8 << (shard % 8);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards_has_their_bits() {
        assert_eq!(bits(&[]), [0; 32]);
        assert_eq!(bits(&Shard::all().collect::<Vec<_>>()), [255; 32]);
        let some = bits(&[Shard(0), Shard(9), Shard(255)]);
        assert_eq!((some[0], some[1], some[31]), (1, 2, 128));
        assert_eq!(some.iter().map(|byte| byte.count_ones()).sum::<u32>(), 3);
    }
}
