"""`ops_backup_restore_smoke.sh`: backups of a running daemon and, by tar, of a stopped one, restored beside it, and
rotation of a route's secret.

Needs no provider and no network. Readiness holds offline: it says that a route could be used, not that its vendor answers.
"""

import json

from offline_routes import ROUTES
from smoke import Daemon, Smoke, sha256_file

FIRST, SECOND = "sk-ops-smoke-initial", "sk-ops-smoke-rotated"


def diagnostics(smoke, daemon, label, routes):
    """The validation commands of the runbook."""
    url = daemon.url
    status = smoke.cli(url, f"{label}-status", "status")
    smoke.quartet(f"{label} status", status)
    smoke.check(f"{label} status", status, "storage.state_root_lock.held", "==", True)
    runtime = smoke.cli(url, f"{label}-runtime", "runtime", "get")
    smoke.check(f"{label} runtime get", runtime, "debug_level", "!=", "full")
    auth = smoke.cli(url, f"{label}-check-auth", "doctor", "routes", "--routes-file", routes, "--check-auth")
    smoke.check(f"{label} doctor routes --check-auth", auth, "ok", "==", True)
    smoke.check(f"{label} doctor routes --check-auth", auth, "auth_checked", "==", True)
    smoke.check(f"{label} doctor routes --check-auth", auth, "errors", "==", [])
    references = smoke.cli(url, f"{label}-check-references", "doctor", "routes", "--check-references")
    smoke.check(f"{label} doctor routes --check-references", references, "ok", "==", True)
    smoke.check(f"{label} doctor routes --check-references", references, "reference_checked", "==", True)
    slot = smoke.cli(url, f"{label}-secret", "secrets", "get", "openai.prod")
    smoke.check(f"{label} secrets get", slot, "provider", "==", "open_ai")
    return status


def live_backup(smoke, daemon, state, workspace):
    """`backup create` of the running daemon, encrypted: its directory, the key's file, and the digest to be kept."""
    key = smoke.secrets / "backup-key"
    smoke.private(key, smoke.run_binary("secrets", "generate").strip())
    out = smoke.secrets / "live-backup"
    made = smoke.cli(
        daemon.url, "backup-create", "backup", "create", "--state-root", state, "--workspace", workspace, "--out", out,
        "--encrypt-key-file", key,
    )
    for name, wanted in (("ok", True), ("live", True), ("encrypted", True), ("missing", []), ("left_out", [])):
        smoke.check("backup create", made, name, "==", wanted)
    names = sorted(path.name for path in out.iterdir())
    wanted = ["backup.json", "manifest.json.sealed", "state.tar.sealed", "workspace.tar.sealed"]
    smoke.expect("the backup is whole under its name", names == wanted, str(names))
    status = smoke.cli(daemon.url, "status-after-backup", "status")
    smoke.quartet("status after the backup", status)
    audit = (state / "control-plane-auth" / "audit.jsonl").read_text()
    smoke.expect("the barrier is on record", "/v1/backup/barrier" in audit)
    return out, key, made["sha256"]


def restore_live(smoke, out, key, kept, routes, marker, key_digest):
    """Verification, refusals and restore of that backup, without tar and without the daemon that it came from."""
    opened = ["--decrypt-key-file", key, "--sha256", kept]
    report = json.loads(smoke.run_binary("backup", "verify", out, *opened, "--check-master-key", "--output", "json"))
    (smoke.evidence / "backup-verify.json").write_text(json.dumps(report))
    for name, wanted in (("ok", True), ("problems", []), ("slots", 1), ("audit.ok", True)):
        smoke.check("backup verify", report, name, "==", wanted)
    smoke.run_binary("backup", "verify", out, "--decrypt-key-file", key, "--sha256", "0" * 64, exits=(1,))
    smoke.run_binary("backup", "verify", out, exits=(1,))
    state, workspace = smoke.evidence / "live-restore-state", smoke.evidence / "live-restore-workspace"
    words = ["backup", "restore", "--from", out, "--state-root", state, "--workspace-root", workspace, *opened]
    wrong = smoke.environment(KHEISH_AUTH_STORE_MASTER_KEY_FILE=str(key))
    smoke.run_binary(*words, env=wrong, exits=(1,))
    smoke.expect("a wrong master key writes nothing", not state.exists() and not workspace.exists())
    smoke.run_binary(*words)
    smoke.run_binary(*words, exits=(1,))
    smoke.run_binary("journal", "verify", "--offline", "--state-root", state)
    smoke.run_binary("audit", "verify", "--offline", "--state-root", state)
    daemon = Daemon(smoke, "live-restored", state, workspace, routes)
    diagnostics(smoke, daemon, "live-restored", routes)
    smoke.expect("audit-signing.key is the same", sha256_file(state / "audit-signing.key") == key_digest)
    sentinel = workspace / "ops-workspace" / "sentinel.txt"
    smoke.expect("the workspace marker is the same", sha256_file(sentinel) == marker)
    released = smoke.cli(daemon.url, "runtime-release", "runtime", "release")
    smoke.check("runtime release", released, "held", "==", False)
    daemon.stop()


