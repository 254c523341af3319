//! Bounds of status, its alarms and the live view; the thresholds that the operators' table starts with.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- status ----------------------------------------------------------------------------------

/// Time for which the default route may be in a bad state before somebody is told.
pub const ROUTE_STATE_ALARM_MS: u64 = 5 * 60 * 1_000;

/// Age of the oldest queued run from which status lists `queued_run_lag`; `KHEISH_QUEUED_RUN_LAG_WARNING_THRESHOLD_MS`
/// is another one. A held daemon lists nothing.
pub const QUEUED_RUN_LAG_WARNING_MS: u64 = 30 * 60 * 1_000;
/// Age from which that lag makes the daemon unhealthy.
pub const QUEUED_RUN_LAG_PAGE_MS: u64 = 2 * 60 * 60 * 1_000;
/// Silence of a run that has not ended from which status lists `stale_non_terminal_runs`;
/// `KHEISH_STALE_NON_TERMINAL_RUN_THRESHOLD_MS` is another one.
pub const STALE_RUN_WARNING_MS: u64 = 30 * 60 * 1_000;
/// Silence of a running run at which `slo` warns.
pub const STALE_ACTIVE_RUN_WARNING_MS: u64 = 2 * 60 * 60 * 1_000;
/// Silence of a running run at which it pages and the daemon is unhealthy.
pub const STALE_ACTIVE_RUN_PAGE_MS: u64 = 6 * 60 * 60 * 1_000;
/// Wait for an approval or an answer from which status lists it and `slo` warns.
pub const PENDING_WAIT_WARNING_MS: u64 = 4 * 60 * 60 * 1_000;
/// Wait for an approval or an answer at which it pages and the daemon is unhealthy.
pub const PENDING_WAIT_PAGE_MS: u64 = 24 * 60 * 60 * 1_000;
/// Idlest runs that status names.
pub const IDLEST_RUNS_SHOWN: usize = 5;
/// Minutes of last records that the published view tells apart; older ones count as one. Three days.
pub const IDLE_MINUTES_KEPT_MAX: usize = 3 * 24 * 60;
/// Minutes for which a counter remembers when it was raised: the longest window of an alarm is 30 minutes.
pub const RECENT_MINUTES_KEPT: u64 = 64;
/// Age of the oldest job at which the delivery worker counts as stale.
pub const DELIVERY_WORKER_STALE_MS: u64 = 120_000;
/// Lag of a due schedule at which the daemon is unhealthy.
pub const SCHEDULE_LAG_WARNING_MS: u64 = 120_000;
/// Series of `GET /metrics`, whatever the load: a scraper pays for each, every few seconds.
pub const METRICS_SERIES_MAX: usize = 300;

// --- slo and top -----------------------------------------------------------------------------

/// Samples that `slo` takes at most: more are a monitoring system's work.
pub const CLI_SLO_SAMPLES_MAX: u64 = 1_000;
/// Pause between two samples of `slo`: two of them lie well within the minute of the readiness row.
pub const CLI_SLO_INTERVAL_MS: u64 = 5_000;
/// Bytes of a file of thresholds.
pub const CLI_THRESHOLDS_BYTES_MAX: usize = 64 * 1024;
/// Pause between two looks of `top`.
pub const CLI_TOP_INTERVAL_MS: u64 = 1_000;
/// Smallest pause, and how soon `top` notices a resized window.
pub const CLI_TOP_INTERVAL_MS_MIN: u64 = 200;
/// Time for one look of `top`: a key is answered no later.
pub const CLI_TOP_REQUEST_MS: u64 = 1_000;
