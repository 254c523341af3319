//! Signed records of what is asked of servers.
//! Owns: that a request's record is durable before its bytes leave, and its outcome after.
//! May touch: the core.
//! Never: lets a request go that could not be recorded, or uses an answer whose record is missing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::error::McpError;
use crate::commit::{CommandError, CoreHandle};
use crate::core::{ActionRequest, Command, Decision, Note, NoteKind, Refusal};
use crate::hex::to_hex;
use crate::ids::RunId;
use crate::limits::ENGINE_RETRY_MS;
use crate::net::Cancel;

/// Handles of runs' requests count from here; those of model calls from 1, those of pages from the next power of two.
const HANDLES_FROM: u32 = 1 << 30;

/// The records of this room.
pub(super) struct Recorder {
    core: CoreHandle,
    handles: AtomicU32,
}

/// For whom something is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chain<'a> {
    /// The daemon itself, or an operator.
    Daemon,
    /// A call of a run's model.
    Run { run: RunId, call: &'a str },
}

/// A request that is on record.
pub(super) struct Open<'a> {
    chain: Chain<'a>,
    handle: u64,
}

/// What came of it.
pub(super) struct Answered<'a> {
    pub digest: Option<&'a [u8]>,
    pub error: Option<&'a str>,
}

#[derive(Serialize)]
struct RequestDetail<'a> {
    server: &'a str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    transport: &'a str,
}

/// The daemon's own requests have no handle: their position is one.
#[derive(Serialize)]
struct DaemonRequest<'a> {
    kind: &'static str,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<&'a str>,
    request_digest: &'a str,
    #[serde(flatten)]
    detail: RequestDetail<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    action: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// What is about to be asked.
pub(super) struct Request<'a> {
    pub server: &'a str,
    pub transport: &'a str,
    pub method: &'a str,
    pub tool: Option<&'a str>,
    pub bytes: &'a [u8],
    pub lease: Option<&'a str>,
}

impl Recorder {
    pub fn new(core: CoreHandle) -> Self {
        Self { core, handles: AtomicU32::new(0) }
    }

    /// Records that something is about to be asked.
    ///
    /// # Errors
    /// It is not on record, so it must not be sent.
    pub fn before<'a>(
        &self,
        chain: Chain<'a>,
        request: &Request<'_>,
        until: Instant,
        cancel: &Cancel,
    ) -> Result<Open<'a>, McpError> {
        let verb = request
            .method
            .rsplit_once('/')
            .map_or(request.method.to_string(), |(group, verb)| format!("{}_{verb}", group.trim_end_matches('s')));
        let mut target = format!("mcp:{verb}:{}", request.server);
        if let Some(tool) = request.tool {
            target.push(':');
            target.push_str(tool);
        }
        let digest = to_hex(digest(&SHA256, request.bytes).as_ref());
        let detail = RequestDetail {
            server: request.server,
            method: request.method,
            tool: request.tool,
            transport: request.transport,
        };
        match chain {
            Chain::Run { run, call } => {
                let handle = HANDLES_FROM + (self.handles.fetch_add(1, Ordering::Relaxed) & (HANDLES_FROM - 1));
                let note = Note::action_request(&ActionRequest {
                    action: handle,
                    kind: "mcp",
                    target: &target,
                    tool_call_id: Some(call),
                    lease: request.lease,
                    request_digest: Some(&digest),
                    detail,
                });
                self.write(Command::Record { run, notes: vec![note] }, request.server, until, cancel)?;
                Ok(Open { chain, handle: handle.into() })
            }
            Chain::Daemon => {
                let draft = DaemonRequest {
                    kind: "mcp",
                    target: &target,
                    lease: request.lease,
                    request_digest: &digest,
                    detail,
                };
                let note = note(NoteKind::ActionRequest, &draft);
                let handle = self.write(Command::RecordAction { run: None, note }, request.server, until, cancel)?;
                Ok(Open { chain, handle })
            }
        }
    }

    /// Records what came of it.
    ///
    /// # Errors
    /// It is not on record, so the answer cannot be used.
    pub fn after(
        &self,
        open: &Open<'_>,
        server: &str,
        result: &Answered<'_>,
        until: Instant,
        cancel: &Cancel,
    ) -> Result<(), McpError> {
        let response = Response {
            action: open.handle,
            outcome: if result.error.is_none() { "succeeded" } else { "failed" },
            response_digest: result.digest.map(|bytes| to_hex(digest(&SHA256, bytes).as_ref())),
            response_bytes: result.digest.map(<[u8]>::len),
            error: result.error,
        };
        let note = note(NoteKind::ActionResponse, &response);
        let command = match open.chain {
            Chain::Run { run, .. } => Command::Record { run, notes: vec![note] },
            Chain::Daemon => Command::RecordAction { run: None, note },
        };
        // An outcome gets a moment more than the request had.
        let until = until.max(Instant::now() + Duration::from_millis(2 * ENGINE_RETRY_MS));
        self.write(command, server, until, cancel).map(drop)
    }

    /// A full disk is waited out as long as there is time.
    fn write(&self, command: Command, server: &str, until: Instant, cancel: &Cancel) -> Result<u64, McpError> {
        loop {
            let error = match self.core.execute(command.clone()) {
                Ok(Decision::Recorded { last_seq }) => return Ok(last_seq),
                Ok(_) => return Ok(0),
                Err(error) => error,
            };
            // What ends while the run waits for people is recorded when it goes on.
            let waits = Refusal::is_wait_for_people;
            let heals = matches!(
                &error,
                CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy
            ) || matches!(&error, CommandError::Refused(refusal) if waits(refusal));
            if !heals || Instant::now() >= until || cancel.wait(Duration::from_millis(ENGINE_RETRY_MS)) {
                return Err(McpError::NotRecorded { server: server.to_string(), cause: error.to_string() });
            }
        }
    }
}

fn note(kind: NoteKind, draft: &impl Serialize) -> Note {
    let body = serde_json::value::to_raw_value(draft).expect("drafts have string keys and no failing serialisers");
    Note { kind, body }
}
