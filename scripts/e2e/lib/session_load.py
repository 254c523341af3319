"""`session_load_50_clients.sh`: 50 clients with 4 sessions each, through bearer authentication, beside readers of event streams and
pollers of the status. Every answer is the expected one, every run ends once and is told of once, and when the work is over the
daemon has no more threads and descriptors than after the first round, and hardly more memory.

Owns: its clients. One thread reads all streams, since a thread for each would measure Python.
"""

import http.client
import json
import selectors
import socket
import sys
import threading
import time

from smoke import Daemon, Failed, Model, Smoke, http_call, until

TERMINAL = ("completed", "failed", "cancelled", "interrupted")
FULL = {"clients": 50, "sessions": 4, "runs": 5, "rounds": 4, "pollers": 4}
SMALL = {"clients": 8, "sessions": 4, "runs": 2, "rounds": 3, "pollers": 2}
# Only a hang takes as long.
ROUND_SECONDS = 600
# Connections that are kept to the provider, and what the status itself opens to look.
DESCRIPTORS_MORE = 16
# What stays of a run when it is over, and what an allocator may keep of a busy time.
BYTES_OF_A_RUN = 8 * 1024
BYTES_MORE = 24 << 20


class Client:
    """One connection that is kept."""

    def __init__(self, smoke, daemon, token):
        self.smoke, self.token = smoke, token
        self.link = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=120)

    def call(self, method, path, body=None, wanted=200):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        self.link.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self.link.getresponse()
        text = answer.read()
        if answer.status != wanted:
            raise Failed(f"{method} {path} answers {answer.status}, wanted {wanted}: {text[:300]!r}")
        return text


class Streams:
    """Every event stream that is open, read by one thread."""

    def __init__(self, daemon, token):
        self.daemon, self.token = daemon, token
        self.selector, self.lock = selectors.DefaultSelector(), threading.Lock()
        self.ends, self.frames, self.gaps, self.problem = {}, 0, 0, None
        self.is_over = False
        self.thread = threading.Thread(target=self.read, daemon=True)

    def open(self, path, counts_ends):
        link = socket.create_connection(("127.0.0.1", self.daemon.port), 60)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        link.sendall(head.encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = link.recv(65536)
            if not piece:
                raise Failed(f"{path} was closed: {data[:300]!r}")
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise Failed(f"{path} answers {head[:200]!r}")
        link.setblocking(False)
        state = {"path": path, "rest": rest, "last": 0, "counts_ends": counts_ends}
        self.selector.register(link, selectors.EVENT_READ, state)

    def read(self):
        try:
            while not self.is_over:
                for key, _ in self.selector.select(0.2):
                    piece = key.fileobj.recv(1 << 18)
                    if not piece:
                        raise Failed(f"{key.data['path']} ended")
                    self.take(key.data, piece)
        except (OSError, ValueError, Failed) as error:
            self.problem = self.problem or str(error)

    def take(self, state, piece):
        *frames, state["rest"] = (state["rest"] + piece).split(b"\n\n")
        for frame in frames:
            fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line)
            event = fields.get(b"event", b"")
            self.frames += 1
            self.gaps += event == b"stream_gap"
            if b"id" in fields:
                number = int(fields[b"id"])
                if number <= state["last"]:
                    raise Failed(f"{state['path']}: id {number} after {state['last']}")
                state["last"] = number
            if event == b"run_updated" and state["counts_ends"]:
                run = json.loads(fields[b"data"])["run"]
                if run["status"] in TERMINAL:
                    with self.lock:
                        self.ends.setdefault(run["run_id"], []).append(run["status"])

    def ended(self):
        if self.problem:
            raise Failed(self.problem)
        with self.lock:
            return len(self.ends)


def together(works):
    """Runs all of them at once; the first failure is the failure."""
    problems = []

    def run(work):
        try:
            work()
        except (Failed, OSError, http.client.HTTPException, ValueError) as error:
            problems.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Failed(f"{len(problems)} of {len(works)} clients failed, one with {problems[0]}")


def figures(daemon, token):
    """Threads, descriptors and resident bytes, as the daemon tells them."""
    text = http_call("GET", f"{daemon.url}/metrics", token).body.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    threads = sum(float(value) for name, value in values.items() if name.startswith("kheish_threads{"))
    return {
        "threads": int(threads),
        "descriptors": int(float(values["process_open_fds"])),
        "bytes": int(float(values["process_resident_memory_bytes"])),
    }


