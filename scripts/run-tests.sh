#!/usr/bin/env bash
# Runs a test command and counts the tests that could not run on this host: they print a line that begins with SKIPPED.
set -uo pipefail
output=$(mktemp "${TMPDIR:-/tmp}/kheish-tests.XXXXXX")
trap 'rm -f "$output"' EXIT
"$@" 2>&1 | tee "$output"
status=$?
echo "not run on this host: $(grep -ac '^SKIPPED' "$output") (lines that begin with SKIPPED say why)"
exit "$status"
