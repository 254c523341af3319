//! Runtime configuration: what an operator changes while the daemon runs, as numbered revisions.
//! Owns: the settings with their checks and defaults, the bounded history, and the fold of `runtime.changed`.
//! Never: knows whether a route exists or a model fits it; who holds the routes checks that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hooks::HooksSetting;
use crate::limits::{
    DEBUG_LEVEL_TTL_MS_MAX, DEBUG_TICKET_BYTES_MAX, LABEL_BYTES_MAX, PERMISSION_RULES_MAX, RUNTIME_HISTORY_MAX,
    RUNTIME_SETTINGS_BYTES_MAX, SYSTEM_PROMPT_BYTES_MAX, TOOL_CALLS_PER_TURN_MAX, TOOL_LIMIT_BYTES_MAX,
    TOOL_PARALLEL_MAX, TOOL_TIMEOUT_MS_MAX,
};
use crate::permissions::{Mode, Policy, Rule, RuleScope};

/// How much of a run's exchanges with providers and tools is kept for debugging. Later ones keep more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DebugLevel {
    /// Nothing.
    #[default]
    Off,
    /// Digests and sizes.
    On,
    /// Texts, with secrets removed and long texts cut.
    Redacted,
    /// Whole texts, with known secrets removed.
    Full,
}

impl DebugLevel {
    /// Wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Redacted => "redacted",
            Self::Full => "full",
        }
    }

    /// Reads a wire name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Off, Self::On, Self::Redacted, Self::Full].into_iter().find(|level| level.as_str() == text)
    }
}

/// The debug level with the window it was opened for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugSetting {
    /// The level as set. Use [`DebugSetting::at`] to learn what holds now.
    pub level: DebugLevel,
    /// When it was set, Unix milliseconds; absent as long as nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// When it ends by itself, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// The ticket that the window was opened for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

impl DebugSetting {
    /// The level in force at this time: off from the end of its window on, whether or not that is recorded yet.
    pub fn at(&self, now_ms: u64) -> DebugLevel {
        if self.is_over(now_ms) { DebugLevel::Off } else { self.level }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.level != DebugLevel::Off && self.until_ms.is_some_and(|until_ms| until_ms <= now_ms)
    }
}

/// Words that stand before a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemPrompt {
    /// Replaces everything else here and the daemon's own prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_prompt: Option<String>,
    /// Replaces the daemon's own prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_prompt: Option<String>,
    /// Follows whichever prompt there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_prompt: Option<String>,
    /// The language to answer in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The style to answer in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_style: Option<String>,
}

impl SystemPrompt {
    /// The prompt as a model gets it, given the daemon's own; `None` when there is nothing to say.
    pub fn render(&self, own: Option<&str>) -> Option<String> {
        if let Some(prompt) = &self.override_prompt {
            return Some(prompt.clone());
        }
        let language = self.language.as_ref().map(|language| format!("Answer in this language: {language}."));
        let style = self.output_style.as_ref().map(|style| format!("Answer in this style: {style}."));
        let parts = [
            self.custom_prompt.as_deref().or(own),
            language.as_deref(),
            style.as_deref(),
            self.append_prompt.as_deref(),
        ];
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("\n\n"))
    }
}

/// How far a tool may reach at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxSandbox {
    /// Read the workspace.
    ReadOnly,
    /// Change the workspace.
    WorkspaceWrite,
    /// Reach the network too.
    #[default]
    NetworkEnabled,
}

/// Bounds of tools, read when a group of calls begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolLimits {
    /// Arguments of one call.
    pub max_input_bytes: u64,
    /// Output of one call.
    pub max_output_bytes: u64,
    /// Result of one call with what is around the output.
    pub max_result_envelope_bytes: u64,
    /// Time of one call in milliseconds; a tool's own smaller limit stays.
    pub max_timeout_ms: u64,
    /// Calls at the same time in one run.
    pub max_parallel_tools: u64,
    /// Calls of one answer of a model.
    pub max_calls_per_turn: u64,
    /// Outputs of all calls of one answer together.
    pub max_cumulative_output_bytes: u64,
    /// Results of all calls of one answer together.
    pub max_cumulative_result_envelope_bytes: u64,
    /// How far a tool may reach.
    pub max_sandbox: MaxSandbox,
}

impl Default for ToolLimits {
    fn default() -> Self {
        Self {
            max_input_bytes: 16_777_216,
            max_output_bytes: 16_777_216,
            max_result_envelope_bytes: 25_165_824,
            max_timeout_ms: 180_000,
            max_parallel_tools: 16,
            max_calls_per_turn: 256,
            max_cumulative_output_bytes: 67_108_864,
            max_cumulative_result_envelope_bytes: 100_663_296,
            max_sandbox: MaxSandbox::NetworkEnabled,
        }
    }
}

