//! What an answer, or none, means for a delivery.
//! Owns: the table of statuses, and which failures another attempt can heal.
//! Never: believes a receiver that contradicts its own status.

use serde::Deserialize;

use crate::core::{AttemptOutcome, DeliveryError, ReplyPlugin};
use crate::limits::{DELIVERY_DETAIL_CHARS_MAX, DELIVERY_RATE_LIMITED_MS};
use crate::net::NetError;

/// A receiver's answer, as far as it was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub status: u16,
    pub retry_after_ms: Option<u64>,
    pub body: Vec<u8>,
}

/// Text for people: one line, no control characters, short. Of a text that has been redacted.
pub(super) fn shortened(text: &str) -> Option<String> {
    let mut words = String::new();
    for word in text.split(|char: char| char.is_whitespace() || char.is_control()).filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
        if words.len() > 4 * DELIVERY_DETAIL_CHARS_MAX {
            break;
        }
    }
    if words.chars().count() > DELIVERY_DETAIL_CHARS_MAX {
        words = words.chars().take(DELIVERY_DETAIL_CHARS_MAX).chain("...".chars()).collect();
    }
    (!words.is_empty()).then_some(words)
}

pub(super) fn error(class: &str, text: &str, http_status: Option<u16>) -> DeliveryError {
    DeliveryError { class: class.to_string(), detail: Some(text.to_string()), http_status }
}

/// What it means that a request has no answer.
pub(super) fn of_failure(failure: &NetError) -> AttemptOutcome {
    let class = match failure {
        NetError::EgressRefused { .. } => {
            return AttemptOutcome::Dead(error("failed:blocked_external_fetch", &failure.to_string(), None));
        }
        NetError::Cancelled => return AttemptOutcome::CutOff,
        NetError::Timeout { .. } => "failed:timeout",
        NetError::Resolve { .. } | NetError::ResolverBusy { .. } | NetError::Connect { .. } | NetError::Tls { .. } => {
            "failed:connect"
        }
        NetError::CredentialRefused { .. } => "failed:credential",
        NetError::Protocol { .. } | NetError::HeadTooLarge { .. } | NetError::BodyTooLarge { .. } => "failed:decode",
        NetError::Io { .. } => "failed:io",
    };
    AttemptOutcome::Retry { error: error(class, &failure.to_string(), None), retry_after_ms: None }
}

/// What an answer means.
pub(super) fn of_answer(plugin: ReplyPlugin, answer: &Answer) -> AttemptOutcome {
    match plugin {
        ReplyPlugin::Http => of_status(answer),
        ReplyPlugin::External => of_sidecar(answer),
        ReplyPlugin::Slack => of_slack(answer),
        ReplyPlugin::Telegram => of_telegram(answer),
    }
}

fn of_status(answer: &Answer) -> AttemptOutcome {
    let Answer { status, retry_after_ms, .. } = *answer;
    let text = format!("the receiver answered {status}: {}", String::from_utf8_lossy(&answer.body));
    let failed = |class: &str| error(class, &text, Some(status));
    match status {
        200..=299 => AttemptOutcome::Delivered { http_status: Some(status) },
        429 => AttemptOutcome::Retry {
            error: failed("failed:rate_limited"),
            retry_after_ms: retry_after_ms.or(Some(DELIVERY_RATE_LIMITED_MS)),
        },
        408 | 425 | 500..=599 => AttemptOutcome::Retry { error: failed("failed:status"), retry_after_ms },
        300..=399 => {
            let text = format!("the receiver answered {status}, a redirect, which is not followed");
            AttemptOutcome::Dead(error("failed:terminal", &text, Some(status)))
        }
        _ => AttemptOutcome::Dead(failed("failed:terminal")),
    }
}

#[derive(Deserialize)]
struct SidecarAnswer {
    status: String,
    #[serde(default)]
    detail: Option<String>,
}

fn of_sidecar(answer: &Answer) -> AttemptOutcome {
    let Answer { status, retry_after_ms, .. } = *answer;
    if status == 429 {
        return of_status(answer);
    }
    let said: Option<SidecarAnswer> = serde_json::from_slice(&answer.body).ok();
    let is_success = (200..=299).contains(&status);
    let words =
        |said: &SidecarAnswer| format!("the sidecar says {}: {}", said.status, said.detail.as_deref().unwrap_or(""));
    match said {
        Some(said) if said.status == "committed" && is_success => {
            AttemptOutcome::Delivered { http_status: Some(status) }
        }
        Some(said) if said.status == "terminal_error" => {
            AttemptOutcome::Dead(error("failed:terminal", &words(&said), Some(status)))
        }
        Some(said) if said.status == "retryable_error" => {
            AttemptOutcome::Retry { error: error("failed:status", &words(&said), Some(status)), retry_after_ms }
        }
        // During a change of tokens either side may be ahead, and a limit of the sidecar's own may be raised.
        _ if matches!(status, 401 | 403 | 408 | 413 | 425) => AttemptOutcome::Retry {
            error: error("failed:status", &format!("the sidecar answered {status}"), Some(status)),
            retry_after_ms,
        },
        _ if is_success => AttemptOutcome::Retry {
            error: error("failed:decode", "the sidecar's answer is not of the protocol", Some(status)),
            retry_after_ms,
        },
        _ => of_status(answer),
    }
}

#[derive(Deserialize)]
struct SlackAnswer {
    ok: bool,
    #[serde(default)]
    error: Option<String>,
}

