"""`ops_runbook_live_smoke.sh`: the whole runbook through a streaming proxy: health, a real run, event streams, incident
commands, revocation, a connector's credentials, the admin token, backup and restore. No secret may stay in the evidence.
"""

import hashlib
import hmac
import json
import os
import subprocess

from proxy import StreamingProxy
from smoke import CANARY_SCRIPT, REPOSITORY, Daemon, Model, Smoke, first_frame, free_port, http_call, sha256_file, until

MARKER = "OPS_RUNBOOK_LIVE_OK"
CONNECTOR = "ops-webhook"
ROUTES_SLOT, SHARED_SLOT = "sidecars.webhook.routes", "sidecars.webhook.shared"


def validation(smoke, url, label, model):
    smoke.quartet(f"{label} status", smoke.cli(url, f"{label}-status", "status"))
    smoke.check(f"{label} runtime get", smoke.cli(url, f"{label}-runtime", "runtime", "get"), "debug_level", "!=", "full")
    report = smoke.cli(url, f"{label}-check-auth", "doctor", "routes", "--check-auth")
    smoke.check(f"{label} doctor routes --check-auth", report, "ok", "==", True)
    smoke.check(f"{label} doctor routes --check-auth", report, "auth_checked", "==", True)


def diagnostics(smoke, url, model):
    validation(smoke, url, "start", model)
    smoke.healthy_report("doctor", smoke.cli(url, "doctor", "doctor"), ("readyz", "events_sse", "storage"))
    origin = smoke.cli(url, "doctor-cors", "doctor", "--cors-origin", "http://localhost:5173")
    smoke.healthy_report("doctor --cors-origin", origin, ("control_plane_cors",))
    references = smoke.cli(url, "check-references", "doctor", "routes", "--check-references")
    smoke.check("doctor routes --check-references", references, "ok", "==", True)
    wait = os.environ.get("KHEISH_OPS_CANARY_TIMEOUT_MS", "120000")
    canary = smoke.cli(
        url, "canary", "doctor", "routes", "--route", "openai", "--check-auth", "--canary", "--canary-timeout-ms", wait
    )
    smoke.check("doctor routes --canary", canary, "ok", "==", True)
    smoke.check("doctor routes --canary", canary, "canaries.0.status", "==", "passed")


def real_run(smoke, url, model, session):
    smoke.cli(url, "session", "sessions", "create", session)
    words = ["sessions", "input", session, f"Reply exactly {MARKER} and nothing else.", "--provider", "openai"]
    words += ["--model", model.name, "--max-output-tokens", "64", "--tool-choice", "none"]
    run = smoke.check("sessions input", smoke.cli(url, "input", *words), "run_id", "!=", "")
    view = smoke.cli(url, "run", "runs", "wait", run)
    completed(smoke, "runs wait", view)
    return run, view


def completed(smoke, label, view):
    smoke.check(label, view, "status", "==", "completed")
    smoke.expect(f"{label}: an output says {MARKER}", MARKER in json.dumps(view.get("outputs", "")))


def streams(smoke, url, session, run):
    for path in ("/v1/events/stream", f"/v1/sessions/{session}/stream", f"/v1/runs/{run}/stream"):
        frame = first_frame(f"{url}{path}?cursor=0", smoke.admin())
        smoke.expect(f"{path} begins with a replayed frame", "event" in frame and frame.get("id", "").isdigit(), frame)


def external_actions(smoke, url, label, run):
    records = smoke.cli(url, label, "runs", "external-actions", run)
    smoke.expect(f"{label} has a request and a response", len(records) >= 2)
    phases = {record.get("phase") for record in records}
    smoke.expect(f"{label} has both phases", {"request", "response"} <= phases, str(phases))
    for record in records:
        smoke.check(label, record, "signature_alg", "==", "ed25519")
        for field in ("key_id", "signature", "record_hash"):
            smoke.check(label, record, field, "!=", "")
    return (smoke.evidence / f"{label}.json").read_bytes()


