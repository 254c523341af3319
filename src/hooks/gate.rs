//! Gates: what waits for its hooks' word.
//! Owns: the order of the hooks of one event, what their answers come to together, and what a hook that failed means.
//! Never: makes anything possible. What a hook changes is held to the same rules again by whoever asked.

use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::value::RawValue;

use super::call::{Chain, Failed, call, target};
use super::definition::Hook;
use super::event::HookEvent;
use super::invocation::{CONTRACT_VERSION, Invocation};
use super::outcome::Answer;
use super::{Compiled, Hooks};
use crate::core::{Command, HookCommand, HookDeadLettered, HookFailure};
use crate::hex::to_hex;
use crate::ids::{RunId, Seq, SessionId};
use crate::net::Cancel;

/// Where in a run something waits.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// The run.
    pub run: RunId,
    /// The agent.
    pub agent: &'a str,
    /// Tells what happens there apart from everything else in the run, also after a restart.
    pub at: &'a str,
}

/// Who stopped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The hook.
    pub hook: String,
    /// Its words, or why it could not be asked.
    pub reason: String,
    /// The run is not to go on.
    pub stop_run: bool,
    /// The hook gave no answer.
    pub failed: bool,
}

impl Blocked {
    /// For whoever reads why it did not happen.
    pub fn text(&self) -> String {
        match self.failed {
            true => format!("hook {} could not decide: {}", self.hook, self.reason),
            false => format!("hook {} did not allow it: {}", self.hook, self.reason),
        }
    }
}

/// What the hooks of an event want, together.
#[derive(Debug, Default)]
pub struct Ruled {
    /// It does not happen.
    pub blocked: Option<Blocked>,
    /// A person is asked first, for this reason.
    pub ask: Option<String>,
    /// Arguments instead of the model's.
    pub updated_input: Option<Box<RawValue>>,
    /// What the model is shown instead of a result.
    pub updated_output: Option<String>,
    /// What the model is told besides.
    pub contexts: Vec<String>,
}

impl Hooks {
    /// Whether anything waits for a hook's word there.
    pub fn guards(&self, event: HookEvent, subject: &str) -> bool {
        guards(&self.compiled(), event, subject)
    }

    /// Asks every hook of an event, one after the other, until one stops it. `payload` is made for each with the arguments
    /// as the hooks before have left them.
    pub fn gate(
        &self,
        event: HookEvent,
        subject: &str,
        place: Place<'_>,
        payload: &dyn Fn(Option<&RawValue>) -> Value,
        cancel: &Cancel,
    ) -> Ruled {
        let compiled = self.compiled();
        let mut ruled = Ruled::default();
        if let Some(blocked) = unusable(&compiled, event, subject) {
            log::error!("{}: {} is stopped: {}", place.run, event.as_str(), blocked.text());
            ruled.blocked = Some(blocked);
            return ruled;
        }
        for hook in &compiled.definitions.hooks {
            if hook.event != event || !hook.blocking || !hook.matches(subject) {
                continue;
            }
            let payload = payload(ruled.updated_input.as_deref());
            let told = Invocation::of_place(event, subject, payload, place.at);
            let told = told.about(Some(place.session.clone()), Some(place.run), Some(place.agent));
            let result = self.ask(hook, &told, place.run, cancel);
            if cancel.is_cancelled() {
                // Nobody reads what this comes to; it must not look like a word of the hook.
                let reason = "the run was stopped".to_string();
                let hook = hook.name.clone();
                ruled.blocked = Some(Blocked { hook, reason, stop_run: false, failed: true });
                return ruled;
            }
            match result {
                Ok(answer) => self.take(hook, answer, &mut ruled),
                Err(failed) if hook.closed => {
                    let reason = self.redact(&format!("{} ({})", failed.text, failed.class));
                    ruled.blocked = Some(Blocked { hook: hook.name.clone(), reason, stop_run: false, failed: true });
                }
                Err(failed) => log::warn!("hook {} is passed over: {}", hook.name, self.redact(&failed.text)),
            }
            if ruled.blocked.is_some() {
                return ruled;
            }
        }
        ruled
    }

    fn ask(&self, hook: &Hook, told: &Invocation, run: RunId, cancel: &Cancel) -> Result<Answer, Failed> {
        let called = if told.is_whole || !hook.closed {
            call(&self.0.around, hook, told, Chain::Run(run), cancel)
        } else {
            // What it cannot see it cannot judge.
            let text = "what it should judge is larger than a hook is told".to_string();
            super::call::Called { result: Err(Failed::new("payload_too_large", text, false)), attempts: 0 }
        };
        if let Err(failed) = &called.result
            && !cancel.is_cancelled()
        {
            self.give_up(hook, told, failed, called.attempts);
        }
        called.result
    }

