//! Active runs, from the moment an engine takes one to its end or its next wait.
//! Owns: the turn loop: ask the model, settle its calls, ask again.
//! Never: holds a run that waits for people; keeps anything that the journal does not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::budget::Used;
use super::compaction;
use super::context::{Context, OpenCall, OpenTurn, Submitted, assemble, weight};
use super::guard::Guard;
use super::hand::Hand;
use super::input::Files;
use super::lanes::Lanes;
use super::live_text::LiveText;
use super::permits::{InForce, Settings};
use super::question;
use super::records::{AcceptedBody, MessageBody, Role, body, note};
use super::step::{Settled, Turn};
use super::stops::Stops;
use super::toolbox::{Bench, Toolbox};
use super::turn::{Asked, Call, Left, failed, random};
use crate::blobs::{BlobError, Blobs};
use crate::broker::{BrokerHandle, Subject};
use crate::clock::Clock;
use crate::commit::{CoreHandle, Job};
use crate::core::{AgentScope, BlobRef, Failure, Note, NoteKind, QuestionAsked};
use crate::debug_capture::DebugCapture;
use crate::hooks::Hooks;
use crate::journal::{Reader, Record};
use crate::limits::{TOOL_CALL_ID_BYTES_MAX, TOOL_CALLS_PER_ANSWER_MAX, TOOL_NAME_BYTES_MAX};
use crate::net::Net;
use crate::providers::{
    ErrorClass, Message, Origin, PreparedTurn, ProviderError, Route, Routes, Stage, ToolCall, ToolSpec, TurnOptions,
    TurnOutcome, TurnRequest, Usage,
};
use crate::sse::Hub;
use crate::tools::Tool;

/// What every engine worker is given.
#[derive(Clone)]
pub struct Tools {
    /// Durable state.
    pub core: CoreHandle,
    /// The log.
    pub reader: Reader,
    /// Leases and redaction.
    pub broker: BrokerHandle,
    /// Routes as loaded at start, if a routes file was given.
    pub routes: Option<Arc<Routes>>,
    /// The way out.
    pub net: Net,
    /// Live previews.
    pub hub: Hub,
    /// Cancel handles of runs in hand.
    pub stops: Stops,
    /// Places on routes that have a limit.
    pub lanes: Lanes,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where tools run.
    pub toolbox: Toolbox,
    /// Rules, mode and system prompt, asked for whenever they are needed.
    pub settings: Arc<dyn Settings>,
    /// Where large results go; without it they are cut only.
    pub blobs: Option<Blobs>,
    /// What is kept for debugging, if anything can be.
    pub capture: Option<DebugCapture>,
    /// Who is asked before things happen, if anybody.
    pub hooks: Option<Hooks>,
    /// Absolute path of the workspace.
    pub workspace: String,
}

/// One engine worker.
pub struct Engine {
    pub(super) tools: Tools,
}

/// What became of an answer.
pub(super) enum Taken {
    /// The run is over.
    Ended,
    /// These calls are to be settled, and the notes written before they run.
    Calls(OpenTurn, Vec<Note>),
    /// The model is asked again; the notes are written before.
    Again(Vec<Note>),
}

/// A run being carried.
pub(super) struct Carried<'r> {
    pub hand: &'r Hand<'r>,
    pub bench: Bench<'r>,
    pub guard: Guard,
    accepted: &'r Record,
    /// The agent's id.
    pub agent: String,
    pub subject: Subject,
    pub route: &'r Route,
    pub model: String,
    pub submitted: Submitted,
    pub context: Context,
    /// What the agent may use.
    pub scope: AgentScope,
    is_child: bool,
    specs: Vec<ToolSpec>,
    started_at_ms: u64,
}

impl Engine {
    /// A worker.
    pub fn new(tools: Tools) -> Self {
        Self { tools }
    }

    /// Carries runs until the daemon stops.
    pub fn run(self) {
        while let Some(job) = crate::worker::idle(|| self.tools.core.take_run())
            && !self.tools.stops.is_draining()
        {
            self.carry(&job);
        }
    }

