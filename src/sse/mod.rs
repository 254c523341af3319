//! Event streams: the journal, as server-sent events.
//! Owns: the writer threads, their clients' sockets, and the count of open streams.
//! May touch: the log (to read), the renderer it was given.
//! Never: makes a committer wait, queues events for a client, or shows what is not durable (but previews).
//!
//! Every client has a position in the journal. A writer thread reads newly committed records once, renders
//! each once and hands the shared bytes to all clients at the tail that may see it. A client that is behind,
//! because it came with a cursor or reads slowly, is read for separately, in slices, until it meets the tail.
//! Since the log is durable there is nothing to overflow: a slow client is late, not lossy, until it takes
//! nothing at all for [`SSE_STALL_MS`] and is cut off.

mod backlog;
mod client;
mod frame;
mod log;
mod probe;
mod writer;

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

pub use frame::{
    Audience, CREDENTIALS_CHANGED, Frame, Gap, GapReason, HEARTBEAT, Preview, Render, Scope, encode, encode_gap,
    encode_preview, encode_withdrawal, json,
};
pub use log::{Log, LogError};
pub use probe::{PROBE_EVENT, ProbeNonce};

use crate::http::Upgraded;
use crate::ids::{RunId, Seq, SessionId};
use crate::limits::{
    SSE_CREDENTIAL_CHECK_MS, SSE_HEARTBEAT_MS, SSE_PREVIEW_TEXT_BYTES_MAX, SSE_PREVIEWS_MAX, SSE_PROBES_MAX,
    SSE_STALL_MS, SSE_STREAMS_MAX, SSE_WRITERS,
};
use crate::sys::EventFd;
use crate::worker::{Worker, WorkerPanicked};
use writer::Writer;

/// Response headers of a stream, besides `connection: close`: its end is the connection's end, which HTTP/1.1
/// proxies accept and which spares every frame a chunk header.
pub const RESPONSE_HEADERS: [(&str, &str); 3] =
    [("content-type", "text/event-stream"), ("cache-control", "no-cache, no-transform"), ("x-accel-buffering", "no")];

/// Says whether the credentials with which a stream was opened still hold. Asked from a writer thread every
/// few seconds, so it must not block.
pub type StillAllowed = Arc<dyn Fn() -> bool + Send + Sync>;

/// What a client asked for.
pub struct StreamSpec {
    /// What the stream is about.
    pub scope: Scope,
    /// The last event the client has seen; 0 asks for everything retained, `None` for what comes from now on.
    pub cursor: Option<Seq>,
    /// Newest record of the scope's run, else of its session; 0 when there is none. Asked of the core after
    /// the seat was reserved. With it a replay follows the scope's own chain instead of reading the whole log.
    pub last: Option<Seq>,
    /// Checked while the stream is open; `None` when requests are not authenticated.
    pub still_allowed: Option<StillAllowed>,
}

impl StreamSpec {
    /// A stream without a known newest record and without credentials.
    pub fn new(scope: Scope, cursor: Option<Seq>) -> Self {
        Self { scope, cursor, last: None, still_allowed: None }
    }
}

/// The writing side of a client's connection.
pub trait Sink: Send + 'static {
    /// Its descriptor, for readiness.
    fn fd(&self) -> RawFd;

    /// Writes without blocking.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel is full; anything else means that the connection is gone.
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// A connection that was taken out of the request loop.
pub struct Outlet {
    /// Where to write. Dropping it closes the connection.
    pub sink: Box<dyn Sink>,
    /// Bytes of the response head that were not written yet.
    pub pending: Vec<u8>,
}

impl Sink for Upgraded {
    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.socket).write_vectored(slices)
    }
}

impl From<Upgraded> for Outlet {
    fn from(mut upgraded: Upgraded) -> Self {
        Self { pending: std::mem::take(&mut upgraded.pending), sink: Box::new(upgraded) }
    }
}

/// Settings of the hub. The defaults stand in `limits.rs`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Writer threads, at least 1.
    pub writers: usize,
    /// Open streams at once.
    pub streams_max: usize,
    /// Silence before a heartbeat.
    pub heartbeat_ms: u64,
    /// Time without progress before a client is cut off.
    pub stall_ms: u64,
    /// Time between two looks at a stream's credentials.
    pub credential_check_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            writers: SSE_WRITERS,
            streams_max: SSE_STREAMS_MAX,
            heartbeat_ms: SSE_HEARTBEAT_MS,
            stall_ms: SSE_STALL_MS,
            credential_check_ms: SSE_CREDENTIAL_CHECK_MS,
        }
    }
}

