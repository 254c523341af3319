//! Calling one hook, over all its attempts.
//! Owns: the time that a call has, its retries, and that each attempt is a signed record before it begins and after.
//! May touch: core (records), and through the executors the sandbox, the network and the broker.
//! Never: begins an attempt that is not on record; follows an answer whose record is missing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::definition::{Executor, Hook};
use super::invocation::Invocation;
use super::outcome::Answer;
use super::{command, http};
use crate::broker::BrokerHandle;
use crate::clock::Clock;
use crate::commit::{ActionLedger, CommandError, CoreHandle, OwnRequest, OwnResponse};
use crate::core::{ActionRequest, ActionResponse, Command, Note};
use crate::hex::to_hex;
use crate::ids::{RunId, Seq};
use crate::limits::{ENGINE_RETRY_MS, HOOK_RETRY_JITTER_MS, HOOK_RETRY_MS};
use crate::net::{Cancel, Net};
use crate::sandbox::Sandbox;

/// Handles of runs' hooks count from here: behind those of model calls, MCP servers and pages.
const HANDLES_FROM: u32 = 3 << 30;

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    /// Stable word.
    pub class: &'static str,
    /// For people; may repeat what the hook said.
    pub text: String,
    /// Whether another attempt may do better.
    pub retryable: bool,
    /// How long the hook asks to be left alone.
    pub retry_after_ms: Option<u64>,
}

impl Failed {
    pub fn new(class: &'static str, text: impl Into<String>, retryable: bool) -> Self {
        Self { class, text: text.into(), retryable, retry_after_ms: None }
    }

    pub fn timed_out() -> Self {
        Self::new("timeout", "its time was up", true)
    }

    /// Whoever waited is gone, or the daemon stops.
    pub fn cancelled() -> Self {
        Self::new("cancelled", "whoever waited is gone", false)
    }
}

/// What one attempt gave.
pub(super) struct Answered {
    pub result: Result<Answer, Failed>,
    pub http_status: Option<u16>,
    /// What came, for its digest.
    pub body: Option<Vec<u8>>,
}

impl Answered {
    pub fn failed(failed: Failed) -> Self {
        Self { result: Err(failed), http_status: None, body: None }
    }

    /// Reads what a hook printed or sent.
    pub fn read(bytes: &[u8]) -> Result<Answer, Failed> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Failed::new("answer_malformed", "the answer is not UTF-8", false))?;
        Answer::parse(text).map_err(|cause| Failed::new("answer_malformed", cause, false))
    }
}

/// Figures since start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Calls that gave an outcome.
    pub executions: AtomicU64,
    /// Calls that came to nothing.
    pub failures: AtomicU64,
    /// Further attempts.
    pub retries: AtomicU64,
    /// Dead letters that could not be kept.
    pub persist_failures: AtomicU64,
}

/// What calls are made with.
pub(super) struct Around {
    pub core: CoreHandle,
    pub net: Net,
    pub broker: BrokerHandle,
    pub clock: Arc<dyn Clock>,
    pub sandbox: Sandbox,
    pub workspace: PathBuf,
    pub counters: Counters,
    handles: AtomicU32,
}

impl Around {
    pub fn new(parts: super::Parts) -> Self {
        let super::Parts { core, net, broker, clock, sandbox, workspace, .. } = parts;
        let handles = AtomicU32::new(HANDLES_FROM);
        Self { core, net, broker, clock, sandbox, workspace, counters: Counters::default(), handles }
    }
}

/// Whose records a call's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Those of a run that waits for the answer.
    Run(RunId),
    /// The daemon's own, about a run that may have ended.
    Daemon(Option<RunId>),
}

/// A record that awaits its outcome.
enum Open {
    Run(RunId, u32),
    Daemon(Option<RunId>, Seq),
}

/// What a call came to.
pub(super) struct Called {
    pub result: Result<Answer, Failed>,
    pub attempts: u32,
}

/// `hook_command:<event>:<name>`, or the same with the address of an HTTP hook behind it.
pub(super) fn target(hook: &Hook) -> String {
    let (event, name) = (hook.event.as_str(), &hook.name);
    match &hook.executor {
        Executor::Command { .. } => format!("hook_command:{event}:{name}"),
        Executor::Http { target, .. } => {
            let address = target.host_and_port().map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
            format!("hook_http:{event}:{name}:{address}")
        }
    }
}

