//! The settings in force, from the runtime configuration and from a session's own.
//! Owns: which of the two holds.
//! May touch: the core, for reading.
//! Never: keeps what it has read.

use super::permits::{InForce, Settings};
use crate::commit::{CommandError, CoreHandle};
use crate::core::SessionSettings;
use crate::ids::SessionId;
use crate::permissions::Effective;

/// Settings as the core has them.
pub struct CoreSettings {
    core: CoreHandle,
    approval_expires_after_ms: Option<u64>,
}

impl CoreSettings {
    /// Settings of this core, and the deadline of approvals.
    pub fn new(core: CoreHandle, approval_expires_after_ms: Option<u64>) -> Self {
        Self { core, approval_expires_after_ms }
    }
}

impl CoreSettings {
    /// What a session has of its own, then what those have whose agents are above it, nearest first.
    fn line(&self, session: &SessionId) -> Result<Vec<SessionSettings>, CommandError> {
        let session = session.clone();
        self.core.read(move |state| {
            let mut line = Vec::new();
            let mut next = state.session_number(&session);
            while let Some(of) = next.and_then(|number| state.session(number)) {
                line.push(of.settings.as_deref().cloned().unwrap_or_default());
                next = of.child.as_ref().map(|child| child.parent);
            }
            line
        })
    }
}

impl Settings for CoreSettings {
    fn in_force(&self, session: &SessionId) -> Result<InForce, CommandError> {
        let line = self.line(session)?;
        let runtime = self.core.view().runtime.clone();
        let settings = runtime.settings();
        // From the top down: an agent has the rules of those above it, and its own.
        let mut policy = runtime.policy().clone();
        let mut levels = Vec::with_capacity(line.len());
        for own in line.iter().rev() {
            policy = policy.with_session(&own.permission_rules).unwrap_or_else(|error| {
                // They were checked when they were set.
                log::error!("the rules of session {session} cannot be used: {error}");
                policy.clone()
            });
            levels.push((policy.clone(), Effective::of(settings.permission_mode, own.permission_mode)));
        }
        let (policy, mode) = levels.pop().unwrap_or_else(|| (policy, settings.permission_mode.into()));
        levels.reverse();
        Ok(InForce {
            policy,
            mode,
            above: levels,
            instructions: settings.system_prompt.render(None),
            limits: settings.tool_limits.clone(),
            approval_expires_after_ms: self.approval_expires_after_ms,
        })
    }
}
