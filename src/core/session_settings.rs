//! What one session has of its own: permission mode, permission rules, route and model, shapes of input and output.
//! Owns: the settings with their checks, and the fold of `session.updated`.
//! Never: decides what holds where a session says nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::delivery::RunReplyTarget;
use super::runtime_config::RuntimeInvalid;
use crate::limits::{LABEL_BYTES_MAX, OUTPUT_SCHEMA_BYTES_MAX, PERMISSION_SESSION_RULES_MAX, REPLY_TARGETS_MAX};
use crate::permissions::{Mode, Policy, Rule, RuleScope};

/// A session's own settings. Most sessions have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSettings {
    /// Permission mode, instead of the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<Mode>,
    /// Permission rules, besides the daemon's; all of scope `session`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permission_rules: Vec<Rule>,
    /// Route and model of runs that name none, instead of the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_policy: Option<RoutePolicy>,
    /// The shape that input is held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_contract: Option<InputContract>,
    /// The shape that answers of runs are held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_contract: Option<OutputContract>,
    /// Where the output of its later runs goes, if they name no targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reply_targets: Vec<RunReplyTarget>,
}

/// The shape of a session's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputContract {
    /// JSON Schema, checked by whoever sets it.
    pub schema: Value,
}

/// The shape of the answers of a session's runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputContract {
    /// JSON Schema, checked by whoever sets it.
    pub schema: Value,
    /// How often an answer that does not fit is sent back.
    pub max_repair_attempts: u32,
}

/// Route and model of a session's runs that name none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePolicy {
    /// Route id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_id: Option<String>,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Body of `session.updated`: one setting and its new value, null where the session has none of its own any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "setting", content = "value", rename_all = "snake_case")]
pub enum SessionChange {
    /// The permission mode.
    PermissionMode(Option<Mode>),
    /// All permission rules.
    PermissionRules(Vec<Rule>),
    /// Route and model.
    RoutePolicy(Option<RoutePolicy>),
    /// The shape of input.
    InputContract(Option<InputContract>),
    /// The shape of answers.
    OutputContract(Option<OutputContract>),
    /// All reply targets.
    ReplyTargets(Vec<RunReplyTarget>),
}

impl SessionChange {
    /// Whether it only takes away what the session's runs may do.
    pub(super) fn is_containment(&self) -> bool {
        matches!(self, Self::PermissionMode(Some(Mode::DontAsk | Mode::Plan)))
    }

    /// Checks the change before it is recorded.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), RuntimeInvalid> {
        match self {
            Self::PermissionMode(_)
            | Self::RoutePolicy(None)
            | Self::InputContract(None)
            | Self::OutputContract(None) => Ok(()),
            Self::InputContract(Some(contract)) => check_schema(&contract.schema),
            Self::OutputContract(Some(contract)) => check_schema(&contract.schema),
            Self::PermissionRules(rules) => check_rules(rules),
            Self::ReplyTargets(targets) if targets.len() > REPLY_TARGETS_MAX => {
                Err(RuntimeInvalid::Text { field: "reply_targets", bytes_max: REPLY_TARGETS_MAX })
            }
            Self::ReplyTargets(_) => Ok(()),
            Self::RoutePolicy(Some(policy)) => {
                for (field, text) in [("route_id", &policy.route_id), ("model", &policy.model)] {
                    let legal = |text: &String| {
                        !text.is_empty() && text.len() <= LABEL_BYTES_MAX && !text.contains(char::is_control)
                    };
                    if !text.as_ref().is_none_or(legal) {
                        return Err(RuntimeInvalid::Text { field, bytes_max: LABEL_BYTES_MAX });
                    }
                }
                Ok(())
            }
        }
    }
}

fn check_schema(schema: &Value) -> Result<(), RuntimeInvalid> {
    match schema.to_string().len() <= OUTPUT_SCHEMA_BYTES_MAX {
        true => Ok(()),
        false => Err(RuntimeInvalid::Text { field: "schema", bytes_max: OUTPUT_SCHEMA_BYTES_MAX }),
    }
}

fn check_rules(rules: &[Rule]) -> Result<(), RuntimeInvalid> {
    if rules.len() > PERMISSION_SESSION_RULES_MAX {
        let cause = format!("{} rules are more than {PERMISSION_SESSION_RULES_MAX}; next: merge some", rules.len());
        return Err(RuntimeInvalid::Rules(cause));
    }
    if rules.iter().any(|rule| rule.scope != RuleScope::Session) {
        let cause = "a session's rules are of scope session; next: correct their scope, or put them with the runtime";
        return Err(RuntimeInvalid::Rules(cause.to_string()));
    }
    Policy::new(rules).map(|_| ()).map_err(|error| RuntimeInvalid::Rules(error.to_string()))
}

impl SessionSettings {
    pub(super) fn apply(&mut self, change: &SessionChange) {
        match change.clone() {
            SessionChange::PermissionMode(mode) => self.permission_mode = mode,
            SessionChange::PermissionRules(rules) => self.permission_rules = rules,
            SessionChange::RoutePolicy(policy) => self.route_policy = policy,
            SessionChange::InputContract(contract) => self.input_contract = contract,
            SessionChange::OutputContract(contract) => self.output_contract = contract,
            SessionChange::ReplyTargets(targets) => self.reply_targets = targets,
        }
    }
}
