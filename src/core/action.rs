//! Signed records of what leaves the daemon: model calls and every other external action.
//! Owns: the records' bytes (docs/audit.md), their chains, and which actions have no outcome yet.
//! May touch: the signer that is handed in, as the clock is.
//! Never: writes a record without a signature; spells a record anew, its bytes are what was signed.

use std::borrow::Cow;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::command::{Note, NoteKind};
use crate::hex::{parse_hex, to_hex};
use crate::ids::{RunId, Seq, SessionId};

/// Signs what an auditor checks with the public key alone.
pub trait Signer: Send + Sync {
    /// Names the key in records.
    fn key_id(&self) -> String;

    /// The Ed25519 signature of `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// Name of the chain that has all actions outside an active run.
pub const DAEMON_CHAIN: &str = "daemon";
/// What stands between the signed bytes of a record and its hash.
pub const HASH_LABEL: &str = ",\"record_hash\":\"";
/// What stands between a record's hash and its signature.
pub const SIGNATURE_LABEL: &str = "\",\"signature\":\"";
/// What ends a record.
pub const RECORD_END: &str = "\"}";
/// Bytes behind the signed ones.
pub const RECORD_TAIL_BYTES: usize = HASH_LABEL.len() + 64 + SIGNATURE_LABEL.len() + 128 + RECORD_END.len();

/// What the caller knows of an action before its bytes leave. Every member lands in the signed record as it is.
#[derive(Debug, Serialize)]
pub struct ActionRequest<'a, D: Serialize> {
    /// The caller's handle, by which [`ActionResponse`] names the action; unique among the open ones of its run.
    pub action: u32,
    /// `model_provider`, `web_fetch`, `hook`, `mcp`, `connector_delivery`, `oauth`.
    pub kind: &'a str,
    /// Driver and address, without query or credential.
    pub target: &'a str,
    /// The tool call that it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<&'a str>,
    /// The broker's lease; absent where no credential is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<&'a str>,
    /// SHA-256 of the request body, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<&'a str>,
    /// What the kind has beyond that; an object, merged into the record.
    #[serde(flatten)]
    pub detail: D,
}

/// What the caller knows of an action after it.
#[derive(Debug, Serialize)]
pub struct ActionResponse<'a, D: Serialize> {
    /// The handle of the request.
    pub action: u32,
    /// `succeeded`, `failed`, `unknown`.
    pub outcome: &'a str,
    /// SHA-256 of the response body, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_digest: Option<&'a str>,
    /// What the kind has beyond that; an object, merged into the record.
    #[serde(flatten)]
    pub detail: D,
}

impl Note {
    /// The record of an action about to be taken. The core adds id, time, chain and signature.
    ///
    /// # Panics
    /// `detail` is no object.
    pub fn action_request<D: Serialize>(request: &ActionRequest<'_, D>) -> Self {
        Self { kind: NoteKind::ActionRequest, body: raw(request) }
    }

    /// The record of what came of it.
    ///
    /// # Panics
    /// `detail` is no object.
    pub fn action_response<D: Serialize>(response: &ActionResponse<'_, D>) -> Self {
        Self { kind: NoteKind::ActionResponse, body: raw(response) }
    }
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("drafts have string keys and no failing serialisers")
}

/// Where a chain of records stands, and which of its actions have no outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ActionChain {
    /// Records so far.
    count: u32,
    /// `record_hash` of the last one.
    hash: String,
    /// Oldest first.
    open: Vec<OpenAction>,
}

/// An action whose outcome is not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenAction {
    /// The caller's handle; the position of the request where it gave none.
    pub(super) handle: u64,
    /// Number of the run that it serves; 0 is none.
    pub(super) run: u32,
    /// Position of the request; the action's id says it.
    request: Seq,
    kind: String,
    target: String,
}

/// Who and when, for one record.
pub(super) struct Occasion<'a> {
    /// The chain: a run, or the daemon's own.
    pub(super) chain: Option<RunId>,
    pub(super) session: Option<&'a SessionId>,
    pub(super) agent: Option<String>,
    pub(super) run: Option<RunId>,
    pub(super) seq: Seq,
    pub(super) at_ms: u64,
}

