//! Calling a hook by a request.
//! Owns: its headers, credential, signature and the judgement of its answer.
//! May touch: the network through `net`, for this purpose; the broker.
//! Never: follows a redirect; holds a signing key, the broker signs; sends without the guard's word on the address.

use std::time::Instant;

use super::call::{Answered, Around, Failed};
use super::definition::{AuthScheme, Hook, HookAuth};
use super::invocation::Invocation;
use crate::broker::{BrokerError, BrokerHandle, Lease, LeaseRequest, Provider, SlotId, Subject, SubjectId, Use, Watch};
use crate::hex::to_hex;
use crate::limits::{HOOK_ANSWER_BYTES_MAX, HOOK_CONNECT_MS, HOOK_TIMEOUT_MS_MAX};
use crate::net::{Auth, Cancel, CredentialRefused, Method, NetError, Purpose, Request, Response, Target, Timeouts};

/// A request that is ready to leave: its leases are taken and it is signed.
pub(super) struct Prepared<'a> {
    outside: &'a Around,
    target: &'a Target,
    headers: Vec<(&'static str, String)>,
    auth: Option<(Held, AuthScheme)>,
    signature: Option<Held>,
    /// Ends the call: with whoever waits, or with a lease.
    cancel: Cancel,
    /// Whoever waits.
    waiting: Cancel,
}

/// A lease in hand; it is given back with this.
struct Held {
    broker: BrokerHandle,
    lease: Lease,
    _watch: Watch,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.broker.release(self.lease.clone());
    }
}

fn refused(error: &BrokerError) -> Failed {
    Failed { class: "credential_refused", text: error.to_string(), retryable: error.is_silence(), retry_after_ms: None }
}

