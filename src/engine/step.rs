//! The calls of one answer, from decision to results.
//! Owns: the order of things: decided, asked for, started and durable, run, finished and durable.
//! Never: runs a call that is not durable as started, or one whose earlier start has no known outcome.

use serde_json::json;
use serde_json::value::RawValue;

use super::agent_wait::{self, Waiting};
use super::context::{OpenCall, OpenTurn};
use super::guard::Repeat;
use super::permits::{self, InForce};
use super::question;
use super::records::note;
use super::run::Carried;
use super::toolbox::{CallResult, Caller, Ran, WorkerScope, failure};
use super::turn::Left;
use crate::core::{
    ApprovalRequested, ApprovalResolved, CallOutcome, Failure, MaxSandbox, Note, NoteKind, QuestionResolved, Ruling,
    ToolCallFinished, ToolCallStarted, ToolLimits,
};
use crate::debug_capture::Kind;
use crate::limits::{TOOL_CALLS_SIDE_BY_SIDE_MAX, TOOL_GROUPS_PER_TURN_MAX, TOOL_PENDING_BYTES_MAX};
use crate::providers::{Message, ToolCall, ToolResult};
use crate::tools::{self, Class, Place, Tool, ToolDef, ToolOutput};
use crate::worker::side_by_side;

/// What became of an answer's calls.
pub(super) enum Settled {
    /// All have results; the notes that are not yet written belong into the batch of the next model call.
    Results(Message, Vec<Note>),
    /// The run waits for people.
    Suspended,
}

/// A call that may run.
pub(super) struct Ready {
    /// Place in the turn.
    pub place: usize,
    pub tool: Tool,
    pub input: Box<RawValue>,
    pub digest: String,
    /// It is under way, and people have answered what it had them asked.
    pub answered: Option<QuestionResolved>,
    /// What hooks have the model told with its result.
    pub contexts: Vec<String>,
}

/// What a decision came to.
pub(super) enum Judged {
    Run(Ready),
    Ask(ApprovalRequested),
    /// It does not run.
    Over(CallOutcome, ToolOutput),
}

/// A turn being settled.
pub(super) struct Turn<'c, 'r> {
    pub(super) run: &'c mut Carried<'r>,
    calls: Vec<ToolCall>,
    results: Vec<Option<ToolResult>>,
    /// Notes to be written with the next batch.
    notes: Vec<Note>,
    stop: Option<Failure>,
    limits: ToolLimits,
    /// Bytes of results so far.
    result_bytes: u64,
}

impl<'c, 'r> Turn<'c, 'r> {
    /// Settles the calls of an answer. `notes` are the answer's own when it is new, and empty on a resumption.
    pub(super) fn settle(run: &'c mut Carried<'r>, open: OpenTurn, notes: Vec<Note>) -> Result<Settled, Left> {
        let calls: Vec<ToolCall> = open.calls.iter().map(|open| open.call.clone()).collect();
        let mut turn = Self {
            run,
            results: vec![None; calls.len()],
            calls,
            notes,
            stop: None,
            limits: ToolLimits::default(),
            result_bytes: 0,
        };
        let in_force = turn.run.in_force();
        turn.limits = in_force.limits.clone();
        let mut ready = Vec::new();
        let mut asks = Vec::new();
        for (place, open) in open.calls.into_iter().enumerate() {
            if let Some(result) = open.result {
                turn.results[place] = Some(result);
                continue;
            }
            match turn.judge(place, &open, &in_force)? {
                Judged::Run(call) => ready.push((call, open)),
                Judged::Ask(asked) => asks.push(note(NoteKind::ApprovalRequested, &asked)),
                Judged::Over(outcome, output) => {
                    turn.finish(place, CallResult { outcome, output, duration_ms: 0 })?;
                }
            }
        }
        if let Some(stop) = turn.stop.take() {
            return turn.fail(stop);
        }
        if !asks.is_empty() {
            // Nothing of the turn runs before all of it is decided: the model gave its calls an order.
            turn.notes.append(&mut asks);
            turn.run.hand.suspend(turn.notes)?;
            return Ok(Settled::Suspended);
        }
        turn.pass_all(ready, &in_force)
    }

