//! The rules of the layout that a tool can check: layers, purity, sizes, headers, who owns SQL, and what must never get
//! into a file. Each rule has a test that it bites on a planted violation.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// Tests are read as data, and a table of it may be a little longer.
const TEST_LINES_MAX: usize = 100;

/// From left to right: a module imports only what stands in an earlier row, or its own.
const LAYERS: &[&[&str]] = &[
    &["clock", "lockfile", "pg"],
    &["domain"],
    &["feed", "dispatch"],
    &["store", "delivery"],
    &["service"],
    &["http"],
    &["localpg", "config", "telemetry"],
    &["app"],
    &["cli"],
];

/// Free of async, clocks, randomness, input and output.
const PURE: &[&str] =
    &["src/domain/", "src/feed/pgoutput/", "src/dispatch/engine/", "src/dispatch/shards/", "src/dispatch/schedules/"];
const IMPURE: &[&str] = &[
    "async fn",
    ".await",
    "tokio::",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "fastrand::",
    "Instant::now",
    "SystemTime::now",
    "clock::wall",
    "Clock::system",
];

/// What would tell of the place where a file was written, or is somebody's alone.
const LEAKS: &[&str] = &["/root/", "/home/", "index.crates", "registry/src", "localhost.localdomain"];

/// Who may read the machine's wall clock beside the clock itself: for what only tells people or PostgreSQL, and for what may go
/// from the journal. No timer is decided by it.
const WALL_CLOCK: &[&str] =
    &["src/clock/mod.rs", "src/app/feed.rs", "src/feed/source/stream.rs", "src/http/timers/error.rs"];

struct Source {
    /// From the root of the repository, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The lines before the unit tests; none for a file that is tests as a whole.
    fn code(&self) -> Vec<(usize, &str)> {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return Vec::new();
        }
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]")).collect()
    }
}

/// The files of some folders with this ending.
fn sources(folders: &[&str], ending: &str) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                // What a crate of its own, as the benches have one, was built into.
                true if path.ends_with("target") => {}
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        walk(&root.join(folder), &mut found);
    }
    found.retain(|path| path.to_str().is_some_and(|path| path.ends_with(ending)));
    found.sort();
    let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| Source { path: relative(path), text: fs::read_to_string(path).unwrap() }).collect()
}

fn rust() -> Vec<Source> {
    sources(&["src", "tests", "benches"], ".rs")
}

