//! May this call run? The engine's use of the permissions room.
//! Owns: the settings in force as the engine asks for them, the digest that an approval is bound to, and the record.
//! Never: remembers a decision; each call is decided anew when it is about to run.

use ring::digest::{Context, SHA256};
use serde_json::Value;
use serde_json::value::RawValue;

use super::programs;
use crate::core::{PermissionDecided, Ruling, ToolLimits};
use crate::hex::to_hex;
use crate::ids::SessionId;
use crate::permissions::{Behavior, Effective, Facts, Policy, Question, Verdict};
use crate::providers::ToolCall;
use crate::tools::{Class, Tool, ToolDef};

/// Settings of a session as they are now.
#[derive(Debug, Clone, Default)]
pub struct InForce {
    /// Rules, the session's own among them.
    pub policy: Policy,
    /// The permission mode.
    pub mode: Effective,
    /// System prompt.
    pub instructions: Option<String>,
    /// Bounds of tools.
    pub limits: ToolLimits,
    /// Milliseconds after which an open approval counts as denied.
    pub approval_expires_after_ms: Option<u64>,
    /// What holds for the agents above, nearest first: no call is decided more generously than for them.
    pub above: Vec<(Policy, Effective)>,
}

/// Where settings come from.
pub trait Settings: Send + Sync {
    /// Those of a session, now. `None` is the daemon's own.
    fn in_force(&self, session: &SessionId) -> InForce;
}

/// Settings that never change, for a daemon without any and for tests.
impl Settings for InForce {
    fn in_force(&self, _session: &SessionId) -> InForce {
        self.clone()
    }
}

/// What an answer to an approval is bound to: what would run, where, by which programs and under which rules. The mode is
/// left out: it is looked at again whenever a call is about to run. `programs` is what [`super::programs::of`] says of a call
/// that people are asked about.
pub(super) fn digest(tool: &str, input: &RawValue, workspace: &str, policy: &Policy, programs: &str) -> String {
    let canonical = serde_json::from_str::<Value>(input.get()).map(|value| value.to_string());
    let mut context = Context::new(&SHA256);
    let revision = policy.revision().to_string();
    let input = canonical.as_deref().unwrap_or(input.get());
    for part in ["kheish-call-v2", env!("CARGO_PKG_VERSION"), tool, workspace, &revision, input, programs] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    to_hex(context.finish().as_ref())
}

/// The digest that people are asked about: with the programs that a command names, since they may be replaced meanwhile.
pub(super) fn bound_digest(tool: &Tool, input: &RawValue, workspace: &str, policy: &Policy) -> String {
    let programs = if tool.def().class == Class::Shell { programs::of(input, workspace) } else { String::new() };
    digest(&tool.identity(), input, workspace, policy, &programs)
}

/// What rules and mode say to a call.
pub(super) fn verdict(in_force: &InForce, def: &ToolDef, input: &RawValue, workspace: &str) -> Verdict {
    let facts = Facts::of_name(def.name);
    let decide = |policy: &Policy, mode| {
        policy.decide(&Question { tool: def.name, facts, input, mode, workspace_root: workspace })
    };
    let own = decide(&in_force.policy, in_force.mode);
    in_force.above.iter().map(|(policy, mode)| decide(policy, *mode)).fold(own, |strictest, above| {
        // `Deny` is the least.
        if above.decision < strictest.decision { above } else { strictest }
    })
}

/// As [`verdict`], held to what rules say of the servers that the call reaches as well.
pub(super) fn verdict_of(in_force: &InForce, tool: &Tool, input: &RawValue, workspace: &str) -> Verdict {
    let def = tool.def();
    let of_servers = tool.also_known_as(input);
    let spoken_of = of_servers
        .iter()
        .map(|name| verdict(in_force, &ToolDef { name, ..def }, input, workspace))
        // Without a rule about the server only the tool's own rule counts.
        .filter(|verdict| verdict.matched_rule_pattern.is_some());
    spoken_of.fold(verdict(in_force, &def, input, workspace), |strictest, other| {
        if other.decision < strictest.decision { other } else { strictest }
    })
}

pub(super) fn ruling(behavior: Behavior) -> Ruling {
    match behavior {
        Behavior::Allow => Ruling::Allow,
        Behavior::Ask => Ruling::Ask,
        Behavior::Deny => Ruling::Deny,
    }
}

fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The record of a decision. `approval` is the one asked for, or the one that turned an ask into `decision`.
pub(super) fn record(
    call: &str,
    def: &ToolDef,
    verdict: &Verdict,
    decision: Ruling,
    approval: Option<String>,
) -> PermissionDecided {
    PermissionDecided {
        call: call.to_string(),
        tool: def.name.to_string(),
        decision,
        base_decision: ruling(verdict.base_decision),
        effective_mode: verdict.effective_mode.as_str().to_string(),
        mode_effect: verdict.mode_effect.map(str::to_string),
        matched_rule_pattern: verdict.matched_rule_pattern.clone(),
        matched_rule_origin: verdict.matched_rule_origin.as_ref().map(word),
        scope: verdict.scope.as_str().to_string(),
        reason: verdict.reason.clone(),
        approval,
    }
}

/// What stands before rules and modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bar {
    /// What the agent was given.
    AgentScope,
    /// The operator's limits of tools.
    Limits,
}

/// The record of a call that did not come as far as the rules.
pub(super) fn barred(call: &ToolCall, in_force: &InForce, bar: Bar, reason: String) -> PermissionDecided {
    PermissionDecided {
        call: call.call_id.clone(),
        tool: call.name.clone(),
        decision: Ruling::Deny,
        base_decision: Ruling::Deny,
        effective_mode: in_force.mode.mode.as_str().to_string(),
        mode_effect: None,
        matched_rule_pattern: None,
        matched_rule_origin: None,
        scope: match bar {
            Bar::AgentScope => "agent_scope",
            Bar::Limits => "tool_limits",
        }
        .to_string(),
        reason: Some(reason),
        approval: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions::{Rule, RuleScope};

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_string()).unwrap()
    }

    #[test]
    fn a_digest_changes_with_tool_arguments_place_rules_and_programs_and_not_with_spelling() {
        let none = Policy::default();
        let rule = Rule {
            scope: RuleScope::User,
            tool_name_pattern: "bash".to_string(),
            argument: None,
            behavior: Behavior::Ask,
            reason: None,
        };
        let some = Policy::new(&[rule]).unwrap();
        let base = digest("bash", &raw(r#"{"a":1,"b":2}"#), "/w", &none, "p");
        assert_eq!(base, digest("bash", &raw(r#"{ "b":2, "a":1 }"#), "/w", &none, "p"));
        let others = [
            digest("bas", &raw(r#"{"a":1,"b":2}"#), "h/w", &none, "p"),
            digest("bash", &raw(r#"{"a":1,"b":3}"#), "/w", &none, "p"),
            digest("bash", &raw(r#"{"a":1,"b":2}"#), "/x", &none, "p"),
            digest("bash", &raw(r#"{"a":1,"b":2}"#), "/w", &some, "p"),
            digest("bash", &raw(r#"{"a":1,"b":2}"#), "/w", &none, "q"),
        ];
        assert!(others.iter().all(|other| *other != base));
    }
}
