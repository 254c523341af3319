//! Connectors: their configuration, the sessions that binding keys name, and the hold of a restored state root.
//! Owns: the records, the state folded from them, and the decisions about them.
//! Never: reads a configuration; it is kept as it was written. Never holds a secret: whoever hands a configuration in has
//! replaced secrets by references.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::command::{Decision, IdempotencyKey, Refusal};
use super::delivery::RunReplyTarget;
use super::event::{Body, RunAccepted, SessionCreated};
use super::run::Run;
use super::txn::{Txn, agent_id};
use crate::ids::{RunId, SessionId};
use crate::limits::{CONNECTORS_MAX, QUEUED_RUNS_MAX, SESSION_BINDINGS_MAX, SESSIONS_MAX};

/// Where a connector's events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectorKind {
    /// Signed or authenticated HTTP requests.
    Http,
    /// Slack's Events API.
    Slack,
    /// Telegram's webhook.
    Telegram,
    /// A sidecar that speaks our own protocol.
    External,
}

impl ConnectorKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::Slack, Self::Telegram, Self::External];

    /// As paths and records spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Slack => "slack",
            Self::Telegram => "telegram",
            Self::External => "external",
        }
    }

    /// Reads it back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for ConnectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A connector that was configured at runtime.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connector {
    /// Its kind.
    pub kind: ConnectorKind,
    /// Its name, unique within its kind.
    pub name: String,
    /// Counts over all connectors of the state root and never repeats.
    pub revision: u64,
    /// When it was last put, Unix milliseconds.
    pub updated_at_ms: u64,
    /// The whole configuration; secrets are references.
    pub config: Box<RawValue>,
}

/// Why nothing passes through connectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorsHold {
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All connectors that were configured at runtime.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Connectors {
    /// The newest revision given out.
    pub revision: u64,
    /// Set while nothing passes.
    pub hold: Option<ConnectorsHold>,
    all: Vec<Connector>,
}

impl Connectors {
    /// One of them.
    pub fn get(&self, kind: ConnectorKind, name: &str) -> Option<&Connector> {
        self.all.iter().find(|known| known.kind == kind && known.name == name)
    }

    /// All, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = &Connector> {
        self.all.iter()
    }

    fn put(&mut self, connector: Connector) {
        self.remove(connector.kind, connector.name.as_str());
        let place = |known: &Connector| (known.kind, known.name.as_str()) < (connector.kind, &connector.name);
        let at = self.all.partition_point(place);
        self.all.insert(at, connector);
    }

    fn remove(&mut self, kind: ConnectorKind, name: &str) {
        self.all.retain(|known| known.kind != kind || known.name != name);
    }
}

/// What can be asked about connectors.
#[derive(Debug, Clone)]
pub enum ConnectorCommand {
    /// Create one, or replace its configuration; always a new revision.
    Put {
        /// Its kind.
        kind: ConnectorKind,
        /// Its name.
        name: String,
        /// The whole configuration.
        config: Box<RawValue>,
        /// Refuse when another revision is in force; 0 is none.
        expected_revision: Option<u64>,
    },
    /// Remove one.
    Delete {
        /// Its kind.
        kind: ConnectorKind,
        /// Its name.
        name: String,
    },
    /// Let nothing pass, or let it pass again.
    Hold {
        /// Whether to hold.
        held: bool,
        /// Why.
        reason: Option<String>,
    },
    /// Accept the run that an event makes.
    Ingest(Ingest),
}

/// A run as an event asks for it.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// The session.
    pub session: SessionId,
    /// Create the session if it does not exist.
    pub create: bool,
    /// Digests of binding keys that name the session from here on, where they name none yet.
    pub bind: Vec<[u8; 16]>,
    /// The normalised submission.
    pub request: Box<RawValue>,
    /// Route id, resolved by the caller.
    pub route: String,
    /// Model, resolved by the caller.
    pub model: String,
    /// For repeated events.
    pub idempotency: Option<IdempotencyKey>,
    /// Where the run's output goes.
    pub reply_targets: Vec<RunReplyTarget>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Its run, or the run of the first event with this key.
    pub run: RunId,
    /// That run's session.
    pub session: SessionId,
    /// The session's number.
    pub session_number: u32,
    /// Whether it is a new one.
    pub outcome: IngestOutcome,
}

/// New, repeated or contradicting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngestOutcome {
    /// The run was accepted.
    Accepted {
        /// Place in the queue; 0 when it started.
        position: u32,
        /// When.
        submitted_at_ms: u64,
    },
    /// An earlier event with the same key and content made this run.
    Duplicate(Run),
    /// An earlier event with the same key and another content made it.
    Conflict,
}

/// What happened to connectors.
#[derive(Debug, Clone)]
pub enum ConnectorRecord {
    /// `connector.put`
    Put(ConnectorPut),
    /// `connector.deleted`
    Deleted(ConnectorDeleted),
    /// `connectors.hold_changed`
    HoldChanged(ConnectorsHoldChanged),
    /// `session.bound`
    SessionBound(SessionBound),
}