    /// What the rules let run waits for the hooks' word, all of it before anything runs.
    fn pass_all(mut self, ready: Vec<(Ready, OpenCall)>, in_force: &InForce) -> Result<Settled, Left> {
        let (mut passed, mut asks) = (Vec::new(), Vec::new());
        for (call, open) in ready {
            let place = call.place;
            match self.pass_call(call, &open, in_force)? {
                Judged::Run(call) => passed.push((call, open)),
                Judged::Ask(asked) => asks.push(note(NoteKind::ApprovalRequested, &asked)),
                Judged::Over(outcome, output) => {
                    self.finish(place, CallResult { outcome, output, duration_ms: 0 })?;
                }
            }
            if let Some(stop) = self.stop.take() {
                return self.fail(stop);
            }
        }
        if !asks.is_empty() {
            self.notes.append(&mut asks);
            self.run.hand.suspend(self.notes)?;
            return Ok(Settled::Suspended);
        }
        self.run_all(passed)
    }

    /// Decides about one call that has no result.
    fn judge(&mut self, place: usize, open: &OpenCall, in_force: &InForce) -> Result<Judged, Left> {
        let judged = self.judge_by_rules(place, open, in_force);
        let Judged::Ask(asked) = judged else { return Ok(judged) };
        match self.run.find_tool(&open.call.name) {
            Some(tool) => self.pass_request(place, &tool.def(), asked, in_force),
            None => Ok(Judged::Ask(asked)),
        }
    }

    fn judge_by_rules(&mut self, place: usize, open: &OpenCall, in_force: &InForce) -> Judged {
        let call = &open.call;
        if place as u64 >= in_force.limits.max_calls_per_turn {
            let text = "too many calls at once; this one was not run; next: ask for fewer";
            return self.refused(call, in_force, permits::Bar::Limits, "too_many_calls", text);
        }
        if !self.run.scope.grants_tool(&call.name) {
            let text = "this agent was not given this tool; next: go on without it";
            return self.refused(call, in_force, permits::Bar::AgentScope, "tool_not_granted", text);
        }
        let Some(tool) = self.run.find_tool(&call.name) else {
            let error = tools::ToolError::Unknown { tool: call.name.clone() };
            return Judged::Over(CallOutcome::Error, error.into());
        };
        let def = &tool.def();
        if required_sandbox(def) > in_force.limits.max_sandbox {
            let text = "the operator's limits let no tool reach so far; it did not run";
            return self.refused(call, in_force, permits::Bar::Limits, "sandbox_limit", text);
        }
        let input = match tools::arguments(&call.arguments) {
            Ok(input) => input,
            Err(error) => return Judged::Over(CallOutcome::Error, error.into()),
        };
        if input.get().len() as u64 > in_force.limits.max_input_bytes {
            let text = format!(
                "the arguments have {} bytes, at most {} are allowed",
                input.get().len(),
                in_force.limits.max_input_bytes
            );
            return self.refused(call, in_force, permits::Bar::Limits, "input_too_large", &text);
        }
        if let Err(error) = tool.check(&input) {
            return Judged::Over(CallOutcome::Error, error.into());
        }
        if !tool.also_known_as(&input).iter().all(|name| self.run.scope.grants_tool(name)) {
            let text = "this agent was not given this server; next: go on without it";
            return self.refused(call, in_force, permits::Bar::AgentScope, "tool_not_granted", text);
        }
        if let (Some(started), Some((asked, Some(answer)))) = (&open.started, &open.question)
            && asked.server.is_some()
        {
            let (digest, answered) = (started.digest.clone(), Some(answer.clone()));
            return Judged::Run(Ready { place, tool, input, digest, answered, contexts: Vec::new() });
        }
        if open.started.as_ref().is_some_and(|started| !started.idempotent) {
            return Judged::Over(CallOutcome::Interrupted, unknown_outcome());
        }
        let workspace = self.run.workspace();
        // Only people take time over a call, in which what it names may be replaced.
        let verdict = permits::verdict_of(in_force, &tool, &input, &workspace);
        let is_asked = open.approval.is_some() || permits::ruling(verdict.decision) == Ruling::Ask;
        let digest = if is_asked {
            permits::bound_digest(&tool, &input, &workspace, &in_force.policy)
        } else {
            permits::digest(&tool.identity(), &input, &workspace, &in_force.policy, "")
        };
        let answer = open.approval.as_ref().and_then(|(asked, answer)| {
            answer.as_ref().filter(|_| asked.digest == digest).map(|answer| (asked, answer))
        });
        if let Some((asked, answer)) = answer
            && answer.behavior != Ruling::Allow
        {
            let record = permits::record(&call.call_id, def, &verdict, Ruling::Deny, Some(asked.id.clone()));
            self.notes.push(note(NoteKind::PermissionDecided, &record));
            return Judged::Over(CallOutcome::Denied, denied(answer));
        }
        // What a person wrote instead of the model's arguments is held to the same rules.
        let updated = answer.and_then(|(_, answer)| answer.updated_input.clone());
        let input = match updated {
            None => input,
            Some(updated) => match tool.check(&updated) {
                Ok(()) => updated,
                Err(error) => return Judged::Over(CallOutcome::Error, error.into()),
            },
        };
        let verdict = permits::verdict_of(in_force, &tool, &input, &workspace);
        let approved = answer.map(|(asked, _)| asked.id.clone());
        let decision = match (permits::ruling(verdict.decision), &approved) {
            (Ruling::Ask, Some(_)) => Ruling::Allow,
            (decision, _) => decision,
        };
        let asked = (decision == Ruling::Ask).then(|| ApprovalRequested {
            id: self.run.approval_id(def.name),
            call: call.call_id.clone(),
            tool: def.name.to_string(),
            input: self.run.redacted(input.clone()),
            scope: verdict.scope.as_str().to_string(),
            reason: verdict.reason.clone(),
            digest: digest.clone(),
            expires_at_ms: in_force.approval_expires_after_ms.map(|ms| self.run.now_ms().saturating_add(ms)),
        });
        let approval = asked.as_ref().map(|asked| asked.id.clone()).or(approved);
        let record = permits::record(&call.call_id, def, &verdict, decision, approval);
        self.notes.push(note(NoteKind::PermissionDecided, &record));
        match (decision, asked) {
            (_, Some(asked)) => Judged::Ask(asked),
            (Ruling::Deny, _) => {
                let reason = verdict.reason.unwrap_or_else(|| format!("{} is not permitted", def.name));
                let text = format!("{reason}; it did not run; next: go on without it, or ask for something narrower");
                Judged::Over(CallOutcome::Denied, failure("permission_denied", &text))
            }
            _ => Judged::Run(Ready { place, tool, input, digest, answered: None, contexts: Vec::new() }),
        }
    }

