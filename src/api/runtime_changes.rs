//! `POST /v1/runtime/…`: changes of the runtime configuration.
//! Owns: their bodies, and the checks that need the routes.
//! Never: changes anything itself; each handler is one command to the core.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::context::Api;
use super::runtime::change;
use crate::core::{DebugLevel, RuntimeEdit, SystemPrompt, ToolLimits};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::permissions::{Mode, Rule, RuleScope};
use crate::redaction;

/// Body of `POST /v1/runtime/permission-mode`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionModeBody {
    mode: String,
    expected_revision: Option<u64>,
}

/// A permission mode as a caller spells it.
///
/// # Errors
/// 400 `runtime_validation_failed`.
pub(super) fn mode(text: &str) -> Result<Mode, Problem> {
    Mode::parse(text).map_err(|error| Problem::new(&codes::RUNTIME_VALIDATION_FAILED, error.to_string()))
}

/// `POST /v1/runtime/permission-mode`.
pub fn permission_mode(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: PermissionModeBody = call.json()?;
    change(api, call, RuntimeEdit::PermissionMode(mode(&body.mode)?), body.expected_revision)
}

/// Body of `POST /v1/runtime/model`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelBody {
    provider: Option<String>,
    route_id: Option<String>,
    model: Option<String>,
    expected_revision: Option<u64>,
}

/// `POST /v1/runtime/model`: route and model of runs that name none. Queued and active runs keep theirs.
pub fn model(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: ModelBody = call.json()?;
    let route_id = one_route(body.provider, body.route_id)?;
    let routes = api.routes.as_ref().ok_or_else(|| {
        Problem::new(
            &codes::RUNTIME_VALIDATION_FAILED,
            "the daemon has no routes file; next: restart with --routes-file",
        )
    })?;
    check_route(api, route_id.as_deref().unwrap_or(&routes.default_route().id), body.model.as_deref())?;
    change(api, call, RuntimeEdit::Model { route_id, model: body.model }, body.expected_revision)
}

/// `provider` and `route_id` are two names of one field.
///
/// # Errors
/// Both are given and differ.
pub(super) fn one_route(provider: Option<String>, route_id: Option<String>) -> Result<Option<String>, Problem> {
    match (provider, route_id) {
        (Some(one), Some(other)) if one != other => Err(Problem::new(
            &codes::RUNTIME_VALIDATION_FAILED,
            "provider and route_id name different routes; next: give one of them",
        )),
        (one, other) => Ok(one.or(other)),
    }
}

/// Checks that a route exists and takes the model.
///
/// # Errors
/// 400 `runtime_validation_failed`.
pub(super) fn check_route(api: &Api, route_id: &str, model: Option<&str>) -> Result<(), Problem> {
    let refuse = |detail: String| Problem::new(&codes::RUNTIME_VALIDATION_FAILED, detail);
    let route = api.routes.as_ref().and_then(|routes| routes.get(route_id)).ok_or_else(|| {
        refuse(format!("route {route_id:?} is not in the routes file; next: use an id of GET /v1/runtime"))
    })?;
    match model.filter(|model| !route.accepts_model(model)) {
        Some(model) => Err(refuse(format!(
            "route {route_id} does not accept model {model:?}; next: set model_support in the routes file"
        ))),
        None => Ok(()),
    }
}

/// The same with every secret in it masked: what is kept, shown and told to models agree.
///
/// # Errors
/// A secret stands where it cannot be masked.
fn without_secrets<T: Serialize + DeserializeOwned>(value: T) -> Result<T, Problem> {
    let text = serde_json::to_string(&value).expect("settings have string keys");
    let masked = redaction::text(&text);
    if masked == text {
        return Ok(value);
    }
    serde_json::from_str(&masked).map_err(|_| {
        let detail = "the settings hold a secret in a place where it cannot be left out; next: take it out";
        Problem::new(&codes::RUNTIME_VALIDATION_FAILED, detail)
    })
}

/// Body of `POST /v1/runtime/debug-level`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebugLevelBody {
    level: String,
    ttl_ms: Option<u64>,
    ticket: Option<String>,
    expected_revision: Option<u64>,
}

/// `POST /v1/runtime/debug-level`. Turning it down takes hold of runs under way at once.
pub fn debug_level(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: DebugLevelBody = call.json()?;
    let level = DebugLevel::parse(&body.level).ok_or_else(|| {
        let detail = "the debug level is none of off, on, redacted, full; next: use one of them";
        Problem::new(&codes::RUNTIME_VALIDATION_FAILED, detail)
    })?;
    let ticket = body.ticket.map(|text| redaction::text(&text));
    let edit = RuntimeEdit::DebugLevel { level, ttl_ms: body.ttl_ms, ticket };
    change(api, call, edit, body.expected_revision)
}

/// Body of `POST /v1/runtime/system-prompt`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemPromptBody {
    settings: SystemPrompt,
    expected_revision: Option<u64>,
}

/// `POST /v1/runtime/system-prompt`: replaces it as a whole.
pub fn system_prompt(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: SystemPromptBody = call.json()?;
    let settings = without_secrets(body.settings)?;
    change(api, call, RuntimeEdit::SystemPrompt(settings), body.expected_revision)
}

/// Body of `POST /v1/runtime/tool-limits`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolLimitsBody {
    limits: ToolLimits,
    expected_revision: Option<u64>,
}

/// `POST /v1/runtime/tool-limits`: replaces them as a whole; what is left out has its default.
pub fn tool_limits(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: ToolLimitsBody = call.json()?;
    change(api, call, RuntimeEdit::ToolLimits(body.limits), body.expected_revision)
}

/// A rule is kept as it is meant or not at all: with a mask in it it would be another one.
///
/// # Errors
/// 400 `runtime_validation_failed`.
pub(super) fn require_no_secret(rules: &[Rule]) -> Result<(), Problem> {
    let text = serde_json::to_string(rules).expect("rules are texts");
    if redaction::text(&text) == text {
        return Ok(());
    }
    let detail = "a rule holds a secret in plain text; next: write it with a wildcard in that place";
    Err(Problem::new(&codes::RUNTIME_VALIDATION_FAILED, detail))
}

/// Body of `PUT /v1/runtime/permissions/rules`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesBody {
    scope: Option<RuleScope>,
    rules: Vec<Rule>,
    expected_revision: Option<u64>,
}

/// `PUT /v1/runtime/permissions/rules`: replaces all rules, or those of one scope.
pub fn permission_rules(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: RulesBody = call.json()?;
    require_no_secret(&body.rules)?;
    let edit = RuntimeEdit::PermissionRules { scope: body.scope, rules: body.rules };
    change(api, call, edit, body.expected_revision)
}

/// Body of `POST /v1/runtime/rollback`; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    target_revision: Option<u64>,
    expected_revision: Option<u64>,
}

/// `POST /v1/runtime/rollback`: brings the settings of an earlier revision back, as a new one.
pub fn rollback(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: RollbackBody = call.json_or_default()?;
    change(api, call, RuntimeEdit::Rollback { target_revision: body.target_revision }, body.expected_revision)
}