/// What stands before the draft's members, in this order.
#[derive(Serialize)]
struct Prefix<'a> {
    action_id: String,
    chain: String,
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_hash: Option<&'a str>,
    timestamp_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
    phase: &'static str,
    /// Those of the request, where a response does not name its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

/// The parts of a draft that the core looks at.
#[derive(Deserialize)]
struct DraftHead<'a> {
    #[serde(default)]
    action: Option<u64>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
}

/// The parts of a record that the core folds.
#[derive(Deserialize)]
struct RecordHead<'a> {
    #[serde(borrow, default)]
    action_id: Cow<'a, str>,
    #[serde(borrow, default)]
    chain: Cow<'a, str>,
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    prev_hash: Cow<'a, str>,
    #[serde(default)]
    action: Option<u64>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    target: Cow<'a, str>,
    #[serde(borrow, default)]
    record_hash: Cow<'a, str>,
}

/// What a record does to its chain.
pub(super) struct Applied {
    /// Whether it belongs to the daemon's chain, whatever run it names.
    pub(super) is_daemons: bool,
    /// The chain after it.
    pub(super) chain: ActionChain,
}

/// Whether a request, draft or record, asks a model; formats that did not say a kind knew no other.
pub(crate) fn is_model_call(body: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, default)]
        kind: Option<Cow<'a, str>>,
    }
    let kind = serde_json::from_str::<Kind<'_>>(body.get()).ok().and_then(|read| read.kind);
    kind.is_none_or(|kind| kind == "model_provider")
}

impl ActionChain {
    /// Actions without an outcome, oldest first.
    pub(super) fn open(&self) -> &[OpenAction] {
        &self.open
    }

    /// Makes the signed record of `draft`. `is_request` tells the phase.
    pub(super) fn sign(
        &self,
        occasion: &Occasion<'_>,
        is_request: bool,
        draft: &RawValue,
        signer: &dyn Signer,
    ) -> Box<RawValue> {
        let head: DraftHead<'_> = serde_json::from_str(draft.get()).unwrap_or(DraftHead { action: None, kind: None });
        let open = self.open.iter().find(|open| !is_request && Some(open.handle) == head.action);
        let request = open.map_or(occasion.seq, |open| open.request);
        let prefix = Prefix {
            action_id: action_id(request),
            chain: occasion.chain.map_or_else(|| DAEMON_CHAIN.to_string(), |run| run.to_string()),
            index: self.count + 1,
            prev_hash: Some(self.hash.as_str()).filter(|hash| !hash.is_empty()),
            timestamp_ms: occasion.at_ms,
            session_id: occasion.session,
            agent_id: occasion.agent.as_deref(),
            run_id: occasion.run,
            phase: if is_request { "request" } else { "response" },
            kind: open.filter(|_| head.kind.is_none()).map(|open| open.kind.as_str()),
            target: open.filter(|_| head.kind.is_none()).map(|open| open.target.as_str()),
        };
        let mut text = serde_json::to_string(&prefix).expect("strings and numbers serialise");
        text.pop();
        let members = draft.get().trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        if !members.trim().is_empty() {
            text.push(',');
            // What the journal would do to line breaks later must not change signed bytes.
            text.extend(members.chars().map(|char| if matches!(char, '\n' | '\r') { ' ' } else { char }));
        }
        text.push_str(",\"signature_alg\":\"ed25519\",\"key_id\":\"");
        text.push_str(&signer.key_id());
        text.push('"');
        let (hash, signature) = (record_hash(text.as_bytes()), signer.sign(text.as_bytes()));
        text.push_str(HASH_LABEL);
        text.push_str(&hash);
        text.push_str(SIGNATURE_LABEL);
        text.push_str(&to_hex(&signature));
        text.push_str(RECORD_END);
        RawValue::from_string(text).expect("a draft is an object, and so is its record")
    }

