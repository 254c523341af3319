//! Every bound of the daemon, by name, with its reason.
//! Owns: numbers. Each one is repeated in docs/limits.md; tests/tidy.rs compares the two.
//! Never: reads configuration; a bound that an operator may change is a setting in `config.rs` whose
//! default and ceiling stand here.

// --- identifiers -----------------------------------------------------------------------------

/// A session id in bytes: long enough for `slack:T…:C…:thread` keys, short enough for a log line.
pub const SESSION_ID_BYTES_MAX: usize = 100;
/// An `Idempotency-Key` in bytes: what the widely used key formats need, with room.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

// --- core ------------------------------------------------------------------------------------

/// Commands waiting for the core: each HTTP connection and each fixed thread has at most one in flight.
/// A full mailbox answers 503 `core_busy` with `Retry-After`.
pub const CORE_MAILBOX_MAX: usize = 4_096;
/// Commands decided for one write and one fdatasync. Larger batches gain little (feasibility: the sync
/// dominates up to about this size) and delay the first reply of the batch.
pub const CORE_BATCH_COMMANDS_MAX: usize = 512;
/// Bytes of one batch; a batch also ends here, so that its write stays short.
pub const CORE_BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Sessions held at once. About 300 bytes each stay in memory.
pub const SESSIONS_MAX: usize = 1_000_000;
/// Runs waiting in one session; the next one is refused with 429 `session_queue_full`.
pub const SESSION_QUEUE_RUNS_MAX: u32 = 100_000;
/// Runs waiting in all sessions together; the next one is refused with 503 `run_queue_full`.
pub const QUEUED_RUNS_MAX: u64 = 4_000_000;
/// Age of a batch (write begun, sync not returned) at which `/readyz` fails.
pub const CORE_BATCH_STALL_MS: u64 = 2_000;

// --- control-plane requests -------------------------------------------------------------------

/// JSON body of a control-plane request: two raw assets of 12 MiB each would need base64 room.
pub const BODY_BYTES_MAX: usize = 24 * 1024 * 1024;
/// JSON body of a request that carries only a few fields.
pub const BODY_SMALL_BYTES_MAX: usize = 64 * 1024;
/// Text of one run input after parsing.
pub const INPUT_TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// List page size when the caller names none.
pub const PAGE_ITEMS_DEFAULT: usize = 50;
/// List page size; a larger `limit` is clamped to it.
pub const PAGE_ITEMS_MAX: usize = 100;
