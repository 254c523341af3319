//! Decisions about the runtime configuration and about a session's own settings.
//! Owns: revisions and their conflicts, windows that end by themselves, and what containment settles at once.
//! Never: emits before all checks of a command have passed.

use super::command::{Decision, Refusal};
use super::event::Body;
use super::hooks::HooksSetting;
use super::runtime_config::{
    ChangeSource, DebugLevel, DebugSetting, McpServerState, RuntimeChange, RuntimeChanged, RuntimeConfig,
    RuntimeInvalid, Settings, SystemPrompt, ToolLimits, check,
};
use super::session_settings::{SessionChange, SessionSettings};
use super::txn::Txn;
use crate::ids::SessionId;
use crate::limits::{CORE_EXPIRE_RUNS_MAX, DEBUG_FULL_TTL_MS_DEFAULT, DEBUG_LEVEL_TTL_MS_MAX};
use crate::permissions::{Effective, Mode, Rule, RuleScope};

/// Reason of an approval that was settled because nobody is to be asked any more.
pub const DONT_ASK: &str = "permission_mode_dont_ask";

/// A change of the runtime configuration, as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEdit {
    /// Set the permission mode.
    PermissionMode(Mode),
    /// Set route and model of runs that name none; `None` gives the choice back to the routes file and the route.
    Model {
        /// Route id.
        route_id: Option<String>,
        /// Model.
        model: Option<String>,
    },
    /// Set the debug level.
    DebugLevel {
        /// The level.
        level: DebugLevel,
        /// After this time it falls back to off; absent: never, but `full` has a window of its own.
        ttl_ms: Option<u64>,
        /// The ticket that asks for it.
        ticket: Option<String>,
    },
    /// Replace the system prompt.
    SystemPrompt(SystemPrompt),
    /// Replace the tool limits.
    ToolLimits(ToolLimits),
    /// Replace the rules of one scope, or of both.
    PermissionRules {
        /// Only rules of this scope.
        scope: Option<RuleScope>,
        /// The rules.
        rules: Vec<Rule>,
    },
    /// Use an MCP server, or not.
    McpServer {
        /// Its name.
        server: String,
        /// What is decided.
        state: McpServerState,
    },
    /// Replace all hooks. That they can be used is the caller's business.
    Hooks {
        /// The document.
        document: serde_json::Value,
        /// SHA-256 of the file that it comes from; `None` where a caller gives it.
        file_sha256: Option<String>,
    },
    /// Bring back the settings of an earlier revision; absent: of the one before.
    Rollback {
        /// Its number.
        target_revision: Option<u64>,
    },
}

impl RuntimeEdit {
    /// Whether it only takes away what runs may do or what is kept of them.
    pub(super) fn is_containment(&self) -> bool {
        matches!(
            self,
            Self::PermissionMode(Mode::DontAsk | Mode::Plan)
                | Self::DebugLevel { level: DebugLevel::Off, .. }
                | Self::McpServer { state: McpServerState::Disabled | McpServerState::Removed, .. }
        )
    }
}

