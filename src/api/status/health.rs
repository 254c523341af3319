//! `health` of the status: what is wrong now, and what to do about it.
//! Owns: the findings; their codes, severities and actions are those of `health_codes.rs`.
//! Never: looks at history: what is over is at most information.

use serde::Serialize;

use super::groups::{AgentsStatus, ConnectorsStatus, DeliveryStatus, HooksStatus, McpStatus, SchedulesStatus};
use super::observed::Counter;
use super::{ControlPlane, Runs, health_codes};
use crate::api::context::Api;
use crate::api::readiness::{ProviderReadiness, not_ready};
use crate::commit::{CommandError, CoreView};
use crate::core::{TaskCounts, TaskStatus};
use crate::limits::{
    DELIVERY_WORKER_STALE_MS, PENDING_WAIT_PAGE_MS, PENDING_WAIT_WARNING_MS, QUEUED_RUN_LAG_PAGE_MS,
    SCHEDULE_LAG_WARNING_MS, STALE_ACTIVE_RUN_PAGE_MS,
};
use crate::providers;
use crate::sandbox::{Level, SandboxReport, Strength};
use crate::upkeep::StorageView;

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

impl Severity {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthWarning {
    severity: Severity,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    related_id: Option<String>,
    action: String,
}

impl HealthWarning {
    /// A finding with what to do about it, where that is more than its row of the table says.
    pub fn new(
        severity: Severity,
        code: &'static str,
        message: String,
        related_id: Option<String>,
        action: impl Into<String>,
    ) -> Self {
        debug_assert!(
            health_codes::find(code).is_some_and(|row| row.severities.contains(&severity)),
            "{code} as {severity:?} is not in the table of health codes"
        );
        Self { severity, code, message, related_id, action: action.into() }
    }

