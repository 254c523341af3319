#!/usr/bin/env python3
"""Sidecars of external connectors, on Python's standard library alone.

    python3 connectors/python/run_connector.py webhook

The daemon starts this with its environment set; docs/operators/connectors.md says what each variable means. It serves
/manifest, /health and /deliver to the daemon and /webhooks/<route> to whoever sends webhooks, and passes accepted
webhooks on to the daemon. `kheish-daemon connector webhook` is the same adapter without Python.
"""

import hashlib
import hmac
import ipaddress
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
import uuid
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

PREFIX = "KHEISH_EXTERNAL_CONNECTOR_"
DEFAULT_REQUEST_BYTES = 2 * 1024 * 1024
DRAIN_SECONDS = 10
NO_CHECK = ("", "INSECURE_NO_AUTH")


class Refused(Exception):
    """An answer other than 200, with the text that goes with it."""

    def __init__(self, status, error):
        super().__init__(error)
        self.status = status
        self.error = error


class Retryable(Exception):
    """A delivery that may succeed later."""


class Terminal(Exception):
    """A delivery that never will."""


def setting(name, default=None):
    value = os.environ.get(PREFIX + name, default)
    if value is None:
        sys.exit(f"{PREFIX}{name} is not set; next: have the daemon start this connector")
    return value


