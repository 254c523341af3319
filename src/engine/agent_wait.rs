//! The tool that waits for child agents: when a run is let go for it, and what it is told of them.
//! Owns: from a call and the state of the agents to a wait or a result.
//! May touch: core and journal, for reading.
//! Never: holds an engine while agents work; the run is suspended.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::context::OpenCall;
use super::run::Carried;
use super::toolbox::failure;
use super::turn::{Left, failed};
use crate::commit::{CommandError, CoreHandle};
use crate::core::{AgentsAwaited, QuestionAsked, RunPosition, RunStatus, State};
use crate::ids::{Seq, SessionId};
use crate::journal::{ReadError, Reader, Record};
use crate::limits::{AGENT_OUTPUT_RECORDS_MAX, AGENT_OUTPUT_SHOWN_BYTES, AGENT_WAIT_MS_DEFAULT};
use crate::tools::{ToolDef, ToolOutput, cut_bytes};

/// Whether a call of this tool waits for agents.
pub(super) fn is_waiting(def: &ToolDef) -> bool {
    def.name == "wait_agent"
}

/// What a call comes to.
pub(super) enum Waiting {
    /// The run waits.
    Until(AgentsAwaited),
    /// The call has its result.
    Over(ToolOutput),
}

#[derive(Deserialize)]
struct Input {
    agent_ids: Vec<String>,
    #[serde(default)]
    any: bool,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// The number in `agent-<n>`.
pub(super) fn agent_number(id: &str) -> Option<u32> {
    id.strip_prefix("agent-").filter(|digits| !digits.starts_with(['0', '+'])).and_then(|digits| digits.parse().ok())
}

/// An agent as its parent is told of it.
pub(super) struct Standing {
    number: u32,
    session: SessionId,
    name: String,
    status: &'static str,
    closed: bool,
    /// It does nothing, and nothing waits to be done.
    rests: bool,
    /// Its newest run.
    run: Option<RunPosition>,
    /// The `question.asked` record of what it asks its parent.
    asks: Option<Seq>,
}

/// What the core knows of an agent, if it was made by the one with number `by` or below it.
pub(super) fn standing(state: &State, number: u32, by: u32) -> Option<Standing> {
    if number == by || !state.is_agent_below(number, by) {
        return None;
    }
    let session = state.session(number)?;
    let question = state.step(session.active).and_then(|step| step.question.as_ref());
    let run = state.run_position(state.run_id(if session.active == 0 { session.last_run } else { session.active }));
    let status = match &run {
        Some(run) => run.status.as_str(),
        None => "idle",
    };
    Some(Standing {
        number,
        session: session.id.clone(),
        name: session.child.as_ref().map(|child| child.link.name.clone()).unwrap_or_default(),
        status,
        closed: session.ended,
        rests: session.active == 0 && session.queue_runs == 0,
        run,
        asks: question.filter(|question| question.to_parent).map(|question| question.seq),
    })
}

/// The standing of these agents; `Err` names the first that is none of the caller's.
pub(super) fn standings(
    core: &CoreHandle,
    session: &SessionId,
    ids: &[String],
) -> Result<Result<Vec<Standing>, String>, CommandError> {
    let (session, ids) = (session.clone(), ids.to_vec());
    core.read(move |state| {
        let by = state.session_number(&session).unwrap_or(0);
        let find = |id: &String| agent_number(id).and_then(|number| standing(state, number, by)).ok_or(id.clone());
        ids.iter().map(find).collect()
    })
}

impl Standing {
    /// In full, with its last answer and its question.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(super) fn told(&self, reader: &Reader) -> Result<Value, ReadError> {
        let mut told = self.line();
        if let Some(run) = &self.run {
            told["run_id"] = json!(run.id);
            if run.status.is_terminal() {
                self.tell_end(run, reader, &mut told)?;
            }
        }
        if let Some(seq) = self.asks {
            let asked: Option<QuestionAsked> = serde_json::from_str(reader.read(seq)?.body.get()).ok();
            told["question"] = asked.map_or(Value::Null, |asked| json!({"id": asked.id, "questions": asked.questions}));
        }
        Ok(told)
    }