    /// A finding with the action of its row.
    pub fn of(severity: Severity, code: &'static str, message: String, related_id: Option<String>) -> Self {
        let action = health_codes::find(code).map_or("see docs/operators/slo.md", |row| row.action);
        Self::new(severity, code, message, related_id, action)
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What it is.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

/// `health` of the status.
#[derive(Debug, Serialize)]
pub struct Health {
    /// When it was judged, Unix milliseconds.
    pub generated_at_ms: u64,
    /// What judging took.
    pub snapshot_duration_ms: u64,
    /// Nothing is above `info`.
    pub ok: bool,
    /// Routes that cannot be used.
    pub route_error_count: usize,
    /// Routes that can, with something wrong.
    pub route_warning_count: usize,
    /// For how long a due schedule has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_lag_ms: Option<u64>,
    /// What was found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<HealthWarning>,
}

/// What is judged.
pub struct Judged<'a> {
    /// Handles, for what is small.
    pub api: &'a Api,
    /// Committed state.
    pub view: &'a CoreView,
    /// The time of the judgement.
    pub now_ms: u64,
    /// See there.
    pub control_plane: &'a ControlPlane,
    /// See there.
    pub storage: &'a StorageView,
    /// See there.
    pub readiness: &'a ProviderReadiness,
    /// See there.
    pub runs: &'a Runs,
    /// See there.
    pub schedules: &'a SchedulesStatus,
    /// See there.
    pub delivery: &'a DeliveryStatus,
    /// See there.
    pub agents: &'a AgentsStatus,
    /// See there.
    pub hooks: &'a HooksStatus,
    /// See there.
    pub connectors: &'a ConnectorsStatus,
    /// See there.
    pub mcp: &'a McpStatus,
}

/// A finding and whether it is the case.
pub(super) type Finding = (Severity, &'static str, String, Option<String>);

/// Everything that is wrong now, and what is worth knowing.
pub fn findings(judged: &Judged<'_>) -> Vec<HealthWarning> {
    let api = judged.api;
    let mut found = core(judged);
    found.extend(judged.storage.warnings());
    let mut small: Vec<Finding> = control_plane(judged.control_plane);
    small.extend(runs(judged.runs));
    small.extend(sandbox(api.facts.sandbox.report()));
    small.extend(posture(judged));
    small.extend(routes_file(judged));
    small.extend(streams(judged));
    small.extend(capture(judged));
    small.extend(tasks(&judged.view.counts.tasks));
    for (task, pids) in api.tasks.quarantined() {
        let message = format!("processes of {task} could not be ended and are tried again: {pids:?}");
        small.push((Severity::Warning, "quarantined_task_processes", message, Some(task)));
    }
    small.extend(absent_rooms(judged));
    found.extend(small.into_iter().map(|(severity, code, message, id)| HealthWarning::of(severity, code, message, id)));
    found.extend(crate::api::debug::warnings(api, judged.now_ms));
    found.extend(judged.readiness.warnings());
    found
}

fn core(judged: &Judged<'_>) -> Vec<HealthWarning> {
    let mut found = Vec::new();
    if let Some(problem) = not_ready(judged.api) {
        let (code, detail) = (problem.code.code, problem.detail.clone());
        found.push(HealthWarning::of(Severity::Error, code, detail, None));
    }
    match &judged.view.refusing {
        Some(CommandError::StorageFull { reason }) => {
            found.push(HealthWarning::of(Severity::Error, "storage_full", reason.clone(), None));
        }
        Some(error) => {
            found.push(HealthWarning::of(Severity::Error, "journal_write_failed", error.to_string(), None));
        }
        None => {}
    }
    if let Some(reason) = judged.api.broker.stats().log.poisoned {
        let message = format!("revocations cannot be recorded: {reason}");
        found.push(HealthWarning::of(Severity::Error, "broker_log_poisoned", message, None));
    }
    if let Some(error) = &judged.control_plane.audit.error {
        let (message, file) = (error.clone(), Some(judged.control_plane.audit.path.clone()));
        found.push(HealthWarning::of(Severity::Error, "control_plane_audit_failing", message, file));
    }
    found
}

fn control_plane(control_plane: &ControlPlane) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    if control_plane.externally_exposed_without_auth {
        let message = "anybody who reaches this address controls the daemon".to_string();
        let bind = Some(control_plane.bind_addr.clone());
        found.push((Severity::Error, "control_plane_auth_disabled_off_loopback", message, bind));
    }
    let auth = &control_plane.auth;
    if auth.auth_enabled && !auth.auth_effective_admin_token_available {
        let message = "no admin token can be used now".to_string();
        found.push((Severity::Error, "control_plane_admin_auth_unavailable", message, auth.first_bad_file("admin")));
    }
    if auth.auth_duplicate_token {
        let message = "admin and read-only token are equal, so both are refused".to_string();
        found.push((Severity::Error, "control_plane_auth_duplicate_token", message, None));
    }
    if auth.auth_token_file_error_count > 0 {
        let message = format!("{} token files cannot be used", auth.auth_token_file_error_count);
        found.push((Severity::Warning, "control_plane_auth_token_file_unavailable", message, auth.first_bad_file("")));
    }
    found
}

/// Lag is listed from the thresholds of the daemon on, as information, and makes it unhealthy from the page thresholds
/// of the operators' table on.
pub(super) fn runs(runs: &Runs) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let is_held = runs.held || runs.copy_held;
    // What a copy brought is as old as it was in the original, and nobody is late while it is held.
    let severity = |age_ms: u64, page_ms: u64| match age_ms > page_ms && !runs.copy_held {
        true => Severity::Warning,
        false => Severity::Info,
    };
    let is_over = |age_ms: u64, threshold_ms: u64| threshold_ms > 0 && age_ms > threshold_ms;
    if let (Some(run), Some(age_ms), Some(active), Some(status)) = (
        runs.oldest_queued_behind_active_run_id,
        runs.oldest_queued_behind_active_age_ms,
        runs.oldest_queued_behind_run_id,
        runs.oldest_queued_behind_run_status,
    ) && !is_held
        && is_over(age_ms, runs.queued_run_lag_threshold_ms)
    {
        let message = format!("{run} has been queued for {age_ms} ms behind {active}, which is {}", status.as_str());
        found.push((severity(age_ms, QUEUED_RUN_LAG_PAGE_MS), "queued_run_lag", message, Some(run.to_string())));
    }
    if let Some(idlest) = runs.stale_non_terminal_run_ids.first().filter(|_| !is_held) {
        let running_ms = runs.oldest_running_run_idle_ms.unwrap_or(0);
        let severity = severity(running_ms, STALE_ACTIVE_RUN_PAGE_MS);
        let run = runs.oldest_idle_running_run_id.filter(|_| severity == Severity::Warning).unwrap_or(*idlest);
        let (count, threshold_ms) = (runs.stale_non_terminal_run_count, runs.stale_non_terminal_run_threshold_ms);
        let message = format!("{count} runs have had no event for over {threshold_ms} ms");
        found.push((severity, "stale_non_terminal_runs", message, Some(run.to_string())));
    }
    let waits = [
        (runs.oldest_waiting_for_approval_run_id, runs.oldest_waiting_for_approval_age_ms, true),
        (runs.oldest_waiting_for_user_question_run_id, runs.oldest_waiting_for_user_question_age_ms, false),
    ];
    for (run, age_ms, is_approval) in waits {
        let Some((run, age_ms)) = run.zip(age_ms.filter(|age_ms| *age_ms > PENDING_WAIT_WARNING_MS)) else { continue };
        let severity = severity(age_ms, PENDING_WAIT_PAGE_MS);
        found.push(if is_approval {
            let message = format!("{run} has waited for an approval for {age_ms} ms");
            (severity, "pending_approval_lag", message, Some(run.to_string()))
        } else {
            let message = format!("{run} has waited for an answer for {age_ms} ms");
            (severity, "pending_question_lag", message, Some(run.to_string()))
        });
    }
    if runs.held {
        let message = "execution is held: runs are accepted and stay queued".to_string();
        found.push((Severity::Info, "execution_held", message, None));
    }
    if runs.copy_held {
        let message = "runs that came with the copied state root are held; new ones are started".to_string();
        found.push((Severity::Info, "copied_runs_held", message, None));
    }
    if runs.failed > 0 {
        found.push((Severity::Info, "failed_runs", format!("{} runs have failed", runs.failed), None));
    }
    found
}

fn sandbox(report: &SandboxReport) -> Option<Finding> {
    if !report.usable {
        let (level, missing) = (report.level.name(), report.missing());
        let message = format!("tools are refused: --sandbox {level} cannot be had: {missing}");
        return Some((Severity::Warning, "sandbox_unavailable", message, None));
    }
    if report.level == Level::Off {
        let message = "tools run with all rights of the daemon's user".to_string();
        return Some((Severity::Info, "sandbox_off", message, None));
    }
    if report.strength != Strength::Full {
        return Some((Severity::Info, "sandbox_reduced", format!("walls are missing: {}", report.missing()), None));
    }
    None
}

fn posture(judged: &Judged<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    if judged.api.facts.key_in_state_root {
        let key = judged.api.signer.key_id();
        let message = "whoever can change the state root can also sign in its name".to_string();
        found.push((Severity::Info, "signing_key_in_state_root", message, Some(key)));
    }
    let inline: Vec<&str> = judged.readiness.inline_routes().collect();
    if let Some(first) = inline.first() {
        let message = format!("{} routes have their keys outside the auth store", inline.len());
        found.push((Severity::Info, "provider_inline_credentials", message, Some((*first).to_string())));
    }
    found
}

fn routes_file(judged: &Judged<'_>) -> Vec<Finding> {
    let diagnostics = crate::api::runtime::route_diagnostics(judged.api);
    let mut found: Vec<Finding> = Vec::new();
    let mut errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == providers::Severity::Error);
    if let Some(first) = errors.next() {
        let message = format!("{}; {} more", first.message, errors.count());
        found.push((Severity::Error, "route_diagnostics_error", message, first.route_id.clone()));
    }
    let mut warnings = diagnostics.iter().filter(|diagnostic| diagnostic.severity == providers::Severity::Warning);
    if let Some(first) = warnings.next() {
        let message = format!("{}; {} more", first.message, warnings.count());
        found.push((Severity::Info, "route_diagnostics_warning", message, first.route_id.clone()));
    }
    found
}

