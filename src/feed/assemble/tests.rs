//! The assembler on hand-made streams, with a sink that keeps what it is told.

use std::convert::Infallible;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::sequence::Sequence;
use crate::domain::shard::Shard;
use crate::feed::pgoutput::{Attribute, Column, OldKind, encode};

const TABLE: u32 = 16_400;
const COMMIT: u64 = 0x1390_d838;
/// 2026-11-21 09:30:00.123456 UTC, in PostgreSQL's microseconds since 2000-01-01.
const COMMITTED_AT: i64 = 848_568_600_123_456;

/// A row as a sink saw it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    index: u32,
    scopes: Vec<(Side, String)>,
    to_everyone: bool,
    body: Value,
    left: Option<Value>,
    entered: Option<Value>,
}

/// Keeps everything; has every transaction at or below `known` already.
#[derive(Default)]
struct Kept {
    known: Lsn,
    heads: Vec<Head>,
    rows: Vec<Seen>,
    commits: Vec<Lsn>,
}

impl Sink for Kept {
    type Error = Infallible;

    fn begin(&mut self, head: &Head) -> Result<Accept, Infallible> {
        self.heads.push(*head);
        Ok(if head.commit_lsn <= self.known { Accept::Skip } else { Accept::Take })
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), Infallible> {
        // A change is one line, whatever its values: event streams send it as one.
        let bodies = [row.body, row.left_body, row.entered_body];
        assert!(bodies.concat().iter().all(|byte| *byte >= b' '), "a control character in {row:?}");
        let json = |bytes: &[u8]| serde_json::from_slice(bytes).expect("a change is JSON");
        let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| json(bytes));
        self.rows.push(Seen {
            index: row.index,
            scopes: row.scopes.iter().map(|(side, scope)| (*side, (*scope).to_owned())).collect(),
            to_everyone: row.to_everyone,
            body: json(row.body),
            left: some(row.left_body),
            entered: some(row.entered_body),
        });
        Ok(())
    }

    fn commit(&mut self, end_lsn: Lsn) -> Result<(), Infallible> {
        self.commits.push(end_lsn);
        Ok(())
    }

    fn abandon(&mut self) {}
}

fn assembler() -> Assembler {
    let selector_columns = vec!["_change_selector".to_owned(), "_apid_scope".to_owned()];
    Assembler::new(Config { selector_columns }, History::default(), 1_000)
}

fn attribute(name: &str, type_id: u32, is_key: bool) -> Attribute<'_> {
    Attribute { is_key, name: name.as_bytes(), type_id, type_modifier: -1 }
}

/// A table of id, body and selector, with the id as its key.
fn table(selector: &str, selector_type: u32, identity: u8) -> Vec<u8> {
    let full = identity == b'f';
    let columns = [attribute("id", 23, true), attribute("body", 25, full), attribute(selector, selector_type, full)];
    encode::relation(TABLE, b"public", b"t", identity, &columns)
}

fn text(text: &str) -> Column<'_> {
    Column::Text(text.as_bytes())
}

/// Runs one transaction of these messages.
fn transaction(messages: &[Vec<u8>]) -> Kept {
    let mut kept = Kept::default();
    let mut assembler = assembler();
    run(&mut assembler, messages, &mut kept).expect("a stream that makes sense");
    kept
}

fn run(assembler: &mut Assembler, messages: &[Vec<u8>], sink: &mut Kept) -> Result<Progress, Error<Infallible>> {
    assembler.message(Lsn(1), &encode::begin(COMMIT, COMMITTED_AT, 731), sink)?;
    for message in messages {
        assembler.message(Lsn(0x1390_d000), message, sink)?;
    }
    assembler.message(Lsn(1), &encode::commit(COMMIT, COMMIT + 0x30, COMMITTED_AT), sink)
}

fn rows(of: &Value) -> (&Value, &Value, &Value) {
    (&of["newRow"], &of["oldRow"], &of["unchangedColumns"])
}

