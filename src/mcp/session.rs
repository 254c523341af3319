//! What is said over a connection: the agreement on a revision, requests on record, lists in pages.
//! Owns: the two eras of the protocol, with a handshake and without.
//! May touch: the connection, the recorder, the vault.
//! Never: sends a request that is not on record; repeats one.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::asking::UnderWay;
use super::config::{Protocol, ServerConfig};
use super::content::shown;
use super::credential::{InUse, Vault};
use super::error::McpError;
use super::form::{self, Reply, Wish};
use super::inbox::Inbox;
use super::link::{Asked, Exchange, Given, Link, Receiver};
use super::message::{self, UNSUPPORTED_VERSION};
use super::record::{Answered, Chain, Recorder, Request};
use crate::ids::SessionId;
use crate::limits::{
    MCP_CONNECT_MS, MCP_INPUT_REQUESTS_MAX, MCP_INPUT_ROUNDS_MAX, MCP_INPUT_WAIT_MS, MCP_INSTRUCTIONS_BYTES_MAX,
    MCP_PAGES_MAX, MCP_REQUEST_BYTES_MAX, MCP_WRITE_MS_MAX,
};
use crate::net::Cancel;
use std::sync::Arc;

/// The newest revision with a handshake; what is asked for.
const NEWEST: &str = "2025-11-25";
/// Those that are taken.
const KNOWN: [&str; 4] = [NEWEST, "2025-06-18", "2025-03-26", "2024-11-05"];
/// The server's error that addresses have to be opened first.
const LINKS_REQUIRED: i64 = -32042;
/// The revision without a handshake.
const STATELESS: &str = "2026-07-28";

/// What a server said of itself. Claims, all of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Hello {
    pub version: String,
    pub capabilities: Value,
    pub instructions: Option<String>,
    pub server_name: String,
    pub server_version: String,
}

impl Hello {
    /// Whether the server says that it has lists or methods of this kind.
    pub fn has(&self, kind: &str) -> bool {
        self.capabilities[kind].is_object()
    }

    /// Whether the agreed revision has no handshake.
    pub fn is_stateless(&self) -> bool {
        self.version == STATELESS
    }
}

/// A connection with what was agreed on it.
pub(super) struct Session {
    pub config: Arc<ServerConfig>,
    pub link: Link,
    pub inbox: Arc<Inbox>,
    pub vault: Vault,
    pub recorder: Arc<Recorder>,
    /// Ends everything under way on it.
    pub cancel: Cancel,
    /// What stands behind a child process's variables.
    pub standing: Vec<InUse>,
    pub hello: OnceLock<Hello>,
}

/// One request, for whomever.
pub(super) struct Ask<'a> {
    pub method: &'a str,
    pub params: Value,
    /// The tool, the prompt or the address that it is about.
    pub about: Option<&'a str>,
    /// Header lines of the revision without a handshake that arguments go into.
    pub param_headers: Vec<(String, String)>,
    pub chain: Chain<'a>,
    pub session: Option<&'a SessionId>,
    pub limit_ms: u64,
    pub cancel: &'a Cancel,
    pub is_owner: bool,
    /// The call that people may be asked for.
    pub asker: Option<&'a Arc<UnderWay>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    #[serde(default)]
    protocol_version: String,
    #[serde(default)]
    capabilities: Value,
    #[serde(default)]
    server_info: Value,
    #[serde(default)]
    instructions: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoverResult {
    #[serde(default)]
    supported_versions: Vec<String>,
    #[serde(default)]
    capabilities: Value,
    #[serde(default)]
    instructions: Option<String>,
}

fn client_info() -> Value {
    json!({"name": "kheish-mcp-client", "title": "Kheish", "version": env!("CARGO_PKG_VERSION")})
}

impl Session {
    fn server(&self) -> String {
        self.config.name.clone()
    }

    fn malformed(&self, cause: &str) -> McpError {
        McpError::Malformed { server: self.server(), cause: cause.to_string() }
    }

    fn capabilities(&self, stateless: bool) -> Value {
        let mut capabilities = json!({"roots": {}});
        if !stateless {
            capabilities["roots"] = json!({"listChanged": false});
        }
        if self.config.elicitation {
            capabilities["elicitation"] = json!({"form": {}, "url": {}});
        }
        capabilities
    }

    /// Agrees on a revision, within `until`. For the connection's own thread.
    pub fn open(&self, until: Instant, cancel: &Cancel) -> Result<&Hello, McpError> {
        let hello = match self.config.protocol {
            Protocol::Handshake => self.initialize(until, cancel)?,
            Protocol::Stateless => self.discover(until, cancel)?,
            Protocol::Auto => match self.discover(until, cancel) {
                Ok(hello) => hello,
                Err(McpError::Refused { .. } | McpError::Malformed { .. } | McpError::TimedOut { .. }) => {
                    self.initialize(until, cancel)?
                }
                Err(error) => return Err(error),
            },
        };
        Ok(self.hello.get_or_init(|| hello))
    }

