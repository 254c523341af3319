#!/usr/bin/env python3
"""Checks a runbook's commands: the required ones are there, the forbidden ones are not, the scripts that it names exist, and
every command of the daemon parses with the real command line.

usage: verify_runbook_commands.py PATH [--require TEXT]... [--forbid TEXT]... [--no-defaults] [--check-bash-syntax]
                                       [--skip-script-check] [--skip-command-check]

The surface is the bodies of fences tagged bash, sh or shell and all inline code, with continuations joined. Commands are
parsed by the binary of KHEISH_BIN, else by the debug build, where it exists.
Exit: 0 with one line; 1 with every finding on standard error.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

REQUIRED = [
    "doctor",
    "doctor --cors-origin",
    "doctor routes --check-auth",
    "doctor routes --check-references",
    "status",
    "runtime get",
    "sha256sum -c",
    "secrets set openai.prod",
    "secrets set sidecars.webhook.routes",
    "connectors put-external ops-webhook",
    "runtime auth subject connector:ops-webhook",
    "runtime auth lease <lease_id>",
    "runtime auth revoke-slot openai.prod",
    "runtime auth revoke-slot sidecars.webhook.routes",
    "runtime set-permission-mode dont-ask",
    "runtime set-debug-level off",
    "runtime auth revoke-subject",
    "runs list",
    "runs get <run_id>",
    "sessions events <session_id>",
    "tasks list <session_id>",
    "deliveries list --run-id <run_id>",
    "runs external-actions <run_id>",
    "sessions interrupt <session_id>",
    "runs cancel <run_id>",
    "tasks stop <session_id> <task_id>",
    "scripts/e2e/ops_reverse_proxy_config_smoke.sh",
    "scripts/e2e/ops_backup_restore_smoke.sh",
    "scripts/e2e/ops_slo_probe_smoke.sh",
    "scripts/e2e/ops_runbook_live_smoke.sh",
    "scripts/e2e/ops_tls_proxy_live_smoke.sh",
    "scripts/e2e/run_mcp_local_true_binary.sh",
]
# The mode that undoes containment, and a home path of a laptop.
FORBIDDEN = ["runtime set-permission-mode default", "/" + "Users/"]
FENCE = re.compile(r"^(`{3,})(bash|sh|shell)[^\n]*\n(.*?)^\1`*\s*$", re.M | re.S)
ANY_FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1`*\s*$", re.M | re.S)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
BINARY_NAMES = ("./target/debug/kheish-daemon", "./target/release/kheish-daemon", "kheish-daemon")


def joined(text):
    return re.sub(r"\\\n\s*", " ", text)


def surface(document):
    fences = [joined(match.group(3)) for match in FENCE.finditer(document)]
    inline = INLINE.findall(ANY_FENCE.sub("", document))
    return fences, inline


def flat(texts):
    return "\n".join(re.sub(r"\s+", " ", text) for text in texts)


def commands(fences):
    """The daemon's command lines in fences, as lists of words."""
    for fence in fences:
        for line in fence.splitlines():
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                yield None, f"{line.strip()!r} cannot be split into words: {error}"
                continue
            while words and re.match(r"^[A-Z_][A-Z0-9_]*=", words[0]):
                words.pop(0)
            if words and words[0] in BINARY_NAMES:
                if "|" in words:
                    words = words[: words.index("|")]
                yield [word for word in words[1:] if not re.match(r"^[0-9]?>", word)], None


def root_of(path):
    for parent in path.resolve().parents:
        if (parent / "Cargo.toml").is_file() and (parent / "scripts").is_dir():
            return parent
    return None


def find_binary(root):
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    places = [os.environ.get("KHEISH_BIN"), target / "debug/kheish-daemon", target / "release/kheish-daemon"]
    return next((Path(place).resolve() for place in places if place and os.access(place, os.X_OK)), None)


def main():
    parser = argparse.ArgumentParser(description="checks a runbook's commands")
    parser.add_argument("path", type=Path)
    parser.add_argument("--require", action="append", default=[], metavar="TEXT")
    parser.add_argument("--forbid", action="append", default=[], metavar="TEXT")
    parser.add_argument("--no-defaults", action="store_true")
    parser.add_argument("--check-bash-syntax", action="store_true")
    parser.add_argument("--skip-script-check", action="store_true")
    parser.add_argument("--skip-command-check", action="store_true")
    given = parser.parse_args()
    document = given.path.read_text(encoding="utf-8")
    fences, inline = surface(document)
    text, found = flat(fences + inline), []
    defaults = ([], []) if given.no_defaults else (REQUIRED, FORBIDDEN)
    found += [f"missing: {part}" for part in defaults[0] + given.require if part not in text]
    found += [f"forbidden: {part}" for part in defaults[1] + given.forbid if part in text]
    root = root_of(given.path)
    if not given.skip_script_check:
        found += script_problems(root, text)
    if given.check_bash_syntax:
        found += [problem for fence in fences for problem in syntax_problem(fence)]
    parsed = 0
    if not given.skip_command_check:
        binary = find_binary(root) if root else None
        if binary is None:
            print("SKIPPED: no binary to parse commands with; next: cargo build, or set KHEISH_BIN", file=sys.stderr)
        else:
            parsed, problems = parse_all(binary, fences)
            found += problems
    for problem in found:
        print(f"{given.path}: {problem}", file=sys.stderr)
    if not found:
        print(f"{given.path}: OK, {len(fences)} fences, {len(inline)} inline commands, {parsed} parsed by the daemon")
    sys.exit(1 if found else 0)


def script_problems(root, text):
    found = []
    for name in sorted(set(re.findall(r"scripts/e2e/[\w.-]+\.sh", text))):
        path = root / name if root else Path(name)
        if not path.is_file():
            found.append(f"{name} does not exist")
        elif subprocess.run(["bash", "-n", str(path)], capture_output=True, timeout=60).returncode != 0:
            found.append(f"{name} is no legal script")
    return found


def syntax_problem(fence):
    if re.search(r"<[a-z_ ]+>", fence):
        return []
    result = subprocess.run(["bash", "-n"], input=fence, text=True, capture_output=True, timeout=60)
    return [f"a fence is no legal script: {result.stderr.strip()}"] if result.returncode != 0 else []


def parse_all(binary, fences):
    parsed, found = 0, []
    for words, problem in commands(fences):
        if problem:
            found.append(problem)
            continue
        result = subprocess.run([str(binary), "__check-command", *words], capture_output=True, text=True, timeout=60)
        parsed += 1
        if result.returncode != 0:
            found.append(f"`{' '.join(words)}`: {result.stderr.strip()}")
    return parsed, found


if __name__ == "__main__":
    main()
