//! System calls that std does not offer. The only `unsafe` code of the crate.
//! Owns: epoll, eventfd, signal flags, resource limits, file-system figures; below sys/ what the sandbox needs.
//! Never: decides anything; each function is one call with its errors turned into `io::Error`.
#![allow(unsafe_code)]

pub mod files;
pub mod process;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

pub mod inherit;
pub mod jail;
pub mod landlock;
pub mod namespaces;
pub mod seccomp;
pub mod terminal;

pub use jail::{ends_within, take_standard_input};

/// The result of a call made by number.
fn long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// One readiness report of [`Epoll::wait`].
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The token given at registration.
    pub token: u64,
    /// Bytes, a new connection, or end of stream can be read.
    pub readable: bool,
    /// The socket's send buffer has room.
    pub writable: bool,
    /// The peer closed its writing side, or the connection failed.
    pub hangup: bool,
}

/// What to be told about a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// Report readability.
    pub readable: bool,
    /// Report writability.
    pub writable: bool,
    /// Report once per change (EPOLLET) instead of for as long as the condition holds.
    pub edge: bool,
}

impl Interest {
    fn events(self) -> u32 {
        let mut events = libc::EPOLLRDHUP as u32;
        if self.readable {
            events |= libc::EPOLLIN as u32;
        }
        if self.writable {
            events |= libc::EPOLLOUT as u32;
        }
        if self.edge {
            events |= libc::EPOLLET as u32;
        }
        events
    }
}

/// An epoll instance. All methods may be called from any thread.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// A new, empty instance (close-on-exec).
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the returned descriptor is owned by nobody else.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was just returned by the kernel and is not used elsewhere.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.events(), u64: token };
        // SAFETY: `event` outlives the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// Watches `fd` under `token`.
    pub fn add(&self, fd: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), token, interest)
    }

    /// Changes what is reported for `fd`.
    pub fn modify(&self, fd: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token, interest)
    }

    /// Stops watching `fd`.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        let none = Interest { readable: false, writable: false, edge: false };
        self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, none)
    }

    /// Waits up to `timeout_ms` (-1: for ever) and appends what is ready to `ready`, which is cleared
    /// first. A signal ends the wait early with nothing ready.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout_ms: i32) -> io::Result<()> {
        const EVENTS_MAX: usize = 256;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        ready.clear();
        // SAFETY: `events` has room for EVENTS_MAX entries and outlives the call.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS_MAX as i32, timeout_ms) };
        let count = match check(count) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in &events[..count] {
            let flags = event.events;
            let has = |bit: libc::c_int| flags & bit as u32 != 0;
            ready.push(Ready {
                token: event.u64,
                readable: has(libc::EPOLLIN),
                writable: has(libc::EPOLLOUT),
                hangup: has(libc::EPOLLRDHUP) || has(libc::EPOLLHUP) || has(libc::EPOLLERR),
            });
        }
        Ok(())
    }
}

/// A counter that wakes an epoll wait from another thread.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new counter at zero (non-blocking, close-on-exec).
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the returned descriptor is owned by nobody else.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: `fd` was just returned by the kernel and is not used elsewhere.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the descriptor readable. A counter at its ceiling is readable already, so a refused write
    /// loses nothing.
    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight readable bytes, as eventfd requires.
        let _already_readable = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Resets the counter; harmless when it is zero.
    pub fn drain(&self) {
        let mut value = 0u64;
        // SAFETY: eight writable bytes, as eventfd requires.
        let _zero_is_fine = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut value).cast(), 8) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

static STOP_SIGNALS: AtomicU32 = AtomicU32::new(0);
static SIGNAL_WAKE_FD: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_stop_signal(_signal: libc::c_int) {
    STOP_SIGNALS.fetch_add(1, Ordering::SeqCst);
    let fd = SIGNAL_WAKE_FD.load(Ordering::SeqCst);
    if fd >= 0 {
        let one = 1u64;
        // SAFETY: write(2) is async-signal-safe; eight readable bytes; the descriptor is never closed.
        let _already_readable = unsafe { libc::write(fd, (&raw const one).cast(), 8) };
    }
}

