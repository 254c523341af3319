//! The one table of what `health.warnings` can say.
//! Owns: each code with its severities, when it is raised, what it names, the part that has failed and the next command.
//! Never: raises anything; docs/operators/slo.md shows this table, and tests compare the two and the code with it.

use super::health::Severity::{self, Error, Info, Warning};

/// One code. Codes are stable: machines match them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCode {
    /// The code.
    pub code: &'static str,
    /// What it is raised with, mildest first.
    pub severities: &'static [Severity],
    /// When.
    pub when: &'static str,
    /// What `related_id` is; empty where there is none.
    pub related: &'static str,
    /// The part of the daemon or its surroundings that it points at.
    pub component: &'static str,
    /// What to run or to look at next.
    pub action: &'static str,
}

const fn row(
    code: &'static str,
    severities: &'static [Severity],
    when: &'static str,
    related: &'static str,
    component: &'static str,
    action: &'static str,
) -> HealthCode {
    HealthCode { code, severities, when, related, component, action }
}

/// Every code, in the order of evaluation.
pub static HEALTH_CODES: &[HealthCode] = &[
    row(
        "daemon_draining",
        &[Error],
        "stop was asked for",
        "",
        "process",
        "wait for the restart: `systemctl status kheish-daemon`",
    ),
    row(
        "journal_poisoned",
        &[Error],
        "a sync of the journal failed; nothing more is written until a restart",
        "",
        "journal, disk",
        "check the disk (`dmesg`), then restart; `kheish-daemon journal verify --offline`",
    ),
    row(
        "component_failed",
        &[Error],
        "a thread has ended, or a pass of the core takes over two seconds",
        "",
        "threads",
        "look at `threads` in `kheish-daemon status`, then restart the daemon",
    ),
    row(
        "storage_full",
        &[Error],
        "the disk takes no more; reads go on, cancelling and holding too",
        "",
        "disk",
        "free space under the state root; service resumes by itself",
    ),
    row(
        "journal_write_failed",
        &[Error],
        "a write was refused by the disk; the next one may succeed",
        "",
        "disk",
        "check the disk (`dmesg`, `df`), its mount and its quota",
    ),
    row(
        "storage_write_probe_failed",
        &[Error],
        "a directory takes no durable write",
        "its path",
        "disk",
        "free space and inodes, check the directory's owner and mode",
    ),
    row(
        "storage_write_probe_timeout",
        &[Error],
        "the write probes have not returned for 45 seconds",
        "",
        "disk",
        "check for a hanging disk or network file system",
    ),
    row(
        "state_root_lock_lost",
        &[Error],
        "`daemon.lock` is not the file that this daemon has locked: another one may use the state root",
        "its path",
        "state root",
        "stop both daemons, find out who replaced the file, `kheish-daemon journal verify --offline`",
    ),
    row(
        "journal_damaged",
        &[Error],
        "re-hashing found a segment that is not what was written",
        "",
        "journal, disk",
        "`kheish-daemon journal verify --offline` on a copy, then restore from a backup",
    ),
    row(
        "broker_log_poisoned",
        &[Error],
        "revocations cannot be recorded",
        "",
        "broker, disk",
        "check the disk and restart the daemon",
    ),
    row(
        "control_plane_audit_failing",
        &[Error],
        "lines of the control-plane audit file cannot be written",
        "the file",
        "audit, disk",
        "check space, owner and mode of `control-plane-auth/` in the state root",
    ),
    row(
        "control_plane_auth_disabled_off_loopback",
        &[Error],
        "anybody who reaches the address controls the daemon",
        "the address",
        "control plane",
        "restart with `--http-auth-mode bearer` and an admin token file",
    ),
    row(
        "control_plane_admin_auth_unavailable",
        &[Error],
        "no admin token can be used",
        "the admin token file",
        "control plane",
        "restore the admin token file; it is read again at the next request",
    ),
    row(
        "control_plane_auth_duplicate_token",
        &[Error],
        "both tokens are equal, so both are refused",
        "",
        "control plane",
        "write another token to one of the two files",
    ),
    row(
        "control_plane_auth_token_file_unavailable",
        &[Warning],
        "a token file cannot be used",
        "its path",
        "control plane",
        "see `control_plane.auth_token_files` in `kheish-daemon status`",
    ),
    row(
        "route_diagnostics_error",
        &[Error],
        "the routes file has an error that was found at start",
        "the route",
        "routes file",
        "`kheish-daemon doctor routes`",
    ),
    row(
        "route_diagnostics_warning",
        &[Info],
        "the routes file has something to be warned of, drift included",
        "the route",
        "routes file",
        "`kheish-daemon doctor routes`",
    ),
    row(
        "provider_readiness_error",
        &[Error],
        "a route's credential cannot be used",
        "the route",
        "broker, routes file",
        "`kheish-daemon doctor routes --check-auth`",
    ),
    row(
        "provider_readiness_warning",
        &[Info],
        "the routes file has changed or is gone, so the default route may not be what it is after a restart",
        "the route",
        "broker, routes file",
        "`kheish-daemon doctor routes --check-auth`",
    ),
    row(
        "route_egress_refused",
        &[Error],
        "the egress guard lets nothing through to a route's host",
        "the route",
        "egress",
        "add its host with `--egress-allow`, or take the route out of the routes file",
    ),
    row(
        "routes_missing",
        &[Info],
        "no route is configured, so no run can be submitted",
        "",
        "routes file",
        "restart with `--routes-file`",
    ),
    row(
        "provider_inline_credentials",
        &[Info],
        "a route has its key in the routes file or the environment",
        "the route",
        "routes file",
        "`kheish-daemon secrets set`, then name the slot as `auth_ref`",
    ),
    row(
        "queued_run_lag",
        &[Info, Warning],
        "a run has been queued behind an active one for over 30 minutes (info), over 2 hours (warning)",
        "the queued run",
        "engine, session",
        "`kheish-daemon runs get` the run that it waits for: `runs.oldest_queued_behind_run_id`",
    ),
    row(
        "stale_non_terminal_runs",
        &[Info, Warning],
        "a run has had no event for over 30 minutes (info), a running one for over 6 hours (warning)",
        "the idlest run",
        "engine, provider",
        "`kheish-daemon runs events` of the run; `kheish-daemon runs cancel` ends it",
    ),
    row(
        "pending_approval_lag",
        &[Info, Warning],
        "an approval has been open for over 4 hours (info), over 24 hours (warning)",
        "the run",
        "people",
        "`kheish-daemon approvals list`",
    ),
    row(
        "pending_question_lag",
        &[Info, Warning],
        "a question has been open for over 4 hours (info), over 24 hours (warning)",
        "the run",
        "people",
        "`kheish-daemon questions list`",
    ),
    row(
        "execution_held",
        &[Info],
        "runs are accepted and stay queued",
        "",
        "operator",
        "`kheish-daemon runtime release`",
    ),
    row(
        "copied_runs_held",
        &[Info],
        "the state root was copied or restored: the unfinished runs that came with it wait",
        "",
        "operator",
        "`kheish-daemon runtime release`",
    ),
    row("failed_runs", &[Info], "runs have failed; this is history", "", "runs", "`kheish-daemon runs list`"),
    row(
        "debug_capture_full",
        &[Info, Warning, Error],
        "level full is open for a ticket (info), without one (warning), for over 30 minutes (error)",
        "the ticket",
        "debug capture",
        "`kheish-daemon runtime set-debug-level off`",
    ),
    row(
        "debug_capture_on",
        &[Info],
        "a lower level of debug capture is on",
        "the ticket",
        "debug capture",
        "`kheish-daemon runtime set-debug-level off`",
    ),
    row(
        "debug_artifact_persist_failures",
        &[Info, Warning],
        "artifacts were not kept since start (info), in the last ten minutes (warning)",
        "",
        "debug capture, disk",
        "check space, owner and mode of `debug/` in the state root",
    ),
    row(
        "sandbox_unavailable",
        &[Warning],
        "the level asked for cannot be had, so tools are refused",
        "",
        "sandbox",
        "see docs/security-model.md for what to allow",
    ),
    row(
        "sandbox_off",
        &[Info],
        "tools run with all rights of the daemon's user",
        "",
        "sandbox",
        "restart with `--sandbox auto` or `required`",
    ),
    row(
        "sandbox_reduced",
        &[Info],
        "walls are missing on this kernel",
        "",
        "sandbox",
        "see docs/security-model.md for what each one stops",
    ),
    row(
        "signing_key_in_state_root",
        &[Info],
        "the audit key lies in the state root whose records it signs",
        "the key id",
        "audit",
        "`kheish-daemon audit relocate-key`",
    ),
    row(
        "event_streams_cut_off",
        &[Info],
        "clients of event streams took nothing in the last ten minutes and were cut off",
        "",
        "clients, proxy",
        "`kheish-daemon doctor`: a proxy that buffers shows there",
    ),
    row(
        "quarantined_task_processes",
        &[Warning],
        "processes of a background command could not be ended and are tried again",
        "the task",
        "tasks",
        "see what they wait for: `ps -o pid,stat,wchan`",
    ),
    row(
        "live_background_shell_tasks",
        &[Info],
        "background commands are running",
        "",
        "tasks",
        "`kheish-daemon tasks list SESSION`",
    ),
    row(
        "failed_tasks",
        &[Info],
        "tasks have failed; this is history",
        "",
        "tasks",
        "`kheish-daemon tasks list SESSION`",
    ),
    row("blocked_tasks", &[Info], "tasks wait for others", "", "tasks", "`kheish-daemon tasks list SESSION`"),
    row(
        "failed_agents",
        &[Info],
        "the last run of an agent has failed; this is history",
        "",
        "agents",
        "`kheish-daemon runs list`",
    ),
    row(
        "agent_supervisor_audit_sink_errors",
        &[Warning],
        "records of agents cannot be written",
        "the last error",
        "agents, disk",
        "check the disk, then restart the daemon",
    ),
    row(
        "schedule_retry_backoff",
        &[Info],
        "schedules wait before another attempt",
        "",
        "schedules",
        "look at the schedules' last errors",
    ),
    row(
        "scheduler_lag",
        &[Warning],
        "an active schedule is overdue by more than two minutes",
        "the schedule",
        "schedules",
        "look at `threads` and `schedules` in `kheish-daemon status`",
    ),
    row(
        "delivery_dead_letters",
        &[Warning],
        "deliveries were given up and nobody has settled them",
        "",
        "delivery, its target",
        "`kheish-daemon deliveries list --status dead_lettered`",
    ),
    row(
        "delivery_status_unavailable",
        &[Error],
        "the figures of deliveries cannot be told",
        "",
        "delivery",
        "look at the daemon's log, then restart",
    ),
    row(
        "deliveries_held",
        &[Info],
        "deliveries wait and nothing is sent until it is released",
        "",
        "delivery",
        "`kheish-daemon deliveries list`, then `kheish-daemon deliveries release`",
    ),
    row(
        "delivery_targets_blocked",
        &[Info],
        "the last attempt at a target failed; it is tried again, and what is behind it waits",
        "",
        "delivery, its target",
        "`kheish-daemon deliveries list`",
    ),
    row(
        "delivery_target_circuit_open",
        &[Warning],
        "targets have failed again and again and get nothing for a while",
        "",
        "delivery, its target",
        "`kheish-daemon deliveries list`",
    ),
    row(
        "delivery_worker_not_running",
        &[Error],
        "deliveries wait and nobody sends them",
        "",
        "delivery",
        "look at `threads` in `kheish-daemon status`, then restart",
    ),
    row(
        "delivery_worker_stale",
        &[Warning],
        "a due delivery has waited for over two minutes",
        "",
        "delivery",
        "look at `delivery` and `threads` in `kheish-daemon status`",
    ),
    row(
        "hook_definitions_invalid",
        &[Error],
        "definitions of hooks cannot be used; what they should decide is stopped",
        "the first of them",
        "hooks",
        "`kheish-daemon doctor`, then `kheish-daemon runtime hooks set --file`",
    ),
    row(
        "hooks_held",
        &[Info],
        "hooks are told of nothing until deliveries and runs are released",
        "",
        "hooks",
        "`kheish-daemon deliveries release`, `kheish-daemon runtime release`",
    ),
    row(
        "hook_dead_letters",
        &[Warning],
        "hook calls were given up and nobody has settled them",
        "the hook",
        "hooks, their targets",
        "`kheish-daemon doctor`",
    ),
    row(
        "hook_dead_letter_persist_failures",
        &[Info, Warning],
        "given up hook calls were not kept since start (info), in the last ten minutes (warning)",
        "",
        "hooks, disk",
        "check the disk",
    ),
    row(
        "hook_dead_letter_store_unreadable",
        &[Warning],
        "given up hook calls cannot be read",
        "the store",
        "hooks, disk",
        "check the store's owner and mode",
    ),
    row(
        "connector_process_crash_looping",
        &[Warning],
        "a connector's side process ends again and again",
        "",
        "connectors",
        "look at the daemon's log for its last words",
    ),
    row(
        "connectors_held",
        &[Info],
        "nothing passes through connectors",
        "",
        "connectors",
        "check the restored state, then `kheish-daemon connectors release`",
    ),
    row(
        "connector_secrets_unusable",
        &[Warning],
        "a connector is revoked, or a slot that it names is missing or revoked",
        "",
        "connectors, secrets",
        "look at `unusable_secrets` and `revoked` in `kheish-daemon connectors list`, and set the slot again",
    ),
    row(
        "mcp_servers_unreachable",
        &[Warning],
        "an MCP server could not be reached",
        "",
        "MCP servers",
        "look at `mcp` in `kheish-daemon status` and the server's log",
    ),
];

