//! Every metric, in the order of the answer.
//! Owns: names, kinds, labels, and where each figure stands in the status document.
//! Never: has a label whose values a caller chooses.

use serde_json::Value;

use super::Kind::{self, Counter, Gauge};
use super::{Metric, Read, Series, Source};

const fn metric(name: &'static str, kind: Kind, help: &'static str, label: &'static str, source: Source) -> Metric {
    Metric { name, kind, help, label, source }
}

const fn of(label: &'static str, read: Read) -> Series {
    Series { label, read }
}

fn findings(status: &Value, severity: &str) -> f64 {
    let warnings = status.pointer("/health/warnings").and_then(Value::as_array);
    warnings.into_iter().flatten().filter(|warning| warning["severity"] == severity).count() as f64
}

fn info_findings(status: &Value) -> f64 {
    findings(status, "info")
}

fn warning_findings(status: &Value) -> f64 {
    findings(status, "warning")
}

fn error_findings(status: &Value) -> f64 {
    findings(status, "error")
}

fn probes_not_ok(status: &Value) -> f64 {
    let probes = status.pointer("/storage/probes").and_then(Value::as_array);
    probes.into_iter().flatten().filter(|probe| probe["state"] != "ok").count() as f64
}

fn is_full(status: &Value) -> bool {
    status.pointer("/runtime/debug_level").is_some_and(|level| level == "full")
}

fn full_without_ticket(status: &Value) -> f64 {
    let has = |name: &str| status.pointer(name).is_some_and(|value| !value.is_null());
    let in_a_window = has("/runtime/debug/ticket") && has("/runtime/debug/until_ms");
    f64::from(is_full(status) && !in_a_window)
}

fn full_seconds(status: &Value) -> f64 {
    let at = |pointer: &str| status.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
    let since_ms = at("/runtime/debug/since_ms");
    if is_full(status) && since_ms > 0.0 { (at("/snapshot_at_ms") - since_ms).max(0.0) * 0.001 } else { 0.0 }
}

fn dead_threads(status: &Value) -> f64 {
    let threads = status["threads"].as_array().into_iter().flatten();
    let count = |thread: &Value, name: &str| thread[name].as_f64().unwrap_or(0.0);
    threads.map(|thread| count(thread, "count") - count(thread, "alive")).sum()
}

