#!/usr/bin/env bash
# The official MCP reference servers everything, filesystem, memory, time and git, unmodified, as children of the real binary in
# its sandbox. Needs npm, pip and their registries, or a folder in which the servers are installed; is SKIPPED otherwise.
# KHEISH_MCP_REFERENCE_DIR, KHEISH_E2E_ROOT, KHEISH_E2E_SKIP_BUILD=1, KHEISH_BIN.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/lib/mcp_reference_servers.py"
