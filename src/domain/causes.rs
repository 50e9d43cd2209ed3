//! An error as one line of a log or an answer. Of each cause only the first line is told: what a database says below it may
//! quote the row, with the headers and the payload of a client, and is for nobody's log.

use std::error::Error;

/// The error and what it comes from, the innermost last. What an error has said of its cause already is not said again.
pub fn chain(error: &dyn Error) -> String {
    each(error).map(first_line).reduce(say_once).unwrap_or_default()
}

/// The innermost reason, which is the one that tells most.
pub fn innermost(error: &dyn Error) -> String {
    each(error).last().map_or_else(String::new, first_line)
}

fn each(error: &dyn Error) -> impl Iterator<Item = &dyn Error> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn say_once(line: String, cause: String) -> String {
    if line.contains(&cause) { line } else { format!("{line}: {cause}") }
}

fn first_line(error: &dyn Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner\nDETAIL: a row")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("outer, since {0}")]
    struct Telling(#[source] Outer);

    #[test]
    fn what_an_error_says_of_its_cause_is_said_once() {
        assert_eq!(chain(&Telling(Outer(Inner))), "outer, since outer: inner");
    }

    #[test]
    fn an_error_is_told_in_one_line_without_details() {
        assert_eq!(chain(&Outer(Inner)), "outer: inner");
        assert_eq!(innermost(&Outer(Inner)), "inner");
        assert_eq!((chain(&Inner), innermost(&Inner)), ("inner".to_owned(), "inner".to_owned()));
    }
}
