//! Bounds of outbound connections, providers and the scripted provider.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- net, providers and the scripted provider ---------------------------------------------------

/// Threads that look up host names. A look-up that hangs keeps its thread until the system's own resolver
/// gives up, so this is also the number of look-ups that can hang at once.
pub const NET_RESOLVER_THREADS: usize = 4;
/// Look-ups waiting for a resolver thread: one an engine worker and a few tools. The next one is refused.
pub const NET_RESOLVER_QUEUE_MAX: usize = 64;
/// Wait for idle resolver threads when the client is dropped; a hanging look-up is left behind.
pub const NET_RESOLVER_STOP_MS: u64 = 1_000;
/// Addresses tried of one host: as many as the HTTP client carries.
pub const NET_ADDRESSES_MAX: usize = 16;
/// Response head in bytes; vendors send 1 to 3 KiB.
pub const NET_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Read buffer of one outbound connection; a head must fit with room for the body bytes behind it.
pub const NET_INPUT_BUFFER_BYTES: usize = 64 * 1024;
/// Write buffer of one outbound connection; the request's longest header line must fit.
pub const NET_OUTPUT_BUFFER_BYTES: usize = 64 * 1024;
const _: () = assert!(NET_INPUT_BUFFER_BYTES > NET_HEAD_BYTES_MAX, "an over-long head is seen as such");
/// Longest credential sent in a header: OAuth access tokens reach some KiB.
pub const NET_CREDENTIAL_BYTES_MAX: usize = 16 * 1024;
const _: () = assert!(NET_OUTPUT_BUFFER_BYTES >= 2 * NET_CREDENTIAL_BYTES_MAX, "the request head and a credential");
/// A file of CA certificates; the public set is about 250 KiB.
pub const CA_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Base URL text; longer ones are refused by some proxies.
pub const URL_BYTES_MAX: usize = 2_048;
/// Look-up, and TCP connect with TLS handshake, each, when a route names none.
pub const PROVIDER_CONNECT_MS_DEFAULT: u64 = 10_000;
/// Wait for a provider's response head when a route names none: models that think first answer late.
pub const PROVIDER_FIRST_BYTE_MS_DEFAULT: u64 = 120_000;
/// Silence within a stream when a route names none; keep-alive comments end it.
pub const PROVIDER_IDLE_MS_DEFAULT: u64 = 90_000;
/// One whole model call when a route names none: the vendors' own clients wait as long.
pub const PROVIDER_TOTAL_MS_DEFAULT: u64 = 600_000;
/// Any timeout of a route; longer calls would outlive every lease.
pub const PROVIDER_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Shortest timeout of a route; below it every call fails.
pub const PROVIDER_TIMEOUT_MS_MIN: u64 = 10;
/// Request body of one model call: the text of a long conversation.
pub const PROVIDER_REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of one model stream, all frames together.
pub const PROVIDER_STREAM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// One SSE frame of a model stream: a whole response is repeated in the last frame.
pub const PROVIDER_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Silence after an answer whose end was announced and whose figures were not: then it is taken without them.
pub const PROVIDER_SETTLED_IDLE_MS: u64 = 5_000;
/// Plain text kept of what a server puts between events: a failure reported as JSON.
pub const SSE_STRAY_BYTES_MAX: usize = 64 * 1024;
/// Output items of one answer: text, reasoning and tool calls.
pub const PROVIDER_ITEMS_MAX: usize = 1_024;
/// Body of an error answer that is read; the rest is not worth the memory.
pub const PROVIDER_ERROR_BODY_BYTES_MAX: usize = 64 * 1024;
/// Text kept of a provider's error type, code or parameter name.
pub const PROVIDER_ERROR_TOKEN_BYTES_MAX: usize = 64;
/// Answer tokens asked of an Anthropic model when the run names none, up to what the model can: the field is required.
pub const ANTHROPIC_OUTPUT_TOKENS_DEFAULT: u32 = 32_000;
/// Smallest thinking budget that Anthropic takes.
pub const ANTHROPIC_THINKING_TOKENS_MIN: u32 = 1_024;
/// Name of a tool or schema in a request: what every vendor takes.
pub const PROVIDER_NAME_BYTES_MAX: usize = 64;
/// JSON Schema that a submission asks the answer to follow.
pub const OUTPUT_SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Attempts of one model turn, the first included.
pub const PROVIDER_ATTEMPTS_MAX: u32 = 4;
/// Attempts after an answer that cannot be understood: a second one tells a glitch from a wrong server.
pub const PROVIDER_MALFORMED_ATTEMPTS_MAX: u32 = 2;
/// Wait before the second attempt; doubled for each further one.
pub const PROVIDER_RETRY_BASE_MS: u64 = 500;
/// Longest wait that we choose ourselves.
pub const PROVIDER_RETRY_MS_MAX: u64 = 8_000;
/// Longest wait that a provider may ask for; above it the run fails with that hint instead of hanging.
pub const PROVIDER_RETRY_HINT_MS_MAX: u64 = 120_000;
/// Pauses of one answer after which it is taken as cut: a vendor's pause is the end of a loop of its own, of which one answer
/// has few.
pub const PROVIDER_PAUSES_MAX: u32 = 8;
/// The routes file in bytes.
pub const ROUTES_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Routes in one file.
pub const ROUTES_MAX: usize = 256;
/// A route id in bytes.
pub const ROUTE_ID_BYTES_MAX: usize = 64;
/// A model name in bytes.
pub const MODEL_BYTES_MAX: usize = 256;
/// Frame of the control plane's event streams, read by the command line.
pub const CLIENT_FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Reply of the control plane, read by the command line: a full page of full runs.
pub const CLIENT_REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Connect timeout of the command line.
pub const CLIENT_CONNECT_MS: u64 = 10_000;
/// Wait of the command line for a reply or the next bytes of a stream; heartbeats come far more often.
pub const CLIENT_IDLE_MS: u64 = 60_000;
/// The scripted provider's script in bytes.
pub const SCRIPT_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Turns of one script.
pub const SCRIPT_TURNS_MAX: usize = 10_000;
/// Threads of the scripted provider: one a connection being answered. More than the engine has workers.
pub const SCRIPTED_WORKERS: usize = 64;
/// Connections waiting for a thread of the scripted provider; the next one is closed unanswered.
pub const SCRIPTED_BACKLOG_MAX: usize = 1_024;
/// Request head read by the scripted provider.
pub const SCRIPTED_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header lines read by the scripted provider.
pub const SCRIPTED_HEADERS_MAX: usize = 64;
/// Wait for the next request on a kept connection, and for each read within one.
pub const SCRIPTED_IDLE_MS: u64 = 15_000;
/// Wait for a client that does not read its answer.
pub const SCRIPTED_WRITE_MS: u64 = 60_000;
/// Any delay in a script.
pub const SCRIPTED_DELAY_MS_MAX: u64 = 600_000;
/// Padding of a scripted stream: as much as a client reads of one stream.
pub const SCRIPTED_PADDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests kept for `/_scripted/requests`; the oldest is forgotten.
pub const SCRIPTED_REQUESTS_KEPT_MAX: usize = 1_000;
/// Bytes of request bodies kept for `/_scripted/requests`; the oldest are forgotten.
pub const SCRIPTED_REQUESTS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Body kept of one request; a longer one is listed without it.
pub const SCRIPTED_REQUEST_BODY_KEPT_MAX: usize = 256 * 1024;
/// Pause of accepting when descriptors run out.
pub const SCRIPTED_ACCEPT_PAUSE_MS: u64 = 50;
