//! One real run on a route: the only proof that a provider accepts the key and answers.
//! Owns: the marked session, the run in it, and the end of both.
//! May touch: the network, through `net`.
//! Never: leaves a run going or a session open behind it, unless the daemon refuses to end them.

use std::time::Instant;

use serde_json::{Value, json};

use super::client::{Client, decode};
use super::exit::CliError;
use super::json_text::Document;
use super::path::Path;
use super::run_view::RunView;
use super::runs::run_path;
use super::wait::{Wait, Waited, for_run};
use crate::clock::{Clock, SystemClock};
use crate::doctor::routes::{Canary, RouteRow};
use crate::limits::{CANARY_OUTPUT_TOKENS, CANARY_POLL_MS, CANARY_QUOTE_CHARS_MAX, CANARY_ROUTE_CHARS_MAX};

/// What a model must answer, and nothing else.
const TOKEN: &str = "KHEISH_ROUTE_CANARY_OK";
const PROMPT: &str = "Reply with exactly KHEISH_ROUTE_CANARY_OK and nothing else.";

/// Makes the run and cleans up. The second value says why the session is still open, if it is.
pub fn run(client: &Client, route: &RouteRow, timeout_ms: u64) -> (Canary, Option<CliError>) {
    let started = Instant::now();
    let session_id = session_of(&route.route_id);
    let mut canary = Canary {
        route_id: route.route_id.clone(),
        provider: route.provider.clone(),
        model: route.model.clone(),
        session_id: session_id.clone(),
        run_id: None,
        status: "failed",
        duration_ms: 0,
        message: String::new(),
    };
    let ended = attempt(client, route, timeout_ms, started, &mut canary);
    (canary.status, canary.message) = match ended {
        Ok(verdict) => verdict,
        Err(error) => ("failed", error.without_next()),
    };
    let reason = Document::of(&json!({"reason": "the route's canary is over"}));
    let path = Path::new("/v1/sessions").segment(&session_id).then("/end");
    let open = match client.post(&path, Some(reason.as_str().as_bytes()), &[]) {
        // Without a session there is nothing to end.
        Ok(_) | Err(CliError::Http { status: 404, .. }) => None,
        Err(error) => Some(error),
    };
    canary.duration_ms = elapsed_ms(started);
    (canary, open)
}

fn attempt(
    client: &Client,
    route: &RouteRow,
    timeout_ms: u64,
    started: Instant,
    canary: &mut Canary,
) -> Result<(&'static str, String), CliError> {
    let session = Document::of(&json!({"session_id": canary.session_id}));
    client.post(&Path::new("/v1/sessions"), Some(session.as_str().as_bytes()), &[])?;
    let body = Document::of(&json!({
        "provider": route.route_id,
        "content": PROMPT,
        "source_plugin": "doctor",
        "source_kind": "route_canary",
        "actor_id": "doctor",
        "metadata": {"doctor_route_canary": true, "route_id": route.route_id},
        "generation": {
            "model": route.model,
            "tool_choice": {"type": "none"},
            "max_output_tokens": CANARY_OUTPUT_TOKENS,
        },
    }));
    let path = Path::new("/v1/sessions").segment(&canary.session_id).then("/runs");
    let headers = [("idempotency-key", canary.session_id.as_str())];
    let accepted: RunView = decode(&client.post(&path, Some(body.as_str().as_bytes()), &headers)?, "the accepted run")?;
    canary.run_id = Some(accepted.run_id.clone());
    let left_ms = timeout_ms.saturating_sub(elapsed_ms(started)).max(1);
    let wait = Wait { poll_interval_ms: CANARY_POLL_MS, timeout_ms: Some(left_ms), transient_grace_ms: left_ms };
    match for_run(client, &accepted.run_id, wait)? {
        Waited::Ended(_, view) => Ok(verdict(&view)),
        Waited::TimedOut(last) => {
            client.post(&run_path(&accepted.run_id).then("/cancel"), None, &[])?;
            let status = last.map_or_else(|| "unseen".to_string(), |(_, view)| view.status);
            let hint = if status == "queued" {
                ", for no engine took it: execution is held, or the route is full,"
            } else {
                ""
            };
            Ok(("timeout", format!("the run was still {status}{hint} after {timeout_ms} ms and was cancelled")))
        }
    }
}

fn verdict(view: &RunView) -> (&'static str, String) {
    let said: Vec<&str> = view.outputs().iter().map(|output| output.content.trim()).collect();
    if view.status != "completed" {
        let error = view.error_text().map(|error| format!(": {}", short(&error))).unwrap_or_default();
        return ("failed", format!("the run ended {}{error}", view.status));
    }
    if said == [TOKEN] {
        return ("passed", "the provider answered as asked".to_string());
    }
    ("failed", format!("the answer is not {TOKEN} but {:?}", short(&said.join(" "))))
}

fn short(text: &str) -> String {
    text.chars().take(CANARY_QUOTE_CHARS_MAX).collect()
}

/// Names route and time, so that an operator who finds one knows what it was.
fn session_of(route_id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let route: String = route_id.chars().take(CANARY_ROUTE_CHARS_MAX).map(plain).collect();
    format!("doctor-route-canary-{route}-{}", SystemClock.now_ms())
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A value of ours from a document of the daemon.
///
/// # Errors
/// It is no JSON value.
pub fn value_of(document: &Document, what: &str) -> Result<Value, CliError> {
    decode(document, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(view: Value) -> &'static str {
        verdict(&serde_json::from_value(view).expect("a view")).0
    }

    #[test]
    fn only_the_exact_answer_of_a_completed_run_passes() {
        let said = |texts: &[&str]| {
            let outputs: Vec<Value> = texts.iter().map(|text| json!({"content": text})).collect();
            json!({"run_id": "run-1", "status": "completed", "outputs": outputs})
        };
        assert_eq!(check(said(&[" KHEISH_ROUTE_CANARY_OK\n"])), "passed");
        for texts in [&["KHEISH_ROUTE_CANARY_OK."][..], &["Sure: KHEISH_ROUTE_CANARY_OK"], &[""], &[], &[TOKEN, TOKEN]]
        {
            assert_eq!(check(said(texts)), "failed", "{texts:?}");
        }
        let failed = json!({"run_id": "run-1", "status": "failed", "outputs": [{"content": TOKEN}],
            "error": {"code": "auth", "message": "no"}});
        assert_eq!(check(failed), "failed");
    }

    #[test]
    fn a_session_name_is_legal_whatever_the_route_is_called() {
        for route in ["main", "a/b c", "é", &"x".repeat(300)] {
            let id = session_of(route);
            assert!(crate::ids::SessionId::parse(&id).is_ok(), "{id}");
        }
    }
}
