//! `control_plane` of the status: who can reach the daemon, and as whom.
//! Owns: its shape.
//! Never: shows a token.

use serde::Serialize;

use crate::api::auth::{AuthView, BindScope};
use crate::api::context::Api;
use crate::audit::control_plane::{AuditStats, RateLimits};

/// Posture of the control plane.
#[derive(Debug, Serialize)]
pub struct ControlPlane {
    /// Where clients of this host reach it.
    pub base_url: String,
    /// Where it listens.
    pub bind_addr: String,
    bind_is_loopback: bool,
    bind_is_unspecified: bool,
    /// Token state.
    #[serde(flatten)]
    pub auth: AuthView,
    cors_policy: &'static str,
    cors_allowed_origin_count: usize,
    /// Anybody who reaches the address is admin.
    pub externally_exposed_without_auth: bool,
    trust_roots: String,
    /// The control-plane audit file.
    pub audit: AuditStats,
    /// Floods that were limited since start.
    pub rate_limits: RateLimits,
}

/// The group, as of now.
pub fn control_plane(api: &Api, now_ms: u64) -> ControlPlane {
    let facts = &api.facts;
    let auth = facts.auth.view();
    let bind_addr = facts.bind.get().cloned().unwrap_or_default();
    ControlPlane {
        base_url: base_url(&bind_addr, facts.scope),
        bind_addr,
        bind_is_loopback: facts.scope.is_local(),
        bind_is_unspecified: facts.scope == BindScope::Unspecified,
        cors_policy: facts.cors_policy,
        cors_allowed_origin_count: facts.cors_allowed_origin_count,
        externally_exposed_without_auth: !auth.auth_enabled && !facts.scope.is_local(),
        auth,
        audit: facts.audit.stats(),
        rate_limits: facts.audit.rate_limits(now_ms),
        trust_roots: facts.net.roots().source().to_string(),
    }
}

fn base_url(bind: &str, scope: BindScope) -> String {
    match (scope, bind.rsplit_once(':')) {
        (BindScope::UnixSocket, _) => bind.to_string(),
        (BindScope::Unspecified, Some((_, port))) => format!("http://127.0.0.1:{port}"),
        _ => format!("http://{bind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_url_is_one_that_clients_of_this_host_can_use() {
        for (bind, scope, expected) in [
            ("127.0.0.1:4000", BindScope::Loopback, "http://127.0.0.1:4000"),
            ("0.0.0.0:4000", BindScope::Unspecified, "http://127.0.0.1:4000"),
            ("[::]:4000", BindScope::Unspecified, "http://127.0.0.1:4000"),
            ("[::1]:4000", BindScope::Loopback, "http://[::1]:4000"),
            ("unix:/run/kheish.sock", BindScope::UnixSocket, "unix:/run/kheish.sock"),
        ] {
            assert_eq!(base_url(bind, scope), expected);
        }
    }
}
