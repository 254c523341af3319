//! Credential broker: the room in which secrets live.
//! Owns: the auth store, the leases, and the secrets that texts are redacted against.
//! May touch: `auth/` of the state root, through the store, and the random source.
//! Never: opens a socket, logs a value, or releases a secret without a lease for the slot's present version.
//!
//! A lease names the version of the slot's secret. The rename of the store is the commit point of a change,
//! so an overwrite or a deletion ends every lease of the slot by itself, and the broker keeps no list of what
//! it must still revoke.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::limits::{BROKER_MAILBOX_MAX, BROKER_REPLY_MS_MAX, LEASE_TEXT_BYTES_MAX};
use crate::secret::Secret;
use crate::worker::{Worker, WorkerPanicked};

mod envelope;
mod lease;
pub mod master_key;
mod readiness;
mod redact;
mod slot;
mod store;

pub use lease::{Lease, LeaseRequest};
pub use master_key::{MasterKey, MasterKeyError};
pub use readiness::{RouteAuth, RouteAuthState};
pub use redact::REDACTED;
pub use slot::{Mode, Provider, SlotError, SlotId, SlotRecord, SlotStatus};
pub use store::{FILE_NAME, Store, StoreError};

use lease::{IssueError, LeaseError, Leases};
use redact::{Redactor, Retired};
use slot::duplicate;

/// What a lease is exchanged for, just before the request that needs it is sent.
#[derive(Debug)]
pub struct Credential {
    /// The secret; wiped when dropped.
    pub secret: Secret,
    /// OpenAI's `OpenAI-Organization` header.
    pub organization: Option<String>,
    /// OpenAI's `OpenAI-Project` header.
    pub project: Option<String>,
}

