//! What everybody may read without asking the core.
//! Owns: the newest immutable view and the age of the batch in the making.
//! Never: makes a reader wait for a sync; the lock is held for a pointer copy.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::handle::CommandError;
use crate::core::{Connectors, Counts, HookLedger, RetentionHold, RuntimeConfig, SessionSettings};
use crate::ids::{RunId, Seq, SessionId};
use crate::journal::{Chain, SealedHead};

/// Figures as of the last committed batch.
#[derive(Debug, Clone, Default)]
pub struct CoreView {
    /// Figures of the state.
    pub counts: Counts,
    /// The runtime configuration in force.
    pub runtime: Arc<RuntimeConfig>,
    /// How far notifications of hooks have come, and their dead letters.
    pub hooks: Arc<HookLedger>,
    /// Last committed record.
    pub committed: Seq,
    /// Its chain value.
    pub chain: Chain,
    /// Batches committed since start.
    pub batches: u64,
    /// Records committed since start, without the journal's own.
    pub records: u64,
    /// Why the journal accepts nothing more, if it does not.
    pub poisoned: Option<String>,
    /// Why the last batch or upkeep was refused by the disk, if it was: [`CommandError::StorageFull`] or
    /// [`CommandError::WriteFailed`]. Heals by itself.
    pub refusing: Option<CommandError>,
    /// Runs that have not ended by the minute of their last record, at most a second old.
    pub idle_minutes: Arc<[(u64, u64)]>,
    /// The newest seal of this life, once there is one.
    pub sealed: Option<SealedHead>,
    /// Records behind it.
    pub unsealed_records: u64,
    /// Whether the reserve for a full disk is there.
    pub reserve_is_intact: bool,
    /// Duration of the last sync in microseconds.
    pub last_commit_us: u64,
    /// Longest sync since start in microseconds.
    pub slowest_commit_us: u64,
    /// Unix time of the last pass of the core's loop.
    pub last_progress_ms: u64,
}

/// The swap place between the core thread and readers.
#[derive(Debug)]
pub struct Published {
    view: Mutex<Arc<CoreView>>,
    /// Of the sessions that have any.
    settings: Mutex<HashMap<SessionId, Arc<SessionSettings>>>,
    /// Runs whose evidence is held.
    holds: Mutex<HashMap<RunId, RetentionHold>>,
    /// Active runs that waited in nobody's hands and need an engine again.
    again: Mutex<Vec<RunId>>,
    connectors: Mutex<Arc<Connectors>>,
    /// Sessions by the digest of a binding key.
    bindings: Mutex<HashMap<[u8; 16], SessionId>>,
    start: Instant,
    /// Milliseconds after `start` at which the core began its present pass, plus one; 0 while it waits for work.
    batch_began: AtomicU64,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            view: Mutex::default(),
            settings: Mutex::default(),
            holds: Mutex::default(),
            again: Mutex::default(),
            connectors: Mutex::default(),
            bindings: Mutex::default(),
            start: Instant::now(),
            batch_began: AtomicU64::new(0),
        }
    }
}

impl Published {
    /// The newest view.
    pub fn view(&self) -> Arc<CoreView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Swaps in a new view.
    pub fn publish(&self, view: CoreView) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// What a session has of its own, if anything.
    pub fn settings(&self, session: &SessionId) -> Option<Arc<SessionSettings>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).get(session).cloned()
    }

    /// What sessions have of their own, in no order.
    pub fn all_settings(&self) -> Vec<(SessionId, Arc<SessionSettings>)> {
        let all = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(session, settings)| (session.clone(), Arc::clone(settings))).collect()
    }

    /// Replaces what a session has of its own.
    pub fn publish_settings(&self, session: &SessionId, settings: Option<&SessionSettings>) {
        let mut all = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        match settings {
            Some(settings) => drop(all.insert(session.clone(), Arc::new(settings.clone()))),
            None => drop(all.remove(session)),
        }
    }

    /// The hold on a run's evidence, if there is one.
    pub fn hold(&self, run: RunId) -> Option<RetentionHold> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }

    /// Replaces the hold on a run's evidence.
    pub fn publish_hold(&self, run: RunId, hold: Option<RetentionHold>) {
        let mut all = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        match hold {
            Some(hold) => drop(all.insert(run, hold)),
            None => drop(all.remove(&run)),
        }
    }

    /// Leaves word for the core's next pass that a run needs an engine again.
    pub fn put_again(&self, run: RunId) {
        self.again.lock().unwrap_or_else(PoisonError::into_inner).push(run);
    }

    /// What was left there.
    pub fn take_again(&self) -> Vec<RunId> {
        std::mem::take(&mut self.again.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connectors that were configured at runtime.
    pub fn connectors(&self) -> Arc<Connectors> {
        self.connectors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces them.
    pub fn publish_connectors(&self, connectors: Arc<Connectors>) {
        *self.connectors.lock().unwrap_or_else(PoisonError::into_inner) = connectors;
    }

    /// The session that the first of these keys to name one names.
    pub fn bound(&self, keys: &[[u8; 16]]) -> Option<SessionId> {
        let all = self.bindings.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find_map(|key| all.get(key)).cloned()
    }

    /// Adds keys that name a session.
    pub fn publish_bindings(&self, keys: impl Iterator<Item = ([u8; 16], SessionId)>) {
        self.bindings.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }

    /// Marks the begin of a pass: a batch, its replies and the journal's upkeep.
    pub fn begin_batch(&self) {
        self.batch_began.store(self.elapsed_ms() + 1, Ordering::Release);
    }

    /// Marks its end.
    pub fn end_batch(&self) {
        self.batch_began.store(0, Ordering::Release);
    }

    /// Age of the present pass in milliseconds.
    pub fn batch_age_ms(&self) -> Option<u64> {
        match self.batch_began.load(Ordering::Acquire) {
            0 => None,
            began => Some((self.elapsed_ms() + 1).saturating_sub(began)),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}
