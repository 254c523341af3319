//! Processes: sessions of their own, waiting with a deadline, ending a whole tree.
//! Owns: pidfd, poll, subreaper, signals to groups.
//! Never: waits without the caller's limit.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::check;

/// SIGKILL's number.
pub const SIGKILL: i32 = libc::SIGKILL;

/// Makes the command the leader of a session and process group of its own in `directory`, with an empty signal mask and
/// default handlers, and no descriptor but the standard ones: no controlling terminal to type into, and a polite stop is not
/// ignored because we ignore something.
pub fn in_own_session(command: &mut Command, directory: File) {
    let prepare = move || {
        // SAFETY: async-signal-safe calls only, between fork and exec; the structs are local, the descriptor is open.
        unsafe {
            check(libc::setsid())?;
            check(libc::fchdir(directory.as_raw_fd()))?;
            // What somebody else left open for us is not for the command. An old kernel without the flag has to do with
            // close-on-exec of our own ones.
            let _old_kernel = libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()))?;
            for signal in [libc::SIGPIPE, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD] {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing and calls only what is async-signal-safe.
    unsafe { command.pre_exec(prepare) };
}

/// Whether the group `leader` has a member, living or not yet waited for.
pub fn group_exists(leader: u32) -> bool {
    // SAFETY: no pointers; signal 0 is sent to nobody.
    leader > 1 && unsafe { libc::kill(-(leader as libc::pid_t), 0) } == 0
}

/// A descriptor that becomes readable when the process `pid`, a child that was not waited for, has ended.
///
/// # Errors
/// The kernel's own.
pub fn process_descriptor(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) } as libc::c_int)?;
    // SAFETY: the kernel just returned the descriptor (close-on-exec by itself); nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A pipe, both ends close-on-exec: reading end, writing end.
///
/// # Errors
/// The kernel's own.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both were just returned by the kernel; nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Makes reads and writes of `fd` return at once when they would wait.
///
/// # Errors
/// The kernel's own.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Reads from `fd` what is there.
///
/// # Errors
/// The kernel's own; [`io::ErrorKind::WouldBlock`] when nothing is there and the descriptor does not block.
pub fn read(fd: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable for as many bytes as are announced.
    let count = unsafe { libc::read(fd.as_fd().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count.unsigned_abs()) }
}

/// Waits until one of `fds` can be read, has ended, or `limit` has passed. Tells which.
///
/// # Errors
/// The kernel's own; a signal counts as nothing ready.
pub fn wait_readable(fds: &[Option<BorrowedFd<'_>>], limit: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        // A negative descriptor is passed over by the kernel.
        .map(|fd| libc::pollfd { fd: fd.map_or(-1, |fd| fd.as_raw_fd()), events: libc::POLLIN, revents: 0 })
        .collect();
    // Rounded up, so that a wait for less than a millisecond is none that spins.
    let limit_ms = limit.as_micros().div_ceil(1_000).min(i32::MAX as u128) as i32;
    // SAFETY: as many valid entries as are announced.
    match check(unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, limit_ms) }) {
        Ok(_) => Ok(polled.iter().map(|polled| polled.revents != 0).collect()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(vec![false; fds.len()]),
        Err(error) => Err(error),
    }
}

/// Sends `signal` to every process of the group `leader`. Nobody there is no error.
pub fn kill_group(leader: u32, signal: i32) {
    // Group 0 and 1 would be our own and everybody's.
    if leader > 1 && leader <= i32::MAX as u32 {
        // SAFETY: no pointers. A group that is gone is what is wanted.
        let _gone = unsafe { libc::kill(-(leader as libc::pid_t), signal) };
    }
}

/// Sends `signal` to everything in this process's pid namespace but itself and the first process. Only for a process that is
/// the first one or its child in a namespace of its own: for anybody else that would be the whole machine. Elsewhere it
/// does nothing.
pub fn kill_all_others(signal: i32) {
    if std::process::id() == 1 || std::os::unix::process::parent_id() == 1 {
        // SAFETY: no pointers. Nobody there is what is wanted.
        let _gone = unsafe { libc::kill(-1, signal) };
    }
}

/// From here on orphaned descendants become children of this process instead of the system's first one.
///
/// # Errors
/// The kernel's own.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// What is left of this process's children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// None, neither living nor ended.
    None,
    /// At least one that lives, or that is `spared`.
    Some,
}

/// Takes in all children that have ended, except `spared`, whose end somebody else waits for.
pub fn reap(spared: Option<u32>) -> Children {
    loop {
        // SAFETY: an all-zero siginfo is valid; it is filled by the call.
        let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: a writable struct that outlives the call.
        if unsafe { libc::waitid(libc::P_ALL, 0, &mut found, look) } < 0 {
            return Children::None;
        }
        // SAFETY: filled by waitid, or still zero when nobody has ended.
        let pid = unsafe { found.si_pid() };
        if pid == 0 {
            return Children::Some;
        }
        if spared == Some(pid.unsigned_abs()) {
            // It hides others that have ended; they are taken in once it was waited for.
            return Children::Some;
        }
        // SAFETY: no status is asked for.
        let _taken_in = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

/// Asks for `signal` when the thread that started this process ends. The caller then checks that it has not ended
/// already.
///
/// # Errors
/// The kernel's own.
pub fn die_with_parent(signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) }).map(drop)
}
