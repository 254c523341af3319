//! Rows of the route table: runtime configuration, permissions, sessions' own settings, debug capture.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::paging::{CURSOR, LIMIT};
use super::route::{Access, Handler, Route, Success};
use super::routes::{get, json, optional, post, required};
use super::{debug, permissions, runtime, runtime_changes, session_settings};
use crate::http::Method;
use crate::http::problem::{Code, codes};
use crate::limits::RUNTIME_SETTINGS_BYTES_MAX;

/// What a change of the runtime configuration may be answered with.
const RUNTIME_CHANGE: &[&Code] = &[
    &codes::RUNTIME_REVISION_CONFLICT,
    &codes::RUNTIME_REVISION_NOT_FOUND,
    &codes::RUNTIME_VALIDATION_FAILED,
    &codes::INVALID_TOOL_RUNTIME_LIMITS,
    &codes::PERMISSION_RULES_INVALID,
];

/// What a change of a session's settings may be answered with.
const SESSION_CHANGE: &[&Code] =
    &[&codes::SESSION_NOT_FOUND, &codes::RUNTIME_VALIDATION_FAILED, &codes::PERMISSION_RULES_INVALID];

pub(super) const RUNTIME_CHANGES_PERMISSION_MODE: Route<Api> = Route {
    problems: RUNTIME_CHANGE,
    ..post(
        "/v1/runtime/permission-mode",
        "Set the permission mode; dontAsk also settles waiting approvals as denied.",
        required("SetPermissionMode"),
        json(200, "RuntimeChanged"),
        Handler::Plain(runtime_changes::permission_mode),
    )
};

pub(super) const RUNTIME_CHANGES_MODEL: Route<Api> = Route {
    problems: RUNTIME_CHANGE,
    ..post(
        "/v1/runtime/model",
        "Set route and model of runs that name none.",
        required("SetModel"),
        json(200, "RuntimeChanged"),
        Handler::Plain(runtime_changes::model),
    )
};

pub(super) const RUNTIME_CHANGES_DEBUG_LEVEL: Route<Api> = Route {
    problems: RUNTIME_CHANGE,
    ..post(
        "/v1/runtime/debug-level",
        "Set how much of the exchanges is kept for debugging, and for how long.",
        required("SetDebugLevel"),
        json(200, "RuntimeChanged"),
        Handler::Plain(runtime_changes::debug_level),
    )
};

pub(super) const RUNTIME_CHANGES_TOOL_LIMITS: Route<Api> = Route {
    problems: RUNTIME_CHANGE,
    ..post(
        "/v1/runtime/tool-limits",
        "Replace the tool limits as a whole.",
        required("SetToolLimits"),
        json(200, "RuntimeChanged"),
        Handler::Plain(runtime_changes::tool_limits),
    )
};

pub(super) const RUNTIME_CHANGES_ROLLBACK: Route<Api> = Route {
    problems: RUNTIME_CHANGE,
    ..post(
        "/v1/runtime/rollback",
        "Bring back the settings of an earlier revision, but for the debug level.",
        optional("Rollback"),
        json(200, "RuntimeChanged"),
        Handler::Plain(runtime_changes::rollback),
    )
};

pub(super) const RUNTIME_CHANGES_SYSTEM_PROMPT: Route<Api> = Route {
    problems: RUNTIME_CHANGE,
    body_bytes_max: RUNTIME_SETTINGS_BYTES_MAX,
    ..post(
        "/v1/runtime/system-prompt",
        "Replace the system prompt as a whole.",
        required("SetSystemPrompt"),
        json(200, "RuntimeChanged"),
        Handler::Plain(runtime_changes::system_prompt),
    )
};

pub(super) const RUNTIME_TOOL_LIMITS: Route<Api> = get(
    "/v1/runtime/tool-limits",
    Access::ReadOnly,
    "The tool limits in force.",
    json(200, "ToolLimits"),
    Handler::Plain(runtime::tool_limits),
);

pub(super) const RUNTIME_REVISIONS: Route<Api> = get(
    "/v1/runtime/revisions",
    Access::Admin,
    "Revisions of the runtime configuration, newest first.",
    json(200, "RuntimeRevisions"),
    Handler::Plain(runtime::revisions),
);

pub(super) const PERMISSIONS_RULES: Route<Api> = get(
    "/v1/runtime/permissions/rules",
    Access::ReadOnly,
    "The permission rules of the scopes user and project.",
    json(200, "PermissionRules"),
    Handler::Plain(permissions::rules),
);

pub(super) const RUNTIME_CHANGES_PERMISSION_RULES: Route<Api> = Route {
    method: Method::Put,
    problems: RUNTIME_CHANGE,
    body_bytes_max: RUNTIME_SETTINGS_BYTES_MAX,
    ..post(
        "/v1/runtime/permissions/rules",
        "Replace the permission rules, all or those of one scope.",
        required("SetPermissionRules"),
        json(200, "RuntimeChanged"),
        Handler::Plain(runtime_changes::permission_rules),
    )
};

pub(super) const PERMISSIONS_CHECK: Route<Api> = Route {
    problems: &[&codes::SESSION_NOT_FOUND, &codes::RUNTIME_VALIDATION_FAILED],
    ..post(
        "/v1/runtime/permissions/check",
        "What would be decided about a call of a tool; nothing is run, asked or recorded.",
        required("PermissionCheck"),
        json(200, "PermissionDecision"),
        Handler::Plain(permissions::check),
    )
};