/// Everything that can be changed while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The permission mode of sessions that have none of their own.
    pub permission_mode: Mode,
    /// Route of runs that name none; absent: the routes file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_id: Option<String>,
    /// Model of runs that name none; absent: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Words before every conversation.
    pub system_prompt: SystemPrompt,
    /// Bounds of tools.
    pub tool_limits: ToolLimits,
    /// What is kept for debugging.
    pub debug: DebugSetting,
    /// Permission rules of the scopes `user` and `project`.
    pub permission_rules: Vec<Rule>,
    /// MCP servers that are switched off or removed, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp_servers: BTreeMap<String, McpServerState>,
    /// Hooks; absent as long as nobody has set any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HooksSetting>,
}

/// What an operator has decided about an MCP server of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum McpServerState {
    /// It is used, as without any decision.
    Enabled,
    /// It is not, until it is enabled again.
    Disabled,
    /// It is not, and is left out of every list.
    Removed,
}

/// One change, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "setting", content = "value", rename_all = "snake_case")]
pub enum RuntimeChange {
    /// The permission mode.
    PermissionMode(Mode),
    /// Route and model of runs that name none.
    Model {
        /// Route id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        route_id: Option<String>,
        /// Model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// The debug level.
    DebugLevel(DebugSetting),
    /// The system prompt, as a whole.
    SystemPrompt(SystemPrompt),
    /// The tool limits, as a whole.
    ToolLimits(ToolLimits),
    /// All rules of the scopes `user` and `project`.
    PermissionRules(Vec<Rule>),
    /// Whether an MCP server is used.
    McpServer {
        /// Its name.
        server: String,
        /// What was decided.
        state: McpServerState,
    },
    /// All hooks.
    Hooks(HooksSetting),
    /// The settings of an earlier revision, but for the debug level, which no rollback raises again, and for MCP servers
    /// that were switched off.
    Rollback {
        /// Whose.
        of_revision: u64,
        /// What they were.
        settings: Box<Settings>,
    },
}

impl RuntimeChange {
    /// Name of what changed.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::PermissionMode(_) => "permission_mode",
            Self::Model { .. } => "model",
            Self::DebugLevel(_) => "debug_level",
            Self::SystemPrompt(_) => "system_prompt",
            Self::ToolLimits(_) => "tool_limits",
            Self::PermissionRules(_) => "permission_rules",
            Self::McpServer { .. } => "mcp_server",
            Self::Hooks(_) => "hooks",
            Self::Rollback { .. } => "rollback",
        }
    }

    fn apply(&self, settings: &mut Settings) {
        match self.clone() {
            Self::PermissionMode(mode) => settings.permission_mode = mode,
            Self::Model { route_id, model } => {
                settings.route_id = route_id;
                settings.model = model;
            }
            Self::DebugLevel(debug) => settings.debug = debug,
            Self::SystemPrompt(prompt) => settings.system_prompt = prompt,
            Self::ToolLimits(limits) => settings.tool_limits = limits,
            Self::PermissionRules(rules) => settings.permission_rules = rules,
            Self::McpServer { server, state: McpServerState::Enabled } => drop(settings.mcp_servers.remove(&server)),
            Self::McpServer { server, state } => drop(settings.mcp_servers.insert(server, state)),
            Self::Hooks(hooks) => settings.hooks = Some(hooks),
            Self::Rollback { settings: earlier, .. } => {
                let debug = std::mem::take(&mut settings.debug);
                let mcp_servers = std::mem::take(&mut settings.mcp_servers);
                let hooks = HooksSetting::rolled_back(settings.hooks.take(), earlier.hooks.clone());
                *settings = Settings { debug, mcp_servers, hooks, ..*earlier };
            }
        }
    }
}

/// Who made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeSource {
    /// Nobody: what holds without any change.
    Default,
    /// An API caller, whom the record names.
    RuntimeApi,
    /// The end of a window.
    Expiry,
    /// A file that the daemon was started with.
    File,
}

/// Body of `runtime.changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeChanged {
    /// Number of the revision that the change makes.
    pub revision: u64,
    /// Who made it.
    pub source: ChangeSource,
    /// What changed.
    #[serde(flatten)]
    pub change: RuntimeChange,
}

/// The settings after one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Counts up by one; 0 is what holds without any change.
    pub revision: u64,
    /// When it was made, Unix milliseconds; 0 for revision 0.
    pub updated_at_ms: u64,
    /// Who made it.
    pub source: ChangeSource,
    /// What it changed.
    pub setting: String,
    /// The revision whose settings it brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of_revision: Option<u64>,
    /// All settings.
    pub settings: Settings,
}

