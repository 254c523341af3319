//! Rows of the route table: contracts of sessions.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::contracts;
use super::route::{Access, Handler, Route};
use super::routes::{get, json, post, required};
use crate::http::Method;
use crate::http::problem::{Code, codes};
use crate::limits::RUNTIME_SETTINGS_BYTES_MAX;

const INPUT: &str = "/v1/sessions/{session_id}/input-contract";
const OUTPUT: &str = "/v1/sessions/{session_id}/output-contract";

const UNKNOWN: &[&Code] = &[&codes::SESSION_NOT_FOUND];

const fn clear(route: Route<Api>) -> Route<Api> {
    Route { method: Method::Delete, access: Access::Admin, problems: UNKNOWN, ..route }
}

pub(super) const GET_INPUT: Route<Api> = Route {
    problems: &[&codes::SESSION_NOT_FOUND],
    ..get(
        INPUT,
        Access::ReadOnly,
        "The shape that a session holds its input to.",
        json(200, "InputContract"),
        Handler::Plain(contracts::get_input),
    )
};

pub(super) const SET_INPUT: Route<Api> = Route {
    problems: &[&codes::SESSION_NOT_FOUND, &codes::INPUT_CONTRACT_SCHEMA_UNSUPPORTED],
    body_bytes_max: RUNTIME_SETTINGS_BYTES_MAX,
    ..post(
        INPUT,
        "Hold a session's input to a JSON Schema.",
        required("SetInputContract"),
        json(200, "SessionSettings"),
        Handler::Plain(contracts::set_input),
    )
};

pub(super) const PUT_INPUT: Route<Api> = Route { method: Method::Put, ..SET_INPUT };

pub(super) const CLEAR_INPUT: Route<Api> = clear(get(
    INPUT,
    Access::Admin,
    "Take input of any shape again.",
    json(200, "SessionSettings"),
    Handler::Plain(contracts::clear_input),
));

pub(super) const GET_OUTPUT: Route<Api> = Route {
    problems: &[&codes::SESSION_NOT_FOUND],
    ..get(
        OUTPUT,
        Access::ReadOnly,
        "The shape that a session holds the answers of its runs to.",
        json(200, "OutputContract"),
        Handler::Plain(contracts::get_output),
    )
};

pub(super) const SET_OUTPUT: Route<Api> = Route {
    problems: &[&codes::SESSION_NOT_FOUND, &codes::OUTPUT_CONTRACT_SCHEMA_UNSUPPORTED],
    body_bytes_max: RUNTIME_SETTINGS_BYTES_MAX,
    ..post(
        OUTPUT,
        "Hold the answers of a session's runs to a JSON Schema.",
        required("SetOutputContract"),
        json(200, "SessionSettings"),
        Handler::Plain(contracts::set_output),
    )
};

pub(super) const PUT_OUTPUT: Route<Api> = Route { method: Method::Put, ..SET_OUTPUT };

pub(super) const CLEAR_OUTPUT: Route<Api> = clear(get(
    OUTPUT,
    Access::Admin,
    "Take answers of any shape again.",
    json(200, "SessionSettings"),
    Handler::Plain(contracts::clear_output),
));
