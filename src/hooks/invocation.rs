//! What a hook is told.
//! Owns: the invocation's form, its key, and the key of each hook's execution of it.
//! Never: makes two events look like one: the key stands for this one event, over all attempts and restarts.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde_json::{Value, json};

use super::event::HookEvent;
use crate::hex::to_hex;
use crate::ids::{RunId, Seq, SessionId};
use crate::limits::HOOK_PAYLOAD_BYTES_MAX;

/// Version of the invocation and of answers.
pub const CONTRACT_VERSION: u32 = 1;

/// One event, as hooks are told of it.
#[derive(Debug, Clone, Serialize)]
pub struct Invocation {
    event: &'static str,
    /// What a matcher is compared with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    payload: Value,
    contract_version: u32,
    /// Names the event; the same over all attempts.
    pub invocation_key: String,
    /// What it is about.
    #[serde(skip)]
    pub of: HookEvent,
    /// Whether the payload was not left out.
    #[serde(skip)]
    pub is_whole: bool,
}

impl Invocation {
    /// An event that a record tells of. Made again after a restart, it is the same one.
    pub fn of_record(event: HookEvent, subject: &str, payload: Value, seq: Seq) -> Self {
        Self::of_place(event, subject, payload, &format!("record {seq}"))
    }

    /// An event that somebody waits for, at a `place` that no other one has: run, turn and call. Asked again after a
    /// restart, it is the same one.
    pub fn of_place(event: HookEvent, subject: &str, payload: Value, place: &str) -> Self {
        let name = format!("{} {place}", event.as_str());
        let key = to_hex(&digest(&SHA256, name.as_bytes()).as_ref()[..16]);
        Self::new(event, subject, payload, key)
    }

    fn new(event: HookEvent, subject: &str, payload: Value, key: String) -> Self {
        let bytes = payload.to_string().len();
        let is_whole = bytes <= HOOK_PAYLOAD_BYTES_MAX;
        let payload = match is_whole {
            false => json!({"truncated": true, "original_bytes": bytes}),
            true => payload,
        };
        Self {
            event: event.as_str(),
            subject: subject.to_string(),
            session_id: None,
            agent_id: None,
            run_id: None,
            payload,
            contract_version: CONTRACT_VERSION,
            invocation_key: format!("hook-invocation-{key}"),
            of: event,
            is_whole,
        }
    }

    /// The same, about these.
    pub fn about(self, session_id: Option<SessionId>, run_id: Option<RunId>, agent: Option<&str>) -> Self {
        Self { session_id, run_id, agent_id: agent.map(str::to_string), ..self }
    }

    /// The bytes that a hook gets.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an invocation has string keys and no failing serialisers")
    }

    /// What a receiver dedupes by: this hook's execution of this event.
    pub fn execution_key(&self, hook: &str) -> String {
        let name = format!("{CONTRACT_VERSION} {hook} {}", self.invocation_key);
        format!("hook-execution-{}", to_hex(&digest(&SHA256, name.as_bytes()).as_ref()[..16]))
    }
}

/// For the spread of retries.
pub(super) fn random_byte() -> u8 {
    let mut byte = [0];
    // Without randomness there is no spread, which is harmless for one daemon.
    let _no_spread = SystemRandom::new().fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_event_keeps_its_keys_and_two_events_never_share_one() {
        let of = |seq| Invocation::of_record(HookEvent::Stop, "s", json!({"a": 1}), seq);
        assert_eq!(of(7).bytes(), of(7).bytes());
        assert_ne!(of(7).invocation_key, of(8).invocation_key);
        assert_ne!(of(7).execution_key("a"), of(7).execution_key("b"));
        assert_eq!(of(7).execution_key("a"), of(7).execution_key("a"));
        let at = |place| Invocation::of_place(HookEvent::Stop, "s", json!({"a": 1}), place);
        assert_ne!(at("run-1 1").invocation_key, at("run-1 2").invocation_key, "two equal events are two");
        assert_eq!(at("run-1 1").bytes(), at("run-1 1").bytes());
    }

    #[test]
    fn the_form_is_the_documented_one_and_a_large_payload_is_left_out_and_said_so() {
        let session = SessionId::parse("ops").unwrap();
        let run = RunId::parse("run-3").unwrap();
        let told = Invocation::of_record(HookEvent::PreToolUse, "bash", json!({"tool_name": "bash"}), 9);
        let told = told.about(Some(session), Some(run), Some("agent-1"));
        let expected = json!({"event": "pre_tool_use", "subject": "bash", "session_id": "ops", "agent_id": "agent-1",
            "run_id": "run-3", "payload": {"tool_name": "bash"}, "contract_version": 1,
            "invocation_key": told.invocation_key});
        assert_eq!(serde_json::from_slice::<Value>(&told.bytes()).unwrap(), expected);
        assert!(told.is_whole);
        let text = "x".repeat(HOOK_PAYLOAD_BYTES_MAX);
        let large = Invocation::of_record(HookEvent::Stop, "", json!({"text": text}), 1);
        assert!(!large.is_whole);
        let shown = serde_json::from_slice::<Value>(&large.bytes()).unwrap();
        assert_eq!(shown["payload"], json!({"truncated": true, "original_bytes": HOOK_PAYLOAD_BYTES_MAX + 11}));
        assert!(shown.get("subject").is_none());
    }
}