/// Body of `connector.put`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectorPut {
    /// Its kind.
    pub kind: ConnectorKind,
    /// Its name.
    pub name: String,
    /// Its revision from here on.
    pub revision: u64,
    /// The whole configuration.
    pub config: Box<RawValue>,
}

/// Body of `connector.deleted`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectorDeleted {
    /// Its kind.
    pub kind: ConnectorKind,
    /// Its name.
    pub name: String,
}

/// Body of `connectors.hold_changed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectorsHoldChanged {
    /// Whether nothing passes from here on.
    pub held: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `session.bound`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionBound {
    /// Digests of the keys that name the session.
    pub keys: Vec<BindingKey>,
}

/// First 128 bits of SHA-256 over a binding key.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BindingKey(#[serde(with = "super::event::hex16")] pub [u8; 16]);

impl ConnectorRecord {
    /// The record kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Put(_) => "connector.put",
            Self::Deleted(_) => "connector.deleted",
            Self::HoldChanged(_) => "connectors.hold_changed",
            Self::SessionBound(_) => "session.bound",
        }
    }

    /// The body as JSON.
    pub fn encode(&self) -> Vec<u8> {
        let written = match self {
            Self::Put(body) => serde_json::to_vec(body),
            Self::Deleted(body) => serde_json::to_vec(body),
            Self::HoldChanged(body) => serde_json::to_vec(body),
            Self::SessionBound(body) => serde_json::to_vec(body),
        };
        written.expect("bodies have string keys and no failing serialisers")
    }

    /// Reads a body back; `None` for a kind of somebody else.
    pub fn decode(kind: &str, body: &RawValue) -> Option<Result<Self, serde_json::Error>> {
        let text = body.get();
        Some(match kind {
            "connector.put" => serde_json::from_str(text).map(Self::Put),
            "connector.deleted" => serde_json::from_str(text).map(Self::Deleted),
            "connectors.hold_changed" => serde_json::from_str(text).map(Self::HoldChanged),
            "session.bound" => serde_json::from_str(text).map(Self::SessionBound),
            _ => return None,
        })
    }
}

