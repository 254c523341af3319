//! `GET /v1/status`: the daemon's state in one document.
//! Owns: its shape, the health codes with their severities, and the ages computed from published timestamps.
//! Never: asks the core's mailbox or touches a disk; everything here is published by its owner beforehand, so it
//! answers while a sync hangs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::auth::{Auth, AuthView, BindScope};
use super::call::Call;
use super::context::Api;
use super::readiness::{ProviderReadiness, not_ready, provider_readiness};
use crate::audit::control_plane::{AuditStats, ControlPlaneAudit};
use crate::broker::LogStats;
use crate::commit::{CommandError, CoreView};
use crate::core::RunStatus;
use crate::http::problem::Problem;
use crate::http::{Edge, EdgeStats, Response};
use crate::ids::RunId;
use crate::limits::{PENDING_WAIT_WARNING_MS, QUEUED_RUN_LAG_WARNING_MS, STALE_RUN_WARNING_MS};
use crate::net::{EgressView, Net};
use crate::sandbox::{Level, Sandbox, SandboxReport, Strength};
use crate::sse::HubStats;
use crate::upkeep::{StorageView, Upkeep};

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
    /// The walls around tools.
    pub sandbox: Sandbox,
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

/// How bad a finding is. `health.ok` is true while there is nothing above `info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will need somebody.
    Warning,
    /// Needs somebody now.
    Error,
}

/// One finding.
#[derive(Debug, Clone, Serialize)]
pub struct HealthWarning {
    severity: Severity,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    related_id: Option<String>,
    action: String,
}

impl HealthWarning {
    /// A finding with what to do about it.
    pub fn new(
        severity: Severity,
        code: &'static str,
        message: String,
        related_id: Option<String>,
        action: impl Into<String>,
    ) -> Self {
        Self { severity, code, message, related_id, action: action.into() }
    }
}

#[derive(Debug, Serialize)]
struct Status {
    snapshot_at_ms: u64,
    process_id: u32,
    started_at_ms: u64,
    version: &'static str,
    status: &'static str,
    ready: bool,
    runtime: super::runtime::RuntimeView,
    control_plane: ControlPlane,
    storage: StorageView,
    provider_readiness: ProviderReadiness,
    runs: Runs,
    sessions: Sessions,
    tasks: super::tasks::TasksStatus,
    agents: super::agents::AgentsStatus,
    journal: JournalView,
    events: EventsView,
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
struct ControlPlane {
    bind_addr: String,
    bind_is_loopback: bool,
    bind_is_unspecified: bool,
    #[serde(flatten)]
    auth: AuthView,
    cors_policy: &'static str,
    cors_allowed_origin_count: usize,
    externally_exposed_without_auth: bool,
    trust_roots: String,
    audit: AuditStats,
}

#[derive(Debug, Serialize)]
struct Runs {
    total: u64,
    queued: u64,
    running: u64,
    waiting_for_approval: u64,
    waiting_for_user_question: u64,
    completed: u64,
    failed: u64,
    interrupted: u64,
    cancelled: u64,
    in_hand: usize,
    pending_approval_count: u64,
    pending_question_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_waiting_for_approval_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_waiting_for_approval_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_waiting_for_user_question_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_waiting_for_user_question_age_ms: Option<u64>,
    pending_wait_threshold_ms: u64,
    held: bool,
    max_session_queue_depth: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_queued_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_queued_run_age_ms: Option<u64>,
    queued_run_lag_threshold_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_non_terminal_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_non_terminal_run_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_idle_non_terminal_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_non_terminal_run_idle_ms: Option<u64>,
    stale_non_terminal_run_threshold_ms: u64,
}

#[derive(Debug, Serialize)]
struct Sessions {
    total: u64,
}

#[derive(Debug, Serialize)]
struct JournalView {
    /// Decimal text: sequence numbers exceed what JSON numbers hold exactly.
    committed_seq: String,
    epoch: u32,
    batch_count: u64,
    record_count: u64,
    last_commit_us: u64,
    slowest_commit_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_age_ms: Option<u64>,
    core_queue_depth: usize,
    core_last_progress_ms: u64,
    poisoned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct EventsView {
    /// Newest event id: a cursor for "from now on".
    tail_event_id_cursor: String,
    oldest_event_id: String,
    #[serde(flatten)]
    streams: HubStats,
}

#[derive(Debug, Serialize)]
struct BrokerView {
    alive: bool,
    mailbox_depth: usize,
    lease_count: u64,
    blocked_slot_count: usize,
    revoked_subject_count: usize,
    log: LogStats,
}

#[derive(Debug, Serialize)]
struct Health {
    generated_at_ms: u64,
    ok: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<HealthWarning>,
}

/// `GET /v1/status`.
pub fn get(api: &Api, _call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &status(api)))
}

