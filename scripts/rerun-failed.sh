#!/usr/bin/env bash
# Runs the tests that failed again: each one alone and three times in a row. Those that pass all three times are UNSTABLE,
# which is said, counted and no failure; one that fails again fails the run. For machines that are shared with others, where
# a test can be held up for longer than its author thought; an unstable test is a defect all the same, to be repaired.
# Usage: rerun-failed.sh OUTPUT COMMAND…   OUTPUT is what `COMMAND… ` (a `cargo test --no-fail-fast`) has printed.
set -uo pipefail

output=$1
shift
rounds=3
# More than this is no instability.
failures_max=8

# A line for each failed test: what cargo calls its program, a tab, the test's name. A program that failed without telling
# which test it was (a crash, a kill) has no name here.
failed() {
    awk '
        /^failures:$/ { listing = 1; count = 0; next }
        /^test result: FAILED/ { listing = 0; told = count; next }
        /^error: test failed, to rerun pass `/ {
            target = $0; sub(/^[^`]*`/, "", target); sub(/`.*/, "", target)
            if (told == 0) printf "%s\t\n", target
            for (number = 1; number <= told; number++) printf "%s\t%s\n", target, names[number]
            count = told = 0
            next
        }
        listing && /^    [^ ]+$/ { names[++count] = substr($0, 5); next }
        listing && /[^ ]/ { listing = 0; count = 0 }
    ' "$output"
}

list=$(failed)
if [ -z "$list" ]; then
    echo "rerun-failed: no test failed, so something else did" >&2
    exit 1
fi
count=$(printf '%s\n' "$list" | wc -l)
if [ "$count" -gt "$failures_max" ]; then
    echo "rerun-failed: $count tests failed; more than $failures_max are not run again" >&2
    exit 1
fi

unstable=()
while IFS=$'\t' read -r target name; do
    if [ -z "$name" ]; then
        echo "rerun-failed: $target failed and does not say which test it was" >&2
        exit 1
    fi
    for round in $(seq "$rounds"); do
        echo "rerun-failed: $name ($target), $round of $rounds"
        # shellcheck disable=SC2086 # the target is an option and its value
        said=$("$@" $target -- --exact "$name" --test-threads 1 2>&1 </dev/null)
        status=$?
        if [ "$status" -ne 0 ] || ! grep -q '^test result: ok\. 1 passed' <<<"$said"; then
            printf '%s\n' "$said"
            echo "rerun-failed: $name failed again, in round $round" >&2
            exit 1
        fi
    done
    unstable+=("$name")
done <<<"$list"

for name in "${unstable[@]}"; do echo "UNSTABLE: $name"; done
echo "unstable: ${#unstable[@]} (failed once, then passed $rounds times in a row, alone; each is a defect to repair)"