/// The row of a code.
pub fn find(code: &str) -> Option<&'static HealthCode> {
    HEALTH_CODES.iter().find(|row| row.code == code)
}

/// The table of docs/operators/slo.md.
pub fn health_table() -> String {
    let mut text = String::from(
        "| code | severity | raised when | related_id | points at | action |\n|---|---|---|---|---|---|\n",
    );
    for HealthCode { code, severities, when, related, component, action } in HEALTH_CODES {
        let severities: Vec<&str> = severities.iter().map(|severity| severity.as_str()).collect();
        let (severities, related) = (severities.join(", "), if related.is_empty() { "–" } else { related });
        text.push_str(&format!("| `{code}` | {severities} | {when} | {related} | {component} | {action} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_every_row_says_what_to_do() {
        for (at, row) in HEALTH_CODES.iter().enumerate() {
            assert!(HEALTH_CODES[..at].iter().all(|other| other.code != row.code), "{} twice", row.code);
            assert!(row.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", row.code);
            assert!(!row.when.is_empty() && !row.action.is_empty() && !row.component.is_empty(), "{}", row.code);
            assert!(!row.severities.is_empty(), "{}", row.code);
            let rank = |severity: &Severity| [Info, Warning, Error].iter().position(|other| other == severity);
            assert!(row.severities.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])), "{}", row.code);
        }
    }
}
