//! Bounds of hooks.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

use super::RUNTIME_SETTINGS_BYTES_MAX;

// --- hooks -----------------------------------------------------------------------------------

/// Hooks of all events together. A gate calls its hooks one after the other.
pub const HOOKS_MAX: usize = 64;
/// All definitions as JSON; a larger document is refused.
pub const HOOKS_DOCUMENT_BYTES_MAX: usize = 128 * 1024;
const _: () = assert!(2 * HOOKS_DOCUMENT_BYTES_MAX < RUNTIME_SETTINGS_BYTES_MAX, "prompts and rules have room beside");
/// Bytes of a hook's name: it stands in records, subjects and targets.
pub const HOOK_NAME_BYTES_MAX: usize = 64;
/// Bytes of a matcher.
pub const HOOK_MATCHER_BYTES_MAX: usize = 256;
/// Bytes of a command.
pub const HOOK_COMMAND_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a URL.
pub const HOOK_URL_BYTES_MAX: usize = 2_048;
/// Time of one call with all its attempts: a run may wait for it.
pub const HOOK_TIMEOUT_MS_MAX: u64 = 30_000;
/// The same where the definition says nothing.
pub const HOOK_TIMEOUT_MS_DEFAULT: u64 = 5_000;
/// Further attempts after a failed one.
pub const HOOK_RETRIES_MAX: u32 = 3;
/// Pause before the first further attempt; each next one is twice as long.
pub const HOOK_RETRY_MS: u64 = 50;
/// Random part of a pause, so that many daemons do not return at once.
pub const HOOK_RETRY_JITTER_MS: u64 = 25;
/// Connect with look-up and TLS, within the call's time.
pub const HOOK_CONNECT_MS: u64 = 5_000;
/// Answer of a hook, either stream of a command; a longer one is a failure.
pub const HOOK_ANSWER_BYTES_MAX: usize = 128 * 1024;
/// What a hook is told about an event; a longer payload is left out and the invocation says so.
pub const HOOK_PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Text of an error in a record.
pub const HOOK_ERROR_BYTES_MAX: usize = 512;
/// Words that a blocking hook gives; the rest is cut.
pub const HOOK_REASON_BYTES_MAX: usize = 2_048;
/// Texts that a hook adds to a tool's result, each as long as a reason.
pub const HOOK_CONTEXTS_MAX: usize = 8;
/// Answers that `stop` hooks send back to the model in one run; then the run fails.
pub const HOOK_STOP_BLOCKS_MAX: u32 = 3;
/// Wait for the call in hand when the daemon stops.
pub const HOOK_DRAIN_MS: u64 = 5_000;
/// How often the hooks file and the addresses of HTTP hooks are looked at.
pub const HOOK_LOOK_MS: u64 = 30_000;
/// Dead letters that are kept, about a KiB each.
pub const HOOK_DEAD_LETTERS_MAX: usize = 1_000;
/// Records that the `hooks` thread passes over before it notes how far it has come: what a restart reads again.
pub const HOOK_ADVANCE_RECORDS: u64 = 4_096;
/// Bytes of records that the `hooks` thread reads at once.
pub const HOOK_READ_BYTES: usize = 1024 * 1024;
/// Pause of the `hooks` thread when the journal takes or gives nothing.
pub const HOOK_PAUSE_MS: u64 = 1_000;
/// All look-ups of host names for one view of the hooks; a host that is not known by then is shown as such.
pub const HOOK_RESOLVE_MS_MAX: u64 = 3_000;
