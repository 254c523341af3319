//! What models do with agents: make them, tell them things, answer and look at them.
//! Owns: from checked arguments to a command of the core, and to a result for the model.
//! May touch: core and journal.
//! Never: shows or reaches an agent that is not below the caller, but for its parent's mailbox.

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::agent_wait::{agent_number, standing, standings};
use super::records::{AcceptedBody, body};
use super::toolbox::{Caller, DaemonTool, failure};
use crate::commit::{CommandError, CoreHandle};
use crate::core::{
    AgentCommand, AgentRefusal, Answer, Command, Decision, Idempotency, Mail, QuestionAnswer, QuestionAsked, Refusal,
    Retention, ScopeWish, Spawn, SpawnTask, Target, ToolScope, UserQuestion,
};
use crate::hex::to_hex;
use crate::ids::SessionId;
use crate::journal::Reader;
use crate::limits::QUESTION_ANSWER_BYTES_MAX;
use crate::net::Cancel;
use crate::permissions::Mode;
use crate::tools::{self, ToolDef, ToolOutput};

/// The room of these tools.
pub struct AgentTools {
    core: CoreHandle,
    reader: Reader,
}

type ToolCode = fn(&AgentTools, &Caller, &RawValue) -> Result<Value, ToolOutput>;

fn code_of(def: &ToolDef) -> Option<ToolCode> {
    Some(match def.name {
        "spawn_agent" => AgentTools::spawn,
        "message_agent" => AgentTools::message,
        "answer_agent" => AgentTools::answer,
        "list_agents" => AgentTools::list,
        "get_agent" => AgentTools::get,
        _ => return None,
    })
}

impl DaemonTool for AgentTools {
    fn has(&self, def: &ToolDef) -> bool {
        code_of(def).is_some() || def.name == super::question::TO_PARENT
    }

    fn call(&self, caller: &Caller, def: &ToolDef, input: &RawValue, _: u64, _: &Cancel) -> ToolOutput {
        let Some(code) = code_of(def) else {
            return failure("tool_unavailable", "this tool is not carried out here; next: use another one");
        };
        match code(self, caller, input) {
            Ok(result) => ToolOutput { content: result.to_string(), is_error: false, truncated: false, overflow: None },
            Err(output) => output,
        }
    }
}

#[derive(Deserialize)]
struct SpawnInput {
    task: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    allowed_tools: Vec<String>,
    #[serde(default)]
    blocked_tools: Vec<String>,
    mode: Option<Mode>,
    #[serde(default)]
    workspace: String,
    #[serde(default)]
    read_only: bool,
    retention: Option<Retention>,
}

#[derive(Deserialize)]
struct MessageInput {
    agent_id: String,
    #[serde(default)]
    subject: String,
    message: String,
}

#[derive(Deserialize)]
struct AnswerInput {
    agent_id: String,
    question_id: String,
    #[serde(default)]
    answers: Vec<QuestionAnswer>,
    #[serde(default)]
    declined: bool,
}

#[derive(Deserialize)]
struct GetInput {
    agent_id: String,
}

/// The part of a submission that a child's first run takes over: it may use no more than its parent's run.
#[derive(Deserialize)]
struct Budgeted {
    #[serde(default)]
    budget: Option<Value>,
}

fn input<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, ToolOutput> {
    tools::parse(raw).map_err(ToolOutput::from)
}

fn unreachable_core(error: &CommandError) -> ToolOutput {
    match error {
        CommandError::Refused(refusal) => {
            let code = match refusal {
                Refusal::Agent(AgentRefusal::Policy { .. }) => "spawn_policy_denied",
                Refusal::Agent(AgentRefusal::Scope(_)) => "agent_scope_refused",
                Refusal::Agent(AgentRefusal::Closed(_)) => "agent_closed",
                Refusal::Agent(AgentRefusal::MailboxFull(_)) => "mailbox_full",
                _ => "refused",
            };
            failure(code, &refusal.to_string())
        }
        error => failure("daemon_unavailable", &error.to_string()),
    }
}

fn not_found(id: &str) -> ToolOutput {
    failure("agent_not_found", &format!("you made no agent {id:?}; next: see list_agents"))
}

/// Sixteen bytes that stand for these texts.
fn hash(parts: &[&str]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref()[..16].try_into().expect("a digest has 32 bytes")
}

impl AgentTools {
    /// The room, over this core and its log.
    pub fn new(core: CoreHandle, reader: Reader) -> Self {
        Self { core, reader }
    }

