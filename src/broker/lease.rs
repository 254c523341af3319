//! Leases as their holders see them, and the making of ids.
//! Owns: what is asked for, what is handed out, and how ids, grants and token digests are made.
//! May touch: the random source.
//! Never: holds a secret but a sidecar's token on its way to the sidecar.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::slot::{Provider, SlotId};
use super::subject::{Audience, Subject, SubjectId};
use crate::secret::Secret;

/// What a user of a credential asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Who will use it, and on whose behalf.
    pub subject: Subject,
    /// The slot.
    pub slot: SlotId,
    /// Whose credential it must be.
    pub provider: Provider,
    /// What for.
    pub use_for: Use,
    /// How long; brought into [`crate::limits::LEASE_TTL_MS_MIN`]..=[`crate::limits::LEASE_TTL_MS_MAX`].
    pub ttl_ms: u64,
}

/// What a lease of one slot is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// Calls of this model route.
    Route(String),
    /// Calls of an MCP server within scopes.
    McpServer {
        /// The server.
        server: String,
        /// Stands for the scopes.
        scopes_hash: String,
    },
    /// The daemon's own use for this connector: proving its callers, signing its calls.
    Connector(String),
    /// Calls of this HTTP hook: its bearer token or the key of its signature.
    Hook(String),
}

impl LeaseRequest {
    pub(super) fn audience(&self) -> Audience {
        let slot_id = self.slot.clone();
        match &self.use_for {
            Use::Route(route) => Audience::Route { route_id: route.clone(), slot_id },
            Use::Hook(hook) => Audience::Hook { hook: hook.clone(), slot_id },
            Use::McpServer { server, scopes_hash } => {
                Audience::McpServer { server: server.clone(), slot_id, scopes_hash: scopes_hash.clone() }
            }
            Use::Connector(connector) => {
                let (connector, secret_refs) = (connector.clone(), vec![slot_id]);
                Audience::Connector { connector, env_keys: Vec::new(), secret_refs }
            }
        }
    }
}

/// What is asked for a sidecar process: one lease for all its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorLeaseRequest {
    /// The connector.
    pub connector: String,
    /// The names under which the process asks, and the generic slots behind them.
    pub slots: Vec<(String, SlotId)>,
    /// How long, as in [`LeaseRequest`].
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
    /// OpenAI's organization that the secret belongs to; no secret itself.
    pub organization: Option<String>,
    /// OpenAI's project.
    pub project: Option<String>,
}

/// A sidecar's lease, with the token that stands for it on the way to the sidecar.
#[derive(Debug)]
pub struct ConnectorLease {
    /// Names the lease.
    pub id: String,
    /// Names the grant.
    pub grant_id: String,
    /// The last millisecond of its life.
    pub expires_at_ms: u64,
    /// Handed to the process once; only its digest is kept.
    pub token: Secret,
}

/// A secret that a sidecar fetched, and the lease that allowed it.
#[derive(Debug)]
pub struct Fetched {
    /// The value.
    pub value: Secret,
    /// The lease.
    pub lease_id: String,
    /// Its grant.
    pub grant_id: String,
    /// The last millisecond of its life.
    pub expires_at_ms: u64,
}

/// `lease-` and 128 random bits: nobody can guess another's.
pub(super) fn random_id() -> Option<String> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(format!("lease-{:032x}", u128::from_be_bytes(bytes)))
}

/// 256 random bits as text.
pub(super) fn random_token() -> Option<Secret> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    SystemRandom::new().fill(&mut *bytes).ok()?;
    Some(Secret::new(URL_SAFE_NO_PAD.encode(*bytes).into_bytes()))
}

/// What of a token is kept.
pub(super) fn token_digest(token: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, token.expose()))
}

/// The same for the same subject, audience and epoch.
pub(super) fn grant_id(subject: &SubjectId, audience: &Audience, epoch: u64) -> String {
    let text = serde_json::to_vec(&("grant", subject, audience, epoch)).expect("text and numbers");
    URL_SAFE_NO_PAD.encode(digest(&SHA256, &text))
}
