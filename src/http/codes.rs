//! The one table of problem codes.
//! Owns: every `code` a machine may read from an error answer, its status, meaning and remedy.
//! May touch: nothing; it is data.
//! Never: changes a published code; a code that is no longer used keeps its row.

/// One row: what a `code` in a problem document means. Codes are stable; details are for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// The stable machine code, unique over all domains.
    pub code: &'static str,
    /// The area that the code belongs to; none for the generic ones.
    pub domain: Option<&'static str>,
    /// HTTP status of every answer with this code.
    pub status: u16,
    /// One sentence: what happened.
    pub meaning: &'static str,
    /// What the caller or the operator does next.
    pub next: &'static str,
}

const fn domain(name: &'static str) -> Option<&'static str> {
    if name.is_empty() { None } else { Some(name) }
}

macro_rules! codes {
    ($($name:ident: $status:literal $domain:literal $code:literal, $meaning:literal, $next:literal;)*) => {
        $(
            #[doc = $meaning]
            pub static $name: Code =
                Code { code: $code, domain: domain($domain), status: $status, meaning: $meaning, next: $next };
        )*
        /// Every row, in the order of the table.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    // Generic: used where no domain has a better word.
    BAD_REQUEST: 400 "" "bad_request",
        "The request is not one this route understands.",
        "read the detail and correct the request";
    FORBIDDEN: 403 "" "forbidden",
        "The caller may not do this.",
        "use a token with the needed access";
    MISDIRECTED_REQUEST: 421 "" "misdirected_request",
        "The request names a host that this listener does not answer for while authentication is off.",
        "use a loopback name, start the daemon with --http-allowed-host, or configure an admin token";
    NOT_FOUND: 404 "" "not_found",
        "The resource does not exist.",
        "check the id in the path";
    METHOD_NOT_ALLOWED: 405 "" "method_not_allowed",
        "The path exists, but not with this method.",
        "use a method of the Allow header";
    CONFLICT: 409 "" "conflict",
        "The request contradicts the current state.",
        "read the resource again and decide anew";
    PAYLOAD_TOO_LARGE: 413 "" "payload_too_large",
        "The body is larger than this route accepts.",
        "send less, or refer to an asset";
    UNSUPPORTED_MEDIA_TYPE: 415 "" "unsupported_media_type",
        "The body has a content type this route does not read.",
        "send Content-Type: application/json";
    UNPROCESSABLE_BODY: 422 "" "unprocessable_body",
        "The body is well-formed JSON of the wrong shape.",
        "compare the body with GET /v1/openapi.json";
    UNSUPPORTED_FEATURE: 400 "" "unsupported_feature",
        "The request asks for a feature that this version does not have.",
        "leave the named field out, or use a version that has it";
    INTERNAL_ERROR: 500 "" "internal_error",
        "The daemon failed in a way it did not foresee.",
        "find the log lines with this request_id and report them";
    SERVICE_UNAVAILABLE: 503 "" "service_unavailable",
        "The daemon cannot serve this now.",
        "retry after the Retry-After time";

    // http: the listener itself, before any route.
    MALFORMED_REQUEST: 400 "http" "malformed_request",
        "The request head or chunked body breaks the HTTP/1.1 grammar.",
        "fix the client, or whatever rewrites its requests on the way";
    AMBIGUOUS_FRAMING: 400 "http" "ambiguous_framing",
        "The request's length can be read in two ways, as in request smuggling.",
        "find which client or proxy sent it; nothing of it was executed";
    REQUEST_TIMEOUT: 408 "http" "request_timeout",
        "The request did not arrive in time.",
        "look for a slow network or a client that stalls";
    TARGET_TOO_LONG: 414 "http" "target_too_long",
        "The request target is longer than the listener reads.",
        "move parameters into the body";
    EXPECTATION_FAILED: 417 "http" "expectation_failed",
        "The Expect header asks for something other than 100-continue.",
        "remove the Expect header";
    HEAD_TOO_LARGE: 431 "http" "head_too_large",
        "The request head has too many bytes or header lines.",
        "remove cookies and proxy headers that the daemon does not need";
    METHOD_UNSUPPORTED: 501 "http" "method_unsupported",
        "The method is CONNECT or has an over-long name.",
        "use an ordinary method; the daemon is no proxy";
    TRANSFER_ENCODING_UNSUPPORTED: 501 "http" "transfer_encoding_unsupported",
        "The Transfer-Encoding is not exactly `chunked`.",
        "send Content-Length, or chunked alone";
    SERVER_BUSY: 503 "http" "server_busy",
        "All workers are busy and their queue is full, or too many body bytes are held.",
        "retry after the Retry-After time; if it lasts, see queue depths in GET /v1/status";
    CONNECTION_LIMIT: 503 "http" "connection_limit",
        "The listener holds as many connections as it may.",
        "close idle clients and streams, or put a proxy in front";
    PEER_CONNECTION_LIMIT: 503 "http" "peer_connection_limit",
        "This client address holds as many connections as it may.",
        "reuse connections; name a proxy that serves many clients in --trusted-proxies";
    VERSION_UNSUPPORTED: 505 "http" "version_unsupported",
        "The request is neither HTTP/1.1 nor HTTP/1.0.",
        "speak HTTP/1.1; TLS and HTTP/2 end at the proxy in front";

    ROUTE_NOT_FOUND: 404 "api" "route_not_found",
        "No route has this path.",
        "compare the path with GET /v1/openapi.json";
    DAEMON_DRAINING: 503 "readiness" "daemon_draining",
        "The daemon is shutting down or has not finished recovery.",
        "wait for the restart, or use another instance";
    COMPONENT_FAILED: 503 "readiness" "component_failed",
        "A fixed thread of the daemon has died or makes no progress.",
        "see components in GET /v1/status, then restart the daemon";

    MISSING_TOKEN: 401 "auth" "missing_token",
        "The request carries no Authorization header.",
        "send Authorization: Bearer <token>";
    MALFORMED_TOKEN: 401 "auth" "malformed_token",
        "The Authorization header is not a bearer token.",
        "send Authorization: Bearer <token>";
    INVALID_TOKEN: 401 "auth" "invalid_token",
        "The token is not one of the configured ones.",
        "check the token file; a token equal to the other role's is refused";
    INSUFFICIENT_ACCESS: 403 "auth" "insufficient_access",
        "The token is read-only and the route needs admin.",
        "use the admin token";
    RATE_LIMITED: 429 "auth" "rate_limited",
        "Too many failed attempts from this address.",
        "stop retrying with a bad token; wait for Retry-After";
    ORIGIN_NOT_ALLOWED: 403 "cors" "origin_not_allowed",
        "A browser page of this origin may not call the daemon.",
        "allow a loopback origin with --http-cors-allow-origin";

    INVALID_LIMIT: 400 "pagination" "invalid_limit",
        "The limit is not a positive number.",
        "use limit=1 to 100";
    INVALID_CURSOR: 400 "pagination" "invalid_cursor",
        "The cursor was not issued by this list.",
        "start again without a cursor";
    INVALID_ORDER: 400 "pagination" "invalid_order",
        "The order is neither asc nor desc.",
        "use order=asc or order=desc";
    INVALID_EVENT_CURSOR: 400 "events" "invalid_event_cursor",
        "The event cursor is not a decimal number.",
        "use an id received from a stream, or 0 for everything";
    STREAM_LIMIT: 503 "events" "stream_limit",
        "As many event streams are open as may be.",
        "close streams that nobody reads";

    INVALID_IDEMPOTENCY_KEY: 400 "idempotency" "invalid_idempotency_key",
        "The idempotency key is empty, too long, or differs between header and body.",
        "send one key of 1 to 255 visible characters";
    IDEMPOTENCY_CONFLICT: 409 "idempotency" "idempotency_conflict",
        "The idempotency key was used with another request.",
        "use a new key for a new request";

    SESSION_NOT_FOUND: 404 "sessions" "session_not_found",
        "No session has this id.",
        "list sessions with GET /v1/sessions";
    INVALID_SESSION_ID: 400 "sessions" "invalid_session_id",
        "The text is not a legal session id.",
        "use 1 to 100 bytes without control characters and slashes";
    INPUT_CONTRACT_VIOLATED: 400 "sessions" "input_contract_violated",
        "The input does not fit the shape that the session holds it to.",
        "correct the place that the detail names";
    INPUT_CONTRACT_SCHEMA_UNSUPPORTED: 400 "sessions" "input_contract_schema_unsupported",
        "The schema says something that input cannot be held to.",
        "leave out what the detail names; docs/contracts.md lists what is taken";
    OUTPUT_CONTRACT_SCHEMA_UNSUPPORTED: 400 "sessions" "output_contract_schema_unsupported",
        "The schema says something that answers cannot be held to.",
        "leave out what the detail names; docs/contracts.md lists what is taken";
    SESSION_ALREADY_EXISTS: 409 "sessions" "session_already_exists",
        "A session has this id already.",
        "use it, or choose another id";
    SESSION_ENDED: 409 "sessions" "session_ended",
        "The session has ended and accepts nothing more.",
        "create another session";
    SESSION_BUSY: 409 "sessions" "session_busy",
        "The session is doing something that excludes this.",
        "wait for its run, or interrupt it";
    SESSION_NOT_IDLE: 409 "sessions" "session_not_idle",
        "The session still has runs.",
        "wait for them, or cancel them";
    SESSION_QUEUE_FULL: 429 "sessions" "session_queue_full",
        "As many runs wait in this session as may.",
        "wait until some have finished";
    SESSION_LIMIT: 503 "sessions" "session_limit",
        "The daemon holds as many sessions as it may.",
        "end sessions that are no longer used";

    RUN_NOT_FOUND: 404 "runs" "run_not_found",
        "No run has this id.",
        "list runs with GET /v1/runs";
    APPROVAL_STATE_CONFLICT: 409 "approvals" "approval_state_conflict",
        "The run does not wait for an approval.",
        "list pending approvals and read the run again";
    APPROVAL_BATCH_EMPTY: 400 "approvals" "approval_batch_empty",
        "The batch resolves nothing.",
        "name at least one pending approval";
    APPROVAL_DUPLICATE_RESOLUTION: 400 "approvals" "approval_duplicate_resolution",
        "The batch resolves one approval twice.",
        "name each approval once";
    APPROVAL_REQUEST_NOT_PENDING: 400 "approvals" "approval_request_not_pending",
        "The run has no such open approval; nothing of the batch was applied.",
        "list pending approvals";
    QUESTION_STATE_CONFLICT: 409 "questions" "question_state_conflict",
        "The run does not wait for an answer.",
        "list pending questions and read the run again";
    QUESTION_EXPIRED: 409 "questions" "question_expired",
        "The question's deadline has passed.",
        "submit the work again";
    QUESTION_REQUEST_MISMATCH: 400 "questions" "question_request_mismatch",
        "Another question is pending.",
        "list pending questions";
    QUESTION_OPTION_NOT_FOUND: 400 "questions" "question_option_not_found",
        "An answer selects an option that the question does not have.",
        "select options that the question lists";
    QUESTION_ANSWER_MISSING: 400 "questions" "question_answer_missing",
        "A question of the request has no answer.",
        "answer every question of the request, or decline it";
    QUESTION_DUPLICATE_ANSWER: 400 "questions" "question_duplicate_answer",
        "A question is answered twice.",
        "answer each question once";
    QUESTION_DUPLICATE_OPTION: 400 "questions" "question_duplicate_option",
        "An answer selects one option twice.",
        "select each option once";
    QUESTION_DECLINED_WITH_ANSWERS: 400 "questions" "question_declined_with_answers",
        "The request is declined and answered at once.",
        "either decline or answer";
    QUESTION_SINGLE_SELECT_VIOLATION: 400 "questions" "question_single_select_violation",
        "Several options of a single-choice question are selected.",
        "select one option";
    QUESTION_ANSWER_EMPTY: 400 "questions" "question_answer_empty",
        "An answer has neither an option nor text.",
        "select an option or write an answer";
    QUESTION_ANSWER_INVALID: 400 "questions" "question_answer_invalid",
        "An answer is not what the field of a form allows.",
        "answer as the question's form.schema says";
    QUESTION_UNKNOWN_ANSWER: 400 "questions" "question_unknown_answer",
        "An answer names a question that the request does not have.",
        "answer the questions of the request";
    RUN_STATE_CONFLICT: 409 "runs" "run_state_conflict",
        "The run is in a state that does not allow this.",
        "read the run again";
    RUN_ALREADY_ACTIVE: 409 "runs" "run_already_active",
        "Another run of the session is active.",
        "wait for it, or let this one queue";
    RUN_QUEUE_FULL: 503 "runs" "run_queue_full",
        "As many runs wait in the daemon as may.",
        "retry later; see runs in GET /v1/status";
    EXECUTION_HELD: 409 "runs" "execution_held",
        "An operator holds execution; inputs are accepted and wait.",
        "release the hold";
    RUN_DEBUG_NOT_FOUND: 404 "runs" "run_debug_not_found",
        "The run has no debug capture.",
        "enable debug capture before the run";
    RUN_DEBUG_ARTIFACT_NOT_FOUND: 404 "runs" "run_debug_artifact_not_found",
        "The run has no such debug artifact.",
        "list the run's debug artifacts";
    RUN_DEBUG_ARTIFACT_UNREADABLE: 409 "runs" "run_debug_artifact_unreadable",
        "The debug artifact cannot be read.",
        "check the capture key and the state root";
    INVALID_HOOK_SETTINGS: 400 "runtime" "invalid_hook_settings",
        "The hooks cannot be used; nothing was changed.",
        "correct the hooks that the detail names";
    HOOK_DEAD_LETTER_NOT_FOUND: 404 "runtime" "hook_dead_letter_not_found",
        "There is no such dead letter of a hook, or it is no longer kept.",
        "list them with GET /v1/runtime/hooks/dead-letter";
    RUN_RETENTION_INVALID_REQUEST: 400 "runs" "run_retention_invalid_request",
        "The retention request makes no sense.",
        "read the detail and correct the request";

    TASK_NOT_FOUND: 404 "tasks" "task_not_found",
        "The session has no such task, or it ended long ago and is no longer listed.",
        "list the session's tasks";
    TASK_STATE_CONFLICT: 409 "tasks" "task_state_conflict",
        "The task is of a kind or in a state that does not allow this.",
        "read the task again";
    TASK_LIMIT: 429 "tasks" "task_limit",
        "As many tasks are open as may be.",
        "end some, or wait for them";
    DELIVERY_NOT_FOUND: 404 "deliveries" "delivery_not_found",
        "There is no such delivery, or it finished long ago and is no longer listed.",
        "list deliveries, or read the run's records";
    DELIVERY_STATE_CONFLICT: 409 "deliveries" "delivery_state_conflict",
        "The delivery is not in a state for this.",
        "read the delivery again";
    DELIVERY_LIMIT: 429 "deliveries" "delivery_limit",
        "As many deliveries are owed or dead as may be, or the run names too many reply targets.",
        "resolve or drop dead letters, or name fewer targets";
    DELIVERY_BACKPRESSURE_SELECTOR_REQUIRED: 400 "deliveries" "delivery_backpressure_selector_required",
        "Neither a target nor a plugin was named.",
        "name the target or the plugin whose failures are to be forgotten";
    INVALID_REPLY_TARGET: 400 "deliveries" "invalid_reply_target",
        "A reply target cannot be used as it is.",
        "correct it as the detail says";
    TASK_OUTPUT_UNREADABLE: 503 "tasks" "task_output_unreadable",
        "The task's output file cannot be read.",
        "check shell-tasks in the state root and its disk";

    ASSET_NOT_FOUND: 404 "assets" "asset_not_found",
        "No file is kept under this id, or none that an input can hold.",
        "import it with assets import";
    BLOB_NOT_FOUND: 404 "runs" "blob_not_found",
        "No result of the run is kept under this digest, or it was removed.",
        "list the run's blobs";
    BLOB_UNREADABLE: 503 "runs" "blob_unreadable",
        "The kept result cannot be read, or is not what its digest says.",
        "check blobs in the state root and its disk";

    AGENT_NOT_FOUND: 404 "agents" "agent_not_found",
        "There is no such agent.",
        "list agents";
    AGENT_CLOSED: 409 "agents" "agent_closed",
        "The agent's session has ended.",
        "use another agent, or make one";
    AGENT_SCOPE_REFUSED: 400 "agents" "agent_scope_refused",
        "The scope is malformed, or wider than the parent's.",
        "ask for a part of what the parent may use";
    SESSION_EXISTS: 409 "agents" "session_exists",
        "A child agent was to get a session id that is taken.",
        "use another id, or leave it out";
    SPAWN_POLICY_DENIED: 429 "subagent_policy" "spawn_policy_denied",
        "As many child agents exist as may be, here or below one agent, or the tree is as deep as it may be.",
        "wait for others to end, or end them";
    MAILBOX_FULL: 429 "agents" "mailbox_full",
        "The mailbox holds as much as it may.",
        "wait until the agent has taken some";
    MAILBOX_MESSAGE_CONFLICT: 409 "agents" "mailbox_message_conflict",
        "Another message has this id.",
        "use another id";
    MAILBOX_MESSAGE_NOT_FOUND: 404 "agents" "mailbox_message_not_found",
        "No message with this id waits or is dead; one that is under way ends with its run.",
        "list the mailbox";

    RUNTIME_REVISION_CONFLICT: 409 "runtime" "runtime_revision_conflict",
        "Another runtime revision is in force than the caller expects.",
        "read GET /v1/runtime again and decide anew";
    RUNTIME_REVISION_NOT_FOUND: 404 "runtime" "runtime_revision_not_found",
        "The runtime revision is not kept.",
        "list the kept ones with GET /v1/runtime/revisions";
    RUNTIME_VALIDATION_FAILED: 400 "runtime" "runtime_validation_failed",
        "The runtime setting cannot hold.",
        "read the detail and correct the request";
    INVALID_TOOL_RUNTIME_LIMITS: 400 "runtime" "invalid_tool_runtime_limits",
        "A tool limit is outside its bounds.",
        "read the detail and correct the limit";
    PERMISSION_RULES_INVALID: 400 "runtime" "permission_rules_invalid",
        "A permission rule cannot be used.",
        "read the detail and correct the rule";

    MCP_SERVER_NOT_FOUND: 404 "mcp" "mcp_server_not_found",
        "There is no such MCP server.",
        "list the servers with GET /v1/mcp/servers";
    MCP_TOOL_NOT_FOUND: 404 "mcp" "mcp_tool_not_found",
        "The MCP server offers no such tool.",
        "list its tools";
    MCP_SERVER_DISABLED: 409 "mcp" "mcp_server_disabled",
        "The MCP server is switched off.",
        "enable it";
    MCP_NOT_CONNECTED: 409 "mcp" "mcp_not_connected",
        "The MCP server is not connected.",
        "read the server and correct what its error says";
    MCP_BUSY: 429 "mcp" "mcp_busy",
        "Too many calls of MCP servers are under way.",
        "try again in a moment";
    MCP_CALL_FAILED: 502 "mcp" "mcp_call_failed",
        "The MCP server gave no usable answer.",
        "read the detail; look at the state before a repetition";

    ROUTE_NOT_READY: 400 "routes" "route_not_ready",
        "The model route is in error state.",
        "see provider_readiness in GET /v1/status";
    INPUT_NOT_SUPPORTED: 400 "routes" "input_not_supported",
        "The route takes no pictures and documents.",
        "choose a route whose capabilities have multimodal_input";
    ROUTE_UNKNOWN: 400 "routes" "route_unknown",
        "No model route has this id.",
        "use an id of the routes file";

    SECRET_NOT_FOUND: 404 "secrets" "secret_not_found",
        "No slot has this name.",
        "list slots with GET /v1/runtime/secrets";
    SECRET_INVALID: 400 "secrets" "secret_invalid",
        "The slot's name, provider or value is not acceptable.",
        "read the detail and correct the request";
    SECRET_CONFLICT: 409 "secrets" "secret_conflict",
        "The slot has changed, exists already, or is still in use.",
        "list the slots again and decide anew";
    AUTH_SUBJECT_INVALID: 400 "secrets" "auth_subject_invalid",
        "The text is no subject id.",
        "write session:, agent:, connector:, mcp:, route: or hook: with an id behind it, or daemon";
    AUTH_SUBJECT_NOT_FOUND: 404 "secrets" "auth_subject_not_found",
        "Nobody has seen this subject.",
        "list subjects with GET /v1/runtime/auth/subjects";
    AUTH_LEASE_NOT_FOUND: 404 "secrets" "auth_lease_not_found",
        "No lease has this id, or it ended more than a day ago.",
        "list leases with GET /v1/runtime/auth/leases, or read auth/broker.jsonl";
    AUTH_ACCOUNT_INVALID: 400 "secrets" "auth_account_invalid",
        "The slot holds no OAuth account.",
        "list accounts with GET /v1/runtime/auth/accounts";
    AUTH_ACCOUNT_REFRESH_FAILED: 503 "secrets" "auth_account_refresh_failed",
        "The account's token could not be refreshed; the former one is kept.",
        "check the authorization server, or log in again";
    AUTH_SUBJECTS_FULL: 503 "secrets" "auth_subjects_full",
        "As many subjects are revoked as may be.",
        "reinstate those that are gone for good, or revoke the slot";
    AUTH_REVOCATION_NOT_RECORDED: 503 "secrets" "auth_revocation_not_recorded",
        "The revocation is in force and could not be recorded, so that a restart would lift it.",
        "check the disk of the state root, then revoke again";
    AUTH_STORE_UNAVAILABLE: 503 "secrets" "auth_store_unavailable",
        "The encrypted store cannot be opened or written.",
        "check the master key and the state root, see GET /v1/status";

    CONNECTOR_NOT_FOUND: 404 "connectors" "connector_not_found",
        "No connector of this kind has this name.",
        "list them with GET /v1/runtime/connectors";
    CONNECTOR_INVALID: 400 "connectors" "connector_invalid",
        "The connector's configuration breaks a rule.",
        "read the detail and correct the named field";
    CONNECTOR_FILE_BACKED: 409 "connectors" "connector_file_backed",
        "The connector comes from the file of --connectors-config.",
        "change the file and restart the daemon, or use another name";
    CONNECTOR_REFERENCED: 409 "connectors" "connector_referenced",
        "Something still refers to the connector.",
        "take the reference named in the detail away first";
    CONNECTOR_REVISION_CONFLICT: 409 "connectors" "connector_revision_conflict",
        "The connector was changed meanwhile.",
        "read it again and decide anew";
    CONNECTOR_LIMIT: 409 "connectors" "connector_limit",
        "As many connectors, or binding keys, exist as may be.",
        "delete what is not needed";
    CONNECTORS_HELD: 503 "connectors" "connectors_held",
        "Nothing passes through connectors, as after the start of a copied or restored state root.",
        "check the restored state, then run kheish-daemon connectors release";
    BACKUP_IN_PROGRESS: 409 "backup" "backup_in_progress",
        "Another backup is being begun.",
        "try again in a few seconds";
    BACKUP_BARRIER_FAILED: 503 "backup" "backup_barrier_failed",
        "The daemon could not stand still for a backup.",
        "read the detail and check the disk of the state root";
    BACKUP_BARRIER_UNKNOWN: 404 "backup" "backup_barrier_unknown",
        "No such barrier is open, as after a restart of the daemon.",
        "begin the backup again";
    CONNECTOR_UNKNOWN: 404 "connector_ingress" "connector_unknown",
        "No connector of this kind has this name.",
        "check the URL that the sender was given";
    CONNECTOR_UNAUTHORIZED: 401 "connector_ingress" "unauthorized",
        "The connector's token is missing or wrong.",
        "give the sender the connector's present token";
    SIGNATURE_MISSING: 401 "connector_ingress" "signature_missing",
        "A header of the signature is missing, doubled or malformed.",
        "have the sender sign, and keep proxies from stripping its headers";
    SIGNATURE_INVALID: 401 "connector_ingress" "signature_invalid",
        "The signature does not fit the body and the present secret.",
        "give the sender the present secret, and keep proxies from rewriting the body or the path";
    SIGNATURE_EXPIRED: 401 "connector_ingress" "signature_expired",
        "The signature's timestamp is too far from now.",
        "correct the clocks of both sides; a replayed request stays refused";
    CONNECTOR_SECRET_UNAVAILABLE: 503 "connector_ingress" "connector_secret_unavailable",
        "A secret of the connector is missing, revoked or cannot be read.",
        "set the slot again, see GET /v1/runtime/connectors";
    EVENT_INVALID: 400 "connector_ingress" "event_invalid",
        "The event breaks a rule of its connector.",
        "read the detail and correct the sender";
    EVENT_SOURCE_REFUSED: 403 "connector_ingress" "event_source_refused",
        "The event comes from a place that the connector does not allow.",
        "add it to the connector's list if it should be served";
    EVENT_CONFLICT: 409 "connector_ingress" "event_conflict",
        "An earlier event had the same id and other content.",
        "give each event an id of its own";
    EVENT_SESSION_MISSING: 409 "connector_ingress" "event_session_missing",
        "The event's session does not exist and the connector may not create it.",
        "create the session, or set session_policy.create_if_missing";
    HTTP_INGRESS_RATE_LIMITED: 429 "connector_ingress" "http_ingress_rate_limited",
        "The http connector takes no more events per second.",
        "retry after the Retry-After time, or raise ingress_events_per_second";
    EXTERNAL_INGRESS_RATE_LIMITED: 429 "connector_ingress" "external_ingress_rate_limited",
        "The external connector takes no more events per second.",
        "retry after the Retry-After time, or raise ingress_events_per_second";
    CHAT_INGRESS_RATE_LIMITED: 429 "connector_ingress" "chat_ingress_rate_limited",
        "The Slack or Telegram connector takes no more events per second.",
        "retry after the Retry-After time, or raise ingress_events_per_second";
    CREDENTIAL_UNKNOWN: 404 "connector_ingress" "credential_unknown",
        "The connector has no credential of this name.",
        "compare the name with credential_slots of the connector";
    CREDENTIAL_REFUSED: 401 "connector_ingress" "credential_refused",
        "The token stands for no live lease of this credential.",
        "restart the sidecar by putting its connector again";

    AUDIT_UNAVAILABLE: 503 "audit" "audit_unavailable",
        "The act cannot be put on record, so it was not begun.",
        "free space or repair the disk of the state root, see journal in GET /v1/status, and try again";

    CORE_BUSY: 503 "core" "core_busy",
        "The core's mailbox is full.",
        "retry after the Retry-After time";
    CORE_UNAVAILABLE: 503 "core" "core_unavailable",
        "The core is stopping or did not answer in time.",
        "retry; a change may or may not have been accepted, so reuse the idempotency key";
    JOURNAL_POISONED: 503 "core" "journal_poisoned",
        "A sync of the journal failed; no change is accepted until a restart.",
        "check the disk, then restart the daemon";
    STORAGE_FULL: 507 "core" "storage_full",
        "The disk is full; reads go on, changes are refused.",
        "free space under the state root; service resumes by itself";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_unique_and_complete() {
        let mut seen = std::collections::HashSet::new();
        for row in ALL {
            assert!(seen.insert(row.code), "{} appears twice", row.code);
            assert!((400..=599).contains(&row.status), "{} has status {}", row.code, row.status);
            let spelled = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            assert!(spelled(row.code) && row.domain.is_none_or(spelled), "{} is misspelled", row.code);
            assert!(row.meaning.ends_with('.') && row.meaning.len() > 12, "{} has no meaning sentence", row.code);
            assert!(!row.next.is_empty() && !row.next.ends_with('.'), "{} has no next step", row.code);
        }
    }
}
