//! The corpus of the fuzzer `assemble`: whole streams, each message behind its length in two bytes. The main suite keeps
//! it complete, and runs over it and over mutations of it.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use super::*;
use crate::feed::pgoutput::{Attribute, Column, OldKind, encode};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/assemble");

/// One stream for every way that a row can find its scopes and its values.
fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &'static str| Column::Text(text.as_bytes());
    let column =
        |name: &'static str, type_id, is_key| Attribute { is_key, name: name.as_bytes(), type_id, type_modifier: -1 };
    let table = |schema: &[u8], name: &[u8], identity, columns: &[Attribute<'_>]| {
        encode::relation(7, schema, name, identity, columns)
    };
    let scoped = |type_id, full| [column("id", 23, true), column("_change_selector", type_id, full)];
    let key = [text("1"), Column::Null];
    let timer = [column("namespace", 25, true), column("id", 25, true)];
    vec![
        ("empty", stream(&[])),
        ("insert", stream(&[table(b"public", b"Order", b'd', &scoped(25, false)), encode::insert(7, &key)])),
        (
            "move",
            stream(&[
                table(b"public", b"t", b'f', &scoped(25, true)),
                encode::update(7, Some((OldKind::Full, &[text("1"), text("a")])), &[text("1"), text("b")]),
            ]),
        ),
        (
            "move_in_array",
            stream(&[
                table(b"public", b"t", b'f', &scoped(1009, true)),
                encode::update(
                    7,
                    Some((OldKind::Full, &[text("1"), text("{a,b}")])),
                    &[text("1"), text("{\"b c\",b}")],
                ),
            ]),
        ),
        (
            "key_and_unchanged",
            stream(&[
                table(b"public", b"t", b'd', &scoped(16, false)),
                encode::update(7, Some((OldKind::Key, &key)), &[Column::Unchanged, Column::Unchanged]),
                encode::update(7, None, &[text("\u{1}\"\\ü"), text("t")]),
                encode::delete(7, OldKind::Key, &key),
            ]),
        ),
        (
            "truncate",
            stream(&[table(b"", b"t", b'd', &[]), encode::truncate(&[7, 7], true, true), encode::insert(7, &[])]),
        ),
        ("timers", stream(&[table(b"walclock", b"timers", b'd', &timer), encode::insert(7, &[text("n"), text("i")])])),
        ("between", {
            let alone = [encode::logical(false, 1, b"p", b"c"), encode::type_(9, b"", b"mood")];
            alone.iter().flat_map(|message| framed(message)).collect()
        }),
    ]
}

/// One transaction around these messages.
fn stream(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut all = vec![encode::begin(64, 0, 731)];
    all.extend_from_slice(messages);
    all.push(encode::commit(64, 96, 0));
    all.iter().flat_map(|message| framed(message)).collect()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a test has small messages");
    [&length.to_be_bytes(), message].concat()
}

/// Runs a stream up to its end, or to the first message without sense, and says how many rows there were.
fn run(stream: &[u8]) -> u32 {
    let mut assembler =
        Assembler::new(Config { selector_columns: vec!["_change_selector".to_owned()] }, History::default(), 1_000);
    let mut sink = Checking { open: false, rows: 0 };
    let mut rest = stream;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let Some((message, behind)) = behind.split_at_checked(u16::from_be_bytes(*length).into()) else { break };
        if assembler.message(Lsn(1), message, &mut sink).is_err() {
            break;
        }
        rest = behind;
    }
    sink.rows
}

/// Checks what every sink may rely on.
struct Checking {
    open: bool,
    rows: u32,
}

impl Sink for Checking {
    type Error = Infallible;

    fn begin(&mut self, _: &Head) -> Result<Accept, Infallible> {
        assert!(!self.open, "one transaction at a time");
        self.open = true;
        Ok(Accept::Take)
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), Infallible> {
        assert!(self.open, "rows stand within a transaction");
        self.rows += 1;
        let told = |side| row.scopes.iter().any(|(of, _)| *of == side);
        assert_eq!(row.to_everyone, row.scopes.is_empty());
        assert_eq!(row.left_body.is_empty(), !told(Side::Left));
        assert_eq!(row.entered_body.is_empty(), !told(Side::Entered));
        for body in [row.body, row.left_body, row.entered_body].into_iter().filter(|body| !body.is_empty()) {
            serde_json::from_slice::<serde_json::Value>(body).expect("a change is JSON");
        }
        Ok(())
    }

    fn commit(&mut self, _: Lsn) -> Result<(), Infallible> {
        assert!(self.open, "a transaction without rows reaches no sink");
        self.open = false;
        Ok(())
    }

    fn abandon(&mut self) {
        self.open = false;
    }
}

#[test]
fn the_fuzzers_corpus_is_complete() {
    for (name, bytes) in streams() {
        let file = Path::new(CORPUS).join(name);
        assert_eq!(fs::read(&file).ok(), Some(bytes), "{}", file.display());
    }
}

#[test]
fn mutations_of_the_corpus_keep_the_sinks_contract() {
    let mut rows = 0;
    for file in fs::read_dir(CORPUS).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        rows += run(&bytes);
        for place in 0..bytes.len() {
            for value in [0, b'n', b'u', b'"', 0x80, 0xff, bytes[place].wrapping_add(1)] {
                let mut mutation = bytes.clone();
                mutation[place] = value;
                run(&mutation);
            }
        }
    }
    assert!(rows >= 10, "the corpus itself makes sense");
}
