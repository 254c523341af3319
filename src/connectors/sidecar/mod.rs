//! Sidecars: the processes behind external connectors of mode `child_process`.
//! Owns: the supervisor thread, the thread that looks at sidecars, and what is known of each.
//! May touch: child processes of this same binary; the broker, for leases; this host's network, to look at sidecars.
//! Never: starts a sidecar before the one before it has ended with all that it started.

mod grants;
mod probe;
mod running;
mod supervisor;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::bounded;
use serde::Serialize;
use serde_json::Value;

pub use grants::Surroundings;

use super::registry::Registry;
use crate::broker::SlotId;
use crate::clock::Clock;
use crate::limits::{CONNECTORS_MAX, SIDECAR_MAILBOX_MAX};
use crate::net::{Cancel, Net};
use crate::sys::EventFd;
use crate::worker::Worker;
use supervisor::Supervisor;

/// What is known of one sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `waiting`, `starting`, `ready`, `degraded`, `stopping`, `held`, or `blocked` while a slot that it needs is revoked.
    pub state: &'static str,
    /// What the sidecar says of its health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Counts the processes of this connector.
    pub generation: u64,
    /// As its sandbox numbers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// As it names itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Its lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// Starts that nobody had asked for.
    pub restarts: u64,
    /// Starts since the last one that lasted.
    pub failed_starts: u32,
    /// Until the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_start_in_ms: Option<u64>,
    /// Why the last one ended, or could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// A slot was set or revoked since it fetched it.
    pub credentials_stale: bool,
    /// The end of what it has written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What an operator took away: whoever runs on it is to end.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    Slot(SlotId),
    Lease(String),
}

struct Shared {
    board: Mutex<BTreeMap<String, Status>>,
    /// Not yet looked at; bounded by the slots and leases that there are.
    taken: Mutex<BTreeSet<Taken>>,
    wake: EventFd,
    stopping: AtomicBool,
    registry: Registry,
    cancel: Cancel,
}

/// Access to the sidecars. Cheap to clone.
#[derive(Clone)]
pub struct Sidecars(Arc<Shared>);

/// What the supervisor is made of.
pub struct Parts {
    /// What sidecars are started with.
    pub surroundings: Surroundings,
    /// The daemon as a sidecar reaches it; none where it listens on no TCP port.
    pub daemon_url: Option<String>,
    /// To look at sidecars.
    pub net: Net,
    /// Dates leases.
    pub clock: Arc<dyn Clock>,
}

impl Sidecars {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(registry: Registry) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            board: Mutex::default(),
            taken: Mutex::default(),
            wake: EventFd::new()?,
            stopping: AtomicBool::new(false),
            registry,
            cancel: Cancel::new(),
        })))
    }

    /// Starts the threads `connectors` and `connector-look`. The listener must accept: sidecars call back as they start.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start(&self, parts: Parts) -> io::Result<Vec<Worker>> {
        let (looks, to_look) = bounded(CONNECTORS_MAX);
        let (results, looked) = bounded(SIDECAR_MAILBOX_MAX);
        let net = parts.net.clone();
        let supervisor = Supervisor::new(self.clone(), parts, looks, looked)?;
        let shared = self.0.clone();
        let look = Worker::spawn("connector-look", move || {
            probe::run(&net, &to_look, &results, &shared.wake, &shared.cancel);
        })?;
        let supervise = Worker::spawn("connectors", move || supervisor.run())?;
        Ok(vec![supervise, look])
    }

    /// Has the supervisor compare what runs with what is configured.
    pub fn reconcile(&self) {
        self.0.wake.wake();
    }

    /// A slot was revoked: a sidecar that has read it in a version that it may not keep ends.
    pub fn slot_revoked(&self, slot: &SlotId) {
        self.take_away(Taken::Slot(slot.clone()));
    }

    /// A lease was revoked by its id: the sidecar that was started with it ends and is started again with another one.
    pub fn lease_revoked(&self, lease: &str) {
        self.take_away(Taken::Lease(lease.to_string()));
    }

    fn take_away(&self, taken: Taken) {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(taken);
        self.reconcile();
    }

    fn taken(&self) -> BTreeSet<Taken> {
        std::mem::take(&mut *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of a sidecar, as JSON.
    pub fn view(&self, name: &str) -> Option<Value> {
        let mut status = self.status(name)?;
        status.output = self.0.registry.broker().redact(&status.output);
        status.last_error = status.last_error.map(|text| self.0.registry.broker().redact(&text));
        status.detail = status.detail.map(|text| self.0.registry.broker().redact(&text));
        serde_json::to_value(status).ok()
    }

    /// What is known of a sidecar.
    pub fn status(&self, name: &str) -> Option<Status> {
        self.board().get(name).cloned()
    }

    /// How many sidecars are in each state.
    pub fn states(&self) -> BTreeMap<&'static str, u64> {
        let mut states = BTreeMap::new();
        self.board().values().for_each(|status| *states.entry(status.state).or_default() += 1);
        states
    }

    /// Ends all sidecars and then the threads. The listener must still answer: sidecars finish what they have in hand.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.0.wake.wake();
    }

    fn board(&self) -> MutexGuard<'_, BTreeMap<String, Status>> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
