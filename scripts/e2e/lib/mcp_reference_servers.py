"""`mcp_reference_servers.sh`: the official reference servers, unmodified, in the daemon's sandbox.

Owns: the servers' folder when it is made here, and what each of them is asked.
Never: gives a server the network.
Standard library only.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from offline_routes import ROUTES
from smoke import Daemon, Smoke, http_call, until

NPM = ["server-everything", "server-filesystem", "server-memory"]
PYPI = ["mcp-server-time", "mcp-server-git"]
SERVERS = ["everything", "filesystem", "git", "memory", "time"]


def skipped(reason):
    print(f"SKIPPED: {reason}: the official reference servers were not tried")
    sys.exit(0)


def obtained():
    """A folder with `node_modules` and a virtual environment `py`: the one that is named, or a new one from the registries."""
    given = os.environ.get("KHEISH_MCP_REFERENCE_DIR")
    if given:
        return Path(given).resolve(), None
    for program in ("npm", "node", "git"):
        if not shutil.which(program):
            skipped(f"{program} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="mcp-reference.")).resolve()
    steps = [
        ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "node@22"]
        + [f"@modelcontextprotocol/{name}" for name in NPM],
        [sys.executable, "-m", "venv", "--copies", str(folder / "py")],
        [str(folder / "py/bin/pip"), "install", "--quiet", *PYPI],
    ]
    for words in steps:
        if subprocess.run(words, cwd=folder, capture_output=True, timeout=900).returncode:
            shutil.rmtree(folder, ignore_errors=True)
            skipped(f"`{' '.join(words[:2])}` does not work here")
    return folder, folder


def configuration(folder, workspace):
    """What an operator would write; the servers' folder, and Python's own where it is not the system's, are readable."""
    node = next(
        (str(path) for path in (folder / "node_modules/node/bin/node", Path(shutil.which("node") or "/")) if path.is_file()), None
    )
    base = subprocess.run(
        [str(folder / "py/bin/python"), "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    readable = [str(folder)] + ([] if base.startswith("/usr") else [str(Path(base).resolve())])
    package = lambda name: str(folder / f"node_modules/@modelcontextprotocol/{name}/dist/index.js")
    python = str(folder / "py/bin/python")
    entries = {
        "everything": (node, [package("server-everything")], {}),
        "filesystem": (node, [package("server-filesystem"), str(workspace)], {}),
        "memory": (node, [package("server-memory")], {"MEMORY_FILE_PATH": str(workspace / "memory.jsonl")}),
        "time": (python, ["-m", "mcp_server_time", "--local-timezone", "UTC"], {}),
        "git": (python, ["-m", "mcp_server_git", "--repository", str(workspace / "repository")], {}),
    }
    text = ""
    for name, (command, words, variables) in entries.items():
        text += f"[mcp_servers.{name}]\ncommand = {json.dumps(command)}\nargs = {json.dumps(words)}\n"
        text += f"read_only_paths = {json.dumps(readable)}\nstartup_timeout_sec = 60\n"
        if variables:
            text += "env = { " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in variables.items()) + " }\n"
    return text


def repository(workspace):
    place = workspace / "repository"
    place.mkdir()
    (place / "file.txt").write_text("one\n")
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "file.txt"], [*identity, "commit", "-q", "-m", "The first commit"]):
        subprocess.run(["git", *words], cwd=place, check=True, capture_output=True)
    return place


def main():
    folder, made = obtained()
    try:
        with Smoke("mcp_reference_servers", "KHEISH_E2E_ROOT", "KHEISH_E2E_SKIP_BUILD") as smoke:
            drive(smoke, folder)
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)


