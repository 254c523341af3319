//! Every bound of the daemon, by name, with its reason.
//! Owns: numbers. Each one is repeated in docs/limits.md; tests/tidy.rs compares the two.
//! Never: reads configuration; a bound that an operator may change is a setting in `config.rs` whose
//! default and ceiling stand here.

mod agents;
mod backup;
mod cli;
mod connectors;
mod creds;
mod delivery;
mod doctor;
mod egress;
mod engine;
mod hooks;
mod http;
mod mcp;
mod net;
mod routes;
mod slo;
mod sse;
mod supervisor;

pub use agents::*;
pub use backup::*;
pub use cli::*;
pub use connectors::*;
pub use creds::*;
pub use delivery::*;
pub use doctor::*;
pub use egress::*;
pub use engine::*;
pub use hooks::*;
pub use http::*;
pub use mcp::*;
pub use net::*;
pub use routes::*;
pub use slo::*;
pub use sse::*;
pub use supervisor::*;

// --- identifiers -----------------------------------------------------------------------------

/// A session id in bytes: long enough for `slack:T…:C…:thread` keys, short enough for a log line.
pub const SESSION_ID_BYTES_MAX: usize = 100;
/// An `Idempotency-Key` in bytes: what the widely used key formats need, with room.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// A caller as a journal line names it, in bytes of JSON: role, token fingerprint, address and request id at their
/// longest.
pub const ACTOR_JSON_BYTES_MAX: usize = 256;

/// External actions of one run, or of the daemon itself, without a recorded outcome. When one more begins, the oldest is
/// recorded as having an unknown outcome.
pub const ACTIONS_OPEN_MAX: usize = 256;
/// What a recorded act outside the journal was done to, in bytes; the rest of a longer name is left out.
pub const CONTROL_TARGET_BYTES_MAX: usize = 256;
/// Wait for the journal to take the intent of an act outside of it; then the audit file is tried.
pub const CONTROL_JOURNAL_WAIT_MS: u64 = 1_000;
/// Wait for the audit file to take it; then the act is refused with 503 `audit_unavailable`.
pub const CONTROL_FILE_WAIT_MS: u64 = 800;
const _: () = assert!(CONTROL_JOURNAL_WAIT_MS + CONTROL_FILE_WAIT_MS < 2_000, "a caller is refused within two seconds");

// --- core ------------------------------------------------------------------------------------

/// Commands waiting for the core: each HTTP connection and each fixed thread has at most one in flight.
/// A full mailbox answers 503 `core_busy` with `Retry-After`.
pub const CORE_MAILBOX_MAX: usize = 4_096;
/// Commands decided for one write and one fdatasync. Larger batches gain little (feasibility: the sync
/// dominates up to about this size) and delay the first reply of the batch.
pub const CORE_BATCH_COMMANDS_MAX: usize = 512;
/// Bytes of one batch; a batch also ends here, so that its write stays short.
pub const CORE_BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Replies of a committed batch that the core always gives out by itself: waking the answerer for fewer costs more than
/// it saves.
pub const CORE_ANSWERS_INLINE_MAX: usize = 8;
/// Queued runs started, or active runs resumed, in one batch after a hold or a restart: other commands wait
/// for at most one such batch.
pub const CORE_PUMP_RUNS_MAX: usize = 256;
/// Longest sleep of the core when nothing arrives; also the step of its upkeep (timed seals, published ages).
pub const CORE_TICK_MS: u64 = 1_000;
/// Records after which a snapshot is written in the background.
pub const SNAPSHOT_INTERVAL_RECORDS: u64 = 250_000;
/// Sessions held at once. About 300 bytes each stay in memory.
pub const SESSIONS_MAX: usize = 1_000_000;
/// Runs waiting in one session; the next one is refused with 429 `session_queue_full`. Ending a session
/// cancels them all in one batch, which must fit `CORE_BATCH_BYTES_MAX`.
pub const SESSION_QUEUE_RUNS_MAX: u32 = 10_000;
/// Runs waiting in all sessions together; the next one is refused with 503 `run_queue_full`.
pub const QUEUED_RUNS_MAX: u64 = 4_000_000;
/// Wait of a request handler for the core; then it answers 503 `core_unavailable`. Longer than any sync of a healthy
/// disk, short enough that a hanging one does not hold all workers for good.
pub const CORE_REPLY_MS_MAX: u64 = 15_000;
/// Age of a batch (write begun, sync not returned) at which `/readyz` fails.
pub const CORE_BATCH_STALL_MS: u64 = 2_000;

// --- control-plane requests -------------------------------------------------------------------

/// JSON body of a control-plane request: two raw assets of 12 MiB each would need base64 room.
pub const BODY_BYTES_MAX: usize = 24 * 1024 * 1024;
/// JSON body of a request that carries only a few fields.
pub const BODY_SMALL_BYTES_MAX: usize = 64 * 1024;
/// Text of one run input after parsing.
pub const INPUT_TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A short text of a caller: source, actor, route, model.
pub const LABEL_BYTES_MAX: usize = 256;
/// Words of an operator that are kept with a stop or a hold.
pub const REASON_BYTES_MAX: usize = 1_024;
/// A provider-side thread id.
pub const THREAD_ID_BYTES_MAX: usize = 256;
/// Records read to show one run; a run writes at most a few for each attempt at a model call.
pub const RUN_RECORDS_MAX: usize = 10_000;
/// Newest runs whose events one reply of a session's event list covers.
pub const SESSION_EVENT_RUNS_MAX: usize = 100;
/// Outputs and metadata in one list or event answer; it ends before the run that would pass this, and says so. One run is
/// shown whatever it weighs.
pub const LIST_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// List page size when the caller names none.
pub const PAGE_ITEMS_DEFAULT: usize = 50;
/// List page size; a larger `limit` is clamped to it.
pub const PAGE_ITEMS_MAX: usize = 100;

