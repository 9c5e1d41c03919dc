#!/bin/bash
# HAProxy: HAPROXY_BIN picks another binary; HAPROXY_SPLICE=1 forces splice in both directions; MW=1 runs master-worker (reload)
# shellcheck source-path=SCRIPTDIR source=_lib.sh
. "$(dirname "$0")/_lib.sh"
B=${HAPROXY_BIN:-$(command -v haproxy || echo /usr/sbin/haproxy)}
case $1 in
caps) echo http tls h2 grpc tcp cache limit deny; exit;;
version) "$B" -v | head -1; exit;;
bin) echo "$B"; exit;;
reload) kill -USR2 "$PID"; exit;;
start) ;;
*) die "usage: $0 caps|version|bin|start|reload";;
esac
M=http; BIND=; FE=; BE="http-reuse always"; SRV="127.0.0.1:$OPORT"; TOP=; SPL=
[ -n "$HAPROXY_SPLICE" ] && SPL=$'option splice-request\n  option splice-response'
case $MODE in
tcp) M=tcp; BE=;;
tls) BIND="ssl crt $PEM ssl-min-ver TLSv1.3";;
h2) BIND="proto h2";;
grpc) BIND="proto h2"; SRV="127.0.0.1:$O2PORT proto h2";;
cache) TOP=$'cache c\n  total-max-size 256\n  max-object-size 100000\n  max-age 3600'; BE=$'http-reuse always\n  http-request cache-use c\n  http-response cache-store c';;
limit) FE=$'stick-table type string len 32 size 1m expire 60s store http_req_rate(10s)\n  http-request track-sc0 req.hdr(x-key)\n  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000000 }';;
deny) FE=$'stick-table type string len 32 size 1m expire 60s store http_req_rate(10s)\n  http-request track-sc0 req.hdr(x-key)\n  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 0 }';;
esac
cat > "$RUN/haproxy.cfg" <<C
global
  nbthread 1
  maxconn ${HAPROXY_MAXCONN:-11000}
  no strict-limits
  tune.ssl.cachesize 100000
$TOP
defaults
  mode $M
  no log
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  option dontlognull
  $SPL
frontend f
  bind 127.0.0.1:$PORT backlog 4096 $BIND
  maxconn ${HAPROXY_MAXCONN:-11000}
  $FE
  default_backend b
backend b
  $BE
  server s $SRV maxconn 0 pool-purge-delay 600s
C
exec "$B" ${MW:+-W} -db -f "$RUN/haproxy.cfg"
