//! Bounds of the command line.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- cli ----------------------------------------------------------------------------------------

/// How much longer than the daemon the command line waits where the daemon waits for something.
pub const CLI_WAIT_MARGIN_MS: u64 = 15_000;
/// Pages of a list that a command reads to find one thing in it.
pub const CLI_LIST_PAGES_MAX: usize = 1_000;
/// One request of the command line, answer included; streams are bounded by their silence instead.
pub const CLI_REQUEST_TIMEOUT_MS: u64 = 60_000;
/// Silence on a stream before the command line reconnects: three missed heartbeats of 10 s.
pub const CLI_STREAM_SILENCE_MS_MAX: u64 = 30_000;
/// Failed attempts in a row before a stream gives up; with the back-off below about 40 s.
pub const CLI_RECONNECT_ATTEMPTS_MAX: u32 = 8;
/// Pause before the first reconnection; it doubles with each further one in a row.
pub const CLI_RECONNECT_BACKOFF_MS_MIN: u64 = 250;
/// Longest pause between two reconnections.
pub const CLI_RECONNECT_BACKOFF_MS_MAX: u64 = 8_000;
/// Shortest pause between two polls of a waited run, whatever the caller asks for.
pub const CLI_POLL_INTERVAL_MS_MIN: u64 = 50;
/// How long a waiting command goes on showing a run's text after the run has ended, while frames arrive.
pub const CLI_LIVE_TAIL_MS_MAX: u64 = 2_000;
/// A token read from a file: bearer tokens are tens of bytes; a larger file is the wrong file.
pub const CLI_TOKEN_FILE_BYTES_MAX: usize = 8 * 1024;
/// A secret's value from any source: API keys and small JSON documents.
pub const CLI_SECRET_BYTES_MAX: usize = 64 * 1024;
/// A metadata document given on the command line or by file.
pub const CLI_METADATA_BYTES_MAX: usize = 64 * 1024;
/// A public key file: as many PEM blocks as the audit key has had, with room for comments.
pub const CLI_PUBLIC_KEY_BYTES_MAX: usize = 64 * 1024;
/// A file given to `audit verify --checkpoint`; a checkpoint has about 350 bytes.
pub const CLI_CHECKPOINT_BYTES_MAX: u64 = 16 * 1024;
/// A foreign error answer (a proxy's page) quoted in a message.
pub const CLI_ERROR_QUOTE_CHARS_MAX: usize = 400;
/// One cell of a table on a terminal; longer text is cut with a mark.
pub const CLI_TABLE_CELL_CHARS_MAX: usize = 48;
