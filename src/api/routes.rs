//! The one route table of the daemon.
//! Owns: every path with its access class, body bound, lane, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::paging::{CURSOR, LIMIT, ORDER, PAGE};
use super::query::{QueryKind, QueryParam};
use super::route::{Access, Handler, Request, Route, Schema, Success, Witness};
use super::{audit, builtin, runs, runtime, secrets, sessions, status, streams};
use crate::http::problem::codes;
use crate::http::{Lane, Method};
use crate::limits::{BODY_BYTES_MAX, BODY_SMALL_BYTES_MAX};

const SESSION_FILTER: QueryParam =
    QueryParam { name: "session_id", kind: QueryKind::Session, summary: "Only what belongs to this session." };
const RUN_FILTER: QueryParam =
    QueryParam { name: "run_id", kind: QueryKind::Run, summary: "Only what belongs to this run." };
const EVENT_CURSOR: QueryParam = QueryParam {
    name: "cursor",
    kind: QueryKind::EventCursor,
    summary: "Replay what follows this event id; 0 replays everything retained.",
};

const fn optional(schema: &'static str) -> Option<Request> {
    Some(Request { schema, optional: true })
}

const fn required(schema: &'static str) -> Option<Request> {
    Some(Request { schema, optional: false })
}

const fn json(status: u16, schema: &'static str) -> Success {
    Success::Json { status, schema: Schema::Ref(schema) }
}

const fn list(schema: &'static str) -> Success {
    Success::Json { status: 200, schema: Schema::List(schema) }
}

/// A route that reads.
const fn get(
    path: &'static str,
    access: Access,
    summary: &'static str,
    success: Success,
    handler: Handler<Api>,
) -> Route<Api> {
    Route {
        method: Method::Get,
        path,
        access,
        body_bytes_max: 0,
        witness: Witness::AuditFile,
        lane: Lane::Worker,
        summary,
        query: &[],
        request: None,
        success,
        problems: &[],
        handler,
    }
}

/// A route that acts, with a small JSON body.
const fn post(
    path: &'static str,
    summary: &'static str,
    request: Option<Request>,
    success: Success,
    handler: Handler<Api>,
) -> Route<Api> {
    Route {
        method: Method::Post,
        path,
        access: Access::Admin,
        body_bytes_max: BODY_SMALL_BYTES_MAX,
        witness: Witness::AuditFile,
        lane: Lane::Worker,
        summary,
        query: &[],
        request,
        success,
        problems: &[],
        handler,
    }
}