    fn carry(&self, job: &Job) {
        let in_hand = self.tools.stops.take_in_hand(job.id);
        let hand = Hand { engine: self, job, in_hand: &in_hand };
        // A defect that one run meets must not take the engine along, or hold the run's session until somebody restarts the
        // daemon, which would meet it again.
        let left = catch_unwind(AssertUnwindSafe(|| self.attempt_run(&hand))).unwrap_or_else(|_| {
            let text = "the engine met a defect in this run (the log has it); what a tool at hand did is not known; next: \
                        read the run's events, report the log line, submit again";
            Err(failed("engine_defect", text))
        });
        if !matches!(left, Err(Left::InLine)) {
            self.tools.lanes.leave(job.id);
        }
        match left {
            Ok(()) | Err(Left::Ended | Left::InLine) => {}
            Err(Left::Failed(failure)) => hand.fail(failure, Vec::new()),
            Err(Left::FailedWith(failure, notes)) => hand.fail(failure, notes),
            Err(Left::LetGo) => log::info!("{} was let go; unless it was stopped, the next start resumes it", job.id),
        }
    }

    fn attempt_run(&self, hand: &Hand<'_>) -> Result<(), Left> {
        let accepted: Record =
            self.tools.reader.read(hand.job.first_seq).map_err(|error| failed("journal_read", error))?;
        let pinned: AcceptedBody<'_> = body(&accepted).map_err(|cause| failed("journal_read", cause))?;
        let takes_files = self.tools.routes.as_ref().and_then(|routes| routes.get(&pinned.route));
        let takes_files = takes_files.is_some_and(|route| route.capabilities.multimodal_input);
        let files = Files::new(self.tools.blobs.as_ref(), takes_files);
        let context = assemble(&self.tools.reader, &files, &accepted, hand.job.last_seq)
            .map_err(|error| failed("journal_read", error))?;
        // Where a failover has led it, it stays.
        let (route, model) = match &context.moved {
            Some(moved) => (&moved.to_route, moved.to_model.clone()),
            None => (&pinned.route, pinned.model),
        };
        let route = self.tools.routes.as_ref().and_then(|routes| routes.get(route)).ok_or_else(|| {
            let text = format!("route {route} is not in the routes file; next: restore it or submit again");
            failed("route_unknown", text)
        })?;
        let submitted = Submitted::read(pinned.request).map_err(|error| failed("journal_read", error))?;
        let child = hand.ask(|| self.tools.core.session(&hand.job.session))?.and_then(|view| view.session.child);
        let scope = AgentScope::of(child.as_deref());
        if !scope.grants_route(&pinned.route) {
            let text = format!("route {} is not granted to this agent; next: submit with another one", pinned.route);
            return Err(failed("route_not_granted", text));
        }
        let is_child = child.is_some();
        let mut subject = Subject::agent_of(&pinned.agent, &hand.job.session);
        if is_child {
            subject.acts_for.extend(hand.those_above()?);
        }
        let mut specs = self.tools.toolbox.specs(&hand.job.session, &hand.in_hand.cancel);
        specs.retain(|spec| scope.grants_tool(&spec.name) && (is_child || spec.name != question::TO_PARENT));
        Carried {
            hand,
            bench: Bench::new(&self.tools.toolbox),
            guard: Guard::of(&context.messages),
            accepted: &accepted,
            agent: pinned.agent,
            subject,
            route,
            model,
            submitted,
            context,
            scope,
            is_child,
            specs,
            started_at_ms: hand.job.started_at_ms,
        }
        .carry()
    }
}