fn status(api: &Api) -> Status {
    let now_ms = api.clock.now_ms();
    let view = api.core.view();
    let control_plane = control_plane(api);
    let storage = api.facts.upkeep.storage();
    let readiness = provider_readiness(api);
    let runs = runs(api, &view, now_ms);
    let warnings = findings(api, &view, &control_plane, &storage, &readiness, &runs);
    let ok = warnings.iter().all(|warning| warning.severity == Severity::Info);
    let broker = api.broker.stats();
    let draining = api.facts.is_draining();
    Status {
        snapshot_at_ms: now_ms,
        process_id: std::process::id(),
        started_at_ms: api.facts.started_at_ms,
        version: env!("CARGO_PKG_VERSION"),
        status: if draining { "draining" } else { "ready" },
        ready: not_ready(api).is_none(),
        runtime: super::runtime::view(api),
        control_plane,
        storage,
        provider_readiness: readiness,
        runs,
        sessions: Sessions { total: view.counts.sessions },
        tasks: super::tasks::TasksStatus::from(&view.counts.tasks),
        agents: super::agents::AgentsStatus::of(&view.counts),
        journal: journal(api, &view),
        events: EventsView {
            tail_event_id_cursor: view.committed.to_string(),
            oldest_event_id: api.reader.floor().to_string(),
            streams: api.hub.stats(),
        },
        http: api.facts.edge.get().map(|edge| edge.stats()),
        broker: BrokerView {
            alive: broker.is_alive,
            mailbox_depth: broker.mailbox_depth,
            lease_count: broker.lease_count,
            blocked_slot_count: broker.blocked_slot_count,
            revoked_subject_count: broker.revoked_subject_count,
            log: broker.log,
        },
        sandbox: api.facts.sandbox.report().clone(),
        egress: Egress {
            settings: api.config.egress.view(),
            web_fetch: api.config.web_fetch,
            refused_count: api.facts.net.egress_refused_count(),
        },
        health: Health { generated_at_ms: now_ms, ok, warnings },
    }
}

fn control_plane(api: &Api) -> ControlPlane {
    let facts = &api.facts;
    let auth = facts.auth.view();
    ControlPlane {
        bind_addr: facts.bind.get().cloned().unwrap_or_default(),
        bind_is_loopback: facts.scope.is_local(),
        bind_is_unspecified: facts.scope == BindScope::Unspecified,
        cors_policy: facts.cors_policy,
        cors_allowed_origin_count: facts.cors_allowed_origin_count,
        externally_exposed_without_auth: !auth.auth_enabled && !facts.scope.is_local(),
        auth,
        audit: facts.audit.stats(),
        trust_roots: facts.net.roots().source().to_string(),
    }
}