    fn initialize(&self, until: Instant, cancel: &Cancel) -> Result<Hello, McpError> {
        let params = json!({
            "protocolVersion": NEWEST,
            "capabilities": self.capabilities(false),
            "clientInfo": client_info(),
        });
        let result = self.send(&self.ask("initialize", params, left_ms(until), cancel), false)?;
        let result: InitializeResult =
            serde_json::from_str(result.get()).map_err(|_| self.malformed("its initialize result has another form"))?;
        if !KNOWN.contains(&result.protocol_version.as_str()) {
            return Err(
                self.malformed("it speaks none of the revisions 2025-11-25, 2025-06-18, 2025-03-26 and 2024-11-05")
            );
        }
        if let Link::Http(link) = &self.link {
            link.set_version(&result.protocol_version);
        }
        let credential = self.vault.for_request(&self.config, None, cancel)?;
        let note = message::notification("notifications/initialized", &Value::Null);
        let limit = Duration::from_millis(left_ms(until).min(MCP_WRITE_MS_MAX));
        self.link.notify(&note, credential.as_ref(), limit, cancel)?;
        Ok(hello(result.protocol_version, result.capabilities, result.instructions, &result.server_info))
    }

    fn discover(&self, until: Instant, cancel: &Cancel) -> Result<Hello, McpError> {
        let ask = self.ask("server/discover", json!({}), left_ms(until), cancel);
        let again = || self.ask("server/discover", json!({}), left_ms(until), cancel);
        let result = match self.send(&ask, true) {
            // It knows the revision after all, it says.
            Err(McpError::Refused { code: UNSUPPORTED_VERSION, .. }) => self.send(&again(), true)?,
            other => other?,
        };
        let result: DiscoverResult =
            serde_json::from_str(result.get()).map_err(|_| self.malformed("its discover result has another form"))?;
        if !result.supported_versions.iter().any(|version| version == STATELESS) {
            return Err(self.malformed("it does not speak the revision 2026-07-28"));
        }
        Ok(hello(STATELESS.to_string(), result.capabilities, result.instructions, &Value::Null))
    }

    fn ask<'a>(&self, method: &'a str, params: Value, limit_ms: u64, cancel: &'a Cancel) -> Ask<'a> {
        Ask {
            method,
            params,
            about: None,
            param_headers: Vec::new(),
            chain: Chain::Daemon,
            session: None,
            limit_ms,
            cancel,
            is_owner: true,
            asker: None,
        }
    }

    /// A request to a server with a handshake. One that it does not carry out before people have opened an address is made
    /// again when they have.
    fn send_after_links(&self, ask: &Ask<'_>) -> Result<Box<RawValue>, McpError> {
        loop {
            let error = match (self.send(ask, false), ask.asker) {
                (Err(error @ McpError::Refused { code: LINKS_REQUIRED, .. }), Some(asker)) => (error, asker),
                (other, _) => return other,
            };
            let (McpError::Refused { data: Some(data), .. }, asker) = (&error.0, error.1) else { return Err(error.0) };
            let data: Value = serde_json::from_str(data).unwrap_or_default();
            let links = data["elicitations"].as_array().map(Vec::as_slice).unwrap_or_default();
            if links.is_empty() || links.len() > MCP_INPUT_REQUESTS_MAX || !self.config.elicitation {
                return Err(error.0);
            }
            for link in links {
                // No more of them than a call may ask; one that is not accepted ends it.
                if self.ask_people(asker, link)?["action"] != "accept" {
                    return Err(error.0);
                }
            }
        }
    }

    /// Has people asked, and waits for them.
    fn ask_people(&self, asker: &Arc<UnderWay>, params: &Value) -> Result<Value, McpError> {
        let (questions, is_link) = match form::wish(&self.config.name, params) {
            Ok(Wish::Form(questions)) => (questions, false),
            Ok(Wish::Link(questions)) => (questions, true),
            Ok(Wish::Secret) => return Ok(Reply::Decline.result()),
            Err(cause) => return Err(self.malformed(cause)),
        };
        let (said, heard) = bounded(1);
        asker.ask(questions, is_link, None, Box::new(move |reply| drop(said.try_send(reply))));
        select! {
            recv(heard) -> reply => Ok(reply.unwrap_or(Reply::Cancel).result()),
            recv(asker.cancel.woken()) -> _ => Err(McpError::Cancelled { server: self.server() }),
        }
    }

