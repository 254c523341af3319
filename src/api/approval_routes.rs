//! Rows of the route table: approvals and questions.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::paging::{CURSOR, LIMIT, PAGE};
use super::route::{Access, Handler, Route, Witness};
use super::routes::{SESSION_FILTER, get, json, list, optional, post, required};
use super::{approvals, questions};
use crate::http::problem::{Code, codes};
use crate::limits::BODY_BYTES_MAX;

const APPROVAL_PROBLEMS: &[&Code] = &[
    &codes::SESSION_NOT_FOUND,
    &codes::RUN_NOT_FOUND,
    &codes::RUN_STATE_CONFLICT,
    &codes::APPROVAL_STATE_CONFLICT,
    &codes::APPROVAL_BATCH_EMPTY,
    &codes::APPROVAL_DUPLICATE_RESOLUTION,
    &codes::APPROVAL_REQUEST_NOT_PENDING,
    &codes::INVALID_IDEMPOTENCY_KEY,
    &codes::IDEMPOTENCY_CONFLICT,
];
const QUESTION_PROBLEMS: &[&Code] = &[
    &codes::SESSION_NOT_FOUND,
    &codes::RUN_NOT_FOUND,
    &codes::RUN_STATE_CONFLICT,
    &codes::QUESTION_STATE_CONFLICT,
    &codes::QUESTION_EXPIRED,
    &codes::QUESTION_REQUEST_MISMATCH,
    &codes::QUESTION_OPTION_NOT_FOUND,
    &codes::QUESTION_ANSWER_MISSING,
    &codes::QUESTION_DUPLICATE_ANSWER,
    &codes::QUESTION_DUPLICATE_OPTION,
    &codes::QUESTION_DECLINED_WITH_ANSWERS,
    &codes::QUESTION_SINGLE_SELECT_VIOLATION,
    &codes::QUESTION_ANSWER_EMPTY,
    &codes::QUESTION_ANSWER_INVALID,
    &codes::QUESTION_UNKNOWN_ANSWER,
    &codes::INVALID_IDEMPOTENCY_KEY,
    &codes::IDEMPOTENCY_CONFLICT,
];

pub(super) const LIST_APPROVALS: Route<Api> = Route {
    query: &[SESSION_FILTER, PAGE, LIMIT, CURSOR],
    ..get(
        "/v1/approvals",
        Access::ReadOnly,
        "Open approvals, longest wait first; a page counts runs.",
        list("PendingApproval"),
        Handler::Plain(approvals::list),
    )
};

pub(super) const LIST_SESSION_APPROVALS: Route<Api> = Route {
    query: &[PAGE, LIMIT, CURSOR],
    problems: &[&codes::SESSION_NOT_FOUND],
    ..get(
        "/v1/sessions/{session_id}/approvals",
        Access::ReadOnly,
        "Open approvals of a session.",
        list("PendingApproval"),
        Handler::Plain(approvals::list_of_session),
    )
};

pub(super) const RESOLVE_SESSION_APPROVALS: Route<Api> = Route {
    body_bytes_max: BODY_BYTES_MAX,
    problems: APPROVAL_PROBLEMS,
    witness: Witness::Journal,
    ..post(
        "/v1/sessions/{session_id}/approvals",
        "Give or refuse open approvals of the session's active run, all of the batch or none.",
        required("ResolveApprovals"),
        json(200, "Session"),
        Handler::Plain(approvals::resolve_of_session),
    )
};

pub(super) const RESOLVE_SESSION_RUN_APPROVALS: Route<Api> = Route {
    body_bytes_max: BODY_BYTES_MAX,
    problems: APPROVAL_PROBLEMS,
    witness: Witness::Journal,
    ..post(
        "/v1/sessions/{session_id}/approval-runs",
        "The same, answered with the run.",
        required("ResolveApprovals"),
        json(202, "Run"),
        Handler::Plain(approvals::resolve_run_of_session),
    )
};

pub(super) const RESOLVE_RUN_APPROVALS: Route<Api> = Route {
    body_bytes_max: BODY_BYTES_MAX,
    problems: APPROVAL_PROBLEMS,
    witness: Witness::Journal,
    ..post(
        "/v1/runs/{run_id}/approvals",
        "Give or refuse open approvals of a run, all of the batch or none.",
        required("ResolveApprovals"),
        json(202, "Run"),
        Handler::Plain(approvals::resolve_of_run),
    )
};

pub(super) const LIST_QUESTIONS: Route<Api> = Route {
    query: &[SESSION_FILTER, PAGE, LIMIT, CURSOR],
    ..get(
        "/v1/questions",
        Access::ReadOnly,
        "Open questions, longest wait first.",
        list("PendingQuestion"),
        Handler::Plain(questions::list),
    )
};

pub(super) const LIST_SESSION_QUESTIONS: Route<Api> = Route {
    query: &[PAGE, LIMIT, CURSOR],
    problems: &[&codes::SESSION_NOT_FOUND],
    ..get(
        "/v1/sessions/{session_id}/questions",
        Access::ReadOnly,
        "The open question of a session.",
        list("PendingQuestion"),
        Handler::Plain(questions::list_of_session),
    )
};

pub(super) const RESOLVE_SESSION_QUESTION: Route<Api> = Route {
    body_bytes_max: BODY_BYTES_MAX,
    problems: QUESTION_PROBLEMS,
    witness: Witness::Journal,
    ..post(
        "/v1/sessions/{session_id}/questions",
        "Answer or decline the question of the session's active run.",
        required("ResolveQuestion"),
        json(200, "Session"),
        Handler::Plain(questions::resolve_of_session),
    )
};

pub(super) const RESOLVE_RUN_QUESTION: Route<Api> = Route {
    body_bytes_max: BODY_BYTES_MAX,
    problems: QUESTION_PROBLEMS,
    witness: Witness::Journal,
    ..post(
        "/v1/runs/{run_id}/questions",
        "Answer or decline the question of a run.",
        required("ResolveQuestion"),
        json(202, "Run"),
        Handler::Plain(questions::resolve_of_run),
    )
};

pub(super) const CANCEL_QUESTION: Route<Api> = Route {
    problems: &[
        &codes::RUN_NOT_FOUND,
        &codes::RUN_STATE_CONFLICT,
        &codes::QUESTION_STATE_CONFLICT,
        &codes::QUESTION_REQUEST_MISMATCH,
        &codes::QUESTION_EXPIRED,
        &codes::INVALID_IDEMPOTENCY_KEY,
        &codes::IDEMPOTENCY_CONFLICT,
    ],
    witness: Witness::Journal,
    ..post(
        "/v1/runs/{run_id}/questions/{question_id}/cancel",
        "Withdraw the question of a run, which cancels the run.",
        optional("CancelQuestion"),
        json(200, "Run"),
        Handler::Plain(questions::cancel),
    )
};
