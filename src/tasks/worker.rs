//! A task's own process, `kheish-daemon __task-worker`: runs one command and ends with it.
//! Owns: the command's whole process tree.
//! May touch: the workspace, its socket to the daemon.
//! Never: outlives the daemon: when the socket ends, everything is killed and so is this.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use super::wire::{self, Ended, Frames, Kind, Start};
use crate::limits::{TASK_FRAME_BYTES_MAX, TOOL_SHELL_DRAIN_MS, TOOL_SHELL_TIDY_MS};
use crate::sandbox::inside::{self, Inside};
use crate::sys;
use crate::sys::process::{pipe, set_nonblocking, wait_readable};
use crate::tools::Workspace;
use crate::tools::process::{self, Started, TreeEnd};

/// The hidden verb under which the binary becomes a task's worker.
pub const WORKER_VERB: &str = "__task-worker";

/// The variable that every process of a task carries, with the task's id.
pub const ID_VARIABLE: &str = "KHEISH_SHELL_TASK_ID";

/// The variable that makes a task's processes known to a later daemon.
pub const TOKEN_VARIABLE: &str = "KHEISH_SHELL_TASK_TOKEN";

/// The process that was started as a task's worker: shuts itself in by `policy`, then runs the one command that the daemon
/// asks for.
pub fn main(policy: Option<&str>) -> ExitCode {
    // A daemon that is gone needs no answer.
    let refuse = |channel: &mut UnixStream, cause: String| drop(wire::write(channel, Kind::Refused, cause.as_bytes()));
    let Inside { mut channel, workspace, alone } = match inside::shut_in(policy, refuse) {
        Ok(inside) => inside,
        Err(code) => return code,
    };
    let begun = process::claim_process(alone).map_err(|error| format!("no subreaper: {error}")).and_then(|()| {
        let start = first_frame(&mut channel).map_err(|error| format!("no command came: {error}"))?;
        begin(&start, &workspace)
    });
    match begun {
        Err(cause) => {
            refuse(&mut channel, cause);
            ExitCode::FAILURE
        }
        Ok((mut started, output)) => {
            let end = Task { channel, output: Some(output), stopped: false, alone }.run(&mut started);
            if end { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn first_frame(channel: &mut UnixStream) -> io::Result<Start> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if let Some((kind, content)) = frames.next()? {
            let start = serde_json::from_slice(&content).ok().filter(|_| kind == Kind::Start);
            return start.ok_or_else(|| ErrorKind::InvalidData.into());
        }
        if !frames.read(channel, &mut buffer)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

fn begin(start: &Start, workspace: &Path) -> Result<(Started, OwnedFd), String> {
    let root = Workspace::open(workspace).map_err(|error| format!("the workspace cannot be opened: {error}"))?;
    let directory = root.open_directory(&start.workdir).map_err(|error| error.to_string())?;
    let cannot = |error: io::Error| format!("the command could not be started: {error}");
    let (output, theirs) = pipe().map_err(cannot)?;
    set_nonblocking(&output).map_err(cannot)?;
    let also_theirs = theirs.try_clone().map_err(cannot)?;
    let marks = [(ID_VARIABLE, start.id.as_str()), (TOKEN_VARIABLE, start.token.as_str())];
    let started = process::start(&start.command, &directory, &marks, Stdio::from(theirs), Stdio::from(also_theirs));
    Ok((started.map_err(cannot)?, output))
}

struct Task {
    channel: UnixStream,
    output: Option<OwnedFd>,
    stopped: bool,
    alone: bool,
}

/// What ended the wait for the command.
enum Over {
    /// It ended by itself.
    ByItself,
    /// The daemon wants its end.
    Stop,
    /// The daemon is gone.
    Orphaned,
}

impl Task {
    /// Tells whether the daemon heard of the end.
    fn run(mut self, started: &mut Started) -> bool {
        let pid = started.child.id().to_string();
        let mut buffer = vec![0; TASK_FRAME_BYTES_MAX];
        let over = match wire::write(&mut self.channel, Kind::Running, pid.as_bytes()) {
            Ok(()) => self.watch(started, &mut buffer),
            Err(_) => Over::Orphaned,
        };
        self.stopped = matches!(over, Over::Stop);
        if matches!(over, Over::Orphaned) {
            process::end_tree(started, false, &mut || {});
            return false;
        }
        let end = process::end_tree(started, true, &mut || drop(self.pass_on(&mut buffer)));
        self.drain(&mut buffer);
        self.report(&end)
    }

    fn watch(&mut self, started: &Started, buffer: &mut [u8]) -> Over {
        loop {
            let fds = [self.output.as_ref().map(AsFd::as_fd), Some(started.ended.as_fd()), Some(self.channel.as_fd())];
            // A poll that fails leaves the short wait; each of the three is looked at then.
            let ready = wait_readable(&fds, Duration::from_millis(TOOL_SHELL_TIDY_MS)).unwrap_or(vec![true; 3]);
            if ready[2] {
                // One byte is enough: the only frame that comes is the one that ends it.
                match self.channel.read(&mut [0; 16]) {
                    Ok(0) => return Over::Orphaned,
                    Ok(_) => return Over::Stop,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Over::Orphaned,
                }
            }
            if ready[0] && self.pass_on(buffer).is_err() {
                return Over::Orphaned;
            }
            if ready[1] {
                return Over::ByItself;
            }
            process::tidy_up(started);
        }
    }

    /// Passes on what the command wrote, a few buffers at most.
    fn pass_on(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..4 {
            let Some(output) = &self.output else { return Ok(()) };
            match sys::process::read(output, buffer) {
                Ok(0) => self.output = None,
                Ok(count) => wire::write(&mut self.channel, Kind::Output, &buffer[..count])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.output = None,
            }
        }
        Ok(())
    }

    /// What is still in the pipe. Its end comes at once, unless something that could not be ended holds it.
    fn drain(&mut self, buffer: &mut [u8]) {
        let mut quiet = false;
        while !quiet && self.pass_on(buffer).is_ok() {
            let Some(output) = &self.output else { return };
            let ready = wait_readable(&[Some(output.as_fd())], Duration::from_millis(TOOL_SHELL_DRAIN_MS));
            quiet = !ready.is_ok_and(|ready| ready[0]);
        }
    }

    fn report(&mut self, end: &TreeEnd) -> bool {
        let ended = Ended {
            exit_code: end.status.and_then(|status| status.code()),
            signal: end.status.and_then(|status| status.signal()),
            stopped: self.stopped,
            // What is left of a pid namespace is ended by the kernel, before the daemon sees this worker's end.
            left: if self.alone { Vec::new() } else { end.left.clone() },
        };
        let content = serde_json::to_vec(&ended).expect("plain figures");
        wire::write(&mut self.channel, Kind::Ended, &content).is_ok()
    }
}
