//! Namespaces and mounts.
//! Owns: those calls.
//! Never: decides anything; each function is one call with its errors turned into `io::Error`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{check, long};

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// User and group ids, capabilities.
    User,
    /// Process ids, of children to come.
    Pid,
    /// Mounts.
    Mount,
    /// System V and POSIX message queues, semaphores, shared memory.
    Ipc,
    /// Interfaces, addresses, ports, abstract sockets.
    Net,
    /// Host name.
    HostName,
}

/// Leaves the namespace of that kind for a new one.
pub fn unshare(kind: Namespace) -> io::Result<()> {
    let flag = match kind {
        Namespace::User => libc::CLONE_NEWUSER,
        Namespace::Pid => libc::CLONE_NEWPID,
        Namespace::Mount => libc::CLONE_NEWNS,
        Namespace::Ipc => libc::CLONE_NEWIPC,
        Namespace::Net => libc::CLONE_NEWNET,
        Namespace::HostName => libc::CLONE_NEWUTS,
    };
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(flag) }).map(drop)
}

/// Sets the host name of the namespace.
pub fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: as many readable bytes as said.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Brings up the loopback interface of the net namespace.
pub fn bring_up_loopback() -> io::Result<()> {
    // SAFETY: no pointers; the returned descriptor is owned by nobody else.
    let socket = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `socket` was just returned by the kernel and is not used elsewhere.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: a valid ifreq that outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}

fn path_of(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Keeps what is mounted here from other namespaces, and theirs from this one.
pub fn make_mounts_private() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let (root, none) = (c"/", std::ptr::null());
    // SAFETY: a NUL-terminated path; the other pointers may be null for a change of propagation.
    check(unsafe { libc::mount(none, root.as_ptr(), none, flags, none.cast()) }).map(drop)
}

/// Mounts a fresh file system of `kind` (also its source's name) with no set-user-id and no devices.
pub fn mount_new(kind: &str, target: &Path, options: &str, executable: bool) -> io::Result<()> {
    let (kind, target, options) = (CString::new(kind)?, path_of(target)?, CString::new(options)?);
    let flags = libc::MS_NOSUID | libc::MS_NODEV | if executable { 0 } else { libc::MS_NOEXEC };
    // SAFETY: NUL-terminated texts that outlive the call.
    check(unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) })
        .map(drop)
}

/// Properties of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountFlags {
    /// Nothing can be changed.
    pub read_only: bool,
    /// Device files do not work.
    pub no_devices: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
}

/// A copy of what is mounted at `path`, with all that is mounted below, attached nowhere yet. Set-user-id files do not
/// work in it.
pub fn clone_mount(path: &Path, flags: MountFlags) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let clone = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: a NUL-terminated path that outlives the call.
    let fd = long(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), clone) })?;
    // SAFETY: `fd` was just returned by the kernel and is not used elsewhere.
    let mount = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    set_mount_flags(mount.as_raw_fd(), c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, flags)?;
    Ok(mount)
}

/// Changes the properties of the one mount at `path`.
pub fn restrict_mount(path: &Path, flags: MountFlags) -> io::Result<()> {
    set_mount_flags(libc::AT_FDCWD, &path_of(path)?, 0, flags)
}

fn set_mount_flags(fd: libc::c_int, path: &std::ffi::CStr, at: libc::c_int, flags: MountFlags) -> io::Result<()> {
    let mut attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_NOSUID, attr_clr: 0, propagation: 0, userns_fd: 0 };
    for (wanted, flag) in [
        (flags.read_only, libc::MOUNT_ATTR_RDONLY),
        (flags.no_devices, libc::MOUNT_ATTR_NODEV),
        (flags.no_exec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        attributes.attr_set |= if wanted { flag } else { 0 };
    }
    let bytes = size_of::<libc::mount_attr>();
    // SAFETY: a NUL-terminated path and a struct of the size said; both outlive the call.
    long(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, path.as_ptr(), at, &attributes, bytes) }).map(drop)
}

/// Attaches a copy made by [`clone_mount`] at `target`.
pub fn attach_mount(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = path_of(target)?;
    let (empty, flags) = (c"", libc::MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: NUL-terminated paths that outlive the call.
    long(unsafe {
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), empty.as_ptr(), libc::AT_FDCWD, target.as_ptr(), flags)
    })
    .map(drop)
}

/// Detaches what is mounted at `path`.
pub fn detach_mount(path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    // SAFETY: a NUL-terminated path that outlives the call.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Makes `new_root`, a mount point, the root of this mount namespace and detaches the old one.
pub fn change_root(new_root: &Path) -> io::Result<()> {
    std::env::set_current_dir(new_root)?;
    let here = c".";
    // SAFETY: NUL-terminated paths. The same path twice stacks the old root over the new one, from where it is detached.
    long(unsafe { libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) })?;
    // SAFETY: as above.
    check(unsafe { libc::umount2(here.as_ptr(), libc::MNT_DETACH) })?;
    std::env::set_current_dir("/")
}
