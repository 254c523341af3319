"""What the operations smokes share: a daemon in a place of its own, its commands, assertions, archives, leak scans.

Owns: the evidence directory (kept) and the secrets directory (removed at the end) of one smoke.
Never: evaluates text as code, counts a missing value as a pass, or waits without an end.
Standard library only.
"""

import base64
import datetime
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
READY_SECONDS = 60
STOP_SECONDS = 60
COMMAND_SECONDS = 180
FRAME_SECONDS = 60
MISSING = object()

# Files that hold secrets: none of them may stand in the evidence.
SECRET_NAMES = ("admin-token", "readonly-token", "old-admin-token", "auth-store-master-key", "tls-key.pem")
# Variables whose values are secrets by their names.
SECRET_VARIABLES = ("API_KEY", "TOKEN", "SECRET", "PASSWORD", "MASTER_KEY")


class Failed(Exception):
    """A promise that did not hold. The message is what an operator reads."""


CLAIMS = []


def free_port():
    """A port below those that the kernel hands to connections: one of those would be free now and taken a moment later. An
    abstract socket named after it keeps other smokes and tests off it until this process ends."""
    try:
        end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        end = 0
    ports = range(10240, end if end > 10240 else 32768)
    for step in range(len(ports)):
        port = ports[(os.getpid() * 97 + step) % len(ports)]
        claim, listener = socket.socket(socket.AF_UNIX), socket.socket()
        try:
            claim.bind(f"\0kheish-test-port-{port}")
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        finally:
            listener.close()
        # Another claim of this process would be refused as well, as it must be.
        CLAIMS.append(claim)
        return port
    raise Failed("no port of loopback is free")


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def at(document, path):
    """The value at a dotted path; list items by number; MISSING when any step is not there."""
    for step in [step for step in path.split(".") if step]:
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return MISSING
    return document


OPERATORS = {
    "==": lambda value, wanted: type(value) is type(wanted) and value == wanted,
    "!=": lambda value, wanted: value != wanted,
    ">=": lambda value, wanted: isinstance(value, (int, float)) and value >= wanted,
    "in": lambda value, wanted: value in wanted,
    "contains": lambda value, wanted: wanted in value,
}


def until(what, seconds, probe, pause=0.1):
    """The first true answer of `probe` within `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise Failed(f"waited {seconds} s for {what}")
        time.sleep(pause)


class Answer:
    """One HTTP answer, read whole."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def connection(url, seconds, ca=None):
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=seconds, context=context)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)


def http_call(method, url, token=None, body=None, headers=None, ca=None, seconds=30):
    """One request. `body` is bytes, or anything that JSON can say."""
    parts = urllib.parse.urlsplit(url)
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    link = connection(url, seconds, ca)
    try:
        link.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, sent)
        answer = link.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        link.close()


def first_frame(url, token, headers=None, ca=None):
    """The first frame of an event stream: what `event:`, `id:` and `data:` say. Comments are no frames."""
    parts = urllib.parse.urlsplit(url)
    link = connection(url, FRAME_SECONDS, ca)
    try:
        sent = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream", **(headers or {})}
        link.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=sent)
        answer = link.getresponse()
        if answer.status != 200:
            raise Failed(f"{url} answers {answer.status}: {answer.read(300)!r}")
        kind = answer.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise Failed(f"{url} has the content type {kind!r}")
        frame = {}
        end = time.monotonic() + FRAME_SECONDS
        while time.monotonic() < end:
            line = answer.readline()
            if not line:
                raise Failed(f"{url} ended before its first frame")
            line = line.decode().rstrip("\r\n")
            if not line and frame:
                return frame
            name, _, value = line.partition(":")
            if name:
                frame[name] = value.removeprefix(" ")
        raise Failed(f"{url} sent no frame within {FRAME_SECONDS} s")
    finally:
        link.close()