fn of_slack(answer: &Answer) -> AttemptOutcome {
    let Answer { status, retry_after_ms, .. } = *answer;
    if status != 200 {
        return of_status(answer);
    }
    let Ok(said) = serde_json::from_slice::<SlackAnswer>(&answer.body) else {
        let error = error("failed:decode", "Slack's answer is not of its protocol", Some(status));
        return AttemptOutcome::Retry { error, retry_after_ms };
    };
    let code = said.error.unwrap_or_default();
    let text = format!("Slack answered {code}");
    match code.as_str() {
        _ if said.ok => AttemptOutcome::Delivered { http_status: Some(status) },
        "ratelimited" | "rate_limited" => AttemptOutcome::Retry {
            error: error("failed:rate_limited", &text, Some(status)),
            retry_after_ms: retry_after_ms.or(Some(DELIVERY_RATE_LIMITED_MS)),
        },
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" | "team_added_to_org" => {
            AttemptOutcome::Retry { error: error("failed:status", &text, Some(status)), retry_after_ms }
        }
        _ => AttemptOutcome::Dead(error("failed:terminal", &text, Some(status))),
    }
}

#[derive(Deserialize)]
struct TelegramAnswer {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: TelegramParameters,
}

#[derive(Default, Deserialize)]
struct TelegramParameters {
    #[serde(default)]
    retry_after: Option<u64>,
}

fn of_telegram(answer: &Answer) -> AttemptOutcome {
    let mut answer = answer.clone();
    let said: Option<TelegramAnswer> = serde_json::from_slice(&answer.body).ok();
    if let Some(said) = &said {
        let asked = said.parameters.retry_after.map(|seconds| seconds.saturating_mul(1_000));
        answer.retry_after_ms = asked.or(answer.retry_after_ms);
        answer.body = said.description.clone().unwrap_or_default().into_bytes();
    }
    let is_taken = said.is_some_and(|said| said.ok);
    match of_status(&answer) {
        AttemptOutcome::Delivered { .. } if !is_taken => AttemptOutcome::Retry {
            error: error("failed:decode", "Telegram's answer is not of its protocol", Some(answer.status)),
            retry_after_ms: None,
        },
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(plugin: ReplyPlugin, status: u16, body: &str) -> &'static str {
        let answer = Answer { status, retry_after_ms: None, body: body.as_bytes().to_vec() };
        match of_answer(plugin, &answer) {
            AttemptOutcome::Delivered { .. } => "delivered",
            AttemptOutcome::Retry { .. } => "retry",
            AttemptOutcome::Dead(_) => "dead",
            AttemptOutcome::CutOff => "cut_off",
        }
    }

    #[test]
    fn what_cannot_heal_is_dead_at_once_and_everything_else_is_tried_again() {
        for (status, expected) in [
            (200, "delivered"),
            (204, "delivered"),
            (301, "dead"),
            (400, "dead"),
            (401, "dead"),
            (404, "dead"),
            (408, "retry"),
            (410, "dead"),
            (413, "dead"),
            (425, "retry"),
            (429, "retry"),
            (500, "retry"),
            (503, "retry"),
        ] {
            assert_eq!(kind(ReplyPlugin::Http, status, "anything"), expected, "{status}");
        }
    }

    #[test]
    fn a_sidecar_is_believed_unless_its_status_says_otherwise() {
        for (status, body, expected) in [
            (200, r#"{"status":"committed"}"#, "delivered"),
            (200, r#"{"status":"retryable_error","detail":"draining"}"#, "retry"),
            (200, r#"{"status":"terminal_error","detail":"gone"}"#, "dead"),
            (200, "junk", "retry"),
            (200, r#"{"status":"else"}"#, "retry"),
            (400, r#"{"status":"committed"}"#, "dead"),
            (500, r#"{"status":"committed"}"#, "retry"),
            (400, r#"{"status":"retryable_error"}"#, "retry"),
            (401, r#"{"error":"unauthorized"}"#, "retry"),
            (413, r#"{"error":"payload_too_large"}"#, "retry"),
            (404, "no", "dead"),
            (429, "", "retry"),
            (503, r#"{"error":"draining"}"#, "retry"),
        ] {
            assert_eq!(kind(ReplyPlugin::External, status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn chat_services_say_in_the_body_what_happened() {
        for (plugin, status, body, expected) in [
            (ReplyPlugin::Slack, 200, r#"{"ok":true}"#, "delivered"),
            (ReplyPlugin::Slack, 200, r#"{"ok":false,"error":"ratelimited"}"#, "retry"),
            (ReplyPlugin::Slack, 200, r#"{"ok":false,"error":"channel_not_found"}"#, "dead"),
            (ReplyPlugin::Slack, 200, "junk", "retry"),
            (ReplyPlugin::Slack, 502, "", "retry"),
            (ReplyPlugin::Telegram, 200, r#"{"ok":true,"result":{}}"#, "delivered"),
            (ReplyPlugin::Telegram, 200, "junk", "retry"),
            (ReplyPlugin::Telegram, 403, r#"{"ok":false,"description":"bot was blocked"}"#, "dead"),
        ] {
            assert_eq!(kind(plugin, status, body), expected, "{plugin:?} {status} {body}");
        }
        let body = br#"{"ok":false,"parameters":{"retry_after":7}}"#.to_vec();
        let limited = Answer { status: 429, retry_after_ms: None, body };
        let AttemptOutcome::Retry { retry_after_ms, .. } = of_answer(ReplyPlugin::Telegram, &limited) else { panic!() };
        assert_eq!(retry_after_ms, Some(7_000));
    }

    #[test]
    fn a_receivers_words_are_one_short_line() {
        assert_eq!(shortened(" a\r\n\tb\u{1b}[31m  c ").as_deref(), Some("a b [31m c"));
        assert_eq!(shortened(" \n "), None);
        assert_eq!(shortened(&"x".repeat(9_000)).map(|text| text.chars().count()), Some(DELIVERY_DETAIL_CHARS_MAX + 3));
    }
}
