//! Where tools run: a sandboxed worker for each run in hand, or a room of the daemon itself.
//! Owns: the worker of a run, started at its first call and ended when the run is let go.
//! May touch: sandbox workers; the daemon's own tools through [`DaemonTool`].
//! Never: decides whether a call may run; it is handed calls that may.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use serde_json::value::RawValue;

use crate::core::{CallOutcome, QuestionResolved, UserQuestion};
use crate::ids::{RunId, SessionId};
use crate::net::Cancel;
use crate::providers::ToolSpec;
use crate::sandbox::{Sandbox, SandboxError, ToolWorker, WorkerError};
use crate::tools::{self, Place, RoomTool, Tool, ToolDef, ToolOutput};

/// Whose call it is.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The session.
    pub session: SessionId,
    /// The run.
    pub run: RunId,
    /// The call's id, unique within its turn.
    pub call: String,
    /// What of the sandbox the agent gets.
    pub scope: WorkerScope,
    /// Requests that the run had made to a model before this turn's answer: tells turns apart.
    pub turn: u32,
}

/// Tools that the daemon runs itself, for example the lists of tasks.
pub trait DaemonTool: Send + Sync {
    /// Whether it has this tool, so that models are offered it.
    fn has(&self, def: &ToolDef) -> bool;

    /// Tools that it has beside those of the table, for a session. Called once when a run is taken in hand; it may make the
    /// room ready for the session.
    fn offered(&self, _session: &SessionId, _cancel: &Cancel) -> Vec<Arc<RoomTool>> {
        Vec::new()
    }

    /// The one of [`DaemonTool::offered`] with this name, as it is now.
    fn find(&self, _session: &SessionId, _name: &str) -> Option<Arc<RoomTool>> {
        None
    }

    /// Runs a call within `limit_ms`, or until cancelled. Called for tools that it [`DaemonTool::has`] and, for
    /// `bash` with `run_in_background`, for the first room that has `task_output`.
    fn call(&self, caller: &Caller, def: &ToolDef, input: &RawValue, limit_ms: u64, cancel: &Cancel) -> ToolOutput;

    /// As [`DaemonTool::call`], for a room whose calls may have people asked while they are under way.
    fn begin(&self, caller: &Caller, def: &ToolDef, input: &RawValue, limit_ms: u64, cancel: &Cancel) -> Called {
        Called::Over(self.call(caller, def, input, limit_ms, cancel))
    }

    /// Goes on with a call that [`Called::Asks`]; `None` when it is not under way any more, as after a restart.
    fn resume(&self, _caller: &Caller, _answer: &QuestionResolved, _limit_ms: u64, _cancel: &Cancel) -> Option<Called> {
        None
    }
}

/// How far a call has come.
#[derive(Debug)]
pub enum Called {
    /// It has ended.
    Over(ToolOutput),
    /// It waits, under way, for an answer of people.
    Asks(RoomQuestion),
}

/// What people are asked while a call is under way.
#[derive(Debug)]
pub struct RoomQuestion {
    /// On whose behalf.
    pub server: String,
    /// Answered or declined together.
    pub questions: Vec<UserQuestion>,
    /// When the call goes on without an answer, milliseconds from now.
    pub expires_after_ms: u64,
}

/// A worker of one run.
pub trait RunWorker {
    /// Runs a call; see [`ToolWorker::call`].
    ///
    /// # Errors
    /// There is no answer; the worker is gone, but for a call that was too large.
    fn call(&mut self, tool: &str, input: &RawValue, limit_ms: u64, cancel: &Cancel)
    -> Result<ToolOutput, WorkerError>;
}

impl RunWorker for ToolWorker {
    fn call(
        &mut self,
        tool: &str,
        input: &RawValue,
        limit_ms: u64,
        cancel: &Cancel,
    ) -> Result<ToolOutput, WorkerError> {
        Self::call(self, tool, input, limit_ms, cancel)
    }
}

/// What of the sandbox a run's worker gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerScope {
    /// Directory below the daemon's workspace; empty is all of it.
    pub workspace: String,
    /// Files can only be read.
    pub read_only: bool,
    /// No network even where the operator grants commands one.
    pub no_network: bool,
}

