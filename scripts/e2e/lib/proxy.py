"""A streaming reverse proxy for the smokes, plain or with TLS: what arrives is passed on at once.

Drops hop-by-hop headers, answers `Connection: close`, and reads event streams line by line.
"""

import http.client
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"}
HOP_BY_HOP |= {"transfer-encoding", "upgrade", "content-length"}


class Faithful:
    """What a proxy does to what goes through it: nothing. `planted.py` has others."""

    def request(self, method, path, headers):
        """The path and the headers that are sent on."""
        return path, headers

    def answer(self, method, path, status, headers):
        """Status and headers that are given back."""
        return status, headers

    def chunk(self, method, path, chunk):
        """A piece of a body that is given back."""
        return chunk


class StreamingProxy:
    """Listens on a free port of loopback, or on `port`, until `stop`."""

    def __init__(self, upstream_port, certificate=None, key=None, set_host=False, port=0, way=None):
        proxy = self
        way = way or Faithful()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length) if length else None
                sent = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                if set_host:
                    sent = {name: value for name, value in sent.items() if name.lower() != "host"}
                    sent["Host"] = f"127.0.0.1:{upstream_port}"
                path, sent = way.request(self.command, self.path, sent)
                link = http.client.HTTPConnection("127.0.0.1", upstream_port, timeout=300)
                try:
                    link.request(self.command, path, body, sent)
                    answer = link.getresponse()
                except OSError as error:
                    self.send_error(502, f"upstream: {error}")
                    link.close()
                    return
                kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
                status, kept = way.answer(self.command, self.path, answer.status, kept)
                self.send_response_only(status)
                for name, value in kept:
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                is_stream = (answer.headers.get("content-type") or "").startswith("text/event-stream")
                try:
                    while chunk := answer.readline() if is_stream else answer.read(4 << 20):
                        self.wfile.write(way.chunk(self.command, self.path, chunk))
                        self.wfile.flush()
                except OSError:
                    pass  # Either side went away: the connection ends, and with it the request.
                finally:
                    link.close()
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = forward

            def log_message(self, form, *words):
                proxy.requests += 1

        self.requests = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(certificate, key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.port = self.server.server_address[1]
        self.url = f"{scheme}://{'localhost' if certificate else '127.0.0.1'}:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
