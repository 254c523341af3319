//! Groups of the status whose resources fill them when the daemon has them.
//! Owns: their fields; a group that nothing fills is all zeros and says `"supported": false`.
//! Never: computes a figure; the resource that owns it does.

use serde::Serialize;

use crate::core::DeliveryCounts;
use crate::hooks::{HookDiagnostic, HookTarget};

/// `schedules` of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SchedulesStatus {
    /// Whether the daemon has schedules at all.
    pub supported: bool,
    /// Whether due schedules are dispatched.
    pub dispatch_worker_enabled: bool,
    /// Schedules of any state.
    pub total: u64,
    /// Those that fire.
    pub active: u64,
    /// Those that an operator has stopped for a while.
    pub paused: u64,
    /// Those that have fired for the last time.
    pub completed: u64,
    /// Those that were taken away.
    pub canceled: u64,
    /// Active ones whose time has come.
    pub due_count: u64,
    /// Active ones that wait before another attempt.
    pub backoff_count: u64,
    /// Firings being dispatched.
    pub in_flight_count: u64,
    /// Firings that wait for their session.
    pub queued_fire_count: u64,
    /// When the next one is due, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_due_at_ms: Option<u64>,
    /// The one that is overdue for longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_due_schedule_id: Option<String>,
    /// For how long, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_due_schedule_lag_ms: Option<u64>,
}

/// `delivery` of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeliveryStatus {
    /// Whether the daemon has deliveries at all.
    pub supported: bool,
    /// Nothing is sent until an operator releases it.
    pub held: bool,
    /// In flight.
    pub in_flight: u64,
    /// Of these, to targets that were never reached or failed at last.
    pub in_flight_unproven: u64,
    /// Waiting for their first attempt.
    pub pending: u64,
    /// Waiting for another attempt.
    pub retrying: u64,
    /// Taken by their targets.
    pub delivered: u64,
    /// Ever given up.
    pub dead_lettered: u64,
    /// Given up and not settled by an operator.
    pub unresolved_dead_lettered: u64,
    /// Due now.
    pub ready: u64,
    /// Due now with a target that takes them.
    pub dispatchable: u64,
    /// Targets with deliveries that have not ended.
    pub target_count: u64,
    /// Targets that take nothing now.
    pub blocked_target_count: u64,
    /// Targets that asked for a pause.
    pub throttled_target_count: u64,
    /// Targets whose circuit is open after repeated failures.
    pub open_circuit_target_count: u64,
    /// 1 while the figures cannot be told.
    pub status_error_count: u64,
    /// When the next attempt is due, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at_ms: Option<u64>,
    /// When the next target takes deliveries again, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_target_available_at_ms: Option<u64>,
    /// When the worker started, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_started_at_ms: Option<u64>,
    /// Its last sign of life, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_heartbeat_at_ms: Option<u64>,
    /// For how long the oldest due delivery has waited for it, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_lag_ms: Option<u64>,
    /// Why the figures cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_error: Option<String>,
}

impl DeliveryStatus {
    /// As of a batch of the core, which gives deliveries out: its pass is the worker's heartbeat.
    pub fn of(counts: &DeliveryCounts, started_at_ms: u64, progress_ms: u64, now_ms: u64) -> Self {
        let reachable = counts.targets.saturating_sub(counts.failing_targets);
        Self {
            supported: true,
            held: counts.held,
            in_flight: counts.in_flight,
            in_flight_unproven: counts.in_flight_unproven,
            pending: counts.pending,
            retrying: counts.retrying,
            delivered: counts.delivered,
            dead_lettered: counts.dead_lettered,
            unresolved_dead_lettered: counts.unresolved,
            ready: reachable,
            dispatchable: if counts.held { 0 } else { reachable.saturating_sub(counts.in_flight) },
            target_count: counts.targets,
            blocked_target_count: counts.failing_targets,
            throttled_target_count: 0,
            open_circuit_target_count: counts.open_circuits,
            status_error_count: 0,
            next_attempt_at_ms: counts.next_due_ms.filter(|at_ms| *at_ms > 0),
            next_target_available_at_ms: counts.next_due_ms.filter(|at_ms| *at_ms > now_ms),
            worker_started_at_ms: Some(started_at_ms),
            worker_heartbeat_at_ms: Some(progress_ms),
            worker_lag_ms: counts.next_due_ms.filter(|at_ms| *at_ms > 0).map(|at_ms| now_ms.saturating_sub(at_ms)),
            status_error: None,
        }
    }
}

