//! What tests of connectors share: signing, sending without the admin's token, and a webhook sidecar.
//! Owns: nothing.
//! Never: sends the admin's token to an ingress route.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac::{self, HMAC_SHA256};
use serde_json::Value;

use crate::daemon::{Daemon, Home, Provider};
use crate::http::{Client, Reply};

pub fn start(test: &str, provider: Option<&Provider>) -> (Home, Daemon) {
    let home = Home::with_slot(test, provider);
    let daemon = home.start();
    daemon.set_key("sk-secret-one-0123456789");
    (home, daemon)
}

pub fn put(daemon: &Daemon, kind: &str, name: &str, body: &Value) -> Reply {
    let path = format!("/v1/runtime/connectors/{kind}/{name}");
    daemon.client().request("PUT", &path, &[], &body.to_string()).expect("the daemon answers")
}

/// A client that proves nothing.
pub fn unauthenticated(daemon: &Daemon) -> Client {
    Client::connect(daemon.address, "").expect("the daemon accepts")
}

pub fn post(daemon: &Daemon, target: &str, headers: &[(String, String)], body: &str) -> Reply {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    unauthenticated(daemon).request("POST", target, &headers, body).expect("the daemon answers")
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

pub fn hmac_hex(secret: &str, parts: &[&[u8]]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, secret.as_bytes()));
    parts.iter().for_each(|part| context.update(part));
    context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sign_http(secret: &str, method: &str, target: &str, at_s: u64, body: &str) -> Vec<(String, String)> {
    let begin = format!("v1:{method}:{target}:{at_s}:");
    let tag = hmac_hex(secret, &[begin.as_bytes(), body.as_bytes()]);
    vec![("x-kheish-timestamp".to_string(), at_s.to_string()), ("x-kheish-signature".to_string(), format!("v1={tag}"))]
}

pub fn sign_slack(secret: &str, at_s: u64, body: &str) -> Vec<(String, String)> {
    let tag = hmac_hex(secret, &[format!("v0:{at_s}:").as_bytes(), body.as_bytes()]);
    vec![
        ("x-slack-request-timestamp".to_string(), at_s.to_string()),
        ("x-slack-signature".to_string(), format!("v0={tag}")),
    ]
}

/// Runs stay queued from here on: tests of ingress need no model.
pub fn hold(daemon: &Daemon) {
    assert_eq!(daemon.post("/v1/runtime/hold", &serde_json::json!({"held": true})).status, 200);
}
