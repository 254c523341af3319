#!/usr/bin/env bash
# Backup, restore and rotation of a route's secret, against a daemon of its own; no provider, no network.
# KHEISH_OPS_SMOKE_ROOT: where the evidence goes; KHEISH_OPS_SMOKE_SKIP_BUILD=1 or KHEISH_BIN: no build.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/verify_runbook_commands.py" "$here/../../docs/operators/production-runbooks.md"
exec python3 "$here/lib/backup_restore.py"
