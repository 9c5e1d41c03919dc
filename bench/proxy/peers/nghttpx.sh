#!/bin/bash
# nghttpx: NGHTTPX_BIN picks another binary (default: the distribution's)
# shellcheck source-path=SCRIPTDIR source=_lib.sh
. "$(dirname "$0")/_lib.sh"
B=${NGHTTPX_BIN:-$(command -v nghttpx || echo /usr/sbin/nghttpx)}
case $1 in
caps) echo http tls h2 grpc; exit;;
version) "$B" --version; exit;;
bin) echo "$B"; exit;;
start) ;;
*) die "usage: $0 caps|version|bin|start";;
esac
FRONT="127.0.0.1,$PORT;no-tls" BACK="127.0.0.1,$OPORT" PAIR=()
case $MODE in
tls) FRONT="127.0.0.1,$PORT" PAIR=("$KEY" "$CERT");;
grpc) BACK="127.0.0.1,$O2PORT;;proto=h2";;
esac
exec "$B" --conf=/dev/null --workers=1 --single-process --frontend="$FRONT" --backend="$BACK" --errorlog-file="$RUN/err.log" --accesslog-file= \
    --frontend-keep-alive-timeout=600s --backend-keep-alive-timeout=600s --no-ocsp --tls-min-proto-version=TLSv1.3 --backlog=4096 \
    --worker-frontend-connections=0 --no-via --pid-file="$RUN/pid" "${PAIR[@]}"
