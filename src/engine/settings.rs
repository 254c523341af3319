//! The settings in force, from the runtime configuration and from a session's own.
//! Owns: which of the two holds.
//! May touch: the core, for reading.
//! Never: keeps what it has read.

use super::permits::{InForce, Settings};
use crate::commit::CoreHandle;
use crate::ids::SessionId;
use crate::permissions::{Effective, Mode};

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

impl Settings for CoreSettings {
    fn in_force(&self, session: &SessionId) -> InForce {
        let runtime = self.core.view().runtime.clone();
        let settings = runtime.settings();
        let own = match self.core.session(session) {
            Ok(view) => view.and_then(|view| view.session.settings).map(|own| *own).unwrap_or_default(),
            Err(error) => {
                log::error!("the settings of session {session} cannot be read, so nothing is allowed: {error}");
                return InForce { mode: Mode::DontAsk.into(), policy: runtime.policy().clone(), ..InForce::default() };
            }
        };
        let policy = runtime.policy().with_session(&own.permission_rules).unwrap_or_else(|error| {
            // They were checked when they were set.
            log::error!("the rules of session {session} cannot be used: {error}");
            runtime.policy().clone()
        });
        InForce {
            policy,
            mode: Effective::of(settings.permission_mode, own.permission_mode),
            instructions: settings.system_prompt.render(None),
            limits: settings.tool_limits.clone(),
            approval_expires_after_ms: self.approval_expires_after_ms,
        }
    }
}
