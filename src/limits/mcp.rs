//! Bounds of the MCP client.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- mcp -------------------------------------------------------------------------------------

/// MCP servers of one daemon. Each has a thread, and an HTTP one a second for the server's own messages.
pub const MCP_SERVERS_MAX: usize = 32;
/// The configuration file of MCP servers; a longer one is refused at start.
pub const MCP_CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// A server's name: it is a part of the names of its tools.
pub const MCP_SERVER_NAME_BYTES_MAX: usize = 32;
/// Arguments, variables, headers, lists of tools and alike of one server's configuration.
pub const MCP_CONFIG_ENTRIES_MAX: usize = 256;
/// One text of a server's configuration.
pub const MCP_CONFIG_TEXT_BYTES_MAX: usize = 8 * 1024;
/// Time that a server has to be connected when its configuration says nothing.
pub const MCP_STARTUP_TIMEOUT_S_DEFAULT: u64 = 10;
/// Time of one call of a tool when its server's configuration says nothing.
pub const MCP_TOOL_TIMEOUT_S_DEFAULT: u64 = 120;
/// Longest of both that a configuration can ask for.
pub const MCP_TIMEOUT_S_MAX: u64 = 3_600;
/// One message of a server, as a line, a JSON body or an event; a longer one ends its connection.
pub const MCP_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// One message to a server: arguments of a call with what is around them.
pub const MCP_REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Body of an answer that is no success, of which the rest is not read.
pub const MCP_ERROR_BODY_BYTES_MAX: usize = 64 * 1024;
/// Text of a server's error that a model or an operator is shown; the rest is cut.
pub const MCP_ERROR_TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of an event stream that answers one request, all events together.
pub const MCP_STREAM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Lines, events or notifications that a server may send while one answer is waited for, or in one second without one; with
/// more of them its connection is ended.
pub const MCP_MESSAGES_MAX: u32 = 10_000;
/// Pages of one list of a server; a longer list is cut and the server's state says so.
pub const MCP_PAGES_MAX: usize = 64;
/// Tools of one server; the rest is left out and the server's state says so.
pub const MCP_TOOLS_MAX: usize = 256;
/// Tools that one run is offered, of all servers; the rest is left out.
pub const MCP_TOOLS_OFFERED_MAX: usize = 512;
/// Schema of one tool; a tool with a longer one is left out.
pub const MCP_SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Levels of a schema; a tool with a deeper one is left out.
pub const MCP_SCHEMA_DEPTH_MAX: usize = 32;
/// Description of a tool as a model is shown it; the rest is cut.
pub const MCP_DESCRIPTION_BYTES_MAX: usize = 2_048;
/// Description of a field of a schema; the rest is cut.
pub const MCP_FIELD_DESCRIPTION_BYTES_MAX: usize = 1_024;
/// Instructions of a server; the rest is cut.
pub const MCP_INSTRUCTIONS_BYTES_MAX: usize = 4_096;
/// Name of a tool, a resource or a prompt as a server spells it; one with a longer name is left out.
pub const MCP_NAME_BYTES_MAX: usize = 1_024;
/// Pieces of content of one result; the rest is left out and the result says so.
pub const MCP_CONTENT_ITEMS_MAX: usize = 64;
/// Bytes of one text of a result; the rest is cut.
pub const MCP_CONTENT_TEXT_BYTES_MAX: usize = 32_768;
/// Bytes of one piece of base64 of a result; the rest is cut.
pub const MCP_CONTENT_BINARY_BYTES_MAX: usize = 4_096;
/// Bytes of one text inside structured content.
pub const MCP_JSON_TEXT_BYTES_MAX: usize = 16_384;
/// Bytes of one key inside structured content; an entry with a longer one is left out.
pub const MCP_JSON_KEY_BYTES_MAX: usize = 512;
/// Entries of an array or an object inside structured content.
pub const MCP_JSON_ENTRIES_MAX: usize = 128;
/// Levels of structured content.
pub const MCP_JSON_DEPTH_MAX: usize = 8;
/// Bytes of all content of one result.
pub const MCP_RESULT_BYTES_MAX: usize = 160 * 1024;
/// Entries of a list of resources or prompts that a model is shown.
pub const MCP_LIST_ENTRIES_MAX: usize = 64;
/// Calls under way at one server; the next one is refused.
pub const MCP_CALLS_MAX: usize = 64;
/// Wait before a server is connected again after a failure; it doubles with each failure in a row.
pub const MCP_RESTART_MS_MIN: u64 = 1_000;
/// Longest of these waits.
pub const MCP_RESTART_MS_MAX: u64 = 60_000;
/// Connection that has to last before the waits begin anew: a server that ends whenever it was connected is not hurried.
pub const MCP_STEADY_MS: u64 = 30_000;
/// Wait between the end of a server's input, the polite signal and the last one.
pub const MCP_STOP_STEP_MS: u64 = 2_000;
/// Step of the time below after which a caller that was cancelled is let go.
pub const MCP_WRITE_STEP_MS: u64 = 100;
/// Longest time that a server may leave its input unread while something is written to it.
pub const MCP_WRITE_MS_MAX: u64 = 5_000;
/// Look-up, and connect with TLS, of one request to a server; each.
pub const MCP_CONNECT_MS: u64 = 10_000;
/// Wait before a stream that ended is taken up again when the server names none.
pub const MCP_RETRY_MS_DEFAULT: u64 = 1_000;
/// Longest wait that a server can name for it.
pub const MCP_RETRY_MS_MAX: u64 = 30_000;
/// Tries in a row to take up a stream that ended before its answer.
pub const MCP_RESUMES_MAX: u32 = 3;
/// Redirects of one request, all within the server's own origin.
pub const MCP_REDIRECTS_MAX: u32 = 3;
/// What of such a line is looked at for secrets before it is cut.
pub const MCP_STDERR_SEEN_BYTES_MAX: usize = 16 * 1024;
/// One line of a server's standard error in the log; the rest is cut.
pub const MCP_STDERR_LINE_BYTES_MAX: usize = 512;
/// Lines of standard error in the log within one second; more of them are counted only.
pub const MCP_STDERR_LINES_MAX: u32 = 20;
/// Session id of a server; a longer one is a mistake of it.
pub const MCP_SESSION_ID_BYTES_MAX: usize = 1_024;
/// Fields of one form that a server has people asked.
pub const MCP_FORM_FIELDS_MAX: usize = 16;
/// Choices of one of its fields.
pub const MCP_FORM_OPTIONS_MAX: usize = 64;
/// A server's message to people; the rest is cut.
pub const MCP_FORM_MESSAGE_BYTES_MAX: usize = 2_048;
/// A field's title, description or choice; titles and descriptions are cut.
pub const MCP_FORM_TEXT_BYTES_MAX: usize = 512;
/// An address that a server wants people to open.
pub const MCP_FORM_URL_BYTES_MAX: usize = 2_048;
/// Questions of servers that are open at once; the next one is answered with "cancel".
pub const MCP_ASKS_OPEN_MAX: usize = 16;
/// Questions that one call may have people asked.
pub const MCP_ASKS_PER_CALL_MAX: u32 = 8;
/// Time that people have for one; then the server is told that nobody has answered.
pub const MCP_ASK_MS_MAX: u64 = 3_600_000;
/// Threads for calls that people may be asked during; where all are in use, a call goes on without asking anybody.
pub const MCP_CALL_THREADS_MAX: usize = 32;
const _: () = assert!(MCP_ASKS_OPEN_MAX < MCP_CALL_THREADS_MAX);
/// Requests of a server within one second; with more of them its connection is ended.
pub const MCP_REQUESTS_MAX: u32 = 256;
/// Least time between two looks at the lists of a server that says again and again that they have changed.
pub const MCP_RELIST_MS: u64 = 1_000;
/// One scope that a server asks for in a challenge; longer ones are passed over.
pub const MCP_SCOPE_BYTES_MAX: usize = 128;
/// Life of the lease that stands behind a connection; a new one is taken before it ends.
pub const MCP_LEASE_MS: u64 = 300_000;
const _: () = assert!(MCP_LEASE_MS <= super::LEASE_TTL_MS_MAX);
/// Look at a connection that nothing happens on: leases are renewed and stops noticed without it too.
pub const MCP_TICK_MS: u64 = 1_000;
/// Wait for a server that a run or a call needs and that is not connected yet, beyond its own start-up time.
pub const MCP_READY_GRACE_MS: u64 = 1_000;
/// Frame between the daemon and the process around a server: command, arguments and variables.
pub const MCP_WORKER_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Rounds in which a server may ask for more before it answers; the next one fails the call.
pub const MCP_INPUT_ROUNDS_MAX: u32 = 10;
/// Requests of a server in one of these rounds.
pub const MCP_INPUT_REQUESTS_MAX: usize = 8;
/// First wait before a request is repeated that a server only puts off; it doubles with each round.
pub const MCP_INPUT_WAIT_MS: u64 = 50;
/// Longest call of a tool by an operator over the API, which holds one of the threads that serve requests.
pub const MCP_OPERATOR_CALL_MS_MAX: u64 = 25_000;
/// Head of a browser's request to the command line during a login.
pub const MCP_CALLBACK_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Wait for one such head.
pub const MCP_CALLBACK_HEAD_MS_MAX: u64 = 5_000;
/// Wait for the browser when nothing is said.
pub const MCP_LOGIN_S_DEFAULT: u64 = 300;
/// Longest wait for it.
pub const MCP_LOGIN_S_MAX: u64 = 3_600;
/// One request to an authorization server during a login.
pub const MCP_DISCOVERY_MS_MAX: u64 = 15_000;
/// Answer of an authorization server during a login.
pub const MCP_DISCOVERY_BYTES_MAX: u64 = 256 * 1024;
