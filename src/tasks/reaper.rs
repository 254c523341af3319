//! The thread that starts tasks' workers, takes in their output and sees them end.
//! Owns: the worker processes and their sockets; who waits for which task.
//! May touch: child processes, output files; the core by commands that it does not wait for.
//! Never: waits for a worker, the core or a reader; its longest wait is for a process that was killed.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::output::{OutputFile, prune};
use super::wire::{self, Ended, Frames, Kind, Start};
use super::worker::WORKER_VERB;
use super::{Config, Live, Tasks, ended, leftovers};
use crate::commit::CommandError;
use crate::core::{Command, Decision, Task, TaskCommand, TaskEnd, TaskFinished, TaskStatus};
use crate::ids::SessionId;
use crate::limits::{
    SANDBOX_TOTAL_MEMORY_BYTES_MAX, TASK_FRAME_BYTES_MAX, TASK_QUARANTINE_LOOK_MS, TASK_STOP_MS_MAX,
    TASK_STRAY_STOP_MS, TASK_TICK_MS, TASK_WAITERS_MAX, TOOL_PROMPT_QUIET_MS, TOOL_PROMPT_TAIL_BYTES,
};
use crate::sandbox::{ended_by_memory, worker_command};
use crate::sys::process::process_descriptor;
use crate::sys::{Epoll, Interest};
use crate::tools::prompt;

/// Called with the ended task, or with nothing when the time is up.
type Done = Box<dyn FnOnce(Option<Arc<Task>>) + Send>;

/// What arrives in the reaper's mailbox.
pub(super) enum Message {
    /// Start a recorded task.
    Start {
        session: SessionId,
        id: String,
        token: String,
        command: String,
        workdir: String,
        reply: Sender<Result<(), String>>,
    },
    /// Tell when a task has ended.
    Wait { id: String, until: Instant, done: Done },
    /// What the core said to the end of a task.
    Recorded { id: String, result: Result<Arc<Task>, CommandError> },
    /// End all tasks, then the thread.
    Stop,
}

/// The wake-up descriptor's token; tasks have even ones for their socket and odd ones for their process.
const WAKE: u64 = 0;
const LISTEN: Interest = Interest { readable: true, writable: false, edge: false };

/// The thread's state.
pub(super) struct Reaper {
    config: Config,
    handle: Tasks,
    inbox: Receiver<Message>,
    epoll: Epoll,
    running: BTreeMap<u64, Running>,
    /// Ends that the core has not taken yet.
    unrecorded: BTreeMap<String, Unrecorded>,
    waiters: Vec<Waiter>,
    next: u64,
    stopping: Option<Instant>,
    /// Tokens of tasks of which something is left, by task.
    quarantined: BTreeMap<String, String>,
    looked_at: Instant,
    buffer: Vec<u8>,
}

struct Waiter {
    id: String,
    until: Instant,
    done: Done,
}

struct Unrecorded {
    session: SessionId,
    end: TaskEnd,
    /// Handed to the core, which has not answered.
    submitted: bool,
}

/// A task whose worker runs.
struct Running {
    session: SessionId,
    id: String,
    token: String,
    worker: Child,
    process: OwnedFd,
    channel: UnixStream,
    open: bool,
    frames: Frames,
    output: OutputFile,
    /// The shell, as its worker numbers it.
    pid: Option<u32>,
    end: Option<Ended>,
    refused: Option<String>,
    capture_error: Option<String>,
    stop: Option<Stop>,
    /// The end of what it wrote, and when that was.
    said: (Vec<u8>, Instant),
}

/// How far the stopping of a task has come.
#[derive(Debug, Clone, Copy)]
struct Stop {
    since: Instant,
    /// Somebody asked for it; else the daemon is stopping.
    asked: bool,
    /// 1: asked politely, 2: the socket is closed, 3: the worker is killed.
    step: u8,
}

