//! Who was let in, refused or limited: `control-plane-auth/audit.jsonl`.
//! Owns: the writer thread, its queue, and what an operator sees of both.
//! May touch: the directory it was given.
//! Never: holds a token or a query string; makes a request wait.

mod file;
mod line;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use serde::Serialize;

pub use line::{AuditEvent, AuditLine};

use crate::limits::{
    AUDIT_BATCH_LINES_MAX, AUDIT_FILE_BYTES_MAX, AUDIT_QUEUE_MAX, AUDIT_RETRY_MS, AUDIT_ROTATED_FILES_MAX,
    AUDIT_STOP_WAIT_MS, AUDIT_SYNC_INTERVAL_MS,
};
use crate::worker::{Worker, WorkerPanicked};
use file::AuditFile;

/// Sizes of the audit file; smaller in tests.
#[derive(Debug, Clone, Copy)]
pub struct AuditLimits {
    /// Size at which the file is rotated.
    pub file_bytes_max: u64,
    /// Rotated files kept.
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
    lines: Sender<Box<AuditLine>>,
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
    last_error: Mutex<Option<String>>,
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
    /// Why lines cannot be written now; absent while they can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
    /// An incomplete last line, left by a crash, is cut off.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(dir: &Path, limits: AuditLimits) -> Result<Self, AuditError> {
        let path = dir.join(file::NAME);
        let file = AuditFile::open(dir, limits).map_err(|error| AuditError::Open { path: path.clone(), error })?;
        let counters = Arc::new(Counters::default());
        let (lines, inbox) = bounded(AUDIT_QUEUE_MAX);
        let (stop, stopped) = bounded(1);
        let (alive, ended) = bounded::<()>(1);
        let writer = Writer {
            file,
            inbox,
            stopped,
            counters: Arc::clone(&counters),
            pending: Vec::new(),
            dropped_before: 0,
            synced_at: None,
        };
        let worker = Worker::spawn("audit", move || {
            let _alive = alive;
            writer.run();
        });
        let running = Running { worker: worker.map_err(AuditError::Thread)?, stop, ended };
        Ok(Self { inner: Arc::new(Inner { path, lines, counters, running: Mutex::new(Some(running)) }) })
    }

    /// Hands a line to the writer. Never blocks: when the queue is full the line is lost and counted.
    pub fn record(&self, line: AuditLine) {
        let counters = &self.inner.counters;
        let taken = self.inner.lines.try_send(Box::new(line)).is_ok();
        let counter = if taken { &counters.accepted } else { &counters.dropped };
        counter.fetch_add(1, Relaxed);
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
            error: counters.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
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

struct Writer {
    file: AuditFile,
    inbox: Receiver<Box<AuditLine>>,
    stopped: Receiver<()>,
    counters: Arc<Counters>,
    /// Lines taken from the queue and not written yet; while there are any, none are taken, so that a full
    /// disk costs nothing but waiting until the queue overflows.
    pending: Vec<AuditLine>,
    /// Lost lines that the numbers in the file already account for.
    dropped_before: u64,
    /// When the file was last known to be on disk; `None` while it is.
    synced_at: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        loop {
            if self.pending.is_empty() {
                select! {
                    recv(self.inbox) -> line => match line {
                        Ok(line) => self.pending.push(*line),
                        Err(_) => break,
                    },
                    recv(self.stopped) -> _ => break,
                    default(Duration::from_millis(AUDIT_SYNC_INTERVAL_MS)) => {}
                }
                let room = AUDIT_BATCH_LINES_MAX - self.pending.len();
                self.pending.extend(self.inbox.try_iter().take(room).map(|line| *line));
            } else {
                select! {
                    recv(self.stopped) -> _ => break,
                    default(Duration::from_millis(AUDIT_RETRY_MS)) => {}
                }
            }
            self.write_pending();
            self.sync(Duration::from_millis(AUDIT_SYNC_INTERVAL_MS));
        }
        self.finish();
    }

    /// One last attempt for everything that was accepted.
    fn finish(&mut self) {
        loop {
            let room = AUDIT_BATCH_LINES_MAX - self.pending.len();
            self.pending.extend(self.inbox.try_iter().take(room).map(|line| *line));
            if self.pending.is_empty() || !self.write_pending() {
                break;
            }
        }
        self.sync(Duration::ZERO);
    }

    /// Whether nothing is left to write.
    fn write_pending(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        let dropped = self.counters.dropped.load(Relaxed);
        match self.file.append(&self.pending, dropped - self.dropped_before) {
            Ok(()) => {
                self.dropped_before = dropped;
                self.counters.written.fetch_add(self.pending.len() as u64, Relaxed);
                self.pending.clear();
                self.synced_at.get_or_insert_with(Instant::now);
                if self.counters.set_error(None).is_some() {
                    log::info!("the control-plane audit file can be written again");
                }
                true
            }
            Err(error) => {
                self.failed("write", &error);
                false
            }
        }
    }

    fn sync(&mut self, age_max: Duration) {
        if self.synced_at.is_some_and(|since| since.elapsed() >= age_max) {
            match self.file.sync() {
                Ok(()) => self.synced_at = None,
                Err(error) => {
                    self.synced_at = Some(Instant::now());
                    self.failed("sync", &error);
                }
            }
        }
    }

    fn failed(&self, what: &str, error: &io::Error) {
        self.counters.failed_attempts.fetch_add(1, Relaxed);
        let text = format!("cannot {what}: {error}");
        if self.counters.set_error(Some(text.clone())).is_none() {
            log::error!("control-plane audit file: {text}; next: check the space and the rights of the state root");
        }
    }
}

#[cfg(test)]
mod tests;