/// Figures of the hub.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HubStats {
    /// Open streams, reserved ones included.
    pub streams: usize,
    /// Streams that may be open at once.
    pub streams_max: usize,
    /// Reservations refused because of it.
    pub refused: u64,
    /// Frames with an id handed to clients.
    pub frames: u64,
    /// `stream_gap` frames among them.
    pub gaps: u64,
    /// Clients cut off because they took nothing.
    pub cut_off: u64,
    /// Streams closed because their credentials no longer hold.
    pub revoked: u64,
    /// Streams closed because the log could not be read for them.
    pub read_failures: u64,
    /// Previews dropped because a writer was busy.
    pub previews_dropped: u64,
    /// The writer threads.
    pub writers: Vec<WriterStats>,
}

/// Figures of one writer thread.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct WriterStats {
    /// Its clients.
    pub clients: usize,
    /// Time since it last went round its loop; a healthy one does so every [`crate::limits::SSE_SWEEP_MS_MAX`].
    pub progress_age_ms: u64,
    /// Whether its thread runs.
    pub alive: bool,
}

/// The right to open one stream. Given back when it, or the stream it became, is dropped.
pub struct Seat {
    shares: Arc<Shares>,
    /// The tail when it was taken. What the core answers later covers at least that much.
    as_of: Seq,
}

impl Seat {
    fn new(shares: &Arc<Shares>, as_of: Seq) -> Option<Self> {
        let taken = shares.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
            (taken < shares.streams_max).then_some(taken + 1)
        });
        taken.is_ok().then(|| Self { shares: Arc::clone(shares), as_of })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shares.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many streams are open.
struct Shares {
    taken: AtomicUsize,
    streams_max: usize,
}

impl Shares {
    fn new(streams_max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), streams_max }
    }
}

/// What the hub's handles and its writers share.
struct Shared {
    log: Arc<dyn Log>,
    render: Arc<dyn Render>,
    heartbeat: Duration,
    stall: Duration,
    credential_check: Duration,
    shares: Arc<Shares>,
    stopping: AtomicBool,
    refused: AtomicU64,
    frames: AtomicU64,
    gaps: AtomicU64,
    cut_off: AtomicU64,
    revoked: AtomicU64,
    read_failures: AtomicU64,
    previews_dropped: AtomicU64,
    started: Instant,
}

/// One writer's doorbell and figures.
struct Desk {
    wake: EventFd,
    /// A wake-up is under way; more of them would tell nothing new.
    rung: AtomicBool,
    clients: AtomicUsize,
    progress_ms: AtomicU64,
}

impl Desk {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.wake.wake();
        }
    }

    /// Silences the bell. What was done before any ring so far is visible afterwards.
    fn answer(&self) {
        self.answer_around(|| {});
    }

    /// In this order, so that a ring in between needs no wake-up of its own and the next one makes one.
    fn answer_around(&self, in_between: impl FnOnce()) {
        self.wake.drain();
        in_between();
        self.rung.swap(false, Ordering::SeqCst);
    }
}

/// A stream on its way to a writer.
struct Arrival {
    seat: Seat,
    outlet: Outlet,
    spec: StreamSpec,
}

/// A preview on its way to a writer.
struct QueuedPreview {
    /// The tail when it was made: it belongs behind that record and before the next one.
    after: Seq,
    session: SessionId,
    run: RunId,
    bytes: Arc<[u8]>,
}

/// What reaches a writer.
struct Inlets {
    arrivals: Receiver<Box<Arrival>>,
    previews: Receiver<QueuedPreview>,
    probes: Receiver<ProbeNonce>,
}

struct Post {
    desk: Arc<Desk>,
    arrivals: Sender<Box<Arrival>>,
    previews: Sender<QueuedPreview>,
    probes: Sender<ProbeNonce>,
}

