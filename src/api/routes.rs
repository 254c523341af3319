//! The one route table of the daemon.
//! Owns: every path with its access class, body bound, lane, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::paging::{CURSOR, LIMIT, ORDER, PAGE};
use super::query::{QueryKind, QueryParam};
use super::route::{Access, Handler, Request, Route, Schema, Success, Witness};
use super::{
    accounts, agent_routes, approval_routes, audit, backup_routes, builtin, connector_routes, contract_routes,
    delivery_routes, doctor_routes, hook_routes, mcp_routes, metrics, runs, runtime, runtime_auth, runtime_routes,
    secrets, sessions, status, streams, tasks,
};
use crate::http::problem::{Code, codes};
use crate::http::{Lane, Method};
use crate::limits::{
    AUTH_STORE_PLAINTEXT_BYTES_MAX, BODY_BYTES_MAX, BODY_SMALL_BYTES_MAX, LEASE_TEXT_BYTES_MAX, SECRET_BODY_BYTES_MAX,
    SLOT_ID_BYTES_MAX,
};

pub(super) const SESSION_FILTER: QueryParam =
    QueryParam { name: "session_id", kind: QueryKind::Session, summary: "Only what belongs to this session." };
pub(super) const RUN_FILTER: QueryParam =
    QueryParam { name: "run_id", kind: QueryKind::Run, summary: "Only what belongs to this run." };
const EVENT_CURSOR: QueryParam = QueryParam {
    name: "cursor",
    kind: QueryKind::EventCursor,
    summary: "Replay what follows this event id; 0 replays everything retained.",
};

pub(super) const fn optional(schema: &'static str) -> Option<Request> {
    Some(Request { schema, optional: true })
}

pub(super) const fn required(schema: &'static str) -> Option<Request> {
    Some(Request { schema, optional: false })
}

pub(super) const fn json(status: u16, schema: &'static str) -> Success {
    Success::Json { status, schema: Schema::Ref(schema) }
}

pub(super) const fn list(schema: &'static str) -> Success {
    Success::Json { status: 200, schema: Schema::List(schema) }
}

