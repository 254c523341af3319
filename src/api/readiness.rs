//! Whether model routes can be used, and whether the daemon can.
//! Owns: the per-route verdict shown in status and asked before a submission; the `/readyz` verdict.
//! Never: contacts a provider; this is about credentials and the daemon's own parts.

use serde::Serialize;

use super::context::Api;
use super::runtime::{RoutesFile, routes_file};
use super::status::observed::RouteLevel;
use super::status::{HealthWarning, Severity};
use crate::broker::{RouteAuth, RouteAuthState, SlotId};
use crate::engine::LaneView;
use crate::http::problem::{Problem, codes};
use crate::limits::CORE_BATCH_STALL_MS;
use crate::net::{Destination, NetError, Purpose};
use crate::providers::{Capabilities, Route, RouteCredential};

/// `provider_readiness` of the status.
#[derive(Debug, Serialize)]
pub struct ProviderReadiness {
    route_count: usize,
    ready_route_count: usize,
    warning_route_count: usize,
    error_route_count: usize,
    active_route_ready: bool,
    /// Where the routes come from, and whether the file is still what was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    routes_file: Option<RoutesFile>,
    /// How the active route stands: `ok`, `warning`, `error` or `none`.
    active_route_state: RouteLevel,
    /// Since when, Unix milliseconds; a state that is older than the daemon is dated from its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    active_route_state_since_ms: Option<u64>,
    routes: Vec<RouteReadiness>,
}

#[derive(Debug, Serialize)]
struct RouteReadiness {
    route_id: String,
    provider: &'static str,
    model: String,
    capabilities: Capabilities,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_ref: Option<String>,
    #[serde(flatten)]
    auth: RouteAuth,
    /// Requests at once, for a route with a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<LaneView>,
    /// The route that its runs go on with when it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    failover: Option<String>,
    #[serde(skip)]
    has_inline_key: bool,
    /// Why the egress guard lets nothing through to its base URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_refused: Option<String>,
}

impl RouteReadiness {
    fn is_ready(&self) -> bool {
        self.auth.state != RouteAuthState::Error && self.egress_refused.is_none()
    }
}

/// What the guard says to a route's base URL, without looking its name up.
fn egress_refused(api: &Api, route: &Route) -> Option<String> {
    let (purpose, target) = (Purpose::Provider, route.target());
    let (host, port) = target.host_and_port()?;
    let destination = Destination { purpose, host: host.clone(), port, allow_private: false };
    let refusal = api.config.egress.check_host(&destination).err()?;
    Some(NetError::EgressRefused { purpose, host: host.to_string(), refusal }.to_string())
}

fn judge(api: &Api, route: &Route) -> RouteAuth {
    match &route.credential {
        RouteCredential::AuthRef(slot) => match SlotId::parse(slot) {
            Ok(slot) => api.broker.route_auth(&slot, route.driver.slot_provider()),
            // The routes file was accepted with it, so this is a bug worth showing rather than hiding.
            Err(error) => RouteAuth::unreadable(error.to_string()),
        },
        RouteCredential::Inline(_) | RouteCredential::None => RouteAuth::inline(),
    }
}

/// Refuses a submission to a route whose credential cannot be used.
///
/// # Errors
/// 400 `route_not_ready`; nothing was recorded.
pub fn require_ready(api: &Api, route: &Route) -> Result<(), Problem> {
    if let Some(cause) = egress_refused(api, route) {
        return Err(Problem::new(&codes::ROUTE_NOT_READY, format!("route {}: {cause}", route.id)));
    }
    let auth = judge(api, route);
    if auth.state == RouteAuthState::Ok {
        return Ok(());
    }
    let next = auth.action.map(|action| format!("; next: {action}")).unwrap_or_default();
    Err(Problem::new(&codes::ROUTE_NOT_READY, format!("route {}: {}{next}", route.id, auth.message)))
}

