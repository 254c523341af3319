//! Rows of the route table: hooks.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::hooks;
use super::route::{Access, Handler, Route, Witness};
use super::routes::{get, json, optional, post, required};
use crate::http::problem::codes;
use crate::limits::RUNTIME_SETTINGS_BYTES_MAX;

pub(super) const GET: Route<Api> = get(
    "/v1/runtime/hooks",
    Access::Admin,
    "The hooks in force, as they were given.",
    json(200, "HookSettings"),
    Handler::Plain(hooks::get),
);

pub(super) const SET: Route<Api> = Route {
    problems: &[&codes::INVALID_HOOK_SETTINGS, &codes::RUNTIME_REVISION_CONFLICT, &codes::RUNTIME_VALIDATION_FAILED],
    body_bytes_max: RUNTIME_SETTINGS_BYTES_MAX,
    ..post(
        "/v1/runtime/hooks",
        "Replace all hooks; nothing is changed where any of them cannot be used.",
        required("SetHooks"),
        json(200, "RuntimeChanged"),
        Handler::Plain(hooks::set),
    )
};

pub(super) const DEAD_LETTERS: Route<Api> = get(
    "/v1/runtime/hooks/dead-letter",
    Access::Admin,
    "Calls of hooks that came to nothing, oldest first.",
    json(200, "HookDeadLetters"),
    Handler::Plain(hooks::dead_letters),
);

pub(super) const RESOLVE: Route<Api> = Route {
    witness: Witness::Journal,
    problems: &[&codes::HOOK_DEAD_LETTER_NOT_FOUND],
    ..post(
        "/v1/runtime/hooks/dead-letter/{id}/resolve",
        "Take a failed call off the list of those to deal with; the first reason stays.",
        optional("Reason"),
        json(200, "HookDeadLetter"),
        Handler::Plain(hooks::resolve),
    )
};
