//! Rows of the route table: agents, mailboxes, and whole results of tools.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::paging::{CURSOR, LIMIT, PAGE};
use super::route::{Access, Handler, Route};
use super::routes::{get, json, list, optional, post, required};
use super::{agents, assets, blobs, prune_results};
use crate::http::problem::{Code, codes};
use crate::limits::BODY_BYTES_MAX;

const SPAWN_PROBLEMS: &[&Code] = &[
    &codes::AGENT_NOT_FOUND,
    &codes::AGENT_CLOSED,
    &codes::AGENT_SCOPE_REFUSED,
    &codes::SESSION_EXISTS,
    &codes::SPAWN_POLICY_DENIED,
    &codes::SESSION_LIMIT,
    &codes::INVALID_SESSION_ID,
    &codes::ROUTE_NOT_READY,
    &codes::ROUTE_UNKNOWN,
    &codes::UNSUPPORTED_FEATURE,
    &codes::INVALID_IDEMPOTENCY_KEY,
    &codes::IDEMPOTENCY_CONFLICT,
];

pub(super) const LIST: Route<Api> = Route {
    query: &[agents::BELOW, PAGE, LIMIT, CURSOR],
    ..get(
        "/v1/agents",
        Access::ReadOnly,
        "Agents in order of creation; every session has one.",
        list("Agent"),
        Handler::Plain(agents::list),
    )
};

pub(super) const GET: Route<Api> = Route {
    problems: &[&codes::AGENT_NOT_FOUND],
    ..get("/v1/agents/{agent_id}", Access::ReadOnly, "One agent.", json(200, "Agent"), Handler::Plain(agents::get))
};

pub(super) const SPAWN: Route<Api> = Route {
    body_bytes_max: BODY_BYTES_MAX,
    problems: SPAWN_PROBLEMS,
    ..post(
        "/v1/agents/{agent_id}/sidechains",
        "Make a child agent that may use at most what its parent may, and start its first run.",
        optional("SpawnAgent"),
        json(200, "SpawnedAgent"),
        Handler::Plain(agents::spawn),
    )
};

pub(super) const EXPLAIN: Route<Api> = Route {
    body_bytes_max: BODY_BYTES_MAX,
    problems: SPAWN_PROBLEMS,
    ..post(
        "/v1/agents/{agent_id}/sidechains/explain",
        "Tell whether such a child agent could be made now, without making it.",
        optional("SpawnAgent"),
        json(200, "SpawnExplanation"),
        Handler::Plain(agents::explain),
    )
};

pub(super) const MAILBOX: Route<Api> = Route {
    problems: &[&codes::AGENT_NOT_FOUND],
    ..get(
        "/v1/agents/{agent_id}/mailbox",
        Access::ReadOnly,
        "Messages that wait for the agent or are under way; reading takes none out.",
        list("MailboxMessage"),
        Handler::Plain(agents::mailbox),
    )
};

pub(super) const DEAD_LETTERS: Route<Api> = Route {
    problems: &[&codes::AGENT_NOT_FOUND],
    ..get(
        "/v1/agents/{agent_id}/mailbox/dead-letter",
        Access::ReadOnly,
        "The newest messages that could not be delivered to the agent.",
        list("MailboxMessage"),
        Handler::Plain(agents::dead_letters),
    )
};

pub(super) const ACKNOWLEDGE: Route<Api> = Route {
    problems: &[&codes::AGENT_NOT_FOUND, &codes::MAILBOX_MESSAGE_NOT_FOUND],
    ..post(
        "/v1/agents/{agent_id}/mailbox/{message_id}/ack",
        "Take a message out of the mailbox by hand.",
        optional("NoFields"),
        json(200, "Accepted"),
        Handler::Plain(agents::acknowledge),
    )
};

pub(super) const PUT_ASSET: Route<Api> = Route {
    problems: &[&codes::STORAGE_FULL, &codes::AUDIT_UNAVAILABLE],
    ..post(
        "/v1/assets",
        "Keep a file for inputs to come; the same file is kept once.",
        required("PutAsset"),
        json(200, "Asset"),
        Handler::Deferred(assets::put),
    )
};

pub(super) const GET_ASSET: Route<Api> = Route {
    problems: &[&codes::ASSET_NOT_FOUND, &codes::BLOB_UNREADABLE],
    ..get(
        "/v1/assets/{asset_id}",
        Access::Admin,
        "What is kept under an asset's id; its bytes are not shown.",
        json(200, "Asset"),
        Handler::Plain(assets::get),
    )
};

pub(super) const LIST_BLOBS: Route<Api> = Route {
    problems: &[&codes::RUN_NOT_FOUND],
    ..get(
        "/v1/runs/{run_id}/blobs",
        Access::Admin,
        "Results of the run's tools that are kept whole because the model was shown only a part.",
        list("ResultBlob"),
        Handler::Plain(blobs::list),
    )
};

pub(super) const GET_BLOB: Route<Api> = Route {
    query: &[blobs::OFFSET, blobs::BYTES],
    problems: &[&codes::RUN_NOT_FOUND, &codes::BLOB_NOT_FOUND, &codes::BLOB_UNREADABLE],
    ..get(
        "/v1/runs/{run_id}/blobs/{blob_id}",
        Access::Admin,
        "A page of one of them; follow `next_offset` for the rest.",
        json(200, "ResultBlobPage"),
        Handler::Plain(blobs::get),
    )
};

pub(super) const PRUNE_RESULTS: Route<Api> = Route {
    problems: &[&codes::RUN_RETENTION_INVALID_REQUEST, &codes::BLOB_UNREADABLE, &codes::AUDIT_UNAVAILABLE],
    ..post(
        "/v1/runs/prune-results",
        "Remove whole results and input files of runs that ended long ago; runs and their records stay.",
        required("PruneResults"),
        json(200, "PrunedResults"),
        Handler::Plain(prune_results::prune),
    )
};

pub(super) const POST: Route<Api> = Route {
    body_bytes_max: BODY_BYTES_MAX,
    problems: &[
        &codes::AGENT_NOT_FOUND,
        &codes::AGENT_CLOSED,
        &codes::AGENT_SCOPE_REFUSED,
        &codes::MAILBOX_FULL,
        &codes::MAILBOX_MESSAGE_CONFLICT,
        &codes::ROUTE_NOT_READY,
        &codes::ROUTE_UNKNOWN,
    ],
    ..post(
        "/v1/mailboxes",
        "Put a message into an agent's mailbox; a run takes it when the agent is free.",
        required("PostMailbox"),
        json(202, "PostedMailbox"),
        Handler::Plain(agents::post),
    )
};
