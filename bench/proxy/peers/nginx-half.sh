#!/bin/sh
# nginx that passes each direction's end of a session of bytes on by itself, as Weir and HAProxy do; for the rows of bytes.
HALF_CLOSE=1 exec "$(dirname -- "$0")/nginx.sh" "$@"