fn runs(api: &Api, view: &CoreView, now_ms: u64) -> Runs {
    let counts = &view.counts;
    let age = |at: Option<(RunId, u64)>| at.map(|(_, at_ms)| now_ms.saturating_sub(at_ms));
    let id = |at: Option<(RunId, u64)>| at.map(|(run, _)| run);
    Runs {
        total: counts.runs,
        queued: counts.status(RunStatus::Queued),
        running: counts.status(RunStatus::Running),
        waiting_for_approval: counts.status(RunStatus::WaitingForApproval),
        waiting_for_user_question: counts.status(RunStatus::WaitingForUserQuestion),
        completed: counts.status(RunStatus::Completed),
        failed: counts.status(RunStatus::Failed),
        interrupted: counts.status(RunStatus::Interrupted),
        cancelled: counts.status(RunStatus::Cancelled),
        in_hand: api.stops.len(),
        pending_approval_count: counts.pending_approvals,
        pending_question_count: counts.pending_questions,
        oldest_waiting_for_approval_run_id: id(counts.oldest_waiting_approval),
        oldest_waiting_for_approval_age_ms: age(counts.oldest_waiting_approval),
        oldest_waiting_for_user_question_run_id: id(counts.oldest_waiting_question),
        oldest_waiting_for_user_question_age_ms: age(counts.oldest_waiting_question),
        pending_wait_threshold_ms: PENDING_WAIT_WARNING_MS,
        held: counts.held,
        max_session_queue_depth: counts.session_queue_runs_max,
        oldest_queued_run_id: id(counts.oldest_queued),
        oldest_queued_run_age_ms: age(counts.oldest_queued),
        queued_run_lag_threshold_ms: QUEUED_RUN_LAG_WARNING_MS,
        oldest_non_terminal_run_id: id(counts.oldest_non_terminal),
        oldest_non_terminal_run_age_ms: age(counts.oldest_non_terminal),
        oldest_idle_non_terminal_run_id: id(counts.oldest_idle),
        oldest_non_terminal_run_idle_ms: age(counts.oldest_idle),
        stale_non_terminal_run_threshold_ms: STALE_RUN_WARNING_MS,
    }
}

fn journal(api: &Api, view: &CoreView) -> JournalView {
    JournalView {
        committed_seq: view.committed.to_string(),
        epoch: api.reader.epoch(),
        batch_count: view.batches,
        record_count: view.records,
        last_commit_us: view.last_commit_us,
        slowest_commit_us: view.slowest_commit_us,
        batch_age_ms: api.core.batch_age_ms(),
        core_queue_depth: api.core.queue_depth(),
        core_last_progress_ms: view.last_progress_ms,
        poisoned: view.poisoned.is_some(),
        reason: view.poisoned.clone().or_else(|| view.refusing.as_ref().map(ToString::to_string)),
    }
}

fn sandbox_finding(report: &SandboxReport) -> Option<(Severity, &'static str, String, &'static str)> {
    if !report.usable {
        let message =
            format!("tools are refused: --sandbox {} cannot be had: {}", report.level.name(), report.missing());
        return Some((
            Severity::Warning,
            "sandbox_unavailable",
            message,
            "see docs/security-model.md for what to allow",
        ));
    }
    if report.level == Level::Off {
        let message = "tools run with all rights of the daemon's user".to_string();
        return Some((Severity::Warning, "sandbox_off", message, "start with --sandbox auto or required"));
    }
    if report.strength != Strength::Full {
        let message = format!("walls are missing: {}", report.missing());
        return Some((
            Severity::Info,
            "sandbox_reduced",
            message,
            "see docs/security-model.md for what each one stops",
        ));
    }
    None
}

