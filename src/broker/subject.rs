//! Who uses a credential, and what for.
//! Owns: the grammar of subject ids, and the forms of an audience.
//! May touch: nothing outside its arguments.
//! Never: decides whether somebody may; that is the ledger's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::slot::SlotId;
use crate::limits::LEASE_TEXT_BYTES_MAX;

/// A text is no subject id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectError;

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the text is no subject id; next: write daemon, or session:, agent:, connector:, mcp:, route: or hook: with an \
             id behind it, {LEASE_TEXT_BYTES_MAX} bytes at most"
        )
    }
}

impl std::error::Error for SubjectError {}

/// Who uses credentials: `session:<id>`, `agent:<id>`, `connector:<name>`, `mcp:<server>`, `route:<id>`,
/// `hook:<name>` or `daemon`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SubjectId(String);

/// The words before the colon.
const KINDS: [&str; 6] = ["session", "agent", "connector", "mcp", "route", "hook"];
const DAEMON: &str = "daemon";

impl SubjectId {
    /// Reads an id: up to [`LEASE_TEXT_BYTES_MAX`] bytes, without control characters.
    ///
    /// # Errors
    /// [`SubjectError`].
    pub fn parse(raw: &str) -> Result<Self, SubjectError> {
        let is_plain = raw.len() <= LEASE_TEXT_BYTES_MAX && !raw.chars().any(char::is_control);
        let is_named = raw.split_once(':').is_some_and(|(kind, id)| KINDS.contains(&kind) && !id.is_empty());
        if is_plain && (is_named || raw == DAEMON) { Ok(Self(raw.to_string())) } else { Err(SubjectError) }
    }

    /// A session.
    pub fn session(id: impl fmt::Display) -> Self {
        Self(format!("session:{id}"))
    }

    /// An agent.
    pub fn agent(id: impl fmt::Display) -> Self {
        Self(format!("agent:{id}"))
    }

    /// A connector.
    pub fn connector(name: impl fmt::Display) -> Self {
        Self(format!("connector:{name}"))
    }

    /// An MCP server.
    pub fn mcp(server: impl fmt::Display) -> Self {
        Self(format!("mcp:{server}"))
    }

    /// An HTTP hook.
    pub fn hook(name: impl fmt::Display) -> Self {
        Self(format!("hook:{name}"))
    }

    /// The daemon itself, where nobody else is behind an act.
    pub fn daemon() -> Self {
        Self(DAEMON.to_string())
    }

    /// The word before the colon.
    pub fn kind(&self) -> &str {
        self.0.split_once(':').map_or(DAEMON, |(kind, _)| kind)
    }

    /// What stands behind the colon; empty for the daemon.
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, name)| name)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SubjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(serde::de::Error::custom)
    }
}

/// A subject with those it acts for: revoking any of them takes its credentials away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Who it is.
    #[serde(rename = "subject_id")]
    pub id: SubjectId,
    /// On whose behalf, nearest first: delegating agents, then the session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts_for: Vec<SubjectId>,
}

impl Subject {
    /// A subject that acts for nobody else.
    pub fn alone(id: SubjectId) -> Self {
        Self { id, acts_for: Vec::new() }
    }

    /// An agent of a session.
    pub fn agent_of(agent: impl fmt::Display, session: impl fmt::Display) -> Self {
        Self { id: SubjectId::agent(agent), acts_for: vec![SubjectId::session(session)] }
    }

    /// The subject and those it acts for.
    pub fn chain(&self) -> impl Iterator<Item = &SubjectId> {
        std::iter::once(&self.id).chain(&self.acts_for)
    }
}

/// What a credential is used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum Audience {
    /// Calls of a model route, with the credential of `slot_id`.
    Route { route_id: String, slot_id: SlotId },
    /// A sidecar process that fetches the secrets of `env_keys`, which `secret_refs` hold.
    Connector {
        connector: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        env_keys: Vec<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        secret_refs: Vec<SlotId>,
    },
    /// Calls of an MCP server within the scopes that `scopes_hash` stands for.
    McpServer { server: String, slot_id: SlotId, scopes_hash: String },
    /// Calls of an HTTP hook, with the credential or signing key of `slot_id`.
    Hook { hook: String, slot_id: SlotId },
}

impl Audience {
    /// The word of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Route { .. } => "route",
            Self::Connector { .. } => "connector",
            Self::McpServer { .. } => "mcp_server",
            Self::Hook { .. } => "hook",
        }
    }

    /// Whether its texts are within bounds.
    pub(super) fn is_bounded(&self) -> bool {
        let is_name = |text: &String| (1..=LEASE_TEXT_BYTES_MAX).contains(&text.len());
        match self {
            Self::Route { route_id, .. } => is_name(route_id),
            Self::Connector { connector, .. } => is_name(connector),
            Self::Hook { hook, .. } => is_name(hook),
            Self::McpServer { server, scopes_hash, .. } => is_name(server) && scopes_hash.len() <= LEASE_TEXT_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_ids_have_a_known_kind_and_a_name() {
        for (raw, kind, name) in [
            ("session:compromised-session", "session", "compromised-session"),
            ("session:slack:T1:C2", "session", "slack:T1:C2"),
            ("agent:agent-1", "agent", "agent-1"),
            ("connector:ops webhook", "connector", "ops webhook"),
            ("mcp:docs", "mcp", "docs"),
            ("route:openai", "route", "openai"),
            ("daemon", "daemon", ""),
        ] {
            let id = SubjectId::parse(raw).unwrap();
            assert_eq!((id.kind(), id.name(), id.as_str()), (kind, name, raw));
        }
        let long = format!("session:{}", "x".repeat(LEASE_TEXT_BYTES_MAX));
        for raw in
            ["", "session", "session:", ":x", "user:x", "Session:x", "session:a\nb", "daemon:x", " daemon", &long]
        {
            assert_eq!(SubjectId::parse(raw), Err(SubjectError), "{raw:?}");
        }
    }
}