    /// Answers a request of the server, after people have.
    pub fn answer(&self, id: &RawValue, given: &Given) {
        let credential = match self.vault.for_request(&self.config, None, &self.cancel) {
            Ok(credential) => credential,
            Err(error) => return log::warn!("an answer is not sent: {error}"),
        };
        let bytes = message::answer(id, given);
        let limit = Duration::from_millis(MCP_CONNECT_MS);
        // The server waits for it or does not; its own request ends at its time.
        if let Err(error) = self.link.notify(&bytes, credential.as_ref(), limit, &self.cancel) {
            log::info!("an answer was not taken: {error}");
        }
    }

    /// As [`Session::send_once`]; a token that the server does not take is exchanged for another one, once, and the request is
    /// made anew: the refused one was not carried out.
    fn send(&self, ask: &Ask<'_>, stateless: bool) -> Result<Box<RawValue>, McpError> {
        match self.send_once(ask, stateless) {
            Err(error @ McpError::AuthRequired { .. }) => match self.vault.refresh(&self.config) {
                true => self.send_once(ask, stateless),
                false => Err(error),
            },
            Err(McpError::ScopeRequired { scopes, .. }) => Err(self.vault.step_up(&self.config, scopes)),
            other => other,
        }
    }

    /// Sends a request and gives its result, answering what the server asks for before.
    ///
    /// # Errors
    /// There is none.
    pub fn request(&self, ask: &Ask<'_>) -> Result<Box<RawValue>, McpError> {
        let stateless = self.hello.get().is_some_and(Hello::is_stateless);
        if !stateless {
            return self.send_after_links(ask);
        }
        let began = Instant::now();
        let mut params = ask.params.clone();
        let mut wait_ms = MCP_INPUT_WAIT_MS;
        for _ in 0..MCP_INPUT_ROUNDS_MAX {
            let spent = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let limit_ms = ask.limit_ms.saturating_sub(spent).max(1);
            let round = Ask {
                params: params.clone(),
                param_headers: ask.param_headers.clone(),
                limit_ms,
                ..Ask { params: Value::Null, param_headers: Vec::new(), ..*ask }
            };
            let result = self.send(&round, true)?;
            let Some(wanted) = wanted(&result) else { return Ok(result) };
            params = ask.params.clone();
            if wanted.requests.is_empty() {
                if ask.cancel.wait(Duration::from_millis(wait_ms)) {
                    return Err(McpError::Cancelled { server: self.server() });
                }
                wait_ms *= 2;
            } else {
                let mut responses = serde_json::Map::new();
                for (key, request) in wanted.requests.into_iter().take(MCP_INPUT_REQUESTS_MAX) {
                    let method = request["method"].as_str().unwrap_or_default();
                    let params = &request["params"];
                    let response = match (method, ask.asker) {
                        ("elicitation/create", Some(asker)) if self.config.elicitation => {
                            self.ask_people(asker, params)?
                        }
                        _ => match self.inbox.request(&Asked { id: RawValue::NULL, method, params }, None) {
                            Some(Ok(response)) => response,
                            _ => return Err(self.malformed("it asks for what this client does not have")),
                        },
                    };
                    responses.insert(key, response);
                }
                params["inputResponses"] = responses.into();
            }
            if let Some(state) = wanted.state {
                params["requestState"] = state;
            }
        }
        Err(self.malformed("it asks for more again and again"))
    }

