//! The command of a hook, in a worker.
//! Owns: its standard input, and how much of what it prints is told.
//! May touch: processes of its own; a file in the worker's temp directory, until it is opened.
//! Never: is a tool that a model can call: no list has it. Works in the workspace: what a model leaves there must not
//! become a part of the guard that judges it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Instant;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ToolError;
use super::output::{ToolOutput, cut_bytes};
use super::process::{self, Streams};
use super::shell::{Over, Stream, finish, watch};
use super::workspace::Workspace;
use super::{Control, parse};
use crate::hex::to_hex;
use crate::limits::{HOOK_ANSWER_BYTES_MAX, HOOK_REASON_BYTES_MAX};

/// The name under which a worker knows it.
pub const HOOK: &str = "hook_command";

/// What is to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct HookCall<'a> {
    /// Given to the shell.
    pub command: &'a str,
    /// The shell; absent is any that there is.
    pub shell: Option<&'a str>,
    /// What it reads.
    pub input: &'a str,
}

/// How it ended. What it printed is the answer's overflow.
#[derive(Debug, Serialize, Deserialize)]
pub struct HookEnded {
    /// Absent where it did not end by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its time was up.
    pub timed_out: bool,
    /// It printed more than [`HOOK_ANSWER_BYTES_MAX`].
    pub too_large: bool,
    /// The beginning of what it said besides.
    pub stderr: String,
}

/// Owned form of [`HookCall`].
#[derive(Deserialize)]
struct Input {
    command: String,
    shell: Option<String>,
    input: String,
}

/// A file that holds `text` and has no name any more.
fn unnamed(text: &str) -> io::Result<File> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("the host gives no random bytes"))?;
    let path = std::env::temp_dir().join(format!("hook-{}", to_hex(&random)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| File::open(&path));
    let removed = std::fs::remove_file(&path);
    let file = written?;
    removed.map(|()| file)
}

/// Runs the command of a hook to its end.
pub fn hook(input: &RawValue, workspace: &Workspace, control: &Control) -> ToolOutput {
    run(input, workspace, control).unwrap_or_else(ToolOutput::from)
}

fn run(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let input: Input = parse(input)?;
    let deadline = Instant::now() + control.remaining();
    let cannot = |error: io::Error| ToolError::Refused {
        code: "command_not_started",
        cause: format!("the command could not be started: {error}"),
        next: "check the shell and the sandbox".to_string(),
    };
    let root = File::open("/").map_err(cannot)?;
    let streams = Streams {
        stdin: unnamed(&input.input).map_err(cannot)?.into(),
        stdout: Stdio::piped(),
        stderr: Stdio::piped(),
    };
    let place = workspace.path().display().to_string();
    let extra = [("KHEISH_WORKSPACE", place.as_str())];
    let shell = match &input.shell {
        Some(shell) => shell.as_str(),
        None => process::shell().map_err(cannot)?,
    };
    let mut started = process::start_in(shell, &input.command, &root, &extra, streams).map_err(cannot)?;
    let piped = Stream::kept(started.child.stdout.take(), HOOK_ANSWER_BYTES_MAX, 0)
        .and_then(|stdout| Ok((stdout, Stream::kept(started.child.stderr.take(), HOOK_ANSWER_BYTES_MAX, 0)?)));
    let (mut stdout, mut stderr) = match piped {
        Ok(piped) => piped,
        Err(error) => {
            process::end_tree(&mut started, false, &mut || {});
            return Err(cannot(error));
        }
    };
    let mut buffer = vec![0; 64 * 1024];
    let bytes_max = HOOK_ANSWER_BYTES_MAX as u64;
    let over = watch(&started, &mut stdout, &mut stderr, (deadline, bytes_max), &mut buffer);
    let by_itself = matches!(over, Over::ByItself);
    let end = finish(&mut started, &mut stdout, &mut stderr, &mut buffer);
    let too_large = stdout.capture.total().max(stderr.capture.total()) > bytes_max;
    let status = end.status.filter(|_| by_itself);
    let ended = HookEnded {
        exit_code: status.and_then(|status| status.code()),
        signal: status.and_then(|status| status.signal()),
        timed_out: !by_itself && !too_large,
        too_large,
        stderr: cut_bytes(&stderr.capture.kept(), HOOK_REASON_BYTES_MAX).to_string(),
    };
    let mut output = ToolOutput::ok(&ended, false);
    output.overflow = (!too_large).then(|| stdout.capture.kept().into_bytes());
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How it ended and what it printed.
    fn ended(command: &str, input: &str, limit_ms: u64) -> (HookEnded, String) {
        let workspace = Workspace::open(&std::env::temp_dir()).unwrap();
        let call = serde_json::value::to_raw_value(&HookCall { command, shell: None, input }).unwrap();
        let output = hook(&call, &workspace, &Control::new(limit_ms));
        let printed = String::from_utf8(output.overflow.unwrap_or_default()).unwrap();
        (serde_json::from_str(&output.content).unwrap_or_else(|_| panic!("{}", output.content)), printed)
    }

    #[test]
    fn it_reads_its_input_whole_and_an_unread_one_is_no_error() {
        let text = "x".repeat(3 * 1024 * 1024);
        let (end, printed) = ended("wc -c", &text, 60_000);
        assert_eq!((end.exit_code, printed.trim()), (Some(0), "3145728"));
        let (end, printed) = ended("pwd; cd \"$KHEISH_WORKSPACE\" && pwd", &text, 60_000);
        let temp = std::env::temp_dir().canonicalize().unwrap();
        assert_eq!((end.exit_code, printed), (Some(0), format!("/\n{}\n", temp.display())));
    }

    #[test]
    fn a_flood_is_cut_off_and_a_signal_a_status_and_a_late_end_are_told_apart() {
        let (end, printed) = ended("yes", "", 60_000);
        assert_eq!((end.too_large, end.timed_out, end.exit_code, printed.as_str()), (true, false, None, ""));
        let (end, _) = ended("yes >&2", "", 60_000);
        assert!(end.too_large && end.stderr.len() <= HOOK_REASON_BYTES_MAX);
        let (end, _) = ended("kill -KILL $$", "", 60_000);
        assert_eq!((end.exit_code, end.signal, end.timed_out), (None, Some(9), false));
        let (end, _) = ended("echo no >&2; exit 2", "", 60_000);
        assert_eq!((end.exit_code, end.stderr.as_str()), (Some(2), "no\n"));
        let (end, _) = ended("sleep 600", "", 200);
        assert_eq!((end.exit_code, end.signal, end.timed_out), (None, None, true));
    }

    #[test]
    fn nothing_of_the_daemons_environment_is_there() {
        let (end, printed) = ended("env | cut -d= -f1 | sort | tr '\\n' ' '", "", 60_000);
        assert_eq!(end.exit_code, Some(0));
        assert_eq!(printed, "HOME KHEISH_WORKSPACE LANG PATH PWD SHELL SHLVL TERM TMPDIR _ ");
    }
}
