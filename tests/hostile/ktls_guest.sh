#!/bin/busybox sh
# shellcheck shell=dash
# ktls_guest.sh - the first process of the machine that ktls boots: checks, or measures, Weir on a kernel that makes TLS records. Its output is the
# console; the last line begins with "# over".
set -u
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ip link set lo up
FAILED=0
MODE=$(cat /etc/what)
PORT=8443
URL=https://localhost:$PORT

ok() { echo "ok $1"; }
not_ok() {
    echo "not ok $1"
    shift
    [ $# -eq 0 ] || printf '%s\n' "$*" | sed 's/^/#   /' | head -n 20
    FAILED=$((FAILED + 1))
}
# check NAME COMMAND...
check() {
    check_name=$1
    shift
    if out=$("$@" 2>&1); then ok "$check_name"; else not_ok "$check_name" "$* -> $out"; fi
}
over() {
    echo "# over, $FAILED failed"
    sync
    poweroff -f
}
trap over EXIT

# ---- Weir ----------------------------------------------------------------------------------------------------------

manifest() {
    cat <<END
apiVersion: v1
kind: Service
metadata: { name: origin }
spec:
  type: ExternalName
  externalName: localhost
  ports: [ { port: 9000, appProtocol: http } ]
---
apiVersion: weir.dev/v1
kind: HTTPFilter
metadata: { name: files }
spec: { staticFiles: { root: /srv } }
---
apiVersion: v1
kind: Secret
metadata: { name: cert }
type: kubernetes.io/tls
data: { tls.crt: $(base64 /etc/cert.pem | tr -d '\n'), tls.key: $(base64 /etc/key.pem | tr -d '\n') }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: door }
spec:
  gatewayClassName: weir
  listeners: [ { name: tls, port: $PORT, protocol: HTTPS, tls: { certificateRefs: [ { name: cert } ] } } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: all }
spec:
  parentRefs: [ { name: door } ]
  rules:
    - matches: [ { path: { value: /files } } ]
      filters: [ { type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: / } } }, { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: files } } ]
    - backendRefs: [ { name: origin, port: 9000 } ]
END
}

# weir_start auto|off
weir_start() {
    manifest >/tmp/m.yaml
    rm -rf /tmp/data
    weir up -d --workers 1 --data /tmp/data --admin 127.0.0.1:7070 --kafka off --etcd off --access-log off --kernel-tls "$1" /tmp/m.yaml >/tmp/up.log 2>&1 || {
        not_ok 'weir up' "$(cat /tmp/up.log)"
        exit 1
    }
}
weir_stop() { weir down --data /tmp/data >/dev/null 2>&1; }
engine() { for p in /proc/[0-9]*; do [ "$(cat "$p/comm" 2>/dev/null)" != 'weir: engine' ] || basename "$p"; done | head -n 1; }

