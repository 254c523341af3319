//! The worker's own side: jail, then answer calls until the channel ends.
//! Owns: nothing that outlives the process.
//! May touch: what the jail leaves.
//! Never: reads a message before the walls stand.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::SandboxSpec;
use super::frame::{self, AnswerFrame, CallFrame, Hello};
use crate::limits::{
    SANDBOX_ANSWER_BYTES_MAX, SANDBOX_CALL_BYTES_MAX, SANDBOX_HELLO_BYTES_MAX, SANDBOX_OVERFLOW_BYTES_MAX,
};
use crate::sys;

/// What a tool answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// What the model gets.
    pub content: String,
    /// The tool failed.
    pub is_error: bool,
    /// `content` is not all there was.
    pub truncated: bool,
    /// The whole text, for a blob.
    pub overflow: Option<Vec<u8>>,
}

/// What the worker is told on its command line. It names places, never secrets: command lines are public.
#[derive(Debug, Serialize, Deserialize)]
pub struct Policy {
    workspace: PathBuf,
}

impl Policy {
    /// The policy of a spec.
    pub fn of(spec: &SandboxSpec) -> Self {
        Self { workspace: spec.workspace.clone() }
    }
}

/// The process that was started as a worker.
pub fn main(policy: Option<&str>) -> ExitCode {
    let Ok(mut channel) = sys::take_standard_input().map(UnixStream::from) else { return ExitCode::FAILURE };
    let refused = jail(policy).err();
    let is_refused = refused.is_some();
    let hello = serde_json::to_vec(&Hello { refused }).expect("a greeting is plain data");
    if frame::write(&mut channel, &hello, SANDBOX_HELLO_BYTES_MAX).is_err() || is_refused {
        return ExitCode::FAILURE;
    }
    match serve(&mut channel) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn jail(policy: Option<&str>) -> Result<(), String> {
    let policy = policy.ok_or_else(|| "started without a policy".to_string())?;
    let policy: Policy = serde_json::from_str(policy).map_err(|cause| format!("the policy cannot be read: {cause}"))?;
    std::env::set_current_dir(&policy.workspace)
        .map_err(|cause| format!("workspace {}: {cause}", policy.workspace.display()))
}

fn serve(channel: &mut UnixStream) -> io::Result<()> {
    loop {
        let call = frame::read(channel, SANDBOX_CALL_BYTES_MAX)?;
        let call: CallFrame<'_> = serde_json::from_slice(&call)?;
        let output = run(call.tool, call.input);
        let overflow_bytes = output.overflow.as_ref().map(|bytes| bytes.len() as u32);
        let ToolOutput { content, is_error, truncated, overflow } = output;
        let answer = serde_json::to_vec(&AnswerFrame { content, is_error, truncated, overflow_bytes })?;
        frame::write(channel, &answer, SANDBOX_ANSWER_BYTES_MAX)?;
        if let Some(overflow) = overflow {
            frame::write(channel, &overflow, SANDBOX_OVERFLOW_BYTES_MAX)?;
        }
        channel.flush()?;
    }
}

fn run(tool: &str, input: &RawValue) -> ToolOutput {
    let content = serde_json::json!({ "tool": tool, "input": input }).to_string();
    ToolOutput { content, is_error: false, truncated: false, overflow: None }
}
