//! Wall-clock time as an argument.
//! Owns: the one place that reads the system clock for record timestamps.
//! Never: is called from `core/`; the core is handed `now_ms`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Source of Unix time in milliseconds. Tests drive a fake one.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> u64;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A host clock before 1970 is reported as 0 rather than refused: timestamps order nothing here,
        // sequence numbers do.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}
