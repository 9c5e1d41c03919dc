# shellcheck shell=sh disable=SC2154 # sourced by run
# tls.sh - TLS at the doors: pass-through by name, client certificates, sessions, OCSP, rotation, plain HTTP on an HTTPS port.

# pass HOST PORT [OPTION...]: what of the service comes through a pass-through door
pass() {
    pass_host=$1 pass_port=$2
    shift 2
    curl -sS -m 5 --cacert ca.crt --resolve "$pass_host:$pass_port:127.0.0.1" "$@" "https://$pass_host:$pass_port/" 2>&1
}
has "TLSRoute: the service ends TLS itself" "$(pass app.test "$PASS")" '"port":8444,"path":"/"'
has "TLSRoute: another name is not passed on" "$(pass b.test "$PASS")" 'curl: ('
has "Istio PASSTHROUGH: the service ends TLS itself" "$(pass app.test "$ISTIO_P")" '"port":8444,"path":"/"'
has "Istio PASSTHROUGH: another name is not passed on" "$(pass b.test "$ISTIO_P")" 'curl: ('
check "TLSRoute: no name, no service" sh -c "! echo | timeout 5 openssl s_client -connect 127.0.0.1:$PASS -noservername >/dev/null 2>&1"

has "one port, two listeners: a name that is passed on" "$(pass app.test "$MIXED")" '"port":8444,"path":"/"'
has "one port, two listeners: a name that ends here" "$(pass ws.test "$MIXED")" '"port":8080,"path":"/"'
has "one port, two listeners: another name" "$(pass b.test "$MIXED")" 'curl: ('
same "one port, two listeners: plain HTTP gets 400" 400 "$(curl -sS -m 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$MIXED/")"

# mutual PORT [OPTION...]: the status, or 000
mutual() {
    mutual_port=$1
    shift
    curl -s -m 5 -o /dev/null -w '%{http_code}' --cacert ca.crt --resolve "ws.test:$mutual_port:127.0.0.1" "$@" "https://ws.test:$mutual_port/"
}
for door in "frontendValidation $MTLS" "Istio-MUTUAL $ISTIO_M"; do
    port=${door#* } door=${door% *}
    for v in 1.2 1.3; do
        same "$door, TLS $v: no certificate, no answer" 000 "$(mutual "$port" --tls-max $v)"
        same "$door, TLS $v: with a certificate" 200 "$(mutual "$port" --tls-max $v --cert client.crt --key client.key)"
        same "$door, TLS $v: one of another authority" 000 "$(mutual "$port" --tls-max $v --cert other.crt --key other.key)"
    done
done
same "Istio MUTUAL: a certificate without the name that is asked for" 000 "$(mutual "$ISTIO_M" --cert app.crt --key app.key)"

# cert_field PORT [OPTION...]: what the service is told of the client's certificate
cert_field() {
    cert_port=$1
    shift
    curl -s -m 5 --cacert ca.crt --resolve "ws.test:$cert_port:127.0.0.1" -H 'X-Forwarded-Client-Cert: Subject="CN=root"' "$@" "https://ws.test:$cert_port/" | jq -r '.headers["x-forwarded-client-cert"]'
}
hash=$(openssl x509 -in client.crt -outform DER | sha256sum | cut -d' ' -f1)
for v in 1.1 2; do
    same "HTTP/$v: the service is told whose certificate it was" "Hash=$hash;Subject=\"CN=somebody\";URI=spiffe://test/client;DNS=client.test" "$(cert_field "$MTLS" --http$v --cert client.crt --key client.key)"
    same "HTTP/$v: and a client without one can't say it was somebody" null "$(cert_field "$HTTPS" --http$v)"
done
has "... and it is counted as mutual TLS" "$(metrics | grep 'connection_security_policy="mutual_tls"')" istio_requests_total

# session VERSION: a second connection with the session of the first
session() {
    printf 'HEAD / HTTP/1.1\r\nHost: ws.test\r\nConnection: close\r\n\r\n' | timeout 5 openssl s_client -connect "127.0.0.1:$HTTPS" -servername ws.test -CAfile ca.crt "-tls1_$1" -ign_eof -sess_out "sess$1" 2>&1
    printf 'HEAD / HTTP/1.1\r\nHost: ws.test\r\nConnection: close\r\n\r\n' | timeout 5 openssl s_client -connect "127.0.0.1:$HTTPS" -servername ws.test -CAfile ca.crt "-tls1_$1" -ign_eof -sess_in "sess$1" 2>&1
}
for v in 2 3; do has "TLS 1.$v: a session is resumed" "$(session $v)" 'Reused, TLSv1.'; done
# A session without a client certificate must not open the door that wants one.
bypass() {
    printf 'GET / HTTP/1.1\r\nHost: ws.test\r\nConnection: close\r\n\r\n' | timeout 5 openssl s_client -connect "127.0.0.1:$1" -servername ws.test -CAfile ca.crt "-tls1_$2" -ign_eof -sess_in "sess$2" 2>&1
}
for v in 2 3; do
    lacks "TLS 1.$v: a session of another door does not replace a certificate" "$(bypass "$MTLS" $v)" 'HTTP/1.1 200'
    lacks "TLS 1.$v: nor at Istio's" "$(bypass "$ISTIO_M" $v)" 'HTTP/1.1 200'
done
has "OCSP: the response is stapled" "$(echo | timeout 5 openssl s_client -connect "127.0.0.1:$HTTPS" -servername ws.test -CAfile ca.crt -status 2>&1)" 'OCSP Response Status: successful'

same "plain HTTP on an HTTPS port: 400" 400 "$(curl -sS -m 5 -o clear.txt -w '%{http_code}' "http://127.0.0.1:$HTTPS/secret")"
has "... which names the remedy" "$(cat clear.txt)" 'https://'
same "... on a door with client certificates too" 400 "$(curl -sS -m 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$MTLS/")"
has "... and is counted" "$(metrics | grep plain_http)" 'reason="plain_http"'
same "something that is neither" 0 "$(printf '\001\002\003\004\005\006' | timeout 5 python3 -c 'import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
s.sendall(sys.stdin.buffer.read())
s.shutdown(1)
print(sum(d[0] not in (21,) for d in iter(lambda: s.recv(1), b"")) and 0)' "$HTTPS")"

# ---- a new certificate under load -------------------------------------------------------------------------------------------
subject() { echo | timeout 5 openssl s_client -connect "127.0.0.1:$HTTPS" -servername ws.test 2>/dev/null | openssl x509 -noout -subject; }
has "before the rotation" "$(subject)" 'gateway'
background rotation.txt node rotation.js "$HTTPS" ca.crt
ROTATION=$BG
started() { grep -q started rotation.txt; }
wait_for 5 started
for name in new gw new; do
    gateway_cert $name >cert.yaml
    check "rotation: $name is applied" weir apply cert.yaml
    case $name in new) want=renewed ;; *) want=gateway ;; esac
    shown() { subject | grep -q "$want"; }
    check "rotation: $want is shown" wait_for 5 shown
done
kill -TERM "$ROTATION"
wait "$ROTATION" 2>/dev/null
said rotation.txt
gateway_cert gw >cert.yaml
weir apply cert.yaml >/dev/null
has "TLS 1.3: a session from before the rotations is resumed" "$(bypass "$HTTPS" 3)" 'Reused, TLSv1.3'
