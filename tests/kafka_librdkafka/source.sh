# shellcheck shell=sh disable=SC2034
# source.sh - the sources of librdkafka that npm's @confluentinc/kafka-javascript brings. Sourced.
VERSION=1.10.1

# fetch DIR: they are in DIR/package/deps/librdkafka.
fetch() (
    rm -rf "$1" && mkdir -p "$1" && cd "$1" && npm pack --silent "@confluentinc/kafka-javascript@$VERSION" && tar xzf ./*.tgz
)
