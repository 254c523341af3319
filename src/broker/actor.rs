//! The broker's thread: what it owns, and what it does with slots and leases.
//! Owns: the store, the ledger and the log, each changed here only; the order in which they change.
//! May touch: whoever waits for an answer; the in-flight calls of leases that end.
//! Never: waits for a network, or answers a revocation before the log has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};
use ring::hmac;

use super::entry::{BoundSlot, EndReason, Entry, IssuedLease};
use super::error::BrokerError;
use super::lease::{
    ConnectorLease, ConnectorLeaseRequest, Fetched, Lease, LeaseRequest, grant_id, random_id, random_token,
    token_digest,
};
use super::ledger::{Ledger, Refused};
use super::log::BrokerLog;
use super::oauth::{Job, RefreshFailure, RefreshedTokens};
use super::redact::Retired;
use super::refresh::Account;
use super::slot::{Material, Mode, Provider, SlotId, SlotRecord};
use super::store::{Store, StoreError};
use super::subject::{Audience, Subject, SubjectId};
use super::views::Written;
use super::wire::duplicate;
use super::{Credential, Shared, publish};
use crate::clock::Clock;
use crate::limits::{
    LEASE_ENV_KEY_BYTES_MAX, LEASE_SLOTS_MAX, LEASE_TEXT_BYTES_MAX, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN,
};
use crate::secret::Secret;
use crate::worker::idle;

/// What arrives in the broker's mailbox.
pub(super) enum Command {
    Lease {
        request: LeaseRequest,
        now_ms: u64,
        reply: Sender<Result<Lease, BrokerError>>,
    },
    Redeem {
        lease: Lease,
        now_ms: u64,
        reply: Sender<Result<Credential, BrokerError>>,
    },
    Release {
        id: String,
    },
    Refreshed {
        slot: SlotId,
        number: u64,
        result: Result<RefreshedTokens, RefreshFailure>,
    },
    /// Everything that is done now and then.
    Do(Box<dyn FnOnce(&mut Actor) + Send>),
    Stop,
}

/// Everything that the thread owns.
pub(super) struct Actor {
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    pub(super) log: BrokerLog,
    pub(super) retired: Retired,
    pub(super) foreign: Vec<Arc<Secret>>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    /// Refreshes under way, and what came of the last ones.
    pub(super) accounts: HashMap<SlotId, Account>,
    pub(super) jobs: Sender<Job>,
    pub(super) next_job: u64,
    /// Tokens of sidecars: worth hiding like a secret of the store.
    pub(super) tokens: Retired,
}

impl Actor {
    pub(super) fn run(mut self, inbox: Receiver<Command>) {
        self.begin();
        while let Ok(command) = idle(|| inbox.recv()) {
            match command {
                // A caller that hung up is fine: what it asked for is on disk, or it was not done.
                Command::Lease { request, now_ms, reply } => drop(reply.send(self.lease(&request, now_ms))),
                Command::Redeem { lease, now_ms, reply } => self.redeem(lease, now_ms, reply),
                Command::Release { id } => self.release(&id),
                Command::Refreshed { slot, number, result } => self.refreshed(&slot, number, result),
                Command::Do(act) => act(&mut self),
                Command::Stop => break,
            }
            if inbox.is_empty() {
                self.log.flush();
            }
            self.log.rewrite_if_grown(&self.ledger);
            self.publish_stats();
            self.shared.handled_count.fetch_add(1, Ordering::Relaxed);
        }
        self.log.flush();
    }

    /// Ends what an earlier process left, and brings log and store together: either may be older than the other.
    fn begin(&mut self) {
        self.store.skip_versions(self.ledger.version_max());
        self.note(&Entry::DaemonStarted);
        let gone: Vec<SlotId> = self
            .ledger
            .slot_marks()
            .map(|(slot, _)| slot.clone())
            .filter(|slot| self.store.entry(slot).is_none())
            .collect();
        for slot in gone {
            self.note(&Entry::SlotDeleted { slot });
        }
        self.log.flush();
        self.republish();
    }

    /// Makes an entry take effect and has it written some time soon.
    pub(super) fn note(&mut self, entry: &Entry) -> Vec<String> {
        let at_ms = self.clock.now_ms();
        let ended = self.ledger.apply(at_ms, entry);
        self.log.push(at_ms, entry);
        self.shared.watches.end(&ended);
        ended
    }

