//! Round trips, cuts, and whatever a broken or hostile peer may send.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::domain::sequence::Lsn;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/pgoutput");

/// One message for every branch of the decoder.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let text = Column::Text(b"one");
    let row = [text, Column::Null, Column::Unchanged, Column::Binary(b"\0\0\0\x01")];
    let column = |is_key, name, type_id| Attribute { is_key, name, type_id, type_modifier: -1 };
    let columns = [column(true, b"id", 23), column(false, b"body", 25)];
    vec![
        ("begin", encode::begin(0x1390_d838, 817_000_000_123_456, 731)),
        ("commit", encode::commit(0x1390_d838, 0x1390_d868, 817_000_000_123_456)),
        ("origin", encode::origin(0x10, b"elsewhere")),
        ("relation_default", encode::relation(7, b"public", b"t", b'd', &columns)),
        ("relation_nothing", encode::relation(7, b"", b"t", b'n', &columns)),
        ("relation_full", encode::relation(7, b"public", b"t", b'f', &[])),
        ("relation_index", encode::relation(7, b"public", b"t", b'i', &columns)),
        ("type", encode::type_(16_400, b"public", b"mood")),
        ("insert", encode::insert(7, &row)),
        ("insert_no_columns", encode::insert(7, &[])),
        ("update", encode::update(7, None, &row)),
        ("update_key", encode::update(7, Some((OldKind::Key, &row)), &row)),
        ("update_full", encode::update(7, Some((OldKind::Full, &row)), &row)),
        ("delete_key", encode::delete(7, OldKind::Key, &row)),
        ("delete_full", encode::delete(7, OldKind::Full, &row)),
        ("truncate", encode::truncate(&[7, 8], true, false)),
        ("truncate_restart", encode::truncate(&[7], false, true)),
        ("logical", encode::logical(false, 0x20, b"walclock", b"heartbeat")),
        ("logical_transactional", encode::logical(true, 0x20, b"", b"")),
    ]
}

/// Messages that protocol 1 does not have, and what is wrong with them.
fn refused() -> Vec<(&'static str, Vec<u8>, Error)> {
    let unknown = |field, value| Error::UnknownValue { field, value };
    vec![
        ("bad_empty", vec![], Error::Truncated),
        ("bad_stream_start", b"S\0\0\0\x01\x01".to_vec(), Error::UnknownMessage { kind: b'S' }),
        ("bad_insert_old", b"I\0\0\0\x07O\0\0".to_vec(), unknown("kind of row", b'O')),
        ("bad_update_key_only", b"U\0\0\0\x07K\0\0K\0\0".to_vec(), unknown("kind of row", b'K')),
        ("bad_update_unmarked", b"U\0\0\0\x07X\0\0".to_vec(), unknown("kind of row", b'X')),
        ("bad_delete_new", b"D\0\0\0\x07N\0\0".to_vec(), unknown("kind of row", b'N')),
        ("bad_value_kind", b"I\0\0\0\x07N\0\x01x".to_vec(), unknown("kind of value", b'x')),
        ("bad_value_negative", b"I\0\0\0\x07N\0\x01t\xff\xff\xff\xff".to_vec(), Error::Truncated),
        ("bad_identity", b"R\0\0\0\x07\0t\0x\0\0".to_vec(), unknown("replica identity", b'x')),
        ("bad_truncate_count", b"T\xff\xff\xff\xff\0\0\0\0\x07".to_vec(), Error::Truncated),
        ("bad_name_endless", b"Y\0\0\0\x07public".to_vec(), Error::Truncated),
    ]
}