    /// A call that is refused before the rules are looked at. It is a decision like theirs, and recorded like them.
    fn refused(&mut self, call: &ToolCall, in_force: &InForce, bar: permits::Bar, code: &str, text: &str) -> Judged {
        let record = permits::barred(call, in_force, bar, format!("{code}: {text}"));
        self.notes.push(note(NoteKind::PermissionDecided, &record));
        Judged::Over(CallOutcome::Error, failure(code, text))
    }

    /// Runs what may run, in the model's order and in few groups: each group costs one sync before it and one after it.
    fn run_all(mut self, ready: Vec<(Ready, OpenCall)>) -> Result<Settled, Left> {
        let mut queue = std::collections::VecDeque::from(ready);
        let mut groups = 0;
        while let Some((first, open)) = queue.pop_front() {
            if agent_wait::is_waiting(&first.tool.def()) {
                if self.await_agents(&first, &open)? {
                    self.run.hand.suspend(self.notes)?;
                    return Ok(Settled::Suspended);
                }
                continue;
            }
            if question::asks(&first.tool.def()) {
                if self.ask(&first, open)? {
                    self.run.hand.suspend(self.notes)?;
                    return Ok(Settled::Suspended);
                }
                continue;
            }
            if first.answered.is_some() {
                if self.run_one(first)? {
                    self.run.hand.suspend(self.notes)?;
                    return Ok(Settled::Suspended);
                }
                continue;
            }
            groups += 1;
            let mut group = vec![first];
            while let Some((next, _)) = queue.front() {
                let alone = group[0].tool.may_ask() || next.tool.may_ask() || next.answered.is_some();
                let belongs =
                    groups >= TOOL_GROUPS_PER_TURN_MAX || (group[0].tool.def().parallel && next.tool.def().parallel);
                if !belongs || alone || question::asks(&next.tool.def()) || agent_wait::is_waiting(&next.tool.def()) {
                    break;
                }
                group.extend(queue.pop_front().map(|(next, _)| next));
            }
            for call in &group {
                let started = ToolCallStarted {
                    call: self.calls[call.place].call_id.clone(),
                    tool: call.tool.name().to_string(),
                    digest: call.digest.clone(),
                    idempotent: call.tool.def().idempotent,
                };
                self.notes.push(note(NoteKind::ToolCallStarted, &started));
            }
            self.write()?;
            // What waits for the network waits for all of it at once; the worker does one thing after the other.
            let (waiting, others): (Vec<Ready>, Vec<Ready>) = match group.len() {
                1 => (Vec::new(), group),
                _ => group.into_iter().partition(|call| {
                    let def = call.tool.def();
                    def.parallel && !call.tool.may_ask() && tools::place(&def, &call.input) == Place::Daemon
                }),
            };
            self.run_side_by_side(waiting)?;
            for call in others {
                // A call that may ask is alone in its group: none is left started and not run.
                if self.run_one(call)? {
                    self.run.hand.suspend(self.notes)?;
                    return Ok(Settled::Suspended);
                }
            }
            if let Some(stop) = self.stop.take() {
                return self.fail(stop);
            }
        }
        let results = self.results.into_iter().map(|result| result.expect("every call was settled")).collect();
        Ok(Settled::Results(Message::ToolResults { results }, self.notes))
    }

