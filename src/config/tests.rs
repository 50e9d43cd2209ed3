//! The settings as tables of cases.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, FromArgMatches};

use super::{ServeFlags, Settings, value};

/// The settings from flags, variables and the text of a file; an error as its one line.
fn load(flags: &[&str], variables: &[(&str, &str)], file: &str) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walclock.toml");
    std::fs::write(&path, file).unwrap();
    let command = ServeFlags::augment_args(clap::Command::new("serve"));
    let matches = command.try_get_matches_from(std::iter::once("serve").chain(flags.iter().copied())).unwrap();
    let flags = ServeFlags::from_arg_matches(&matches).unwrap();
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let settings = Settings::from_sources(flags.layer, Some(&path), variables);
    settings.map_err(|error| error.to_string().replace(&*folder.path().to_string_lossy(), ""))
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let port = |flags: &[&str], variables: &[(&str, &str)], file| load(flags, variables, file).unwrap().port;
    assert_eq!(port(&[], &[], ""), 8080);
    assert_eq!(port(&[], &[], "port = 1"), 1);
    assert_eq!(port(&[], &[("WALCLOCK_PORT", "2")], "port = 1"), 2);
    assert_eq!(port(&["--port", "3"], &[("WALCLOCK_PORT", "2")], "port = 1"), 3);
}

#[test]
fn lists_come_with_commas_as_repeated_flags_and_as_arrays() {
    let expected = vec!["a".to_owned(), "b".to_owned()];
    for (flags, file) in [
        (&["--selector-column", "a,b"] as &[_], ""),
        (&["--selector-column", "a", "--selector-column", "b"], ""),
        (&[], "selector-column = ['a', 'b']"),
        (&[], "selector-column = 'a, b'"),
    ] {
        assert_eq!(load(flags, &[], file).unwrap().selector_columns, expected, "{flags:?} {file}");
    }
}

#[test]
fn a_bare_switch_says_true() {
    let switch = |flags: &[&str]| load(flags, &[], "auto-create-namespaces = true").unwrap().auto_create_namespaces;
    assert!(switch(&[]));
    assert!(switch(&["--auto-create-namespaces"]));
    assert!(!switch(&["--auto-create-namespaces=false"]));
    assert!(!Settings::defaults().auto_create_namespaces);
}

