//! Rows of the route table for whoever diagnoses the daemon: probe frames, route references, signed evidence.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::query::{QueryKind, QueryParam};
use super::route::{Access, Handler, Route};
use super::routes::{get, json, post, required};
use super::{audit, references, streams};
use crate::http::Lane;
use crate::http::problem::codes;
use crate::limits::SSE_PROBE_NONCE_BYTES_MAX;

/// Makes a stream a probe stream.
pub(super) const PROBE: QueryParam = QueryParam {
    name: "probe",
    kind: QueryKind::Text(SSE_PROBE_NONCE_BYTES_MAX),
    summary: "Carry no events but probe frames of this name, 16 to 64 letters, digits, - and _; the session or run need \
              not exist.",
};

const NONCE: QueryParam = QueryParam {
    name: "nonce",
    kind: QueryKind::Text(SSE_PROBE_NONCE_BYTES_MAX),
    summary: "Name of the probe stream.",
};

pub(super) const SEND_PROBE: Route<Api> = Route {
    lane: Lane::Inline,
    query: &[NONCE],
    problems: &[&codes::STREAM_LIMIT],
    ..get(
        "/v1/events/probe",
        Access::ReadOnly,
        "Send a frame without an id on the caller's probe streams of this name.",
        json(200, "ProbeSent"),
        Handler::Plain(streams::send_probe),
    )
};

pub(super) const ROUTE_REFERENCES: Route<Api> = get(
    "/v1/runtime/route-references",
    Access::ReadOnly,
    "References to model routes that do not exist, of sessions, unfinished runs and the runtime configuration.",
    json(200, "RouteReferences"),
    Handler::Plain(references::list),
);

pub(super) const INCIDENT_SIGNATURE: Route<Api> = post(
    "/v1/audit/incident-signature",
    "Sign the digest of an incident's manifest, under a label of its own.",
    required("IncidentDigest"),
    json(200, "IncidentSignature"),
    Handler::Plain(audit::sign_incident),
);
