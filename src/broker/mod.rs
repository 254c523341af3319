//! Credential broker: the room in which secrets live.
//! Owns: the auth store, the leases and revocations, and the secrets that texts are redacted against.
//! May touch: `auth/` of the state root, through the store and the log, and the random source.
//! Never: opens a socket, logs a value, or releases a secret without a lease for the slot's present version.
//!
//! A lease names the version of the slot's secret. The rename of the store is the commit point of a change,
//! so an overwrite or a deletion ends every lease of the slot by itself, and the broker keeps no list of what
//! it must still revoke.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::bounded;

use crate::clock::Clock;
use crate::limits::{BROKER_MAILBOX_MAX, OAUTH_JOBS_MAX, OAUTH_WORKERS};
use crate::net::Cancel;
use crate::secret::Secret;
use crate::worker::{Worker, WorkerPanicked};

mod account;
mod actor;
mod containment;
mod entry;
mod envelope;
mod error;
mod handle;
mod lease;
mod ledger;
mod log;
pub mod master_key;
mod oauth;
mod readiness;
mod redact;
mod references;
mod refresh;
pub mod scan;
mod slot;
mod store;
mod subject;
mod views;
mod watch;
mod wire;

pub use crate::redaction::MARK as REDACTED;
pub use account::{ACCOUNT_PREFIX, AccountDetails, ClientAuth, McpAccount};
pub use containment::Revocation;
pub use entry::EndReason;
pub use error::BrokerError;
pub use handle::BrokerHandle;
pub use lease::{ConnectorLease, ConnectorLeaseRequest, Fetched, Lease, LeaseRequest, Use};
pub use log::{BrokerLog, BrokerLogError, LOG_FILE_NAME, LOG_PREVIOUS_FILE_NAME, LogStats};
pub use master_key::{MasterKey, MasterKeyError};
pub use oauth::{NoExchange, RefreshFailure, RefreshRequest, RefreshedTokens, TokenExchange};
pub use readiness::{RouteAuth, RouteAuthState};
pub use references::{SecretReference, SecretReferences};
pub use slot::{Mode, Provider, SlotError, SlotId, SlotRecord, SlotStatus};
pub use store::{BackupError, FILE_NAME, RekeyError, Rekeyed, Store, StoreError, rekey};
pub use subject::{Audience, Subject, SubjectError, SubjectId};
pub use views::{
    LeaseFilter, LeaseStatus, LeaseView, LeasedSlot, SlotRevocation, SlotState, SubjectRevocation, SubjectStatus,
    Written,
};
pub use watch::Watch;

use actor::Actor;
use ledger::Ledger;
use redact::{Redactor, Retired};
use watch::Watches;

/// What a lease is exchanged for, just before the request that needs it is sent.
#[derive(Debug)]
pub struct Credential {
    /// The secret; wiped when dropped.
    pub secret: Secret,
}

/// What anybody may read without waiting for the broker. It is swapped after the store's commit and before
/// the reply, so that a reader never sees what is not on disk.
struct Published {
    slots: Vec<SlotState>,
    redactor: Redactor,
    revoked_subjects: Vec<SubjectId>,
}

struct Shared {
    published: Mutex<Arc<Published>>,
    log: Mutex<LogStats>,
    watches: Watches,
    references: SecretReferences,
    is_alive: AtomicBool,
    handled_count: AtomicU64,
    lease_count: AtomicU64,
}