    /// Whether people are asked now; else the question has its result.
    fn ask(&mut self, ready: &Ready, open: OpenCall) -> Result<bool, Left> {
        let over = |output| CallResult { outcome: CallOutcome::Error, output, duration_ms: 0 };
        match open.question {
            Some((_, Some(answer))) => {
                let (outcome, output) = question::told(&answer);
                self.finish(ready.place, CallResult { outcome, output, duration_ms: 0 })?;
                Ok(false)
            }
            _ => {
                let id = self.run.question_id();
                match question::asked(id, &open.call.call_id, &ready.tool.def(), &ready.input, self.run.now_ms()) {
                    Ok(asked) => {
                        self.notes.push(note(NoteKind::QuestionAsked, &self.run.redacted_question(asked)));
                        Ok(true)
                    }
                    Err(text) => {
                        self.finish(ready.place, over(failure("invalid_arguments", &text)))?;
                        Ok(false)
                    }
                }
            }
        }
    }

    /// Whether the run waits for child agents now; else the call has its result.
    fn await_agents(&mut self, ready: &Ready, open: &OpenCall) -> Result<bool, Left> {
        let limit_ms = self.run.limit_ms(ready.tool.def().timeout_ms);
        match agent_wait::wait(self.run, open, &ready.input, limit_ms)? {
            Waiting::Until(awaited) => {
                self.notes.push(note(NoteKind::AgentsAwaited, &awaited));
                Ok(true)
            }
            Waiting::Over(output) => {
                let outcome = if output.is_error { CallOutcome::Error } else { CallOutcome::Ok };
                self.finish(ready.place, CallResult { outcome, output, duration_ms: 0 })?;
                Ok(false)
            }
        }
    }

    /// What the agent's scope and the operator's limits leave of the sandbox.
    fn worker_scope(&self) -> WorkerScope {
        let max = self.limits.max_sandbox;
        WorkerScope {
            workspace: self.run.scope.workspace.clone(),
            read_only: self.run.scope.read_only || max < MaxSandbox::WorkspaceWrite,
            no_network: max < MaxSandbox::NetworkEnabled,
        }
    }

