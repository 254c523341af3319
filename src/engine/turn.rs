//! From an active run to its end: the model call, its attempts, and the records around it.
//! Owns: the order of things: recorded, then sent; answered, then recorded as one batch.
//! Never: shows model text as more than a preview before the batch that holds it is durable.

use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::value::RawValue;

use super::records::{AcceptedBody, ActionOutcome, ActionRequest, ActionResponse, MessageBody, Role};
use super::records::{body, note, output_note};
use super::stops::{InHand, Stops};
use super::transcript::{Submitted, Transcript, assemble};
use crate::broker::{BrokerError, BrokerHandle, Lease, LeaseRequest, SlotId};
use crate::clock::Clock;
use crate::commit::{CommandError, CoreHandle, Job};
use crate::core::{Command, Failure, Note, NoteKind, Outcome};
use crate::hex::to_hex;
use crate::journal::{Reader, Record};
use crate::limits::{ENGINE_RETRY_MS, LEASE_TTL_MS_MAX, RUN_ERROR_BYTES_MAX};
use crate::net::{Auth, CredentialRefused, Net};
use crate::providers::{
    Attempt, Exchange, PreparedTurn, ProviderError, Route, RouteCredential, Routes, Stop, TurnEvent, TurnOptions,
    TurnOutcome, TurnRequest, retry_delay_ms,
};
use crate::secret::Secret;
use crate::sse::{Hub, Preview};

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
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

/// One engine worker.
pub struct Engine {
    tools: Tools,
}

/// Why a run leaves its engine without an end of its own.
enum Left {
    /// Somebody else ended it; that is committed already.
    Ended,
    /// It ends here, with this failure.
    Failed(Failure),
    /// It was stopped, and that is committed already; or the daemon stops or cannot record, and the next start resumes
    /// the run.
    LetGo,
}

impl From<CommandError> for Left {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(_) => Self::Ended,
            CommandError::TooLarge { reason } => {
                Self::Failed(Failure { code: "record_too_large".into(), message: reason })
            }
            _ => Self::LetGo,
        }
    }
}

fn failed(code: &str, message: impl std::fmt::Display) -> Left {
    Left::Failed(Failure { code: code.to_string(), message: message.to_string() })
}

impl Engine {
    /// A worker.
    pub fn new(tools: Tools) -> Self {
        Self { tools }
    }

    /// Carries runs until the daemon stops.
    pub fn run(self) {
        while let Some(job) = self.tools.core.take_run() {
            self.carry(&job);
        }
    }

    fn carry(&self, job: &Job) {
        let in_hand = self.tools.stops.take_in_hand(job.id);
        match self.attempt_run(job, &in_hand) {
            Ok(()) | Err(Left::Ended) => {}
            Err(Left::Failed(failure)) => {
                let failure = self.presentable(failure);
                log::warn!("{} failed: {}: {}", job.id, failure.code, failure.message);
                self.finish(job, &in_hand, Vec::new(), Outcome::Failed(failure));
            }
            Err(Left::LetGo) => log::info!("{} was let go; unless it was stopped, the next start resumes it", job.id),
        }
    }

    fn attempt_run(&self, job: &Job, in_hand: &InHand) -> Result<(), Left> {
        let read = |seq| self.tools.reader.read(seq).map_err(|error| failed("journal_read", error));
        let accepted: Record = read(job.first_seq)?;
        let pinned: AcceptedBody<'_> = body(&accepted).map_err(|cause| failed("journal_read", cause))?;
        let route = self.tools.routes.as_ref().and_then(|routes| routes.get(&pinned.route)).ok_or_else(|| {
            let text = format!("route {} is not in the routes file; next: restore it or submit again", pinned.route);
            failed("route_unknown", text)
        })?;
        let transcript =
            assemble(&self.tools.reader, &accepted, job.last_seq).map_err(|error| failed("journal_read", error))?;
        let submitted = Submitted::read(pinned.request).map_err(|error| failed("journal_read", error))?;
        let request = TurnRequest {
            model: &pinned.model,
            instructions: None,
            messages: &transcript.messages,
            tools: &[],
            max_output_tokens: submitted.max_output_tokens,
            temperature: submitted.temperature,
            options: TurnOptions::default(),
        };
        let prepared = PreparedTurn::new(route, &request).map_err(|error| self.provider_failure(&error))?;
        let call = Call { engine: self, job, in_hand, route, model: &pinned.model, prepared, transcript: &transcript };
        call.until_answered()
    }

    fn provider_failure(&self, error: &ProviderError) -> Left {
        failed(error.class.code(), error)
    }

