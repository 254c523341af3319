//! Tasks as models and people see them.
//! Owns: the wire form of a task and of its output.
//! May touch: output files, for reading.
//! Never: shows the token of a task.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::output;
use super::{Live, Tasks};
use crate::core::{ShellTask, Task, TaskStatus};
use crate::ids::RunId;
use crate::limits::TASK_OUTPUT_BYTES_MAX;

/// A task on the wire.
#[derive(Debug, Clone, Serialize)]
pub struct TaskView {
    /// Its id.
    pub id: String,
    /// What is to be done; of a command, its beginning.
    pub title: String,
    /// Details.
    pub description: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// The session's root agent.
    pub owner_agent_id: String,
    /// Tasks that have to be done first.
    pub blocked_by: Vec<String>,
    /// Tasks that wait for this one.
    pub blocks: Vec<String>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Of a background command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ShellView>,
    /// When it was created.
    pub created_at_ms: u64,
    /// Time of its newest record.
    pub updated_at_ms: u64,
}

/// What is special about a background command.
#[derive(Debug, Clone, Serialize)]
pub struct ShellView {
    kind: &'static str,
    command: String,
    workdir: String,
    /// Below the state root.
    output_file_path: String,
    started_in_background: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    recovered_on_boot: bool,
    /// It has asked something that nobody can answer, and says nothing more: see the end of its output.
    interactive_prompt_detected: bool,
    cancelled: bool,
    stop_requested: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_requested_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_tree_shutdown_confirmed: Option<bool>,
    process_tree_remaining_pids: Vec<u32>,
    output_size_bytes: u64,
    output_total_bytes: u64,
    output_rotated: bool,
    output_rotation_count: u32,
}

impl TaskView {
    /// A task among those of its session.
    pub fn of(task: &Task, all: &[std::sync::Arc<Task>], live: Option<Live>) -> Self {
        let blocks = all.iter().filter(|other| other.blocked_by.contains(&task.id)).map(|other| other.id.clone());
        Self {
            id: task.id.clone(),
            title: task.title.clone(),
            description: task.description.clone(),
            status: task.status,
            owner_agent_id: format!("agent-{}", task.session),
            blocked_by: task.blocked_by.clone(),
            blocks: blocks.collect(),
            output: task.output.clone(),
            metadata: task.shell.as_ref().map(|shell| ShellView::of(task, shell, live.unwrap_or_default())),
            created_at_ms: task.created_at_ms,
            updated_at_ms: task.updated_at_ms,
        }
    }
}

impl ShellView {
    fn of(task: &Task, shell: &ShellTask, live: Live) -> Self {
        let end = shell.end.as_ref();
        let figures = live.output;
        let rotation_count = end.map_or(figures.rotation_count, |end| end.output_rotation_count);
        Self {
            kind: "background_shell",
            command: shell.command.clone(),
            workdir: shell.workdir.clone(),
            output_file_path: format!("shell-tasks/{}.out", task.id),
            started_in_background: true,
            tool_call_id: shell.call.clone(),
            created_by_run_id: shell.run,
            pid: live.pid.filter(|_| end.is_none()),
            exit_code: end.and_then(|end| end.exit_code),
            signal: end.and_then(|end| end.signal),
            terminal_reason: end.and_then(|end| end.terminal_reason.clone()),
            detail: end.and_then(|end| end.detail.clone()),
            recovered_on_boot: end.is_some_and(|end| end.recovered_on_boot),
            interactive_prompt_detected: live.asks && end.is_none(),
            cancelled: task.status == TaskStatus::Cancelled,
            stop_requested: shell.stop_requested_at_ms.is_some(),
            stop_requested_at_ms: shell.stop_requested_at_ms,
            stop_reason: shell.stop_reason.clone(),
            process_tree_shutdown_confirmed: end.map(|end| end.tree_ended),
            process_tree_remaining_pids: end.map(|end| end.quarantined_pids.clone()).unwrap_or_default(),
            output_size_bytes: end.map_or(figures.size_bytes, |end| end.output_size_bytes),
            output_total_bytes: end.map_or(figures.total_bytes, |end| end.output_total_bytes),
            output_rotated: rotation_count > 0,
            output_rotation_count: rotation_count,
        }
    }
}

/// The output of a task on the wire.
#[derive(Debug, Clone, Serialize)]
pub struct OutputView {
    /// `success` (it has ended), `not_ready` (it runs), `timeout` (it still ran when the wait was over).
    pub retrieval_status: &'static str,
    /// The task.
    pub task: TaskView,
    /// The newest part of its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_excerpt: Option<String>,
    /// The whole file, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_text: Option<String>,
    /// Something that the command wrote is not shown.
    pub output_truncated: bool,
}

/// How much of an output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// This many bytes from its end.
    Tail(u64),
    /// The whole file.
    Full,
}

impl OutputView {
    /// The output of `task` as it is now; `waited` says whether somebody waited for its end.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn of(
        task: &Task,
        live: &dyn Fn() -> Option<Live>,
        directory: &Path,
        part: Part,
        waited: bool,
        redact: &dyn Fn(&str) -> String,
    ) -> io::Result<Self> {
        let bytes_max = match part {
            Part::Tail(bytes) => bytes,
            Part::Full => TASK_OUTPUT_BYTES_MAX,
        };
        let found = output::tail(directory, &task.id, bytes_max)?;
        // After the text: figures never tell of less than is shown.
        let live = live();
        let rotated = task.shell.as_ref().and_then(|shell| shell.end.as_ref());
        let rotations = rotated.map_or(live.unwrap_or_default().output.rotation_count, |end| end.output_rotation_count);
        let is_whole = found.as_ref().is_some_and(|(_, is_whole)| *is_whole) && rotations == 0;
        let text = found.map(|(text, _)| redact(&text));
        let (output_excerpt, output_text) = match part {
            Part::Tail(_) => (text, None),
            Part::Full => (None, text),
        };
        let retrieval_status = match (task.status.is_terminal(), waited) {
            (true, _) => "success",
            (false, true) => "timeout",
            (false, false) => "not_ready",
        };
        let task = TaskView::of(task, &[], live);
        Ok(Self { retrieval_status, task, output_excerpt, output_text, output_truncated: !is_whole })
    }
}

impl Tasks {
    /// A task with what is known of it while it runs.
    pub fn view(&self, task: &Task, all: &[std::sync::Arc<Task>]) -> TaskView {
        TaskView::of(task, all, self.live(&task.id))
    }
}