/// The configuration in force, its history, and what is derived from it. Shared, never changed in place.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    current: Arc<Revision>,
    /// Oldest first, without the current one.
    history: Vec<Arc<Revision>>,
    policy: Policy,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let current = Arc::new(Revision {
            revision: 0,
            updated_at_ms: 0,
            source: ChangeSource::Default,
            setting: "default".to_string(),
            rollback_of_revision: None,
            settings: Settings::default(),
        });
        Self { current, history: Vec::new(), policy: Policy::default() }
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeInvalid {
    /// A tool limit.
    ToolLimit {
        /// Which.
        field: &'static str,
        /// Its largest value.
        max: u64,
    },
    /// A text is too long, empty or has control characters.
    Text {
        /// Which.
        field: &'static str,
        /// Bytes at most.
        bytes_max: usize,
    },
    /// The window of a debug level.
    DebugWindow,
    /// The rules.
    Rules(String),
    /// All settings together are too large.
    Size,
}

impl fmt::Display for RuntimeInvalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToolLimit { field, max } => write!(f, "{field} is not between 1 and {max}; next: correct it"),
            Self::Text { field, bytes_max } => {
                write!(f, "{field} is empty, has control characters or more than {bytes_max} bytes; next: correct it")
            }
            Self::DebugWindow => write!(
                f,
                "ttl_ms is not between 1 and {DEBUG_LEVEL_TTL_MS_MAX}, or was given with the level off; next: correct \
                 or leave it out"
            ),
            Self::Rules(cause) => f.write_str(cause),
            Self::Size => write!(
                f,
                "all runtime settings together would have more than {RUNTIME_SETTINGS_BYTES_MAX} bytes; next: shorten \
                 prompts or rules"
            ),
        }
    }
}

impl std::error::Error for RuntimeInvalid {}

impl RuntimeConfig {
    /// The revision in force.
    pub fn current(&self) -> &Revision {
        &self.current
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.current.settings
    }

    /// Earlier revisions, oldest first; at most [`RUNTIME_HISTORY_MAX`].
    pub fn history(&self) -> &[Arc<Revision>] {
        &self.history
    }

    /// The permission rules in force, without any session's own.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// A revision by its number, if it is still kept.
    pub fn revision(&self, number: u64) -> Option<&Revision> {
        let kept = self.history.iter().find(|revision| revision.revision == number);
        kept.map(|revision| &**revision).or_else(|| Some(&*self.current).filter(|current| current.revision == number))
    }

    /// Whether the debug level's window has ended without a record of it.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.settings().debug.is_over(now_ms)
    }

    /// The configuration after one more change.
    ///
    /// # Errors
    /// The change does not follow the revision in force, or its rules cannot be used: another build wrote it.
    pub(super) fn after(&self, changed: &RuntimeChanged, at_ms: u64) -> Result<Self, String> {
        let before = &self.current;
        if changed.revision != before.revision + 1 {
            return Err(format!("runtime revision {} follows {}", changed.revision, before.revision));
        }
        let mut settings = before.settings.clone();
        changed.change.apply(&mut settings);
        let rules_changed = settings.permission_rules != before.settings.permission_rules;
        let policy = match rules_changed {
            true => Policy::new(&settings.permission_rules).map_err(|error| error.to_string())?,
            false => self.policy.clone(),
        };
        let mut history = self.history.clone();
        if history.len() == RUNTIME_HISTORY_MAX {
            history.remove(0);
        }
        history.push(before.clone());
        let current = Arc::new(Revision {
            revision: changed.revision,
            updated_at_ms: at_ms,
            source: changed.source,
            setting: changed.change.setting().to_string(),
            rollback_of_revision: match &changed.change {
                RuntimeChange::Rollback { of_revision, .. } => Some(*of_revision),
                _ => None,
            },
            settings,
        });
        Ok(Self { current, history, policy })
    }

    /// Revisions for a snapshot, oldest first, the one in force last.
    pub(super) fn revisions(&self) -> impl Iterator<Item = &Revision> {
        self.history.iter().chain([&self.current]).map(|revision| &**revision)
    }

    /// The configuration that these revisions, as of [`RuntimeConfig::revisions`], stand for.
    ///
    /// # Errors
    /// There is none, one does not follow the other, or the rules in force cannot be used.
    pub(super) fn restored(mut revisions: Vec<Revision>) -> Result<Self, String> {
        let gap = revisions.windows(2).find(|pair| pair[1].revision != pair[0].revision + 1);
        if let Some([before, after]) = gap {
            return Err(format!("runtime revision {} follows {}", after.revision, before.revision));
        }
        let current = Arc::new(revisions.pop().ok_or("there is no runtime revision")?);
        let policy = Policy::new(&current.settings.permission_rules).map_err(|error| error.to_string())?;
        Ok(Self { current, history: revisions.into_iter().map(Arc::new).collect(), policy })
    }
}

