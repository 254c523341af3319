//! What stands before every handler: routing, origin, token, access, query, content type.
//! Owns: the order of these checks, and what a refused caller is told and what is written about it.
//! May touch: request heads; the token files through `auth`.
//! Never: reads a body, or lets one be read, before the caller is known to be allowed.

use std::sync::{Arc, Mutex, PoisonError};

use crate::api::access_log::{AccessLine, AccessLog};
use crate::api::auth::{Auth, Caller, Fingerprint, Rejection, Role};
use crate::api::call::{Call, Reply, Trace, Witnesses};
use crate::api::cors::{CorsPolicy, HostPolicy, OriginVerdict};
use crate::api::json;
use crate::api::limiter::{Limiter, LineBudget, LineVerdict, PeerKey, Verdict};
use crate::api::query::Query;
use crate::api::route::{Access, Captures, Found, Handler, Route, Router};
use crate::api::text::{plain, quote};
use crate::audit::control_plane::{AuditEvent, AuditLine, ControlPlaneAudit};
use crate::clock::Clock;
use crate::http::problem::{Code, Problem, codes};
use crate::http::{Admission, EdgeRefusal, Head, Method, Peer, Responder, Response, Service};
use crate::limits::AUDIT_TEXT_BYTES_MAX;

/// What `WWW-Authenticate` says on every 401.
const CHALLENGE: &str = "Bearer realm=\"kheish-daemon\"";

/// What a front is made of.
pub struct FrontParts<A: 'static> {
    /// The route table.
    pub routes: &'static [Route<A>],
    /// What the handlers work on.
    pub context: Arc<A>,
    /// The gate.
    pub auth: Arc<Auth>,
    /// Which pages may call.
    pub cors: CorsPolicy,
    /// Host names that are this host's while authentication is off.
    pub hosts: HostPolicy,
    /// Where refusals and admin actions are written.
    pub audit: ControlPlaneAudit,
    /// Where every request is logged.
    pub access_log: AccessLog,
    /// Time of audit lines and of the limiter.
    pub clock: Arc<dyn Clock>,
}

/// The service that the edge serves.
pub struct Front<A: 'static> {
    routes: &'static [Route<A>],
    router: Router,
    context: Arc<A>,
    cors: CorsPolicy,
    hosts: HostPolicy,
    gate: Mutex<Gate>,
    witnesses: Arc<Witnesses>,
}

/// Failures so far. Locked for the time of one map access, and only after a failure.
#[derive(Default)]
struct Gate {
    auth: Limiter,
    origins: Limiter,
    lines: LineBudget,
}

/// What [`Front::admit`] found out for [`Front::handle`].
pub struct Admitted<A: 'static> {
    route: &'static Route<A>,
    captures: Captures,
    query: Query,
    caller: Caller,
    trace: Trace,
}

/// The verdict on a head that is let in.
struct Passed<A: 'static> {
    route: &'static Route<A>,
    captures: Captures,
    query: Query,
    caller: Caller,
}

impl<A> Front<A> {
    /// Builds the front.
    ///
    /// # Panics
    /// The route table is unsound, see [`Router::new`].
    pub fn new(parts: FrontParts<A>) -> Self {
        let FrontParts { routes, context, auth, cors, hosts, audit, access_log, clock } = parts;
        let witnesses = Arc::new(Witnesses { auth, audit, access_log, clock, connector_refusals: Mutex::default() });
        Self { routes, router: Router::new(routes), context, cors, hosts, gate: Mutex::default(), witnesses }
    }

    /// Peers whose failures are remembered, for `/v1/status`.
    pub fn limited_peer_count(&self) -> usize {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.auth.peer_count() + gate.origins.peer_count()
    }

    fn judge(&self, head: &Head, trace: &mut Trace) -> Result<Passed<A>, Response> {
        let found = self.router.find(head.method, &head.path);
        if let Some(connector) = self.connector(&found, head, trace) {
            return connector;
        }
        if let Some(public) = self.public(&found, head, trace) {
            return public;
        }
        self.check_origin(head, trace)?;
        if head.method == Method::Options {
            return Err(Response::empty(204));
        }
        self.check_host(head)?;
        // What is not in the table needs the stronger role: a read-only caller learns nothing about it.
        let required = match &found {
            Found::Route { index, .. } => self.routes[*index].access,
            Found::OtherMethods { .. } | Found::Nothing => Access::Admin,
        };
        let caller = self.authenticate(head, trace, required)?;
        let (route, captures) = match found {
            Found::Route { index, captures } => (&self.routes[index], captures),
            Found::OtherMethods { allow, .. } => return Err(method_not_allowed(head, allow)),
            Found::Nothing => {
                let detail = format!("no route has the path {}", quote(&head.path));
                return Err(Problem::new(&codes::ROUTE_NOT_FOUND, detail).into());
            }
        };
        trace.mutation = route.is_mutation().then_some(route.witness);
        let query = Query::read(head.query.as_deref(), route.query)?;
        if route.request.is_some() && head.has_body() {
            json::check_content_type(head.header("content-type"))?;
        }
        Ok(Passed { route, captures, query, caller })
    }