    pub(super) fn put_all(&mut self, records: Vec<SlotRecord>) -> Result<Vec<Written>, BrokerError> {
        let statuses: Vec<_> = records.iter().map(SlotRecord::status).collect();
        let former = self.store.replace_all(records)?;
        let mut written = Vec::with_capacity(statuses.len());
        for status in statuses {
            let slot = status.slot_id.clone();
            let version = self.store.entry(&slot).map_or(0, |entry| entry.version);
            let revoked_leases = self.note(&Entry::SlotSet { slot: slot.clone(), version }).len();
            self.drop_account(&slot);
            log::info!("slot {slot} set: version {version}, {revoked_leases} leases of the former one revoked");
            written.push(Written { status, version, revoked_leases });
        }
        self.retire(former);
        self.republish();
        Ok(written)
    }

    pub(super) fn delete(&mut self, id: SlotId, is_logout: bool) -> Result<usize, BrokerError> {
        if self.store.entry(&id).is_none() {
            return Err(BrokerError::SlotMissing { slot: id });
        }
        let referenced = self.shared.references.of(&id, is_logout);
        if !referenced.is_empty() {
            return Err(BrokerError::SlotReferenced { slot: id, by: referenced });
        }
        let former = self.store.remove(&id)?.unwrap_or_default();
        let revoked = self.note(&Entry::SlotDeleted { slot: id.clone() }).len();
        self.drop_account(&id);
        self.retire(former);
        self.republish();
        log::info!("slot {id} deleted: {revoked} leases revoked");
        Ok(revoked)
    }

    /// Keeps replaced secrets for redaction. What the store holds still is redacted as it is.
    pub(super) fn retire(&mut self, secrets: Vec<Secret>) {
        for secret in secrets {
            if !self.store.secrets().any(|held| held.expose() == secret.expose()) {
                self.retired.push(secret);
            }
        }
    }

    /// Swaps what others read. After every change of what it shows.
    pub(super) fn republish(&self) {
        let published = publish(&self.store, &self.ledger, &self.retired, &self.tokens, &self.foreign);
        self.shared.swap(Arc::new(published));
    }

    fn lease(&mut self, request: &LeaseRequest, now_ms: u64) -> Result<Lease, BrokerError> {
        let audience = request.audience();
        check_bounds(&request.subject, &audience)?;
        let entry = self.store.entry(&request.slot);
        let Some(entry) = entry else { return Err(BrokerError::SlotMissing { slot: request.slot.clone() }) };
        let (has, needs, version) = (entry.record.provider(), request.provider, entry.version);
        let (organization, project) = (entry.record.organization(), entry.record.project());
        let (organization, project) = (organization.map(str::to_string), project.map(str::to_string));
        if has != needs {
            return Err(BrokerError::ProviderMismatch { slot: request.slot.clone(), has, needs });
        }
        let bound = vec![BoundSlot { slot: request.slot.clone(), version, env_key: None }];
        let issued = self.issue(request.subject.clone(), audience, bound, None, request.ttl_ms, now_ms)?;
        let expires_at_ms = issued.expires_at_ms;
        Ok(Lease { id: issued.id, slot: request.slot.clone(), version, expires_at_ms, organization, project })
    }