fn streams(judged: &Judged<'_>) -> Option<Finding> {
    let [recent, ..] = judged.api.facts.observed.growth(Counter::StreamsCutOff, judged.now_ms).windows_10m;
    let message = format!("{recent} clients of event streams took nothing in the last ten minutes and were cut off");
    (recent > 0).then_some((Severity::Info, "event_streams_cut_off", message, None))
}

fn capture(judged: &Judged<'_>) -> Option<Finding> {
    let [recent, ..] = judged.api.facts.observed.growth(Counter::CapturePersistFailures, judged.now_ms).windows_10m;
    let failures = judged.api.capture.stats().debug_artifact_persist_failures;
    let message = format!("{failures} debug artifacts were not kept since start");
    match (failures, recent) {
        (0, _) => None,
        (_, 0) => Some((Severity::Info, "debug_artifact_persist_failures", message, None)),
        _ => Some((Severity::Warning, "debug_artifact_persist_failures", message, None)),
    }
}

fn tasks(tasks: &TaskCounts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    if tasks.live_shell > 0 {
        let message = format!("{} background commands are running", tasks.live_shell);
        found.push((Severity::Info, "live_background_shell_tasks", message, None));
    }
    let of = |status: TaskStatus| tasks.by_status[status as usize];
    if of(TaskStatus::Failed) > 0 {
        let message = format!("{} tasks have failed", of(TaskStatus::Failed));
        found.push((Severity::Info, "failed_tasks", message, None));
    }
    if of(TaskStatus::Blocked) > 0 {
        let message = format!("{} tasks wait for others", of(TaskStatus::Blocked));
        found.push((Severity::Info, "blocked_tasks", message, None));
    }
    found
}

