//! A stream of messages, each behind its length in two bytes. `cargo +nightly fuzz run assemble`.
#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use walclock::domain::history::History;
use walclock::domain::sequence::Lsn;
use walclock::feed::assemble::{Assembler, Config};
use walclock::feed::sink::{Accept, Head, Row, Side, Sink};

fuzz_target!(|stream: &[u8]| {
    let selector_columns = vec!["_change_selector".to_owned(), "_apid_scope".to_owned()];
    let mut assembler = Assembler::new(Config { selector_columns }, History::default(), 1_000);
    let mut sink = Checking::default();
    let mut rest = stream;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let Some((message, behind)) = behind.split_at_checked(u16::from_be_bytes(*length).into()) else { return };
        if assembler.message(Lsn(1), message, &mut sink).is_err() {
            return;
        }
        rest = behind;
    }
});

/// Checks what every sink may rely on.
#[derive(Default)]
struct Checking {
    open: bool,
    rows: u32,
}

impl Sink for Checking {
    type Error = Infallible;

    fn begin(&mut self, _: &Head) -> Result<Accept, Infallible> {
        assert!(!self.open, "one transaction at a time");
        (self.open, self.rows) = (true, 0);
        Ok(Accept::Take)
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), Infallible> {
        assert!(self.open, "rows stand within a transaction");
        assert_eq!(row.index, self.rows, "indexes have no holes");
        self.rows += 1;
        let told = |side| row.scopes.iter().any(|(of, _)| *of == side);
        assert_eq!(row.to_everyone, row.scopes.is_empty());
        assert_eq!(row.left_body.is_empty(), !told(Side::Left));
        assert_eq!(row.entered_body.is_empty(), !told(Side::Entered));
        for body in [row.body, row.left_body, row.entered_body].into_iter().filter(|body| !body.is_empty()) {
            serde_json::from_slice::<&RawValue>(body).expect("a change is JSON");
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
