//! `serve`: hands the settings to the daemon and runs it.
//! Owns: the option names of the daemon, and its log lines' form from the first one on.
//! Never: judges another setting; `config` does.

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::verbs::Command;
use crate::config::RawServe;
use crate::logging::{self, Format, LoggingError};

/// run the daemon until SIGTERM or SIGINT
#[derive(FromArgs, ArgsInfo)]
pub struct Serve {
    /// address to listen on: host:port or unix:/path
    #[argh(option, arg_name = "address")]
    bind: Option<String>,
    /// directory that holds everything durable
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// directory that runs work in
    #[argh(option, arg_name = "dir")]
    workspace_root: Option<String>,
    /// TOML file with the model routes
    #[argh(option, arg_name = "path")]
    routes_file: Option<String>,
    /// TOML file with connectors that the API cannot change
    #[argh(option, arg_name = "path")]
    connectors_config: Option<String>,
    /// route of runs that name none
    #[argh(option, arg_name = "route")]
    default_route: Option<String>,
    /// auto (on when a token is set, required off loopback), bearer or none
    #[argh(option, arg_name = "mode")]
    http_auth_mode: Option<String>,
    /// admin bearer token; visible in process lists, prefer the file
    #[argh(option, arg_name = "token")]
    http_admin_token: Option<String>,
    /// file that holds the admin bearer token
    #[argh(option, arg_name = "path")]
    http_admin_token_file: Option<String>,
    /// read-only bearer token; visible in process lists, prefer the file
    #[argh(option, arg_name = "token")]
    http_readonly_token: Option<String>,
    /// file that holds the read-only bearer token
    #[argh(option, arg_name = "path")]
    http_readonly_token_file: Option<String>,
    /// loopback origin that a browser may call from; any loopback origin otherwise
    #[argh(option, arg_name = "origin")]
    http_cors_allow_origin: Vec<String>,
    /// further host name that requests may name while authentication is off
    #[argh(option, arg_name = "host")]
    http_allowed_host: Vec<String>,
    /// address of a reverse proxy, whose clients share one peer address; no per-peer limits for it
    #[argh(option, arg_name = "ip")]
    trusted_proxy: Vec<String>,
    /// accept runs, but start none until `runtime release`
    #[argh(switch)]
    hold: bool,
    /// signing key of the journal's seals and of external actions
    #[argh(option, arg_name = "path")]
    audit_signing_key_file: Option<String>,
    /// deny an approval that nobody resolved within this many seconds; stays open otherwise
    #[argh(option, arg_name = "seconds")]
    approval_expires_after_s: Option<String>,
    /// at the end, give runs so long to finish the model call or tools at hand, at most 600; 0 when left out: they are cut
    /// and resumed by the next start
    #[argh(option, arg_name = "seconds")]
    drain_timeout_s: Option<String>,
    /// age of a queued run, in milliseconds, from which status lists it; 0 is never
    #[argh(option, arg_name = "ms")]
    queued_run_lag_threshold_ms: Option<String>,
    /// silence of a run, in milliseconds, from which status lists it; 0 is never
    #[argh(option, arg_name = "ms")]
    stale_run_threshold_ms: Option<String>,
    /// size of a journal segment in bytes
    #[argh(option, arg_name = "bytes")]
    segment_bytes: Option<String>,
    /// required (every wall or no tool runs), auto (the strongest this kernel offers) or off
    #[argh(option, arg_name = "level")]
    sandbox: Option<String>,
    /// directory outside the workspace that tools can read and execute from
    #[argh(option, arg_name = "dir")]
    sandbox_read_only_path: Vec<String>,
    /// let commands use the host's network, loopback included; refused without authentication
    #[argh(switch)]
    sandbox_network: bool,
    /// let a debugger or a core file show the daemon's memory, secrets included
    #[argh(switch)]
    dumpable: bool,
    /// host, *.suffix, address or block that may be reached, with :port where only that one; all others are refused
    #[argh(option, arg_name = "host")]
    egress_allow: Vec<String>,
    /// provider, web, hook, mcp, connector or oauth: may reach private networks (providers always may)
    #[argh(option, arg_name = "purpose")]
    egress_allow_private: Vec<String>,
    /// refuse every outbound connection that is neither to this host nor listed by --egress-allow
    #[argh(switch)]
    air_gapped: bool,
    /// on or off: whether models may fetch pages of the public web; off unless said
    #[argh(option, arg_name = "state")]
    web_fetch: Option<String>,
    /// TOML file with the MCP servers
    #[argh(option, arg_name = "path")]
    mcp_config: Option<String>,
    /// JSON file with the hooks; taken again only when it has changed since it was last taken
    #[argh(option, arg_name = "path")]
    hooks_config: Option<String>,
    /// auto or disabled: whether servers are taken from other programs' files as well; disabled unless said
    #[argh(option, arg_name = "mode")]
    mcp_discovery: Option<String>,
    /// profile of the built-in catalog whose MCP servers are used
    #[argh(option, arg_name = "profile")]
    mcp_profile: Vec<String>,
    /// auto (pretty on a terminal, else json), pretty or json
    #[argh(option, arg_name = "format")]
    log_format: Option<String>,
    /// error, warn, info, debug or trace
    #[argh(option, arg_name = "level")]
    log_level: Option<String>,
}

impl Command for Serve {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let refused = |error: LoggingError| CliError::component("settings", error);
        let format = Format::parse(self.log_format.as_deref().unwrap_or("auto")).map_err(refused)?;
        let level = logging::parse_level(self.log_level.as_deref().unwrap_or("info")).map_err(refused)?;
        logging::init(format, level).map_err(refused)?;
        let raw = RawServe {
            bind: self.bind,
            state_root: self.state_root,
            workspace_root: self.workspace_root,
            routes_file: self.routes_file,
            connectors_config: self.connectors_config,
            default_route: self.default_route,
            http_auth_mode: self.http_auth_mode,
            http_admin_token: self.http_admin_token,
            http_admin_token_file: self.http_admin_token_file,
            http_readonly_token: self.http_readonly_token,
            http_readonly_token_file: self.http_readonly_token_file,
            http_cors_allow_origin: self.http_cors_allow_origin,
            http_allowed_host: self.http_allowed_host,
            trusted_proxy: self.trusted_proxy,
            hold: self.hold,
            audit_signing_key_file: self.audit_signing_key_file,
            approval_expires_after_s: self.approval_expires_after_s,
            drain_timeout_s: self.drain_timeout_s,
            queued_run_lag_threshold_ms: self.queued_run_lag_threshold_ms,
            stale_run_threshold_ms: self.stale_run_threshold_ms,
            segment_bytes: self.segment_bytes,
            ca_file: context.shared.ca_file.clone(),
            sandbox: self.sandbox,
            sandbox_read_only_path: self.sandbox_read_only_path,
            sandbox_network: self.sandbox_network,
            dumpable: self.dumpable,
            egress_allow: self.egress_allow,
            egress_allow_private: self.egress_allow_private,
            air_gapped: self.air_gapped,
            web_fetch: self.web_fetch,
            mcp_config: self.mcp_config,
            hooks_config: self.hooks_config,
            mcp_discovery: self.mcp_discovery,
            mcp_profile: self.mcp_profile,
        };
        crate::serve::run(raw).map_err(|error| CliError::component("serve", error))
    }
}
