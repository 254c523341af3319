//! Opening of event streams.
//! Owns: `GET /v1/events/stream`, probe streams, and the steps that all three streams share.
//! Never: writes a frame; the hub does.

use serde::Serialize;

use super::call::{Call, Reply};
use super::context::Api;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::{SSE_PROBES_MAX, SSE_STREAMS_MAX};
use crate::sse::{ProbeNonce, Scope, StreamSpec};

/// Reserves a seat, then resolves what the stream is about, then opens it: in this order, so that what is
/// committed in between is not missed.
pub(super) fn open(api: &Api, reply: Reply, spec: impl FnOnce() -> Result<StreamSpec, Problem>) {
    let Some(seat) = api.hub.try_reserve() else {
        let detail = format!("{SSE_STREAMS_MAX} streams are open, which is the limit; next: close some");
        return reply.send(Problem::new(&codes::STREAM_LIMIT, detail).header("retry-after", "5"));
    };
    match spec() {
        Err(problem) => reply.send(problem),
        Ok(mut spec) => {
            spec.still_allowed = reply.still_allowed();
            if let Some(upgraded) = reply.open_stream() {
                api.hub.accept(seat, upgraded, spec);
            }
        }
    }
}

/// `GET /v1/events/stream`.
pub fn all(api: &Api, call: Call, reply: Reply) {
    open(api, reply, || {
        if let Some(probe) = probe_of(&call)? {
            return Ok(probe);
        }
        let scope = Scope::Global { session: call.query.session("session_id"), run: call.query.run("run_id") };
        Ok(StreamSpec::new(scope, call.event_cursor()?))
    });
}

/// The stream that a `probe` parameter asks for, on whichever of the three paths it came.
///
/// # Errors
/// 400 `bad_request`: the name is too short or not plain.
pub(super) fn probe_of(call: &Call) -> Result<Option<StreamSpec>, Problem> {
    let nonce = call.query.text("probe").map(nonce).transpose()?;
    Ok(nonce.map(|nonce| StreamSpec::new(Scope::Probe(nonce), None)))
}

fn nonce(text: &str) -> Result<ProbeNonce, Problem> {
    ProbeNonce::parse(text).ok_or_else(|| {
        Problem::new(
            &codes::BAD_REQUEST,
            "a probe stream's name is 16 to 64 letters, digits, - and _; next: choose one",
        )
    })
}

#[derive(Serialize)]
struct ProbeSent<'a> {
    nonce: &'a str,
    sent_at_ms: u64,
}

/// `GET /v1/events/probe`: a frame on the caller's own probe stream. That the caller knows its name is what makes it its own.
pub fn send_probe(api: &Api, call: &Call) -> Result<Response, Problem> {
    let nonce = nonce(call.query.text("nonce").unwrap_or_default())?;
    if !api.hub.probe(&nonce) {
        let detail = format!("{SSE_PROBES_MAX} probe frames wait already; next: ask again");
        return Err(Problem::new(&codes::STREAM_LIMIT, detail).header("retry-after", "1"));
    }
    Ok(Response::json(200, &ProbeSent { nonce: nonce.as_str(), sent_at_ms: api.clock.now_ms() }))
}
