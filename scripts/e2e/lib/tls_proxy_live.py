"""`ops_tls_proxy_live_smoke.sh`: a run and all event streams through HTTPS, with the generated certificate as the trusted
CA of every probe and of the command line."""

import json
import subprocess

from proxy import StreamingProxy
from smoke import CANARY_SCRIPT, Daemon, Failed, Model, Smoke, first_frame, http_call, until

MARKER = "TLS_PROXY_LIVE_OK"
TERMINAL = ("completed", "failed", "cancelled", "interrupted")


def certificate(smoke):
    """A certificate of one day for localhost, and its key, which stays out of the evidence."""
    cert, key = smoke.evidence / "tls-cert.pem", smoke.secrets / "tls-key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    # Not an authority: a certificate cannot be one and stand for a server, though it may be trusted as an anchor.
    words += ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return cert, key


def main():
    with Smoke("ops_tls_proxy_live_smoke", "KHEISH_OPS_TLS_LIVE_ROOT", "KHEISH_OPS_TLS_LIVE_SKIP_BUILD") as smoke:
        model = Model(smoke, "KHEISH_OPS_TLS_LIVE_MODEL", CANARY_SCRIPT.format(marker=MARKER))
        state = smoke.evidence / "state"
        workspace, _ = smoke.workspace("workspace")
        offline = ["secrets", "set", "openai.prod", "--offline", "--state-root", state, "--provider", "openai"]
        smoke.run_binary(*offline, "--stdin", stdin=model.key)
        daemon = Daemon(smoke, "daemon", state, workspace, model.routes)
        cert, key = certificate(smoke)
        proxy = StreamingProxy(daemon.port, cert, key, set_host=True)
        url, token = proxy.url, smoke.admin()

        def call(method, path, body=None, token=token):
            return http_call(method, url + path, token, body, ca=cert)

        refused = call("GET", "/v1/status", token=None)
        smoke.expect("status without a token is 401", refused.status == 401, str(refused.status))
        status = call("GET", "/v1/status").json()
        smoke.quartet("status over HTTPS", status)
        ca_option = ("--ca-file", cert)
        smoke.quartet("the command line over HTTPS", smoke.cli(url, "status-cli", "status", more=ca_option))
        smoke.healthy_report("doctor over HTTPS", smoke.cli(url, "doctor", "doctor", more=ca_option), ("events_sse",))

        empty = dict.fromkeys(("session_id", "thread_id", "persona_id", "capability_scope", "credential_scope"))
        created = call("POST", "/v1/sessions", empty)
        smoke.expect("a session is created", created.status in (200, 201), created.body[:300].decode())
        session = smoke.check("the session", created.json(), "session_id", "!=", "")
        asked = {"content": f"Reply exactly {MARKER} and nothing else.", "provider": "openai", "metadata": None}
        asked |= {"generation": {"model": model.name, "max_output_tokens": 64, "tool_choice": {"type": "none"}}}
        accepted = call("POST", f"/v1/sessions/{session}/runs", asked)
        smoke.expect("the run is accepted", accepted.status == 202, accepted.body[:300].decode())
        run = smoke.check("the run", accepted.json(), "run_id", "!=", "")

        def finished():
            view = call("GET", f"/v1/runs/{run}").json()
            return view if view.get("status") in TERMINAL else None

        view = until("the run to finish", 180, finished, 0.5)
        (smoke.evidence / "run.json").write_text(json.dumps(view, indent=2))
        smoke.check("the run", view, "status", "==", "completed")
        smoke.expect(f"an output says {MARKER}", MARKER in json.dumps(view.get("outputs", "")))

        last = None
        for path in ("/v1/events/stream", f"/v1/sessions/{session}/stream", f"/v1/runs/{run}/stream"):
            frame = first_frame(f"{url}{path}?cursor=0", token, ca=cert)
            smoke.expect(f"{path} begins with a replayed frame", "event" in frame and frame.get("id", "").isdigit(), frame)
            last = last or int(frame["id"])
        second = call("POST", "/v1/sessions", empty)
        smoke.expect("another session is created", second.status in (200, 201))
        frame = first_frame(f"{url}/v1/events/stream", token, {"Last-Event-ID": str(last)}, cert)
        if not frame.get("id", "").isdigit() or int(frame["id"]) <= last:
            raise Failed(f"after Last-Event-ID {last} the stream went on with {frame}")
        smoke.checks += 1
        proxy.stop()
        daemon.stop()
        smoke.leaks()


main()
