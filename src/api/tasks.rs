//! Tasks of a session: list, read, output, stop.
//! Owns: the routes below `/v1/sessions/{session_id}/tasks`.
//! May touch: output files, for reading, through the tasks room.
//! Never: holds a worker thread while somebody waits for a task's end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::call::{Call, Reply};
use super::context::Api;
use super::json;
use super::paging::{Page, PageRequest};
use super::query::{Query, QueryKind, QueryParam};
use super::sessions::reason;
use crate::broker::BrokerHandle;
use crate::core::{Command, Decision, Task, TaskCommand, TaskStatus, TaskStopRequested};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::{TASK_TAIL_BYTES_DEFAULT, TASK_TAIL_BYTES_MAX, TASK_WAIT_MS_DEFAULT, TASK_WAIT_MS_MAX};
use crate::tasks::{OutputView, Part, Tasks};

/// Only tasks in this state.
pub const STATUS: QueryParam = QueryParam {
    name: "status",
    kind: QueryKind::OneOf(&["pending", "in_progress", "blocked", "completed", "failed", "cancelled"]),
    summary: "Only tasks in this state.",
};
/// Wait for the end of a command.
pub const WAIT: QueryParam =
    QueryParam { name: "wait", kind: QueryKind::Flag, summary: "true: answer once the command has ended." };
/// How long to wait.
pub const TIMEOUT_MS: QueryParam = QueryParam {
    name: "timeout_ms",
    kind: QueryKind::Unsigned,
    summary: "Longest wait in milliseconds; 30000 when left out, at most 600000.",
};
/// How much of the output.
pub const TAIL_BYTES: QueryParam = QueryParam {
    name: "tail_bytes",
    kind: QueryKind::Unsigned,
    summary: "Bytes from the end of the output; 8192 when left out, at most 262144.",
};
/// All of the output.
pub const FULL: QueryParam = QueryParam {
    name: "full",
    kind: QueryKind::Flag,
    summary: "true: the whole output file, at most 8 MiB, instead of its end.",
};

fn tasks_of(api: &Api, call: &Call) -> Result<Vec<Arc<Task>>, Problem> {
    let session = call.session_id()?;
    api.core.tasks(&session)?.ok_or_else(|| {
        Problem::new(
            &codes::SESSION_NOT_FOUND,
            format!("unknown session {session}; next: create it with POST /v1/sessions or list them"),
        )
    })
}

fn found(all: &[Arc<Task>], id: &str) -> Result<Arc<Task>, Problem> {
    all.iter().find(|task| task.id == id).cloned().ok_or_else(|| {
        Problem::new(&codes::TASK_NOT_FOUND, "the session has no such task; next: list the session's tasks")
    })
}

/// `GET /v1/sessions/{session_id}/tasks`.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let all = tasks_of(api, call)?;
    let status = call.query.text(STATUS.name);
    let after: u32 = match request.after.as_deref() {
        None => 0,
        Some(key) => key.strip_prefix("task:").and_then(|number| number.parse().ok()).ok_or_else(|| {
            Problem::new(&codes::INVALID_CURSOR, "the cursor does not name a task; next: start without a cursor")
        })?,
    };
    let wanted = || all.iter().filter(|task| status.is_none_or(|status| task.status.as_str() == status));
    let mut behind = wanted().filter(|task| task.number > after);
    let shown: Vec<&Arc<Task>> = behind.by_ref().take(request.limit).collect();
    let next = behind.next().and(shown.last()).map(|task| format!("task:{}", task.number));
    let items = shown.iter().map(|task| api.tasks.view(task, &all)).collect();
    Ok(Page { items, total_count: wanted().count() as u64, next, order: "task_id_asc" }.answer(&request))
}

/// `GET /v1/sessions/{session_id}/tasks/{task_id}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let all = tasks_of(api, call)?;
    let task = found(&all, &call.param("task_id")?)?;
    Ok(Response::json(200, &api.tasks.view(&task, &all)))
}

/// What makes an answer about an output, on whichever thread.
struct Output {
    tasks: Tasks,
    broker: BrokerHandle,
    part: Part,
    wait: bool,
}

impl Output {
    fn answer(&self, task: &Task) -> Result<Response, Problem> {
        let (live, redact) = (|| self.tasks.live(&task.id), |text: &str| self.broker.redact(text));
        let view = OutputView::of(task, &live, self.tasks.directory(), self.part, self.wait, &redact);
        view.map(|view| Response::json(200, &view)).map_err(|error| {
            let detail = format!("the output of {} cannot be read: {error}; next: check shell-tasks", task.id);
            Problem::new(&codes::TASK_OUTPUT_UNREADABLE, detail)
        })
    }
}

