#!/usr/bin/env bash
# Load as users have it: clients with bearer tokens, several sessions each, streams that are read, pollers of the status.
# No HTTP error, every run ends once, and the daemon does not grow. `--small` takes seconds; without it 50 clients × 4 sessions.
# KHEISH_LOAD_ROOT, KHEISH_LOAD_SKIP_BUILD=1, KHEISH_BIN.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/lib/session_load.py" "$@"
