//! From records to events: what hooks are told of that wait for nobody.
//! Owns: the one table record kind to event, and what is told of each.
//! Never: tells what a revision of the runtime configuration holds; prompts and definitions are nobody's business outside.

use serde_json::{Map, Value, json};

use super::event::HookEvent;
use super::invocation::Invocation;
use crate::journal::Record;

/// The events of a record; none for most.
pub(super) fn told(record: &Record) -> Vec<Invocation> {
    let Some(events) = events(record) else { return Vec::new() };
    let Ok(body) = serde_json::from_str::<Map<String, Value>>(record.body.get()) else { return Vec::new() };
    let data = match record.kind.as_str() {
        "runtime.changed" => json!({"revision": body.get("revision"), "source": body.get("source"),
            "setting": body.get("setting")}),
        _ => Value::Object(body.clone()),
    };
    let payload = json!({"record": record.kind, "at_ms": record.at_ms, "data": data});
    let of = |event: HookEvent| {
        let told = Invocation::of_record(event, &subject(event, record, &body), payload.clone(), record.seq);
        told.about(record.session.clone(), record.run, body.get("agent").and_then(Value::as_str))
    };
    events.iter().filter(|event| applies(**event, &body)).map(|event| of(*event)).collect()
}

fn events(record: &Record) -> Option<&'static [HookEvent]> {
    use HookEvent as E;
    Some(match record.kind.as_str() {
        "session.created" => &[E::SessionStart, E::SubagentStart],
        "session.ended" => &[E::SessionEnd],
        "run.started" => &[E::UserPromptSubmit],
        "run.completed" => &[E::Stop],
        "run.failed" => &[E::StopFailure],
        "permission.decided" => &[E::PermissionDenied],
        "tool_call.started" => &[E::PreToolUse],
        "tool_call.finished" => &[E::PostToolUse, E::PostToolUseFailure],
        "approval.requested" => &[E::PermissionRequest, E::Notification],
        "question.asked" => &[E::Notification],
        "context.compacted" => &[E::PreCompact, E::PostCompact],
        "task.created" | "task.started" => &[E::TaskCreated],
        "task.finished" | "task.updated" => &[E::TaskCompleted],
        "runtime.changed" => &[E::ConfigChange],
        _ => return None,
    })
}

/// Whether a record of the kind is one of the event's.
fn applies(event: HookEvent, body: &Map<String, Value>) -> bool {
    let is = |name: &str, value: &str| body.get(name).and_then(Value::as_str) == Some(value);
    match event {
        HookEvent::SubagentStart => body.get("parent").is_some_and(|parent| !parent.is_null()),
        HookEvent::PermissionDenied => is("decision", "deny"),
        HookEvent::PostToolUse => is("outcome", "ok"),
        // One that never ran has not failed.
        HookEvent::PostToolUseFailure => !is("outcome", "ok") && !is("outcome", "denied"),
        // A background command ends once; an item of a list when it is done.
        HookEvent::TaskCompleted => {
            let status = body.get("status").and_then(Value::as_str);
            status.is_some_and(|status| !matches!(status, "pending" | "in_progress" | "blocked"))
        }
        _ => true,
    }
}

/// What a matcher is compared with.
fn subject(event: HookEvent, record: &Record, body: &Map<String, Value>) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_string();
    match event {
        HookEvent::PreToolUse
        | HookEvent::PostToolUse
        | HookEvent::PostToolUseFailure
        | HookEvent::PermissionRequest
        | HookEvent::PermissionDenied => text(body.get("tool")),
        HookEvent::PreCompact | HookEvent::PostCompact => text(body.get("trigger")),
        HookEvent::StopFailure => text(body.get("error").and_then(|error| error.get("code"))),
        HookEvent::TaskCreated | HookEvent::TaskCompleted => text(body.get("id")),
        HookEvent::Notification => record.kind.split('.').next().unwrap_or_default().to_string(),
        HookEvent::ConfigChange => text(body.get("setting")),
        HookEvent::UserPromptSubmit
        | HookEvent::Stop
        | HookEvent::SessionStart
        | HookEvent::SessionEnd
        | HookEvent::SubagentStart => record.session.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;

    fn record(kind: &str, body: Value) -> Record {
        Record {
            seq: 7,
            at_ms: 5,
            kind: kind.to_string(),
            session: Some(SessionId::parse("ops").unwrap()),
            run: None,
            session_prev: 0,
            run_prev: 0,
            run_first: 0,
            by: None,
            body: serde_json::value::to_raw_value(&body).unwrap(),
            batch: None,
        }
    }

    fn shown(kind: &str, body: Value) -> Vec<(HookEvent, String)> {
        told(&record(kind, body)).into_iter().map(|told| (told.of, told.subject)).collect()
    }

    #[test]
    fn each_record_tells_of_its_events_and_of_no_other() {
        use HookEvent as E;
        let of = |event, subject: &str| vec![(event, subject.to_string())];
        assert_eq!(shown("session.created", json!({"agent": "agent-1"})), of(E::SessionStart, "ops"));
        let child = json!({"agent": "agent-2", "parent": {"session": "top"}});
        let both = vec![(E::SessionStart, "ops".to_string()), (E::SubagentStart, "ops".to_string())];
        assert_eq!(shown("session.created", child), both);
        assert_eq!(shown("tool_call.finished", json!({"tool": "bash", "outcome": "ok"})), of(E::PostToolUse, "bash"));
        let late = json!({"tool": "bash", "outcome": "timed_out"});
        assert_eq!(shown("tool_call.finished", late), of(E::PostToolUseFailure, "bash"));
        assert!(shown("tool_call.finished", json!({"tool": "bash", "outcome": "denied"})).is_empty());
        assert_eq!(shown("permission.decided", json!({"tool": "x", "decision": "deny"})), of(E::PermissionDenied, "x"));
        assert!(shown("permission.decided", json!({"tool": "x", "decision": "allow"})).is_empty());
        assert_eq!(shown("run.failed", json!({"error": {"code": "tool_loop"}})), of(E::StopFailure, "tool_loop"));
        assert_eq!(shown("question.asked", json!({"id": "q"})), of(E::Notification, "question"));
        assert!(shown("task.updated", json!({"id": "task-1", "title": "x"})).is_empty());
        assert_eq!(shown("task.updated", json!({"id": "t", "status": "completed"})), of(E::TaskCompleted, "t"));
        for quiet in ["hook.notified", "external_action.request", "journal.seal", "message.appended"] {
            assert!(shown(quiet, json!({})).is_empty(), "{quiet}: a hook must not be told of its own calls");
        }
    }

    #[test]
    fn a_change_of_the_configuration_is_told_without_what_it_holds() {
        let body = json!({"revision": 4, "source": "runtime_api", "setting": "hooks", "value": {"secret": "canary"}});
        let all = told(&record("runtime.changed", body));
        let bytes = String::from_utf8(all[0].bytes()).unwrap();
        assert!(bytes.contains("\"setting\":\"hooks\"") && !bytes.contains("canary"), "{bytes}");
    }
}
