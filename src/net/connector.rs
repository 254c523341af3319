//! From addresses to a connection that may carry one request.
//! Owns: dialling (TCP or unix socket), TLS on top, and the write in which the credential takes its place.
//! May touch: sockets.
//! Never: reads the proxy setting; a proxy would need its own checks.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::Error;
use ureq::unversioned::transport::time::Duration;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, ShutdownHandle, TcpConnector,
    Transport,
};
use zeroize::Zeroize;

use super::auth::Pending;
use super::error::NetError;
use super::resolver::Guard;

/// What one call and its connection tell each other.
#[derive(Default)]
pub(super) struct CallState {
    /// Limit of silence in milliseconds; 0 until the response head is there, whose wait has its own limit.
    pub idle_ms: AtomicU64,
    /// Set when the credential took the place of its stand-in.
    pub credential_sent: AtomicBool,
}

/// Makes the one connection of one call.
pub(super) struct CallConnector {
    pub target: String,
    pub socket: Option<PathBuf>,
    /// Sees the addresses once more, in the last moment; `None` for a unix socket.
    pub guard: Option<Arc<Guard>>,
    pub tcp: TcpConnector,
    /// Shared by all calls: parsed roots and resumable TLS sessions.
    pub tls: Arc<RustlsConnector>,
    pub auth: Mutex<Option<Pending>>,
    pub state: Arc<CallState>,
}

impl fmt::Debug for CallConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallConnector")
    }
}

impl CallConnector {
    fn dial(&self, details: &ConnectionDetails) -> Result<Option<Box<dyn Transport>>, Error> {
        let transport: Option<Box<dyn Transport>> = match (&self.socket, &self.guard) {
            (Some(socket), _) => Some(Box::new(UnixTransport::connect(socket, details)?)),
            (None, Some(guard)) => {
                // The addresses that came with the call and no other; nothing is looked up here.
                guard.check_addresses(&details.addrs).map_err(|error| Error::Other(Box::new(error)))?;
                match Connector::<()>::connect(&self.tcp, details, None)? {
                    Some(transport) => Some(Box::new(transport)),
                    None => None,
                }
            }
            (None, None) => None,
        };
        Ok(transport)
    }
}

impl Connector<()> for CallConnector {
    type Out = CallTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<CallTransport>, Error> {
        let dialled = self.dial(details).map_err(|error| match error {
            Error::Io(io) => {
                let target = self.target.clone();
                Error::Other(Box::new(NetError::Connect { target, reason: io.to_string() }))
            }
            other => other,
        })?;
        let secured = Connector::<Box<dyn Transport>>::connect(&*self.tls, details, dialled).map_err(|error| {
            let reason = match error {
                Error::Io(io) => io.to_string(),
                Error::Rustls(rustls) => rustls.to_string(),
                Error::Tls(reason) => reason.to_string(),
                other => return other,
            };
            Error::Other(Box::new(NetError::Tls { target: self.target.clone(), reason }))
        })?;
        let auth = self.auth.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(secured.map(|inner| CallTransport { inner: Box::new(inner), auth, state: self.state.clone() }))
    }
}

/// The connection of one call. The credential enters the write buffer here and is wiped after the write.
pub(super) struct CallTransport {
    inner: Box<dyn Transport>,
    auth: Option<Pending>,
    state: Arc<CallState>,
}

impl fmt::Debug for CallTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallTransport")
    }
}

impl CallTransport {
    /// Writes `amount` bytes with the stand-in at `at` replaced by the credential of `pending`.
    fn transmit_credential(
        &mut self,
        pending: Pending,
        at: usize,
        amount: usize,
        timeout: NextTimeout,
    ) -> Result<(), Error> {
        let stand_in_end = at + pending.stand_in_len();
        let secret = pending.release().map_err(|error| Error::Other(Box::new(error)))?;
        let secret_end = at + secret.len();
        let total = amount - stand_in_end + secret_end;
        let output = self.inner.buffers().output();
        if total > output.len() {
            let reason = "the request head leaves no room for it; next: shorten the base URL".to_string();
            return Err(Error::Other(Box::new(NetError::CredentialRefused { reason })));
        }
        output.copy_within(stand_in_end..amount, secret_end);
        output[at..secret_end].copy_from_slice(secret.expose());
        let written = self.inner.transmit_output(total, timeout);
        self.inner.buffers().output()[at..secret_end].zeroize();
        written?;
        self.state.credential_sent.store(true, Ordering::SeqCst);
        Ok(())
    }
}

impl Transport for CallTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if let Some(pending) = self.auth.take() {
            match pending.find(&self.inner.buffers().output()[..amount]) {
                Some(at) => return self.transmit_credential(pending, at, amount, timeout),
                None => self.auth = Some(pending),
            }
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let per_read = match self.state.idle_ms.load(Ordering::SeqCst) {
            0 => None,
            idle_ms => Some(Duration::from_millis(idle_ms)),
        };
        self.inner.await_input(NextTimeout { per_read, ..timeout })
    }

    fn is_open(&mut self) -> bool {
        // A connection serves one request.
        false
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Plain HTTP over a socket file: how the command line reaches a daemon bound to `unix:/path`.
struct UnixTransport {
    stream: Arc<UnixSocket>,
    buffers: LazyBuffers,
}

struct UnixSocket(UnixStream);

impl ShutdownHandle for UnixSocket {
    fn shutdown(&self) {
        // An error means that the socket is closed already.
        let _closed_already = self.0.shutdown(Shutdown::Both);
    }
}

impl UnixTransport {
    fn connect(socket: &std::path::Path, details: &ConnectionDetails) -> Result<Self, Error> {
        let stream = Arc::new(UnixSocket(UnixStream::connect(socket)?));
        let handle = Arc::downgrade(&stream);
        (details.register_shutdown)(handle)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Self { stream, buffers })
    }
}

impl fmt::Debug for UnixTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnixTransport")
    }
}

fn timed_out(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.stream.0.set_write_timeout(timeout.not_zero().map(|limit| *limit))?;
        let output = &self.buffers.output()[..amount];
        (&self.stream.0).write_all(output).map_err(|error| timed_out(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        self.stream.0.set_read_timeout(timeout.not_zero().map(|limit| *limit))?;
        let input = self.buffers.input_append_buf();
        let amount = loop {
            match (&self.stream.0).read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(|error| timed_out(error, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}
