//! Where a new secret comes from: the system's random numbers, or a file. No error tells anything of a secret but its length.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::domain::limits;
use crate::domain::webhook::Secret;

/// Bytes of a secret that is made: as long as the hash that it keys.
const MADE_BYTES: usize = 32;
/// More than the longest secret has in any form, with a line's end.
const FILE_BYTES_MAX: u64 = 256;

/// A new secret, of the system's random numbers.
pub(super) fn make() -> anyhow::Result<Secret> {
    let mut bytes = [0; MADE_BYTES];
    getrandom::fill(&mut bytes).context("asking the system for a secret")?;
    Secret::of_bytes(&bytes).context("making a secret")
}

/// The secret of a file, or of the standard input for `-`: it alone, with whatever space is around it.
pub(super) fn read(file: &Path) -> anyhow::Result<Secret> {
    let place = || format!("reading {}", file.display());
    match file.as_os_str() == "-" {
        true => parse(io::stdin().lock()).with_context(place),
        false => parse(File::open(file).with_context(place)?).with_context(place),
    }
}

fn parse(source: impl Read) -> anyhow::Result<Secret> {
    let mut bytes = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let allowed = format!(
        "--secret-file must hold whsec_ and the base64 of {} to {} bytes, and nothing else",
        limits::SECRET_BYTES.start(),
        limits::SECRET_BYTES.end()
    );
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() as u64 <= FILE_BYTES_MAX);
    let secret: Secret = text.and_then(|text| text.trim().parse().ok()).ok_or_else(|| anyhow!("{allowed}"))?;
    secret.check_length().map_err(|error| anyhow!("{allowed}, not of {}", error.bytes))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &[u8]) -> String {
        parse(text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_file_holds_one_secret_and_space_around_it() {
        let made = make().expect("the system has random numbers");
        assert_ne!(made, make().expect("the system has random numbers"));
        for text in [made.reveal(), format!("\n {}\r\n", made.reveal()), made.reveal().replace('=', "")] {
            assert_eq!(parse(text.as_bytes()).expect("it is a secret"), made);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        let good = make().expect("the system has random numbers").reveal();
        let long = format!("whsec_{}", "QUJD".repeat(22));
        let twice = format!("{good}\n{good}");
        for (text, said) in [
            (&b""[..], "and nothing else"),
            (b"whsec_QUJD", "not of 3"),
            (b"QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD", "and nothing else"),
            (b"whsec_\xff", "and nothing else"),
            (long.as_bytes(), "not of 66"),
            (twice.as_bytes(), "and nothing else"),
            (&[b' '; 300], "and nothing else"),
        ] {
            let error = error(text);
            assert!(error.starts_with("--secret-file must hold whsec_ and the base64 of 24 to 64 bytes"), "{error}");
            assert!(error.ends_with(said) && !error.contains("QUJD"), "{error}");
        }
    }
}
