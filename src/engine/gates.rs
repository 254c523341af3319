//! Where a run waits for the word of hooks.
//! Owns: what hooks are told at each gate, and what their word does to a call, a result and the end of a run.
//! May touch: the hooks room.
//! Never: lets a hook's word make anything possible: what it changes is held to the rules again, and it must be allowed
//! without a question.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::context::OpenCall;
use super::permits::{self, InForce};
use super::records::{MessageBody, OutputRejected, note};
use super::run::{Carried, Taken};
use super::step::{Judged, Ready, Turn};
use super::toolbox::{CallResult, failure};
use super::turn::Left;
use crate::core::{ApprovalRequested, CallOutcome, Failure, Note, NoteKind, Ruling};
use crate::hooks::{Blocked, HookEvent, Place, Ruled};
use crate::limits::HOOK_STOP_BLOCKS_MAX;
use crate::permissions::Mode;
use crate::providers::{Message, Origin};
use crate::tools::ToolDef;

/// A hook kept a run from going on, or could not be asked whether it may.
fn stopped(blocked: &Blocked) -> Failure {
    let code = match (blocked.failed, blocked.stop_run) {
        (true, _) => "hook_failed",
        (false, true) => "hook_stopped",
        (false, false) => "hook_blocked",
    };
    Failure { code: code.to_string(), message: format!("{}; next: see the hooks in force", blocked.text()) }
}

fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

impl Carried<'_> {
    /// Whether hooks are to be asked there.
    pub(super) fn guarded(&self, event: HookEvent, subject: &str) -> bool {
        self.hand.engine.tools.hooks.as_ref().is_some_and(|hooks| hooks.guards(event, subject))
    }

    /// Asks the hooks of an event. `at` tells the place apart from the others of its turn.
    ///
    /// # Errors
    /// The run was stopped meanwhile.
    fn gate(
        &self,
        event: HookEvent,
        subject: &str,
        at: &str,
        payload: &dyn Fn(Option<&RawValue>) -> Value,
    ) -> Result<Ruled, Left> {
        let Some(hooks) = &self.hand.engine.tools.hooks else { return Ok(Ruled::default()) };
        let job = self.hand.job;
        let at = format!("{} {} {at}", job.id, self.context.turns);
        let place = Place { session: &job.session, run: job.id, agent: &self.agent, at: &at };
        let ruled = hooks.gate(event, subject, place, payload, &self.hand.in_hand.cancel);
        if self.hand.in_hand.cancel.is_cancelled() { Err(Left::LetGo) } else { Ok(ruled) }
    }

    /// Before the model is asked for the first time.
    ///
    /// # Errors
    /// A hook does not allow it: the run ends.
    pub(super) fn pass_prompt(&self) -> Result<(), Left> {
        let session = self.hand.job.session.to_string();
        // An answer was given already, or the conversation was left in the middle of one.
        if self.context.turns > 0 || self.context.open.is_some() || !self.guarded(HookEvent::UserPromptSubmit, &session)
        {
            return Ok(());
        }
        let content = self.redact(&self.submitted.content);
        let payload = |_: Option<&RawValue>| json!({"content": content, "route": self.route.id, "model": self.model});
        let ruled = self.gate(HookEvent::UserPromptSubmit, &session, "prompt", &payload)?;
        ruled.blocked.map_or(Ok(()), |blocked| Err(Left::FailedWith(stopped(&blocked), Vec::new())))
    }

    /// Before the conversation is summarised; whether it may be.
    ///
    /// # Errors
    /// Without a summary the run cannot go on.
    pub(super) fn pass_compaction(&self, trigger: &str) -> Result<bool, Left> {
        if !self.guarded(HookEvent::PreCompact, trigger) {
            return Ok(true);
        }
        let payload = |_: Option<&RawValue>| json!({"trigger": trigger, "estimated_tokens": self.estimated_tokens()});
        let ruled = self.gate(HookEvent::PreCompact, trigger, &format!("compact {trigger}"), &payload)?;
        match ruled.blocked {
            None => Ok(true),
            Some(blocked) if trigger == "auto" && !blocked.stop_run => Ok(false),
            Some(blocked) => Err(Left::FailedWith(stopped(&blocked), Vec::new())),
        }
    }

    /// Before the run ends with this answer; else what becomes of it. A hook's words go back to the model, a few times.
    ///
    /// # Errors
    /// The run ends without it.
    pub(super) fn pass_stop(&mut self, notes: &mut Vec<Note>, message: &MessageBody) -> Result<Option<Taken>, Left> {
        let session = self.hand.job.session.to_string();
        if !self.guarded(HookEvent::Stop, &session) {
            return Ok(None);
        }
        let text = &message.text;
        let payload = |_: Option<&RawValue>| json!({"output": text, "blocked_before": self.context.repairs});
        let ruled = self.gate(HookEvent::Stop, &session, "stop", &payload)?;
        let Some(blocked) = ruled.blocked else { return Ok(None) };
        let attempt = self.context.repairs + 1;
        if blocked.failed || blocked.stop_run || attempt > HOOK_STOP_BLOCKS_MAX {
            return Err(Left::FailedWith(stopped(&blocked), std::mem::take(notes)));
        }
        let told = format!("Your answer was not accepted yet: {}", blocked.reason);
        Ok(Some(self.send_back(std::mem::take(notes), message, attempt, blocked.text(), told)))
    }

    /// Has the model answer once more. What was shown of its answer is void.
    pub(super) fn send_back(
        &mut self,
        mut notes: Vec<Note>,
        message: &MessageBody,
        attempt: u32,
        error: String,
        told: String,
    ) -> Taken {
        notes.push(note(NoteKind::OutputRejected, &OutputRejected { attempt, error, told: told.clone() }));
        self.hand.engine.tools.hub.withdraw_previews(&self.hand.job.session, self.hand.job.id);
        self.note_usage(message.usage);
        self.context.repairs = attempt;
        self.context.messages.push(Message::Assistant {
            text: message.text.clone(),
            tool_calls: message.tool_calls.clone(),
            items: message.items.clone(),
            origin: Origin { route: message.route.clone(), model: message.model.clone() },
        });
        self.context.messages.push(Message::user(told));
        Taken::Again(notes)
    }
}

