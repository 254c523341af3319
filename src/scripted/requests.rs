//! What the scripted provider was asked.
//! Owns: the bounded list behind `GET /_scripted/requests`.
//! Never: keeps an authorization value, only its SHA-256.

use std::collections::VecDeque;

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::hex::to_hex;
use crate::limits::{SCRIPTED_REQUEST_BODY_KEPT_MAX, SCRIPTED_REQUESTS_BYTES_MAX, SCRIPTED_REQUESTS_KEPT_MAX};

/// An `Authorization` header without its secret.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Authorization {
    scheme: String,
    /// Hex SHA-256 of what follows the scheme.
    sha256: String,
}

impl Authorization {
    pub(super) fn of(value: &str) -> Self {
        let (scheme, credential) = value.split_once(' ').unwrap_or(("", value));
        let sha256 = to_hex(digest(&SHA256, credential.as_bytes()).as_ref());
        Self { scheme: scheme.to_string(), sha256 }
    }
}

/// A header that holds a credential alone.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ApiKey {
    header: &'static str,
    /// Hex SHA-256 of the value.
    sha256: String,
}

impl ApiKey {
    pub(super) fn of(header: &'static str, value: &str) -> Self {
        Self { header, sha256: to_hex(digest(&SHA256, value.as_bytes()).as_ref()) }
    }
}

/// One request.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    /// Counts from 1.
    pub number: u64,
    pub method: String,
    pub path: String,
    pub authorization: Option<Authorization>,
    /// `x-api-key` or `x-goog-api-key`.
    pub api_key: Option<ApiKey>,
    /// `anthropic-version`.
    pub anthropic_version: Option<String>,
    /// `anthropic-beta`.
    pub anthropic_beta: Option<String>,
    pub organization: Option<String>,
    pub project: Option<String>,
    pub user_agent: Option<String>,
    /// The turn that answered it, by its number in the script; null is the default turn.
    pub turn: Option<usize>,
    pub body_bytes: usize,
    /// The body; null when it was too long to keep.
    pub body: Option<Box<RawValue>>,
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Requests {
    count: u64,
    kept: VecDeque<Seen>,
    kept_bytes: usize,
}

#[derive(Serialize)]
struct View<'a> {
    /// Requests since start.
    count: u64,
    /// The latest ones, oldest first.
    requests: &'a VecDeque<Seen>,
}

fn kept_bytes(seen: &Seen) -> usize {
    seen.body.as_ref().map_or(0, |body| body.get().len())
}

impl Requests {
    /// Adds a request under the next number, which is returned.
    pub(super) fn add(&mut self, mut seen: Seen) -> u64 {
        self.count += 1;
        seen.number = self.count;
        seen.body = seen.body.filter(|body| body.get().len() <= SCRIPTED_REQUEST_BODY_KEPT_MAX);
        self.kept_bytes += kept_bytes(&seen);
        self.kept.push_back(seen);
        while self.kept.len() > SCRIPTED_REQUESTS_KEPT_MAX || self.kept_bytes > SCRIPTED_REQUESTS_BYTES_MAX {
            match self.kept.pop_front() {
                Some(oldest) => self.kept_bytes -= kept_bytes(&oldest),
                None => break,
            }
        }
        self.count
    }

    /// The list as JSON.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let view = View { count: self.count, requests: &self.kept };
        serde_json::to_vec(&view).expect("texts and raw JSON always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(body: String) -> Seen {
        Seen {
            number: 0,
            method: "POST".to_string(),
            path: "/v1/responses".to_string(),
            authorization: Some(Authorization::of("Bearer top-secret")),
            api_key: Some(ApiKey::of("x-api-key", "top-secret")),
            anthropic_version: None,
            anthropic_beta: None,
            organization: None,
            project: None,
            user_agent: None,
            turn: None,
            body_bytes: body.len(),
            body: Some(RawValue::from_string(body).expect("JSON")),
        }
    }

    #[test]
    fn the_list_is_bounded_and_shows_no_authorization_value() {
        let mut requests = Requests::default();
        for number in 1..=SCRIPTED_REQUESTS_KEPT_MAX as u64 + 5 {
            assert_eq!(requests.add(seen("{}".to_string())), number);
        }
        assert_eq!((requests.kept.len(), requests.kept[0].number), (SCRIPTED_REQUESTS_KEPT_MAX, 6));
        requests.add(seen(format!("\"{}\"", "x".repeat(SCRIPTED_REQUEST_BODY_KEPT_MAX))));
        assert!(requests.kept.back().is_some_and(|seen| seen.body.is_none()));
        let long = format!("\"{}\"", "x".repeat(SCRIPTED_REQUEST_BODY_KEPT_MAX - 2));
        for _ in 0..100 {
            requests.add(seen(long.clone()));
        }
        assert!(requests.kept_bytes <= SCRIPTED_REQUESTS_BYTES_MAX, "{}", requests.kept_bytes);
        let json = String::from_utf8(requests.to_json()).expect("UTF-8");
        assert!(!json.contains("top-secret"));
        // printf %s top-secret | sha256sum
        let sha256 = "190aec7389a3b0b5b6c67ac2756cb7b7bc6e5d936ae83d34f55a150a67a13003";
        assert!(json.contains(&format!(r#"{{"scheme":"Bearer","sha256":"{sha256}"}}"#)), "{}", &json[..300]);
    }
}
