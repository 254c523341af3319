#!/usr/bin/env python3
"""Each smoke fails when its subject is broken: one thing of the daemon, of a file or of a configuration is broken at a time,
and the smoke that guards it must fail and say what it found. Once unbroken behind the same wrapper, it must pass.

usage: planted_breaks.py [--small] [NAME…]   --small: those that take seconds; NAME: only the breaks whose name has it
`KHEISH_BIN` or the debug build is the daemon. Exit: 0 when every break was noticed.
"""

import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SECONDS = 240
AT_ONCE = 2
NGINX = REPOSITORY / "deploy/reverse-proxy/nginx-kheish.conf"
RUNBOOK = REPOSITORY / "docs/operators/production-runbooks.md"


def cli(*words, **what):
    return {"cli": list(words), **what}


def serve(*rules, **what):
    return {"serve": {"rules": list(rules), **what}}


def rule(path, **what):
    return {"path": path, **what}


# Smoke, name, break, what the smoke must say, and whether it is one of the small size.
SLO, BACKUP, TLS, LIVE = "ops_slo_probe_smoke", "ops_backup_restore_smoke", "ops_tls_proxy_live_smoke", "ops_runbook_live_smoke"
ORIGIN, MCP = "browser_origin_smoke", "run_mcp_local_true_binary"
LEAK = serve(say="@--http-admin-token-file")
DAEMON_BREAKS = [
    (SLO, "readyz", serve(rule("/readyz", status=503, **{"from": 2})), "/readyz is 2xx", False),
    (SLO, "health", cli("status", set={"health.ok": False}), "health.ok is false", True),
    (SLO, "storage", cli("status", set={"storage.ok": False}), "storage.ok is false", False),
    (SLO, "route", cli("status", set={"provider_readiness.active_route_ready": False}), "active_route_ready is false", False),
    (SLO, "route errors", cli("status", set={"provider_readiness.error_route_count": 1}), "error_route_count is 1", False),
    (SLO, "dead letters", cli("status", set={"delivery.unresolved_dead_lettered": 1}), "unresolved_dead_lettered is 1", False),
    (SLO, "a key that is gone", cli("status", drop=["provider_readiness.route_count"]), "route_count is missing", True),
    (SLO, "queued runs", cli("status", drop=["runs.queued"]), "runs.queued is missing", False),
    (SLO, "running runs", cli("status", set={"runs.running": 1}), "runs.running is 1", False),
    (SLO, "an age", cli("status", set={"runs.oldest_queued_run_age_ms": 5}), "no oldest_queued_run_age_ms", False),
    (SLO, "debug level", cli("status", set={"runtime.debug_level": "full"}), "runtime.debug_level is", False),
    (SLO, "authentication", cli("status", set={"control_plane.auth_enabled": False}), "auth_enabled is false", False),
    (SLO, "bind", cli("status", set={"control_plane.bind_is_loopback": False}), "bind_is_loopback is false", False),
    (SLO, "doctor", cli("doctor", set={"errors": ["found something"]}), "errors is", False),
    (SLO, "doctor's checks", cli("doctor", set={"checks": []}), "has the checks", False),
    (SLO, "doctor's exit", cli("doctor", exit=1), "ended with 1", False),
    (SLO, "check-auth", cli("routes", "--check-auth", set={"diagnostics": [{"code": "x"}]}), "diagnostics is", False),
    (SLO, "slo without rows", cli("slo", set={"rows": []}), "rows is []", False),
    (SLO, "a page", cli("slo", set={"rows.0.level": "page"}), 'level is "page"', False),
    (SLO, "a leak", LEAK, "admin-token stands in", True),
    (SLO, "an unclean stop", serve(exit=3), "stopped with 3", False),
    (BACKUP, "revoke-slot", cli("revoke-slot", set={"slot_id": "other"}), "slot_id is", False),
    (BACKUP, "revoked leases", cli("revoke-slot", drop=["revoked_leases"]), "revoked_leases is missing", False),
    (BACKUP, "secrets list", cli("secrets", "list", set={"": []}), "secrets list names the slot", False),
    (BACKUP, "secrets get", cli("secrets", "get", set={"provider": "other"}), "provider is", False),
    (BACKUP, "runtime", cli("runtime", "get", set={"debug_level": "full"}), "debug_level is", False),
    (BACKUP, "auth", cli("--check-auth", drop=["auth_checked"]), "auth_checked is missing", False),
    (BACKUP, "references", cli("--check-references", set={"reference_checked": False}), "reference_checked is false", False),
    (BACKUP, "the lock", cli("status", set={"storage.state_root_lock.held": False}), "state_root_lock.held is false", False),
    (BACKUP, "after the rotation", cli("status", set={"provider_readiness.active_route_ready": False}, **{"from": 2}),
     "status after the rotation", False),
    (BACKUP, "no signing key", serve(after='rm "$STATE/audit-signing.key"'), "audit-signing.key is there", False),
    (BACKUP, "another signing key", serve(before='printf %064d 7 >"$STATE/audit-signing.key"', **{"from": 2}),
     "audit-signing.key is the same", False),
    (BACKUP, "a changed workspace", serve(before='echo more >>"$WORKSPACE/ops-workspace/sentinel.txt"', **{"from": 2}),
     "the workspace marker is the same", True),
    (BACKUP, "a workspace in the state root", serve(after='cp "$WORKSPACE/ops-workspace/sentinel.txt" "$STATE/"'),
     "the state root holds no workspace", False),
    (BACKUP, "a backup", cli("backup", "create", set={"live": False}), "live is false", False),
    (BACKUP, "a verification", cli("backup", "verify", set={"audit.ok": False}), "audit.ok is false", False),
    (BACKUP, "a backup that disturbs", cli("status", set={"health.ok": False}, **{"from": 3}), "status after the backup", False),
    (BACKUP, "a restored route", cli("status", set={"provider_readiness.active_route_ready": False}, **{"from": 4}),
     "after status", False),
    (BACKUP, "a leak", serve(say="sk-ops-smoke-rotated"), "second route key stands in", False),
    (TLS, "no token asked", serve(rule("/v1/status", ask={"Authorization": "@admin"})), "status without a token is 401", True),
    (TLS, "status", serve(rule("/v1/status", text=['"active_route_ready":true', '"active_route_ready":false'])),
     "active_route_ready is false", False),
    (TLS, "sessions", serve(rule("/v1/sessions", method="POST", status=500)), "a session is created", False),
    (TLS, "acceptance", serve(rule("/v1/sessions/", method="POST", status=200)), "the run is accepted", False),
    (TLS, "the end", serve(rule("/v1/runs/", method="GET", text=['"status":"completed"', '"status":"failed"'])), "status is", False),
    (TLS, "the output", serve(rule("/v1/runs/", method="GET", text=["TLS_PROXY_LIVE_OK", "something else"])), "an output says", False),
    (TLS, "ids of frames", serve(rule("/v1/events/stream?cursor", text=["id: ", "x: "])), "begins with a replayed frame", False),
    (TLS, "no stream", serve(rule("/v1/events/stream?cursor", head={"content-type": "text/html"})), "has the content type", False),
    (TLS, "what the doctor sees", serve(rule("/v1/events/stream?probe", text=["id: ", "x: "])), "events_sse_rewritten", False),
    (TLS, "Last-Event-ID", serve(rule("/v1/events/stream", ask={"Last-Event-ID": "0"})), "the stream went on with", True),
    (TLS, "a leak", LEAK, "admin-token stands in", False),
    (LIVE, "readyz", serve(rule("/readyz", status=503, **{"from": 2})), "/readyz through the proxy", False),
    (LIVE, "the origin", cli("--cors-origin", set={"checks": []}), "doctor --cors-origin has the checks", False),
    (LIVE, "references", cli("--check-references", set={"ok": False}), "--check-references: ok is false", False),
    (LIVE, "the canary", cli("--canary", set={"canaries.0.status": "failed"}), "canaries.0.status is", False),
    (LIVE, "the run", cli("runs", "wait", set={"status": "failed"}), "runs wait: status is", False),
    (LIVE, "the output", cli("runs", "wait", text=["OPS_RUNBOOK_LIVE_OK", "x"]), "runs wait: an output says", False),
    (LIVE, "a stream", serve(rule("/v1/events/stream?cursor", text=["id: ", "x: "])), "begins with a replayed frame", False),
    (LIVE, "mode", cli("set-permission-mode", set={"permission_mode": "default"}), "permission_mode is", False),
    (LIVE, "debug", cli("set-debug-level", set={"debug_level": "full"}), "debug_level is", False),
    (LIVE, "runs list", cli("runs", "list", set={"": []}), "runs list has the run", False),
    (LIVE, "events", cli("sessions", "events", set={"": []}), "sessions events has the run", False),
    (LIVE, "half a pair", cli("external-actions", drop=["1"]), "has a request and a response", False),
    (LIVE, "two requests", cli("external-actions", set={"1.phase": "request"}), "has both phases", False),
    (LIVE, "unsigned", cli("external-actions", set={"0.signature": ""}), "signature is", True),
    (LIVE, "another algorithm", cli("external-actions", set={"0.signature_alg": "none"}), "signature_alg is", False),
    (LIVE, "a subject", cli("revoke-subject", set={"revoked": False}), "revoked is false", False),
    (LIVE, "leases left", cli("revoke-subject", set={"active_lease_ids": ["lease-9"]}), "active_lease_ids is", False),
    (LIVE, "revoke-slot", cli("revoke-slot", set={"slot_id": "x"}), "slot_id is", False),
    (LIVE, "a live old lease", cli("auth", "lease", set={"active": True}), "active is true", False),
    (LIVE, "a digest", cli("auth", "lease", set={"token_digest": "x"}), "no view shows a token's digest", False),
    (LIVE, "no lease revoked", cli("revoke-slot", "sidecars.webhook.routes", set={"revoked_leases": 0}), "revoked_leases is 0", False),
    (LIVE, "a run of a webhook", cli("runs", "list", drop=["0"], **{"from": 2, "to": 2}), "no webhook made a run", False),
    (LIVE, "a restored run", cli("runs", "get", set={"status": "failed"}, **{"from": 2}), "runs get after the restore", False),
    (LIVE, "other bytes", cli("external-actions", set={"0.record_hash": "x"}, **{"from": 2}), "the same bytes", False),
    (LIVE, "a changed workspace", serve(before='echo more >>"$WORKSPACE/ops-workspace/sentinel.txt"', **{"from": 2}),
     "the workspace marker is the same", False),
    (LIVE, "a leak", LEAK, "stands in", False),
    (ORIGIN, "a wildcard", serve(rule("/v1/status", method="OPTIONS", head={"Access-Control-Allow-Origin": "*"})),
     "names it exactly", True),
    (ORIGIN, "refused", serve(rule("/v1/status", method="OPTIONS", status=403)), "is granted", False),
    (ORIGIN, "methods", serve(rule("/v1/status", method="OPTIONS", head={"Access-Control-Allow-Methods": None})),
     "has the methods", False),
    (ORIGIN, "headers", serve(rule("/v1/status", method="OPTIONS", head={"Access-Control-Allow-Headers": None})),
     "has the headers", False),
    (ORIGIN, "an unreadable refusal",
     serve(rule("/v1/status", method="GET", head={"Access-Control-Allow-Origin": None}, always=True)), "401 names", False),
    (ORIGIN, "a public origin granted",
     serve(rule("/v1/status", ask={"Origin": "http://localhost:5173"}, **{"from": 7})), "is refused", False),
    (ORIGIN, "a leak", LEAK, "stands in", False),
    (MCP, "the catalog", cli("catalog", "list", set={"": []}), "the catalog has openai-docs", True),
    (MCP, "a profile", cli("profiles", "get", set={"entries": []}), "entries is", False),
    (MCP, "the snapshot", cli("runtime", "get", set={"mcp.servers": []}), "is in the snapshot", False),
    (MCP, "credentials", cli("runtime", "get", set={"mcp.servers.0.uses_credentials": False}, **{"from": 2}),
     "uses_credentials is false", False),
    (MCP, "a call", cli("tools", "call", set={"is_error": True}), "is_error is true", False),
    (MCP, "a slot in use", serve(rule("/v1/runtime/secrets/", method="DELETE", status=200, always=True)), "the slot is needed", False),
    (MCP, "an account", cli("oauth", "status", set={"mode": "x"}), "mode is", False),
    (MCP, "a refresh", cli("accounts", "get", set={"details.last_refresh_outcome": "failed"}), "last_refresh_outcome is", False),
    (MCP, "a logout", cli("oauth", "logout", set={"accepted": False}), "accepted is false", False),
]
# A pattern and what stands there instead, in the proxy's configuration and in the runbook.
NGINX_BREAKS = [
    (r"proxy_buffering off;", "proxy_buffering on;"),
    (r"proxy_request_buffering off;", ""),
    (r"proxy_cache off;", ""),
    (r"gzip off;", ""),
    (r"proxy_http_version 1\.1;", ""),
    (r"proxy_read_timeout 1h;", "proxy_read_timeout 30s;"),
    (r"proxy_send_timeout 1h;", ""),
    (r"proxy_set_header Authorization [^;]+;", ""),
    (r"proxy_set_header Host [^;]+;", "proxy_set_header Host other;"),
    (r"proxy_set_header X-Forwarded-For [^;]+;", ""),
    (r"proxy_set_header X-Forwarded-Host [^;]+;", ""),
    (r"proxy_set_header X-Forwarded-Proto [^;]+;", ""),
    (r"proxy_pass_request_headers on;", "proxy_pass_request_headers off;"),
    (r"gzip off;", "gzip off; add_header Access-Control-Allow-Origin *;"),
    (r"server 127\.0\.0\.1:4000;", "server 192.0.2.1:4000;"),
    (r"proxy_pass http://kheish_daemon;", "proxy_pass https://kheish_daemon; proxy_ssl_verify off;"),
    (r"\Z", "\n}"),
]
RUNBOOK_BREAKS = [
    (r"doctor routes --check-auth", "doctor routes --check-auths"),
    (r"runtime set-permission-mode dont-ask", "runtime set-permission-mode default"),
    (r"scripts/e2e/ops_slo_probe_smoke\.sh", "scripts/e2e/ops_slo_probe_smoke.bash"),
    (r"runs external-actions", "runs actions"),
]


