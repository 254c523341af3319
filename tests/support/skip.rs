//! Tests that cannot run on this host say so. Owns: the one form of it, which `make test` counts.
//! Never: hides behind the test runner's capture of output.

use std::io::Write;

/// Says that `test` was not run and why, on the real standard error.
pub fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED: {test}: {}\n", why.trim().replace('\n', "; "));
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
}