// --- state root and broker --------------------------------------------------------------------

/// Bytes read of `FORMAT` and `daemon.lock`: a few short lines; anything longer is not ours.
pub const STATE_ROOT_SMALL_FILE_BYTES_MAX: usize = 4 * 1024;
/// Write-probe latency from which a probe is a warning: a healthy disk syncs a few bytes in far less, and a
/// client's own deadline is near.
pub const WRITE_PROBE_WARNING_MS: u64 = 1_000;
/// Files removed by one sweep of probe leftovers; each crash leaves at most one.
pub const WRITE_PROBE_SWEEP_FILES_MAX: usize = 1_000;
/// Bytes read of a master-key file: 44 characters and blanks around them.
pub const MASTER_KEY_FILE_BYTES_MAX: usize = 1_024;
/// A slot id in bytes; it travels in paths, log lines and route files.
pub const SLOT_ID_BYTES_MAX: usize = 128;
/// Slots of one state root: some hundred routes, connectors and MCP servers with room.
pub const SLOTS_MAX: usize = 1_024;
/// Shortest secret. A shorter one is guessed quickly, and redacting it would riddle every text.
pub const SECRET_BYTES_MIN: usize = 8;
/// Longest secret: a generic slot may hold a sidecar's whole configuration document.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// Longest secret that goes into a request header; below every vendor's header limit.
pub const API_KEY_BYTES_MAX: usize = 4 * 1024;
/// Body of a slot's writing: the longest secret with every byte escaped.
pub const SECRET_BODY_BYTES_MAX: usize = 6 * SECRET_BYTES_MAX + 4 * 1024;
/// Organization or project text that goes into a request header.
pub const SLOT_LABEL_BYTES_MAX: usize = 255;
/// Decrypted auth store: all of it is rewritten at each change, so a change stays short.
pub const AUTH_STORE_PLAINTEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The auth store as a file: base64 of the largest plaintext and its envelope.
pub const AUTH_STORE_FILE_BYTES_MAX: usize = 6 * 1024 * 1024;
const _: () = assert!(AUTH_STORE_FILE_BYTES_MAX > (AUTH_STORE_PLAINTEXT_BYTES_MAX + 16).div_ceil(3) * 4 + 1_024);
const _: () = assert!(AUTH_STORE_PLAINTEXT_BYTES_MAX > 6 * SECRET_BYTES_MAX, "the longest secret fits when escaped");
/// Commands waiting for the broker: engine and HTTP workers have at most one in flight each. A full mailbox
/// is the typed error `Busy`.
pub const BROKER_MAILBOX_MAX: usize = 256;
/// Wait for the broker's answer; only a hanging disk under a store write takes this long.
pub const BROKER_REPLY_MS_MAX: u64 = 10_000;
/// Leases alive at once: those in use (one an engine worker) and those of crashed users until they expire.
pub const LEASES_MAX: usize = 65_536;
/// Shortest life of a lease: it must outlast the journal commit that names it.
pub const LEASE_TTL_MS_MIN: u64 = 1_000;
/// Longest life of a lease: a run that needs the slot for longer asks again.
pub const LEASE_TTL_MS_MAX: u64 = 600_000;
/// Life of a route lease when the caller has no better figure.
pub const LEASE_TTL_MS_DEFAULT: u64 = 60_000;
/// Subject or audience text of a lease: a kind and a session or route id.
pub const LEASE_TEXT_BYTES_MAX: usize = 256;
/// Overwritten and deleted secrets that are still redacted; the oldest is forgotten.
pub const REDACTION_RETIRED_MAX: usize = 256;
/// Slots of one connector lease: what one sidecar process is given.
pub const LEASE_SLOTS_MAX: usize = 32;
/// Name of an environment variable that a sidecar asks a secret for.
pub const LEASE_ENV_KEY_BYTES_MAX: usize = 128;
/// Age up to which a lease that has ended can still be looked at: an incident is reviewed within a day.
pub const LEASE_HISTORY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Ended leases that can still be looked at; the oldest is forgotten. About 600 bytes each stay in memory.
pub const LEASE_HISTORY_MAX: usize = 4_096;
/// Leases or subjects of one answer; a filter finds the others.
pub const LEASE_LIST_MAX: usize = 1_000;
/// Subjects whose revocation is remembered; the next one is refused until some are reinstated.
pub const REVOKED_SUBJECTS_MAX: usize = 16_384;
/// Words of an operator that are kept with a revocation.
pub const REVOCATION_REASON_BYTES_MAX: usize = 1_024;
/// Wait of an administrative command for room in the broker's mailbox: a revocation must get through a crowd.
pub const BROKER_ADMIT_MS_MAX: u64 = 2_000;
/// Wait of a handler for an account's access token while it is refreshed: longer than the exchange itself may take.
pub const BROKER_ACCOUNT_REPLY_MS_MAX: u64 = 45_000;
/// Tries of one model call to get its secret from a broker that is busy or silent; then the attempt fails as a broken
/// connection does and is tried again.
pub const BROKER_REDEEM_ATTEMPTS_MAX: u32 = 3;
/// Pause between two such tries.
pub const BROKER_REDEEM_PAUSE_MS: u64 = 200;
/// Size of `auth/broker.jsonl` from which it is rewritten without what no longer matters. One predecessor is kept.
pub const BROKER_LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Longest `auth/broker.jsonl` that is read: what was written while rewriting it failed is included.
pub const BROKER_LOG_READ_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Disk space held ready for revocations when the disk is full: about 1,000 of them. Leases are not recorded there.
pub const BROKER_LOG_RESERVE_BYTES: u64 = 256 * 1024;
/// Blocks of a file that may hold no data of it but the file system's notes on where that is.
pub const BROKER_LOG_SLACK_BYTES: u64 = 16 * 1024;
/// Step in which disk space is taken for `auth/broker.jsonl`.
pub const BROKER_LOG_STEP_BYTES: u64 = 256 * 1024;
/// Lease entries held back before they are written: one write for many, at the latest when the broker is idle.
pub const BROKER_LOG_BUFFER_BYTES_MAX: usize = 32 * 1024;
/// One line of `auth/broker.jsonl`: a connector's lease with all its slots.
pub const BROKER_LOG_LINE_BYTES_MAX: usize = 64 * 1024;
/// Slots of one import; they are written as one change of the store.
pub const SECRETS_IMPORT_MAX: usize = SLOTS_MAX;
/// Scopes of an MCP account.
pub const ACCOUNT_SCOPES_MAX: usize = 64;
/// A name, a URL or a scope of an MCP account.
pub const ACCOUNT_TEXT_BYTES_MAX: usize = 2 * 1024;
/// Rest of an access token's life at which it is refreshed.
pub const OAUTH_REFRESH_AHEAD_MS: u64 = 5 * 60 * 1_000;
/// Rest of an access token's life below which nobody is given it: the request that carries it takes time.
pub const OAUTH_USABLE_MS_MIN: u64 = 30 * 1_000;
/// Pause between two refreshes of one account, also when somebody asks for one, and after a first failed one. It
/// doubles with each further failure.
pub const OAUTH_PAUSE_MS: u64 = 5_000;
/// Longest pause after failed refreshes.
pub const OAUTH_PAUSE_MS_MAX: u64 = 5 * 60 * 1_000;
/// Users that wait for one account's refresh; the next one is told that the broker is busy.
pub const OAUTH_WAITING_MAX: usize = 256;
/// Refreshes handed to the thread that makes them; each account has at most one.
pub const OAUTH_JOBS_MAX: usize = SLOTS_MAX;
/// Threads that exchange tokens: one slow authorization server must not hold up every account.
pub const OAUTH_WORKERS: usize = 2;
/// Answer of a token endpoint.
pub const OAUTH_ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// One exchange with a token endpoint, from look-up to last byte.
pub const OAUTH_EXCHANGE_MS_MAX: u64 = 30_000;
/// A backup given to `secrets rekey` that is a tar archive: what is looked through for the store.
pub const REKEY_BACKUP_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

