# shellcheck shell=sh disable=SC2034,SC2119,SC2120,SC2317
# lib.sh - what the scenarios in tests/*/run share. Sourced, not run.
#
# A scenario starts the real binary with data of its own, on ports that are free, asks it things with real clients, and
# prints one line per check: "ok NAME", "not ok NAME", or "skip NAME". Nothing waits for luck: wait_for() repeats a
# command until it succeeds or its time is over. Whatever was started is ended by process id when the script ends.
#
#   T      a private folder inside build/ (workloads can see it)        DATA   the node's data, elsewhere
#   WEIR   the binary                                                   GW, ADMIN   ports for a gateway and the admin pages
#   KAFKA  the port of the event log; any free one when the scenario says none
#   ETCD   the port of the etcd API; when the scenario says none there is no control store
set -u
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
WEIR=${WEIR:-$ROOT/build/weir}
NAME=$(basename "$(dirname -- "$0")")
mkdir -p "$ROOT/build/tests"
T=$(mktemp -d "$ROOT/build/tests/$NAME.XXXXXX")
chmod 755 "$T"
DATA=$(mktemp -d "${TMPDIR:-/tmp}/weir-$NAME.XXXXXX")
FIRST_DATA=$DATA # a scenario may go on with another one, "$DATA-NAME" as a rule: end_all() removes both
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
    wait_end=$(($(date +%s%N) / 1000000 + 1000 * $1)) # to the millisecond: whole seconds would take up to one away
    shift
    until "$@" >/dev/null 2>&1; do
        [ $(($(date +%s%N) / 1000000)) -lt "$wait_end" ] || return 1
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
# outgoing connections, so nobody takes one by chance before it is used. Scenarios that run side by side are in different lanes; each has 1,000 ports,
# and gives none out twice: those that it was given first may be used last.
free_ports() {
    python3 -c 'import random, socket, sys
with open(sys.argv[3], "a+") as f:
    f.seek(0)
    given, first, held = set(map(int, f.read().split())), 21000 + 1000 * int(sys.argv[2]), []
    while len(held) < int(sys.argv[1]):
        s, port = socket.socket(), random.randrange(first, first + 1000)
        try: port in given or s.bind(("127.0.0.1", port)) or held.append(s)
        except OSError: pass
    ports = [s.getsockname()[1] for s in held]
    print(*ports, file=f)
print(*ports)' "$1" "${WEIR_TEST_LANE:-0}" "$T/ports"
}

# ---- packages ---------------------------------------------------------------------------------------------------------

# npm_packages SET: what scenarios take from npm is in $NPM/node_modules, and stays in build/npm. Scenarios share a set; whoever comes first installs it,
# others wait meanwhile. Fails where npm can't; what it said is in $T/npm.log.
npm_packages() {
    case $1 in
    etcd) npm_list=etcd3@1.1.2 ;;
    grpc) npm_list="@grpc/grpc-js@1.13.4 grpc-health-check@2.0.2 ws@8.18.3" ;;
    kafka) npm_list="kafkajs@2.2.4 snappyjs@0.7.0 lz4js@0.2.0 zstd-codec@0.1.5" ;;
    esac
    NPM=$ROOT/build/npm/$1
    mkdir -p "$NPM"
    (
        flock 9
        [ "$(cat "$NPM/installed" 2>/dev/null)" = "$npm_list" ] && exit
        # shellcheck disable=SC2086 # a list
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$NPM" $npm_list >"$T/npm.log" 2>&1 && echo "$npm_list" >"$NPM/installed"
    ) 9>"$NPM/lock"
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

# is_ours PID: this script has started it, or what it started has. Another's process may have got the number of one that has ended: there are not many.
is_ours() {
    ours_pid=$1
    while [ "${ours_pid:-0}" -gt 1 ]; do
        ours_pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$ours_pid/status" 2>/dev/null)
        [ "$ours_pid" != "$$" ] || return 0
    done
    return 1
}