class Daemon:
    """One `kheish-daemon serve`, with the tokens and keys of its smoke."""

    def __init__(self, smoke, name, state, workspace, routes, extra=()):
        self.smoke, self.name = smoke, name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = smoke.evidence / f"{name}.log"
        words = ["serve", "--bind", f"127.0.0.1:{self.port}", "--state-root", state, "--workspace-root", workspace]
        words += ["--routes-file", routes, "--mcp-discovery", "disabled", "--http-auth-mode", "bearer"]
        words += ["--http-admin-token-file", smoke.admin_file, "--http-readonly-token-file", smoke.read_only_file, *extra]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(smoke.binary), *map(str, words)], stdout=log, stderr=log, env=smoke.environment(), cwd=REPOSITORY
            )
        smoke.daemons.append(self)
        until(f"{name} to be ready ({self.log})", READY_SECONDS, self.is_ready, 0.2)

    def is_ready(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}: {self.log.read_text()[-800:]}")
        try:
            return http_call("GET", f"{self.url}/readyz", seconds=3).status // 100 == 2
        except OSError:
            return False

    def stop(self):
        """SIGTERM, and an end within STOP_SECONDS, also with streams open."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed(f"{self.name} did not stop within {STOP_SECONDS} s of SIGTERM") from None
        if code != 0:
            raise Failed(f"{self.name} stopped with {code}: {self.log.read_text()[-800:]}")


class Smoke:
    """One smoke: its places, its checks, its verdict. Use as a context manager."""

    def __init__(self, scenario, root_variable=None, skip_build_variable=None):
        self.scenario = scenario
        self.binary = find_binary(skip_build_variable)
        root = Path(os.environ.get(root_variable or "", "") or REPOSITORY / ".tmp")
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        self.evidence = root / f"{scenario}-{stamp}-{os.getpid()}"
        self.evidence.mkdir(parents=True, mode=0o700)
        # On the same file system as nothing in particular: it only has to be private, and gone at the end.
        self.secrets = Path(tempfile.mkdtemp(prefix=f"{scenario}-secrets."))
        self.admin_file = self.secrets / "admin-token"
        self.read_only_file = self.secrets / "readonly-token"
        self.master_file = self.secrets / "auth-store-master-key"
        self.daemons, self.others, self.polite = [], [], []
        self.checks = 0
        self.private_values = {}
        self.private(self.master_file, self.run_binary("secrets", "generate").strip())
        self.private(self.admin_file, base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="))
        self.private(self.read_only_file, base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _trace):
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.process.kill()
        for process in self.polite:
            process.terminate()
            process.wait(STOP_SECONDS)
        for process in self.others:
            process.kill()
            process.wait()
        shutil.rmtree(self.secrets, ignore_errors=True)
        verdict = {"scenario": self.scenario, "status": "failed" if kind else "passed", "checks": self.checks}
        verdict |= {"evidence": str(self.evidence)}
        (self.evidence / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n")
        if kind is not None and issubclass(kind, (Failed, OSError, subprocess.SubprocessError)):
            print(f"{self.scenario}: {error}\nevidence: {self.evidence}", file=sys.stderr)
            sys.exit(1)
        if kind is None:
            print(json.dumps(verdict))

    # --- secrets ----------------------------------------------------------------------------------------------------

    def private(self, path, value):
        """Writes a secret to a file of mode 600 in the secrets directory; it must not turn up in the evidence."""
        path.touch(mode=0o600)
        path.write_text(value)
        self.secret(path.name, value)

    def secret(self, name, value):
        if len(value) < 8:
            raise Failed(f"{name} has fewer than 8 characters: a scan for it proves nothing")
        self.private_values[name] = value

    def admin(self):
        return self.admin_file.read_text().strip()

    def environment(self, **more):
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return kept | {"KHEISH_AUTH_STORE_MASTER_KEY_FILE": str(self.master_file)} | more

    # --- commands ---------------------------------------------------------------------------------------------------

    def run_binary(self, *words, env=None, exits=(0,), stdin=None):
        result = subprocess.run(
            [str(self.binary), *map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=env or self.environment(),
            cwd=REPOSITORY,
        )
        if result.returncode not in exits:
            said = (result.stdout + result.stderr).strip()[-1500:]
            raise Failed(f"`kheish-daemon {' '.join(map(str, words))}` ended with {result.returncode}: {said}")
        return result.stdout

    def cli(self, base_url, label, *words, token_file=None, exits=(0,), env=None, stdin=None, more=()):
        """One command against a daemon; what it printed is kept as `<label>.json` and returned."""
        shared = ["--base-url", base_url, "--token-file", token_file or self.admin_file, *more, "--output", "json"]
        text = self.run_binary(*shared, *words, exits=exits, env=env, stdin=stdin)
        (self.evidence / f"{label}.json").write_text(text)
        return json.loads(text) if text.strip() else None

    # --- assertions -------------------------------------------------------------------------------------------------

    def check(self, what, document, path, operator, wanted):
        """A value at a path. A value that is not there is a failure."""
        self.checks += 1
        value = at(document, path)
        if value is MISSING:
            raise Failed(f"{what}: {path} is missing")
        if not OPERATORS[operator](value, wanted):
            raise Failed(f"{what}: {path} is {json.dumps(value)[:400]}, wanted {operator} {json.dumps(wanted)}")
        return value

    def expect(self, what, holds, detail=""):
        self.checks += 1
        if not holds:
            raise Failed(f"{what}{': ' if detail else ''}{detail}")

    def quartet(self, label, status):
        """What every smoke wants of a healthy daemon."""
        self.check(label, status, "health.ok", "==", True)
        self.check(label, status, "storage.ok", "==", True)
        self.check(label, status, "provider_readiness.active_route_ready", "==", True)
        self.check(label, status, "provider_readiness.error_route_count", "==", 0)
        self.check(label, status, "delivery.unresolved_dead_lettered", "==", 0)

    def healthy_report(self, label, report, names=()):
        """A doctor's report without an error, in which the named checks stand."""
        self.check(label, report, "ok", "==", True)
        self.check(label, report, "errors", "==", [])
        found = {entry.get("name") for entry in report.get("checks", [])}
        self.expect(f"{label} has the checks {sorted(names)}", set(names) <= found, f"it has {sorted(map(str, found))}")

    def stop_politely(self, process):
        """A helper process that must be asked to end, since it has children."""
        self.polite.append(process)

    # --- places -----------------------------------------------------------------------------------------------------

    def workspace(self, name):
        """A workspace with a marker file; returns it and the marker's digest."""
        place = self.evidence / name
        marker = place / "ops-workspace" / "sentinel.txt"
        marker.parent.mkdir(parents=True)
        marker.write_text(f"marker {os.urandom(16).hex()}\n")
        return place, sha256_file(marker)

    def archive(self, directory, name):
        """What `tar -C DIR -czf NAME .` makes, in the secrets directory; returns the path and its SHA-256."""
        path = self.secrets / f"{name}-backup.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(directory, arcname=".")
        return path, sha256_file(path)

    def extract(self, archive, name):
        place = self.evidence / name
        place.mkdir(mode=0o700)
        with tarfile.open(archive) as tar:
            # Our own archive. Older Pythons know no filters, and have this one's behaviour.
            trusting = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
            tar.extractall(place, **trusting)
        return place

    def leaks(self, *more_secrets):
        """No secret in any file of the evidence: raw, in base64, in hex, or URL-encoded; no file with a secret's name."""
        secrets = dict(self.private_values) | {f"secret {n}": value for n, value in enumerate(more_secrets)}
        for name, value in os.environ.items():
            if len(value) >= 8 and any(part in name for part in SECRET_VARIABLES):
                secrets.setdefault(f"${name}", value)
        needles = []
        for name, value in secrets.items():
            raw = value.encode()
            forms = {raw, base64.b64encode(raw), raw.hex().encode(), urllib.parse.quote(value, safe="").encode()}
            needles += [(name, form) for form in forms]
        files = 0
        for path in sorted(self.evidence.rglob("*")):
            if not path.is_file():
                continue
            files += 1
            is_secret_file = path.name in SECRET_NAMES or path.name.endswith("-backup.tar.gz")
            self.expect(f"{path} is no file of a secret", not is_secret_file)
            content = path.read_bytes()
            for name, needle in needles:
                if needle in content:
                    raise Failed(f"{name} stands in {path}")
        self.expect("the leak scan saw the evidence", files > 3, f"only {files} files")


