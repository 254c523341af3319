//! What the webhook sidecar answers.
//! Owns: manifest, health, deliveries and webhooks.
//! May touch: the daemon's ingress, and callbacks at public addresses.
//! Never: keeps a webhook: it is with the daemon before its sender hears of it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::routes::{Route, Routes};
use crate::clock::{Clock, SystemClock};
use crate::connectors::signature::{verify_bearer, verify_webhook};
use crate::hex::to_hex;
use crate::http::{Admission, Head, Lane, Method as HttpMethod, Responder, Response, Service};
use crate::limits::{CONNECTOR_BODY_BYTES_MAX, SIDECAR_ANSWER_BYTES_MAX, WEBHOOK_CALL_MS_MAX, WEBHOOK_CALLBACK_MS_MAX};
use crate::net::{Auth, BaseUrl, Cancel, Method, Net, NetError, Purpose, Request, Target, Timeouts};
use crate::secret::Secret;

/// What the adapter is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) instance_id: Option<String>,
    pub(super) token: Option<Secret>,
    pub(super) capture: Option<PathBuf>,
    pub(super) routes: Routes,
    pub(super) daemon: BaseUrl,
    pub(super) net: Net,
}

/// The sidecar's service.
pub struct Adapter {
    parts: Parts,
    instance_id: String,
    is_draining: AtomicBool,
    capture: Mutex<()>,
    cancel: Cancel,
}

/// An answer of a route.
type Answer = Result<Value, (u16, String)>;

fn timeouts(total_ms: u64) -> Timeouts {
    Timeouts { connect_ms: total_ms, first_byte_ms: total_ms, idle_ms: total_ms, total_ms: Some(total_ms) }
}

fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_vec())
}

/// Asks the daemon for one credential.
pub(super) fn fetch_credential(
    net: &Net,
    daemon: &BaseUrl,
    name: &str,
    key: &str,
    token: Option<&Secret>,
) -> Result<Secret, String> {
    let key = utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
    let target = daemon.target(&format!("/v1/connectors/external/{name}/credentials/{key}"));
    let failed = |cause: String| format!("credential {key} was not given: {cause}");
    let (status, answer) = ask(net, Method::Get, &target, token, None, WEBHOOK_CALLBACK_MS_MAX, &Cancel::new())
        .map_err(|error| failed(error.to_string()))?;
    match (status, answer) {
        (200, Value::Object(mut fields)) => match fields.remove("value") {
            Some(Value::String(value)) if !value.is_empty() => Ok(Secret::new(value.into_bytes())),
            _ => Err(failed("the answer holds no value".to_string())),
        },
        (status, _) => Err(failed(format!("status {status}"))),
    }
}

fn ask(
    net: &Net,
    method: Method,
    target: &Target,
    token: Option<&Secret>,
    body: Option<&[u8]>,
    total_ms: u64,
    cancel: &Cancel,
) -> Result<(u16, Value), NetError> {
    let request = Request {
        method,
        target,
        purpose: Purpose::Connector,
        allow_private: true,
        headers: &[("content-type", "application/json")],
        auth: token.map(|token| Auth::bearer(copy(token))),
        body,
        timeouts: timeouts(total_ms),
        body_bytes_max: CONNECTOR_BODY_BYTES_MAX as u64,
    };
    let mut response = net.send(request, cancel)?;
    let answer = response.body.read_to_end()?;
    Ok((response.status, serde_json::from_slice(&answer).unwrap_or_default()))
}

impl Adapter {
    pub(super) fn new(parts: Parts) -> Self {
        let instance_id = parts.instance_id.clone().unwrap_or_else(|| format!("webhook-{}", random()));
        let (is_draining, capture, cancel) = (AtomicBool::new(false), Mutex::default(), Cancel::new());
        Self { parts, instance_id, is_draining, capture, cancel }
    }

