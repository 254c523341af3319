//! One request, one connection, one answer.
//! Owns: the HTTP client's configuration: no proxy, no redirects, every limit of time and size.
//! May touch: the network.
//! Never: reads a body without a limit, or reports a cut-off body of a cancelled request as complete.

use std::fmt;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ureq::http::{self, HeaderMap};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::{RustlsConnector, TcpConnector};
use ureq::{Agent, BodyReader};

use crate::limits::{NET_HEAD_BYTES_MAX, NET_INPUT_BUFFER_BYTES, NET_OUTPUT_BUFFER_BYTES, NET_RESOLVER_THREADS};

use super::auth::{Auth, Pending};
use super::cancel::{Attached, Cancel};
use super::connector::{CallConnector, CallState};
use super::egress::{Destination, EgressPolicy, Purpose};
use super::error::{Context, NetError, Phase};
use super::resolver::{CallResolver, Guard, LookUp, ResolverPool, ResolverStats, addresses_of, named, system_look_up};
use super::roots::{Roots, RootsError};
use super::url::Target;

/// Settings of the client.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// PEM file of the only CAs to trust (`--ca-file`).
    pub ca_file: Option<PathBuf>,
    /// Resolver threads; the command line needs one, the daemon [`NET_RESOLVER_THREADS`].
    pub resolver_threads: usize,
    /// Which hosts may be reached.
    pub egress: EgressPolicy,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self { ca_file: None, resolver_threads: NET_RESOLVER_THREADS, egress: EgressPolicy::default() }
    }
}

/// Why the client could not be set up.
#[derive(Debug)]
pub enum NetConfigError {
    /// The trust roots.
    Roots(RootsError),
    /// The operating system refused a thread.
    Threads(io::Error),
}

impl fmt::Display for NetConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roots(error) => error.fmt(f),
            Self::Threads(error) => {
                write!(f, "cannot start the resolver threads: {error}; next: raise the limit of processes (ulimit -u)")
            }
        }
    }
}

impl std::error::Error for NetConfigError {}

/// The methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Submit.
    Post,
    /// Replace.
    Put,
    /// Remove.
    Delete,
    /// Ask what would be allowed, as a browser does.
    Options,
}

impl Method {
    fn as_http(self) -> http::Method {
        match self {
            Self::Get => http::Method::GET,
            Self::Post => http::Method::POST,
            Self::Put => http::Method::PUT,
            Self::Delete => http::Method::DELETE,
            Self::Options => http::Method::OPTIONS,
        }
    }
}

/// Limits of time of one request, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Name look-up, and TCP connect with TLS handshake, each.
    pub connect_ms: u64,
    /// From the request's last byte to the end of the response head.
    pub first_byte_ms: u64,
    /// Silence while the body is read; any byte ends it. Also each blocked write.
    pub idle_ms: u64,
    /// Everything together; `None` for streams that never end.
    pub total_ms: Option<u64>,
}

/// One request.
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Where to.
    pub target: &'a Target,
    /// What for; it decides which addresses are in reach.
    pub purpose: Purpose,
    /// The destination's own setting opens private networks; see [`Destination::allow_private`].
    pub allow_private: bool,
    /// Further header lines; never a credential.
    pub headers: &'a [(&'a str, &'a str)],
    /// The credential, released when the connection stands.
    pub auth: Option<Auth>,
    /// The body, for methods that have one.
    pub body: Option<&'a [u8]>,
    /// Limits of time.
    pub timeouts: Timeouts,
    /// Limit of the response body in bytes.
    pub body_bytes_max: u64,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Header values and the body are the caller's: prompts, tokens of other kinds.
        f.debug_struct("Request").field("method", &self.method).field("target", self.target).finish_non_exhaustive()
    }
}

/// Trust roots ready for use, with the TLS sessions that can be resumed under them.
pub struct Trust {
    roots: Roots,
    tls: Arc<RustlsConnector>,
    tls_config: TlsConfig,
}

impl Trust {
    /// Trusts the CAs of one PEM file and no other.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn of_file(path: &Path) -> Result<Self, RootsError> {
        Roots::resolve(Some(path)).map(Self::of)
    }

    fn of(roots: Roots) -> Self {
        let tls_config = TlsConfig::builder().root_certs(roots.certs()).build();
        Self { roots, tls: Arc::new(RustlsConnector::default()), tls_config }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.roots.source())
    }
}

/// The outbound HTTP client. Clones share one set of threads and roots.
#[derive(Clone)]
pub struct Net(Arc<Inner>, Arc<Trust>);

struct Inner {
    resolver: Arc<ResolverPool>,
    egress: EgressPolicy,
    refused: AtomicU64,
}

