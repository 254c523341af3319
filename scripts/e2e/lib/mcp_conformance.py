"""`mcp_conformance.sh`: the official MCP conformance suite's client scenarios against the real daemon.

Owns: the suite's folder when it is made here, and what the daemon is told to do in each scenario.
Never: counts a scenario without checks as passed; keeps a token in the evidence.
`run` starts the suite; the suite starts `client URL` for each scenario, which starts a daemon, logs it in and has it call
tools. Standard library only.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path

from offline_routes import ROUTES
from smoke import Daemon, Failed, Model, Smoke, find_binary, http_call, until

NODE_MAJOR = 22
SUITE = "@modelcontextprotocol/conformance"
# The first version whose lists of required scenarios are frozen, and that checks each of our messages against the schema.
SUITE_VERSION = "0.2.0-alpha.12"
# What each revision demands. The oldest has no list of its own: all that the suite has for it.
REVISIONS = {
    "2025-06-18": ["--suite", "all", "--spec-version", "2025-06-18"],
    "2025-11-25": ["--requirements", "2025-11-25"],
    "2026-07-28": ["--requirements", "2026-07-28"],
}
CLIENT_SECONDS = 60
DOCUMENT = "https://conformance-test.local/client-metadata.json"
SERVER = "web"


# --- the suite ------------------------------------------------------------------------------------------------------


def skipped(reason):
    print(f"SKIPPED: {reason}: the client scenarios of the official conformance suite were not tried")
    sys.exit(0)


def obtained():
    """A folder with Node and the suite: the one that is named, or a new one from the registry."""
    given = os.environ.get("KHEISH_MCP_SUITE_DIR")
    if given:
        return Path(given), None
    if not shutil.which("npm"):
        skipped("npm is not installed")
    folder = Path(tempfile.mkdtemp(prefix="mcp-conformance."))
    words = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
    words += [f"node@{NODE_MAJOR}", f"{SUITE}@{SUITE_VERSION}"]
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    if result.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        skipped(f"{SUITE} cannot be installed")
    return folder, folder


def node_of(folder):
    for node in (folder / "node_modules" / "node" / "bin" / "node", shutil.which("node")):
        if not node or not os.access(node, os.X_OK):
            continue
        version = subprocess.run([str(node), "--version"], capture_output=True, text=True, timeout=30).stdout.strip()
        if version.startswith("v") and int(version[1:].split(".")[0]) >= NODE_MAJOR:
            return str(node)
    return skipped(f"there is no Node {NODE_MAJOR} or later")


def not_scored(log):
    """Scenarios that the suite runs and that no revision demands: extensions, and what came after a release."""
    _, _, rest = log.partition("Not scored for")
    return {line.split()[1] for line in rest.splitlines()[1:] if line.startswith("  ") and len(line.split()) > 2}


def judge(revision, output, log):
    """Scenario by scenario: how many checks there were and how many did not succeed."""
    results, free = [], not_scored(log)
    for place in sorted(output.rglob("checks.json")):
        checks = json.loads(place.read_text())
        bad = [check for check in checks if check.get("status") in ("FAILURE", "WARNING")]
        good = [check for check in checks if check.get("status") == "SUCCESS"]
        # The suite adds the time to the name.
        name = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", place.parent.relative_to(output).as_posix())
        if name in free:
            continue
        results.append({"scenario": name, "revision": revision, "succeeded": len(good), "failed": len(bad)})
        results[-1]["failures"] = [f"{check.get('id')}: {check.get('errorMessage') or ''}"[:300] for check in bad]
    return results


def run():
    folder, made = obtained()
    try:
        node = node_of(folder)
        suite = folder / "node_modules" / SUITE / "dist" / "index.js"
        if not suite.is_file():
            skipped(f"{SUITE} is not in {folder}")
        binary = find_binary("KHEISH_E2E_SKIP_BUILD")
        root = Path(os.environ.get("KHEISH_E2E_ROOT") or tempfile.mkdtemp(prefix="mcp-conformance-evidence."))
        results, exits = [], []
        for revision, choice in REVISIONS.items():
            output = root / revision
            client = f"{sys.executable} {Path(__file__).resolve()} client"
            words = [node, str(suite), "client", *choice, "--command", client, "--output-dir", str(output)]
            only = os.environ.get("KHEISH_MCP_SCENARIO")
            if only:
                words = [node, str(suite), "client", "--scenario", only, "--spec-version", revision]
                words += ["--command", client, "--output-dir", str(output)]
            words += ["--timeout", str(CLIENT_SECONDS * 1000)]
            environment = os.environ | {"KHEISH_BIN": str(binary), "KHEISH_E2E_ROOT": str(root / "daemons")}
            output.mkdir(parents=True, exist_ok=True)
            with open(root / f"{revision}.log", "w", encoding="utf-8") as log:
                done = subprocess.run(words, stdout=log, stderr=log, env=environment, timeout=3600)
            exits.append({"revision": revision, "exit_code": done.returncode})
            results += judge(revision, output, (root / f"{revision}.log").read_text())
        for result in results:
            mark = "ok" if result["succeeded"] and not result["failed"] else "FAILED"
            print(f"{result['revision']} {mark:6} {result['succeeded']:3} checks {result['scenario']}")
            for failure in result["failures"]:
                print(f"    {failure}")
        missing = [revision for revision in REVISIONS if not any(r["revision"] == revision for r in results)]
        bad = [result for result in results if not result["succeeded"] or result["failed"]]
        passed = not bad and not missing and all(not entry["exit_code"] for entry in exits)
        verdict = {"scenario": "mcp_conformance", "status": "passed" if passed else "failed", "runs": exits}
        verdict |= {"scenarios": len(results), "failed": len(bad), "without_result": missing}
        verdict |= {"checks": sum(result["succeeded"] for result in results), "evidence": str(root)}
        (root / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n")
        print(json.dumps(verdict))
        sys.exit(0 if passed else 1)
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)


# --- the client -----------------------------------------------------------------------------------------------------


class Refused(Exception):
    """A command that the daemon or the server refused; its text is the command's own."""


