"""`run_mcp_local_true_binary.sh`: the three scenarios of MCP against servers on this host; no network is used.

Owns: the servers that the daemon meets. They keep what they saw, and never what a token was.
Standard library only.
"""

import base64
import hashlib
import http.server
import json
import os
import subprocess
import threading
import urllib.parse

from offline_routes import ROUTES
from smoke import Daemon, Smoke, http_call, until

SLOT = "mcp.custom.secretHttp.BEARER_TOKEN"


class Fixture:
    """An MCP server that wants a bearer token, and with `oauth` its authorization server as well."""

    def __init__(self, port_variable, tokens, oauth=False):
        self.tokens, self.oauth = set(tokens), oauth
        self.seen, self.codes, self.refresh_tokens, self.issued = [], {}, set(), []
        fixture = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, status, document=None, headers=()):
                body = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                if document is not None:
                    self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                fixture.get(self)

            def do_POST(self):
                fixture.post(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def do_DELETE(self):
                fixture.mcp(self, "DELETE", None)

        port = int(os.environ.get(port_variable) or 0)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.origin}/mcp"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def mcp(self, request, method, message):
        bearer = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        known = bearer in self.tokens
        self.seen.append({"method": method, "authorised": known, "has_authorization": bool(bearer)})
        if not known:
            challenge = "Bearer"
            if self.oauth:
                challenge += f' resource_metadata="{self.origin}/.well-known/oauth-protected-resource/mcp", scope="read"'
            return request.answer(401, None, [("WWW-Authenticate", challenge)])
        if request.command != "POST":
            return request.answer(405)
        if "id" not in message:
            return request.answer(202)
        info = {"name": "fixture", "version": "1"}
        result = {
            "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info},
            "tools/list": {"tools": [{"name": "hello", "inputSchema": {"type": "object"}}]},
        }.get(message["method"], {"content": [{"type": "text", "text": "hello"}]})
        return request.answer(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})

    def get(self, request):
        parts = urllib.parse.urlsplit(request.path)
        if parts.path == "/mcp":
            return self.mcp(request, "GET", None)
        if self.oauth and parts.path == "/.well-known/oauth-protected-resource/mcp":
            document = {"resource": self.url, "authorization_servers": [self.origin], "scopes_supported": ["read"]}
            return request.answer(200, document)
        if self.oauth and parts.path == "/.well-known/oauth-authorization-server":
            return request.answer(
                200,
                {
                    "issuer": self.origin,
                    "authorization_endpoint": f"{self.origin}/authorize",
                    "token_endpoint": f"{self.origin}/token",
                    "registration_endpoint": f"{self.origin}/register",
                    "response_types_supported": ["code"],
                    "code_challenge_methods_supported": ["S256"],
                },
            )
        if self.oauth and parts.path == "/authorize":
            asked = dict(urllib.parse.parse_qsl(parts.query))
            self.seen.append({"authorize": {name: asked.get(name) for name in ("resource", "scope", "code_challenge_method")}})
            code = os.urandom(12).hex()
            self.codes[code] = asked
            back = urllib.parse.urlencode({"code": code, "state": asked["state"]})
            return request.answer(302, None, [("Location", f"{asked['redirect_uri']}?{back}")])
        return request.answer(404)

    def post(self, request, body):
        if request.path == "/mcp":
            message = json.loads(body)
            return self.mcp(request, message["method"], message)
        if self.oauth and request.path == "/register":
            self.seen.append({"register": json.loads(body)})
            return request.answer(201, {"client_id": "client-of-the-smoke"})
        if self.oauth and request.path == "/token":
            return self.token(request, dict(urllib.parse.parse_qsl(body.decode())))
        return request.answer(404)

    def token(self, request, form):
        kind = form.get("grant_type")
        self.seen.append({"token": {"grant_type": kind, "resource": form.get("resource")}})
        if kind == "authorization_code":
            asked = self.codes.pop(form.get("code"), None)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            good = asked and challenge == asked["code_challenge"] and form.get("redirect_uri") == asked["redirect_uri"]
        else:
            # A refresh token is good once.
            good = form.get("refresh_token") in self.refresh_tokens
            self.refresh_tokens.discard(form.get("refresh_token"))
        if not good:
            return request.answer(400, {"error": "invalid_grant"})
        access, refresh = f"access-{os.urandom(12).hex()}", f"refresh-{os.urandom(12).hex()}"
        self.tokens.add(access)
        self.refresh_tokens.add(refresh)
        self.issued += [access, refresh]
        answer = {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 3600}
        return request.answer(200, answer | {"scope": "read"})

    def methods(self):
        return [entry["method"] for entry in self.seen if "method" in entry]


def start(smoke, name, place, *more):
    routes = smoke.evidence / "routes.toml"
    routes.write_text(ROUTES)
    workspace = smoke.evidence / f"{place}-workspace"
    workspace.mkdir(exist_ok=True)
    return Daemon(smoke, name, smoke.evidence / f"{place}-state", workspace, routes, more)