    pub(super) fn lease_connector(
        &mut self,
        request: ConnectorLeaseRequest,
        now_ms: u64,
    ) -> Result<ConnectorLease, BrokerError> {
        let mut bound = Vec::with_capacity(request.slots.len());
        for (env_key, slot) in request.slots {
            let Some(entry) = self.store.entry(&slot) else { return Err(BrokerError::SlotMissing { slot }) };
            let (has, needs) = (entry.record.provider(), Provider::Generic);
            if has != needs {
                return Err(BrokerError::ProviderMismatch { slot, has, needs });
            }
            bound.push(BoundSlot { slot, version: entry.version, env_key: Some(env_key) });
        }
        let mut env_keys: Vec<String> = bound.iter().filter_map(|bound| bound.env_key.clone()).collect();
        let mut secret_refs: Vec<SlotId> = bound.iter().map(|bound| bound.slot.clone()).collect();
        env_keys.sort_unstable();
        env_keys.dedup();
        secret_refs.sort_unstable();
        secret_refs.dedup();
        let has_long_key = env_keys.iter().any(|key| !(1..=LEASE_ENV_KEY_BYTES_MAX).contains(&key.len()));
        if bound.len() > LEASE_SLOTS_MAX || env_keys.len() != bound.len() || has_long_key {
            return Err(BrokerError::LeaseText);
        }
        let subject = Subject::alone(SubjectId::connector(&request.connector));
        let audience = Audience::Connector { connector: request.connector, env_keys, secret_refs };
        check_bounds(&subject, &audience)?;
        let token = random_token().ok_or(StoreError::NoRandom)?;
        let issued = self.issue(subject, audience, bound, Some(token_digest(&token)), request.ttl_ms, now_ms)?;
        self.tokens.push(duplicate(&token));
        self.republish();
        let IssuedLease { id, grant_id, expires_at_ms, .. } = issued;
        Ok(ConnectorLease { id, grant_id, expires_at_ms, token })
    }

    fn issue(
        &mut self,
        subject: Subject,
        audience: Audience,
        slots: Vec<BoundSlot>,
        token_digest: Option<String>,
        ttl_ms: u64,
        now_ms: u64,
    ) -> Result<IssuedLease, BrokerError> {
        self.ledger.forget_expired(now_ms);
        let permitted = self.ledger.permits(&subject, slots.iter().map(|bound| (&bound.slot, bound.version)));
        permitted.map_err(|refused| match refused {
            Refused::Full => BrokerError::LeasesFull,
            Refused::Subject(revoked) => BrokerError::SubjectRevoked { subject: subject.id.clone(), revoked },
            Refused::Slot(slot) => BrokerError::SlotRevoked { slot },
        })?;
        // Durable before the first lease of a version, once for each: a revocation after a crash must know of it.
        for bound in &slots {
            if self.ledger.is_first_lease(&bound.slot, bound.version) {
                let entry = Entry::SlotLeased { slot: bound.slot.clone(), version: bound.version };
                let at_ms = self.clock.now_ms();
                self.log.append(at_ms, &entry)?;
                self.ledger.apply(at_ms, &entry);
            }
        }
        let epoch = self.ledger.subject(&subject.id).map_or(0, |mark| mark.epoch);
        let lease = IssuedLease {
            id: random_id().ok_or(StoreError::NoRandom)?,
            grant_id: grant_id(&subject.id, &audience, epoch),
            subject,
            subject_epoch: epoch,
            audience,
            slots,
            token_digest,
            issued_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(ttl_ms.clamp(LEASE_TTL_MS_MIN, LEASE_TTL_MS_MAX)),
        };
        self.note(&Entry::LeaseIssued(lease.clone()));
        log::debug!("{} for {}", lease.id, lease.subject.id);
        Ok(lease)
    }

    fn redeem(&mut self, lease: Lease, now_ms: u64, reply: Sender<Result<Credential, BrokerError>>) {
        let checked = self.check(&lease, now_ms);
        let is_account = checked.is_ok()
            && self.store.entry(&lease.slot).is_some_and(|entry| entry.record.provider().mode() == Mode::OauthAccount);
        if is_account {
            return self.redeem_account(lease, now_ms, reply);
        }
        let credential = checked.and_then(|()| self.credential(&lease));
        drop(reply.send(credential));
    }

    /// Whether `lease` was issued with exactly these terms and is alive.
    pub(super) fn check(&mut self, lease: &Lease, now_ms: u64) -> Result<(), BrokerError> {
        self.ledger.forget_expired(now_ms);
        let id = || lease.id.clone();
        if lease.expires_at_ms < now_ms {
            return Err(BrokerError::LeaseExpired { id: id() });
        }
        let is_meant = |issued: &IssuedLease| {
            issued.expires_at_ms == lease.expires_at_ms
                && issued.slots.iter().any(|bound| (&bound.slot, bound.version) == (&lease.slot, lease.version))
        };
        if self.ledger.alive(&lease.id).is_some_and(is_meant) {
            return Ok(());
        }
        match self.ledger.ended(&lease.id) {
            Some(ended) if is_meant(&ended.lease) && ended.reason.is_revocation() => {
                Err(BrokerError::LeaseRevoked { id: id(), slot: lease.slot.clone(), reason: in_words(ended.reason) })
            }
            _ => Err(BrokerError::LeaseUnknown { id: id() }),
        }
    }