/// Why the broker refused.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum BrokerError {
    /// The mailbox is full.
    Busy,
    /// The broker's thread has ended.
    Gone,
    /// No answer in time; a change may still take place.
    NoAnswer,
    /// There is no such slot.
    SlotMissing { slot: SlotId },
    /// The slot is still named by these routes.
    SlotReferenced { slot: SlotId, by: Vec<String> },
    /// The slot holds another provider's credential.
    ProviderMismatch { slot: SlotId, has: Provider, needs: Provider },
    /// The request for a lease is out of bounds.
    LeaseText,
    /// Too many leases are alive.
    LeasesFull,
    /// The lease was not issued by this broker, or was given back.
    LeaseUnknown { id: String },
    /// The lease has expired.
    LeaseExpired { id: String },
    /// The slot was overwritten or deleted after the lease was issued.
    LeaseRevoked { id: String, slot: SlotId },
    /// The store refused.
    Store(StoreError),
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => {
                write!(f, "{BROKER_MAILBOX_MAX} commands wait for the credential broker; next: try again in a moment")
            }
            Self::Gone => write!(f, "the credential broker has stopped; next: restart the daemon and read its log"),
            Self::NoAnswer => write!(
                f,
                "the credential broker gave no answer within {BROKER_REPLY_MS_MAX} ms; next: check the disk of \
                 the state root, and look at the slot before a change is tried again"
            ),
            Self::SlotMissing { slot } => {
                write!(f, "slot {slot} does not exist; next: kheish-daemon secrets set {slot}")
            }
            Self::SlotReferenced { slot, by } => write!(
                f,
                "slot {slot} is in use by {}; next: point these at another slot first, or overwrite the slot",
                by.join(", ")
            ),
            Self::ProviderMismatch { slot, has, needs } => write!(
                f,
                "slot {slot} holds a credential of {has}, and {needs} is needed; \
                 next: kheish-daemon secrets set {slot} --provider {needs}, or name another slot"
            ),
            Self::LeaseText => write!(
                f,
                "subject and audience of a lease have 1 to {LEASE_TEXT_BYTES_MAX} bytes; next: shorten the id"
            ),
            Self::LeasesFull => write!(f, "too many leases are alive; next: try again when some have expired"),
            Self::LeaseUnknown { id } => write!(f, "{id} is not a live lease; next: ask for a new one"),
            Self::LeaseExpired { id } => write!(f, "{id} has expired; next: ask for a new one"),
            Self::LeaseRevoked { id, slot } => {
                write!(f, "{id} is revoked, since slot {slot} was overwritten or deleted; next: ask for a new one")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BrokerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

enum Command {
    Put { record: SlotRecord, reply: Sender<Result<SlotStatus, BrokerError>> },
    Delete { id: SlotId, referenced: Vec<String>, reply: Sender<Result<(), BrokerError>> },
    Lease { request: LeaseRequest, now_ms: u64, reply: Sender<Result<Lease, BrokerError>> },
    Redeem { lease: Lease, now_ms: u64, reply: Sender<Result<Credential, BrokerError>> },
    Release { id: String },
    Stop,
}

/// What anybody may read without waiting for the broker. It is swapped after the store's commit and before
/// the reply, so that a reader never sees what is not on disk.
struct Published {
    slots: Vec<SlotStatus>,
    redactor: Redactor,
}

struct Shared {
    published: Mutex<Arc<Published>>,
    is_alive: AtomicBool,
    handled_count: AtomicU64,
    lease_count: AtomicU64,
}

impl Shared {
    fn published(&self) -> Arc<Published> {
        // The lock covers one pointer, which no panic can leave half written.
        Arc::clone(&self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How the broker is doing, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerStats {
    /// Whether its thread runs.
    pub is_alive: bool,
    /// Commands waiting, at most [`BROKER_MAILBOX_MAX`].
    pub mailbox_depth: usize,
    /// Commands answered since start: with commands waiting, a figure that stands still is a hanging broker.
    pub handled_count: u64,
    /// Leases that were neither given back nor seen to expire.
    pub lease_count: u64,
}

/// Access to the broker from any thread.
#[derive(Clone)]
pub struct BrokerHandle {
    inbox: Sender<Command>,
    shared: Arc<Shared>,
}

impl BrokerHandle {
    /// What may be shown of each slot, sorted by id. Does not wait.
    ///
    /// # Errors
    /// [`BrokerError::Gone`].
    pub fn slots(&self) -> Result<Vec<SlotStatus>, BrokerError> {
        self.require_alive()?;
        Ok(self.shared.published().slots.clone())
    }

    /// What may be shown of one slot. Does not wait.
    ///
    /// # Errors
    /// [`BrokerError::Gone`].
    pub fn slot(&self, id: &SlotId) -> Result<Option<SlotStatus>, BrokerError> {
        self.require_alive()?;
        let published = self.shared.published();
        let found = published.slots.binary_search_by(|status| status.slot_id.cmp(id));
        Ok(found.ok().map(|index| published.slots[index].clone()))
    }

    /// Creates or overwrites a slot. Its leases end. Durable when it returns.
    ///
    /// # Errors
    /// The store refused, or the broker did not answer.
    pub fn put(&self, record: SlotRecord) -> Result<SlotStatus, BrokerError> {
        self.ask(|reply| Command::Put { record, reply })
    }

    /// Deletes a slot that nothing refers to: `referenced` names the routes that still do. Its leases end.
    /// Durable when it returns.
    ///
    /// # Errors
    /// The slot is missing or referenced, the store refused, or the broker did not answer.
    pub fn delete(&self, id: &SlotId, referenced: &[String]) -> Result<(), BrokerError> {
        let (id, referenced) = (id.clone(), referenced.to_vec());
        self.ask(|reply| Command::Delete { id, referenced, reply })
    }

    /// Leases the present secret of a slot. Nothing is written: the record of the external action names the
    /// lease.
    ///
    /// # Errors
    /// The slot is missing or of another provider, the request is out of bounds, too many leases are alive,
    /// or the broker did not answer.
    pub fn lease(&self, request: LeaseRequest, now_ms: u64) -> Result<Lease, BrokerError> {
        self.ask(|reply| Command::Lease { request, now_ms, reply })
    }

    /// Exchanges a lease for the secret; call it just before the bytes are sent, and again for each attempt.
    ///
    /// # Errors
    /// The lease is unknown, expired or revoked by a change of its slot, or the broker did not answer.
    pub fn redeem(&self, lease: &Lease, now_ms: u64) -> Result<Credential, BrokerError> {
        let lease = lease.clone();
        self.ask(|reply| Command::Redeem { lease, now_ms, reply })
    }

    /// Gives a lease back. Does not wait; one that does not get through expires by itself.
    pub fn release(&self, lease: Lease) {
        let _expires_by_itself = self.inbox.try_send(Command::Release { id: lease.id });
    }

    /// Whether a route that names `slot` and needs `provider` has its credential. Does not wait.
    pub fn route_auth(&self, slot: &SlotId, provider: Provider) -> RouteAuth {
        readiness::judge(slot, provider, self.slot(slot))
    }

    /// `text` with [`REDACTED`] in place of every present and recently replaced secret. Does not wait, and
    /// works when the broker is busy or gone.
    pub fn redact(&self, text: &str) -> String {
        self.shared.published().redactor.redact(text)
    }

    /// As [`BrokerHandle::redact`], for a text that arrives in pieces: what of it can be shown now, and how many of
    /// its bytes that stands for. The others may be the beginning of a secret and wait for the next piece.
    pub fn redact_settled(&self, text: &str) -> (String, usize) {
        let published = self.shared.published();
        let settled = published.redactor.settled(text);
        (published.redactor.redact(&text[..settled]), settled)
    }

    /// How the broker is doing. Does not wait.
    pub fn stats(&self) -> BrokerStats {
        BrokerStats {
            is_alive: self.shared.is_alive.load(Ordering::SeqCst),
            mailbox_depth: self.inbox.len(),
            handled_count: self.shared.handled_count.load(Ordering::Relaxed),
            lease_count: self.shared.lease_count.load(Ordering::Relaxed),
        }
    }

    fn require_alive(&self) -> Result<(), BrokerError> {
        if self.shared.is_alive.load(Ordering::SeqCst) { Ok(()) } else { Err(BrokerError::Gone) }
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<Result<T, BrokerError>>) -> Command) -> Result<T, BrokerError> {
        let (reply, answer) = bounded(1);
        self.inbox.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => BrokerError::Busy,
            TrySendError::Disconnected(_) => BrokerError::Gone,
        })?;
        match answer.recv_timeout(Duration::from_millis(BROKER_REPLY_MS_MAX)) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(BrokerError::NoAnswer),
            Err(RecvTimeoutError::Disconnected) => Err(BrokerError::Gone),
        }
    }
}

