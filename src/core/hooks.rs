//! Hooks as the journal knows them: how far notifications have come, and which calls of hooks came to nothing.
//! Owns: the records `hook.*`, their fold, and their bounds.
//! Never: knows what a hook's definition means, or calls one.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::{Decision, Refusal};
use super::event::Body;
use super::txn::Txn;
use crate::ids::Seq;
use crate::limits::{HOOK_DEAD_LETTERS_MAX, HOOK_ERROR_BYTES_MAX, HOOKS_MAX, REASON_BYTES_MAX};

/// The hooks in force, as they were given. What they mean is checked by whoever calls them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksSetting {
    /// The document.
    pub document: Value,
    /// SHA-256 of the file that was taken last, so that a start takes a file once and not again over what a caller has
    /// set since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_sha256: Option<String>,
    /// Whether the document is that file's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_file: bool,
}

impl HooksSetting {
    /// No hooks.
    pub fn none() -> Self {
        Self { document: serde_json::json!({"hooks": {}}), file_sha256: None, from_file: false }
    }

    /// What a rollback from `now` to `earlier` makes: the earlier document; which file was taken stays known.
    pub(super) fn rolled_back(now: Option<Self>, earlier: Option<Self>) -> Option<Self> {
        let file_sha256 = now?.file_sha256;
        let from_file = earlier.as_ref().is_some_and(|earlier| earlier.from_file && earlier.file_sha256 == file_sha256);
        Some(Self { file_sha256, from_file, ..earlier.unwrap_or_else(Self::none) })
    }
}

/// A call of a hook that came to nothing. No definition, payload or whole URL is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFailure {
    /// The hook.
    pub hook_name: String,
    /// What it was called for.
    pub event: String,
    /// The tool, or what else it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// For which run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Kind of executor and address, as signed records name it.
    pub target: String,
    /// How often it was tried.
    pub attempt_count: u32,
    /// `open` or `closed`: what the failure meant for whoever waited.
    pub failure_mode: String,
    /// Whether somebody waited.
    pub blocking: bool,
    /// Version of the invocation's form.
    pub contract_version: u32,
    /// Names the invocation; the receiver saw it as well.
    pub invocation_key: String,
    /// SHA-256 of the invocation, hex.
    pub invocation_digest: String,
    /// SHA-256 of the definition, hex.
    pub definition_digest: String,
    /// Stable word.
    pub class: String,
    /// For people, redacted.
    pub error: String,
}

/// A failure that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookDeadLetter {
    /// `hook-dlq-` and the position of its record, which no copy of the state root gives out again.
    pub id: String,
    /// When it was given up, Unix milliseconds.
    pub at_ms: u64,
    /// What failed.
    #[serde(flatten)]
    pub failure: HookFailure,
    /// When somebody settled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at_ms: Option<u64>,
    /// Operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution_reason: Option<String>,
}

/// How far notifications have come: which hooks were called for which record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookProgress {
    /// Every record up to this one is done with.
    pub through: Seq,
    /// The record behind it that is not.
    pub at: Seq,
    /// Hooks that were called for that one.
    pub done: Vec<String>,
    /// The hook whose command may be running for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<String>,
}

/// Body of `hook.notified`: a hook was told of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookNotified {
    /// The record.
    pub of_seq: Seq,
    /// The hook.
    pub hook_name: String,
    /// How often it was tried.
    pub attempt_count: u32,
}

/// Body of `hook.dead_lettered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookDeadLettered {
    /// The record that it should have been told of; absent where a run waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_seq: Option<Seq>,
    /// What failed.
    #[serde(flatten)]
    pub failure: HookFailure,
}

/// Something that happened to hooks.
#[derive(Debug, Clone)]
pub enum HookRecord {
    /// A hook's command is about to run for a record.
    Begun(HookNotified),
    /// A hook was told of a record.
    Notified(HookNotified),
    /// All hooks were told of every record up to this one.
    Advanced(HookAdvanced),
    /// A call came to nothing.
    DeadLettered(Box<HookDeadLettered>),
    /// Somebody settled that.
    Resolved(HookResolved),
}

/// Body of `hook.advanced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookAdvanced {
    /// The record.
    pub through: Seq,
}

/// Body of `hook.dead_letter_resolved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookResolved {
    /// The dead letter.
    pub id: String,
    /// Operator's words.
    pub reason: String,
}

