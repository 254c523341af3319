//! Where the output of a run or of a session's runs goes.
//! Owns: the fields `reply_targets`, `reply_plugin` and `reply_address`, and the session's own targets.
//! Never: shows an address.

use serde::{Deserialize, Serialize};

use super::call::Call;
use super::context::Api;
use crate::core::{Command, RunReplyTarget, SessionChange, TargetKey};
use crate::delivery::{ReplyTargetInput, Trust};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::SessionId;
use crate::limits::REPLY_TARGETS_MAX;

/// Checks what an operator wrote. Twice the same target is one.
pub(super) fn check(inputs: Vec<ReplyTargetInput>) -> Result<Vec<RunReplyTarget>, Problem> {
    let invalid = |detail: String| Problem::new(&codes::INVALID_REPLY_TARGET, detail);
    if inputs.len() > REPLY_TARGETS_MAX {
        return Err(invalid(format!("there are more than {REPLY_TARGETS_MAX} reply targets; next: name fewer")));
    }
    let mut targets: Vec<RunReplyTarget> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let target = input.check(Trust::Operator).map_err(|error| invalid(error.to_string()))?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// A secret in an address would get into the journal.
pub(super) fn require_no_secret(api: &Api, targets: &[RunReplyTarget]) -> Result<(), Problem> {
    if targets.iter().any(|target| api.broker.redact(&target.address) != target.address) {
        let detail =
            "a reply target's address holds a stored secret or a key; next: name its slot in bearer_secret_ref";
        return Err(Problem::new(&codes::INVALID_REPLY_TARGET, detail));
    }
    Ok(())
}

/// Body of `PUT /v1/sessions/{session_id}/reply-targets`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyTargetsBody {
    reply_targets: Vec<ReplyTargetInput>,
}

#[derive(Serialize)]
struct ReplyTargetsView {
    session_id: SessionId,
    targets: Vec<TargetKey>,
}

fn view(api: &Api, session_id: SessionId) -> Response {
    let settings = api.core.session_settings(&session_id);
    let targets = settings.map(|own| own.reply_targets.iter().map(RunReplyTarget::key).collect());
    Response::json(200, &ReplyTargetsView { session_id, targets: targets.unwrap_or_default() })
}

/// `GET /v1/sessions/{session_id}/reply-targets`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session = super::sessions::known(api, &call.session_id()?)?.session.id;
    Ok(view(api, session))
}

/// `PUT /v1/sessions/{session_id}/reply-targets`: for later runs that name none.
pub fn put(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: ReplyTargetsBody = call.json()?;
    let session = call.session_id()?;
    let targets = check(body.reply_targets)?;
    require_no_secret(api, &targets)?;
    let change = SessionChange::ReplyTargets(targets);
    api.core.request(Command::UpdateSession { session: session.clone(), change }, Some(call.actor()))?;
    Ok(view(api, session))
}