impl Reaper {
    pub(super) fn new(config: Config, handle: Tasks, inbox: Receiver<Message>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&handle.stops.0.wake, WAKE, LISTEN)?;
        let (running, unrecorded, waiters) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let buffer = vec![0; TASK_FRAME_BYTES_MAX];
        Ok(Self {
            config,
            handle,
            inbox,
            epoll,
            running,
            unrecorded,
            waiters,
            next: 1,
            stopping: None,
            quarantined: BTreeMap::new(),
            looked_at: Instant::now(),
            buffer,
        })
    }

    pub(super) fn run(mut self, left: &[(SessionId, Arc<Task>)]) {
        self.recover(left);
        self.prune();
        let mut ready = Vec::new();
        while !self.is_done() {
            let sleep_ms = self.sleep_ms();
            if let Err(error) = crate::worker::idle(|| self.epoll.wait(&mut ready, sleep_ms)) {
                log::error!("the task reaper cannot wait: {error}; next: restart the daemon");
                return;
            }
            for report in ready.drain(..) {
                match report.token {
                    WAKE => self.handle.stops.0.wake.drain(),
                    token if token.is_multiple_of(2) => drop(self.take_in(token / 2)),
                    token => self.worker_ended(token / 2),
                }
            }
            self.read_mailbox();
            self.look_at_stops();
            self.record();
            self.look_at_waiters();
            self.look_for_questions();
            self.look_at_quarantine();
        }
        // Whoever still waits hears that it has not ended.
        self.waiters.drain(..).for_each(|waiter| (waiter.done)(None));
    }

    fn is_done(&self) -> bool {
        let Some(since) = self.stopping else { return false };
        let nothing_left = self.running.is_empty() && self.unrecorded.is_empty();
        nothing_left || since.elapsed() > Duration::from_millis(TASK_STOP_MS_MAX)
    }

    fn sleep_ms(&self) -> i32 {
        let now = Instant::now();
        let next = self.waiters.iter().map(|waiter| waiter.until.saturating_duration_since(now)).min();
        let next_ms = next.map_or(TASK_TICK_MS, |left| left.as_millis().min(TASK_TICK_MS as u128) as i32 + 1);
        if self.stopping.is_some() { next_ms.min(TASK_TICK_MS / 10) } else { next_ms }
    }

    /// What an earlier daemon left: its workers end by themselves when it does, so this finds something only where
    /// somebody killed a worker as well.
    fn recover(&mut self, left: &[(SessionId, Arc<Task>)]) {
        let token = |task: &Task| task.shell.as_ref().map(|shell| shell.token.clone()).unwrap_or_default();
        let tokens: Vec<String> = left.iter().map(|(_, task)| token(task)).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        // The original of a copy may be at work beside it, and its commands carry the same tokens.
        let survivors = if self.config.is_copy { BTreeMap::new() } else { leftovers::end(&tokens) };
        let reason = if self.config.is_copy { "state_root_copied" } else { "daemon_restarted" };
        for (session, task) in left {
            let pids = survivors.get(&token(task)).cloned().unwrap_or_default();
            self.quarantine(&task.id, token(task), &pids);
            let size = std::fs::metadata(super::output::path_of(&self.config.directory, &task.id));
            let end = TaskEnd {
                terminal_reason: Some(reason.to_string()),
                recovered_on_boot: true,
                tree_ended: pids.is_empty(),
                quarantined_pids: pids,
                output_size_bytes: size.map_or(0, |metadata| metadata.len()),
                ..ended(TaskStatus::Failed)
            };
            self.finish(session.clone(), task.id.clone(), end);
        }
        self.record();
    }

    fn read_mailbox(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Start { session, id, token, command, workdir, reply } => {
                    let started = if self.stopping.is_some() {
                        Err("the daemon is stopping".to_string())
                    } else {
                        self.start(&session, &id, &token, &command, &workdir).map_err(|error| error.to_string())
                    };
                    if let Err(cause) = &started {
                        let end = TaskEnd {
                            terminal_reason: Some("could_not_start".to_string()),
                            detail: Some(cause.clone()),
                            tree_ended: true,
                            ..ended(TaskStatus::Failed)
                        };
                        self.finish(session, id, end);
                    }
                    // A caller that gave up sees the task in the list.
                    drop(reply.try_send(started));
                }
                Message::Wait { id, until, done } => self.wait(id, until, done),
                Message::Recorded { id, result } => self.recorded(&id, result),
                Message::Stop => {
                    self.stopping.get_or_insert_with(Instant::now);
                    self.running.values_mut().for_each(|task| task.ask_to_stop(false));
                }
            }
        }
    }

    fn start(&mut self, session: &SessionId, id: &str, token: &str, command: &str, workdir: &str) -> io::Result<()> {
        let output = OutputFile::create(&self.config.directory, id)?;
        let (mut channel, theirs) = UnixStream::pair()?;
        let spec = self.config.sandbox.spec(&self.config.workspace);
        let mut process = spec.and_then(|spec| worker_command(&spec, WORKER_VERB)).map_err(io::Error::other)?;
        process.stdin(OwnedFd::from(theirs));
        let mut worker = process.spawn()?;
        // The command holds its own copy of the other end, which would hide the worker's death.
        drop(process);
        let start = Start {
            id: id.to_string(),
            token: token.to_string(),
            command: command.to_string(),
            workdir: workdir.to_string(),
        };
        let content = serde_json::to_vec(&start)?;
        let number = self.next;
        let ready = channel
            .set_write_timeout(Some(Duration::from_millis(TASK_STOP_MS_MAX)))
            .and_then(|()| wire::write(&mut channel, Kind::Start, &content))
            .and_then(|()| channel.set_nonblocking(true))
            .and_then(|()| process_descriptor(worker.id()))
            .and_then(|process| {
                self.epoll.add(&channel, 2 * number, LISTEN)?;
                self.epoll.add(&process, 2 * number + 1, LISTEN)?;
                Ok(process)
            });
        let process = match ready {
            Ok(process) => process,
            Err(error) => {
                drop(channel);
                // It ends by itself then; this only hastens it.
                drop(worker.kill());
                drop(worker.wait());
                return Err(error);
            }
        };
        self.next += 1;
        self.handle.board().insert(id.to_string(), Live::default());
        let task = Running {
            session: session.clone(),
            id: id.to_string(),
            token: token.to_string(),
            worker,
            process,
            channel,
            open: true,
            frames: Frames::default(),
            output,
            pid: None,
            end: None,
            refused: None,
            capture_error: None,
            stop: None,
            said: (Vec::new(), Instant::now()),
        };
        self.running.insert(number, task);
        Ok(())
    }

    /// Takes in what a worker wrote; `false` when nothing was there.
    fn take_in(&mut self, number: u64) -> bool {
        let Some(task) = self.running.get_mut(&number).filter(|task| task.open) else { return false };
        let any = task.take_in(&mut self.buffer);
        if !task.open {
            // Its end would be reported for ever; the process's own end is what counts now.
            drop(self.epoll.remove(&task.channel));
        }
        let (id, pid, figures) = (task.id.clone(), task.pid, task.output.figures);
        if let Some(live) = self.handle.board().get_mut(&id) {
            *live = Live { pid, output: figures, asks: false };
        }
        any
    }

    /// A worker has ended, and with it everything that it watched over.
    fn worker_ended(&mut self, number: u64) {
        // What it wrote last is in the socket by now.
        while self.take_in(number) {}
        let Some(mut task) = self.running.remove(&number) else { return };
        drop(self.epoll.remove(&task.process));
        if task.open {
            drop(self.epoll.remove(&task.channel));
        }
        let too_large = match task.worker.wait() {
            Ok(status) => ended_by_memory(status),
            Err(error) => {
                log::error!("the worker of task {} cannot be waited for: {error}", task.id);
                false
            }
        };
        let end = task.conclude(too_large);
        self.handle.board().remove(&task.id);
        self.quarantine(&task.id, task.token, &end.quarantined_pids);
        self.finish(task.session, task.id, end);
        self.prune();
    }

    fn finish(&mut self, session: SessionId, id: String, end: TaskEnd) {
        if !end.quarantined_pids.is_empty() {
            log::error!("task {id} left processes that could not be ended: {:?}", end.quarantined_pids);
        }
        self.handle.stops.asked().remove(&id);
        self.unrecorded.insert(id, Unrecorded { session, end, submitted: false });
    }

    /// Hands ends to the core, again until it takes them.
    fn record(&mut self) {
        for (id, unrecorded) in &mut self.unrecorded {
            if std::mem::replace(&mut unrecorded.submitted, true) {
                continue;
            }
            let finished = TaskFinished { id: id.clone(), end: unrecorded.end.clone() };
            let command = Command::Task(Box::new(TaskCommand::Finish(unrecorded.session.clone(), finished)));
            let (mailbox, stops, id) = (self.handle.mailbox.clone(), self.handle.stops.clone(), id.clone());
            let reply = move |result: Result<Decision, CommandError>| {
                let result = match result {
                    Ok(Decision::Task(task)) => Ok(task),
                    Ok(_) => return,
                    Err(error) => Err(error),
                };
                // One message a live task, and there is room for many more.
                drop(mailbox.try_send(Message::Recorded { id, result }));
                stops.0.wake.wake();
            };
            self.handle.core.submit(command, None, Box::new(reply));
        }
    }

    fn recorded(&mut self, id: &str, result: Result<Arc<Task>, CommandError>) {
        match result {
            Ok(task) => {
                self.unrecorded.remove(id);
                let (ended, others) = std::mem::take(&mut self.waiters).into_iter().partition(|waiter| waiter.id == id);
                self.waiters = others;
                let ended: Vec<Waiter> = ended;
                ended.into_iter().for_each(|waiter| (waiter.done)(Some(task.clone())));
            }
            Err(CommandError::Refused(refusal)) => {
                log::error!("the end of task {id} is not recorded: {refusal}");
                self.unrecorded.remove(id);
            }
            Err(error) => {
                log::warn!("the end of task {id} is not recorded yet: {error}");
                if let Some(unrecorded) = self.unrecorded.get_mut(id) {
                    unrecorded.submitted = false;
                }
            }
        }
    }

    fn wait(&mut self, id: String, until: Instant, done: Done) {
        let is_known = self.running.values().any(|task| task.id == id) || self.unrecorded.contains_key(&id);
        if !is_known || self.waiters.len() >= TASK_WAITERS_MAX {
            return done(None);
        }
        self.waiters.push(Waiter { id, until, done });
    }

    fn look_at_waiters(&mut self) {
        let now = Instant::now();
        let (over, waiting) = std::mem::take(&mut self.waiters).into_iter().partition(|waiter| waiter.until <= now);
        self.waiters = waiting;
        let over: Vec<Waiter> = over;
        over.into_iter().for_each(|waiter| (waiter.done)(None));
    }

    fn look_at_stops(&mut self) {
        let asked = self.handle.stops.asked().clone();
        for (id, (session, since)) in asked {
            if let Some(task) = self.running.values_mut().find(|task| task.id == id) {
                task.ask_to_stop(true);
            } else if since.elapsed() > Duration::from_millis(TASK_STRAY_STOP_MS) {
                // It has no process here, and none can come any more.
                let reason = Some("stopped".to_string());
                let end = TaskEnd { terminal_reason: reason, tree_ended: true, ..ended(TaskStatus::Cancelled) };
                self.finish(session, id, end);
            }
        }
        self.running.values_mut().for_each(Running::insist);
    }

    /// A command that asks has nobody to answer it: that is shown, since it has no deadline that would end it.
    fn look_for_questions(&self) {
        for task in self.running.values() {
            let (end, at) = &task.said;
            if at.elapsed() < Duration::from_millis(TOOL_PROMPT_QUIET_MS) {
                continue;
            }
            let mut board = self.handle.board();
            let Some(live) = board.get_mut(&task.id).filter(|live| !live.asks) else { continue };
            if let Some(question) = prompt::question(end) {
                live.asks = true;
                log::warn!("task {} waits for an answer that nobody can give ({} bytes)", task.id, question.len());
            }
        }
    }

    fn quarantine(&mut self, id: &str, token: String, pids: &[u32]) {
        if !pids.is_empty() {
            self.quarantined.insert(id.to_string(), token);
            self.handle.quarantine().insert(id.to_string(), pids.to_vec());
        }
    }

    /// Tries again to end what could not be ended; what is gone is forgotten.
    fn look_at_quarantine(&mut self) {
        if self.quarantined.is_empty() || self.looked_at.elapsed() < Duration::from_millis(TASK_QUARANTINE_LOOK_MS) {
            return;
        }
        self.looked_at = Instant::now();
        let tokens: Vec<&str> = self.quarantined.values().map(String::as_str).collect();
        let left = leftovers::strike(&tokens);
        self.quarantined.retain(|_, token| left.contains_key(token));
        let names = self.quarantined.iter().filter_map(|(id, token)| Some((id.clone(), left.get(token)?.clone())));
        *self.handle.quarantine() = names.collect();
    }

    fn prune(&self) {
        let live = |id: &str| self.running.values().any(|task| task.id == id);
        if let Err(error) = prune(&self.config.directory, live) {
            log::warn!("old outputs of tasks cannot be removed: {error}; next: check shell-tasks in the state root");
        }
    }
}