def main():
    size = SMALL if "--small" in sys.argv[1:] else FULL
    with Smoke("session_load", "KHEISH_LOAD_ROOT", "KHEISH_LOAD_SKIP_BUILD") as smoke:
        # It answers at once with what it was asked.
        model = Model(smoke, "KHEISH_LOAD_MODEL", "version = 1\n", is_live_wanted=False)
        state, (workspace, _) = smoke.evidence / "state", smoke.workspace("workspace")
        offline = ["secrets", "set", "openai.prod", "--offline", "--state-root", state, "--provider", "openai"]
        smoke.run_binary(*offline, "--stdin", stdin=model.key)
        daemon = Daemon(smoke, "daemon", state, workspace, model.routes)
        admin, reader = smoke.admin(), smoke.read_only_file.read_text().strip()

        sessions = [[f"load-{client}-{number}" for number in range(size["sessions"])] for client in range(size["clients"])]
        clients = [Client(smoke, daemon, admin) for _ in range(size["clients"])]

        def create(client, names):
            for name in names:
                client.call("POST", "/v1/sessions", {"session_id": name}, 201)

        together([lambda pair=pair: create(*pair) for pair in zip(clients, sessions)])
        streams = Streams(daemon, reader)
        for names in sessions:
            for name in names:
                streams.open(f"/v1/sessions/{name}/stream", True)
        for _ in range(size["pollers"]):
            streams.open("/v1/events/stream", False)
        streams.thread.start()

        polls, stop = [0] * size["pollers"], threading.Event()
        poll_problems = []

        def poll(number):
            client = Client(smoke, daemon, reader)
            try:
                while not stop.is_set():
                    status = json.loads(client.call("GET", "/v1/status"))
                    if status["health"]["ok"] is not True:
                        raise Failed(f"unhealthy under load: {json.dumps(status['health'])[:400]}")
                    client.call("GET", "/readyz")
                    client.call("GET", "/v1/runs?limit=20")
                    polls[number] += 1
                    stop.wait(0.2)
            except (Failed, OSError, http.client.HTTPException, ValueError) as error:
                poll_problems.append(str(error))

        pollers = [threading.Thread(target=poll, args=(number,), daemon=True) for number in range(size["pollers"])]
        for thread in pollers:
            thread.start()

        accepted, lock = set(), threading.Lock()

        def work(client, names, round_):
            for number in range(size["runs"]):
                for name in names:
                    body = {"content": f"round {round_}, input {number} of {name}"}
                    view = json.loads(client.call("POST", f"/v1/sessions/{name}/runs", body, 202))
                    with lock:
                        accepted.add(view["run_id"])

        rounds, begun = [], time.monotonic()
        for round_ in range(size["rounds"]):
            together([lambda pair=pair, round_=round_: work(*pair, round_) for pair in zip(clients, sessions)])
            until(f"the end of round {round_}", ROUND_SECONDS, lambda: streams.ended() == len(accepted), 0.05)
            counts = smoke.cli(daemon.url, f"status-{round_}", "status")["runs"]
            smoke.expect("nothing is left over", counts["queued"] == 0 and counts["running"] == 0, str(counts))
            rounds.append(figures(daemon, reader) | {"runs": len(accepted)})
        seconds = round(time.monotonic() - begun, 1)
        stop.set()
        for thread in pollers:
            thread.join(60)
        smoke.expect("no poller failed", not poll_problems, poll_problems[:1])
        smoke.expect("the pollers polled", min(polls) > 0, str(polls))
        wanted = size["clients"] * size["sessions"] * size["runs"] * size["rounds"]
        smoke.expect("every input became a run of its own", len(accepted) == wanted, f"{len(accepted)} of {wanted}")
        smoke.expect("the streams told of the same runs", set(streams.ends) == accepted)
        odd = {run: ends for run, ends in streams.ends.items() if ends != ["completed"]}
        smoke.expect("each run ended once, completed", not odd, str(odd)[:300])
        smoke.expect("no stream has a gap", streams.gaps == 0 and streams.problem is None, str(streams.problem))
        first, last = rounds[0], rounds[-1]
        smoke.expect("no thread is left behind", last["threads"] <= first["threads"], str(rounds))
        more = last["descriptors"] - first["descriptors"]
        smoke.expect("descriptors do not grow", more <= DESCRIPTORS_MORE, str(rounds))
        allowed = BYTES_MORE + BYTES_OF_A_RUN * (last["runs"] - first["runs"])
        smoke.expect("memory grows by what is kept of runs at most", last["bytes"] - first["bytes"] <= allowed, str(rounds))
        refused = http_call("GET", f"{daemon.url}/v1/status", "a-token-that-nobody-has-0123456789")
        smoke.expect("a wrong token is still refused", refused.status == 401, str(refused.status))
        streams.is_over = True
        report = {"size": size, "seconds": seconds, "frames": streams.frames, "polls": sum(polls), "rounds": rounds}
        (smoke.evidence / "load.json").write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report))
        daemon.stop()
        smoke.leaks()


main()
