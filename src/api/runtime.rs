//! `GET /v1/runtime`: settings in force.
//! Owns: its shape.
//! Never: shows a credential; a route names its slot.

use serde::Serialize;

use super::call::Call;
use super::context::Api;
use crate::hex::to_hex;
use crate::http::Response;
use crate::http::problem::Problem;
use crate::providers::{Capabilities, Diagnostic, Route, RouteCredential};

/// Settings in force.
#[derive(Debug, Serialize)]
pub struct RuntimeView {
    workspace_root: String,
    state_root: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_route: Option<RouteView>,
    /// Copies from the default route; null without one.
    provider: Option<&'static str>,
    model: Option<String>,
    routes: Vec<RouteView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes_file: Option<RoutesFile>,
    route_diagnostics: Vec<Diagnostic>,
    permission_mode: &'static str,
    debug_level: &'static str,
    held: bool,
}

#[derive(Debug, Serialize)]
struct RouteView {
    route_id: String,
    provider: &'static str,
    model: String,
    base_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_ref: Option<String>,
    capabilities: Capabilities,
}

#[derive(Debug, Serialize)]
struct RoutesFile {
    path: String,
    sha256: String,
}

fn route_view(route: &Route) -> RouteView {
    RouteView {
        route_id: route.id.clone(),
        provider: route.driver.as_str(),
        model: route.default_model.clone(),
        base_url: route.base_url.to_string(),
        auth_ref: match &route.credential {
            RouteCredential::AuthRef(slot) => Some(slot.clone()),
            RouteCredential::Inline(_) | RouteCredential::None => None,
        },
        capabilities: route.capabilities,
    }
}

/// Settings in force.
pub fn view(api: &Api) -> RuntimeView {
    let default = api.routes.as_ref().map(|routes| routes.default_route());
    RuntimeView {
        workspace_root: api.config.workspace_root.display().to_string(),
        state_root: api.config.state_root.display().to_string(),
        route_id: default.map(|route| route.id.clone()),
        default_route: default.map(|route| route_view(route)),
        provider: default.map(|route| route.driver.as_str()),
        model: default.map(|route| route.default_model.clone()),
        routes: api.routes.iter().flat_map(|routes| routes.iter()).map(|route| route_view(route)).collect(),
        routes_file: api.routes.as_ref().map(|routes| RoutesFile {
            path: routes.source().path.display().to_string(),
            sha256: to_hex(&routes.source().sha256),
        }),
        route_diagnostics: api.routes.iter().flat_map(|routes| routes.diagnostics()).cloned().collect(),
        // No tool exists yet that a mode could allow, and nothing is captured.
        permission_mode: "default",
        debug_level: "off",
        held: api.core.view().counts.held,
    }
}

/// `GET /v1/runtime`.
pub fn get(api: &Api, _call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &view(api)))
}
