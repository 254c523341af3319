//! `GET /v1/status`: the daemon's state in one document.
//! Owns: its shape; each group has a file of its own under `status/`.
//! Never: asks the core's mailbox or touches a disk; everything here is published by its owner beforehand, so it
//! answers while a sync hangs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::Serialize;

use super::auth::{Auth, BindScope};
use super::call::Call;
use super::context::Api;
use super::readiness::{ProviderReadiness, not_ready, provider_readiness};
use crate::audit::control_plane::ControlPlaneAudit;
use crate::commit::CoreView;
use crate::engine::Lanes;
use crate::http::problem::Problem;
use crate::http::{Edge, EdgeStats, Response};
use crate::net::{EgressView, Net};
use crate::providers::RoutesWatch;
use crate::sandbox::{Sandbox, SandboxReport};
use crate::upkeep::{StorageView, Upkeep};

mod control_plane;
pub mod groups;
mod health;
pub mod health_codes;
mod journal;
pub mod observed;
mod runs;
#[cfg(test)]
mod tests;
mod threads;

use control_plane::ControlPlane;
pub use groups::AgentsStatus;
pub use groups::HooksStatus;
use groups::{ConnectorsStatus, DeliveryStatus, McpStatus, MemoryStatus, SchedulesStatus};
use health::{Health, Judged};
pub use health::{HealthWarning, Severity};
use journal::{BrokerView, EventsView, JournalView};
use observed::{Counter, Observed, observe};
pub use runs::{RunThresholds, Runs};
pub use threads::ThreadsView;

/// What status shows of parts that the API does not talk to.
pub struct Facts {
    /// When the daemon started, Unix milliseconds.
    pub started_at_ms: u64,
    /// Where it listens, as text.
    pub bind: OnceLock<String>,
    /// Who can reach it.
    pub scope: BindScope,
    /// `loopback` or `exact`.
    pub cors_policy: &'static str,
    /// Origins of the exact list.
    pub cors_allowed_origin_count: usize,
    /// The way out, with its trust roots and its guard.
    pub net: Net,
    /// Token state.
    pub auth: Arc<Auth>,
    /// The control-plane audit file.
    pub audit: ControlPlaneAudit,
    /// The listener, once it runs.
    pub edge: OnceLock<Arc<Edge>>,
    /// Storage probes and the scrub.
    pub upkeep: Upkeep,
    /// Compares the routes file on disk with what is loaded, if there is one.
    pub routes: Option<RoutesWatch>,
    /// Since when that file is the one in force, Unix milliseconds.
    pub routes_since_ms: Option<u64>,
    /// Places on routes that have a limit.
    pub lanes: Lanes,
    /// The walls around tools.
    pub sandbox: Sandbox,
    /// From when on waiting runs are listed as findings.
    pub thresholds: RunThresholds,
    /// Whether the audit key lies in the state root.
    pub key_in_state_root: bool,
    /// What was seen over time.
    pub observed: Observed,
    /// Stop has been asked for.
    pub draining: AtomicBool,
    /// Watched threads that have ended.
    pub failed: crossbeam_channel::Receiver<String>,
    /// See `failed`; filled by whoever looks first.
    pub failed_seen: OnceLock<String>,
}

impl Facts {
    /// Whether stop has been asked for.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Names of threads that have ended though they should not have.
    pub fn failed_parts(&self) -> Vec<&str> {
        if let Ok(name) = self.failed.try_recv() {
            self.failed_seen.get_or_init(|| name);
        }
        self.failed_seen.get().map(String::as_str).into_iter().collect()
    }
}

/// The whole document.
#[derive(Debug, Serialize)]
pub struct Status {
    snapshot_at_ms: u64,
    process_id: u32,
    started_at_ms: u64,
    version: &'static str,
    status: &'static str,
    ready: bool,
    capabilities: &'static super::builtin::Capabilities,
    runtime: super::runtime::RuntimeView,
    control_plane: ControlPlane,
    storage: StorageView,
    provider_readiness: ProviderReadiness,
    runs: Runs,
    sessions: Sessions,
    schedules: SchedulesStatus,
    delivery: Delivery,
    agents: AgentsStatus,
    tasks: super::tasks::TasksStatus,
    hooks: HooksStatus,
    connectors: ConnectorsStatus,
    mcp: McpStatus,
    run_memory: MemoryStatus,
    session_memory: MemoryStatus,
    journal: JournalView,
    events: EventsView,
    threads: Vec<ThreadsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<EdgeStats>,
    broker: BrokerView,
    sandbox: SandboxReport,
    egress: Egress,
    health: Health,
}