impl HookRecord {
    /// The record kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Begun(_) => "hook.begun",
            Self::Notified(_) => "hook.notified",
            Self::Advanced(_) => "hook.advanced",
            Self::DeadLettered(_) => "hook.dead_lettered",
            Self::Resolved(_) => "hook.dead_letter_resolved",
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let bytes = match self {
            Self::Begun(body) | Self::Notified(body) => serde_json::to_vec(body),
            Self::Advanced(body) => serde_json::to_vec(body),
            Self::DeadLettered(body) => serde_json::to_vec(body),
            Self::Resolved(body) => serde_json::to_vec(body),
        };
        bytes.expect("bodies have string keys and no failing serialisers")
    }

    /// Reads a body back; `None` for another kind.
    pub(super) fn decode(kind: &str, body: &str) -> Option<Result<Self, serde_json::Error>> {
        Some(match kind {
            "hook.begun" => serde_json::from_str(body).map(Self::Begun),
            "hook.notified" => serde_json::from_str(body).map(Self::Notified),
            "hook.advanced" => serde_json::from_str(body).map(Self::Advanced),
            "hook.dead_lettered" => serde_json::from_str(body).map(|body| Self::DeadLettered(Box::new(body))),
            "hook.dead_letter_resolved" => serde_json::from_str(body).map(Self::Resolved),
            _ => return None,
        })
    }
}

/// What may be asked about hooks.
#[derive(Debug, Clone)]
pub enum HookCommand {
    /// A hook's command is about to run for a record: should the daemon end, it is not run again.
    Begun(HookNotified),
    /// A hook was told of a record.
    Notified(HookNotified),
    /// Every record up to this one is done with.
    Advanced(Seq),
    /// A call came to nothing.
    DeadLettered(Box<HookDeadLettered>),
    /// Somebody settles a dead letter; once settled it stays so.
    Resolve {
        /// Which.
        id: String,
        /// Operator's words.
        reason: String,
    },
}

/// The fold of all records of hooks. Shared, never changed in place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookLedger {
    /// How far notifications have come.
    pub progress: HookProgress,
    /// The record that last changed the hooks.
    #[serde(default)]
    pub changed_at: Seq,
    /// Newest last; at most [`HOOK_DEAD_LETTERS_MAX`], of which the oldest settled one goes first.
    #[serde(with = "shared")]
    pub dead_letters: VecDeque<Arc<HookDeadLetter>>,
    /// Dead letters ever written.
    pub dead_lettered_count: u64,
    /// Those that were dropped to keep the bound although nobody had settled them.
    pub dropped_unresolved_count: u64,
}

/// Dead letters as a plain list.
mod shared {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::HookDeadLetter;

    type Letters = VecDeque<Arc<HookDeadLetter>>;

    pub fn serialize<S: Serializer>(letters: &Letters, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(letters.iter().map(|letter| &**letter))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Letters, D::Error> {
        Ok(Vec::<HookDeadLetter>::deserialize(deserializer)?.into_iter().map(Arc::new).collect())
    }
}

impl HookLedger {
    /// Dead letters that nobody has settled.
    pub fn unresolved(&self) -> impl DoubleEndedIterator<Item = &Arc<HookDeadLetter>> {
        self.dead_letters.iter().filter(|letter| letter.resolved_at_ms.is_none())
    }

    fn keep(&mut self, letter: HookDeadLetter) {
        if self.dead_letters.len() >= HOOK_DEAD_LETTERS_MAX {
            let settled = self.dead_letters.iter().position(|letter| letter.resolved_at_ms.is_some());
            if settled.is_none() {
                self.dropped_unresolved_count += 1;
            }
            self.dead_letters.remove(settled.unwrap_or(0));
        }
        self.dead_lettered_count += 1;
        self.dead_letters.push_back(Arc::new(letter));
    }

    fn done(&mut self, of_seq: Seq, hook: &str) {
        let progress = &mut self.progress;
        if of_seq <= progress.through {
            return;
        }
        if progress.at != of_seq {
            *progress = HookProgress { through: progress.through, at: of_seq, ..HookProgress::default() };
        }
        progress.begun = None;
        if !progress.done.iter().any(|done| done == hook) && progress.done.len() < HOOKS_MAX {
            progress.done.push(hook.to_string());
        }
    }

    fn advance(&mut self, through: Seq) {
        let progress = &mut self.progress;
        if through > progress.through {
            progress.through = through;
            if progress.at <= through {
                *progress = HookProgress { through, ..HookProgress::default() };
            }
        }
    }

