//! One connected stream and who is at its other end.
//! Owns: the difference between TCP and unix sockets.
//! May touch: the one descriptor it holds.
//! Never: blocks; every stream here is non-blocking.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A non-blocking connected stream. Clones share the descriptor, which closes with the last of them.
#[derive(Debug, Clone)]
pub struct Socket(Arc<Stream>);

impl Socket {
    /// Takes over an accepted TCP stream: non-blocking, without Nagle's delay.
    pub(super) fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self(Arc::new(Stream::Tcp(stream))))
    }

    /// Takes over an accepted unix stream.
    pub(super) fn from_unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(Arc::new(Stream::Unix(stream))))
    }

    /// Shuts one or both directions down.
    ///
    /// # Errors
    /// The peer has gone already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &*self.0 {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }

    /// Whether small writes leave at once (TCP_NODELAY); unix sockets always do.
    ///
    /// # Errors
    /// The option cannot be read.
    pub fn sends_at_once(&self) -> io::Result<bool> {
        match &*self.0 {
            Stream::Tcp(stream) => stream.nodelay(),
            Stream::Unix(_) => Ok(true),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match &*self.0 {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &*self.0 {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &*self.0 {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &*self.0 {
            Stream::Tcp(stream) => (&mut &*stream).write_vectored(slices),
            Stream::Unix(stream) => (&mut &*stream).write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&mut &*self).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client, as the kernel names it; no header is consulted.
    Tcp(SocketAddr),
    /// A client of the unix socket.
    Unix,
}

impl Peer {
    /// The client's address; an IPv4 address inside IPv6 is returned as the IPv4 address.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }

    /// Whether the client is on this host.
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }

    /// The address under which connections are counted: one /64 of IPv6 is one client, since a single
    /// machine may use all of its addresses. None where all clients share one address.
    pub(super) fn counted_as(&self, trusted_proxies: &[IpAddr]) -> Option<IpAddr> {
        let ip = self.ip()?;
        if ip.is_loopback() || trusted_proxies.iter().any(|proxy| proxy.to_canonical() == ip) {
            return None;
        }
        Some(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => {
                let segments = v6.segments();
                IpAddr::V6(Ipv6Addr::new(segments[0], segments[1], segments[2], segments[3], 0, 0, 0, 0))
            }
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_share_an_address_are_not_counted_together() {
        let peer = |text: &str| Peer::Tcp(text.parse().unwrap());
        let proxies = ["10.0.0.9".parse().unwrap()];
        for shared in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "10.0.0.9:1"] {
            assert_eq!(peer(shared).counted_as(&proxies), None, "{shared}");
        }
        assert_eq!(Peer::Unix.counted_as(&proxies), None);
        assert_eq!(peer("10.0.0.8:1").counted_as(&proxies), Some("10.0.0.8".parse().unwrap()));
        assert_eq!(peer("[::ffff:10.0.0.8]:1").counted_as(&proxies), Some("10.0.0.8".parse().unwrap()));
        assert_eq!(peer("[2001:db8:1:2:3::4]:1").counted_as(&proxies), Some("2001:db8:1:2::".parse().unwrap()));
    }
}
