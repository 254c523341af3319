//! The daemon's side of one worker process.
//! Owns: the process, its channel, and the proof that it is gone.
//! May touch: that process only.
//! Never: waits without a deadline, or trusts a byte of the other side: a jailed process may own it by now.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::features::FeatureReport;
use super::frame::{self, AnswerFrame, CallFrame, Hello};
use super::policy::Policy;
use super::supervise;
use super::{ENVIRONMENT, SandboxError, SandboxSpec, WORKER_VERB};
use crate::limits::{
    SANDBOX_ANSWER_BYTES_MAX, SANDBOX_CALL_BYTES_MAX, SANDBOX_DEADLINE_GRACE_MS, SANDBOX_END_MS,
    SANDBOX_HELLO_BYTES_MAX, SANDBOX_OVERFLOW_BYTES_MAX, SANDBOX_START_MS,
};
use crate::net::Cancel;
use crate::sys;
use crate::tools::ToolOutput;

/// The command that starts this binary as a worker under the hidden verb `verb`. Standard input is for the caller to set:
/// its end of a socket pair.
fn command(spec: &SandboxSpec, policy: &Policy, verb: &str) -> Command {
    let policy = serde_json::to_string(policy).expect("a policy is plain data");
    let mut command = Command::new(&spec.program);
    command.arg(verb).arg(policy).env_clear().envs(ENVIRONMENT.iter().copied()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The command of another kind of worker than a [`ToolWorker`], which calls [`super::inside::shut_in`].
///
/// # Errors
/// The policy asks for something that these walls cannot express.
pub fn worker_command(spec: &SandboxSpec, verb: &str) -> Result<Command, SandboxError> {
    spec.check()?;
    Ok(command(spec, &Policy::of(spec), verb))
}

/// Why a call has no answer. But for `TooLarge`, the worker is gone afterwards.
#[derive(Debug)]
pub enum WorkerError {
    /// The call is larger than a frame; nothing was sent and the worker lives on.
    TooLarge {
        /// Bytes of the call.
        bytes: usize,
    },
    /// The deadline passed; whatever the tool did until then is done.
    TimedOut {
        /// The deadline that was given, milliseconds.
        deadline_ms: u64,
    },
    /// The caller cancelled; whatever the tool did until then is done.
    Cancelled,
    /// Its processes held too much memory together; whatever the tool did until then is done.
    Memory {
        /// What they may hold, bytes.
        bytes_max: u64,
    },
    /// The worker ended or spoke nonsense.
    Died {
        /// What was seen.
        cause: String,
    },
}

impl WorkerError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "tool_input_too_large",
            Self::TimedOut { .. } => "tool_timed_out",
            Self::Cancelled => "tool_cancelled",
            Self::Memory { .. } => "tool_memory_exceeded",
            Self::Died { .. } => "tool_worker_died",
        }
    }
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => write!(
                f,
                "tool call: {bytes} bytes of arguments, at most {SANDBOX_CALL_BYTES_MAX}; next: ask for less at once"
            ),
            Self::TimedOut { deadline_ms } => write!(
                f,
                "tool call: no answer within {deadline_ms} ms, its worker was ended; next: split the work, or run it as a \
                 background task"
            ),
            Self::Cancelled => {
                write!(f, "tool call: cancelled, its worker was ended; next: start the run again if wanted")
            }
            Self::Memory { bytes_max } => write!(
                f,
                "tool call: its processes held more than {bytes_max} bytes of memory together and were ended; what they did until \
                 then is done; next: do less at once, for example with fewer parallel jobs"
            ),
            Self::Died { cause } => write!(
                f,
                "tool call: its worker ended before the answer ({cause}); what it did until then is done; next: check the \
                 workspace before a repetition"
            ),
        }
    }
}

impl std::error::Error for WorkerError {}

/// One worker process. Dropping it ends it and everything that it started; so does the end of the daemon, however it
/// comes.
#[derive(Debug)]
pub struct ToolWorker {
    child: Child,
    channel: UnixStream,
    ended: bool,
    memory_bytes_max: u64,
    /// It was ended for the memory that it held.
    was_too_large: bool,
}

impl ToolWorker {
    /// Starts a worker and waits until its walls stand.
    ///
    /// # Errors
    /// No process, or a wall that the policy promises and the kernel refused. Nothing is left behind.
    pub fn start(spec: &SandboxSpec) -> Result<Self, SandboxError> {
        spec.check()?;
        Self::start_with(spec, &Policy::of(spec)).map(|(worker, _)| worker)
    }

    /// Starts a worker that builds what it can, and tells what became of each wall.
    pub(super) fn probe(spec: &SandboxSpec) -> Result<Vec<FeatureReport>, SandboxError> {
        let policy = Policy { probe: true, ..Policy::of(spec) };
        Self::start_with(spec, &policy).map(|(_, features)| features)
    }