    /// Route, model and budget of the run that calls.
    fn pinned(&self, caller: &Caller) -> Result<(String, String, Option<Value>), ToolOutput> {
        let unreadable = |cause: String| failure("journal_read", &cause);
        let position = self.core.run(caller.run).map_err(|error| unreachable_core(&error))?;
        let first = position.map_or(0, |position| position.first_seq);
        let record = self.reader.read(first).map_err(|error| unreadable(error.to_string()))?;
        let accepted: AcceptedBody<'_> = body(&record).map_err(unreadable)?;
        let budgeted: Option<Budgeted> = serde_json::from_str(accepted.request.get()).ok();
        Ok((accepted.route, accepted.model, budgeted.and_then(|budgeted| budgeted.budget)))
    }

    fn spawn(&self, caller: &Caller, raw: &RawValue) -> Result<Value, ToolOutput> {
        let asked: SpawnInput = input(raw)?;
        let (route, model, budget) = self.pinned(caller)?;
        let mut request = json!({"content": asked.task, "source_plugin": "daemon", "source_kind": "subtask"});
        if let Some(budget) = budget {
            request["budget"] = budget;
        }
        let turn = caller.turn.to_string();
        let spawn = Spawn {
            parent: caller.session.clone(),
            run: Some(caller.run),
            call: Some(caller.call.clone()),
            session: None,
            thread_id: None,
            name: asked.name,
            retention: asked.retention.unwrap_or(Retention::CloseOnSettle),
            scope: ScopeWish {
                tools: ToolScope { allow: asked.allowed_tools, block: asked.blocked_tools },
                routes: Vec::new(),
                workspace: asked.workspace,
                read_only: asked.read_only,
            },
            permission_mode: asked.mode,
            task: Some(SpawnTask { request: to_raw_value(&request).expect("JSON values serialise"), route, model }),
            // The same call, made again after a crash, is told of the same child.
            idempotency: Some(Idempotency {
                key: hash(&["spawn_agent", &caller.run.to_string(), &turn, &caller.call]),
                fingerprint: hash(&[raw.get()]),
            }),
            dry_run: false,
        };
        match self.core.execute(Command::Agent(AgentCommand::Spawn(Box::new(spawn)))) {
            Ok(Decision::Spawned { number, session, run, .. }) => {
                Ok(json!({"agent_id": format!("agent-{number}"), "session_id": session, "run_id": run}))
            }
            Ok(other) => Err(failure("engine_defect", &format!("unexpected decision {other:?}"))),
            Err(error) => Err(unreachable_core(&error)),
        }
    }

    /// The session that a message goes to.
    fn recipient(&self, caller: &Caller, id: &str) -> Result<SessionId, ToolOutput> {
        let (session, wanted) = (caller.session.clone(), id.to_string());
        let found = self.core.read(move |state| {
            let by = state.session_number(&session)?;
            if wanted == "parent" {
                return state.session(by)?.child.as_ref().map(|child| child.link.session.clone());
            }
            let number = agent_number(&wanted)?;
            standing(state, number, by)?;
            state.session(number).map(|session| session.id.clone())
        });
        found.map_err(|error| unreachable_core(&error))?.ok_or_else(|| not_found(id))
    }

    fn message(&self, caller: &Caller, raw: &RawValue) -> Result<Value, ToolOutput> {
        let asked: MessageInput = input(raw)?;
        let to = self.recipient(caller, &asked.agent_id)?;
        let (route, model, _) = self.pinned(caller)?;
        let session = caller.session.clone();
        let from = self.core.read(move |state| state.session_number(&session));
        let from = from.map_err(|error| unreachable_core(&error))?.unwrap_or(0);
        let call = hash(&[&caller.call, &caller.turn.to_string()]);
        let mail = Mail {
            id: format!("mail-{}-{}", caller.run, to_hex(&call[..8])),
            from: format!("agent-{from}"),
            subject: asked.subject,
            payload: json!(asked.message),
            expires_at_ms: None,
            route,
            model,
        };
        match self.core.execute(Command::Agent(AgentCommand::Post { to, mail: Box::new(mail) })) {
            Ok(Decision::Posted { id, .. }) => Ok(json!({"message_id": id})),
            Ok(other) => Err(failure("engine_defect", &format!("unexpected decision {other:?}"))),
            Err(error) => Err(unreachable_core(&error)),
        }
    }

