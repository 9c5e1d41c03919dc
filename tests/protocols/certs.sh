# shellcheck shell=sh
# certs.sh - an authority of the test's own and what it signed: gw (the gateway's names), new (the same, for a rotation), app (app.test, the
# services'), client; other: another authority. gw.ocsp: the authority's word that gw is good.

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

# new_ca NAME CN
new_ca() {
    new_key "$1"
    openssl req -x509 -key "$1.key" -out "$1.crt" -days 2 -subj "/CN=$2" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign,cRLSign
}

# new_cert NAME CN SERIAL SANS
new_cert() {
    new_key "$1"
    openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
    printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\n' "$4" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -set_serial "$3" -days 1 -extfile "$1.ext" -out "$1.crt"
}

# Not every client takes a wildcard right below a top-level domain.
NAMES=DNS:localhost,IP:127.0.0.1
for n in grpc route none refused http1 ws ws2 plain h2tls nobody aging cut target stay wss tls2 gw pphttp; do NAMES=$NAMES,DNS:$n.test; done

new_certs() {
    new_ca ca 'test authority' && new_ca other 'another authority' &&
        new_cert gw gateway 4096 "$NAMES" && new_cert new renewed 4097 "$NAMES" &&
        new_cert app service 4098 DNS:app.test && new_cert client somebody 4099 'DNS:client.test,URI:spiffe://test/client' &&
        printf 'V\t%s\t\t1000\tunknown\t/CN=gateway\n' "$(date -u -d '+1 day' +%y%m%d%H%M%SZ)" >index.txt &&
        openssl ocsp -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key -issuer ca.crt -cert gw.crt -ndays 1 -respout gw.ocsp
}
new_certs >certs.log 2>&1 || { cat certs.log; exit 1; }
