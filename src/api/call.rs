//! One request behind the front, and the way to answer it.
//! Owns: typed access to path, query and body; what is added to every answer (CORS, logs, audit).
//! May touch: the request's head and body; the edge's responder.
//! Never: answers twice, or not at all.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::de::DeserializeOwned;

use crate::actor::{Actor, ActorRole};
use crate::api::access_log::{AccessLine, AccessLog};
use crate::api::auth::{Auth, Caller, Fingerprint, Role};
use crate::api::cors;
use crate::api::front::peer_key;
use crate::api::json;
use crate::api::limiter::{Limiter, LineBudget, LineVerdict, Verdict};
use crate::api::query::{Query, event_cursor};
use crate::api::route::{Captures, Witness};
use crate::api::text::plain;
use crate::audit::control_plane::{AuditEvent, AuditLine, ControlPlaneAudit};
use crate::clock::Clock;
use crate::http::problem::{Problem, codes};
use crate::http::{Head, Method, Peer, RequestId, Responder, Response, Upgraded};
use crate::ids::{RunId, Seq, SessionId};
use crate::limits::{AUDIT_TEXT_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use crate::sse::StillAllowed;

/// A request that was let in.
pub struct Call {
    /// Its head.
    pub head: Head,
    /// Its body, within the route's bound.
    pub body: Vec<u8>,
    /// Who sent it.
    pub caller: Caller,
    /// Its checked query.
    pub query: Query,
    pub(super) captures: Captures,
    pub(super) param_names: &'static str,
}

impl Call {
    /// The decoded value of the path's `{name}`.
    ///
    /// # Errors
    /// 400 `bad_request`: it is not percent-encoded UTF-8.
    ///
    /// # Panics
    /// The route's path has no such segment.
    pub fn param(&self, name: &str) -> Result<Cow<'_, str>, Problem> {
        let mut names = self.param_names.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
        let index = names.position(|known| known == name).expect("the handler asks for a segment of its own route");
        self.captures.decode(&self.head.path, index).ok_or_else(|| {
            Problem::new(&codes::BAD_REQUEST, format!("the path segment {{{name}}} is not percent-encoded UTF-8"))
        })
    }

    /// The path's `{session_id}`.
    ///
    /// # Errors
    /// 400 `invalid_session_id`.
    pub fn session_id(&self) -> Result<SessionId, Problem> {
        SessionId::parse(&self.param("session_id")?)
            .map_err(|error| Problem::new(&codes::INVALID_SESSION_ID, error.to_string()))
    }

    /// The path's `{run_id}`.
    ///
    /// # Errors
    /// 404 `run_not_found`: no run can have such an id.
    pub fn run_id(&self) -> Result<RunId, Problem> {
        RunId::parse(&self.param("run_id")?)
            .ok_or_else(|| Problem::new(&codes::RUN_NOT_FOUND, "the path holds no run id; run ids look like run-7"))
    }

    /// The body as a `T`, which should deny unknown fields.
    ///
    /// # Errors
    /// See [`json::parse`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        json::parse(&self.body)
    }

    /// The body as a `T`, or the default without a body.
    ///
    /// # Errors
    /// See [`json::parse_or_default`].
    pub fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        json::parse_or_default(&self.body)
    }

    /// Checks that the body is left out or `{}`.
    ///
    /// # Errors
    /// See [`json::parse_or_default`].
    pub fn no_fields(&self) -> Result<(), Problem> {
        self.json_or_default::<json::NoFields>().map(|_| ())
    }

    /// The `Idempotency-Key` header, blanks at its ends dropped.
    ///
    /// # Errors
    /// 400 `invalid_idempotency_key`: empty, too long, or given more than once.
    pub fn idempotency_key(&self) -> Result<Option<&str>, Problem> {
        let mut keys = self.head.header_values("idempotency-key");
        let Some(key) = keys.next().map(str::trim) else { return Ok(None) };
        let refuse = |detail: String| Err(Problem::new(&codes::INVALID_IDEMPOTENCY_KEY, detail));
        match key.len() {
            _ if keys.next().is_some() => refuse("there is more than one Idempotency-Key header".to_string()),
            0 => refuse("the Idempotency-Key header is empty".to_string()),
            1..=IDEMPOTENCY_KEY_BYTES_MAX => Ok(Some(key)),
            bytes => refuse(format!("the Idempotency-Key has {bytes} bytes, at most {IDEMPOTENCY_KEY_BYTES_MAX}")),
        }
    }

    /// Where a stream goes on: the larger of the query's `cursor` and the `Last-Event-ID` header.
    ///
    /// # Errors
    /// 400 `invalid_event_cursor`: the header is no decimal number.
    pub fn event_cursor(&self) -> Result<Option<Seq>, Problem> {
        let invalid =
            || Problem::new(&codes::INVALID_EVENT_CURSOR, "the Last-Event-ID header must be a decimal event id");
        let header = self.head.header("last-event-id").map_or(Some(None), event_cursor).ok_or_else(invalid)?;
        let query = self.query.text("cursor").and_then(event_cursor).flatten();
        Ok(header.max(query))
    }

    /// Who acts, for the record that the act commits.
    pub fn actor(&self) -> Actor {
        let role = match self.caller.role {
            Role::Admin => ActorRole::Admin,
            Role::ReadOnly => ActorRole::ReadOnly,
        };
        let peer = match self.head.peer {
            Peer::Tcp(address) => Some(address),
            Peer::Unix => None,
        };
        let token = self.caller.fingerprint.map(Fingerprint::bytes);
        Actor::new(role, token, peer, self.head.request_id.as_str())
    }
}