/// The running broker, as its owner has it.
pub struct Broker {
    handle: BrokerHandle,
    worker: Worker,
}

impl Broker {
    /// Starts the broker's thread on an open store. The caller keeps the state root's lock for as long as it
    /// runs. `foreign` are secrets that live elsewhere, in the routes file, and are redacted as well.
    ///
    /// # Errors
    /// The operating system refused the thread.
    pub fn start(store: Store, foreign: Vec<Arc<Secret>>) -> io::Result<Self> {
        let (inbox, commands) = bounded(BROKER_MAILBOX_MAX);
        let retired = Retired::default();
        let shared = Arc::new(Shared {
            published: Mutex::new(Arc::new(publish(&store, &retired, &foreign))),
            is_alive: AtomicBool::new(true),
            handled_count: AtomicU64::new(0),
            lease_count: AtomicU64::new(0),
        });
        let actor = Actor { store, leases: Leases::default(), retired, foreign, shared: Arc::clone(&shared) };
        let worker = Worker::spawn("broker", move || actor.run(commands))?;
        Ok(Self { handle: BrokerHandle { inbox, shared }, worker })
    }

    /// A handle for another thread.
    pub fn handle(&self) -> BrokerHandle {
        self.handle.clone()
    }

    /// Answers what waits, then ends the thread. Handles answer [`BrokerError::Gone`] from then on.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn stop(self) -> Result<(), WorkerPanicked> {
        // A thread that has ended already is joined just the same.
        let _ended_already = self.handle.inbox.send(Command::Stop);
        self.worker.join()
    }
}

fn publish(store: &Store, retired: &Retired, foreign: &[Arc<Secret>]) -> Published {
    let secrets = store.secrets().chain(retired.iter()).chain(foreign.iter().map(AsRef::as_ref));
    Published { slots: store.list(), redactor: Redactor::new(secrets) }
}

