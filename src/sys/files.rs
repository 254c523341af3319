//! Files by directory descriptor: opening beneath a root, renaming, listing.
//! Owns: openat2 and the `*at` calls.
//! Never: blocks on a FIFO or a device; follows a symbolic link out of the given root.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::check;

/// What is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Anything, for reading; the caller looks at what it got before reading.
    Any,
    /// A directory, for listing and as a base.
    Directory,
}

impl Open {
    fn flags(self) -> libc::c_int {
        // O_NONBLOCK: opening a FIFO or a device returns at once. It means nothing for regular files.
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
        if self == Self::Directory { flags | libc::O_DIRECTORY } else { flags }
    }
}

/// Whether openat2 itself is missing: an old kernel, or a filter that does not let it through.
pub fn is_missing_call(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// Whether the path would have left the root.
pub fn leads_out(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EXDEV)
}

/// Whether a symbolic link stands where none is followed, or links go in a circle.
pub fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

/// The error of a path component that may not be a symbolic link.
pub fn link_error() -> io::Error {
    io::Error::from_raw_os_error(libc::ELOOP)
}

/// Opens `path` so that no step of its resolution leaves `root`: symbolic links are followed beneath it, absolute
/// and magic ones are refused.
///
/// # Errors
/// See [`leads_out`], [`is_link`] and [`is_missing_call`]; else the kernel's own.
pub fn open_beneath(root: &impl AsFd, path: &Path, open: Open) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero open_how is a valid one.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = open.flags() as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    // The kernel answers EAGAIN when a rename elsewhere raced with a `..` in a link.
    let mut tries = 16;
    loop {
        // SAFETY: a NUL-terminated path and a readable struct of the given size, both outliving the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_fd().as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                std::mem::size_of::<libc::open_how>(),
            )
        };
        match check(fd as libc::c_int) {
            // SAFETY: the kernel just returned the descriptor; nobody else has it.
            Ok(fd) => return Ok(unsafe { File::from_raw_fd(fd) }),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries > 0 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}

/// Opens the entry `name` of `directory`, which must not be a symbolic link.
///
/// # Errors
/// [`is_link`] when it is one (for directories the kernel says that it is none); else the kernel's own.
pub fn open_entry(directory: &impl AsFd, name: &OsStr, open: Open) -> io::Result<File> {
    open_at(directory, name, open.flags() | libc::O_NOFOLLOW, 0)
}

/// Creates the regular file `name` in `directory`, for writing. It must not exist.
///
/// # Errors
/// The kernel's own.
pub fn create_entry(directory: &impl AsFd, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    open_at(directory, name, flags, mode)
}

fn open_at(directory: &impl AsFd, name: &OsStr, flags: libc::c_int, mode: u32) -> io::Result<File> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: a NUL-terminated name that outlives the call.
    let fd = check(unsafe { libc::openat(directory.as_fd().as_raw_fd(), name.as_ptr(), flags, mode) })?;
    // SAFETY: the kernel just returned the descriptor; nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Creates the directory `name` in `directory`.
///
/// # Errors
/// The kernel's own.
pub fn create_directory(directory: &impl AsFd, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: a NUL-terminated name that outlives the call.
    check(unsafe { libc::mkdirat(directory.as_fd().as_raw_fd(), name.as_ptr(), 0o777) }).map(drop)
}