def find_binary(skip_build_variable):
    """`KHEISH_BIN`, or the debug build, made first unless told otherwise."""
    given = os.environ.get("KHEISH_BIN")
    if given:
        binary = Path(given).resolve()
    else:
        target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
        binary = target / "debug" / "kheish-daemon"
        if os.environ.get(skip_build_variable or "") != "1":
            subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=REPOSITORY, check=True)
    if not os.access(binary, os.X_OK):
        sys.exit(f"{binary} is not there; next: cargo build, or set KHEISH_BIN")
    return binary


class Model:
    """What answers the runs: the scripted provider on loopback, or OpenAI when a key is there."""

    def __init__(self, smoke, model_variable, script, is_live_wanted=True):
        key = os.environ.get("OPENAI_API_KEY") or os.environ.get("KHEISH_OPENAI_API_KEY")
        self.is_live = bool(key) and is_live_wanted
        self.key = key if self.is_live else f"sk-ops-smoke-{os.urandom(12).hex()}"
        self.name = os.environ.get(model_variable, "") or "gpt-5.4"
        smoke.secret("the provider key", self.key)
        base_url = "" if self.is_live else f'base_url = "{self.start(smoke, script)}"\n'
        support = "" if self.is_live else 'model_support = "any"\n'
        self.routes = smoke.evidence / "routes.toml"
        self.routes.write_text(
            'version = 1\ndefault_route = "openai"\n\n[routes.openai]\ndriver = "openai"\n'
            f'default_model = "{self.name}"\n{support}{base_url}auth_ref = "openai.prod"\n'
        )

    @staticmethod
    def start(smoke, script):
        path = smoke.evidence / "script.toml"
        path.write_text(script)
        out = smoke.evidence / "provider.out"
        with open(out, "wb") as stdout, open(smoke.evidence / "provider.log", "wb") as log:
            words = [str(smoke.binary), "scripted-provider", "--bind", "127.0.0.1:0", "--script", str(path)]
            process = subprocess.Popen(words, stdout=stdout, stderr=log, env=smoke.environment())
        smoke.others.append(process)
        line = until("the scripted provider", READY_SECONDS, lambda: out.read_text().partition("\n")[0])
        return json.loads(line)["base_url"]


CANARY_SCRIPT = """version = 1

[[turn]]
match = "KHEISH_ROUTE_CANARY_OK"
text = "KHEISH_ROUTE_CANARY_OK"

[[turn]]
match = "{marker}"
text = "{marker}"
"""
