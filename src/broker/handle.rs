//! The broker as every other thread sees it.
//! Owns: the mailbox's sending end, and how long anybody waits for an answer.
//! May touch: the published views.
//! Never: waits without a bound.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};

use super::actor::{Actor, Command};
use super::containment::Revocation;
use super::error::BrokerError;
use super::lease::{ConnectorLease, ConnectorLeaseRequest, Fetched, Lease, LeaseRequest};
use super::readiness::{self, RouteAuth};
use super::references::SecretReferences;
use super::slot::{Mode, Provider, SlotId, SlotRecord, SlotStatus};
use super::subject::SubjectId;
use super::views::{LeaseFilter, LeaseStatus, SlotRevocation, SlotState, SubjectRevocation, SubjectStatus, Written};
use super::watch::Watch;
use super::{BrokerStats, Credential, Shared};
use crate::limits::{BROKER_ACCOUNT_REPLY_MS_MAX, BROKER_ADMIT_MS_MAX, BROKER_REPLY_MS_MAX};
use crate::net::Cancel;
use crate::pause::{self, Pause};
use crate::redaction;
use crate::secret::Secret;

/// Access to the broker from any thread.
#[derive(Clone)]
pub struct BrokerHandle {
    inbox: Sender<Command>,
    shared: Arc<Shared>,
}

type Answer<T> = Result<T, BrokerError>;

impl BrokerHandle {
    pub(super) fn new(inbox: Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { inbox, shared }
    }

    /// What may be shown of each slot, sorted by id. Does not wait.
    ///
    /// # Errors
    /// [`BrokerError::Gone`].
    pub fn slots(&self) -> Answer<Vec<SlotStatus>> {
        Ok(self.slot_states()?.into_iter().map(|state| state.status).collect())
    }

    /// As [`BrokerHandle::slots`], with versions and blocks.
    ///
    /// # Errors
    /// [`BrokerError::Gone`].
    pub fn slot_states(&self) -> Answer<Vec<SlotState>> {
        self.require_alive()?;
        Ok(self.shared.published().slots.clone())
    }

    /// What may be shown of one slot. Does not wait.
    ///
    /// # Errors
    /// [`BrokerError::Gone`].
    pub fn slot(&self, id: &SlotId) -> Answer<Option<SlotStatus>> {
        Ok(self.slot_state(id)?.map(|state| state.status))
    }

    /// As [`BrokerHandle::slot`], with version and block.
    ///
    /// # Errors
    /// [`BrokerError::Gone`].
    pub fn slot_state(&self, id: &SlotId) -> Answer<Option<SlotState>> {
        self.require_alive()?;
        let published = self.shared.published();
        let found = published.slots.binary_search_by(|state| state.status.slot_id.cmp(id));
        Ok(found.ok().map(|index| published.slots[index].clone()))
    }

    /// Creates or overwrites a slot. Its leases end. Durable when it returns.
    ///
    /// # Errors
    /// The store refused, or the broker did not answer.
    pub fn put(&self, record: SlotRecord) -> Answer<Written> {
        self.act(move |actor| actor.put_all(vec![record]).map(|mut written| written.remove(0)))
    }

    /// Creates or overwrites many slots with one change of the store: all of them or none.
    ///
    /// # Errors
    /// As [`BrokerHandle::put`].
    pub fn put_all(&self, records: Vec<SlotRecord>) -> Answer<Vec<Written>> {
        self.act(move |actor| actor.put_all(records))
    }

    /// Deletes a slot that nothing in [`BrokerHandle::references`] names. Its leases end; their number is returned. Durable
    /// when it returns.
    ///
    /// # Errors
    /// The slot is missing or referenced, the store refused, or the broker did not answer.
    pub fn delete(&self, id: &SlotId) -> Answer<usize> {
        let id = id.clone();
        self.act(move |actor| actor.delete(id, false))
    }

    /// As [`BrokerHandle::delete`] for a logout: a reference that yields to one does not keep the account.
    ///
    /// # Errors
    /// As [`BrokerHandle::delete`].
    pub fn log_out(&self, id: &SlotId) -> Answer<usize> {
        let id = id.clone();
        self.act(move |actor| actor.delete(id, true))
    }