/// A route that reads.
pub(super) const fn get(
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
pub(super) const fn post(
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
    get(
        "/metrics",
        Access::ReadOnly,
        "The same figures for Prometheus; their number is fixed.",
        Success::Text,
        Handler::Plain(metrics::get),
    ),
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
    connector_routes::BATCH,
    connector_routes::CREDENTIAL,
    connector_routes::DELETE,
    connector_routes::EVENTS,
    connector_routes::GET,
    connector_routes::HTTP,
    connector_routes::LIST,
    connector_routes::METRICS,
    connector_routes::PUT,
    connector_routes::RELEASE,
    connector_routes::SLACK,
    connector_routes::TELEGRAM,
    delivery_routes::DEAD_LETTERS,
    delivery_routes::DROP,
    delivery_routes::GET,
    delivery_routes::GET_HOLD,
    delivery_routes::HOLD,
    delivery_routes::LIST,
    delivery_routes::REPLAY,
    delivery_routes::REPLAY_BULK,
    delivery_routes::RESET,
    delivery_routes::RESOLVE,
    delivery_routes::SESSION_TARGETS,
    delivery_routes::SET_SESSION_TARGETS,
    runtime_routes::RUNTIME_CHANGES_PERMISSION_MODE,
    runtime_routes::RUNTIME_CHANGES_MODEL,
    runtime_routes::RUNTIME_CHANGES_DEBUG_LEVEL,
    runtime_routes::RUNTIME_CHANGES_TOOL_LIMITS,
    runtime_routes::RUNTIME_CHANGES_ROLLBACK,
    runtime_routes::RUNTIME_CHANGES_SYSTEM_PROMPT,
    runtime_routes::RUNTIME_TOOL_LIMITS,
    runtime_routes::RUNTIME_REVISIONS,
    hook_routes::GET,
    hook_routes::SET,
    hook_routes::DEAD_LETTERS,
    hook_routes::RESOLVE,
    runtime_routes::PERMISSIONS_RULES,
    runtime_routes::RUNTIME_CHANGES_PERMISSION_RULES,
    runtime_routes::PERMISSIONS_CHECK,
    runtime_routes::PERMISSIONS_MATRIX,
    mcp_routes::LIST,
    mcp_routes::GET,
    mcp_routes::TOOLS,
    mcp_routes::CALL,
    mcp_routes::ENABLE,
    mcp_routes::DISABLE,
    mcp_routes::RECONNECT,
    mcp_routes::REMOVE,
    Route {
        query: &[SESSION_FILTER, RUN_FILTER, EVENT_CURSOR, doctor_routes::PROBE],
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
        query: &[EVENT_CURSOR, doctor_routes::PROBE],
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
        // Parsed in microseconds and handed to the core without waiting: the main path has one hand-over. But for files,
        // which are stored before.
        lane: Lane::InlineWithout("\"content_base64\""),
        problems: &[
            &codes::SESSION_NOT_FOUND,
            &codes::SESSION_ENDED,
            &codes::SESSION_QUEUE_FULL,
            &codes::RUN_QUEUE_FULL,
            &codes::ROUTE_NOT_READY,
            &codes::ROUTE_UNKNOWN,
            &codes::ASSET_NOT_FOUND,
            &codes::INPUT_NOT_SUPPORTED,
            &codes::INPUT_CONTRACT_VIOLATED,
            &codes::STORAGE_FULL,
            &codes::UNSUPPORTED_FEATURE,
            &codes::INVALID_IDEMPOTENCY_KEY,
            &codes::IDEMPOTENCY_CONFLICT,
            &codes::INVALID_REPLY_TARGET,
            &codes::DELIVERY_LIMIT,
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
        query: &[tasks::STATUS, PAGE, LIMIT, CURSOR],
        problems: &[&codes::SESSION_NOT_FOUND],
        ..get(
            "/v1/sessions/{session_id}/tasks",
            Access::ReadOnly,
            "A session's background commands and to-do items, oldest first.",
            list("Task"),
            Handler::Plain(tasks::list),
        )
    },
    Route {
        problems: &[&codes::SESSION_NOT_FOUND, &codes::TASK_NOT_FOUND],
        ..get(
            "/v1/sessions/{session_id}/tasks/{task_id}",
            Access::ReadOnly,
            "One task.",
            json(200, "Task"),
            Handler::Plain(tasks::get),
        )
    },
    Route {
        query: &[tasks::WAIT, tasks::TIMEOUT_MS, tasks::TAIL_BYTES, tasks::FULL],
        problems: &[
            &codes::SESSION_NOT_FOUND,
            &codes::TASK_NOT_FOUND,
            &codes::TASK_STATE_CONFLICT,
            &codes::TASK_OUTPUT_UNREADABLE,
        ],
        ..get(
            "/v1/sessions/{session_id}/tasks/{task_id}/output",
            Access::ReadOnly,
            "The output of a background command, at once or when it has ended.",
            json(200, "TaskOutput"),
            Handler::Deferred(tasks::output),
        )
    },
    Route {
        // `task.stop_requested` names the token and the request.
        witness: Witness::Journal,
        problems: &[&codes::SESSION_NOT_FOUND, &codes::TASK_NOT_FOUND, &codes::TASK_STATE_CONFLICT],
        ..post(
            "/v1/sessions/{session_id}/tasks/{task_id}/stop",
            "End a background command with everything that it started; one that has ended is shown as it is.",
            optional("Reason"),
            json(200, "Task"),
            Handler::Plain(tasks::stop),
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
    runtime_routes::SESSION_SETTINGS_GET,
    runtime_routes::SESSION_SETTINGS_PERMISSION_MODE,
    runtime_routes::SESSION_SETTINGS_PERMISSION_RULES,
    runtime_routes::SESSION_SETTINGS_ROUTE_POLICY,
    runtime_routes::SESSION_SETTINGS_PUT_ROUTE_POLICY,
    runtime_routes::SESSION_SETTINGS_CLEAR_ROUTE_POLICY,
    contract_routes::GET_INPUT,
    contract_routes::SET_INPUT,
    contract_routes::PUT_INPUT,
    contract_routes::CLEAR_INPUT,
    contract_routes::GET_OUTPUT,
    contract_routes::SET_OUTPUT,
    contract_routes::PUT_OUTPUT,
    contract_routes::CLEAR_OUTPUT,
    runtime_routes::PERMISSIONS_AUDITS,
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
        query: &[EVENT_CURSOR, doctor_routes::PROBE],
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
    agent_routes::DEAD_LETTERS,
    agent_routes::EXPLAIN,
    agent_routes::GET,
    agent_routes::LIST,
    agent_routes::MAILBOX,
    agent_routes::SPAWN,
    agent_routes::ACKNOWLEDGE,
    agent_routes::POST,
    agent_routes::PUT_ASSET,
    agent_routes::GET_ASSET,
    agent_routes::GET_BLOB,
    agent_routes::LIST_BLOBS,
    agent_routes::PRUNE_RESULTS,
    doctor_routes::ROUTE_REFERENCES,
    doctor_routes::SEND_PROBE,
    doctor_routes::INCIDENT_SIGNATURE,
    backup_routes::OPEN,
    backup_routes::CLOSE,
    approval_routes::LIST_APPROVALS,
    approval_routes::LIST_SESSION_APPROVALS,
    approval_routes::RESOLVE_SESSION_APPROVALS,
    approval_routes::RESOLVE_SESSION_RUN_APPROVALS,
    approval_routes::RESOLVE_RUN_APPROVALS,
    approval_routes::LIST_QUESTIONS,
    approval_routes::LIST_SESSION_QUESTIONS,
    approval_routes::RESOLVE_SESSION_QUESTION,
    approval_routes::RESOLVE_RUN_QUESTION,
    approval_routes::CANCEL_QUESTION,
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
    runtime_routes::DEBUG_LIST,
    runtime_routes::DEBUG_ARTIFACT,
    runtime_routes::DEBUG_PRUNE,
    runtime_routes::DEBUG_RETENTION_HOLD,
    get("/v1/runtime/secrets", Access::Admin, "All slots, metadata only.", list("Slot"), Handler::Plain(secrets::list)),
    Route {
        problems: &[&codes::SECRET_INVALID, &codes::AUTH_STORE_UNAVAILABLE],
        body_bytes_max: SECRET_BODY_BYTES_MAX,
        ..post(
            "/v1/runtime/secrets",
            "Create or overwrite a slot; leases of its former secret end.",
            required("SlotRecord"),
            json(200, "WrittenSlot"),
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
    Route {
        problems: &[&codes::SECRET_INVALID, &codes::AUTH_STORE_UNAVAILABLE],
        body_bytes_max: AUTH_STORE_PLAINTEXT_BYTES_MAX,
        ..post(
            "/v1/runtime/secret-imports",
            "Create or overwrite many slots with one change, or none of them.",
            required("SlotImport"),
            list("WrittenSlot"),
            Handler::Deferred(secrets::import),
        )
    },
    get(
        "/v1/runtime/auth/accounts",
        Access::Admin,
        "All OAuth accounts, metadata only.",
        list("Slot"),
        Handler::Plain(accounts::list),
    ),
    Route {
        problems: &[&codes::SECRET_INVALID, &codes::AUTH_STORE_UNAVAILABLE],
        ..post(
            "/v1/runtime/auth/accounts",
            "Store the account that a login brought.",
            required("AccountImport"),
            json(200, "WrittenSlot"),
            Handler::Deferred(accounts::import),
        )
    },
    Route {
        problems: &[&codes::SECRET_INVALID, &codes::AUTH_STORE_UNAVAILABLE],
        ..post(
            "/v1/runtime/auth/accounts/mcp-oauth",
            "Store the account that a login brought.",
            required("AccountImport"),
            json(200, "WrittenSlot"),
            Handler::Deferred(accounts::import),
        )
    },
    Route {
        problems: &[&codes::SECRET_NOT_FOUND, &codes::SECRET_INVALID, &codes::AUTH_ACCOUNT_INVALID],
        ..get(
            "/v1/runtime/auth/accounts/{secret_ref}",
            Access::Admin,
            "One OAuth account, metadata only.",
            json(200, "Slot"),
            Handler::Plain(accounts::get),
        )
    },
    Route {
        problems: &[
            &codes::SECRET_NOT_FOUND,
            &codes::SECRET_INVALID,
            &codes::SECRET_CONFLICT,
            &codes::AUTH_ACCOUNT_INVALID,
            &codes::AUTH_ACCOUNT_REFRESH_FAILED,
            &codes::AUTH_STORE_UNAVAILABLE,
        ],
        ..post(
            "/v1/runtime/auth/accounts/{secret_ref}/refresh",
            "Refresh an account's token now.",
            optional("NoFields"),
            json(200, "Slot"),
            Handler::Plain(accounts::refresh),
        )
    },
    Route {
        problems: ACCOUNT_DELETE,
        ..post(
            "/v1/runtime/auth/accounts/{secret_ref}/revoke",
            "Delete an account here; its authorization server is not told.",
            optional("NoFields"),
            json(200, "Accepted"),
            Handler::Plain(accounts::revoke),
        )
    },
    Route {
        method: Method::Delete,
        access: Access::Admin,
        problems: ACCOUNT_DELETE,
        ..get(
            "/v1/runtime/auth/accounts/{secret_ref}",
            Access::Admin,
            "Delete an account here; its authorization server is not told.",
            json(200, "Accepted"),
            Handler::Plain(accounts::delete),
        )
    },
    get(
        "/v1/runtime/auth/subjects",
        Access::Admin,
        "Subjects that are revoked or hold leases.",
        list("AuthSubject"),
        Handler::Plain(runtime_auth::subjects),
    ),
    Route {
        problems: &[&codes::AUTH_SUBJECT_INVALID, &codes::AUTH_SUBJECT_NOT_FOUND],
        ..get(
            "/v1/runtime/auth/subjects/{subject_id}",
            Access::Admin,
            "One subject with its live leases.",
            json(200, "AuthSubject"),
            Handler::Plain(runtime_auth::subject),
        )
    },
    Route {
        problems: &[
            &codes::AUTH_SUBJECT_INVALID,
            &codes::AUTH_SUBJECTS_FULL,
            &codes::AUTH_REVOCATION_NOT_RECORDED,
            &codes::AUTH_STORE_UNAVAILABLE,
        ],
        ..post(
            "/v1/runtime/auth/subjects/{subject_id}/revoke",
            "End the leases of a subject and of those that act for it, and refuse it others.",
            optional("RevokeSubject"),
            json(200, "SubjectRevocation"),
            Handler::Plain(runtime_auth::revoke_subject),
        )
    },
    Route {
        problems: &[&codes::AUTH_SUBJECT_INVALID, &codes::AUTH_SUBJECT_NOT_FOUND, &codes::AUTH_STORE_UNAVAILABLE],
        ..post(
            "/v1/runtime/auth/subjects/{subject_id}/reinstate",
            "Let a revoked subject have credentials again.",
            optional("Reason"),
            json(200, "AuthSubject"),
            Handler::Plain(runtime_auth::reinstate_subject),
        )
    },
    Route {
        query: &[
            QueryParam {
                name: "subject_id",
                kind: QueryKind::Text(LEASE_TEXT_BYTES_MAX),
                summary: "Only leases of this subject and of those that act for it.",
            },
            QueryParam {
                name: "slot_id",
                kind: QueryKind::Text(SLOT_ID_BYTES_MAX),
                summary: "Only leases with this slot.",
            },
            QueryParam { name: "all", kind: QueryKind::Flag, summary: "Also those that ended within the last day." },
        ],
        problems: &[&codes::AUTH_SUBJECT_INVALID, &codes::SECRET_INVALID],
        ..get(
            "/v1/runtime/auth/leases",
            Access::Admin,
            "Live leases, newest first.",
            list("AuthLease"),
            Handler::Plain(runtime_auth::leases),
        )
    },
    Route {
        problems: &[&codes::AUTH_LEASE_NOT_FOUND],
        ..get(
            "/v1/runtime/auth/leases/{lease_id}",
            Access::Admin,
            "One lease, alive or ended within the last day.",
            json(200, "AuthLease"),
            Handler::Plain(runtime_auth::lease),
        )
    },
    Route {
        problems: &[&codes::AUTH_LEASE_NOT_FOUND, &codes::AUTH_REVOCATION_NOT_RECORDED, &codes::AUTH_STORE_UNAVAILABLE],
        ..post(
            "/v1/runtime/auth/leases/{lease_id}/revoke",
            "End one lease, and the call that uses it.",
            optional("Reason"),
            json(200, "AuthLease"),
            Handler::Plain(runtime_auth::revoke_lease),
        )
    },
    Route {
        problems: &[
            &codes::SECRET_NOT_FOUND,
            &codes::SECRET_INVALID,
            &codes::AUTH_REVOCATION_NOT_RECORDED,
            &codes::AUTH_STORE_UNAVAILABLE,
        ],
        ..post(
            "/v1/runtime/auth/slots/{secret_ref}/revoke",
            "End the leases of a slot; a secret that has been leased gets no other one until the slot is set again.",
            optional("RevokeSlot"),
            json(200, "SlotRevocation"),
            Handler::Plain(runtime_auth::revoke_slot),
        )
    },
];

const ACCOUNT_DELETE: &[&Code] = &[
    &codes::SECRET_NOT_FOUND,
    &codes::SECRET_INVALID,
    &codes::SECRET_CONFLICT,
    &codes::AUTH_ACCOUNT_INVALID,
    &codes::AUTH_STORE_UNAVAILABLE,
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