    fn take(&self, hook: &Hook, answer: Answer, ruled: &mut Ruled) {
        let Answer { block, stop_run, reason, ask, updated_input, updated_output, contexts, ignored } = answer;
        if !ignored.is_empty() {
            log::warn!("hook {} says what is not followed here: {}", hook.name, ignored.join(", "));
        }
        let reason = reason.map_or_else(|| "no reason was given".to_string(), |reason| self.redact(&reason));
        // Where nobody can be asked, somebody should have been: it does not happen.
        let cannot_ask = ask && !matches!(hook.event, HookEvent::PreToolUse | HookEvent::PermissionRequest);
        if block || cannot_ask {
            ruled.blocked = Some(Blocked { hook: hook.name.clone(), reason, stop_run, failed: false });
            return;
        }
        if ask {
            ruled.ask.get_or_insert(format!("hook {}: {reason}", hook.name));
        }
        if updated_input.is_some() {
            ruled.updated_input = updated_input;
        }
        if let Some(output) = updated_output {
            ruled.updated_output = Some(self.redact(&output));
        }
        ruled.contexts.extend(contexts.iter().map(|text| self.redact(text)));
    }

    pub(super) fn redact(&self, text: &str) -> String {
        self.0.around.broker.redact(text)
    }

    /// Keeps a call that came to nothing. Whoever waits does not wait for that.
    fn give_up(&self, hook: &Hook, told: &Invocation, failed: &Failed, attempts: u32) {
        let dead = self.dead_letter(None, hook, told, failed, attempts);
        if let Err(error) = self.0.around.core.execute(Command::Hook(dead)) {
            self.0.around.counters.persist_failures.fetch_add(1, Ordering::Relaxed);
            log::error!("hook {}: its failure could not be kept: {error}", hook.name);
        }
    }

    /// What is kept of a call that came to nothing.
    pub(super) fn dead_letter(
        &self,
        of_seq: Option<Seq>,
        hook: &Hook,
        told: &Invocation,
        failed: &Failed,
        attempts: u32,
    ) -> HookCommand {
        let text = |value: &dyn ToString| value.to_string();
        let failure = HookFailure {
            hook_name: hook.name.clone(),
            event: hook.event.as_str().to_string(),
            subject: (!told.subject.is_empty()).then(|| self.redact(&told.subject)),
            session_id: told.session_id.as_ref().map(|id| text(id)),
            run_id: told.run_id.as_ref().map(|id| text(id)),
            target: target(hook),
            attempt_count: attempts,
            failure_mode: if hook.closed { "closed" } else { "open" }.to_string(),
            blocking: hook.blocking,
            contract_version: CONTRACT_VERSION,
            invocation_key: told.invocation_key.clone(),
            invocation_digest: to_hex(ring::digest::digest(&ring::digest::SHA256, &told.bytes()).as_ref()),
            definition_digest: hook.digest.clone(),
            class: failed.class.to_string(),
            error: self.redact(&failed.text),
        };
        log::warn!("hook {} came to nothing: {}: {}", hook.name, failure.class, failure.error);
        HookCommand::DeadLettered(Box::new(HookDeadLettered { of_seq, failure }))
    }
}

fn guards(compiled: &Compiled, event: HookEvent, subject: &str) -> bool {
    let waits = |hook: &Hook| hook.event == event && hook.blocking && hook.matches(subject);
    unusable(compiled, event, subject).is_some() || compiled.definitions.hooks.iter().any(|hook| waits(hook))
}

/// A guard that cannot be asked, since what was written cannot be used.
fn unusable(compiled: &Compiled, event: HookEvent, subject: &str) -> Option<Blocked> {
    if !event.is_gate() {
        return None;
    }
    let blocked =
        |hook: &str, reason: String| Blocked { hook: hook.to_string(), reason, stop_run: false, failed: true };
    if let Some(problem) = &compiled.definitions.unreadable {
        return Some(blocked("(all)", problem.to_string()));
    }
    let broken = compiled.definitions.broken.iter().find(|broken| broken.blocks && broken.concerns(event, subject))?;
    Some(blocked(&broken.name, broken.problem.to_string()))
}