impl Running {
    /// `false` when nothing was there.
    fn take_in(&mut self, buffer: &mut [u8]) -> bool {
        match self.frames.read(&mut self.channel, buffer) {
            Ok(true) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Ok(false) | Err(_) => self.open = false,
        }
        loop {
            match self.frames.next() {
                Ok(Some((kind, content))) => self.frame(kind, &content),
                Ok(None) => return true,
                Err(error) => {
                    // A worker that is not ours any more: a command may have got hold of it.
                    log::error!("the worker of task {} speaks nonsense: {error}; it is ended", self.id);
                    drop(self.channel.shutdown(Shutdown::Both));
                    self.open = false;
                    return false;
                }
            }
        }
    }

    fn frame(&mut self, kind: Kind, content: &[u8]) {
        match kind {
            Kind::Output if self.capture_error.is_none() => {
                let (end, at) = &mut self.said;
                end.extend_from_slice(&content[content.len().saturating_sub(TOOL_PROMPT_TAIL_BYTES)..]);
                end.drain(..end.len().saturating_sub(TOOL_PROMPT_TAIL_BYTES));
                *at = Instant::now();
                if let Err(error) = self.output.append(content) {
                    self.capture_error = Some(error.to_string());
                    self.ask_to_stop(false);
                }
            }
            Kind::Ended => self.end = serde_json::from_slice(content).ok(),
            Kind::Refused => {
                self.refused = Some(String::from_utf8_lossy(&content[..content.len().min(1_024)]).into_owned())
            }
            Kind::Running => self.pid = std::str::from_utf8(content).ok().and_then(|pid| pid.parse().ok()),
            Kind::Output | Kind::Start | Kind::Stop => {}
        }
    }