def main():
    with Smoke("ops_backup_restore_smoke", "KHEISH_OPS_SMOKE_ROOT", "KHEISH_OPS_SMOKE_SKIP_BUILD") as smoke:
        state = smoke.evidence / "state"
        workspace, marker = smoke.workspace("workspace")
        routes = smoke.evidence / "routes.toml"
        routes.write_text(ROUTES)
        for name, value in (("the first route key", FIRST), ("the second route key", SECOND)):
            smoke.secret(name, value)
        offline = ["secrets", "set", "openai.prod", "--offline", "--state-root", state, "--provider", "openai"]
        smoke.run_binary(*offline, "--value", FIRST, "--output", "json")

        daemon = Daemon(smoke, "daemon", state, workspace, routes)
        diagnostics(smoke, daemon, "before", routes)
        smoke.healthy_report(
            "doctor", smoke.cli(daemon.url, "doctor", "doctor"), ("readyz", "events_sse", "storage", "state_root_lock")
        )
        listed = smoke.cli(daemon.url, "secrets", "secrets", "list")
        smoke.expect("secrets list names the slot", "openai.prod" in str(listed))

        # Rotation, as the runbook has it: the new key, then the revocation. The route stays usable.
        smoke.cli(daemon.url, "rotated", "secrets", "set", "openai.prod", "--provider", "openai", "--value", SECOND)
        revoked = smoke.cli(daemon.url, "revoke-slot", "runtime", "auth", "revoke-slot", "openai.prod")
        smoke.check("revoke-slot", revoked, "slot_id", "==", "openai.prod")
        smoke.check("revoke-slot", revoked, "revoked_leases", ">=", 0)
        status = smoke.cli(daemon.url, "status-rotated", "status")
        smoke.check("status after the rotation", status, "provider_readiness.active_route_ready", "==", True)
        auth = smoke.cli(daemon.url, "check-auth-rotated", "doctor", "routes", "--check-auth")
        smoke.check("doctor routes after the rotation", auth, "ok", "==", True)
        live, live_key, kept = live_backup(smoke, daemon, state, workspace)
        daemon.stop()

        key = state / "audit-signing.key"
        smoke.expect("audit-signing.key is there although nothing ran", key.is_file() and key.stat().st_size > 0)
        key_digest = sha256_file(key)
        state_archive, state_digest = smoke.archive(state, "state")
        workspace_archive, workspace_digest = smoke.archive(workspace, "workspace")
        smoke.expect("the state root holds no workspace", not list(state.rglob("sentinel.txt")))
        (smoke.evidence / "kheish-backup.sha256").write_text(
            f"{state_digest}  state-backup.tar.gz\n{workspace_digest}  workspace-backup.tar.gz\n"
        )
        smoke.expect("the archive is what was written", sha256_file(state_archive) == state_digest)

        restored = smoke.extract(state_archive, "restore-state")
        restored_workspace = smoke.extract(workspace_archive, "restore-workspace")
        other = Daemon(smoke, "restored", restored, restored_workspace, routes)
        diagnostics(smoke, other, "after", routes)
        smoke.expect("audit-signing.key is the same", sha256_file(restored / "audit-signing.key") == key_digest)
        sentinel = restored_workspace / "ops-workspace" / "sentinel.txt"
        smoke.expect("the workspace marker is the same", sha256_file(sentinel) == marker)
        other.stop()
        restore_live(smoke, live, live_key, kept, routes, marker, key_digest)
        smoke.leaks()


main()