struct Actor {
    store: Store,
    leases: Leases,
    retired: Retired,
    foreign: Vec<Arc<Secret>>,
    shared: Arc<Shared>,
}

impl Actor {
    fn run(mut self, inbox: Receiver<Command>) {
        for command in inbox {
            match command {
                // A caller that hung up is fine: what it asked for is on disk, or it was not done.
                Command::Put { record, reply } => drop(reply.send(self.put(record))),
                Command::Delete { id, referenced, reply } => drop(reply.send(self.delete(id, referenced))),
                Command::Lease { request, now_ms, reply } => drop(reply.send(self.lease(&request, now_ms))),
                Command::Redeem { lease, now_ms, reply } => drop(reply.send(self.redeem(&lease, now_ms))),
                Command::Release { id } => self.release(&id),
                Command::Stop => break,
            }
            self.shared.handled_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(&mut self, record: SlotRecord) -> Result<SlotStatus, BrokerError> {
        let status = record.status();
        let former = self.store.replace(record).map_err(BrokerError::Store)?;
        let verb = if former.is_some() { "overwritten" } else { "created" };
        self.republish(former);
        log::info!("slot {} {verb}", status.slot_id);
        Ok(status)
    }

    fn delete(&mut self, id: SlotId, referenced: Vec<String>) -> Result<(), BrokerError> {
        if self.store.entry(&id).is_none() {
            return Err(BrokerError::SlotMissing { slot: id });
        }
        if !referenced.is_empty() {
            return Err(BrokerError::SlotReferenced { slot: id, by: referenced });
        }
        let former = self.store.remove(&id).map_err(BrokerError::Store)?;
        self.republish(former);
        log::info!("slot {id} deleted");
        Ok(())
    }

    fn republish(&mut self, former: Option<Secret>) {
        if let Some(former) = former {
            self.retired.push(former);
        }
        let published = Arc::new(publish(&self.store, &self.retired, &self.foreign));
        *self.shared.published.lock().unwrap_or_else(PoisonError::into_inner) = published;
    }

    fn lease(&mut self, request: &LeaseRequest, now_ms: u64) -> Result<Lease, BrokerError> {
        if [&request.subject, &request.audience].iter().any(|text| !(1..=LEASE_TEXT_BYTES_MAX).contains(&text.len())) {
            return Err(BrokerError::LeaseText);
        }
        let Some(entry) = self.store.entry(&request.slot) else {
            return Err(BrokerError::SlotMissing { slot: request.slot.clone() });
        };
        let (has, needs) = (entry.record.provider(), request.provider);
        if has != needs {
            return Err(BrokerError::ProviderMismatch { slot: request.slot.clone(), has, needs });
        }
        let lease = self.leases.issue(request, entry.version, now_ms).map_err(|error| match error {
            IssueError::Full => BrokerError::LeasesFull,
            IssueError::NoRandom => BrokerError::Store(StoreError::NoRandom),
        })?;
        self.publish_lease_count();
        log::debug!("{} of slot {} for {}, {}", lease.id, lease.slot, request.subject, request.audience);
        Ok(lease)
    }

    fn redeem(&mut self, lease: &Lease, now_ms: u64) -> Result<Credential, BrokerError> {
        let id = lease.id.clone();
        let checked = self.leases.check(lease, now_ms);
        self.publish_lease_count();
        checked.map_err(|error| match error {
            LeaseError::Unknown => BrokerError::LeaseUnknown { id: id.clone() },
            LeaseError::Expired => BrokerError::LeaseExpired { id: id.clone() },
        })?;
        match self.store.entry(&lease.slot) {
            Some(entry) if entry.version == lease.version => Ok(Credential {
                secret: duplicate(entry.record.secret()),
                organization: entry.record.organization().map(str::to_string),
                project: entry.record.project().map(str::to_string),
            }),
            _ => Err(BrokerError::LeaseRevoked { id, slot: lease.slot.clone() }),
        }
    }

    fn release(&mut self, id: &str) {
        self.leases.release(id);
        self.publish_lease_count();
    }

    fn publish_lease_count(&self) {
        self.shared.lease_count.store(self.leases.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for Actor {
    /// Also when the thread panics.
    fn drop(&mut self) {
        self.shared.is_alive.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
