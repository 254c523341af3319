//! A server as a child process, seen from the daemon.
//! Owns: the process around it, its socket, and who waits for which answer.
//! May touch: that process only.
//! Never: waits without a deadline, keeps more of a line than the bound, or trusts that the server reads what is written.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TryRecvError, bounded, select};
use serde_json::json;
use serde_json::value::RawValue;

use super::error::McpError;
use super::link::{Asked, Exchange, Outcome, Receiver};
use super::message::{self, Incoming, RpcError};
use super::rate::Rate;
use super::stderr::ErrorLines;
use super::worker::{Report, Start, WORKER_VERB};
use crate::limits::{
    MCP_CALLS_MAX, MCP_MESSAGE_BYTES_MAX, MCP_MESSAGES_MAX, MCP_REQUESTS_MAX, MCP_STOP_STEP_MS, MCP_TICK_MS,
    MCP_WORKER_FRAME_BYTES_MAX, MCP_WRITE_MS_MAX, MCP_WRITE_STEP_MS, SANDBOX_END_MS,
};
use crate::net::Cancel;
use crate::sandbox::{SandboxSpec, ended_by_memory, frame, worker_command};
use crate::sys::process::{pipe, set_nonblocking, wait_readable};
use crate::sys::{self, EventFd};

/// The right to write one message.
struct Turn<'l>(&'l StdioLink);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.writing) = false;
        self.0.written.notify_one();
    }
}

type Answer = Result<Box<RawValue>, RpcError>;

/// What has been read of the socket and belongs to no whole line yet.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Bytes before this position hold no line end.
    scanned: usize,
    /// Messages since `window` began.
    count: u32,
    window: Option<Instant>,
}