#[test]
fn an_insert_is_exactly_the_contracts_json() {
    struct Exact(Vec<u8>);
    impl Sink for Exact {
        type Error = Infallible;
        fn begin(&mut self, _: &Head) -> Result<Accept, Infallible> {
            Ok(Accept::Take)
        }
        fn push(&mut self, row: &Row<'_>) -> Result<(), Infallible> {
            self.0 = row.body.to_vec();
            Ok(())
        }
        fn commit(&mut self, _: Lsn) -> Result<(), Infallible> {
            Ok(())
        }
        fn abandon(&mut self) {}
    }
    let columns = [attribute("id", 23, true), attribute("ok", 16, false), attribute("say \"hi\"", 25, false)];
    let mut assembler = assembler();
    let mut exact = Exact(Vec::new());
    for message in [
        encode::begin(COMMIT, COMMITTED_AT, 731),
        encode::relation(TABLE, b"public", b"Order", b'd', &columns),
        encode::insert(TABLE, &[text("1"), text("t"), Column::Null]),
    ] {
        assembler.message(Lsn(328_257_536), &message, &mut exact).expect("a stream that makes sense");
    }
    assert_eq!(
        str::from_utf8(&exact.0).expect("JSON is UTF-8"),
        concat!(
            r#"{"operation":1,"table":"public.\"Order\"","sequence":"0.1390d838.0","commitSequence":328259640,"#,
            r#""changeSequence":328257536,"commitIndex":0,"txid":731,"timestamp":1795253400,"#,
            r#""newRow":{"id":{"value":"1","type":23},"ok":{"value":"true","type":16},"#,
            r#""say \"hi\"":{"value":null,"type":25}}}"#
        )
    );
}

#[test]
fn a_transaction_is_told_whole_and_in_order() {
    let row = |id| encode::insert(TABLE, &[text(id), text("x"), text("a")]);
    let kept = transaction(&[table("_change_selector", 25, b'd'), row("1"), row("2"), row("3")]);
    let [head] = kept.heads.as_slice() else { panic!("one transaction") };
    assert_eq!((head.txid, head.timeline, head.commit_lsn), (731, 1, Lsn(COMMIT)));
    assert_eq!(kept.rows.iter().map(|row| row.index).collect::<Vec<_>>(), [0, 1, 2]);
    for row in &kept.rows {
        assert_eq!(row.body["sequence"], Sequence::new(1, Lsn(COMMIT), row.index).to_string());
        assert_eq!(row.body["commitIndex"], row.index);
        assert_eq!(row.scopes, [(Side::Stays, "a".to_owned())]);
        assert_eq!((&row.left, &row.entered), (&None, &None));
    }
    assert_eq!(kept.commits, [Lsn(COMMIT + 0x30)]);
}

#[test]
fn progress_tells_whether_a_transaction_is_open() {
    let (mut assembler, mut kept) = (assembler(), Kept::default());
    let end_lsn = Lsn(COMMIT + 0x30);
    for (message, progress) in [
        (encode::logical(false, 1, b"walclock", b""), Progress::Idle),
        (encode::begin(COMMIT, COMMITTED_AT, 731), Progress::Within),
        (encode::origin(1, b"elsewhere"), Progress::Within),
        (encode::type_(1, b"public", b"mood"), Progress::Within),
        (table("_change_selector", 25, b'd'), Progress::Within),
        (encode::logical(true, 1, b"walclock", b""), Progress::Within),
        (encode::commit(COMMIT, COMMIT + 0x30, COMMITTED_AT), Progress::Committed { end_lsn }),
        (encode::logical(false, 1, b"walclock", b""), Progress::Idle),
    ] {
        assert_eq!(assembler.message(Lsn(0), &message, &mut kept).expect("sense"), progress);
    }
    assert!(kept.heads.is_empty() && kept.commits.is_empty(), "a transaction without rows reaches no sink");
}

#[test]
fn a_known_transaction_is_skipped_to_its_end() {
    let (mut assembler, mut kept) = (assembler(), Kept { known: Lsn(COMMIT), ..Kept::default() });
    let row = encode::insert(TABLE, &[text("1"), text("x"), text("a")]);
    let end = run(&mut assembler, &[table("_change_selector", 25, b'd'), row.clone(), row], &mut kept);
    assert_eq!(end.expect("sense"), Progress::Committed { end_lsn: Lsn(COMMIT + 0x30) });
    assert_eq!(kept.heads.len(), 1, "the sink is asked once");
    assert!(kept.rows.is_empty() && kept.commits.is_empty());
}