pub(super) const PERMISSIONS_MATRIX: Route<Api> = Route {
    problems: &[&codes::SESSION_NOT_FOUND],
    ..post(
        "/v1/runtime/permissions/matrix",
        "Every tool in every permission mode.",
        optional("PermissionMatrixRequest"),
        json(200, "PermissionMatrix"),
        Handler::Plain(permissions::matrix),
    )
};

pub(super) const SESSION_SETTINGS_GET: Route<Api> = Route {
    problems: &[&codes::SESSION_NOT_FOUND],
    ..get(
        "/v1/sessions/{session_id}/settings",
        Access::ReadOnly,
        "What a session has of its own: permission mode, permission rules, route policy, contracts.",
        json(200, "SessionSettings"),
        Handler::Plain(session_settings::get),
    )
};

pub(super) const SESSION_SETTINGS_PERMISSION_MODE: Route<Api> = Route {
    problems: SESSION_CHANGE,
    ..post(
        "/v1/sessions/{session_id}/permission-mode",
        "Give a session a permission mode of its own, or take it back with null.",
        required("SetSessionPermissionMode"),
        json(200, "SessionSettings"),
        Handler::Plain(session_settings::permission_mode),
    )
};

pub(super) const SESSION_SETTINGS_PERMISSION_RULES: Route<Api> = Route {
    method: Method::Put,
    problems: SESSION_CHANGE,
    body_bytes_max: RUNTIME_SETTINGS_BYTES_MAX,
    ..post(
        "/v1/sessions/{session_id}/permission-rules",
        "Replace a session's own permission rules.",
        required("SetSessionPermissionRules"),
        json(200, "SessionSettings"),
        Handler::Plain(session_settings::permission_rules),
    )
};

pub(super) const SESSION_SETTINGS_ROUTE_POLICY: Route<Api> = Route {
    problems: SESSION_CHANGE,
    ..post(
        "/v1/sessions/{session_id}/route-policy",
        "Set route and model of a session's runs that name none.",
        required("SetRoutePolicy"),
        json(200, "SessionSettings"),
        Handler::Plain(session_settings::route_policy),
    )
};

pub(super) const SESSION_SETTINGS_PUT_ROUTE_POLICY: Route<Api> =
    Route { method: Method::Put, ..SESSION_SETTINGS_ROUTE_POLICY };

pub(super) const SESSION_SETTINGS_CLEAR_ROUTE_POLICY: Route<Api> = Route {
    method: Method::Delete,
    access: Access::Admin,
    problems: &[&codes::SESSION_NOT_FOUND],
    ..get(
        "/v1/sessions/{session_id}/route-policy",
        Access::Admin,
        "Give the choice of route and model back to the daemon.",
        json(200, "SessionSettings"),
        Handler::Plain(session_settings::clear_route_policy),
    )
};

pub(super) const PERMISSIONS_AUDITS: Route<Api> = Route {
    query: &[LIMIT, CURSOR],
    problems: &[&codes::SESSION_NOT_FOUND],
    ..get(
        "/v1/sessions/{session_id}/permission-audits",
        Access::ReadOnly,
        "Recorded permission decisions of a session, newest first.",
        json(200, "PermissionAudits"),
        Handler::Plain(permissions::audits),
    )
};

pub(super) const DEBUG_LIST: Route<Api> = Route {
    problems: &[&codes::RUN_NOT_FOUND, &codes::RUN_DEBUG_NOT_FOUND],
    ..get(
        "/v1/runs/{run_id}/debug",
        Access::Admin,
        "What debug capture kept of a run.",
        json(200, "RunDebug"),
        Handler::Plain(debug::list),
    )
};

pub(super) const DEBUG_ARTIFACT: Route<Api> = Route {
    problems: &[&codes::RUN_NOT_FOUND, &codes::RUN_DEBUG_ARTIFACT_NOT_FOUND, &codes::RUN_DEBUG_ARTIFACT_UNREADABLE],
    ..get(
        "/v1/runs/{run_id}/debug/artifacts/{artifact_id}",
        Access::Admin,
        "The body of one debug artifact.",
        Success::Text,
        Handler::Plain(debug::artifact),
    )
};

pub(super) const DEBUG_PRUNE: Route<Api> = Route {
    problems: &[&codes::RUN_RETENTION_INVALID_REQUEST, &codes::AUDIT_UNAVAILABLE],
    ..post(
        "/v1/runs/prune",
        "Remove debug artifacts of ended runs; runs and their records stay.",
        required("PruneRuns"),
        json(200, "PrunedRuns"),
        Handler::Plain(debug::prune),
    )
};

pub(super) const DEBUG_RETENTION_HOLD: Route<Api> = Route {
    problems: &[&codes::RUN_NOT_FOUND, &codes::RUN_RETENTION_INVALID_REQUEST],
    ..post(
        "/v1/runs/{run_id}/retention-hold",
        "Keep a run's evidence from being removed, or let it go.",
        required("SetRetentionHold"),
        json(200, "RetentionHold"),
        Handler::Plain(debug::retention_hold),
    )
};