impl Turn<'_, '_> {
    /// What a hook is told of a call.
    fn about(&self, call: &Ready, input: Option<&RawValue>) -> Value {
        let input = json_or_text(input.unwrap_or(&call.input).get());
        json!({"tool_name": call.tool.name(), "tool_call_id": self.call_id(call.place), "tool_input": input})
    }

    /// A call that the rules let run waits for the hooks.
    pub(super) fn pass_call(&mut self, mut ready: Ready, open: &OpenCall, in_force: &InForce) -> Result<Judged, Left> {
        let name = ready.tool.name().to_string();
        // It runs already, in its way: people or agents are being waited for.
        if open.question.is_some() || open.awaited.is_some() || !self.run.guarded(HookEvent::PreToolUse, &name) {
            return Ok(Judged::Run(ready));
        }
        // A hook is told of what is durable.
        self.write()?;
        let at = format!("call {}", self.call_id(ready.place));
        let ruled = self.run.gate(HookEvent::PreToolUse, &name, &at, &|input| self.about(&ready, input))?;
        if let Some(blocked) = ruled.blocked {
            return Ok(self.denied(&ready, &blocked, in_force));
        }
        ready.contexts = ruled.contexts;
        if let Some(updated) = ruled.updated_input {
            if let Some(cause) = self.why_not(&ready, &updated, in_force) {
                let text = format!("a hook changed the arguments, and {cause}; it did not run");
                return Ok(Judged::Over(CallOutcome::Denied, failure("hook_input_refused", &text)));
            }
            ready.contexts.push("a hook changed the arguments of this call before it ran".to_string());
            let workspace = self.run.workspace();
            ready.input = self.run.redacted(updated);
            ready.digest = permits::bound_digest(&ready.tool, &ready.input, &workspace, &in_force.policy);
        }
        let Some(reason) = ruled.ask else { return Ok(Judged::Run(ready)) };
        // People take time: what they are asked is bound to the programs too.
        let workspace = self.run.workspace();
        ready.digest = permits::bound_digest(&ready.tool, &ready.input, &workspace, &in_force.policy);
        match &open.approval {
            Some((asked, Some(answer))) if asked.digest == ready.digest => match answer.behavior {
                Ruling::Allow => Ok(Judged::Run(ready)),
                _ => Ok(Judged::Over(CallOutcome::Denied, super::step::denied(answer))),
            },
            _ if in_force.mode.contained || in_force.mode.mode == Mode::DontAsk => {
                let blocked = Blocked { hook: String::new(), reason, stop_run: false, failed: false };
                let text = format!("{}, and nobody is asked in this mode; it did not run", blocked.reason);
                Ok(Judged::Over(CallOutcome::Denied, failure("hook_blocked", &text)))
            }
            _ => Ok(Judged::Ask(self.asked(&ready, reason, in_force))),
        }
    }

    /// A person is asked, on a hook's word.
    fn asked(&mut self, ready: &Ready, reason: String, in_force: &InForce) -> ApprovalRequested {
        let def = &ready.tool.def();
        let workspace = self.run.workspace();
        let verdict = permits::verdict(in_force, def, &ready.input, &workspace);
        let asked = ApprovalRequested {
            id: self.run.approval_id(def.name),
            call: self.call_id(ready.place).to_string(),
            tool: def.name.to_string(),
            input: self.run.redacted(ready.input.clone()),
            scope: verdict.scope.as_str().to_string(),
            reason: Some(reason),
            digest: ready.digest.clone(),
            expires_at_ms: in_force.approval_expires_after_ms.map(|ms| self.run.now_ms().saturating_add(ms)),
        };
        let record = permits::record(&asked.call, def, &verdict, Ruling::Ask, Some(asked.id.clone()));
        self.push(note(NoteKind::PermissionDecided, &record));
        asked
    }

