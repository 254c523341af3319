//! Leases: permissions to use one slot's present secret for a short time.
//! Owns: the leases alive, in memory.
//! May touch: the random source, for ids.
//! Never: holds a secret; outlives the process.

use std::collections::{BTreeSet, HashMap};

use ring::rand::{SecureRandom, SystemRandom};

use super::slot::{Provider, SlotId};
use crate::limits::{LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN, LEASES_MAX};

/// What a user of a credential asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Who will use it: `session:…`, `agent:…`, `connector:…` or `daemon`.
    pub subject: String,
    /// The slot.
    pub slot: SlotId,
    /// Whose credential it must be.
    pub provider: Provider,
    /// What for: `route:…`.
    pub audience: String,
    /// How long; brought into [`LEASE_TTL_MS_MIN`]..=[`LEASE_TTL_MS_MAX`].
    pub ttl_ms: u64,
}

/// A lease as its holder has it: plain data, worthless outside this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Names the lease in the `external_action.request` record.
    pub id: String,
    /// The slot.
    pub slot: SlotId,
    /// The version of the slot's secret that it is for.
    pub version: u64,
    /// The last millisecond of its life.
    pub expires_at_ms: u64,
}

/// What the broker knows of a lease.
#[derive(Debug, PartialEq, Eq)]
struct Alive {
    slot: SlotId,
    version: u64,
    expires_at_ms: u64,
}

/// Why no lease was issued.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IssueError {
    Full,
    NoRandom,
}

/// Why a lease was not honoured.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LeaseError {
    Unknown,
    Expired,
}

/// The leases alive. Expired ones are forgotten at each call.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_id: HashMap<String, Alive>,
    by_expiry: BTreeSet<(u64, String)>,
}

impl Leases {
    pub(super) fn issue(&mut self, request: &LeaseRequest, version: u64, now_ms: u64) -> Result<Lease, IssueError> {
        self.forget_expired(now_ms);
        if self.by_id.len() >= LEASES_MAX {
            return Err(IssueError::Full);
        }
        let id = random_id().ok_or(IssueError::NoRandom)?;
        let expires_at_ms = now_ms.saturating_add(request.ttl_ms.clamp(LEASE_TTL_MS_MIN, LEASE_TTL_MS_MAX));
        self.by_expiry.insert((expires_at_ms, id.clone()));
        self.by_id.insert(id.clone(), Alive { slot: request.slot.clone(), version, expires_at_ms });
        Ok(Lease { id, slot: request.slot.clone(), version, expires_at_ms })
    }

    /// Whether `lease` was issued with exactly these terms and has not expired. Its slot's version is the
    /// store's business.
    pub(super) fn check(&mut self, lease: &Lease, now_ms: u64) -> Result<(), LeaseError> {
        let is_expired = lease.expires_at_ms < now_ms;
        let is_issued = self.by_id.get(&lease.id).is_some_and(|alive| {
            (&alive.slot, alive.version, alive.expires_at_ms) == (&lease.slot, lease.version, lease.expires_at_ms)
        });
        self.forget_expired(now_ms);
        match (is_expired, is_issued) {
            (true, _) => Err(LeaseError::Expired),
            (false, false) => Err(LeaseError::Unknown),
            (false, true) => Ok(()),
        }
    }

    pub(super) fn release(&mut self, id: &str) {
        if let Some(alive) = self.by_id.remove(id) {
            self.by_expiry.remove(&(alive.expires_at_ms, id.to_string()));
        }
    }

    fn forget_expired(&mut self, now_ms: u64) {
        while self.by_expiry.first().is_some_and(|(expires_at_ms, _)| *expires_at_ms < now_ms) {
            if let Some((_, id)) = self.by_expiry.pop_first() {
                self.by_id.remove(&id);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

/// `lease-` and 128 random bits: nobody can guess another's.
fn random_id() -> Option<String> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(format!("lease-{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(ttl_ms: u64) -> LeaseRequest {
        LeaseRequest {
            subject: "session:a".to_string(),
            slot: SlotId::parse("openai.prod").unwrap(),
            provider: Provider::OpenAi,
            audience: "route:main".to_string(),
            ttl_ms,
        }
    }

    #[test]
    fn a_lease_is_honoured_through_its_last_millisecond_and_not_after() {
        let mut leases = Leases::default();
        let lease = leases.issue(&request(5_000), 3, 1_000).unwrap();
        assert_eq!((lease.version, lease.expires_at_ms), (3, 6_000));
        assert_eq!(leases.check(&lease, 6_000), Ok(()));
        assert_eq!(leases.check(&lease, 6_001), Err(LeaseError::Expired));
        assert_eq!((leases.len(), leases.by_expiry.len()), (0, 0));
        // A clock that is set back does not bring it back.
        assert_eq!(leases.check(&lease, 1_000), Err(LeaseError::Unknown));
    }

    #[test]
    fn a_lease_that_was_not_issued_with_exactly_these_terms_is_unknown() {
        let mut leases = Leases::default();
        let lease = leases.issue(&request(5_000), 3, 1_000).unwrap();
        let other = SlotId::parse("openai.other").unwrap();
        for forged in [
            Lease { id: "lease-0".to_string(), ..lease.clone() },
            Lease { version: 4, ..lease.clone() },
            Lease { slot: other, ..lease.clone() },
            Lease { expires_at_ms: u64::MAX, ..lease.clone() },
        ] {
            assert_eq!(leases.check(&forged, 2_000), Err(LeaseError::Unknown), "{forged:?}");
        }
        leases.release(&lease.id);
        assert_eq!(leases.check(&lease, 2_000), Err(LeaseError::Unknown));
        assert_eq!(leases.by_expiry.len(), 0);
    }

    #[test]
    fn the_life_of_a_lease_and_their_number_are_bounded() {
        let mut leases = Leases::default();
        for (ttl_ms, life_ms) in [(0, LEASE_TTL_MS_MIN), (u64::MAX, LEASE_TTL_MS_MAX), (2_000, 2_000)] {
            assert_eq!(leases.issue(&request(ttl_ms), 1, 10).unwrap().expires_at_ms, 10 + life_ms);
        }
        while leases.len() < LEASES_MAX {
            leases.issue(&request(2_000), 1, 10).unwrap();
        }
        assert_eq!(leases.issue(&request(2_000), 1, 10), Err(IssueError::Full));
        // Room comes back as leases expire.
        assert!(leases.issue(&request(2_000), 1, 10_000).is_ok());
    }
}
