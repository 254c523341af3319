//! The HTTP/1.1 edge: our own server on epoll and httparse. docs/http-edge.md has its rules.
//! Owns: the listener, its one reactor thread and its workers, the framing of requests and answers.
//! May touch: the service it was started with.
//! Never: knows a route, a token or a record; a [`Service`] does.

mod bind;
mod body;
pub mod codes;
mod conn;
mod counters;
mod date;
mod exchange;
mod head;
mod link;
pub mod problem;
mod reactor;
pub mod request_id;
mod responder;
mod response;
mod socket;
mod workers;

#[cfg(test)]
mod fuzz;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub use self::bind::{Bind, BindError};
pub use self::codes::Code;
pub use self::counters::{EdgeStats, Refused};
pub use self::head::{Head, Method, Refusal};
pub use self::problem::Problem;
pub use self::request_id::RequestId;
pub use self::responder::{Responder, Upgraded};
pub use self::response::Response;
pub use self::socket::{Peer, Socket};

use self::bind::Listener;
use self::counters::{Budget, Permits};
use self::exchange::Exchange;
use self::link::{Message, Shared};
use self::reactor::Reactor;
use crate::limits;
use crate::worker::{Worker, WorkerPanicked};

/// What the edge serves.
pub trait Service: Send + Sync + 'static {
    /// What [`Service::admit`] found out and [`Service::handle`] needs: the route, the caller's access.
    type Admitted: Send + 'static;

    /// Judges a request by its head, before a byte of its body is read or asked for. Runs on the reactor
    /// thread: it must not block.
    fn admit(&self, head: &Head) -> Admission<Self::Admitted>;

    /// Answers a whole request through `responder`, now or later, from any thread. A panic is answered
    /// with 500. On [`Lane::Inline`] it runs on the reactor thread and must not block.
    fn handle(&self, admitted: Self::Admitted, head: Head, body: Vec<u8>, responder: Responder);

    /// Hears of an answer that the edge gave by itself, for the log: bad framing, a deadline, a full queue. Runs on the
    /// reactor thread: it must not block.
    fn refused(&self, refused: &EdgeRefusal<'_>) {
        let _ = refused;
    }
}

/// An answer that the edge gave by itself.
#[derive(Debug)]
pub struct EdgeRefusal<'a> {
    /// Who was answered.
    pub peer: Peer,
    /// The id in the answer.
    pub request_id: RequestId,
    /// What it was.
    pub code: &'static problem::Code,
    /// The request, where its head was understood.
    pub head: Option<&'a Head>,
}

/// The judgement of [`Service::admit`].
#[derive(Debug)]
pub enum Admission<A> {
    /// The request goes on.
    Accept {
        /// Passed to [`Service::handle`].
        admitted: A,
        /// A longer body is refused with 413, unread.
        body_bytes_max: usize,
        /// Where the handler runs.
        lane: Lane,
    },
    /// This is the answer. The body is not read.
    Refuse(Response),
}

/// Where a handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// On the reactor thread, without a hand-over, if the body has at most
    /// [`limits::HTTP_INLINE_BODY_BYTES_MAX`]; on a worker otherwise. For handlers that never block.
    Inline,
    /// As [`Lane::Inline`], unless the body holds this text: then the handler blocks.
    InlineWithout(&'static str),
    /// On a worker.
    Worker,
}

/// Caps of the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Open connections, event streams included.
    pub connections: usize,
    /// Open connections of one client address; see [`limits::HTTP_CONNECTIONS_PER_PEER_MAX`].
    pub connections_per_peer: usize,
    /// Requests waiting for a worker.
    pub worker_queue: usize,
    /// Request body bytes held at once.
    pub bodies_bytes: usize,
    /// Response bytes not yet taken by their clients.
    pub unsent_bytes: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            connections: limits::HTTP_CONNECTIONS_MAX,
            connections_per_peer: limits::HTTP_CONNECTIONS_PER_PEER_MAX,
            worker_queue: limits::HTTP_WORKER_QUEUE_MAX,
            bodies_bytes: limits::HTTP_BODIES_BYTES_MAX,
            unsent_bytes: limits::HTTP_UNSENT_BYTES_MAX,
        }
    }
}

/// Deadlines of the edge; limits.rs says what each one is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// A head, from its first byte (or the accept) to its end.
    pub head: Duration,
    /// A body, from the end of its head to its end.
    pub body: Duration,
    /// Window of a body's least progress.
    pub body_progress: Duration,
    /// A kept connection without a request.
    pub idle: Duration,
    /// Window of a response's least progress.
    pub write_progress: Duration,
    /// Discarding after a closing answer.
    pub linger: Duration,
    /// At a drain: a connection that has not asked for anything yet.
    pub drain_fresh: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            head: Duration::from_millis(limits::HTTP_HEAD_DEADLINE_MS),
            body: Duration::from_millis(limits::HTTP_BODY_DEADLINE_MS),
            body_progress: Duration::from_millis(limits::HTTP_BODY_PROGRESS_MS),
            idle: Duration::from_millis(limits::HTTP_IDLE_DEADLINE_MS),
            write_progress: Duration::from_millis(limits::HTTP_WRITE_PROGRESS_MS),
            linger: Duration::from_millis(limits::HTTP_LINGER_MS),
            drain_fresh: Duration::from_millis(limits::HTTP_DRAIN_FRESH_MS),
        }
    }
}