#[test]
fn rows_find_their_scope() {
    let long = "x".repeat(300);
    for (selector, type_id, value, scopes) in [
        ("_change_selector", 25, text("a"), vec!["a"]),
        ("_apid_scope", 25, text("a"), vec!["a"]),
        ("other", 25, text("a"), vec![""]),
        ("_change_selector", 25, Column::Null, vec![""]),
        ("_change_selector", 25, text(""), vec![""]),
        ("_change_selector", 23, text("42"), vec!["42"]),
        ("_change_selector", 1009, text("{b,a}"), vec!["a", "b"]),
        ("_change_selector", 1009, text("{}"), vec![""]),
        ("_change_selector", 1042, text("ab  "), vec!["ab"]),
        ("_change_selector", 1042, text("    "), vec![""]),
        ("_change_selector", 1042, text(" ab "), vec!["(unaskable)"]),
        ("_change_selector", 25, text("ab  "), vec!["(unaskable)"]),
        ("_change_selector", 25, text("{b,a}"), vec!["(unaskable)"]),
        ("_change_selector", 25, text(&long), vec!["(unaskable)"]),
        // An update of it; its old value is not in the log either.
        ("_change_selector", 25, Column::Unchanged, vec!["(unaskable)"]),
    ] {
        let kept =
            transaction(&[table(selector, type_id, b'd'), encode::update(TABLE, None, &[text("1"), text("x"), value])]);
        let expected: Vec<_> = scopes.into_iter().map(|scope| (Side::Stays, scope.to_owned())).collect();
        assert_eq!(kept.rows[0].scopes, expected, "{selector} of type {type_id}: {value:?}");
    }
}

#[test]
fn the_preferred_selector_column_counts() {
    let columns = [attribute("_apid_scope", 25, true), attribute("_change_selector", 25, true)];
    let relation = encode::relation(TABLE, b"public", b"t", b'd', &columns);
    let kept = transaction(&[relation, encode::insert(TABLE, &[text("a"), text("b")])]);
    assert_eq!(kept.rows[0].scopes, [(Side::Stays, "b".to_owned())]);
}

#[test]
fn a_row_that_moves_is_told_to_both_sides() {
    let (old, new) = ([text("1"), text("x"), text("a")], [text("1"), Column::Unchanged, text("b")]);
    let kept =
        transaction(&[table("_change_selector", 25, b'f'), encode::update(TABLE, Some((OldKind::Full, &old)), &new)]);
    let row = &kept.rows[0];
    assert_eq!(row.scopes, [(Side::Left, "a".to_owned()), (Side::Entered, "b".to_owned())]);
    let (left, entered) = (row.left.as_ref().expect("left"), row.entered.as_ref().expect("entered"));
    let cell = |value: &str, oid: u32| json!({"value": value, "type": oid});
    let before = json!({"id": cell("1", 23), "body": cell("x", 25), "_change_selector": cell("a", 25)});
    let after = json!({"id": cell("1", 23), "body": cell("x", 25), "_change_selector": cell("b", 25)});
    assert_eq!((&row.body["operation"], rows(&row.body)), (&json!(2), (&after, &before, &Value::Null)));
    assert_eq!((&left["operation"], rows(left)), (&json!(3), (&Value::Null, &before, &Value::Null)));
    assert_eq!((&entered["operation"], rows(entered)), (&json!(1), (&after, &Value::Null, &Value::Null)));
    for part in [left, entered] {
        assert_eq!(part["sequence"], row.body["sequence"]);
    }
}

