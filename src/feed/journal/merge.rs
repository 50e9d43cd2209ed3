//! Merges the ascending offsets of several scopes into one ascending list without duplicates.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::error::Fault;
use super::sidecar::Offsets;

/// The first `limit` distinct offsets below `to` of all lists together. It costs what is returned (times the logarithm of
/// the number of lists), not what the lists hold.
pub(super) fn merge<L>(lists: impl Iterator<Item = L>, to: u32, limit: usize) -> Result<Vec<u32>, Fault>
where
    L: Iterator<Item = Result<u32, Fault>>,
{
    let mut merged: Vec<u32> = Vec::new();
    let mut lists: Vec<L> = lists.collect();
    if let [only] = lists.as_mut_slice() {
        for offset in only.take(limit) {
            match offset? {
                offset if offset < to => merged.push(offset),
                _ => break,
            }
        }
        return Ok(merged);
    }
    let mut heads = BinaryHeap::with_capacity(lists.len());
    for (number, list) in lists.iter_mut().enumerate() {
        if let Some(offset) = list.next().transpose()? {
            heads.push(Reverse((offset, number)));
        }
    }
    while let Some(mut head) = heads.peek_mut() {
        let Reverse((offset, number)) = *head;
        if offset >= to || (merged.len() == limit && merged.last() != Some(&offset)) {
            break;
        }
        if merged.last() != Some(&offset) {
            merged.push(offset);
        }
        match lists.get_mut(number).and_then(L::next).transpose()? {
            Some(next) => *head = Reverse((next, number)),
            None => drop(std::collections::binary_heap::PeekMut::pop(head)),
        }
    }
    Ok(merged)
}

impl Iterator for Offsets<'_> {
    type Item = Result<u32, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_the_sorted_union(
            lists in proptest::collection::vec(proptest::collection::btree_set(0_u32..60, 0..20), 0..6),
            to in 0_u32..70,
            limit in 0_usize..30,
        ) {
            let expected: BTreeSet<u32> = lists.iter().flatten().copied().filter(|offset| *offset < to).collect();
            let merged = merge(lists.iter().map(|list| list.iter().copied().map(Ok)), to, limit).expect("no fault");
            prop_assert_eq!(merged, expected.into_iter().take(limit).collect::<Vec<_>>());
        }
    }
}
