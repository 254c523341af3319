//! The one table of what `doctor` can find.
//! Owns: stable codes with their check, severity, meaning and next step; docs/operators/doctor.md is compared with it.
//! Never: repeats the health codes of the status; those have a table of their own and are passed on as they are.

use super::finding::Severity::{self, Error, Info, Warning};
use super::{codes_offline, codes_routes};

/// One finding that there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// For machines; never changes its meaning.
    pub code: &'static str,
    /// The check that finds it.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// When it is found.
    pub meaning: &'static str,
    /// The command or step that helps, unless the finding has one that fits better.
    pub next: &'static str,
}

/// The next step where the daemon reports something without one.
pub const NEXT_STATUS: &str = "kheish-daemon status";

pub(super) const fn row(
    code: &'static str,
    check: &'static str,
    severity: Severity,
    meaning: &'static str,
    next: &'static str,
) -> Row {
    Row { code, check, severity, meaning, next }
}

/// What `doctor` finds by asking a daemon, by check, in the order of the checks.
const CODES: &[Row] = &[
    row(
        "daemon_status_unavailable",
        "daemon_status",
        Error,
        "the status could not be fetched or is no document; everything that depends on it is unknown",
        "kheish-daemon status",
    ),
    row(
        "daemon_not_ready",
        "daemon_status",
        Error,
        "the status says that the daemon should get no work: draining, a poisoned journal, a dead or hanging part",
        "kheish-daemon status, then the daemon's log",
    ),
    row(
        "evidence_missing",
        "evidence",
        Error,
        "the status lacks a field that a check needs; named by its path",
        "kheish-daemon --version on both sides: use a client of the daemon's version, and point --base-url at the daemon itself",
    ),
    row(
        "readyz_unreachable",
        "readyz",
        Error,
        "GET /readyz had no answer in 3 s",
        "check that the daemon runs and that --base-url and the proxy in front lead to it",
    ),
    row(
        "readyz_not_ready",
        "readyz",
        Error,
        "GET /readyz answered with anything but 2xx",
        "kheish-daemon status, or let the proxy pass /readyz",
    ),
    row(
        "healthz_failed",
        "healthz",
        Error,
        "GET /healthz had no 2xx answer in 3 s",
        "check that the daemon runs, and let the proxy pass /healthz",
    ),
    row(
        "events_sse_unreachable",
        "events_sse",
        Error,
        "an event stream could not be opened",
        "check that the proxy passes the stream's path to the daemon",
    ),
    row(
        "events_sse_refused",
        "events_sse",
        Error,
        "an event stream was answered with another status than 200",
        "kheish-daemon events stream",
    ),
    row(
        "events_sse_not_a_stream",
        "events_sse",
        Error,
        "the answer is not of type text/event-stream: something on the way answered, or changed it",
        "let the proxy pass the path and its headers unchanged",
    ),
    row(
        "events_sse_buffered",
        "events_sse",
        Error,
        "a frame that the daemon sends at once did not come within 5 s: the stream is held back on the way. An idle daemon cannot be taken for it, since the probe stream always answers",
        "turn response buffering off for the path: proxy_buffering off (nginx), flush_interval -1 (caddy)",
    ),
    row(
        "events_sse_malformed",
        "events_sse",
        Error,
        "the stream ended, broke, was compressed or is no event stream",
        "turn compression and rewriting off for the path",
    ),
    row(
        "events_sse_rewritten",
        "events_sse",
        Error,
        "a frame came with another id, name or data than the daemon gave it, so that a client would resume in the wrong place",
        "let the proxy pass bodies of text/event-stream unchanged",
    ),
    row(
        "events_sse_slow",
        "events_sse",
        Warning,
        "frames come, but later than 2 s: a buffer with a timer, or a slow link",
        "turn response buffering off for the path",
    ),
    row(
        "events_writer_dead",
        "events_status",
        Error,
        "a thread that writes event streams has ended",
        "restart the daemon and report its last log lines",
    ),
    row(
        "events_read_failures",
        "events_status",
        Warning,
        "streams were closed because the journal could not be read for them, since start",
        "kheish-daemon journal verify --offline --state-root DIR",
    ),
    row(
        "control_plane_exposed",
        "control_plane_auth",
        Error,
        "the daemon listens beyond this host and asks nobody for a token",
        "start with --http-auth-mode bearer and --http-admin-token-file, or bind to loopback",
    ),
    row(
        "control_plane_duplicate_token",
        "control_plane_auth",
        Error,
        "admin and read-only token are equal",
        "write another value to one of the files: install -m 600 NEW FILE.next && mv FILE.next FILE",
    ),
    row(
        "control_plane_token_unusable",
        "control_plane_auth",
        Error,
        "a token file cannot be read, holds no usable token, or its last change was refused",
        "install -m 600 NEW FILE.next && mv FILE.next FILE",
    ),
    row(
        "control_plane_no_admin_token",
        "control_plane_auth",
        Error,
        "tokens are asked for and no admin token can be used",
        "restore the file of --http-admin-token-file",
    ),
    row(
        "control_plane_auth_off",
        "control_plane_auth",
        Info,
        "tokens are not asked for; only this host can reach the daemon",
        "start with --http-auth-mode bearer before anything forwards to it",
    ),
    row(
        "cors_no_answer",
        "control_plane_cors",
        Error,
        "a preflight had no answer, or one of status 5xx",
        "check that the proxy passes OPTIONS to the daemon",
    ),
    row(
        "cors_preflight_refused",
        "control_plane_cors",
        Error,
        "the loopback origin of --cors-origin was not granted exactly: status, origin, methods GET and POST, headers authorization and content-type",
        "start with --http-cors-allow-origin ORIGIN, or drop the exact list",
    ),
    row(
        "cors_origin_granted",
        "control_plane_cors",
        Error,
        "an origin that is not loopback got a CORS header: a page of that origin could use the control plane",
        "remove every Access-Control header from the proxy; the daemon adds its own",
    ),
    row(
        "cors_credentials_granted",
        "control_plane_cors",
        Error,
        "credentials are allowed, which the daemon never does",
        "remove Access-Control-Allow-Credentials from the proxy",
    ),
    row(
        "cors_header_added",
        "control_plane_cors",
        Error,
        "an answer to a request without an origin carries a CORS header, which the daemon never sends: something on the way adds it",
        "remove every Access-Control header from the proxy; the daemon adds its own",
    ),
    row(
        "routes_empty",
        "routes",
        Error,
        "no model route is configured, so no run can be accepted",
        "start with --routes-file; see deploy/routes.default.toml",
    ),
    row(
        "default_route_unset",
        "routes",
        Error,
        "no default route is in force",
        "kheish-daemon runtime set-model MODEL --route ROUTE, or default_route in the routes file",
    ),
    row(
        "route_diagnostic_error",
        "routes",
        Error,
        "the daemon reports an error about its routes",
        "kheish-daemon doctor routes",
    ),
    row(
        "route_diagnostic_warning",
        "routes",
        Warning,
        "the daemon reports a warning about its routes, such as a routes file that differs from what was loaded",
        "kheish-daemon doctor routes",
    ),
    row(
        "provider_route_not_ready",
        "provider_readiness",
        Error,
        "a route's credential or host cannot be used",
        "kheish-daemon doctor routes --check-auth",
    ),
    row(
        "provider_route_warning",
        "provider_readiness",
        Warning,
        "a route works and will not for long, such as with an expiring account",
        "kheish-daemon doctor routes --check-auth",
    ),
    row(
        "provider_active_route_not_ready",
        "provider_readiness",
        Error,
        "runs that name no route would fail",
        "kheish-daemon doctor routes --check-auth",
    ),
    row(
        "storage_not_ok",
        "storage",
        Error,
        "the daemon says that its storage is not usable and no probe tells why",
        "kheish-daemon status, then kheish-daemon doctor --offline --state-root DIR on a copy",
    ),
    row(
        "storage_probe_failed",
        "storage",
        Error,
        "a write probe could not write and sync",
        "free space or enlarge the file system, then check its mount and owner",
    ),
    row(
        "storage_probe_warning",
        "storage",
        Warning,
        "a write probe was slow, or space or inodes run out",
        "free space or enlarge the file system",
    ),
    row(
        "storage_probe_missing",
        "storage",
        Error,
        "there is no write probe of the state root or of the workspace root",
        "kheish-daemon status; use a client of the daemon's version",
    ),
    row(
        "state_root_lock_lost",
        "state_root_lock",
        Error,
        "the daemon does not own the lock of its state root any more: the lock file was removed or replaced",
        "stop the daemon, make sure that no other one uses the state root, start it again",
    ),
    row(
        "journal_poisoned",
        "journal",
        Error,
        "the journal accepts nothing more until a restart",
        "check the disk, restart the daemon, then kheish-daemon journal verify --offline --state-root DIR",
    ),
    row(
        "hook_invalid",
        "hooks",
        Error,
        "a hook's definition would be refused",
        "kheish-daemon runtime get; replace the hooks with a reviewed file",
    ),
    row(
        "hook_warning",
        "hooks",
        Warning,
        "a hook can only be checked when it is used, or failed before",
        "kheish-daemon runtime get",
    ),
    row(
        "hook_target_private",
        "hooks_http_targets",
        Error,
        "the name of an HTTP hook leads to a private or local address, so its call is refused",
        "correct the name's DNS record or the hook's URL",
    ),
    row(
        "hook_target_unresolved",
        "hooks_http_targets",
        Warning,
        "the name of an HTTP hook could not be looked up",
        "check the resolver of the daemon's host",
    ),
    row("sandbox_level", "sandbox", Info, "how strong the walls around tools are", "see docs/security-model.md"),
];

/// Every code: of a daemon, of its routes, of a state root.
pub fn all() -> impl Iterator<Item = &'static Row> {
    [CODES, codes_routes::CODES, codes_offline::CODES].into_iter().flatten()
}

/// The row of a code.
pub fn find(code: &str) -> Option<&'static Row> {
    all().find(|row| row.code == code)
}

/// The table as docs/operators/doctor.md shows it.
pub fn markdown() -> String {
    let mut out = String::from("| check | code | severity | found when | next |\n|---|---|---|---|---|\n");
    for row in all() {
        let Row { code, check, severity, meaning, next } = row;
        out.push_str(&format!("| `{check}` | `{code}` | {} | {meaning} | {next} |\n", severity.as_str()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_there_once_and_says_what_to_do() {
        for (at, row) in all().enumerate() {
            assert!(all().skip(at + 1).all(|other| other.code != row.code), "{} twice", row.code);
            assert!(row.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.code);
            assert!(!row.next.is_empty() && !row.meaning.is_empty() && !row.meaning.contains('|'), "{}", row.code);
        }
    }
}
