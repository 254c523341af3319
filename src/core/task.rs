//! Tasks of sessions: background commands, to-do items, and the short list of notes.
//! Owns: the records `task.*` and `todos.written`, their rules, and the tasks that are kept.
//! Never: starts or ends a process; that a command runs is the reaper's word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::command::{Decision, Refusal};
use super::event::{Body, Event};
use super::txn::Txn;
use crate::ids::{RunId, Seq, SessionId};
use crate::limits::{
    SESSION_TASKS_KEPT_MAX, SESSION_TASKS_OPEN_MAX, TASK_COMMAND_SHOWN_BYTES_MAX, TASKS_KEPT_MAX, TASKS_LIVE_MAX,
    TASKS_OPEN_MAX, TODO_LISTS_MAX,
};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Not begun.
    Pending,
    /// Being worked on; a background command is running.
    InProgress,
    /// Something else has to be done first.
    Blocked,
    /// Done; a background command ended with code 0.
    Completed,
    /// Not done.
    Failed,
    /// Given up; a background command was stopped.
    Cancelled,
}

impl TaskStatus {
    /// Every status, in wire order.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::InProgress, Self::Blocked, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name on the wire and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Blocked => "blocked",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Body of `task.started`: durable before the command is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStarted {
    /// `shell-task-<n>`.
    pub id: String,
    /// Given to the shell.
    pub command: String,
    /// Relative to the workspace; empty is the workspace.
    pub workdir: String,
    /// The run that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The tool call that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// What all its processes carry in their environment, so that a later daemon knows them.
    pub token: String,
}

/// Body of `task.stop_requested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStopRequested {
    /// The task.
    pub id: String,
    /// Operator's or model's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a background command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEnd {
    /// `completed`, `failed` or `cancelled`.
    pub status: TaskStatus,
    /// Its exit code, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it ended, when that was not by itself: `stopped`, `daemon_restarted`, `daemon_stopped`, `worker_died`,
    /// `memory_exceeded`, `could_not_start`, `output_capture_failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_reason: Option<String>,
    /// More about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The daemon that wrote this is not the one that started it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered_on_boot: bool,
    /// Whether every process of it is known to be gone.
    pub tree_ended: bool,
    /// Processes that could not be ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined_pids: Vec<u32>,
    /// Bytes of its output file.
    #[serde(default)]
    pub output_size_bytes: u64,
    /// Bytes that it wrote.
    #[serde(default)]
    pub output_total_bytes: u64,
    /// How often older output was dropped.
    #[serde(default)]
    pub output_rotation_count: u32,
}

/// Body of `task.finished`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFinished {
    /// The task.
    pub id: String,
    /// How.
    #[serde(flatten)]
    pub end: TaskEnd,
}

/// Body of `task.created`: a to-do item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCreated {
    /// `task-<n>`.
    pub id: String,
    /// What is to be done.
    pub title: String,
    /// Details.
    #[serde(default)]
    pub description: String,
    /// `pending`, `in_progress` or `blocked`.
    pub status: TaskStatus,
    /// Tasks that have to be done first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<String>,
    /// The run that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// Body of `task.updated`: what changed of a to-do item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskUpdated {
    /// The item.
    pub id: String,
    /// New title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// New details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// New state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// New list of tasks that have to be done first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Vec<String>>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// It is shown no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// One note of the short list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Todo {
    /// Unique in its list.
    pub id: String,
    /// What is to be done.
    pub content: String,
    /// Whether it is done.
    pub completed: bool,
}

/// Body of `todos.written`: the whole list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TodosWritten {
    /// In order.
    pub todos: Vec<Todo>,
}

/// What happened to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskRecord {
    /// A background command is about to be started.
    Started(TaskStarted),
    /// It shall end.
    StopRequested(TaskStopRequested),
    /// It has ended.
    Finished(TaskFinished),
    /// A to-do item was added.
    Created(TaskCreated),
    /// A to-do item was changed.
    Updated(TaskUpdated),
    /// The short list was replaced.
    Todos(TodosWritten),
}