def environment(binary, place):
    kept = {name: value for name, value in os.environ.items() if name not in ("OPENAI_API_KEY", "KHEISH_OPENAI_API_KEY")}
    roots = ("OPS_SLO", "OPS_SMOKE", "OPS_TLS_LIVE", "OPS_LIVE", "OPS_BROWSER", "E2E")
    return kept | {"KHEISH_BIN": str(binary)} | {f"KHEISH_{name}_ROOT": str(place) for name in roots}


def run_smoke(real, smoke, break_, place):
    """Exit code and everything that a smoke said with this break."""
    place.mkdir()
    break_ = dict(break_)
    counts = place / "counts"
    counts.mkdir()
    break_["place"] = str(counts)
    wrapper = place / "kheish-daemon"
    words = [sys.executable, str(HERE / "lib/planted.py"), str(real), json.dumps(break_)]
    # Written by another process: what this one has open for writing cannot be run while it starts others.
    text = f"#!/bin/sh\nexec {shlex.join(words)} \"$@\"\n"
    subprocess.run(["sh", "-c", 'cat >"$1" && chmod 755 "$1"', "sh", str(wrapper)], input=text, text=True, check=True)
    try:
        result = subprocess.run(
            ["bash", str(HERE / f"{smoke}.sh")],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment(wrapper, place),
            check=False,
        )
    finally:
        # A state root each, with segments that are reserved whole.
        shutil.rmtree(place, ignore_errors=True)
    return result.returncode, result.stdout + result.stderr