/// Makes a worker. Called on the thread that will use it.
pub type StartWorker = dyn Fn(&WorkerScope) -> Result<Box<dyn RunWorker>, SandboxError> + Send + Sync;

/// All tools of the daemon. Cheap to clone.
#[derive(Clone)]
pub struct Toolbox {
    start: Option<Arc<StartWorker>>,
    rooms: Vec<Arc<dyn DaemonTool>>,
}

impl Toolbox {
    /// No tools at all: models are offered none.
    pub fn none() -> Self {
        Self { start: None, rooms: Vec::new() }
    }

    /// Tools that run in workers of this sandbox, on this workspace. Where the sandbox cannot be had each call is told so.
    pub fn sandboxed(sandbox: Sandbox, workspace: PathBuf) -> Self {
        Self::with_workers(Arc::new(move |scope: &WorkerScope| {
            let mut spec = sandbox.spec_below(&workspace, &scope.workspace)?;
            spec.workspace_read_only |= scope.read_only;
            spec.network &= !scope.no_network;
            Ok(Box::new(ToolWorker::start(&spec)?) as Box<dyn RunWorker>)
        }))
    }

    /// Tools that run in workers made by `start`.
    pub fn with_workers(start: Arc<StartWorker>) -> Self {
        Self { start: Some(start), rooms: Vec::new() }
    }

    /// The same with one more room of the daemon's own tools.
    pub fn with_room(mut self, room: Arc<dyn DaemonTool>) -> Self {
        self.rooms.push(room);
        self
    }

    /// Whether a call of this tool can be carried out here.
    pub fn offers(&self, def: &ToolDef) -> bool {
        match def.place {
            Place::Worker => self.start.is_some(),
            // The engine suspends the run itself.
            Place::Daemon if def.name == super::question::TOOL => self.start.is_some(),
            Place::Daemon if super::agent_wait::is_waiting(def) => {
                self.rooms.iter().any(|room| tools::find("spawn_agent").is_some_and(|spawn| room.has(spawn)))
            }
            Place::Daemon => self.rooms.iter().any(|room| room.has(def)),
        }
    }

    /// The tool with this name, if a call of it can be carried out here for this session.
    pub fn find(&self, session: &SessionId, name: &str) -> Option<Tool> {
        if let Some(def) = tools::find(name) {
            return Some(Tool::Listed(def)).filter(|_| self.offers(def));
        }
        self.rooms.iter().find_map(|room| room.find(session, name)).map(Tool::Room)
    }

    /// What a provider is told of in a run of `session`. What a room offers may change while a run is in hand; the run's
    /// list stays.
    pub fn specs(&self, session: &SessionId, cancel: &Cancel) -> Vec<ToolSpec> {
        let of_rooms =
            self.rooms.iter().flat_map(|room| room.offered(session, cancel)).map(|tool| Tool::Room(tool).spec());
        tools::specs(|def| self.offers(def)).into_iter().chain(of_rooms).collect()
    }

    /// Runs one call of a room's tool to its end, or until it asks people. Needs no worker, so that several may run side by side.
    pub(super) fn in_room(
        &self,
        caller: &Caller,
        def: &ToolDef,
        input: &RawValue,
        limit_ms: u64,
        cancel: &Cancel,
    ) -> Ran {
        let began = Instant::now();
        let (outcome, output) = match self.room(def) {
            Some(room) => match room.begin(caller, def, input, limit_ms, cancel) {
                Called::Over(output) => told(output),
                Called::Asks(asks) => return Ran::Asks(asks),
            },
            None => {
                let error = format!("{} is not available here; next: use another tool", def.name);
                (CallOutcome::Error, failure("tool_unavailable", &error))
            }
        };
        Ran::Over(CallResult { outcome, output, duration_ms: elapsed_ms(began) })
    }

    fn room(&self, def: &ToolDef) -> Option<&Arc<dyn DaemonTool>> {
        let wanted = if def.name == "bash" { *tools::find("task_output")? } else { *def };
        self.rooms.iter().find(|room| room.has(&wanted))
    }
}

