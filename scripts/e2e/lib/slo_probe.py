"""`ops_slo_probe_smoke.sh`: every path of the SLO table on a healthy daemon with one OpenAI route. No model traffic."""

from smoke import CANARY_SCRIPT, MISSING, Daemon, Model, Smoke, at, http_call


def main():
    with Smoke("ops_slo_probe_smoke", "KHEISH_OPS_SLO_ROOT", "KHEISH_OPS_SLO_SKIP_BUILD") as smoke:
        model = Model(smoke, "KHEISH_OPS_SLO_MODEL", CANARY_SCRIPT.format(marker="OPS_SLO_OK"))
        state = smoke.evidence / "state"
        workspace, _ = smoke.workspace("workspace")
        offline = ["secrets", "set", "openai.prod", "--offline", "--state-root", state, "--provider", "openai"]
        smoke.run_binary(*offline, "--stdin", stdin=model.key)
        daemon = Daemon(smoke, "daemon", state, workspace, model.routes)

        ready = http_call("GET", f"{daemon.url}/readyz")
        smoke.expect("/readyz is 2xx", ready.status // 100 == 2, str(ready.status))
        status = smoke.cli(daemon.url, "status", "status")
        smoke.quartet("status", status)
        smoke.check("status", status, "provider_readiness.route_count", ">=", 1)
        for counter in ("running", "queued", "waiting_for_approval", "waiting_for_user_question"):
            smoke.check("status", status, f"runs.{counter}", "==", 0)
        for age in ("oldest_queued_run_age_ms", "oldest_non_terminal_run_idle_ms"):
            smoke.expect(f"no {age} without such a run", at(status, f"runs.{age}") is MISSING)
        smoke.check("status", status, "runtime.debug_level", "!=", "full")
        smoke.check("status", status, "control_plane.auth_enabled", "==", True)
        smoke.check("status", status, "control_plane.bind_is_loopback", "==", True)
        smoke.healthy_report("doctor", smoke.cli(daemon.url, "doctor", "doctor"), ("readyz", "storage"))
        report = smoke.cli(daemon.url, "doctor-routes", "doctor", "routes", "--check-auth")
        smoke.check("doctor routes --check-auth", report, "ok", "==", True)
        smoke.check("doctor routes --check-auth", report, "diagnostics", "==", [])
        # A host whose disk is fuller than the table wants is no fault of the daemon: those two rows may say so here.
        signals = smoke.cli(daemon.url, "slo", "slo", exits=(0, 1, 2))
        rows = smoke.check("slo", signals, "rows", "!=", [])
        for row in rows:
            allowed = {"storage": ["ok", "warning"], "disk": ["ok", "warning", "page"]}.get(row["id"], ["ok"])
            smoke.check(f"slo {row['id']}", row, "level", "in", allowed)
        daemon.stop()
        smoke.leaks()


main()
