//! Bounds of model routes beside those of one call.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- routes ----------------------------------------------------------------------------------

/// Pause between two looks at the routes file on disk: how late a drift shows.
pub const ROUTES_WATCH_INTERVAL_MS: u64 = 2_000;
