//! Bounds of connectors: their configuration, their ingress and their sidecars.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- connectors ------------------------------------------------------------------------------

/// Connectors of one daemon, from file and runtime together; one more is refused with 409 `connector_limit`. Each may have a
/// process of its own.
pub const CONNECTORS_MAX: usize = 128;
/// Bytes of a connector's name; it stands in URLs, session ids and log lines.
pub const CONNECTOR_NAME_BYTES_MAX: usize = 64;
/// Bytes of one connector's configuration, and of the body that changes it; a longer one is refused.
pub const CONNECTOR_CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the file of `--connectors-config`; a longer one ends the start.
pub const CONNECTORS_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries of one list of a connector's configuration; a longer one is refused.
pub const CONNECTOR_LIST_MAX: usize = 64;
/// Bytes of one text of a connector's configuration; a longer one is refused.
pub const CONNECTOR_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Bytes of one event body, or of a batch; a longer one is refused with 413 before it is read.
pub const CONNECTOR_BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of one external event's content; a longer one is rejected.
pub const CONNECTOR_CONTENT_BYTES_MAX: usize = 1024 * 1024;
/// Events of one batch; a larger one is refused with 400.
pub const CONNECTOR_BATCH_EVENTS_MAX: usize = 64;
/// Input items of one external event; more are rejected.
pub const CONNECTOR_INPUT_ITEMS_MAX: usize = 64;
/// Attachments of one external event; more are rejected.
pub const CONNECTOR_ATTACHMENTS_MAX: usize = 10;
/// Binding keys of one event; more are refused.
pub const CONNECTOR_BINDING_KEYS_MAX: usize = 64;
/// Bytes of one binding key; a longer one is refused.
pub const CONNECTOR_BINDING_KEY_BYTES_MAX: usize = 1024;
/// Segments of an external event's thread path; more are rejected.
pub const CONNECTOR_PATH_SEGMENTS_MAX: usize = 16;
/// Binding keys that name a session, in the whole state root; events that would add one more are refused with 409
/// `connector_limit`. About 60 bytes each stay in memory.
pub const SESSION_BINDINGS_MAX: usize = 200_000;
/// Distance of a signature's timestamp from now when nothing is said, seconds.
pub const CONNECTOR_SIGNATURE_AGE_S_DEFAULT: u64 = 300;
/// The largest one that can be set, seconds.
pub const CONNECTOR_SIGNATURE_AGE_S_MAX: u64 = 3_600;
/// Distance of a Slack signature's timestamp from now, seconds; Slack's own recommendation.
pub const SLACK_SIGNATURE_AGE_S: u64 = 300;
/// Events per second of an http or Slack connector when nothing is said; the bucket holds as many.
pub const CONNECTOR_EVENTS_PER_S_DEFAULT: u32 = 60;
/// Events per second of an external or Telegram connector when nothing is said.
pub const CONNECTOR_EXTERNAL_EVENTS_PER_S_DEFAULT: u32 = 100;
/// The largest rate that can be set.
pub const CONNECTOR_EVENTS_PER_S_MAX: u32 = 100_000;
/// Buckets of one Slack connector, which counts per team and channel; the least recently used one makes room.
pub const CONNECTOR_BUCKETS_MAX: usize = 1_024;

// --- telegram polling ------------------------------------------------------------------------

