//! Whether a route has the credential that it needs, as status and doctor show it.
//! Owns: the readiness codes that concern credentials.
//! Never: looks at a secret.

use serde::Serialize;

use super::BrokerError;
use super::slot::{Mode, Provider, SlotId, SlotStatus};
use super::views::SlotState;

/// How ready a route's credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteAuthState {
    /// Usable.
    Ok,
    /// A run on this route would fail.
    Error,
}

/// A route's credential, as one entry of `provider_readiness.routes` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteAuth {
    /// The verdict.
    pub state: RouteAuthState,
    /// The verdict for machines: `route_auth_ready`, `route_auth_ref_missing`, `route_auth_provider_mismatch`,
    /// `slot_revoked`, `route_auth_status_error` or `inline_credentials_configured`.
    pub code: &'static str,
    /// The verdict in words.
    pub message: String,
    /// What the operator does next; absent when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// How the slot's credential is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_mode: Option<Mode>,
    /// The kind of credential, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_summary: Option<String>,
    /// When the slot was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_updated_at_ms: Option<u64>,
}

impl RouteAuth {
    /// A route that names no slot.
    pub fn inline() -> Self {
        let message = "the route names no auth_ref".to_string();
        Self::new(RouteAuthState::Ok, "inline_credentials_configured", message, None)
    }

    /// A route whose slot name is none.
    pub fn unreadable(reason: String) -> Self {
        let action = Some("correct auth_ref in the routes file".to_string());
        Self::new(RouteAuthState::Error, "route_auth_status_error", reason, action)
    }

    fn new(state: RouteAuthState, code: &'static str, message: String, action: Option<String>) -> Self {
        Self { state, code, message, action, auth_mode: None, auth_summary: None, auth_updated_at_ms: None }
    }

    fn of_slot(self, status: SlotStatus) -> Self {
        Self {
            auth_mode: Some(status.mode),
            auth_summary: Some(status.summary),
            auth_updated_at_ms: Some(status.updated_at_ms),
            ..self
        }
    }
}

/// First match wins, in the order of the table in docs/secrets.md.
pub(super) fn judge(slot: &SlotId, needs: Provider, found: Result<Option<SlotState>, BrokerError>) -> RouteAuth {
    let error = |code, message: String, action| RouteAuth::new(RouteAuthState::Error, code, message, Some(action));
    match found {
        Err(reason) => error(
            "route_auth_status_error",
            format!("slot {slot} cannot be looked up: {reason}"),
            "restart the daemon and read its log".to_string(),
        ),
        Ok(None) => error(
            "route_auth_ref_missing",
            format!("slot {slot} does not exist"),
            format!("kheish-daemon secrets set {slot} --provider {needs}"),
        ),
        Ok(Some(SlotState { status, .. })) if status.provider != needs => {
            let has = status.provider;
            error(
                "route_auth_provider_mismatch",
                format!("slot {slot} holds a credential of {has}, and the route needs {needs}"),
                format!("kheish-daemon secrets set {slot} --provider {needs}, or name another slot"),
            )
            .of_slot(status)
        }
        Ok(Some(SlotState { status, blocked: true, .. })) => error(
            "slot_revoked",
            format!("slot {slot} was revoked and holds the same secret still"),
            format!("rotate it at its issuer, then kheish-daemon secrets set {slot} --provider {needs}"),
        )
        .of_slot(status),
        Ok(Some(SlotState { status, .. })) => {
            RouteAuth::new(RouteAuthState::Ok, "route_auth_ready", format!("slot {slot} is usable"), None)
                .of_slot(status)
        }
    }
}
