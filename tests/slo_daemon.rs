//! Status, signals and metrics of the real binary: the complete shape, no false alarm on a healthy daemon, and
//! conditions that are produced for real.
//! Owns: those scenarios. Never: changes a clock; ages are compared in `src/api/status/tests.rs`.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::collections::BTreeSet;

use daemon::{Daemon, Home, Provider};
use serde_json::Value;

const ANSWERS: &str = r#"
[[turn]]
match = "hello"
text = "hello"
"#;

fn status(daemon: &Daemon) -> Value {
    daemon.get("/v1/status").json()
}

/// Every field of the reference that is always there, as a pointer.
const FIELDS: &str = "
/snapshot_at_ms /process_id /status /ready /capabilities/api_revision /runtime/debug_level /runtime/routes
/control_plane/base_url /control_plane/bind_addr /control_plane/bind_is_loopback /control_plane/bind_is_unspecified
/control_plane/auth_enabled /control_plane/read_only_token_enabled /control_plane/auth_effective_admin_token_available
/control_plane/auth_effective_read_only_token_available /control_plane/auth_token_file_count
/control_plane/auth_token_file_error_count /control_plane/auth_duplicate_token /control_plane/cors_policy
/control_plane/cors_allowed_origin_count /control_plane/externally_exposed_without_auth
/control_plane/rate_limits/auth_rate_limited/count /control_plane/rate_limits/cors_origin_rate_limited/count
/storage/checked_at_ms /storage/ok /storage/write_error_count /storage/probes/0/name /storage/probes/0/path
/storage/probes/0/state /storage/probes/0/writable /storage/probes/0/latency_ms /storage/probes/0/code
/storage/probes/0/message /storage/probes/0/space/used_percent /storage/probes/1/state
/storage/state_root_lock/path /storage/state_root_lock/held /storage/state_root_lock/mechanism
/provider_readiness/route_count /provider_readiness/ready_route_count /provider_readiness/warning_route_count
/provider_readiness/error_route_count /provider_readiness/active_route_ready /provider_readiness/active_route_state
/provider_readiness/active_route_state_since_ms /provider_readiness/routes/0/route_id
/provider_readiness/routes/0/provider /provider_readiness/routes/0/model /provider_readiness/routes/0/active
/provider_readiness/routes/0/state /provider_readiness/routes/0/code /provider_readiness/routes/0/message
/runs/total /runs/queued /runs/running /runs/waiting_for_approval /runs/waiting_for_user_question /runs/completed
/runs/failed /runs/interrupted /runs/cancelled /runs/pending_approval_count /runs/pending_question_count
/runs/max_session_queue_depth /runs/queued_run_lag_threshold_ms /runs/stale_non_terminal_run_threshold_ms
/runs/stale_non_terminal_run_count /sessions/total
/schedules/dispatch_worker_enabled /schedules/total /schedules/active /schedules/paused /schedules/completed
/schedules/canceled /schedules/due_count /schedules/backoff_count /schedules/in_flight_count
/schedules/queued_fire_count
/delivery/pending /delivery/retrying /delivery/delivered /delivery/dead_lettered /delivery/unresolved_dead_lettered
/delivery/ready /delivery/dispatchable /delivery/target_count /delivery/blocked_target_count
/delivery/throttled_target_count /delivery/open_circuit_target_count /delivery/status_error_count
/delivery/dead_letter_growth/windows_10m
/agents/total /agents/live_runtime_count /agents/sidechain_count /agents/closed_count
/agents/terminal_snapshot_count /agents/mailbox_message_count /agents/idle /agents/running
/agents/waiting_for_approval /agents/waiting_for_user_input /agents/failed /agents/completed
/agents/audit_sink_error_count
/tasks/live_background_shell_task_count /tasks/total /tasks/pending /tasks/in_progress /tasks/blocked
/tasks/completed /tasks/failed /tasks/cancelled /tasks/unreadable_session_count /tasks/unindexed_session_count
/hooks/configured_count /hooks/dead_lettered_count /hooks/unresolved_dead_lettered_count /hooks/execution_count
/hooks/failure_count /hooks/retry_count /hooks/dead_letter_persist_failure_count
/events/history_capacity /events/retained_event_count /events/subscriber_count /events/next_event_id
/events/scope_eviction_floor_id /events/replay_buffer_utilization_percent /events/evicted_event_count
/events/replay_gap_count /events/stream_lagged_event_count /events/evicted_session_scope_count
/events/evicted_run_scope_count /run_memory/supported /session_memory/supported
/connectors/total /mcp/server_count /journal/committed_seq /journal/committed_chain /journal/reserve_is_intact
/health/generated_at_ms /health/snapshot_duration_ms /health/ok /health/route_error_count
/health/route_warning_count
";

#[test]
fn every_group_and_field_of_the_reference_is_there() {
    let provider = Provider::start(ANSWERS);
    let home = Home::new("slo-shape", Some(&provider));
    let daemon = home.start();
    let status = status(&daemon);
    let missing: Vec<&str> =
        FIELDS.split_whitespace().filter(|field| status.pointer(field).is_none_or(Value::is_null)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "{status:#}");
    for group in ["schedules", "delivery", "agents", "hooks", "connectors", "mcp"] {
        assert!(status[group]["supported"].is_boolean(), "{group}");
    }
    daemon.stop();
}

#[test]
fn every_thread_of_the_architecture_is_there_and_alive() {
    let home = Home::new("slo-threads", None);
    let daemon = home.start();
    let status = status(&daemon);
    let threads = status["threads"].as_array().expect("threads");
    let seen: BTreeSet<&str> = threads.iter().filter_map(|thread| thread["name"].as_str()).collect();
    let page = include_str!("../docs/architecture.md");
    let table = page.split("## Threads").nth(1).expect("the chapter").split("\n## ").next().expect("its text");
    let listed = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in listed.map(|name| name.strip_suffix("-n").unwrap_or(name)) {
        assert!(seen.contains(name), "{name} is not among {seen:?}");
    }
    for thread in threads {
        assert_eq!(thread["count"], thread["alive"], "{thread}");
        assert!(thread["count"].as_u64() > Some(0), "{thread}");
        assert!(thread["last_progress_ms"].as_u64() > Some(0), "{thread}");
    }
    daemon.stop();
}