    /// Whose call it is, and how long it may take.
    fn prepared(&self, ready: &Ready) -> (Caller, u64) {
        let def = &ready.tool.def();
        let hand = self.run.hand;
        let caller = Caller {
            session: hand.job.session.clone(),
            run: hand.job.id,
            call: self.calls[ready.place].call_id.clone(),
            scope: self.worker_scope(),
            turn: self.run.turn(),
        };
        hand.capture(Kind::ToolRequest, || {
            let arguments: serde_json::Value = serde_json::from_str(ready.input.get()).unwrap_or_default();
            about(&caller, def, "arguments", arguments)
        });
        (caller, self.run.limit_ms(tools::timeout_ms(def, &ready.input).min(self.limits.max_timeout_ms)))
    }

    /// Whether people are asked before it ends; else the call has its result.
    fn run_one(&mut self, ready: Ready) -> Result<bool, Left> {
        let (caller, limit_ms) = self.prepared(&ready);
        let (def, cancel) = (&ready.tool.def(), &self.run.hand.in_hand.cancel);
        let ran = match &ready.answered {
            None => Some(self.run.bench.run(&caller, def, &ready.input, &caller.scope, limit_ms, cancel)),
            Some(answer) => self.run.bench.resume(&caller, def, answer, limit_ms, cancel),
        };
        let result = match ran {
            Some(Ran::Over(result)) => result,
            Some(Ran::Asks(asks)) if !cancel.is_cancelled() => {
                let asked = question::of_server(self.run.question_id(), &caller.call, asks, self.run.now_ms());
                self.notes.push(note(NoteKind::QuestionAsked, &self.run.redacted_question(asked)));
                return Ok(true);
            }
            Some(Ran::Asks(_)) => return Err(Left::LetGo),
            None => CallResult { outcome: CallOutcome::Interrupted, output: unknown_outcome(), duration_ms: 0 },
        };
        self.take_result(ready, &caller, result).map(|()| false)
    }

    /// Runs calls of the daemon's own that wait for others, all at once as far as the limits let them.
    fn run_side_by_side(&mut self, calls: Vec<Ready>) -> Result<(), Left> {
        let calls: Vec<(Ready, Caller, u64)> = calls
            .into_iter()
            .map(|ready| {
                let (caller, limit_ms) = self.prepared(&ready);
                (ready, caller, limit_ms)
            })
            .collect();
        let most = usize::try_from(self.limits.max_parallel_tools).unwrap_or(usize::MAX);
        let (toolbox, cancel) = (self.run.bench.toolbox(), &self.run.hand.in_hand.cancel);
        let results =
            side_by_side("call", calls, most.min(TOOL_CALLS_SIDE_BY_SIDE_MAX), |(ready, caller, limit_ms)| {
                let result = toolbox.in_room(&caller, &ready.tool.def(), &ready.input, limit_ms, cancel);
                (ready, caller, result)
            });
        for (ready, caller, result) in results {
            // A call that may ask is alone in its group.
            let Ran::Over(result) = result else { return Err(Left::LetGo) };
            self.take_result(ready, &caller, result)?;
        }
        Ok(())
    }

    fn take_result(&mut self, mut ready: Ready, caller: &Caller, result: CallResult) -> Result<(), Left> {
        let hand = self.run.hand;
        let contexts = std::mem::take(&mut ready.contexts);
        let def = &ready.tool.def();
        hand.capture(Kind::ToolResponse, || about(caller, def, "content", result.output.content.as_str().into()));
        if hand.in_hand.cancel.is_cancelled() {
            // The run was stopped, or the daemon stops and the next start says that the outcome is not known.
            return Err(Left::LetGo);
        }
        let result = self.pass_result((&ready, contexts), result)?;
        self.finish(ready.place, result)
    }

    /// The id of a call.
    pub(super) fn call_id(&self, place: usize) -> &str {
        &self.calls[place].call_id
    }

