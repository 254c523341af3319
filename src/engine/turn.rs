//! One model call of a run, over all its attempts.
//! Owns: the order of things: recorded, then sent; answered, then recorded with what follows from the answer.
//! Never: shows model text as more than a preview before the batch that holds it is durable.

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::credential::InUse;
use super::hand::Hand;
use super::live_text::{LiveText, Piece, pieces};
use super::records::{ActionOutcome, ActionRequest, ActionResponse, note};
use crate::broker::{BrokerError, LeaseRequest, SlotId, Subject, Use};
use crate::commit::CommandError;
use crate::core::{Failure, Note, NoteKind, Refusal};
use crate::debug_capture::Kind;
use crate::hex::to_hex;
use crate::limits::{ENGINE_RETRY_MS, LEASE_TTL_MS_MAX};
use crate::net::Auth;
use crate::providers::{
    Attempt, Exchange, PreparedTurn, ProviderError, Route, RouteCredential, TurnEvent, TurnOutcome, retry_delay_ms,
};
use crate::secret::Secret;
use crate::sse::Preview;

/// Why a run leaves its engine without an end of its own.
pub(super) enum Left {
    /// Somebody else ended it; that is committed already.
    Ended,
    /// It ends here, with this failure.
    Failed(Failure),
    /// It ends here, and this is to be written with its end.
    FailedWith(Failure, Vec<Note>),
    /// It was stopped, and that is committed already; or the daemon stops or cannot record, and the next start resumes
    /// the run.
    LetGo,
    /// Its route has no place free: it waits in nobody's hands and may be in other ones by now.
    InLine,
}

impl From<CommandError> for Left {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(refusal @ Refusal::RecordConflict { .. }) => {
                Self::Failed(Failure { code: "engine_defect".into(), message: refusal.to_string() })
            }
            CommandError::Refused(_) => Self::Ended,
            CommandError::TooLarge { reason } => {
                Self::Failed(Failure { code: "record_too_large".into(), message: reason })
            }
            _ => Self::LetGo,
        }
    }
}

pub(super) fn failed(code: &str, message: impl std::fmt::Display) -> Left {
    Left::Failed(Failure { code: code.to_string(), message: message.to_string() })
}

/// How a model call ended for good. Each has its response record, which is not yet written.
pub(super) enum Asked {
    /// With an answer, as yet unredacted.
    Answered(Note, TurnOutcome),
    /// With an error that is not worth another try.
    Refused(Note, ProviderError),
}

/// One model call of a run, over all its attempts.
pub(super) struct Call<'a> {
    pub hand: &'a Hand<'a>,
    /// Who uses the route's credential.
    pub subject: &'a Subject,
    pub route: &'a Route,
    pub model: &'a str,
    pub prepared: PreparedTurn<'a>,
    /// Calls that the run has requested before.
    pub actions: u32,
    pub context_truncated: bool,
    /// Whether text is shown as it comes.
    pub is_shown: bool,
}

