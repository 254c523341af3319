//! `GET /v1/runtime` and its revisions: settings in force, and how they came to be.
//! Owns: their shapes.
//! Never: shows a credential; a route names its slot.

use std::sync::Arc;

use serde::Serialize;

use super::call::Call;
use super::context::Api;
use crate::core::{
    ChangeSource, Command, DebugLevel, Decision, Revision, RuntimeConfig, RuntimeEdit, Settings, SystemPrompt,
    ToolLimits,
};
use crate::debug_capture::CaptureStats;
use crate::hex::to_hex;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::RUNTIME_HISTORY_MAX;
use crate::mcp::Snapshot as McpSnapshot;
use crate::permissions::Mode;
use crate::providers::{Capabilities, Diagnostic, Drift, ModelSupport, Route, RouteCredential};

/// Settings in force.
#[derive(Debug, Serialize)]
pub struct RuntimeView {
    workspace_root: String,
    state_root: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_route: Option<RouteView>,
    /// Of runs that name none; null without a route.
    provider: Option<&'static str>,
    model: Option<String>,
    routes: Vec<RouteView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes_file: Option<RoutesFile>,
    route_diagnostics: Vec<Diagnostic>,
    permission_mode: Mode,
    permission_rule_count: usize,
    /// The hooks in force without what they call.
    hooks: serde_json::Value,
    /// Left out of the status, where it would drown the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_prompt: Option<SystemPrompt>,
    debug_level: DebugLevel,
    debug: DebugView,
    debug_capture: CaptureStats,
    tool_runtime_limits: ToolLimits,
    config: ConfigView,
    held: bool,
    /// Left out of the status, which has figures of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp: Option<McpSnapshot>,
}

#[derive(Debug, Serialize)]
struct RouteView {
    route_id: String,
    provider: &'static str,
    model: String,
    model_support: ModelSupport,
    base_url: String,
    /// Of runs that name none.
    is_default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_ref: Option<String>,
    /// `auth_ref`, `inline_api_key` or `none`.
    auth_kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failover: Option<String>,
    capabilities: Capabilities,
}

#[derive(Debug, Serialize)]
pub(super) struct RoutesFile {
    path: String,
    /// Of what is loaded.
    sha256: String,
    /// Since when this file, with these routes, is what the daemon is started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    /// How the file on disk compares with it.
    drift: Drift,
}

/// The window of the debug level.
#[derive(Debug, Serialize)]
struct DebugView {
    level: DebugLevel,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    /// What is left of the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
}

#[derive(Debug, Serialize)]
struct ConfigView {
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at_ms: Option<u64>,
    persisted: bool,
    history_len: usize,
    history_limit: usize,
}

fn route_view(route: &Route, default: Option<&Arc<Route>>) -> RouteView {
    let (auth_ref, auth_kind) = match &route.credential {
        RouteCredential::AuthRef(slot) => (Some(slot.clone()), "auth_ref"),
        RouteCredential::Inline(_) => (None, "inline_api_key"),
        RouteCredential::None => (None, "none"),
    };
    RouteView {
        route_id: route.id.clone(),
        provider: route.driver.as_str(),
        model: route.default_model.clone(),
        model_support: route.model_support,
        base_url: route.base_url.to_string(),
        is_default: default.is_some_and(|default| default.id == route.id),
        auth_ref,
        auth_kind,
        max_concurrency: route.max_concurrency,
        failover: route.failover.clone(),
        capabilities: route.capabilities,
    }
}

/// The routes file in force and its drift; none without one.
pub(super) fn routes_file(api: &Api) -> Option<RoutesFile> {
    let (routes, watch) = (api.routes.as_ref()?, api.facts.routes.as_ref()?);
    Some(RoutesFile {
        path: routes.source().path.display().to_string(),
        sha256: to_hex(&routes.source().sha256),
        since_ms: api.facts.routes_since_ms,
        drift: watch.newest(),
    })
}

/// What is to be said about the routes: findings of the start, and drift since.
pub(super) fn route_diagnostics(api: &Api) -> Vec<Diagnostic> {
    let found = api.routes.iter().flat_map(|routes| routes.diagnostics()).cloned();
    found.chain(api.facts.routes.as_ref().and_then(|watch| watch.newest().diagnostic())).collect()
}

fn debug_view(settings: &Settings, now_ms: u64) -> DebugView {
    let debug = &settings.debug;
    let level = debug.at(now_ms);
    let until_ms = debug.until_ms.filter(|until_ms| *until_ms > now_ms);
    DebugView {
        level,
        since_ms: if level == debug.level { debug.since_ms } else { debug.until_ms },
        until_ms,
        ttl_ms: until_ms.map(|until_ms| until_ms - now_ms),
        ticket: debug.ticket.clone().filter(|_| level == debug.level),
    }
}

/// The hooks of settings, without what they call.
fn shown_hooks(settings: &Settings) -> serde_json::Value {
    let none = || serde_json::json!({"hooks": {}});
    settings.hooks.as_ref().map_or_else(none, |hooks| crate::hooks::redacted(&hooks.document))
}