    /// To be written with the next batch.
    pub(super) fn push(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// The run ends once the call at hand has its result.
    pub(super) fn stop_with(&mut self, failure: Failure) {
        self.stop.get_or_insert(failure);
    }

    /// Gives a call its result.
    fn finish(&mut self, place: usize, result: CallResult) -> Result<(), Left> {
        let call = self.calls[place].clone();
        let CallResult { outcome, output, duration_ms } = result;
        let ToolOutput { content, is_error, truncated, overflow } = output;
        let mut content = self.run.redact(&content);
        let (mut truncated, bytes) = (truncated, content.len() as u64);
        self.result_bytes += bytes;
        if bytes > self.limits.max_output_bytes || self.result_bytes > self.limits.max_cumulative_output_bytes {
            let text = format!(
                "the result has {bytes} bytes, which passes a limit of the operator; next: ask for less at once"
            );
            content = failure("output_too_large", &text).content;
            truncated = true;
        }
        let failed = is_error || outcome.is_error();
        match self.run.guard.observe(&call, failed) {
            Repeat::Fine => {}
            Repeat::Warn(count) => content = warned(&content, count),
            Repeat::Stop(count) => {
                let message = format!(
                    "the model made the same failing call of {} {count} times in a row; next: read the run's events, and \
                     submit again with a hint or another model",
                    call.name
                );
                self.stop = Some(Failure { code: "tool_loop".to_string(), message });
            }
        }
        let blob = match overflow.map(|bytes| self.run.keep(&bytes)) {
            None => None,
            Some(Ok(blob)) => blob,
            Some(Err(error)) => {
                log::warn!("the whole result of a call of {} is not kept: {error}", call.name);
                None
            }
        };
        let finished = ToolCallFinished {
            call: call.call_id.clone(),
            tool: call.name.clone(),
            outcome,
            content: content.clone(),
            truncated,
            blob,
            duration_ms,
        };
        self.notes.push(note(NoteKind::ToolCallFinished, &finished));
        self.results[place] = Some(ToolResult { call_id: call.call_id, name: call.name, content, is_error: failed });
        let bytes: usize = self.notes.iter().map(|note| note.body.get().len()).sum();
        if bytes > TOOL_PENDING_BYTES_MAX { self.write() } else { Ok(()) }
    }

    /// Makes what is pending durable.
    pub(super) fn write(&mut self) -> Result<(), Left> {
        let notes = std::mem::take(&mut self.notes);
        if notes.is_empty() { Ok(()) } else { self.run.hand.record(notes).map(|_| ()) }
    }

    fn fail(self, failure: Failure) -> Result<Settled, Left> {
        Err(Left::FailedWith(failure, self.notes))
    }
}

/// A piece of a call, for debug capture.
fn about(caller: &Caller, def: &ToolDef, what: &str, value: serde_json::Value) -> Vec<u8> {
    json!({"call_id": caller.call, "tool": def.name, what: value}).to_string().into_bytes()
}

/// How far a call of this tool reaches.
fn required_sandbox(def: &ToolDef) -> MaxSandbox {
    match def.class {
        Class::ReadOnly | Class::Control => MaxSandbox::ReadOnly,
        Class::Edit | Class::Shell => MaxSandbox::WorkspaceWrite,
        Class::Network => MaxSandbox::NetworkEnabled,
    }
}

/// What the model is told of a call that a restart found started.
fn unknown_outcome() -> ToolOutput {
    let content = json!({
        "error": "the daemon ended while this call ran: its outcome is UNKNOWN. It may have happened wholly, in part or \
                  not at all, and it was NOT run again. Look at the present state before you decide to repeat it.",
        "code": "interrupted",
        "outcome": "unknown",
    });
    ToolOutput { content: content.to_string(), is_error: true, truncated: false, overflow: None }
}

pub(super) fn denied(answer: &ApprovalResolved) -> ToolOutput {
    let mut text = "a person did not allow this call, and it did not run".to_string();
    match (&answer.reason, &answer.justification) {
        (Some(reason), _) if reason == "expired" => {
            text = "nobody allowed this call in time, and it did not run".to_string();
        }
        (Some(reason), _) => text = format!("this call was not allowed ({reason}), and it did not run"),
        (None, Some(words)) => text = format!("{text}: {words}"),
        (None, None) => {}
    }
    failure("approval_denied", &format!("{text}; next: go on without it, or ask what is wanted instead"))
}

/// The result with a word about its repetition.
fn warned(content: &str, count: u32) -> String {
    let warning = format!("this same call has now failed {count} times in a row; do something else");
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(content) {
        Ok(mut object) => {
            object.insert("loop_warning".to_string(), warning.into());
            serde_json::Value::from(object).to_string()
        }
        Err(_) => format!("{content}\n{warning}"),
    }
}
