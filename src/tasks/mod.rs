//! Tasks: background commands and to-do items of sessions.
//! Owns: the reaper, its workers, their output files; the calls of models and people about tasks.
//! May touch: child processes of this same binary, `shell-tasks/` of the state root; durable state through the core.
//! Never: starts a command that is not recorded; forgets a process that it started.
//!
//! A background command has a process of its own, `kheish-daemon __task-worker`, on a socket to the reaper thread. The
//! record `task.started` is durable before the worker is started, `task.finished` is written when the worker has ended after
//! everything else. When the daemon dies, the socket ends and the worker kills everything: nobody has to clean up.

mod calls;
mod leftovers;
mod output;
mod reaper;
mod view;
pub(crate) mod wire;
pub mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use ring::rand::{SecureRandom, SystemRandom};

pub use calls::CallContext;
pub use output::OutputFigures;
pub use view::{OutputView, Part, TaskView};

use crate::commit::{CommandError, CoreHandle};
use crate::core::{Command, Decision, Task, TaskCommand, TaskEnd, TaskFinished, TaskStarted, TaskStatus};
use crate::hex::to_hex;
use crate::ids::{RunId, SessionId};
use crate::limits::{TASK_MAILBOX_MAX, TASK_OUTPUT_BYTES_MAX, TASK_START_MS_MAX};
use crate::sandbox::Sandbox;
use crate::sys::EventFd;
use crate::worker::Worker;
use reaper::{Message, Reaper};

/// What the room is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// `shell-tasks/` of the state root; it exists.
    pub directory: PathBuf,
    /// The workspace.
    pub workspace: PathBuf,
    /// What its workers shut themselves in with.
    pub sandbox: Sandbox,
    /// The state root was copied or restored: what is alive of its commands belongs to the original's daemon.
    pub is_copy: bool,
}

/// Tasks whose end the core has recorded as asked for. The core's thread puts them here without waiting.
#[derive(Debug, Clone)]
pub struct TaskStops(Arc<Stops>);

#[derive(Debug)]
struct Stops {
    asked: Mutex<BTreeMap<String, (SessionId, Instant)>>,
    wake: EventFd,
}

impl TaskStops {
    /// An empty list.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Stops { asked: Mutex::default(), wake: EventFd::new()? })))
    }

    /// The end of `task` is asked for and recorded.
    pub fn stop(&self, session: &SessionId, task: &str) {
        self.asked().insert(task.to_string(), (session.clone(), Instant::now()));
        self.0.wake.wake();
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, (SessionId, Instant)>> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known only while a command runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Live {
    /// Its process, as its worker numbers it.
    pub pid: Option<u32>,
    /// Its output so far.
    pub output: OutputFigures,
    /// It has asked something and says nothing more.
    pub asks: bool,
}

type Board = Arc<Mutex<BTreeMap<String, Live>>>;
/// Processes that could not be ended, by task.
type Quarantine = Arc<Mutex<BTreeMap<String, Vec<u32>>>>;

/// Access to the room. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    core: CoreHandle,
    mailbox: Sender<Message>,
    stops: TaskStops,
    board: Board,
    quarantine: Quarantine,
    directory: PathBuf,
}