/// What became of a call that was run.
pub(super) enum Ran {
    /// It has ended.
    Over(CallResult),
    /// People are asked.
    Asks(RoomQuestion),
}

/// What a call gave.
pub(super) struct CallResult {
    pub outcome: CallOutcome,
    pub output: ToolOutput,
    pub duration_ms: u64,
}

fn elapsed_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A call that has no output of its own.
pub(super) fn failure(code: &str, error: &str) -> ToolOutput {
    let content = json!({"error": error, "code": code}).to_string();
    ToolOutput { content, is_error: true, truncated: false, overflow: None }
}

/// The tools of one run in hand.
pub(super) struct Bench<'t> {
    toolbox: &'t Toolbox,
    worker: Option<(WorkerScope, Box<dyn RunWorker>)>,
}

impl<'t> Bench<'t> {
    pub(super) fn new(toolbox: &'t Toolbox) -> Self {
        Self { toolbox, worker: None }
    }

    /// Runs one call to its end. Whatever goes wrong is an output that says so.
    pub(super) fn run(
        &mut self,
        caller: &Caller,
        def: &ToolDef,
        input: &RawValue,
        scope: &WorkerScope,
        limit_ms: u64,
        cancel: &Cancel,
    ) -> Ran {
        let began = Instant::now();
        let (outcome, output) = match tools::place(def, input) {
            Place::Worker => self.in_worker(def, input, scope, limit_ms, cancel),
            Place::Daemon => return self.toolbox.in_room(caller, def, input, limit_ms, cancel),
        };
        Ran::Over(CallResult { outcome, output, duration_ms: elapsed_ms(began) })
    }

    /// All tools of the daemon.
    pub(super) fn toolbox(&self) -> &'t Toolbox {
        self.toolbox
    }

    /// Goes on with a call that people were asked for; `None` when it is not under way any more.
    pub(super) fn resume(
        &self,
        caller: &Caller,
        def: &ToolDef,
        answer: &QuestionResolved,
        limit_ms: u64,
        cancel: &Cancel,
    ) -> Option<Ran> {
        let began = Instant::now();
        Some(match self.toolbox.room(def)?.resume(caller, answer, limit_ms, cancel)? {
            Called::Asks(asks) => Ran::Asks(asks),
            Called::Over(output) => {
                let (outcome, output) = told(output);
                Ran::Over(CallResult { outcome, output, duration_ms: elapsed_ms(began) })
            }
        })
    }

    fn in_worker(
        &mut self,
        def: &ToolDef,
        input: &RawValue,
        scope: &WorkerScope,
        limit_ms: u64,
        cancel: &Cancel,
    ) -> (CallOutcome, ToolOutput) {
        // One that was started under another scope is ended.
        let fitting = self.worker.take().filter(|(started, _)| started == scope);
        let mut worker = match fitting {
            Some((_, worker)) => worker,
            None => match self.toolbox.start.as_ref().map(|start| start(scope)) {
                Some(Ok(worker)) => worker,
                Some(Err(error)) => {
                    log::error!("a tool call cannot run: {error}");
                    return (CallOutcome::Error, failure(error.code(), &error.to_string()));
                }
                None => {
                    let error = "this daemon runs no tools; next: answer without them";
                    return (CallOutcome::Error, failure("tool_unavailable", error));
                }
            },
        };
        match worker.call(def.name, input, limit_ms, cancel) {
            Ok(output) => {
                self.worker = Some((scope.clone(), worker));
                told(output)
            }
            // Without its worker the next call starts another one.
            Err(error) => {
                let outcome = match error {
                    WorkerError::TimedOut { .. } => CallOutcome::TimedOut,
                    WorkerError::Cancelled => CallOutcome::Cancelled,
                    WorkerError::Died { .. } | WorkerError::Memory { .. } => CallOutcome::Error,
                    WorkerError::TooLarge { .. } => {
                        self.worker = Some((scope.clone(), worker));
                        CallOutcome::Error
                    }
                };
                (outcome, failure(error.code(), &error.to_string()))
            }
        }
    }
}

fn told(output: ToolOutput) -> (CallOutcome, ToolOutput) {
    (if output.is_error { CallOutcome::Error } else { CallOutcome::Ok }, output)
}
