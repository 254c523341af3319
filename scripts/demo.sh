#!/usr/bin/env bash
# Builds the daemon, shows a run streaming live, kills the daemon with SIGKILL in the middle of a second run, restarts
# it, and proves that nothing was lost. Everything happens on loopback and in a temporary folder that is removed at the
# end, whatever happens. Needs bash, coreutils, grep, sed, awk and Rust; no root, no network once the crates are there.
# KHEISH_DEMO_BINARY=path uses a binary that is already built.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${KHEISH_DEMO_BINARY:-}
# Settings of the caller's own daemon must not reach this one.
for name in ${!KHEISH_@}; do unset "$name"; done

# --- small tools ----------------------------------------------------------------------------------------------------

bold='' dim='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$plain"; }

proven=()
prove() { proven+=("$1"); }

provider_pid='' daemon_pid='' watcher_pid=''
place=$(mktemp -d "${TMPDIR:-/tmp}/kheish-demo.XXXXXX")

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    for pid in $watcher_pid $daemon_pid $provider_pid; do kill -KILL "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ "$status" -ne 0 ]; then
        printf '\n%sThe demo failed.%s The last lines of the logs:\n' "$bold" "$plain" >&2
        tail -n 15 "$place"/*.log >&2 2>/dev/null || true
    fi
    rm -rf "$place"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# Waits up to 30 s until the rest of the line succeeds.
until_true() {
    local what=$1 tries=0
    shift
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "waited 30 s for $what"
        sleep 0.05
    done
}

# The value of the first "name" in JSON on standard input: enough for ids and states, which hold no quotes.
json_text() {
    awk -v name="\"$1\" *: *\"" '!found && match($0, name "[^\"]*") {
        found = 1; value = substr($0, RSTART, RLENGTH); sub(".*\"", "", value); print value
    }'
}

kheish() { "$binary" "$@"; }

# A list for a person: the command prints a table when a terminal is watching, and JSON for programs else.
list() {
    show "kheish-daemon $*"
    if [ -t 1 ]; then kheish "$@"; else kheish "$@" >/dev/null; fi
}

# --- build ----------------------------------------------------------------------------------------------------------

if [ -z "$binary" ]; then
    say "Building (release; the first time takes a minute or two)"
    cargo build --release --locked
    binary=${CARGO_TARGET_DIR:-target}/release/kheish-daemon
fi
[ -x "$binary" ] || fail "$binary is not there; next: run make build"

# --- keys, tokens, a model ------------------------------------------------------------------------------------------

umask 077
state=$place/state
mkdir "$state"
kheish secrets generate >"$place/master.key"
head -c 32 /dev/urandom | base64 >"$place/admin.token"
export KHEISH_AUTH_STORE_MASTER_KEY_FILE=$place/master.key
export KHEISH_DAEMON_TOKEN_FILE=$place/admin.token

say "1. A model: the scripted provider, an OpenAI-compatible server on loopback in the same binary"
show kheish-daemon scripted-provider --bind 127.0.0.1:0 --script deploy/demo/script.toml
"$binary" scripted-provider --bind 127.0.0.1:0 --script deploy/demo/script.toml >"$place/provider.out" 2>"$place/provider.log" &
provider_pid=$!
until_true "the scripted provider" grep -q '"base_url"' "$place/provider.out"
base_url=$(json_text base_url <"$place/provider.out")
sed "s|^base_url *=.*|base_url = \"$base_url\"|" deploy/demo/routes.toml >"$place/routes.toml"
echo "It answers at $base_url"

# --- the daemon -----------------------------------------------------------------------------------------------------

port=''
ready() { kheish status >/dev/null 2>&1; }

start_daemon() {
    local try
    for try in 1 2 3 4 5; do
        # A restart comes back at its address; the first start takes one that is free.
        [ -n "$port" ] || port=$((20000 + RANDOM % 12000))
        export KHEISH_DAEMON_URL=http://127.0.0.1:$port
        "$binary" serve --bind "127.0.0.1:$port" --state-root "$state" --workspace-root "$place/workspace" --log-level warn \
            --routes-file "$place/routes.toml" --http-admin-token-file "$place/admin.token" >>"$place/daemon.log" 2>&1 &
        daemon_pid=$!
        local tries=0
        while kill -0 "$daemon_pid" 2>/dev/null && [ "$tries" -lt 600 ]; do
            if ready; then return 0; fi
            tries=$((tries + 1))
            sleep 0.05
        done
        grep -qi 'in use' "$place/daemon.log" || break
        port=''
    done
    fail "the daemon did not start (attempt $try)"
}

say "2. The daemon, on loopback, with bearer authentication and an empty state root"
show kheish-daemon serve --state-root "$state" --routes-file deploy/demo/routes.toml --http-admin-token-file …
start_daemon
echo "Ready at $KHEISH_DAEMON_URL, process $daemon_pid"
# What an auditor takes along: with this copy nobody can pass off another history later.
cp "$state/audit-signing.pub.pem" "$place/auditor.pem"

say "3. A credential goes into the encrypted store; nothing ever shows it again"
secret=demo-$(head -c 12 /dev/urandom | base64 | tr -dc 'A-Za-z0-9')
show "kheish-daemon secrets set openai.demo --provider openai --stdin"
printf '%s' "$secret" | kheish secrets set openai.demo --provider openai --stdin >/dev/null
list secrets list
if grep -rqF "$secret" "$state"; then fail "the secret stands in the state root in plain text"; fi
prove "the stored credential is nowhere in the state root in plain text"

# --- the first run --------------------------------------------------------------------------------------------------

say "4. Real input; the answer streams to this terminal as the model writes it"
kheish sessions create demo >/dev/null
show 'kheish-daemon sessions input demo "Say hello to whoever watches." --wait --stream'
kheish sessions input demo "Say hello to whoever watches." --idempotency-key demo-1 --wait --stream --output json >"$place/run-1.json"
first_run=$(json_text run_id <"$place/run-1.json")
[ "$(json_text status <"$place/run-1.json")" = completed ] || fail "the first run did not complete: $(cat "$place/run-1.json")"
prove "$first_run was accepted, executed against the model over HTTP and streamed as it was written"

# --- kill -9 in the middle of the second run ----------------------------------------------------------------------------

say "5. A long second run; in the middle of its answer the daemon is killed with SIGKILL"
submission=(sessions input demo "Tell me a long story." --idempotency-key demo-2 --output json)
second_run=$(kheish "${submission[@]}" | json_text run_id)
show 'kheish-daemon sessions input demo "Tell me a long story." --wait --stream'
story_has_begun() { [ "$(wc -c <"$place/story.txt")" -ge 60 ]; }
# The same key attaches to the same run; this client waits for the answer through everything that follows.
: >"$place/story.txt"
"$binary" "${submission[@]}" --wait --stream --transient-grace-ms 60000 \
    >"$place/run-2.json" 2> >(tee "$place/story.txt" >&2) &
watcher_pid=$!
until_true "the story to begin" story_has_begun
kill -KILL "$daemon_pid"
daemon_status=0
{ wait "$daemon_pid" || daemon_status=$?; } 2>/dev/null
# The journal tells, without the daemon: a busy machine may take longer to ask than the story takes.
journal_of() { kheish journal show --offline --state-root "$state" --run-id "$second_run" --kind "$1"; }
[ -n "$(journal_of run.started)" ] || fail "$second_run had not begun when the daemon was killed"
[ -z "$(journal_of run.completed)" ] || fail "$second_run had completed when the daemon was killed"
[ "$daemon_status" -eq 137 ] || fail "the daemon ended with $daemon_status, not by SIGKILL"
printf '\n%s*** kill -9 %s: the daemon is dead, %s was running ***%s\n' "$bold" "$daemon_pid" "$second_run" "$plain"
prove "the daemon was killed with SIGKILL while $second_run was running"

say "6. Restart. Nobody submits anything again"
start_daemon
echo "Ready at $KHEISH_DAEMON_URL, process $daemon_pid"
watcher_status=0
wait "$watcher_pid" || watcher_status=$?
watcher_pid=''
[ "$watcher_status" -eq 0 ] || fail "the waiting client ended with $watcher_status"
[ "$(json_text run_id <"$place/run-2.json")" = "$second_run" ] || fail "the waiting client got $(cat "$place/run-2.json")"
[ "$(json_text status <"$place/run-2.json")" = completed ] || fail "$second_run: $(cat "$place/run-2.json")"
echo
list runs list --session-id demo
prove "after the restart $second_run went on by itself and completed; the client that had waited for it got the answer"

kheish runs get "$first_run" --output json >"$place/run-1.after.json"
cmp -s "$place/run-1.json" "$place/run-1.after.json" || fail "$first_run changed: $(cat "$place/run-1.after.json")"
prove "$first_run is still there, byte for byte as before"

again=$(kheish "${submission[@]}" | json_text run_id)
[ "$again" = "$second_run" ] || fail "the repeated submission became $again"
prove "submitting $second_run's input again under the same Idempotency-Key gave $second_run, not a new run"

# --- tools ----------------------------------------------------------------------------------------------------------

workspace=$place/workspace
pending_approval() { kheish approvals list --session-id demo --output json | grep -o 'approval-[A-Za-z0-9_-]*' | head -n 1; }
approval_waits() { [ -n "$(pending_approval)" ]; }
# Allows the one open approval, as from a second terminal, which needs nothing but the token.
allow_from_second_terminal() {
    until_true "an open approval" approval_waits
    list approvals list --session-id demo
    show "(second terminal) kheish-daemon approvals allow $(pending_approval)"
    kheish approvals allow "$(pending_approval)" >/dev/null
}
submit() { kheish sessions input demo "$1" --output json | json_text run_id; }
completed() { [ "$(kheish runs get "$1" --output json | json_text status)" = completed ]; }

say "7. The model asks for a tool; nothing happens until a person allows it"
show 'kheish-daemon sessions input demo "Write the note."'
run=$(submit "Write the note.")
until_true "an open approval" approval_waits
[ ! -e "$workspace/note.txt" ] || fail "the note was written before anybody allowed it"
allow_from_second_terminal
until_true "$run to complete" completed "$run"
grep -q 'Allowed by a person' "$workspace/note.txt" || fail "the note was not written"
prove "a tool call waited for a person, was allowed from another terminal, and only then wrote its file"

say "8. A command in the background: listed, read, stopped with everything that it started"
show 'kheish-daemon sessions input demo "Start the clock."'
run=$(submit "Start the clock.")
allow_from_second_terminal
until_true "$run to complete" completed "$run"
task=$(kheish tasks list demo --output json | grep -o 'shell-task-[A-Za-z0-9_-]*' | head -n 1)
[ -n "$task" ] || fail "no background task is listed"
list tasks list demo
clock_has_ticked() { kheish tasks output demo "$task" --output json | grep -Eq '[0-9]{2}:[0-9]{2}:[0-9]{2}'; }
until_true "output of $task" clock_has_ticked
show "kheish-daemon tasks stop demo $task"
kheish tasks stop demo "$task" >/dev/null
task_has_ended() { kheish tasks get demo "$task" --output json >"$place/task.json" && grep -Eq '"status" *: *"cancelled"' "$place/task.json"; }
until_true "$task to end" task_has_ended
grep -Eq '"process_tree_shutdown_confirmed" *: *true' "$place/task.json" || fail "$task left processes: $(cat "$place/task.json")"
prove "a background command was listed, read and stopped; the daemon says that its process tree is gone"

say "9. kill -9 in the middle of a tool"
show 'kheish-daemon sessions input demo "Ring the bell."'
run=$(submit "Ring the bell.")
allow_from_second_terminal
until_true "the bell" test -s "$workspace/bell.txt"
kill -KILL "$daemon_pid"
{ wait "$daemon_pid" || true; } 2>/dev/null
start_daemon
until_true "$run to complete" completed "$run"
kheish runs events "$run" --output json >"$place/bell.json"
grep -Eq '"outcome" *: *"interrupted"' "$place/bell.json" || fail "no event of $run says that the tool was interrupted"
[ "$(cat "$workspace/bell.txt")" = ding ] || fail "the tool was run again: $(cat "$workspace/bell.txt")"
prove "the daemon was killed while a tool ran: the model was told that the outcome is unknown, and nothing ran twice"

# --- the journal ----------------------------------------------------------------------------------------------------

say "10. Stop, and verify the journal without the daemon"
kill -TERM "$daemon_pid"
daemon_status=0
wait "$daemon_pid" || daemon_status=$?
daemon_pid=''
[ "$daemon_status" -eq 0 ] || fail "the daemon ended with $daemon_status when asked to stop"
prove "asked to stop, the daemon ended cleanly"
show "kheish-daemon journal verify --offline --state-root $state --public-key auditor.pem"
kheish journal verify --offline --state-root "$state" --public-key "$place/auditor.pem" || fail "the journal does not verify"
prove "the whole journal verifies offline: chain, seals and signatures"

cp -R "$state" "$place/altered"
segment=$(grep -l 'long story' "$place"/altered/journal/*.jsonl | head -n 1)
[ -n "$segment" ] || fail "no segment holds the story"
sed -i 's/long story/tall story/' "$segment"
if kheish journal verify --offline --state-root "$place/altered" --public-key "$place/auditor.pem" >"$place/altered.log" 2>&1; then
    fail "a changed record went unnoticed"
fi
prove "in a copy with one altered word, verification finds the damage"

# --- what it was ----------------------------------------------------------------------------------------------------

say "What was just proven"
for line in "${proven[@]}"; do printf '  - %s\n' "$line"; done