def call(method, url, token, body=None, timeout=15):
    """One request to the daemon; status and parsed JSON."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read(DEFAULT_REQUEST_BYTES)
        return answer.status, json.loads(content) if content else {}
    finally:
        connection.close()


class Connector:
    """What all connectors share: identity, health, the daemon."""

    def __init__(self, platform):
        self.name = setting("NAME")
        self.base_url = setting("BASE_URL").rstrip("/")
        self.daemon_url = setting("DAEMON_BASE_URL", "").rstrip("/")
        self.token = setting("SHARED_TOKEN", "")
        self.platform = platform
        self.instance_id = setting("INSTANCE_ID", "") or f"{platform}-{uuid.uuid4().hex[:12]}"
        self.request_bytes = int(setting("MAX_REQUEST_BYTES", str(DEFAULT_REQUEST_BYTES)))
        self.status = "starting"
        self.detail = None
        self.in_hand = 0
        self.lock = threading.Lock()
        self.fetch_credentials()

    def fetch_credentials(self):
        token = setting("CREDENTIAL_TOKEN", "")
        for key in json.loads(setting("CREDENTIAL_KEYS_JSON", "[]")):
            url = f"{self.daemon_url}/v1/connectors/external/{quote(self.name)}/credentials/{quote(key, safe='')}"
            status, answer = call("GET", url, token)
            value = answer.get("value")
            if status >= 400 or not isinstance(value, str) or not value:
                sys.exit(f"credential {key} was not given: status {status}")
            os.environ[key] = value

    def submit(self, event):
        url = f"{self.daemon_url}/v1/connectors/external/{self.name}/events"
        for version in (2, 1):
            body = json.dumps({"protocol_version": version, "instance_id": self.instance_id, **event}).encode()
            status, answer = call("POST", url, self.token, body, timeout=30)
            if status >= 400:
                raise Refused(502, f"the daemon answered {status} {answer.get('code', '')}".strip())
            is_old = "unsupported protocol_version" in str(answer.get("reason", ""))
            if not (answer.get("status") == "rejected" and is_old):
                return answer
        raise Refused(502, "the daemon speaks another protocol")

    def is_daemon(self, headers):
        given = headers.get("Authorization", "")
        return not self.token or hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode())

    def manifest(self):
        return {
            "protocol_version": 1,
            "instance_id": self.instance_id,
            "capabilities": {"attachments_in": False, "attachments_out": False, "threads": False},
            "experimental": False,
        }

    def health(self):
        return {
            "protocol_version": 1,
            "instance_id": self.instance_id,
            "status": self.status,
            **({"detail": self.detail} if self.detail else {}),
        }


class Webhook(Connector):
    """Webhooks in, callbacks out."""

    def __init__(self):
        super().__init__("webhook")
        self.routes = {}
        raw = os.environ.get("WEBHOOK_ROUTES_JSON", "")
        if raw.strip():
            self.routes = json.loads(raw)
            if not isinstance(self.routes, dict):
                sys.exit("WEBHOOK_ROUTES_JSON is no object")
        self.session_mode = os.environ.get("WEBHOOK_SESSION_MODE", "per_delivery")
        self.capture = setting("DELIVERY_CAPTURE_PATH", "")
        if not self.routes:
            self.detail = "WEBHOOK_ROUTES_JSON is not set"
        self.status = "ready" if self.routes else "degraded"

    def receive(self, name, headers, body):
        route = self.routes.get(name)
        if not isinstance(route, dict):
            raise Refused(404, "unknown route")
        secret = route.get("secret") or ""
        if secret not in NO_CHECK:
            given = (headers.get(route.get("signature_header", "X-Hub-Signature-256")) or "").strip()
            expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            given = given[len("sha256=") :] if given.startswith("sha256=") else given
            if not hmac.compare_digest(given.lower().encode(), expected.encode()):
                raise Refused(401, "invalid signature")
        try:
            payload = json.loads(body)
        except ValueError:
            raise Refused(400, "invalid json") from None
        event_type = headers.get(route.get("event_header", "X-GitHub-Event")) or ""
        if not event_type and isinstance(payload, dict):
            event_type = str(payload.get("event_type") or "")
        event_type = event_type or "unknown"
        allowed = route.get("allowed_events") or []
        if allowed and event_type not in allowed:
            return {"status": "ignored"}
        delivery = headers.get("X-GitHub-Delivery") or headers.get("X-Request-Id") or uuid.uuid4().hex
        mode = route.get("session_mode") or self.session_mode
        answer = self.submit(
            {
                "event_id": f"webhook-{delivery}",
                "fingerprint": delivery,
                "occurred_at_ms": int(time.time() * 1000),
                "actor_id": f"webhook:{name}",
                "source_kind": "webhook",
                "intent": "domain_event",
                "relation": None,
                "thread": {"path": [name, delivery] if mode == "per_delivery" else [name]},
                "routing_key": None,
                "content": render(route.get("prompt_template"), payload, event_type),
                "input_items": [],
                "attachments": [],
                "reply_route": reply_route(route, payload),
                "metadata": {"route": name, "event_type": event_type},
            }
        )
        if answer.get("status") == "rejected" and not answer.get("run_id"):
            raise Refused(422, str(answer.get("reason", "rejected")))
        return {"status": "accepted", "delivery_id": delivery}

    def deliver(self, delivery):
        if self.capture:
            with self.lock, open(self.capture, "a", encoding="utf-8") as file:
                file.write(json.dumps(delivery) + "\n")
            return
        target = json.loads(delivery.get("reply_route") or "{}")
        url = target.get("callback_url") if isinstance(target, dict) else None
        if url:
            body = {"content": delivery.get("content", ""), "metadata": delivery.get("metadata")}
            call_back(url, target.get("allowed_callback_hosts") or [], json.dumps(body).encode())


def render(template, payload, event_type):
    """`{event_type}`, `{payload}` and `{field.below.it}` in a template, or the payload itself."""
    pretty = json.dumps(payload, indent=2, sort_keys=True)
    if not template:
        return pretty
    out, rest = [], template
    while "{" in rest:
        before, _, behind = rest.partition("{")
        path, closed, behind_it = behind.partition("}")
        if not closed:
            break
        out.append(before)
        if path == "event_type":
            out.append(event_type)
        elif path == "payload":
            out.append(pretty)
        else:
            value = payload
            for part in path.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            out.append("" if value is None else value if isinstance(value, str) else json.dumps(value))
        rest = behind_it
    return "".join(out) + rest


def reply_route(route, payload):
    url = route.get("callback_url")
    field = route.get("callback_url_field")
    if not url and field:
        value = payload
        for part in field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        url = value if isinstance(value, str) else None
    if not url:
        return "{}"
    return json.dumps({"callback_url": url, "allowed_callback_hosts": route.get("allowed_callback_hosts") or []})


def call_back(url, allowed, body):
    """POSTs to an allowed host, and only to the public addresses that were looked at."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname not in allowed or parts.username:
        raise Terminal("the callback's host is not allowed")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = {info[4][0] for info in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise Retryable(f"the callback's host cannot be resolved: {error}") from None
    if not found or not all(ipaddress.ip_address(address).is_global for address in found):
        raise Terminal("the callback's host has an address that is not public")
    try:
        plain = socket.create_connection((sorted(found)[0], port), timeout=15)
        connection = HTTPConnection(parts.hostname, port, timeout=15)
        connection.sock = plain
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body=body, headers={"Content-Type": "application/json"})
        status = connection.getresponse().status
        connection.close()
    except (OSError, HTTPException) as error:
        raise Retryable(f"the callback failed: {error}") from None
    if status >= 500 or status in (408, 425, 429):
        raise Retryable(f"the callback answered {status}")
    if not 200 <= status < 300:
        # A redirect is not followed, so that nothing was delivered.
        raise Terminal(f"the callback answered {status}")


