//! The processes around a worker: the outermost one, which the daemon knows, and the first one of the pid namespace.
//! Owns: the proof that everything is gone: the outermost process ends after all the others; the bound of the memory that they
//! hold together.
//! May touch: its descendants.
//! Never: reads the channel; it only looks whether the daemon's end is still there.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use super::features::Feature;
use super::jail::{Jail, ProcessLimit};
use super::memory;
use crate::limits::{SANDBOX_COUNT_INTERVAL_MS, SANDBOX_MEMORY_INTERVAL_MS};
use crate::sys;
use crate::sys::jail as own;
use crate::sys::process::{SIGKILL, process_descriptor};
use crate::sys::seccomp;
use crate::tools::process::descendants;

/// Exit code of an outermost process that ended the others for the memory that they held.
const MEMORY_EXIT: u8 = 86;

/// The outermost process: waits for the end of `first`, of the channel or of its patience with the memory that they hold; ends
/// everything and returns when it is gone.
pub fn outermost(channel: UnixStream, first: u32, jail: &Jail) -> ExitCode {
    let has_pid_namespace = jail.has(Feature::PidNamespace);
    if jail.has(Feature::Seccomp) || has_pid_namespace {
        // It needs no rights from here on. It runs nothing of a model, so this is hygiene and may fail.
        let _hygiene = own::drop_capabilities().and_then(|()| own::no_new_privileges());
        let _hygiene = seccomp::restrict_self(seccomp::Allowed { internet: false, ipc: false });
    }
    let over = watch(&channel, first, jail.total_memory_bytes());
    // The kernel ends a pid namespace with its first process, and reports that one's end after all the others'.
    let _ended_by_itself = sys::kill(first, SIGKILL);
    if has_pid_namespace {
        let _reaped = own::reap(Some(first));
    } else {
        end_descendants();
    }
    if let Some(scratch) = jail.scratch() {
        let _left_for_the_system = fs::remove_dir_all(scratch);
    }
    drop(channel);
    match over {
        Over::Ended => ExitCode::SUCCESS,
        Over::Memory => ExitCode::from(MEMORY_EXIT),
    }
}

/// Why the outermost process ends the others.
enum Over {
    /// The daemon or the worker has ended.
    Ended,
    /// They hold more memory than they may.
    Memory,
}

/// Waits for the end of `first` or of the channel, and looks meanwhile what all of them hold.
fn watch(channel: &UnixStream, first: u32, memory_bytes_max: u64) -> Over {
    let Ok(ended) = process_descriptor(first) else { return Over::Ended };
    let interval = Duration::from_millis(SANDBOX_MEMORY_INTERVAL_MS);
    loop {
        match own::wait_closed_or_ready(&[channel.as_fd()], &[&ended], Some(interval)) {
            Ok(true) => return Over::Ended,
            Ok(false) if memory::beyond(std::process::id(), memory_bytes_max).is_some() => return Over::Memory,
            Ok(false) | Err(_) => {}
        }
    }
}

/// Whether a worker's outermost process ended with `status` because all of it together held too much memory.
pub fn ended_by_memory(status: ExitStatus) -> bool {
    status.code() == Some(i32::from(MEMORY_EXIT))
}

/// Kills descendants until none is left: this process is the parent of all that lost theirs.
fn end_descendants() {
    loop {
        for pid in descendants(std::process::id()) {
            let _ended_meanwhile = sys::kill(pid, SIGKILL);
        }
        match own::reap(None) {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// The first process of a pid namespace: reaps what others leave and ends with the worker, which ends all.
pub fn first(worker: u32, limit: ProcessLimit, processes: u64) -> ! {
    let ended = match limit {
        ProcessLimit::Kernel => None,
        ProcessLimit::Counted => process_descriptor(worker).ok(),
    };
    loop {
        if let Some(ended) = &ended {
            let interval = Duration::from_millis(SANDBOX_COUNT_INTERVAL_MS);
            let _looked = own::wait_closed_or_ready(&[], &[ended], Some(interval));
            if count() > processes {
                // The worker is among them: its call ends as one whose worker died.
                let _none_left = own::kill_all_others();
                own::exit_now(1);
            }
            while let Ok(Some(Some((pid, _)))) = own::reap_ended() {
                if pid == worker {
                    own::exit_now(0);
                }
            }
            continue;
        }
        match own::reap(None) {
            Ok(Some((pid, _))) if pid != worker => {}
            _ => own::exit_now(0),
        }
    }
}

/// Processes and threads of this pid namespace.
fn count() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
    // A directory has two links more than it has subdirectories.
    let threads =
        |entry: fs::DirEntry| fs::metadata(entry.path().join("task")).map_or(1, |task| task.nlink().saturating_sub(2));
    pids.map(threads).sum()
}