// --- api front ---------------------------------------------------------------------------------

/// Path parameters of one route (`/v1/a/{x}/b/{y}` has two).
pub const ROUTE_PATH_PARAMS_MAX: usize = 4;
/// Nesting of a JSON body. Contracts and tool schemas reach about 20; far below what overflows a stack.
pub const JSON_DEPTH_MAX: usize = 64;
/// Values (members, items, scalars) in one JSON body: `[0,0,…]` would otherwise cost 16 times its bytes.
pub const JSON_VALUES_MAX: usize = 262_144;
/// Caller-chosen text (a field's name, a path into the body) repeated in a problem's detail.
pub const PROBLEM_QUOTE_BYTES_MAX: usize = 200;
/// A page cursor as received. It encodes a 20-digit time and an id of at most 100 bytes.
pub const PAGE_CURSOR_BYTES_MAX: usize = 256;
/// Items of a bare-array list whose caller asked for no page; the total is in `x-total-count`.
pub const LIST_BARE_ITEMS_MAX: usize = 1_000;
/// A bearer token. Longer ones are refused at start and never match.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// A token shorter than this can be guessed; start warns.
pub const TOKEN_BYTES_ADVISED_MIN: usize = 16;
/// How long after its last change a token file is read on every request: within one tick of the file
/// system's clock two different contents can carry the same time stamps.
pub const TOKEN_FILE_SETTLE_MS: u64 = 100;
/// For how long a look at the token files holds for callers whose token was right then; a token that would be refused
/// always has them looked at again. A token that was replaced is accepted for no longer than this.
pub const TOKEN_FILE_CHECK_MS: u64 = 5;
/// Failed authentications of one peer address within [`AUTH_FAILURE_WINDOW_MS`] that are answered 401 or 403;
/// further ones are answered 429. A valid token is never counted.
pub const AUTH_FAILURES_PER_WINDOW_MAX: usize = 60;
/// The sliding window of the failure limiter.
pub const AUTH_FAILURE_WINDOW_MS: u64 = 60_000;
/// Peer addresses (IPv6: /64 networks) that the failure limiter remembers; the one idle for longest makes room.
pub const AUTH_FAILURE_PEERS_MAX: usize = 4_096;
/// Refusal lines written to the audit file per window over all peers, so that a flood from many addresses
/// cannot rotate the admin actions away; the rest is counted in one `refusals_suppressed` line.
pub const AUDIT_REFUSALS_PER_WINDOW_MAX: u64 = 1_200;
/// Lines waiting for the audit writer; when full, lines are dropped and counted.
pub const AUDIT_QUEUE_MAX: usize = 4_096;
/// Lines written by one call of the audit writer.
pub const AUDIT_BATCH_LINES_MAX: usize = 512;
/// Longest time that an audit line waits for its fsync.
pub const AUDIT_SYNC_INTERVAL_MS: u64 = 1_000;
/// Pause between two attempts to write audit lines that could not be written.
pub const AUDIT_RETRY_MS: u64 = 500;
/// End of an audit file that is read at start to find the last line and its number.
pub const AUDIT_TAIL_BYTES: u64 = 64 * 1024;
/// Requests whose acts have their lines, remembered so that the front's own line about them is left out.
pub const AUDIT_TOLD_REQUESTS_MAX: usize = 256;
/// Journal read at a time to make up for lines of acts that were not written.
pub const AUDIT_CATCH_UP_BYTES: usize = 1024 * 1024;
/// Size at which `control-plane-auth/audit.jsonl` is rotated.
pub const AUDIT_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Rotated audit files kept of each of the two books.
pub const AUDIT_ROTATED_FILES_MAX: u32 = 7;
/// Path or origin text in an audit or access line.
pub const AUDIT_TEXT_BYTES_MAX: usize = 512;
/// Longest wait for the audit writer or the access log to finish when told to stop.
pub const AUDIT_STOP_WAIT_MS: u64 = 2_000;
/// Access lines waiting for the log; when full, lines are dropped and counted.
pub const ACCESS_LOG_QUEUE_MAX: usize = 4_096;
/// Entries of `--http-cors-allow-origin` and of `--http-allowed-host`, each.
pub const ORIGINS_CONFIGURED_MAX: usize = 64;

