//! The process around a stdio server, `kheish-daemon __mcp-worker`: shuts itself in, starts the server and ends with it.
//! Owns: the server's whole process tree.
//! May touch: the workspace, as far as the sandbox leaves it.
//! Never: outlives the daemon: when its channel ends, everything is killed and so is this. Reads or writes a byte of what
//! server and daemon say to each other: the server has its own socket to the daemon.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{MCP_WORKER_FRAME_BYTES_MAX, TOOL_SHELL_TIDY_MS};
use crate::sandbox::frame;
use crate::sandbox::inside::{self, Inside};
use crate::sys::process::{in_own_session, process_descriptor, wait_readable};
use crate::tools::Workspace;
use crate::tools::process::{self, Started};

/// The hidden verb under which the binary becomes the process around a server.
pub const WORKER_VERB: &str = "__mcp-worker";

/// What the daemon asks for. It comes through the channel: command lines and environments are public.
#[derive(Serialize, Deserialize)]
pub(super) struct Start {
    pub command: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
}

/// What the worker tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The server runs.
    Started,
    /// It does not, and why.
    Refused(String),
    /// It has ended: exit code, or signal.
    Ended(Option<i32>, Option<i32>),
}

/// Where the server finds programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process that was started as the one around a server: descriptor 0 is the channel, 1 the server's socket to the
/// daemon, 2 the pipe for its standard error.
pub fn main(policy: Option<&str>) -> ExitCode {
    let Inside { mut channel, workspace, alone } = match inside::shut_in(policy, refuse) {
        Ok(inside) => inside,
        Err(code) => return code,
    };
    let begun = process::claim_process(alone).map_err(|error| format!("no subreaper: {error}")).and_then(|()| {
        let start =
            frame::read(&mut channel, MCP_WORKER_FRAME_BYTES_MAX).map_err(|error| format!("no command: {error}"))?;
        let start: Start = serde_json::from_slice(&start).map_err(|error| format!("no command: {error}"))?;
        begin(&start, &workspace)
    });
    let mut started = match begun {
        Ok(started) => started,
        Err(cause) => {
            refuse(&mut channel, cause);
            return ExitCode::FAILURE;
        }
    };
    if report(&mut channel, &Report::Started).is_err() {
        process::end_tree(&mut started, false, &mut || {});
        return ExitCode::FAILURE;
    }
    let politely = watch(&mut channel, &started);
    let end = process::end_tree(&mut started, politely, &mut || {});
    let (code, signal) = (end.status.and_then(|status| status.code()), end.status.and_then(|status| status.signal()));
    match report(&mut channel, &Report::Ended(code, signal)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn report(channel: &mut UnixStream, report: &Report) -> io::Result<()> {
    let bytes = serde_json::to_vec(report).expect("plain data");
    channel.write_all(&(bytes.len() as u32).to_le_bytes()).and_then(|()| channel.write_all(&bytes))
}

fn refuse(channel: &mut UnixStream, cause: String) {
    // A daemon that is gone needs no answer.
    let _daemon_gone = report(channel, &Report::Refused(cause));
}

fn begin(start: &Start, workspace: &Path) -> Result<Started, String> {
    let root = Workspace::open(workspace).map_err(|error| format!("the workspace cannot be opened: {error}"))?;
    let directory = root.open_directory(&start.cwd).map_err(|error| error.to_string())?;
    let cannot = |error: io::Error| format!("{} cannot be started: {error}", start.command);
    let own = |fd: io::Result<OwnedFd>| fd.map_err(cannot);
    let socket = own(io::stdout().as_fd().try_clone_to_owned())?;
    let also_socket = own(socket.try_clone())?;
    let errors = own(io::stderr().as_fd().try_clone_to_owned())?;
    let mut command = Command::new(&start.command);
    let temp = std::env::temp_dir();
    command.args(&start.args).env_clear();
    command.env("PATH", PATH).env("HOME", &temp).env("TMPDIR", &temp);
    command.env("LANG", "C.UTF-8").env("TERM", "dumb").env("USER", "worker").env("LOGNAME", "worker");
    command.envs(start.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::from(socket)).stdout(Stdio::from(also_socket)).stderr(Stdio::from(errors));
    in_own_session(&mut command, directory);
    crate::sandbox::shut_command_in(&mut command);
    let mut child = command.spawn().map_err(cannot)?;
    match process_descriptor(child.id()) {
        Ok(ended) => Ok(Started { child, ended }),
        Err(error) => {
            let _ended_meanwhile = child.kill();
            // Its end is certain; the status does not matter.
            drop(child.wait());
            Err(cannot(error))
        }
    }
}

/// Waits for the end of the server or of the daemon's interest; whether the rest may end politely.
fn watch(channel: &mut UnixStream, started: &Started) -> bool {
    loop {
        let fds = [Some(started.ended.as_fd()), Some(channel.as_fd())];
        // A poll that fails leaves the short wait; both are looked at then.
        let ready = wait_readable(&fds, Duration::from_millis(TOOL_SHELL_TIDY_MS)).unwrap_or(vec![true; 2]);
        if ready[1] {
            match channel.read(&mut [0; 16]) {
                Ok(0) => return false,
                // One byte is enough: nothing is ever said but that it is to end.
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if ready[0] {
            return true;
        }
        process::tidy_up(started);
    }
}