/// Findings of the groups that their resources fill; all zeros find nothing.
fn absent_rooms(judged: &Judged<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let observed = &judged.api.facts.observed;
    agents(judged.agents, &mut found);
    schedules(judged.schedules, &mut found);
    delivery(judged.delivery, &mut found);
    let [recent, ..] = observed.growth(Counter::HookPersistFailures, judged.now_ms).windows_10m;
    hooks(judged.hooks, recent, &mut found);
    let (connectors, mcp) = (judged.connectors, judged.mcp);
    if connectors.crash_looping_count > 0 {
        let message = format!("{} side processes end again and again", connectors.crash_looping_count);
        found.push((Severity::Warning, "connector_process_crash_looping", message, None));
    }
    if connectors.held {
        let message = "connectors are held: nothing passes through them".to_string();
        found.push((Severity::Info, "connectors_held", message, None));
    }
    if connectors.unusable_secret_count + connectors.revoked_count > 0 {
        let count = connectors.unusable_secret_count + connectors.revoked_count;
        let message = format!("{count} connectors are revoked, or name a slot that is missing or revoked");
        found.push((Severity::Warning, "connector_secrets_unusable", message, None));
    }
    if mcp.error_count > 0 {
        let message = format!("{} MCP servers could not be reached", mcp.error_count);
        found.push((Severity::Warning, "mcp_servers_unreachable", message, None));
    }
    found
}

pub(super) fn agents(agents: &AgentsStatus, found: &mut Vec<Finding>) {
    if agents.failed > 0 {
        found.push((Severity::Info, "failed_agents", format!("{} agents have failed", agents.failed), None));
    }
    if agents.audit_sink_error_count > 0 {
        let message = format!("{} records of agents could not be written", agents.audit_sink_error_count);
        let last = agents.last_audit_sink_error.clone();
        found.push((Severity::Warning, "agent_supervisor_audit_sink_errors", message, last));
    }
}