impl Net {
    /// Reads the trust roots and starts the resolver threads.
    ///
    /// # Errors
    /// The CA file cannot be used, or threads are refused.
    pub fn new(config: &NetConfig) -> Result<Self, NetConfigError> {
        Self::with_look_up(config, Arc::new(system_look_up))
    }

    /// As [`Net::new`], with another way to look names up.
    ///
    /// # Errors
    /// As [`Net::new`].
    pub fn with_look_up(config: &NetConfig, look_up: Arc<LookUp>) -> Result<Self, NetConfigError> {
        let roots = Roots::resolve(config.ca_file.as_deref()).map_err(NetConfigError::Roots)?;
        let resolver = ResolverPool::start(config.resolver_threads, look_up).map_err(NetConfigError::Threads)?;
        let inner = Inner { resolver: Arc::new(resolver), egress: config.egress.clone(), refused: AtomicU64::new(0) };
        Ok(Self(Arc::new(inner), Arc::new(Trust::of(roots))))
    }

    /// The same client with other trust roots.
    pub fn trusting(&self, trust: &Arc<Trust>) -> Self {
        Self(self.0.clone(), trust.clone())
    }

    /// Which hosts may be reached.
    pub fn egress(&self) -> &EgressPolicy {
        &self.0.egress
    }

    /// The trust roots in use.
    pub fn roots(&self) -> &Roots {
        &self.1.roots
    }

    /// Figures of the resolver threads.
    pub fn resolver_stats(&self) -> ResolverStats {
        self.0.resolver.stats()
    }