    fn ask_to_stop(&mut self, asked: bool) {
        if let Some(stop) = &mut self.stop {
            stop.asked |= asked;
            return;
        }
        self.stop = Some(Stop { since: Instant::now(), asked, step: 1 });
        if self.channel.write_all(&wire::frame(Kind::Stop, b"")).is_err() {
            drop(self.channel.shutdown(Shutdown::Both));
        }
    }

    /// Goes further with a stop that has not led to an end in time.
    fn insist(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        let limit = Duration::from_millis(TASK_STOP_MS_MAX) * u32::from(stop.step);
        if stop.since.elapsed() < limit {
            return;
        }
        stop.step += 1;
        log::warn!("task {} has not ended after {} ms", self.id, limit.as_millis());
        if stop.step == 2 {
            drop(self.channel.shutdown(Shutdown::Both));
        } else {
            // Already gone is what is wanted.
            drop(self.worker.kill());
        }
    }

    /// How it ended. The worker has ended before.
    fn conclude(&mut self, too_large: bool) -> TaskEnd {
        if let Err(error) = self.output.finish() {
            self.capture_error.get_or_insert(error.to_string());
        }
        let figures = self.output.figures;
        let end = self.end.take();
        let (tree_ended, quarantined_pids) = match &end {
            Some(end) => (end.left.is_empty(), end.left.clone()),
            // Nobody vouches for the tree: it is looked for.
            None => {
                let left: Vec<u32> = leftovers::end(&[&self.token]).into_values().flatten().collect();
                (left.is_empty(), left)
            }
        };
        let asked = self.stop.is_some_and(|stop| stop.asked);
        let was_stopped = self.stop.is_some() && end.as_ref().is_none_or(|end| end.stopped);
        let exit_code = end.as_ref().and_then(|end| end.exit_code);
        let (status, reason, detail) = if let Some(error) = self.capture_error.take() {
            (TaskStatus::Failed, Some("output_capture_failed"), Some(error))
        } else if let Some(cause) = self.refused.take() {
            (TaskStatus::Failed, Some("could_not_start"), Some(cause))
        } else if was_stopped && asked {
            (TaskStatus::Cancelled, Some("stopped"), None)
        } else if was_stopped {
            (TaskStatus::Failed, Some("daemon_stopped"), None)
        } else if end.is_none() && too_large {
            let detail =
                format!("its processes held more than {SANDBOX_TOTAL_MEMORY_BYTES_MAX} bytes of memory together");
            (TaskStatus::Failed, Some("memory_exceeded"), Some(detail))
        } else if end.is_none() {
            (TaskStatus::Failed, Some("worker_died"), None)
        } else if exit_code == Some(0) {
            (TaskStatus::Completed, None, None)
        } else {
            (TaskStatus::Failed, None, None)
        };
        TaskEnd {
            status,
            exit_code,
            signal: end.as_ref().and_then(|end| end.signal),
            terminal_reason: reason.map(str::to_string),
            detail,
            recovered_on_boot: false,
            tree_ended,
            quarantined_pids,
            output_size_bytes: figures.size_bytes,
            output_total_bytes: figures.total_bytes,
            output_rotation_count: figures.rotation_count,
        }
    }
}
