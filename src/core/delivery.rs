//! Deliveries: what runs put out, on its way to reply targets.
//! Owns: reply targets, the records `delivery.*`, the requests about them, and a delivery as the core keeps it.
//! Never: reads an address or a text; those stay in the journal and are found by position.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::action::record_hash;
use super::command::Note;
use crate::hex::{parse_hex, to_hex};
use crate::ids::{DeliveryId, RunId, Seq, SessionId};

/// The kinds of places that output can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyPlugin {
    /// An HTTP address.
    Http,
    /// A Slack channel or thread, through a connector.
    Slack,
    /// A Telegram chat, through a connector.
    Telegram,
    /// A route of an external connector.
    External,
}

impl ReplyPlugin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::Slack, Self::Telegram, Self::External];

    /// The word on the wire and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Slack => "slack",
            Self::Telegram => "telegram",
            Self::External => "external",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plugin| plugin.as_str() == text)
    }
}

/// Where a run's output goes. The address may hold a token; it is never shown, only [`RunReplyTarget::key`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReplyTarget {
    /// The kind.
    pub plugin: ReplyPlugin,
    /// What the kind needs; its form is checked by the delivery room before it comes here.
    pub address: String,
}

impl fmt::Debug for RunReplyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunReplyTarget({})", self.key())
    }
}

impl RunReplyTarget {
    /// Stands for the target wherever it is shown.
    pub fn key(&self) -> TargetKey {
        let hex = record_hash(self.address.as_bytes());
        let bytes = parse_hex(&hex.as_bytes()[..16]).and_then(|bytes| bytes.try_into().ok());
        TargetKey { plugin: self.plugin, digest: bytes.expect("a hash has more than eight bytes") }
    }
}

/// A target without its address: `<plugin>:address_sha256:<16 hex>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    /// The kind.
    pub plugin: ReplyPlugin,
    /// The first 64 bits of SHA-256 over the address.
    pub digest: [u8; 8],
}

impl TargetKey {
    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        let (plugin, rest) = text.split_once(':')?;
        let hex = rest.strip_prefix("address_sha256:").filter(|hex| hex.len() == 16)?;
        let digest = parse_hex(hex.as_bytes())?.try_into().ok()?;
        Some(Self { plugin: ReplyPlugin::parse(plugin)?, digest })
    }
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:address_sha256:{}", self.plugin.as_str(), to_hex(&self.digest))
    }
}

impl Serialize for TargetKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TargetKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a delivery target"))
    }
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// No attempt has failed yet.
    Pending,
    /// An attempt has failed, another follows.
    Retrying,
    /// The receiver has taken it.
    Delivered,
    /// No further attempt is made by itself.
    DeadLettered,
}

impl DeliveryStatus {
    /// Every status, in wire order.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Retrying, Self::Delivered, Self::DeadLettered];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::DeadLettered => "dead_lettered",
        }
    }

    /// Whether an attempt follows.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Retrying)
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryError {
    /// Stable class, e.g. `failed:timeout`.
    pub class: String,
    /// Text for people, redacted and short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What the receiver answered, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
}

/// How a target fares after an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetPressure {
    /// Failures in a row that another attempt can heal.
    #[serde(default)]
    pub consecutive_failures: u32,
    /// No attempt before this time.
    #[serde(default)]
    pub blocked_until_ms: u64,
    /// Since when it fails so often that it is asked rarely; 0 is not so.
    #[serde(default)]
    pub circuit_opened_at_ms: u64,
}

/// Body of `delivery.queued`: in the batch that ends the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryQueued {
    /// The delivery.
    pub id: DeliveryId,
    /// Sent as `Idempotency-Key` with every attempt.
    pub key: String,
    /// The target.
    pub target: TargetKey,
    /// Place of the target in the list of `run.accepted`.
    pub place: u16,
    /// The `run.output` record that is sent.
    pub output: Seq,
    /// The dead letter that this one sends again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_from: Option<DeliveryId>,
}

/// Body of `delivery.retrying`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRetrying {
    /// The delivery.
    pub id: DeliveryId,
    /// Its target.
    pub target: TargetKey,
    /// Attempts so far.
    pub attempts: u32,
    /// Why the last one failed.
    pub error: DeliveryError,
    /// The next one is not before.
    pub next_attempt_at_ms: u64,
    /// How the target fares.
    #[serde(flatten)]
    pub pressure: TargetPressure,
}

/// Body of `delivery.delivered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryDelivered {
    /// The delivery.
    pub id: DeliveryId,
    /// Its target.
    pub target: TargetKey,
    /// Attempts, the last one included.
    pub attempts: u32,
    /// What the receiver answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// How the target fares.
    #[serde(flatten)]
    pub pressure: TargetPressure,
}

