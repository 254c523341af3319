//! Who names which slot in the configuration in force.
//! Owns: the table of those who can tell; each room with references adds itself at start.
//! Never: keeps what it was told; an answer is as old as the question.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::slot::SlotId;

/// One place that names a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretReference {
    /// The slot's id as it stands there; the slot may be missing.
    pub slot: String,
    /// The place in an operator's words: `route main`, `connector ops-webhook`, `hook guard`.
    pub by: String,
    /// Its place does without the slot when an account is logged out, and says so.
    pub yields: bool,
}

impl SecretReference {
    /// `by` names `slot`.
    pub fn new(slot: impl Into<String>, by: impl Into<String>) -> Self {
        Self { slot: slot.into(), by: by.into(), yields: false }
    }

    /// The same of a place from which a logout may take the slot away.
    pub fn yielding(slot: impl Into<String>, by: impl Into<String>) -> Self {
        Self { yields: true, ..Self::new(slot, by) }
    }
}

type Tell = Arc<dyn Fn() -> Vec<SecretReference> + Send + Sync>;
type LookUp = Arc<dyn Fn(&SlotId) -> Vec<String> + Send + Sync>;

/// One room's way to tell.
#[derive(Clone)]
enum Source {
    Tell(Tell),
    LookUp(LookUp),
}

/// Everybody who can tell of references. Clones share one table.
#[derive(Clone, Default)]
pub struct SecretReferences(Arc<Mutex<Vec<Source>>>);

impl SecretReferences {
    /// Adds a room. `tell` gives all references of the configuration in force; it is called on the broker's thread and on
    /// request handlers', and must neither wait nor ask the broker.
    pub fn add(&self, tell: impl Fn() -> Vec<SecretReference> + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Source::Tell(Arc::new(tell)));
    }

    /// As [`SecretReferences::add`], for a room that is asked about one slot at a time. [`SecretReferences::all`] does not
    /// have its references.
    pub fn add_lookup(&self, look_up: impl Fn(&SlotId) -> Vec<String> + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Source::LookUp(Arc::new(look_up)));
    }

    /// All references of rooms that tell them, in the order of the rooms.
    pub fn all(&self) -> Vec<SecretReference> {
        let told = |source: &Source| match source {
            Source::Tell(tell) => tell(),
            Source::LookUp(_) => Vec::new(),
        };
        self.sources().iter().flat_map(told).collect()
    }

    /// Who names this slot; with `is_logout` those only that do not yield to one.
    pub fn of(&self, slot: &SlotId, is_logout: bool) -> Vec<String> {
        let counts = |told: &SecretReference| told.slot == slot.as_str() && !(is_logout && told.yields);
        let naming = |source: &Source| match source {
            Source::Tell(tell) => tell().into_iter().filter(counts).map(|told| told.by).collect(),
            Source::LookUp(look_up) => look_up(slot),
        };
        self.sources().iter().flat_map(naming).collect()
    }

    /// Asked without the lock: a room may add another one.
    fn sources(&self) -> Vec<Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for SecretReferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
