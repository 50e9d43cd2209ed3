//! One message of pgoutput. `cargo +nightly fuzz run pgoutput` in the root of the repository.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walclock::feed::pgoutput::{Message, Tuple};

fuzz_target!(|payload: &[u8]| {
    match Message::parse(payload) {
        Ok(Message::Insert(insert)) => walk(&insert.new),
        Ok(Message::Update(update)) => {
            walk(&update.new);
            if let Some(old) = &update.old {
                walk(&old.tuple);
            }
        }
        Ok(Message::Delete(delete)) => walk(&delete.old.tuple),
        Ok(Message::Relation(relation)) => {
            let told = relation.attributes.len();
            assert_eq!(relation.attributes.count(), told);
        }
        Ok(Message::Truncate(truncate)) => drop(truncate.relations().count()),
        Ok(
            Message::Begin(_) | Message::Commit(_) | Message::Origin(_) | Message::Type(_) | Message::Logical(_),
        )
        | Err(_) => {}
    }
});

/// A tuple hands out as many values as it has.
fn walk(tuple: &Tuple<'_>) {
    assert_eq!(tuple.columns().count(), tuple.len());
}
