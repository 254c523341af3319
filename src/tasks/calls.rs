//! The calls of models about tasks: `task_*`, `todo_write`, and `bash` in the background.
//! Owns: from checked arguments to a command of the core or the reaper, and to a result for the model.
//! May touch: output files, for reading; the core.
//! Never: shows or changes a task of another session.

use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::view::{OutputView, Part};
use super::{StartError, Tasks};
use crate::commit::CommandError;
use crate::core::{
    Command, Decision, TaskCommand, TaskCreated, TaskStatus, TaskStopRequested, TaskUpdated, Todo, TodosWritten,
};
use crate::engine::{Caller, DaemonTool, WorkerScope};
use crate::ids::{RunId, SessionId};
use crate::limits::{TASK_TAIL_BYTES_DEFAULT, TASK_WAIT_MS_DEFAULT, TOOL_READ_ESCAPED_BYTES_MAX};
use crate::net::Cancel;
use crate::tools::{self, ToolDef, ToolError, ToolOutput};

impl DaemonTool for Tasks {
    fn has(&self, def: &ToolDef) -> bool {
        tool_of(def).is_some() && def.name != "bash"
    }

    fn call(&self, caller: &Caller, def: &ToolDef, input: &RawValue, _: u64, cancel: &Cancel) -> ToolOutput {
        // A background command outlives the run, and has the sandbox of the whole session.
        if def.name == "bash" && caller.scope != WorkerScope::default() {
            return ToolOutput::error(&ToolError::Refused {
                code: "background_not_granted",
                cause: "commands in the background are not for an agent with a part of the sandbox".to_string(),
                next: "run it in the foreground".to_string(),
            });
        }
        let context = CallContext { session: &caller.session, run: Some(caller.run), call: &caller.call, cancel };
        let unknown = || ToolOutput::error(&ToolError::Unknown { tool: def.name.to_string() });
        self.run_call(def, input, context).unwrap_or_else(unknown)
    }
}