impl Txn<'_> {
    pub(super) fn change_runtime(
        &mut self,
        edit: RuntimeEdit,
        expected_revision: Option<u64>,
    ) -> Result<Decision, Refusal> {
        let config = self.runtime();
        let current = config.current().revision;
        if let Some(expected) = expected_revision.filter(|expected| *expected != current) {
            return Err(Refusal::RuntimeRevisionConflict { expected, current });
        }
        let change = self.runtime_change(edit, &config)?;
        check(&change, config.settings()).map_err(Refusal::RuntimeInvalid)?;
        let changed = !is_in_force(&change, config.settings());
        if changed {
            let from_file = matches!(&change, RuntimeChange::Hooks(hooks) if hooks.from_file);
            self.emit_runtime(change, if from_file { ChangeSource::File } else { ChangeSource::RuntimeApi });
        }
        let settled = match self.runtime().settings().permission_mode {
            Mode::DontAsk => self.settle_pending_as_denied(None, DONT_ASK, CORE_EXPIRE_RUNS_MAX),
            _ => 0,
        };
        Ok(Decision::Runtime { revision: self.runtime().current().revision, changed, settled })
    }

    fn runtime_change(&self, edit: RuntimeEdit, config: &RuntimeConfig) -> Result<RuntimeChange, Refusal> {
        Ok(match edit {
            RuntimeEdit::PermissionMode(mode) => RuntimeChange::PermissionMode(mode),
            RuntimeEdit::Model { route_id, model } => RuntimeChange::Model { route_id, model },
            RuntimeEdit::DebugLevel { level, ttl_ms, ticket } => {
                RuntimeChange::DebugLevel(debug_setting(level, ttl_ms, ticket, self.now_ms())?)
            }
            RuntimeEdit::SystemPrompt(prompt) => RuntimeChange::SystemPrompt(prompt),
            RuntimeEdit::ToolLimits(limits) => RuntimeChange::ToolLimits(limits),
            RuntimeEdit::PermissionRules { scope: None, rules } => RuntimeChange::PermissionRules(rules),
            RuntimeEdit::PermissionRules { scope: Some(scope), rules } => {
                if rules.iter().any(|rule| rule.scope != scope) {
                    let cause = format!("a rule is not of scope {}; next: correct its scope", scope.as_str());
                    return Err(Refusal::RuntimeInvalid(RuntimeInvalid::Rules(cause)));
                }
                let others = config.settings().permission_rules.iter().filter(|rule| rule.scope != scope);
                RuntimeChange::PermissionRules(others.cloned().chain(rules).collect())
            }
            RuntimeEdit::McpServer { server, state } => RuntimeChange::McpServer { server, state },
            RuntimeEdit::Hooks { document, file_sha256 } => {
                let from_file = file_sha256.is_some();
                let taken = || config.settings().hooks.as_ref().and_then(|hooks| hooks.file_sha256.clone());
                RuntimeChange::Hooks(HooksSetting { document, file_sha256: file_sha256.or_else(taken), from_file })
            }
            RuntimeEdit::Rollback { target_revision } => {
                let newest = || config.history().last().map(|revision| revision.revision);
                let target = target_revision.or_else(newest).and_then(|number| config.revision(number));
                let target = target.ok_or(Refusal::RuntimeRevisionNotFound(target_revision))?;
                RuntimeChange::Rollback { of_revision: target.revision, settings: Box::new(target.settings.clone()) }
            }
        })
    }

    fn emit_runtime(&mut self, change: RuntimeChange, source: ChangeSource) {
        let revision = self.runtime().current().revision + 1;
        self.emit_global(None, Body::RuntimeChanged(RuntimeChanged { revision, source, change }));
    }

    /// Records that the debug level's window has ended.
    pub(super) fn expire_runtime(&mut self) {
        if self.runtime().is_due(self.now_ms()) {
            let off = DebugSetting { since_ms: Some(self.now_ms()), ..DebugSetting::default() };
            self.emit_runtime(RuntimeChange::DebugLevel(off), ChangeSource::Expiry);
        }
    }

    pub(super) fn update_session(&mut self, id: &SessionId, change: SessionChange) -> Result<Decision, Refusal> {
        let number = self.session_number(id).ok_or_else(|| Refusal::SessionNotFound(id.clone()))?;
        change.check().map_err(Refusal::RuntimeInvalid)?;
        let session = self.session(number).expect("numbered sessions exist");
        let before = session.settings.as_deref().cloned().unwrap_or_default();
        let mut after = before.clone();
        after.apply(&change);
        let changed = before != after;
        let refuses_asks = after.permission_mode == Some(Mode::DontAsk);
        if changed {
            self.emit(number, 0, Body::SessionUpdated(change));
        }
        let settled = match refuses_asks {
            true => self.settle_pending_as_denied(Some(number), DONT_ASK, CORE_EXPIRE_RUNS_MAX),
            false => 0,
        };
        Ok(Decision::SessionUpdated { changed, settled })
    }

    /// Whether a run of this session may not wait for an approval now.
    pub(super) fn refuses_asks(&self, session: u32) -> bool {
        let own = self.session(session).and_then(|session| session.settings.as_ref()?.permission_mode);
        let effective = Effective::of(self.runtime().settings().permission_mode, own);
        effective.contained || effective.mode == Mode::DontAsk
    }

    /// A session's own settings.
    pub(super) fn apply_session_updated(&mut self, session: u32, change: &SessionChange) -> Result<(), String> {
        let session = self.session_mut(session)?;
        let mut settings = session.settings.take().map(|settings| *settings).unwrap_or_default();
        settings.apply(change);
        session.settings = (settings != SessionSettings::default()).then(|| Box::new(settings));
        Ok(())
    }
}

/// Whether the change would leave everything as it is. A debug level is set anew, for its window begins anew.
fn is_in_force(change: &RuntimeChange, settings: &Settings) -> bool {
    match change {
        RuntimeChange::PermissionMode(mode) => *mode == settings.permission_mode,
        RuntimeChange::Model { route_id, model } => (route_id, model) == (&settings.route_id, &settings.model),
        RuntimeChange::DebugLevel(debug) => {
            debug.level == settings.debug.level
                && debug.until_ms.is_none()
                && settings.debug.until_ms.is_none()
                && debug.ticket == settings.debug.ticket
        }
        RuntimeChange::SystemPrompt(prompt) => *prompt == settings.system_prompt,
        RuntimeChange::ToolLimits(limits) => *limits == settings.tool_limits,
        RuntimeChange::PermissionRules(rules) => *rules == settings.permission_rules,
        RuntimeChange::McpServer { server, state: McpServerState::Enabled } => {
            !settings.mcp_servers.contains_key(server)
        }
        RuntimeChange::McpServer { server, state } => settings.mcp_servers.get(server) == Some(state),
        RuntimeChange::Hooks(hooks) => settings.hooks.as_ref() == Some(hooks),
        RuntimeChange::Rollback { .. } => false,
    }
}

fn debug_setting(
    level: DebugLevel,
    ttl_ms: Option<u64>,
    ticket: Option<String>,
    now_ms: u64,
) -> Result<DebugSetting, Refusal> {
    let ttl_is_legal = |ttl_ms: &u64| level != DebugLevel::Off && (1..=DEBUG_LEVEL_TTL_MS_MAX).contains(ttl_ms);
    if !ttl_ms.as_ref().is_none_or(ttl_is_legal) {
        return Err(Refusal::RuntimeInvalid(RuntimeInvalid::DebugWindow));
    }
    let default_ms = (level == DebugLevel::Full).then_some(DEBUG_FULL_TTL_MS_DEFAULT);
    let until_ms = ttl_ms.or(default_ms).map(|ttl_ms| now_ms.saturating_add(ttl_ms));
    Ok(DebugSetting { level, since_ms: Some(now_ms), until_ms, ticket })
}