    /// Why arguments of a hook cannot be used; they must be allowed without a question.
    fn why_not(&self, ready: &Ready, updated: &RawValue, in_force: &InForce) -> Option<String> {
        let def = &ready.tool.def();
        if updated.get().len() as u64 > in_force.limits.max_input_bytes {
            return Some("they are larger than the operator's limit".to_string());
        }
        if let Err(error) = ready.tool.check(updated) {
            return Some(format!("they do not fit the tool: {error}"));
        }
        let verdict = permits::verdict(in_force, def, updated, &self.run.workspace());
        match permits::ruling(verdict.decision) {
            Ruling::Allow => None,
            Ruling::Ask | Ruling::Deny => Some("the rules do not allow them".to_string()),
        }
    }

    fn denied(&mut self, ready: &Ready, blocked: &Blocked, in_force: &InForce) -> Judged {
        let def = &ready.tool.def();
        let verdict = permits::verdict(in_force, def, &ready.input, &self.run.workspace());
        let mut record = permits::record(self.call_id(ready.place), def, &verdict, Ruling::Deny, None);
        record.reason = Some(blocked.text());
        self.push(note(NoteKind::PermissionDecided, &record));
        if blocked.stop_run {
            self.stop_with(stopped(blocked));
        }
        let text = format!("{}; it did not run; next: go on without it", blocked.text());
        Judged::Over(CallOutcome::Denied, failure("hook_blocked", &text))
    }

    /// A call that a person is to be asked about waits for the hooks first: they can spare the question by saying no.
    pub(super) fn pass_request(
        &mut self,
        place: usize,
        def: &ToolDef<'_>,
        asked: ApprovalRequested,
        in_force: &InForce,
    ) -> Result<Judged, Left> {
        if !self.run.guarded(HookEvent::PermissionRequest, &asked.tool) {
            return Ok(Judged::Ask(asked));
        }
        self.write()?;
        let at = format!("request {}", asked.call);
        let told = |_: Option<&RawValue>| {
            json!({"tool_name": asked.tool, "tool_call_id": asked.call, "tool_input": json_or_text(asked.input.get()),
                "reason": asked.reason, "scope": asked.scope})
        };
        let ruled = self.run.gate(HookEvent::PermissionRequest, &asked.tool, &at, &told)?;
        let Some(blocked) = ruled.blocked else { return Ok(Judged::Ask(asked)) };
        let verdict = permits::verdict(in_force, def, &asked.input, &self.run.workspace());
        let mut record = permits::record(self.call_id(place), def, &verdict, Ruling::Deny, None);
        record.reason = Some(blocked.text());
        self.push(note(NoteKind::PermissionDecided, &record));
        if blocked.stop_run {
            self.stop_with(stopped(&blocked));
        }
        let text = format!("{}; nobody was asked, and it did not run", blocked.text());
        Ok(Judged::Over(CallOutcome::Denied, failure("hook_blocked", &text)))
    }

    /// A result waits for the hooks before the model or the journal has it.
    pub(super) fn pass_result(
        &mut self,
        (call, contexts): (&Ready, Vec<String>),
        mut result: CallResult,
    ) -> Result<CallResult, Left> {
        let name = call.tool.name().to_string();
        let failed = result.output.is_error || result.outcome.is_error();
        let event = if failed { HookEvent::PostToolUseFailure } else { HookEvent::PostToolUse };
        let mut told = contexts;
        if self.run.guarded(event, &name) {
            // Results of calls before it are not to wait for this one's hooks.
            self.write()?;
            let at = format!("result {}", self.call_id(call.place));
            let content = self.run.redact(&result.output.content);
            let payload = |_: Option<&RawValue>| {
                let mut about = self.about(call, None);
                about["tool_response"] = json_or_text(&content);
                about["is_error"] = failed.into();
                about
            };
            let ruled = self.run.gate(event, &name, &at, &payload)?;
            if let Some(blocked) = ruled.blocked {
                if blocked.stop_run {
                    self.stop_with(stopped(&blocked));
                }
                let text = format!("it ran, and its result is withheld: {}", blocked.text());
                result.outcome = CallOutcome::Error;
                result.output = failure("hook_withheld", &text);
                return Ok(result);
            }
            if let Some(output) = ruled.updated_output {
                result.output.content = output;
                // The whole text is what the hook has replaced.
                result.output.overflow = None;
            }
            told.extend(ruled.contexts);
        }
        if !told.is_empty() {
            result.output.content = with_contexts(&result.output.content, &told);
        }
        Ok(result)
    }
}

/// The result with what hooks have the model told.
fn with_contexts(content: &str, contexts: &[String]) -> String {
    match serde_json::from_str::<serde_json::Map<String, Value>>(content) {
        Ok(mut object) => {
            object.insert("hook_contexts".to_string(), contexts.into());
            Value::from(object).to_string()
        }
        Err(_) => format!("{content}\n[hooks]\n{}", contexts.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hooks_add_is_told_apart_from_the_result() {
        let added = ["careful".to_string()];
        assert_eq!(with_contexts(r#"{"a":1}"#, &added), r#"{"a":1,"hook_contexts":["careful"]}"#);
        assert_eq!(with_contexts("plain", &added), "plain\n[hooks]\ncareful");
    }
}