impl<'a> Prepared<'a> {
    /// Takes leases and signs.
    ///
    /// # Errors
    /// The guard refuses the host, or the broker a credential; nothing left.
    pub fn new(
        outside: &'a Around,
        hook: &Hook,
        parts: (&'a Target, Option<&HookAuth>, Option<&SlotId>),
        invocation: &Invocation,
        body: &[u8],
        cancel: &Cancel,
    ) -> Result<Self, Failed> {
        let (target, auth, signature) = parts;
        outside.net.check_host(Purpose::Hook, target).map_err(|error| net_failure(&error))?;
        let (waiting, cancel) = (cancel.clone(), cancel.child());
        let lease = |slot: &SlotId| {
            let acts_for = invocation.session_id.iter().map(SubjectId::session).collect();
            let request = LeaseRequest {
                subject: Subject { id: SubjectId::hook(&hook.name), acts_for },
                slot: slot.clone(),
                provider: Provider::Generic,
                use_for: Use::Hook(hook.name.clone()),
                ttl_ms: HOOK_TIMEOUT_MS_MAX,
            };
            let lease = outside.broker.lease(request, outside.clock.now_ms()).map_err(|error| refused(&error))?;
            let watch = outside.broker.watch(&lease, cancel.clone());
            Ok(Held { broker: outside.broker.clone(), lease, _watch: watch })
        };
        let auth = auth.map(|auth| Ok((lease(&auth.slot)?, auth.scheme))).transpose()?;
        let signature = signature.map(lease).transpose()?;
        let mut headers = vec![
            ("content-type", "application/json".to_string()),
            ("accept", "application/json".to_string()),
            ("idempotency-key", invocation.execution_key(&hook.name)),
            ("x-kheish-hook-event", hook.event.as_str().to_string()),
            ("x-kheish-hook-name", hook.name.clone()),
        ];
        if let Some(held) = &signature {
            let now_ms = outside.clock.now_ms();
            let timestamp = now_ms / 1_000;
            let mut signed = format!("v1:POST:{}:{timestamp}:", target.path_and_query()).into_bytes();
            signed.extend_from_slice(body);
            let mac = outside.broker.sign(&held.lease, signed, now_ms).map_err(|error| refused(&error))?;
            headers.push(("x-kheish-timestamp", timestamp.to_string()));
            headers.push(("x-kheish-signature", format!("v1={}", to_hex(&mac))));
        }
        Ok(Self { outside, target, headers, auth, signature, cancel, waiting })
    }

    /// The lease whose credential is used, for the record.
    pub fn lease(&self) -> Option<&str> {
        let held = self.auth.as_ref().map(|(held, _)| held).or(self.signature.as_ref());
        held.map(|held| held.lease.id.as_str())
    }

    /// Sends the request and waits for its answer until `deadline`. When whoever waits is still there and the call was
    /// cancelled, a credential was taken away.
    pub fn send(&self, body: &[u8], deadline: Instant) -> Answered {
        let left_ms = u64::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX);
        if left_ms == 0 {
            return Answered::failed(Failed::timed_out());
        }
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let auth = self.auth.as_ref().map(|(held, scheme)| {
            let (broker, clock, lease) = (held.broker.clone(), self.outside.clock.clone(), held.lease.clone());
            let release = move || {
                let credential = broker.redeem(&lease, clock.now_ms());
                credential.map(|credential| credential.secret).map_err(|error| {
                    let reason = error.to_string();
                    CredentialRefused { reason }
                })
            };
            match scheme {
                AuthScheme::Bearer => Auth::bearer_from(release),
                AuthScheme::XApiKey => Auth::bearer_from(release).in_header("x-api-key"),
            }
        });
        let request = Request {
            method: Method::Post,
            target: self.target,
            purpose: Purpose::Hook,
            allow_private: false,
            headers: &headers,
            auth,
            body: Some(body),
            timeouts: Timeouts {
                connect_ms: HOOK_CONNECT_MS.min(left_ms),
                first_byte_ms: left_ms,
                idle_ms: left_ms,
                total_ms: Some(left_ms),
            },
            body_bytes_max: HOOK_ANSWER_BYTES_MAX as u64,
        };
        let failed = |error: &NetError, status: Option<u16>| {
            let failure = match error {
                NetError::Cancelled if !self.waiting.is_cancelled() => Failed {
                    class: "credential_revoked",
                    text: "the credential was revoked while the hook was being called".to_string(),
                    retryable: true,
                    retry_after_ms: None,
                },
                error => net_failure(error),
            };
            Answered { http_status: status, ..Answered::failed(failure) }
        };
        let mut response = match self.outside.net.send(request, &self.cancel) {
            Ok(response) => response,
            Err(error) => return failed(&error, None),
        };
        let status = response.status;
        let retry_after_ms = retry_after(&response);
        match response.body.read_to_end() {
            Ok(bytes) => judge(status, retry_after_ms, bytes),
            Err(error) => failed(&error, Some(status)),
        }
    }
}

fn judge(status: u16, retry_after_ms: Option<u64>, bytes: Vec<u8>) -> Answered {
    let refusal = |retryable| {
        let text = format!("it answered HTTP {status}");
        Err(Failed { class: "status", text, retryable, retry_after_ms })
    };
    let result = match status {
        200..=299 => Answered::read(&bytes),
        408 | 429 => refusal(true),
        300..=499 => refusal(false),
        _ => refusal(true),
    };
    Answered { result, http_status: Some(status), body: Some(bytes) }
}

/// Seconds, as far as it is not a date.
fn retry_after(response: &Response) -> Option<u64> {
    let seconds: u64 = response.header("retry-after")?.trim().parse().ok()?;
    Some(seconds.saturating_mul(1_000).min(HOOK_TIMEOUT_MS_MAX))
}

fn net_failure(error: &NetError) -> Failed {
    let (class, retryable) = match error {
        NetError::EgressRefused { .. } => ("egress_refused", false),
        NetError::Resolve { .. } | NetError::ResolverBusy { .. } => ("resolve", true),
        NetError::Connect { .. } => ("connect", true),
        NetError::Tls { .. } => ("tls", false),
        NetError::Timeout { .. } => ("timeout", true),
        NetError::HeadTooLarge { .. } | NetError::BodyTooLarge { .. } => ("answer_too_large", false),
        NetError::Cancelled => ("cancelled", false),
        NetError::CredentialRefused { .. } => ("credential_refused", true),
        NetError::Protocol { .. } => ("protocol", false),
        NetError::Io { .. } => ("io", true),
    };
    Failed { class, text: error.to_string(), retryable, retry_after_ms: None }
}
