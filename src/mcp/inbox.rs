//! What a server asks or tells by itself.
//! Owns: the answers to its requests, and the note that its lists have changed.
//! Never: gives anything away but the path of the workspace; samples a model for a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::link::Receiver;
use super::message::{INVALID_PARAMS, METHOD_NOT_FOUND};
use crate::limits::MCP_ERROR_TEXT_BYTES_MAX;
use crate::sys::EventFd;
use crate::tools::cut_bytes;

const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The receiver of one connection.
pub(super) struct Inbox {
    server: String,
    root: String,
    elicits: bool,
    lists_changed: AtomicBool,
    wake: Arc<EventFd>,
}

impl Inbox {
    pub fn new(server: &str, workspace: &str, elicits: bool, wake: Arc<EventFd>) -> Self {
        let root = format!("file://{}", utf8_percent_encode(workspace, PATH));
        Self { server: server.to_string(), root, elicits, lists_changed: AtomicBool::new(false), wake }
    }

    /// Has the connection's thread look after it.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Whether the server said since the last question that one of its lists has changed.
    pub fn take_changed(&self) -> bool {
        self.lists_changed.swap(false, Ordering::SeqCst)
    }
}

impl Receiver for Inbox {
    fn request(&self, method: &str, params: &Value) -> Result<Value, (i64, String)> {
        match method {
            "ping" => Ok(json!({})),
            "roots/list" => Ok(json!({"roots": [{"uri": self.root, "name": "workspace"}]})),
            "elicitation/create" if self.elicits => match params["mode"].as_str() {
                // Nobody can be asked on this way; a call that can ask takes such requests before they come here.
                None | Some("form") => Ok(json!({"action": "decline"})),
                Some(_) => Err((INVALID_PARAMS, "this mode of elicitation is not supported".to_string())),
            },
            _ => Err((METHOD_NOT_FOUND, "this client does not have the method".to_string())),
        }
    }

    fn notified(&self, method: &str, params: &Value) {
        match method {
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => {
                self.lists_changed.store(true, Ordering::SeqCst);
                self.wake.wake();
            }
            "notifications/message" => {
                let text = match &params["data"] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                log::debug!("MCP server {}: {}", self.server, cut_bytes(&text, MCP_ERROR_TEXT_BYTES_MAX));
            }
            // Progress, cancellations of what was answered at once, updates that nobody subscribed to.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_the_workspace_and_is_refused_everything_else() {
        let wake = Arc::new(EventFd::new().unwrap());
        let inbox = Inbox::new("s", "/work space/ä", true, wake);
        let roots = inbox.request("roots/list", &Value::Null).unwrap();
        assert_eq!(roots, json!({"roots": [{"uri": "file:///work%20space/%C3%A4", "name": "workspace"}]}));
        assert_eq!(inbox.request("ping", &Value::Null), Ok(json!({})));
        let code = |method: &str, params: &Value| inbox.request(method, params).unwrap_err().0;
        assert_eq!(code("sampling/createMessage", &Value::Null), METHOD_NOT_FOUND);
        assert_eq!(code("elicitation/create", &json!({"mode": "url"})), INVALID_PARAMS);
        assert!(!inbox.take_changed());
        inbox.notified("notifications/tools/list_changed", &Value::Null);
        assert!(inbox.take_changed() && !inbox.take_changed());
    }
}