    /// The draft that closes an open action of which nobody will tell.
    pub(super) fn unknown(open: &OpenAction, cause: &'static str) -> Box<RawValue> {
        #[derive(Serialize)]
        struct Unknown {
            action: u64,
            outcome: &'static str,
            cause: &'static str,
        }
        raw(&Unknown { action: open.handle, outcome: "unknown", cause })
    }

    /// The chain after the record at `seq`; `None` for a record without a signature, which formats before this one
    /// wrote.
    ///
    /// # Errors
    /// The record does not follow.
    pub(super) fn apply(
        seq: Seq,
        run: u32,
        is_request: bool,
        body: &RawValue,
        chains: impl FnOnce(bool) -> Option<Self>,
    ) -> Result<Option<Applied>, String> {
        let head: RecordHead<'_> =
            serde_json::from_str(body.get()).map_err(|error| format!("an action record cannot be read: {error}"))?;
        if head.record_hash.is_empty() {
            return Ok(None);
        }
        let is_daemons = head.chain == DAEMON_CHAIN;
        let mut chain = chains(is_daemons).unwrap_or_default();
        if head.index != chain.count + 1 || head.prev_hash != chain.hash {
            return Err(format!(
                "action record {} of chain {} does not follow its {}",
                head.index, head.chain, chain.count
            ));
        }
        chain.count += 1;
        chain.hash = head.record_hash.into_owned();
        if is_request {
            chain.open.push(OpenAction {
                handle: head.action.unwrap_or(seq),
                run,
                request: seq,
                kind: head.kind.into_owned(),
                target: head.target.into_owned(),
            });
        } else {
            let id = head.action_id;
            chain.open.retain(|open| action_id(open.request) != id);
        }
        Ok(Some(Applied { is_daemons, chain }))
    }
}

/// The name that joins an action's two records: the position of the first, which no copy of the state root gives out
/// again.
fn action_id(request: Seq) -> String {
    format!("action-{request}")
}

/// SHA-256 of a record's signed bytes, hex.
pub fn record_hash(signed: &[u8]) -> String {
    to_hex(digest(&SHA256, signed).as_ref())
}

/// The parts of a record for whoever checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord<'a> {
    /// The bytes that were hashed and signed.
    pub signed: &'a str,
    /// SHA-256 of them, as the record says.
    pub record_hash: &'a str,
    /// The 64 bytes of the signature.
    pub signature: Vec<u8>,
}