// --- run views -------------------------------------------------------------------------------

/// Characters kept of each text in a run's summary: one line of a list. Bounds every `run_updated` frame.
pub const RUN_SUMMARY_TEXT_CHARS_MAX: usize = 200;
/// Records that are stepped over to find the agent of a session event; a session stopped this often in a row
/// without any run in between shows no agent.
pub const SESSION_AGENT_STEPS_MAX: usize = 8;

// --- sandbox ---------------------------------------------------------------------------------

/// Private writable memory of one process in a worker: compilers fit, a leak ends before the host suffers. Not the
/// address space, of which many runtimes reserve far more than they use.
pub const SANDBOX_MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Anonymous and shared memory of all processes of a worker together: many that each keep within their own bound must not take
/// the host's.
pub const SANDBOX_TOTAL_MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Pause between two looks at it. What a tree can touch within it is what it can take beyond the bound; each look costs some
/// ten microseconds a process.
pub const SANDBOX_MEMORY_INTERVAL_MS: u64 = 200;
/// Open files of one process in a worker.
pub const SANDBOX_OPEN_FILES_MAX: u64 = 1_024;
/// Largest file that a worker's process can write.
pub const SANDBOX_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Processes and threads of one worker: parallel builds fit, a fork bomb ends.
pub const SANDBOX_PROCESSES_MAX: u64 = 256;
/// Private temp directory of a worker; it is memory.
pub const SANDBOX_SCRATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Files and directories in the private temp directory of a worker.
pub const SANDBOX_SCRATCH_FILES_MAX: u64 = 65_536;
/// The root that a worker sees: a few directories, links and small files.
pub const SANDBOX_ROOT_BYTES_MAX: u64 = 1024 * 1024;
/// Process ids that a pid namespace gives out once, before the bounded range begins: the kernel's own number (300).
pub const SANDBOX_FIRST_PROCESS_IDS: u64 = 300;
/// Pause between two counts of a worker's processes, where only counting bounds them.
pub const SANDBOX_COUNT_INTERVAL_MS: u64 = 50;
/// Score by which the kernel prefers a worker to the daemon when memory runs out, of 1000.
pub const SANDBOX_OOM_SCORE: &str = "800";
/// Further places that `--sandbox-read-only-path` may name.
pub const SANDBOX_READ_ONLY_PATHS_MAX: usize = 64;
/// One call, arguments included.
pub const SANDBOX_CALL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// One answer, without the whole text that goes to a blob.
pub const SANDBOX_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The whole text of an answer that was cut.
pub const SANDBOX_OVERFLOW_BYTES_MAX: usize = 16 * 1024 * 1024;
const _: () = assert!(SANDBOX_CALL_BYTES_MAX > 2 * TOOL_INPUT_BYTES_MAX, "every call that a tool takes fits");
const _: () = assert!(SANDBOX_ANSWER_BYTES_MAX > 2 * TOOL_OUTPUT_BYTES_MAX + 1024, "every result fits, escaped");
const _: () = assert!(SANDBOX_OVERFLOW_BYTES_MAX >= TOOL_OVERFLOW_BYTES_MAX, "every cut text fits");
/// A worker's greeting: the list of its walls.
pub const SANDBOX_HELLO_BYTES_MAX: usize = 64 * 1024;
/// Wait for a worker's greeting; it comes within some ten milliseconds unless the host is out of memory.
pub const SANDBOX_START_MS: u64 = 10_000;
/// Time that a worker gets beyond a call's deadline to answer with what it has; then it is killed.
pub const SANDBOX_DEADLINE_GRACE_MS: u64 = 2_000;
/// Wait for the end of all processes of a worker before its outermost one is killed as well.
pub const SANDBOX_END_MS: u64 = 5_000;

