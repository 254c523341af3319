//! Bounds of model routes beside those of one call.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- routes ----------------------------------------------------------------------------------

/// Pause between two looks at the routes file on disk: how late a drift shows.
pub const ROUTES_WATCH_INTERVAL_MS: u64 = 2_000;
/// `context_window_tokens` of a route, at least: a smaller window does not hold tools and an answer.
pub const CONTEXT_WINDOW_TOKENS_MIN: u64 = 4_000;
/// The same, at most.
pub const CONTEXT_WINDOW_TOKENS_MAX: u64 = 100_000_000;
/// `max_concurrency` of a route. There are fewer engines, so a higher one would never be met.
pub const ROUTE_CONCURRENCY_MAX: usize = 1_024;
/// Names in `anthropic_beta_headers`; more would not fit the header lines that gateways take.
pub const ANTHROPIC_BETAS_MAX: usize = 16;

// --- contracts -------------------------------------------------------------------------------

/// Depth of a schema, references included, to which a value is checked; a deeper one is refused.
pub const CONTRACT_DEPTH_MAX: usize = 64;
/// Pairs of a value and a schema that one check looks at; choices within choices multiply. More is refused.
pub const CONTRACT_STEPS_MAX: usize = 200_000;
/// Issues of a contract that are told at once; the rest is left out.
pub const CONTRACT_ISSUES_MAX: usize = 32;
/// Bytes of the place and of the reason of a mismatch, each; longer ones are cut.
pub const CONTRACT_MESSAGE_BYTES_MAX: usize = 512;
/// Times that an answer is sent back to the model because it does not fit its schema, at most.
pub const OUTPUT_REPAIRS_MAX: u32 = 5;
/// The same for a session's contract that names no number.
pub const CONTRACT_REPAIRS_DEFAULT: u32 = 3;
/// The same for a submission that names no number.
pub const OUTPUT_REPAIRS_DEFAULT: u32 = 1;

// --- files of input --------------------------------------------------------------------------

/// Pictures and documents of one submission together: as base64 they fit a request body, and beside a conversation a
/// request to a provider.
pub const INPUT_FILE_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Pictures and documents of one submission; vendors take about as many.
pub const INPUT_FILES_MAX: usize = 16;
/// Files of earlier runs of a session that are sent again, newest first; the rest is named only.
pub const CONTEXT_FILES_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of text that a picture, or a page's worth of a document, weighs about as much as.
pub const CONTEXT_PICTURE_BYTES: usize = 6 * 1024;
