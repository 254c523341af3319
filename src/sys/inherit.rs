//! What a process finds when it starts: descriptors from its service manager, and variables that are for it alone.
//! Owns: taking over a descriptor by number, asking a socket what it is, removing variables.
//! Never: takes a standard stream.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// The first descriptor after the standard streams.
pub const FIRST_PASSED: RawFd = 3;

/// Takes over the descriptor `fd`, which was passed to this process and is used by nobody else in it, and shuts it off from
/// programs that this process starts.
///
/// # Errors
/// It is a standard stream or not open.
pub fn take_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < FIRST_PASSED {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: no pointers; a number that is no descriptor is an error.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and by the caller's word nobody else in this process has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kind of a socket that listens for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// IPv4 or IPv6.
    Tcp,
    /// A unix stream socket.
    Unix,
}

/// Which kind of listening stream socket `fd` is; `None` for anything else.
pub fn listener_kind(fd: &impl AsFd) -> Option<ListenerKind> {
    let stream = option(fd, libc::SO_TYPE)? == libc::SOCK_STREAM;
    let listens = option(fd, libc::SO_ACCEPTCONN)? == 1;
    let kind = match option(fd, libc::SO_DOMAIN)? {
        libc::AF_INET | libc::AF_INET6 => ListenerKind::Tcp,
        libc::AF_UNIX => ListenerKind::Unix,
        _ => return None,
    };
    (stream && listens).then_some(kind)
}

fn option(fd: &impl AsFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: a writable integer and its size, both outliving the call.
    let asked = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            std::ptr::from_mut(&mut value).cast(),
            &mut bytes,
        )
    };
    check(asked).ok().map(|_| value)
}

/// Removes the variables `names` from the environment. For the time before another thread exists: the environment has no
/// lock that C code would heed.
pub fn forget_variables(names: &[&str]) {
    for name in names {
        // SAFETY: by the contract above this is the only thread.
        unsafe { std::env::remove_var(name) };
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn only_a_listening_stream_socket_is_a_listener() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        assert_eq!(listener_kind(&tcp), Some(ListenerKind::Tcp));
        let connected = std::net::TcpStream::connect(tcp.local_addr().expect("an address")).expect("accepted");
        assert_eq!(listener_kind(&connected), None);
        assert_eq!(listener_kind(&UdpSocket::bind("127.0.0.1:0").expect("a port")), None);
        assert_eq!(listener_kind(&UnixStream::pair().expect("a pair").0), None);
        assert_eq!(listener_kind(&UnixDatagram::unbound().expect("a socket")), None);
        assert_eq!(listener_kind(&std::fs::File::open("/dev/null").expect("null")), None);
    }

    #[test]
    fn standard_streams_and_closed_numbers_are_not_taken() {
        for fd in [-1, 0, 1, 2, 1_000_000] {
            assert!(take_descriptor(fd).is_err(), "{fd}");
        }
    }

    #[test]
    fn what_is_taken_over_is_closed_on_exec() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let raw = listener.into_raw_fd();
        // SAFETY: no pointers.
        check(unsafe { libc::fcntl(raw, libc::F_SETFD, 0) }).expect("open");
        let taken = take_descriptor(raw).expect("ours");
        // SAFETY: no pointers.
        let flags = check(unsafe { libc::fcntl(taken.as_raw_fd(), libc::F_GETFD) }).expect("open");
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
