//! `bash` in the foreground.
//! Owns: the time limit of a command, and what is shown of its output.
//! May touch: processes of its own, in the workspace.
//! Never: returns while something that the command started is running, unless it names it.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::capture::Capture;
use super::error::ToolError;
use super::output::ToolOutput;
use super::process::{self, Started};
use super::prompt;
use super::workspace::Workspace;
use super::{Control, parse};
use crate::limits::{
    TOOL_OVERFLOW_BYTES_MAX, TOOL_PROMPT_QUIET_MS, TOOL_PROMPT_TAIL_BYTES, TOOL_SHELL_DRAIN_MS,
    TOOL_SHELL_ESCAPED_BYTES_MAX, TOOL_SHELL_STREAM_BYTES_MAX, TOOL_SHELL_TIDY_MS, TOOL_SHELL_TIMEOUT_MS_DEFAULT,
};
use crate::sys::process::{set_nonblocking, wait_readable};

#[derive(Deserialize)]
struct Input {
    command: String,
    #[serde(default)]
    workdir: String,
    timeout_ms: Option<u64>,
}

#[derive(Serialize)]
struct Output<'a> {
    command: &'a str,
    workdir: &'a str,
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    success: bool,
    timed_out: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for_answer: Option<String>,
    stdout: String,
    stderr: String,
    stdout_bytes: u64,
    stderr_bytes: u64,
    stdout_truncated: bool,
    stderr_truncated: bool,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_running: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// One pipe of the command and what came through it.
pub(super) struct Stream<R> {
    pipe: Option<R>,
    pub(super) capture: Capture,
}

impl<R: Read + AsFd> Stream<R> {
    fn new(pipe: Option<R>) -> std::io::Result<Self> {
        // Half of the overflow each, with an end that is worth showing.
        let head = TOOL_OVERFLOW_BYTES_MAX / 2 - TOOL_SHELL_STREAM_BYTES_MAX - 1024;
        Self::kept(pipe, head, TOOL_SHELL_STREAM_BYTES_MAX)
    }

    /// A stream of which so much is kept.
    pub(super) fn kept(pipe: Option<R>, head_bytes_max: usize, tail_bytes_max: usize) -> std::io::Result<Self> {
        if let Some(pipe) = &pipe {
            set_nonblocking(pipe)?;
        }
        Ok(Self { pipe, capture: Capture::new(head_bytes_max, tail_bytes_max) })
    }

    fn end(&self) -> Vec<u8> {
        self.capture.end(TOOL_PROMPT_TAIL_BYTES)
    }

    /// Takes in what is there, but not for ever: the command must not keep us from looking at the clock.
    fn take_in(&mut self, buffer: &mut [u8]) {
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.capture.push(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.pipe = None,
            }
        }
    }
}

/// `bash`.
pub(super) fn bash(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let input: Input = parse(input)?;
    if input.command.contains('\0') {
        return Err(ToolError::Arguments {
            field: "command".to_string(),
            cause: "it has a NUL character".to_string(),
            expected: "a text without it".to_string(),
        });
    }
    let directory = workspace.directory(&input.workdir)?;
    let begun = Instant::now();
    let asked = Duration::from_millis(input.timeout_ms.unwrap_or(TOOL_SHELL_TIMEOUT_MS_DEFAULT));
    let deadline = begun + asked.min(control.remaining());
    let cannot = |error: std::io::Error| ToolError::Refused {
        code: "command_not_started",
        cause: format!("the command could not be started: {error}"),
        next: "try again later, or do without commands".to_string(),
    };
    let mut started =
        process::start(&input.command, &directory, &[], Stdio::piped(), Stdio::piped()).map_err(cannot)?;
    let streams = Stream::new(started.child.stdout.take())
        .and_then(|stdout| Ok((stdout, Stream::new(started.child.stderr.take())?)));
    let (mut stdout, mut stderr) = match streams {
        Ok(streams) => streams,
        Err(error) => {
            process::end_tree(&mut started, false, &mut || {});
            return Err(cannot(error));
        }
    };
    let mut buffer = vec![0; 64 * 1024];
    let over = watch(&started, &mut stdout, &mut stderr, (deadline, u64::MAX), &mut buffer);
    let in_time = matches!(over, Over::ByItself);
    let end = finish(&mut started, &mut stdout, &mut stderr, &mut buffer);
    let exit_code = end.status.and_then(|status| status.code()).filter(|_| in_time);
    let limit_ms = deadline.saturating_duration_since(begun).as_millis();
    let asked = match &over {
        Over::ByItself => None,
        Over::Asking(question) => Some(question.clone()),
        // One that asks again and again whenever there is no answer is never silent.
        Over::TimeUp => prompt::question(&stdout.end()).or_else(|| prompt::question(&stderr.end())),
    };
    let error = match (&over, &asked) {
        (Over::ByItself, _) => None,
        (_, Some(question)) => Some(format!(
            "the command asked {question:?} and waited for an answer, which nobody can give here; it was ended; next: give the \
             answer with the command, by an option such as --yes or from a file or pipe"
        )),
        (_, None) => Some(format!(
            "the command was ended after {limit_ms} ms; next: give timeout_ms, split the work, or use run_in_background"
        )),
    };
    let (out_text, stdout_truncated) = stdout.capture.shown(TOOL_SHELL_ESCAPED_BYTES_MAX);
    let (err_text, stderr_truncated) = stderr.capture.shown(TOOL_SHELL_ESCAPED_BYTES_MAX);
    let truncated = stdout_truncated || stderr_truncated;
    let output = Output {
        command: super::output::cut_escaped(&input.command, 4_096),
        workdir: &input.workdir,
        exit_code,
        signal: end.status.and_then(|status| status.signal()).filter(|_| in_time),
        success: exit_code == Some(0),
        timed_out: matches!(over, Over::TimeUp),
        waits_for_answer: asked,
        stdout: out_text,
        stderr: err_text,
        stdout_bytes: stdout.capture.total(),
        stderr_bytes: stderr.capture.total(),
        stdout_truncated,
        stderr_truncated,
        duration_ms: begun.elapsed().as_millis() as u64,
        left_running: end.left,
        error,
    };
    let mut result = ToolOutput::ok(&output, truncated);
    result.is_error |= !in_time;
    if truncated {
        let whole = format!("{}\n[standard error]\n{}", stdout.capture.kept(), stderr.capture.kept());
        let whole = super::output::cut_bytes(&whole, TOOL_OVERFLOW_BYTES_MAX);
        result.overflow = Some(whole.as_bytes().to_vec());
    }
    Ok(result)
}

