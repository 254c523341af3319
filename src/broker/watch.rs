//! In-flight calls under leases: who is to be stopped when a lease ends.
//! Owns: one cancel handle for each watched call.
//! May touch: those handles.
//! Never: decides that a lease ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::net::Cancel;

#[derive(Default)]
struct Inner {
    by_lease: HashMap<String, Vec<(u64, Cancel)>>,
    next_key: u64,
}

/// The watched calls. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<Inner>>);

impl Watches {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every statement leaves it complete, so a panic elsewhere has not spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self, lease: &str, cancel: Cancel) -> Watch {
        let mut inner = self.lock();
        let key = inner.next_key;
        inner.next_key += 1;
        inner.by_lease.entry(lease.to_string()).or_default().push((key, cancel));
        Watch { watches: self.clone(), lease: lease.to_string(), key }
    }

    /// Stops the calls under these leases.
    pub(super) fn end(&self, leases: &[String]) {
        let stopped: Vec<_> = {
            let mut inner = self.lock();
            leases.iter().filter_map(|lease| inner.by_lease.remove(lease)).flatten().collect()
        };
        stopped.iter().for_each(|(_, cancel)| cancel.cancel());
    }
}

/// Keeps a call watched for as long as it lives.
#[must_use = "the call is watched for as long as this lives"]
pub struct Watch {
    watches: Watches,
    lease: String,
    key: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut inner = self.watches.lock();
        if let Some(calls) = inner.by_lease.get_mut(&self.lease) {
            calls.retain(|(key, _)| *key != self.key);
            if calls.is_empty() {
                inner.by_lease.remove(&self.lease);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_lease_stops_its_calls_and_no_other_and_nothing_is_left_behind() {
        let watches = Watches::default();
        let cancels: Vec<Cancel> = (0..4).map(|_| Cancel::new()).collect();
        let _kept: Vec<Watch> =
            [("a", 0), ("a", 1), ("b", 2)].map(|(lease, call)| watches.watch(lease, cancels[call].clone())).into();
        drop(watches.watch("a", cancels[3].clone()));
        watches.end(&["a".to_string(), "c".to_string()]);
        assert_eq!(cancels.iter().map(Cancel::is_cancelled).collect::<Vec<_>>(), [true, true, false, false]);
        drop(_kept);
        assert!(watches.lock().by_lease.is_empty());
    }
}
