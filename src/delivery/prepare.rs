//! From a job to a request that can be sent.
//! Owns: where the parts of a request come from: the log, the target's address, the connectors, the broker.
//! Never: sends; holds a secret but the key of one signature.

use std::sync::Arc;

use ring::hmac::{self, HMAC_SHA256};
use serde::Deserialize;

use super::answer::error;
use super::envelope::Content;
use super::room::Surroundings;
use super::target::{Address, ConnectorEgress, EgressError, HttpAddress};
use crate::broker::{BrokerError, Lease, LeaseRequest, Provider, SlotId, Subject, SubjectId, Use, Watch};
use crate::core::{AttemptOutcome, Body, DeliveryJob, RunReplyTarget};
use crate::hex::to_hex;
use crate::limits::LEASE_TTL_MS_DEFAULT;
use crate::net::{Auth, BaseUrl, Cancel, CredentialRefused, Target};
use crate::secret::Secret;

/// Stands in Telegram's path where the token goes.
const TOKEN_MARKER: &str = "BOT-TOKEN-GOES-HERE";
/// What is in a lease's audience for the daemon's own deliveries.
const DELIVERIES: &str = "deliveries";

/// A request that can be sent, but for its credential.
pub(super) struct Prepared {
    pub target: Target,
    /// For records: no path, no query.
    pub label: String,
    pub allow_private: bool,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub credential: Credential,
}

/// Where the credential comes from.
pub(super) enum Credential {
    None,
    /// Of a connector: a bearer token, or a part of the path.
    Held(Arc<Secret>, Option<&'static str>),
    /// Of slots, leased for this attempt.
    Leased(Box<Leases>),
}

/// Leases of one attempt, given back with it.
pub(super) struct Leases {
    around: Surroundings,
    pub bearer: Option<Lease>,
    pub hmac: Option<Lease>,
}

impl Drop for Leases {
    fn drop(&mut self) {
        for lease in [self.bearer.take(), self.hmac.take()].into_iter().flatten() {
            self.around.broker.release(lease);
        }
    }
}

#[derive(Deserialize)]
struct Routed {
    #[serde(default)]
    reply_targets: Vec<RunReplyTarget>,
}

fn dead(class: &str, text: &str) -> AttemptOutcome {
    AttemptOutcome::Dead(error(class, text, None))
}

fn retry(class: &str, text: &str) -> AttemptOutcome {
    AttemptOutcome::Retry { error: error(class, text, None), retry_after_ms: None }
}

/// Makes the request of a job.
///
/// # Errors
/// It cannot be made; what that means for the delivery.
pub(super) fn prepare(around: &Surroundings, job: &DeliveryJob) -> Result<Prepared, AttemptOutcome> {
    let unreadable =
        |what: &str| retry("failed:internal", &format!("{what} cannot be read; next: kheish-daemon journal verify"));
    let accepted = around.reader.read(job.run_first).map_err(|_| unreadable("the run's acceptance"))?;
    let routed: Routed = serde_json::from_str(accepted.body.get()).map_err(|_| unreadable("the run's acceptance"))?;
    let target = routed.reply_targets.get(usize::from(job.delivery.place)).filter(|t| t.key() == job.delivery.target);
    let target = target.ok_or_else(|| dead("failed:internal", "the run's acceptance has no such target"))?;
    let address = Address::read(target).map_err(|error| dead("failed:invalid_url", &error.to_string()))?;
    let output = around.reader.read(job.delivery.output).map_err(|_| unreadable("the run's output"))?;
    let record = serde_json::from_str(output.body.get()).map_err(|_| unreadable("the run's output"))?;
    let created = around.reader.read(job.session_first).map_err(|_| unreadable("the session's creation"))?;
    let thread_id = match Body::decode(&created.kind, &created.body) {
        Ok(Body::SessionCreated(created)) => created.thread_id,
        _ => None,
    };
    let identity = job.delivery.key.split(':').nth(1).unwrap_or_default();
    let content = Content { session: &job.session, thread_id, run: job.run, delivery: identity, record };
    let headers = vec![
        ("content-type".to_string(), "application/json".to_string()),
        ("idempotency-key".to_string(), job.delivery.key.to_string()),
        ("x-kheish-delivery-attempt".to_string(), (job.delivery.attempts + 1).to_string()),
    ];
    match &address {
        Address::Http(http) => of_http(around, job, http, headers, content.http()),
        other => of_connector(around, other, headers, &content),
    }
}

fn of_http(
    around: &Surroundings,
    job: &DeliveryJob,
    http: &HttpAddress,
    mut headers: Vec<(String, String)>,
    body: Vec<u8>,
) -> Result<Prepared, AttemptOutcome> {
    let target = Target::parse(&http.url).map_err(|error| dead("failed:invalid_url", &error.to_string()))?;
    headers.extend(http.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
    let mut leases = Leases { around: around.clone(), bearer: None, hmac: None };
    let lease = |slot: &Option<String>| {
        let Some(slot) = slot else { return Ok(None) };
        let slot = SlotId::parse(slot).map_err(|error| dead("failed:invalid_url", &error.to_string()))?;
        let request = LeaseRequest {
            subject: Subject::alone(SubjectId::session(&job.session)),
            slot,
            provider: Provider::Generic,
            use_for: Use::Connector(DELIVERIES.to_string()),
            // Released when the attempt ends; until then it must outlast a slow disk, look-up and handshake.
            ttl_ms: LEASE_TTL_MS_DEFAULT,
        };
        around.broker.lease(request, around.clock.now_ms()).map(Some).map_err(|error| refused(&error))
    };
    leases.bearer = lease(&http.bearer_secret_ref)?;
    leases.hmac = lease(&http.hmac_secret_ref)?;
    if let Some(lease) = &leases.hmac {
        let now_ms = around.clock.now_ms();
        let credential = around.broker.redeem(lease, now_ms).map_err(|error| refused(&error))?;
        let timestamp = now_ms / 1_000;
        let mut signed = format!("v1:POST:{}:{timestamp}:", target.path_and_query()).into_bytes();
        signed.extend_from_slice(&body);
        let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, credential.secret.expose()), &signed);
        headers.push(("x-kheish-timestamp".to_string(), timestamp.to_string()));
        headers.push(("x-kheish-signature".to_string(), format!("v1={}", to_hex(tag.as_ref()))));
    }
    let has_lease = leases.bearer.is_some() || leases.hmac.is_some();
    let credential = if has_lease { Credential::Leased(Box::new(leases)) } else { Credential::None };
    let label = format!("http:{}", origin(&target));
    Ok(Prepared { target, label, allow_private: http.allow_private_network, headers, body, credential })
}