/// Body of `delivery.dead_lettered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryDead {
    /// The delivery.
    pub id: DeliveryId,
    /// Its target.
    pub target: TargetKey,
    /// Attempts, the last one included.
    pub attempts: u32,
    /// Why.
    pub error: DeliveryError,
    /// Whether another attempt might have healed it; then there were too many.
    pub exhausted: bool,
    /// How the target fares.
    #[serde(flatten)]
    pub pressure: TargetPressure,
}

/// Body of `delivery.resolved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryResolved {
    /// The dead letter.
    pub id: DeliveryId,
    /// Operator's words.
    pub reason: String,
    /// It was thrown away with others of its age.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

/// Body of `delivery.targets_reset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetsReset {
    /// Targets that may be tried at once.
    pub targets: Vec<TargetKey>,
}

/// Body of `delivery.hold_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryHoldChanged {
    /// Whether nothing is sent.
    pub held: bool,
    /// Operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happened to deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryRecord {
    /// One is owed.
    Queued(DeliveryQueued),
    /// An attempt failed and another follows.
    Retrying(DeliveryRetrying),
    /// The receiver has taken it.
    Delivered(DeliveryDelivered),
    /// No further attempt is made.
    Dead(DeliveryDead),
    /// An operator has dealt with a dead letter.
    Resolved(DeliveryResolved),
    /// Targets may be tried at once.
    Reset(TargetsReset),
    /// Sending was suspended or allowed again.
    Hold(DeliveryHoldChanged),
}

impl DeliveryRecord {
    /// The record kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Queued(_) => "delivery.queued",
            Self::Retrying(_) => "delivery.retrying",
            Self::Delivered(_) => "delivery.delivered",
            Self::Dead(_) => "delivery.dead_lettered",
            Self::Resolved(_) => "delivery.resolved",
            Self::Reset(_) => "delivery.targets_reset",
            Self::Hold(_) => "delivery.hold_changed",
        }
    }

    /// The body as JSON.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Queued(body) => serde_json::to_vec(body),
            Self::Retrying(body) => serde_json::to_vec(body),
            Self::Delivered(body) => serde_json::to_vec(body),
            Self::Dead(body) => serde_json::to_vec(body),
            Self::Resolved(body) => serde_json::to_vec(body),
            Self::Reset(body) => serde_json::to_vec(body),
            Self::Hold(body) => serde_json::to_vec(body),
        }
        .expect("bodies have string keys and no failing serialisers")
    }

    /// Reads a record back; `None` when the kind is no delivery's.
    pub(super) fn decode(kind: &str, body: &RawValue) -> Option<Result<Self, serde_json::Error>> {
        let text = body.get();
        Some(match kind {
            "delivery.queued" => serde_json::from_str(text).map(Self::Queued),
            "delivery.retrying" => serde_json::from_str(text).map(Self::Retrying),
            "delivery.delivered" => serde_json::from_str(text).map(Self::Delivered),
            "delivery.dead_lettered" => serde_json::from_str(text).map(Self::Dead),
            "delivery.resolved" => serde_json::from_str(text).map(Self::Resolved),
            "delivery.targets_reset" => serde_json::from_str(text).map(Self::Reset),
            "delivery.hold_changed" => serde_json::from_str(text).map(Self::Hold),
            _ => return None,
        })
    }
}

/// How retries are spaced. Decisions carry it; replay never asks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// First wait.
    pub initial_retry_ms: u64,
    /// Longest wait by doubling.
    pub max_retry_ms: u64,
    /// Longest wait that a receiver can ask for.
    pub max_retry_after_ms: u64,
    /// Failed attempts after which a delivery is a dead letter.
    pub max_attempts: u32,
    /// Shortest time between two deliveries to one target.
    pub target_min_interval_ms: u64,
    /// Failures in a row that open a circuit; 0 is never.
    pub circuit_failure_threshold: u32,
    /// Shortest wait while it is open.
    pub circuit_cooldown_ms: u64,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver has taken it.
    Delivered {
        /// What it answered.
        http_status: Option<u16>,
    },
    /// Another attempt may heal it.
    Retry {
        /// Why it failed.
        error: DeliveryError,
        /// For how long the receiver wants to be left alone.
        retry_after_ms: Option<u64>,
    },
    /// No other attempt can heal it.
    Dead(DeliveryError),
    /// It was cut off and counts for nothing; it is made again.
    CutOff,
}