/// Threads that ask Telegram for updates. With more connectors of mode `polling` than these, each request waits at Telegram for
/// [`TELEGRAM_POLL_CROWDED_S`] only, so that all have their turn.
pub const TELEGRAM_POLLERS: usize = 2;
/// How long a request for updates waits at Telegram when nothing is said, seconds.
pub const TELEGRAM_POLL_TIMEOUT_S_DEFAULT: u64 = 25;
/// The longest that can be set, seconds; Telegram's own limit.
pub const TELEGRAM_POLL_TIMEOUT_S_MAX: u64 = 50;
/// See [`TELEGRAM_POLLERS`].
pub const TELEGRAM_POLL_CROWDED_S: u64 = 1;
/// Added to it for the answer to arrive; also the limit of look-up and connect, each.
pub const TELEGRAM_POLL_MARGIN_MS: u64 = 10_000;
/// Between two looks whether a connector is to be polled, while none is.
pub const TELEGRAM_POLL_LOOK_MS: u64 = 1_000;
/// Pause after a failed poll; it doubles with each one that follows.
pub const TELEGRAM_POLL_PAUSE_MS_MIN: u64 = 1_000;
/// The longest pause where Telegram does not ask for one.
pub const TELEGRAM_POLL_PAUSE_MS_MAX: u64 = 60_000;
/// The longest pause that Telegram can ask for; a longer one is cut.
pub const TELEGRAM_RETRY_AFTER_MS_MAX: u64 = 600_000;
/// Updates of one answer; Telegram's own limit.
pub const TELEGRAM_UPDATES_MAX: u64 = 100;
/// Bytes of one answer; a longer one is a failure. A hundred of the longest messages have a tenth of it.
pub const TELEGRAM_POLL_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// From an update to what became of it; then it is asked for again.
pub const TELEGRAM_SETTLE_MS_MAX: u64 = 30_000;

// --- sidecars --------------------------------------------------------------------------------

/// From the start of a sidecar to its first good manifest and health; then it is stopped and started again.
pub const SIDECAR_READY_MS_MAX: u64 = 20_000;
/// Between two looks at a sidecar that is starting.
pub const SIDECAR_START_LOOK_MS: u64 = 250;
/// Between two looks at a sidecar that is ready.
pub const SIDECAR_HEALTH_LOOK_MS: u64 = 10_000;
/// One look at a sidecar, connect to last byte.
pub const SIDECAR_LOOK_MS_MAX: u64 = 3_000;
/// Bytes of a sidecar's manifest or health; a longer one counts as none.
pub const SIDECAR_ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Looks in a row without a good answer after which a sidecar that was ready is stopped and started again.
pub const SIDECAR_MISSES_MAX: u32 = 3;
/// Pause before the first restart; it doubles with each one that follows.
pub const SIDECAR_RESTART_MS_MIN: u64 = 1_000;
/// The longest pause before a restart, without its jitter.
pub const SIDECAR_RESTART_MS_MAX: u64 = 60_000;
/// Jitter of a restart: less than this, the same for the same name and attempt.
pub const SIDECAR_RESTART_JITTER_MS: u64 = 400;
/// A sidecar that was ready for this long is started again as if for the first time.
pub const SIDECAR_STABLE_MS: u64 = 60_000;
/// From the polite signal to the kill: a sidecar finishes its deliveries within 10 s.
pub const SIDECAR_STOP_MS: u64 = 10_000;
/// From the polite signal to the kill while the daemon itself stops.
pub const SIDECAR_DAEMON_STOP_MS: u64 = 3_000;
/// Longest sleep of the supervisor when nothing happens.
pub const SIDECAR_TICK_MS: u64 = 1_000;
/// Bytes of a sidecar's output that are kept for its view; older ones make room.
pub const SIDECAR_OUTPUT_BYTES_KEPT: usize = 16 * 1024;
/// Life of a sidecar's credential lease; it is renewed while the process lives, its token is not.
pub const SIDECAR_LEASE_MS: u64 = 300_000;
/// Reply of a sidecar's worker process to its start: walls and exec.
pub const SIDECAR_SPAWN_MS_MAX: u64 = 5_000;
/// Arguments of a sidecar's command, and variables of its environment, each.
pub const SIDECAR_WORDS_MAX: usize = 64;
/// Attempts of one change of a connector that others get in between of; then it is refused with 409.
pub const CONNECTOR_PUT_TRIES_MAX: u32 = 4;
/// Messages waiting for the supervisor of sidecars: one look's result for each.
pub const SIDECAR_MAILBOX_MAX: usize = 2 * CONNECTORS_MAX;
/// The webhook sidecar's call of the daemon, connect to last byte.
pub const WEBHOOK_CALL_MS_MAX: u64 = 30_000;
/// Its call of a callback, and of a credential.
pub const WEBHOOK_CALLBACK_MS_MAX: u64 = 15_000;
