//! What a session has of its own: permission mode, permission rules, route policy.
//! Owns: the routes that read and change them.
//! Never: changes what queued or active runs were accepted with.

use serde::{Deserialize, Serialize};

use super::call::Call;
use super::context::Api;
use super::runtime_changes::{check_route, mode, one_route};
use super::sessions::known;
use crate::core::{Command, Decision, InputContract, OutputContract, RoutePolicy, SessionChange};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::SessionId;
use crate::permissions::{Effective, Mode, Rule};

/// A session's own settings on the wire.
#[derive(Debug, Serialize)]
struct SettingsView {
    session_id: SessionId,
    /// Its own; null where the daemon's holds.
    permission_mode: Option<Mode>,
    effective_permission_mode: Mode,
    /// The whole daemon is in `dontAsk`, which no session's own mode loosens.
    contained: bool,
    permission_rules: Vec<Rule>,
    route_policy: Option<RoutePolicyView>,
    input_contract: Option<InputContract>,
    output_contract: Option<OutputContract>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_approval_count: Option<u32>,
}

#[derive(Debug, Serialize)]
struct RoutePolicyView {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<GenerationView>,
}

#[derive(Debug, Serialize)]
struct GenerationView {
    model: String,
}

fn view(api: &Api, session: SessionId) -> SettingsView {
    let settings = api.core.session_settings(&session).as_deref().cloned().unwrap_or_default();
    let daemon = api.core.view().runtime.settings().permission_mode;
    let effective = Effective::of(daemon, settings.permission_mode);
    SettingsView {
        session_id: session,
        permission_mode: settings.permission_mode,
        effective_permission_mode: effective.mode,
        contained: effective.contained,
        permission_rules: settings.permission_rules,
        route_policy: settings.route_policy.map(|policy| RoutePolicyView {
            provider: policy.route_id,
            generation: policy.model.map(|model| GenerationView { model }),
        }),
        input_contract: settings.input_contract,
        output_contract: settings.output_contract,
        settled_approval_count: None,
    }
}

/// `GET /v1/sessions/{session_id}/settings`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session = known(api, &call.session_id()?)?.session.id;
    Ok(Response::json(200, &view(api, session)))
}

pub(super) fn update(api: &Api, call: &Call, change: SessionChange) -> Result<Response, Problem> {
    let session = call.session_id()?;
    let decision = api.core.request(Command::UpdateSession { session: session.clone(), change }, Some(call.actor()))?;
    let Decision::SessionUpdated { settled, .. } = decision else {
        return Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {decision:?}")));
    };
    Ok(Response::json(200, &SettingsView { settled_approval_count: Some(settled), ..view(api, session) }))
}

/// Body of `POST /v1/sessions/{session_id}/permission-mode`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionModeBody {
    mode: Option<String>,
}

/// `POST /v1/sessions/{session_id}/permission-mode`: a mode of its own; null gives it back to the daemon.
pub fn permission_mode(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: PermissionModeBody = call.json()?;
    let mode = body.mode.as_deref().map(mode).transpose()?;
    update(api, call, SessionChange::PermissionMode(mode))
}

/// Body of `PUT /v1/sessions/{session_id}/permission-rules`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesBody {
    rules: Vec<Rule>,
}

/// `PUT /v1/sessions/{session_id}/permission-rules`: replaces the session's own rules.
pub fn permission_rules(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: RulesBody = call.json()?;
    super::runtime_changes::require_no_secret(&body.rules)?;
    update(api, call, SessionChange::PermissionRules(body.rules))
}

/// Body of `POST /v1/sessions/{session_id}/route-policy`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePolicyBody {
    route_policy: RoutePolicyFields,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutePolicyFields {
    provider: Option<String>,
    route_id: Option<String>,
    generation: Option<GenerationFields>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerationFields {
    model: Option<String>,
}

/// `POST /v1/sessions/{session_id}/route-policy`: route and model of the session's runs that name none.
pub fn route_policy(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: RoutePolicyBody = call.json()?;
    let RoutePolicyFields { provider, route_id, generation } = body.route_policy;
    let route_id = one_route(provider, route_id)?;
    let model = generation.and_then(|generation| generation.model);
    if let Some(route_id) = &route_id {
        check_route(api, route_id, model.as_deref())?;
    }
    let policy = RoutePolicy { route_id, model };
    let policy = (policy != RoutePolicy::default()).then_some(policy);
    update(api, call, SessionChange::RoutePolicy(policy))
}

/// `DELETE /v1/sessions/{session_id}/route-policy`.
pub fn clear_route_policy(api: &Api, call: &Call) -> Result<Response, Problem> {
    update(api, call, SessionChange::RoutePolicy(None))
}