/// Every metric.
pub static METRICS: &[Metric] = &[
    metric(
        "kheish_ready",
        Gauge,
        "1 while the daemon takes work, as /readyz says.",
        "",
        Source::Fixed(&[of("", Read::Truth("/ready"))]),
    ),
    metric(
        "kheish_health_ok",
        Gauge,
        "1 while no finding is above info.",
        "",
        Source::Fixed(&[of("", Read::Truth("/health/ok"))]),
    ),
    metric(
        "kheish_health_findings",
        Gauge,
        "Findings of health.warnings by severity.",
        "severity",
        Source::Fixed(&[
            of("info", Read::Made(info_findings)),
            of("warning", Read::Made(warning_findings)),
            of("error", Read::Made(error_findings)),
        ]),
    ),
    metric(
        "kheish_start_time_seconds",
        Gauge,
        "When the daemon started, Unix time.",
        "",
        Source::Fixed(&[of("", Read::At("/started_at_ms", 0.001))]),
    ),
    metric(
        "kheish_storage_ok",
        Gauge,
        "1 while both roots take durable writes and nothing is damaged.",
        "",
        Source::Fixed(&[of("", Read::Truth("/storage/ok"))]),
    ),
    metric(
        "kheish_storage_probe_warnings",
        Gauge,
        "Storage probes that are not ok.",
        "",
        Source::Fixed(&[of("", Read::Made(probes_not_ok))]),
    ),
    metric(
        "kheish_storage_probe_latency_seconds",
        Gauge,
        "Time of the last durable write by root.",
        "root",
        Source::Fixed(&[
            of("state_root", Read::At("/storage/probes/0/latency_ms", 0.001)),
            of("workspace_root", Read::At("/storage/probes/1/latency_ms", 0.001)),
        ]),
    ),
    metric(
        "kheish_storage_checked_timestamp_seconds",
        Gauge,
        "When the roots were last probed, Unix time.",
        "",
        Source::Fixed(&[of("", Read::At("/storage/checked_at_ms", 0.001))]),
    ),
    metric(
        "kheish_storage_scrubbed_segments_total",
        Counter,
        "Segments of the journal that were re-hashed.",
        "",
        Source::Fixed(&[of("", Read::At("/storage/scrub/segment_count", 1.0))]),
    ),
    metric(
        "kheish_state_root_lock_held",
        Gauge,
        "1 while daemon.lock is the file that was locked.",
        "",
        Source::Fixed(&[of("", Read::Truth("/storage/state_root_lock/held"))]),
    ),
    metric(
        "kheish_state_root_used_ratio",
        Gauge,
        "Used share of the state root's file system.",
        "",
        Source::Fixed(&[of("", Read::At("/storage/probes/0/space/used_percent", 0.01))]),
    ),
    metric(
        "kheish_state_root_inodes_used_ratio",
        Gauge,
        "Used share of its inodes; 0 where it has no fixed number.",
        "",
        Source::Fixed(&[of("", Read::At("/storage/probes/0/space/inodes_used_percent", 0.01))]),
    ),
    metric(
        "kheish_state_root_available_bytes",
        Gauge,
        "Free bytes there.",
        "",
        Source::Fixed(&[of("", Read::At("/storage/probes/0/space/available_bytes", 1.0))]),
    ),
    metric(
        "kheish_provider_routes",
        Gauge,
        "Routes by state of their credential and host.",
        "state",
        Source::Fixed(&[
            of("ready", Read::At("/provider_readiness/ready_route_count", 1.0)),
            of("warning", Read::At("/provider_readiness/warning_route_count", 1.0)),
            of("error", Read::At("/provider_readiness/error_route_count", 1.0)),
        ]),
    ),
    metric(
        "kheish_provider_active_route_ready",
        Gauge,
        "1 while the default route can be used.",
        "",
        Source::Fixed(&[of("", Read::Truth("/provider_readiness/active_route_ready"))]),
    ),
    metric(
        "kheish_provider_active_route_state",
        Gauge,
        "1 for the state of the default route.",
        "state",
        Source::Fixed(&[
            of("ok", Read::Is("/provider_readiness/active_route_state", "ok")),
            of("warning", Read::Is("/provider_readiness/active_route_state", "warning")),
            of("error", Read::Is("/provider_readiness/active_route_state", "error")),
            of("none", Read::Is("/provider_readiness/active_route_state", "none")),
        ]),
    ),
    metric(
        "kheish_runs",
        Gauge,
        "Runs that have not ended by status.",
        "status",
        Source::Fixed(&[
            of("queued", Read::At("/runs/queued", 1.0)),
            of("running", Read::At("/runs/running", 1.0)),
            of("waiting_for_approval", Read::At("/runs/waiting_for_approval", 1.0)),
            of("waiting_for_user_question", Read::At("/runs/waiting_for_user_question", 1.0)),
        ]),
    ),
    metric(
        "kheish_runs_ended_total",
        Counter,
        "Runs that have ended by status, earlier lives included.",
        "status",
        Source::Fixed(&[
            of("completed", Read::At("/runs/completed", 1.0)),
            of("failed", Read::At("/runs/failed", 1.0)),
            of("interrupted", Read::At("/runs/interrupted", 1.0)),
            of("cancelled", Read::At("/runs/cancelled", 1.0)),
        ]),
    ),
    metric(
        "kheish_runs_accepted_total",
        Counter,
        "Runs ever accepted.",
        "",
        Source::Fixed(&[of("", Read::At("/runs/total", 1.0))]),
    ),
    metric(
        "kheish_runs_in_hand",
        Gauge,
        "Runs in the hands of an engine.",
        "",
        Source::Fixed(&[of("", Read::At("/runs/in_hand", 1.0))]),
    ),
    metric(
        "kheish_runs_ready",
        Gauge,
        "Runs that wait for an engine.",
        "",
        Source::Fixed(&[of("", Read::At("/runs/ready", 1.0))]),
    ),
    metric(
        "kheish_runs_stale",
        Gauge,
        "Runs without a record for longer than the daemon's threshold.",
        "",
        Source::Fixed(&[of("", Read::At("/runs/stale_non_terminal_run_count", 1.0))]),
    ),
    metric(
        "kheish_runs_oldest_queued_age_seconds",
        Gauge,
        "Age of the oldest queued run: of any, and behind an active run.",
        "scope",
        Source::Fixed(&[
            of("any", Read::At("/runs/oldest_queued_run_age_ms", 0.001)),
            of("behind_active", Read::At("/runs/oldest_queued_behind_active_age_ms", 0.001)),
        ]),
    ),
    metric(
        "kheish_runs_oldest_idle_seconds",
        Gauge,
        "Time since the last record of the idlest run: of any that has not ended, and of running ones.",
        "scope",
        Source::Fixed(&[
            of("any", Read::At("/runs/oldest_non_terminal_run_idle_ms", 0.001)),
            of("running", Read::At("/runs/oldest_running_run_idle_ms", 0.001)),
        ]),
    ),
    metric(
        "kheish_runs_oldest_pending_age_seconds",
        Gauge,
        "Age of the oldest open approval and question.",
        "kind",
        Source::Fixed(&[
            of("approval", Read::At("/runs/oldest_waiting_for_approval_age_ms", 0.001)),
            of("question", Read::At("/runs/oldest_waiting_for_user_question_age_ms", 0.001)),
        ]),
    ),
    metric(
        "kheish_runs_pending",
        Gauge,
        "Open approvals and questions.",
        "kind",
        Source::Fixed(&[
            of("approval", Read::At("/runs/pending_approval_count", 1.0)),
            of("question", Read::At("/runs/pending_question_count", 1.0)),
        ]),
    ),
    metric(
        "kheish_session_queue_depth_max",
        Gauge,
        "Length of the longest queue of a session.",
        "",
        Source::Fixed(&[of("", Read::At("/runs/max_session_queue_depth", 1.0))]),
    ),
    metric("kheish_sessions", Gauge, "Sessions.", "", Source::Fixed(&[of("", Read::At("/sessions/total", 1.0))])),
    metric(
        "kheish_execution_held",
        Gauge,
        "1 while no queued run is started.",
        "",
        Source::Fixed(&[of("", Read::Truth("/runs/held"))]),
    ),
    metric(
        "kheish_tasks",
        Gauge,
        "Tasks by status.",
        "status",
        Source::Fixed(&[
            of("pending", Read::At("/tasks/pending", 1.0)),
            of("in_progress", Read::At("/tasks/in_progress", 1.0)),
            of("blocked", Read::At("/tasks/blocked", 1.0)),
            of("completed", Read::At("/tasks/completed", 1.0)),
            of("failed", Read::At("/tasks/failed", 1.0)),
            of("cancelled", Read::At("/tasks/cancelled", 1.0)),
        ]),
    ),
    metric(
        "kheish_background_commands",
        Gauge,
        "Background commands that run.",
        "",
        Source::Fixed(&[of("", Read::At("/tasks/live_background_shell_task_count", 1.0))]),
    ),
    metric(
        "kheish_delivery_items",
        Gauge,
        "Deliveries that have not ended by state.",
        "state",
        Source::Fixed(&[
            of("pending", Read::At("/delivery/pending", 1.0)),
            of("retrying", Read::At("/delivery/retrying", 1.0)),
        ]),
    ),
    metric(
        "kheish_delivery_delivered_total",
        Counter,
        "Deliveries that their targets took.",
        "",
        Source::Fixed(&[of("", Read::At("/delivery/delivered", 1.0))]),
    ),
    metric(
        "kheish_delivery_dead_lettered_total",
        Counter,
        "Deliveries that were given up.",
        "",
        Source::Fixed(&[of("", Read::At("/delivery/dead_lettered", 1.0))]),
    ),
    metric(
        "kheish_delivery_unresolved_dead_lettered",
        Gauge,
        "Given up deliveries that nobody has settled.",
        "",
        Source::Fixed(&[of("", Read::At("/delivery/unresolved_dead_lettered", 1.0))]),
    ),
    metric(
        "kheish_delivery_targets",
        Gauge,
        "Targets of deliveries that take nothing now, by why.",
        "state",
        Source::Fixed(&[
            of("blocked", Read::At("/delivery/blocked_target_count", 1.0)),
            of("throttled", Read::At("/delivery/throttled_target_count", 1.0)),
            of("open_circuit", Read::At("/delivery/open_circuit_target_count", 1.0)),
        ]),
    ),
    metric(
        "kheish_delivery_worker_lag_seconds",
        Gauge,
        "For how long the oldest due delivery has waited.",
        "",
        Source::Fixed(&[of("", Read::At("/delivery/worker_lag_ms", 0.001))]),
    ),
    metric(
        "kheish_agents",
        Gauge,
        "Agents by state.",
        "state",
        Source::Fixed(&[
            of("idle", Read::At("/agents/idle", 1.0)),
            of("running", Read::At("/agents/running", 1.0)),
            of("failed", Read::At("/agents/failed", 1.0)),
            of("completed", Read::At("/agents/completed", 1.0)),
        ]),
    ),
    metric(
        "kheish_schedules",
        Gauge,
        "Schedules by state.",
        "state",
        Source::Fixed(&[
            of("active", Read::At("/schedules/active", 1.0)),
            of("paused", Read::At("/schedules/paused", 1.0)),
            of("due", Read::At("/schedules/due_count", 1.0)),
            of("backoff", Read::At("/schedules/backoff_count", 1.0)),
        ]),
    ),
    metric(
        "kheish_schedules_lag_seconds",
        Gauge,
        "For how long the most overdue schedule has been due.",
        "",
        Source::Fixed(&[of("", Read::At("/schedules/oldest_due_schedule_lag_ms", 0.001))]),
    ),
    metric(
        "kheish_hook_calls_total",
        Counter,
        "Calls of hooks by outcome; failed ones are among the made ones.",
        "outcome",
        Source::Fixed(&[
            of("made", Read::At("/hooks/execution_count", 1.0)),
            of("failed", Read::At("/hooks/failure_count", 1.0)),
            of("retried", Read::At("/hooks/retry_count", 1.0)),
            of("dead_lettered", Read::At("/hooks/dead_lettered_count", 1.0)),
        ]),
    ),
    metric(
        "kheish_hooks_unresolved_dead_lettered",
        Gauge,
        "Given up calls of hooks that nobody has settled.",
        "",
        Source::Fixed(&[of("", Read::At("/hooks/unresolved_dead_lettered_count", 1.0))]),
    ),
    metric(
        "kheish_connectors_running",
        Gauge,
        "Side processes of connectors that run.",
        "",
        Source::Fixed(&[of("", Read::At("/connectors/running_process_count", 1.0))]),
    ),
    metric(
        "kheish_mcp_servers",
        Gauge,
        "MCP servers by state.",
        "state",
        Source::Fixed(&[
            of("connected", Read::At("/mcp/connected_count", 1.0)),
            of("error", Read::At("/mcp/error_count", 1.0)),
        ]),
    ),
    metric(
        "kheish_rate_limited_total",
        Counter,
        "Announced floods by the code of their audit line.",
        "code",
        Source::Fixed(&[
            of("auth_rate_limited", Read::At("/control_plane/rate_limits/auth_rate_limited/count", 1.0)),
            of("cors_origin_rate_limited", Read::At("/control_plane/rate_limits/cors_origin_rate_limited/count", 1.0)),
        ]),
    ),
    metric(
        "kheish_debug_level",
        Gauge,
        "1 for the level of debug capture in force.",
        "level",
        Source::Fixed(&[
            of("off", Read::Is("/runtime/debug_level", "off")),
            of("on", Read::Is("/runtime/debug_level", "on")),
            of("redacted", Read::Is("/runtime/debug_level", "redacted")),
            of("full", Read::Is("/runtime/debug_level", "full")),
        ]),
    ),
    metric(
        "kheish_debug_full_without_ticket",
        Gauge,
        "1 while level full is open without a ticket or without an end.",
        "",
        Source::Fixed(&[of("", Read::Made(full_without_ticket))]),
    ),
    metric(
        "kheish_debug_full_seconds",
        Gauge,
        "For how long level full has been open.",
        "",
        Source::Fixed(&[of("", Read::Made(full_seconds))]),
    ),
    metric(
        "kheish_debug_artifacts_total",
        Counter,
        "Debug artifacts by outcome.",
        "outcome",
        Source::Fixed(&[
            of("written", Read::At("/runtime/debug_capture/artifacts_written", 1.0)),
            of("dropped", Read::At("/runtime/debug_capture/artifacts_dropped", 1.0)),
            of("failed", Read::At("/runtime/debug_capture/debug_artifact_persist_failures", 1.0)),
        ]),
    ),
    metric(
        "kheish_journal_batches_total",
        Counter,
        "Batches committed since start.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/batch_count", 1.0))]),
    ),
    metric(
        "kheish_journal_records_total",
        Counter,
        "Records committed since start.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/record_count", 1.0))]),
    ),
    metric(
        "kheish_journal_bytes",
        Gauge,
        "Bytes of the journal's segments.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/bytes", 1.0))]),
    ),
    metric(
        "kheish_journal_segments",
        Gauge,
        "Segments of the journal.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/segment_count", 1.0))]),
    ),
    metric(
        "kheish_journal_unsealed_records",
        Gauge,
        "Records behind the newest seal.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/unsealed_record_count", 1.0))]),
    ),
    metric(
        "kheish_journal_sealed_timestamp_seconds",
        Gauge,
        "When the newest seal was made, Unix time.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/sealed_head/sealed_at_ms", 0.001))]),
    ),
    metric(
        "kheish_journal_last_commit_seconds",
        Gauge,
        "Time of the last sync.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/last_commit_us", 0.000_001))]),
    ),
    metric(
        "kheish_journal_slowest_commit_seconds",
        Gauge,
        "Time of the slowest sync since start.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/slowest_commit_us", 0.000_001))]),
    ),
    metric(
        "kheish_journal_pass_age_seconds",
        Gauge,
        "Age of the pass that the core is at.",
        "",
        Source::Fixed(&[of("", Read::At("/journal/batch_age_ms", 0.001))]),
    ),
    metric(
        "kheish_journal_poisoned",
        Gauge,
        "1 after a failed sync: nothing is written until a restart.",
        "",
        Source::Fixed(&[of("", Read::Truth("/journal/poisoned"))]),
    ),
    metric(
        "kheish_journal_reserve_intact",
        Gauge,
        "1 while the reserve for a full disk is there.",
        "",
        Source::Fixed(&[of("", Read::Truth("/journal/reserve_is_intact"))]),
    ),
    metric(
        "kheish_sse_streams",
        Gauge,
        "Open event streams.",
        "",
        Source::Fixed(&[of("", Read::At("/events/streams", 1.0))]),
    ),
    metric(
        "kheish_sse_streams_max",
        Gauge,
        "Event streams that may be open.",
        "",
        Source::Fixed(&[of("", Read::At("/events/streams_max", 1.0))]),
    ),
    metric(
        "kheish_sse_frames_total",
        Counter,
        "Frames with an id handed to clients.",
        "",
        Source::Fixed(&[of("", Read::At("/events/frames", 1.0))]),
    ),
    metric(
        "kheish_sse_closed_total",
        Counter,
        "Event streams that the daemon has ended, by why.",
        "reason",
        Source::Fixed(&[
            of("cut_off", Read::At("/events/cut_off", 1.0)),
            of("revoked", Read::At("/events/revoked", 1.0)),
            of("read_failure", Read::At("/events/read_failures", 1.0)),
        ]),
    ),
    metric(
        "kheish_sse_refused_total",
        Counter,
        "Event streams refused because too many were open.",
        "",
        Source::Fixed(&[of("", Read::At("/events/refused", 1.0))]),
    ),
    metric(
        "kheish_sse_gaps_total",
        Counter,
        "Cursors that could not be resumed from.",
        "",
        Source::Fixed(&[of("", Read::At("/events/gaps", 1.0))]),
    ),
    metric(
        "kheish_sse_previews_dropped_total",
        Counter,
        "Previews dropped because a writer was busy.",
        "",
        Source::Fixed(&[of("", Read::At("/events/previews_dropped", 1.0))]),
    ),
    metric(
        "kheish_http_connections",
        Gauge,
        "Open connections: all, and those that are event streams.",
        "kind",
        Source::Fixed(&[
            of("all", Read::At("/http/connections_open", 1.0)),
            of("upgraded", Read::At("/http/connections_upgraded", 1.0)),
        ]),
    ),
    metric(
        "kheish_http_connections_accepted_total",
        Counter,
        "Connections accepted.",
        "",
        Source::Fixed(&[of("", Read::At("/http/connections_accepted", 1.0))]),
    ),
    metric(
        "kheish_http_requests_total",
        Counter,
        "Requests handed to their handlers.",
        "",
        Source::Fixed(&[of("", Read::At("/http/requests", 1.0))]),
    ),
    metric(
        "kheish_http_requests_in_flight",
        Gauge,
        "Requests that are not answered yet.",
        "",
        Source::Fixed(&[of("", Read::At("/http/requests_in_flight", 1.0))]),
    ),
    metric(
        "kheish_http_held_bytes",
        Gauge,
        "Bytes held: request bodies, and answers that clients have not taken.",
        "kind",
        Source::Fixed(&[
            of("bodies", Read::At("/http/bodies_bytes", 1.0)),
            of("unsent", Read::At("/http/unsent_bytes", 1.0)),
        ]),
    ),
    metric(
        "kheish_http_panics_total",
        Counter,
        "Panics: of handlers, each answered with 500, and of the edge, each of which cost a connection.",
        "kind",
        Source::Fixed(&[
            of("handler", Read::At("/http/handler_panics", 1.0)),
            of("edge", Read::At("/http/edge_panics", 1.0)),
        ]),
    ),
    metric(
        "kheish_http_refused_total",
        Counter,
        "Connections and requests refused or cut, by reason.",
        "reason",
        Source::Refusals("/http/refused"),
    ),
    metric(
        "kheish_broker_commands_total",
        Counter,
        "Commands that the broker has answered.",
        "",
        Source::Fixed(&[of("", Read::At("/broker/handled_count", 1.0))]),
    ),
    metric(
        "kheish_broker_leases",
        Gauge,
        "Leases that are out.",
        "",
        Source::Fixed(&[of("", Read::At("/broker/lease_count", 1.0))]),
    ),
    metric(
        "kheish_broker_blocked_slots",
        Gauge,
        "Slots that were revoked and not set since.",
        "",
        Source::Fixed(&[of("", Read::At("/broker/blocked_slot_count", 1.0))]),
    ),
    metric(
        "kheish_broker_revoked_subjects",
        Gauge,
        "Subjects that get no credential.",
        "",
        Source::Fixed(&[of("", Read::At("/broker/revoked_subject_count", 1.0))]),
    ),
    metric(
        "kheish_broker_log_bytes",
        Gauge,
        "Bytes of the log of leases and revocations.",
        "",
        Source::Fixed(&[of("", Read::At("/broker/log/bytes", 1.0))]),
    ),
    metric(
        "kheish_audit_lines_total",
        Counter,
        "Lines of the control-plane audit file by outcome.",
        "outcome",
        Source::Fixed(&[
            of("written", Read::At("/control_plane/audit/written_count", 1.0)),
            of("dropped", Read::At("/control_plane/audit/dropped_count", 1.0)),
        ]),
    ),
    metric(
        "kheish_audit_failed_attempts_total",
        Counter,
        "Attempts to write or sync the audit file that failed.",
        "",
        Source::Fixed(&[of("", Read::At("/control_plane/audit/failed_attempt_count", 1.0))]),
    ),
    metric(
        "kheish_egress_refused_total",
        Counter,
        "Outbound requests that the guard has refused.",
        "",
        Source::Fixed(&[of("", Read::At("/egress/refused_count", 1.0))]),
    ),
    metric(
        "kheish_threads_dead",
        Gauge,
        "Threads that have ended and should not have.",
        "",
        Source::Fixed(&[of("", Read::Made(dead_threads))]),
    ),
    metric("kheish_threads", Gauge, "Threads that run, by kind.", "thread", Source::Threads("alive", 1.0)),
    metric("kheish_threads_busy", Gauge, "Threads at work, by kind.", "thread", Source::Threads("busy", 1.0)),
    metric(
        "kheish_thread_queue_depth",
        Gauge,
        "What waits for a kind of thread.",
        "thread",
        Source::Threads("queue_depth", 1.0),
    ),
    metric(
        "kheish_thread_longest_busy_seconds",
        Gauge,
        "Age of the longest piece of work at hand, by kind.",
        "thread",
        Source::Threads("longest_busy_ms", 0.001),
    ),
    metric(
        "kheish_thread_last_progress_timestamp_seconds",
        Gauge,
        "When a thread of the kind last took up or finished work, Unix time.",
        "thread",
        Source::Threads("last_progress_ms", 0.001),
    ),
    metric(
        "process_cpu_seconds_total",
        Counter,
        "User and system time.",
        "",
        Source::Process(|process| process.cpu_seconds),
    ),
    metric(
        "process_resident_memory_bytes",
        Gauge,
        "Memory in RAM.",
        "",
        Source::Process(|process| process.resident_bytes),
    ),
    metric(
        "process_virtual_memory_bytes",
        Gauge,
        "Address space.",
        "",
        Source::Process(|process| process.virtual_bytes),
    ),
    metric("process_open_fds", Gauge, "Open descriptors.", "", Source::Process(|process| process.open_fds)),
    metric("process_max_fds", Gauge, "Descriptors that may be open.", "", Source::Process(|process| process.max_fds)),
    metric("process_threads", Gauge, "Threads of the process.", "", Source::Process(|process| process.threads)),
    metric(
        "process_start_time_seconds",
        Gauge,
        "When the process started, Unix time.",
        "",
        Source::Fixed(&[of("", Read::At("/started_at_ms", 0.001))]),
    ),
];
