//! `runs` of the status: how many there are, and how long the oldest of each kind has waited.
//! Owns: its shape; ages are told from the published times at the moment of asking.
//! Never: walks the runs.

use serde::Serialize;

use crate::commit::CoreView;
use crate::core::{Counts, RunStatus, idle_before};
use crate::ids::RunId;
use crate::limits::PENDING_WAIT_WARNING_MS;

/// From when on waiting runs are listed under `health`; 0 is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunThresholds {
    /// Age of the oldest queued run behind an active one.
    pub queued_lag_ms: u64,
    /// Silence of a run that has not ended.
    pub stale_ms: u64,
}

/// Figures of runs. Ages that are absent mean that there is no such run.
#[derive(Debug, Serialize)]
pub struct Runs {
    total: u64,
    /// Runs that wait for the active one of their session.
    pub queued: u64,
    /// Running ones.
    pub running: u64,
    waiting_for_approval: u64,
    waiting_for_user_question: u64,
    completed: u64,
    /// Failed ones, ever.
    pub failed: u64,
    interrupted: u64,
    cancelled: u64,
    /// Runs in the hands of an engine.
    in_hand: usize,
    /// Runs that wait for an engine.
    ready: u64,
    pending_approval_count: u64,
    pending_question_count: u64,
    /// See `oldest_waiting_for_approval_age_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_waiting_for_approval_run_id: Option<RunId>,
    /// Since the oldest open approval was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_waiting_for_approval_age_ms: Option<u64>,
    /// See `oldest_waiting_for_user_question_age_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_waiting_for_user_question_run_id: Option<RunId>,
    /// Since the oldest open question was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_waiting_for_user_question_age_ms: Option<u64>,
    pending_wait_threshold_ms: u64,
    /// Whether starting of queued runs is suspended.
    pub held: bool,
    /// Whether unfinished runs that came with a copied or restored state root wait for `runtime release`.
    pub copy_held: bool,
    max_session_queue_depth: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_queued_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_queued_run_age_ms: Option<u64>,
    /// The longest-queued run behind an active one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_queued_behind_active_run_id: Option<RunId>,
    /// Since it was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_queued_behind_active_age_ms: Option<u64>,
    /// The run that it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_queued_behind_run_id: Option<RunId>,
    /// What that one is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_queued_behind_run_status: Option<RunStatus>,
    /// From when on this is listed under `health`.
    pub queued_run_lag_threshold_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_non_terminal_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_non_terminal_run_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_idle_non_terminal_run_id: Option<RunId>,
    /// Since the last record of the idlest run that has not ended, waiting and queued ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_non_terminal_run_idle_ms: Option<u64>,
    /// See `oldest_running_run_idle_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_idle_running_run_id: Option<RunId>,
    /// Since the last record of the idlest running run: waiting for a person or for another run is no silence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_running_run_idle_ms: Option<u64>,
    /// From when on a run counts as stale.
    pub stale_non_terminal_run_threshold_ms: u64,
    /// Runs that have not ended and have had no record for longer than that, to the minute.
    pub stale_non_terminal_run_count: u64,
    /// The idlest of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stale_non_terminal_run_ids: Vec<RunId>,
}

/// The group, as of now. `in_hand` are the runs that engines hold.
pub fn runs(view: &CoreView, thresholds: RunThresholds, in_hand: usize, now_ms: u64) -> Runs {
    let counts: &Counts = &view.counts;
    let age = |at: Option<(RunId, u64)>| at.map(|(_, at_ms)| now_ms.saturating_sub(at_ms));
    let id = |at: Option<(RunId, u64)>| at.map(|(run, _)| run);
    let behind = counts.oldest_queued_behind;
    let RunThresholds { queued_lag_ms, stale_ms } = thresholds;
    let is_stale = |at_ms: u64| stale_ms > 0 && now_ms.saturating_sub(at_ms) > stale_ms;
    let stale_ids: Vec<RunId> =
        counts.idlest.iter().flatten().filter(|(_, at)| is_stale(*at)).map(|(id, _)| *id).collect();
    let stale_by_minute = idle_before(&view.idle_minutes, now_ms.saturating_sub(stale_ms));
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
        in_hand,
        ready: counts.ready,
        pending_approval_count: counts.pending_approvals,
        pending_question_count: counts.pending_questions,
        oldest_waiting_for_approval_run_id: id(counts.oldest_waiting_approval),
        oldest_waiting_for_approval_age_ms: age(counts.oldest_waiting_approval),
        oldest_waiting_for_user_question_run_id: id(counts.oldest_waiting_question),
        oldest_waiting_for_user_question_age_ms: age(counts.oldest_waiting_question),
        pending_wait_threshold_ms: PENDING_WAIT_WARNING_MS,
        held: counts.held,
        copy_held: counts.copy_held,
        max_session_queue_depth: counts.session_queue_runs_max,
        oldest_queued_run_id: id(counts.oldest_queued),
        oldest_queued_run_age_ms: age(counts.oldest_queued),
        oldest_queued_behind_active_run_id: behind.map(|behind| behind.run),
        oldest_queued_behind_active_age_ms: behind.map(|behind| now_ms.saturating_sub(behind.submitted_at_ms)),
        oldest_queued_behind_run_id: behind.map(|behind| behind.active),
        oldest_queued_behind_run_status: behind.map(|behind| behind.active_status),
        queued_run_lag_threshold_ms: queued_lag_ms,
        oldest_non_terminal_run_id: id(counts.oldest_non_terminal),
        oldest_non_terminal_run_age_ms: age(counts.oldest_non_terminal),
        oldest_idle_non_terminal_run_id: id(counts.oldest_idle),
        oldest_non_terminal_run_idle_ms: age(counts.oldest_idle),
        oldest_idle_running_run_id: id(counts.oldest_running_idle),
        oldest_running_run_idle_ms: age(counts.oldest_running_idle),
        stale_non_terminal_run_threshold_ms: stale_ms,
        // Those that can be named are counted to the millisecond, more of them by the minute.
        stale_non_terminal_run_count: if stale_ids.len() < counts.idlest.len() {
            stale_ids.len() as u64
        } else {
            stale_by_minute.max(stale_ids.len() as u64)
        },
        stale_non_terminal_run_ids: stale_ids,
    }
}