def incident(smoke, url, session, run, view):
    mode = smoke.cli(url, "dont-ask", "runtime", "set-permission-mode", "dont-ask")
    smoke.check("set-permission-mode dont-ask", mode, "permission_mode", "==", "dontAsk")
    level = smoke.cli(url, "debug-off", "runtime", "set-debug-level", "off")
    smoke.check("set-debug-level off", level, "debug_level", "==", "off")
    listed = smoke.cli(url, "runs-list", "runs", "list", "--session-id", session)
    smoke.expect("runs list has the run", run in json.dumps(listed))
    completed(smoke, "runs get", smoke.cli(url, "runs-get", "runs", "get", run))
    events = smoke.cli(url, "session-events", "sessions", "events", session)
    smoke.expect("sessions events has the run", run in json.dumps(events))
    smoke.cli(url, "tasks-list", "tasks", "list", session)
    deliveries = smoke.cli(url, "deliveries-list", "deliveries", "list", "--run-id", run)
    smoke.expect("a run without a target is delivered to nobody", run not in json.dumps(deliveries))
    actions = external_actions(smoke, url, "external-actions", run)
    smoke.cli(url, "interrupt", "sessions", "interrupt", session)
    smoke.cli(url, "cancel", "runs", "cancel", run)
    agent = view.get("agent_id")
    subject = f"agent:{agent}" if agent else f"session:{session}"
    revoked = smoke.cli(url, "revoke-subject", "runtime", "auth", "revoke-subject", subject)
    smoke.check("revoke-subject", revoked, "revoked", "==", True)
    for kind in ("active_lease_ids", "active_connector_lease_ids", "active_mcp_lease_ids"):
        if kind in revoked:
            smoke.check("revoke-subject", revoked, kind, "==", [])
    smoke.expect("revoke-subject leaves no lease", not any(revoked[k] for k in revoked if k.startswith("active_")))
    slot = smoke.cli(url, "revoke-slot", "runtime", "auth", "revoke-slot", "openai.prod")
    smoke.check("revoke-slot", slot, "slot_id", "==", "openai.prod")
    smoke.check("revoke-slot", slot, "revoked_leases", ">=", 0)
    # What leaked is replaced, and the route works again.
    smoke.cli(url, "reset-slot", "secrets", "set", "openai.prod", "--provider", "openai", "--stdin", stdin=model_key(smoke))
    return actions


def model_key(smoke):
    return smoke.private_values["the provider key"]


def webhook(port, secret, body=b'{"hello":"runbook"}'):
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature, "X-GitHub-Delivery": os.urandom(8).hex(), "X-GitHub-Event": "ignored"}
    headers["Content-Type"] = "application/json"
    return http_call("POST", f"http://127.0.0.1:{port}/webhooks/demo", body=body, headers=headers)


def lease_of(smoke, url, label):
    subject = smoke.cli(url, label, "runtime", "auth", "subject", f"connector:{CONNECTOR}")
    leases = subject.get("active_connector_lease_ids")
    return leases[0] if isinstance(leases, list) and len(leases) == 1 else None


def connector(smoke, url):
    """Rotation of a sidecar's credentials, as the runbook has it."""
    port, runs_before = free_port(), len(smoke.cli(url, "runs-before", "runs", "list"))
    first, second, shared = (os.urandom(18).hex() for _ in range(3))
    for name, value in (("webhook secret 1", first), ("webhook secret 2", second), ("shared token", shared)):
        smoke.secret(name, value)

    def routes(secret):
        return json.dumps({"demo": {"secret": secret, "allowed_events": ["push"]}})

    def put(generation):
        config = {
            "platform": "webhook",
            "mode": "child_process",
            "base_url": f"http://127.0.0.1:{port}",
            "shared_token": {"secret_ref": SHARED_SLOT},
            "include_self_output": True,
            "session_policy": {"create_if_missing": True},
            "child_process": {
                "command": "python3",
                "args": [str(REPOSITORY / "connectors/python/run_connector.py"), "webhook"],
                "env": {"KHEISH_EXTERNAL_CONNECTOR_LOG_LEVEL": "INFO", "OPS_GENERATION": generation},
                "credential_slots": {"WEBHOOK_ROUTES_JSON": ROUTES_SLOT},
            },
        }
        smoke.cli(url, f"put-{generation}", "connectors", "put-external", CONNECTOR, "--json", json.dumps(config))

    def is_ready():
        try:
            answer = http_call("GET", f"http://127.0.0.1:{port}/health", shared, seconds=3)
            return answer.status == 200 and answer.json().get("status") == "ready"
        except (OSError, ValueError):
            return False

    def set_slot(label, slot, value):
        smoke.cli(url, label, "secrets", "set", slot, "--provider", "generic", "--stdin", stdin=value)

    set_slot("set-shared", SHARED_SLOT, shared)
    set_slot("set-routes-1", ROUTES_SLOT, routes(first))
    put("one")
    until("the sidecar to be ready", 60, is_ready, 0.2)
    lease = until("one lease of the connector", 60, lambda: lease_of(smoke, url, "subject-1"), 0.2)
    ignored = webhook(port, first)
    smoke.expect("a signed event that no rule wants is ignored", (ignored.status, ignored.json()) == (200, {"status": "ignored"}))

    set_slot("set-routes-2", ROUTES_SLOT, routes(second))
    old = smoke.cli(url, "lease-1", "runtime", "auth", "lease", lease)
    smoke.check("the lease before the rotation", old, "revoked", "==", True)
    smoke.check("the lease before the rotation", old, "active", "==", False)
    smoke.expect("no view shows a token's digest", "token_digest" not in json.dumps(old))
    put("two")
    def new_lease():
        found = lease_of(smoke, url, "subject-2")
        return found if found and found != lease else None

    other = until("a new lease", 60, new_lease, 0.2)
    until("the sidecar to be ready again", 60, is_ready, 0.2)
    stale = webhook(port, first)
    smoke.expect("the old secret is refused", (stale.status, stale.json()) == (401, {"error": "invalid signature"}))
    fresh = webhook(port, second)
    smoke.expect("the new secret is accepted", (fresh.status, fresh.json()) == (200, {"status": "ignored"}))
    slot = smoke.cli(url, "revoke-routes", "runtime", "auth", "revoke-slot", ROUTES_SLOT)
    smoke.check("revoke-slot of the routes", slot, "revoked_leases", ">=", 1)
    ended = smoke.cli(url, "lease-2", "runtime", "auth", "lease", other)
    smoke.check("the lease after the revocation", ended, "active", "==", False)
    smoke.check("the lease after the revocation", ended, "revoked", "==", True)
    smoke.cli(url, "delete-connector", "connectors", "delete", "external", CONNECTOR)
    for name in (SHARED_SLOT, ROUTES_SLOT):
        smoke.cli(url, f"delete-{name}", "secrets", "delete", name)
    runs_after = len(smoke.cli(url, "runs-after", "runs", "list"))
    smoke.expect("no webhook made a run", runs_after == runs_before, f"{runs_before} runs before, {runs_after} after")


