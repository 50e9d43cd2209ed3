//! How the process ends: 0 done, 1 failed, 2 wrong usage (clap's own), 78 wrong settings.

use std::io::Write;
use std::process::ExitCode;

use super::output;
use crate::config;
use crate::telemetry::FilterError;

/// `EX_CONFIG` of sysexits: a restart will not help, somebody has to change the settings.
const WRONG_SETTINGS: u8 = 78;

/// The command has printed what is wrong itself; only the code is left to say.
#[derive(Debug, thiserror::Error)]
#[error("what was found is printed above")]
pub(super) struct AlreadySaid;

/// The exit code of a command; an error goes to the standard error output as one line.
pub(super) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.chain().any(is_closed_pipe) {
        return ExitCode::SUCCESS;
    }
    if !error.is::<AlreadySaid>() {
        let _ = writeln!(std::io::stderr(), "walclock: {}", line(&error));
    }
    match error.is::<config::Error>() || error.is::<FilterError>() {
        true => ExitCode::from(WRONG_SETTINGS),
        false => ExitCode::FAILURE,
    }
}

/// The error and its causes in one line, each said once.
fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whoever read our output has had enough: no failure of ours.
fn is_closed_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<output::Closed>().is_some()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_told_once_in_one_line() {
        let error = Err::<(), _>(anyhow::anyhow!("refused\n  by peer")).context("connecting").unwrap_err();
        assert_eq!(line(&error), "connecting: refused by peer");
        let error = anyhow::anyhow!("refused").context("connecting: refused");
        assert_eq!(line(&error), "connecting: refused");
    }
}