// --- upkeep ----------------------------------------------------------------------------------

/// Pause between two write probes, and between two re-hashed segments.
pub const PROBE_INTERVAL_MS: u64 = 10_000;
/// Age of the newest probes at which storage counts as hanging.
pub const PROBE_STALE_MS: u64 = 45_000;
/// Use of a file system at which its probe warns.
pub const SPACE_USED_WARNING_PERCENT: u64 = 80;
/// Use of a file system at which its probe says that it is nearly full.
pub const SPACE_USED_ERROR_PERCENT: u64 = 90;
/// Use of inodes at which the probe warns.
pub const INODES_USED_ERROR_PERCENT: u64 = 95;

// --- serve -----------------------------------------------------------------------------------

/// Proxies that may be named with `--trusted-proxy`.
pub const TRUSTED_PROXIES_MAX: usize = 64;
/// Time that requests in flight get to end after SIGTERM.
pub const DRAIN_MS: u64 = 10_000;
/// Pause between two looks of the main thread at the others.
pub const WATCH_INTERVAL_MS: i32 = 500;

// --- journal ---------------------------------------------------------------------------------

/// A segment's size where space is ample: a start rewrites at most this much, and retention works in such steps.
pub const JOURNAL_SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// A segment's smallest size where space is short: room for containment commands on a nearly full disk.
pub const JOURNAL_SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// A segment's largest size as a setting.
pub const JOURNAL_SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// A new segment takes at most one part in this many of the free space, so that tail and reserve leave room.
pub const JOURNAL_SEGMENT_SPACE_SHARE: u64 = 16;
/// One batch, and so one line: the largest request body, which a record repeats, besides a full core batch.
pub const JOURNAL_BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
const _: () =
    assert!(JOURNAL_BATCH_BYTES_MAX >= BODY_BYTES_MAX + CORE_BATCH_BYTES_MAX, "a request must fit in a batch");
/// A segment file, however it came to grow; a larger one is not ours.
pub const JOURNAL_FILE_BYTES_MAX: u64 = 2 * JOURNAL_SEGMENT_BYTES_MAX;
const _: () = assert!(JOURNAL_FILE_BYTES_MAX <= u32::MAX as u64, "offsets in the sparse index have 32 bits");
const _: () = assert!(
    JOURNAL_SEGMENT_BYTES_MAX + JOURNAL_BATCH_BYTES_MAX as u64 + JOURNAL_ROOM_BYTES < JOURNAL_FILE_BYTES_MAX,
    "the largest segment has room for one more batch"
);
/// Preallocated beyond a batch that outgrows its segment, and asked for at start: the next seal needs less.
pub const JOURNAL_ROOM_BYTES: u64 = 16 * 1024;
/// NUL bytes written with a batch that reaches blocks never written before: the next batches find blocks that need no
/// change of metadata, so that their syncs take about half the time. Larger ones make the batch that writes them slow.
pub const JOURNAL_FILL_AHEAD_BYTES: u64 = 128 * 1024;
/// Encoding buffer kept between batches; a larger one is given back.
pub const JOURNAL_BUFFER_BYTES_KEPT: usize = 256 * 1024;
/// Read at once while replaying, verifying and scanning: larger reads gain nothing from the page cache.
pub const JOURNAL_READ_BYTES: usize = 256 * 1024;
/// Readings of a journal or a trail beside a daemon that writes it, until none looks damaged or two agree on the place.
pub const JOURNAL_BESIDE_READINGS_MAX: usize = 8;
/// Records between two entries of the sparse index: four bytes of memory for each 64 records, and one read of
/// about 32 KiB to find a record.
pub const JOURNAL_MARK_RECORDS: u64 = 64;
/// Segments kept open for reading; the next one closes them all and begins anew.
pub const JOURNAL_READ_HANDLES_MAX: usize = 256;
/// Files looked at in the journal's directories: 64 TiB of default segments.
pub const JOURNAL_DIRECTORY_ENTRIES_MAX: usize = 1_000_000;
/// A record kind: ours have at most 24 bytes.
pub const JOURNAL_KIND_BYTES_MAX: usize = 64;
/// Time after which unsealed records are sealed: what an intruder with the file system but without the key could
/// rewrite unnoticed.
pub const JOURNAL_SEAL_INTERVAL_MS_DEFAULT: u64 = 60_000;
/// Unsealed records after which a seal follows at once: one more sync in thousands of batches.
pub const JOURNAL_SEAL_INTERVAL_RECORDS_DEFAULT: u64 = 10_000;
/// Snapshots kept: the newest, and one to fall back on.
pub const SNAPSHOTS_KEPT: usize = 2;
/// One line of a snapshot: a segment's index or one object of the state.
pub const SNAPSHOT_LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Written at once while taking a snapshot or rewriting a tail.
pub const SNAPSHOT_WRITE_BYTES: usize = 1024 * 1024;

// --- redaction -------------------------------------------------------------------------------