/// The state of every route.
pub fn provider_readiness(api: &Api) -> ProviderReadiness {
    let active = super::runtime::active_route(api).map(|route| route.id.clone());
    let routes: Vec<RouteReadiness> = api
        .routes
        .iter()
        .flat_map(|routes| routes.iter())
        .map(|route| RouteReadiness {
            route_id: route.id.clone(),
            provider: route.driver.as_str(),
            model: route.default_model.clone(),
            capabilities: route.capabilities,
            active: Some(&route.id) == active.as_ref(),
            auth_ref: match &route.credential {
                RouteCredential::AuthRef(slot) => Some(slot.clone()),
                RouteCredential::Inline(_) | RouteCredential::None => None,
            },
            auth: judge(api, route),
            concurrency: api.facts.lanes.view(&route.id),
            failover: route.failover.clone(),
            has_inline_key: matches!(&route.credential, RouteCredential::Inline(_)),
            egress_refused: egress_refused(api, route),
        })
        .collect();
    let errors = routes.iter().filter(|route| !route.is_ready()).count();
    ProviderReadiness {
        route_count: routes.len(),
        ready_route_count: routes.len() - errors,
        warning_route_count: 0,
        error_route_count: errors,
        active_route_ready: routes
            .iter()
            .any(|route| route.active && route.auth.state == RouteAuthState::Ok && route.is_ready()),
        routes_file: routes_file(api),
        active_route_state: api.facts.observed.route().map_or(RouteLevel::None, |(level, _)| level),
        active_route_state_since_ms: api.facts.observed.route().map(|(_, since_ms)| since_ms),
        routes,
    }
}

/// How the route of runs that name none stands now.
pub fn active_route_level(api: &Api) -> RouteLevel {
    let Some(route) = super::runtime::active_route(api) else { return RouteLevel::None };
    if egress_refused(api, &route).is_some() || judge(api, &route).state == RouteAuthState::Error {
        RouteLevel::Error
    } else if api.facts.routes.as_ref().is_some_and(|watch| watch.newest().diagnostic().is_some()) {
        // It works, and would not, or not as it does, after a restart.
        RouteLevel::Warning
    } else {
        RouteLevel::Ok
    }
}

impl ProviderReadiness {
    /// Routes that cannot be used.
    pub fn error_count(&self) -> usize {
        self.error_route_count
    }

    /// Routes that can, with something wrong.
    pub fn warning_count(&self) -> usize {
        self.warning_route_count
    }

    /// Routes whose key is not in the auth store, of drivers that use one.
    pub fn inline_routes(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter(|route| route.has_inline_key).map(|route| route.route_id.as_str())
    }

    /// What of it is worth a health warning.
    pub fn warnings(&self) -> Vec<HealthWarning> {
        let mut warnings = Vec::new();
        for route in self.routes.iter().filter(|route| route.auth.state == RouteAuthState::Error) {
            warnings.push(HealthWarning::new(
                Severity::Error,
                "provider_readiness_error",
                format!("route {}: {}", route.route_id, route.auth.message),
                Some(route.route_id.clone()),
                route.auth.action.clone().unwrap_or_else(|| "see provider_readiness in this status".to_string()),
            ));
        }
        for route in &self.routes {
            let Some(cause) = &route.egress_refused else { continue };
            warnings.push(HealthWarning::new(
                Severity::Error,
                "route_egress_refused",
                format!("route {}: {cause}", route.route_id),
                Some(route.route_id.clone()),
                "add its host with --egress-allow, or take the route out of the routes file".to_string(),
            ));
        }
        if self.warning_route_count > 0 || self.active_route_state == RouteLevel::Warning {
            let message = "routes can be used now, and after a restart perhaps not or not as they are".to_string();
            let active = self.routes.iter().find(|route| route.active).map(|route| route.route_id.clone());
            warnings.push(HealthWarning::of(Severity::Info, "provider_readiness_warning", message, active));
        }
        if self.routes.is_empty() {
            warnings.push(HealthWarning::new(
                Severity::Info,
                "routes_missing",
                "no model route is configured, so no run can be submitted".to_string(),
                None,
                "restart with --routes-file".to_string(),
            ));
        }
        warnings
    }
}

/// Why the daemon should get no work now; `None` when it should.
pub fn not_ready(api: &Api) -> Option<Problem> {
    if api.facts.is_draining() {
        let detail = "the daemon is shutting down; next: wait for its restart or use another instance";
        return Some(Problem::new(&codes::DAEMON_DRAINING, detail));
    }
    let view = api.core.view();
    if let Some(reason) = &view.poisoned {
        return Some(Problem::new(&codes::JOURNAL_POISONED, reason.clone()));
    }
    if let Some(age_ms) = api.core.batch_age_ms().filter(|age_ms| *age_ms > CORE_BATCH_STALL_MS) {
        let detail = format!("a sync of the journal has been running for {age_ms} ms; next: check the disk");
        return Some(Problem::new(&codes::COMPONENT_FAILED, detail));
    }
    if let Some(part) = api.facts.failed_parts().first() {
        let detail = format!("thread {part} has ended; next: restart the daemon and report its last log lines");
        return Some(Problem::new(&codes::COMPONENT_FAILED, detail));
    }
    None
}
