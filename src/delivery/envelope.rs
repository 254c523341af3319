//! The bodies that receivers get.
//! Owns: their wire forms, made from a run's output record and nothing that changes between attempts.
//! Never: puts the number of an attempt into a body; a repeat has the same bytes, and the number travels in a header.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::target::{ExternalAddress, SlackAddress, TelegramAddress};
use crate::core::record_hash;
use crate::ids::{RunId, SessionId};
use crate::limits::TELEGRAM_CHARS_MAX;

/// The output of a run as its record has it.
#[derive(Deserialize)]
pub(super) struct OutputRecord {
    output: Output,
}

#[derive(Deserialize)]
struct Output {
    content: String,
    #[serde(default)]
    parts: Vec<Box<RawValue>>,
    #[serde(default)]
    artifacts: Vec<Box<RawValue>>,
}

/// What every body is made of.
pub(super) struct Content<'a> {
    pub session: &'a SessionId,
    pub thread_id: Option<String>,
    pub run: RunId,
    /// The id under which a receiver first saw it: a dead letter that is sent again keeps it.
    pub delivery: &'a str,
    pub record: OutputRecord,
}

#[derive(Serialize)]
struct Metadata<'a> {
    run_id: RunId,
    delivery_id: &'a str,
}

#[derive(Serialize)]
struct HttpBody<'a> {
    session_id: &'a SessionId,
    thread_id: Option<&'a str>,
    content: &'a str,
    parts: &'a [Box<RawValue>],
    resolved_parts: &'a [Box<RawValue>],
    artifacts: &'a [Box<RawValue>],
    artifact_attachments: &'a [Box<RawValue>],
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct SidecarBody<'a> {
    protocol_version: u32,
    delivery_id: &'a str,
    attempt: u32,
    reply_route: &'a str,
    conversation: Conversation<'a>,
    content: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    parts: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    artifacts: &'a [Box<RawValue>],
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Conversation<'a> {
    session_id: &'a SessionId,
    thread_id: Option<&'a str>,
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("bodies have string keys and no failing serialisers")
}

impl Content<'_> {
    fn metadata(&self) -> Metadata<'_> {
        Metadata { run_id: self.run, delivery_id: self.delivery }
    }

    /// For an HTTP target.
    pub(super) fn http(&self) -> Vec<u8> {
        let Output { content, parts, artifacts } = &self.record.output;
        bytes(&HttpBody {
            session_id: self.session,
            thread_id: self.thread_id.as_deref(),
            content,
            parts,
            resolved_parts: parts,
            artifacts,
            artifact_attachments: &[],
            metadata: self.metadata(),
        })
    }

    /// For a sidecar. The protocol has a field for the attempt, which is 1 always.
    pub(super) fn sidecar(&self, address: &ExternalAddress) -> Vec<u8> {
        let Output { content, parts, artifacts } = &self.record.output;
        bytes(&SidecarBody {
            protocol_version: 1,
            delivery_id: self.delivery,
            attempt: 1,
            reply_route: &address.route,
            conversation: Conversation { session_id: self.session, thread_id: self.thread_id.as_deref() },
            content,
            parts,
            artifacts,
            metadata: self.metadata(),
        })
    }

    /// For `chat.postMessage`; `client_msg_id` is the same in every attempt.
    pub(super) fn slack(&self, address: &SlackAddress) -> Vec<u8> {
        let hash = record_hash(self.delivery.as_bytes());
        let id = [&hash[..8], &hash[8..12], &hash[12..16], &hash[16..20], &hash[20..32]].join("-");
        let mut body = json!({
            "channel": address.channel_id,
            "text": self.record.output.content,
            "client_msg_id": id,
        });
        if let Some(thread) = &address.thread_ts {
            body["thread_ts"] = json!(thread);
        }
        bytes(&body)
    }

    /// For `sendMessage`; a longer text is cut and says so.
    pub(super) fn telegram(&self, address: &TelegramAddress) -> Vec<u8> {
        let content = &self.record.output.content;
        let length = content.chars().count();
        let text = if length > TELEGRAM_CHARS_MAX {
            let notice = format!("\n[cut; the whole answer has {length} characters: {}]", self.run);
            content.chars().take(TELEGRAM_CHARS_MAX - notice.chars().count()).chain(notice.chars()).collect()
        } else {
            content.clone()
        };
        let mut body = json!({"chat_id": address.chat_id, "text": text});
        if let Some(topic) = address.message_thread_id {
            body["message_thread_id"] = json!(topic);
        }
        if let Some(message) = address.reply_to_message_id {
            body["reply_parameters"] = json!({"message_id": message, "allow_sending_without_reply": true});
        }
        bytes(&body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(session: &SessionId, text: &str) -> Content<'static> {
        let record = json!({"output": {"content": text, "parts": [{"type": "text", "text": text}]}}).to_string();
        let session: &'static SessionId = Box::leak(Box::new(session.clone()));
        Content {
            session,
            thread_id: None,
            run: RunId::parse("run-7").unwrap(),
            delivery: "delivery-7",
            record: serde_json::from_str(&record).unwrap(),
        }
    }

    #[test]
    fn bodies_have_the_documented_members_and_nothing_that_changes_between_attempts() {
        let session = SessionId::parse("s1").unwrap();
        let made = content(&session, "done");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(made.http()),
            r#"{"session_id":"s1","thread_id":null,"content":"done","parts":[{"text":"done","type":"text"}],"resolved_parts":[{"text":"done","type":"text"}],"artifacts":[],"artifact_attachments":[],"metadata":{"run_id":"run-7","delivery_id":"delivery-7"}}"#
        );
        let address = ExternalAddress { connector: "ops".to_string(), route: "{}".to_string() };
        assert_eq!(
            text(made.sidecar(&address)),
            r#"{"protocol_version":1,"delivery_id":"delivery-7","attempt":1,"reply_route":"{}","conversation":{"session_id":"s1","thread_id":null},"content":"done","parts":[{"text":"done","type":"text"}],"metadata":{"run_id":"run-7","delivery_id":"delivery-7"}}"#
        );
    }

    #[test]
    fn a_text_that_is_too_long_for_a_chat_says_that_it_was_cut() {
        let session = SessionId::parse("s1").unwrap();
        let address = TelegramAddress {
            connector: "t".to_string(),
            chat_id: -5,
            message_thread_id: None,
            reply_to_message_id: None,
        };
        let body: serde_json::Value =
            serde_json::from_slice(&content(&session, &"é".repeat(5_000)).telegram(&address)).unwrap();
        let sent = body["text"].as_str().unwrap();
        assert_eq!(sent.chars().count(), TELEGRAM_CHARS_MAX);
        assert!(sent.ends_with("characters: run-7]"), "{sent}");
    }
}
