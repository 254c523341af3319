//! A sidecar's own process, `kheish-daemon __connector-worker`: runs one sidecar and ends with it.
//! Owns: the sidecar's whole process tree.
//! May touch: what its sandbox leaves, its socket to the daemon.
//! Never: outlives the daemon: when the socket ends, everything is killed and so is this.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits::{SIDECAR_STOP_MS, TASK_FRAME_BYTES_MAX, TOOL_SHELL_TIDY_MS};
use crate::sandbox::inside::{self, Inside};
use crate::sys::process::{self as own, pipe, set_nonblocking, wait_readable};
use crate::sys::{self, SIGTERM};
use crate::tasks::wire::{self, Ended, Frames, Kind};
use crate::tools::process::{self, Started};

/// The hidden verb under which the binary becomes a sidecar's worker.
pub const WORKER_VERB: &str = "__connector-worker";

/// What to run. It holds the sidecar's tokens, so it goes over the socket and never over a command line.
#[derive(Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// Where it runs; the root where its sandbox does not show that.
    pub(super) directory: String,
}

/// The process that was started as a sidecar's worker: shuts itself in by `policy`, then runs what the daemon asks for.
pub fn main(policy: Option<&str>) -> ExitCode {
    // A daemon that is gone needs no answer.
    let refuse = |channel: &mut UnixStream, cause: String| drop(wire::write(channel, Kind::Refused, cause.as_bytes()));
    let Inside { mut channel, alone, .. } = match inside::shut_in(policy, refuse) {
        Ok(inside) => inside,
        Err(code) => return code,
    };
    let begun = process::claim_process(alone).map_err(|error| format!("no subreaper: {error}")).and_then(|()| {
        let start = first_frame(&mut channel).map_err(|error| format!("no command came: {error}"))?;
        begin(start).map_err(|error| format!("the command could not be started: {error}"))
    });
    match begun {
        Err(cause) => {
            refuse(&mut channel, cause);
            ExitCode::FAILURE
        }
        Ok((mut started, output)) => {
            Sidecar { channel, output: Some(output), stopped: false }.run(&mut started);
            ExitCode::SUCCESS
        }
    }
}

fn first_frame(channel: &mut UnixStream) -> io::Result<Start> {
    let mut frames = Frames::default();
    let mut buffer = Zeroizing::new(vec![0; 64 * 1024]);
    loop {
        if let Some((kind, content)) = frames.next()? {
            let content = Zeroizing::new(content);
            let start = serde_json::from_slice(&content).ok().filter(|_| kind == Kind::Start);
            return start.ok_or_else(|| ErrorKind::InvalidData.into());
        }
        if !frames.read(channel, &mut buffer)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

fn begin(start: Start) -> io::Result<(Started, OwnedFd)> {
    let directory = File::open(&start.directory).or_else(|_| File::open("/"))?;
    let (output, theirs) = pipe()?;
    set_nonblocking(&output)?;
    let also_theirs = theirs.try_clone()?;
    // The worker's own temp directory: where it has no private /tmp, that is another one.
    let temp = std::env::temp_dir();
    let mut command = Command::new(&start.program);
    command.args(&start.args).env_clear().env("HOME", &temp).env("TMPDIR", &temp).envs(start.env);
    command.stdin(Stdio::null()).stdout(Stdio::from(theirs)).stderr(Stdio::from(also_theirs));
    own::in_own_session(&mut command, directory);
    crate::sandbox::shut_command_in(&mut command);
    let child = command.spawn()?;
    drop(command);
    let ended = own::process_descriptor(child.id())?;
    Ok((Started { child, ended }, output))
}

struct Sidecar {
    channel: UnixStream,
    output: Option<OwnedFd>,
    stopped: bool,
}

/// What ended the wait.
enum Over {
    /// It ended by itself.
    ByItself,
    /// The daemon wants its end, politely for so long.
    Stop(Duration),
    /// The daemon is gone.
    Orphaned,
}

impl Sidecar {
    fn run(mut self, started: &mut Started) {
        let pid = started.child.id().to_string();
        let mut buffer = vec![0; TASK_FRAME_BYTES_MAX];
        let over = match wire::write(&mut self.channel, Kind::Running, pid.as_bytes()) {
            Ok(()) => self.watch(started, &mut buffer, None),
            Err(_) => Over::Orphaned,
        };
        if let Over::Stop(limit) = over {
            self.stopped = true;
            own::kill_group(started.child.id(), SIGTERM);
            self.watch(started, &mut buffer, Some(Instant::now() + limit));
        }
        let end = process::end_tree(started, false, &mut || {});
        // What it wrote last.
        let _daemon_gone = self.pass_on(&mut buffer);
        let ended = Ended {
            exit_code: end.status.and_then(|status| status.code()),
            signal: end.status.and_then(|status| status.signal()),
            stopped: self.stopped,
            left: Vec::new(),
        };
        let content = serde_json::to_vec(&ended).expect("plain figures");
        let _daemon_gone = wire::write(&mut self.channel, Kind::Ended, &content);
    }

    /// Waits for the end of the sidecar, of the daemon, or for the word to stop; with `until`, at most until then.
    fn watch(&mut self, started: &Started, buffer: &mut [u8], until: Option<Instant>) -> Over {
        loop {
            let fds = [self.output.as_ref().map(AsFd::as_fd), Some(started.ended.as_fd()), Some(self.channel.as_fd())];
            let tidy = Duration::from_millis(TOOL_SHELL_TIDY_MS);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Over::Stop(Duration::ZERO);
            }
            // A poll that fails leaves the short wait; each of the three is looked at then.
            let ready = wait_readable(&fds, left.map_or(tidy, |left| left.min(tidy))).unwrap_or(vec![true; 3]);
            if ready[2] {
                let mut word = [0; 32];
                match self.channel.read(&mut word) {
                    Ok(0) => return Over::Orphaned,
                    Ok(count) if until.is_none() => return Over::Stop(limit_of(&word[..count])),
                    Ok(_) => {}
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

    /// Passes on what the sidecar wrote, a few buffers at most.
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
}

/// The milliseconds that the stop frame names.
fn limit_of(word: &[u8]) -> Duration {
    let digits: String = word.iter().skip(5).map(|byte| char::from(*byte)).filter(char::is_ascii_digit).collect();
    Duration::from_millis(digits.parse::<u64>().unwrap_or(SIDECAR_STOP_MS).min(SIDECAR_STOP_MS))
}