def daemon_case(real, root, number, smoke, name, break_, says):
    code, said = run_smoke(real, smoke, break_, root / str(number))
    if says is None:
        return None if code == 0 else f"{smoke} fails behind the wrapper with nothing broken: {said[-1500:]}"
    if code == 0:
        return f"{smoke} passes although {name!r} is broken"
    return None if says in said else f"{smoke} fails with {name!r} broken, but does not say {says!r}: {said[-1500:]}"


def file_case(command, source, pattern, instead, root, number):
    """Wherever it stands: a runbook says the same in more than one place."""
    text = source.read_text()
    broken, count = re.subn(pattern, instead, text)
    if count == 0 or broken == text:
        return f"{pattern!r} is not in {source}"
    copy = root / f"{number}{source.suffix}"
    copy.write_text(broken)
    result = subprocess.run([*command, str(copy)], capture_output=True, text=True, timeout=SECONDS, check=False)
    return None if result.returncode == 1 and result.stderr.strip() else f"{pattern!r} -> {instead!r} in {source.name} is not noticed"


def find_real():
    given = os.environ.get("KHEISH_BIN") or str(
        Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "debug" / "kheish-daemon"
    )
    binary = Path(given).resolve()
    if not os.access(binary, os.X_OK):
        sys.exit(f"{binary} is not there; next: cargo build, or set KHEISH_BIN")
    return binary


