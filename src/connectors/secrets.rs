//! Secrets that the daemon itself uses for a connector.
//! Owns: a copy of each, for as long as it is the slot's present version, is not blocked and the connector is not revoked.
//! May touch: the broker, and the daemon's environment.
//! Never: uses a copy of which the broker has said that it no longer holds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::config::{SecretRef, Settings};
use crate::broker::{BrokerError, BrokerHandle, LeaseRequest, Provider, SlotId, Subject, SubjectId, Use};
use crate::limits::LEASE_TTL_MS_MIN;
use crate::secret::Secret;

/// Why a secret cannot be had.
#[derive(Debug)]
pub enum SecretError {
    /// The broker refuses it, or does not answer.
    Broker {
        /// The slot.
        slot: SlotId,
        /// What it said.
        cause: BrokerError,
    },
    /// The variable is not set, or blank.
    Variable {
        /// Its name.
        name: String,
    },
    /// The connector was revoked.
    Revoked {
        /// Its name.
        connector: String,
    },
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { slot, cause } => write!(f, "slot {slot}: {cause}"),
            Self::Variable { name } => write!(
                f,
                "variable {name} is not set or blank; next: start the daemon with it, or use a secret_ref instead"
            ),
            Self::Revoked { connector } => write!(
                f,
                "connector:{connector} was revoked; next: `kheish-daemon runtime auth reinstate-subject \
                 connector:{connector}` once it is safe"
            ),
        }
    }
}

impl std::error::Error for SecretError {}

/// A secret with the version of its slot; 0 where it has none.
#[derive(Debug, Clone)]
pub struct Versioned {
    /// The value.
    pub secret: Arc<Secret>,
    /// Its slot's version.
    pub version: u64,
}

/// A variable of the daemon's environment, unless it is blank.
pub fn variable(name: &str) -> Option<Secret> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty()).map(|value| Secret::new(value.into_bytes()))
}

/// The values of the variables that a connector names.
pub fn from_environment(settings: &Settings) -> Vec<Arc<Secret>> {
    let named = settings.secrets().into_iter().filter_map(|(_, secret)| match secret {
        SecretRef::Env(name) => variable(name),
        SecretRef::SecretRef(_) | SecretRef::Inline(_) => None,
    });
    named.map(Arc::new).collect()
}

/// The secrets of one connector.
#[derive(Debug)]
pub struct Secrets {
    connector: String,
    subject: SubjectId,
    inline: BTreeMap<String, Arc<Secret>>,
    held: Mutex<BTreeMap<SlotId, Versioned>>,
}

impl Secrets {
    /// Of this connector, with those that its file holds by field.
    pub fn new(connector: &str, inline: BTreeMap<String, Arc<Secret>>) -> Self {
        let subject = SubjectId::connector(connector);
        Self { connector: connector.to_string(), subject, inline, held: Mutex::default() }
    }

    /// Those that stand in the file itself.
    pub fn inline(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.inline.values()
    }

    /// Whether the connector was revoked.
    pub fn is_revoked(&self, broker: &BrokerHandle) -> bool {
        broker.is_subject_revoked(&self.subject)
    }

    /// The present secret of a field. Waits for the broker only for a version that was not asked for before.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn get(
        &self,
        broker: &BrokerHandle,
        field: &str,
        source: &SecretRef,
        now_ms: u64,
    ) -> Result<Versioned, SecretError> {
        if self.is_revoked(broker) {
            return Err(SecretError::Revoked { connector: self.connector.clone() });
        }
        match source {
            SecretRef::SecretRef(slot) => self.of_slot(broker, slot, now_ms),
            SecretRef::Env(name) => {
                let secret = variable(name).ok_or_else(|| SecretError::Variable { name: name.clone() })?;
                Ok(Versioned { secret: Arc::new(secret), version: 0 })
            }
            SecretRef::Inline(_) => {
                let secret = self.inline.get(field).cloned();
                secret
                    .map(|secret| Versioned { secret, version: 0 })
                    .ok_or_else(|| SecretError::Variable { name: field.to_string() })
            }
        }
    }

    fn of_slot(&self, broker: &BrokerHandle, slot: &SlotId, now_ms: u64) -> Result<Versioned, SecretError> {
        let failed = |cause| SecretError::Broker { slot: slot.clone(), cause };
        let state = broker.slot_state(slot).map_err(failed)?;
        let present = state.filter(|state| !state.blocked).map(|state| state.version);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(slot).cloned();
        if let Some(held) = held.filter(|held| Some(held.version) == present) {
            return Ok(held);
        }
        let request = LeaseRequest {
            subject: Subject::alone(self.subject.clone()),
            slot: slot.clone(),
            provider: Provider::Generic,
            use_for: Use::Connector(self.connector.clone()),
            ttl_ms: LEASE_TTL_MS_MIN,
        };
        let lease = broker.lease(request, now_ms).map_err(failed)?;
        let redeemed = broker.redeem(&lease, now_ms);
        let version = lease.version;
        broker.release(lease);
        let credential = redeemed.map_err(failed)?;
        let found = Versioned { secret: Arc::new(credential.secret), version };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(slot.clone(), found.clone());
        Ok(found)
    }
}
