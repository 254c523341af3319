#!/usr/bin/env bash
# Every path of the SLO table, on a healthy daemon. Offline, unless OPENAI_API_KEY or KHEISH_OPENAI_API_KEY is set.
# KHEISH_OPS_SLO_MODEL, KHEISH_OPS_SLO_ROOT, KHEISH_OPS_SLO_SKIP_BUILD=1, KHEISH_BIN.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
unset KHEISH_AUTH_STORE_MASTER_KEY KHEISH_AUTH_STORE_MASTER_KEY_FILE
if [ -f "$here/../../.env" ]; then set -a; . "$here/../../.env"; set +a; fi
exec python3 "$here/lib/slo_probe.py"
