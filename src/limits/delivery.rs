//! Bounds of output routing and deliveries.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- deliveries ------------------------------------------------------------------------------

/// Reply targets of one run or session; a request with more is refused.
pub const REPLY_TARGETS_MAX: usize = 8;
/// Bytes of a reply target's address; a longer one is refused.
pub const REPLY_ADDRESS_BYTES_MAX: usize = 4 * 1024;
/// Header lines that a reply target may add; one more is refused.
pub const REPLY_HEADERS_MAX: usize = 16;
/// Bytes of one header value of a reply target.
pub const REPLY_HEADER_VALUE_BYTES_MAX: usize = 1024;
/// Deliveries that are owed: waiting ones, those that runs under way will make, and dead letters that nobody has dealt
/// with. At the limit runs with reply targets are refused; nothing is forgotten. About 300 bytes each stay in memory.
pub const DELIVERIES_OPEN_MAX: usize = 100_000;
/// Finished deliveries of all runs that are listed together; older ones are listed with their run only, from the journal.
pub const DELIVERIES_KEPT_MAX: usize = 20_000;
/// Deliveries that the view of one run names, the newest ones; only forced replays make more than its targets.
pub const RUN_VIEW_DELIVERIES_MAX: usize = 64;
/// Targets without a waiting delivery whose past is remembered; the one used longest ago is forgotten first.
pub const DELIVERY_TARGETS_KEPT_MAX: usize = 10_000;
/// Threads that send deliveries; each has one request in flight.
pub const DELIVERY_SENDERS: usize = 16;
/// Of these, how many may be busy with targets that have never taken a delivery or failed at last.
pub const DELIVERY_SENDERS_UNPROVEN_MAX: usize = DELIVERY_SENDERS / 2;
/// Time of one attempt, from look-up to the answer.
pub const DELIVERY_TOTAL_MS: u64 = 15_000;
/// Look-up and connect with TLS of one attempt, each.
pub const DELIVERY_CONNECT_MS: u64 = 5_000;
/// Silence within a receiver's answer.
pub const DELIVERY_IDLE_MS: u64 = 10_000;
/// Silence within a body that only explains; then its beginning is enough.
pub const DELIVERY_DETAIL_IDLE_MS: u64 = 500;
/// Time for such a body in all.
pub const DELIVERY_DETAIL_MS: u64 = 1_000;
/// Bytes of a receiver's answer that are read.
pub const DELIVERY_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Characters of a receiver's words that are kept as the cause of a dead letter.
pub const DELIVERY_DETAIL_CHARS_MAX: usize = 512;
/// Characters of an operator's words about a dead letter.
pub const DELIVERY_REASON_CHARS_MAX: usize = 512;
/// First wait after a failed attempt; doubled with each (`KHEISH_DELIVERY_INITIAL_RETRY_MS`).
pub const DELIVERY_INITIAL_RETRY_MS: u64 = 1_000;
/// Longest wait by doubling (`KHEISH_DELIVERY_MAX_RETRY_MS`).
pub const DELIVERY_MAX_RETRY_MS: u64 = 60_000;
/// Longest wait that a receiver can ask for (`KHEISH_DELIVERY_MAX_RETRY_AFTER_MS`).
pub const DELIVERY_MAX_RETRY_AFTER_MS: u64 = 3_600_000;
/// Failed attempts after which a delivery is a dead letter (`KHEISH_DELIVERY_MAX_ATTEMPTS`).
pub const DELIVERY_MAX_ATTEMPTS: u32 = 8;
/// Failures in a row that open a target's circuit (`KHEISH_DELIVERY_CIRCUIT_FAILURE_THRESHOLD`); 0 is never.
pub const DELIVERY_CIRCUIT_FAILURE_THRESHOLD: u32 = 3;
/// Shortest wait while the circuit is open (`KHEISH_DELIVERY_CIRCUIT_COOLDOWN_MS`).
pub const DELIVERY_CIRCUIT_COOLDOWN_MS: u64 = 60_000;
/// Doublings of the first wait.
pub const DELIVERY_DOUBLINGS_MAX: u32 = 6;
/// Characters of one message of Telegram; a longer text is cut and says so.
pub const TELEGRAM_CHARS_MAX: usize = 4_096;
/// Part of a wait that is added at most, so that targets that failed together do not return together: one in this many.
pub const DELIVERY_JITTER_PART: u64 = 10;
/// Wait of a receiver that refuses for its rate without saying for how long.
pub const DELIVERY_RATE_LIMITED_MS: u64 = 1_000;
/// Pause before a sender asks again a core or disk that did not take its record.
pub const DELIVERY_RECORD_PAUSE_MS: u64 = 500;
/// Time for requests in flight when the daemon stops; then they are cut off and made again after the next start.
pub const DELIVERY_DRAIN_MS: u64 = 5_000;
/// Dead letters that one request resends or drops at most.
pub const DELIVERY_BULK_MAX: usize = 500;
/// Dead letters that one request resends when it does not say.
pub const DELIVERY_BULK_DEFAULT: usize = 100;
