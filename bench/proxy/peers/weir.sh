#!/bin/bash
# Weir: WEIR picks another binary (default: ../../../build/weir). Metrics are on, as always; the access log is off, as the peers' is.
# shellcheck source-path=SCRIPTDIR source=_lib.sh
. "$(dirname "$0")/_lib.sh"
B=${WEIR:-$HERE/../../../build/weir}
case $1 in
caps) echo http; exit;;
version) "$B" version | head -1; exit;;
bin) echo "$B"; exit;;
reload) "$B" apply --data "$RUN/data" "$RUN/weir.yaml" >/dev/null; exit;;
start) ;;
*) die "usage: $0 caps|version|bin|start|reload";;
esac
[ "$MODE" = http ] || die "mode $MODE: not yet"
cat > "$RUN/weir.yaml" <<C
apiVersion: v1
kind: Service
metadata: { name: origin }
spec:
  type: ExternalName
  externalName: localhost
  ports: [ { port: $OPORT } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: bench }
spec:
  gatewayClassName: weir
  listeners: [ { name: http, protocol: HTTP, port: $PORT } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: bench }
spec:
  parentRefs: [ { name: bench } ]
  rules: [ { backendRefs: [ { name: origin, port: $OPORT } ] } ]
C
exec "$B" up --workers 1 --data "$RUN/data" --admin off --access-log off "$RUN/weir.yaml"