/// Removes the file `name` from `directory`.
///
/// # Errors
/// The kernel's own.
pub fn remove_entry(directory: &impl AsFd, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: a NUL-terminated name that outlives the call.
    check(unsafe { libc::unlinkat(directory.as_fd().as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

/// Gives the file `name` of `directory` the second name `second`.
///
/// # Errors
/// The kernel's own; some file systems have no hard links.
pub fn link_entry(directory: &impl AsFd, name: &OsStr, second: &OsStr) -> io::Result<()> {
    let (name, second) = (CString::new(name.as_bytes())?, CString::new(second.as_bytes())?);
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: two NUL-terminated names that outlive the call.
    check(unsafe { libc::linkat(fd, name.as_ptr(), fd, second.as_ptr(), 0) }).map(drop)
}

/// Renames `from` to `to` within `directory`. With `keep` a present `to` is an error and stays; a file system that cannot
/// do that reports [`io::ErrorKind::InvalidInput`].
///
/// # Errors
/// The kernel's own.
pub fn rename_entry(directory: &impl AsFd, from: &OsStr, to: &OsStr, keep: bool) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_bytes())?, CString::new(to.as_bytes())?);
    let fd = directory.as_fd().as_raw_fd();
    let flags = if keep { libc::RENAME_NOREPLACE } else { 0 };
    // SAFETY: two NUL-terminated names that outlive the call.
    check(unsafe { libc::renameat2(fd, from.as_ptr(), fd, to.as_ptr(), flags) }).map(drop)
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a FIFO or a socket.
    Other,
}

fn kind_of(mode: libc::mode_t) -> Kind {
    match mode & libc::S_IFMT {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Directory,
        libc::S_IFLNK => Kind::Link,
        _ => Kind::Other,
    }
}

/// What stands under a name, without following it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Device and inode: the same file as long as both stay the same.
    pub identity: (u64, u64),
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub bytes: u64,
}

/// Looks at the entry `name` of `directory`.
///
/// # Errors
/// The kernel's own; nothing there is [`io::ErrorKind::NotFound`].
pub fn look_at(directory: &impl AsFd, name: &OsStr) -> io::Result<Entry> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: an all-zero stat is valid; it is filled by the call.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: a NUL-terminated name and a writable struct, both outliving the call.
    check(unsafe { libc::fstatat(fd, name.as_ptr(), &mut found, libc::AT_SYMLINK_NOFOLLOW) })?;
    Ok(Entry {
        kind: kind_of(found.st_mode),
        identity: (found.st_dev, found.st_ino),
        mode: found.st_mode & 0o7777,
        bytes: found.st_size.unsigned_abs(),
    })
}

/// The entries of an opened directory, in the order of the file system.
#[derive(Debug)]
pub struct Entries {
    stream: *mut libc::DIR,
}

impl Entries {
    /// Lists `directory`, whose position is used up.
    ///
    /// # Errors
    /// It is no directory.
    pub fn of(directory: File) -> io::Result<Self> {
        let fd = OwnedFd::from(directory).into_raw_fd();
        // SAFETY: on success the stream owns the descriptor.
        let stream = unsafe { libc::fdopendir(fd) };
        if stream.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: on failure the descriptor is still ours alone.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            return Err(error);
        }
        Ok(Self { stream })
    }
}

impl Iterator for Entries {
    /// Name, and kind where the file system tells it.
    type Item = io::Result<(OsString, Option<Kind>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // SAFETY: errno is a thread's own; it is cleared to tell an end from an error.
            unsafe { *libc::__errno_location() = 0 };
            // SAFETY: the stream is open and used by this thread only.
            let entry = unsafe { libc::readdir64(self.stream) };
            if entry.is_null() {
                let error = io::Error::last_os_error();
                return (error.raw_os_error() != Some(0)).then_some(Err(error));
            }
            // SAFETY: the entry is valid until the next call on this stream; its name is NUL-terminated.
            let (name, kind) = unsafe { (CStr::from_ptr((*entry).d_name.as_ptr()), (*entry).d_type) };
            let name = name.to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match kind {
                libc::DT_REG => Some(Kind::File),
                libc::DT_DIR => Some(Kind::Directory),
                libc::DT_LNK => Some(Kind::Link),
                libc::DT_UNKNOWN => None,
                _ => Some(Kind::Other),
            };
            return Some(Ok((OsString::from_vec(name.to_vec()), kind)));
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // SAFETY: the stream is open and not used afterwards. Closing a directory that was read cannot lose anything.
        let _closed = unsafe { libc::closedir(self.stream) };
    }
}