    fn start_with(spec: &SandboxSpec, policy: &Policy) -> Result<(Self, Vec<FeatureReport>), SandboxError> {
        let start = |cause: io::Error| SandboxError::Start { cause: cause.to_string() };
        let (channel, theirs) = UnixStream::pair().map_err(start)?;
        let mut command = command(spec, policy, WORKER_VERB);
        command.stdin(OwnedFd::from(theirs));
        let child = command.spawn().map_err(start)?;
        // The command holds its own copy of the other end, which would hide the worker's death.
        drop(command);
        let mut worker =
            Self { child, channel, ended: false, memory_bytes_max: policy.total_memory_bytes, was_too_large: false };
        let deadline = Instant::now() + Duration::from_millis(SANDBOX_START_MS);
        let hello = worker.read(deadline, SANDBOX_HELLO_BYTES_MAX);
        let hello = hello.map_err(|cause| SandboxError::Start { cause: format!("no word of it: {cause}") })?;
        let hello: Hello = serde_json::from_slice(&hello)
            .map_err(|cause| SandboxError::Start { cause: format!("its first word is no message: {cause}") })?;
        match hello.refused {
            None => Ok((worker, hello.features)),
            Some(cause) => Err(SandboxError::Refused { cause }),
        }
    }

    /// Process id of the worker's outermost process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Has `tool` run. The tool is told to answer within `deadline_ms`; a little later, or as soon as `cancel` is
    /// cancelled, the worker is killed with all that it started.
    ///
    /// # Errors
    /// See [`WorkerError`]. A tool that fails is an answer, not an error.
    pub fn call(
        &mut self,
        tool: &str,
        input: &RawValue,
        deadline_ms: u64,
        cancel: &Cancel,
    ) -> Result<ToolOutput, WorkerError> {
        if self.ended {
            return Err(WorkerError::Died { cause: "it had ended before the call".to_string() });
        }
        let call = serde_json::to_vec(&CallFrame { tool, input, deadline_ms }).expect("a call is plain data");
        if call.len() > SANDBOX_CALL_BYTES_MAX {
            return Err(WorkerError::TooLarge { bytes: call.len() });
        }
        let result = self.exchange(&call, deadline_ms, cancel);
        if result.is_err() {
            self.end();
        }
        match result {
            Ok(output) => Ok(output),
            Err(_) if cancel.is_cancelled() => Err(WorkerError::Cancelled),
            Err(_) if self.was_too_large => Err(WorkerError::Memory { bytes_max: self.memory_bytes_max }),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(WorkerError::TimedOut { deadline_ms })
            }
            Err(error) => Err(WorkerError::Died { cause: error.to_string() }),
        }
    }

    fn exchange(&mut self, call: &[u8], deadline_ms: u64, cancel: &Cancel) -> io::Result<ToolOutput> {
        let ours = self.channel.try_clone()?;
        // It also wakes the worker's supervisor, which takes that for the daemon's end and kills everything.
        let stop = cancel.on_cancel(move || {
            let _already_closed = ours.shutdown(Shutdown::Both);
        });
        let Some(_attached) = stop else { return Err(io::ErrorKind::Interrupted.into()) };
        let deadline = Instant::now() + Duration::from_millis(deadline_ms.saturating_add(SANDBOX_DEADLINE_GRACE_MS));
        self.channel.set_write_timeout(Some(left_until(deadline)?))?;
        frame::write(&mut &self.channel, call, SANDBOX_CALL_BYTES_MAX)?;
        let answer = self.read(deadline, SANDBOX_ANSWER_BYTES_MAX)?;
        let answer: AnswerFrame = serde_json::from_slice(&answer)?;
        let overflow = match answer.overflow_bytes {
            None => None,
            Some(bytes) => {
                let overflow = self.read(deadline, SANDBOX_OVERFLOW_BYTES_MAX)?;
                if overflow.len() as u64 != u64::from(bytes) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a blob of another length than announced"));
                }
                Some(overflow)
            }
        };
        Ok(ToolOutput { content: answer.content, is_error: answer.is_error, truncated: answer.truncated, overflow })
    }

    fn read(&mut self, deadline: Instant, bytes_max: usize) -> io::Result<Vec<u8>> {
        frame::read(&mut Until { channel: &self.channel, deadline }, bytes_max)
    }

    /// Ends the worker and everything that it started; returns when all of it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // The outermost process answers the closed channel by killing the rest, waits until it is gone and ends: its end
        // is the proof. Only if that takes too long is it killed itself, which kills the others through the kernel.
        let _already_closed = self.channel.shutdown(Shutdown::Both);
        if !sys::ends_within(self.child.id(), Duration::from_millis(SANDBOX_END_MS)) {
            log::error!("tool worker {} did not end by itself and is killed", self.child.id());
            let _ended_meanwhile = self.child.kill();
        }
        match self.child.wait() {
            Ok(status) => self.was_too_large = supervise::ended_by_memory(status),
            Err(error) => log::error!("tool worker {} cannot be waited for: {error}", self.child.id()),
        }
    }
}

impl Drop for ToolWorker {
    fn drop(&mut self) {
        self.end();
    }
}

/// A channel that is read until a point in time.
struct Until<'a> {
    channel: &'a UnixStream,
    deadline: Instant,
}

impl io::Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.channel.set_read_timeout(Some(left_until(self.deadline)?))?;
        let mut channel = self.channel;
        channel.read(buffer)
    }
}

fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