/// SIGTERM and SIGINT as a counter with a descriptor to wait on. A handler and not a blocked mask, since a
/// mask is inherited by children, which would then ignore a polite stop.
#[derive(Debug)]
pub struct StopSignals(EventFd);

impl StopSignals {
    /// Installs the handlers. Call once, before other threads start.
    pub fn install() -> io::Result<Self> {
        let wake = EventFd::new()?;
        SIGNAL_WAKE_FD.store(wake.as_raw_fd(), Ordering::SeqCst);
        for signal in [libc::SIGTERM, libc::SIGINT] {
            // SAFETY: a zeroed sigaction is a valid empty one; the handler is async-signal-safe.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = on_stop_signal as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            // SAFETY: `action` outlives the call; no old action is asked for.
            check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
        }
        Ok(Self(wake))
    }

    /// Waits up to `timeout_ms` and tells how many stop signals have arrived since start.
    pub fn wait(&self, timeout_ms: i32) -> u32 {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let _woken_or_timed_out = unsafe { libc::poll(&mut poll, 1, timeout_ms) };
        self.0.drain();
        STOP_SIGNALS.load(Ordering::SeqCst)
    }
}

/// Raises the soft limit of open files to the hard one and returns it.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is readable and outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Space and inodes of a file system, as an unprivileged user sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystemFigures {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes in use; the rest that is not available is kept for root.
    pub used_bytes: u64,
    /// Bytes an unprivileged writer may still use.
    pub available_bytes: u64,
    /// All inodes; 0 where the file system has no fixed number.
    pub total_inodes: u64,
    /// Inodes in use.
    pub used_inodes: u64,
    /// Inodes an unprivileged writer may still use.
    pub available_inodes: u64,
}

/// `statvfs(3)` of the file system that holds `path`.
pub fn file_system_figures(path: &Path) -> io::Result<FileSystemFigures> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statvfs is valid; it is filled by the call.
    let mut figures: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path and a writable struct, both outliving the call.
    check(unsafe { libc::statvfs(path.as_ptr(), &mut figures) })?;
    Ok(FileSystemFigures {
        total_bytes: figures.f_blocks * figures.f_frsize,
        used_bytes: figures.f_blocks.saturating_sub(figures.f_bfree) * figures.f_frsize,
        available_bytes: figures.f_bavail * figures.f_frsize,
        total_inodes: figures.f_files,
        used_inodes: figures.f_files.saturating_sub(figures.f_ffree),
        available_inodes: figures.f_favail,
    })
}

/// The effective user id; root passes permission tests vacuously.
pub fn effective_user_id() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// Sends `signal` to process `pid`.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid as libc::pid_t, signal) }).map(drop)
}

/// SIGTERM's number, for tests that stop a daemon politely.
pub const SIGTERM: i32 = libc::SIGTERM;

/// Reserves disk blocks for the first `bytes` of `file` and extends its size to them. fs2 offers the same call
/// but loses the error number, which tells a full disk from a broken one.
pub fn preallocate(file: &impl AsRawFd, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    loop {
        // SAFETY: no pointers; the descriptor is open for as long as `file` is borrowed.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
            0 => return Ok(()),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Makes the coming close of `socket` a reset: the peer sees a broken connection and no end of the stream.
///
/// # Errors
/// The operating system refuses the option.
pub fn reset_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = std::mem::size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the option value points to a live struct of the size given; the call keeps no pointer.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            size,
        )
    })?;
    Ok(())
}

/// Changes how many connections may wait on a listening socket; the kernel cuts it to its own maximum.
pub fn set_listen_backlog(listener: &impl AsRawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::listen(listener.as_raw_fd(), backlog) }).map(drop)
}

/// Reserves disk blocks for the first `bytes` of `file` and leaves its size alone, so that later appends up to there
/// need no space.
pub fn reserve_blocks(file: &impl AsRawFd, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    loop {
        // SAFETY: no pointers; the descriptor is open for as long as `file` is borrowed.
        match check(unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, length) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}