    /// The verdict for paths of connectors, whose handlers ask for proof themselves.
    fn connector(&self, found: &Found, head: &Head, trace: &mut Trace) -> Option<Result<Passed<A>, Response>> {
        let Found::Route { index, captures } = found else { return None };
        let route = &self.routes[*index];
        if route.access != Access::Connector {
            return None;
        }
        trace.connector = true;
        let checked = match route.request.is_some() && head.has_body() {
            true => json::check_content_type(head.header("content-type")),
            false => Ok(()),
        };
        Some(match checked {
            Ok(()) => {
                let caller = Caller { role: Role::ReadOnly, fingerprint: None, generation: 0 };
                Ok(Passed { route, captures: *captures, query: Query::default(), caller })
            }
            Err(problem) => {
                trace.refusal = Some(problem.code.code);
                Err(problem.into())
            }
        })
    }

    /// The verdict for public paths, which have neither authentication nor CORS.
    fn public(&self, found: &Found, head: &Head, trace: &mut Trace) -> Option<Result<Passed<A>, Response>> {
        match found {
            Found::Route { index, captures } if self.routes[*index].access == Access::Public => {
                trace.probe = true;
                let route = &self.routes[*index];
                let caller = Caller { role: Role::ReadOnly, fingerprint: None, generation: 0 };
                let query = Query::read(head.query.as_deref(), route.query);
                Some(query.map(|query| Passed { route, captures: *captures, query, caller }).map_err(Response::from))
            }
            Found::OtherMethods { allow, public: true } => {
                trace.probe = true;
                Some(Err(method_not_allowed(head, allow.clone())))
            }
            _ => None,
        }
    }

    fn check_origin(&self, head: &Head, trace: &mut Trace) -> Result<(), Response> {
        match self.cors.judge(head.header_values("origin")) {
            OriginVerdict::Absent => Ok(()),
            OriginVerdict::Allowed(origin) => {
                trace.origin = Some(origin);
                Ok(())
            }
            OriginVerdict::Rejected => {
                let code = &codes::ORIGIN_NOT_ALLOWED;
                let origin = head.header("origin").map(|origin| plain(origin, AUDIT_TEXT_BYTES_MAX));
                let line = AuditLine { origin, ..self.refusal(head, AuditEvent::CorsOriginRejected, code) };
                self.count_origin(head, line);
                Err(Problem::new(code, "pages of this origin may not call the control plane").into())
            }
        }
    }

    /// While every caller is admin, a page must not reach the listener under a name of its own.
    fn check_host(&self, head: &Head) -> Result<(), Response> {
        if self.witnesses.auth.is_on() || head.peer == Peer::Unix || self.hosts.accepts(head.header("host")) {
            return Ok(());
        }
        let code = &codes::MISDIRECTED_REQUEST;
        self.count_origin(head, self.refusal(head, AuditEvent::HostRejected, code));
        let detail = "without authentication only requests to a loopback host name are served; \
            next: use http://localhost, name the host with --http-allowed-host, or configure an admin token";
        Err(Problem::new(code, detail).into())
    }

    fn authenticate(&self, head: &Head, trace: &mut Trace, required: Access) -> Result<Caller, Response> {
        let mut headers = head.header_values("authorization");
        let (first, second) = (headers.next(), headers.next());
        // Two of them: a proxy and the daemon might each believe another one.
        let verdict =
            if second.is_some() { Err(Rejection::Malformed) } else { self.witnesses.auth.authenticate(first) };
        let caller = verdict.map_err(|rejection| {
            let (code, detail, fingerprint): (&'static Code, _, _) = match rejection {
                Rejection::Missing => (&codes::MISSING_TOKEN, "this route needs a bearer token", None),
                Rejection::Malformed => {
                    (&codes::MALFORMED_TOKEN, "the Authorization header is not of the form `Bearer <token>`", None)
                }
                Rejection::Invalid { fingerprint } => {
                    (&codes::INVALID_TOKEN, "the bearer token is not known", Some(fingerprint))
                }
            };
            self.refuse_caller(head, code, detail, required, None, fingerprint)
        })?;
        trace.caller = Some(caller);
        if required == Access::Admin && caller.role != Role::Admin {
            let detail = "the token is read-only and this request needs admin access";
            let code = &codes::INSUFFICIENT_ACCESS;
            return Err(self.refuse_caller(head, code, detail, required, Some(caller.role), caller.fingerprint));
        }
        Ok(caller)
    }

