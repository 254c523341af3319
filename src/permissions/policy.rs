//! The decision: rules and mode, applied to one call.
//! Owns: the order of rules, and everything that the audit record says of a decision.
//! Never: depends on the order in which rules were written.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::value::RawValue;

use super::arguments::Arguments;
use super::facts::Facts;
use super::mode::{Behavior, Effective, Mode};
use super::path::Path;
use super::rule::{Compiled, Rule, RuleError, RuleScope};

/// The rules in force. Cheap to clone.
#[derive(Clone)]
pub struct Policy {
    rules: Arc<[Compiled]>,
    revision: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("rules", &self.rules.len()).field("revision", &self.revision).finish()
    }
}

/// One call of a tool.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// What is known of it.
    pub facts: Facts,
    /// Its arguments, as the model wrote them.
    pub input: &'a RawValue,
    /// The mode in force.
    pub mode: Effective,
    /// Absolute path of the workspace that relative patterns begin at.
    pub workspace_root: &'a str,
    /// Absolute path that the call's relative paths begin at: the workspace, or the part of it that a child agent has.
    pub base: &'a str,
}

/// Where the rule behind a decision comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Configured, or a tool's default.
    Static,
    /// A hook changed the session's rules.
    HookUpdate,
}

/// A decision with what its audit record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What is to happen.
    pub decision: Behavior,
    /// What the rules alone say.
    pub base_decision: Behavior,
    /// The mode that was applied.
    pub effective_mode: Mode,
    /// What the mode did, if it had a say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode_effect: Option<&'static str>,
    /// Scope of the rule that decided; `session` for a default.
    pub scope: RuleScope,
    /// Tool pattern of that rule; absent when the tool's default decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_rule_pattern: Option<String>,
    /// Where that rule comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_rule_origin: Option<Origin>,
    /// Why, for people and for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule as a whole.
    #[serde(skip)]
    pub matched_rule: Option<Rule>,
}

impl Policy {
    /// Rules in force, checked.
    ///
    /// # Errors
    /// One cannot be used, or two of one scope have the same target.
    pub fn new(rules: &[Rule]) -> Result<Self, RuleError> {
        let compiled = rules.iter().map(Rule::compile).collect::<Result<Vec<_>, _>>()?;
        for (at, rule) in compiled.iter().enumerate() {
            let twin =
                compiled[..at].iter().any(|other| other.rule.scope == rule.rule.scope && other.same_target(rule));
            if twin {
                return Err(RuleError::Repeated { tool_name_pattern: rule.rule.tool_name_pattern.clone() });
            }
        }
        Ok(Self::of(compiled))
    }

    /// The same with a session's own rules added.
    ///
    /// # Errors
    /// As [`Policy::new`].
    pub fn with_session(&self, rules: &[Rule]) -> Result<Self, RuleError> {
        if rules.is_empty() {
            return Ok(self.clone());
        }
        let session = Self::new(rules)?;
        Ok(Self::of(self.rules.iter().chain(session.rules.iter()).cloned().collect()))
    }

    fn of(compiled: Vec<Compiled>) -> Self {
        let mut lines: Vec<String> = compiled
            .iter()
            .map(|rule| {
                let Rule { scope, tool_name_pattern, argument, behavior, reason: _ } = &rule.rule;
                format!("{scope:?} {tool_name_pattern:?} {argument:?} {behavior:?}\n")
            })
            .collect();
        lines.sort_unstable();
        let hash = digest(&SHA256, lines.concat().as_bytes());
        let revision = u64::from_be_bytes(hash.as_ref()[..8].try_into().expect("a digest has 32 bytes"));
        Self { rules: compiled.into(), revision }
    }

    /// A number that changes with the rules and with nothing else: equal rules have the same, in any order.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Decides a call. Total: every call gets a verdict.
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        let workspace = Path::absolute(question.workspace_root);
        let base = Path::absolute(question.base);
        let arguments = Arguments::read(question.tool, question.input, base.as_ref());
        let matching: Vec<&Compiled> =
            self.rules.iter().filter(|rule| rule.matches(question.tool, &arguments, workspace.as_ref())).collect();
        let that = |behavior: Behavior| matching.iter().copied().filter(move |rule| rule.rule.behavior == behavior);
        let standing =
            that(Behavior::Ask).filter(|ask| !that(Behavior::Allow).any(|allow| allow.is_narrower_than(ask)));
        let decisive = most_specific(that(Behavior::Deny))
            .or_else(|| most_specific(standing))
            .or_else(|| most_specific(that(Behavior::Allow)));
        let base = decisive.map_or(question.facts.default, |rule| rule.rule.behavior);
        let (decision, mode_effect) = question.mode.apply(base, question.facts);
        Verdict {
            decision,
            base_decision: base,
            effective_mode: question.mode.mode,
            mode_effect,
            scope: decisive.map_or(RuleScope::Session, |rule| rule.rule.scope),
            matched_rule_pattern: decisive.map(|rule| rule.rule.tool_name_pattern.clone()),
            matched_rule_origin: decisive.map(|_| Origin::Static),
            reason: reason(question, base, decision, mode_effect, decisive),
            matched_rule: decisive.map(|rule| rule.rule.clone()),
        }
    }
}

fn most_specific<'a>(rules: impl Iterator<Item = &'a Compiled>) -> Option<&'a Compiled> {
    // Two of the same specificity differ in their text, so the choice does not depend on the order.
    rules.max_by(|one, other| {
        let key = |rule: &Compiled| (rule.specificity(), rule.rule.tool_name_pattern.clone());
        key(one).cmp(&key(other)).then_with(|| format!("{:?}", one.rule).cmp(&format!("{:?}", other.rule)))
    })
}

/// Words for a call that does not simply go ahead.
fn reason(
    question: &Question<'_>,
    base: Behavior,
    decision: Behavior,
    mode_effect: Option<&str>,
    decisive: Option<&Compiled>,
) -> Option<String> {
    let tool = question.tool;
    if decision != base && decision == Behavior::Deny {
        let why = if mode_effect == Some(super::mode::DONT_ASK_DENIED) {
            "it would need an approval, and the permission mode is dontAsk"
        } else {
            "the permission mode is plan, which lets only reading and coordinating tools through"
        };
        return Some(format!("{tool} was refused: {why}"));
    }
    let by_rule = decisive.and_then(|rule| rule.rule.reason.clone());
    match (base, by_rule, decisive) {
        (_, Some(reason), _) => Some(reason),
        (Behavior::Deny, None, Some(rule)) => Some(format!("{tool} is denied by a {} rule", rule.rule.scope.as_str())),
        (Behavior::Ask, None, Some(rule)) => {
            Some(format!("{tool} needs an approval by a {} rule", rule.rule.scope.as_str()))
        }
        (Behavior::Ask, None, None) => Some(format!("{tool} needs an approval by default")),
        (Behavior::Deny, None, None) => Some(format!("{tool} is denied by default")),
        (Behavior::Allow, None, _) => None,
    }
}