/// `agents` of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AgentsStatus {
    /// Whether the daemon has agents besides those of its sessions.
    pub supported: bool,
    /// Agents of any state.
    pub total: u64,
    /// Those with a run in hand.
    pub live_runtime_count: u64,
    /// Those that another agent has started.
    pub sidechain_count: u64,
    /// Of these, those that are not closed.
    pub open_sidechain_count: u64,
    /// Those that take nothing more.
    pub closed_count: u64,
    /// Ended ones whose last state is kept.
    pub terminal_snapshot_count: u64,
    /// Messages between agents that were not read.
    pub mailbox_message_count: u64,
    /// Messages between agents that could not be delivered and are kept.
    pub dead_letter_count: u64,
    /// Without a run.
    pub idle: u64,
    /// With a running one.
    pub running: u64,
    /// Waiting for an approval.
    pub waiting_for_approval: u64,
    /// Waiting for an answer.
    pub waiting_for_user_input: u64,
    /// Whose last run failed.
    pub failed: u64,
    /// That have ended.
    pub completed: u64,
    /// Records of agents that could not be written since start.
    pub audit_sink_error_count: u64,
    /// The last such error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_audit_sink_error: Option<String>,
}

/// `hooks` of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HooksStatus {
    /// Whether the daemon has hooks at all.
    pub supported: bool,
    /// Hooks of the configuration in force.
    pub configured_count: u64,
    /// Those of them that cannot be used; what they should decide is stopped.
    pub invalid_count: u64,
    /// Hook calls ever given up.
    pub dead_lettered_count: u64,
    /// Given up and not settled by an operator.
    pub unresolved_dead_lettered_count: u64,
    /// Calls since start.
    pub execution_count: u64,
    /// Failed ones.
    pub failure_count: u64,
    /// Repeated ones.
    pub retry_count: u64,
    /// Given up calls whose record could not be kept, since start.
    pub dead_letter_persist_failure_count: u64,
    /// When one was last given up, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_dead_letter_at_ms: Option<u64>,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_dead_letter_hook: Option<String>,
    /// When the last of those that are not settled was given up, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_unresolved_dead_letter_at_ms: Option<u64>,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_unresolved_dead_letter_hook: Option<String>,
    /// Where they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_store_path: Option<String>,
    /// Why they cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_read_error: Option<String>,
    /// Hooks that wait for nobody are told of nothing until somebody releases deliveries and runs.
    pub held: bool,
    /// Records of the journal that such hooks were not told of yet.
    pub lag_records: u64,
    /// Findings about the definitions.
    pub diagnostics: Vec<HookDiagnostic>,
    /// Hosts of HTTP hooks, as their names were looked up last.
    pub http_targets: Vec<HookTarget>,
}

/// `connectors` of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ConnectorsStatus {
    /// Whether the daemon has connectors at all.
    pub supported: bool,
    /// Registered ones.
    pub total: u64,
    /// Those that are switched on.
    pub enabled: u64,
    /// Side processes that run.
    pub running_process_count: u64,
    /// Side processes that are started again and again.
    pub crash_looping_count: u64,
    /// Messages taken in since start.
    pub ingress_count: u64,
    /// Messages refused since start.
    pub ingress_refused_count: u64,
    /// Nothing passes, as after the start of a copied or restored state root.
    pub held: bool,
    /// Those whose subject was revoked.
    pub revoked_count: u64,
    /// Those that name a slot which is missing or revoked.
    pub unusable_secret_count: u64,
    /// Those that anybody may send events to.
    pub unauthenticated_count: u64,
}

/// `mcp` of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct McpStatus {
    /// Whether the daemon speaks to MCP servers at all.
    pub supported: bool,
    /// Configured servers.
    pub server_count: u64,
    /// Those that answer.
    pub connected_count: u64,
    /// Those that could not be reached.
    pub error_count: u64,
    /// Tools that they offer.
    pub tool_count: u64,
}

/// `run_memory` and `session_memory` of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStatus {
    /// Whether the daemon keeps memories beside the journal.
    pub supported: bool,
}
