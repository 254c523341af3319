//! The one table of what `doctor` can find.
//! Owns: stable codes with their check, severity, meaning and next step; docs/operators/doctor.md is compared with it.
//! Never: repeats the health codes of the status; those have a table of their own and are passed on as they are.

use super::finding::Severity;
use Severity::{Error, Info, Warning};

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

const fn row(
    code: &'static str,
    check: &'static str,
    severity: Severity,
    meaning: &'static str,
    next: &'static str,
) -> Row {
    Row { code, check, severity, meaning, next }
}

/// Every code, by check, in the order of the checks.
pub const CODES: &[Row] = &[
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
    // Of `doctor routes`.
    row(
        "route_evidence_missing",
        "doctor_routes",
        Error,
        "the status lacks what is to be known of routes",
        "kheish-daemon status; use a client of the daemon's version",
    ),
    row(
        "route_inventory_empty",
        "doctor_routes",
        Error,
        "no model route is configured",
        "start with --routes-file; see deploy/routes.default.toml",
    ),
    row(
        "default_route_missing",
        "doctor_routes",
        Error,
        "the default route does not exist",
        "kheish-daemon runtime set-model MODEL --route ROUTE",
    ),
    row(
        "route_not_found",
        "doctor_routes",
        Error,
        "--route names no route of the inventory",
        "kheish-daemon doctor routes, which lists them",
    ),
    row(
        "route_file_read_failed",
        "doctor_routes",
        Error,
        "--routes-file cannot be read",
        "check the path and its permissions",
    ),
    row(
        "route_file_invalid",
        "doctor_routes",
        Error,
        "--routes-file cannot be used; each mistake is a diagnostic of its own with its line",
        "correct the lines named; see docs/operators/routes.md",
    ),
    row(
        "route_file_drift",
        "doctor_routes",
        Warning,
        "the SHA-256 of --routes-file differs from that of what the daemon has loaded, or the daemon has loaded none",
        "restart the daemon with the file, or put the loaded one back",
    ),
    row(
        "route_file_drift_unchecked",
        "doctor_routes",
        Info,
        "no daemon could be asked what it has loaded",
        "give --base-url and --token-file",
    ),
    row(
        "auth_check_failed",
        "doctor_routes",
        Error,
        "the slots could not be listed",
        "give an admin token: --token-file",
    ),
    row(
        "auth_check_uses_running_daemon",
        "doctor_routes",
        Info,
        "the slots that were compared are those of the daemon, the routes those of --routes-file",
        "none is needed",
    ),
    row(
        "auth_ref_missing",
        "doctor_routes",
        Error,
        "a route's slot does not exist",
        "kheish-daemon secrets set SLOT --provider PROVIDER --from-file FILE",
    ),
    row(
        "auth_ref_provider_mismatch",
        "doctor_routes",
        Error,
        "a route's slot holds another vendor's credential",
        "kheish-daemon secrets set SLOT --provider PROVIDER --from-file FILE",
    ),
    row(
        "auth_ref_provider_unchecked",
        "doctor_routes",
        Warning,
        "the route's driver is not known to this client",
        "use a client of the daemon's version",
    ),
    row(
        "auth_ref_revoked",
        "doctor_routes",
        Error,
        "a route's slot was revoked and not set since",
        "kheish-daemon secrets set SLOT --provider PROVIDER --from-file FILE",
    ),
    row(
        "auth_ref_expired",
        "doctor_routes",
        Error,
        "a route's credential has expired",
        "kheish-daemon runtime auth accounts refresh SLOT",
    ),
    row(
        "auth_ref_expiring_soon",
        "doctor_routes",
        Warning,
        "a route's credential expires within ten minutes",
        "kheish-daemon runtime auth accounts refresh SLOT",
    ),
    row(
        "auth_ref_refresh_warning",
        "doctor_routes",
        Warning,
        "the last refresh of a route's credential did not succeed",
        "kheish-daemon runtime auth accounts get SLOT",
    ),
    row(
        "route_egress_refused",
        "doctor_routes",
        Error,
        "a route's host may not be reached",
        "add its host with --egress-allow, or take the route out of the routes file",
    ),
    row(
        "route_reference_check_requires_runtime",
        "doctor_routes",
        Error,
        "--check-references was given with --routes-file; references are known to a daemon only",
        "kheish-daemon doctor routes --check-references",
    ),
    row(
        "route_reference_check_failed",
        "doctor_routes",
        Error,
        "the references could not be fetched",
        "kheish-daemon status; use a client of the daemon's version",
    ),
    row(
        "route_references_truncated",
        "doctor_routes",
        Warning,
        "more references than are looked at or listed",
        "mend those listed, then ask again",
    ),
    row(
        "stale_run_route",
        "doctor_routes",
        Error,
        "an unfinished run is pinned to a route that does not exist",
        "kheish-daemon runs cancel RUN, or put the route back",
    ),
    row(
        "stale_session_route_policy",
        "doctor_routes",
        Error,
        "a session has a route of its own that does not exist",
        "kheish-daemon sessions set-route SESSION --clear",
    ),
    row(
        "stale_schedule_route",
        "doctor_routes",
        Error,
        "a schedule names a route that does not exist",
        "correct the schedule, or put the route back",
    ),
    row(
        "stale_runtime_route",
        "doctor_routes",
        Error,
        "the runtime configuration names a route that does not exist",
        "kheish-daemon runtime set-model --reset",
    ),
    row(
        "stale_route_reference",
        "doctor_routes",
        Error,
        "something else names a route that does not exist",
        "correct it, or put the route back",
    ),
    row(
        "route_canary_requires_runtime",
        "doctor_routes",
        Error,
        "--canary was given with --routes-file; only a daemon makes runs",
        "kheish-daemon doctor routes --canary",
    ),
    row(
        "route_canary_timeout",
        "doctor_routes",
        Error,
        "a canary's run did not end in time and was cancelled",
        "kheish-daemon runs events RUN",
    ),
    row(
        "route_canary_failed",
        "doctor_routes",
        Error,
        "a canary's run failed, was refused, or answered something else",
        "kheish-daemon runs events RUN",
    ),
    row(
        "route_canary_not_cleaned_up",
        "doctor_routes",
        Warning,
        "a canary's session could not be ended",
        "kheish-daemon sessions end SESSION",
    ),
    // Offline.
    row(
        "offline_root_unusable",
        "state_root",
        Error,
        "there is no readable state root at the path",
        "check --state-root, and run as the daemon's user",
    ),
    row(
        "offline_lock_held",
        "state_root_lock",
        Info,
        "a daemon uses the state root; its files were read beside it",
        "kheish-daemon doctor asks that daemon",
    ),
    row(
        "offline_lock_missing",
        "state_root_lock",
        Error,
        "the state root has been in use and its lock file is gone: a daemon that still runs would not notice a second one",
        "make sure that no daemon runs on it, then start one, which makes the file again",
    ),
    row(
        "offline_lock_unreadable",
        "state_root_lock",
        Error,
        "the lock file cannot be opened",
        "run as the daemon's user",
    ),
    row(
        "offline_format_unknown",
        "format",
        Error,
        "FORMAT is missing, damaged, or of a newer version",
        "restore the whole root from its backup, or run the newer kheish-daemon",
    ),
    row(
        "offline_mode_open",
        "permissions",
        Error,
        "others may read or write something in the state root",
        "chmod -R go-rwx DIR",
    ),
    row(
        "offline_owner_foreign",
        "permissions",
        Error,
        "something in the state root belongs to another user than the root itself",
        "chown -R USER DIR",
    ),
    row(
        "offline_link",
        "permissions",
        Error,
        "a name in the state root is a link or no plain file",
        "move it away; the daemon makes none",
    ),
    row(
        "offline_journal_damaged",
        "journal",
        Error,
        "a line, the chain, a seal, a signed action or a snapshot does not verify",
        "kheish-daemon audit verify --offline --state-root DIR, then restore from the backup",
    ),
    row(
        "offline_key_missing",
        "audit_key",
        Error,
        "the state root has signed records and no signing key, and none was named",
        "restore audit-signing.key, or name it with KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY_FILE",
    ),
    row(
        "offline_key_unusable",
        "audit_key",
        Error,
        "the signing key cannot be read, is exposed, or is no key",
        "restore audit-signing.key from the backup; chmod 600",
    ),
    row(
        "offline_key_mismatch",
        "audit_key",
        Error,
        "the signing key is not the one whose public half stands in the state root",
        "restore audit-signing.key and audit-signing.pub.pem of one backup",
    ),
    row(
        "offline_store_unusable",
        "auth_store",
        Error,
        "the auth store cannot be read",
        "restore auth/global-slots.json, or give the master key it was written with",
    ),
    row(
        "offline_store_key_unknown",
        "auth_store",
        Info,
        "no master key was given, so the auth store was not opened",
        "set KHEISH_AUTH_STORE_MASTER_KEY_FILE",
    ),
    row(
        "offline_space_low",
        "space",
        Warning,
        "80 % of the file system are used",
        "free space or enlarge the file system",
    ),
    row(
        "offline_space_exhausted",
        "space",
        Error,
        "less than 8 MiB are left, or hardly any inodes",
        "free space or enlarge the file system",
    ),
    row("offline_space_unknown", "space", Error, "the file system does not tell its space", "check the mount"),
    row(
        "secret_found",
        "secrets",
        Error,
        "a file of the state root holds a stored secret in the clear. A hash-chained record cannot be cleaned, only retired",
        "rotate the secret at its issuer, then kheish-daemon secrets set; keep or retire the file by policy",
    ),
    row(
        "secret_scan_failed",
        "secrets",
        Error,
        "the files could not be searched",
        "set KHEISH_AUTH_STORE_MASTER_KEY_FILE and run as the daemon's user",
    ),
];

/// The row of a code.
pub fn find(code: &str) -> Option<&'static Row> {
    CODES.iter().find(|row| row.code == code)
}

/// The table as docs/operators/doctor.md shows it.
pub fn markdown() -> String {
    let mut out = String::from("| check | code | severity | found when | next |\n|---|---|---|---|---|\n");
    for row in CODES {
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
        for (at, row) in CODES.iter().enumerate() {
            assert!(CODES[at + 1..].iter().all(|other| other.code != row.code), "{} twice", row.code);
            assert!(row.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.code);
            assert!(!row.next.is_empty() && !row.meaning.is_empty() && !row.meaning.contains('|'), "{}", row.code);
        }
    }
}