def server(smoke, daemon, label, name):
    runtime = smoke.cli(daemon.url, label, "runtime", "get")
    found = [entry for entry in runtime["mcp"]["servers"] if entry["server"] == name]
    smoke.expect(f"{label}: server {name} is in the snapshot", len(found) == 1, str(runtime["mcp"]))
    return runtime["mcp"], found[0]


def catalog(smoke):
    listed = json.loads(
        smoke.run_binary("mcp", "catalog", "list", "--profile", "docs", "--supported-only", "--output", "json")
    )
    smoke.expect("the catalog has openai-docs", "openai-docs" in [entry["id"] for entry in listed])
    smoke.expect("only what can be used", all(entry["status"] == "supported" for entry in listed))
    profile = json.loads(smoke.run_binary("mcp", "profiles", "get", "docs", "--output", "json"))
    smoke.check("mcp profiles get docs", profile, "entries", "contains", "openai-docs")
    # Nothing outside is asked: the daemon is cut off, says so of the server, and works all the same.
    daemon = start(smoke, "catalog", "catalog", "--mcp-profile", "docs", "--air-gapped")
    snapshot, entry = server(smoke, daemon, "catalog-runtime", "openaiDeveloperDocs")
    smoke.check("runtime get", snapshot, "selected_profiles", "contains", "docs")
    smoke.check("openaiDeveloperDocs", entry, "source", "==", "built_in_catalog")
    smoke.check("openaiDeveloperDocs", entry, "profiles", "contains", "docs")
    smoke.check("openaiDeveloperDocs", entry, "catalog_entry_id", "==", "openai-docs")
    smoke.check("openaiDeveloperDocs", entry, "connected", "==", False)
    daemon.stop()


def secret_store(smoke):
    token = f"bearer-{os.urandom(16).hex()}"
    smoke.secret("the bearer token", token)
    fixture = Fixture("KHEISH_E2E_MCP_PORT", [token])
    config = smoke.evidence / "bearer.toml"
    config.write_text(f'[mcp_servers.secretHttp]\nurl = "{fixture.url}"\nbearer_token_secret_ref = "{SLOT}"\n')
    state = smoke.evidence / "bearer-state"
    words = ["secrets", "set", SLOT, "--provider", "generic", "--stdin", "--offline", "--state-root", state]
    smoke.run_binary(*words, "--output", "json", stdin=token)
    daemon = start(smoke, "bearer", "bearer", "--mcp-config", config)
    until("the server to be connected", 60, lambda: server(smoke, daemon, "bearer-runtime", "secretHttp")[1]["connected"])
    _, entry = server(smoke, daemon, "bearer-runtime", "secretHttp")
    smoke.check("secretHttp", entry, "uses_credentials", "==", True)
    smoke.check("secretHttp", entry, "credential_secret_refs", "==", [SLOT])
    called = smoke.cli(daemon.url, "bearer-call", "mcp", "tools", "call", "secretHttp", "hello")
    smoke.check("mcp tools call", called, "is_error", "==", False)
    for method in ("initialize", "tools/list", "tools/call"):
        smoke.expect(f"the server saw {method}", method in fixture.methods(), str(fixture.methods()))
    smoke.expect("every request had the secret", all(entry["authorised"] for entry in fixture.seen))
    refused = http_call("DELETE", f"{daemon.url}/v1/runtime/secrets/{SLOT}", smoke.admin())
    smoke.expect("the slot is needed", refused.status == 409, str(refused.status))
    smoke.expect("the refusal says by whom", b"still referenced by one or more MCP servers" in refused.body)
    smoke.cli(daemon.url, "bearer-revoked", "runtime", "auth", "revoke-slot", SLOT)
    until("the server to be down", 60, lambda: not server(smoke, daemon, "bearer-down", "secretHttp")[1]["connected"])
    daemon.stop()


