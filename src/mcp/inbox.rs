//! What a server asks or tells by itself.
//! Owns: the answers to its requests, and the note that its lists have changed.
//! Never: gives anything away but the path of the workspace; samples a model for a server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::asking::UnderWay;
use super::content::shown;
use super::form::{self, Reply, Wish};
use super::link::{Asked, Given, Receiver};
use super::message::{INVALID_PARAMS, METHOD_NOT_FOUND};
use super::session::Session;
use crate::limits::{MCP_ERROR_TEXT_BYTES_MAX, MCP_RELIST_MS};
use crate::sys::EventFd;

const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The receiver of one connection.
pub(super) struct Inbox {
    server: String,
    root: String,
    elicits: bool,
    lists_changed: AtomicBool,
    /// When the lists were last taken again.
    taken_at: Mutex<Option<Instant>>,
    wake: Arc<EventFd>,
    /// Who sends answers that people give.
    session: OnceLock<Weak<Session>>,
    /// Calls under way that people may be asked for.
    askers: Mutex<Vec<Weak<UnderWay>>>,
}

/// Takes its call from the list.
pub(super) struct Listed<'i> {
    inbox: &'i Inbox,
    call: Weak<UnderWay>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.inbox.askers().retain(|other| !other.ptr_eq(&self.call));
    }
}

impl Inbox {
    pub fn new(server: &str, workspace: &str, elicits: bool, wake: Arc<EventFd>) -> Self {
        let root = format!("file://{}", utf8_percent_encode(workspace, PATH));
        Self {
            server: server.to_string(),
            root,
            elicits,
            lists_changed: AtomicBool::new(false),
            taken_at: Mutex::default(),
            wake,
            session: OnceLock::new(),
            askers: Mutex::default(),
        }
    }

    /// The session that this belongs to.
    pub fn belongs_to(&self, session: &Arc<Session>) {
        let _only_once = self.session.set(Arc::downgrade(session));
    }

    fn askers(&self) -> MutexGuard<'_, Vec<Weak<UnderWay>>> {
        // Every statement leaves it complete, so a panic elsewhere has not spoilt it.
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call is under way, for as long as the guard lives.
    pub fn list(&self, call: &Arc<UnderWay>) -> Listed<'_> {
        let call = Arc::downgrade(call);
        self.askers().push(call.clone());
        Listed { inbox: self, call }
    }

    /// The call that a question belongs to: the one on whose stream it came, else the only one there is.
    fn asker(&self, known: Option<&Arc<UnderWay>>) -> Result<Arc<UnderWay>, Reply> {
        if let Some(known) = known {
            return Ok(known.clone());
        }
        match self.askers().as_slice() {
            [only] => only.upgrade().ok_or(Reply::Cancel),
            [] => Err(Reply::Decline),
            // The wrong people must not be asked.
            _ => Err(Reply::Cancel),
        }
    }

    fn elicit(&self, asked: &Asked<'_>, known: Option<&Arc<UnderWay>>) -> Option<Given> {
        let (questions, is_link) = match form::wish(&self.server, asked.params) {
            Ok(Wish::Form(questions)) => (questions, false),
            Ok(Wish::Link(questions)) => (questions, true),
            Ok(Wish::Secret) => {
                log::warn!("MCP server {}: it wants people to be asked for a secret, and is told no", self.server);
                return Some(Ok(Reply::Decline.result()));
            }
            Err(cause) => return Some(Err((INVALID_PARAMS, cause.to_string()))),
        };
        let call = match self.asker(known) {
            Ok(call) => call,
            Err(reply) => {
                log::debug!("MCP server {}: its question belongs to no call, or to one of several", self.server);
                return Some(Ok(reply.result()));
            }
        };
        let (session, id) = (self.session.get().cloned().unwrap_or_default(), asked.id.to_owned());
        let respond = move |reply: Reply| {
            if let Some(session) = session.upgrade() {
                session.answer(&id, &Ok(reply.result()));
            }
        };
        call.ask(questions, is_link, Some(asked.id.get().to_string()), Box::new(respond));
        None
    }

    /// Has the connection's thread look after it.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Whether the server said that one of its lists has changed, and how long it is too early to look: however often it says
    /// so, they are looked at once in a while.
    pub fn changed(&self) -> Option<Duration> {
        self.lists_changed.load(Ordering::SeqCst).then(|| {
            let taken_at = *self.taken_at.lock().unwrap_or_else(PoisonError::into_inner);
            let rest =
                |at: Instant| (at + Duration::from_millis(MCP_RELIST_MS)).saturating_duration_since(Instant::now());
            taken_at.map(rest).unwrap_or_default()
        })
    }

    /// As [`Inbox::changed`], and it is time: what is said from now on is another change.
    pub fn take_changed(&self) -> bool {
        let is_due = self.changed().is_some_and(|rest| rest.is_zero());
        if is_due {
            self.lists_changed.store(false, Ordering::SeqCst);
            *self.taken_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        is_due
    }
}

impl Receiver for Inbox {
    fn request(&self, asked: &Asked<'_>, asker: Option<&Arc<UnderWay>>) -> Option<Given> {
        Some(match asked.method {
            "ping" => Ok(json!({})),
            "roots/list" => Ok(json!({"roots": [{"uri": self.root, "name": "workspace"}]})),
            "elicitation/create" if self.elicits => return self.elicit(asked, asker),
            _ => Err((METHOD_NOT_FOUND, "this client does not have the method".to_string())),
        })
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
                log::debug!("MCP server {}: {}", self.server, shown(&text, MCP_ERROR_TEXT_BYTES_MAX));
            }
            "notifications/cancelled" => {
                let request = params["requestId"].to_string();
                let askers: Vec<_> = self.askers().iter().filter_map(Weak::upgrade).collect();
                askers.iter().for_each(|call| call.withdraw(&request));
            }
            // Progress, updates that nobody subscribed to.
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
        let id = serde_json::value::RawValue::from_string("0".to_string()).unwrap();
        let request = |method: &str, params: &Value| {
            inbox.request(&Asked { id: &id, method, params }, None).expect("an answer at once")
        };
        let roots = request("roots/list", &Value::Null).unwrap();
        assert_eq!(roots, json!({"roots": [{"uri": "file:///work%20space/%C3%A4", "name": "workspace"}]}));
        assert_eq!(request("ping", &Value::Null), Ok(json!({})));
        let code = |method: &str, params: &Value| request(method, params).unwrap_err().0;
        assert_eq!(code("sampling/createMessage", &Value::Null), METHOD_NOT_FOUND);
        assert_eq!(code("elicitation/create", &json!({"mode": "url"})), INVALID_PARAMS);
        // Nobody is there who could be asked.
        let form = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
        assert_eq!(request("elicitation/create", &form), Ok(json!({"action": "decline"})));
        assert!(!inbox.take_changed());
        inbox.notified("notifications/tools/list_changed", &Value::Null);
        assert!(inbox.take_changed() && !inbox.take_changed());
        // Said again at once, it is looked at a little later.
        inbox.notified("notifications/tools/list_changed", &Value::Null);
        assert!(!inbox.take_changed());
        assert!(
            inbox.changed().is_some_and(|rest| rest > Duration::ZERO && rest <= Duration::from_millis(MCP_RELIST_MS))
        );
    }
}