    /// Takes no further webhook.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    /// Ends what is still under way.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    fn health(&self) -> Value {
        let status = match (self.is_draining.load(Ordering::SeqCst), self.parts.routes.is_empty()) {
            (true, _) => "draining",
            (false, true) => "degraded",
            (false, false) => "ready",
        };
        let mut health = json!({"protocol_version": 1, "instance_id": self.instance_id, "status": status});
        if self.parts.routes.is_empty() {
            health["detail"] = json!("WEBHOOK_ROUTES_JSON is not set");
        }
        health
    }

    fn manifest(&self) -> Value {
        json!({"protocol_version": 1, "instance_id": self.instance_id, "experimental": false,
            "capabilities": {"attachments_in": false, "attachments_out": false, "threads": false}})
    }

    fn is_daemon(&self, head: &Head) -> bool {
        self.parts.token.as_ref().is_none_or(|token| verify_bearer(head, token).is_ok())
    }

    fn answer(&self, head: &Head, body: &[u8]) -> Answer {
        let not_found = || Err((404, "not found".to_string()));
        let unauthorized = || Err((401, "unauthorized".to_string()));
        let draining = self.is_draining.load(Ordering::SeqCst);
        match (head.method, head.path.as_str()) {
            (HttpMethod::Get, "/manifest" | "/health") if !self.is_daemon(head) => unauthorized(),
            (HttpMethod::Get, "/manifest") => Ok(self.manifest()),
            (HttpMethod::Get, "/health") => Ok(self.health()),
            (HttpMethod::Post, "/deliver") if !self.is_daemon(head) => unauthorized(),
            (HttpMethod::Post, "/deliver") if draining => {
                Ok(json!({"status": "retryable_error", "detail": "draining"}))
            }
            (HttpMethod::Post, "/deliver") => Ok(self.deliver(body)),
            (HttpMethod::Post, _) if draining => Err((503, "draining".to_string())),
            (HttpMethod::Post, path) => match path.strip_prefix("/webhooks/") {
                Some(name) => self.receive(name, head, body),
                None => not_found(),
            },
            _ => not_found(),
        }
    }

    fn receive(&self, name: &str, head: &Head, body: &[u8]) -> Answer {
        let route = self.parts.routes.get(name).ok_or((404, "unknown route".to_string()))?;
        if let Some(secret) = &route.secret {
            verify_webhook(head.header(&route.signature_header), body, secret)
                .map_err(|_| (401, "invalid signature".to_string()))?;
        }
        let payload: Value = serde_json::from_slice(body).map_err(|_| (400, "invalid json".to_string()))?;
        let header = |name: &str| head.header(name).map(str::trim).filter(|text| !text.is_empty());
        let event_type = header(&route.event_header).or(payload["event_type"].as_str()).unwrap_or("unknown");
        if !route.allows(event_type) {
            return Ok(json!({"status": "ignored"}));
        }
        let delivery = header("x-github-delivery").or(header("x-request-id")).map_or_else(random, str::to_string);
        self.submit(name, route, &delivery, event_type, &payload)?;
        Ok(json!({"status": "accepted", "delivery_id": delivery}))
    }

    fn submit(
        &self,
        name: &str,
        route: &Route,
        delivery: &str,
        event_type: &str,
        payload: &Value,
    ) -> Result<(), (u16, String)> {
        let mut event = route.event(name, delivery, event_type, payload, SystemClock.now_ms());
        event["instance_id"] = json!(self.instance_id);
        event["protocol_version"] = json!(2);
        let target = self.parts.daemon.target(&format!("/v1/connectors/external/{}/events", self.parts.name));
        let body = event.to_string();
        let token = self.parts.token.as_ref();
        let asked = ask(
            &self.parts.net,
            Method::Post,
            &target,
            token,
            Some(body.as_bytes()),
            WEBHOOK_CALL_MS_MAX,
            &self.cancel,
        );
        match asked {
            Err(error) => {
                log::warn!("the daemon cannot be reached: {error}");
                Err((502, "the daemon cannot be reached".to_string()))
            }
            Ok((200, answer)) if answer["status"] == "rejected" && answer["run_id"].is_null() => {
                Err((422, answer["reason"].as_str().unwrap_or("rejected").to_string()))
            }
            // Rejected with a run: the same delivery came before, and its run exists.
            Ok((200, _)) => Ok(()),
            Ok((status, answer)) => {
                let code = answer["code"].as_str().unwrap_or_default();
                log::warn!("the daemon answered {status} {code}");
                Err((502, format!("the daemon answered {status} {code}").trim().to_string()))
            }
        }
    }

    fn deliver(&self, body: &[u8]) -> Value {
        let retryable = |detail: String| json!({"status": "retryable_error", "detail": detail});
        let terminal = |detail: &str| json!({"status": "terminal_error", "detail": detail});
        let committed = json!({"status": "committed"});
        let Ok(delivery) = serde_json::from_slice::<Value>(body) else { return terminal("the delivery is no JSON") };
        if let Some(path) = &self.parts.capture {
            let _one_at_a_time = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
            let file = OpenOptions::new().create(true).append(true).open(path);
            // One write: a line is there whole or not at all, whenever the process ends.
            let line = format!("{delivery}\n");
            return match file.and_then(|mut file| file.write_all(line.as_bytes())) {
                Ok(()) => committed,
                Err(error) => retryable(format!("the capture file cannot be written: {error}")),
            };
        }
        let route = delivery["reply_route"].as_str().unwrap_or("{}");
        let Ok(route) = serde_json::from_str::<Value>(route) else { return terminal("the reply route is no JSON") };
        let Some(url) = route["callback_url"].as_str() else { return committed };
        let Ok(target) = Target::parse(url) else { return terminal("the callback's URL is malformed") };
        let host = target.host_and_port().map(|(host, _)| host.to_string());
        let is_allowed = |host: &String| {
            route["allowed_callback_hosts"].as_array().is_some_and(|hosts| hosts.iter().any(|known| known == host))
        };
        if !host.as_ref().is_some_and(is_allowed) {
            return terminal("the callback's host is not allowed");
        }
        let body = json!({"content": delivery["content"], "metadata": delivery["metadata"]}).to_string();
        let request = Request {
            method: Method::Post,
            target: &target,
            purpose: Purpose::Connector,
            // Public addresses only, looked at before they are dialled.
            allow_private: false,
            headers: &[("content-type", "application/json")],
            auth: None,
            body: Some(body.as_bytes()),
            timeouts: timeouts(WEBHOOK_CALLBACK_MS_MAX),
            body_bytes_max: SIDECAR_ANSWER_BYTES_MAX,
        };
        match self.parts.net.send(request, &self.cancel) {
            Err(NetError::EgressRefused { .. }) => terminal("the callback's host has an address that is not public"),
            Err(error) => retryable(format!("the callback failed: {error}")),
            Ok(response) => match response.status {
                200..=299 => committed,
                408 | 425 | 429 | 500.. => retryable(format!("the callback answered {}", response.status)),
                status => terminal(&format!("the callback answered {status}")),
            },
        }
    }
}

fn random() -> String {
    let mut bytes = [0; 6];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has random bytes");
    to_hex(&bytes)
}

impl Service for Adapter {
    type Admitted = ();

    fn admit(&self, _head: &Head) -> Admission<()> {
        Admission::Accept { admitted: (), body_bytes_max: CONNECTOR_BODY_BYTES_MAX, lane: Lane::Worker }
    }

    fn handle(&self, (): (), head: Head, body: Vec<u8>, responder: Responder) {
        let response = match self.answer(&head, &body) {
            Ok(answer) => Response::json(200, &answer),
            Err((status, error)) => Response::json(status, &json!({"error": error})),
        };
        responder.send(response);
    }
}