#[test]
fn without_the_old_scope_nothing_moves_and_a_delete_is_nobodys() {
    let old = [text("1"), Column::Null, Column::Null];
    let kept = transaction(&[
        table("_change_selector", 25, b'd'),
        encode::update(TABLE, Some((OldKind::Key, &old)), &[text("2"), text("x"), text("b")]),
        encode::delete(TABLE, OldKind::Key, &old),
    ]);
    assert_eq!(kept.rows[0].scopes, [(Side::Stays, "b".to_owned())]);
    assert_eq!(kept.rows[1].scopes, [(Side::Stays, String::new())]);
    let key = json!({"id": {"value": "1", "type": 23}});
    assert_eq!(kept.rows[0].body["oldRow"], key, "nulls beside the key are not values");
    assert_eq!(kept.rows[1].body["oldRow"], key);
}

/// As PostgreSQL tells partitions of a table of this name: its own description, and right behind it the partition's.
#[test]
fn nulls_count_while_all_partitions_have_full_identity() {
    let described = |id, identity| {
        let body = attribute("body", 25, identity == b'f');
        encode::relation(id, b"public", b"t", identity, &[attribute("id", 23, true), body])
    };
    let root = || described(TABLE, b'f');
    let delete = |id| encode::delete(TABLE, OldKind::Full, &[text(id), Column::Null]);
    let kept = transaction(&[
        root(),
        described(TABLE + 1, b'f'),
        delete("full"),
        root(),
        described(TABLE + 2, b'd'),
        delete("brief"),
        delete("either"),
        // Described again for what is not a row of a partition.
        root(),
        encode::truncate(&[TABLE], false, false),
        delete("either"),
        // One table after another is no partition of it.
        root(),
        described(TABLE + 2, b'f'),
        delete("full"),
        root(),
        described(TABLE + 3, b'd'),
        encode::delete(TABLE + 3, OldKind::Key, &[text("other"), Column::Null]),
        delete("full"),
    ]);
    for row in kept.rows.iter().filter(|row| row.body["operation"] == 3) {
        let id = row.body["oldRow"]["id"]["value"].as_str().expect("an id");
        assert_eq!(row.body["oldRow"].get("body").is_some(), id == "full", "{}", row.body);
    }
}

/// One has met the partition that writes keys alone, the other began behind it.
#[test]
fn who_began_at_different_moments_tells_an_old_row_alike() {
    let described = |id, identity| {
        let rest = |name| attribute(name, 25, identity == b'f');
        let columns = [rest("_change_selector"), attribute("id", 23, true), rest("body")];
        encode::relation(id, b"public", b"t", identity, &columns)
    };
    let root = || described(TABLE, b'f');
    let brief = [
        root(),
        described(TABLE + 1, b'd'),
        encode::delete(TABLE, OldKind::Full, &[Column::Null, text("9"), Column::Null]),
    ];
    for (old, is_alike) in [
        ([Column::Null, text("1"), text("b")], true),
        ([text("s"), text("1"), Column::Null], true),
        // It could be a bare key: who knows of one leaves out what the other knows to be null.
        ([Column::Null, text("1"), Column::Null], false),
    ] {
        let new = [text("x"), text("1"), Column::Null];
        let moves = [root(), described(TABLE + 2, b'f'), encode::update(TABLE, Some((OldKind::Full, &old)), &new)];
        let told = |messages: &[Vec<u8>]| {
            let last = transaction(messages).rows.pop().expect("an update");
            (last.scopes.clone(), last.body["oldRow"].clone())
        };
        let (early, late) = (told(&[&brief[..], &moves].concat()), told(&moves));
        assert_eq!(early == late, is_alike, "{early:?} {late:?}");
        let null = json!({"value": null, "type": 25});
        assert_eq!(
            late.1.as_object().expect("a row").values().filter(|cell| **cell == null).count(),
            if is_alike { 1 } else { 2 }
        );
        assert_eq!(early.1.get("id"), late.1.get("id"));
    }
}