#[test]
fn the_database_url_is_found_in_its_places_and_never_shown() {
    let url =
        |variables: &[(&str, &str)]| load(&[], variables, "").unwrap().database_url.map(|url| url.reveal().to_owned());
    assert_eq!(url(&[]), None);
    assert_eq!(url(&[("DATABASE_URL", "postgres://me@a/x")]).as_deref(), Some("postgres://me@a/x"));
    let both = [("DATABASE_URL", "postgres://me@a/x"), ("WALCLOCK_DATABASE_URL", "postgres://me@b/y")];
    assert_eq!(url(&both).as_deref(), Some("postgres://me@b/y"));
    let settings = load(&["--database-url", "postgres://me:hunter2@a/x"], &[], "").unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    let error = load(&["--database-url", "postgres://me:hunter2@a:port/x"], &[], "").unwrap_err();
    assert!(error.contains("flag --database-url") && !error.contains("hunter2"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, "postgres://me@c/z\n").unwrap();
    let named = [("WALCLOCK_DATABASE_URL_FILE", path.to_str().unwrap()), ("DATABASE_URL", "postgres://me@a/x")];
    assert_eq!(url(&named).as_deref(), Some("postgres://me@c/z"));
}

/// Flags, variables, the file, and how the error begins.
type Wrong = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str, &'static str);

const WRONG: &[Wrong] = &[
    (&["--port", "eighty"], &[], "", "flag --port: `port` cannot be `eighty`: expected a whole number from 0 to 65535"),
    (&["--port", "70000"], &[], "", "flag --port: `port` cannot be `70000`: expected a whole number from 0 to 65535"),
    (&["--port", "-1"], &[], "", "flag --port: `port` cannot be `-1`: expected a whole number from 0 to 65535"),
    (
        &["--max-age", "-1d"],
        &[],
        "",
        "flag --max-age: `max-age` cannot be `-1d`: expected a span of at least 1s, such as 7d, 12h or 1h30m",
    ),
    (
        &[],
        &[("WALCLOCK_MAX_AGE", "7 days")],
        "",
        "variable WALCLOCK_MAX_AGE: `max-age` cannot be `7 days`: expected a span of at least 1s, such as 7d, 12h or 1h30m",
    ),
    (
        &[],
        &[],
        "max-size = '10 gigs'",
        "/walclock.toml: `max-size` cannot be `10 gigs`: expected a size of at least 1MiB, such as 512MiB or 10GiB",
    ),
    (
        &[],
        &[],
        "port = [1]",
        "/walclock.toml: `port` cannot be `a TOML array`: expected a whole number from 0 to 65535",
    ),
    (&[], &[], "prot = 1", "/walclock.toml: there is no setting `prot`"),
    (&[], &[], "max_age = '1d'", "/walclock.toml: there is no setting `max_age`; did you mean `max-age`?"),
    (&[], &[("WALCLOCK_PORTS", "1")], "", "variable WALCLOCK_PORTS: there is no setting `ports`; did you mean `port`?"),
    (&[], &[], "a = 1\nb = ", "/walclock.toml, line 2: not TOML: "),
    (
        &["--roles", "changeserver,king"],
        &[],
        "",
        "flag --roles: `roles` cannot be `king`: expected one or more of changeserver, dispatcher, api",
    ),
    (
        &["--roles", "dispatcher"],
        &[],
        "",
        "`roles` has dispatcher without changeserver: give `changes-url`, the changeserver to follow",
    ),
    (
        &["--callback-allow", "10.0.0.0/33"],
        &[],
        "",
        "flag --callback-allow: `callback-allow` cannot be `10.0.0.0/33`: expected address ranges such as",
    ),
    (&["--slot", "!!"], &[], "", "flag --slot: `slot` cannot be `!!`: expected a name of"),
    (
        &["--path-prefix", "api"],
        &[],
        "",
        "flag --path-prefix: `path-prefix` cannot be `api`: expected a path that begins with /",
    ),
    (&["--management-port", "8080"], &[], "", "`management-port` and `port` are both 8080: they must differ"),
    (&[], &[], "roles = []", "`roles` is an empty list: give at least one"),
    (
        &["--database-url-file", "/nowhere/url"],
        &[],
        "",
        "flag --database-url-file: `/nowhere/url` cannot be read: No such file",
    ),
];

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_is_allowed() {
    for (flags, variables, file, expected) in WRONG {
        let error = load(flags, variables, file).expect_err(expected);
        assert!(error.starts_with(expected), "expected: {expected}\n     got: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    let variables = [("WALCLOCK_PORT", "tcp://10.0.0.1:8080"), ("WALCLOCK_SERVICE_HOST", "10.0.0.1"), ("PORT", "1")];
    assert_eq!(load(&[], &variables, "").unwrap().port, 8080);
}

#[test]
fn spans_are_those_of_the_api_within_bounds() {
    let week = Duration::from_secs(604_800);
    let span = value::span_within(Duration::from_secs(1), week);
    for (text, seconds) in [("1s", 1.0), ("1w", 604_800.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("2500ms", 2.5)] {
        assert_eq!(span(text), Some(Duration::from_secs_f64(seconds)), "{text}");
    }
    for text in ["", "7", "d", "7 d", "-1s", "1m1h", "1x", "0s", "999ms", "1w1us", "9999999999999w"] {
        assert_eq!(span(text), None, "{text}");
    }
}

#[test]
fn sizes_are_whole_numbers_with_binary_or_decimal_units() {
    for (text, bytes) in [("4096", 4096), ("10GiB", 10 << 30), ("1 MB", 1_000_000), ("0B", 0)] {
        assert_eq!(value::size(text), Some(bytes), "{text}");
    }
    for text in ["", "GiB", "1.5GiB", "-1", "1gib", "1Gi", "99999999TiB", "1é"] {
        assert_eq!(value::size(text), None, "{text}");
    }
}

#[test]
fn slot_names_are_made_to_fit() {
    for (text, name) in [("walclock", "walclock"), ("My-Slot 1", "my_slot1"), ("a_b", "a_b")] {
        assert_eq!(value::slot(text).as_deref(), Some(name));
    }
    assert_eq!(value::slot("äöü"), None);
    assert_eq!(value::slot(&"x".repeat(64)), None);
}

#[test]
fn every_setting_of_the_table_stands_in_the_manual() {
    let manual = include_str!("../../docs/operations.md");
    for setting in super::SETTINGS {
        let row = format!("| `--{}` | `{}` |", setting.key, setting.variable());
        assert!(manual.contains(&row), "docs/operations.md lacks: {row}");
    }
}
