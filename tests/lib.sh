# shellcheck shell=sh disable=SC2034,SC2317
# lib.sh - what the scenarios in tests/*/run share. Sourced, not run.
#
# A scenario starts the real binary with data of its own, on ports that are free, asks it things with real clients, and
# prints one line per check: "ok NAME", "not ok NAME", or "skip NAME". Nothing waits for luck: wait_for() repeats a
# command until it succeeds or its time is over. Whatever was started is ended by process id when the script ends.
#
#   T      a private folder inside build/ (workloads can see it)        DATA   the node's data, elsewhere
#   WEIR   the binary                                                   GW, ADMIN   ports for a gateway and the admin pages
set -u
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
WEIR=${WEIR:-$ROOT/build/weir}
NAME=$(basename "$(dirname -- "$0")")
mkdir -p "$ROOT/build/tests"
T=$(mktemp -d "$ROOT/build/tests/$NAME.XXXXXX")
chmod 755 "$T"
DATA=$(mktemp -d "${TMPDIR:-/tmp}/weir-$NAME.XXXXXX")
PIDS=''  # what end_all() ends, newest first
NODE=''  # the node's first process
PASSED=0 FAILED=0

# ---- counting ------------------------------------------------------------------------------------------------------

ok() {
    PASSED=$((PASSED + 1))
    printf 'ok %s\n' "$1"
}

# not_ok NAME [WHY...]
not_ok() {
    FAILED=$((FAILED + 1))
    printf 'not ok %s\n' "$1"
    shift
    [ $# -eq 0 ] || printf '%s\n' "$*" | sed 's/^/#   /' | head -n 20
}

skip() { printf 'skip %s\n' "$1"; }

# check NAME COMMAND...: it succeeds.
check() {
    check_name=$1
    shift
    if check_out=$("$@" 2>&1); then ok "$check_name"; else not_ok "$check_name" "$*" "$check_out"; fi
}

# same NAME WANT GOT
same() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "wanted: $2" "got:    $3"; fi; }

# has NAME TEXT PART; lacks NAME TEXT PART
has() { case $2 in *"$3"*) ok "$1" ;; *) not_ok "$1" "nowhere: $3" "in: $2" ;; esac; }
lacks() { case $2 in *"$3"*) not_ok "$1" "there is: $3" "in: $2" ;; *) ok "$1" ;; esac; }

# The scenario's last line; its status is the script's.
finish() {
    [ "$FAILED" -eq 0 ] || node_says 30
    printf '# %s passed, %s failed\n' "$PASSED" "$FAILED"
    [ "$FAILED" -eq 0 ]
}

# ---- waiting --------------------------------------------------------------------------------------------------------

# wait_for SECONDS COMMAND...: until it succeeds; fails when the time is over.
wait_for() {
    wait_end=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$wait_end" ] || return 1
        sleep 0.1
    done
}