    /// In short.
    pub(super) fn line(&self) -> Value {
        let mut line = json!({"agent_id": format!("agent-{}", self.number), "session_id": self.session,
            "status": self.status, "closed": self.closed, "asks_you": self.asks.is_some()});
        if !self.name.is_empty() {
            line["name"] = json!(self.name);
        }
        line
    }

    fn tell_end(&self, run: &RunPosition, reader: &Reader, told: &mut Value) -> Result<(), ReadError> {
        let mut seq = run.last_seq;
        for _ in 0..AGENT_OUTPUT_RECORDS_MAX {
            if seq == 0 {
                break;
            }
            let record = match reader.read(seq) {
                Ok(record) => record,
                // Beyond retention; there is nothing to show.
                Err(ReadError::Retired { .. }) => break,
                Err(error) => return Err(error),
            };
            match record.kind.as_str() {
                "run.failed" => told["error"] = field(&record, "error"),
                "run.cancelled" | "run.interrupted" => told["reason"] = field(&record, "reason"),
                "run.output" => {
                    let output = field(&record, "output");
                    let text = output["content"].as_str().unwrap_or_default();
                    let shown = cut_bytes(text, AGENT_OUTPUT_SHOWN_BYTES);
                    told["output"] = json!(shown);
                    told["output_truncated"] = json!(shown.len() < text.len());
                    break;
                }
                _ => {}
            }
            seq = record.run_prev;
        }
        if run.status == RunStatus::Completed && told.get("output").is_none() {
            told["output"] = json!("");
        }
        Ok(())
    }
}

fn field(record: &Record, name: &str) -> Value {
    let body: Value = serde_json::from_str(record.body.get()).unwrap_or_default();
    body[name].clone()
}

/// Decides whether the run waits. A wait that was begun before keeps its end.
pub(super) fn wait(run: &Carried<'_>, open: &OpenCall, input: &RawValue, limit_ms: u64) -> Result<Waiting, Left> {
    let input: Input = match serde_json::from_str(input.get()) {
        Ok(input) => input,
        Err(error) => {
            return Ok(Waiting::Over(failure("invalid_arguments", &format!("{error}; next: follow the schema"))));
        }
    };
    let tools = &run.hand.engine.tools;
    let standings = match standings(&tools.core, &run.hand.job.session, &input.agent_ids)? {
        Ok(standings) => standings,
        Err(id) => {
            let text = format!("you made no agent {id:?}; next: see list_agents");
            return Ok(Waiting::Over(failure("agent_not_found", &text)));
        }
    };
    let now_ms = run.now_ms();
    let asked_ms = input.timeout_ms.unwrap_or(AGENT_WAIT_MS_DEFAULT).min(limit_ms);
    let until_ms = open.awaited.as_ref().map_or(now_ms.saturating_add(asked_ms), |awaited| awaited.until_ms);
    let resting = standings.iter().filter(|agent| agent.rests).count();
    let done = if input.any { resting > 0 } else { resting == standings.len() };
    let asks = standings.iter().any(|agent| agent.asks.is_some());
    if !done && !asks && until_ms > now_ms {
        return Ok(Waiting::Until(AgentsAwaited {
            call: open.call.call_id.clone(),
            agents: standings.iter().map(|agent| agent.number).collect(),
            any: input.any,
            until_ms,
        }));
    }
    let told: Result<Vec<Value>, ReadError> = standings.iter().map(|agent| agent.told(&tools.reader)).collect();
    let agents = told.map_err(|error| failed("journal_read", error))?;
    let result = json!({"agents": agents, "timed_out": !done && !asks});
    Ok(Waiting::Over(ToolOutput {
        content: run.redact(&result.to_string()),
        is_error: false,
        truncated: false,
        overflow: None,
    }))
}
