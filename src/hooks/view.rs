//! What status, doctor and the runtime view show of hooks.
//! Owns: figures, findings about definitions, and the form of the settings without what they call.
//! Never: shows a command or a whole URL.

use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::{Value, json};

use super::Hooks;
use super::definition::{Executor, Hook};
use super::notify::is_held;
use crate::broker::{Provider, RouteAuthState, SubjectId};
use crate::core::HookDeadLetter;
use crate::net::Target;

/// Something to know about the hooks in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookDiagnostic {
    /// `info`, `warning` or `error`.
    pub severity: &'static str,
    /// Stable word.
    pub code: &'static str,
    /// `<event>:<name>`; absent where it is about all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// What it is.
    pub message: String,
    /// What helps.
    pub action: String,
}

/// The host behind an HTTP hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookTarget {
    /// `<event>:<name>`.
    pub hook: String,
    /// As it is written.
    pub host: String,
    /// `ok`, `warning` (not known) or `error` (a call would be refused).
    pub state: &'static str,
    /// Why it is not ok.
    pub message: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// When it was looked up, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at_ms: Option<u64>,
}

/// Everything that status shows.
#[derive(Debug, Clone, Default)]
pub struct HooksFigures {
    /// Definitions, usable or not.
    pub configured: u64,
    /// Those that cannot be used.
    pub invalid: u64,
    /// Calls that gave an outcome.
    pub executions: u64,
    /// Calls that came to nothing.
    pub failures: u64,
    /// Further attempts.
    pub retries: u64,
    /// Failures that could not be kept.
    pub persist_failures: u64,
    /// Failures ever kept.
    pub dead_lettered: u64,
    /// Those that nobody has settled.
    pub unresolved: u64,
    /// The newest of them all.
    pub last: Option<(u64, String)>,
    /// The newest that nobody has settled.
    pub last_unresolved: Option<(u64, String)>,
    /// Nobody is told of anything.
    pub held: bool,
    /// Records that hooks were not yet told of, if any are to be told.
    pub lag_records: u64,
    /// Findings about the definitions.
    pub diagnostics: Vec<HookDiagnostic>,
    /// Hosts of HTTP hooks.
    pub targets: Vec<HookTarget>,
}

const REPLACE: &str = "kheish-daemon runtime hooks get; replace them with runtime hooks set --file";

impl Hook {
    /// `<event>:<name>`, as findings name it.
    pub fn label(&self) -> String {
        format!("{}:{}", self.event.as_str(), self.name)
    }
}

impl Hooks {
    /// What status shows, from what is known already.
    pub fn figures(&self) -> HooksFigures {
        let (view, compiled) = (self.0.around.core.view(), self.compiled());
        let (ledger, definitions) = (&view.hooks, &compiled.definitions);
        let counters = &self.0.around.counters;
        let named = |letter: &std::sync::Arc<HookDeadLetter>| (letter.at_ms, letter.failure.hook_name.clone());
        let unreadable = u64::from(definitions.unreadable.is_some());
        let tells = definitions.hooks.iter().any(|hook| !hook.blocking);
        let progress = &ledger.progress;
        HooksFigures {
            configured: (definitions.hooks.len() + definitions.broken.len()) as u64 + unreadable,
            invalid: definitions.broken.len() as u64 + unreadable,
            executions: counters.executions.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
            persist_failures: counters.persist_failures.load(Ordering::Relaxed),
            dead_lettered: ledger.dead_lettered_count,
            unresolved: ledger.unresolved().count() as u64 + ledger.dropped_unresolved_count,
            last: ledger.dead_letters.back().map(named),
            last_unresolved: ledger.unresolved().next_back().map(named),
            held: is_held(&view) && tells,
            lag_records: if tells { view.committed.saturating_sub(progress.through.max(progress.at)) } else { 0 },
            diagnostics: self.diagnostics(),
            targets: self.targets(),
        }
    }

    fn targets(&self) -> Vec<HookTarget> {
        let compiled = self.compiled();
        let of = |hook: &std::sync::Arc<Hook>| {
            let Executor::Http { target, .. } = &hook.executor else { return None };
            Some(self.0.look.target(&hook.digest).unwrap_or_else(|| HookTarget {
                hook: hook.label(),
                host: target.host_and_port().map(|(host, _)| host.to_string()).unwrap_or_default(),
                state: "warning",
                message: "its name was not looked up yet".to_string(),
                action: Some("ask again in a moment".to_string()),
                checked_at_ms: None,
            }))
        };
        compiled.definitions.hooks.iter().filter_map(of).collect()
    }

