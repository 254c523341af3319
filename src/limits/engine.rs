//! Bounds of the engine: turns, tools, approvals, questions, contexts.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- engine ----------------------------------------------------------------------------------

/// Answers to approvals and questions that a repeated idempotency key finds again; the oldest go first. An answer
/// that is forgotten here is still refused when it is repeated, since nothing is pending any more.
pub const OPERATION_RECEIPTS_MAX: usize = 10_000;
/// Seconds after which `--approval-expires-after-s` lets an open approval count as denied, at most: thirty days.
pub const APPROVAL_EXPIRY_S_MAX: u64 = 30 * 24 * 60 * 60;
/// Seconds that `--drain-timeout-s` gives runs in hand at the end of the daemon, at most: ten minutes.
pub const RUN_DRAIN_S_MAX: u64 = 600;
/// Programs that an approval of one command is bound to: the first that it names.
pub const PROGRAMS_PER_CALL_MAX: usize = 32;
/// Bytes of one of them that are hashed; of a larger one its size and times count.
pub const PROGRAM_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Answers to approvals in one request.
pub const APPROVAL_BATCH_MAX: usize = 1_024;
/// A person's answer to one question.
pub const QUESTION_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Runs whose approvals or questions expire in one batch of the core; the rest follow in the next one.
pub const CORE_EXPIRE_RUNS_MAX: usize = 256;
/// Engine workers: runs in hand at once. Each waits for a model most of its time.
pub const ENGINE_WORKERS: usize = 16;
/// Bytes of earlier exchanges sent with a model call; older ones are left out and the request says so.
pub const CONTEXT_BYTES_MAX: usize = 1024 * 1024;
/// Earlier runs whose exchanges are sent with a model call.
pub const CONTEXT_RUNS_MAX: usize = 500;
/// Records read to assemble them: a session with a long queue has many between two exchanges.
pub const CONTEXT_WALK_RECORDS_MAX: usize = 50_000;
/// Answers of a model in one run; the run fails when it is met. A run may ask for less.
pub const RUN_TURNS_MAX: u32 = 500;
/// Tool calls of one answer at which the run fails instead: they would not fit in one batch with their answers.
pub const TOOL_CALLS_PER_ANSWER_MAX: usize = 1_024;
/// Groups in which the calls of one answer are run. Each costs one sync; with the model call a turn has at most four. What
/// is left over runs in the last group, of which a crash leaves more calls unknown.
pub const TOOL_GROUPS_PER_TURN_MAX: usize = 3;
/// Reading calls of one turn that wait for the network at the same time, each on a thread; the operator's `max_parallel_tools`
/// may say less.
pub const TOOL_CALLS_SIDE_BY_SIDE_MAX: usize = 8;
/// Results that wait to be written with the next batch.
pub const TOOL_PENDING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A call id of a provider; a longer one is replaced.
pub const TOOL_CALL_ID_BYTES_MAX: usize = 256;
/// A tool name, as all providers take it.
pub const TOOL_NAME_BYTES_MAX: usize = 64;
/// Failures in a row of the same call from which on the model is told that it repeats itself.
pub const TOOL_REPEATS_WARN: u32 = 3;
/// Failures in a row of the same call at which the run fails.
pub const TOOL_REPEATS_FAIL: u32 = 6;
/// Different failing calls that are counted at once.
pub const REPEATED_CALLS_KEPT_MAX: usize = 256;
/// Estimated tokens of a conversation at which its older part is summarised: room for an answer is left in a window of
/// 200,000.
pub const COMPACT_AT_TOKENS: u64 = 150_000;
/// Newest answers, with their results, that a compaction keeps.
pub const COMPACT_KEEP_TURNS: usize = 6;
/// Bytes of them; the newest one is kept whatever it weighs.
pub const COMPACT_KEEP_BYTES: usize = 96 * 1024;
/// Bytes of each result and each call's arguments that the summary is made from.
pub const COMPACT_RESULT_BYTES: usize = 2 * 1024;
/// Bytes of conversation that the summary is made from; the middle is left out.
pub const COMPACT_RENDERED_BYTES_MAX: usize = 256 * 1024;
/// Bytes that are kept of the older part where the model gives no summary.
pub const COMPACT_SHORTENED_BYTES: usize = 16 * 1024;
/// Bytes of text that are taken for one token where no provider has counted.
pub const CONTEXT_BYTES_PER_TOKEN: usize = 4;
/// One blob: the whole of a large tool result.
pub const BLOB_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a kept result in one answer, when the caller does not say.
pub const BLOB_PAGE_BYTES_DEFAULT: u64 = 256 * 1024;
/// The same, at most.
pub const BLOB_PAGE_BYTES_MAX: u64 = 1024 * 1024;
/// The least age at which kept results may be removed: what an engine has stored and not yet named by a record is younger.
pub const BLOB_PRUNE_AGE_MS_MIN: u64 = 60 * 60 * 1_000;
/// Kept results that one request removes; the rest follows with the next one.
pub const BLOB_PRUNE_MAX: usize = 10_000;
/// Bytes of the journal that are read at once to find which results kept runs name.
pub const BLOB_PRUNE_SCAN_BYTES: usize = 1024 * 1024;
/// Pause before an engine tries again what a full disk, queue or broker refused.
pub const ENGINE_RETRY_MS: u64 = 1_000;
/// Text of a run's error: enough for a cause and a next step.
pub const RUN_ERROR_BYTES_MAX: usize = 4 * 1024;