metric() { curl -s http://127.0.0.1:7070/metrics | sed -n "s/^$1 //p" | head -n 1; }
stat_of() { sed -n "s/^$1[ 	]*//p" /proc/net/tls_stat; }

# ---- checks --------------------------------------------------------------------------------------------------------

get() { curl -sSk -m 200 "$@"; }

# bodies NAME CURL-OPTION...: every size from both places, over one connection each, is what it should be.
bodies() {
    name=$1
    shift
    for place in files plain; do
        rm -f /tmp/got.*
        args=
        for n in $SIZES; do args="$args -o /tmp/got.$n $URL/$place/$n"; done
        # shellcheck disable=SC2086 # a list
        if ! out=$(get "$@" $args 2>&1); then
            not_ok "$name, $place" "$out"
            continue
        fi
        bad=
        for n in $SIZES; do cmp -s "/srv/$n" "/tmp/got.$n" || bad="$bad $n"; done
        if [ -z "$bad" ]; then ok "$name, $place: bodies of $SIZES bytes"; else not_ok "$name, $place" "differ: $bad"; fi
    done
    rm -f /tmp/got.*
}

# ask REQUEST-PATH: over s_client, with whatever options follow; what came goes to /tmp/said, its end to /tmp/said.err
ask() {
    path=$1
    shift
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$path" | openssl s_client -connect localhost:$PORT -servername localhost -quiet -ign_eof "$@" >/tmp/said 2>/tmp/said.err
}
said_body() { tail -c "$1" /tmp/said | cmp -s - "/srv/$1"; }

more() { [ "$2" -gt "$1" ] || { echo "$2, was $1"; return 1; }; }

check_kernel() {
    before=$(stat_of TlsTxSw)
    get -o /tmp/got "$URL/files/1000003" --http1.1
    check 'the kernel makes the records of a file' more "$before" "$(stat_of TlsTxSw)"
    check 'and Weir counts that' [ "$(metric weir_tls_kernel_total)" -ge 1 ]
    before=$(stat_of TlsTxSw)
    get -o /tmp/got "$URL/files/100" --http1.1
    get -o /tmp/got "$URL/files/1000003" --http1.1 --tls-max 1.2
    check 'not of a small one, nor with TLS 1.2' [ "$before" = "$(stat_of TlsTxSw)" ]
    check 'TLS 1.2: the same file' cmp /tmp/got /srv/1000003
}

check_ends() {
    ask /files/1000003
    if said_body 1000003 && ! grep -q 'errno=\|:error:' /tmp/said.err; then ok 'Connection: close: all of it, then close_notify'; else not_ok 'Connection: close' "$(wc -c </tmp/said)" "$(cat /tmp/said.err)"; fi
    check 'a slow client gets all of it' get --http1.1 --limit-rate 3M -o /tmp/got -H 'Connection: close' "$URL/plain/10000000"
    check 'and it is right' cmp /tmp/got /srv/10000000
    ask /files/1000003 -sess_out /tmp/session
    ask /files/1000003 -sess_in /tmp/session
    if said_body 1000003; then ok 'a resumed session'; else not_ok 'a resumed session' "$(cat /tmp/said.err)"; fi
    check 'of which Weir knows' [ "$(metric weir_tls_resumed_total)" -ge 1 ]
}

check_cut() {
    for place in files plain; do
        for i in 1 2 3 4; do
            get --http1.1 --limit-rate 2M -o /dev/null "$URL/$place/52428800" 2>/dev/null &
            client=$!
            sleep 0.$((i * 2))
            kill -9 $client
            wait $client 2>/dev/null
        done
    done
    get -o /tmp/got "$URL/plain/1000003"
    check 'clients that are killed within a body do no harm' cmp /tmp/got /srv/1000003
}

# wait_for COMMAND...: until it succeeds, or for a minute
wait_for() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || return 1
        sleep 0.1
    done
}
said_bytes() { [ "$(wc -c </tmp/said)" -gt "$1" ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }

# K at the beginning of what s_client reads at once makes it ask for new keys in both directions, with what it sends next.
# updated FIRST SECOND: two requests on one connection, with a K between them
updated() {
    rm -f /tmp/talk
    mkfifo /tmp/talk
    openssl s_client -quiet -no_ign_eof -crlf -connect localhost:$PORT -servername localhost </tmp/talk >/tmp/said 2>/tmp/said.err &
    client=$!
    exec 3>/tmp/talk
    printf 'GET /files/%s HTTP/1.1\nHost: localhost\n\n' "$1" >&3
    wait_for said_bytes "$1" || not_ok 's_client gets its answer' "$(cat /tmp/said.err)"
    printf 'K\n' >&3
    wait_for grep -q KEYUPDATE /tmp/said.err || not_ok 's_client asks for a key' "$(cat /tmp/said.err)"
    printf 'GET /files/%s HTTP/1.1\nHost: localhost\nConnection: close\n\n' "$2" >&3
    wait_for gone $client || kill $client
    exec 3>&-
    if grep -q 'errno=\|:error:' /tmp/said.err; then not_ok 'its connection ends cleanly' "$(cat /tmp/said.err)"; else ok 'its connection ends cleanly'; fi
}

check_update() {
    before=$(metric 'weir_tls_failed_total{reason="kernel_key"}')
    updated 262144 1
    check 'who wants new keys from the kernel is given an end' more "$before" "$(metric 'weir_tls_failed_total{reason="kernel_key"}')"
    updated 100 262144
    check 'asked before, OpenSSL goes on' said_body 262144
}

checks() {
    weir_start auto
    check 'the module is loaded for Weir' test -d /sys/module/tls
    check_kernel
    bodies 'HTTP/1.1' --http1.1
    SIZES='1 65535 65536 1000003'
    bodies 'HTTP/1.1, AES-256' --http1.1 --tls13-ciphers TLS_AES_256_GCM_SHA384
    bodies 'HTTP/1.1, ChaCha20' --http1.1 --tls13-ciphers TLS_CHACHA20_POLY1305_SHA256
    check 'with each of these' [ "$(metric weir_tls_kernel_total)" -ge 7 ]
    bodies 'HTTP/2' --http2
    check 'nghttp' nghttp -n --no-verify-peer $URL/plain/1000003
    check_ends
    check 'nothing was refused' [ "$(metric weir_tls_kernel_refused_total)" = 0 ]
    check_cut
    check_update
    check 'no record was damaged' [ "$(stat_of TlsDecryptError)" = 0 ]
    check 'weir down' weir down --data /tmp/data
    weir_start off
    before=$(stat_of TlsTxSw)
    get -o /tmp/got "$URL/files/1000003" --http1.1
    check '--kernel-tls off' [ "$before" = "$(stat_of TlsTxSw)" ]
    weir_stop
    for test in tls_os_test rt_os_test; do
        [ -x /bin/$test ] || continue
        if $test >/tmp/unit.log 2>&1; then ok "unit tests: $test"; else not_ok "unit tests: $test" "$(grep -v '\[  *OK\|\[ RUN' /tmp/unit.log | tail -n 30)"; fi
    done
}

# ---- the bench -----------------------------------------------------------------------------------------------------

# measure LABEL PATH CONNECTIONS [OPTION...]
measure() {
    for mode in off auto; do
        weir_start $mode
        echo "= $mode $1: $(lg -p $PORT -T -c "$3" -d "${SECONDS_EACH:-2}" -w 0.7 -O 9000 -P "$(engine)" -u "$2" | sed 's/.*"rps":\([^,]*\).*"cpu_s":\([^,]*\).*"core_s":\([^,]*\).*"req_per_cpu_s":\([^,]*\).*"errors":\([^,]*\).*/rps \1 cpu_s \2 core_s \3 req_per_cpu_s \4 errors \5/')"
        weir_stop
    done
}

bench() {
    modprobe tls
    for round in 1 2 3; do
        measure "128 B round $round" /b/128 32
        measure "16 KiB round $round" /b/16384 32
        measure "256 KiB round $round" /b/262144 16
        measure "1 MiB round $round" /b/1048576 8
        measure "file 256 KiB round $round" /files/262144 16
        measure "file 1 MB round $round" /files/1000003 8
    done
}

# ---- what was asked for --------------------------------------------------------------------------------------------

echo "# Linux $(uname -r), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(grep -c ^processor /proc/cpuinfo) processors"
SIZES='1 100 16383 16384 65535 65536 131072 262144 1000003 10000000 52428800'
for n in $SIZES; do head -c "$n" /dev/urandom >"/srv/$n"; done
mkdir -p /srv/plain /srv/www
if [ "$MODE" = bench ]; then
    bench
else
    for n in $SIZES; do ln -s "/srv/$n" "/srv/plain/$n"; done
    httpd -p 127.0.0.1:9000 -h /srv
    checks
fi