type ToolCode = fn(&Tasks, &RawValue, CallContext<'_>) -> Result<ToolOutput, ToolError>;

fn tool_of(def: &ToolDef) -> Option<ToolCode> {
    Some(match def.name {
        "bash" => Tasks::call_bash,
        "task_list" => Tasks::call_list,
        "task_get" => Tasks::call_get,
        "task_output" => Tasks::call_output,
        "task_stop" => Tasks::call_stop,
        "task_create" => Tasks::call_create,
        "task_update" => Tasks::call_update,
        "todo_write" => Tasks::call_todos,
        _ => return None,
    })
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    /// The session whose tasks are meant.
    pub session: &'a SessionId,
    /// The run that calls.
    pub run: Option<RunId>,
    /// The call's id.
    pub call: &'a str,
    /// Ends a wait.
    pub cancel: &'a Cancel,
}

#[derive(Deserialize)]
struct Shell {
    command: String,
    #[serde(default)]
    workdir: String,
}

#[derive(Deserialize)]
struct Filter {
    status: Option<TaskStatus>,
}

#[derive(Deserialize)]
struct Named {
    task_id: String,
}

#[derive(Deserialize)]
struct Output {
    task_id: String,
    #[serde(default)]
    wait: bool,
    timeout_ms: Option<u64>,
    tail_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Stop {
    task_id: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Create {
    title: String,
    #[serde(default)]
    description: String,
    status: Option<TaskStatus>,
    #[serde(default)]
    blocked_by: Vec<String>,
}

#[derive(Deserialize)]
struct Update {
    task_id: String,
    title: Option<String>,
    description: Option<String>,
    status: Option<TaskStatus>,
    blocked_by: Option<Vec<String>>,
    output: Option<String>,
}

#[derive(Deserialize)]
struct Todos {
    todos: Vec<Todo>,
}

#[derive(Serialize)]
struct Started<'a> {
    task_id: &'a str,
    status: TaskStatus,
}

#[derive(Serialize)]
struct Listed {
    tasks: Vec<super::TaskView>,
    todos: Vec<Todo>,
}

#[derive(Serialize)]
struct Written<'a> {
    todos: &'a [Todo],
}

impl Tasks {
    /// Runs a call of [`tools::Place::Daemon`] that is about tasks; `None` for any other tool.
    pub fn run_call(&self, def: &ToolDef, input: &RawValue, context: CallContext<'_>) -> Option<ToolOutput> {
        let run = tool_of(def)?;
        let result = tools::check(def, input).and_then(|()| run(self, input, context));
        Some(result.unwrap_or_else(|error| ToolOutput::error(&error)))
    }

    fn call_bash(&self, input: &RawValue, context: CallContext<'_>) -> Result<ToolOutput, ToolError> {
        let Shell { command, workdir } = tools::parse(input)?;
        let call = Some(context.call.to_string());
        match self.start_shell(context.session, context.run, call, command, workdir) {
            Ok(task) => Ok(ToolOutput::ok(&Started { task_id: &task.id, status: task.status }, false)),
            Err(StartError::Core(error)) => Err(refused(&error)),
            Err(error) => Err(ToolError::Refused {
                code: "task_not_started",
                cause: error.to_string(),
                next: "do without it, or try again later".to_string(),
            }),
        }
    }

    fn call_list(&self, input: &RawValue, context: CallContext<'_>) -> Result<ToolOutput, ToolError> {
        let Filter { status } = tools::parse(input)?;
        let all = self.core.tasks(context.session).map_err(|error| refused(&error))?.unwrap_or_default();
        let todos = self.core.todos(context.session).map_err(|error| refused(&error))?.unwrap_or_default();
        let wanted = all.iter().filter(|task| status.is_none_or(|status| task.status == status));
        let mut tasks: Vec<super::TaskView> = wanted.map(|task| self.view(task, &all)).collect();
        // The newest ones, as many as a result holds.
        let mut truncated = false;
        loop {
            let output = ToolOutput::ok(&Listed { tasks: tasks.clone(), todos: todos.clone() }, truncated);
            if !output.is_error || tasks.is_empty() {
                return Ok(output);
            }
            tasks.drain(..tasks.len().div_ceil(2));
            truncated = true;
        }
    }

    fn call_get(&self, input: &RawValue, context: CallContext<'_>) -> Result<ToolOutput, ToolError> {
        let Named { task_id } = tools::parse(input)?;
        let all = self.core.tasks(context.session).map_err(|error| refused(&error))?.unwrap_or_default();
        let task = all.iter().find(|task| task.id == task_id).ok_or_else(|| unknown(&task_id))?;
        Ok(ToolOutput::ok(&self.view(task, &all), false))
    }

    fn call_output(&self, input: &RawValue, context: CallContext<'_>) -> Result<ToolOutput, ToolError> {
        let Output { task_id, wait, timeout_ms, tail_bytes } = tools::parse(input)?;
        let task = self.core.task(context.session, &task_id).map_err(|error| refused(&error))?;
        let mut task = task.ok_or_else(|| unknown(&task_id))?;
        if wait && task.is_live() {
            let until = Instant::now() + Duration::from_millis(timeout_ms.unwrap_or(TASK_WAIT_MS_DEFAULT));
            let (done, ended) = bounded(1);
            self.when_ended(&task_id, until, Box::new(move |task| drop(done.try_send(task))));
            select! {
                recv(ended) -> ended => if let Ok(Some(ended)) = ended { task = ended },
                recv(context.cancel.woken()) -> _ => return Err(ToolError::Cancelled),
            }
        }
        let bytes = tail_bytes.unwrap_or(TASK_TAIL_BYTES_DEFAULT);
        // The engine redacts what a model gets, whatever tool it comes from.
        let shown = |text: &str| tools::cut_tail(text, TOOL_READ_ESCAPED_BYTES_MAX).to_string();
        let view = OutputView::of(&task, self.live(&task_id), self.directory(), Part::Tail(bytes), wait, &shown);
        let view = view.map_err(|error| ToolError::Refused {
            code: "task_output_unreadable",
            cause: format!("the output of {task_id} cannot be read: {error}"),
            next: "go on without it".to_string(),
        })?;
        Ok(ToolOutput::ok(&view, view.output_truncated))
    }

    fn call_stop(&self, input: &RawValue, context: CallContext<'_>) -> Result<ToolOutput, ToolError> {
        let Stop { task_id, reason } = tools::parse(input)?;
        let stop = TaskStopRequested { id: task_id, reason };
        self.decide(TaskCommand::Stop(context.session.clone(), stop))
    }

    fn call_create(&self, input: &RawValue, context: CallContext<'_>) -> Result<ToolOutput, ToolError> {
        let Create { title, description, status, blocked_by } = tools::parse(input)?;
        let status = status.unwrap_or(TaskStatus::Pending);
        let created = TaskCreated { id: String::new(), title, description, status, blocked_by, run: context.run };
        self.decide(TaskCommand::Create(context.session.clone(), created))
    }

    fn call_update(&self, input: &RawValue, context: CallContext<'_>) -> Result<ToolOutput, ToolError> {
        let Update { task_id, title, description, status, blocked_by, output } = tools::parse(input)?;
        let update = TaskUpdated { id: task_id, title, description, status, blocked_by, output };
        self.decide(TaskCommand::Update(context.session.clone(), update))
    }

    fn call_todos(&self, input: &RawValue, context: CallContext<'_>) -> Result<ToolOutput, ToolError> {
        let Todos { todos } = tools::parse(input)?;
        if let Some(twice) = (1..todos.len()).find(|at| todos[..*at].iter().any(|todo| todo.id == todos[*at].id)) {
            return Err(ToolError::Arguments {
                field: format!("todos[{twice}].id"),
                cause: "it stands in the list twice".to_string(),
                expected: "another id for each note".to_string(),
            });
        }
        let list = TodosWritten { todos: todos.clone() };
        let command = Command::Task(Box::new(TaskCommand::WriteTodos(context.session.clone(), list)));
        self.core.execute(command).map_err(|error| refused(&error))?;
        Ok(ToolOutput::ok(&Written { todos: &todos }, false))
    }

    fn decide(&self, command: TaskCommand) -> Result<ToolOutput, ToolError> {
        match self.core.execute(Command::Task(Box::new(command))) {
            Ok(Decision::Task(task)) => Ok(ToolOutput::ok(&self.view(&task, &[]), false)),
            Ok(other) => unreachable!("a task was asked for, not {other:?}"),
            Err(error) => Err(refused(&error)),
        }
    }
}

fn unknown(id: &str) -> ToolError {
    ToolError::Refused {
        code: "task_not_found",
        cause: format!("this session has no task {id:?}"),
        next: "look with task_list".to_string(),
    }
}

fn refused(error: &CommandError) -> ToolError {
    let text = error.to_string();
    let (cause, next) = text.rsplit_once("; next: ").unwrap_or((&text, "try again later"));
    ToolError::Refused { code: "task_refused", cause: cause.to_string(), next: next.to_string() }
}
