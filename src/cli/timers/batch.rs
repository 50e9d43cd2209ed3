//! `walclock timers create --batch`: a file of timers, stored a thousand at a time. What is wrong with a line is said with its
//! number, and keeps back no other line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::Context;

use super::show;
use crate::cli::exit::AlreadySaid;
use crate::domain::limits;
use crate::domain::timer::Definition;
use crate::http;
use crate::service::timers::Timers;

/// Stores the timers of the lines of this file, or of the standard input for `-`. What is to be printed is handed to `print`
/// as it comes, and what is wrong with lines to `complain`.
pub(super) async fn create(
    file: &Path,
    json: bool,
    timers: &Timers,
    print: impl FnMut(&[u8]) -> anyhow::Result<()>,
    complain: impl Write,
) -> anyhow::Result<()> {
    let place = || format!("reading {}", file.display());
    let lines: Box<dyn BufRead> = match file.as_os_str() == "-" {
        true => Box::new(BufReader::new(io::stdin())),
        false => Box::new(BufReader::new(File::open(file).with_context(place)?)),
    };
    let mut work = Work { timers, json, print, complain, batch: Vec::new(), stored: 0, refused: 0 };
    let mut lines = Lines { lines, number: 0 };
    let mut bytes = 0;
    while let Some((number, line)) = lines.next().with_context(place)? {
        bytes += line.as_ref().map_or(0, Vec::len);
        work.take(number, line)?;
        if work.batch.len() >= limits::CREATE_BATCH_MAX || bytes >= limits::CREATE_BATCH_BYTES_MAX {
            work.store().await?;
            bytes = 0;
        }
    }
    work.store().await?;
    work.end()
}

/// Lines with their numbers, from 1 on.
struct Lines<R> {
    lines: R,
    number: usize,
}

/// A line longer than a request may be.
struct TooLong;

type Line = Result<Vec<u8>, TooLong>;

impl<R: BufRead> Lines<R> {
    /// The next line that is not blank.
    fn next(&mut self) -> io::Result<Option<(usize, Line)>> {
        loop {
            let mut line = Vec::new();
            let bound = limits::REQUEST_BYTES_MAX as u64 + 1;
            if (&mut self.lines).take(bound).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.len() > limits::REQUEST_BYTES_MAX && !line.ends_with(b"\n") {
                self.lines.skip_until(b'\n')?;
                return Ok(Some((self.number, Err(TooLong))));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some((self.number, Ok(line))));
            }
        }
    }
}

/// What has been read and stored so far.
struct Work<'a, P, C> {
    timers: &'a Timers,
    json: bool,
    print: P,
    complain: C,
    /// Read and not yet stored, each with the number of its line.
    batch: Vec<(usize, Definition)>,
    stored: usize,
    refused: usize,
}

impl<P: FnMut(&[u8]) -> anyhow::Result<()>, C: Write> Work<'_, P, C> {
    fn take(&mut self, number: usize, line: Line) -> anyhow::Result<()> {
        let Ok(line) = line else {
            return self.refuse(number, &format!("it must be at most {} bytes long", limits::REQUEST_BYTES_MAX));
        };
        match http::timers::definition(&line) {
            Ok(definition) => self.batch.push((number, definition)),
            Err(error) => self.refuse(number, &error.to_string())?,
        }
        Ok(())
    }

    fn refuse(&mut self, number: usize, why: &str) -> anyhow::Result<()> {
        self.refused += 1;
        writeln!(self.complain, "walclock: line {number}: {why}").context("printing")
    }

    async fn store(&mut self) -> anyhow::Result<()> {
        let (numbers, definitions): (Vec<usize>, Vec<Definition>) = self.batch.drain(..).unzip();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(()) };
        let place = || format!("storing lines {first} to {last}; {} timers are stored", self.stored);
        let created = self.timers.create_batch(definitions).await.with_context(place)?;
        let mut printed = String::new();
        for (number, created) in numbers.into_iter().zip(created) {
            match created {
                Ok(timer) => {
                    self.stored += 1;
                    if self.json {
                        printed.push_str(&show::json(&timer));
                        printed.push('\n');
                    }
                }
                Err(error) => self.refuse(number, &http::timers::message(error))?,
            }
        }
        (self.print)(printed.as_bytes())
    }

    fn end(mut self) -> anyhow::Result<()> {
        if !self.json {
            let more = match self.refused {
                0 => String::new(),
                refused => format!(", and not {refused}"),
            };
            (self.print)(format!("created {} timers{more}\n", self.stored).as_bytes())?;
        }
        match self.refused {
            0 => Ok(()),
            _ => Err(AlreadySaid.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_numbers_and_a_bound() {
        let long = "x".repeat(limits::REQUEST_BYTES_MAX);
        let text = format!("a\n\n  \r\nb\r\n{long}\n{long}x\nc");
        let mut lines = Lines { lines: text.as_bytes(), number: 0 };
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().expect("memory can be read") {
            found.push((number, line.ok().map(|line| line.trim_ascii().len())));
        }
        assert_eq!(found, [(1, Some(1)), (4, Some(1)), (5, Some(long.len())), (6, None), (7, Some(1))]);
    }
}