class Browser:
    """Goes where `mcp oauth login --no-open` says, and comes back; with `wrong_state` as somebody else."""

    def __init__(self, smoke, daemon, fixture, wrong_state):
        words = ["--base-url", daemon.url, "--token-file", smoke.admin_file, "--output", "json", "mcp", "oauth", "login"]
        words += ["oauthHttp", "--url", fixture.url, "--no-open", "--allow-http-for-loopback", "--scopes", "read"]
        words += ["--timeout-sec", "60"]
        process = subprocess.Popen(
            [str(smoke.binary), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=smoke.environment(),
        )
        smoke.others.append(process)
        opened = json.loads(process.stderr.readline().removeprefix("note: ").removeprefix("Note: "))
        answer = http_call("GET", opened["authorization_url"])
        back = urllib.parse.urlsplit(answer.headers["Location"])
        query = dict(urllib.parse.parse_qsl(back.query))
        if wrong_state:
            query["state"] = "of-another-login"
        self.page = http_call("GET", f"http://{back.netloc}{back.path}?{urllib.parse.urlencode(query)}").body.decode()
        self.out, self.errors = process.communicate(timeout=60)
        self.code = process.returncode
        self.slot = opened["slot_id"]


def oauth(smoke):
    fixture = Fixture("KHEISH_E2E_MCP_OAUTH_PORT", [], oauth=True)
    daemon = start(smoke, "oauth-login", "oauth")
    wrong = Browser(smoke, daemon, fixture, wrong_state=True)
    smoke.expect("a wrong state ends the login", wrong.code != 0)
    smoke.expect("the browser is told", "failed" in wrong.page, wrong.page)
    accounts = smoke.cli(daemon.url, "oauth-none", "runtime", "auth", "accounts", "list")
    smoke.expect("nothing was stored", accounts == [], str(accounts))
    good = Browser(smoke, daemon, fixture, wrong_state=False)
    smoke.expect("the login succeeds", good.code == 0, good.errors[-400:])
    smoke.expect("the slot is named after the server", good.slot == "mcp.oauth.oauthHttp", good.slot)
    registered = [entry["register"] for entry in fixture.seen if "register" in entry][-1]
    smoke.check("registration", registered, "client_name", "==", "Kheish")
    smoke.check("registration", registered, "redirect_uris.0", "contains", "http://127.0.0.1:")
    smoke.check("registration", registered, "grant_types", "==", ["authorization_code", "refresh_token"])
    smoke.check("registration", registered, "response_types", "==", ["code"])
    smoke.check("registration", registered, "token_endpoint_auth_method", "==", "none")
    asked = [entry["authorize"] for entry in fixture.seen if "authorize" in entry][-1]
    wanted = {"resource": fixture.url, "scope": "read", "code_challenge_method": "S256"}
    smoke.expect("the person is asked for the right thing", asked == wanted, str(asked))
    status = smoke.cli(daemon.url, "oauth-status", "mcp", "oauth", "status", "oauthHttp")
    smoke.check("mcp oauth status", status, "provider", "==", "mcp_oauth")
    smoke.check("mcp oauth status", status, "mode", "==", "oauth_account")
    smoke.check("mcp oauth status", status, "details.resource", "==", fixture.url)
    smoke.cli(daemon.url, "oauth-refresh", "mcp", "oauth", "refresh", "oauthHttp")
    account = smoke.cli(daemon.url, "oauth-get", "runtime", "auth", "accounts", "get", "mcp.oauth.oauthHttp")
    smoke.check("the account", account, "details.last_refresh_outcome", "==", "success")
    smoke.check("the account", account, "details.last_refresh_at_ms", ">=", 1)
    kinds = [entry["token"] for entry in fixture.seen if "token" in entry]
    smoke.expect("the token was refreshed", "refresh_token" in [kind["grant_type"] for kind in kinds])
    smoke.expect("each exchange names the resource", all(kind["resource"] == fixture.url for kind in kinds), str(kinds))
    daemon.stop()

    config = smoke.evidence / "oauth.toml"
    config.write_text(
        f'[mcp_servers.oauthHttp]\nurl = "{fixture.url}"\noauth_slot_ref = "mcp.oauth.oauthHttp"\n'
        f'oauth_resource = "{fixture.url}"\noauth_scopes = ["read"]\n'
    )
    before = len(fixture.seen)
    daemon = start(smoke, "oauth-server", "oauth", "--mcp-config", config)
    _, entry = server(smoke, daemon, "oauth-runtime", "oauthHttp")
    smoke.check("oauthHttp", entry, "connected", "==", False)
    smoke.check("oauthHttp", entry, "error", "==", "oauth_requires_scoped_runtime_initialization")
    smoke.check("oauthHttp", entry, "credential_secret_refs", "contains", "mcp.oauth.oauthHttp")
    smoke.expect("no token leaves at start", len(fixture.seen) == before, str(fixture.seen[before:]))
    called = smoke.cli(daemon.url, "oauth-call", "mcp", "tools", "call", "oauthHttp", "hello")
    smoke.check("mcp tools call", called, "is_error", "==", False)
    daemon.stop()

    daemon = start(smoke, "oauth-logout", "oauth")
    gone = smoke.cli(daemon.url, "oauth-gone", "mcp", "oauth", "logout", "oauthHttp")
    smoke.check("mcp oauth logout", gone, "accepted", "==", True)
    accounts = smoke.cli(daemon.url, "oauth-after", "runtime", "auth", "accounts", "list")
    smoke.expect("the account is gone", accounts == [], str(accounts))
    daemon.stop()
    for number, token in enumerate(fixture.issued):
        smoke.secret(f"token {number} of the fixture", token)


def main():
    scenario = "mcp_local_true_binary_suite"
    with Smoke(scenario, "KHEISH_E2E_ROOT", "KHEISH_E2E_SKIP_BUILD") as smoke:
        for scene in (catalog, secret_store, oauth):
            scene(smoke)
            with open(smoke.evidence / "results.jsonl", "a", encoding="utf-8") as results:
                results.write(json.dumps({"scenario": scene.__name__, "status": "passed"}) + "\n")
        smoke.leaks()


if __name__ == "__main__":
    main()