    fn answer(&self, caller: &Caller, raw: &RawValue) -> Result<Value, ToolOutput> {
        let asked: AnswerInput = input(raw)?;
        let child = self.recipient(caller, &asked.agent_id).and_then(|session| match asked.agent_id.as_str() {
            "parent" => Err(not_found("parent")),
            _ => Ok(session),
        })?;
        let of = child.clone();
        let open = self.core.read(move |state| {
            let active = state.session(state.session_number(&of)?)?.active;
            let question = state.step(active)?.question.clone()?;
            question.to_parent.then_some((question.id, question.seq))
        });
        let open = open.map_err(|error| unreachable_core(&error))?.filter(|(id, _)| *id == asked.question_id);
        let Some((id, seq)) = open else {
            let text =
                format!("agent {} asks you no question {:?}; next: see get_agent", asked.agent_id, asked.question_id);
            return Err(failure("question_not_open", &text));
        };
        let record = self.reader.read(seq).map_err(|error| failure("journal_read", &error.to_string()))?;
        let question: QuestionAsked = body(&record).map_err(|cause| failure("journal_read", &cause))?;
        if !asked.declined {
            fit(&question.questions, &asked.answers).map_err(|cause| failure("invalid_arguments", &cause))?;
        }
        let answers = if asked.declined { Vec::new() } else { asked.answers };
        let answer = Answer { id, answers, declined: asked.declined, justification: None };
        let command =
            Command::ResolveQuestion { target: Target::Session(child), answer: Box::new(answer), idempotency: None };
        match self.core.execute(command) {
            Ok(_) => Ok(json!({"answered": true})),
            Err(error) => Err(unreachable_core(&error)),
        }
    }

    fn list(&self, caller: &Caller, _: &RawValue) -> Result<Value, ToolOutput> {
        let session = caller.session.clone();
        let lines = self.core.read(move |state| {
            let query = crate::core::AgentQuery {
                below: Some(session.clone()),
                after: 0,
                limit: crate::limits::AGENT_PAGE_MAX,
            };
            let by = state.session_number(&session).unwrap_or(0);
            let page = state.agent_page(&query);
            let lines = page.items.iter().filter_map(|agent| standing(state, agent.view.session.number, by));
            (lines.map(|agent| agent.line()).collect::<Vec<Value>>(), page.has_more)
        });
        let (agents, truncated) = lines.map_err(|error| unreachable_core(&error))?;
        Ok(json!({"agents": agents, "truncated": truncated}))
    }

    fn get(&self, caller: &Caller, raw: &RawValue) -> Result<Value, ToolOutput> {
        let asked: GetInput = input(raw)?;
        let found = standings(&self.core, &caller.session, std::slice::from_ref(&asked.agent_id));
        let found = found.map_err(|error| unreachable_core(&error))?.map_err(|id| not_found(&id))?;
        let agent = found.first().ok_or_else(|| not_found(&asked.agent_id))?;
        agent.told(&self.reader).map_err(|error| failure("journal_read", &error.to_string()))
    }
}

/// Checks that answers fit the questions, all of them.
fn fit(questions: &[UserQuestion], answers: &[QuestionAnswer]) -> Result<(), String> {
    for question in questions {
        let id = &question.id;
        let mut of_this = answers.iter().filter(|answer| answer.question_id == *id);
        let (Some(answer), None) = (of_this.next(), of_this.next()) else {
            return Err(format!("question {id:?} takes exactly one answer; next: answer each question once"));
        };
        let selected = &answer.selected_option_ids;
        if selected.is_empty() && answer.freeform_answer.is_none() {
            return Err(format!("the answer to {id:?} says nothing; next: select an option or write an answer"));
        }
        if selected.len() > 1 && !question.multi_select {
            return Err(format!("question {id:?} takes one option"));
        }
        let unknown = selected.iter().enumerate().find(|(at, option)| {
            selected[..*at].contains(option) || question.options.iter().all(|known| known.id != **option)
        });
        if let Some((_, option)) = unknown {
            return Err(format!("question {id:?} has no option {option:?}, or it is selected twice"));
        }
        if answer.freeform_answer.as_ref().is_some_and(|text| text.len() > QUESTION_ANSWER_BYTES_MAX) {
            return Err(format!("the answer to {id:?} has more than {QUESTION_ANSWER_BYTES_MAX} bytes"));
        }
    }
    match answers.iter().find(|answer| questions.iter().all(|question| question.id != answer.question_id)) {
        Some(answer) => Err(format!("there is no question {:?}", answer.question_id)),
        None => Ok(()),
    }
}