/// Why nobody waits for the shell any more.
pub(super) enum Over {
    /// It ended.
    ByItself,
    /// It asked this and said nothing more.
    Asking(String),
    /// Its time is up, or it has said too much.
    TimeUp,
}

/// Ends what is left of the command and takes in the rest of its output.
pub(super) fn finish<R: Read + AsFd, S: Read + AsFd>(
    started: &mut Started,
    stdout: &mut Stream<R>,
    stderr: &mut Stream<S>,
    buffer: &mut [u8],
) -> process::TreeEnd {
    let end = process::end_tree(started, true, &mut || {
        stdout.take_in(buffer);
        stderr.take_in(buffer);
    });
    drain(stdout, stderr, buffer);
    end
}

/// Takes in output until the shell ends, waits for an answer, the time is up or either stream is longer than that.
pub(super) fn watch<R: Read + AsFd, S: Read + AsFd>(
    started: &Started,
    stdout: &mut Stream<R>,
    stderr: &mut Stream<S>,
    (deadline, stream_bytes_max): (Instant, u64),
    buffer: &mut [u8],
) -> Over {
    let quiet = Duration::from_millis(TOOL_PROMPT_QUIET_MS);
    let (mut said, mut since, mut looked) = (0, Instant::now(), false);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stdout.capture.total().max(stderr.capture.total()) > stream_bytes_max {
            return Over::TimeUp;
        }
        let total = stdout.capture.total() + stderr.capture.total();
        if total != said {
            (said, since, looked) = (total, Instant::now(), false);
        } else if !looked && since.elapsed() >= quiet {
            // What it said last does not change any more: one look is enough.
            looked = true;
            if let Some(question) = prompt::question(&stdout.end()).or_else(|| prompt::question(&stderr.end())) {
                return Over::Asking(question);
            }
        }
        let fds =
            [stdout.pipe.as_ref().map(AsFd::as_fd), stderr.pipe.as_ref().map(AsFd::as_fd), Some(started.ended.as_fd())];
        let ready = wait_readable(&fds, left.min(Duration::from_millis(TOOL_SHELL_TIDY_MS)));
        // A failing poll leaves only the clock; the reads below tell the rest.
        let ready = ready.unwrap_or_else(|_| vec![true, true, false]);
        if ready[0] {
            stdout.take_in(buffer);
        }
        if ready[1] {
            stderr.take_in(buffer);
        }
        if ready[2] {
            return Over::ByItself;
        }
        process::tidy_up(started);
    }
}

/// What is still in the pipes. Their ends come at once, unless something that could not be ended holds them.
fn drain<R: Read + AsFd, S: Read + AsFd>(stdout: &mut Stream<R>, stderr: &mut Stream<S>, buffer: &mut [u8]) {
    let deadline = Instant::now() + Duration::from_millis(TOOL_SHELL_DRAIN_MS);
    loop {
        stdout.take_in(buffer);
        stderr.take_in(buffer);
        let left = deadline.saturating_duration_since(Instant::now());
        if stdout.pipe.is_none() && stderr.pipe.is_none() || left.is_zero() {
            return;
        }
        let fds = [stdout.pipe.as_ref().map(AsFd::as_fd), stderr.pipe.as_ref().map(AsFd::as_fd)];
        if wait_readable(&fds, left).is_err() {
            return;
        }
    }
}
