//! JSON-RPC 2.0, as MCP uses it.
//! Owns: the reading of a message, and the writing of ours.
//! Never: trusts a length, an id or a type that the other side claims.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::content::shown;
use crate::limits::MCP_ERROR_TEXT_BYTES_MAX;

/// No such method.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// Parameters that the receiver cannot use.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// The server does not speak the revision of 2026-07-28 that it was asked with.
pub(super) const UNSUPPORTED_VERSION: i64 = -32022;

/// The error member of an answer. Its text is the server's: shown as such, never acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcError {
    pub code: i64,
    pub message: String,
    pub data: Option<Box<RawText>>,
}

/// JSON text that compares by its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawText(pub String);

/// One message of a server.
#[derive(Debug)]
pub(super) enum Incoming {
    /// To a request of ours; `None` where the server could not tell to which.
    Answer { id: Option<u64>, outcome: Result<Box<RawValue>, RpcError> },
    /// A request to us; its id goes back as it came.
    Request { id: Box<RawValue>, method: String, params: Value },
    /// No answer is wanted.
    Notification { method: String, params: Value },
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoMessage(pub &'static str);

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<String>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorIn<'a> {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Reads one message. Unknown members are passed over.
pub(super) fn read(bytes: &[u8]) -> Result<Incoming, NoMessage> {
    // The parser would take a list for an object that lacks most members.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(NoMessage("no JSON object"));
    }
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|_| NoMessage("no JSON object"))?;
    let params = || match envelope.params {
        None => Ok(Value::Null),
        Some(params) => serde_json::from_str(params.get()).map_err(|_| NoMessage("parameters too deep")),
    };
    match (envelope.method, envelope.id) {
        (Some(method), Some(id)) if id.get().starts_with('"') || is_number(id.get()) => {
            Ok(Incoming::Request { id: id.to_owned(), method, params: params()? })
        }
        (Some(_), Some(_)) => Err(NoMessage("a request with an id that is neither text nor number")),
        (Some(method), None) => Ok(Incoming::Notification { method, params: params()? }),
        (None, id) => {
            // An answer to what we sent has the number that we gave it, and as a number.
            let id = id.and_then(|id| id.get().parse::<u64>().ok());
            let outcome = match (envelope.result, envelope.error) {
                (_, Some(error)) => Err(error_of(error)),
                (Some(result), None) => Ok(result.to_owned()),
                (None, None) => return Err(NoMessage("neither a method nor a result")),
            };
            if id.is_none() && outcome.is_ok() {
                return Err(NoMessage("a result for no request"));
            }
            Ok(Incoming::Answer { id, outcome })
        }
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
}

fn error_of(error: &RawValue) -> RpcError {
    match serde_json::from_str::<ErrorIn<'_>>(error.get()) {
        Ok(_) if !error.get().starts_with('{') => other(),
        Ok(ErrorIn { code, message, data }) => RpcError {
            code,
            message: shown(&message, MCP_ERROR_TEXT_BYTES_MAX),
            data: data.map(|data| Box::new(RawText(data.get().to_string()))),
        },
        Err(_) => other(),
    }
}

fn other() -> RpcError {
    RpcError { code: 0, message: "an error of another form".to_string(), data: None }
}

#[derive(Serialize)]
struct Outgoing<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a Value>,
}

/// A request of ours.
pub(super) fn request(id: u64, method: &str, params: &Value) -> Vec<u8> {
    let params = Some(params).filter(|params| !params.is_null());
    serde_json::to_vec(&Outgoing { jsonrpc: "2.0", id: Some(id), method, params }).expect("plain data")
}

/// A notification of ours.
pub(super) fn notification(method: &str, params: &Value) -> Vec<u8> {
    let params = Some(params).filter(|params| !params.is_null());
    serde_json::to_vec(&Outgoing { jsonrpc: "2.0", id: None, method, params }).expect("plain data")
}

#[derive(Serialize)]
struct AnswerOut<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// What we answer to a server's request: a result, or a code with a text.
pub(super) fn answer(id: &RawValue, outcome: &Result<Value, (i64, String)>) -> Vec<u8> {
    let (result, error) = match outcome {
        Ok(result) => (Some(result), None),
        Err((code, message)) => (None, Some(json!({"code": code, "message": message}))),
    };
    serde_json::to_vec(&AnswerOut { jsonrpc: "2.0", id, result, error }).expect("plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_by_their_members_and_ids_by_their_type() {
        let kind = |text: &str| match read(text.as_bytes()) {
            Ok(Incoming::Answer { id, outcome }) => format!("answer {id:?} {}", outcome.is_ok()),
            Ok(Incoming::Request { id, method, .. }) => format!("request {id} {method}"),
            Ok(Incoming::Notification { method, .. }) => format!("notification {method}"),
            Err(NoMessage(cause)) => cause.to_string(),
        };
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, "answer Some(7) true"),
            (r#"{"id":7,"error":{"code":-1,"message":"x"},"extra":1}"#, "answer Some(7) false"),
            (r#"{"id":null,"error":{"code":-1}}"#, "answer None false"),
            (r#"{"error":"nonsense"}"#, "answer None false"),
            (r#"{"id":"7","result":{}}"#, "a result for no request"),
            (r#"{"id":7.0,"result":{}}"#, "a result for no request"),
            (r#"{"id":0,"method":"ping"}"#, "request 0 ping"),
            (r#"{"id":"a\"b","method":"ping"}"#, r#"request "a\"b" ping"#),
            (r#"{"id":{},"method":"ping"}"#, "a request with an id that is neither text nor number"),
            (r#"{"method":"notifications/x"}"#, "notification notifications/x"),
            (r#"{"id":7}"#, "neither a method nor a result"),
            ("[]", "no JSON object"),
            ("npm warn something", "no JSON object"),
            ("", "no JSON object"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn a_message_as_deep_as_it_is_long_is_no_message_and_no_crash() {
        let deep = format!("{{\"method\":\"x\",\"params\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(deep.as_bytes()).is_err());
    }

    #[test]
    fn our_messages_are_single_lines_and_leave_out_what_is_not_there() {
        assert_eq!(request(1, "ping", &Value::Null), br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        let note = notification("notifications/x", &json!({"a": "b\nc"}));
        assert_eq!(note, br#"{"jsonrpc":"2.0","method":"notifications/x","params":{"a":"b\nc"}}"#);
        let id = RawValue::from_string("\"s\"".to_string()).unwrap();
        assert_eq!(answer(&id, &Ok(json!({}))), br#"{"jsonrpc":"2.0","id":"s","result":{}}"#);
        let refused = answer(&id, &Err((METHOD_NOT_FOUND, "no".to_string())));
        assert_eq!(refused, br#"{"jsonrpc":"2.0","id":"s","error":{"code":-32601,"message":"no"}}"#);
    }
}
