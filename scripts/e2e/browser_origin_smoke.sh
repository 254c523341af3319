#!/usr/bin/env bash
# What browsers' origins get: loopback ones exactly, others nothing; from the daemon and through nginx where installed.
# KHEISH_OPS_BROWSER_ROOT, KHEISH_OPS_BROWSER_SKIP_BUILD=1, KHEISH_BIN.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/lib/browser_origin.py"
