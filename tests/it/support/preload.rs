//! Libraries in C that are preloaded into a walclock process, so that the machine under it is not what it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::Mutex;

use super::scratch;

/// Builds this source file of tests/it, once; returns the library. None where programs are not loaded by a loader that
/// preloads. The C compiler that some crates are built with has to be there.
pub fn library(source: &'static str) -> Option<PathBuf> {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return None;
    }
    // Whoever else wants one waits until it is whole.
    let mut built = BUILT.lock();
    let number = built.len();
    let build = || {
        let library = scratch().join(format!("preload{number}.so"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(source);
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &path]).arg("-ldl");
        let output = compile.output().unwrap_or_else(|error| panic!("a C compiler, as cc, is needed: {error}"));
        assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
        library
    };
    Some(built.entry(source).or_insert_with(build).clone())
}

/// What is to be set in the environment of a process into which this is loaded, with one variable that it reads itself.
pub fn variables(library: &Path, name: &str, value: &Path) -> Vec<(String, PathBuf)> {
    vec![("LD_PRELOAD".to_owned(), library.to_owned()), (name.to_owned(), value.to_owned())]
}