fn findings(
    api: &Api,
    view: &CoreView,
    control_plane: &ControlPlane,
    storage: &StorageView,
    readiness: &ProviderReadiness,
    runs: &Runs,
) -> Vec<HealthWarning> {
    let mut found = Vec::new();
    let mut add = |severity, code, message: String, related_id, action: &str| {
        found.push(HealthWarning::new(severity, code, message, related_id, action));
    };
    if view.counts.tasks.live_shell > 0 {
        let message = format!("{} background commands are running", view.counts.tasks.live_shell);
        add(Severity::Info, "live_background_shell_tasks", message, None, "see the tasks of their sessions");
    }
    for (task, pids) in api.tasks.quarantined() {
        let message = format!("processes of {task} could not be ended and are tried again: {pids:?}");
        add(Severity::Warning, "quarantined_task_processes", message, Some(task), "see what they wait for");
    }
    if let Some(problem) = not_ready(api) {
        add(Severity::Error, problem.code.code, problem.detail.clone(), None, problem.code.next);
    }
    match &view.refusing {
        Some(CommandError::StorageFull { reason }) => {
            add(Severity::Error, "storage_full", reason.clone(), None, "free space under the state root");
        }
        Some(error) => add(Severity::Error, "journal_write_failed", error.to_string(), None, "check the disk"),
        None => {}
    }
    if control_plane.externally_exposed_without_auth {
        let message = "anybody who reaches this address controls the daemon".to_string();
        let bind = Some(control_plane.bind_addr.clone());
        add(Severity::Error, "control_plane_auth_disabled_off_loopback", message, bind, "set --http-auth-mode bearer");
    }
    let auth = &control_plane.auth;
    if auth.auth_enabled && !auth.auth_effective_admin_token_available {
        let message = "no admin token can be used now".to_string();
        add(Severity::Error, "control_plane_admin_auth_unavailable", message, None, "restore the admin token file");
    }
    if auth.auth_duplicate_token {
        let message = "admin and read-only token are equal, so both are refused".to_string();
        add(Severity::Error, "control_plane_auth_duplicate_token", message, None, "write another token to one file");
    }
    if auth.auth_token_file_error_count > 0 {
        let message = format!("{} token files cannot be used", auth.auth_token_file_error_count);
        let action = "see control_plane.auth_token_files in this status";
        add(Severity::Warning, "control_plane_auth_token_file_unavailable", message, None, action);
    }
    if let Some(run) = runs.oldest_queued_run_id.filter(|_| !runs.held)
        && runs.oldest_queued_run_age_ms.is_some_and(|age_ms| age_ms > QUEUED_RUN_LAG_WARNING_MS)
    {
        let message = format!("{run} has been queued for {} ms", runs.oldest_queued_run_age_ms.unwrap_or(0));
        let action = "look at the active run of its session";
        add(Severity::Warning, "queued_run_lag", message, Some(run.to_string()), action);
    }
    if let Some(run) = runs.oldest_idle_non_terminal_run_id.filter(|_| !runs.held)
        && runs.oldest_non_terminal_run_idle_ms.is_some_and(|idle_ms| idle_ms > STALE_RUN_WARNING_MS)
    {
        let message = format!("{run} has had no event for {} ms", runs.oldest_non_terminal_run_idle_ms.unwrap_or(0));
        add(
            Severity::Warning,
            "stale_non_terminal_runs",
            message,
            Some(run.to_string()),
            "read its events, or cancel it",
        );
    }
    for (code, what, run, age_ms) in [
        (
            "pending_approval_lag",
            "an approval",
            runs.oldest_waiting_for_approval_run_id,
            runs.oldest_waiting_for_approval_age_ms,
        ),
        (
            "pending_question_lag",
            "an answer",
            runs.oldest_waiting_for_user_question_run_id,
            runs.oldest_waiting_for_user_question_age_ms,
        ),
    ] {
        if let (Some(run), Some(age_ms)) = (run, age_ms.filter(|age_ms| *age_ms > PENDING_WAIT_WARNING_MS)) {
            let message = format!("{run} has waited for {what} for {age_ms} ms");
            add(Severity::Warning, code, message, Some(run.to_string()), "answer it, or cancel the run");
        }
    }
    if runs.held {
        let message = "execution is held: runs are accepted and stay queued".to_string();
        add(Severity::Info, "execution_held", message, None, "kheish-daemon runtime release");
    }
    let log = api.broker.stats().log;
    if let Some(reason) = log.poisoned {
        let action = "check the disk and restart the daemon";
        add(Severity::Error, "broker_log_poisoned", format!("revocations cannot be recorded: {reason}"), None, action);
    }
    if let Some((severity, code, message, action)) = sandbox_finding(api.facts.sandbox.report()) {
        add(severity, code, message, None, action);
    }
    found.extend(super::debug::warnings(api, api.clock.now_ms()));
    found.extend(storage.warnings());
    found.extend(readiness.warnings());
    found
}
