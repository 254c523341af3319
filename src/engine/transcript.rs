//! The conversation so far, read back from the journal.
//! Owns: which earlier exchanges the model sees, and the bound on them.
//! Never: keeps a transcript in memory between turns.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::NoteKind;
use crate::ids::Seq;
use crate::journal::{ReadError, Reader, Record};
use crate::limits::{CONTEXT_BYTES_MAX, CONTEXT_RUNS_MAX, CONTEXT_WALK_RECORDS_MAX};
use crate::providers::{Message, Origin};

use super::records::{AcceptedBody, MessageBody, body};

/// The messages for a model call, oldest first, ending with this run's input.
pub(super) struct Transcript {
    pub messages: Vec<Message>,
    /// Earlier exchanges were left out because they did not fit.
    pub truncated: bool,
    /// Calls that this run had requested before.
    pub own_actions: u32,
}

/// Why a transcript could not be assembled.
#[derive(Debug)]
pub(super) enum TranscriptError {
    Read(ReadError),
    Record(String),
}

impl std::fmt::Display for TranscriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Record(cause) => {
                write!(f, "a record of this session cannot be read: {cause}; next: run journal verify")
            }
        }
    }
}

impl From<ReadError> for TranscriptError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// The parts of a normalised submission that the model is asked with.
#[derive(Deserialize)]
pub(super) struct Submitted {
    pub content: String,
    #[serde(default)]
    pub max_output_tokens: Option<u32>,
    #[serde(default)]
    pub temperature: Option<f64>,
}

impl Submitted {
    pub(super) fn read(request: &RawValue) -> Result<Self, TranscriptError> {
        serde_json::from_str(request.get()).map_err(|error| TranscriptError::Record(error.to_string()))
    }
}

/// Walks the session's records backwards from `newest`, a record of this run written after it became active.
/// A session runs one run at a time, so all of its earlier exchanges stand before that, one after the other. An
/// earlier run takes part once it was started, whatever its end: what a person said stays said. Only a completed run
/// has an answer; what another one left behind may be half of an exchange, which providers refuse.
///
/// The oldest exchanges are left out, each as a whole, where a bound would be passed.
pub(super) fn assemble(reader: &Reader, accepted: &Record, newest: Seq) -> Result<Transcript, TranscriptError> {
    let own: AcceptedBody = body(accepted).map_err(TranscriptError::Record)?;
    let mut newest_first = vec![Message::user(Submitted::read(own.request)?.content)];
    let (mut bytes, mut runs, mut walked, mut own_actions) = (0, 0, 0, 0);
    // Of the exchange whose end was met and whose beginning was not.
    let (mut completed, mut answers, mut answer_bytes) = (None, Vec::new(), 0);
    let mut truncated = false;
    let mut seq = newest;
    while seq != 0 {
        let Some(record) = (if walked < CONTEXT_WALK_RECORDS_MAX { kept(reader, seq)? } else { None }) else {
            truncated = true;
            break;
        };
        walked += 1;
        seq = record.session_prev;
        let Some(run) = record.run else { continue };
        if Some(run) == accepted.run {
            own_actions += u32::from(record.kind == NoteKind::ActionRequest.as_str());
            continue;
        }
        match record.kind.as_str() {
            "run.completed" => completed = Some(run),
            "message.appended" if completed == Some(run) => {
                let message: MessageBody = body(&record).map_err(TranscriptError::Record)?;
                answer_bytes += record.body.get().len();
                let origin = Origin { route: message.route, model: message.model };
                answers.push(Message::Assistant {
                    text: message.text,
                    tool_calls: Vec::new(),
                    items: message.items,
                    origin,
                });
            }
            "run.started" => {
                let Some(first) = kept(reader, record.run_first)? else {
                    truncated = true;
                    break;
                };
                let accepted: AcceptedBody = body(&first).map_err(TranscriptError::Record)?;
                let text = Submitted::read(accepted.request)?.content;
                bytes += text.len() + std::mem::take(&mut answer_bytes);
                runs += 1;
                if bytes > CONTEXT_BYTES_MAX || runs > CONTEXT_RUNS_MAX {
                    truncated = true;
                    break;
                }
                newest_first.append(&mut answers);
                newest_first.push(Message::user(text));
            }
            _ => {}
        }
    }
    newest_first.reverse();
    Ok(Transcript { messages: newest_first, truncated, own_actions })
}

/// The record at `seq`; `None` when its segment was retired: what was in it is beyond retention.
fn kept(reader: &Reader, seq: Seq) -> Result<Option<Record>, TranscriptError> {
    match reader.read(seq) {
        Ok(record) => Ok(Some(record)),
        Err(ReadError::Retired { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
