//! Debug capture: what a run exchanged with providers and tools, kept for a while for whoever has to find a fault.
//! Owns: `<state root>/debug/`, the levels' meaning, bounds, ages, encryption, and the thread that writes.
//! May touch: the debug directory; the redactor, the level in force and the state of runs through what it is given.
//! Never: holds a run up or fails it; keeps anything while the level is off; writes a text that was not redacted.
//!
//! An engine hands over bytes with [`DebugCapture::capture`], which reads the level each time and costs one atomic read
//! while it is off. The thread reads the level once more before it writes, so that what still waits when the level is
//! turned down is written as the lower level says, or not at all.

mod artifact;
mod config;
mod key;
mod patterns;
mod shape;
mod store;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use serde::Serialize;

pub use artifact::ArtifactView;
pub use config::{CaptureConfig, CaptureConfigError, CaptureLimits};
pub use key::CaptureKey;
pub use store::{Bundle, Pruned, Store, StoreError};

use crate::clock::Clock;
use crate::core::DebugLevel;
use crate::ids::RunId;
use crate::limits::{DEBUG_MAILBOX_BYTES_MAX, DEBUG_MAILBOX_MAX, DEBUG_SETTLE_MS_MAX};
use crate::worker::Worker;

/// What a piece of an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The body that goes to a provider: prompt, tools, history.
    ProviderRequest,
    /// What the provider's answer comes to: text, calls, usage. Not its bytes, in which a secret could be torn apart.
    ProviderResponse,
    /// A call of a tool with its arguments.
    ToolRequest,
    /// What the tool returned.
    ToolResponse,
}

impl Kind {
    /// Wire name, and a part of artifact ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProviderRequest => "provider_request",
            Self::ProviderResponse => "provider_response",
            Self::ToolRequest => "tool_request",
            Self::ToolResponse => "tool_response",
        }
    }
}

/// Whether a run's artifacts may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The run has ended, or nobody knows it.
    Ended,
    /// It has not.
    Active,
    /// Somebody holds its evidence.
    Held,
    /// Nobody can tell now.
    Unknown,
}

/// What the room asks of others. None of these may block for long.
pub struct Surroundings {
    /// The level in force now.
    pub level: Box<dyn Fn() -> DebugLevel + Send + Sync>,
    /// A text without the secrets that the broker knows.
    pub redact: Box<dyn Fn(&str) -> String + Send + Sync>,
    /// Whether a run's artifacts may be removed.
    pub standing: Box<dyn Fn(RunId) -> Standing + Send + Sync>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

/// What waits for the thread.
enum Job {
    Write {
        run: RunId,
        kind: Kind,
        level: DebugLevel,
        at_ms: u64,
        bytes: Vec<u8>,
    },
    /// Everything before it is written.
    Settle(Sender<()>),
    Stop,
}

/// Figures since start.
#[derive(Debug, Default)]
struct Counters {
    waiting_bytes: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

struct Shared {
    store: Store,
    surroundings: Surroundings,
    counters: Counters,
}

/// Access to debug capture. Cheap to clone.
#[derive(Clone)]
pub struct DebugCapture {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

/// Figures for status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaptureStats {
    /// Age at which artifacts of ended runs are removed, in milliseconds; 0 is never.
    pub ttl_ms: u64,
    /// Time between two looks for old artifacts.
    pub gc_interval_ms: u64,
    /// Bytes of one artifact.
    pub max_artifact_bytes: u64,
    /// Bytes of all artifacts of one run.
    pub max_run_bytes: u64,
    /// Artifacts of one run.
    pub max_artifacts_per_run: u64,
    /// Bytes of all artifacts.
    pub max_store_bytes: u64,
    /// Whether bodies are encrypted.
    pub encryption_enabled: bool,
    /// Which key encrypts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_key_id: Option<String>,
    /// Artifacts written since start.
    pub artifacts_written: u64,
    /// Captures that found the mailbox full since start.
    pub artifacts_dropped: u64,
    /// Captures that could not be written since start.
    pub debug_artifact_persist_failures: u64,
}

impl fmt::Debug for DebugCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebugCapture").field("stats", &self.stats()).finish()
    }
}

impl DebugCapture {
    /// The handle and the thread behind it.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(store: Store, surroundings: Surroundings) -> std::io::Result<(Self, Worker)> {
        let (jobs, inbox) = bounded(DEBUG_MAILBOX_MAX);
        let shared = Arc::new(Shared { store, surroundings, counters: Counters::default() });
        let writer = shared.clone();
        let worker = Worker::spawn("debug-capture", move || writer::run(&writer, &inbox))?;
        Ok((Self { shared, jobs }, worker))
    }

    /// Whether anything would be kept now.
    pub fn is_on(&self) -> bool {
        (self.shared.surroundings.level)() != DebugLevel::Off
    }

    /// Keeps what `bytes` gives, as the level in force says; while it is off, `bytes` is not called. Never blocks: what
    /// the thread cannot keep up with is dropped and counted.
    pub fn capture(&self, run: RunId, kind: Kind, bytes: impl FnOnce() -> Vec<u8>) {
        let level = (self.shared.surroundings.level)();
        if level == DebugLevel::Off {
            return;
        }
        let bytes = bytes();
        let (counters, weight) = (&self.shared.counters, bytes.len());
        let waiting = counters.waiting_bytes.fetch_add(weight, Ordering::AcqRel);
        let at_ms = self.shared.surroundings.clock.now_ms();
        let job = Job::Write { run, kind, level, at_ms, bytes };
        if waiting + weight > DEBUG_MAILBOX_BYTES_MAX || self.jobs.try_send(job).is_err() {
            counters.waiting_bytes.fetch_sub(weight, Ordering::AcqRel);
            counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was captured before is written, for at most [`DEBUG_SETTLE_MS_MAX`].
    pub fn settle(&self) {
        let (done, is_done) = bounded(1);
        if self.jobs.send_timeout(Job::Settle(done), Duration::from_millis(DEBUG_SETTLE_MS_MAX)).is_ok() {
            // A thread that is late shows what it has; the reader asks again.
            let _late = is_done.recv_timeout(Duration::from_millis(DEBUG_SETTLE_MS_MAX));
        }
    }

    /// The artifacts on disk.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Whether a run's artifacts may be removed.
    pub fn standing(&self, run: RunId) -> Standing {
        (self.shared.surroundings.standing)(run)
    }

    /// What waits for the thread.
    pub fn queue_depth(&self) -> usize {
        self.jobs.len()
    }

    /// Figures for status.
    pub fn stats(&self) -> CaptureStats {
        let (limits, key) = (self.shared.store.limits(), self.shared.store.key());
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CaptureStats {
            ttl_ms: limits.ttl_ms,
            gc_interval_ms: limits.gc_interval_ms,
            max_artifact_bytes: limits.artifact_bytes_max,
            max_run_bytes: limits.run_bytes_max,
            max_artifacts_per_run: limits.run_artifacts_max,
            max_store_bytes: limits.store_bytes_max,
            encryption_enabled: key.is_some(),
            encryption_key_id: key.map(|key| key.id().to_string()),
            artifacts_written: count(&self.shared.counters.written),
            artifacts_dropped: count(&self.shared.counters.dropped),
            debug_artifact_persist_failures: count(&self.shared.counters.failed),
        }
    }

    /// Ends the thread after what waits.
    pub fn stop(&self) {
        // A thread that has ended is what is asked for.
        drop(self.jobs.send(Job::Stop));
    }
}
