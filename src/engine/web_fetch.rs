//! `web_fetch`: the daemon's own tool for pages of the web.
//! Owns: that each request of a fetch is a signed record before its bytes leave, and that a redirect to another host is
//! followed only where the rules would have let the model go there by itself.
//! May touch: the network through `web`, the core.
//! Never: sends anything that could not be recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::permits::{self, Settings};
use super::toolbox::{Caller, DaemonTool};
use crate::commit::{CommandError, CoreHandle};
use crate::core::{ActionRequest, ActionResponse, Command, Note};
use crate::limits::ENGINE_RETRY_MS;
use crate::net::{Cancel, Host, Net, Target};
use crate::permissions::Behavior;
use crate::tools::{ToolDef, ToolOutput};
use crate::web::{self, Hop, Witness};

/// The tool's name.
const TOOL: &str = "web_fetch";

/// Handles of fetches start here; those of model calls count from 1.
const HANDLES_FROM: u32 = 1 << 31;

/// The room that fetches pages.
pub struct WebFetch {
    net: Net,
    core: CoreHandle,
    settings: Arc<dyn Settings>,
    workspace: String,
    handles: AtomicU32,
}

impl WebFetch {
    /// Fetches over `net` under the rules of `settings`; `workspace` is only what the rules are asked with.
    pub fn new(net: Net, core: CoreHandle, settings: Arc<dyn Settings>, workspace: String) -> Self {
        Self { net, core, settings, workspace, handles: AtomicU32::new(HANDLES_FROM) }
    }
}

#[derive(Deserialize)]
struct Input {
    url: String,
}

impl DaemonTool for WebFetch {
    fn has(&self, def: &ToolDef) -> bool {
        def.name == TOOL
    }

    fn call(&self, caller: &Caller, def: &ToolDef, input: &RawValue, limit_ms: u64, cancel: &Cancel) -> ToolOutput {
        let Ok(Input { url }) = serde_json::from_str(input.get()) else {
            return super::toolbox::failure(
                "invalid_arguments",
                "`url` is missing; next: give the page's whole address",
            );
        };
        let mut records = Records {
            room: self,
            caller,
            def,
            cancel,
            until: Instant::now() + Duration::from_millis(limit_ms),
            handle: 0,
            host: None,
            unwritten: Vec::new(),
        };
        let fetched = web::fetch(&self.net, &url, limit_ms, cancel, &mut records);
        if let Err(cause) = records.write() {
            // What came cannot be used: its record is missing, and the next start says that its outcome is unknown.
            return super::toolbox::failure("not_recorded", &cause);
        }
        match fetched {
            Ok(page) => ToolOutput::ok(&page, page.truncated),
            Err(error) => super::toolbox::failure(error.code(), &error.to_string()),
        }
    }
}

/// The records of one fetch.
struct Records<'a> {
    room: &'a WebFetch,
    caller: &'a Caller,
    def: &'a ToolDef<'a>,
    cancel: &'a Cancel,
    until: Instant,
    /// Of the request in flight.
    handle: u32,
    host: Option<Host>,
    /// The response that goes into the batch of the next request, or into the last one.
    unwritten: Vec<Note>,
}

/// What a request of this kind has beyond its target.
#[derive(Serialize)]
struct RequestDetail {
    method: &'static str,
    is_redirect: bool,
}

#[derive(Serialize)]
struct ResponseDetail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Records<'_> {
    /// Makes what is pending durable. A full disk is waited out as long as the call has time.
    fn write(&mut self) -> Result<(), String> {
        let notes = std::mem::take(&mut self.unwritten);
        if notes.is_empty() {
            return Ok(());
        }
        loop {
            let error = match self.room.core.execute(Command::Record { run: self.caller.run, notes: notes.clone() }) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let heals = matches!(
                error,
                CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy
            );
            let has_time = Instant::now() < self.until && !self.cancel.wait(Duration::from_millis(ENGINE_RETRY_MS));
            if !heals || !has_time {
                return Err(format!("nothing was sent or kept, since it could not be recorded: {error}"));
            }
        }
    }

    /// Whether the rules let the model go to `target` by itself, without anybody being asked.
    fn may_follow(&self, target: &Target) -> bool {
        let input = json!({"url": target.whole()}).to_string();
        let Ok(input) = RawValue::from_string(input) else { return false };
        let Ok(in_force) = self.room.settings.in_force(&self.caller.session) else { return false };
        let root = &self.room.workspace;
        permits::verdict(&in_force, self.def, &input, root, root).decision == Behavior::Allow
    }
}

impl Witness for Records<'_> {
    fn before(&mut self, target: &Target, is_redirect: bool) -> Result<bool, String> {
        let host = target.host_and_port().map(|(host, _)| host.clone());
        if is_redirect && host != self.host && !self.may_follow(target) {
            return Ok(false);
        }
        self.host = host;
        self.handle = self.room.handles.fetch_add(1, Ordering::Relaxed).max(HANDLES_FROM);
        self.unwritten.push(Note::action_request(&ActionRequest {
            action: self.handle,
            kind: TOOL,
            target: &format!("GET {target}"),
            tool_call_id: Some(&self.caller.call),
            lease: None,
            request_digest: None,
            detail: RequestDetail { method: "GET", is_redirect },
        }));
        self.write().map(|()| true)
    }

    fn after(&mut self, hop: Hop) {
        let Hop { status, bytes, sha256, error } = hop;
        self.unwritten.push(Note::action_response(&ActionResponse {
            action: self.handle,
            outcome: if error.is_none() { "succeeded" } else { "failed" },
            response_digest: sha256.as_deref(),
            detail: ResponseDetail { http_status: status, response_bytes: bytes, error },
        }));
    }
}