def main():
    small = "--small" in sys.argv[1:]
    names = [word for word in sys.argv[1:] if not word.startswith("--")]
    real, begun = find_real(), time.monotonic()

    def wanted(label):
        return not names or any(name in label for name in names)

    # Below the repository: the runbook's check looks for its scripts and its binary from where the file stands.
    (REPOSITORY / ".tmp").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="planted.", dir=REPOSITORY / ".tmp") as root, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        root, cases = Path(root), {}

        def add(label, work, *words):
            if wanted(label):
                cases[pool.submit(work, *words)] = label

        contract, commands = [sys.executable, str(HERE / "lib/nginx_contract.py")], [sys.executable, str(HERE / "verify_runbook_commands.py")]
        os.environ["KHEISH_BIN"] = str(real)
        for number, (pattern, instead) in enumerate(NGINX_BREAKS):
            add(f"nginx {pattern}", file_case, contract, NGINX, pattern, instead, root, f"nginx-{number}")
        for number, (pattern, instead) in enumerate(RUNBOOK_BREAKS):
            add(f"runbook {pattern}", file_case, commands, RUNBOOK, pattern, instead, root, f"runbook-{number}")
        chosen = [case for case in DAEMON_BREAKS if case[4] or not small]
        whole = [] if small else sorted({case[0] for case in chosen})
        for number, (smoke, name, break_, says, _) in enumerate(
            [(smoke, "nothing", serve(), None, True) for smoke in whole] + chosen
        ):
            add(f"{smoke}: {name}", daemon_case, real, root, number, smoke, name, break_, says)
        failures = []
        for future in concurrent.futures.as_completed(cases):
            try:
                problem = future.result()
            except (OSError, subprocess.SubprocessError) as error:
                problem = f"{cases[future]}: {error}"
            if problem:
                failures.append(problem)
                print(f"NOT NOTICED: {problem}", file=sys.stderr)
    seconds = round(time.monotonic() - begun)
    print(json.dumps({"planted_breaks": len(cases), "not_noticed": len(failures), "seconds": seconds}))
    sys.exit(1 if failures or not cases else 0)


main()