#[derive(Debug, Serialize)]
struct Egress {
    #[serde(flatten)]
    settings: EgressView,
    /// Whether models are offered `web_fetch`.
    web_fetch: bool,
    /// Requests that were refused since start.
    refused_count: u64,
}

#[derive(Debug, Serialize)]
struct Sessions {
    total: u64,
}

/// Figures of deliveries, with their dead letters over time.
#[derive(Debug, Serialize)]
struct Delivery {
    #[serde(flatten)]
    figures: DeliveryStatus,
    dead_letter_growth: crate::recent::RecentView,
}

/// Figures of schedules.
pub(super) fn schedules(_api: &Api) -> SchedulesStatus {
    SchedulesStatus::default()
}

/// Figures of deliveries.
pub(super) fn delivery(api: &Api) -> DeliveryStatus {
    let view = api.core.view();
    DeliveryStatus::of(&view.counts.deliveries, api.facts.started_at_ms, view.last_progress_ms, api.clock.now_ms())
}

/// Figures of agents.
pub(super) fn agents(api: &Api) -> AgentsStatus {
    super::agents::status(&api.core.view().counts)
}

/// Figures of hooks.
pub(super) fn hooks(api: &Api) -> HooksStatus {
    super::hooks::figures(api)
}

/// Figures of connectors.
pub(super) fn connectors(api: &Api) -> ConnectorsStatus {
    super::connectors::figures(api)
}

/// Figures of MCP servers.
pub(super) fn mcp(api: &Api) -> McpStatus {
    let stats = api.mcp.stats();
    McpStatus {
        supported: true,
        server_count: stats.configured_count as u64,
        connected_count: stats.connected_count as u64,
        error_count: stats.failed_count as u64,
        tool_count: stats.tool_count as u64,
    }
}

/// `GET /v1/status`.
pub fn get(api: &Api, _call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &status(api)))
}

/// The status, as of now.
pub fn status(api: &Api) -> Status {
    let began = Instant::now();
    observe(api);
    let now_ms = api.clock.now_ms();
    let view: Arc<CoreView> = api.core.view();
    let control_plane = control_plane::control_plane(api, now_ms);
    let storage = api.facts.upkeep.storage(view.reserve_is_intact);
    let readiness = provider_readiness(api);
    let runs = runs::runs(&view, api.facts.thresholds, api.stops.len(), now_ms);
    let (schedules, delivery, agents) = (schedules(api), delivery(api), agents(api));
    let (hooks, connectors, mcp) = (hooks(api), connectors(api), mcp(api));
    let warnings = health::findings(&Judged {
        api,
        view: &view,
        now_ms,
        control_plane: &control_plane,
        storage: &storage,
        readiness: &readiness,
        runs: &runs,
        schedules: &schedules,
        delivery: &delivery,
        agents: &agents,
        hooks: &hooks,
        connectors: &connectors,
        mcp: &mcp,
    });
    let health = Health {
        generated_at_ms: now_ms,
        snapshot_duration_ms: began.elapsed().as_millis() as u64,
        ok: warnings.iter().all(|warning| warning.severity() == Severity::Info),
        route_error_count: readiness.error_count(),
        route_warning_count: readiness.warning_count(),
        scheduler_lag_ms: schedules.oldest_due_schedule_lag_ms,
        warnings,
    };
    Status {
        snapshot_at_ms: now_ms,
        process_id: std::process::id(),
        started_at_ms: api.facts.started_at_ms,
        version: env!("CARGO_PKG_VERSION"),
        status: if api.facts.is_draining() { "draining" } else { "ready" },
        ready: not_ready(api).is_none(),
        capabilities: super::builtin::offered(),
        runtime: super::runtime::view(api),
        control_plane,
        storage,
        provider_readiness: readiness,
        runs,
        sessions: Sessions { total: view.counts.sessions },
        schedules,
        delivery: Delivery {
            figures: delivery,
            dead_letter_growth: api.facts.observed.growth(Counter::DeadLetters, now_ms),
        },
        agents,
        tasks: super::tasks::TasksStatus::from(&view.counts.tasks),
        hooks,
        connectors,
        mcp,
        run_memory: MemoryStatus::default(),
        session_memory: MemoryStatus::default(),
        journal: journal::journal(api, &view),
        events: journal::events(api, &view),
        threads: threads::threads(api, &view, now_ms),
        http: api.facts.edge.get().map(|edge| edge.stats()),
        broker: journal::broker(api),
        sandbox: api.facts.sandbox.report().clone(),
        egress: Egress {
            settings: api.config.egress.view(),
            web_fetch: api.config.web_fetch,
            refused_count: api.facts.net.egress_refused_count(),
        },
        health,
    }
}
