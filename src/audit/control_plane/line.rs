//! One line of the control-plane audit file.
//! Owns: the event names and the order of the fields.
//! Never: has a field that could hold a token.

use serde::{Serialize, Serializer};

use super::book::{Book, Position};
use crate::actor::{Actor, ActorRole};
use crate::core::record_hash;
use crate::http::{Method, Peer, RequestId};

/// What happened. The name stands in both `event` and `code`: readers of either field find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditEvent {
    /// A caller was not let in.
    AuthFailure,
    /// A peer's failures are answered 429 from here on; once for each window.
    AuthRateLimited,
    /// A page of a foreign origin called.
    CorsOriginRejected,
    /// A peer's rejected origins are no longer written one by one; once for each window.
    CorsOriginRateLimited,
    /// A request named a host that an unauthenticated listener does not answer for.
    HostRejected,
    /// What came through a connector was refused.
    ConnectorRefused,
    /// A peer's refused events are no longer written one by one; once for each window.
    ConnectorRateLimited,
    /// Lines were left out to bound a flood.
    RefusalsSuppressed,
    /// A caller changed something, or tried to.
    AdminAction,
    /// Every act up to this place of the journal has its line.
    ActsComplete,
}

impl AuditEvent {
    /// The published name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthFailure => "auth_failure",
            Self::AuthRateLimited => "auth_rate_limited",
            Self::CorsOriginRejected => "cors_origin_rejected",
            Self::CorsOriginRateLimited => "cors_origin_rate_limited",
            Self::HostRejected => "host_rejected",
            Self::ConnectorRefused => "connector_refused",
            Self::ConnectorRateLimited => "connector_rate_limited",
            Self::RefusalsSuppressed => "refusals_suppressed",
            Self::AdminAction => "admin_action",
            Self::ActsComplete => "acts_complete",
        }
    }
}

/// One line, before it has its number.
#[derive(Debug, Clone)]
pub struct AuditLine {
    /// When, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// What.
    pub event: AuditEvent,
    /// The request's method; none for [`AuditEvent::RefusalsSuppressed`].
    pub method: Option<Method>,
    /// The request's path without its query, shortened.
    pub path: Option<String>,
    /// Problem code of a refusal.
    pub reason: Option<&'static str>,
    /// The page's origin, shortened and free of control characters.
    pub origin: Option<String>,
    /// The TCP peer, or `unix`.
    pub peer: Option<Peer>,
    /// The access that the route needs.
    pub required_access: Option<&'static str>,
    /// Status of the answer to an admin action.
    pub status: Option<u16>,
    /// The caller's role.
    pub role: Option<&'static str>,
    /// First bytes of the token's digest, in hexadecimal.
    pub token_fingerprint: Option<String>,
    /// The request's id.
    pub request_id: Option<RequestId>,
    /// Lines that were left out.
    pub suppressed: Option<u64>,
    /// What was done, where a journal record tells: its kind, or the act outside the journal.
    pub act: Option<String>,
    /// What it was done to, for an act outside the journal.
    pub target: Option<String>,
    /// What became of such an act.
    pub outcome: Option<String>,
    /// The session that it concerns.
    pub session_id: Option<String>,
    /// The run that it concerns.
    pub run_id: Option<String>,
    /// The journal record that the line was made from.
    pub journal_seq: Option<u64>,
}

impl AuditLine {
    /// A line with nothing but time and event.
    pub fn new(timestamp_ms: u64, event: AuditEvent) -> Self {
        Self {
            timestamp_ms,
            event,
            method: None,
            path: None,
            reason: None,
            origin: None,
            peer: None,
            required_access: None,
            status: None,
            role: None,
            token_fingerprint: None,
            request_id: None,
            suppressed: None,
            act: None,
            target: None,
            outcome: None,
            session_id: None,
            run_id: None,
            journal_seq: None,
        }
    }

    /// A line about an act of `by`.
    pub fn of_caller(timestamp_ms: u64, by: &Actor) -> Self {
        Self {
            peer: Some(by.peer().map_or(Peer::Unix, Peer::Tcp)),
            role: Some(match by.role() {
                ActorRole::Admin => "admin",
                ActorRole::ReadOnly => "read_only",
            }),
            token_fingerprint: by.token(),
            request_id: RequestId::parse(by.request_id()),
            ..Self::new(timestamp_ms, AuditEvent::AdminAction)
        }
    }

    /// The book that it belongs to.
    pub fn book(&self) -> Book {
        Book::of(self.event)
    }

    /// Appends the line as JSON with a line feed; its chain value.
    pub(super) fn write(&self, position: &Position, target: &mut Vec<u8>) -> String {
        let record = Record {
            seq: position.next_seq,
            book: self.book().as_str(),
            timestamp_ms: self.timestamp_ms,
            event: self.event.as_str(),
            code: self.event.as_str(),
            method: self.method.map(Method::as_str),
            path: self.path.as_deref(),
            reason: self.reason,
            origin: self.origin.as_deref(),
            remote_addr: self.peer.map(Text),
            required_access: self.required_access,
            status: self.status,
            role: self.role,
            token_fingerprint: self.token_fingerprint.as_deref(),
            request_id: self.request_id.map(Text),
            suppressed: self.suppressed,
            act: self.act.as_deref(),
            target: self.target.as_deref(),
            outcome: self.outcome.as_deref(),
            session_id: self.session_id.as_deref(),
            run_id: self.run_id.as_deref(),
            journal_seq: self.journal_seq,
            prev: &position.chain,
        };
        let start = target.len();
        serde_json::to_writer(&mut *target, &record).expect("strings and numbers go into memory without failing");
        target.pop();
        let chain = record_hash(&target[start..]);
        target.extend_from_slice(b",\"chain\":\"");
        target.extend_from_slice(chain.as_bytes());
        target.extend_from_slice(b"\"}\n");
        chain
    }
}

#[derive(Serialize)]
struct Record<'a> {
    seq: u64,
    book: &'static str,
    timestamp_ms: u64,
    event: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_addr: Option<Text<Peer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_access: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_fingerprint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Text<RequestId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_seq: Option<u64>,
    prev: &'a str,
}

/// Serialises by `Display`.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
