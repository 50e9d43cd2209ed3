//! What a command prints on its standard output.

use std::io::{self, Write};

/// Nobody reads the output any more.
#[derive(Debug, thiserror::Error)]
#[error("the output was closed")]
pub(super) struct Closed;

/// Prints bytes as they are.
pub(super) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        Err(error) => Err(error.into()),
    }
}

/// Prints a line.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// What plain SQL or a receiver has written must not steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// How wide a column of ids is: as the longest of them, but from 2, as its head is, to `most`.
pub(super) fn width(lengths: impl Iterator<Item = usize>, most: usize) -> usize {
    lengths.max().unwrap_or_default().clamp(2, most)
}
