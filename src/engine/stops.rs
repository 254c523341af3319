//! Runs in the hands of engines, and how to stop them.
//! Owns: one cancel handle for each run in hand; at most one for each engine worker.
//! Never: decides that a run stops; the core has decided and committed it before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ids::RunId;
use crate::net::Cancel;

/// Cancel handles of the runs in hand. Cheap to clone.
#[derive(Clone, Default)]
pub struct Stops(Arc<Shared>);

#[derive(Default)]
struct Shared {
    in_hand: Mutex<HashMap<RunId, (u64, Cancel)>>,
    /// Rings when a run is out of hand.
    let_go: Condvar,
    draining: AtomicBool,
}

/// Tells one taking in hand from the next of the same run.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Takes the run out of hand when dropped.
pub(super) struct InHand {
    stops: Stops,
    run: RunId,
    taken: u64,
    pub(super) cancel: Cancel,
}

impl Stops {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, (u64, Cancel)>> {
        self.0.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a run before anything is recorded for it, so that a stop committed later finds it.
    pub(super) fn take_in_hand(&self, run: RunId) -> InHand {
        let cancel = Cancel::new();
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(run, (taken, cancel.clone()));
        InHand { stops: self.clone(), run, taken, cancel }
    }

    /// Stops the run if an engine has it in hand.
    pub fn stop(&self, run: RunId) {
        let cancel = self.lock().get(&run).cloned();
        if let Some((_, cancel)) = cancel {
            cancel.cancel();
        }
    }

    /// Stops every run in hand, for a drain that has run out of time. The runs stay active in the journal
    /// and the next start resumes them.
    pub fn stop_all(&self) {
        let all: Vec<Cancel> = self.lock().values().map(|(_, cancel)| cancel.clone()).collect();
        all.iter().for_each(Cancel::cancel);
    }

    /// Has engines let their runs go at the next step, and take no others; waits until they have, at most `limit`. Returns
    /// whether none is left.
    pub fn drain(&self, limit: Duration) -> bool {
        self.0.draining.store(true, Ordering::SeqCst);
        let waited = self.0.let_go.wait_timeout_while(self.lock(), limit, |in_hand| !in_hand.is_empty());
        waited.map_or_else(|poisoned| poisoned.into_inner().0.is_empty(), |(in_hand, _)| in_hand.is_empty())
    }

    pub(super) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Runs in hand.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no run is in hand.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        // A run that waited may be in other hands by now.
        let mut all = self.stops.lock();
        if all.get(&self.run).is_some_and(|(taken, _)| *taken == self.taken) {
            all.remove(&self.run);
            self.stops.0.let_go.notify_all();
        }
    }
}