    /// Who names which slot; rooms that name some add themselves at start.
    pub fn references(&self) -> &SecretReferences {
        &self.shared.references
    }

    /// Leases the present secret of a slot. Written down some time soon; only the first lease of a secret's version waits
    /// for the disk.
    ///
    /// # Errors
    /// The slot is missing, revoked or of another provider, the subject or one it acts for is revoked, the request is out
    /// of bounds, too many leases are alive, or the broker did not answer.
    pub fn lease(&self, request: LeaseRequest, now_ms: u64) -> Answer<Lease> {
        self.ask(BROKER_REPLY_MS_MAX, |reply| Command::Lease { request, now_ms, reply })
    }

    /// Leases generic slots to a sidecar process, which fetches them by the lease's token.
    ///
    /// # Errors
    /// As [`BrokerHandle::lease`].
    pub fn lease_connector(&self, request: ConnectorLeaseRequest, now_ms: u64) -> Answer<ConnectorLease> {
        self.act(move |actor| actor.lease_connector(request, now_ms))
    }

    /// Exchanges a lease for the secret; call it just before the bytes are sent, and again for each attempt. For an
    /// account it may wait for a refresh of its token.
    ///
    /// # Errors
    /// The lease is unknown, expired or revoked, the token could not be refreshed, or the broker did not answer.
    pub fn redeem(&self, lease: &Lease, now_ms: u64) -> Answer<Credential> {
        let is_account = matches!(self.slot(&lease.slot), Ok(Some(status)) if status.mode == Mode::OauthAccount);
        let wait_ms = if is_account { BROKER_ACCOUNT_REPLY_MS_MAX } else { BROKER_REPLY_MS_MAX };
        let lease = lease.clone();
        self.ask(wait_ms, |reply| Command::Redeem { lease, now_ms, reply })
    }

    /// HMAC-SHA-256 over `message` with the secret behind a lease. The key stays with the broker.
    ///
    /// # Errors
    /// As [`BrokerHandle::redeem`].
    pub fn sign(&self, lease: &Lease, message: Vec<u8>, now_ms: u64) -> Answer<[u8; 32]> {
        let lease = lease.clone();
        self.act(move |actor| actor.sign(&lease, &message, now_ms))
    }

    /// What the process behind a connector's token may have under the name `env_key`.
    ///
    /// # Errors
    /// The token stands for no live lease of this connector with that name, or the broker did not answer.
    pub fn fetch(&self, token: Secret, connector: &str, env_key: &str, now_ms: u64) -> Answer<Fetched> {
        let (connector, env_key) = (connector.to_string(), env_key.to_string());
        self.act(move |actor| actor.fetch(&token, &connector, &env_key, now_ms))
    }

    /// Gives a lease back. Does not wait; one that does not get through expires by itself.
    pub fn release(&self, lease: Lease) {
        self.release_id(lease.id);
    }

    /// As [`BrokerHandle::release`], of any kind of lease.
    pub fn release_id(&self, id: String) {
        let _expires_by_itself = self.inbox.try_send(Command::Release { id });
    }

    /// Has `cancel` cancelled when the lease is revoked, its slot overwritten or deleted. Call it before the lease is
    /// redeemed: whatever happens before that makes [`BrokerHandle::redeem`] refuse.
    pub fn watch(&self, lease: &Lease, cancel: Cancel) -> Watch {
        self.shared.watches.watch(&lease.id, cancel)
    }

    /// A lease, alive or ended not too long ago.
    ///
    /// # Errors
    /// The broker did not answer.
    pub fn lease_status(&self, id: &str, now_ms: u64) -> Answer<Option<LeaseStatus>> {
        let id = id.to_string();
        self.act(move |actor| Ok(actor.lease_status(&id, now_ms)))
    }

    /// Leases, newest first, at most [`crate::limits::LEASE_LIST_MAX`].
    ///
    /// # Errors
    /// The broker did not answer.
    pub fn leases(&self, filter: LeaseFilter, now_ms: u64) -> Answer<Vec<LeaseStatus>> {
        self.act(move |actor| Ok(actor.leases(&filter, now_ms)))
    }