struct Inner {
    shared: Arc<Shared>,
    posts: Vec<Post>,
    next_post: AtomicUsize,
    workers: Mutex<Vec<Worker>>,
}

/// Handle on the event streams. Clones share the same writers; the last one dropped stops them.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

impl Hub {
    /// Starts the writer threads.
    ///
    /// # Errors
    /// The operating system refused a descriptor or a thread.
    pub fn start(log: Arc<dyn Log>, render: Arc<dyn Render>, config: &Config) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            log,
            render,
            heartbeat: Duration::from_millis(config.heartbeat_ms),
            stall: Duration::from_millis(config.stall_ms),
            credential_check: Duration::from_millis(config.credential_check_ms),
            shares: Arc::new(Shares::new(config.streams_max)),
            stopping: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
            revoked: AtomicU64::new(0),
            read_failures: AtomicU64::new(0),
            previews_dropped: AtomicU64::new(0),
            started: Instant::now(),
        });
        let hub = Self {
            inner: Arc::new(Inner {
                shared,
                posts: Vec::new(),
                next_post: AtomicUsize::new(0),
                workers: Mutex::new(Vec::new()),
            }),
        };
        hub.with_writers(config)
    }

    fn with_writers(mut self, config: &Config) -> io::Result<Self> {
        let inner = Arc::get_mut(&mut self.inner).expect("no other handle exists yet");
        let mut workers = Vec::new();
        for number in 0..config.writers.max(1) {
            let desk = Arc::new(Desk {
                wake: EventFd::new()?,
                rung: AtomicBool::new(false),
                clients: AtomicUsize::new(0),
                progress_ms: AtomicU64::new(0),
            });
            // Every arrival holds a seat, so this never fills up.
            let (arrivals, arrivals_in) = bounded(config.streams_max.max(1));
            let (previews, previews_in) = bounded(SSE_PREVIEWS_MAX);
            let (probes, probes_in) = bounded(SSE_PROBES_MAX);
            let inlets = Inlets { arrivals: arrivals_in, previews: previews_in, probes: probes_in };
            let writer = Writer::new(Arc::clone(&inner.shared), Arc::clone(&desk), inlets)?;
            inner.posts.push(Post { desk, arrivals, previews, probes });
            workers.push(Worker::spawn(format!("sse-writer-{number}"), move || writer.run())?);
        }
        inner.workers = Mutex::new(workers);
        Ok(self)
    }

    /// Takes one of the places for streams, or `None` when all are taken. Take it before asking the core about
    /// the scope: the stream then covers everything from that moment on.
    pub fn try_reserve(&self) -> Option<Seat> {
        let shared = &self.inner.shared;
        let seat = Seat::new(&shared.shares, shared.log.committed());
        if seat.is_none() {
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        seat
    }

    /// Hands a connection to a writer. Never blocks. After [`Hub::stop`] the connection is closed.
    pub fn accept(&self, seat: Seat, outlet: impl Into<Outlet>, spec: StreamSpec) {
        let number = self.inner.next_post.fetch_add(1, Ordering::Relaxed) % self.inner.posts.len();
        let post = &self.inner.posts[number];
        let arrival = Box::new(Arrival { seat, outlet: outlet.into(), spec });
        // A writer that is gone drops the arrival, which closes the connection.
        if post.arrivals.try_send(arrival).is_ok() {
            post.desk.ring();
        }
    }

    /// Tells the writers that the log has grown. Never blocks; costs nothing while no stream is open.
    pub fn committed(&self) {
        // Pairs with the seat count's order: either the seat is seen here, or the new stream sees the commit.
        fence(Ordering::SeqCst);
        if self.inner.shared.shares.taken.load(Ordering::SeqCst) != 0 {
            self.inner.posts.iter().for_each(|post| post.desk.ring());
        }
    }

    /// Shows a piece of a model's answer to the clients that are at the tail. Never blocks; dropped when it is
    /// longer than [`SSE_PREVIEW_TEXT_BYTES_MAX`] or a writer is busy.
    pub fn preview(&self, preview: Preview) {
        let shared = &self.inner.shared;
        if shared.shares.taken.load(Ordering::SeqCst) == 0 {
            return;
        }
        if preview.text.len() > SSE_PREVIEW_TEXT_BYTES_MAX {
            shared.previews_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.show(&preview.session, preview.run, &encode_preview(&preview));
    }

    /// Takes back the previews of a run since its last output: its answer starts over. Never blocks; dropped when a
    /// writer is busy.
    pub fn withdraw_previews(&self, session: &SessionId, run: RunId) {
        if self.inner.shared.shares.taken.load(Ordering::SeqCst) != 0 {
            self.show(session, run, &encode_withdrawal(session, run));
        }
    }

    fn show(&self, session: &SessionId, run: RunId, bytes: &Arc<[u8]>) {
        let shared = &self.inner.shared;
        let after = shared.log.committed();
        for post in &self.inner.posts {
            let queued = QueuedPreview { after, session: session.clone(), run, bytes: Arc::clone(bytes) };
            match post.previews.try_send(queued) {
                Ok(()) => post.desk.ring(),
                Err(TrySendError::Full(_)) => {
                    shared.previews_dropped.fetch_add(1, Ordering::Relaxed);
                }
                // The writer is gone, and its clients with it.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Asks for a frame on the probe streams of this name. Never blocks; false when a writer is too busy to take it.
    pub fn probe(&self, nonce: &ProbeNonce) -> bool {
        let mut taken = true;
        for post in &self.inner.posts {
            match post.probes.try_send(nonce.clone()) {
                Ok(()) => post.desk.ring(),
                Err(_) => taken = false,
            }
        }
        taken
    }

    /// Figures as of now.
    pub fn stats(&self) -> HubStats {
        let shared = &self.inner.shared;
        let now_ms = shared.started.elapsed().as_millis() as u64;
        let workers = self.inner.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = |number: usize| workers.get(number).is_some_and(|worker| !worker.is_finished());
        HubStats {
            streams: shared.shares.taken.load(Ordering::SeqCst),
            streams_max: shared.shares.streams_max,
            refused: shared.refused.load(Ordering::Relaxed),
            frames: shared.frames.load(Ordering::Relaxed),
            gaps: shared.gaps.load(Ordering::Relaxed),
            cut_off: shared.cut_off.load(Ordering::Relaxed),
            revoked: shared.revoked.load(Ordering::Relaxed),
            read_failures: shared.read_failures.load(Ordering::Relaxed),
            previews_dropped: shared.previews_dropped.load(Ordering::Relaxed),
            writers: self
                .inner
                .posts
                .iter()
                .enumerate()
                .map(|(number, post)| WriterStats {
                    clients: post.desk.clients.load(Ordering::Relaxed),
                    progress_age_ms: now_ms.saturating_sub(post.desk.progress_ms.load(Ordering::Relaxed)),
                    alive: alive(number),
                })
                .collect(),
        }
    }

    /// Sends nothing more, closes every stream and joins the writers. Later calls do nothing.
    ///
    /// # Errors
    /// A writer had panicked; the first such panic is named.
    pub fn stop(&self) -> Result<(), WorkerPanicked> {
        self.inner.stop()
    }
}

impl Inner {
    fn stop(&self) -> Result<(), WorkerPanicked> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.posts.iter().for_each(|post| post.desk.wake.wake());
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let mut first = Ok(());
        for worker in workers {
            let joined = worker.join();
            if first.is_ok() {
                first = joined;
            }
        }
        first
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(panicked) = self.stop() {
            ::log::error!("{panicked}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Epoll, Interest};

    #[test]
    fn a_ring_during_the_answer_to_another_does_not_silence_the_bell_for_good() {
        let desk = Desk {
            wake: EventFd::new().unwrap(),
            rung: AtomicBool::new(false),
            clients: AtomicUsize::new(0),
            progress_ms: AtomicU64::new(0),
        };
        let epoll = Epoll::new().unwrap();
        epoll.add(&desk.wake, 0, Interest { readable: true, writable: false, edge: false }).unwrap();
        let mut ready = Vec::new();
        let mut is_awake = || {
            epoll.wait(&mut ready, 0).unwrap();
            !ready.is_empty()
        };
        assert!(!is_awake());
        desk.ring();
        desk.ring();
        assert!(is_awake());
        desk.answer_around(|| desk.ring());
        assert!(!is_awake(), "the ring in between is part of what was answered");
        desk.ring();
        assert!(is_awake());
    }
}
