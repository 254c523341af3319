//! The worker's own side: jail, then answer calls until the channel ends.
//! Owns: nothing that outlives the process.
//! May touch: what the jail leaves.
//! Never: reads a message before the walls stand.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use super::features::Feature;
use super::frame::{self, AnswerFrame, CallFrame, Hello};
use super::jail::Jail;
use super::policy::Policy;
use super::supervise;
use crate::limits::{
    SANDBOX_ANSWER_BYTES_MAX, SANDBOX_CALL_BYTES_MAX, SANDBOX_HELLO_BYTES_MAX, SANDBOX_OVERFLOW_BYTES_MAX,
};
use crate::sys;
use crate::sys::jail::{self as own, Forked};
use crate::sys::process;
use crate::tools::{self, Control, Place, ToolError, ToolOutput, Workspace};

/// The process that was started as a worker.
pub fn main(policy: Option<&str>) -> ExitCode {
    let (mut channel, jail) = match enter(policy, refuse) {
        Ok(entered) => entered,
        Err(code) => return code,
    };
    if greet(&mut channel, &Hello { refused: None, features: jail.features().to_vec() }).is_err() {
        return ExitCode::FAILURE;
    }
    if jail.is_probe() {
        return ExitCode::SUCCESS;
    }
    match serve(&mut channel, &jail) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Where a process stands that has shut itself in.
#[derive(Debug)]
pub struct Inside {
    /// To the daemon.
    pub channel: UnixStream,
    /// The workspace.
    pub workspace: PathBuf,
    /// Nobody but the first process and what is started here is in this pid namespace.
    pub alone: bool,
}

/// Has the process that was started as another kind of worker shut itself in as a tool worker does. `refuse` tells the
/// daemon why it could not.
///
/// # Errors
/// With this code the process is to end: it could not, or it is one of those around the worker and all is over.
pub fn shut_in(policy: Option<&str>, refuse: fn(&mut UnixStream, String)) -> Result<Inside, ExitCode> {
    let (channel, jail) = enter(policy, refuse)?;
    let (workspace, alone) = (jail.workspace().to_path_buf(), jail.has(Feature::PidNamespace));
    Ok(Inside { channel, workspace, alone })
}

/// The worker's channel and jail; else the code with which this process is to end: it could not shut itself in, or it is the
/// outermost one and all others have ended.
fn enter(policy: Option<&str>, refuse: fn(&mut UnixStream, String)) -> Result<(UnixStream, Jail), ExitCode> {
    let failed = |_| ExitCode::FAILURE;
    let refused = |channel: &mut UnixStream, cause: String| {
        refuse(channel, cause);
        ExitCode::FAILURE
    };
    // Whatever the daemon has open, by mistake or not, ends here; descriptor 0 is the channel.
    own::close_descriptors_from(3).map_err(failed)?;
    let mut channel = sys::take_standard_input().map(UnixStream::from).map_err(failed)?;
    let policy = policy.ok_or_else(|| "started without a policy".to_string());
    let policy = policy.and_then(|text| {
        serde_json::from_str::<Policy>(text).map_err(|cause| format!("the policy cannot be read: {cause}"))
    });
    let policy = policy.map_err(|cause| refused(&mut channel, cause))?;
    let processes = policy.processes;
    let mut jail = Jail::new(policy);
    let begun = begin(&mut jail).map_err(|cause| refused(&mut channel, cause))?;
    if let Forked::Parent(first) = begun {
        return Err(supervise::outermost(channel, first, &jail));
    }
    // Set anew: the setting does not pass to a child.
    let shut_in =
        process::die_with_parent(process::SIGKILL).map_err(|error| error.to_string()).and_then(|()| jail.inside());
    shut_in.map_err(|cause| refused(&mut channel, cause))?;
    if jail.has(Feature::PidNamespace) {
        let forked = own::fork().map_err(|error| refused(&mut channel, format!("no worker process: {error}")))?;
        if let Forked::Parent(worker) = forked {
            // Held here it would hide the end of the worker from the daemon.
            drop(channel);
            supervise::first(worker, jail.process_limit, processes);
        }
    }
    Ok((channel, jail))
}

/// The steps of the outermost process up to the fork.
fn begin(jail: &mut Jail) -> Result<Forked, String> {
    let text = |error: io::Error| error.to_string();
    own::reset_signals().map_err(text)?;
    own::new_session().map_err(text)?;
    own::set_file_mode_mask(0o022);
    process::become_subreaper().map_err(text)?;
    jail.outside()?;
    // It does not die with the daemon by a signal: it sees the channel end, ends the others and only then itself.
    own::fork().map_err(text)
}

fn greet(channel: &mut UnixStream, hello: &Hello) -> io::Result<()> {
    let hello = serde_json::to_vec(hello).expect("a greeting is plain data");
    frame::write(channel, &hello, SANDBOX_HELLO_BYTES_MAX)
}

fn refuse(channel: &mut UnixStream, cause: String) {
    // A daemon that has gone needs no answer.
    let _daemon_gone = greet(channel, &Hello { refused: Some(cause), features: Vec::new() });
}

fn serve(channel: &mut UnixStream, jail: &Jail) -> io::Result<()> {
    tools::process::claim_process(jail.has(Feature::PidNamespace))?;
    let workspace = Workspace::open(jail.workspace())?;
    loop {
        let call = frame::read(channel, SANDBOX_CALL_BYTES_MAX)?;
        let call: CallFrame<'_> = serde_json::from_slice(&call)?;
        let output = match tools::find(call.tool).filter(|tool| tool.place == Place::Worker) {
            Some(tool) => tools::run(tool, call.input, &workspace, &Control::new(call.deadline_ms)),
            None if call.tool == tools::HOOK => tools::hook(call.input, &workspace, &Control::new(call.deadline_ms)),
            None => ToolOutput::error(&ToolError::Unknown { tool: call.tool.to_string() }),
        };
        if jail.has(Feature::PidNamespace) {
            // Nothing that a call started outlives it, so that the next one meets no stranger.
            own::kill_all_others()?;
        }
        let overflow_bytes = output.overflow.as_ref().map(|bytes| bytes.len() as u32);
        let ToolOutput { content, is_error, truncated, overflow } = output;
        let answer = serde_json::to_vec(&AnswerFrame { content, is_error, truncated, overflow_bytes })?;
        frame::write(channel, &answer, SANDBOX_ANSWER_BYTES_MAX)?;
        if let Some(overflow) = overflow {
            frame::write(channel, &overflow, SANDBOX_OVERFLOW_BYTES_MAX)?;
        }
    }
}
