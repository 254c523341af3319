//! One sender: takes a delivery, records the attempt, makes it, records what came of it.
//! Owns: the order of these four.
//! May touch: the network through `net`.
//! Never: lets a byte leave before the request's record is durable, or goes on before the outcome's is.

use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::answer::{self, Answer};
use super::prepare::{Prepared, prepare};
use super::room::Surroundings;
use crate::commit::CommandError;
use crate::core::{
    ActionRequest, ActionResponse, AttemptOutcome, Command, DeliveryCommand, DeliveryJob, Note, ReplyPlugin,
};
use crate::hex::to_hex;
use crate::ids::DeliveryId;
use crate::limits::{
    DELIVERY_ANSWER_BYTES_MAX, DELIVERY_CONNECT_MS, DELIVERY_DETAIL_IDLE_MS, DELIVERY_DETAIL_MS, DELIVERY_IDLE_MS,
    DELIVERY_RECORD_PAUSE_MS, DELIVERY_TOTAL_MS,
};
use crate::net::{Body, Cancel, Method, NetError, Purpose, Request, Timeouts};
use crate::providers::retry_hint_ms;
use crate::worker::idle;

/// What a record of an attempt has beyond its target.
#[derive(Serialize)]
struct RequestDetail<'a> {
    delivery_id: DeliveryId,
    attempt: u32,
    idempotency_key: &'a str,
    delivery_target: String,
}

#[derive(Serialize)]
struct ResponseDetail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    response_bytes: u64,
    /// `delivered`, or the class of the failure.
    result: &'a str,
}

/// A sender's thread.
pub(super) struct Sender {
    around: Surroundings,
    /// Disconnects when no further delivery is taken.
    stopping: Cancel,
    /// Cuts off what is in flight.
    cut: Cancel,
}

impl Sender {
    pub(super) fn new(around: Surroundings, stopping: Cancel, cut: Cancel) -> Self {
        Self { around, stopping, cut }
    }

    /// Sends until told to stop.
    pub(super) fn run(self) {
        while !self.stopping.is_cancelled()
            && let Some(job) = idle(|| self.around.core.take_delivery(self.stopping.woken()))
        {
            if !self.attempt(&job) {
                self.around.core.put_back_delivery(job.delivery.id.number);
            }
        }
    }

    /// One attempt; `false` when its outcome could not be recorded as one.
    fn attempt(&self, job: &DeliveryJob) -> bool {
        let number = job.delivery.id.number;
        let prepared = prepare(&self.around, job);
        let request_digest = prepared.as_ref().ok().map(|prepared| sha256(&prepared.body));
        let label = match &prepared {
            Ok(prepared) => prepared.label.clone(),
            Err(_) => job.delivery.target.to_string(),
        };
        let note = Note::action_request(&ActionRequest {
            action: number,
            kind: "connector_delivery",
            target: &label,
            tool_call_id: None,
            lease: prepared.as_ref().ok().and_then(|prepared| prepared.credential.lease_id()),
            request_digest: request_digest.as_deref(),
            detail: RequestDetail {
                delivery_id: job.delivery.id,
                attempt: job.delivery.attempts + 1,
                idempotency_key: &job.delivery.key,
                delivery_target: job.delivery.target.to_string(),
            },
        });
        if !self.begin(DeliveryCommand::Begin { number, note }) {
            return false;
        }
        let (outcome, answer) = match prepared {
            Ok(prepared) => self.send(job, &prepared),
            Err(outcome) => (outcome, None),
        };
        let outcome = self.redacted(outcome);
        let is_cut_off = outcome == AttemptOutcome::CutOff;
        let (word, result) = match &outcome {
            AttemptOutcome::Delivered { .. } => ("succeeded", "delivered"),
            AttemptOutcome::Retry { error, .. } | AttemptOutcome::Dead(error) => ("failed", error.class.as_str()),
            AttemptOutcome::CutOff => ("unknown", "cut_off"),
        };
        let body = answer.as_ref().map(|answer| &answer.body);
        let note = Note::action_response(&ActionResponse {
            action: number,
            outcome: word,
            response_digest: body.map(|body| sha256(body)).as_deref(),
            detail: ResponseDetail {
                http_status: answer.as_ref().map(|answer| answer.status),
                response_bytes: body.map_or(0, |body| body.len() as u64),
                result,
            },
        });
        let settle = DeliveryCommand::Settle { number, note, outcome, policy: self.around.policy };
        self.record(&settle) && !is_cut_off
    }

