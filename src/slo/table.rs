//! The operators' table as data.
//! Owns: each row's signal, where it is read, what warns and pages, the part it points at, the next command, and the
//! same condition for Prometheus.
//! Never: holds a verdict; `judge.rs` has one function a row.

use super::judge::{self, Judge};
use super::thresholds::Param;
use crate::limits::{
    DEBUG_FULL_TTL_MS_DEFAULT, INODES_USED_ERROR_PERCENT, PENDING_WAIT_PAGE_MS, PENDING_WAIT_WARNING_MS,
    QUEUED_RUN_LAG_PAGE_MS, QUEUED_RUN_LAG_WARNING_MS, ROUTE_STATE_ALARM_MS, SPACE_USED_ERROR_PERCENT,
    SPACE_USED_WARNING_PERCENT, STALE_ACTIVE_RUN_PAGE_MS, STALE_ACTIVE_RUN_WARNING_MS,
};

/// One alert of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// `warning` or `page`.
    pub severity: &'static str,
    /// Its expression.
    pub expr: &'static str,
    /// For how long it must hold; empty for at once.
    pub hold: &'static str,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name in reports and in the file of thresholds.
    pub id: &'static str,
    /// As operators call it.
    pub signal: &'static str,
    /// Where it is read.
    pub path: &'static str,
    /// What warns.
    pub warning: &'static str,
    /// What pages.
    pub page: &'static str,
    /// The part of the daemon or its surroundings that it points at.
    pub component: &'static str,
    /// What to run next.
    pub next: &'static str,
    /// Numbers that an operator may change.
    pub params: &'static [Param],
    /// The verdict.
    pub judge: Judge,
    /// The same for Prometheus.
    pub alerts: &'static [Alert],
}

const fn param(key: &'static str, default: u64, what: &'static str) -> Param {
    Param { key, default, what }
}

const fn warns(expr: &'static str, hold: &'static str) -> Alert {
    Alert { severity: "warning", expr, hold }
}

const fn pages(expr: &'static str, hold: &'static str) -> Alert {
    Alert { severity: "page", expr, hold }
}

