//! Where the edge listens.
//! Owns: the address text, the listening socket, and the unix socket's file with its mode.
//! May touch: the directory of the unix socket.
//! Never: removes a file that is no socket, or a socket that somebody listens on.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::socket::{Peer, Socket};
use crate::limits::HTTP_LISTEN_BACKLOG;
use crate::sys;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// `ip:port`; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// `unix:/path`. The file is created with mode 0600 and removed at the end.
    Unix(PathBuf),
}

impl Bind {
    /// Reads `ip:port`, `[ipv6]:port` or `unix:/absolute/path`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str) -> Result<Self, BindError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(BindError::Syntax(text.to_string())) };
        }
        text.parse().map(Self::Tcp).map_err(|_| BindError::Syntax(text.to_string()))
    }

    /// The TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether only this host can connect.
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why the edge cannot listen.
#[derive(Debug)]
pub enum BindError {
    /// The text is no address.
    Syntax(String),
    /// The kernel refused the address.
    Listen(Bind, io::Error),
    /// A process listens on this unix socket.
    InUse(PathBuf),
    /// The path exists and is not a socket.
    NotASocket(PathBuf),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => {
                write!(f, "cannot listen on {text:?}: it is no address; next: use ip:port, [ipv6]:port or unix:/path")
            }
            Self::Listen(bind, error) => {
                write!(f, "cannot listen on {bind}: {error}; next: free the address or choose another with --bind")
            }
            Self::InUse(path) => write!(
                f,
                "cannot listen on unix:{}: a process listens there; next: stop it or choose another path",
                path.display()
            ),
            Self::NotASocket(path) => write!(
                f,
                "cannot listen on unix:{}: the path exists and is no socket; next: choose another path",
                path.display()
            ),
        }
    }
}

impl std::error::Error for BindError {}

#[derive(Debug)]
enum Kind {
    Tcp {
        listener: TcpListener,
        kept_by_others: bool,
    },
    /// `identity` is that of the file which we made and remove; a file that somebody else made has none.
    Unix {
        listener: UnixListener,
        path: PathBuf,
        identity: Option<(u64, u64)>,
    },
}

/// A listening socket. Dropping it closes it and removes the unix socket's file.
#[derive(Debug)]
pub(super) struct Listener(Kind);

impl Listener {
    pub(super) fn open(bind: &Bind) -> Result<Self, BindError> {
        let refused = |error| BindError::Listen(bind.clone(), error);
        let listener = match bind {
            Bind::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(refused)?;
                // std asks for a queue of 128, in which a burst of clients waits for retransmissions.
                sys::set_listen_backlog(&listener, HTTP_LISTEN_BACKLOG).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                Kind::Tcp { listener, kept_by_others: false }
            }
            Bind::Unix(path) => {
                remove_stale_socket(path, bind)?;
                let listener = bind_private(path).map_err(refused)?;
                sys::set_listen_backlog(&listener, HTTP_LISTEN_BACKLOG).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                let identity = Some(identity(path).map_err(refused)?);
                Kind::Unix { listener, path: path.clone(), identity }
            }
        };
        Ok(Self(listener))
    }

    /// Listens on a socket that somebody else made and keeps, at the address `bind`. It must be a listening one of that kind.
    pub(super) fn adopt(socket: OwnedFd, bind: &Bind) -> Result<Self, BindError> {
        let refused = |error| BindError::Listen(bind.clone(), error);
        sys::set_listen_backlog(&socket, HTTP_LISTEN_BACKLOG).map_err(refused)?;
        sys::process::set_nonblocking(&socket).map_err(refused)?;
        Ok(Self(match bind {
            Bind::Tcp(_) => Kind::Tcp { listener: socket.into(), kept_by_others: true },
            Bind::Unix(path) => Kind::Unix { listener: socket.into(), path: path.clone(), identity: None },
        }))
    }

    /// Whether connections that wait will be served by somebody else once we are gone.
    pub(super) fn is_kept_by_others(&self) -> bool {
        match &self.0 {
            Kind::Tcp { kept_by_others, .. } => *kept_by_others,
            Kind::Unix { identity, .. } => identity.is_none(),
        }
    }

    /// The address with the port that the kernel chose.
    pub(super) fn address(&self) -> io::Result<Bind> {
        match &self.0 {
            Kind::Tcp { listener, .. } => listener.local_addr().map(Bind::Tcp),
            Kind::Unix { path, .. } => Ok(Bind::Unix(path.clone())),
        }
    }

    /// The next connection; None if it was gone before it could be prepared.
    pub(super) fn accept(&self) -> io::Result<Option<(Socket, Peer)>> {
        let (socket, peer) = match &self.0 {
            Kind::Tcp { listener, .. } => {
                let (stream, address) = listener.accept()?;
                (Socket::from_tcp(stream), Peer::Tcp(address))
            }
            Kind::Unix { listener, .. } => (Socket::from_unix(listener.accept()?.0), Peer::Unix),
        };
        Ok(socket.ok().map(|socket| (socket, peer)))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match &self.0 {
            Kind::Tcp { listener, .. } => listener.as_raw_fd(),
            Kind::Unix { listener, .. } => listener.as_raw_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Kind::Unix { path, identity: Some(ours), .. } = &self.0
            && identity(path).is_ok_and(|found| found == *ours)
        {
            // A file that cannot be removed is stale at the next start and removed then.
            let _left_behind = fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes the socket file of a process that is gone. Two daemons that start at the same moment are kept
/// apart by the state-root lock, not here.
fn remove_stale_socket(path: &Path, bind: &Bind) -> Result<(), BindError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::Listen(bind.clone(), error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_path_buf()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| BindError::Listen(bind.clone(), error))
        }
        // Accepted, or refused for a reason that says nothing about the listener (permissions, full queue).
        _ => Err(BindError::InUse(path.to_path_buf())),
    }
}

/// Binds inside a directory that only we can enter and moves the socket to its place once its mode is set,
/// so that there is no moment in which another user could connect, whatever the umask.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let private = private_directory(path.parent().unwrap_or(Path::new("/")))?;
    let inner = private.join("s");
    let bound = UnixListener::bind(&inner).and_then(|listener| {
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inner, path)?;
        Ok(listener)
    });
    if bound.is_err() {
        // Only there if the rename failed; the directory must be empty to go.
        let _absent_is_fine = fs::remove_file(&inner);
    }
    fs::remove_dir(&private)?;
    bound
}

fn private_directory(parent: &Path) -> io::Result<PathBuf> {
    static CREATED: AtomicU32 = AtomicU32::new(0);
    loop {
        // Short, since a unix address holds 108 bytes in all.
        let name = format!(".k{:x}-{:x}", std::process::id(), CREATED.fetch_add(1, Ordering::Relaxed));
        let private = parent.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&private) {
            Ok(()) => return Ok(private),
            // Left by a killed process whose number we have now; each turn tries another name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["127.0.0.1:4000", "[::1]:0", "unix:/run/k.sock"] {
            assert_eq!(Bind::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "4000", "localhost:4000", "unix:", "unix:k.sock", "127.0.0.1"] {
            assert!(matches!(Bind::parse(text), Err(BindError::Syntax(_))), "{text:?} was accepted");
        }
    }
}
