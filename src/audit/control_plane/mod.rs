//! Who was let in, refused or limited: `control-plane-auth/audit.jsonl`.
//! Owns: the writer thread, its queues, and what an operator sees of both.
//! May touch: the directory it was given; the journal, for reading, to make up for lines that were not written.
//! Never: holds a token or a query string; makes a request wait.

mod book;
mod check;
mod derive;
mod file;
mod line;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;

pub use book::Book;
pub use check::{AuditFileReport, BadLine, check};
pub use line::{AuditEvent, AuditLine};

use crate::core::Event;
use crate::ids::Seq;
use crate::journal::Reader;
use crate::limits::{AUDIT_FILE_BYTES_MAX, AUDIT_QUEUE_MAX, AUDIT_ROTATED_FILES_MAX, AUDIT_STOP_WAIT_MS};
use crate::pause::{self, Pause};
use crate::recent::{Recent, RecentView};
use crate::worker::{Worker, WorkerPanicked};
use derive::Picker;
use file::AuditFile;
use writer::{Entry, Halt, Inboxes, Writer};

/// Sizes of the audit file; smaller in tests.
#[derive(Debug, Clone, Copy)]
pub struct AuditLimits {
    /// Size at which the file is rotated, and of each rotated file.
    pub file_bytes_max: u64,
    /// Rotated files kept of each book.
    pub rotated_files_max: u32,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self { file_bytes_max: AUDIT_FILE_BYTES_MAX, rotated_files_max: AUDIT_ROTATED_FILES_MAX }
    }
}

/// The handle; clones share one writer thread.
#[derive(Clone)]
pub struct ControlPlaneAudit {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    refusals: Sender<Box<AuditLine>>,
    acts: Sender<Entry>,
    halts: Sender<Halt>,
    picker: Picker,
    counters: Arc<Counters>,
    running: Mutex<Option<Running>>,
}

/// The writer thread and the two channels that nothing is sent over: their ends tell by going away.
struct Running {
    worker: Worker,
    /// Dropped to stop the writer.
    stop: Sender<()>,
    /// Disconnected when the writer has ended.
    ended: Receiver<()>,
}

#[derive(Default)]
struct Counters {
    written: AtomicU64,
    dropped: AtomicU64,
    failed_attempts: AtomicU64,
    accepted: AtomicU64,
    /// Acts that found their queue full: the writer makes up for them from the journal.
    acts_missed: AtomicBool,
    /// The newest journal record whose act has its line.
    derived_through: AtomicU64,
    last_error: Mutex<Option<String>>,
    auth_limited: Mutex<Recent>,
    origins_limited: Mutex<Recent>,
}

impl Counters {
    fn set_error(&self, error: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.last_error.lock().unwrap_or_else(PoisonError::into_inner), error)
    }
}

/// What an operator sees of the audit file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditStats {
    /// The current file.
    pub path: String,
    /// Lines written since start.
    pub written_count: u64,
    /// Lines lost because the queue was full.
    pub dropped_count: u64,
    /// Attempts to write or sync that failed.
    pub failed_attempt_count: u64,
    /// Lines accepted and not yet written.
    pub queue_depth: u64,
    /// Every act up to this journal record has its line.
    pub acts_complete_through: Seq,
    /// Why lines cannot be written now; absent while they can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Floods that were limited, by the code of their line in the audit file: one a peer and minute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RateLimits {
    /// Failed authentications.
    pub auth_rate_limited: RecentView,
    /// Origins and hosts that may not call.
    pub cors_origin_rate_limited: RecentView,
}

/// Why the audit file cannot be kept.
#[derive(Debug)]
pub enum AuditError {
    /// The file or its directory cannot be opened.
    Open {
        /// Which.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The writer thread could not be started.
    Thread(io::Error),
    /// The writer did not finish in time; lines it still holds are lost.
    Stuck {
        /// The file it writes.
        path: PathBuf,
    },
    /// The writer thread panicked.
    Panicked(WorkerPanicked),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, error } => write!(
                f,
                "cannot open the control-plane audit file {}: {error}; \
                 next: make it a regular file that the daemon's user owns",
                path.display()
            ),
            Self::Thread(error) => {
                write!(f, "cannot start the audit thread: {error}; next: raise the user's limit on processes")
            }
            Self::Stuck { path } => write!(
                f,
                "the audit writer of {} hangs and was left behind; next: check the disk under the state root",
                path.display()
            ),
            Self::Panicked(panic) => panic.fmt(f),
        }
    }
}

impl std::error::Error for AuditError {}