/// What the front shares with every answer.
pub(super) struct Witnesses {
    pub(super) auth: Arc<Auth>,
    pub(super) audit: ControlPlaneAudit,
    pub(super) access_log: AccessLog,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) connector_refusals: Mutex<Refusals>,
}

/// Refusals of connectors so far: they have a limit of their own, so that a flood from outside hides nobody who tries the
/// control plane.
#[derive(Default)]
pub(super) struct Refusals {
    peers: Limiter,
    lines: LineBudget,
}

/// What is known of a request once its head is read, for its traces.
pub(super) struct Trace {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) peer: Peer,
    pub(super) request_id: RequestId,
    pub(super) caller: Option<Caller>,
    pub(super) origin: Option<String>,
    pub(super) mutation: Option<Witness>,
    pub(super) probe: bool,
    /// The path is a connector's.
    pub(super) connector: bool,
    /// Problem code of the answer to a connector's caller.
    pub(super) refusal: Option<&'static str>,
    pub(super) started: Instant,
}

impl Trace {
    pub(super) fn of(head: &Head) -> Self {
        Self {
            method: head.method,
            path: plain(&head.path, AUDIT_TEXT_BYTES_MAX),
            peer: head.peer,
            request_id: head.request_id,
            caller: None,
            origin: None,
            mutation: None,
            probe: false,
            connector: false,
            refusal: None,
            started: Instant::now(),
        }
    }

    /// Completes an answer and leaves the request's traces: an access line, and for a mutation an audit line.
    pub(super) fn finish(self, response: Response, witnesses: &Witnesses) -> Response {
        let status = response.status;
        let role = self.caller.map(|caller| caller.role.as_str());
        let fingerprint = self.caller.and_then(|caller| caller.fingerprint);
        let witnessed = match self.mutation {
            None => false,
            Some(Witness::AuditFile) => true,
            Some(Witness::Journal) => status >= 300,
        };
        if witnessed {
            witnesses.audit.record(AuditLine {
                method: Some(self.method),
                path: Some(self.path.clone()),
                peer: Some(self.peer),
                required_access: Some(Role::Admin.as_str()),
                status: Some(status),
                role,
                token_fingerprint: fingerprint.map(|fingerprint| fingerprint.to_string()),
                request_id: Some(self.request_id),
                ..AuditLine::new(witnesses.clock.now_ms(), AuditEvent::AdminAction)
            });
        }
        if let Some(code) = self.refusal.filter(|_| self.connector) {
            self.witness_refusal(code, status, witnesses);
        }
        let response = match &self.origin {
            Some(origin) => cors::allow(response, origin),
            None => response,
        };
        witnesses.access_log.record(|| AccessLine {
            method: Some(self.method),
            path: self.path,
            status,
            body_bytes: response.body.len(),
            role,
            fingerprint,
            peer: self.peer,
            request_id: self.request_id,
            duration_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            probe: self.probe,
        });
        response
    }
}