impl TaskRecord {
    /// The record kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started(_) => "task.started",
            Self::StopRequested(_) => "task.stop_requested",
            Self::Finished(_) => "task.finished",
            Self::Created(_) => "task.created",
            Self::Updated(_) => "task.updated",
            Self::Todos(_) => "todos.written",
        }
    }

    /// The body as JSON.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Started(body) => serde_json::to_vec(body),
            Self::StopRequested(body) => serde_json::to_vec(body),
            Self::Finished(body) => serde_json::to_vec(body),
            Self::Created(body) => serde_json::to_vec(body),
            Self::Updated(body) => serde_json::to_vec(body),
            Self::Todos(body) => serde_json::to_vec(body),
        }
        .expect("bodies have string keys and no failing serialisers")
    }

    /// Reads a record back; `None` when the kind is no task's.
    pub(super) fn decode(kind: &str, body: &RawValue) -> Option<Result<Self, serde_json::Error>> {
        let text = body.get();
        Some(match kind {
            "task.started" => serde_json::from_str(text).map(Self::Started),
            "task.stop_requested" => serde_json::from_str(text).map(Self::StopRequested),
            "task.finished" => serde_json::from_str(text).map(Self::Finished),
            "task.created" => serde_json::from_str(text).map(Self::Created),
            "task.updated" => serde_json::from_str(text).map(Self::Updated),
            "todos.written" => serde_json::from_str(text).map(Self::Todos),
            _ => return None,
        })
    }

    /// The task that the record is about.
    fn id(&self) -> Option<&str> {
        match self {
            Self::Started(body) => Some(&body.id),
            Self::StopRequested(body) => Some(&body.id),
            Self::Finished(body) => Some(&body.id),
            Self::Created(body) => Some(&body.id),
            Self::Updated(body) => Some(&body.id),
            Self::Todos(_) => None,
        }
    }
}

/// What is special about a background command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellTask {
    /// The beginning of its command.
    pub command: String,
    /// Relative to the workspace.
    pub workdir: String,
    /// The run that started it.
    pub run: Option<RunId>,
    /// The tool call that started it.
    pub call: Option<String>,
    /// What its processes carry in their environment.
    pub token: String,
    /// When its end was asked for.
    pub stop_requested_at_ms: Option<u64>,
    /// Why.
    pub stop_reason: Option<String>,
    /// How it ended.
    pub end: Option<TaskEnd>,
}

/// A task as the core keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// `shell-task-<n>` or `task-<n>`.
    pub id: String,
    /// Counts from 1 over all tasks.
    pub number: u32,
    /// Number of its session.
    pub session: u32,
    /// Where it stands.
    pub status: TaskStatus,
    /// What is to be done; of a command, its beginning.
    pub title: String,
    /// Details.
    pub description: String,
    /// Tasks that have to be done first.
    pub blocked_by: Vec<String>,
    /// What came of it.
    pub output: Option<String>,
    /// When it was created.
    pub created_at_ms: u64,
    /// Time of its newest record.
    pub updated_at_ms: u64,
    /// Its newest record.
    pub last_seq: Seq,
    /// Set for a background command.
    pub shell: Option<ShellTask>,
    /// It is shown no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl Task {
    /// Whether it is a background command that has not ended.
    pub fn is_live(&self) -> bool {
        self.shell.is_some() && !self.status.is_terminal()
    }
}

/// Figures of all tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// By status, in the order of [`TaskStatus::ALL`]; tasks that are no longer kept included.
    pub by_status: [u64; 6],
    /// Background commands that have not ended.
    pub live_shell: u64,
}

/// The short list of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TodoList {
    pub(super) written: Seq,
    pub(super) todos: Vec<Todo>,
}

/// All tasks that are kept: every open one, and of each session the newest that have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {
    /// Tasks ever created.
    pub(super) created: u32,
    pub(super) by_status: [u64; 6],
    pub(super) by_number: BTreeMap<u32, Arc<Task>>,
    pub(super) todos: BTreeMap<u32, Arc<TodoList>>,
    of_session: BTreeMap<u32, BTreeSet<u32>>,
    /// Ended tasks by the position of their end.
    ended: BTreeSet<(Seq, u32)>,
    live: BTreeSet<u32>,
}

