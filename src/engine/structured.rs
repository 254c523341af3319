//! Answers that were asked for in a shape: checked, sent back when they do not fit, put out as JSON.
//! Owns: what becomes of an answer without calls, and the words with which it is sent back.
//! Never: lets an answer out that was held to a schema and does not fit it.

use serde_json::Value;

use super::records::{MessageBody, output_note, structured_note};
use super::run::{Carried, Taken};
use super::turn::Left;
use crate::contract;
use crate::core::{Failure, Note, Outcome};
use crate::providers::Stop;

/// The run failed because no answer fitted its schema.
pub const OUTPUT_CONTRACT_VIOLATED: &str = "output_contract_violated";

fn violated(message: String) -> Failure {
    Failure { code: OUTPUT_CONTRACT_VIOLATED.to_string(), message }
}

/// What a model is told of an answer that does not fit.
fn told(error: &str, schema: &Value) -> String {
    format!(
        "Your answer does not fit the required format: {error}\nAnswer again with exactly one JSON value that fits this \
         JSON Schema, and with nothing else:\n{schema}"
    )
}

impl Carried<'_> {
    /// The end of the run, or another try: the answer asks for no tools. `notes` end with its message.
    pub(super) fn take_last(&mut self, mut notes: Vec<Note>, message: MessageBody, stop: Stop) -> Result<Taken, Left> {
        let (session, run) = (self.hand.job.session.clone(), self.hand.job.id);
        let Some(expected) = self.submitted.options.expected() else {
            if let Some(taken) = self.pass_stop(&mut notes, &message)? {
                return Ok(taken);
            }
            if !message.text.is_empty() {
                notes.push(output_note(&session, run, &message.text));
            }
            self.hand.finish(notes, Outcome::Completed);
            return Ok(Taken::Ended);
        };
        let error = match stop {
            Stop::Done | Stop::ToolCalls => match contract::accept(expected.schema, &message.text) {
                Ok(value) => {
                    if let Some(taken) = self.pass_stop(&mut notes, &message)? {
                        return Ok(taken);
                    }
                    notes.push(structured_note(&session, run, &contract::canonical(&value), &value));
                    self.hand.finish(notes, Outcome::Completed);
                    return Ok(Taken::Ended);
                }
                Err(violation) => violation.to_string(),
            },
            Stop::Refusal => {
                let text = "the model declined to answer, so there is no JSON; next: change the input";
                return Err(Left::FailedWith(violated(text.to_string()), notes));
            }
            Stop::Length | Stop::Pause => {
                let text = "the answer was cut by a limit of length, so its JSON is not complete; next: raise \
                            max_output_tokens or ask for less";
                return Err(Left::FailedWith(violated(text.to_string()), notes));
            }
        };
        let attempt = self.context.repairs + 1;
        if attempt > expected.max_repair_attempts {
            let text = format!(
                "the answer does not fit its schema after {} repairs: {error}; next: simplify the schema, or choose \
                 another model",
                self.context.repairs
            );
            return Err(Left::FailedWith(violated(text), notes));
        }
        let told = told(&error, expected.schema);
        Ok(self.send_back(notes, &message, attempt, error, told))
    }
}
