//! Routes that need nothing of the domain: probes, capabilities, the OpenAPI document.
//! Owns: their rows and answers.
//! May touch: the context's readiness and its OpenAPI document.
//! Never: waits for the core; a probe answers while a sync hangs.

use serde::Serialize;

use crate::api::call::Call;
use crate::api::route::{Access, Handler, Route, Schema, Success, Witness};
use crate::http::problem::{Code, Problem, codes};
use crate::http::{Lane, Method, Response};

/// Revision of the API, counted up when a client must know.
pub const API_REVISION: u32 = 3;

/// What these routes ask of the context that the table is written for.
pub trait Builtin {
    /// Whether the daemon takes work: `daemon_draining`, `component_failed`, `journal_poisoned` … otherwise.
    /// Must not block and must not ask the core.
    ///
    /// # Errors
    /// Why it does not, as the 503 that `/readyz` answers.
    fn readiness(&self) -> Result<(), Problem>;

    /// The bytes of [`crate::api::openapi::document`]. Made for each request: they are asked for rarely, and an idle
    /// daemon need not hold a megabyte of text.
    fn openapi(&self) -> Vec<u8>;
}

/// `GET /healthz`: the process answers.
pub const fn healthz<A>() -> Route<A> {
    let summary = "The process is alive.";
    public("/healthz", summary, &[], Handler::Plain(|_, _| Ok(Response::text(200, "ok\n"))))
}

/// `GET /readyz`: the daemon takes work.
pub const fn readyz<A: Builtin>() -> Route<A> {
    let summary = "The daemon accepts work: recovery is done, no component has failed, no drain has begun.";
    let handler = Handler::Plain(|context: &A, _: &Call| {
        context.readiness()?;
        Ok(Response::text(200, "ready\n"))
    });
    public("/readyz", summary, UNREADY, handler)
}

const UNREADY: &[&Code] = &[&codes::DAEMON_DRAINING, &codes::COMPONENT_FAILED, &codes::JOURNAL_POISONED];

/// `GET /v1/capabilities`: what this build can do.
pub const fn capabilities<A>() -> Route<A> {
    let success = Success::Json { status: 200, schema: Schema::Ref("Capabilities") };
    let summary = "Versions and features of this build; what is missing is false.";
    read("/v1/capabilities", summary, success, Handler::Plain(|_, _| Ok(Response::json(200, &Capabilities::THIS))))
}

/// `GET /v1/openapi.json`: the route table as an OpenAPI 3.1 document.
pub const fn openapi<A: Builtin>() -> Route<A> {
    let handler = Handler::Plain(|context: &A, _: &Call| Ok(Response::new(200, "application/json", context.openapi())));
    read("/v1/openapi.json", "This API as an OpenAPI 3.1 document.", Success::OpenApi, handler)
}

const fn public<A>(
    path: &'static str,
    summary: &'static str,
    problems: &'static [&'static Code],
    handler: Handler<A>,
) -> Route<A> {
    Route { access: Access::Public, problems, ..read(path, summary, Success::Text, handler) }
}

const fn read<A>(path: &'static str, summary: &'static str, success: Success, handler: Handler<A>) -> Route<A> {
    Route {
        method: Method::Get,
        path,
        access: Access::ReadOnly,
        body_bytes_max: 0,
        witness: Witness::AuditFile,
        lane: Lane::Inline,
        summary,
        query: &[],
        request: None,
        success,
        problems: &[],
        handler,
    }
}

/// What this daemon offers.
pub(super) fn offered() -> &'static Capabilities {
    &Capabilities::THIS
}

/// Body of `GET /v1/capabilities`.
#[derive(Debug, Serialize)]
pub(super) struct Capabilities {
    control_plane_version: &'static str,
    api_revision: u32,
    route_capability_matrix_version: u32,
    approvals: bool,
    sidechains: bool,
    mailboxes: bool,
    session_events: bool,
    restart_restore: bool,
    live_events: bool,
    session_run_idempotency: bool,
    playbooks: bool,
    flows: bool,
    problem_details: bool,
    openapi: bool,
    cursor_pagination: bool,
    paginated_lists: bool,
    domain_errors: bool,
    sse_replay: bool,
    typed_sse_heartbeat: bool,
    agent_supervisor_audit: bool,
    spawn_policies: bool,
}

impl Capabilities {
    const THIS: Self = Self {
        control_plane_version: env!("CARGO_PKG_VERSION"),
        api_revision: API_REVISION,
        route_capability_matrix_version: 0,
        approvals: true,
        sidechains: false,
        mailboxes: false,
        session_events: true,
        restart_restore: true,
        live_events: true,
        session_run_idempotency: true,
        playbooks: false,
        flows: false,
        problem_details: true,
        openapi: true,
        cursor_pagination: true,
        paginated_lists: true,
        domain_errors: true,
        sse_replay: true,
        typed_sse_heartbeat: true,
        agent_supervisor_audit: false,
        spawn_policies: false,
    };
}