    /// A subject; `None` when neither the broker nor, by `known`, the caller knows it.
    ///
    /// # Errors
    /// The broker did not answer.
    pub fn subject(&self, id: &SubjectId, known: bool, now_ms: u64) -> Answer<Option<SubjectStatus>> {
        let id = id.clone();
        self.act(move |actor| Ok(actor.subject(&id, known, now_ms)))
    }

    /// Subjects that are revoked or hold leases, at most [`crate::limits::LEASE_LIST_MAX`].
    ///
    /// # Errors
    /// The broker did not answer.
    pub fn subjects(&self, now_ms: u64) -> Answer<Vec<SubjectStatus>> {
        self.act(move |actor| Ok(actor.subjects(now_ms)))
    }

    /// Ends one lease, and the call that uses it.
    ///
    /// # Errors
    /// There is no such lease, it could not be recorded, or the broker did not answer.
    pub fn revoke_lease(&self, id: &str, how: Revocation, now_ms: u64) -> Answer<LeaseStatus> {
        let id = id.to_string();
        self.act(move |actor| actor.revoke_lease(&id, &how, now_ms))
    }

    /// Ends the leases of a slot. If the secret that it holds has ever been leased, it gets no other lease until it is
    /// set again.
    ///
    /// # Errors
    /// There is no such slot, it could not be recorded, or the broker did not answer.
    pub fn revoke_slot(&self, slot: &SlotId, how: Revocation, now_ms: u64) -> Answer<SlotRevocation> {
        let slot = slot.clone();
        self.act(move |actor| actor.revoke_slot(&slot, &how, now_ms))
    }

    /// Ends the leases of a subject and of those that act for it, and refuses them others. A subject that nobody knows is
    /// blocked all the same.
    ///
    /// # Errors
    /// Too many subjects are revoked, it could not be recorded, or the broker did not answer.
    pub fn revoke_subject(&self, id: &SubjectId, how: Revocation, now_ms: u64) -> Answer<SubjectRevocation> {
        let id = id.clone();
        self.act(move |actor| actor.revoke_subject(&id, &how, now_ms))
    }

    /// Lets a subject have credentials again; `None` when nobody knows it.
    ///
    /// # Errors
    /// It could not be recorded and did not take effect, or the broker did not answer.
    pub fn reinstate_subject(&self, id: &SubjectId, how: Revocation, now_ms: u64) -> Answer<Option<SubjectStatus>> {
        let id = id.clone();
        self.act(move |actor| actor.reinstate_subject(&id, &how, now_ms))
    }

    /// Refreshes an account's token now, at most every [`crate::limits::OAUTH_PAUSE_MS`]; waits for the outcome.
    ///
    /// # Errors
    /// The slot is missing, revoked or no account, the refresh failed, or the broker did not answer.
    pub fn refresh_account(&self, slot: &SlotId) -> Answer<SlotStatus> {
        let slot = slot.clone();
        let (reply, answer) = bounded(1);
        self.admit(Command::Do(Box::new(move |actor| actor.refresh_account(slot, reply))))?;
        received(answer.recv_timeout(Duration::from_millis(BROKER_ACCOUNT_REPLY_MS_MAX)))
    }

    /// Whether this very subject gets no credential at the moment. Does not wait.
    pub fn is_subject_revoked(&self, id: &SubjectId) -> bool {
        self.shared.published().revoked_subjects.binary_search(id).is_ok()
    }

    /// Has texts redacted against a secret that lives elsewhere, for as long as the daemon runs.
    ///
    /// # Errors
    /// The broker did not answer.
    pub fn also_redact(&self, secrets: Vec<Arc<Secret>>) -> Answer<()> {
        self.act(move |actor| {
            actor.foreign.extend(secrets);
            actor.republish();
            Ok(())
        })
    }

    /// Whether a route that names `slot` and needs `provider` has its credential. Does not wait.
    pub fn route_auth(&self, slot: &SlotId, provider: Provider) -> RouteAuth {
        readiness::judge(slot, provider, self.slot_state(slot))
    }

