#!/usr/bin/env bash
# MCP with the real binary, all on this host: the catalog, a bearer secret, an OAuth account from login to logout.
# KHEISH_E2E_ROOT, KHEISH_E2E_SKIP_BUILD=1, KHEISH_BIN, KHEISH_E2E_MCP_PORT, KHEISH_E2E_MCP_OAUTH_PORT.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/lib/mcp_local.py"
