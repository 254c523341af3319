//! Bounds of model routes beside those of one call.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- routes ----------------------------------------------------------------------------------

/// Pause between two looks at the routes file on disk: how late a drift shows.
pub const ROUTES_WATCH_INTERVAL_MS: u64 = 2_000;
/// `max_concurrency` of a route. There are fewer engines, so a higher one would never be met.
pub const ROUTE_CONCURRENCY_MAX: usize = 1_024;
/// Names in `anthropic_beta_headers`; more would not fit the header lines that gateways take.
pub const ANTHROPIC_BETAS_MAX: usize = 16;