impl Call<'_> {
    /// Asks until there is an answer or no hope. `notes` are written with the first request: results of tools are durable
    /// before the model is told of them. Returns with the number of requests made.
    pub(super) fn until_answered(&self, mut notes: Vec<Note>, live: &mut LiveText) -> Result<(Asked, u32), Left> {
        let broker = &self.hand.engine.tools.broker;
        let mut attempt = 1;
        loop {
            let action = self.actions + attempt;
            let credential = match self.credential() {
                Ok(credential) => credential,
                Err(Left::Failed(failure)) => return Err(Left::FailedWith(failure, notes)),
                Err(left) => {
                    if !notes.is_empty() {
                        self.hand.record(notes)?;
                    }
                    return Err(left);
                }
            };
            notes.push(self.request(action, credential.as_ref().map(InUse::lease_id)));
            self.hand.record(std::mem::take(&mut notes))?;
            self.hand.capture(Kind::ProviderRequest, || self.prepared.body().to_vec());
            let mut held = String::new();
            live.begin();
            let attempt_now = self.attempt(credential.as_ref());
            let turn = self.prepared.run(attempt_now, &mut |event| self.preview(event, &mut held, live));
            let error = match turn.result {
                Ok(outcome) => {
                    self.hand.capture(Kind::ProviderResponse, || answer_for_debugging(&outcome));
                    self.show(&broker.redact(&held), live);
                    if live.is_too_long() {
                        self.withdraw();
                    }
                    let response = self.response(action, &turn.exchange, &outcome);
                    return Ok((Asked::Answered(response, outcome), attempt));
                }
                Err(error) => match &credential {
                    Some(in_use) => in_use.judge(error),
                    None => error,
                },
            };
            drop(credential);
            if self.hand.in_hand.cancel.is_cancelled() || !broker.stats().is_alive {
                // The run was ended and there is nothing to record; or the daemon ends, with or without its broker, and
                // the run is resumed at the next start.
                return Err(Left::LetGo);
            }
            self.hand.capture(Kind::ProviderResponse, || error_for_debugging(&error));
            let response = self.failed_response(action, &turn.exchange, &error);
            let Some(delay_ms) = retry_delay_ms(attempt, &error, random()) else {
                return Ok((Asked::Refused(response, error), attempt));
            };
            self.hand.record(vec![response])?;
            self.hand.pause(delay_ms)?;
            attempt += 1;
        }
    }

    fn credential(&self) -> Result<Option<InUse>, Left> {
        let RouteCredential::AuthRef(slot) = &self.route.credential else { return Ok(None) };
        let request = LeaseRequest {
            subject: self.subject.clone(),
            slot: SlotId::parse(slot).map_err(|error| failed("provider_auth", error))?,
            provider: self.route.driver.slot_provider(),
            use_for: Use::Route(self.route.id.clone()),
            ttl_ms: self.route.timeouts.total_ms.unwrap_or(LEASE_TTL_MS_MAX),
        };
        loop {
            let tools = &self.hand.engine.tools;
            match InUse::take(&tools.broker, &tools.clock, request.clone(), &self.hand.in_hand.cancel) {
                Ok(in_use) => return Ok(Some(in_use)),
                // Without its log the broker cannot lease a new secret, and an operator is told so by status.
                Err(error) if error.is_silence() || matches!(error, BrokerError::LeasesFull | BrokerError::Log(_)) => {
                    self.hand.pause(ENGINE_RETRY_MS)?;
                }
                Err(BrokerError::Gone) => return Err(Left::LetGo),
                Err(error) => return Err(failed("provider_auth", error)),
            }
        }
    }

    fn attempt<'c>(&'c self, credential: Option<&'c InUse>) -> Attempt<'c> {
        let tools = &self.hand.engine.tools;
        let auth = match (&self.route.credential, credential) {
            (RouteCredential::AuthRef(_), Some(in_use)) => Some(in_use.auth()),
            (RouteCredential::Inline(secret), _) => {
                let secret = secret.clone();
                Some(Auth::bearer_from(move || Ok(Secret::new(secret.expose().to_vec()))))
            }
            (RouteCredential::AuthRef(_) | RouteCredential::None, _) => None,
        };
        let cancel = credential.map_or(&self.hand.in_hand.cancel, InUse::cancel);
        Attempt { net: &tools.net, clock: &*tools.clock, cancel, auth }
    }

    fn request(&self, action: u32, lease: Option<&str>) -> Note {
        let request = ActionRequest {
            action,
            kind: "model_provider",
            target: &format!("{} {}", self.route.driver.as_str(), self.prepared.target()),
            route: &self.route.id,
            model: self.model,
            request_sha256: &to_hex(&self.prepared.body_sha256()),
            lease,
            context_truncated: self.context_truncated,
        };
        note(NoteKind::ActionRequest, &request)
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
    fn preview(&self, event: TurnEvent<'_>, held: &mut String, live: &mut LiveText) {
        if let TurnEvent::TextDelta(text) = event {
            held.push_str(text);
            let (text, settled) = self.hand.engine.tools.broker.redact_settled(held);
            held.drain(..settled);
            self.show(&text, live);
        }
    }

    /// Shows text of this attempt as far as an earlier one has not shown it.
    fn show(&self, text: &str, live: &mut LiveText) {
        if !self.is_shown || text.is_empty() {
            return;
        }
        let more = match live.push(text) {
            Piece::Known => return,
            Piece::More(more) => more,
            Piece::Instead(whole) => {
                self.withdraw();
                whole
            }
        };
        for text in pieces(&more) {
            self.hand.engine.tools.hub.preview(Preview {
                session: self.hand.job.session.clone(),
                run: self.hand.job.id,
                text: text.to_string(),
            });
        }
    }

    fn withdraw(&self) {
        self.hand.engine.tools.hub.withdraw_previews(&self.hand.job.session, self.hand.job.id);
    }

    fn response(&self, action: u32, exchange: &Exchange, outcome: &TurnOutcome) -> Note {
        let response_id = outcome.response_id.as_ref().map(|id| self.hand.engine.tools.broker.redact(id));
        let response = ActionResponse {
            action,
            outcome: ActionOutcome::Succeeded,
            http_status: exchange.http_status,
            response_bytes: exchange.response_bytes,
            response_sha256: exchange.response_sha256.map(|digest| to_hex(&digest)),
            response_id: response_id.as_deref(),
            error: None,
        };
        note(NoteKind::ActionResponse, &response)
    }
}

/// What an answer comes to, for debug capture.
fn answer_for_debugging(outcome: &TurnOutcome) -> Vec<u8> {
    let TurnOutcome { text, items, tool_calls, usage, stop, response_id } = outcome;
    let calls: Vec<_> = tool_calls
        .iter()
        .map(|call| json!({"call_id": call.call_id, "name": call.name, "arguments": call.arguments}))
        .collect();
    let answer = json!({"text": text, "tool_calls": calls, "items": items, "usage": usage,
        "stop": format!("{stop:?}"), "response_id": response_id});
    answer.to_string().into_bytes()
}

fn error_for_debugging(error: &ProviderError) -> Vec<u8> {
    json!({"error": error.class.code(), "message": error.to_string()}).to_string().into_bytes()
}

pub(super) fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the jitter is zero, which is harmless for one run.
    let _no_jitter = SystemRandom::new().fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