def rotate_admin_token(smoke, url):
    old = smoke.admin()
    fresh = smoke.secrets / "admin-token.next"
    smoke.private(fresh, os.urandom(24).hex())
    # The runbook's two commands.
    subprocess.run(["install", "-m", "600", str(fresh), str(smoke.admin_file) + ".next2"], check=True, timeout=10)
    os.rename(str(smoke.admin_file) + ".next2", smoke.admin_file)

    def status(token):
        return http_call("GET", f"{url}/v1/status", token).status

    until("the old token to be refused", 60, lambda: status(old) == 401)
    smoke.secret("the old admin token", old)
    smoke.expect("the new token is accepted", status(smoke.admin()) == 200)
    after = smoke.cli(url, "status-rotated", "status")
    smoke.check("status with the new token", after, "health.ok", "==", True)
    smoke.check("status with the new token", after, "storage.ok", "==", True)


def main():
    with Smoke("ops_runbook_live_smoke", "KHEISH_OPS_LIVE_ROOT", "KHEISH_OPS_LIVE_SKIP_BUILD") as smoke:
        model = Model(smoke, "KHEISH_OPS_LIVE_MODEL", CANARY_SCRIPT.format(marker=MARKER))
        state = smoke.evidence / "state"
        workspace, marker = smoke.workspace("workspace")
        offline = ["secrets", "set", "openai.prod", "--offline", "--state-root", state, "--provider", "openai"]
        smoke.run_binary(*offline, "--stdin", stdin=model.key)
        daemon = Daemon(smoke, "daemon", state, workspace, model.routes)
        proxy = StreamingProxy(daemon.port)
        url = proxy.url
        smoke.expect("/readyz through the proxy", http_call("GET", f"{url}/readyz").status == 200)

        diagnostics(smoke, url, model)
        session = f"ops-live-{os.getpid()}"
        run, view = real_run(smoke, url, model, session)
        streams(smoke, url, session, run)
        actions = incident(smoke, url, session, run, view)
        connector(smoke, url)
        rotate_admin_token(smoke, url)
        proxy.stop()
        daemon.stop()

        key = sha256_file(state / "audit-signing.key")
        archive, _ = smoke.archive(state, "state")
        workspace_archive, _ = smoke.archive(workspace, "workspace")
        restored = smoke.extract(archive, "restore-state")
        restored_workspace = smoke.extract(workspace_archive, "restore-workspace")
        other = Daemon(smoke, "restored", restored, restored_workspace, model.routes)
        proxy = StreamingProxy(other.port)
        validation(smoke, proxy.url, "restored", model)
        completed(smoke, "runs get after the restore", smoke.cli(proxy.url, "restored-run", "runs", "get", run))
        again = external_actions(smoke, proxy.url, "restored-external-actions", run)
        smoke.expect("the signed records are the same bytes", again == actions)
        smoke.expect("audit-signing.key is the same", sha256_file(restored / "audit-signing.key") == key)
        sentinel = restored_workspace / "ops-workspace" / "sentinel.txt"
        smoke.expect("the workspace marker is the same", sha256_file(sentinel) == marker)
        proxy.stop()
        other.stop()
        smoke.leaks()


main()