    /// Makes the record of a request durable; `false` when it cannot be now. What was prepared has a time in its
    /// signature and leases that expire, so it is prepared anew rather than kept until the disk has space.
    fn begin(&self, command: DeliveryCommand) -> bool {
        match self.around.core.execute(Command::Delivery(Box::new(command))) {
            Ok(_) => true,
            Err(CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy) => {
                self.cut.wait(Duration::from_millis(DELIVERY_RECORD_PAUSE_MS));
                false
            }
            Err(error) => {
                log::warn!("a delivery's record was refused: {error}");
                false
            }
        }
    }

    /// Makes a record durable, however long the disk is full; `false` when it cannot be or the daemon stops.
    fn record(&self, command: &DeliveryCommand) -> bool {
        loop {
            match self.around.core.execute(Command::Delivery(Box::new(command.clone()))) {
                Ok(_) => return true,
                Err(CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy) => {
                    if self.cut.wait(Duration::from_millis(DELIVERY_RECORD_PAUSE_MS)) {
                        return false;
                    }
                }
                Err(error) => {
                    log::warn!("a delivery's record was refused: {error}");
                    return false;
                }
            }
        }
    }

    fn send(&self, job: &DeliveryJob, prepared: &Prepared) -> (AttemptOutcome, Option<Answer>) {
        let plugin = job.delivery.target.plugin;
        match self.ask(plugin, prepared) {
            Ok(answer) => (answer::of_answer(plugin, &answer), Some(answer)),
            Err(failure) => (answer::of_failure(&failure), None),
        }
    }

    fn ask(&self, plugin: ReplyPlugin, prepared: &Prepared) -> Result<Answer, NetError> {
        let headers: Vec<(&str, &str)> =
            prepared.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = Request {
            method: Method::Post,
            target: &prepared.target,
            purpose: Purpose::Connector,
            allow_private: prepared.allow_private,
            headers: &headers,
            auth: prepared.credential.auth(),
            body: Some(&prepared.body),
            timeouts: Timeouts {
                connect_ms: DELIVERY_CONNECT_MS,
                first_byte_ms: DELIVERY_TOTAL_MS,
                idle_ms: DELIVERY_IDLE_MS,
                total_ms: Some(DELIVERY_TOTAL_MS),
            },
            body_bytes_max: u64::MAX,
        };
        // What is revoked stops being used; the delivery is then tried again, with what holds by then.
        let cancel = self.cut.child();
        let _watched = prepared.credential.watch(&cancel);
        let mut response = self.around.net.send(request, &cancel)?;
        let hint_ms = retry_hint_ms(&|name: &str| response.header(name), self.around.clock.now_ms());
        let status = response.status;
        // Of a plain receiver the status is the answer; what it says besides is for people.
        if plugin == ReplyPlugin::Http {
            response.body.set_idle_ms(DELIVERY_DETAIL_IDLE_MS);
        }
        let body = match plugin {
            ReplyPlugin::Http => words_of(&mut response.body)?,
            _ => response.body.read_prefix(DELIVERY_ANSWER_BYTES_MAX)?,
        };
        Ok(Answer { status, retry_after_ms: hint_ms, body })
    }

    /// A receiver may say back what it was sent. Only a text without secrets is made short: a cut through one would
    /// leave its beginning.
    fn redacted(&self, mut outcome: AttemptOutcome) -> AttemptOutcome {
        if let AttemptOutcome::Retry { error, .. } | AttemptOutcome::Dead(error) = &mut outcome {
            error.detail = error.detail.take().and_then(|text| answer::shortened(&self.around.broker.redact(&text)));
        }
        outcome
    }
}

/// The beginning of a body that only explains: a receiver that has answered holds no sender with the rest.
fn words_of(body: &mut Body) -> Result<Vec<u8>, NetError> {
    let until = Instant::now() + Duration::from_millis(DELIVERY_DETAIL_MS);
    let (mut words, mut buffer) = (Vec::new(), [0; 4 * 1024]);
    while words.len() < DELIVERY_ANSWER_BYTES_MAX && Instant::now() < until {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => words.extend_from_slice(&buffer[..count]),
            Err(NetError::Cancelled) => return Err(NetError::Cancelled),
            Err(_) => break,
        }
    }
    words.truncate(DELIVERY_ANSWER_BYTES_MAX);
    Ok(words)
}

fn sha256(bytes: &[u8]) -> String {
    to_hex(digest(&SHA256, bytes).as_ref())
}