impl ControlPlaneAudit {
    /// Opens `<dir>/audit.jsonl`, creating the directory (0700) and the file (0600), and starts the writer.
    /// An incomplete last line, left by a crash, is cut off. With a `journal`, acts that it records and that have no line
    /// here get one, in the background.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(dir: &Path, limits: AuditLimits, journal: Option<Reader>) -> Result<Self, AuditError> {
        let path = dir.join(file::NAME);
        let file = AuditFile::open(dir, limits).map_err(|error| AuditError::Open { path: path.clone(), error })?;
        let counters = Arc::new(Counters::default());
        let (refusals, refusal_inbox) = bounded(AUDIT_QUEUE_MAX);
        let (acts, act_inbox) = bounded(AUDIT_QUEUE_MAX);
        let (halts, halt_inbox) = bounded(1);
        let (stop, stopped) = bounded(1);
        let (alive, ended) = bounded::<()>(1);
        let inboxes = Inboxes { refusals: refusal_inbox, acts: act_inbox, halts: halt_inbox, stopped };
        let writer = Writer::new(file, inboxes, Arc::clone(&counters), journal);
        let worker = Worker::spawn("audit", move || {
            let _alive = alive;
            writer.run();
        });
        let running = Running { worker: worker.map_err(AuditError::Thread)?, stop, ended };
        let running = Mutex::new(Some(running));
        let inner = Inner { path, refusals, acts, halts, picker: Picker::default(), counters, running };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Hands a line to the writer. Never blocks: when its book's queue is full the line is lost and counted.
    pub fn record(&self, line: AuditLine) {
        let counters = &self.inner.counters;
        let taken = match line.book() {
            Book::Refusals => self.inner.refusals.try_send(Box::new(line)).is_ok(),
            Book::Acts => self.inner.acts.try_send(Entry::of(line)).is_ok(),
        };
        let counter = if taken { &counters.accepted } else { &counters.dropped };
        counter.fetch_add(1, Relaxed);
    }

    /// Writes a line of an act and waits until it is on disk.
    ///
    /// # Errors
    /// It is not known to be there within `limit`.
    pub fn record_durably(&self, line: AuditLine, limit: Duration) -> Result<(), NotRecorded> {
        let (written, outcome) = bounded(1);
        let entry = Entry { line: Box::new(line), written: Some(written) };
        self.inner.acts.try_send(entry).map_err(|_| NotRecorded)?;
        self.inner.counters.accepted.fetch_add(1, Relaxed);
        outcome.recv_timeout(limit).map_err(|_| NotRecorded)
    }

    /// Has everything that was accepted written and the files left alone for at most `limit`, so that they can be copied
    /// together. Lines that come meanwhile wait.
    ///
    /// # Errors
    /// It is not known to be written within `wait`; nothing is paused then.
    pub fn pause(&self, limit: Duration, wait: Duration) -> Result<Pause, NotRecorded> {
        let (pause, standstill) = pause::pause(limit);
        let (halted, outcome) = bounded(1);
        self.inner.halts.try_send(Halt { standstill, halted }).map_err(|_| NotRecorded)?;
        outcome.recv_timeout(wait).map_err(|_| NotRecorded)?;
        Ok(pause)
    }

    /// Hears of a committed record of a caller. Never blocks: what the queue does not take is read from the journal later.
    pub fn acted(&self, event: &Event) {
        let Some(line) = self.inner.picker.of_event(event) else { return };
        if self.inner.acts.try_send(Entry::of(line)).is_err() {
            self.inner.counters.acts_missed.store(true, Relaxed);
        } else {
            self.inner.counters.accepted.fetch_add(1, Relaxed);
        }
    }

    /// Figures for `/v1/status`.
    pub fn stats(&self) -> AuditStats {
        let counters = &self.inner.counters;
        let written = counters.written.load(Relaxed);
        AuditStats {
            path: self.inner.path.display().to_string(),
            written_count: written,
            dropped_count: counters.dropped.load(Relaxed),
            failed_attempt_count: counters.failed_attempts.load(Relaxed),
            queue_depth: counters.accepted.load(Relaxed).saturating_sub(written),
            acts_complete_through: counters.derived_through.load(Relaxed),
            error: counters.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Counts the announcement of a flood; `event` is the code of its line.
    pub fn count_limited(&self, event: AuditEvent, at_ms: u64) {
        let counters = &self.inner.counters;
        let recent = match event {
            AuditEvent::AuthRateLimited => &counters.auth_limited,
            AuditEvent::CorsOriginRateLimited => &counters.origins_limited,
            _ => return,
        };
        recent.lock().unwrap_or_else(PoisonError::into_inner).note(1, at_ms);
    }

    /// Floods that were announced since start.
    pub fn rate_limits(&self, now_ms: u64) -> RateLimits {
        let view = |recent: &Mutex<Recent>| recent.lock().unwrap_or_else(PoisonError::into_inner).view(now_ms);
        let counters = &self.inner.counters;
        RateLimits {
            auth_rate_limited: view(&counters.auth_limited),
            cors_origin_rate_limited: view(&counters.origins_limited),
        }
    }

    /// Whether the writer thread still runs.
    pub fn is_alive(&self) -> bool {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().is_some_and(|running| !running.worker.is_finished())
    }

    /// Writes and syncs what waits, then ends the writer. Lines recorded afterwards are lost and counted.
    ///
    /// # Errors
    /// The writer hangs in the disk for longer than [`AUDIT_STOP_WAIT_MS`], or has panicked.
    pub fn stop(&self) -> Result<(), AuditError> {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { worker, stop, ended }) = running else { return Ok(()) };
        drop(stop);
        match ended.recv_timeout(Duration::from_millis(AUDIT_STOP_WAIT_MS)) {
            Err(RecvTimeoutError::Timeout) => Err(AuditError::Stuck { path: self.inner.path.clone() }),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => worker.join().map_err(AuditError::Panicked),
        }
    }
}

/// A line that is not known to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRecorded;

#[cfg(test)]
mod tests;