# end_one PID: asks, waits, insists.
end_one() {
    { is_ours "$1" && kill -TERM "$1" 2>/dev/null; } || return 0
    wait_for 45 gone "$1" || kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

end_all() {
    end_status=$?
    trap - EXIT INT TERM
    for pid in $PIDS; do end_one "$pid"; done
    [ "$end_status" -ne 0 ] || rm -rf "$T"
    rm -rf "$DATA" "$FIRST_DATA" "$FIRST_DATA"-*
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
    [ -n "${KAFKA:-}" ] || KAFKA=$(free_ports 1)
    background "$T/node.log" "$WEIR" up --data "$DATA" --admin "127.0.0.1:$ADMIN" --kafka "127.0.0.1:$KAFKA" --etcd "${ETCD:+127.0.0.1:}${ETCD:-off}" --access-log "$T/access.log" "$@"
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
load_start() { load_with python3 "$ROOT/tests/load.py" "$GW" "$@"; }

# load_with COMMAND...: the same by this command, a load.py; it has an answer when this returns, and has gone on for a moment.
load_with() {
    rm -f "$T/load.began"
    background "$T/load.txt" "$@" --began "$T/load.began"
    LOAD=$BG
    wait_for 20 test -e "$T/load.began"
    sleep 0.3
}

# load_stop: ends the load; what was counted is in $LOAD_REQUESTS, $LOAD_FAILED, $LOAD_SLOWEST_MS, $LOAD_GAP_MS and $LOAD_P99_MS, the failures
# are in $LOAD_WHY.
load_stop() {
    kill -TERM "$LOAD" 2>/dev/null
    wait "$LOAD" 2>/dev/null
    LOAD_REQUESTS=0 LOAD_FAILED=1 LOAD_SLOWEST_MS=0 LOAD_GAP_MS=0 LOAD_P99_MS=0
    read -r LOAD_REQUESTS LOAD_FAILED LOAD_SLOWEST_MS LOAD_GAP_MS LOAD_P99_MS <"$T/load.txt"
    LOAD_WHY=$(tail -n +2 "$T/load.txt")
}

# load_end NAME LEAST: the same; the check holds when not one request failed and at least so many were made.
load_end() {
    load_stop
    if [ "$LOAD_FAILED" = 0 ] && [ "$LOAD_REQUESTS" -ge "$2" ]; then
        ok "$1"
        printf '#   %s requests, slowest %s ms\n' "$LOAD_REQUESTS" "$LOAD_SLOWEST_MS"
    else
        not_ok "$1" "$LOAD_FAILED of $LOAD_REQUESTS requests failed; at least $2 were expected" "$LOAD_WHY"
    fi
}

# ---- what runs ---------------------------------------------------------------------------------------------------------------

# shop_copy: the shop in $T/examples/shop with gateway port $GW; the paths in its manifests are relative to its folder.
shop_copy() {
    mkdir -p "$T/examples" "$T/build/examples/shop"
    cp -R "$ROOT/examples/shop" "$T/examples/shop"
    cp "$(dirname "$WEIR")/examples/shop/payment" "$T/build/examples/shop/payment"
    sed "s/protocol: HTTP, port: 8080/protocol: HTTP, port: $GW/" "$ROOT/examples/shop/shop.yaml" >"$T/examples/shop/shop.yaml"
}

# replica_pids WORD: the processes whose working folder is below $T, with this word in their command line.
replica_pids() {
    for dir in /proc/[0-9]*; do
        case $(readlink "$dir/cwd" 2>/dev/null) in
        "$T" | "$T"/*) if tr '\0' ' ' 2>/dev/null <"$dir/cmdline" | grep -qF -- "$1"; then printf '%s\n' "${dir#/proc/}"; fi ;;
        esac
    done
}

# tree PID: it and all of its descendants.
tree() { ps -eo pid=,ppid= | awk -v top="$1" '{ parent[$1] = $2 } END { for (p in parent) { q = p; while (q && q != top) q = parent[q]; if (q == top) print p } }'; }

engine_pid() { ps -o pid=,args= --ppid "$NODE" | awk '/weir: engine/ { print $1; exit }'; }

# manifest_gateway [NAMESPACE]: a Gateway named gw on port $GW, for routes of all namespaces.
manifest_gateway() {
    cat <<EOF
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: gw, namespace: ${1:-default} }
spec:
  gatewayClassName: weir
  listeners: [ { name: http, protocol: HTTP, port: $GW, allowedRoutes: { namespaces: { from: All } } } ]
---
EOF
}

# manifest_workload NAME REPLICAS [ENV [CONTAINER_EXTRA [SPEC_EXTRA [POD_EXTRA]]]]: tests/workload.py as a Deployment, its Service on
# port 80, and a route for the host NAME.test. ENV: flow pairs "{ name: A, value: b }, ..."; the others: lines of YAML in flow style.
manifest_workload() {
    cp "$ROOT/tests/workload.py" "$T/workload.py"
    cat <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: { name: $1 }
spec:
  replicas: $2
  selector: { matchLabels: { app: $1 } }
  ${5:-}
  template:
    metadata: { labels: { app: $1 } }
    spec:
      ${6:-terminationGracePeriodSeconds: 10}
      containers:
        - name: main
          command: [ python3, workload.py ]
          workingDir: $T
          ports: [ { containerPort: 8080 } ]
          env: [ ${3:-} ]
          ${4:-}
---
apiVersion: v1
kind: Service
metadata: { name: $1 }
spec: { selector: { app: $1 }, ports: [ { port: 80, targetPort: 8080 } ] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: $1 }
spec:
  parentRefs: [ { name: gw } ]
  hostnames: [ $1.test ]
  rules: [ { backendRefs: [ { name: $1, port: 80 } ] } ]
---
EOF
}

# ask HOST PATH [CURL OPTION...]: through the gateway, the body.
ask() {
    ask_host=$1 ask_path=$2
    shift 2
    curl -sS -m 20 -H "Host: $ask_host.test" "$@" "http://127.0.0.1:$GW$ask_path"
}

# inside HOST COMMAND: runs it with sh inside a replica of that workload, prints its output.
inside() { ask "$1" /sh --data-binary "$2" | jq -r .out; }

# status_of WORKLOAD JQ: something of the status that `get -o json` shows.
status_of() { weir get workloads "$1" -o json | jq -r ".status$2"; }
ready_is() { [ "$(status_of "$1" .readyReplicas)" = "$2" ]; }
complete() { [ "$(status_of "$1" .complete)" = true ]; }
