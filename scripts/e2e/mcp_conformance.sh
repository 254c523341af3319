#!/usr/bin/env bash
# The official MCP conformance suite's client scenarios, for each revision, with the real binary. Needs npm and the registry, or
# a folder in which Node 22 and the suite are installed; is SKIPPED otherwise.
# KHEISH_MCP_SUITE_DIR, KHEISH_MCP_SCENARIO (one alone), KHEISH_E2E_ROOT, KHEISH_E2E_SKIP_BUILD=1, KHEISH_BIN.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/lib/mcp_conformance.py" run