fn check(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The module of the crate that a file belongs to.
fn module_of(path: &str) -> Option<&str> {
    let first = path.strip_prefix("src/")?.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

fn layering(source: &Source) -> Vec<String> {
    let Some(own) = module_of(&source.path) else { return Vec::new() };
    let Some(own_layer) = layer_of(own) else { return Vec::new() };
    let mut violations = Vec::new();
    for (number, line) in source.code() {
        let line = line.split("//").next().unwrap();
        for used in line.split("crate::").skip(1) {
            let used = used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            if used == own || used.is_empty() {
                continue;
            }
            if layer_of(used).is_none_or(|layer| layer >= own_layer) && !is_helper(own, used) {
                violations
                    .push(format!("{}:{number}: {own} imports {used}, which does not stand to its left", source.path));
            }
        }
    }
    violations
}

/// What serves `app` and `cli` may know of each other: the settings name log formats, and both read the database's.
fn is_helper(own: &str, used: &str) -> bool {
    matches!((own, used), ("telemetry" | "localpg", "config"))
}

fn faces(source: &Source) -> Vec<String> {
    let face = |path: &str| path.strip_prefix("src/http/")?.split_once('/').map(|(face, _)| face.to_owned());
    let Some(own) = face(&source.path) else { return Vec::new() };
    let mut violations = Vec::new();
    for (number, line) in source.code() {
        for used in line.split("crate::http::").skip(1).chain(line.split("super::super::").skip(1)) {
            let used = used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            if used != own && used != "common" {
                violations.push(format!("{}:{number}: the face {own} knows {used}", source.path));
            }
        }
    }
    violations
}

fn purity(source: &Source) -> Vec<String> {
    if !PURE.iter().any(|folder| source.path.starts_with(folder)) {
        return Vec::new();
    }
    let mut violations = Vec::new();
    for (number, line) in source.code() {
        let code = line.split("//").next().unwrap();
        for word in IMPURE.iter().filter(|word| code.contains(**word)) {
            violations.push(format!("{}:{number}: {word} in a pure module", source.path));
        }
    }
    violations
}

fn sizes(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    let is_test =
        source.path.starts_with("tests/") || source.path.contains("/tests/") || source.path.ends_with("/tests.rs");
    let longest = if is_test { TEST_LINES_MAX } else { FUNCTION_LINES_MAX };
    let lines: Vec<&str> = source.text.lines().collect();
    if lines.len() > FILE_LINES_MAX {
        violations.push(format!("{}: {} lines, at most {FILE_LINES_MAX}", source.path, lines.len()));
    }
    // rustfmt puts a function's closing brace under its first column.
    let mut open: Option<(usize, usize)> = None;
    for (index, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start();
        let begins = ["fn ", "async fn ", "const fn "].iter().any(|word| {
            head.starts_with(word)
                || head.split_once(") ").is_some_and(|(vis, rest)| vis.starts_with("pub(") && rest.starts_with(word))
                || head.strip_prefix("pub ").is_some_and(|rest| rest.starts_with(word))
        });
        match open {
            None if begins && !head.ends_with(';') && !head.ends_with('}') => open = Some((index, indent)),
            Some((start, column))
                if indent == column && (head.starts_with('}') || head.ends_with(';') && index == start) =>
            {
                let length = index - start + 1;
                if length > longest {
                    violations.push(format!(
                        "{}:{}: a function of {length} lines, at most {longest}",
                        source.path,
                        start + 1
                    ));
                }
                open = None;
            }
            _ => {}
        }
    }
    violations
}

fn headers(source: &Source) -> Vec<String> {
    match source.text.starts_with("//! ") {
        true => Vec::new(),
        false => vec![format!("{}: does not open with //!", source.path)],
    }
}

fn leaks(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for word in LEAKS.iter().filter(|word| line.contains(**word)) {
            violations.push(format!("{}:{}: {word}", source.path, index + 1));
        }
    }
    violations
}

/// SQL outside of `store` and of what reads for the feed: the replication client, which speaks the replication protocol's
/// own commands, and snapshots.
fn sql_ownership(source: &Source) -> Vec<String> {
    let allowed = ["src/store/", "src/feed/source/", "src/feed/snapshots/", "src/app/dev/banner.rs"];
    if !source.path.starts_with("src/") || allowed.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let statements = ["\"select ", "\"insert into ", "\"update ", "\"delete from ", "\"with ", ".sql\")"];
    let mut violations = Vec::new();
    for (number, line) in source.code() {
        for word in statements.iter().filter(|word| line.to_ascii_lowercase().contains(**word)) {
            violations.push(format!("{}:{number}: SQL outside of store: {word}", source.path));
        }
    }
    violations
}

/// Each file of queries is used in exactly one place, and opens with a comment.
fn query_ownership(queries: &[Source], users: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for user in users {
        for used in user.text.split("sql/queries/").skip(1) {
            if let Some((name, _)) = used.split_once(".sql\"") {
                let found = queries.iter().find(|query| query.path == format!("sql/queries/{name}.sql"));
                if let Some(query) = found {
                    *uses.entry(query.path.as_str()).or_default() += 1;
                }
            }
        }
    }
    for query in queries {
        let count = uses.get(query.path.as_str()).copied().unwrap_or(0);
        if count != 1 {
            violations.push(format!("{}: used in {count} places, not in one", query.path));
        }
        if !query.text.starts_with("-- ") {
            violations.push(format!("{}: does not open with a comment", query.path));
        }
    }
    violations
}

#[test]
fn modules_import_only_what_stands_to_their_left() {
    check(rust().iter().flat_map(layering).collect());
    let planted = Source::new("src/domain/x.rs", "//! X.\nuse crate::store::Store;\nuse crate::clock::Clock;\n");
    assert_eq!(layering(&planted).len(), 1);
    let planted = Source::new("src/feed/x.rs", "//! X.\nuse crate::dispatch::ports;\n");
    assert_eq!(layering(&planted).len(), 1);
    let fine =
        Source::new("src/app/x.rs", "//! X.\nuse crate::store::Store; // crate::cli\n#[cfg(test)]\nuse crate::cli;");
    assert_eq!(layering(&fine).len(), 0);
}

#[test]
fn every_module_has_its_place_among_the_layers() {
    let modules = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for module in modules.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        assert!(layer_of(module).is_some(), "{module} stands in no layer");
    }
}

