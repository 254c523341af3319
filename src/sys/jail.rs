//! What a process can do to itself and to its children: fork, wait, limits, capabilities.
//! Owns: those calls.
//! Never: decides anything; each function is one call with its errors turned into `io::Error`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::process::process_descriptor;
use super::{check, long};

/// Whether a debugger, a core file or a process of the same user may see this process's memory and environment.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable), 0, 0, 0) }).map(drop)
}

/// A session of its own, without a terminal.
pub fn new_session() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setsid() }).map(drop)
}

/// No signal blocked or ignored: both are inherited through exec.
pub fn reset_signals() -> io::Result<()> {
    // SAFETY: an all-zero sigset is written by sigemptyset before use.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a writable set, then a readable one; no old mask is asked for.
    check(unsafe {
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut())
    })?;
    // SIGPIPE stays as std has it: ignored here, reset by std in what it starts.
    for signal in (1..=64).filter(|signal| *signal != libc::SIGPIPE) {
        // SAFETY: the default action needs no handler. SIGKILL, SIGSTOP and the C library's own refuse, which is fine.
        let _not_changeable = unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    Ok(())
}

/// Closes every descriptor from `first` on.
pub fn close_descriptors_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers. The caller owns no descriptor in that range any more.
    long(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// The side on which [`fork`] returned.
#[derive(Debug)]
pub enum Forked {
    /// In the child.
    Child,
    /// In the parent, with the child's process id.
    Parent(u32),
}

/// Forks. Only for a process of one thread: locks held by others would stay locked in the child.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: the caller has one thread, so the child may do whatever the parent could.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as u32)),
    }
}

/// Ends the process at once, without destructors of anybody.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: no pointers; does not return.
    unsafe { libc::_exit(code) }
}

/// Reaps one child, waiting for it: its process id and whether it ended with exit code 0. `None`: no child is left.
pub fn reap(pid: Option<u32>) -> io::Result<Option<(u32, bool)>> {
    reap_with(pid, 0)
}

/// Like [`reap`], without waiting; `Some(None)` in the inner place: children exist, none has ended.
pub fn reap_ended() -> io::Result<Option<Option<(u32, bool)>>> {
    match reap_with(None, libc::WNOHANG)? {
        None => Ok(None),
        Some((0, _)) => Ok(Some(None)),
        Some(ended) => Ok(Some(Some(ended))),
    }
}