class Client:
    def __init__(self, smoke, scenario, url, revision, context):
        self.smoke, self.scenario, self.url, self.context = smoke, scenario, url, context
        self.is_auth = scenario.startswith("auth/")
        config = f'[mcp_servers.{SERVER}]\nurl = "{url}"\ntool_timeout_sec = 20\n'
        if revision == "2026-07-28":
            config += 'protocol = "2026-07-28"\n'
        if self.is_auth:
            config += f'oauth_slot_ref = "mcp.oauth.{SERVER}"\n'
        file = smoke.evidence / "mcp.toml"
        file.write_text(config)
        workspace = smoke.evidence / "workspace"
        workspace.mkdir()
        routes = smoke.evidence / "routes.toml"
        if scenario in MODEL:
            smoke.secret("the provider key", key := f"sk-conformance-{os.urandom(12).hex()}")
            script = "version = 1\n" + "".join(turn(call, tool, json.dumps(words)) for call, tool, words in MODEL[scenario])
            routes.write_text(
                'version = 1\ndefault_route = "openai"\n\n[routes.openai]\ndriver = "openai"\ndefault_model = "gpt-5.4"\n'
                f'model_support = "any"\nbase_url = "{Model.start(smoke, script)}"\nauth_ref = "openai.prod"\n'
            )
            words = ["secrets", "set", "openai.prod", "--provider", "openai", "--stdin", "--offline"]
            smoke.run_binary(*words, "--state-root", smoke.evidence / "state", stdin=key)
        else:
            routes.write_text(ROUTES)
        more = ["--mcp-config", file]
        self.daemon = Daemon(smoke, "daemon", smoke.evidence / "state", workspace, routes, more)

    def command(self, *words):
        shared = ["--base-url", self.daemon.url, "--token-file", str(self.smoke.admin_file), "--output", "json"]
        result = subprocess.run(
            [str(self.smoke.binary), *shared, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS,
            env=self.smoke.environment(),
        )
        print(f"$ kheish-daemon {' '.join(map(str, words))}\n{result.stdout[-600:]}{result.stderr[-600:]}", flush=True)
        if result.returncode:
            raise Refused(result.stderr)
        return json.loads(result.stdout) if result.stdout.strip() else None

    def server(self):
        return self.command("mcp", "get", SERVER)

    def login(self):
        """`mcp oauth login`, with the person and the browser played by two requests."""
        words = ["--base-url", self.daemon.url, "--token-file", self.smoke.admin_file, "--output", "json", "mcp", "oauth"]
        words += ["login", SERVER, "--url", self.url, "--no-open", "--allow-http-for-loopback", "--timeout-sec", "30"]
        environment = self.smoke.environment()
        if "client_id" in self.context:
            words += ["--client-id", self.context["client_id"], "--client-secret-env", "CLIENT_SECRET"]
            environment["CLIENT_SECRET"] = self.context["client_secret"]
        if self.scenario == "auth/basic-cimd":
            words += ["--client-metadata-url", DOCUMENT]
        process = subprocess.Popen(
            [str(self.smoke.binary), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.smoke.others.append(process)
        line = process.stderr.readline()
        try:
            opened = json.loads(line[line.find("{") :])
        except ValueError:
            raise Refused(line + process.communicate(timeout=30)[1]) from None
        back = http_call("GET", opened["authorization_url"]).headers["Location"]
        parts = urllib.parse.urlsplit(back)
        http_call("GET", f"http://{parts.netloc}{parts.path}?{parts.query}")
        _, errors = process.communicate(timeout=30)
        print(f"login: {process.returncode} {errors[-600:]}", flush=True)
        if process.returncode:
            raise Refused(errors)

    def with_login(self, act):
        """Does `act`, with another login when the daemon says that one is needed, and only then."""
        for attempt in range(3):
            try:
                return act()
            except Refused as error:
                needs_login = self.is_auth and "mcp oauth login" in str(error) and attempt < 2
                if not needs_login:
                    raise
                self.login()
        raise Failed("unreachable")

    def connect(self):
        if self.is_auth:
            self.login()
            return self.with_login(lambda: self.command("mcp", "reconnect", SERVER))
        until("the server to be connected", 30, lambda: self.server()["connected"])
        return self.server()

    def call(self, tool, arguments):
        words = ["mcp", "tools", "call", SERVER, tool, "--arguments", json.dumps(arguments)]
        return self.with_login(lambda: self.command(*words))

    def tools(self):
        return self.command("mcp", "tools", "list", SERVER)

    def model(self):
        """Runs in which a model calls the tools; people answer what servers have them asked, with the form's defaults."""
        admin = self.smoke.admin()
        api = lambda method, path, body=None: http_call(method, self.daemon.url + path, admin, body)
        api("POST", "/v1/runtime/permission-mode", {"mode": "bypassPermissions"})
        api("POST", "/v1/sessions", {"session_id": "s"})
        for call, _, _ in MODEL[self.scenario]:
            run = api("POST", "/v1/sessions/s/runs", {"content": call}).json()["run_id"]

            def ended():
                for question in self.command("questions", "list"):
                    self.command("questions", "answer", question["request"]["id"], "--answers-json", "[]")
                return api("GET", f"/v1/runs/{run}").json()["status"] in ("completed", "failed", "cancelled")

            until("the run to end", 30, ended)
            if api("GET", f"/v1/runs/{run}").json()["status"] != "completed":
                raise Failed(f"{call}: {api('GET', f'/v1/runs/{run}').body!r}")

    def go(self):
        self.connect()
        if self.scenario in MODEL:
            self.model()
        elif self.scenario == "http-custom-headers":
            for wanted in self.context.get("toolCalls", []):
                self.call(wanted["name"], wanted.get("arguments", {}))
        elif self.scenario == "json-schema-2020-12-preservation":
            named = {tool["tool"]: tool for tool in self.tools()}
            self.call("json_schema_echo", {"schema": named["json_schema_2020_12_tool"]["input_schema"]})
        elif self.scenario not in ("initialize", "json-schema-ref-no-deref"):
            for tool in self.tools():
                self.call(tool["tool"], ARGUMENTS.get(tool["tool"], {}))
                if self.scenario == "auth/authorization-server-migration":
                    self.call(tool["tool"], ARGUMENTS.get(tool["tool"], {}))
        self.daemon.stop()


ARGUMENTS = {"add_numbers": {"a": 5, "b": 3}}

# Scenarios in which a model calls: what it is told, the tool, its arguments.
MODEL = {
    "elicitation-sep1034-client-defaults": [("ask people", f"mcp__{SERVER}__test_client_elicitation_defaults", {})],
}


def turn(call, tool, arguments):
    words = json.dumps(arguments)
    return (
        f'[[turn]]\nmatch = "{call}"\nmatch_result = ":"\ntext = "done"\n'
        f'[[turn]]\nmatch = "{call}"\ntool_calls = [{{ name = "{tool}", arguments = {words} }}]\n'
    )


def client(url):
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    revision = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    with Smoke(f"conformance-{scenario.replace('/', '-')}", "KHEISH_E2E_ROOT", "KHEISH_E2E_SKIP_BUILD") as smoke:
        try:
            Client(smoke, scenario, url, revision, context).go()
        except Refused as error:
            raise Failed(str(error)) from None


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client(sys.argv[-1])
    else:
        run()
