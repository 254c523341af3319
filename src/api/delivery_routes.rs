//! Rows of the route table: deliveries.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::deliveries::{self, FORCE, PLUGIN, STATUS};
use super::paging::{CURSOR, LIMIT, PAGE};
use super::reply_targets;
use super::route::{Access, Handler, Route, Witness};
use super::routes::{RUN_FILTER, SESSION_FILTER, get, json, list, optional, post, required};
use crate::http::Method;
use crate::http::problem::codes;
use crate::limits::BODY_BYTES_MAX;

pub(super) const LIST: Route<Api> = Route {
    query: &[SESSION_FILTER, RUN_FILTER, PLUGIN, STATUS, PAGE, LIMIT, CURSOR],
    ..get(
        "/v1/deliveries",
        Access::ReadOnly,
        "Deliveries: waiting ones first, then by time of their end.",
        list("Delivery"),
        Handler::Plain(deliveries::list),
    )
};

pub(super) const DEAD_LETTERS: Route<Api> = Route {
    query: &[SESSION_FILTER, RUN_FILTER, PLUGIN, PAGE, LIMIT, CURSOR],
    ..get(
        "/v1/deliveries/dead-letter",
        Access::ReadOnly,
        "Deliveries that are no longer tried.",
        list("Delivery"),
        Handler::Plain(deliveries::dead_letters),
    )
};

pub(super) const GET_HOLD: Route<Api> = get(
    "/v1/deliveries/hold",
    Access::ReadOnly,
    "Whether anything is sent, and why not.",
    json(200, "DeliveryHold"),
    Handler::Plain(deliveries::get_hold),
);

pub(super) const HOLD: Route<Api> = Route {
    witness: Witness::Journal,
    ..post(
        "/v1/deliveries/hold",
        "Suspend or allow sending; a copied or restored state root begins suspended.",
        required("Hold"),
        json(200, "DeliveryHold"),
        Handler::Plain(deliveries::hold),
    )
};

pub(super) const GET: Route<Api> = Route {
    problems: &[&codes::DELIVERY_NOT_FOUND],
    ..get(
        "/v1/deliveries/{delivery_id}",
        Access::ReadOnly,
        "One delivery with its content.",
        json(200, "Delivery"),
        Handler::Plain(deliveries::get),
    )
};

pub(super) const REPLAY: Route<Api> = Route {
    query: &[FORCE],
    witness: Witness::Journal,
    problems: &[&codes::DELIVERY_NOT_FOUND, &codes::DELIVERY_STATE_CONFLICT, &codes::DELIVERY_LIMIT],
    ..post(
        "/v1/deliveries/{delivery_id}/replay",
        "Send a dead letter again, with its idempotency key unless forced.",
        optional("NoFields"),
        json(200, "DeliveryReplay"),
        Handler::Plain(deliveries::replay),
    )
};

pub(super) const RESOLVE: Route<Api> = Route {
    witness: Witness::Journal,
    problems: &[&codes::DELIVERY_NOT_FOUND, &codes::DELIVERY_STATE_CONFLICT],
    ..post(
        "/v1/deliveries/{delivery_id}/resolve",
        "Take a dead letter off the list of those to deal with; the first reason stays.",
        optional("Reason"),
        json(200, "Delivery"),
        Handler::Plain(deliveries::resolve),
    )
};

pub(super) const REPLAY_BULK: Route<Api> = Route {
    witness: Witness::Journal,
    problems: &[&codes::DELIVERY_LIMIT],
    ..post(
        "/v1/deliveries/replay-bulk",
        "Send dead letters again, oldest first.",
        optional("DeliveryReplayBulk"),
        json(200, "DeliveryReplayedBulk"),
        Handler::Plain(deliveries::replay_bulk),
    )
};

pub(super) const DROP: Route<Api> = Route {
    witness: Witness::Journal,
    ..post(
        "/v1/deliveries/drop",
        "Take all dead letters of a certain age off the list of those to deal with, at most 500 at once.",
        required("DeliveryDrop"),
        json(200, "DeliveryDropped"),
        Handler::Plain(deliveries::drop_old),
    )
};

pub(super) const RESET: Route<Api> = Route {
    witness: Witness::Journal,
    problems: &[&codes::DELIVERY_BACKPRESSURE_SELECTOR_REQUIRED],
    ..post(
        "/v1/deliveries/backpressure/reset",
        "Forget the failures of targets, so that they are tried at once.",
        optional("DeliveryBackpressureReset"),
        json(200, "DeliveryBackpressure"),
        Handler::Plain(deliveries::reset_backpressure),
    )
};

pub(super) const SESSION_TARGETS: Route<Api> = Route {
    problems: &[&codes::SESSION_NOT_FOUND],
    ..get(
        "/v1/sessions/{session_id}/reply-targets",
        Access::ReadOnly,
        "Where the output of the session's later runs goes if they name no targets.",
        json(200, "SessionReplyTargetsView"),
        Handler::Plain(reply_targets::get),
    )
};

pub(super) const SET_SESSION_TARGETS: Route<Api> = Route {
    method: Method::Put,
    body_bytes_max: BODY_BYTES_MAX,
    witness: Witness::Journal,
    problems: &[&codes::SESSION_NOT_FOUND, &codes::INVALID_REPLY_TARGET],
    ..post(
        "/v1/sessions/{session_id}/reply-targets",
        "Replace them.",
        required("SessionReplyTargets"),
        json(200, "SessionReplyTargetsView"),
        Handler::Plain(reply_targets::put),
    )
};