impl Carried<'_> {
    /// The turn loop.
    fn carry(mut self) -> Result<(), Left> {
        self.pass_prompt()?;
        let mut notes = Vec::new();
        let mut open = self.context.open.take();
        // A conversation that does not fit is compacted once; if it still does not, the run fails.
        let mut may_compact = true;
        loop {
            if self.hand.engine.tools.stops.is_draining() {
                // Between two steps: nothing is cut off, and the next start goes on here.
                if !notes.is_empty() {
                    self.hand.record(notes)?;
                }
                return Err(Left::LetGo);
            }
            if let Some(turn) = open.take() {
                self.give_up_place();
                match Turn::settle(&mut self, turn, std::mem::take(&mut notes))? {
                    Settled::Suspended => return Ok(()),
                    Settled::Results(results, unwritten) => {
                        self.context.messages.push(results);
                        notes = unwritten;
                    }
                }
            }
            if let Some(failure) = self.submitted.budget.exceeded(self.used()) {
                return Err(Left::FailedWith(failure, notes));
            }
            if may_compact && self.estimated_tokens() >= self.route.compact_at_tokens() {
                self.compact(std::mem::take(&mut notes), "auto")?;
            }
            match self.ask(std::mem::take(&mut notes))? {
                Asked::Answered(response, outcome) => {
                    may_compact = true;
                    match self.take_answer(response, outcome)? {
                        Taken::Ended => return Ok(()),
                        Taken::Calls(turn, answer) => {
                            open = Some(turn);
                            notes = answer;
                        }
                        Taken::Again(answer) => notes = answer,
                    }
                }
                Asked::Refused(response, error) if error.class == ErrorClass::ContextTooLong && may_compact => {
                    may_compact = false;
                    self.compact(vec![response], "context_window_exceeded")?;
                }
                Asked::Refused(response, error) => return Err(Left::FailedWith(failure_of(&error), vec![response])),
            }
        }
    }

    /// Asks the model with the conversation as it stands: on the run's route, and where that fails on those behind it.
    fn ask(&mut self, mut notes: Vec<Note>) -> Result<Asked, Left> {
        let mut live = LiveText::default();
        loop {
            self.take_place(&mut notes, &live)?;
            match self.ask_route(std::mem::take(&mut notes), &mut live)? {
                Asked::Refused(response, error) => match self.failover(&error) {
                    Some(next) => notes = vec![response, self.move_to(next, &error)],
                    None => return Ok(Asked::Refused(response, error)),
                },
                answered => return Ok(answered),
            }
        }
    }

    /// One request. `begun` is what the answer has so far, where its vendor has asked to be asked again.
    pub(super) fn ask_once(
        &mut self,
        notes: Vec<Note>,
        live: &mut LiveText,
        begun: Option<Message>,
    ) -> Result<Asked, Left> {
        let in_force = self.in_force()?;
        let schema = self.submitted.options.prepared_schema();
        let stage = match self.context.messages.last() {
            _ if begun.is_some() => Stage::Later,
            Some(Message::User { .. }) if self.context.repairs > 0 => match self.submitted.options.expected() {
                Some(_) => Stage::Repair,
                None => Stage::Later,
            },
            Some(Message::User { .. }) => Stage::First,
            _ => Stage::Later,
        };
        let is_begun = begun.is_some();
        self.context.messages.extend(begun);
        let request = TurnRequest {
            model: &self.model,
            instructions: in_force.instructions.as_deref(),
            messages: &self.context.messages,
            tools: &self.specs,
            max_output_tokens: self.submitted.max_output_tokens,
            temperature: self.submitted.temperature,
            options: self.submitted.options.turn_options(&schema, stage),
        };
        let prepared = PreparedTurn::new(self.route, &request);
        if is_begun {
            self.context.messages.pop();
        }
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err(Left::FailedWith(failure_of(&error), notes)),
        };
        let call = Call {
            hand: self.hand,
            subject: &self.subject,
            route: self.route,
            model: &self.model,
            prepared,
            actions: self.context.own_actions,
            context_truncated: self.context.truncated,
            is_shown: true,
        };
        let (asked, attempts) = call.until_answered(notes, live)?;
        self.context.own_actions += attempts;
        Ok(asked)
    }

    /// Takes an answer: the calls to settle with the notes to write before they run, or the end of the run.
    /// Answer, message, output and end are one batch: a crash leaves all of them or none.
    fn take_answer(&mut self, response: Note, outcome: TurnOutcome) -> Result<Taken, Left> {
        let stop = outcome.stop;
        let text = self.redact(&outcome.text);
        let (tool_calls, items) = self.normalised(outcome.tool_calls, outcome.items);
        let message = MessageBody {
            role: Role::Assistant,
            text,
            items,
            route: self.route.id.clone(),
            model: self.model.clone(),
            usage: outcome.usage,
            tool_calls,
        };
        let mut notes = vec![response, note(NoteKind::Message, &message)];
        if message.tool_calls.len() > TOOL_CALLS_PER_ANSWER_MAX {
            let message = format!(
                "the model asked for {} tool calls in one answer, at most {TOOL_CALLS_PER_ANSWER_MAX} are taken; next: \
                 submit again with a hint or another model",
                message.tool_calls.len()
            );
            let failure = Failure { code: "too_many_tool_calls".to_string(), message };
            // Without the message, which no provider would take back.
            notes.truncate(1);
            return Err(Left::FailedWith(failure, notes));
        }
        if message.tool_calls.is_empty() {
            return self.take_last(notes, message, stop);
        }
        let MessageBody { text, items, route, model, usage, tool_calls, .. } = message;
        self.note_usage(usage);
        let calls = tool_calls.iter().cloned().map(OpenCall::new).collect();
        let origin = Origin { route, model };
        self.context.messages.push(Message::Assistant { text, tool_calls, items, origin });
        Ok(Taken::Calls(OpenTurn { calls }, notes))
    }

    pub(super) fn note_usage(&mut self, usage: Option<Usage>) {
        self.context.turns += 1;
        self.context.output_tokens += usage.map_or(0, |usage| usage.output_tokens);
        self.context.usage = usage.map(|usage| (usage, self.context.messages.len()));
    }

    /// Calls with ids that are unique in their answer and names that every provider takes back; raw items only if they
    /// still say the same.
    pub(super) fn normalised(
        &self,
        calls: Vec<ToolCall>,
        items: Vec<Box<RawValue>>,
    ) -> (Vec<ToolCall>, Vec<Box<RawValue>>) {
        let is_id = |id: &str| {
            (1..=TOOL_CALL_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let is_name = |name: &str| {
            (1..=TOOL_NAME_BYTES_MAX).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        };
        let mut changed = false;
        let mut taken: Vec<ToolCall> = Vec::with_capacity(calls.len());
        for mut call in calls {
            if !is_id(&call.call_id) || taken.iter().any(|other| other.call_id == call.call_id) {
                call.call_id = format!("call-{}-{}", self.context.own_actions, taken.len() + 1);
                changed = true;
            }
            if !is_name(&call.name) {
                call.name = "invalid_tool_name".to_string();
                changed = true;
            }
            let arguments = self.redact(&call.arguments);
            changed |= arguments != call.arguments;
            call.arguments = arguments;
            taken.push(call);
        }
        let items = if changed { Vec::new() } else { items.into_iter().map(|item| self.redacted(item)).collect() };
        (taken, items)
    }

    /// Replaces the oldest part of the conversation by a summary, if there is enough of it; `notes` are written before.
    fn compact(&mut self, notes: Vec<Note>, trigger: &str) -> Result<(), Left> {
        let hand = self.hand;
        let newest = match notes.is_empty() {
            false => hand.record(notes)?,
            true => match hand.ask(|| hand.engine.tools.core.run(hand.job.id))? {
                Some(position) => position.last_seq,
                None => return Err(Left::Ended),
            },
        };
        if !self.pass_compaction(trigger)? {
            return Ok(());
        }
        let reader = &hand.engine.tools.reader;
        let files = Files::new(hand.engine.tools.blobs.as_ref(), self.route.capabilities.multimodal_input);
        let again =
            |newest| assemble(reader, &files, self.accepted, newest).map_err(|error| failed("journal_read", error));
        let context = again(newest)?;
        let keep = compaction::keep_bytes(self.route.compact_at_tokens());
        let Some(cut) = compaction::cut(&context, keep) else { return Ok(()) };
        let (summary, strategy) = self.summarised(&context.messages[..cut], &context.task)?;
        let note = compaction::boundary(&context, cut, summary, strategy, trigger);
        let newest = hand.record(vec![note])?;
        let own_actions = self.context.own_actions;
        self.context = Context { own_actions, ..again(newest)? };
        Ok(())
    }

    /// A summary by the model itself, or the beginning and end of what was said where it gives none.
    fn summarised(&mut self, messages: &[Message], task: &str) -> Result<(String, &'static str), Left> {
        let said = compaction::rendered(messages);
        let question = [Message::user(compaction::question(&said, task))];
        self.take_place(&mut Vec::new(), &LiveText::default())?;
        let request = TurnRequest {
            model: &self.model,
            instructions: None,
            messages: &question,
            tools: &[],
            max_output_tokens: None,
            temperature: None,
            options: TurnOptions::default(),
        };
        let shortened = || (compaction::shortened(&said), "truncate");
        let Ok(prepared) = PreparedTurn::new(self.route, &request) else { return Ok(shortened()) };
        let call = Call {
            hand: self.hand,
            subject: &self.subject,
            route: self.route,
            model: &self.model,
            prepared,
            actions: self.context.own_actions,
            context_truncated: false,
            is_shown: false,
        };
        let (asked, attempts) = call.until_answered(Vec::new(), &mut LiveText::default())?;
        self.context.own_actions += attempts;
        match asked {
            Asked::Answered(response, outcome) => {
                self.hand.record(vec![response])?;
                self.context.output_tokens += outcome.usage.map_or(0, |usage| usage.output_tokens);
                let summary = self.redact(outcome.text.trim());
                Ok(if summary.is_empty() { shortened() } else { (summary, "model") })
            }
            Asked::Refused(response, error) => {
                log::warn!("{}: no summary by the model: {error}; the middle is left out instead", self.hand.job.id);
                self.hand.record(vec![response])?;
                Ok(shortened())
            }
        }
    }

    /// Tokens of the next request: what the provider counted of the newest answer, and a guess for what came after it.
    pub(super) fn estimated_tokens(&self) -> u64 {
        let (known, after) = match self.context.usage {
            Some((usage, place)) => (usage.input_tokens + usage.output_tokens, place + 1),
            None => (0, 0),
        };
        let rest = self.context.messages.get(after..).unwrap_or_default();
        known + compaction::tokens(rest.iter().map(weight).sum())
    }

    fn used(&self) -> Used {
        let passed = |_| self.now_ms().saturating_sub(self.started_at_ms);
        Used {
            turns: self.context.turns.saturating_sub(self.context.repairs),
            output_tokens: self.context.output_tokens,
            duration_ms: self.submitted.budget.max_duration_ms.map_or(0, passed),
        }
    }

    /// Time that a call gets: its own limit, or what is left of the run's.
    pub(super) fn limit_ms(&self, limit_ms: u64) -> u64 {
        let remaining = self.submitted.budget.remaining_ms(self.used().duration_ms);
        remaining.map_or(limit_ms, |remaining| limit_ms.min(remaining))
    }

    pub(super) fn in_force(&self) -> Result<InForce, Left> {
        self.hand.ask(|| self.hand.engine.tools.settings.in_force(&self.hand.job.session))
    }

    /// The tool of this name, if a call of it can be carried out for this agent.
    pub(super) fn find_tool(&self, name: &str) -> Option<Tool> {
        let is_for_agent = self.is_child || name != question::TO_PARENT;
        is_for_agent.then(|| self.hand.engine.tools.toolbox.find(&self.hand.job.session, name)).flatten()
    }

    /// Tells the turns of the run apart, also after a restart.
    pub(super) fn turn(&self) -> u32 {
        self.context.own_actions
    }

    /// The daemon's workspace: what relative patterns of rules begin at.
    pub(super) fn root(&self) -> &str {
        &self.hand.engine.tools.workspace
    }

    /// The agent's workspace: what relative paths of its calls begin at. Where a link leads to it, the place that it leads
    /// to, as the sandbox has it.
    pub(super) fn workspace(&self) -> String {
        let root = self.root();
        match self.scope.workspace.as_str() {
            "" => root.to_string(),
            below => {
                let named = format!("{}/{below}", root.trim_end_matches('/'));
                let real = std::fs::canonicalize(&named).ok();
                real.and_then(|path| path.into_os_string().into_string().ok()).unwrap_or(named)
            }
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.hand.engine.tools.clock.now_ms()
    }

    pub(super) fn redact(&self, text: &str) -> String {
        self.hand.engine.tools.broker.redact(text)
    }

    /// A secret that a model repeats must not reach the journal by way of raw JSON either. The mark that replaces it
    /// needs no escaping, so it stays JSON; should it not, nothing of it is kept.
    pub(super) fn redacted(&self, item: Box<RawValue>) -> Box<RawValue> {
        let text = self.redact(item.get());
        if text == item.get() {
            return item;
        }
        RawValue::from_string(text).unwrap_or_else(|_| {
            let value = serde_json::from_str(item.get()).unwrap_or_default();
            RawValue::from_string(self.without_secrets(value).to_string()).expect("a value is JSON")
        })
    }

    /// The value with each of its texts redacted by itself, which stays the JSON that it is.
    fn without_secrets(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.redact(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.without_secrets(item)).collect(),
            Value::Object(fields) => {
                let redacted = |(name, value): (String, Value)| (self.redact(&name), self.without_secrets(value));
                Value::Object(fields.into_iter().map(redacted).collect())
            }
            other => other,
        }
    }

    pub(super) fn redacted_question(&self, asked: QuestionAsked) -> QuestionAsked {
        let value = serde_json::to_value(&asked).expect("questions are plain data");
        // Names of fields hold no secret, so what comes out has the fields of a question.
        serde_json::from_value(self.without_secrets(value)).expect("a question stays one")
    }

    /// Keeps the whole of a large result, redacted, before the record that names it.
    pub(super) fn keep(&self, bytes: &[u8]) -> Result<Option<BlobRef>, BlobError> {
        let Some(blobs) = &self.hand.engine.tools.blobs else { return Ok(None) };
        let text = self.redact(&String::from_utf8_lossy(bytes));
        let sha256 = blobs.put(text.as_bytes())?;
        Ok(Some(BlobRef { sha256, bytes: text.len() as u64 }))
    }

    pub(super) fn approval_id(&self, tool: &str) -> String {
        format!("approval-{tool}-{}-{:08x}", self.hand.job.id.number, random())
    }

    pub(super) fn question_id(&self) -> String {
        format!("question-{}-{:08x}", self.hand.job.id.number, random())
    }
}

fn failure_of(error: &ProviderError) -> Failure {
    Failure { code: error.class.code().to_string(), message: error.to_string() }
}
