//! Log lines on the standard error output: for people at a terminal, JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::LogFormat;

/// What is logged where nobody says otherwise: our own news, and others' warnings. The pool's say nothing that our own
/// do not.
const FILTER_DEFAULT: &str = "walclock=info,warn,deadpool=error,deadpool_postgres=error";

/// How logs are to look.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The form of the lines.
    pub format: LogFormat,
    /// What is logged, in the form of tracing's filters.
    pub filter: Option<String>,
}

/// The filter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`log` cannot be `{filter}`: expected a filter such as info, or walclock=debug,warn")]
pub struct FilterError {
    /// The filter as it was given.
    filter: String,
    /// What is wrong with it.
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start_logs(logs: &Logs) -> Result<(), FilterError> {
    let filter = logs.filter.as_deref().unwrap_or(FILTER_DEFAULT);
    let filter = EnvFilter::try_new(filter).map_err(|source| FilterError { filter: filter.to_owned(), source })?;
    let human = match logs.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(human && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // An error here says that somebody has started logging before, which is as good.
    let _ = match human {
        true => builder.with_target(false).try_init(),
        false => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_named() {
        let logs = Logs { format: LogFormat::Json, filter: Some("walclock=loud".to_owned()) };
        let error = start_logs(&logs).unwrap_err().to_string();
        assert!(error.starts_with("`log` cannot be `walclock=loud`: expected a filter"), "{error}");
    }
}
