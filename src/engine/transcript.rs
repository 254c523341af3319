//! The conversation so far, read back from the journal.
//! Owns: which earlier exchanges the model sees, and the bound on them.
//! Never: keeps a transcript in memory between turns.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::{RunId, Seq};
use crate::journal::{ReadError, Reader, Record};
use crate::limits::{CONTEXT_BYTES_MAX, CONTEXT_RUNS_MAX, CONTEXT_WALK_RECORDS_MAX};
use crate::providers::{Message, Origin};

use super::records::{AcceptedBody, MessageBody, body};

/// The messages for a model call, oldest first, ending with this run's input.
pub(super) struct Transcript {
    pub messages: Vec<Message>,
    /// Earlier exchanges were left out because they did not fit.
    pub truncated: bool,
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

#[derive(Deserialize)]
struct RequestText {
    #[serde(default)]
    content: String,
}

/// The text of a normalised submission.
pub(super) fn input_text(request: &RawValue) -> Result<String, TranscriptError> {
    let request: RequestText =
        serde_json::from_str(request.get()).map_err(|error| TranscriptError::Record(error.to_string()))?;
    Ok(request.content)
}

/// Walks the session's records backwards from `newest`, a record of this run written after it became active.
/// A session runs one run at a time, so all of its earlier exchanges stand before that. An earlier run takes
/// part once it was started, whatever its end: what a person said stays said. A failed or stopped run has no
/// answer.
pub(super) fn assemble(reader: &Reader, accepted: &Record, newest: Seq) -> Result<Transcript, TranscriptError> {
    let own: AcceptedBody = body(accepted).map_err(TranscriptError::Record)?;
    let mut newest_first = vec![Message::User { text: input_text(own.request)? }];
    let (mut bytes, mut runs, mut walked) = (0, 0, 0);
    // Answers met on the way back whose run's input is yet to be added.
    let mut answers: HashMap<RunId, Message> = HashMap::new();
    let mut seq = newest;
    while seq != 0 {
        if bytes > CONTEXT_BYTES_MAX || runs >= CONTEXT_RUNS_MAX || walked >= CONTEXT_WALK_RECORDS_MAX {
            return Ok(finish(newest_first, true));
        }
        let record = match reader.read(seq) {
            Ok(record) => record,
            // Retired segments end the walk: what was in them is beyond retention.
            Err(ReadError::Retired { .. }) => return Ok(finish(newest_first, true)),
            Err(error) => return Err(error.into()),
        };
        walked += 1;
        seq = record.session_prev;
        let Some(run) = record.run.filter(|run| Some(*run) != accepted.run) else { continue };
        match record.kind.as_str() {
            "message.appended" => {
                let message: MessageBody = body(&record).map_err(TranscriptError::Record)?;
                bytes += record.body.get().len();
                let origin = Origin { route: message.route, model: message.model };
                answers.insert(run, Message::Assistant { text: message.text, items: message.items, origin });
            }
            "run.started" => {
                let first = reader.read(record.run_first)?;
                let accepted: AcceptedBody = body(&first).map_err(TranscriptError::Record)?;
                let text = input_text(accepted.request)?;
                bytes += text.len();
                runs += 1;
                newest_first.extend(answers.remove(&run));
                newest_first.push(Message::User { text });
            }
            _ => {}
        }
    }
    Ok(finish(newest_first, false))
}

fn finish(mut newest_first: Vec<Message>, truncated: bool) -> Transcript {
    newest_first.reverse();
    Transcript { messages: newest_first, truncated }
}
