//! MCP servers over HTTP: read them, switch them, call their tools.
//! Owns: the routes below `/v1/mcp`.
//! Never: shows a value of a variable or a header.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::call::Call;
use super::context::Api;
use super::paging::{Page, PageRequest};
use crate::core::{Command, Decision, McpServerState, RuntimeEdit};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::MCP_OPERATOR_CALL_MS_MAX;
use crate::mcp::{McpError, Switch};

impl From<McpError> for Problem {
    fn from(error: McpError) -> Self {
        let code = match &error {
            McpError::UnknownServer { .. } => &codes::MCP_SERVER_NOT_FOUND,
            McpError::UnknownTool { .. } => &codes::MCP_TOOL_NOT_FOUND,
            McpError::SwitchedOff { .. } | McpError::NotGranted { .. } => &codes::MCP_SERVER_DISABLED,
            McpError::NotConnected { .. }
            | McpError::Start { .. }
            | McpError::AuthRequired { .. }
            | McpError::ScopeRequired { .. }
            | McpError::Credential { .. } => &codes::MCP_NOT_CONNECTED,
            McpError::Busy { .. } => &codes::MCP_BUSY,
            McpError::TimedOut { .. }
            | McpError::Cancelled { .. }
            | McpError::Ended { .. }
            | McpError::Refused { .. }
            | McpError::Malformed { .. }
            | McpError::TooLarge { .. }
            | McpError::NotRecorded { .. } => &codes::MCP_CALL_FAILED,
        };
        Self::new(code, error.to_string())
    }
}

/// `GET /v1/mcp/servers`.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let items = api.mcp.snapshot().servers;
    let total_count = items.len() as u64;
    Ok(Page { items, total_count, next: None, order: "server_asc" }.answer(&request))
}

/// `GET /v1/mcp/servers/{server}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &api.mcp.view(&call.param("server")?)?))
}

/// `GET /v1/mcp/servers/{server}/tools`.
pub fn tools(api: &Api, call: &Call) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let items = api.mcp.tools(Some(&call.param("server")?))?;
    let total_count = items.len() as u64;
    Ok(Page { items, total_count, next: None, order: "name_asc" }.answer(&request))
}

/// Body of `POST /v1/mcp/servers/{server}/tools/call`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallBody {
    tool: String,
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Serialize)]
struct CallResult<'a> {
    server: &'a str,
    tool: &'a str,
    is_error: bool,
    truncated: bool,
    result: Box<RawValue>,
}

/// An operator's call, or a reconnection, holds one of the few threads that serve requests, so there is one at a time.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);

struct Turn;

impl Turn {
    fn take(server: &str) -> Result<Self, McpError> {
        if UNDER_WAY.swap(true, Ordering::SeqCst) {
            return Err(McpError::Busy { server: server.to_string() });
        }
        Ok(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.store(false, Ordering::SeqCst);
    }
}

/// `POST /v1/mcp/servers/{server}/tools/call`.
pub fn call(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: CallBody = call.json()?;
    let server = call.param("server")?;
    let _turn = Turn::take(&server)?;
    let limit_ms = body.timeout_ms.unwrap_or(MCP_OPERATOR_CALL_MS_MAX).min(MCP_OPERATOR_CALL_MS_MAX);
    let arguments = Value::Object(body.arguments.unwrap_or_default());
    let output = api.mcp.call(&server, &body.tool, arguments, Some(limit_ms))?;
    let content = api.broker.redact(&output.content);
    let result = RawValue::from_string(content).unwrap_or_default();
    let shown = CallResult {
        server: &server,
        tool: &body.tool,
        is_error: output.is_error,
        truncated: output.truncated,
        result,
    };
    Ok(Response::json(200, &shown))
}

/// One decision after the other.
static SWITCHING: Mutex<()> = Mutex::new(());

/// Makes the decision durable first; one that only takes something away holds even where it cannot be recorded.
fn switch(api: &Api, call: &Call, state: McpServerState) -> Result<String, Problem> {
    call.no_fields()?;
    let server = call.param("server")?.into_owned();
    if !api.mcp.has_server(&server) {
        return Err(McpError::UnknownServer { server }.into());
    }
    let switch = match state {
        McpServerState::Enabled => Switch::On,
        McpServerState::Disabled => Switch::Off,
        McpServerState::Removed => Switch::Removed,
    };
    let edit = RuntimeEdit::McpServer { server: server.clone(), state };
    // What is in force is what was recorded last.
    let _in_order = SWITCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let decision = api.core.request(Command::ChangeRuntime { edit, expected_revision: None }, Some(call.actor()));
    if decision.is_ok() || switch != Switch::On {
        api.mcp.set_switch(&server, switch)?;
    }
    match decision? {
        Decision::Runtime { .. } => Ok(server),
        other => Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
    }
}

/// `POST /v1/mcp/servers/{server}/enable`.
pub fn enable(api: &Api, call: &Call) -> Result<Response, Problem> {
    let server = switch(api, call, McpServerState::Enabled)?;
    Ok(Response::json(200, &api.mcp.view(&server)?))
}

/// `POST /v1/mcp/servers/{server}/disable`.
pub fn disable(api: &Api, call: &Call) -> Result<Response, Problem> {
    let server = switch(api, call, McpServerState::Disabled)?;
    Ok(Response::json(200, &api.mcp.view(&server)?))
}

/// `POST /v1/mcp/servers/{server}/reconnect`.
pub fn reconnect(api: &Api, call: &Call) -> Result<Response, Problem> {
    call.no_fields()?;
    let server = call.param("server")?;
    let _turn = Turn::take(&server)?;
    api.mcp.reconnect(&server)?;
    Ok(Response::json(200, &api.mcp.view(&server)?))
}

#[derive(Serialize)]
struct Removed<'a> {
    server: &'a str,
    removed: bool,
}

/// `DELETE /v1/mcp/servers/{server}`.
pub fn remove(api: &Api, call: &Call) -> Result<Response, Problem> {
    let server = switch(api, call, McpServerState::Removed)?;
    Ok(Response::json(200, &Removed { server: &server, removed: true }))
}