/// A connection to a child process.
pub(super) struct StdioLink {
    server: String,
    child: Mutex<Child>,
    channel: UnixStream,
    socket: UnixStream,
    /// Somebody writes.
    writing: Mutex<bool>,
    written: Condvar,
    errors: Mutex<Option<OwnedFd>>,
    error_lines: Mutex<ErrorLines>,
    lines: Mutex<Lines>,
    pending: Mutex<HashMap<u64, Sender<Answer>>>,
    next_id: AtomicU64,
    /// Why the connection is over.
    ended: Mutex<Option<String>>,
    receiver: Arc<dyn Receiver>,
    requests: Rate,
    wake: Arc<EventFd>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every statement leaves what it guards complete, so a panic elsewhere has not spoilt it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StdioLink {
    /// Starts the process and waits, until `until`, for it to have started the server.
    ///
    /// # Errors
    /// It does not run.
    pub fn start(
        server: &str,
        spec: &SandboxSpec,
        start: &Start,
        receiver: Arc<dyn Receiver>,
        wake: Arc<EventFd>,
        until: Instant,
    ) -> Result<Self, McpError> {
        let failed = |cause: String| McpError::Start { server: server.to_string(), cause };
        let io_failed = |error: std::io::Error| failed(error.to_string());
        let mut command = worker_command(spec, WORKER_VERB).map_err(|error| failed(error.to_string()))?;
        let (channel, their_channel) = UnixStream::pair().map_err(io_failed)?;
        let (socket, their_socket) = UnixStream::pair().map_err(io_failed)?;
        let (errors, their_errors) = pipe().map_err(io_failed)?;
        set_nonblocking(&errors).map_err(io_failed)?;
        command.stdin(Stdio::from(OwnedFd::from(their_channel)));
        command.stdout(Stdio::from(OwnedFd::from(their_socket))).stderr(Stdio::from(their_errors));
        let child = command.spawn().map_err(io_failed)?;
        // It holds copies of the other ends, which would hide the worker's end.
        drop(command);
        socket.set_write_timeout(Some(Duration::from_millis(MCP_WRITE_STEP_MS))).map_err(io_failed)?;
        let link = Self {
            server: server.to_string(),
            child: Mutex::new(child),
            channel,
            socket,
            writing: Mutex::new(false),
            written: Condvar::new(),
            errors: Mutex::new(Some(errors)),
            error_lines: Mutex::new(ErrorLines::new(server)),
            lines: Mutex::default(),
            pending: Mutex::default(),
            next_id: AtomicU64::new(1),
            ended: Mutex::new(None),
            receiver,
            requests: Rate::new(MCP_REQUESTS_MAX),
            wake,
        };
        let begun = serde_json::to_vec(start)
            .map_err(std::io::Error::from)
            .and_then(|bytes| frame::write(&mut &link.channel, &bytes, MCP_WORKER_FRAME_BYTES_MAX))
            .map_err(io_failed)
            .and_then(|()| link.report(until));
        match begun {
            Ok(Report::Started) => Ok(link),
            Ok(Report::Refused(cause)) => Err(failed(cause)),
            Ok(Report::Ended(..)) => Err(failed("it ended at once".to_string())),
            Err(error) => Err(error),
        }
    }

    /// The worker's next word.
    fn report(&self, until: Instant) -> Result<Report, McpError> {
        let failed = |cause: String| McpError::Start { server: self.server.clone(), cause };
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.channel.set_read_timeout(Some(left)).map_err(|error| failed(error.to_string()))?;
        let bytes = frame::read(&mut &self.channel, MCP_WORKER_FRAME_BYTES_MAX)
            .map_err(|error| failed(format!("no word of the process around it: {error}")))?;
        serde_json::from_slice(&bytes).map_err(|error| failed(format!("an unexpected word: {error}")))
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn over(&self) -> Option<McpError> {
        let cause = lock(&self.ended).clone()?;
        Some(McpError::Ended { server: self.server.clone(), cause })
    }

    /// As [`StdioLink::write_within`], in the time that a message has at most.
    pub fn write(&self, bytes: &[u8]) -> Result<(), McpError> {
        self.write_within(bytes, Duration::from_millis(MCP_WRITE_MS_MAX), None)
    }

    /// Writes one message.
    ///
    /// # Errors
    /// The connection is over, others write for too long, or the caller cancelled. A message that was written in part, or not
    /// within [`MCP_WRITE_MS_MAX`], ends the connection: nothing that follows would be understood.
    fn write_within(&self, bytes: &[u8], limit: Duration, cancel: Option<&Cancel>) -> Result<(), McpError> {
        let mut line = Vec::with_capacity(bytes.len() + 1);
        line.extend_from_slice(bytes);
        line.push(b'\n');
        let until = Instant::now() + limit.min(Duration::from_millis(MCP_WRITE_MS_MAX));
        let is_stopped = || cancel.is_some_and(Cancel::is_cancelled);
        let _turn = self.turn(until, &is_stopped)?;
        if let Some(over) = self.over() {
            return Err(over);
        }
        let mut sent = 0;
        while sent < line.len() {
            // A piece takes one step at most, however the server reads.
            let cause = match (&self.socket).write(&line[sent..]) {
                Ok(count) if count > 0 => {
                    sent += count;
                    if sent == line.len() || (Instant::now() < until && !is_stopped()) {
                        continue;
                    }
                    "it does not read its input".to_string()
                }
                Ok(_) => "it closed its input".to_string(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if sent == 0 && is_stopped() {
                        return Err(McpError::Cancelled { server: self.server.clone() });
                    }
                    if Instant::now() < until && !is_stopped() {
                        continue;
                    }
                    "it does not read its input".to_string()
                }
                Err(error) => error.to_string(),
            };
            self.end(&cause);
            return Err(McpError::Ended { server: self.server.clone(), cause });
        }
        Ok(())
    }

    /// Waits for its turn to write.
    fn turn(&self, until: Instant, is_stopped: &dyn Fn() -> bool) -> Result<Turn<'_>, McpError> {
        let mut busy = lock(&self.writing);
        while *busy {
            if is_stopped() {
                return Err(McpError::Cancelled { server: self.server.clone() });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(McpError::Busy { server: self.server.clone() });
            }
            let step = left.min(Duration::from_millis(MCP_WRITE_STEP_MS));
            busy = self.written.wait_timeout(busy, step).unwrap_or_else(PoisonError::into_inner).0;
        }
        *busy = true;
        Ok(Turn(self))
    }

    /// Marks the connection as over and tells everybody who waits.
    pub fn end(&self, cause: &str) {
        {
            let mut ended = lock(&self.ended);
            if ended.is_none() {
                *ended = Some(cause.to_string());
            }
        }
        // With their senders the waits end.
        lock(&self.pending).clear();
        self.wake.wake();
    }

    /// Why the connection is over, if it is.
    pub fn ended(&self) -> Option<String> {
        lock(&self.ended).clone()
    }

    pub fn exchange(&self, exchange: &Exchange<'_>) -> Outcome {
        let (answered, answer) = bounded(1);
        {
            let mut pending = lock(&self.pending);
            if pending.len() >= MCP_CALLS_MAX {
                return Err(McpError::Busy { server: self.server.clone() });
            }
            pending.insert(exchange.id, answered);
        }
        let written = self.write_within(exchange.bytes, exchange.left(), Some(exchange.cancel));
        let outcome = written.and_then(|()| self.wait(exchange, &answer));
        if lock(&self.pending).remove(&exchange.id).is_some() && exchange.method != "initialize" {
            // Nobody waits any more; the server need not go on. That it does not hear of it changes nothing.
            let params = json!({"requestId": exchange.id, "reason": "the caller gave up"});
            let _over_by_now = self.write(&message::notification("notifications/cancelled", &params));
        }
        outcome
    }

    fn wait(&self, exchange: &Exchange<'_>, answer: &crossbeam_channel::Receiver<Answer>) -> Outcome {
        let server = || self.server.clone();
        let timed_out = || McpError::TimedOut {
            server: server(),
            method: exchange.method.to_string(),
            limit_ms: exchange.limit_ms,
        };
        let gone = || self.over().unwrap_or(McpError::Ended { server: server(), cause: "it was closed".to_string() });
        if !exchange.is_owner {
            return select! {
                recv(answer) -> received => received.map_err(|_| gone()),
                // The end of the connection cancels as well; its cause is the better answer.
                recv(exchange.cancel.woken()) -> _ => Err(self.over().unwrap_or(McpError::Cancelled { server: server() })),
                default(exchange.left()) => Err(timed_out()),
            };
        }
        loop {
            match answer.try_recv() {
                Ok(received) => return Ok(received),
                Err(TryRecvError::Disconnected) => return Err(gone()),
                Err(TryRecvError::Empty) => {}
            }
            if exchange.cancel.is_cancelled() {
                return Err(McpError::Cancelled { server: server() });
            }
            if exchange.left().is_zero() {
                return Err(timed_out());
            }
            self.pump(exchange.left().min(Duration::from_millis(MCP_TICK_MS)));
        }
    }

    /// Reads what is there, or waits up to `limit` for it. For the connection's own thread.
    pub fn pump(&self, limit: Duration) {
        let ready = {
            let errors = lock(&self.errors);
            let fds = [
                Some(self.wake.as_fd()),
                Some(self.socket.as_fd()),
                Some(self.channel.as_fd()),
                errors.as_ref().map(AsFd::as_fd),
            ];
            wait_readable(&fds, limit).unwrap_or(vec![false; 4])
        };
        if ready[0] {
            self.wake.drain();
        }
        if ready[3] {
            self.read_errors();
        }
        if ready[1] {
            self.read_socket(None);
        }
        if ready[2] && self.ended().is_none() {
            let cause = self.last_word().unwrap_or_else(|| "the process around it ended".to_string());
            // What it said before it ended is still an answer.
            self.read_socket(Some(&cause));
            self.end(&cause);
        }
    }

    /// How the server ended, if the worker tells that within a moment.
    fn last_word(&self) -> Option<String> {
        match self.report(Instant::now() + Duration::from_millis(MCP_TICK_MS)) {
            Ok(Report::Ended(Some(code), _)) => Some(format!("it exited with code {code}")),
            Ok(Report::Ended(_, Some(signal))) => Some(format!("it was ended by signal {signal}")),
            _ => None,
        }
    }

    fn read_errors(&self) {
        let mut buffer = [0; 8 * 1024];
        let mut errors = lock(&self.errors);
        let Some(fd) = errors.as_ref() else { return };
        match sys::process::read(fd, &mut buffer) {
            Ok(0) => *errors = None,
            Ok(count) => lock(&self.error_lines).take(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => *errors = None,
        }
    }

    /// Reads a piece. `why` tells why there will be no more, where that is known.
    fn read_socket(&self, why: Option<&str>) {
        let mut buffer = vec![0; 64 * 1024];
        match (&self.socket).read(&mut buffer) {
            Ok(0) => {
                let known = why.map(str::to_string).or_else(|| self.last_word());
                let cause = known.unwrap_or_else(|| "it closed its output".to_string());
                self.end(&cause);
            }
            Ok(count) => {
                if let Err(cause) = self.take(&buffer[..count]) {
                    self.end(cause);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => self.end(&error.to_string()),
        }
    }

    fn take(&self, bytes: &[u8]) -> Result<(), &'static str> {
        let mut lines = lock(&self.lines);
        lines.bytes.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(at) = lines.bytes[lines.scanned..].iter().position(|byte| *byte == b'\n') {
            let end = lines.scanned + at;
            lines.scanned = end + 1;
            let line = lines.bytes[begin..end].to_vec();
            begin = end + 1;
            if line.len() > MCP_MESSAGE_BYTES_MAX {
                return Err(TOO_LONG);
            }
            if !line.trim_ascii().is_empty() {
                lines.counted()?;
                self.dispatch(&line);
            }
        }
        lines.bytes.drain(..begin);
        lines.scanned = lines.bytes.len();
        if lines.bytes.len() > MCP_MESSAGE_BYTES_MAX { Err(TOO_LONG) } else { Ok(()) }
    }

    fn dispatch(&self, line: &[u8]) {
        match message::read(line) {
            Ok(Incoming::Answer { id: Some(id), outcome }) => {
                // A late answer has nobody waiting.
                if let Some(answered) = lock(&self.pending).remove(&id) {
                    let _gave_up = answered.try_send(outcome);
                }
            }
            Ok(Incoming::Answer { id: None, outcome }) => {
                log::debug!("MCP server {}: an error for no request: {outcome:?}", self.server);
            }
            Ok(Incoming::Request { id, method, params }) => {
                if !self.requests.admit() {
                    return self.end("it sent more requests than are answered");
                }
                let asked = Asked { id: &id, method: &method, params: &params };
                if let Some(given) = self.receiver.request(&asked, None) {
                    // If it cannot be written the connection is over, which is noticed elsewhere.
                    let _over = self.write(&message::answer(&id, &given));
                }
            }
            Ok(Incoming::Notification { method, params }) => self.receiver.notified(&method, &params),
            Err(cause) => log::debug!("MCP server {}: a line is no message: {}", self.server, cause.0),
        }
    }

    /// Ends the server: its input first, then politely, then for good. Returns when all of it is gone.
    pub fn close(&self) {
        self.end("it was closed");
        let mut child = lock(&self.child);
        let _over_already = self.socket.shutdown(Shutdown::Write);
        let step = Duration::from_millis(MCP_STOP_STEP_MS);
        if !sys::jail::ends_within(child.id(), step) {
            let _over_already = (&self.channel).write_all(b"s");
            if !sys::jail::ends_within(child.id(), step) {
                let _over_already = self.channel.shutdown(Shutdown::Both);
                if !sys::jail::ends_within(child.id(), Duration::from_millis(SANDBOX_END_MS)) {
                    log::error!("MCP server {}: the process around it did not end and is killed", self.server);
                    let _ended_meanwhile = child.kill();
                }
            }
        }
        match child.wait() {
            Ok(status) if ended_by_memory(status) => {
                log::error!("MCP server {}: its processes held too much memory together and were ended", self.server);
            }
            Ok(_) => {}
            Err(error) => {
                log::error!("MCP server {}: the process around it cannot be waited for: {error}", self.server);
            }
        }
    }
}

const TOO_LONG: &str = "it sent a message over the limit";

impl Lines {
    fn counted(&mut self) -> Result<(), &'static str> {
        let now = Instant::now();
        if self.window.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            (self.window, self.count) = (Some(now), 0);
        }
        self.count += 1;
        if self.count > MCP_MESSAGES_MAX { Err("it sent more messages than are taken") } else { Ok(()) }
    }
}

impl Drop for StdioLink {
    fn drop(&mut self) {
        let ended = lock(&self.child).try_wait();
        if !matches!(ended, Ok(Some(_))) {
            self.close();
        }
    }
}