#[test]
fn faces_do_not_know_each_other() {
    check(rust().iter().flat_map(faces).collect());
    let planted = Source::new("src/http/timers/x.rs", "use crate::http::changes;\nuse crate::http::common::json;\n");
    assert_eq!(faces(&planted).len(), 1);
}

/// Routes that stand beside their description. Those of `dev` are for trying things out, the last ones of `timers` answer
/// what is no operation.
fn undescribed(source: &Source) -> Vec<String> {
    let exempt = ["src/http/common/operations.rs", "src/http/dev/mod.rs"];
    if !source.path.starts_with("src/http/") && !source.path.starts_with("src/app/") || exempt.contains(&&*source.path)
    {
        return Vec::new();
    }
    let routes = source.code().into_iter().filter(|(_, line)| line.contains(".route("));
    let undescribed = routes.filter(|(_, line)| !line.contains("any(handlers::unknown_path)"));
    undescribed.map(|(number, _)| format!("{}:{number}: a route without a description", source.path)).collect()
}

#[test]
fn every_route_is_described() {
    check(rust().iter().flat_map(undescribed).collect());
    let planted = Source::new("src/http/timers/mod.rs", "//! X.\nrouter.route(\"/x\", get(x))");
    assert_eq!(undescribed(&planted).len(), 1);
}

#[test]
fn pure_modules_are_pure() {
    check(rust().iter().flat_map(purity).collect());
    let planted = Source::new("src/domain/x.rs", "//! X.\nasync fn f() { g().await } // tokio::\n");
    assert_eq!(purity(&planted).len(), 2);
}

/// Uses of the wall clock where it has no business.
fn wall_clock(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") || WALL_CLOCK.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let reads = |line: &str| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        line.contains("SystemTime") || line.contains("clock") && words.any(|word| word == "wall")
    };
    let lines = source.code().into_iter().filter(|(_, line)| reads(line.split("//").next().unwrap()));
    lines.map(|(number, _)| format!("{}:{number}: reads the wall clock", source.path)).collect()
}

#[test]
fn no_decision_depends_on_the_wall_clock() {
    check(rust().iter().flat_map(wall_clock).collect());
    for planted in ["use crate::clock::{Clock, wall};", "let now = clock::wall();", "SystemTime::now()"] {
        assert_eq!(
            wall_clock(&Source::new("src/dispatch/x.rs", &format!("//! X.\n{planted}\n"))).len(),
            1,
            "{planted}"
        );
    }
}

#[test]
fn files_and_functions_are_short() {
    check(rust().iter().flat_map(sizes).collect());
    let long = format!("    pub(super) async fn f(\n        a: u8,\n    ) {{\n{}    }}\n", "        g();\n".repeat(67));
    assert_eq!(sizes(&Source::new("x.rs", &long)).len(), 1);
    assert_eq!(sizes(&Source::new("tests/x.rs", &long)).len(), 0);
    let fits = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(68));
    assert_eq!(sizes(&Source::new("x.rs", &fits)).len(), 0);
    assert_eq!(sizes(&Source::new("x.rs", &"\n".repeat(601))).len(), 1);
}

