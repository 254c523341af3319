//! Whether a directory takes durable writes, and how fast.
//! Owns: the files `.kheish-write-probe-*` in the probed directory.
//! May touch: nothing else there.
//! Never: runs inside a request; a hanging disk would hold the caller for as long.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::limits::{WRITE_PROBE_SWEEP_FILES_MAX, WRITE_PROBE_WARNING_MS};

const PREFIX: &str = ".kheish-write-probe-";

/// How a probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// Written and synced in good time.
    Ok,
    /// Written and synced, but slowly.
    Warning,
    /// Not writable.
    Error,
}

/// The result of one write probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The verdict.
    pub state: ProbeState,
    /// Whether the directory took a durable write.
    pub writable: bool,
    /// From the first system call to the last.
    pub latency_ms: u64,
    /// `write_probe_ok`, `write_probe_slow` or `write_probe_failed`.
    pub code: &'static str,
    /// The verdict in words.
    pub message: String,
    /// What the operator does next; absent when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
}

/// Creates, writes, syncs and removes one file in `directory`. `now_ms` keeps names of this process apart.
pub fn probe(directory: &Path, now_ms: u64) -> Probe {
    let path = directory.join(format!("{PREFIX}{}-{now_ms}", std::process::id()));
    let begun = Instant::now();
    let outcome = write_and_remove(&path, now_ms);
    judge(directory, outcome, begun.elapsed().as_millis() as u64)
}

fn judge(directory: &Path, outcome: io::Result<()>, latency_ms: u64) -> Probe {
    match outcome {
        Err(error) => Probe {
            state: ProbeState::Error,
            writable: false,
            latency_ms,
            code: "write_probe_failed",
            message: format!("{} takes no durable write: {error}", directory.display()),
            action: Some("free space and inodes, check the directory's owner and mode, look for disk errors"),
        },
        Ok(()) if latency_ms >= WRITE_PROBE_WARNING_MS => Probe {
            state: ProbeState::Warning,
            writable: true,
            latency_ms,
            code: "write_probe_slow",
            message: format!("a durable write in {} took {latency_ms} ms", directory.display()),
            action: Some("look for a busy or failing disk"),
        },
        Ok(()) => Probe {
            state: ProbeState::Ok,
            writable: true,
            latency_ms,
            code: "write_probe_ok",
            message: format!("{} takes durable writes", directory.display()),
            action: None,
        },
    }
}

fn write_and_remove(path: &Path, now_ms: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = writeln!(file, "write probe at {now_ms}").and_then(|()| file.sync_all());
    // Removed in either case; the write's error says more than the removal's.
    let removed = fs::remove_file(path);
    written.and(removed)
}

/// Removes the probe files that crashes left in `directory` and returns how many.
///
/// # Errors
/// The directory cannot be read, or a leftover cannot be removed.
pub fn sweep(directory: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || swept == WRITE_PROBE_SWEEP_FILES_MAX {
            continue;
        }
        match fs::remove_file(entry.path()) {
            // Another daemon that shares a workspace may have removed its own probe in between.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => swept += 1,
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_root::scratch::Scratch;

    #[test]
    fn a_probe_leaves_nothing_behind_and_a_sweep_removes_only_what_crashes_left() {
        let scratch = Scratch::new("probe");
        let outcome = probe(scratch.path(), 7);
        assert!(outcome.writable);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);

        for name in [".kheish-write-probe-1-2", ".kheish-write-probe-3-4", "kept"] {
            fs::write(scratch.path().join(name), b"x").unwrap();
        }
        assert_eq!(sweep(scratch.path()).unwrap(), 2);
        let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
    }

    #[test]
    fn a_directory_that_takes_no_write_is_an_error_with_a_next_step() {
        let scratch = Scratch::new("probe-gone");
        let gone = scratch.path().join("gone");
        let outcome = probe(&gone, 7);
        assert_eq!((outcome.state, outcome.writable, outcome.code), (ProbeState::Error, false, "write_probe_failed"));
        assert!(outcome.message.contains("gone"), "{}", outcome.message);
        assert!(outcome.action.is_some());
    }

    #[test]
    fn a_slow_disk_is_a_warning_that_counts_as_writable() {
        let limit = WRITE_PROBE_WARNING_MS;
        let at = |latency_ms| judge(Path::new("/data"), Ok(()), latency_ms);
        assert_eq!((at(limit - 1).state, at(limit - 1).code), (ProbeState::Ok, "write_probe_ok"));
        assert_eq!(
            (at(limit).state, at(limit).code, at(limit).writable),
            (ProbeState::Warning, "write_probe_slow", true)
        );
    }
}