impl<'a> SignedRecord<'a> {
    /// Takes a record apart; `None` when it has no signature where one belongs.
    pub fn split(record: &'a str) -> Option<Self> {
        let at = record.len().checked_sub(RECORD_TAIL_BYTES)?;
        let (signed, tail) = (record.get(..at)?, record.get(at..)?);
        let tail = tail.strip_prefix(HASH_LABEL)?.strip_suffix(RECORD_END)?;
        let (record_hash, signature) = (tail.get(..64)?, tail.get(64..)?.strip_prefix(SIGNATURE_LABEL)?);
        let signature = parse_hex(signature.as_bytes())?;
        Some(Self { signed, record_hash, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::key::SigningKey;

    fn occasion(session: &SessionId, seq: Seq) -> Occasion<'_> {
        let run = RunId::parse("run-7");
        Occasion {
            chain: run,
            session: Some(session),
            agent: Some("agent-3".to_string()),
            run,
            seq,
            at_ms: 1_000 + seq,
        }
    }

    fn draft(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_string()).unwrap()
    }

    fn applied(chain: &ActionChain, seq: Seq, is_request: bool, body: &RawValue) -> Result<ActionChain, String> {
        let applied = ActionChain::apply(seq, 7, is_request, body, |_| Some(chain.clone()))?;
        Ok(applied.expect("signed").chain)
    }

    #[test]
    fn a_records_bytes_are_those_of_the_documentation_and_its_signature_covers_them() {
        let key = SigningKey::from_seed(&[7; 32]);
        let session = SessionId::parse("ops").unwrap();
        let request = ActionRequest {
            action: 1,
            kind: "model_provider",
            target: "openai http://127.0.0.1:9/v1/responses",
            tool_call_id: None,
            lease: Some("lease-1"),
            request_digest: Some("aa"),
            detail: serde_json::json!({"route": "main"}),
        };
        let chain = ActionChain::default();
        let body = chain.sign(&occasion(&session, 41), true, &Note::action_request(&request).body, &key);
        let record = SignedRecord::split(body.get()).unwrap();
        let key_id = Signer::key_id(&key);
        assert_eq!(
            record.signed,
            format!(
                r#"{{"action_id":"action-41","chain":"run-7","index":1,"timestamp_ms":1041,"session_id":"ops","agent_id":"agent-3","run_id":"run-7","phase":"request","action":1,"kind":"model_provider","target":"openai http://127.0.0.1:9/v1/responses","lease":"lease-1","request_digest":"aa","route":"main","signature_alg":"ed25519","key_id":"{key_id}""#
            )
        );
        assert_eq!(record.record_hash, record_hash(record.signed.as_bytes()));
        assert!(key.public().verify(record.signed.as_bytes(), &record.signature));
        let chain = applied(&chain, 41, true, &body).unwrap();

        let response = ActionResponse {
            action: 1,
            outcome: "succeeded",
            response_digest: Some("bb"),
            detail: serde_json::json!({"http_status": 200}),
        };
        let body = chain.sign(&occasion(&session, 43), false, &Note::action_response(&response).body, &key);
        let (signed, first) = (SignedRecord::split(body.get()).unwrap().signed, record.record_hash);
        assert!(
            signed.starts_with(&format!(
                r#"{{"action_id":"action-41","chain":"run-7","index":2,"prev_hash":"{first}","timestamp_ms":1043,"#
            )),
            "one id joins the two, and the chain goes on: {signed}"
        );
        assert!(
            signed.contains(
                r#""phase":"response","kind":"model_provider","target":"openai http://127.0.0.1:9/v1/responses","action":1,"outcome":"succeeded""#
            ),
            "{signed}"
        );
        assert!(applied(&chain, 43, false, &body).unwrap().open().is_empty());
    }

    #[test]
    fn line_breaks_and_odd_drafts_never_change_signed_bytes_afterwards() {
        let key = SigningKey::from_seed(&[7; 32]);
        let session = SessionId::parse("ops").unwrap();
        for text in ["{}", "{ }", "{\n\"action\": 1,\r\n\"kind\": \"hook\"}", "{\"a\":{\"b\":\"}\"}}"] {
            let body = ActionChain::default().sign(&occasion(&session, 1), true, &draft(text), &key);
            assert!(!body.get().contains(['\n', '\r']), "{body}");
            let record = SignedRecord::split(body.get()).unwrap();
            assert!(key.public().verify(record.signed.as_bytes(), &record.signature), "{body}");
        }
    }

    #[test]
    fn a_record_out_of_its_place_in_the_chain_is_refused_and_one_of_an_older_format_is_passed_over() {
        let key = SigningKey::from_seed(&[7; 32]);
        let session = SessionId::parse("ops").unwrap();
        let empty = ActionChain::default();
        let first = empty.sign(&occasion(&session, 1), true, &draft(r#"{"action":1,"kind":"hook"}"#), &key);
        let one = applied(&empty, 1, true, &first).unwrap();
        let second = one.sign(&occasion(&session, 2), true, &draft(r#"{"action":2,"kind":"hook"}"#), &key);
        assert!(applied(&empty, 2, true, &second).is_err(), "the first is missing");
        assert!(applied(&one, 1, true, &first).is_err(), "the first is there twice");
        let two = applied(&one, 2, true, &second).unwrap();
        assert_eq!(two.open().iter().map(|open| open.handle).collect::<Vec<_>>(), [1, 2]);
        let unsigned = ActionChain::apply(3, 7, true, &draft(r#"{"action":1}"#), |_| None);
        assert!(matches!(unsigned, Ok(None)));
    }
}