# within_ms LIMIT COMMAND...: it succeeds before so many milliseconds have passed; tried again and again.
within_ms() {
    within_end=$(($(date +%s%N) / 1000000 + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $(($(date +%s%N) / 1000000)) -lt "$within_end" ] || return 1
        sleep 0.02
    done
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# Ports that nobody listens on now: free_ports N prints them on one line. They lie below those that the kernel gives to
# outgoing connections, so nobody takes one by chance before it is used.
free_ports() {
    python3 -c 'import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    s = socket.socket()
    try: s.bind(("127.0.0.1", random.randrange(21000, 22000)))
    except OSError: continue
    held.append(s)
print(*[s.getsockname()[1] for s in held])' "$1"
}

# ---- processes -------------------------------------------------------------------------------------------------------

# background LOG COMMAND...: starts it and remembers it; its id is in $BG.
background() {
    background_log=$1
    shift
    "$@" >"$background_log" 2>&1 </dev/null &
    BG=$!
    PIDS="$BG $PIDS"
}

# end_one PID: asks, waits, insists.
end_one() {
    kill -TERM "$1" 2>/dev/null || return 0
    wait_for 45 gone "$1" || kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

end_all() {
    end_status=$?
    trap - EXIT INT TERM
    for pid in $PIDS; do end_one "$pid"; done
    [ "$end_status" -ne 0 ] || rm -rf "$T"
    rm -rf "$DATA"
    exit "$end_status"
}
trap end_all EXIT
trap 'exit 130' INT TERM

# ---- the node ---------------------------------------------------------------------------------------------------------

# Every command of a scenario goes to its own node.
weir() {
    weir_command=$1
    shift
    "$WEIR" "$weir_command" --data "$DATA" "$@"
}

# node_start FILE...: `weir up` in the background; fails when it is not ready in time.
node_start() {
    background "$T/node.log" "$WEIR" up --data "$DATA" --admin "127.0.0.1:$ADMIN" --access-log "$T/access.log" "$@"
    NODE=$BG
    wait_for 60 node_ready_or_gone
    if node_ready >/dev/null 2>&1; then return 0; fi
    not_ok "the node is ready within 60 s" "$(node_ready 2>&1)"
    node_says 60
    exit 1
}

node_ready() { curl -fsS -m 2 "http://127.0.0.1:$ADMIN/readyz"; }
node_ready_or_gone() { node_ready || gone "$NODE"; }

# node_says LINES: the end of what the node wrote, as comments.
node_says() { [ ! -f "$T/node.log" ] || tail -n "$1" "$T/node.log" | sed 's/^/#   /'; }

node_stop() { end_one "$NODE"; }

metrics() { curl -fsS -m 5 "http://127.0.0.1:$ADMIN/metrics"; }

# promtool has nothing to say about /metrics, but for the one family whose name is Istio's.
metrics_are_clean() {
    metrics | promtool check metrics >"$T/promtool.txt" 2>&1
    ! grep -v '^istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"$' "$T/promtool.txt"
}

# metric NAME: the sum of a family's samples, all labels together; 0 when there are none.
metric() { metrics | awk -v name="$1" '{ n = $1; sub(/\{.*/, "", n) } n == name { sum += $NF } END { printf "%d\n", sum }'; }

# ---- HTTP ----------------------------------------------------------------------------------------------------------------

# status URL [CURL OPTION...]: only the status code; 000 when there is no answer.
status() {
    status_url=$1
    shift
    curl -sS -m 20 -o /dev/null -w '%{http_code}' "$@" "$status_url" 2>/dev/null
}

# header NAME: the value of a field in a head that comes in on standard input (curl -D - or -I).
header() { tr -d '\r' | awk -v want="$1" 'BEGIN { want = tolower(want) ":" } tolower($1) == want { sub(/^[^:]*:[ \t]*/, ""); print }'; }

# load_start [OPTION of load.py...]: steady load on port $GW in the background, until load_end. wrk would make more requests, but could not
# say which of them failed, when and how.
load_start() {
    background "$T/load.txt" python3 "$ROOT/tests/load.py" "$GW" "$@"
    LOAD=$BG
    sleep 0.5
}

# load_end NAME LEAST: ends the load; the check holds when not one request failed and at least so many were made. What was
# counted stays in $LOAD_REQUESTS, $LOAD_FAILED, $LOAD_SLOWEST_MS and $LOAD_GAP_MS.
load_end() {
    kill -TERM "$LOAD" 2>/dev/null
    wait "$LOAD" 2>/dev/null
    LOAD_REQUESTS=0 LOAD_FAILED=0 LOAD_SLOWEST_MS=0 LOAD_GAP_MS=0
    read -r LOAD_REQUESTS LOAD_FAILED LOAD_SLOWEST_MS LOAD_GAP_MS <"$T/load.txt"
    if [ "${LOAD_FAILED:-x}" = 0 ] && [ "$LOAD_REQUESTS" -ge "$2" ]; then
        ok "$1"
        printf '#   %s requests, slowest %s ms\n' "$LOAD_REQUESTS" "$LOAD_SLOWEST_MS"
    else
        not_ok "$1" "$LOAD_FAILED of $LOAD_REQUESTS requests failed; at least $2 were expected" "$(tail -n +2 "$T/load.txt")"
    fi
}