    fn diagnostics(&self) -> Vec<HookDiagnostic> {
        let compiled = self.compiled();
        let definitions = &compiled.definitions;
        let mut found = Vec::new();
        let mut add = |severity, code, hook: Option<String>, message: String, action: &str| {
            found.push(HookDiagnostic { severity, code, hook, message, action: action.to_string() });
        };
        if let Some(problem) = &definitions.unreadable {
            let message = format!("{problem}. Everything that a hook can hold up is stopped");
            add("error", problem.code, None, message, REPLACE);
        }
        for broken in &definitions.broken {
            let ends = if broken.blocks { ". What it should decide is stopped" } else { "" };
            let hook = Some(format!("{}:{}", broken.event, broken.name));
            add("error", broken.problem.code, hook, format!("{}{ends}", broken.problem), REPLACE);
        }
        match self.0.look.file() {
            Some(Err(error)) => {
                let action = "correct the file of --hooks-config, or restore it";
                add("error", "hooks_file_invalid", None, format!("{error}. The next start will refuse it"), action);
            }
            Some(Ok(_)) => {
                let message = "the file of --hooks-config was changed; the next start takes it".to_string();
                let action = "restart the daemon, or runtime hooks set --file";
                add("warning", "hooks_file_changed", None, message, action);
            }
            None => {}
        }
        let sandbox = self.0.around.sandbox.report();
        let workspace = self.0.around.workspace.display().to_string();
        for hook in &definitions.hooks {
            for slot in hook.slots() {
                let auth = self.0.around.broker.route_auth(slot, Provider::Generic);
                if auth.state == RouteAuthState::Error {
                    let action = auth.action.as_deref().unwrap_or("kheish-daemon secrets list");
                    add("error", "secret_unavailable", Some(hook.label()), auth.message, action);
                }
            }
            let subject = SubjectId::hook(&hook.name);
            if hook.slots().next().is_some() && self.0.around.broker.is_subject_revoked(&subject) {
                let message = format!("{subject} was revoked, so it has no credential");
                let action = format!("kheish-daemon runtime auth reinstate-subject {subject}");
                add("error", "subject_revoked", Some(hook.label()), message, &action);
            }
            let Executor::Command { command, .. } = &hook.executor else { continue };
            if !sandbox.usable {
                let message = "commands have no sandbox here, so it cannot be called".to_string();
                add("error", "sandbox_unavailable", Some(hook.label()), message, "kheish-daemon status");
            }
            if command.contains(&workspace) || command.contains("$KHEISH_WORKSPACE") {
                let message = "its command names the workspace, where models can write".to_string();
                let action = "keep scripts of hooks outside of it, below a --sandbox-read-only-path";
                add("warning", "command_in_workspace", Some(hook.label()), message, action);
            }
        }
        found
    }
}

/// A document of hooks without what they call: events, names, matchers and policies stay.
pub fn redacted(document: &Value) -> Value {
    const GONE: &str = "<redacted>";
    let Some(events) = document.get("hooks").and_then(Value::as_object) else { return json!(GONE) };
    let executor = |executor: &Value| {
        let kind = executor.get("type").and_then(Value::as_str).unwrap_or(GONE);
        let mut shown = json!({"type": kind});
        if let Some(limit) = executor.get("timeout_ms").and_then(Value::as_u64) {
            shown["timeout_ms"] = limit.into();
        }
        if executor.get("command").is_some() {
            shown["command"] = GONE.into();
        }
        if let Some(url) = executor.get("url").and_then(Value::as_str) {
            shown["url"] = match Target::parse(url) {
                Ok(target) => {
                    let scheme = if target.is_https() { "https" } else { "http" };
                    let place =
                        target.host_and_port().map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
                    format!("{scheme}://{place}/{GONE}").into()
                }
                Err(_) => "<redacted-invalid-url>".into(),
            };
        }
        for credential in ["auth", "signature"] {
            if executor.get(credential).is_some() {
                shown[credential] = json!({"configured": true});
            }
        }
        shown
    };
    let hook = |hook: &Value| {
        let mut shown = serde_json::Map::new();
        for kept in ["name", "matcher", "blocking", "failure_policy"] {
            if let Some(value) = hook.get(kept).filter(|value| value.to_string().len() <= 512) {
                shown.insert(kept.to_string(), value.clone());
            }
        }
        shown.insert("executor".to_string(), hook.get("executor").map_or_else(|| json!(GONE), executor));
        Value::Object(shown)
    };
    let of = |hooks: &Value| hooks.as_array().map_or_else(|| json!(GONE), |hooks| hooks.iter().map(hook).collect());
    let shown: serde_json::Map<String, Value> =
        events.iter().map(|(event, hooks)| (event.clone(), of(hooks))).collect();
    json!({"hooks": shown})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_form_has_no_command_no_path_and_no_slot() {
        let document = json!({"hooks": {"pre_tool_use": [
            {"name": "guard", "matcher": "bash", "failure_policy": {"mode": "closed"},
                "executor": {"type": "command", "command": "canary", "timeout_ms": 9}},
            {"name": "told", "executor": {"type": "http", "url": "https://h.example/canary?canary",
                "auth": {"secret_ref": "canary"}, "signature": {"secret_ref": "canary"}}},
            {"name": "odd", "executor": {"type": "http", "url": "canary"}},
            "canary"]}});
        let shown = redacted(&document);
        assert!(!shown.to_string().contains("canary"), "{shown}");
        assert_eq!(
            shown["hooks"]["pre_tool_use"][0],
            json!({"name": "guard", "matcher": "bash", "failure_policy": {"mode": "closed"},
                "executor": {"type": "command", "timeout_ms": 9, "command": "<redacted>"}})
        );
        assert_eq!(shown["hooks"]["pre_tool_use"][1]["executor"]["url"], "https://h.example:443/<redacted>");
        assert_eq!(redacted(&json!([])), json!("<redacted>"));
    }
}
