//! Bounds of the talk with the service manager.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- service manager -------------------------------------------------------------------------

/// Descriptors that may be passed at start; more end the start. The daemon listens on one and refuses several by name.
pub const PASSED_DESCRIPTORS_MAX: usize = 64;
/// Bytes of the line that `systemctl status` shows; a longer one is cut.
pub const NOTICE_STATUS_BYTES_MAX: usize = 512;
/// Time for which the core or the listener may be at one thing before the watchdog is no longer fed; a third of its
/// interval where that is shorter. A sync that takes so long fails readiness long before.
pub const WATCHDOG_STALL_MS: u64 = 10_000;
/// Shortest pause between two signs of life, whatever the service manager asks for.
pub const WATCHDOG_INTERVAL_MS_MIN: u64 = 10;
/// Time that a stop may take beyond the drain times before the service manager may end it.
pub const STOP_MARGIN_MS: u64 = 30_000;
/// Bytes of a credential's name: what a file name holds.
pub const CREDENTIAL_NAME_BYTES_MAX: usize = 255;
