# shellcheck shell=bash disable=SC2034
# sourced by the plug-ins
: "${MODE:=http}" "${PORT:=8080}" "${OPORT:=9000}" "${O2PORT:=9002}" "${RUN:=/tmp/proxy-run}"
HERE=$(cd "$(dirname "$0")" && pwd)
die() { echo "$*" >&2; exit 2; }