/// A text that begins as a vendor's key does counts as one from this length on; real ones are longer, words shorter.
pub const REDACTION_KEY_BYTES_MIN: usize = 20;
/// What may be a key that still arrives is held back for at most so long; no vendor's key is longer.
pub const REDACTION_OPEN_BYTES_MAX: usize = 16 * 1024;
/// Read at a time when a state root is searched for secrets.
pub const SCAN_CHUNK_BYTES: usize = 1024 * 1024;
/// Files with secrets that a search names.
pub const SCAN_FINDINGS_MAX: usize = 1_000;

// --- audit key -------------------------------------------------------------------------------

/// An audit key file: the JSON form has about 130 bytes, older ones a few fields more.
pub const AUDIT_KEY_FILE_BYTES_MAX: usize = 4 * 1024;
/// Public keys kept in `audit-signing.pub.pem`; the oldest leaves when one more comes.
pub const AUDIT_PUBLIC_KEYS_MAX: usize = 64;
/// Actions in flight that a verification names; their number is told all the same.
pub const AUDIT_OPEN_ACTIONS_SHOWN_MAX: usize = 20;
/// Records of a run that are looked through for its external actions, from the newest back.
pub const ACTIONS_WALK_RECORDS_MAX: usize = 100_000;

// --- runtime configuration -------------------------------------------------------------------

/// Earlier revisions kept besides the one in force, as full copies: what a rollback can bring back.
pub const RUNTIME_HISTORY_MAX: usize = 64;
/// All settings of one revision as JSON: the history, in memory and as one line of a snapshot, stays below 33 MiB.
pub const RUNTIME_SETTINGS_BYTES_MAX: usize = 512 * 1024;
const _: () = assert!(
    (RUNTIME_HISTORY_MAX + 1) * (RUNTIME_SETTINGS_BYTES_MAX + 1_024) < SNAPSHOT_LINE_BYTES_MAX,
    "all revisions fit one line of a snapshot"
);
/// One part of the system prompt.
pub const SYSTEM_PROMPT_BYTES_MAX: usize = 64 * 1024;
/// The ticket that a debug window is opened for.
pub const DEBUG_TICKET_BYTES_MAX: usize = 128;
/// Window of the debug level `full` when none is named: the age at which the operators' signals page.
pub const DEBUG_FULL_TTL_MS_DEFAULT: u64 = 30 * 60 * 1_000;
/// Window of a debug level; a longer one is refused.
pub const DEBUG_LEVEL_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// A byte limit of tools that an operator may set. What a tool returns is held in memory while it is recorded.
pub const TOOL_LIMIT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A time limit of tools that an operator may set.
pub const TOOL_TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Parallel calls that an operator may allow in one run; each needs a worker process.
pub const TOOL_PARALLEL_MAX: u64 = 64;
/// Calls of one answer that an operator may allow.
pub const TOOL_CALLS_PER_TURN_MAX: u64 = 4_096;

// --- debug capture ---------------------------------------------------------------------------

/// Captures that wait for the thread that writes them; the next one is dropped and counted.
pub const DEBUG_MAILBOX_MAX: usize = 256;
/// Bytes of such captures.
pub const DEBUG_MAILBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Wait of a reader for what was captured just before.
pub const DEBUG_SETTLE_MS_MAX: u64 = 2_000;
/// Bytes of one artifact unless `KHEISH_DEBUG_MAX_ARTIFACT_BYTES` says otherwise; a larger one is replaced by its
/// beginning.
pub const DEBUG_ARTIFACT_BYTES_DEFAULT: u64 = 4 * 1024 * 1024;
/// Smallest such setting: room for the object that says what was cut.
pub const DEBUG_ARTIFACT_BYTES_MIN: u64 = 512;
/// Largest such setting.
pub const DEBUG_ARTIFACT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// First line of an artifact file: about 500 bytes.
pub const DEBUG_HEADER_BYTES_MAX: usize = 4 * 1024;
/// A whole artifact file: the largest body, its header and the cipher's tag.
pub const DEBUG_ARTIFACT_FILE_BYTES_MAX: u64 = DEBUG_ARTIFACT_BYTES_MAX + DEBUG_HEADER_BYTES_MAX as u64 + 16;
/// Artifacts of one run in bytes; the oldest of the run go first.
pub const DEBUG_RUN_BYTES_DEFAULT: u64 = 32 * 1024 * 1024;
/// Artifacts of one run; the same.
pub const DEBUG_RUN_ARTIFACTS_DEFAULT: u64 = 64;
/// Largest such setting: a list of all of them is one answer.
pub const DEBUG_RUN_ARTIFACTS_MAX: u64 = 10_000;
/// All artifacts in bytes; the oldest ended runs go first.
pub const DEBUG_STORE_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
/// Free space below which nothing is captured: evidence must not fill the disk that the journal needs.
pub const DEBUG_FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// Age at which artifacts of ended runs are removed.
pub const DEBUG_TTL_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Time between two looks for old artifacts.
pub const DEBUG_GC_INTERVAL_MS_DEFAULT: u64 = 60 * 60 * 1_000;
/// Smallest such setting.
pub const DEBUG_GC_INTERVAL_MS_MIN: u64 = 1_000;
/// Text of one JSON string that the level `redacted` keeps.
pub const DEBUG_PREVIEW_BYTES: usize = 256;
/// Base64 from which on a text is taken for a picture, a sound or a document.
pub const DEBUG_MEDIA_BYTES_MIN: usize = 1_024;
/// Bundles named in one answer of a prune; more are removed by asking again.
pub const DEBUG_PRUNE_BUNDLES_MAX: usize = 1_000;
/// Runs whose evidence is held at once.
pub const RETENTION_HOLDS_MAX: usize = 10_000;

