# shellcheck shell=sh disable=SC2154 # sourced by run
# http.sh - HTTP/2 on either side, TLS to services.

# at HOST SCHEME PATH [CURL OPTION...]
at() {
    at_port=$HTTP
    [ "$2" = http ] || at_port=$HTTPS
    at_url=$2://$1.test:$at_port$3 at_host=$1
    shift 3
    curl -sS -m 10 --cacert ca.crt --resolve "$at_host.test:$at_port:127.0.0.1" "$@" "$at_url"
}
# told JQ HOST SCHEME PATH...: of what the service says that it was asked
told() {
    told_what=$1
    shift
    at "$@" | jq -r "$told_what"
}

same "front: HTTP/2 over TLS by ALPN" '2 200' "$(at ws https / -o /dev/null -w '%{http_version} %{http_code}')"
same "front: HTTP/1.1 over TLS by ALPN" '1.1 200' "$(at ws https / --http1.1 -o /dev/null -w '%{http_version} %{http_code}')"
same "front: HTTP/2 in clear" '2 200' "$(at ws http / --http2-prior-knowledge -o /dev/null -w '%{http_version} %{http_code}')"
same "front: an offer of h2c by Upgrade is ignored" '1.1 200' "$(at ws http / --http2 -o /dev/null -w '%{http_version} %{http_code}')"
for v in 1.1 2-prior-knowledge; do
    same "front HTTP/$v, upstream h2c" '2.0 8081 false' "$(told '"\(.version) \(.port) \(.tls)"' ws2 http / --http$v)"
    same "front HTTP/$v, upstream TLS, HTTP/1.1 (BackendTLSPolicy)" '1.1 8443 true app.test' "$(told '"\(.version) \(.port) \(.tls) \(.sni)"' plain http / --http$v)"
    same "front HTTP/$v, upstream TLS, HTTP/2 by ALPN (BackendPolicy)" '2.0 8444 true' "$(told '"\(.version) \(.port) \(.tls)"' tls2 http / --http$v)"
    same "front HTTP/$v, upstream TLS, HTTP/2 (DestinationRule)" '2.0 8444 true' "$(told '"\(.version) \(.port) \(.tls)"' tls2c http / --http$v)"
    same "front HTTP/$v, upstream mutual TLS: the service knows us" 'somebody' "$(told .client mutual http / --http$v)"
done
# What has a meaning of its own in either version, from each to each.
large=$(head -c 20000 /dev/zero | tr '\0' r)
for v in 1.1 2-prior-knowledge; do
    for h in ws ws2 plain tls2c; do
        what="front HTTP/${v%%-*}, $h:"
        same "$what HEAD" '200 0' "$(at $h http / --http$v -I -o /dev/null -w '%{http_code} %{size_download}')"
        for n in 204 304 404 500; do same "$what $n without a body" "$n 0" "$(at $h http "/?status=$n" --http$v -o /dev/null -w '%{http_code} %{size_download}')"; done
        same "$what an empty body" '0 POST' "$(told '"\(.bytes) \(.method)"' $h http / --http$v -d '')"
        same "$what Expect: 100-continue" 5 "$(told .bytes $h http / --http$v -H 'Expect: 100-continue' -d hello)"
        same "$what a field of 20 kB upwards" 20000 "$(told '.headers["x-large"] | length' $h http / --http$v -H "x-large: $large")"
        same "$what a field of 20 kB downwards" 20010 "$(at $h http '/?head=20000' --http$v -D - -o /dev/null | grep -i x-large | tr -d '\r' | wc -c | tr -d ' ')"
        has "$what trailers" "$(at $h http '/?trailer=1' --http$v -H 'TE: trailers' -D - -o body.txt; cat body.txt)" body
    done
    has "front HTTP/${v%%-*}: a trailer field of h2c" "$(at ws2 http '/?trailer=1' --http$v -D - -H "TE: trailers")" 'x-end: reached'
    has "front HTTP/${v%%-*}: a trailer field of HTTP/1.1" "$(at ws http '/?trailer=1' --http$v -D - -H "TE: trailers")" 'x-end: reached'
done
same "a body of 3 MB upwards, HTTP/1.1 to h2c" 3000000 "$(head -c 3000000 /dev/zero | told .bytes ws2 http / --http1.1 -T -)"
same "a body of 3 MB upwards, HTTP/2 to HTTP/1.1 over TLS" 3000000 "$(head -c 3000000 /dev/zero | told .bytes plain https / -T -)"
for h in ws ws2 plain tls2; do same "a body of 5 MB downwards over HTTP/2 from $h" 5000000 "$(at $h https '/bytes?n=5000000' | wc -c)"; done

refused() { at "$1" http / -o "$1.txt" -w '%{http_code}'; }
same "upstream TLS, another authority: 503" 503 "$(refused wrong)"
has "... which says that it was TLS" "$(cat wrong.txt)" 'TLS'
logged() { grep '"authority":"wrong.test' access.log | tail -n 1 | grep -q '"flags\?":"UF"\|"response_flags":"UF"'; }
check "... and the log has the flag UF" wait_for 5 logged
same "upstream TLS, a certificate for another name: 503" 503 "$(refused badname)"
same "upstream TLS 1.3, no client certificate where one is required: 502, for that is told behind the handshake" 502 "$(refused nocert)"
has "... which says that it was TLS" "$(cat nocert.txt)" 'TLS'
same "a service that dies inside its answer: HTTP/2 sees a reset stream" 92 "$(at ws http /cut --http2-prior-knowledge -o /dev/null 2>/dev/null; echo $?)"

nghttp -v -n "http://127.0.0.1:$HTTP/" -H ':authority: ws2.test' >nghttp.txt 2>&1
has "nghttp: answered" "$(cat nghttp.txt)" ':status: 200'
for h in ws ws2 tls2c; do
    h2load -n 2000 -c 4 -m 32 -H ":authority: $h.test" "http://127.0.0.1:$HTTP/" >h2load.txt 2>&1
    has "h2load in clear to $h" "$(cat h2load.txt)" '2000 succeeded, 0 failed'
    h2load -n 2000 -c 4 -m 32 -H ":authority: $h.test" "https://localhost:$HTTPS/" >h2load.txt 2>&1
    has "h2load over TLS to $h" "$(cat h2load.txt)" '2000 succeeded, 0 failed'
done
