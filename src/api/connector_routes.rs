//! Rows of the route table: connectors, what they let in, and their configuration.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::route::{Access, Handler, Route, Success};
use super::routes::{get, json, post, required};
use super::{connector_chat, connector_external, connector_http, connectors};
use crate::http::Method;
use crate::http::problem::{Code, codes};
use crate::limits::{CONNECTOR_BODY_BYTES_MAX, CONNECTOR_CONFIG_BYTES_MAX};

/// What an event may be answered with.
const EVENT: &[&Code] = &[
    &codes::CONNECTOR_UNAUTHORIZED,
    &codes::SIGNATURE_MISSING,
    &codes::SIGNATURE_INVALID,
    &codes::SIGNATURE_EXPIRED,
    &codes::EVENT_INVALID,
    &codes::EVENT_SOURCE_REFUSED,
    &codes::EVENT_CONFLICT,
    &codes::EVENT_SESSION_MISSING,
    &codes::UNSUPPORTED_FEATURE,
    &codes::HTTP_INGRESS_RATE_LIMITED,
    &codes::EXTERNAL_INGRESS_RATE_LIMITED,
    &codes::CHAT_INGRESS_RATE_LIMITED,
    &codes::SESSION_ENDED,
    &codes::SESSION_LIMIT,
    &codes::SESSION_QUEUE_FULL,
    &codes::RUN_QUEUE_FULL,
    &codes::CONNECTOR_LIMIT,
    &codes::ROUTE_NOT_READY,
    &codes::ROUTE_UNKNOWN,
];

const CONFIGURATION: &[&Code] = &[
    &codes::CONNECTOR_NOT_FOUND,
    &codes::CONNECTOR_INVALID,
    &codes::CONNECTOR_FILE_BACKED,
    &codes::CONNECTOR_REVISION_CONFLICT,
    &codes::CONNECTOR_LIMIT,
    &codes::CONNECTOR_REFERENCED,
    &codes::SECRET_NOT_FOUND,
    &codes::SECRET_INVALID,
    &codes::SECRET_CONFLICT,
    &codes::AUTH_STORE_UNAVAILABLE,
    &codes::AUDIT_UNAVAILABLE,
];

pub(super) const LIST: Route<Api> = get(
    "/v1/runtime/connectors",
    Access::ReadOnly,
    "All connectors, by kind and name; no secret is shown.",
    json(200, "Connectors"),
    Handler::Plain(connectors::list),
);

pub(super) const METRICS: Route<Api> = get(
    "/v1/runtime/connectors/external/metrics",
    Access::ReadOnly,
    "Figures of external connectors since the daemon started, as Prometheus reads them.",
    Success::Text,
    Handler::Plain(connectors::metrics),
);

pub(super) const GET: Route<Api> = Route {
    problems: CONFIGURATION,
    ..get(
        "/v1/runtime/connectors/{kind}/{name}",
        Access::ReadOnly,
        "One connector.",
        json(200, "Connector"),
        Handler::Plain(connectors::get),
    )
};

pub(super) const PUT: Route<Api> = Route {
    method: Method::Put,
    body_bytes_max: CONNECTOR_CONFIG_BYTES_MAX,
    problems: CONFIGURATION,
    ..post(
        "/v1/runtime/connectors/{kind}/{name}",
        "Create a connector or change its fields; null clears one. A sidecar is stopped and started again.",
        required("PutConnector"),
        json(200, "Connector"),
        Handler::Deferred(connectors::put),
    )
};

pub(super) const DELETE: Route<Api> = Route {
    method: Method::Delete,
    body_bytes_max: 0,
    problems: CONFIGURATION,
    ..post(
        "/v1/runtime/connectors/{kind}/{name}",
        "Delete a connector; its sidecar ends.",
        None,
        json(200, "Accepted"),
        Handler::Plain(connectors::delete),
    )
};

pub(super) const RELEASE: Route<Api> = Route {
    body_bytes_max: CONNECTOR_CONFIG_BYTES_MAX,
    ..post(
        "/v1/runtime/connectors/hold",
        "Let nothing pass through connectors, or let it pass again; a copied or restored state root starts held.",
        required("Hold"),
        json(200, "Hold"),
        Handler::Plain(connectors::hold),
    )
};

pub(super) const HTTP: Route<Api> = Route {
    access: Access::Connector,
    body_bytes_max: CONNECTOR_BODY_BYTES_MAX,
    problems: EVENT,
    ..post(
        "/v1/connectors/http/{name}",
        "An event of an http connector: answers once its run is durable.",
        required("HttpEvent"),
        json(200, "Run"),
        Handler::Deferred(connector_http::ingress),
    )
};

pub(super) const SLACK: Route<Api> = Route {
    access: Access::Connector,
    body_bytes_max: CONNECTOR_BODY_BYTES_MAX,
    problems: EVENT,
    ..post(
        "/v1/connectors/slack/{name}",
        "An event of Slack's Events API.",
        required("ChatEvent"),
        json(200, "ChatAnswer"),
        Handler::Deferred(connector_chat::slack),
    )
};

pub(super) const TELEGRAM: Route<Api> = Route {
    access: Access::Connector,
    body_bytes_max: CONNECTOR_BODY_BYTES_MAX,
    problems: EVENT,
    ..post(
        "/v1/connectors/telegram/{name}",
        "An update of Telegram's webhook.",
        required("ChatEvent"),
        json(200, "ChatAnswer"),
        Handler::Deferred(connector_chat::telegram),
    )
};

pub(super) const EVENTS: Route<Api> = Route {
    access: Access::Connector,
    body_bytes_max: CONNECTOR_BODY_BYTES_MAX,
    problems: EVENT,
    ..post(
        "/v1/connectors/external/{name}/events",
        "An event of a sidecar; what is wrong with it is told as rejected with status 200.",
        required("ExternalEvent"),
        json(200, "ExternalResult"),
        Handler::Deferred(connector_external::event),
    )
};

pub(super) const BATCH: Route<Api> = Route {
    access: Access::Connector,
    body_bytes_max: CONNECTOR_BODY_BYTES_MAX,
    problems: EVENT,
    ..post(
        "/v1/connectors/external/{name}/events/batch",
        "Events of a sidecar, each for itself and in order.",
        required("ExternalBatch"),
        json(200, "ExternalResults"),
        Handler::Deferred(connector_external::batch),
    )
};

pub(super) const CREDENTIAL: Route<Api> = Route {
    problems: &[&codes::CREDENTIAL_UNKNOWN, &codes::CREDENTIAL_REFUSED, &codes::AUTH_STORE_UNAVAILABLE],
    ..get(
        "/v1/connectors/external/{name}/credentials/{env_key}",
        Access::Connector,
        "A credential of a sidecar, for the token of its lease.",
        json(200, "SidecarCredential"),
        Handler::Deferred(connector_external::credential),
    )
};
