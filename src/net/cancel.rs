//! Stopping a request, or anything else that blocks, from another thread.
//! Owns: the flag, the things in flight under it, and the wake-up of whoever waits.
//! Never: starts anything; a cancelled handle stays cancelled.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

/// A handle that ends every request made with it. Clones share one state.
#[derive(Clone)]
pub struct Cancel(Arc<Shared>);

struct Shared {
    cancelled: AtomicBool,
    /// Nothing is ever sent; it disconnects when the handle is cancelled.
    woken: Receiver<Infallible>,
    inner: Mutex<Inner>,
}

/// Ends one thing in flight; called at most once.
type Stop = Box<dyn FnOnce() + Send>;

struct Inner {
    wake: Option<Sender<Infallible>>,
    /// How to end what is in flight: one entry a thread that uses the handle.
    stops: Vec<(u64, Stop)>,
    next_key: u64,
    /// Handles that are cancelled along with this one.
    children: Vec<Weak<Shared>>,
}

impl Cancel {
    /// A handle that nobody has cancelled.
    pub fn new() -> Self {
        let (wake, woken) = bounded(0);
        let inner = Inner { wake: Some(wake), stops: Vec::new(), next_key: 0, children: Vec::new() };
        Self(Arc::new(Shared { cancelled: AtomicBool::new(false), woken, inner: Mutex::new(inner) }))
    }

    /// A handle that is cancelled along with this one, and can be cancelled alone: for one call of many.
    pub fn child(&self) -> Self {
        let child = Self::new();
        let mut inner = self.lock();
        if self.is_cancelled() {
            drop(inner);
            child.cancel();
        } else {
            inner.children.retain(|other| other.strong_count() > 0);
            inner.children.push(Arc::downgrade(&child.0));
        }
        child
    }

    /// Ends every request in flight at once, from any thread, and refuses later ones. A name look-up is
    /// abandoned; a TCP connect in progress ends at its own limit and then reports the cancellation.
    pub fn cancel(&self) {
        let (stops, children) = {
            let mut inner = self.lock();
            self.0.cancelled.store(true, Ordering::SeqCst);
            inner.wake = None;
            (std::mem::take(&mut inner.stops), std::mem::take(&mut inner.children))
        };
        for (_, stop) in stops {
            stop();
        }
        for child in children.iter().filter_map(Weak::upgrade) {
            Self(child).cancel();
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Waits up to `limit`, or until cancelled; tells whether it was. This is how a retry waits.
    pub fn wait(&self, limit: Duration) -> bool {
        // Nothing is ever sent, so the outcome is in the flag.
        let _disconnected_or_timed_out = self.0.woken.recv_timeout(limit);
        self.is_cancelled()
    }

    /// A receiver that becomes ready (disconnected) when the handle is cancelled, for `select!`.
    pub fn woken(&self) -> &Receiver<Infallible> {
        &self.0.woken
    }

    /// Puts `agent` under this handle for as long as the guard lives; `None` when already cancelled.
    pub(super) fn attach(&self, agent: ureq::Agent) -> Option<Attached> {
        self.on_cancel(move || agent.shutdown())
    }

    /// Has `stop` called by whoever cancels, for as long as the guard lives; `None` when already cancelled. `stop` must
    /// not block: shutting down a socket is what it is for.
    pub fn on_cancel(&self, stop: impl FnOnce() + Send + 'static) -> Option<Attached> {
        let mut inner = self.lock();
        if self.is_cancelled() {
            return None;
        }
        let key = inner.next_key;
        inner.next_key += 1;
        inner.stops.push((key, Box::new(stop)));
        Some(Attached { cancel: self.clone(), key })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is valid after every statement, so a panic elsewhere does not spoil it.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

/// Something in flight under a [`Cancel`]; its stop is forgotten with this guard.
pub struct Attached {
    cancel: Cancel,
    key: u64,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let key = self.key;
        self.cancel.lock().stops.retain(|(other, _)| *other != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_its_parent_and_never_the_other_way_round() {
        let parent = Cancel::new();
        let (one, other) = (parent.child(), parent.child());
        one.cancel();
        assert_eq!((parent.is_cancelled(), one.is_cancelled(), other.is_cancelled()), (false, true, false));
        parent.cancel();
        assert!(other.is_cancelled() && other.wait(Duration::from_secs(60)));
        assert!(parent.child().is_cancelled(), "a child of what has ended begins ended");
    }

    #[test]
    fn children_that_are_gone_take_no_room() {
        let parent = Cancel::new();
        (0..100).for_each(|_| drop(parent.child()));
        assert_eq!(parent.lock().children.len(), 1);
    }
}