impl Txn<'_> {
    pub(super) fn decide_connector(&mut self, command: ConnectorCommand) -> Result<Decision, Refusal> {
        match command {
            ConnectorCommand::Put { kind, name, config, expected_revision } => {
                self.put_connector(kind, name, config, expected_revision)
            }
            ConnectorCommand::Delete { kind, name } => self.delete_connector(kind, name),
            ConnectorCommand::Hold { held, reason } => {
                if self.connectors().hold.is_some() != held {
                    self.emit_connector(ConnectorRecord::HoldChanged(ConnectorsHoldChanged { held, reason }));
                }
                Ok(self.connectors_decision())
            }
            ConnectorCommand::Ingest(ingest) => self.ingest(ingest),
        }
    }

    /// Ends a hold that the start of the daemon began, not an operator's own.
    pub(super) fn release_connectors_of_start(&mut self, reason: Option<String>) {
        let is_of_start = |hold: &ConnectorsHold| hold.reason.as_deref().is_some_and(super::is_hold_of_start);
        if self.connectors().hold.as_ref().is_some_and(is_of_start) {
            self.emit_connector(ConnectorRecord::HoldChanged(ConnectorsHoldChanged { held: false, reason }));
        }
    }

    fn put_connector(
        &mut self,
        kind: ConnectorKind,
        name: String,
        config: Box<RawValue>,
        expected: Option<u64>,
    ) -> Result<Decision, Refusal> {
        let connectors = self.connectors();
        let current = connectors.get(kind, &name).map_or(0, |known| known.revision);
        if let Some(expected) = expected.filter(|expected| *expected != current) {
            return Err(Refusal::ConnectorRevisionConflict { expected, current });
        }
        if current == 0 && connectors.all.len() >= CONNECTORS_MAX {
            return Err(Refusal::ConnectorLimit { what: "connectors", most: CONNECTORS_MAX });
        }
        let revision = connectors.revision + 1;
        self.emit_connector(ConnectorRecord::Put(ConnectorPut { kind, name, revision, config }));
        Ok(self.connectors_decision())
    }

    fn delete_connector(&mut self, kind: ConnectorKind, name: String) -> Result<Decision, Refusal> {
        if self.connectors().get(kind, &name).is_none() {
            return Err(Refusal::ConnectorNotFound { kind, name });
        }
        self.emit_connector(ConnectorRecord::Deleted(ConnectorDeleted { kind, name }));
        Ok(self.connectors_decision())
    }

    fn connectors_decision(&self) -> Decision {
        Decision::Connectors { revision: self.connectors().revision }
    }

    fn emit_connector(&mut self, record: ConnectorRecord) {
        self.emit_global(None, Body::Connector(record));
    }

    fn ingest(&mut self, ingest: Ingest) -> Result<Decision, Refusal> {
        let Ingest { session: id, create, bind, request, route, model, idempotency, reply_targets } = ingest;
        if let Some(key) = &idempotency
            && let Some(number) = self.repeated(&key.key)
        {
            return Ok(self.ingested_before(number, key.fingerprint));
        }
        if let Some(hold) = &self.connectors().hold {
            return Err(Refusal::ConnectorsHeld { reason: hold.reason.clone() });
        }
        let known = self.session_number(&id);
        let bind: Vec<_> = bind.into_iter().filter(|key| self.bound(key).is_none()).collect();
        // Everything that could refuse the run later is looked at before the first record.
        if known.is_none() && !create {
            return Err(Refusal::SessionNotFound(id));
        }
        if known.is_none() && self.session_count() >= SESSIONS_MAX {
            return Err(Refusal::SessionLimit);
        }
        if self.queued_runs() >= QUEUED_RUNS_MAX || self.next_run() == u32::MAX {
            return Err(Refusal::RunQueueFull);
        }
        if !bind.is_empty() && self.binding_count() + bind.len() > SESSION_BINDINGS_MAX {
            return Err(Refusal::ConnectorLimit { what: "binding keys", most: SESSION_BINDINGS_MAX });
        }
        let session_number = match known {
            Some(number) => number,
            None => {
                let number = self.session_count() as u32 + 1;
                let created = SessionCreated { agent: agent_id(number), thread_id: None, parent: None };
                self.emit_global(Some(id.clone()), Body::SessionCreated(created));
                number
            }
        };
        let accepted = RunAccepted {
            agent: String::new(),
            kind: "input".to_string(),
            position: 0,
            route,
            model,
            idempotency,
            mail: Vec::new(),
            reply_targets,
            request,
        };
        let decided = self.submit_run(id.clone(), accepted)?;
        if !bind.is_empty() {
            let keys = bind.into_iter().map(BindingKey).collect();
            self.emit(session_number, 0, Body::Connector(ConnectorRecord::SessionBound(SessionBound { keys })));
        }
        match decided {
            Decision::Accepted { run, session_number, position, submitted_at_ms } => {
                let outcome = IngestOutcome::Accepted { position, submitted_at_ms };
                Ok(Decision::Ingested(Box::new(Ingested { run, session: id, session_number, outcome })))
            }
            other => Ok(other),
        }
    }

    fn ingested_before(&self, number: u32, fingerprint: [u8; 16]) -> Decision {
        let state = *self.run(number).expect("keys name known runs");
        let session = self.session(state.session).expect("runs have sessions").id.clone();
        let outcome = match state.fingerprint == fingerprint {
            true => IngestOutcome::Duplicate(state),
            false => IngestOutcome::Conflict,
        };
        let run = self.base().run_id(number);
        Decision::Ingested(Box::new(Ingested { run, session, session_number: state.session, outcome }))
    }

    /// A record that belongs to no session.
    pub(super) fn apply_connector(&mut self, at_ms: u64, record: &ConnectorRecord) -> Result<(), String> {
        let mut connectors = Connectors::clone(&self.connectors());
        match record.clone() {
            ConnectorRecord::Put(ConnectorPut { kind, name, revision, config }) => {
                if revision <= connectors.revision {
                    return Err(format!("connector revision {revision} follows {}", connectors.revision));
                }
                connectors.revision = revision;
                connectors.put(Connector { kind, name, revision, updated_at_ms: at_ms, config });
            }
            ConnectorRecord::Deleted(ConnectorDeleted { kind, name }) => {
                connectors.revision += 1;
                connectors.remove(kind, &name);
            }
            ConnectorRecord::HoldChanged(ConnectorsHoldChanged { held, reason }) => {
                connectors.revision += 1;
                connectors.hold = held.then_some(ConnectorsHold { since_ms: at_ms, reason });
            }
            ConnectorRecord::SessionBound(_) => return Err("session.bound names no session".to_string()),
        }
        self.stage_connectors(Arc::new(connectors));
        Ok(())
    }

    pub(super) fn apply_session_bound(&mut self, session: u32, record: &ConnectorRecord) -> Result<(), String> {
        let ConnectorRecord::SessionBound(bound) = record else {
            return Err(format!("{} names a session", record.kind()));
        };
        bound.keys.iter().for_each(|key| self.stage_binding(key.0, session));
        Ok(())
    }
}

/// Bindings as lines of a snapshot; at most this many a line.
pub(super) const BINDINGS_PER_LINE: usize = 1_024;

/// Bindings, for a snapshot.
pub(super) fn binding_lines(bindings: &BTreeMap<[u8; 16], u32>) -> Vec<Vec<(BindingKey, u32)>> {
    let all: Vec<_> = bindings.iter().map(|(key, session)| (BindingKey(*key), *session)).collect();
    all.chunks(BINDINGS_PER_LINE).map(<[_]>::to_vec).collect()
}
