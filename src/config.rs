//! From what was written on the command line to what holds.
//! Owns: defaults, ceilings and the combinations that are refused.
//! May touch: nothing; files named here are opened by the rooms that own them.
//! Never: is consulted again after start; later code takes `&Config` and re-checks nothing.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::api::status::RunThresholds;
use crate::http::{Bind, BindError};
use crate::limits::{
    APPROVAL_EXPIRY_S_MAX, JOURNAL_SEGMENT_BYTES_DEFAULT, JOURNAL_SEGMENT_BYTES_MAX, JOURNAL_SEGMENT_BYTES_MIN,
    QUEUED_RUN_LAG_WARNING_MS, RUN_DRAIN_S_MAX, SANDBOX_READ_ONLY_PATHS_MAX, STALE_RUN_WARNING_MS, TRUSTED_PROXIES_MAX,
};
use crate::mcp;
use crate::net::{EgressPolicy, EgressSettingError};
use crate::sandbox::Level;

/// What was written: flags with their environment defaults already applied, nothing judged.
#[derive(Debug, Clone, Default)]
pub struct RawServe {
    /// `--bind`: `ip:port` or `unix:/path`.
    pub bind: Option<String>,
    /// `--state-root`.
    pub state_root: Option<String>,
    /// `--workspace-root`.
    pub workspace_root: Option<String>,
    /// `--routes-file`.
    pub routes_file: Option<String>,
    /// `--connectors-config`.
    pub connectors_config: Option<String>,
    /// `--default-route`.
    pub default_route: Option<String>,
    /// `--http-auth-mode`.
    pub http_auth_mode: Option<String>,
    /// `--http-admin-token`.
    pub http_admin_token: Option<String>,
    /// `--http-admin-token-file`.
    pub http_admin_token_file: Option<String>,
    /// `--http-readonly-token`.
    pub http_readonly_token: Option<String>,
    /// `--http-readonly-token-file`.
    pub http_readonly_token_file: Option<String>,
    /// `--http-cors-allow-origin`, repeated.
    pub http_cors_allow_origin: Vec<String>,
    /// `--http-allowed-host`, repeated.
    pub http_allowed_host: Vec<String>,
    /// `--trusted-proxy`, repeated.
    pub trusted_proxy: Vec<String>,
    /// `--hold`.
    pub hold: bool,
    /// `--audit-signing-key-file`.
    pub audit_signing_key_file: Option<String>,
    /// `--approval-expires-after-s`.
    pub approval_expires_after_s: Option<String>,
    /// `--drain-timeout-s`.
    pub drain_timeout_s: Option<String>,
    /// `--queued-run-lag-threshold-ms`.
    pub queued_run_lag_threshold_ms: Option<String>,
    /// `--stale-run-threshold-ms`.
    pub stale_run_threshold_ms: Option<String>,
    /// `--segment-bytes`.
    pub segment_bytes: Option<String>,
    /// `--ca-file`.
    pub ca_file: Option<String>,
    /// `--sandbox`.
    pub sandbox: Option<String>,
    /// `--sandbox-read-only-path`, repeated.
    pub sandbox_read_only_path: Vec<String>,
    /// `--sandbox-network`.
    pub sandbox_network: bool,
    /// `--dumpable`.
    pub dumpable: bool,
    /// `--egress-allow`, repeated.
    pub egress_allow: Vec<String>,
    /// `--egress-allow-private`, repeated.
    pub egress_allow_private: Vec<String>,
    /// `--air-gapped`.
    pub air_gapped: bool,
    /// `--web-fetch`.
    pub web_fetch: Option<String>,
    /// `--mcp-config`.
    pub mcp_config: Option<String>,
    /// `--hooks-config`.
    pub hooks_config: Option<String>,
    /// `--mcp-discovery`.
    pub mcp_discovery: Option<String>,
    /// `--mcp-profile`, repeated.
    pub mcp_profile: Vec<String>,
}