fn refused(error: &BrokerError) -> AttemptOutcome {
    // An operator may set the slot again, and a busy broker answers soon.
    retry("failed:credential", &error.to_string())
}

fn of_connector(
    around: &Surroundings,
    address: &Address,
    mut headers: Vec<(String, String)>,
    content: &Content<'_>,
) -> Result<Prepared, AttemptOutcome> {
    let ConnectorEgress { base_url, allow_private, secret } =
        around.connectors.egress(address).map_err(|error| match error {
            EgressError::Refused(text) => dead("failed:terminal", &text),
            EgressError::NotNow(text) => retry("failed:credential", &text),
        })?;
    let base = BaseUrl::parse(&base_url).map_err(|error| dead("failed:invalid_url", &error.to_string()))?;
    let bearer = |secret: Option<Arc<Secret>>| secret.map_or(Credential::None, |secret| Credential::Held(secret, None));
    let name = address.connector().unwrap_or_default();
    let (target, label, body, credential) = match address {
        Address::External(external) => {
            headers.push(("x-kheish-external-protocol-version".to_string(), "1".to_string()));
            let body = content.sidecar(external);
            (base.target("/deliver"), format!("external:{name}:/deliver"), body, bearer(secret))
        }
        Address::Slack(slack) => {
            let body = content.slack(slack);
            (base.target("/chat.postMessage"), format!("slack:{name}:/chat.postMessage"), body, bearer(secret))
        }
        Address::Telegram(telegram) => {
            let Some(secret) = secret else {
                return Err(dead("failed:terminal", "the connector has no bot token; next: give it one and replay"));
            };
            let target = base.target(&format!("/bot{TOKEN_MARKER}/sendMessage"));
            let credential = Credential::Held(secret, Some(TOKEN_MARKER));
            (target, format!("telegram:{name}:/sendMessage"), content.telegram(telegram), credential)
        }
        Address::Http(_) => return Err(dead("failed:internal", "an HTTP address goes through no connector")),
    };
    Ok(Prepared { target, label, allow_private, headers, body, credential })
}

fn origin(target: &Target) -> String {
    let scheme = if target.is_https() { "https" } else { "http" };
    target.host_and_port().map_or_else(String::new, |(host, port)| format!("{scheme}://{host}:{port}"))
}

impl Credential {
    /// The lease that records name.
    pub(super) fn lease_id(&self) -> Option<&str> {
        match self {
            Self::Leased(leases) => leases.bearer.as_ref().or(leases.hmac.as_ref()).map(|lease| lease.id.as_str()),
            Self::None | Self::Held(..) => None,
        }
    }

    /// Has `cancel` cancelled when a lease of it is revoked, for as long as what is returned lives.
    pub(super) fn watch(&self, cancel: &Cancel) -> Vec<Watch> {
        match self {
            Self::Leased(leases) => {
                let held = [&leases.bearer, &leases.hmac].into_iter().flatten();
                held.map(|lease| leases.around.broker.watch(lease, cancel.clone())).collect()
            }
            Self::None | Self::Held(..) => Vec::new(),
        }
    }

    /// What the request is sent with.
    pub(super) fn auth(&self) -> Option<Auth> {
        match self {
            Self::None => None,
            Self::Held(secret, marker) => {
                let secret = secret.clone();
                let auth = Auth::bearer_from(move || Ok(Secret::new(secret.expose().to_vec())));
                Some(match marker {
                    Some(marker) => auth.in_path(marker),
                    None => auth,
                })
            }
            Self::Leased(leases) => {
                let lease = leases.bearer.clone()?;
                let (broker, clock) = (leases.around.broker.clone(), leases.around.clock.clone());
                Some(Auth::bearer_from(move || {
                    let credential = broker.redeem(&lease, clock.now_ms());
                    credential
                        .map(|credential| credential.secret)
                        .map_err(|error| CredentialRefused { reason: error.to_string() })
                }))
            }
        }
    }
}