    fn refuse_caller(
        &self,
        head: &Head,
        code: &'static Code,
        detail: &str,
        required: Access,
        role: Option<Role>,
        fingerprint: Option<Fingerprint>,
    ) -> Response {
        let mut line = AuditLine {
            required_access: Some(required.as_str()),
            role: role.map(Role::as_str),
            token_fingerprint: fingerprint.map(|fingerprint| fingerprint.to_string()),
            ..self.refusal(head, AuditEvent::AuthFailure, code)
        };
        let verdict = self.gate().auth.record(peer_key(&head.peer), line.timestamp_ms);
        match verdict {
            Verdict::Counted => {
                self.write(line);
                let problem = Problem::new(code, detail);
                let challenged = code.status == 401;
                if challenged { problem.header("www-authenticate", CHALLENGE) } else { problem }.into()
            }
            Verdict::Limited { retry_after_s, announce } => {
                if announce {
                    line.event = AuditEvent::AuthRateLimited;
                    self.witnesses.audit.count_limited(line.event, line.timestamp_ms);
                    self.write(line);
                }
                let detail = "too many failed attempts from this address; a valid token is served all the same";
                Problem::new(&codes::RATE_LIMITED, detail).retry_after(retry_after_s).into()
            }
        }
    }

    /// Writes a rejected origin or host, unless this peer's were too many; the answer is the same either way.
    fn count_origin(&self, head: &Head, mut line: AuditLine) {
        let verdict = self.gate().origins.record(peer_key(&head.peer), line.timestamp_ms);
        match verdict {
            Verdict::Counted => {}
            Verdict::Limited { announce: true, .. } => {
                line.event = AuditEvent::CorsOriginRateLimited;
                self.witnesses.audit.count_limited(line.event, line.timestamp_ms);
            }
            Verdict::Limited { announce: false, .. } => return,
        }
        self.write(line);
    }

    fn refusal(&self, head: &Head, event: AuditEvent, code: &'static Code) -> AuditLine {
        AuditLine {
            method: Some(head.method),
            path: Some(plain(&head.path, AUDIT_TEXT_BYTES_MAX)),
            reason: Some(code.code),
            peer: Some(head.peer),
            request_id: Some(head.request_id),
            ..AuditLine::new(self.witnesses.clock.now_ms(), event)
        }
    }

    fn write(&self, line: AuditLine) {
        let verdict = self.gate().lines.take(line.timestamp_ms);
        let LineVerdict::Write { suppressed } = verdict else { return };
        if suppressed > 0 {
            let summary = AuditLine::new(line.timestamp_ms, AuditEvent::RefusalsSuppressed);
            self.witnesses.audit.record(AuditLine { suppressed: Some(suppressed), ..summary });
        }
        self.witnesses.audit.record(line);
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn peer_key(peer: &Peer) -> PeerKey {
    peer.ip().map_or(PeerKey::UnixSocket, PeerKey::of)
}

fn method_not_allowed(head: &Head, allow: String) -> Response {
    let detail = format!("this path does not serve {}; it serves {allow}", quote(head.method_name()));
    Problem::new(&codes::METHOD_NOT_ALLOWED, detail).header("allow", allow).into()
}

impl<A: Send + Sync + 'static> Service for Front<A> {
    type Admitted = Admitted<A>;

    fn admit(&self, head: &Head) -> Admission<Admitted<A>> {
        let mut trace = Trace::of(head);
        match self.judge(head, &mut trace) {
            Ok(Passed { route, captures, query, caller }) => Admission::Accept {
                admitted: Admitted { route, captures, query, caller, trace },
                body_bytes_max: route.body_bytes_max,
                lane: route.lane,
            },
            Err(response) => Admission::Refuse(trace.finish(response, &self.witnesses)),
        }
    }

    fn handle(&self, admitted: Admitted<A>, head: Head, body: Vec<u8>, responder: Responder) {
        let Admitted { route, captures, query, caller, trace } = admitted;
        let reply = Reply::new(responder, trace, Arc::clone(&self.witnesses));
        let call = Call { head, body, caller, query, captures, param_names: route.path };
        match route.handler {
            Handler::Plain(handler) => reply.send_result(handler(&self.context, &call)),
            Handler::Deferred(handler) => handler(&self.context, call, reply),
        }
    }

    fn refused(&self, refused: &EdgeRefusal<'_>) {
        self.witnesses.access_log.record(|| AccessLine {
            method: refused.head.map(|head| head.method),
            path: refused.head.map_or_else(|| "-".to_string(), |head| plain(&head.path, AUDIT_TEXT_BYTES_MAX)),
            status: refused.code.status,
            body_bytes: 0,
            role: None,
            fingerprint: None,
            peer: refused.peer,
            request_id: refused.request_id,
            duration_us: 0,
            probe: false,
        });
    }
}