/// Calls `hook` until it answers, its attempts or its time are used up, or `cancel` is cancelled.
pub(super) fn call(around: &Around, hook: &Hook, told: &Invocation, chain: Chain, cancel: &Cancel) -> Called {
    let deadline = Instant::now() + Duration::from_millis(hook.timeout_ms);
    let body = told.bytes();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let failed = match attempt(around, hook, told, &body, (attempts, chain), deadline, cancel) {
            Ok(answer) => {
                around.counters.executions.fetch_add(1, Ordering::Relaxed);
                return Called { result: Ok(answer), attempts };
            }
            Err(failed) => failed,
        };
        let wait = Duration::from_millis(wait_ms(attempts, failed.retry_after_ms));
        let may_retry = failed.retryable && attempts <= hook.max_retries && Instant::now() + wait < deadline;
        if cancel.is_cancelled() || (may_retry && cancel.wait(wait)) {
            return Called { result: Err(Failed::cancelled()), attempts };
        }
        if !may_retry {
            around.counters.failures.fetch_add(1, Ordering::Relaxed);
            return Called { result: Err(failed), attempts };
        }
        around.counters.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// Pause behind an attempt, or what the hook asks for where that is longer.
fn wait_ms(attempts: u32, retry_after_ms: Option<u64>) -> u64 {
    let doubled = HOOK_RETRY_MS << (attempts - 1).min(8);
    let jitter = u64::from(super::invocation::random_byte()) % HOOK_RETRY_JITTER_MS;
    (doubled + jitter).max(retry_after_ms.unwrap_or(0))
}

fn attempt(
    around: &Around,
    hook: &Hook,
    told: &Invocation,
    body: &[u8],
    (number, chain): (u32, Chain),
    deadline: Instant,
    cancel: &Cancel,
) -> Result<Answer, Failed> {
    let detail = json!({"hook": hook.name, "event": hook.event.as_str(), "attempt": number,
        "invocation_key": told.invocation_key, "idempotency_key": told.execution_key(&hook.name)});
    let answered = match &hook.executor {
        Executor::Command { command, shell } => {
            let open = requested(around, chain, (hook, None, body), detail, deadline, cancel)?;
            let answered = command::call(around, (shell.as_deref(), command), body, deadline, cancel);
            (open, answered)
        }
        Executor::Http { target, auth, signature } => {
            let parts = (&**target, auth.as_ref(), signature.as_ref());
            let prepared = http::Prepared::new(around, hook, parts, told, body, cancel)?;
            let open = requested(around, chain, (hook, prepared.lease(), body), detail, deadline, cancel)?;
            (open, prepared.send(body, deadline))
        }
    };
    let (open, answered) = answered;
    if matches!(&answered.result, Err(failed) if failed.class == "cancelled") {
        // Of a run that was stopped, or a daemon that stops: the outcome is not known, and whoever closes the chain says so.
        responded(around, &open, "unknown", &answered, deadline, cancel).ok();
        return answered.result;
    }
    let outcome = if answered.result.is_ok() { "succeeded" } else { "failed" };
    responded(around, &open, outcome, &answered, deadline, cancel)?;
    answered.result
}

fn sha256(bytes: &[u8]) -> String {
    to_hex(digest(&SHA256, bytes).as_ref())
}

fn not_recorded(error: &CommandError) -> Failed {
    Failed::new("not_recorded", format!("the call could not be recorded: {error}"), false)
}

fn requested(
    around: &Around,
    chain: Chain,
    (hook, lease, body): (&Hook, Option<&str>, &[u8]),
    detail: Value,
    deadline: Instant,
    cancel: &Cancel,
) -> Result<Open, Failed> {
    let (target, digest) = (target(hook), sha256(body));
    match chain {
        Chain::Run(run) => {
            let action = around.handles.fetch_add(1, Ordering::Relaxed).max(HANDLES_FROM);
            let note = Note::action_request(&ActionRequest {
                action,
                kind: "hook",
                target: &target,
                tool_call_id: None,
                lease,
                request_digest: Some(&digest),
                detail,
            });
            record(around, run, note, deadline, cancel).map_err(|error| not_recorded(&error))?;
            Ok(Open::Run(run, action))
        }
        Chain::Daemon(run) => {
            let request = OwnRequest { kind: "hook", target: &target, lease, request_digest: Some(&digest), detail };
            let action = around.core.requested(run, &request).map_err(|error| not_recorded(&error))?;
            Ok(Open::Daemon(run, action))
        }
    }
}

fn responded(
    around: &Around,
    open: &Open,
    outcome: &str,
    answered: &Answered,
    deadline: Instant,
    cancel: &Cancel,
) -> Result<(), Failed> {
    let body = answered.body.as_deref();
    let digest = body.map(sha256);
    let result = match &answered.result {
        Ok(answer) if answer.block => "blocked".to_string(),
        Ok(_) => "ok".to_string(),
        Err(failed) => format!("failed:{}", failed.class),
    };
    let mut detail = json!({"result": result, "response_bytes": body.map_or(0, <[u8]>::len)});
    if let Some(status) = answered.http_status {
        detail["http_status"] = status.into();
    }
    let done = match *open {
        Open::Run(run, action) => {
            let response = ActionResponse { action, outcome, response_digest: digest.as_deref(), detail };
            record(around, run, Note::action_response(&response), deadline, cancel)
        }
        Open::Daemon(run, action) => {
            let response = OwnResponse { action, outcome, response_digest: digest.as_deref(), detail };
            around.core.responded(run, &response)
        }
    };
    done.map_err(|error| not_recorded(&error))
}

/// Makes a note of a run durable. A full disk is waited out as long as the call has time.
fn record(around: &Around, run: RunId, note: Note, deadline: Instant, cancel: &Cancel) -> Result<(), CommandError> {
    loop {
        let error = match around.core.execute(Command::Record { run, notes: vec![note.clone()] }) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let heals =
            matches!(error, CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy);
        if !heals || Instant::now() >= deadline || cancel.wait(Duration::from_millis(ENGINE_RETRY_MS)) {
            return Err(error);
        }
    }
}