    /// What one record makes of it.
    fn after(&self, seq: Seq, at_ms: u64, record: &HookRecord) -> Self {
        let mut ledger = self.clone();
        match record {
            HookRecord::Begun(begun) if begun.of_seq > ledger.progress.through => {
                let progress = &mut ledger.progress;
                if progress.at != begun.of_seq {
                    *progress = HookProgress { through: progress.through, at: begun.of_seq, ..HookProgress::default() };
                }
                progress.begun = Some(begun.hook_name.clone());
            }
            HookRecord::Begun(_) => {}
            HookRecord::Notified(notified) => ledger.done(notified.of_seq, &notified.hook_name),
            HookRecord::Advanced(advanced) => ledger.advance(advanced.through),
            HookRecord::DeadLettered(dead) => {
                if let Some(of_seq) = dead.of_seq {
                    ledger.done(of_seq, &dead.failure.hook_name);
                }
                ledger.keep(HookDeadLetter {
                    id: dead_letter_id(seq),
                    at_ms,
                    failure: dead.failure.clone(),
                    resolved_at_ms: None,
                    resolution_reason: None,
                });
            }
            HookRecord::Resolved(resolved) => {
                for letter in ledger.dead_letters.iter_mut().filter(|letter| letter.id == resolved.id) {
                    let (at_ms, reason) = (Some(at_ms), Some(resolved.reason.clone()));
                    let settled =
                        HookDeadLetter { resolved_at_ms: at_ms, resolution_reason: reason, ..(**letter).clone() };
                    *letter = Arc::new(settled);
                }
            }
        }
        ledger
    }
}

fn dead_letter_id(seq: Seq) -> String {
    format!("hook-dlq-{seq}")
}

impl Txn<'_> {
    pub(super) fn decide_hook(&mut self, command: HookCommand) -> Result<Decision, Refusal> {
        let record = match command {
            HookCommand::Begun(begun) => HookRecord::Begun(begun),
            HookCommand::Notified(notified) => HookRecord::Notified(notified),
            HookCommand::Advanced(through) if through <= self.hooks().progress.through => {
                return Ok(Decision::Recorded { last_seq: self.last_seq() });
            }
            HookCommand::Advanced(through) => HookRecord::Advanced(HookAdvanced { through }),
            HookCommand::DeadLettered(mut dead) => {
                cut(&mut dead.failure.error, HOOK_ERROR_BYTES_MAX);
                HookRecord::DeadLettered(dead)
            }
            HookCommand::Resolve { id, mut reason } => {
                let ledger = self.hooks();
                let letter = ledger.dead_letters.iter().find(|letter| letter.id == id);
                let letter = letter.ok_or_else(|| Refusal::HookDeadLetterNotFound(id.clone()))?.clone();
                if letter.resolved_at_ms.is_some() {
                    return Ok(Decision::HookDeadLetter { letter, changed: false });
                }
                cut(&mut reason, REASON_BYTES_MAX);
                self.emit_global(None, Body::Hook(HookRecord::Resolved(HookResolved { id: id.clone(), reason })));
                let letter = self.hooks().dead_letters.iter().find(|letter| letter.id == id).cloned();
                let letter = letter.expect("it was just there");
                return Ok(Decision::HookDeadLetter { letter, changed: true });
            }
        };
        self.emit_global(None, Body::Hook(record));
        Ok(Decision::Recorded { last_seq: self.last_seq() })
    }

    pub(super) fn apply_hook(&mut self, seq: Seq, at_ms: u64, record: &HookRecord) {
        let after = self.hooks().after(seq, at_ms, record);
        self.stage_hooks(Arc::new(after));
    }

    /// The hooks are others from this record on. With its first ones a daemon begins to notify, of what happens from then
    /// on.
    pub(super) fn hooks_changed(&mut self, seq: Seq, are_first: bool) {
        let mut ledger = (*self.hooks()).clone();
        ledger.changed_at = seq;
        if are_first {
            ledger.advance(seq);
        }
        self.stage_hooks(Arc::new(ledger));
    }
}

fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(hook: &str) -> HookFailure {
        HookFailure {
            hook_name: hook.to_string(),
            event: "stop".to_string(),
            subject: None,
            session_id: None,
            run_id: None,
            target: "hook_http:stop:x".to_string(),
            attempt_count: 1,
            failure_mode: "open".to_string(),
            blocking: false,
            contract_version: 1,
            invocation_key: "hook-invocation-0".to_string(),
            invocation_digest: String::new(),
            definition_digest: String::new(),
            class: "connect".to_string(),
            error: "nobody listens".to_string(),
        }
    }

    fn dead(of_seq: Option<Seq>, hook: &str) -> HookRecord {
        HookRecord::DeadLettered(Box::new(HookDeadLettered { of_seq, failure: failure(hook) }))
    }

    fn notified(of_seq: Seq, hook: &str) -> HookRecord {
        HookRecord::Notified(HookNotified { of_seq, hook_name: hook.to_string(), attempt_count: 1 })
    }

    fn begun(of_seq: Seq, hook: &str) -> HookRecord {
        HookRecord::Begun(HookNotified { of_seq, hook_name: hook.to_string(), attempt_count: 0 })
    }

    #[test]
    fn progress_names_what_is_done_of_the_record_at_hand_and_never_goes_back() {
        let mut ledger = HookLedger::default();
        for (record, expected) in [
            (HookRecord::Advanced(HookAdvanced { through: 10 }), (10, 0, vec![])),
            (notified(12, "a"), (10, 12, vec!["a"])),
            (notified(12, "a"), (10, 12, vec!["a"])),
            (dead(Some(12), "b"), (10, 12, vec!["a", "b"])),
            (HookRecord::Advanced(HookAdvanced { through: 11 }), (11, 12, vec!["a", "b"])),
            (HookRecord::Advanced(HookAdvanced { through: 12 }), (12, 0, vec![])),
            (HookRecord::Advanced(HookAdvanced { through: 5 }), (12, 0, vec![])),
            (notified(7, "a"), (12, 0, vec![])),
            (begun(20, "c"), (12, 20, vec!["?c"])),
            (notified(20, "c"), (12, 20, vec!["c"])),
            (begun(20, "d"), (12, 20, vec!["c", "?d"])),
            (begun(21, "c"), (12, 21, vec!["?c"])),
            (begun(3, "c"), (12, 21, vec!["?c"])),
        ] {
            ledger = ledger.after(100, 1, &record);
            let HookProgress { through, at, done, begun } = &ledger.progress;
            let done: Vec<String> = done.iter().cloned().chain(begun.iter().map(|begun| format!("?{begun}"))).collect();
            let (expected_through, expected_at, names) = expected;
            assert_eq!((*through, *at), (expected_through, expected_at), "{record:?}");
            assert_eq!(done, names, "{record:?}");
        }
    }

    #[test]
    fn the_oldest_settled_dead_letter_goes_first_and_a_lost_unsettled_one_is_counted() {
        let mut ledger = HookLedger::default();
        for seq in 1..=HOOK_DEAD_LETTERS_MAX as u64 {
            ledger = ledger.after(seq, seq, &dead(None, "a"));
        }
        let resolved = HookResolved { id: dead_letter_id(2), reason: "seen".to_string() };
        ledger = ledger.after(5_000, 7, &HookRecord::Resolved(resolved));
        let letter = &ledger.dead_letters[1];
        assert_eq!((letter.resolved_at_ms, letter.resolution_reason.as_deref()), (Some(7), Some("seen")));
        ledger = ledger.after(5_001, 8, &dead(None, "b"));
        let ids = |ledger: &HookLedger| ledger.dead_letters.iter().take(2).map(|l| l.id.clone()).collect::<Vec<_>>();
        assert_eq!((ids(&ledger), ledger.dropped_unresolved_count), (vec![dead_letter_id(1), dead_letter_id(3)], 0));
        ledger = ledger.after(5_002, 9, &dead(None, "c"));
        assert_eq!((ids(&ledger), ledger.dropped_unresolved_count), (vec![dead_letter_id(3), dead_letter_id(4)], 1));
        assert_eq!(ledger.dead_letters.len(), HOOK_DEAD_LETTERS_MAX);
        assert_eq!(ledger.dead_lettered_count, HOOK_DEAD_LETTERS_MAX as u64 + 2);
    }

    #[test]
    fn records_come_back_as_they_went_in() {
        for record in [
            dead(Some(3), "a"),
            notified(4, "b"),
            begun(4, "b"),
            HookRecord::Advanced(HookAdvanced { through: 9 }),
            HookRecord::Resolved(HookResolved { id: "hook-dlq-1".to_string(), reason: "ok".to_string() }),
        ] {
            let text = String::from_utf8(record.encode()).unwrap();
            let again = HookRecord::decode(record.kind(), &text).expect("ours").unwrap();
            assert_eq!(format!("{again:?}"), format!("{record:?}"));
        }
        assert!(HookRecord::decode("task.created", "{}").is_none());
    }
}