    /// `text` with [`super::REDACTED`] in place of every present and recently replaced secret, and of whatever has the shape
    /// of a key. Does not wait, and
    /// works when the broker is busy or gone.
    pub fn redact(&self, text: &str) -> String {
        redaction::mask_keys(&self.shared.published().redactor.redact(text))
    }

    /// As [`BrokerHandle::redact`], for a text that arrives in pieces: what of it can be shown now, and how many of
    /// its bytes that stands for. The others may be the beginning of a secret and wait for the next piece.
    pub fn redact_settled(&self, text: &str) -> (String, usize) {
        let published = self.shared.published();
        let settled = published.redactor.settled(text).min(redaction::settled(text));
        (redaction::mask_keys(&published.redactor.redact(&text[..settled])), settled)
    }

    /// How the broker is doing. Does not wait.
    pub fn stats(&self) -> BrokerStats {
        let published = self.shared.published();
        BrokerStats {
            is_alive: self.shared.is_alive.load(Ordering::SeqCst),
            mailbox_depth: self.inbox.len(),
            handled_count: self.shared.handled_count.load(Ordering::Relaxed),
            lease_count: self.shared.lease_count.load(Ordering::Relaxed),
            blocked_slot_count: published.slots.iter().filter(|state| state.blocked).count(),
            revoked_subject_count: published.revoked_subjects.len(),
            log: self.shared.log_stats(),
        }
    }

    /// Has the broker write down everything that waits and then change nothing for at most `limit`, so that its files can be
    /// copied together. Whoever asks it for something meanwhile waits.
    ///
    /// # Errors
    /// The broker did not answer.
    pub fn pause(&self, limit: Duration) -> Answer<Pause> {
        let (pause, standstill) = pause::pause(limit);
        let (reply, answer) = bounded(1);
        self.admit(Command::Do(Box::new(move |actor| {
            actor.log.flush();
            // A caller that hung up has let go of its end as well, so the pause is over at once.
            drop(reply.send(Ok(())));
            standstill.wait();
        })))?;
        received(answer.recv_timeout(Duration::from_millis(BROKER_REPLY_MS_MAX)))?;
        Ok(pause)
    }

    /// Asks the thread to end after what waits.
    pub(super) fn end(&self) {
        // A thread that has ended already is joined just the same.
        let _ended_already = self.inbox.send(Command::Stop);
    }

    fn require_alive(&self) -> Answer<()> {
        if self.shared.is_alive.load(Ordering::SeqCst) { Ok(()) } else { Err(BrokerError::Gone) }
    }

    fn ask<T>(&self, wait_ms: u64, command: impl FnOnce(Sender<Answer<T>>) -> Command) -> Answer<T> {
        let (reply, answer) = bounded(1);
        self.inbox.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => BrokerError::Busy,
            TrySendError::Disconnected(_) => BrokerError::Gone,
        })?;
        received(answer.recv_timeout(Duration::from_millis(wait_ms)))
    }

    /// Has the broker's thread do something, and waits for its outcome.
    fn act<T: Send + 'static>(&self, act: impl FnOnce(&mut Actor) -> Answer<T> + Send + 'static) -> Answer<T> {
        let (reply, answer) = bounded(1);
        // A caller that hung up is fine: what it asked for is done, or it was not.
        self.admit(Command::Do(Box::new(move |actor| drop(reply.send(act(actor))))))?;
        received(answer.recv_timeout(Duration::from_millis(BROKER_REPLY_MS_MAX)))
    }

    fn admit(&self, command: Command) -> Answer<()> {
        let admitted = self.inbox.send_timeout(command, Duration::from_millis(BROKER_ADMIT_MS_MAX));
        admitted.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => BrokerError::Busy,
            SendTimeoutError::Disconnected(_) => BrokerError::Gone,
        })
    }
}

fn received<T>(answer: Result<Answer<T>, RecvTimeoutError>) -> Answer<T> {
    match answer {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(BrokerError::NoAnswer),
        Err(RecvTimeoutError::Disconnected) => Err(BrokerError::Gone),
    }
}
