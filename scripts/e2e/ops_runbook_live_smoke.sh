#!/usr/bin/env bash
# The whole runbook on a daemon of its own. Offline, unless OPENAI_API_KEY or KHEISH_OPENAI_API_KEY is set.
# KHEISH_OPS_LIVE_MODEL, KHEISH_OPS_LIVE_ROOT, KHEISH_OPS_LIVE_SKIP_BUILD=1, KHEISH_OPS_CANARY_TIMEOUT_MS, KHEISH_BIN.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
unset KHEISH_AUTH_STORE_MASTER_KEY KHEISH_AUTH_STORE_MASTER_KEY_FILE
if [ -f "$here/../../.env" ]; then set -a; . "$here/../../.env"; set +a; fi
python3 "$here/verify_runbook_commands.py" "$here/../../docs/operators/production-runbooks.md"
exec python3 "$here/lib/runbook_live.py"