impl Shared {
    fn published(&self) -> Arc<Published> {
        // The lock covers one pointer, which no panic can leave half written.
        Arc::clone(&self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn swap(&self, published: Arc<Published>) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = published;
    }

    fn log_stats(&self) -> LogStats {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_log_stats(&self, stats: LogStats) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}

/// How the broker is doing, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerStats {
    /// Whether its thread runs.
    pub is_alive: bool,
    /// Commands waiting, at most [`BROKER_MAILBOX_MAX`].
    pub mailbox_depth: usize,
    /// Commands answered since start: with commands waiting, a figure that stands still is a hanging broker.
    pub handled_count: u64,
    /// Leases that were neither given back nor seen to expire.
    pub lease_count: u64,
    /// Slots that were revoked and not set since.
    pub blocked_slot_count: usize,
    /// Subjects that get no credential.
    pub revoked_subject_count: usize,
    /// The log of leases and revocations.
    pub log: LogStats,
}

/// What a broker begins with.
pub struct BrokerParts {
    /// The open store. The caller keeps the state root's lock for as long as the broker runs.
    pub store: Store,
    /// The open log beside it.
    pub log: BrokerLog,
    /// Secrets that live elsewhere, in the routes file, and are redacted as well.
    pub foreign: Vec<Arc<Secret>>,
    /// Speaks to authorization servers.
    pub exchange: Arc<dyn TokenExchange>,
    /// Dates entries and tokens.
    pub clock: Arc<dyn Clock>,
}

/// The running broker, as its owner has it.
pub struct Broker {
    handle: BrokerHandle,
    worker: Worker,
    refreshers: Vec<Worker>,
    stop_refreshers: Cancel,
}

impl Broker {
    /// Starts the broker's thread and those that refresh tokens.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(parts: BrokerParts) -> io::Result<Self> {
        let BrokerParts { store, mut log, foreign, exchange, clock } = parts;
        let (inbox, commands) = bounded(BROKER_MAILBOX_MAX);
        let (jobs, todo) = bounded(OAUTH_JOBS_MAX);
        let (ledger, retired, tokens) = (log.take_ledger(), Retired::default(), Retired::default());
        let shared = Arc::new(Shared {
            published: Mutex::new(Arc::new(publish(&store, &ledger, &retired, &tokens, &foreign))),
            log: Mutex::new(log.stats()),
            watches: Watches::default(),
            references: SecretReferences::default(),
            is_alive: AtomicBool::new(true),
            handled_count: AtomicU64::new(0),
            lease_count: AtomicU64::new(0),
        });
        let stop_refreshers = Cancel::new();
        let refresher = |number| {
            let (todo, exchange, stop, inbox) =
                (todo.clone(), exchange.clone(), stop_refreshers.clone(), inbox.clone());
            Worker::spawn(format!("oauth-{number}"), move || oauth::work(&todo, &exchange, &stop, &inbox))
        };
        let refreshers = (1..=OAUTH_WORKERS).map(refresher).collect::<io::Result<Vec<_>>>()?;
        let actor = Actor {
            store,
            ledger,
            log,
            retired,
            foreign,
            shared: Arc::clone(&shared),
            clock,
            accounts: std::collections::HashMap::new(),
            jobs,
            next_job: 1,
            tokens,
        };
        let worker = Worker::spawn("broker", move || actor.run(commands))?;
        Ok(Self { handle: BrokerHandle::new(inbox, shared), worker, refreshers, stop_refreshers })
    }

    /// A handle for another thread.
    pub fn handle(&self) -> BrokerHandle {
        self.handle.clone()
    }

    /// Answers what waits, then ends the threads. Handles answer [`BrokerError::Gone`] from then on.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn stop(self) -> Result<(), WorkerPanicked> {
        self.stop_refreshers.cancel();
        self.handle.end();
        // With the broker go the senders of its jobs, which ends the refreshers.
        let ended = self.worker.join();
        self.refreshers.into_iter().map(Worker::join).fold(ended, Result::and)
    }
}

fn publish(store: &Store, ledger: &Ledger, retired: &Retired, tokens: &Retired, foreign: &[Arc<Secret>]) -> Published {
    let replaced = retired.iter().chain(tokens.iter());
    let secrets = store.secrets().chain(replaced).chain(foreign.iter().map(AsRef::as_ref));
    let state = |(id, entry): (&SlotId, &store::Entry)| SlotState {
        status: entry.record.status(),
        version: entry.version,
        blocked: ledger.is_blocked(id, entry.version),
    };
    Published {
        slots: store.entries().map(state).collect(),
        redactor: Redactor::new(secrets),
        revoked_subjects: {
            let revoked = ledger.subjects().filter(|(_, mark)| mark.revoked_at_ms.is_some());
            let mut ids: Vec<SubjectId> = revoked.map(|(id, _)| id.clone()).collect();
            ids.sort_unstable();
            ids
        },
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::Stalled;