    /// The secret behind a checked lease. The version is compared with the store's once more: the rename of the store is
    /// the commit point of a change, whatever the ledger says.
    pub(super) fn credential(&self, lease: &Lease) -> Result<Credential, BrokerError> {
        match self.store.entry(&lease.slot) {
            Some(entry) if entry.version == lease.version => {
                Ok(Credential { secret: duplicate(entry.record.usable()) })
            }
            _ => Err(BrokerError::LeaseRevoked {
                id: lease.id.clone(),
                slot: lease.slot.clone(),
                reason: in_words(EndReason::SlotOverwritten),
            }),
        }
    }

    /// HMAC-SHA-256 over `message` with the secret behind `lease`, so that a signing key never leaves the broker.
    pub(super) fn sign(&mut self, lease: &Lease, message: &[u8], now_ms: u64) -> Result<[u8; 32], BrokerError> {
        self.check(lease, now_ms)?;
        let credential = self.credential(lease)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, credential.secret.expose());
        let mut signature = [0; 32];
        signature.copy_from_slice(hmac::sign(&key, message).as_ref());
        Ok(signature)
    }

    /// What a sidecar asks for: the secret of `env_key` behind its token.
    pub(super) fn fetch(
        &mut self,
        token: &Secret,
        connector: &str,
        env_key: &str,
        now_ms: u64,
    ) -> Result<Fetched, BrokerError> {
        self.ledger.forget_expired(now_ms);
        let unknown = || BrokerError::LeaseUnknown { id: "the token's lease".to_string() };
        let issued = self.ledger.by_token(&token_digest(token)).ok_or_else(unknown)?;
        let is_meant = matches!(&issued.audience, Audience::Connector { connector: named, .. } if named == connector);
        let bound = issued.slots.iter().find(|bound| bound.env_key.as_deref() == Some(env_key));
        let bound = bound.filter(|_| is_meant).ok_or_else(unknown)?;
        match self.store.entry(&bound.slot) {
            Some(entry) if entry.version == bound.version => match entry.record.material() {
                Material::Text { secret, .. } => Ok(Fetched {
                    value: duplicate(secret),
                    lease_id: issued.id.clone(),
                    grant_id: issued.grant_id.clone(),
                    expires_at_ms: issued.expires_at_ms,
                }),
                Material::Account(_) => Err(unknown()),
            },
            _ => Err(BrokerError::LeaseRevoked {
                id: issued.id.clone(),
                slot: bound.slot.clone(),
                reason: in_words(EndReason::SlotOverwritten),
            }),
        }
    }

    pub(super) fn release(&mut self, id: &str) {
        if self.ledger.alive(id).is_some() {
            self.note(&Entry::LeaseEnded { lease: id.to_string(), reason: EndReason::Released });
        }
    }

    pub(super) fn publish_stats(&self) {
        self.shared.lease_count.store(self.ledger.alive_count() as u64, Ordering::Relaxed);
        self.shared.set_log_stats(self.log.stats());
    }
}

impl Drop for Actor {
    /// Also when the thread panics.
    fn drop(&mut self) {
        self.shared.is_alive.store(false, Ordering::SeqCst);
    }
}

fn check_bounds(subject: &Subject, audience: &Audience) -> Result<(), BrokerError> {
    let is_named = |id: &SubjectId| (1..=LEASE_TEXT_BYTES_MAX).contains(&id.as_str().len());
    let is_bounded =
        subject.chain().all(is_named) && subject.acts_for.len() <= LEASE_SLOTS_MAX && audience.is_bounded();
    if is_bounded { Ok(()) } else { Err(BrokerError::LeaseText) }
}

pub(super) fn in_words(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Released => "its user gave it back",
        EndReason::Expired => "its time is up",
        EndReason::Restart => "the daemon was restarted",
        EndReason::LeaseRevoked => "it was revoked by its id",
        EndReason::SubjectRevoked => "its subject was revoked",
        EndReason::SlotRevoked => "the slot was revoked",
        EndReason::SlotOverwritten => "the slot was overwritten or deleted",
        EndReason::SlotDeleted => "the slot was overwritten or deleted",
    }
}
