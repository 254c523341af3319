#!/usr/bin/env bash
# Runs the tests that need root: the test targets `tests/root_*.rs`, whose tests are ignored by `make test`.
# A test that cannot get what it needs (say, a loop device inside a container) prints `skipped: <test>: <why>`
# and passes; the skips are counted and printed here, so that a green run never hides them.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
    echo "test-root: needs root; next: sudo make test-root" >&2
    exit 1
fi

cargo=${CARGO:-cargo}
"$cargo" test --locked --test 'root_*' --no-run

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
"$cargo" test --locked --test 'root_*' -- --ignored --nocapture --test-threads 1 >"$output" 2>&1 || status=$?

# The skips come first, so that the runner's own closing lines are the last ones.
echo "test-root: $(grep -c 'skipped: ' "$output" || true) skipped"
grep -o 'skipped: .*' "$output" || true
cat "$output"
exit "$status"