/// Settings in force, as status shows them.
pub fn view(api: &Api) -> RuntimeView {
    let view = api.core.view();
    let (config, settings) = (&view.runtime, view.runtime.settings());
    let default = default_route(api, settings);
    let now_ms = api.clock.now_ms();
    RuntimeView {
        workspace_root: api.config.workspace_root.display().to_string(),
        state_root: api.config.state_root.display().to_string(),
        route_id: default.map(|route| route.id.clone()),
        default_route: default.map(|route| route_view(route, Some(route))),
        provider: default.map(|route| route.driver.as_str()),
        model: default.map(|route| settings.model.clone().unwrap_or_else(|| route.default_model.clone())),
        routes: api.routes.iter().flat_map(|routes| routes.iter()).map(|route| route_view(route, default)).collect(),
        routes_file: routes_file(api),
        route_diagnostics: route_diagnostics(api),
        permission_mode: settings.permission_mode,
        permission_rule_count: settings.permission_rules.len(),
        hooks: shown_hooks(settings),
        system_prompt: None,
        debug_level: settings.debug.at(now_ms),
        debug: debug_view(settings, now_ms),
        debug_capture: api.capture.stats(),
        tool_runtime_limits: settings.tool_limits.clone(),
        config: config_view(config),
        held: view.counts.held,
        mcp: None,
    }
}

/// The route of runs that name none: the operator's, else the routes file's. One that is no longer in the file is
/// passed over here and refused when a run is submitted.
pub(super) fn default_route<'a>(api: &'a Api, settings: &Settings) -> Option<&'a Arc<Route>> {
    let routes = api.routes.as_ref()?;
    let chosen = settings.route_id.as_ref().and_then(|id| routes.get(id));
    Some(chosen.unwrap_or_else(|| routes.default_route()))
}

/// The route of runs that name none, as of now.
pub fn active_route(api: &Api) -> Option<Arc<Route>> {
    default_route(api, api.core.view().runtime.settings()).cloned()
}

fn config_view(config: &RuntimeConfig) -> ConfigView {
    let current = config.current();
    ConfigView {
        revision: current.revision,
        updated_at_ms: (current.revision > 0).then_some(current.updated_at_ms),
        persisted: current.revision > 0,
        history_len: config.history().len(),
        history_limit: RUNTIME_HISTORY_MAX,
    }
}

/// `GET /v1/runtime`.
pub fn get(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let system_prompt = Some(api.core.view().runtime.settings().system_prompt.clone());
    Ok(Response::json(200, &RuntimeView { system_prompt, mcp: Some(api.mcp.snapshot()), ..view(api) }))
}

#[derive(Serialize)]
struct RevisionView<'a> {
    revision: u64,
    updated_at_ms: u64,
    source: ChangeSource,
    setting: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_of_revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    permission_mode: Mode,
    system_prompt: &'a SystemPrompt,
    debug_level: DebugLevel,
    #[serde(skip_serializing_if = "Option::is_none")]
    debug_ticket: Option<&'a str>,
    tool_runtime_limits: &'a ToolLimits,
    /// Without what they call.
    hooks: serde_json::Value,
    permission_rules: &'a [crate::permissions::Rule],
}

impl<'a> From<&'a Revision> for RevisionView<'a> {
    fn from(revision: &'a Revision) -> Self {
        let settings = &revision.settings;
        Self {
            revision: revision.revision,
            updated_at_ms: revision.updated_at_ms,
            source: revision.source,
            setting: &revision.setting,
            rollback_of_revision: revision.rollback_of_revision,
            route_id: settings.route_id.as_deref(),
            model: settings.model.as_deref(),
            permission_mode: settings.permission_mode,
            system_prompt: &settings.system_prompt,
            debug_level: settings.debug.level,
            debug_ticket: settings.debug.ticket.as_deref(),
            tool_runtime_limits: &settings.tool_limits,
            hooks: shown_hooks(settings),
            permission_rules: &settings.permission_rules,
        }
    }
}

#[derive(Serialize)]
struct Revisions<'a> {
    revisions: Vec<RevisionView<'a>>,
}

/// `GET /v1/runtime/revisions`: the one in force and those before it, newest first.
pub fn revisions(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let config = api.core.view().runtime.clone();
    let earlier = config.history().iter().rev().map(|revision| RevisionView::from(&**revision));
    let revisions = std::iter::once(RevisionView::from(config.current())).chain(earlier).collect();
    Ok(Response::json(200, &Revisions { revisions }))
}

/// Makes a change and answers with the settings in force after it.
///
/// # Errors
/// The core's refusal.
pub(super) fn change(
    api: &Api,
    call: &Call,
    edit: RuntimeEdit,
    expected_revision: Option<u64>,
) -> Result<Response, Problem> {
    let decision = api.core.request(Command::ChangeRuntime { edit, expected_revision }, Some(call.actor()))?;
    let Decision::Runtime { changed, settled, .. } = decision else {
        return Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {decision:?}")));
    };
    let system_prompt = Some(api.core.view().runtime.settings().system_prompt.clone());
    let runtime = RuntimeView { system_prompt, ..view(api) };
    Ok(Response::json(200, &Changed { runtime, changed, settled_approval_count: settled }))
}

#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    runtime: RuntimeView,
    /// Whether this request made a revision.
    changed: bool,
    /// Approvals that waited and were denied, since nobody is to be asked any more.
    settled_approval_count: u32,
}

/// `GET /v1/runtime/tool-limits`.
pub fn tool_limits(api: &Api, _call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &api.core.view().runtime.settings().tool_limits))
}
