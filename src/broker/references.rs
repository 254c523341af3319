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
}

impl SecretReference {
    /// `by` names `slot`.
    pub fn new(slot: impl Into<String>, by: impl Into<String>) -> Self {
        Self { slot: slot.into(), by: by.into() }
    }
}

type Source = Arc<dyn Fn() -> Vec<SecretReference> + Send + Sync>;

/// Everybody who can tell of references. Clones share one table.
#[derive(Clone, Default)]
pub struct SecretReferences(Arc<Mutex<Vec<Source>>>);

impl SecretReferences {
    /// Adds a room. `tell` gives all references of the configuration in force; it is called on the broker's thread and on
    /// request handlers', and must neither wait nor ask the broker.
    pub fn add(&self, tell: impl Fn() -> Vec<SecretReference> + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(tell));
    }

    /// All references, in the order of the rooms.
    pub fn all(&self) -> Vec<SecretReference> {
        // Told without the lock: a room may add another one.
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sources.iter().flat_map(|tell| tell()).collect()
    }

    /// Who names this slot.
    pub fn of(&self, slot: &SlotId) -> Vec<String> {
        self.all()
            .into_iter()
            .filter(|reference| reference.slot == slot.as_str())
            .map(|reference| reference.by)
            .collect()
    }
}

impl fmt::Debug for SecretReferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