/// Which dead letters to send again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Only this session's.
    pub session: Option<SessionId>,
    /// Only this run's.
    pub run: Option<RunId>,
    /// Only to targets of this kind.
    pub plugin: Option<ReplyPlugin>,
    /// Only in this state.
    pub status: Option<DeliveryStatus>,
}

/// A request about deliveries.
#[derive(Debug, Clone)]
pub enum DeliveryCommand {
    /// An attempt is about to be made: its signed request.
    Begin {
        /// Number of the delivery.
        number: u32,
        /// The record of the request.
        note: Note,
    },
    /// What became of it.
    Settle {
        /// Number of the delivery.
        number: u32,
        /// The record of the response.
        note: Note,
        /// What became of it.
        outcome: AttemptOutcome,
        /// How retries are spaced.
        policy: DeliveryPolicy,
    },
    /// Send a dead letter again, as a new delivery.
    Replay {
        /// The dead letter.
        id: DeliveryId,
        /// Also when it was sent again before, and under a new key.
        force: bool,
    },
    /// Take a dead letter off the list of those to deal with.
    Resolve {
        /// The dead letter.
        id: DeliveryId,
        /// Operator's words.
        reason: String,
    },
    /// Take all dead letters off that list which died before `before_ms`, at most `limit`.
    Drop {
        /// Unix milliseconds.
        before_ms: u64,
        /// How many at most.
        limit: usize,
        /// Also those that still wait to be sent.
        waiting: bool,
    },
    /// Forget the failures of targets, so that they are tried at once.
    ResetTargets {
        /// Only this one.
        target: Option<TargetKey>,
        /// Only those of this kind.
        plugin: Option<ReplyPlugin>,
        /// Only tell which.
        dry_run: bool,
    },
    /// Suspend or allow sending.
    SetHold {
        /// Whether to hold.
        held: bool,
        /// Operator's words.
        reason: Option<String>,
    },
}

/// A delivery as the core keeps it; small, whatever its content weighs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Number of its session.
    pub session: u32,
    /// Number of its run.
    pub run: u32,
    /// Its target.
    pub target: TargetKey,
    /// Place of the target in the list of `run.accepted`.
    pub place: u16,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Attempts whose outcome is recorded.
    pub attempts: u32,
    /// When it was queued.
    pub queued_at_ms: u64,
    /// Retrying: when the next attempt is due. Finished: when it finished. Pending: 0.
    pub at_ms: u64,
    /// The `run.output` record.
    pub output: Seq,
    /// Its `delivery.queued` record.
    pub queued: Seq,
    /// Its newest record about an attempt, or `queued`.
    pub last: Seq,
    /// When a dead letter was dealt with; 0 is not yet.
    pub resolved_at_ms: u64,
    /// The record that says so; 0 where a later delivery did it.
    pub resolved: Seq,
    /// Number of the dead letter that it sends again; 0 is none.
    pub replayed_from: u32,
    /// Number of the newest delivery that sends it again; 0 is none.
    pub replay: u32,
    /// Its idempotency key.
    pub key: Box<str>,
}

impl Delivery {
    /// Whether it is a dead letter that nobody has dealt with.
    pub fn is_unresolved(&self) -> bool {
        self.status == DeliveryStatus::DeadLettered && self.resolved_at_ms == 0
    }
}

/// Work for a sender: everything to find address and content by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryJob {
    /// The delivery.
    pub delivery: Delivery,
    /// Its session.
    pub session: SessionId,
    /// Its run.
    pub run: RunId,
    /// The run's acceptance, whose list has the address.
    pub run_first: Seq,
    /// The session's creation, which has its thread id.
    pub session_first: Seq,
}

/// Figures of all deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Waiting, no attempt failed.
    pub pending: u64,
    /// Waiting after a failed attempt.
    pub retrying: u64,
    /// Ever delivered.
    pub delivered: u64,
    /// Ever dead.
    pub dead_lettered: u64,
    /// Dead letters that nobody has dealt with.
    pub unresolved: u64,
    /// Deliveries that runs under way will make.
    pub owed: u64,
    /// Targets with a waiting delivery.
    pub targets: u64,
    /// Of these, those whose last attempt failed.
    pub failing_targets: u64,
    /// Targets that fail so often that they are asked rarely.
    pub open_circuits: u64,
    /// In flight.
    pub in_flight: u64,
    /// In flight to targets that were never reached or failed at last.
    pub in_flight_unproven: u64,
    /// Earliest time at which a target that is not in flight has something due.
    pub next_due_ms: Option<u64>,
    /// Whether nothing is sent.
    pub held: bool,
}