/// Reads everything that a message can hand out.
fn walk(message: &Message<'_>) -> usize {
    match message {
        Message::Begin(_) | Message::Commit(_) => 1,
        Message::Origin(origin) => origin.name.len(),
        Message::Relation(relation) => relation.attributes.map(|column| column.name.len()).sum(),
        Message::Type(type_) => type_.name.len(),
        Message::Insert(insert) => walk_tuple(&insert.new),
        Message::Update(update) => {
            walk_tuple(&update.new) + update.old.as_ref().map_or(0, |old| walk_tuple(&old.tuple))
        }
        Message::Delete(delete) => walk_tuple(&delete.old.tuple),
        Message::Truncate(truncate) => truncate.relations().len(),
        Message::Logical(logical) => logical.content.len(),
    }
}

fn walk_tuple(tuple: &Tuple<'_>) -> usize {
    assert_eq!(tuple.columns().count(), tuple.len(), "a parsed tuple hands out all of its values");
    assert_eq!(tuple.get(tuple.len()), None);
    tuple.len()
}

/// A message as it was before it was parsed.
fn encoded(message: &Message<'_>) -> Vec<u8> {
    let micros = |at: Timestamp| at.micros() - 946_684_800_000_000;
    match message {
        Message::Begin(begin) => encode::begin(begin.final_lsn.0, micros(begin.committed_at), begin.xid),
        Message::Commit(commit) => encode::commit(commit.commit_lsn.0, commit.end_lsn.0, micros(commit.committed_at)),
        Message::Origin(origin) => encode::origin(origin.commit_lsn.0, origin.name),
        Message::Relation(relation) => {
            let identity = match relation.identity {
                ReplicaIdentity::Default => b'd',
                ReplicaIdentity::Nothing => b'n',
                ReplicaIdentity::Full => b'f',
                ReplicaIdentity::Index => b'i',
            };
            let columns: Vec<_> = relation.attributes.collect();
            encode::relation(relation.id, relation.schema, relation.name, identity, &columns)
        }
        Message::Type(type_) => encode::type_(type_.id, type_.schema, type_.name),
        Message::Insert(insert) => encode::insert(insert.relation, &values(&insert.new)),
        Message::Update(update) => {
            let old = update.old.map(|old| (old.kind, values(&old.tuple)));
            let old = old.as_ref().map(|(kind, columns)| (*kind, columns.as_slice()));
            encode::update(update.relation, old, &values(&update.new))
        }
        Message::Delete(delete) => encode::delete(delete.relation, delete.old.kind, &values(&delete.old.tuple)),
        Message::Truncate(truncate) => {
            let relations: Vec<_> = truncate.relations().collect();
            encode::truncate(&relations, truncate.cascade, truncate.restart_identity)
        }
        Message::Logical(logical) => {
            encode::logical(logical.transactional, logical.lsn.0, logical.prefix, logical.content)
        }
    }
}

fn values<'a>(tuple: &Tuple<'a>) -> Vec<Column<'a>> {
    tuple.columns().collect()
}

#[test]
fn every_branch_survives_a_round_trip() {
    for (name, bytes) in samples() {
        let message = Message::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        walk(&message);
        assert_eq!(encoded(&message), bytes, "{name}");
    }
}

#[test]
fn the_fields_are_where_postgresql_puts_them() {
    let bytes = encode::begin(0x1390_d838, 1, 731);
    let committed_at = Timestamp::from_micros(946_684_800_000_001);
    let begin = Begin { final_lsn: Lsn(0x1390_d838), committed_at, xid: 731 };
    assert_eq!(Message::parse(&bytes), Ok(Message::Begin(begin)));
    let bytes = encode::insert(7, &[Column::Null, Column::Unchanged, Column::Text(b""), Column::Text(b"x")]);
    let Ok(Message::Insert(insert)) = Message::parse(&bytes) else { panic!("an insert") };
    assert_eq!(insert.relation, 7);
    assert_eq!(values(&insert.new), [Column::Null, Column::Unchanged, Column::Text(b""), Column::Text(b"x")]);
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    for (name, bytes) in samples() {
        for length in 0..bytes.len() {
            assert_eq!(Message::parse(&bytes[..length]), Err(Error::Truncated), "{name} cut at {length}");
        }
    }
}