// --- permissions -----------------------------------------------------------------------------

/// A tool, command, path or host pattern of a rule.
pub const PERMISSION_PATTERN_BYTES_MAX: usize = 256;
/// Why a rule exists, for people.
pub const PERMISSION_REASON_BYTES_MAX: usize = 512;
/// Rules of the scopes `user` and `project` together. Each call of a tool is compared with all of them.
pub const PERMISSION_RULES_MAX: usize = 256;
/// Rules of one session.
pub const PERMISSION_SESSION_RULES_MAX: usize = 64;
/// A shell command that rules are compared with; a longer one is allowed by no rule and matched by every restriction.
pub const PERMISSION_COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Records of a session looked at for one page of its permission decisions; the page ends there and names a cursor.
pub const PERMISSION_AUDIT_RECORDS_MAX: usize = 10_000;
/// A path that rules are compared with, which is what the kernel takes; a longer one is treated as such a command is.
pub const PERMISSION_PATH_BYTES_MAX: usize = 4_096;
// --- tools -----------------------------------------------------------------------------------

/// Arguments of one tool call as the model wrote them; more is a tool error.
pub const TOOL_INPUT_BYTES_MAX: usize = 6 * 1024 * 1024;
/// What one tool call gives to the model, as JSON text. A tool cuts its own texts earlier and says so.
pub const TOOL_OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Text kept beyond that for a blob; what lies behind it is only counted.
pub const TOOL_OVERFLOW_BYTES_MAX: usize = 1024 * 1024;
/// A path in a tool's arguments; the kernel's own bound.
pub const TOOL_PATH_BYTES_MAX: usize = 4_096;
/// Shortest time a tool call gets, however close its deadline is.
pub const TOOL_TIMEOUT_MS_MIN: u64 = 100;
/// Longest time of a foreground command; longer ones are background tasks.
pub const TOOL_SHELL_TIMEOUT_MS_MAX: u64 = 180_000;
/// Time of a foreground command that names none.
pub const TOOL_SHELL_TIMEOUT_MS_DEFAULT: u64 = 20_000;
/// A file that tools write or edit as a whole; it is held in memory for that.
pub const TOOL_EDIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Tries for the lock of a file that another tool call is replacing; about two seconds together.
pub const TOOL_LOCK_TRIES_MAX: usize = 100;
/// Pause between two of them.
pub const TOOL_LOCK_STEP_MS: u64 = 20;
/// Text of a file given by one read.
pub const TOOL_READ_TEXT_BYTES_MAX: usize = 128 * 1024;
/// The same as it stands in the result: control characters take six bytes each there.
pub const TOOL_READ_ESCAPED_BYTES_MAX: usize = 200 * 1024;
/// Bytes of a file that a read goes through for lines and digest; a larger file has no digest and its end is not
/// looked for.
pub const TOOL_READ_SCAN_BYTES_MAX: u64 = 512 * 1024 * 1024;
const _: () = assert!(TOOL_READ_ESCAPED_BYTES_MAX + 16 * 1024 < TOOL_OUTPUT_BYTES_MAX, "a read fits in a result");
const _: () = assert!(TOOL_READ_TEXT_BYTES_MAX / 3 * 4 + 16 * 1024 < TOOL_OUTPUT_BYTES_MAX, "base64 of a read fits");
/// Paths or matches of one search.
pub const TOOL_SEARCH_ITEMS_MAX: usize = 200;
/// Directory entries that one search looks at.
pub const TOOL_SEARCH_ENTRIES_MAX: usize = 500_000;
/// Levels that a search descends; each holds one descriptor.
pub const TOOL_SEARCH_DEPTH_MAX: usize = 64;
/// Bytes read of one ignore file; what follows means nothing.
pub const TOOL_IGNORE_BYTES_MAX: u64 = 64 * 1024;
/// Rules taken of one ignore file; each is compared with each entry below it.
pub const TOOL_IGNORE_RULES_MAX: usize = 500;
/// Bytes of files that one search reads.
pub const TOOL_SEARCH_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Part of a line that is compared with a pattern; matches behind it are not found, and the result says so.
pub const TOOL_SEARCH_LINE_BYTES_MAX: usize = 64 * 1024;
/// Text of one match that is shown.
pub const TOOL_SEARCH_SHOWN_BYTES_MAX: usize = 512;
/// Memory of a compiled pattern; a pattern that needs more is refused.
pub const TOOL_PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Nesting of a pattern.
pub const TOOL_PATTERN_DEPTH_MAX: u32 = 64;
/// One stream of a command as it stands in a result, escaped; with a longer one its two ends are shown.
pub const TOOL_SHELL_ESCAPED_BYTES_MAX: usize = 96 * 1024;
const _: () =
    assert!(2 * TOOL_SHELL_ESCAPED_BYTES_MAX + 32 * 1024 < TOOL_OUTPUT_BYTES_MAX, "both streams fit in a result");
