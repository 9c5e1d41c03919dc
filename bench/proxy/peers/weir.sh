#!/bin/bash
# Weir: WEIR picks another binary (default: ../../../build/weir). Metrics are on, as always; the access log is off, as the peers' is.
# shellcheck source-path=SCRIPTDIR source=_lib.sh
. "$(dirname "$0")/_lib.sh"
B=${WEIR:-$HERE/../../../build/weir}
case $1 in
caps) echo http tls h2 grpc tcp; exit;;
version) "$B" version | head -1; exit;;
bin) echo "$B"; exit;;
reload) "$B" apply --data "$RUN/data" "$RUN/weir.yaml" >/dev/null; exit;;
start) ;;
*) die "usage: $0 caps|version|bin|start|reload";;
esac
LISTEN="protocol: HTTP"; PROTO=http; ROUTE=HTTPRoute; VERSION=v1; SECRET=
case $MODE in
http | h2) ;; # HTTP/2 by prior knowledge needs no setting
grpc) OPORT=$O2PORT; PROTO=kubernetes.io/h2c;;
tls)
  LISTEN='protocol: HTTPS, tls: { certificateRefs: [ { name: bench } ], options: { weir.dev/min-version: "1.3" } }'
  SECRET="---
apiVersion: v1
kind: Secret
metadata: { name: bench }
type: kubernetes.io/tls
data: { tls.crt: $(base64 -w0 "$CERT"), tls.key: $(base64 -w0 "$KEY") }";;
tcp) LISTEN="protocol: TCP"; PROTO=tcp; ROUTE=TCPRoute; VERSION=v1alpha2;;
*) die "mode $MODE: not yet";;
esac
cat > "$RUN/weir.yaml" <<C
apiVersion: v1
kind: Service
metadata: { name: origin }
spec:
  type: ExternalName
  externalName: localhost
  ports: [ { port: $OPORT, appProtocol: $PROTO } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: bench }
spec:
  gatewayClassName: weir
  listeners: [ { name: front, port: $PORT, $LISTEN } ]
---
apiVersion: gateway.networking.k8s.io/$VERSION
kind: $ROUTE
metadata: { name: bench }
spec:
  parentRefs: [ { name: bench } ]
  rules: [ { backendRefs: [ { name: origin, port: $OPORT } ] } ]
$SECRET
C
exec "$B" up --workers 1 --data "$RUN/data" --admin off --kafka off --etcd off --access-log off "$RUN/weir.yaml"