/// `GET /v1/sessions/{session_id}/tasks/{task_id}/output`.
pub fn output(api: &Api, call: Call, reply: Reply) {
    let prepared = tasks_of(api, &call).and_then(|all| {
        let task = found(&all, &call.param("task_id")?)?;
        if task.shell.is_none() {
            let detail = "it is a to-do item and has no output file; next: read the task";
            return Err(Problem::new(&codes::TASK_STATE_CONFLICT, detail));
        }
        Ok((task, part(&call.query)?, wait_ms(&call.query)?))
    });
    let (task, part, wait_ms) = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => return reply.send(problem),
    };
    let wait = call.query.flag(WAIT.name);
    let output = Output { tasks: api.tasks.clone(), broker: api.broker.clone(), part, wait };
    if !wait || !task.is_live() {
        return reply.send_result(output.answer(&task));
    }
    let until = Instant::now() + Duration::from_millis(wait_ms);
    let id = task.id.clone();
    let done = move |ended: Option<Arc<Task>>| reply.send_result(output.answer(ended.as_ref().unwrap_or(&task)));
    api.tasks.when_ended(&id, until, Box::new(done));
}

fn part(query: &Query) -> Result<Part, Problem> {
    let tail = query.unsigned(TAIL_BYTES.name);
    match (query.flag(FULL.name), tail) {
        (true, Some(_)) => {
            Err(Problem::new(&codes::BAD_REQUEST, "full and tail_bytes exclude each other; next: give one of them"))
        }
        (true, None) => Ok(Part::Full),
        (false, tail) => {
            Ok(Part::Tail(bounded(TAIL_BYTES.name, tail.unwrap_or(TASK_TAIL_BYTES_DEFAULT), TASK_TAIL_BYTES_MAX)?))
        }
    }
}

fn wait_ms(query: &Query) -> Result<u64, Problem> {
    bounded(TIMEOUT_MS.name, query.unsigned(TIMEOUT_MS.name).unwrap_or(TASK_WAIT_MS_DEFAULT), TASK_WAIT_MS_MAX)
}

fn bounded(name: &str, value: u64, most: u64) -> Result<u64, Problem> {
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    let detail = format!("the query parameter {name} must be from 1 to {most}");
    Err(Problem::new(&codes::BAD_REQUEST, detail))
}

/// Body of `POST …/stop`; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopBody {
    reason: Option<String>,
}

/// `POST /v1/sessions/{session_id}/tasks/{task_id}/stop`: asks for the end. A task that has ended is shown as it is.
pub fn stop(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session = call.session_id()?;
    let body: StopBody = json::parse_or_default(&call.body)?;
    let stop = TaskStopRequested { id: call.param("task_id")?.into_owned(), reason: reason(body.reason)? };
    let command = Command::Task(Box::new(TaskCommand::Stop(session, stop)));
    match api.core.request(command, Some(call.actor()))? {
        Decision::Task(task) => Ok(Response::json(200, &api.tasks.view(&task, &[]))),
        other => Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
    }
}

/// The group `tasks` of status.
#[derive(Debug, serde::Serialize)]
pub struct TasksStatus {
    /// Background commands that have not ended.
    pub live_background_shell_task_count: u64,
    /// Tasks ever created.
    pub total: u64,
    /// Of these: not begun.
    pub pending: u64,
    /// Being worked on.
    pub in_progress: u64,
    /// Waiting for another one.
    pub blocked: u64,
    /// Done.
    pub completed: u64,
    /// Not done.
    pub failed: u64,
    /// Given up or stopped.
    pub cancelled: u64,
    /// Tasks are in the journal: no session can be unreadable by itself.
    pub unreadable_session_count: u64,
    /// Nor outside the index.
    pub unindexed_session_count: u64,
}

impl From<&crate::core::TaskCounts> for TasksStatus {
    fn from(counts: &crate::core::TaskCounts) -> Self {
        let of = |status: TaskStatus| counts.by_status[status as usize];
        Self {
            live_background_shell_task_count: counts.live_shell,
            total: counts.by_status.iter().sum(),
            pending: of(TaskStatus::Pending),
            in_progress: of(TaskStatus::InProgress),
            blocked: of(TaskStatus::Blocked),
            completed: of(TaskStatus::Completed),
            failed: of(TaskStatus::Failed),
            cancelled: of(TaskStatus::Cancelled),
            unreadable_session_count: 0,
            unindexed_session_count: 0,
        }
    }
}