fn reap_with(pid: Option<u32>, flags: libc::c_int) -> io::Result<Option<(u32, bool)>> {
    let wanted = pid.map_or(-1, |pid| pid as libc::pid_t);
    loop {
        let mut status = 0;
        // SAFETY: `status` is writable and outlives the call.
        match check(unsafe { libc::waitpid(wanted, &mut status, flags) }) {
            Ok(pid) => return Ok(Some((pid as u32, libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Sends SIGKILL to every process that this one may signal, but for itself and process 1. Only for a process inside a
/// pid namespace of its own, where that is what the sandbox holds.
pub fn kill_all_others() -> io::Result<()> {
    // SAFETY: no pointers.
    match check(unsafe { libc::kill(-1, libc::SIGKILL) }) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Waits until process `pid`, a child of ours that nobody has reaped, has ended; false when it runs on after `limit`.
pub fn ends_within(pid: u32, limit: Duration) -> bool {
    let Ok(process) = process_descriptor(pid) else { return false };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match wait_closed_or_ready(&[], &[&process], Some(left)) {
            Ok(found) => return found,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Waits until the other side of a channel is gone or a descriptor is readable; false after `limit`.
pub fn wait_closed_or_ready(
    channels: &[BorrowedFd<'_>],
    descriptors: &[&OwnedFd],
    limit: Option<Duration>,
) -> io::Result<bool> {
    let mut polls: Vec<libc::pollfd> = Vec::with_capacity(channels.len() + descriptors.len());
    for channel in channels {
        polls.push(libc::pollfd { fd: channel.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 });
    }
    for descriptor in descriptors {
        polls.push(libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    }
    let limit_ms = limit.map_or(-1, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
    // SAFETY: as many valid pollfds as said.
    check(unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, limit_ms) }).map(|count| count > 0)
}

/// A resource that [`limit`] bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Private writable memory of a process.
    Memory,
    /// Open files of a process.
    OpenFiles,
    /// Size of a file written.
    FileSize,
    /// Core files.
    Core,
    /// Processes and threads of the user (in its user namespace, from Linux 5.14).
    Processes,
    /// POSIX message queues, pinned and locked memory: nothing that a tool needs.
    LockedMemory,
    /// Bytes in message queues.
    MessageQueues,
}

/// Lowers a limit for good; a lower one stays.
pub fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let resource = match resource {
        Resource::Memory => libc::RLIMIT_DATA,
        Resource::OpenFiles => libc::RLIMIT_NOFILE,
        Resource::FileSize => libc::RLIMIT_FSIZE,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Processes => libc::RLIMIT_NPROC,
        Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        Resource::MessageQueues => libc::RLIMIT_MSGQUEUE,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and outlives the call.
    check(unsafe { libc::getrlimit(resource, &mut limit) })?;
    limit.rlim_max = limit.rlim_max.min(value);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is readable and outlives the call.
    check(unsafe { libc::setrlimit(resource, &limit) }).map(drop)
}

/// Real user and group id.
pub fn user_and_group() -> (u32, u32) {
    // SAFETY: no arguments, cannot fail.
    unsafe { (libc::getuid(), libc::getgid()) }
}

/// Gives up all supplementary groups.
pub fn drop_groups() -> io::Result<()> {
    // SAFETY: a count of zero reads no pointer.
    check(unsafe { libc::setgroups(0, std::ptr::null()) }).map(drop)
}

/// Whether the effective capabilities contain CAP_SYS_ADMIN.
pub fn is_system_administrator() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: a header and two data words, as version 3 defines; both outlive the call.
    let got = long(unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) });
    got.is_ok() && data[0].effective & (1 << CAP_SYS_ADMIN) != 0
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability for good: ambient, bounding, permitted, effective, inheritable, and what exec could give
/// back.
pub fn drop_capabilities() -> io::Result<()> {
    const CAPABILITIES: libc::c_ulong = 64;
    // SAFETY: no pointers. A kernel without ambient capabilities refuses, and has none to give.
    let _none_to_clear = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let bits = libc::SECBIT_NOROOT
        | libc::SECBIT_NOROOT_LOCKED
        | libc::SECBIT_NO_SETUID_FIXUP
        | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
        | libc::SECBIT_KEEP_CAPS_LOCKED
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    if has_any_capability()? {
        // SAFETY: no pointers.
        check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits as libc::c_ulong, 0, 0, 0) })?;
        for capability in 0..CAPABILITIES {
            // SAFETY: no pointers. Numbers beyond the kernel's last one are refused.
            let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
            if known == 1 {
                // SAFETY: no pointers.
                check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
            }
        }
    }
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let none = [CapabilityData::default(); 2];
    // SAFETY: a header and two data words, as version 3 defines; both outlive the call.
    long(unsafe { libc::syscall(libc::SYS_capset, &mut header, none.as_ptr()) })?;
    if has_any_capability()? { Err(io::Error::from_raw_os_error(libc::EPERM)) } else { Ok(()) }
}

fn has_any_capability() -> io::Result<bool> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: a header and two data words, as version 3 defines; both outlive the call.
    long(unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) })?;
    Ok(data.iter().any(|word| word.effective | word.permitted | word.inheritable != 0))
}

/// No exec gives rights any more (set-user-id, file capabilities); for good, and for all descendants.
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0) }).map(drop)
}

/// Mode bits that new files do not get.
pub fn set_file_mode_mask(mask: u32) {
    // SAFETY: no pointers, cannot fail.
    let _before = unsafe { libc::umask(mask) };
}

/// Takes over descriptor 0 under another number, closed on exec, and leaves /dev/null in its place.
pub fn take_standard_input() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: `fd` was just returned by the kernel and is not used elsewhere.
    let taken = unsafe { OwnedFd::from_raw_fd(fd) };
    let null = std::fs::File::open("/dev/null")?;
    // SAFETY: no pointers; descriptor 0 is owned by nobody.
    check(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    Ok(taken)
}

/// Sets a variable of this process's environment. Only for a process of one thread.
pub fn set_environment(name: &str, value: &std::path::Path) {
    // SAFETY: the caller has one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var(name, value) }
}

/// Has `command` run `prepare` between fork and exec, and fail to start if that fails.
pub fn before_exec(
    command: &mut std::process::Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: what is handed in makes system calls and small allocations. It runs in the child of a process whose other
    // threads hold the allocator's lock for moments only, and glibc and musl make that lock usable after fork.
    unsafe { command.pre_exec(prepare) };
}

/// Whether the running kernel is at least version `major`.`minor`.
pub fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    // SAFETY: an all-zero utsname is valid; it is filled by the call.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: a writable struct that outlives the call.
    if check(unsafe { libc::uname(&mut name) }).is_err() {
        return false;
    }
    let release: Vec<u8> = name.release.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    let release = String::from_utf8_lossy(&release).into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    found >= (major, minor)
}