/// Bytes kept from the end of a command's stream.
pub const TOOL_SHELL_STREAM_BYTES_MAX: usize = 64 * 1024;
/// Longest time between two looks at children that ended beside a command.
pub const TOOL_SHELL_TIDY_MS: u64 = 500;
/// Silence after an unfinished line that asks something, from which on a command counts as waiting for an answer.
pub const TOOL_PROMPT_QUIET_MS: u64 = 5_000;
/// Bytes at the end of an output that are looked at for a question.
pub const TOOL_PROMPT_TAIL_BYTES: usize = 1_024;
/// Wait for the end of a command's pipes after everything was ended; only what could not be ended holds them.
pub const TOOL_SHELL_DRAIN_MS: u64 = 200;
/// Time between the polite signal and the one that cannot be ignored.
pub const TOOL_TERM_GRACE_MS: u64 = 500;
/// Wait for killed processes to be gone; what is there afterwards is named. A process waiting for a disk may take so long.
pub const TOOL_KILL_MS_MAX: u64 = 2_000;
/// Longest pause between two looks during that wait.
pub const TOOL_KILL_STEP_MS: u64 = 20;

// --- tasks -----------------------------------------------------------------------------------

/// Background commands at once, all sessions together; each is a few processes and two descriptors. The next one is refused
/// with `task_limit`.
pub const TASKS_LIVE_MAX: usize = 64;
/// Open tasks of one session, to-do items and background commands; the next one is refused with `task_limit`.
pub const SESSION_TASKS_OPEN_MAX: usize = 128;
/// Open tasks of all sessions together.
pub const TASKS_OPEN_MAX: usize = 20_000;
/// Ended tasks of one session that are listed; the journal has all.
pub const SESSION_TASKS_KEPT_MAX: usize = 100;
/// Ended tasks of all sessions that are listed; about 1 KiB each, at most 12 KiB.
pub const TASKS_KEPT_MAX: usize = 10_000;
/// Sessions whose short list is kept; the one written longest ago is forgotten.
pub const TODO_LISTS_MAX: usize = 10_000;
/// Beginning of a command that lists show; the journal has all of it.
pub const TASK_COMMAND_SHOWN_BYTES_MAX: usize = 2 * 1024;
/// One message between the daemon and a task's worker: a command, or a piece of output.
pub const TASK_FRAME_BYTES_MAX: usize = 512 * 1024;
const _: () = assert!(TASK_FRAME_BYTES_MAX > 6 * 65_536 + 4_096, "the longest command fits when escaped");
/// Output file of a task, from which on its older part is dropped.
pub const TASK_OUTPUT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What is kept of it then.
pub const TASK_OUTPUT_BYTES_KEPT: u64 = 6 * 1024 * 1024;
/// Bytes of a command's output that wait for what follows, since they may be the beginning of a secret; more are written as they
/// are by then.
pub const TASK_OUTPUT_BYTES_HELD_MAX: usize = 64 * 1024;
const _: () = assert!(TASK_OUTPUT_BYTES_KEPT + TASK_FRAME_BYTES_MAX as u64 + 256 < TASK_OUTPUT_BYTES_MAX);
/// Read before a part of an output that is shown, so that a secret at the cut is recognised.
pub const TASK_OUTPUT_MARGIN_BYTES: u64 = 128 * 1024;
const _: () = assert!(TASK_OUTPUT_MARGIN_BYTES >= 2 * SECRET_BYTES_MAX as u64, "the longest secret fits in hex");
/// Output files of ended tasks; the oldest is removed.
pub const TASK_OUTPUT_FILES_MAX: usize = 1_000;
/// Their bytes together; the oldest is removed.
pub const TASK_OUTPUTS_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Environment of a process that is looked through for the token of a task.
pub const TASK_ENVIRONMENT_BYTES_MAX: u64 = 64 * 1024;
/// End of an output that is shown when nothing is asked for.
pub const TASK_TAIL_BYTES_DEFAULT: u64 = 8 * 1024;
/// Longest end of an output in one answer; `full` gives the whole file instead.
pub const TASK_TAIL_BYTES_MAX: u64 = 256 * 1024;
/// Wait for a task's end by one request when it names no time.
pub const TASK_WAIT_MS_DEFAULT: u64 = 30_000;
/// Longest wait for a task's end by one request.
pub const TASK_WAIT_MS_MAX: u64 = 600_000;
/// Requests that wait for the end of tasks; the next one is answered at once as if its time were up.
pub const TASK_WAITERS_MAX: usize = 256;
/// Messages waiting for the reaper: one an engine, one a waiting request, one a finished task.
pub const TASK_MAILBOX_MAX: usize = 1_024;
/// Wait for the reaper to start a task's worker.
pub const TASK_START_MS_MAX: u64 = 10_000;
/// Longest sleep of the reaper; also the step in which it repeats what the core did not take.
pub const TASK_TICK_MS: i32 = 1_000;
/// Wait for the end of all tasks when the daemon stops.
pub const TASK_STOP_MS_MAX: u64 = 5_000;
/// Time after which a stop that names a task without a process settles it.
pub const TASK_STRAY_STOP_MS: u64 = 10_000;
/// Step in which processes that could not be ended are tried again.
pub const TASK_QUARANTINE_LOOK_MS: u64 = 5_000;
/// After the end of the daemon, by SIGKILL too, nothing of its background commands is left after this time.
pub const TASK_KILL_PROOF_MS: u64 = 5_000;
const _: () = assert!(TOOL_KILL_MS_MAX < TASK_KILL_PROOF_MS);