/// Every route.
pub static ROUTES: &[Route<Api>] = &[
    builtin::healthz(),
    builtin::readyz(),
    builtin::capabilities(),
    builtin::openapi(),
    // Inline, as the probes are: while a sync hangs, every worker may be waiting for the core.
    Route {
        lane: Lane::Inline,
        ..get(
            "/v1/status",
            Access::ReadOnly,
            "The daemon's state in one document.",
            json(200, "Status"),
            Handler::Plain(status::get),
        )
    },
    Route {
        lane: Lane::Inline,
        ..get("/v1/runtime", Access::ReadOnly, "Settings in force.", json(200, "Runtime"), Handler::Plain(runtime::get))
    },
    post(
        "/v1/runtime/hold",
        "Suspend or allow the starting of queued runs.",
        required("Hold"),
        json(200, "Hold"),
        Handler::Plain(runs::hold),
    ),
    Route {
        query: &[SESSION_FILTER, RUN_FILTER, EVENT_CURSOR],
        problems: &[&codes::STREAM_LIMIT],
        ..get(
            "/v1/events/stream",
            Access::ReadOnly,
            "All events, replayed from a cursor and then live.",
            Success::Events,
            Handler::Deferred(streams::all),
        )
    },
    post(
        "/v1/sessions",
        "Create a session, or return the one with this id.",
        optional("CreateSession"),
        json(201, "Session"),
        Handler::Plain(sessions::create),
    ),
    Route {
        query: &[PAGE, LIMIT, CURSOR],
        ..get(
            "/v1/sessions",
            Access::ReadOnly,
            "Sessions in order of creation.",
            list("Session"),
            Handler::Plain(sessions::list),
        )
    },
    Route {
        problems: &[&codes::SESSION_NOT_FOUND],
        ..get(
            "/v1/sessions/{session_id}",
            Access::ReadOnly,
            "One session.",
            json(200, "Session"),
            Handler::Plain(sessions::get),
        )
    },
    Route {
        problems: &[&codes::SESSION_NOT_FOUND],
        ..get(
            "/v1/sessions/{session_id}/events",
            Access::ReadOnly,
            "Outputs and run events of a session's newest runs.",
            json(200, "SessionEvents"),
            Handler::Plain(sessions::events),
        )
    },
    Route {
        query: &[EVENT_CURSOR],
        problems: &[&codes::SESSION_NOT_FOUND, &codes::STREAM_LIMIT],
        ..get(
            "/v1/sessions/{session_id}/stream",
            Access::ReadOnly,
            "A session's events, replayed from a cursor and then live.",
            Success::Events,
            Handler::Deferred(sessions::stream),
        )
    },
    Route {
        body_bytes_max: BODY_BYTES_MAX,
        // `run.accepted` names the token and the request.
        witness: Witness::Journal,
        // Parsed in microseconds and handed to the core without waiting: the main path has one hand-over.
        lane: Lane::Inline,
        problems: &[
            &codes::SESSION_NOT_FOUND,
            &codes::SESSION_ENDED,
            &codes::SESSION_QUEUE_FULL,
            &codes::RUN_QUEUE_FULL,
            &codes::ROUTE_NOT_READY,
            &codes::ROUTE_UNKNOWN,
            &codes::UNSUPPORTED_FEATURE,
            &codes::INVALID_IDEMPOTENCY_KEY,
            &codes::IDEMPOTENCY_CONFLICT,
        ],
        ..post(
            "/v1/sessions/{session_id}/runs",
            "Submit input as a run; answered once the run is durable.",
            required("SubmitInput"),
            json(202, "Run"),
            Handler::Deferred(runs::submit),
        )
    },
    Route {
        problems: &[&codes::SESSION_NOT_FOUND],
        ..post(
            "/v1/sessions/{session_id}/interrupt",
            "Stop the session's active run.",
            optional("NoFields"),
            json(200, "Interrupted"),
            Handler::Plain(sessions::interrupt),
        )
    },
    Route {
        problems: &[&codes::SESSION_NOT_FOUND],
        ..post(
            "/v1/sessions/{session_id}/end",
            "End a session: stop its active run, cancel its queue, accept nothing more.",
            optional("Reason"),
            json(200, "Session"),
            Handler::Plain(sessions::end),
        )
    },
    Route {
        query: &[SESSION_FILTER, PAGE, LIMIT, CURSOR, ORDER],
        ..get(
            "/v1/runs",
            Access::ReadOnly,
            "Runs; without a page, the newest, oldest of them first.",
            list("Run"),
            Handler::Plain(runs::list),
        )
    },
    Route {
        problems: &[&codes::RUN_NOT_FOUND],
        ..get("/v1/runs/{run_id}", Access::ReadOnly, "One run.", json(200, "Run"), Handler::Plain(runs::get))
    },
    Route {
        problems: &[&codes::RUN_NOT_FOUND],
        ..get(
            "/v1/runs/{run_id}/events",
            Access::ReadOnly,
            "What happened to a run, oldest first.",
            json(200, "RunEvents"),
            Handler::Plain(runs::events),
        )
    },
    Route {
        query: &[EVENT_CURSOR],
        problems: &[&codes::RUN_NOT_FOUND, &codes::STREAM_LIMIT],
        ..get(
            "/v1/runs/{run_id}/stream",
            Access::ReadOnly,
            "A run's events, replayed from a cursor and then live.",
            Success::Events,
            Handler::Deferred(runs::stream),
        )
    },
    Route {
        query: &[PAGE, LIMIT, CURSOR],
        problems: &[&codes::RUN_NOT_FOUND],
        ..get(
            "/v1/runs/{run_id}/external-actions",
            Access::ReadOnly,
            "The signed records of a run's external actions, oldest first, byte for byte as they were signed.",
            list("ExternalAction"),
            Handler::Plain(audit::run_actions),
        )
    },
    get(
        "/v1/audit/public-key",
        Access::ReadOnly,
        "The public key that checks the audit trail, and those before it.",
        json(200, "AuditPublicKey"),
        Handler::Plain(audit::public_key),
    ),
    get(
        "/v1/audit/checkpoint",
        Access::ReadOnly,
        "A signed head of the journal, to be kept elsewhere.",
        json(200, "AuditCheckpoint"),
        Handler::Plain(audit::checkpoint),
    ),
    Route {
        problems: &[&codes::RUN_NOT_FOUND],
        ..post(
            "/v1/runs/{run_id}/cancel",
            "Stop a run; one that has ended is shown as it is.",
            optional("Reason"),
            json(200, "Run"),
            Handler::Plain(runs::cancel),
        )
    },
    get("/v1/runtime/secrets", Access::Admin, "All slots, metadata only.", list("Slot"), Handler::Plain(secrets::list)),
    Route {
        problems: &[&codes::SECRET_INVALID, &codes::AUTH_STORE_UNAVAILABLE],
        ..post(
            "/v1/runtime/secrets",
            "Create or overwrite a slot.",
            required("SlotRecord"),
            json(200, "Slot"),
            Handler::Deferred(secrets::put),
        )
    },
    Route {
        problems: &[&codes::SECRET_NOT_FOUND, &codes::SECRET_INVALID],
        ..get(
            "/v1/runtime/secrets/{secret_ref}",
            Access::Admin,
            "One slot, metadata only.",
            json(200, "Slot"),
            Handler::Plain(secrets::get),
        )
    },
    Route {
        method: Method::Delete,
        access: Access::Admin,
        problems: &[&codes::SECRET_NOT_FOUND, &codes::SECRET_CONFLICT, &codes::AUTH_STORE_UNAVAILABLE],
        ..get(
            "/v1/runtime/secrets/{secret_ref}",
            Access::Admin,
            "Delete a slot that no route names.",
            json(200, "Accepted"),
            Handler::Plain(secrets::delete),
        )
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// While a sync hung, four reads that waited for the core took every worker, and status waited behind them.
    #[test]
    fn what_tells_of_a_hanging_core_needs_no_worker() {
        for path in ["/healthz", "/readyz", "/v1/status", "/v1/runtime"] {
            let route = ROUTES.iter().find(|route| route.path == path).expect("in the table");
            assert_eq!(route.lane, Lane::Inline, "{path}");
        }
    }
}