    fn send_once(&self, ask: &Ask<'_>, stateless: bool) -> Result<Box<RawValue>, McpError> {
        let limit_ms = ask.limit_ms;
        let until = Instant::now() + Duration::from_millis(limit_ms);
        let cancel = ask.cancel.child();
        let inner = cancel.clone();
        // Whoever ends the connection ends the request.
        let Some(_attached) = self.cancel.on_cancel(move || inner.cancel()) else {
            return Err(McpError::Ended { server: self.server(), cause: "it was closed".to_string() });
        };
        let mut params = ask.params.clone();
        let mut headers = Vec::new();
        if stateless {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": STATELESS,
                "io.modelcontextprotocol/clientCapabilities": self.capabilities(true),
                "io.modelcontextprotocol/clientInfo": client_info(),
            });
            headers.push(("mcp-protocol-version".to_string(), STATELESS.to_string()));
            headers.push(("mcp-method".to_string(), ask.method.to_string()));
            headers.extend(ask.about.map(|about| ("mcp-name".to_string(), super::headers::value(about))));
            headers.extend(ask.param_headers.iter().cloned());
        }
        let id = self.link.next_id();
        let bytes = message::request(id, ask.method, &params);
        if bytes.len() > MCP_REQUEST_BYTES_MAX {
            return Err(McpError::TooLarge { server: self.server(), bytes: bytes.len() });
        }
        let credential = self.vault.for_request(&self.config, ask.session, &cancel)?;
        let request = Request {
            server: &self.config.name,
            transport: self.config.transport_name(),
            method: ask.method,
            tool: ask.about,
            bytes: &bytes,
            lease: credential.as_ref().map(InUse::lease_id),
        };
        let open = self.recorder.before(ask.chain, &request, until, &cancel)?;
        let exchange = Exchange {
            id,
            method: ask.method,
            bytes: &bytes,
            headers: &headers,
            until,
            limit_ms,
            cancel: credential.as_ref().map_or(&cancel, InUse::cancel),
            credential: credential.as_ref(),
            is_owner: ask.is_owner,
            asker: ask.asker,
        };
        let outcome = self.link.exchange(&exchange).map_err(|error| match error {
            McpError::Cancelled { server } if self.cancel.is_cancelled() && !ask.cancel.is_cancelled() => {
                McpError::Ended { server, cause: "it was closed".to_string() }
            }
            McpError::Cancelled { server } if !cancel.is_cancelled() => McpError::Credential {
                server,
                cause: "it was revoked or replaced while the call was under way; next: call again".to_string(),
            },
            error => error,
        });
        if let (Err(McpError::Ended { .. }), Link::Http(_)) = (&outcome, &self.link) {
            // If the session has expired it is made anew at once.
            self.inbox.wake();
        }
        let (digest, error) = match &outcome {
            Ok(Ok(result)) => (Some(result.get().as_bytes()), None),
            Ok(Err(_)) => (None, Some("mcp_server_error")),
            Err(error) => (None, Some(error.code())),
        };
        // A run that was stopped records its own end; its open actions are closed with it.
        let recorded = self.recorder.after(&open, &self.config.name, &Answered { digest, error }, until, &cancel);
        match (outcome, recorded) {
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => Err(error),
            (Ok(Ok(result)), Ok(())) if result.get().starts_with('{') => Ok(result),
            (Ok(Ok(_)), Ok(())) => Err(self.malformed("its result is no object")),
            (Ok(Err(error)), Ok(())) => {
                let data = error.data.map(|data| data.0);
                Err(McpError::Refused { server: self.server(), code: error.code, message: error.message, data })
            }
        }
    }

    /// A list of the server, all of its pages; whether it was cut.
    pub fn list(&self, method: &str, key: &str, ask: &Ask<'_>, most: usize) -> Result<(Vec<Value>, bool), McpError> {
        let (mut found, mut cursor) = (Vec::new(), None::<String>);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..MCP_PAGES_MAX {
            let params = cursor.as_ref().map_or(json!({}), |cursor| json!({"cursor": cursor}));
            let page = self.request(&Ask { method, params, param_headers: Vec::new(), ..*ask })?;
            let mut page: Value =
                serde_json::from_str(page.get()).map_err(|_| self.malformed("its list is too deep"))?;
            let Value::Array(items) = page[key].take() else {
                return Err(self.malformed("its list has another form"));
            };
            found.extend(items);
            if found.len() > most {
                found.truncate(most);
                return Ok((found, true));
            }
            match page["nextCursor"].as_str() {
                None => return Ok((found, false)),
                Some(next) if seen.insert(next.to_string()) => cursor = Some(next.to_string()),
                Some(_) => return Err(self.malformed("its pages go round in a circle")),
            }
        }
        Ok((found, true))
    }
}

fn left_ms(until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX).max(1)
}

fn hello(version: String, capabilities: Value, instructions: Option<String>, info: &Value) -> Hello {
    let text = |key: &str| shown(info[key].as_str().unwrap_or_default(), 128);
    Hello {
        version,
        capabilities,
        instructions: instructions.map(|text| shown(&text, MCP_INSTRUCTIONS_BYTES_MAX)),
        server_name: text("name"),
        server_version: text("version"),
    }
}

/// What a server wants before it answers.
struct Wanted {
    requests: serde_json::Map<String, Value>,
    state: Option<Value>,
}

fn wanted(result: &RawValue) -> Option<Wanted> {
    let mut result: Value = serde_json::from_str(result.get()).ok()?;
    if result["resultType"] != "input_required" {
        return None;
    }
    let requests = match result["inputRequests"].take() {
        Value::Object(requests) => requests,
        _ => serde_json::Map::new(),
    };
    Some(Wanted { requests, state: Some(result["requestState"].take()).filter(|state| !state.is_null()) })
}
