#!/usr/bin/env bash
# A run and all event streams through HTTPS. Offline, unless OPENAI_API_KEY or KHEISH_OPENAI_API_KEY is set.
# KHEISH_OPS_TLS_LIVE_MODEL, KHEISH_OPS_TLS_LIVE_ROOT, KHEISH_OPS_TLS_LIVE_SKIP_BUILD=1, KHEISH_BIN. Needs openssl.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
unset KHEISH_AUTH_STORE_MASTER_KEY KHEISH_AUTH_STORE_MASTER_KEY_FILE
if [ -f "$here/../../.env" ]; then set -a; . "$here/../../.env"; set +a; fi
exec python3 "$here/lib/tls_proxy_live.py"