/// What holds. Auth has its own resolution in `api::auth`, which needs the bind address from here.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub bind: Bind,
    /// The state root.
    pub state_root: PathBuf,
    /// The workspace root.
    pub workspace_root: PathBuf,
    /// The routes file; without one no run can be submitted.
    pub routes_file: Option<PathBuf>,
    /// The connectors file.
    pub connectors_config: Option<PathBuf>,
    /// Overrides the file's default route.
    pub default_route: Option<String>,
    /// Peers behind which many clients share one address.
    pub trusted_proxies: Vec<IpAddr>,
    /// Accept runs but start none until released.
    pub hold: bool,
    /// Where the audit signing key lives, if not in the state root.
    pub audit_signing_key_file: Option<PathBuf>,
    /// Milliseconds after which an open approval counts as denied; without it, never.
    pub approval_expires_after_ms: Option<u64>,
    /// Milliseconds that runs in hand get at the end to finish what they are at.
    pub drain_timeout_ms: u64,
    /// From when on waiting runs are listed as findings.
    pub run_thresholds: RunThresholds,
    /// Size of a journal segment; smaller where the disk is small.
    pub segment_bytes: u64,
    /// Private CA for outbound TLS.
    pub ca_file: Option<PathBuf>,
    /// How much sandbox the tools get.
    pub sandbox: Level,
    /// Further places that tools can read.
    pub sandbox_read_only_paths: Vec<PathBuf>,
    /// Commands of tools can use the host's network.
    pub sandbox_network: bool,
    /// A debugger may look into the daemon.
    pub dumpable: bool,
    /// Which hosts the daemon may reach.
    pub egress: EgressPolicy,
    /// Models are offered `web_fetch`.
    pub web_fetch: bool,
    /// The file with the MCP servers.
    pub mcp_config: Option<PathBuf>,
    /// The file with the hooks.
    pub hooks_config: Option<PathBuf>,
    /// Other programs' files are looked at for MCP servers.
    pub mcp_discovery: bool,
    /// Profiles of the catalog of MCP servers.
    pub mcp_profiles: Vec<String>,
}

