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

/// Prints of one thing what there is to say, a line each, by its name.
pub(super) fn lines<'a>(
    lines: impl IntoIterator<Item = (&'a str, Option<String>)>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut said = lines.into_iter().filter_map(|(name, value)| Some((name, value?)));
    said.try_for_each(|(name, value)| writeln!(out, "{name:<14}{}", printable(&value)))
}

/// Prints how the list goes on behind these printable ids, if they are as many as were asked for.
pub(super) fn more(ids: impl ExactSizeIterator<Item = String>, limit: u32, out: &mut impl Write) -> io::Result<()> {
    match usize::try_from(limit).is_ok_and(|limit| ids.len() == limit) {
        true => ids.last().map_or(Ok(()), |last| writeln!(out, "there may be more: --after '{last}'")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_does_not_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jü\n"), "a\\u{1b}[2Jü\\n");
    }
}