def drive(smoke, folder):
    workspace = (smoke.evidence / "workspace").resolve()
    workspace.mkdir()
    place = repository(workspace)
    config = smoke.evidence / "mcp.toml"
    config.write_text(configuration(folder, workspace))
    routes = smoke.evidence / "routes.toml"
    routes.write_text(ROUTES)
    daemon = Daemon(smoke, "daemon", smoke.evidence / "state", workspace, routes, ["--mcp-config", config])

    def call(server, tool, **arguments):
        label = f"{server}-{tool}"
        words = ["mcp", "tools", "call", server, tool, "--arguments", json.dumps(arguments)]
        answer = smoke.cli(daemon.url, label, *words)
        smoke.check(label, answer, "is_error", "==", False)
        return json.dumps(answer["result"], ensure_ascii=False)

    def has(what, text, *wanted):
        smoke.expect(what, all(word in text for word in wanted), text[-400:])

    for name in SERVERS:
        view = lambda name=name: smoke.cli(daemon.url, f"{name}-view", "mcp", "get", name)
        until(f"{name} to be connected", 90, lambda: view()["connected"], 0.5)
        shown = view()
        # One tool of `everything` can only be run as a task of an experimental kind.
        strange = [line for line in shown.get("left_out", []) if "as a task" not in line]
        smoke.expect(f"{name} has tools, and none is left out", shown["tools"] and not strange, str(shown))
        print(f"{name}: {shown['server_info']} {shown['protocol_version']}, {len(shown['tools'])} tools", flush=True)

    has("everything: echo", call("everything", "echo", message="a message"), "a message")
    has("everything: get-sum", call("everything", "get-sum", a=2, b=40), "42")
    has("everything: an image", call("everything", "get-tiny-image"), "image/png")
    has("everything: structure", call("everything", "get-structured-content", location="Chicago"), "structured_content")
    has("everything: progress", call("everything", "trigger-long-running-operation", duration=1, steps=4), "ompleted")

    call("filesystem", "write_file", path=str(workspace / "note.txt"), content="a line\n")
    has("filesystem: what was written", call("filesystem", "read_text_file", path=str(workspace / "note.txt")), "a line")
    smoke.expect("the file is in the workspace", (workspace / "note.txt").read_text() == "a line\n")
    has("filesystem: a list", call("filesystem", "list_directory", path=str(workspace)), "note.txt", "repository")
    outside = ["mcp", "tools", "call", "filesystem", "read_text_file", "--arguments", '{"path":"/etc/shadow"}']
    refused = smoke.cli(daemon.url, "filesystem-outside", *outside)
    smoke.check("filesystem: outside", refused, "is_error", "==", True)

    entity = {"name": "Kheish", "entityType": "daemon", "observations": ["it runs"]}
    call("memory", "create_entities", entities=[entity])
    has("memory: what was kept", call("memory", "read_graph"), "Kheish", "it runs")
    smoke.cli(daemon.url, "memory-again", "mcp", "reconnect", "memory")
    has("memory: also after a restart of it", call("memory", "search_nodes", query="Kheish"), "it runs")

    words = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    has("time: a conversion", call("time", "convert_time", **words), "21:00")
    has("time: now", call("time", "get_current_time", timezone="UTC"), "UTC")

    has("git: log", call("git", "git_log", repo_path=str(place)), "The first commit")
    (place / "file.txt").write_text("two\n")
    has("git: status", call("git", "git_status", repo_path=str(place)), "file.txt")
    has("git: diff", call("git", "git_diff_unstaged", repo_path=str(place)), "two")

    # None of them is a stranger to the others' ends.
    smoke.cli(daemon.url, "time-off", "mcp", "disable", "time")
    for name in SERVERS:
        shown = smoke.cli(daemon.url, f"{name}-after", "mcp", "get", name)
        smoke.expect(f"{name} after another one's end", shown["connected"] == (name != "time"), str(shown))
    audit = http_call("GET", f"{daemon.url}/v1/status", smoke.admin())
    smoke.expect("the daemon is well", audit.status == 200)
    daemon.stop()
    smoke.leaks()


if __name__ == "__main__":
    main()