impl Tasks {
    /// A new or changed task. Ended ones beyond the bounds are forgotten, oldest end first; which ones these are does not
    /// depend on how many records were taken in at once.
    pub(super) fn put(&mut self, number: u32, task: Arc<Task>) {
        let session = task.session;
        if let Some(before) = self.by_number.get(&number) {
            self.by_status[before.status as usize] -= 1;
        }
        self.created = self.created.max(number);
        self.by_status[task.status as usize] += 1;
        self.keep(number, task);
        let ended = self.of_session[&session].iter().filter_map(|number| self.by_number.get(number));
        let ended: Vec<(Seq, u32)> =
            ended.filter(|task| task.status.is_terminal()).map(|task| (task.last_seq, task.number)).collect();
        if ended.len() > SESSION_TASKS_KEPT_MAX
            && let Some((_, oldest)) = ended.into_iter().min()
        {
            self.forget(oldest);
        }
        if self.ended.len() > TASKS_KEPT_MAX
            && let Some((_, oldest)) = self.ended.first().copied()
        {
            self.forget(oldest);
        }
    }

    /// A task of a snapshot, whose figures are those of the snapshot's head.
    pub(super) fn keep(&mut self, number: u32, task: Arc<Task>) {
        if task.status.is_terminal() {
            self.ended.insert((task.last_seq, number));
        }
        if task.is_live() {
            self.live.insert(number);
        } else {
            self.live.remove(&number);
        }
        self.of_session.entry(task.session).or_default().insert(number);
        self.by_number.insert(number, task);
    }

    fn forget(&mut self, number: u32) {
        let Some(task) = self.by_number.remove(&number) else { return };
        self.ended.remove(&(task.last_seq, number));
        if let Some(numbers) = self.of_session.get_mut(&task.session) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of_session.remove(&task.session);
            }
        }
    }

    pub(super) fn put_todos(&mut self, session: u32, list: Arc<TodoList>) {
        if list.todos.is_empty() {
            self.todos.remove(&session);
            return;
        }
        self.todos.insert(session, list);
        if self.todos.len() > TODO_LISTS_MAX
            && let Some(oldest) = self.todos.iter().min_by_key(|(_, list)| list.written).map(|(session, _)| *session)
        {
            self.todos.remove(&oldest);
        }
    }

    pub(super) fn of_session(&self, session: u32) -> impl Iterator<Item = &Arc<Task>> {
        self.of_session.get(&session).into_iter().flatten().filter_map(|number| self.by_number.get(number))
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.live.iter().filter_map(|number| self.by_number.get(number))
    }

    fn open_count(&self) -> usize {
        self.by_number.len() - self.ended.len()
    }

    pub(super) fn counts(&self) -> TaskCounts {
        TaskCounts { by_status: self.by_status, live_shell: self.live.len() as u64 }
    }
}

/// A request about tasks.
#[derive(Debug, Clone)]
pub enum TaskCommand {
    /// Record that a background command is about to be started. `id` is decided here.
    Start(SessionId, TaskStarted),
    /// Ask for the end of a background command. One that has ended stays as it is.
    Stop(SessionId, TaskStopRequested),
    /// Record the end of a background command. A second one changes nothing.
    Finish(SessionId, TaskFinished),
    /// Add a to-do item. `id` is decided here.
    Create(SessionId, TaskCreated),
    /// Change a to-do item.
    Update(SessionId, TaskUpdated),
    /// Replace the short list.
    WriteTodos(SessionId, TodosWritten),
}

