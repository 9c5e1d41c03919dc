#!/bin/bash
# the epoll floor (floor_epoll.c); SPLICE=1 splices bodies
# shellcheck source-path=SCRIPTDIR source=_lib.sh
. "$(dirname "$0")/_lib.sh"
B=${BENCH_BIN:-$HERE/../build}/floor_epoll
case $1 in
caps) echo http tcp; exit;;
version) echo "floor_epoll"; exit;;
bin) echo "$B"; exit;;
start) T=; [ "$MODE" = tcp ] && T=-t; exec "$B" -l "$PORT" -o "$OPORT" ${T:+-t} ${SPLICE:+-s};;
esac
