//! System calls that fail on order, by strace's fault injection.
//! Owns: the strace command line around a daemon, and the list of what was made to fail.
//! Never: passes silently where strace cannot be used; the caller prints why it skips.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "skip.rs"]
pub mod skip;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use skip::skip;

/// Calls that are to fail.
#[derive(Debug, Clone)]
pub struct Fault {
    /// strace's names; `/regex` takes all that match.
    pub calls: &'static str,
    pub errno: &'static str,
    /// Which of a thread's calls fail: `3` the third, `3+` from the third on, `3..6` the third to the sixth. Every thread
    /// counts for itself.
    pub when: String,
    /// Only calls on these files count; empty for all files.
    pub paths: Vec<PathBuf>,
}

impl Fault {
    /// The words to put before a command. strace becomes a grandchild (`-D`), so that the process is the daemon's own.
    pub fn wrapper(&self, report: &Path) -> Vec<String> {
        let Self { calls, errno, when, paths } = self;
        let mut words: Vec<String> =
            ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-o"].map(str::to_string).into();
        words.push(report.display().to_string());
        words.extend(["-e".to_string(), format!("trace={calls}")]);
        words.extend(["-e".to_string(), format!("inject={calls}:error={errno}:when={when}")]);
        for path in paths {
            words.extend(["-P".to_string(), path.display().to_string()]);
        }
        words
    }
}

/// The calls that failed on order, as strace shows them; `report` is emptied.
pub fn injected(report: &Path) -> Vec<String> {
    let text = fs::read_to_string(report).unwrap_or_default();
    // Another process's report must not be taken for the next one's.
    let _may_never_have_been_written = fs::remove_file(report);
    text.lines().filter(|line| line.ends_with("(INJECTED)")).map(str::to_string).collect()
}

/// Whether faults can be injected here. If not, `test` is told to be skipped.
pub fn is_usable(test: &str) -> bool {
    let probe = Fault { calls: "fdatasync", errno: "EIO", when: "1".to_string(), paths: Vec::new() };
    let words = probe.wrapper(Path::new("/dev/null"));
    let why = match Command::new(&words[0]).args(&words[1..]).arg("true").output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    skip(test, &format!("strace cannot inject faults here: {why}"));
    false
}