/// Every row, in the order of the operators' table.
pub static ROWS: &[Row] = &[
    Row {
        id: "readiness",
        signal: "Readiness",
        path: "GET /readyz",
        warning: "one non-2xx sample",
        page: "two consecutive non-2xx samples within 60 seconds",
        component: "process, journal, threads",
        next: "kheish-daemon doctor; without an answer: systemctl status kheish-daemon, then kheish-daemon doctor --offline",
        params: &[
            param("page_samples", 2, "consecutive bad samples that page"),
            param("page_within_ms", 60_000, "milliseconds within which they lie"),
        ],
        judge: judge::readiness,
        alerts: &[
            warns("up{job=\"kheish-daemon\"} == 0 or kheish_ready == 0", ""),
            pages("up{job=\"kheish-daemon\"} == 0 or kheish_ready == 0", "30s"),
        ],
    },
    Row {
        id: "health",
        signal: "Health",
        path: ".health.ok",
        warning: "false for one sample",
        page: "false for two consecutive samples",
        component: "see the component of each code in .health.warnings[]",
        next: "kheish-daemon status, .health.warnings[]: each has an action",
        params: &[param("page_samples", 2, "consecutive bad samples that page")],
        judge: judge::health,
        alerts: &[warns("kheish_health_ok == 0", ""), pages("kheish_health_ok == 0", "30s")],
    },
    Row {
        id: "storage",
        signal: "Storage",
        path: ".storage.ok, .storage.probes[]",
        warning: "any warning diagnostic",
        page: "false immediately",
        component: "disk of the state root or the workspace root",
        next: "kheish-daemon status, .storage: each probe has an action; then df, dmesg",
        params: &[],
        judge: judge::storage,
        alerts: &[warns("kheish_storage_probe_warnings > 0", ""), pages("kheish_storage_ok == 0", "")],
    },
    Row {
        id: "provider_readiness",
        signal: "Provider readiness",
        path: ".provider_readiness.active_route_ready, .provider_readiness.routes[]",
        warning: "default route warning for 5 minutes",
        page: "default route error for 5 minutes",
        component: "auth store, routes file, egress guard",
        next: "kheish-daemon doctor routes --check-auth",
        params: &[
            param("warning_after_ms", ROUTE_STATE_ALARM_MS, "milliseconds of a route in state warning"),
            param("page_after_ms", ROUTE_STATE_ALARM_MS, "milliseconds of a route in state error, or of none"),
        ],
        judge: judge::provider_readiness,
        alerts: &[
            warns("kheish_provider_active_route_state{state=\"warning\"} == 1", "5m"),
            pages("kheish_provider_active_route_state{state=~\"error|none\"} == 1", "5m"),
        ],
    },
    Row {
        id: "queue_lag",
        signal: "Run queue lag",
        path: ".runs.queued, .runs.oldest_queued_behind_active_age_ms, .runs.oldest_queued_run_age_ms, .health.warnings[] with queued_run_lag",
        warning: "older than 30 minutes behind active session work",
        page: "older than 2 hours behind active session work",
        component: "the active run of the session, its provider or person; engines",
        next: "kheish-daemon runs get $(kheish-daemon --output json status | jq -r .runs.oldest_queued_behind_run_id)",
        params: &[
            param("warning_ms", QUEUED_RUN_LAG_WARNING_MS, "milliseconds in the queue that warn"),
            param("page_ms", QUEUED_RUN_LAG_PAGE_MS, "milliseconds in the queue that page"),
        ],
        judge: judge::queue_lag,
        alerts: &[
            warns(
                "kheish_runs_oldest_queued_age_seconds{scope=\"behind_active\"} > 1800 and on(instance) kheish_execution_held == 0",
                "",
            ),
            pages(
                "kheish_runs_oldest_queued_age_seconds{scope=\"behind_active\"} > 7200 and on(instance) kheish_execution_held == 0",
                "",
            ),
        ],
    },
    Row {
        id: "stale_runs",
        signal: "Stale active runs",
        path: ".runs.running, .runs.oldest_running_run_idle_ms (.runs.oldest_non_terminal_run_idle_ms has waiting runs too), .health.warnings[] with stale_non_terminal_runs",
        warning: "older than 2 hours without events",
        page: "older than 6 hours without events",
        component: "engine, provider, tool of the run",
        next: "kheish-daemon runs events $(kheish-daemon --output json status | jq -r .runs.oldest_idle_running_run_id)",
        params: &[
            param("warning_ms", STALE_ACTIVE_RUN_WARNING_MS, "milliseconds without an event that warn"),
            param("page_ms", STALE_ACTIVE_RUN_PAGE_MS, "milliseconds without an event that page"),
        ],
        judge: judge::stale_runs,
        alerts: &[
            warns("kheish_runs_oldest_idle_seconds{scope=\"running\"} > 7200", ""),
            pages("kheish_runs_oldest_idle_seconds{scope=\"running\"} > 21600", ""),
        ],
    },
    Row {
        id: "pending",
        signal: "Pending approvals/questions",
        path: ".runs.waiting_for_approval, .runs.waiting_for_user_question, .runs.oldest_waiting_for_approval_age_ms, .runs.oldest_waiting_for_user_question_age_ms",
        warning: "older than 4 hours",
        page: "older than 24 hours",
        component: "people",
        next: "kheish-daemon approvals list; kheish-daemon questions list",
        params: &[
            param("warning_ms", PENDING_WAIT_WARNING_MS, "milliseconds of waiting that warn"),
            param("page_ms", PENDING_WAIT_PAGE_MS, "milliseconds of waiting that page"),
        ],
        judge: judge::pending,
        alerts: &[
            warns("kheish_runs_oldest_pending_age_seconds > 14400", ""),
            pages("kheish_runs_oldest_pending_age_seconds > 86400", ""),
        ],
    },
    Row {
        id: "dead_letters",
        signal: "Delivery DLQ",
        path: ".delivery.unresolved_dead_lettered, .delivery.dead_letter_growth",
        warning: "any growth in staging",
        page: "any production DLQ item or repeated growth",
        component: "delivery, its target",
        next: "kheish-daemon deliveries list --status dead_lettered",
        params: &[
            param("page_items", 1, "unresolved dead letters that page in production"),
            param("page_growth_windows", 2, "of the last three ten-minute windows, how many with growth page"),
        ],
        judge: judge::dead_letters,
        alerts: &[
            warns("increase(kheish_delivery_dead_lettered_total[10m]) > 0", ""),
            pages("kheish_delivery_unresolved_dead_lettered{profile!=\"staging\"} > 0", ""),
            pages(
                "increase(kheish_delivery_dead_lettered_total[10m]) > 0 and increase(kheish_delivery_dead_lettered_total[10m] offset 10m) > 0",
                "",
            ),
        ],
    },
    Row {
        id: "rate_limits",
        signal: "Auth/CORS rate limits",
        path: ".control_plane.rate_limits, which counts the codes auth_rate_limited and cors_origin_rate_limited of <state_root>/control-plane-auth/audit.jsonl",
        warning: "repeated code within 10 minutes",
        page: "sustained repeats for 30 minutes",
        component: "a client with a wrong token or origin, or somebody who tries",
        next: "tail <state_root>/control-plane-auth/audit.jsonl: peer, path and token fingerprint of each",
        params: &[param("repeats", 2, "occurrences in ten minutes that are repeats")],
        judge: judge::rate_limits,
        alerts: &[
            warns("increase(kheish_rate_limited_total[10m]) > 1.5", ""),
            pages(
                "increase(kheish_rate_limited_total[10m]) > 1.5 and increase(kheish_rate_limited_total[10m] offset 10m) > 1.5 and increase(kheish_rate_limited_total[10m] offset 20m) > 1.5",
                "",
            ),
        ],
    },
    Row {
        id: "debug_capture",
        signal: "Debug capture",
        path: ".runtime.debug_level, .runtime.debug",
        warning: "full enabled outside a ticketed window",
        page: "full enabled for more than 30 minutes",
        component: "operator",
        next: "kheish-daemon runtime set-debug-level off",
        params: &[param("page_ms", DEBUG_FULL_TTL_MS_DEFAULT, "milliseconds of level full that page")],
        judge: judge::debug_capture,
        alerts: &[warns("kheish_debug_full_without_ticket == 1", ""), pages("kheish_debug_full_seconds > 1800", "")],
    },
    Row {
        id: "disk",
        signal: "State-root disk",
        path: ".storage.probes[] with name state_root: .space.used_percent, .space.inodes_used_percent",
        warning: "above 80 percent",
        page: "above 90 percent or inode exhaustion",
        component: "disk of the state root",
        next: "df -h and df -i of the state root; kheish-daemon runs prune",
        params: &[
            param("warning_percent", SPACE_USED_WARNING_PERCENT, "percent of space that warn"),
            param("page_percent", SPACE_USED_ERROR_PERCENT, "percent of space that page"),
            param("page_inode_percent", INODES_USED_ERROR_PERCENT, "percent of inodes that page"),
        ],
        judge: judge::disk,
        alerts: &[
            warns("kheish_state_root_used_ratio > 0.8", ""),
            pages("kheish_state_root_used_ratio > 0.9 or kheish_state_root_inodes_used_ratio >= 0.95", ""),
        ],
    },
];

/// The table of docs/operators/slo.md.
pub fn slo_table() -> String {
    let mut text = String::from(
        "| row | signal | read from | warning | page | points at | next |\n|---|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let Row { id, signal, path, warning, page, component, next, .. } = row;
        let next = next.replace('|', "\\|");
        text.push_str(&format!("| `{id}` | {signal} | `{path}` | {warning} | {page} | {component} | `{next}` |\n"));
    }
    text.push_str("\n| row | number in the file | default | meaning |\n|---|---|---|---|\n");
    for row in ROWS {
        for param in row.params {
            text.push_str(&format!("| `{}` | `{}` | {} | {} |\n", row.id, param.key, param.default, param.what));
        }
    }
    text
}