/// Why a task could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The core did not record it.
    Core(CommandError),
    /// It is recorded, and has ended as failed already.
    NotStarted {
        /// The task.
        id: String,
        /// What stood in the way.
        cause: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => error.fmt(f),
            Self::NotStarted { id, cause } => {
                write!(f, "task {id} could not be started: {cause}; next: check the limits of processes and memory")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl Tasks {
    /// Starts the reaper. `live` are the commands that an earlier daemon left; what is left of them is ended first and they
    /// are recorded as failed, `daemon_restarted`.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start(
        config: Config,
        core: CoreHandle,
        stops: TaskStops,
        live: Vec<(SessionId, Arc<Task>)>,
    ) -> io::Result<(Self, Worker)> {
        let (mailbox, inbox) = bounded(TASK_MAILBOX_MAX);
        let (board, quarantine) = (Board::default(), Quarantine::default());
        let directory = config.directory.clone();
        let tasks = Self { core, mailbox, stops, board, quarantine, directory };
        let reaper = Reaper::new(config, tasks.clone(), inbox)?;
        let thread = Worker::spawn("task-reaper", move || reaper.run(&live))?;
        Ok((tasks, thread))
    }

    /// Messages waiting for the reaper.
    pub fn queue_depth(&self) -> usize {
        self.mailbox.len()
    }

    /// Records a background command and starts it.
    ///
    /// # Errors
    /// It does not run; see [`StartError`].
    pub fn start_shell(
        &self,
        session: &SessionId,
        run: Option<RunId>,
        call: Option<String>,
        command: String,
        workdir: String,
    ) -> Result<Arc<Task>, StartError> {
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).expect("the kernel has random bytes");
        let token = to_hex(&random);
        let started = TaskStarted {
            id: String::new(),
            command: command.clone(),
            workdir: workdir.clone(),
            run,
            call,
            token: token.clone(),
        };
        let decided = self.core.execute(Command::Task(Box::new(TaskCommand::Start(session.clone(), started))));
        let task = match decided.map_err(StartError::Core)? {
            Decision::Task(task) => task,
            other => unreachable!("a task was asked for, not {other:?}"),
        };
        let (reply, answer) = bounded(1);
        let id = task.id.clone();
        let start = Message::Start { session: session.clone(), id: id.clone(), token, command, workdir, reply };
        let cause = match self.send(start) {
            Err(cause) => cause,
            Ok(()) => match answer.recv_timeout(Duration::from_millis(TASK_START_MS_MAX)) {
                Ok(Ok(())) => return Ok(task),
                // It is recorded by the reaper.
                Ok(Err(cause)) => return Err(StartError::NotStarted { id, cause }),
                // It may be started yet; the reaper will record whatever becomes of it.
                Err(_) => return Err(StartError::NotStarted { id, cause: "no word from the reaper".to_string() }),
            },
        };
        let end = TaskEnd {
            terminal_reason: Some("could_not_start".to_string()),
            detail: Some(cause.clone()),
            tree_ended: true,
            ..ended(TaskStatus::Failed)
        };
        let finished = TaskFinished { id: id.clone(), end };
        // If this is not taken either, the next start settles it.
        drop(self.core.execute(Command::Task(Box::new(TaskCommand::Finish(session.clone(), finished)))));
        Err(StartError::NotStarted { id, cause })
    }

    /// Calls `done` once the task has ended and that is durable, with the task as it is then, or at `until`, with nothing.
    /// `done` runs on the reaper's thread and must not wait for anybody.
    pub fn when_ended(&self, id: &str, until: Instant, done: Box<dyn FnOnce(Option<Arc<Task>>) + Send>) {
        let message = Message::Wait { id: id.to_string(), until, done };
        if let Err(
            TrySendError::Full(Message::Wait { done, .. }) | TrySendError::Disconnected(Message::Wait { done, .. }),
        ) = self.mailbox.try_send(message)
        {
            return done(None);
        }
        self.stops.0.wake.wake();
    }

    /// Where outputs lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tasks of which processes could not be ended so far, with those processes.
    pub fn quarantined(&self) -> BTreeMap<String, Vec<u32>> {
        self.quarantine().clone()
    }

    /// What is known of a running command.
    pub fn live(&self, id: &str) -> Option<Live> {
        let mut live = self.board().get(id).copied()?;
        // What the reaper has written is counted a moment later; a file that can be read is never shown as empty.
        let on_disk = std::fs::metadata(self.directory.join(format!("{id}.out"))).map_or(0, |file| file.len());
        live.output.size_bytes = live.output.size_bytes.max(on_disk.min(TASK_OUTPUT_BYTES_MAX));
        live.output.total_bytes = live.output.total_bytes.max(live.output.size_bytes);
        Some(live)
    }

    /// Ends all commands and the reaper; they are recorded as failed, `daemon_stopped`. The core must still run. Returns at
    /// once; the thread ends within [`crate::limits::TASK_STOP_MS_MAX`].
    pub fn stop(&self) {
        // A full mailbox holds messages that the reaper is about to take; it has ended if there is none to take them.
        drop(self.mailbox.send_timeout(Message::Stop, Duration::from_millis(TASK_START_MS_MAX)));
        self.stops.0.wake.wake();
    }

    fn send(&self, message: Message) -> Result<(), String> {
        self.mailbox.try_send(message).map_err(|refused| match refused {
            TrySendError::Full(_) => "the reaper has too much to do".to_string(),
            TrySendError::Disconnected(_) => "the daemon is stopping".to_string(),
        })?;
        self.stops.0.wake.wake();
        Ok(())
    }

    fn quarantine(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u32>>> {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, BTreeMap<String, Live>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An end with this status and nothing else known.
fn ended(status: TaskStatus) -> TaskEnd {
    TaskEnd {
        status,
        exit_code: None,
        signal: None,
        terminal_reason: None,
        detail: None,
        recovered_on_boot: false,
        tree_ended: false,
        quarantined_pids: Vec::new(),
        output_size_bytes: 0,
        output_total_bytes: 0,
        output_rotation_count: 0,
    }
}
