"""What deploy/reverse-proxy/nginx-kheish.conf promises, checked block by block: every server, every location.

`nginx_contract.py CONF`: exit 0 when it holds, else 1 with every point that does not.
`nginx_contract.py CONF --for-test CERT KEY PREFIX`: prints the same file with these certificate paths, to let nginx read it.
"""

import re
import sys

TOKEN = re.compile(r"""\s*(?:(#[^\n]*)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|([{};])|((?:[^\s{};"'#\\]|\\.)[^\s{};]*))""")


def parse(text):
    """A list of (words, block or None), as nginx reads it."""
    root = []
    open_blocks, words, position = [root], [], 0
    text = text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if not match:
            raise ValueError(f"cannot be read at byte {position}: {text[position:position + 40]!r}")
        position = match.end()
        comment, quoted, mark, word = match.groups()
        if comment is not None:
            continue
        if mark == ";":
            open_blocks[-1].append((words, None))
            words = []
        elif mark == "{":
            block = []
            open_blocks[-1].append((words, block))
            open_blocks.append(block)
            words = []
        elif mark == "}":
            if words or len(open_blocks) == 1:
                raise ValueError(f"a directive without an end before byte {position}")
            open_blocks.pop()
        else:
            words.append(quoted[1:-1] if quoted else word)
    if len(open_blocks) != 1 or words:
        raise ValueError("a block or a directive has no end")
    return root


def blocks(tree, name):
    """All blocks of this name, at any depth, each with its words."""
    for words, block in tree:
        if block is None:
            continue
        if words and words[0] == name:
            yield words, block
        yield from blocks(block, name)


def directives(tree):
    """Every directive, at any depth."""
    for words, block in tree:
        yield words
        if block is not None:
            yield from directives(block)


# What every location that passes requests on must say itself or have from its server. A `proxy_set_header` of a location
# hides all of its server's, so these are looked for in one place.
HEADERS = {
    "Authorization": "$http_authorization",
    "Host": "$host",
    "X-Forwarded-For": "$proxy_add_x_forwarded_for",
    "X-Forwarded-Host": "$host",
    "X-Forwarded-Proto": "$scheme",
}
SETTINGS = {
    "proxy_http_version": ["1.1"],
    "proxy_buffering": ["off"],
    "proxy_request_buffering": ["off"],
    "proxy_cache": ["off"],
    "proxy_pass_request_headers": ["on"],
    "gzip": ["off"],
}
LONG_TIMEOUTS = ("proxy_read_timeout", "proxy_send_timeout")
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}


def seconds(text):
    parts = re.findall(r"(\d+)(ms|[smhd]?)", text)
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def in_force(name, *levels):
    """The last level that says `name` decides."""
    for level in levels:
        found = [words[1:] for words, block in level if block is None and words[0] == name]
        if found:
            return found
    return []


def problems(text):
    try:
        tree = parse(text)
    except ValueError as error:
        return [str(error)]
    found = []
    for words in directives(tree):
        said = " ".join(words).lower()
        if "access-control-" in said:
            found.append(f"CORS belongs to the daemon, not to the proxy: {' '.join(words)}")
        if words[:2] == ["proxy_ssl_verify", "off"]:
            found.append("proxy_ssl_verify off: the upstream's certificate must be verified")
        if re.search(r"bearer\s+[a-z0-9._~+/=-]{12,}", said):
            found.append("a bearer token stands in the file")
    http = next((block for _, block in blocks(tree, "http")), [])
    upstreams = {words[1]: block for words, block in blocks(tree, "upstream") if len(words) > 1}
    for name, block in upstreams.items():
        for words, _ in block:
            if words[0] == "server" and not re.match(r"^(127\.\d+\.\d+\.\d+|\[::1\]|localhost)(:\d+)?$|^unix:", words[1]):
                found.append(f"upstream {name}: {words[1]} is not on loopback")
    servers = list(blocks(tree, "server"))
    if not servers:
        found.append("there is no server")
    for _, server in servers:
        found += server_problems(http, server, upstreams)
    return sorted(set(found))


def server_problems(http, server, upstreams):
    found = []
    listens = [" ".join(words[1:]) for words, block in server if words[0] == "listen"]
    if not listens or not all("ssl" in listen.split() for listen in listens):
        found.append(f"every listener has TLS: {listens}")
    for name in ("ssl_certificate", "ssl_certificate_key"):
        if not in_force(name, server, http):
            found.append(f"{name} is missing")
    protocols = in_force("ssl_protocols", server, http)
    if not protocols or not set(protocols[0]) <= {"TLSv1.2", "TLSv1.3"}:
        found.append(f"ssl_protocols has a floor of TLSv1.2: {protocols}")
    if in_force("client_max_body_size", server, http) in ([], [["0"]]):
        found.append("client_max_body_size is an explicit limit")
    locations = list(blocks(server, "location"))
    if not any(words[1:] == ["/"] for words, _ in locations):
        found.append("there is no location /")
    for words, location in locations:
        name = " ".join(words[1:])
        found += [f"location {name}: {point}" for point in location_problems(http, server, location, upstreams)]
    return found


def location_problems(http, server, location, upstreams):
    passes = in_force("proxy_pass", location)
    if not passes:
        return ["it does not pass requests to the daemon"]
    found = []
    target = passes[0][0].removeprefix("http://").split("/")[0]
    if passes[0][0].startswith("http://") and target not in upstreams and not re.match(r"^(127\.|localhost|\[::1\])", target):
        found.append(f"proxy_pass {passes[0][0]} is not the upstream of this file")
    for name, wanted in SETTINGS.items():
        said = in_force(name, location, server, http)
        if said != [wanted]:
            found.append(f"{name} is {' '.join(wanted)}, not {said}")
    for name in LONG_TIMEOUTS:
        said = in_force(name, location, server, http)
        if not said or seconds(said[0][0]) < 3600:
            found.append(f"{name} is at least 1h, not {said}")
    headers = {words[0]: words[1] for words in in_force("proxy_set_header", location, server, http) if len(words) == 2}
    for name, wanted in HEADERS.items():
        if headers.get(name) != wanted:
            found.append(f"proxy_set_header {name} {wanted}, not {headers.get(name)}")
    added = in_force("add_header", location, server, http)
    if ["X-Accel-Buffering", "no", "always"] not in added:
        found.append("add_header X-Accel-Buffering no always")
    return found


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    if len(sys.argv) > 2:
        _, certificate, key, prefix = sys.argv[2:6]
        text = re.sub(r"(ssl_certificate\s+)[^;]+;", rf"\g<1>{certificate};", text)
        text = re.sub(r"(ssl_certificate_key\s+)[^;]+;", rf"\g<1>{key};", text)
        # Where nothing else is said nginx writes below /var, which only root may.
        places = [f"{name}_temp_path {prefix}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
        text = text.replace("http {\n", "http {\n    access_log off;\n" + "".join(f"    {place}\n" for place in places), 1)
        print(f"pid {prefix}/nginx.pid;\nerror_log {prefix}/error.log;\n" + text)
        return
    found = problems(text)
    for point in found:
        print(f"{sys.argv[1]}: {point}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
