# shellcheck shell=sh disable=SC2154 # sourced by run
# bytes.sh - TCPRoute, half-close, PROXY headers in and out, a Unix socket as upstream.

python3 "$HERE/bytes.py" "$ECHO" "$COUNT" "$COUNT1" "$COUNT2" "$PP" "$HTTP" "$PPS" "$TERM_TLS" ca.crt >bytes.txt 2>&1
said bytes.txt
same "bytes in clear to a service with TLS" 'true 8443' "$(curl -sS -m 5 "http://127.0.0.1:$WRAP/" | jq -r '"\(.tls) \(.port)"')"
same "Unix-socket upstream: an answer" '/unix/a 1.1' "$(curl -sS -m 5 "http://127.0.0.1:$MESH/unix/a" | jq -r '"\(.path) \(.version)"')"
same "Unix-socket upstream: 5 MB" 5000000 "$(curl -sS -m 5 "http://127.0.0.1:$MESH/unix?n=5000000" | wc -c)"

curl -sS -m 40 -H 'Host: ws.test' "http://127.0.0.1:$HTTP/mesh" >mesh.txt 2>&1
said mesh.txt