    /// Requests that the guard has refused since start.
    pub fn egress_refused_count(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// The first look of the guard, for callers that record a request before they make it.
    ///
    /// # Errors
    /// [`NetError::EgressRefused`]; nothing was looked up.
    pub fn check_host(&self, purpose: Purpose, target: &Target) -> Result<(), NetError> {
        let guard = self.guard(purpose, false, target);
        self.counted(guard.map_or(Ok(()), |guard| guard.check_host()))
    }

    /// Addresses of a host that the guard has let pass.
    pub(super) fn look_up(
        &self,
        destination: &Destination,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<Vec<IpAddr>, NetError> {
        match addresses_of(&self.0.resolver, destination, Some(limit), cancel) {
            Ok(found) => Ok(found.into_iter().map(|address| address.ip()).collect()),
            Err(failure) => Err(named(failure, &destination.host).unwrap_or_else(|| NetError::Timeout {
                target: destination.host.to_string(),
                phase: Phase::Resolve,
                limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            })),
        }
    }

    fn guard(&self, purpose: Purpose, allow_private: bool, target: &Target) -> Option<Arc<Guard>> {
        let (host, port) = target.host_and_port()?;
        let destination = Destination { purpose, host: host.clone(), port, allow_private };
        Some(Arc::new(Guard { policy: self.0.egress.clone(), destination }))
    }

    fn counted<T>(&self, outcome: Result<T, NetError>) -> Result<T, NetError> {
        if matches!(outcome, Err(NetError::EgressRefused { .. })) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Sends `request` and waits for the response head. Any status is an answer, redirects included: they
    /// are returned, never followed. The host is judged before its name is looked up, and the connection goes to
    /// one of the addresses that were judged.
    ///
    /// # Errors
    /// See [`NetError`]; after [`Cancel::cancel`] it is always [`NetError::Cancelled`].
    pub fn send(&self, request: Request<'_>, cancel: &Cancel) -> Result<Response, NetError> {
        self.counted(self.send_guarded(request, cancel))
    }

    fn send_guarded(&self, request: Request<'_>, cancel: &Cancel) -> Result<Response, NetError> {
        let context = Context {
            target: request.target.to_string(),
            connect_ms: request.timeouts.connect_ms,
            first_byte_ms: request.timeouts.first_byte_ms,
            idle_ms: request.timeouts.idle_ms,
            total_ms: request.timeouts.total_ms,
        };
        let guard = self.guard(request.purpose, request.allow_private, request.target);
        if let Some(guard) = &guard {
            guard.check_host()?;
        }
        let state = Arc::new(CallState::default());
        let has_auth = request.auth.is_some();
        let pending = request.auth.map(Pending::new).transpose()?;
        let uri = request.target.uri();
        let uri = pending.as_ref().map_or(uri.clone(), |pending| pending.in_uri(uri));
        let mut builder = http::Request::builder().method(request.method.as_http()).uri(uri);
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        if let Some((name, value)) = pending.as_ref().and_then(Pending::header) {
            builder = builder.header(name, value);
        }
        let agent = self.agent(&request.timeouts, request.target, guard, pending, &state, cancel);
        let attached = cancel.attach(agent.clone()).ok_or(NetError::Cancelled)?;
        let invalid = |_| NetError::Protocol {
            target: request.target.to_string(),
            reason: "the URL or a header to send is not valid HTTP".to_string(),
        };
        let outcome = match request.body {
            Some(body) => agent.run(builder.body(body).map_err(invalid)?),
            None => agent.run(builder.body(()).map_err(invalid)?),
        };
        if cancel.is_cancelled() {
            return Err(NetError::Cancelled);
        }
        let response = outcome.map_err(|error| context.name(error))?;
        if has_auth && !state.credential_sent.load(Ordering::SeqCst) {
            let reason = "answered before the request was sent".to_string();
            return Err(NetError::Protocol { target: context.target, reason });
        }
        state.idle_ms.store(context.idle_ms, Ordering::SeqCst);
        let (parts, body) = response.into_parts();
        let body = Body {
            reader: body.into_reader(),
            cancel: cancel.clone(),
            context,
            received: 0,
            bytes_max: request.body_bytes_max,
            state,
            _attached: attached,
        };
        Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    fn agent(
        &self,
        timeouts: &Timeouts,
        target: &Target,
        guard: Option<Arc<Guard>>,
        pending: Option<Pending>,
        state: &Arc<CallState>,
        cancel: &Cancel,
    ) -> Agent {
        let ms = Duration::from_millis;
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("kheish-daemon/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("")
            .max_response_header_size(NET_HEAD_BYTES_MAX)
            .input_buffer_size(NET_INPUT_BUFFER_BYTES)
            .output_buffer_size(NET_OUTPUT_BUFFER_BYTES)
            .max_idle_connections(0)
            .timeout_global(timeouts.total_ms.map(ms))
            .timeout_resolve(Some(ms(timeouts.connect_ms)))
            .timeout_connect(Some(ms(timeouts.connect_ms)))
            .timeout_recv_response(Some(ms(timeouts.first_byte_ms)))
            .timeout_per_write(Some(ms(timeouts.idle_ms)))
            .tls_config(self.1.tls_config.clone())
            .build();
        let connector = CallConnector {
            target: target.to_string(),
            socket: target.socket().map(Into::into),
            guard: guard.clone(),
            tcp: TcpConnector::default(),
            tls: self.1.tls.clone(),
            auth: Mutex::new(pending),
            state: state.clone(),
        };
        let resolver = CallResolver { pool: self.0.resolver.clone(), cancel: cancel.clone(), guard };
        Agent::with_parts(config, connector, resolver)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("roots", &self.1.roots.source()).finish_non_exhaustive()
    }
}

/// An answer: status, header lines, and a body still to be read.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Response {
    /// The first value of header `name`, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Response {
    /// All header lines whose values are text, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The body of a [`Response`]. Dropping it closes the connection.
pub struct Body {
    reader: BodyReader<'static>,
    cancel: Cancel,
    context: Context,
    received: u64,
    bytes_max: u64,
    state: Arc<CallState>,
    _attached: Attached,
}

impl Body {
    /// Replaces the limit given with the request, in bytes of the whole body.
    pub fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Replaces the limit of silence given with the request, in milliseconds and above 0: for a body of which
    /// little more is expected.
    pub fn set_idle_ms(&mut self, idle_ms: u64) {
        self.context.idle_ms = idle_ms;
        self.state.idle_ms.store(idle_ms, Ordering::SeqCst);
    }

    /// Reads what has arrived into `buffer`, waiting when there is nothing yet; 0 is the end.
    ///
    /// # Errors
    /// The connection broke, a limit was met, or the request was cancelled.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, NetError> {
        let outcome = self.reader.read(buffer);
        // A cancelled connection reads like one that the peer closed, which can look like a complete body.
        if self.cancel.is_cancelled() {
            return Err(NetError::Cancelled);
        }
        let count = outcome.map_err(|error| self.context.name(ureq::Error::from(error)))?;
        self.received += count as u64;
        if self.received > self.bytes_max {
            return Err(NetError::BodyTooLarge { target: self.context.target.clone(), limit_bytes: self.bytes_max });
        }
        Ok(count)
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// As [`Body::read`].
    pub fn read_to_end(&mut self) -> Result<Vec<u8>, NetError> {
        let mut bytes = Vec::new();
        let mut buffer = [0u8; 8 * 1024];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Reads at most `bytes_max` bytes and drops the rest: for error bodies, whose end nobody needs. A body
    /// that breaks off gives what came before.
    ///
    /// # Errors
    /// Only [`NetError::Cancelled`].
    pub fn read_prefix(&mut self, bytes_max: usize) -> Result<Vec<u8>, NetError> {
        let mut bytes = Vec::new();
        let mut buffer = [0u8; 8 * 1024];
        while bytes.len() < bytes_max {
            let room = (bytes_max - bytes.len()).min(buffer.len());
            match self.read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(NetError::Cancelled) => return Err(NetError::Cancelled),
                Err(_) => break,
            }
        }
        Ok(bytes)
    }
}