/// The number in a task id.
pub(super) fn task_number(id: &str) -> Option<u32> {
    let rest = id.strip_prefix("shell-task-").or_else(|| id.strip_prefix("task-"))?;
    let digits = rest.split('-').next()?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl Txn<'_> {
    pub(super) fn decide_task(&mut self, command: TaskCommand) -> Result<Decision, Refusal> {
        match command {
            TaskCommand::Start(id, mut started) => {
                let session = self.open_session(&id)?;
                self.admit_task(session, true)?;
                started.id = self.next_task_id("shell-task");
                self.emit_task(session, TaskRecord::Started(started))
            }
            TaskCommand::Create(id, mut created) => {
                let session = self.open_session(&id)?;
                self.admit_task(session, false)?;
                created.id = self.next_task_id("task");
                if created.status.is_terminal() {
                    return Err(Refusal::TaskStateConflict { id: created.id, reason: "a new item is open" });
                }
                self.emit_task(session, TaskRecord::Created(created))
            }
            TaskCommand::Stop(session, stop) => {
                let task = self.known_task(&session, &stop.id)?;
                let Some(shell) = &task.shell else {
                    let reason = "it is a to-do item and has nothing to stop; change it with task_update";
                    return Err(Refusal::TaskStateConflict { id: stop.id, reason });
                };
                if task.status.is_terminal() || shell.stop_requested_at_ms.is_some() {
                    return Ok(Decision::Task(task));
                }
                self.emit_task(task.session, TaskRecord::StopRequested(stop))
            }
            TaskCommand::Finish(session, finished) => {
                let task = self.known_task(&session, &finished.id)?;
                if !task.is_live() || !finished.end.status.is_terminal() {
                    return Ok(Decision::Task(task));
                }
                self.emit_task(task.session, TaskRecord::Finished(finished))
            }
            TaskCommand::Update(session, update) => {
                let task = self.known_task(&session, &update.id)?;
                let conflict = |reason| Err(Refusal::TaskStateConflict { id: update.id.clone(), reason });
                if task.shell.is_some() {
                    return conflict("it is a background command and changes by itself");
                }
                if task.status.is_terminal() {
                    return conflict("it has ended and stays as it is");
                }
                self.emit_task(task.session, TaskRecord::Updated(update))
            }
            TaskCommand::WriteTodos(id, list) => {
                let session = self.open_session(&id)?;
                self.emit(session, 0, Body::Task(TaskRecord::Todos(list)));
                Ok(Decision::Recorded { last_seq: self.last_seq() })
            }
        }
    }

    /// Asks for the end of all background commands of a session.
    pub(super) fn stop_tasks_of(&mut self, session: u32, reason: &str) {
        let live: Vec<String> = self
            .tasks_of(session)
            .into_iter()
            .filter(|task| {
                task.is_live() && task.shell.as_ref().is_some_and(|shell| shell.stop_requested_at_ms.is_none())
            })
            .map(|task| task.id.clone())
            .collect();
        for id in live {
            let stop = TaskStopRequested { id, reason: Some(reason.to_string()) };
            self.emit(session, 0, Body::Task(TaskRecord::StopRequested(stop)));
        }
    }

    fn emit_task(&mut self, session: u32, record: TaskRecord) -> Result<Decision, Refusal> {
        let number = record.id().and_then(task_number).expect("records about tasks name one");
        self.emit(session, 0, Body::Task(record));
        Ok(Decision::Task(self.task(number).expect("just recorded")))
    }

    fn open_session(&self, id: &SessionId) -> Result<u32, Refusal> {
        let number = self.session_number(id).ok_or_else(|| Refusal::SessionNotFound(id.clone()))?;
        if self.session(number).is_some_and(|session| session.ended) {
            return Err(Refusal::SessionEnded(id.clone()));
        }
        Ok(number)
    }

    fn known_task(&self, session: &SessionId, id: &str) -> Result<Arc<Task>, Refusal> {
        let number = self.session_number(session).ok_or_else(|| Refusal::SessionNotFound(session.clone()))?;
        task_number(id)
            .and_then(|task| self.task(task))
            .filter(|task| task.session == number && task.id == id)
            .ok_or_else(|| Refusal::TaskNotFound(id.to_string()))
    }

    fn admit_task(&self, session: u32, is_shell: bool) -> Result<(), Refusal> {
        let refuse = |what, most| Err(Refusal::TaskLimit { what, most });
        let staged = self.staged_tasks();
        let new_open = staged
            .iter()
            .filter(|(number, task)| !task.status.is_terminal() && !self.base().tasks.by_number.contains_key(number));
        if self.base().tasks.open_count() + new_open.count() >= TASKS_OPEN_MAX || self.tasks_created() == u32::MAX {
            return refuse("open tasks", TASKS_OPEN_MAX);
        }
        let open = self.tasks_of(session).into_iter().filter(|task| !task.status.is_terminal()).count();
        if open >= SESSION_TASKS_OPEN_MAX {
            return refuse("open tasks in this session", SESSION_TASKS_OPEN_MAX);
        }
        if is_shell {
            let committed = self.base().tasks.live().filter(|task| !staged.contains_key(&task.number)).count();
            let live = committed + staged.values().filter(|task| task.is_live()).count();
            if live >= TASKS_LIVE_MAX {
                return refuse("background commands", TASKS_LIVE_MAX);
            }
        }
        Ok(())
    }

    fn next_task_id(&self, prefix: &str) -> String {
        let number = self.tasks_created() + 1;
        match self.base().later_epoch() {
            None => format!("{prefix}-{number}"),
            Some(epoch) => format!("{prefix}-{number}-{epoch}"),
        }
    }

    fn tasks_created(&self) -> u32 {
        self.staged_tasks().keys().next_back().copied().unwrap_or(0).max(self.base().tasks.created)
    }

    /// The task with this number, if it is kept.
    fn task(&self, number: u32) -> Option<Arc<Task>> {
        self.staged_tasks().get(&number).or_else(|| self.base().tasks.by_number.get(&number)).cloned()
    }

    fn tasks_of(&self, session: u32) -> Vec<Arc<Task>> {
        let staged = self.staged_tasks();
        let committed = self.base().tasks.of_session(session).filter(|task| !staged.contains_key(&task.number));
        committed.chain(staged.values().filter(|task| task.session == session)).cloned().collect()
    }

    pub(super) fn apply_task(&mut self, event: &Event, session: u32, record: &TaskRecord) -> Result<(), String> {
        let (seq, at_ms) = (event.seq, event.at_ms);
        let new = |id: &str, status, title: String| Task {
            id: id.to_string(),
            number: 0,
            session,
            status,
            title,
            description: String::new(),
            blocked_by: Vec::new(),
            output: None,
            created_at_ms: at_ms,
            updated_at_ms: at_ms,
            last_seq: seq,
            shell: None,
            deleted: false,
        };
        let (mut task, is_new) = match record {
            TaskRecord::Todos(list) => {
                self.stage_todos(session, TodoList { written: seq, todos: list.todos.clone() });
                return Ok(());
            }
            TaskRecord::Started(started) => {
                let command = shortened(&started.command);
                let mut task = new(&started.id, TaskStatus::InProgress, command.clone());
                task.shell = Some(ShellTask {
                    command,
                    workdir: started.workdir.clone(),
                    run: started.run,
                    call: started.call.clone(),
                    token: started.token.clone(),
                    stop_requested_at_ms: None,
                    stop_reason: None,
                    end: None,
                });
                (task, true)
            }
            TaskRecord::Created(created) => {
                let mut task = new(&created.id, created.status, created.title.clone());
                task.description = created.description.clone();
                task.blocked_by = created.blocked_by.clone();
                (task, true)
            }
            TaskRecord::StopRequested(_) | TaskRecord::Finished(_) | TaskRecord::Updated(_) => {
                let id = record.id().expect("these name a task");
                let known = task_number(id).and_then(|number| self.task(number)).filter(|task| task.id == id);
                let known = known.ok_or_else(|| format!("record of unknown task {id}"))?;
                if known.session != session || known.status.is_terminal() {
                    return Err(format!("task {id} belongs to another session or has ended and is recorded again"));
                }
                (Task::clone(&known), false)
            }
        };
        if is_new {
            task.number = self.tasks_created() + 1;
            if task_number(&task.id) != Some(task.number) {
                return Err(format!("task {} is created where number {} is next", task.id, task.number));
            }
        }
        match record {
            TaskRecord::StopRequested(stop) => {
                let shell = task.shell.as_mut().ok_or_else(|| format!("task {} is no command", stop.id))?;
                shell.stop_requested_at_ms = Some(at_ms);
                shell.stop_reason = stop.reason.clone();
            }
            TaskRecord::Finished(finished) => {
                let shell = task.shell.as_mut().ok_or_else(|| format!("task {} is no command", finished.id))?;
                shell.end = Some(finished.end.clone());
                task.status = finished.end.status;
            }
            TaskRecord::Updated(update) => update.apply(&mut task),
            TaskRecord::Started(_) | TaskRecord::Created(_) | TaskRecord::Todos(_) => {}
        }
        task.updated_at_ms = at_ms;
        task.last_seq = seq;
        self.stage_task(task);
        Ok(())
    }
}

impl TaskUpdated {
    fn apply(&self, task: &mut Task) {
        task.title = self.title.clone().unwrap_or_else(|| std::mem::take(&mut task.title));
        task.description = self.description.clone().unwrap_or_else(|| std::mem::take(&mut task.description));
        task.blocked_by = self.blocked_by.clone().unwrap_or_else(|| std::mem::take(&mut task.blocked_by));
        task.status = self.status.unwrap_or(task.status);
        task.deleted |= self.deleted;
        if self.output.is_some() {
            task.output = self.output.clone();
        }
    }
}

fn shortened(command: &str) -> String {
    let mut end = command.len().min(TASK_COMMAND_SHOWN_BYTES_MAX);
    while !command.is_char_boundary(end) {
        end -= 1;
    }
    command[..end].to_string()
}

#[cfg(test)]
mod tests;