/// A setting that cannot hold.
#[derive(Debug)]
pub enum ConfigError {
    /// `--bind` is no address.
    Bind(BindError),
    /// Another flag has a value that cannot hold.
    Flag {
        /// The flag.
        flag: &'static str,
        /// What is wrong with its value.
        cause: String,
        /// What to write instead.
        next: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => write!(f, "--bind: {error}"),
            Self::Flag { flag, cause, next } => write!(f, "{flag}: {cause}; next: {next}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Where the control plane listens when nothing is said.
pub const BIND_DEFAULT: &str = "127.0.0.1:4000";
/// The state root when nothing is said.
pub const STATE_ROOT_DEFAULT: &str = ".kheish-daemon";
/// The workspace root when nothing is said: beside the state root, since neither may hold the other.
pub const WORKSPACE_ROOT_DEFAULT: &str = "workspace";

impl Config {
    /// Judges what was written.
    ///
    /// # Errors
    /// Names the flag, what is wrong with it and what to do.
    pub fn resolve(raw: &RawServe) -> Result<Self, ConfigError> {
        let path = |value: &Option<String>| value.as_ref().map(PathBuf::from);
        let egress = EgressPolicy::new(&raw.egress_allow, &raw.egress_allow_private, raw.air_gapped)
            .map_err(|EgressSettingError { flag, cause, next }| ConfigError::Flag { flag, cause, next })?;
        Ok(Self {
            web_fetch: parse_web_fetch(raw.web_fetch.as_deref(), &egress)?,
            egress,
            bind: Bind::parse(raw.bind.as_deref().unwrap_or(BIND_DEFAULT)).map_err(ConfigError::Bind)?,
            state_root: path(&raw.state_root).unwrap_or_else(|| PathBuf::from(STATE_ROOT_DEFAULT)),
            workspace_root: path(&raw.workspace_root).unwrap_or_else(|| PathBuf::from(WORKSPACE_ROOT_DEFAULT)),
            routes_file: path(&raw.routes_file),
            connectors_config: path(&raw.connectors_config),
            default_route: raw.default_route.clone(),
            trusted_proxies: parse_proxies(&raw.trusted_proxy)?,
            hold: raw.hold,
            audit_signing_key_file: path(&raw.audit_signing_key_file),
            drain_timeout_ms: parse_drain(raw.drain_timeout_s.as_deref())?,
            approval_expires_after_ms: parse_approval_expiry(raw.approval_expires_after_s.as_deref())?,
            run_thresholds: parse_run_thresholds(raw)?,
            segment_bytes: parse_segment_bytes(raw.segment_bytes.as_deref())?,
            ca_file: path(&raw.ca_file),
            sandbox: parse_sandbox(raw.sandbox.as_deref())?,
            sandbox_read_only_paths: parse_read_only_paths(&raw.sandbox_read_only_path)?,
            sandbox_network: raw.sandbox_network,
            dumpable: raw.dumpable,
            mcp_config: path(&raw.mcp_config),
            hooks_config: path(&raw.hooks_config),
            mcp_discovery: parse_mcp_discovery(raw.mcp_discovery.as_deref())?,
            mcp_profiles: mcp::catalog::profiles(&raw.mcp_profile).map_err(|cause| ConfigError::Flag {
                flag: "--mcp-profile",
                cause,
                next: "see kheish-daemon mcp profiles list",
            })?,
        })
    }

    /// Refuses to give commands the network where that would undo another setting: a command on the host's network
    /// reaches loopback, and with it a control plane that asks nobody for a token, and it passes by the egress guard.
    ///
    /// # Errors
    /// Names the setting that it would undo.
    pub fn check_sandbox_network(&self, auth_enabled: bool, egress_is_restricted: bool) -> Result<(), ConfigError> {
        let refused =
            |cause: &str, next| Err(ConfigError::Flag { flag: "--sandbox-network", cause: cause.to_string(), next });
        if self.sandbox_network && !auth_enabled {
            let next = "set an admin token, or leave --sandbox-network out";
            return refused("commands would reach the control plane, which asks nobody for a token", next);
        }
        if self.sandbox_network && egress_is_restricted {
            let next = "leave one of the two out";
            return refused("commands would pass by the restriction of outbound connections", next);
        }
        Ok(())
    }
}

fn parse_web_fetch(raw: Option<&str>, egress: &EgressPolicy) -> Result<bool, ConfigError> {
    let refused = |cause: String, next| Err(ConfigError::Flag { flag: "--web-fetch", cause, next });
    match raw {
        None | Some("off") => Ok(false),
        Some("on") if egress.is_air_gapped() && !egress.has_list() => {
            let next = "leave one of the two out, or list the hosts that may be fetched with --egress-allow";
            refused("an air-gapped daemon has nothing to fetch".to_string(), next)
        }
        Some("on") => Ok(true),
        Some(other) => refused(format!("{other:?} is neither on nor off"), "use on or off"),
    }
}

fn parse_mcp_discovery(raw: Option<&str>) -> Result<bool, ConfigError> {
    match raw {
        None | Some("disabled") => Ok(false),
        Some("auto") => Ok(true),
        Some(other) => Err(ConfigError::Flag {
            flag: "--mcp-discovery",
            cause: format!("{other:?} is neither auto nor disabled"),
            next: "use auto or disabled",
        }),
    }
}

fn parse_sandbox(raw: Option<&str>) -> Result<Level, ConfigError> {
    let Some(raw) = raw else { return Ok(Level::default()) };
    Level::parse(raw).ok_or_else(|| ConfigError::Flag {
        flag: "--sandbox",
        cause: format!("{raw:?} is no level"),
        next: "use required, auto or off",
    })
}

/// Places that tools can read: whole, existing directories or files, so that a grant says what it means.
fn parse_read_only_paths(raw: &[String]) -> Result<Vec<PathBuf>, ConfigError> {
    let error = |cause: String| ConfigError::Flag {
        flag: "--sandbox-read-only-path",
        cause,
        next: "name a directory with programs or data by its absolute path, e.g. /opt/toolchain",
    };
    if raw.len() > SANDBOX_READ_ONLY_PATHS_MAX {
        return Err(error(format!("{} paths, at most {SANDBOX_READ_ONLY_PATHS_MAX}", raw.len())));
    }
    let parse = |text: &String| {
        let path = PathBuf::from(text);
        if !path.is_absolute() {
            return Err(error(format!("{text:?} is no absolute path")));
        }
        path.canonicalize().map_err(|cause| error(format!("{text:?}: {cause}")))
    };
    raw.iter().map(parse).collect()
}

fn parse_proxies(raw: &[String]) -> Result<Vec<IpAddr>, ConfigError> {
    let error = |cause: String| ConfigError::Flag {
        flag: "--trusted-proxy",
        cause,
        next: "name each proxy by its IP address, e.g. --trusted-proxy 10.0.0.7",
    };
    if raw.len() > TRUSTED_PROXIES_MAX {
        return Err(error(format!("{} addresses, at most {TRUSTED_PROXIES_MAX}", raw.len())));
    }
    raw.iter().map(|text| text.trim().parse().map_err(|_| error(format!("{text:?} is no IP address")))).collect()
}

fn parse_drain(raw: Option<&str>) -> Result<u64, ConfigError> {
    match raw.map(str::parse::<u64>) {
        None => Ok(0),
        Some(Ok(seconds @ 0..=RUN_DRAIN_S_MAX)) => Ok(seconds * 1_000),
        Some(_) => Err(ConfigError::Flag {
            flag: "--drain-timeout-s",
            cause: format!("{:?} is no number of seconds up to {RUN_DRAIN_S_MAX}", raw.unwrap_or_default()),
            next: "correct it, or leave it out so that runs are cut at once and resumed",
        }),
    }
}

fn parse_approval_expiry(raw: Option<&str>) -> Result<Option<u64>, ConfigError> {
    let Some(raw) = raw else { return Ok(None) };
    match raw.parse::<u64>() {
        Ok(seconds @ 1..=APPROVAL_EXPIRY_S_MAX) => Ok(Some(seconds * 1_000)),
        _ => Err(ConfigError::Flag {
            flag: "--approval-expires-after-s",
            cause: format!("{raw:?} is no number of seconds from 1 to {APPROVAL_EXPIRY_S_MAX}"),
            next: "correct it, or leave it out so that approvals stay open",
        }),
    }
}

fn parse_run_thresholds(raw: &RawServe) -> Result<RunThresholds, ConfigError> {
    let parse = |flag, raw: &Option<String>, default_ms| {
        let Some(raw) = raw else { return Ok(default_ms) };
        raw.parse::<u64>().map_err(|_| ConfigError::Flag {
            flag,
            cause: format!("{raw:?} is no number of milliseconds"),
            next: "correct it; 0 switches the finding off",
        })
    };
    Ok(RunThresholds {
        queued_lag_ms: parse(
            "--queued-run-lag-threshold-ms",
            &raw.queued_run_lag_threshold_ms,
            QUEUED_RUN_LAG_WARNING_MS,
        )?,
        stale_ms: parse("--stale-run-threshold-ms", &raw.stale_run_threshold_ms, STALE_RUN_WARNING_MS)?,
    })
}

fn parse_segment_bytes(raw: Option<&str>) -> Result<u64, ConfigError> {
    let Some(raw) = raw else { return Ok(JOURNAL_SEGMENT_BYTES_DEFAULT) };
    raw.parse().ok().filter(|bytes| (JOURNAL_SEGMENT_BYTES_MIN..=JOURNAL_SEGMENT_BYTES_MAX).contains(bytes)).ok_or(
        ConfigError::Flag {
            flag: "--segment-bytes",
            cause: format!(
                "{raw:?} is not a number of bytes from {JOURNAL_SEGMENT_BYTES_MIN} to {JOURNAL_SEGMENT_BYTES_MAX}"
            ),
            next: "leave it out to take the default, which shrinks with the free space",
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut RawServe)) -> Result<Config, ConfigError> {
        let mut raw = RawServe::default();
        change(&mut raw);
        Config::resolve(&raw)
    }

    #[test]
    fn nothing_written_listens_on_loopback_only() {
        let config = Config::resolve(&RawServe::default()).expect("defaults hold");
        assert_eq!(config.bind, Bind::Tcp("127.0.0.1:4000".parse().expect("address")));
    }

    #[test]
    fn the_network_is_not_given_to_commands_where_it_undoes_another_setting() {
        let granted = with(|raw| raw.sandbox_network = true).expect("a grant by itself holds");
        for (auth_enabled, restricted, holds) in
            [(true, false, true), (false, false, false), (true, true, false), (false, true, false)]
        {
            assert_eq!(
                granted.check_sandbox_network(auth_enabled, restricted).is_ok(),
                holds,
                "{auth_enabled} {restricted}"
            );
        }
        let shut = with(|_| {}).expect("defaults hold");
        assert!(shut.check_sandbox_network(false, true).is_ok());
    }

    #[test]
    fn a_value_that_cannot_hold_names_its_flag_and_a_next_step() {
        let cases = [
            ("--bind", with(|raw| raw.bind = Some("4000".into()))),
            ("--bind", with(|raw| raw.bind = Some("unix:relative.sock".into()))),
            ("--trusted-proxy", with(|raw| raw.trusted_proxy = vec!["proxy.example".into()])),
            ("--queued-run-lag-threshold-ms", with(|raw| raw.queued_run_lag_threshold_ms = Some("soon".into()))),
            ("--stale-run-threshold-ms", with(|raw| raw.stale_run_threshold_ms = Some("-1".into()))),
            ("--approval-expires-after-s", with(|raw| raw.approval_expires_after_s = Some("0".into()))),
            ("--approval-expires-after-s", with(|raw| raw.approval_expires_after_s = Some("soon".into()))),
            ("--drain-timeout-s", with(|raw| raw.drain_timeout_s = Some("601".into()))),
            ("--segment-bytes", with(|raw| raw.segment_bytes = Some("1".into()))),
            ("--segment-bytes", with(|raw| raw.segment_bytes = Some("-1".into()))),
            ("--sandbox", with(|raw| raw.sandbox = Some("on".into()))),
            ("--sandbox-read-only-path", with(|raw| raw.sandbox_read_only_path = vec!["opt".into()])),
            ("--sandbox-read-only-path", with(|raw| raw.sandbox_read_only_path = vec!["/no/such/place".into()])),
        ];
        for (flag, resolved) in cases {
            let error = resolved.expect_err(flag).to_string();
            assert!(error.starts_with(flag) && error.contains("; next: "), "{error}");
        }
    }
}