/// Checks one change before it is recorded, given the settings that it would be made to.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(change: &RuntimeChange, settings: &Settings) -> Result<(), RuntimeInvalid> {
    check_value(change)?;
    let mut after = settings.clone();
    change.apply(&mut after);
    let bytes = serde_json::to_vec(&after).map_or(usize::MAX, |json| json.len());
    if bytes > RUNTIME_SETTINGS_BYTES_MAX { Err(RuntimeInvalid::Size) } else { Ok(()) }
}

fn check_value(change: &RuntimeChange) -> Result<(), RuntimeInvalid> {
    match change {
        RuntimeChange::McpServer { server, .. } => label("server", &Some(server.clone())),
        RuntimeChange::PermissionMode(_) | RuntimeChange::Rollback { .. } | RuntimeChange::Hooks(_) => Ok(()),
        RuntimeChange::Model { route_id, model } => {
            label("route_id", route_id)?;
            label("model", model)
        }
        RuntimeChange::DebugLevel(debug) => text("ticket", &debug.ticket, DEBUG_TICKET_BYTES_MAX, false),
        RuntimeChange::SystemPrompt(prompt) => {
            text("override_prompt", &prompt.override_prompt, SYSTEM_PROMPT_BYTES_MAX, true)?;
            text("custom_prompt", &prompt.custom_prompt, SYSTEM_PROMPT_BYTES_MAX, true)?;
            text("append_prompt", &prompt.append_prompt, SYSTEM_PROMPT_BYTES_MAX, true)?;
            label("language", &prompt.language)?;
            label("output_style", &prompt.output_style)
        }
        RuntimeChange::ToolLimits(limits) => check_tool_limits(limits),
        RuntimeChange::PermissionRules(rules) => check_rules(rules),
    }
}

fn label(field: &'static str, value: &Option<String>) -> Result<(), RuntimeInvalid> {
    text(field, value, LABEL_BYTES_MAX, false)
}

fn text(field: &'static str, value: &Option<String>, bytes_max: usize, lines: bool) -> Result<(), RuntimeInvalid> {
    let legal = |text: &String| {
        let control = |c: char| c.is_control() && !(lines && matches!(c, '\n' | '\t' | '\r'));
        !text.is_empty() && text.len() <= bytes_max && !text.contains(control)
    };
    if value.as_ref().is_none_or(legal) { Ok(()) } else { Err(RuntimeInvalid::Text { field, bytes_max }) }
}

fn check_tool_limits(limits: &ToolLimits) -> Result<(), RuntimeInvalid> {
    for (field, value, max) in [
        ("max_input_bytes", limits.max_input_bytes, TOOL_LIMIT_BYTES_MAX),
        ("max_output_bytes", limits.max_output_bytes, TOOL_LIMIT_BYTES_MAX),
        ("max_result_envelope_bytes", limits.max_result_envelope_bytes, TOOL_LIMIT_BYTES_MAX),
        ("max_timeout_ms", limits.max_timeout_ms, TOOL_TIMEOUT_MS_MAX),
        ("max_parallel_tools", limits.max_parallel_tools, TOOL_PARALLEL_MAX),
        ("max_calls_per_turn", limits.max_calls_per_turn, TOOL_CALLS_PER_TURN_MAX),
        ("max_cumulative_output_bytes", limits.max_cumulative_output_bytes, TOOL_LIMIT_BYTES_MAX),
        ("max_cumulative_result_envelope_bytes", limits.max_cumulative_result_envelope_bytes, TOOL_LIMIT_BYTES_MAX),
    ] {
        if !(1..=max).contains(&value) {
            return Err(RuntimeInvalid::ToolLimit { field, max });
        }
    }
    Ok(())
}

fn check_rules(rules: &[Rule]) -> Result<(), RuntimeInvalid> {
    if rules.len() > PERMISSION_RULES_MAX {
        let cause = format!("{} rules are more than {PERMISSION_RULES_MAX}; next: merge some", rules.len());
        return Err(RuntimeInvalid::Rules(cause));
    }
    if rules.iter().any(|rule| rule.scope == RuleScope::Session) {
        let cause =
            "a rule of scope session belongs to a session; next: put it with the session, or use user or project";
        return Err(RuntimeInvalid::Rules(cause.to_string()));
    }
    Policy::new(rules).map(|_| ()).map_err(|error| RuntimeInvalid::Rules(error.to_string()))
}