    /// Redacted and bounded.
    fn presentable(&self, failure: Failure) -> Failure {
        let mut message = self.tools.broker.redact(&failure.message);
        if message.len() > RUN_ERROR_BYTES_MAX {
            let end = (0..=RUN_ERROR_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
        }
        Failure { message, ..failure }
    }

    /// Ends the run. An answer that no batch can hold is replaced by a failure that says so; that it came stays recorded.
    /// A full disk is waited out, since the answer in hand was paid for; whoever stops the run
    /// or the daemon meanwhile ends the wait.
    fn finish(&self, job: &Job, in_hand: &InHand, notes: Vec<Note>, outcome: Outcome) {
        loop {
            let finish = Command::Finish { run: job.id, notes: notes.clone(), outcome: outcome.clone() };
            match self.tools.core.execute(finish) {
                Err(CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy) => {
                    if in_hand.cancel.wait(Duration::from_millis(ENGINE_RETRY_MS)) {
                        return;
                    }
                }
                Err(CommandError::TooLarge { reason }) => {
                    let failure = Failure { code: "record_too_large".to_string(), message: reason };
                    let mut notes = notes;
                    notes.retain(|note| note.kind == NoteKind::ActionResponse);
                    return self.finish(job, in_hand, notes, Outcome::Failed(failure));
                }
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// One model call of a run, over all its attempts.
struct Call<'a> {
    engine: &'a Engine,
    job: &'a Job,
    in_hand: &'a InHand,
    route: &'a Route,
    model: &'a str,
    prepared: PreparedTurn<'a>,
    transcript: &'a Transcript,
}

impl Call<'_> {
    fn until_answered(&self) -> Result<(), Left> {
        let broker = &self.engine.tools.broker;
        let mut attempt = 1;
        loop {
            let action = self.transcript.own_actions + attempt;
            let lease = self.lease()?;
            self.record_request(action, lease.as_ref())?;
            let mut held = String::new();
            let turn = self.prepared.run(self.attempt(lease.clone()), &mut |event| self.preview(event, &mut held));
            if let Some(lease) = lease {
                broker.release(lease);
            }
            let error = match turn.result {
                Ok(outcome) => {
                    self.show(broker.redact(&held));
                    return self.complete(action, &turn.exchange, outcome);
                }
                Err(error) => error,
            };
            if self.in_hand.cancel.is_cancelled() || !broker.stats().is_alive {
                // The run was ended and there is nothing to record; or the daemon ends, with or without its broker, and
                // the run is resumed at the next start.
                return Err(Left::LetGo);
            }
            let response = self.failed_response(action, &turn.exchange, &error);
            let Some(delay_ms) = retry_delay_ms(attempt, &error, random()) else {
                let failure = Failure { code: error.class.code().to_string(), message: error.to_string() };
                let failure = self.engine.presentable(failure);
                log::warn!("{} failed: {}: {}", self.job.id, failure.code, failure.message);
                self.engine.finish(self.job, self.in_hand, vec![response], Outcome::Failed(failure));
                return Ok(());
            };
            self.record(vec![response])?;
            self.pause(delay_ms)?;
            attempt += 1;
        }
    }

    /// Waits before a next try.
    fn pause(&self, delay_ms: u64) -> Result<(), Left> {
        if self.in_hand.cancel.wait(Duration::from_millis(delay_ms)) { Err(Left::LetGo) } else { Ok(()) }
    }

    fn record(&self, notes: Vec<Note>) -> Result<(), Left> {
        loop {
            match self.engine.tools.core.execute(Command::Record { run: self.job.id, notes: notes.clone() }) {
                Ok(_) => return Ok(()),
                Err(CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy) => {
                    self.pause(ENGINE_RETRY_MS)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn lease(&self) -> Result<Option<Lease>, Left> {
        let RouteCredential::AuthRef(slot) = &self.route.credential else { return Ok(None) };
        let request = LeaseRequest {
            subject: format!("session:{}", self.job.session),
            slot: SlotId::parse(slot).map_err(|error| failed("provider_auth", error))?,
            provider: self.route.driver.slot_provider(),
            audience: format!("route:{}", self.route.id),
            ttl_ms: self.route.timeouts.total_ms.unwrap_or(LEASE_TTL_MS_MAX),
        };
        let tools = &self.engine.tools;
        loop {
            match tools.broker.lease(request.clone(), tools.clock.now_ms()) {
                Ok(lease) => return Ok(Some(lease)),
                Err(BrokerError::Busy | BrokerError::NoAnswer | BrokerError::LeasesFull) => {
                    self.pause(ENGINE_RETRY_MS)?;
                }
                Err(BrokerError::Gone) => return Err(Left::LetGo),
                Err(error) => return Err(failed("provider_auth", error)),
            }
        }
    }

    fn attempt(&self, lease: Option<Lease>) -> Attempt<'_> {
        let tools = &self.engine.tools;
        let auth = match (&self.route.credential, lease) {
            (RouteCredential::AuthRef(_), Some(lease)) => {
                let (broker, clock) = (tools.broker.clone(), tools.clock.clone());
                Some(Auth::bearer_from(move || {
                    broker
                        .redeem(&lease, clock.now_ms())
                        .map(|credential| credential.secret)
                        .map_err(|error| CredentialRefused { reason: error.to_string() })
                }))
            }
            (RouteCredential::Inline(secret), _) => {
                let secret = secret.clone();
                Some(Auth::bearer_from(move || Ok(Secret::new(secret.expose().to_vec()))))
            }
            (RouteCredential::AuthRef(_) | RouteCredential::None, _) => None,
        };
        Attempt { net: &tools.net, clock: &*tools.clock, cancel: &self.in_hand.cancel, auth }
    }

    fn record_request(&self, action: u32, lease: Option<&Lease>) -> Result<(), Left> {
        let request = ActionRequest {
            action,
            kind: "model_provider",
            target: &format!("{} {}", self.route.driver.as_str(), self.prepared.target()),
            route: &self.route.id,
            model: self.model,
            request_sha256: &to_hex(&self.prepared.body_sha256()),
            lease: lease.map(|lease| lease.id.as_str()),
            context_truncated: self.transcript.truncated,
        };
        self.record(vec![note(NoteKind::ActionRequest, &request)])
    }

    fn failed_response(&self, action: u32, exchange: &Exchange, error: &ProviderError) -> Note {
        let response = ActionResponse {
            action,
            outcome: ActionOutcome::Failed,
            http_status: exchange.http_status,
            response_bytes: exchange.response_bytes,
            response_sha256: exchange.response_sha256.map(|digest| to_hex(&digest)),
            response_id: None,
            error: Some(error.class.code()),
        };
        note(NoteKind::ActionResponse, &response)
    }

    /// Shows what came, but for an end that may be the beginning of a secret: it waits in `held` for what follows.
    fn preview(&self, event: TurnEvent<'_>, held: &mut String) {
        if let TurnEvent::TextDelta(text) = event {
            held.push_str(text);
            let (text, settled) = self.engine.tools.broker.redact_settled(held);
            held.drain(..settled);
            self.show(text);
        }
    }

    fn show(&self, text: String) {
        if !text.is_empty() {
            self.engine.tools.hub.preview(Preview { session: self.job.session.clone(), run: self.job.id, text });
        }
    }

    /// A secret that a model repeats must not reach the journal by way of the raw items either. The mark that
    /// replaces it needs no escaping, so an item stays JSON; should one not, the text alone is replayed.
    fn redacted(&self, items: Vec<Box<RawValue>>) -> Vec<Box<RawValue>> {
        let redact = |item: Box<RawValue>| {
            let text = self.engine.tools.broker.redact(item.get());
            if text == item.get() { Ok(item) } else { RawValue::from_string(text) }
        };
        items.into_iter().map(redact).collect::<Result<_, _>>().unwrap_or_default()
    }

    /// Answer, message, output and end are one batch: a crash leaves all of them or none.
    fn complete(&self, action: u32, exchange: &Exchange, outcome: TurnOutcome) -> Result<(), Left> {
        let broker = &self.engine.tools.broker;
        let response_id = outcome.response_id.map(|id| broker.redact(&id));
        let response = ActionResponse {
            action,
            outcome: ActionOutcome::Succeeded,
            http_status: exchange.http_status,
            response_bytes: exchange.response_bytes,
            response_sha256: exchange.response_sha256.map(|digest| to_hex(&digest)),
            response_id: response_id.as_deref(),
            error: None,
        };
        let text = broker.redact(&outcome.text);
        let mut notes = vec![note(NoteKind::ActionResponse, &response)];
        let stop = outcome.stop;
        let message = MessageBody {
            role: Role::Assistant,
            text: text.clone(),
            items: self.redacted(outcome.items),
            route: self.route.id.clone(),
            model: self.model.to_string(),
            usage: outcome.usage,
        };
        notes.push(note(NoteKind::Message, &message));
        if !text.is_empty() {
            notes.push(output_note(&self.job.session, self.job.id, &text));
        }
        let ended = match stop {
            Stop::Done | Stop::Length | Stop::Refusal => Outcome::Completed,
            Stop::ToolCalls => Outcome::Failed(Failure {
                code: "tools_unavailable".to_string(),
                message: "the model asked for tools, and this run has none; next: use a model or prompt without tools"
                    .to_string(),
            }),
        };
        self.engine.finish(self.job, self.in_hand, notes, ended);
        Ok(())
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the jitter is zero, which is harmless for one run.
    let _no_jitter = SystemRandom::new().fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
