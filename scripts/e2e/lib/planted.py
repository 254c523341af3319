"""A `kheish-daemon` in which exactly one thing is broken: `planted.py REAL BREAK words…`, BREAK being JSON.

A break of the command line has `cli`, words that stand together in the command, and what becomes of its answer:
`set` (values at dotted paths), `drop` (paths), `text` (a pair: this, by that), `exit` (another exit code).
A break of the daemon has `serve`: `rules` for what goes through a proxy before it, and what happens to its files:
`say` (a line in its log), `before` and `after` (shell commands with $STATE and $WORKSPACE), `exit`.
A rule has `path` (the beginning of a target), `method`, `status`, `head` (headers, None takes them away), `ask` (the same for
the request's), `text` (a pair), `body`. `from` says from which time on a break holds, the first being 1; `to` until which.
Owns: the daemon that it started; it ends with it.
Standard library only.
"""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from proxy import Faithful, StreamingProxy
from smoke import free_port, until, http_call


def due(break_, key):
    """Counts another time of something, across processes; whether the break holds for it."""
    place = Path(break_["place"]) / "".join(word if word.isalnum() else "-" for word in key)
    with open(place, "a+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = len(file.read()) + 1
        file.write("x")
    return break_.get("from", 1) <= number <= break_.get("to", 1 << 30)


def place_of(document, path):
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        document = document[step]
    return document, last


def spoilt(break_, text):
    if "text" in break_:
        return text.replace(*break_["text"])
    document = json.loads(text)
    for path, value in break_.get("set", {}).items():
        if not path:
            document = value
            continue
        parent, last = place_of(document, path)
        parent[last] = value
    for path in break_.get("drop", []):
        parent, last = place_of(document, path)
        del parent[last]
    return json.dumps(document)


def command(real, break_, words):
    wanted = break_.get("cli")
    # The check of the runbook only parses its commands.
    fits = wanted and words[:1] != ["__check-command"] and any(words[at : at + len(wanted)] == wanted for at in range(len(words)))
    if not fits or not due(break_, "-".join(wanted)):
        os.execv(real, [real, *words])
    result = subprocess.run([real, *words], stdin=sys.stdin, stdout=subprocess.PIPE, check=False)
    text = result.stdout.decode()
    sys.stdout.write(spoilt(break_, text) if text.strip() else text)
    sys.stdout.flush()
    sys.exit(break_.get("exit", result.returncode))


class Spoiling(Faithful):
    """Does to one kind of request what a rule says."""

    def __init__(self, break_, rule, admin):
        self.admin = admin
        self.break_, self.rule = {**rule, "place": break_["place"]}, rule
        self.holds = {}

    def fits(self, method, path):
        return method == self.rule.get("method", method) and path.startswith(self.rule["path"])

    @staticmethod
    def with_headers(headers, changes):
        changed = {name.lower() for name in changes}
        kept = [(name, value) for name, value in headers if name.lower() not in changed]
        return kept + [(name, value) for name, value in changes.items() if value is not None]

    def request(self, method, path, headers):
        if self.fits(method, path) and "ask" in self.rule and due(self.break_, "ask"):
            asked = {
                name: f"Bearer {self.admin}" if value == "@admin" else value
                for name, value in self.rule["ask"].items()
            }
            headers = dict(self.with_headers(headers.items(), asked))
        return path, headers

    def answer(self, method, path, status, headers):
        self.holds[path] = self.fits(method, path) and (status < 300 or self.rule.get("always")) and due(self.break_, "answer")
        if not self.holds[path]:
            return status, headers
        return self.rule.get("status", status), self.with_headers(headers, self.rule.get("head", {}))

    def chunk(self, method, path, chunk):
        if self.holds.get(path):
            if "body" in self.rule:
                return self.rule["body"].encode()
            if "text" in self.rule:
                before, after = (word.encode() for word in self.rule["text"])
                return chunk.replace(before, after)
        return chunk


def option(words, name):
    return words[words.index(name) + 1]


def serve(real, break_, words):
    plan = break_.get("serve")
    if plan is None or not due({**break_, **plan}, "serve"):
        os.execv(real, [real, *words])
    place = {"STATE": option(words, "--state-root"), "WORKSPACE": option(words, "--workspace-root")}
    if "before" in plan:
        subprocess.run(["sh", "-ec", plan["before"]], env={**os.environ, **place}, check=True)
    if "say" in plan:
        said = plan["say"]
        print(Path(option(words, said[1:])).read_text() if said.startswith("@") else said, flush=True)
    at = words.index("--bind") + 1
    port, inner = int(words[at].rpartition(":")[2]), free_port()
    libc = ctypes.CDLL(None)
    process = subprocess.Popen(
        [real, *words[:at], f"127.0.0.1:{inner}", *words[at + 1 :]],
        # PR_SET_PDEATHSIG: whoever kills this one means the daemon.
        preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),
    )
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))

    def is_there():
        try:
            return process.poll() is not None or http_call("GET", f"http://127.0.0.1:{inner}/healthz", seconds=3).status
        except OSError:
            return False

    until("the daemon behind the proxy", 60, is_there)
    rules, admin = plan.get("rules", []), Path(option(words, "--http-admin-token-file")).read_text().strip()
    proxy = StreamingProxy(inner, port=port, way=Spoiling(break_, rules[0], admin) if rules else None)
    code = process.wait()
    proxy.stop()
    if "after" in plan:
        subprocess.run(["sh", "-ec", plan["after"]], env={**os.environ, **place}, check=True)
    sys.exit(plan.get("exit", code))


def main():
    real, break_, words = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
    if words[:1] == ["serve"]:
        serve(real, break_, words)
    command(real, break_, words)


main()