impl Trace {
    /// One line for a refused event, or none where there were too many.
    fn witness_refusal(&self, code: &'static str, status: u16, witnesses: &Witnesses) {
        let now_ms = witnesses.clock.now_ms();
        let mut line = AuditLine {
            method: Some(self.method),
            path: Some(self.path.clone()),
            reason: Some(code),
            peer: Some(self.peer),
            status: Some(status),
            request_id: Some(self.request_id),
            ..AuditLine::new(now_ms, AuditEvent::ConnectorRefused)
        };
        let mut refusals = witnesses.connector_refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match refusals.peers.record(peer_key(&self.peer), now_ms) {
            Verdict::Counted => {}
            Verdict::Limited { announce: true, .. } => line.event = AuditEvent::ConnectorRateLimited,
            Verdict::Limited { announce: false, .. } => return,
        }
        let LineVerdict::Write { suppressed } = refusals.lines.take(now_ms) else { return };
        drop(refusals);
        if suppressed > 0 {
            let summary = AuditLine::new(now_ms, AuditEvent::RefusalsSuppressed);
            witnesses.audit.record(AuditLine { suppressed: Some(suppressed), ..summary });
        }
        witnesses.audit.record(line);
    }
}

/// The right, and the duty, to answer a call. Dropped without an answer, it answers 500 `internal_error`.
pub struct Reply(Option<Pending>);

struct Pending {
    responder: Responder,
    trace: Trace,
    witnesses: Arc<Witnesses>,
}

impl Reply {
    pub(super) fn new(responder: Responder, trace: Trace, witnesses: Arc<Witnesses>) -> Self {
        Self(Some(Pending { responder, trace, witnesses }))
    }

    /// Answers. Never blocks; any thread may call it.
    pub fn send(mut self, answer: impl Into<Response>) {
        if let Some(Pending { responder, trace, witnesses }) = self.0.take() {
            responder.send(trace.finish(answer.into(), &witnesses));
        }
    }

    /// Refuses what came through a connector, which leaves one line for the auditor.
    pub fn refuse(mut self, problem: Problem) {
        if let Some(pending) = &mut self.0 {
            pending.trace.refusal = Some(problem.code.code);
        }
        self.send(problem);
    }

    /// Answers with something else than a problem, and leaves the line of a refusal with this code.
    pub fn refused_with(mut self, code: &'static crate::http::problem::Code, response: Response) {
        if let Some(pending) = &mut self.0 {
            pending.trace.refusal = Some(code.code);
        }
        self.send(response);
    }

    /// Answers with whichever it is.
    pub fn send_result(self, answer: Result<Response, Problem>) {
        match answer {
            Ok(response) => self.send(response),
            Err(problem) => self.send(problem),
        }
    }

    /// Turns the connection into an event stream; `None` when there is nobody to stream to (HEAD, drain), which
    /// has been answered then.
    pub fn open_stream(mut self) -> Option<Upgraded> {
        let Pending { responder, trace, witnesses } = self.0.take()?;
        let mut head = Response::empty(200);
        for (name, value) in crate::sse::RESPONSE_HEADERS {
            match name {
                "content-type" => head.content_type = Cow::Borrowed(value),
                _ => head.headers.push((name, value.to_string())),
            }
        }
        responder.upgrade(trace.finish(head, &witnesses))
    }

    /// Whether the token that opened a stream still holds; `None` while authentication is off.
    pub fn still_allowed(&self) -> Option<StillAllowed> {
        let pending = self.0.as_ref()?;
        let (auth, caller) = (Arc::clone(&pending.witnesses.auth), pending.trace.caller?);
        auth.is_on().then(|| Arc::new(move || auth.is_current(&caller)) as StillAllowed)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(Pending { responder, trace, witnesses }) = self.0.take() {
            let problem = Problem::new(&codes::INTERNAL_ERROR, "the request was dropped without an answer");
            responder.send(trace.finish(Response::from(problem).closing(), &witnesses));
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reply({:?})", self.0.as_ref().map(|pending| pending.trace.request_id))
    }
}
