//! Bounds of the broker's surroundings: the daemon's own actions, who names a secret, what else is redacted.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

use super::{BROKER_ACCOUNT_REPLY_MS_MAX, OAUTH_EXCHANGE_MS_MAX, SECRET_BYTES_MIN};

// --- own actions ------------------------------------------------------------------------------

/// Wait for the durable record of an action that the daemon takes by itself; then it is not taken.
pub const OWN_ACTION_RECORD_MS_MAX: u64 = 5_000;
const _: () = assert!(
    OAUTH_EXCHANGE_MS_MAX + 2 * OWN_ACTION_RECORD_MS_MAX < BROKER_ACCOUNT_REPLY_MS_MAX,
    "who waits for a token outlasts its exchange with both records"
);

// --- redaction --------------------------------------------------------------------------------

/// Texts of `KHEISH_DEBUG_REDACT_TOKENS` and its file; more are refused at start. Each text that is written is searched for
/// all of them in one pass.
pub const REDACT_TOKENS_MAX: usize = 4_096;
/// Bytes of one such text.
pub const REDACT_TOKEN_BYTES_MAX: usize = 4_096;
/// Bytes of the file that `KHEISH_DEBUG_REDACT_TOKENS_FILE` names; a longer one is refused.
pub const REDACT_FILE_BYTES_MAX: u64 = 1024 * 1024;
const _: () = assert!(SECRET_BYTES_MIN < REDACT_TOKEN_BYTES_MAX, "there are lengths that can be redacted");
