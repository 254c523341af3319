//! The servers of a daemon that starts: from its settings to a list.
//! Owns: which sources there are, and what is refused before anything is started.
//! May touch: the configuration files.
//! Never: starts a server.

use std::path::{Path, PathBuf};

use super::config::{ServerConfig, Transport};
use super::{Switch, catalog, config_file};
use crate::broker::SlotId;
use crate::config::Config;
use crate::core::{McpServerState, Settings};
use crate::limits::MCP_SERVERS_MAX;
use crate::sandbox::places;

/// All servers of this configuration, each name once. `kept` are files that no server may see; `has_slot` tells of the store.
///
/// # Errors
/// A file cannot be used, two servers have one name, or one asks for what another setting forbids.
pub fn servers(
    config: &Config,
    auth_enabled: bool,
    kept: &[(&'static str, PathBuf)],
    has_slot: &dyn Fn(&SlotId) -> bool,
) -> Result<Vec<ServerConfig>, String> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut servers = match &config.mcp_config {
        Some(path) => config_file::load(path, &environment).map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    if config.mcp_discovery
        && config.mcp_config.is_none()
        && let Some(home) = environment("HOME")
    {
        servers = config_file::discover(&Path::new(&home).join(".codex/config.toml"), &environment);
    }
    for server in catalog::servers(&config.mcp_profiles, has_slot) {
        if servers.iter().any(|other| other.name == server.name) {
            return Err(format!(
                "server {} is in the file and in a profile of the catalog; next: rename the one in the file",
                server.name
            ));
        }
        servers.push(server);
    }
    if servers.len() > MCP_SERVERS_MAX {
        return Err(format!("{} servers, at most {MCP_SERVERS_MAX}; next: leave some out", servers.len()));
    }
    for server in &servers {
        check(config, auth_enabled, kept, server).map_err(|cause| format!("server {}: {cause}", server.name))?;
    }
    servers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(servers)
}

fn check(
    config: &Config,
    auth_enabled: bool,
    kept: &[(&'static str, PathBuf)],
    server: &ServerConfig,
) -> Result<(), String> {
    let Transport::Stdio(stdio) = &server.transport else { return Ok(()) };
    if stdio.network && !auth_enabled {
        return Err(
            "`network` would let it reach the control plane, which asks nobody for a token; next: set an admin \
                    token, or leave `network` out"
                .to_string(),
        );
    }
    if stdio.network && config.egress.is_restrictive() {
        return Err(
            "`network` would let it pass by the restriction of outbound connections; next: leave it out".to_string()
        );
    }
    let state_root = ("--state-root", config.state_root.clone());
    for (option, place) in kept.iter().chain([&state_root]) {
        let resolved = places::resolved(place).map_err(|cause| format!("{option} cannot be resolved: {cause}"))?;
        // Whatever links lead there; and a path inside the state root would show a part of it.
        let shows =
            |path: &PathBuf| resolved.starts_with(path) || (*option == state_root.0 && path.starts_with(&resolved));
        if stdio.read_only_paths.iter().any(shows) {
            return Err(format!(
                "`read_only_paths` shows it what {option} names; next: name other places, or move that"
            ));
        }
    }
    Ok(())
}

/// What operators have decided about servers.
pub fn switches(settings: &Settings) -> Vec<(String, Switch)> {
    let switch = |state: &McpServerState| match state {
        McpServerState::Enabled => Switch::On,
        McpServerState::Disabled => Switch::Off,
        McpServerState::Removed => Switch::Removed,
    };
    settings.mcp_servers.iter().map(|(name, state)| (name.clone(), switch(state))).collect()
}
