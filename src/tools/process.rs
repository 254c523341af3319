//! Commands and everything that they start.
//! Owns: starting a command in a session of its own, and ending its whole tree with proof.
//! May touch: child processes; `/proc`, to find descendants.
//! Never: leaves a process behind without naming it.
//!
//! How far the end of a tree reaches: always the command's process group. A process that was claimed (a worker: every child
//! of it belongs to the command at hand) also takes in orphans as a subreaper and ends whatever is left, also what has left
//! the group by setsid and double forks.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::limits::{TOOL_KILL_MS_MAX, TOOL_KILL_STEP_MS, TOOL_TERM_GRACE_MS};
use crate::sys::process::{self, Children, SIGKILL};
use crate::sys::{self, SIGTERM};

static CLAIMED: AtomicBool = AtomicBool::new(false);
static ALONE: AtomicBool = AtomicBool::new(false);

/// Declares that every child of this process belongs to the command at hand. A worker calls it once, before its first call.
/// With `alone` everything in its pid namespace but the first process does too, so that all of it can be ended at once, also
/// where there is no `/proc`.
///
/// # Errors
/// The kernel does not make it a subreaper.
pub fn claim_process(alone: bool) -> io::Result<()> {
    process::become_subreaper()?;
    ALONE.store(alone, Ordering::SeqCst);
    CLAIMED.store(true, Ordering::SeqCst);
    Ok(())
}

fn is_claimed() -> bool {
    CLAIMED.load(Ordering::SeqCst)
}

/// A command that was started.
#[derive(Debug)]
pub struct Started {
    /// The shell.
    pub child: Child,
    /// Readable when the shell has ended.
    pub ended: OwnedFd,
}

/// The first of these that is there runs commands.
pub(crate) const SHELLS: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/bin/sh"];

/// Where commands find programs.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The three standard streams of a command.
#[derive(Debug)]
pub struct Streams {
    /// What it reads.
    pub stdin: Stdio,
    /// Where its output goes.
    pub stdout: Stdio,
    /// Where its messages go.
    pub stderr: Stdio,
}

/// Starts `command` with a shell in `directory`: cleared environment but for a few plain variables and `extra`, standard
/// input empty, the leader of a session and group of its own.
///
/// # Errors
/// There is no shell, or no process can be made.
pub fn start(
    command: &str,
    directory: &File,
    extra: &[(&str, &str)],
    stdout: Stdio,
    stderr: Stdio,
) -> io::Result<Started> {
    start_in(shell()?, command, directory, extra, Streams { stdin: Stdio::null(), stdout, stderr })
}

/// The best shell that there is.
///
/// # Errors
/// There is none.
pub fn shell() -> io::Result<&'static str> {
    let shell = SHELLS.into_iter().find(|shell| Path::new(shell).exists());
    shell.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no shell"))
}

/// As [`start`], with this shell and these streams.
///
/// # Errors
/// The shell cannot be started.
pub fn start_in(
    shell: &str,
    command: &str,
    directory: &File,
    extra: &[(&str, &str)],
    streams: Streams,
) -> io::Result<Started> {
    let mut process = Command::new(shell);
    process.arg("-c").arg(command).env_clear();
    // The worker's own temp directory: where it has no private /tmp, that is another one.
    let temp = std::env::temp_dir();
    process.env("PATH", PATH).env("HOME", &temp).env("TMPDIR", &temp).env("SHELL", shell);
    process.env("LANG", "C.UTF-8").env("TERM", "dumb").envs(extra.iter().copied());
    process.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
    process::in_own_session(&mut process, directory.try_clone()?);
    crate::sandbox::shut_command_in(&mut process);
    let mut child = process.spawn()?;
    match process::process_descriptor(child.id()) {
        Ok(ended) => Ok(Started { child, ended }),
        Err(error) => {
            process::kill_group(child.id(), SIGKILL);
            // Its end is certain; the status does not matter.
            drop(child.wait());
            Err(error)
        }
    }
}

/// How a whole tree ended.
#[derive(Debug)]
pub struct TreeEnd {
    /// The shell's own end.
    pub status: Option<ExitStatus>,
    /// Processes that could not be ended.
    pub left: Vec<u32>,
}

/// Ends the shell, its group and, in a claimed process, everything else. With `politely` they are asked first and get
/// [`TOOL_TERM_GRACE_MS`]. `meanwhile` is called while waiting, to take in output.
pub fn end_tree(started: &mut Started, politely: bool, meanwhile: &mut dyn FnMut()) -> TreeEnd {
    let leader = started.child.id();
    if politely && is_anything_left(started, leader) {
        process::kill_group(leader, SIGTERM);
        signal_strays(SIGTERM);
        wait_for(TOOL_TERM_GRACE_MS, meanwhile, || !is_anything_left(started, leader));
    }
    process::kill_group(leader, SIGKILL);
    let mut status = None;
    let mut left = Vec::new();
    let gone = wait_for(TOOL_KILL_MS_MAX, meanwhile, || {
        if status.is_none() {
            status = started.child.try_wait().ok().flatten();
        }
        if status.is_some() && !is_claimed() {
            return true;
        }
        if status.is_none() || process::reap(None) == Children::Some {
            process::kill_group(leader, SIGKILL);
            signal_strays(SIGKILL);
            return false;
        }
        true
    });
    if !gone {
        left = if is_claimed() { descendants(std::process::id()) } else { vec![leader] };
    }
    TreeEnd { status, left }
}

/// Takes in children that ended while the shell of `started` goes on.
pub fn tidy_up(started: &Started) {
    if is_claimed() {
        // What it finds is not asked for: strays are ended with the tree.
        let _living = process::reap(Some(started.child.id()));
    }
}

fn is_anything_left(started: &mut Started, leader: u32) -> bool {
    // The shell has to be waited for, or its group would exist for ever.
    let running = !matches!(started.child.try_wait(), Ok(Some(_)));
    if is_claimed() { running || process::reap(None) == Children::Some } else { process::group_exists(leader) }
}

fn signal_strays(signal: i32) {
    if !is_claimed() {
        return;
    }
    if ALONE.load(Ordering::SeqCst) {
        process::kill_all_others(signal);
        return;
    }
    for pid in descendants(std::process::id()) {
        // Gone meanwhile is what is wanted.
        drop(sys::kill(pid, signal));
    }
}

/// Calls `done` until it is true or `limit_ms` have passed.
fn wait_for(limit_ms: u64, meanwhile: &mut dyn FnMut(), mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_millis(limit_ms);
    let mut step = Duration::from_millis(1);
    loop {
        meanwhile();
        if done() {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        // There is no event for "no descendant is left", so it is looked at, less and less often.
        drop(process::wait_readable(&[], step.min(left)));
        step = (step * 2).min(Duration::from_millis(TOOL_KILL_STEP_MS));
    }
}

/// Every living descendant of `ancestor`, as far as `/proc` tells; zombies are not living.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut parents: Vec<(u32, u32, bool)> = entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let (parent, living) = parent_of(pid)?;
            Some((pid, parent, living))
        })
        .collect();
    let mut found = Vec::new();
    let mut ancestors = vec![ancestor];
    while let Some(ancestor) = ancestors.pop() {
        parents.retain(|(pid, parent, living)| {
            if *parent != ancestor {
                return true;
            }
            ancestors.push(*pid);
            if *living {
                found.push(*pid);
            }
            false
        });
    }
    found
}

/// The parent of `pid`, and whether it lives (a zombie does not).
fn parent_of(pid: u32) -> Option<(u32, bool)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    Some((fields.next()?.parse().ok()?, !matches!(state, "Z" | "X")))
}