#[test]
fn every_file_says_what_it_is_for() {
    check(rust().iter().flat_map(headers).collect());
    assert_eq!(headers(&Source::new("x.rs", "use std::fs;\n//! Late.")).len(), 1);
}

#[test]
fn no_file_tells_where_it_was_written() {
    let mut all = rust();
    all.retain(|source| source.path != "tests/tidy.rs");
    all.extend(sources(&["sql", "docs", "docker", ".ci"], ""));
    check(all.iter().flat_map(leaks).collect());
    assert_eq!(leaks(&Source::new("x.rs", "let path = \"/home/me/x\";")).len(), 1);
}

#[test]
fn only_the_store_holds_sql() {
    check(rust().iter().flat_map(sql_ownership).collect());
    let planted = Source::new("src/service/x.rs", "let q = \"select 1\";\ninclude_str!(\"x.sql\")");
    assert_eq!(sql_ownership(&planted).len(), 2);
}

#[test]
fn every_query_has_one_owner() {
    let users = sources(&["src/store", "src/feed/source", "src/feed/snapshots"], ".rs");
    check(query_ownership(&sources(&["sql/queries"], ".sql"), &users));
    let query = |text| vec![Source::new("sql/queries/a/b.sql", text)];
    let user = || Source::new("src/store/a.rs", "include_str!(\"../../sql/queries/a/b.sql\")");
    assert_eq!(query_ownership(&query("-- B.\nselect 1"), &[user()]).len(), 0);
    assert_eq!(query_ownership(&query("-- B.\nselect 1"), &[user(), user()]).len(), 1);
    assert_eq!(query_ownership(&query("select 1"), &[]).len(), 2);
}

/// The metrics that a source records.
fn recorded(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in text.split("!(").skip(1) {
        if let Some(rest) = rest.trim_start().strip_prefix("\"walclock_") {
            names.extend(rest.split_once('"').map(|(name, _)| format!("walclock_{name}")));
        }
    }
    names
}

#[test]
fn every_metric_is_described_once_and_stands_in_the_manual() {
    let described = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry/metrics.rs")).unwrap();
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let missing = |name: &String| {
        let is_described = described.matches(&format!("\"{name}\",")).count() == 1;
        (!is_described || !manual.contains(&format!("| `{name}` |"))).then(|| format!("{name} is not described"))
    };
    let mut names: Vec<String> = sources(&["src"], ".rs").iter().flat_map(|source| recorded(&source.text)).collect();
    names.sort();
    names.dedup();
    assert!(names.len() > 10, "{names:?}");
    check(names.iter().filter_map(missing).collect());
    assert_eq!(recorded("gauge!(\n  \"walclock_x\", 1); counter!(\"walclock_y\")"), ["walclock_x", "walclock_y"]);
    assert!(missing(&"walclock_planted".to_owned()).is_some());
}

#[test]
fn every_promise_of_the_readme_has_its_tests() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, promises) = readme.split_once("## Promises").unwrap();
    let (promises, _) = promises.split_once("\n## ").unwrap();
    let tests: String = rust().into_iter().map(|source| source.text).collect();
    let (_, promises) = promises.split_once("| promise |").unwrap();
    let named: Vec<&str> = promises.split('`').skip(1).step_by(2).collect();
    assert!(named.len() > 10, "{named:?}");
    let missing = |name: &str| !tests.contains(&format!("fn {name}("));
    check(
        named.iter().filter(|name| missing(name)).map(|name| format!("README.md: there is no test {name}")).collect(),
    );
    assert!(missing("a_promise_without_a_test"));
}
