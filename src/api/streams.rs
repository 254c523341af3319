//! Opening of event streams.
//! Owns: `GET /v1/events/stream` and the steps that all three streams share.
//! Never: writes a frame; the hub does.

use super::call::{Call, Reply};
use super::context::Api;
use crate::http::problem::{Problem, codes};
use crate::limits::SSE_STREAMS_MAX;
use crate::sse::{Scope, StreamSpec};

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
        let scope = Scope::Global { session: call.query.session("session_id"), run: call.query.run("run_id") };
        Ok(StreamSpec::new(scope, call.event_cursor()?))
    });
}
