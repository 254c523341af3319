#!/usr/bin/env bash
# Runs a test command and counts the tests that could not run on this host: they print a line that begins with SKIPPED.
# With KHEISH_TESTS_RERUN=1, which .ci/run sets, tests that failed get the chance of scripts/rerun-failed.sh.
set -uo pipefail
output=$(mktemp "${TMPDIR:-/tmp}/kheish-tests.XXXXXX")
trap 'rm -f "$output"' EXIT
"$@" 2>&1 | tee "$output"
status=$?
echo "not run on this host: $(grep -ac '^SKIPPED' "$output") (lines that begin with SKIPPED say why)"
if [ "$status" -ne 0 ] && [ "${KHEISH_TESTS_RERUN:-}" = 1 ]; then
    "$(dirname "$0")/rerun-failed.sh" "$output" "$@"
    status=$?
fi
exit "$status"