class Handler(BaseHTTPRequestHandler):
    connector = None
    timeout = 30

    def log_message(self, *_words):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        connector = self.connector
        if self.path not in ("/manifest", "/health"):
            return self.answer(404, {"error": "not found"})
        if not connector.is_daemon(self.headers):
            return self.answer(401, {"error": "unauthorized"})
        return self.answer(200, connector.manifest() if self.path == "/manifest" else connector.health())

    def do_POST(self):
        connector = self.connector
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            return self.answer(400, {"error": "invalid content-length"})
        if not 0 <= length <= connector.request_bytes:
            return self.answer(413, {"error": "payload_too_large"})
        body = self.rfile.read(length)
        path = self.path.partition("?")[0]
        with connector.lock:
            if connector.status == "draining":
                is_delivery = path == "/deliver"
                answer = {"status": "retryable_error", "detail": "draining"} if is_delivery else {"error": "draining"}
                return self.answer(200 if is_delivery else 503, answer)
            connector.in_hand += 1
        try:
            self.act(connector, path, body)
        except Refused as refused:
            self.answer(refused.status, {"error": refused.error})
        except (OSError, ValueError, HTTPException) as error:
            print(f"request failed: {error}", file=sys.stderr, flush=True)
            self.answer(502, {"error": "the daemon cannot be reached"})
        finally:
            with connector.lock:
                connector.in_hand -= 1
        return None

    def act(self, connector, path, body):
        if path == "/deliver":
            if not connector.is_daemon(self.headers):
                return self.answer(401, {"error": "unauthorized"})
            try:
                connector.deliver(json.loads(body))
            except Retryable as error:
                return self.answer(200, {"status": "retryable_error", "detail": str(error)})
            except (Terminal, ValueError) as error:
                return self.answer(200, {"status": "terminal_error", "detail": str(error)})
            return self.answer(200, {"status": "committed"})
        route = path.removeprefix("/webhooks/") if path.startswith("/webhooks/") else ""
        if not route or "/" in route:
            return self.answer(404, {"error": "not found"})
        return self.answer(200, connector.receive(route, self.headers, body))


def main(words):
    if words != ["webhook"]:
        print("usage: run_connector.py webhook", file=sys.stderr)
        return 2
    connector = Webhook()
    base = urlsplit(connector.base_url)
    if base.scheme != "http" or not base.hostname or not base.port:
        sys.exit(f"{PREFIX}BASE_URL is not http://host:port")
    Handler.connector = connector
    server = ThreadingHTTPServer((base.hostname, base.port), Handler)
    server.daemon_threads = True

    def drain(*_signal):
        connector.status = "draining"
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, drain)
    server.serve_forever(poll_interval=0.2)
    until = time.monotonic() + DRAIN_SECONDS
    while connector.in_hand and time.monotonic() < until:
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