impl Deadlines {
    /// How often deadlines are looked at: a quarter of the shortest, so that none is exceeded by much.
    fn sweep_every(&self) -> Duration {
        let all = [self.head, self.body, self.body_progress, self.idle, self.write_progress, self.linger];
        let shortest = all.into_iter().min().expect("the list is not empty");
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_millis(limits::HTTP_SWEEP_MS_MAX))
    }
}

/// How an edge is started.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where it listens.
    pub bind: Bind,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Caps.
    pub caps: Caps,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Addresses of proxies, whose connections are not counted per address.
    pub trusted_proxies: Vec<IpAddr>,
}

impl EdgeConfig {
    /// The defaults of limits.rs on `bind`.
    pub fn new(bind: Bind) -> Self {
        Self {
            bind,
            workers: limits::HTTP_WORKERS,
            caps: Caps::default(),
            deadlines: Deadlines::default(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// Why an edge could not start.
#[derive(Debug)]
pub enum EdgeError {
    /// The address cannot be listened on.
    Bind(BindError),
    /// The system refused a thread or a descriptor.
    System(io::Error),
    /// The system has no randomness for request ids.
    Randomness,
}

impl fmt::Display for EdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::System(error) => {
                write!(f, "cannot start the http edge: {error}; next: raise the limits on open files and threads")
            }
            Self::Randomness => {
                write!(f, "cannot start the http edge: no randomness; next: check that getrandom(2) is allowed")
            }
        }
    }
}

impl std::error::Error for EdgeError {}

/// A running server. Dropping it stops it.
pub struct Edge {
    shared: Arc<Shared>,
    bound: Bind,
    reactor: Option<Worker>,
    workers: Vec<Worker>,
}

impl Edge {
    /// Binds, and serves from now on.
    ///
    /// # Errors
    /// The address is not free, or the system has no threads or descriptors left.
    pub fn start<S: Service>(config: EdgeConfig, service: Arc<S>) -> Result<Self, EdgeError> {
        let listener = Listener::open(&config.bind).map_err(EdgeError::Bind)?;
        Self::serve(listener, config, service)
    }

    /// As [`Edge::start`], on a listening socket that somebody else made at `config.bind` and keeps: it and its queue of
    /// connections outlive the edge.
    ///
    /// # Errors
    /// As there.
    pub fn adopt<S: Service>(config: EdgeConfig, socket: OwnedFd, service: Arc<S>) -> Result<Self, EdgeError> {
        let listener = Listener::adopt(socket, &config.bind).map_err(EdgeError::Bind)?;
        Self::serve(listener, config, service)
    }

    fn serve<S: Service>(listener: Listener, config: EdgeConfig, service: Arc<S>) -> Result<Self, EdgeError> {
        let bound = listener.address().map_err(EdgeError::System)?;
        let caps = config.caps;
        let permits = Permits::new(caps.connections, caps.connections_per_peer, config.trusted_proxies);
        let request_ids = request_id::Generator::new().map_err(|_| EdgeError::Randomness)?;
        let (bodies, unsent) = (Budget::new(caps.bodies_bytes), Budget::new(caps.unsent_bytes));
        let shared = Arc::new(Shared::new(permits, bodies, unsent, request_ids).map_err(EdgeError::System)?);
        let (jobs, workers) =
            workers::start(&service, &shared, config.workers.max(1), caps.worker_queue).map_err(EdgeError::System)?;
        let deadlines = config.deadlines;
        let exchange = Exchange::new(service, shared.clone(), jobs, deadlines);
        let reactor = Reactor::new(exchange, shared.clone(), listener, deadlines.sweep_every(), deadlines.head)
            .map_err(EdgeError::System)?;
        let reactor = Worker::spawn("http-reactor", move || reactor.run()).map_err(EdgeError::System)?;
        Ok(Self { shared, bound, reactor: Some(reactor), workers })
    }

    /// Where it listens, with the port that the kernel chose.
    pub fn local_addr(&self) -> &Bind {
        &self.bound
    }

    /// A moment's figures.
    pub fn stats(&self) -> EdgeStats {
        let shared = &self.shared;
        let mut stats = shared.counters.stats(&shared.permits, &shared.bodies, &shared.unsent);
        stats.reactor_alive = self.reactor.as_ref().is_some_and(|reactor| !reactor.is_finished());
        stats
    }

    /// Stops accepting, closes idle connections, lets requests in flight finish and closes their
    /// connections with the answer. Upgraded connections are their owners'. Returns once nothing is left,
    /// or after `limit`; whether nothing was left. Stats and answers keep working until [`Edge::stop`].
    pub fn drain(&self, limit: Duration) -> bool {
        self.shared.begin_draining();
        self.shared.mailbox.post(Message::Drain);
        self.shared.wait_drained(limit)
    }

    /// Ends all threads and drops the connections that are left. Waits for handlers that are running.
    ///
    /// # Errors
    /// A thread had died by a panic; the first one found.
    pub fn stop(mut self) -> Result<(), WorkerPanicked> {
        self.end()
    }

    fn end(&mut self) -> Result<(), WorkerPanicked> {
        self.shared.mailbox.post(Message::Stop);
        let mut outcome = Ok(());
        // The reactor goes first: it holds the workers' queue, whose end ends them.
        for worker in self.reactor.take().into_iter().chain(self.workers.drain(..)) {
            outcome = outcome.and(worker.join());
        }
        outcome
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Err(panicked) = self.end() {
            log::error!("{panicked}");
        }
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("bound", &self.bound).field("stats", &self.stats()).finish()
    }
}