#[test]
fn an_unchanged_value_is_filled_in_or_named() {
    let new = [text("1"), Column::Unchanged, text("a")];
    let full = [text("1"), text("large"), text("a")];
    let body = |old: Option<(OldKind, &[Column<'_>])>| {
        let identity = if old.is_some() { b'f' } else { b'd' };
        let update = encode::update(TABLE, old, &new);
        transaction(&[table("_change_selector", 25, identity), update]).rows.remove(0).body
    };
    let filled = body(Some((OldKind::Full, &full)));
    assert_eq!(filled["newRow"]["body"], json!({"value": "large", "type": 25}));
    assert_eq!(filled.get("unchangedColumns"), None);
    let named = body(None);
    assert_eq!(named["newRow"].get("body"), None);
    assert_eq!(named["unchangedColumns"], json!(["body"]));
}

#[test]
fn a_truncate_is_one_change_for_each_table_and_for_everyone() {
    let second = encode::relation(TABLE + 1, b"public", b"u", b'd', &[]);
    let truncate = encode::truncate(&[TABLE, TABLE + 1], false, false);
    let kept = transaction(&[table("_change_selector", 25, b'd'), second, truncate]);
    let told: Vec<_> = kept.rows.iter().map(|row| (row.index, row.to_everyone, row.body["table"].clone())).collect();
    assert_eq!(told, [(0, true, json!("public.t")), (1, true, json!("public.u"))]);
    for row in &kept.rows {
        assert_eq!((&row.body["operation"], rows(&row.body)), (&json!(4), (&Value::Null, &Value::Null, &Value::Null)));
        assert!(row.scopes.is_empty() && row.left.is_none() && row.entered.is_none());
    }
}

#[test]
fn timers_belong_to_their_shard() {
    let columns =
        [attribute("namespace", 25, true), attribute("id", 25, true), attribute("_change_selector", 25, false)];
    let key = |id| [text("default"), text(id), Column::Null];
    let kept = transaction(&[
        encode::relation(TABLE, b"walclock", b"timers", b'd', &columns),
        encode::insert(TABLE, &[text("default"), text("a"), text("mine")]),
        encode::update(TABLE, Some((OldKind::Key, &key("a"))), &[text("default"), text("b"), text("mine")]),
        encode::delete(TABLE, OldKind::Key, &key("b")),
    ]);
    let (a, b) = (Shard::of("default", "a").scope(), Shard::of("default", "b").scope());
    assert_eq!(kept.rows[0].scopes, [(Side::Stays, a.clone())]);
    assert_eq!(kept.rows[1].scopes, [(Side::Left, a), (Side::Entered, b.clone())]);
    assert_eq!(kept.rows[2].scopes, [(Side::Stays, b)]);
}

#[test]
fn walclocks_own_tables_are_told_to_nobody() {
    const OWN: u32 = TABLE + 1;
    let own =
        [attribute("name", 25, true), attribute("secrets", 1009, false), attribute("_change_selector", 25, false)];
    let row = [text("n"), text("{whsec_x}"), text("a")];
    let kept = transaction(&[
        encode::relation(OWN, b"walclock", b"namespaces", b'f', &own),
        encode::insert(OWN, &row),
        table("_change_selector", 25, b'd'),
        encode::insert(TABLE, &[text("1"), text("x"), text("a")]),
        encode::update(OWN, Some((OldKind::Full, &row)), &row),
        encode::delete(OWN, OldKind::Full, &row),
        encode::truncate(&[OWN, TABLE], false, false),
    ]);
    let tables: Vec<_> = kept.rows.iter().map(|row| (row.index, &row.body["table"])).collect();
    assert_eq!(tables, [(0, &json!("public.t")), (1, &json!("public.t"))]);
}

#[test]
fn a_table_described_again_has_its_new_columns() {
    let narrow = encode::relation(TABLE, b"public", b"t", b'd', &[attribute("id", 23, true)]);
    let kept = transaction(&[
        narrow,
        encode::insert(TABLE, &[text("1")]),
        table("_change_selector", 25, b'd'),
        encode::insert(TABLE, &[text("2"), text("x"), text("a")]),
    ]);
    assert_eq!(kept.rows[0].body["newRow"], json!({"id": {"value": "1", "type": 23}}));
    assert_eq!(kept.rows[1].scopes, [(Side::Stays, "a".to_owned())]);
}

/// A changeserver that was behind receives from the new primary what had committed before the promotion. Another one
/// has it from the old primary: the sequences must be the same.
#[test]
fn a_transaction_belongs_to_the_timeline_that_it_committed_on() {
    let history = History::new(3, vec![(1, Lsn(1000)), (2, Lsn(2000))]);
    let mut assembler = Assembler::new(Config { selector_columns: Vec::new() }, history, 1_000);
    let mut kept = Kept::default();
    let commits = [990, 999, 1000, 1001, 1999, 2000, 5000];
    for commit in commits {
        for message in [
            encode::begin(commit, COMMITTED_AT, 731),
            table("_change_selector", 25, b'd'),
            encode::insert(TABLE, &[text("1"), text("x"), text("a")]),
            encode::commit(commit, commit + 1, COMMITTED_AT),
        ] {
            assembler.message(Lsn(0), &message, &mut kept).expect("sense");
        }
    }
    let timelines = [1, 1, 2, 2, 2, 3, 3];
    let expected: Vec<_> = timelines.iter().zip(commits).map(|(on, lsn)| Sequence::new(*on, Lsn(lsn), 0)).collect();
    assert_eq!(kept.heads.iter().map(|head| head.sequence(0)).collect::<Vec<_>>(), expected);
    let told: Vec<_> = kept.rows.iter().map(|row| row.body["sequence"].as_str().expect("a text").to_owned()).collect();
    assert_eq!(told, expected.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn a_stream_without_sense_is_refused() {
    let begin = encode::begin(COMMIT, COMMITTED_AT, 731);
    let row = encode::insert(TABLE, &[text("1"), text("x"), text("a")]);
    let described = table("_change_selector", 25, b'd');
    let binary = encode::insert(TABLE, &[Column::Binary(b"\0"), text("x"), text("a")]);
    for (messages, violation) in [
        (vec![b"?".to_vec()], Violation::Malformed(pgoutput::Error::UnknownMessage { kind: b'?' })),
        (vec![described.clone(), row.clone()], Violation::Misplaced { message: "a row" }),
        (vec![encode::truncate(&[TABLE], false, false)], Violation::Misplaced { message: "Truncate" }),
        (vec![begin.clone(), begin.clone()], Violation::Misplaced { message: "Begin" }),
        (vec![encode::commit(COMMIT, COMMIT + 1, 0)], Violation::Misplaced { message: "Commit" }),
        (vec![begin.clone(), encode::commit(COMMIT + 1, COMMIT + 2, 0)], Violation::Misplaced { message: "Commit" }),
        (vec![begin.clone(), row], Violation::UnknownRelation { id: TABLE }),
        (
            vec![begin.clone(), described.clone(), encode::insert(TABLE, &[text("1")])],
            Violation::ColumnCount { id: TABLE },
        ),
        (vec![begin, described, binary], Violation::Binary { id: TABLE }),
    ] {
        let (mut assembler, mut kept) = (assembler(), Kept::default());
        let (last, before) = messages.split_last().expect("at least one");
        for message in before {
            assembler.message(Lsn(0), message, &mut kept).expect("sense so far");
        }
        match assembler.message(Lsn(0), last, &mut kept) {
            Err(Error::Stream(found)) => assert_eq!(found, violation),
            other => panic!("{violation}: {other:?}"),
        }
    }
}

proptest! {
    /// The sink reads every body as JSON.
    #[test]
    fn any_values_make_json(values in prop::collection::vec(prop::option::of(any::<Vec<u8>>()), 3), name: Vec<u8>) {
        let name: Vec<u8> = name.into_iter().filter(|byte| *byte != 0).collect();
        let column = |type_id| Attribute { is_key: true, name: &name, type_id, type_modifier: -1 };
        let relation = encode::relation(TABLE, &name, &name, b'd', &[column(25), column(16), column(1009)]);
        let row: Vec<_> = values.iter().map(|value| value.as_deref().map_or(Column::Null, Column::Text)).collect();
        let (mut assembler, mut kept) = (assembler(), Kept::default());
        let insert = encode::insert(TABLE, &row);
        let update = encode::update(TABLE, Some((OldKind::Full, &row)), &[Column::Unchanged; 3]);
        run(&mut assembler, &[relation, insert, update], &mut kept).expect("sense");
        prop_assert_eq!(kept.rows.len(), 2);
    }
}