pub(super) fn schedules(schedules: &SchedulesStatus, found: &mut Vec<Finding>) {
    if schedules.backoff_count > 0 {
        let message = format!("{} schedules wait before another attempt", schedules.backoff_count);
        found.push((Severity::Info, "schedule_retry_backoff", message, None));
    }
    if let Some(lag_ms) = schedules.oldest_due_schedule_lag_ms.filter(|lag_ms| *lag_ms > SCHEDULE_LAG_WARNING_MS) {
        let message = format!("a schedule has been due for {lag_ms} ms");
        found.push((Severity::Warning, "scheduler_lag", message, schedules.oldest_due_schedule_id.clone()));
    }
}

pub(super) fn delivery(delivery: &DeliveryStatus, found: &mut Vec<Finding>) {
    if delivery.unresolved_dead_lettered > 0 {
        let message = format!("{} deliveries were given up", delivery.unresolved_dead_lettered);
        found.push((Severity::Warning, "delivery_dead_letters", message, None));
    }
    if let Some(error) = &delivery.status_error {
        found.push((Severity::Error, "delivery_status_unavailable", error.clone(), None));
    }
    if delivery.held && delivery.pending + delivery.retrying > 0 {
        let message = format!("{} deliveries are held", delivery.pending + delivery.retrying);
        found.push((Severity::Info, "deliveries_held", message, None));
    }
    if delivery.blocked_target_count > 0 {
        let message = format!("{} targets failed at the last attempt", delivery.blocked_target_count);
        found.push((Severity::Info, "delivery_targets_blocked", message, None));
    }
    if delivery.open_circuit_target_count > 0 {
        let message = format!("{} targets have failed again and again", delivery.open_circuit_target_count);
        found.push((Severity::Warning, "delivery_target_circuit_open", message, None));
    }
    if delivery.pending + delivery.retrying > 0 && delivery.supported && !delivery.held {
        if delivery.worker_heartbeat_at_ms.is_none() {
            let message = "deliveries wait and nobody sends them".to_string();
            found.push((Severity::Error, "delivery_worker_not_running", message, None));
        }
        if let Some(lag_ms) = delivery.worker_lag_ms.filter(|lag_ms| *lag_ms > DELIVERY_WORKER_STALE_MS) {
            let message = format!("a due delivery has waited for {lag_ms} ms");
            found.push((Severity::Warning, "delivery_worker_stale", message, None));
        }
    }
}

pub(super) fn hooks(hooks: &HooksStatus, recent_failures: u64, found: &mut Vec<Finding>) {
    if hooks.invalid_count > 0 {
        let first = hooks.diagnostics.iter().find(|diagnostic| diagnostic.severity == "error");
        let cause = first.map_or_else(String::new, |first| format!(": {}", first.message));
        let message = format!("{} definitions of hooks cannot be used{cause}", hooks.invalid_count);
        let hook = first.and_then(|first| first.hook.clone());
        found.push((Severity::Error, "hook_definitions_invalid", message, hook));
    }
    if hooks.held {
        let message = "hooks are told of nothing: deliveries or runs are held".to_string();
        found.push((Severity::Info, "hooks_held", message, None));
    }
    if hooks.unresolved_dead_lettered_count > 0 {
        let message = format!("{} hook calls were given up", hooks.unresolved_dead_lettered_count);
        let hook = hooks.last_unresolved_dead_letter_hook.clone();
        found.push((Severity::Warning, "hook_dead_letters", message, hook));
    }
    if hooks.dead_letter_persist_failure_count > 0 {
        let message = format!("{} given up hook calls were not kept", hooks.dead_letter_persist_failure_count);
        found.push(match recent_failures {
            0 => (Severity::Info, "hook_dead_letter_persist_failures", message, None),
            _ => (Severity::Warning, "hook_dead_letter_persist_failures", message, None),
        });
    }
    if let Some(error) = &hooks.dead_letter_read_error {
        let store = hooks.dead_letter_store_path.clone();
        found.push((Severity::Warning, "hook_dead_letter_store_unreadable", error.clone(), store));
    }
}