#[test]
fn bytes_behind_a_message_are_refused() {
    for (name, mut bytes) in samples() {
        bytes.extend_from_slice(b"n\0");
        assert_eq!(Message::parse(&bytes), Err(Error::Trailing { count: 2 }), "{name}");
    }
}

#[test]
fn what_protocol_1_does_not_have_is_refused() {
    for (name, bytes, error) in refused() {
        assert_eq!(Message::parse(&bytes), Err(error), "{name}");
    }
}

#[test]
fn the_fuzzers_corpus_has_every_branch() {
    let wanted = samples().into_iter().chain(refused().into_iter().map(|(name, bytes, _)| (name, bytes)));
    for (name, bytes) in wanted {
        let file = Path::new(CORPUS).join(name);
        assert_eq!(fs::read(&file).ok(), Some(bytes), "{}", file.display());
    }
}

#[test]
fn mutations_of_the_corpus_never_panic() {
    let mut refused = 0;
    for file in fs::read_dir(CORPUS).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for place in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[place].wrapping_add(1), bytes[place].wrapping_sub(1)] {
                let mut mutation = bytes.clone();
                mutation[place] = value;
                refused += usize::from(Message::parse(&mutation).map(|message| walk(&message)).is_err());
            }
            let mut shorter = bytes.clone();
            shorter.remove(place);
            refused += usize::from(Message::parse(&shorter).map(|message| walk(&message)).is_err());
        }
    }
    assert!(refused > 0, "some of them are no messages");
}

fn any_column() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (0..4_u8, prop::collection::vec(any::<u8>(), 0..20))
}

fn column((kind, bytes): &(u8, Vec<u8>)) -> Column<'_> {
    match kind {
        0 => Column::Null,
        1 => Column::Unchanged,
        2 => Column::Text(bytes),
        _ => Column::Binary(bytes),
    }
}

proptest! {
    #[test]
    fn any_update_round_trips(
        relation: u32,
        old in prop::option::of((any::<bool>(), prop::collection::vec(any_column(), 0..6))),
        new in prop::collection::vec(any_column(), 0..6),
    ) {
        let new: Vec<_> = new.iter().map(column).collect();
        let old = old.as_ref().map(|(full, columns)| {
            let kind = if *full { OldKind::Full } else { OldKind::Key };
            (kind, columns.iter().map(column).collect::<Vec<_>>())
        });
        let bytes = encode::update(relation, old.as_ref().map(|(kind, columns)| (*kind, columns.as_slice())), &new);
        let Ok(Message::Update(update)) = Message::parse(&bytes) else { panic!("an update") };
        prop_assert_eq!(update.relation, relation);
        prop_assert_eq!(values(&update.new), new);
        prop_assert_eq!(update.old.map(|old| (old.kind, values(&old.tuple))), old);
    }

    #[test]
    fn any_relation_round_trips(
        id: u32,
        schema in "[^\0]{0,10}",
        columns in prop::collection::vec(("[^\0]{0,10}", any::<(bool, u32, i32)>()), 0..6),
    ) {
        let columns: Vec<_> = columns
            .iter()
            .map(|(name, (is_key, type_id, type_modifier))| {
                Attribute { is_key: *is_key, name: name.as_bytes(), type_id: *type_id, type_modifier: *type_modifier }
            })
            .collect();
        let bytes = encode::relation(id, schema.as_bytes(), b"t", b'd', &columns);
        let Ok(Message::Relation(relation)) = Message::parse(&bytes) else { panic!("a relation") };
        prop_assert_eq!((relation.id, relation.schema), (id, schema.as_bytes()));
        prop_assert_eq!(relation.attributes.collect::<Vec<_>>(), columns);
    }

    #[test]
    fn random_bytes_never_panic(kind in "[BCORYIUDTM]", bytes: Vec<u8>) {
        let _ = Message::parse(&bytes).map(|message| walk(&message));
        let typed = [kind.as_bytes(), &bytes].concat();
        let _ = Message::parse(&typed).map(|message| walk(&message));
    }
}
