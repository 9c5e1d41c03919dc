# shellcheck shell=sh disable=SC2154 # sourced by run
# drain.sh - a listener that is removed, and a node that stops: what is under way is finished. The last part: the node is gone after it.

# ---- a reload takes a listener away ----------------------------------------------------------------------------------------
manifest_extra >extra.yaml
background drain.txt node drain.js "$EXTRA" removing
DRAIN=$BG
there() { [ -e "$1" ]; }
wait_for 10 there removing
check "drain: the Gateway is deleted" weir delete -f extra.yaml
closed() { [ "$(status "http://127.0.0.1:$EXTRA/")" = 000 ]; }
check "drain: nobody listens there any more" wait_for 5 closed
wait "$DRAIN"
said drain.txt
check "drain: the Gateway comes back" weir apply extra.yaml
open_again() { [ "$(status "http://127.0.0.1:$EXTRA/" -H 'Host: ws.test')" = 200 ]; }
check "drain: and is served" wait_for 5 open_again

# ---- another engine takes over ------------------------------------------------------------------------------------------------
background upgrade.txt node drain.js "$HTTP" upgrading
DRAIN=$BG
background bytes-upgrade.txt python3 "$HERE/bytes_stop.py" "$ECHO"
BYTES=$BG
begun() { there upgrading && grep -q begun bytes-upgrade.txt; }
wait_for 20 begun
check "upgrade: another engine takes over" weir upgrade
wait "$DRAIN" "$BYTES"
sed 's/drain:/upgrade:/' upgrade.txt >upgrade2.txt
said upgrade2.txt
sed 's/stop:/upgrade:/' bytes-upgrade.txt >upgrade2.txt
said upgrade2.txt

# ---- the node stops -----------------------------------------------------------------------------------------------------------
background stop.txt node drain.js "$HTTP" stopping stop
DRAIN=$BG
background grpc-stop.txt node grpc_stop.js "127.0.0.1:$HTTP" calling
CALL=$BG
background bytes-stop.txt python3 "$HERE/bytes_stop.py" "$ECHO"
BYTES=$BG
both_begun() { there stopping && there calling && grep -q begun bytes-stop.txt; }
wait_for 20 both_begun
background nghttp-stop.txt nghttp -v -n -H ':authority: ws.test' "https://localhost:$HTTPS/slow?ms=2500" # the last one: it has to last until the node stops
SLOW=$BG
asked() { grep -q 'send HEADERS frame' nghttp-stop.txt; }
wait_for 10 asked
node_stop
wait "$DRAIN" "$CALL" "$SLOW" "$BYTES"
sed 's/drain:/stop:/' stop.txt >stop2.txt
said stop2.txt
said grpc-stop.txt
said bytes-stop.txt
has "stop: nghttp's slow request over TLS is answered" "$(cat nghttp-stop.txt)" ':status: 200'
has "stop: and GOAWAY is sent" "$(cat nghttp-stop.txt)" 'recv GOAWAY'
