"""`browser_origin_smoke.sh`: what a browser's origin gets, from the daemon itself and through nginx with the repository's
fixture: a loopback origin exactly, a public one and `null` nothing, a wildcard never."""

import os
import re
import shutil
import subprocess

from offline_routes import ROUTES
from smoke import REPOSITORY, Daemon, Smoke, free_port, http_call, until

GRANTED = ("http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:8080")
REFUSED = ("https://kheish.example.com", "https://localhost.evil.example", "http://127.0.0.1.evil.example", "null")
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def names(value):
    return {name.strip().lower() for name in (value or "").split(",")}


def probe(smoke, way, url, ca=None):
    for origin in GRANTED:
        answer = http_call("OPTIONS", f"{url}/v1/status", headers={"Origin": origin, **ASKED}, ca=ca)
        what = f"{way}: preflight of {origin}"
        smoke.expect(f"{what} is granted", answer.status // 100 == 2, str(answer.status))
        smoke.expect(f"{what} names it exactly", answer.headers.get_all("Access-Control-Allow-Origin") == [origin])
        smoke.expect(f"{what} has the methods", {"get", "post"} <= names(answer.headers["Access-Control-Allow-Methods"]))
        smoke.expect(
            f"{what} has the headers",
            {"authorization", "content-type"} <= names(answer.headers["Access-Control-Allow-Headers"]),
        )
        # A page must be able to read that its token is wrong.
        answer = http_call("GET", f"{url}/v1/status", headers={"Origin": origin}, ca=ca)
        smoke.expect(f"{way}: 401 names {origin}", answer.headers["Access-Control-Allow-Origin"] == origin)
        smoke.expect(f"{way}: no token, no status", answer.status == 401, str(answer.status))
    for origin in REFUSED:
        for method, more, token in (("OPTIONS", ASKED, None), ("GET", {}, smoke.admin())):
            answer = http_call(method, f"{url}/v1/status", token, headers={"Origin": origin, **more}, ca=ca)
            smoke.expect(f"{way}: {method} of {origin} is refused", answer.status == 403, str(answer.status))
            granted = [name for name in answer.headers if name.lower().startswith("access-control-allow-")]
            smoke.expect(f"{way}: {method} of {origin} is granted nothing", granted == [], str(granted))


def nginx(smoke, port):
    """The fixture with free ports and a certificate of its own; None where nginx is not installed."""
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not binary or not shutil.which("openssl"):
        print("SKIPPED: nginx or openssl is not installed: the proxy's side of the browser origins was not tried")
        return None
    place = smoke.secrets / "nginx"
    (place / "logs").mkdir(parents=True)
    cert, key, listen = place / "cert.pem", place / "tls-key.pem", free_port()
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    # Not an authority: a certificate cannot be one and stand for a server, though it may be trusted as an anchor.
    words += ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    text = (REPOSITORY / "deploy/reverse-proxy/nginx-kheish.conf").read_text()
    text = text.replace("127.0.0.1:4000", f"127.0.0.1:{port}").replace("listen 8443", f"listen 127.0.0.1:{listen}")
    text = re.sub(r"ssl_certificate_key [^;]+;", f"ssl_certificate_key {key};", text)
    text = re.sub(r"ssl_certificate [^;]+;", f"ssl_certificate {cert};", text)
    # As whoever runs the smoke, in one process that ends with it.
    temporary = "".join(
        f"    {name}_temp_path {place}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", f"http {{\n    access_log off;\n{temporary}")
    head = f"daemon off;\npid {place}/nginx.pid;\nerror_log {place}/error.log;\n"
    (place / "nginx.conf").write_text(head + text)
    process = subprocess.Popen([binary, "-p", str(place), "-c", str(place / "nginx.conf")], stderr=subprocess.DEVNULL)
    smoke.stop_politely(process)
    url = f"https://localhost:{listen}"

    def answers():
        try:
            return http_call("GET", f"{url}/readyz", ca=cert, seconds=3).status == 200
        except OSError:
            return False

    until("nginx to answer", 60, answers, 0.2)
    return url, cert


def main():
    with Smoke("browser_origin_smoke", "KHEISH_OPS_BROWSER_ROOT", "KHEISH_OPS_BROWSER_SKIP_BUILD") as smoke:
        state = smoke.evidence / "state"
        workspace, _ = smoke.workspace("workspace")
        routes = smoke.evidence / "routes.toml"
        routes.write_text(ROUTES)
        offline = ["secrets", "set", "openai.prod", "--offline", "--state-root", state, "--provider", "openai"]
        key = f"sk-ops-smoke-{os.urandom(12).hex()}"
        smoke.secret("the route key", key)
        smoke.run_binary(*offline, "--stdin", stdin=key)
        daemon = Daemon(smoke, "daemon", state, workspace, routes)
        probe(smoke, "the daemon", daemon.url)
        way = nginx(smoke, daemon.port)
        if way:
            probe(smoke, "nginx", way[0], way[1])
        daemon.stop()
        smoke.leaks()


main()
