# shellcheck shell=sh disable=SC2154 # ports are set by run
# manifest.sh - the node's manifest: one workload, a Service for each way to speak with it, and every kind of door.

b64() { base64 -w0 "$1"; }

# service NAME PORT TARGET [APPPROTOCOL]
service() {
    cat <<YAML
apiVersion: v1
kind: Service
metadata: { name: $1 }
spec: { selector: { app: ${5:-app} }, ports: [ { port: $2, targetPort: $3${4:+, appProtocol: $4} } ] }
---
YAML
}

# http_route HOST SERVICE PORT
http_route() {
    cat <<YAML
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: $1 }
spec: { parentRefs: [ { name: door }, { name: extra }, { name: behind } ], hostnames: [ $1.test ], rules: [ { backendRefs: [ { name: $2, port: $3 } ] } ] }
---
YAML
}

# grpc_route HOST SERVICE
grpc_route() {
    cat <<YAML
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: $1 }
spec: { parentRefs: [ { name: door } ], hostnames: [ $1.test ], rules: [ { backendRefs: [ { name: $2, port: 80 } ] } ] }
---
YAML
}

# bytes_route KIND NAME LISTENER SERVICE PORT [MORE]
bytes_route() {
    cat <<YAML
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: $1
metadata: { name: $2 }
spec: { parentRefs: [ { name: door, sectionName: $3 } ], ${6:-} rules: [ { backendRefs: [ { name: $4, port: $5 } ] } ] }
---
YAML
}

# backend SERVICE POLICY: a DestinationRule
backend() {
    cat <<YAML
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: $1 }
spec: { host: $1, trafficPolicy: { $2 } }
---
YAML
}

# gateway_cert NAME: the Secret that the gateways show, with the certificate of that name.
gateway_cert() {
    cat <<YAML
apiVersion: v1
kind: Secret
metadata: { name: gw }
type: kubernetes.io/tls
data: { tls.crt: $(b64 "$1.crt"), tls.key: $(b64 "$1.key")$([ ! -f "$1.ocsp" ] || printf ', tls.ocsp: %s' "$(b64 "$1.ocsp")") }
---
YAML
}

manifest_workloads() {
    cat <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: { name: app }
spec:
  selector: { matchLabels: { app: app } }
  template:
    metadata: { labels: { app: app } }
    spec:
      containers:
        - name: app
          command: [ node, server.js ]
          ports: [ { containerPort: 8080 } ]
          readinessProbe: { grpc: { port: 50051 }, periodSeconds: 1 }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: nobody }
spec: { replicas: 0, selector: { matchLabels: { app: nobody } }, template: { metadata: { labels: { app: nobody } }, spec: { containers: [ { name: a, command: [ "true" ] } ] } } }
---
YAML
    service plain 80 8080
    service h2c 80 8081 kubernetes.io/h2c
    service tls1 443 8443
    service tls2 443 8444
    service tls2c 443 8444
    service wrong 443 8443
    service mutual 443 8445
    service badname 443 8443
    service wss 443 8446
    service nocert 443 8445
    service raw 443 8444 tls
    service grpc 80 50051 grpc
    service refused 80 50052 grpc
    service aging 80 50053 grpc
    service cut 80 50054 grpc
    service proxy 80 9003
    service none 80 50051 grpc nobody
    service count 9000 9000 tcp
    service countv1 9000 9000 tcp
    service countv2 9000 9000 tcp
    service echo 9001 9001 tcp
    service pphttp 80 9002
}

manifest_secrets() {
    gateway_cert gw
    cat <<YAML
apiVersion: v1
kind: Secret
metadata: { name: gw-mutual }
data: { tls.crt: $(b64 gw.crt), tls.key: $(b64 gw.key), ca.crt: $(b64 ca.crt) }
---
apiVersion: v1
kind: Secret
metadata: { name: client }
data: { tls.crt: $(b64 client.crt), tls.key: $(b64 client.key), ca.crt: $(b64 ca.crt) }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: ca }
data: { ca.crt: "$(awk '{ printf "%s\\n", $0 }' ca.crt)" }
---
apiVersion: v1
kind: Secret
metadata: { name: ca }
data: { ca.crt: $(b64 ca.crt) }
---
apiVersion: v1
kind: Secret
metadata: { name: other }
data: { ca.crt: $(b64 other.crt) }
---
YAML
}

manifest_gateways() {
    cat <<YAML
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: door }
spec:
  gatewayClassName: weir
  listeners:
    - { name: http, protocol: HTTP, port: $HTTP }
    - { name: https, protocol: HTTPS, port: $HTTPS, tls: { certificateRefs: [ { name: gw } ] } }
    - name: mtls
      protocol: HTTPS
      port: $MTLS
      tls: { certificateRefs: [ { name: gw } ], frontendValidation: { caCertificateRefs: [ { kind: ConfigMap, name: ca } ] } }
    - { name: pass, protocol: TLS, port: $PASS, tls: { mode: Passthrough } }
    - { name: mixed-pass, protocol: TLS, port: $MIXED, hostname: app.test, tls: { mode: Passthrough } }
    - { name: mixed, protocol: HTTPS, port: $MIXED, hostname: ws.test, tls: { certificateRefs: [ { name: gw } ] } }
    - { name: ended, protocol: TLS, port: $TERM_TLS, tls: { mode: Terminate, certificateRefs: [ { name: gw } ] } }
    - { name: wrap, protocol: TCP, port: $WRAP }
    - { name: echo, protocol: TCP, port: $ECHO }
    - { name: count, protocol: TCP, port: $COUNT }
    - { name: countv1, protocol: TCP, port: $COUNT1 }
    - { name: countv2, protocol: TCP, port: $COUNT2 }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: behind, annotations: { weir.dev/proxy-protocol: "true" } }
spec: { gatewayClassName: weir, listeners: [ { name: http, protocol: HTTP, port: $PP }, { name: https, protocol: HTTPS, port: $PPS, tls: { certificateRefs: [ { name: gw } ] } } ] }
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: { name: istio }
spec:
  selector: { istio: ingressgateway }
  servers:
    - { port: { number: $MESH, name: http, protocol: HTTP }, hosts: [ "*" ] }
    - { port: { number: $ISTIO_M, name: https, protocol: HTTPS }, hosts: [ "*.test" ], tls: { mode: MUTUAL, credentialName: gw-mutual, subjectAltNames: [ client.test ] } }
    - { port: { number: $ISTIO_P, name: tls, protocol: TLS }, hosts: [ "app.test" ], tls: { mode: PASSTHROUGH } }
---
YAML
    manifest_extra
}

# A Gateway that comes and goes.
manifest_extra() {
    cat <<YAML
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: extra }
spec: { gatewayClassName: weir, listeners: [ { name: http, protocol: HTTP, port: $EXTRA } ] }
---
YAML
}

manifest_routes() {
    http_route ws plain 80
    http_route ws2 h2c 80
    http_route plain tls1 443
    http_route tls2 tls2 443
    http_route tls2c tls2c 443
    http_route mutual mutual 443
    http_route wss wss 443
    http_route nocert nocert 443
    http_route wrong wrong 443
    http_route badname badname 443
    http_route h2tls tls2 443
    http_route pphttp pphttp 80
    grpc_route grpc grpc
    grpc_route none none
    grpc_route refused refused
    grpc_route http1 plain
    grpc_route aging aging
    grpc_route cut cut
    bytes_route TLSRoute pass pass raw 443 'hostnames: [ app.test ],'
    bytes_route TLSRoute mixed mixed-pass raw 443 'hostnames: [ app.test ],'
    bytes_route TCPRoute echo echo echo 9001
    bytes_route TCPRoute ended ended echo 9001
    bytes_route TCPRoute wrap wrap tls1 443
    for n in count countv1 countv2; do bytes_route TCPRoute $n $n $n 9000; done
    cat <<YAML
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: route }
spec:
  parentRefs: [ { name: door } ]
  hostnames: [ route.test ]
  rules:
    - matches: [ { headers: [ { name: x-which, value: red } ], method: { service: test.Echo, method: Unary } } ]
      filters: [ { type: ResponseHeaderModifier, responseHeaderModifier: { set: [ { name: x-rule, value: by-header } ] } } ]
      backendRefs: [ { name: grpc, port: 80 } ]
    - matches: [ { method: { service: test.Echo, method: Unary } } ]
      filters: [ { type: ResponseHeaderModifier, responseHeaderModifier: { set: [ { name: x-rule, value: by-method } ] } } ]
      backendRefs: [ { name: grpc, port: 80 } ]
    - matches: [ { method: { service: test.Echo } } ]
      filters: [ { type: ResponseHeaderModifier, responseHeaderModifier: { set: [ { name: x-rule, value: by-service } ] } } ]
      backendRefs: [ { name: grpc, port: 80 } ]
---
apiVersion: weir.dev/v1
kind: HTTPFilter
metadata: { name: connect }
spec: { upgrades: { connect: true } }
---
apiVersion: weir.dev/v1
kind: HTTPFilter
metadata: { name: stay }
spec: { upgrades: { refused: true } }
---
apiVersion: weir.dev/v1
kind: HTTPFilter
metadata: { name: here }
spec: { directResponse: { body: here } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: here }
spec:
  parentRefs: [ { name: door } ]
  hostnames: [ here.test ]
  rules: [ { filters: [ { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: here } } ] } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: connect }
spec:
  parentRefs: [ { name: door } ]
  hostnames: [ target.test ]
  rules:
    - filters: [ { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: connect } } ]
      backendRefs: [ { name: proxy, port: 80 } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: stay }
spec:
  parentRefs: [ { name: door } ]
  hostnames: [ stay.test ]
  rules:
    - filters: [ { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: stay } } ]
      backendRefs: [ { name: plain, port: 80 } ]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: http }
spec:
  hosts: [ "*" ]
  gateways: [ istio ]
  http:
    - match: [ { uri: { prefix: /unix } } ]
      route: [ { destination: { host: unix.internal, port: { number: 80 } } } ]
    - route: [ { destination: { host: plain } } ]
  tls:
    - match: [ { port: $ISTIO_P, sniHosts: [ app.test ] } ]
      route: [ { destination: { host: raw } } ]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: unix }
spec:
  hosts: [ unix.internal ]
  ports: [ { number: 80, name: http, protocol: HTTP } ]
  resolution: STATIC
  endpoints: [ { address: "unix://$T/u.sock" } ]
---
YAML
}

manifest_policies() {
    cat <<YAML
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: { name: tls1 }
spec:
  targetRefs: [ { group: "", kind: Service, name: tls1 } ]
  validation: { hostname: app.test, caCertificateRefs: [ { group: "", kind: ConfigMap, name: ca } ] }
---
apiVersion: weir.dev/v1
kind: BackendPolicy
metadata: { name: tls2 }
spec:
  targetRefs: [ { name: tls2 } ]
  connectionPool: { http: Auto }
  tls: { hostname: app.test, caCertificateRefs: [ { kind: ConfigMap, name: ca } ] }
---
YAML
    backend tls2c 'connectionPool: { http: { h2UpgradePolicy: UPGRADE } }, tls: { mode: SIMPLE, credentialName: ca, sni: app.test }'
    backend mutual 'tls: { mode: MUTUAL, credentialName: client, sni: app.test, subjectAltNames: [ app.test ] }'
    backend wss 'tls: { mode: SIMPLE, credentialName: ca, sni: app.test }'
    backend nocert 'tls: { mode: SIMPLE, credentialName: ca, sni: app.test }'
    backend badname 'tls: { mode: SIMPLE, credentialName: ca, sni: other.test }'
    backend wrong 'tls: { mode: SIMPLE, credentialName: other, sni: app.test }'
    backend pphttp 'proxyProtocol: { version: V1 }'
    backend countv1 'proxyProtocol: { version: V1 }'
    backend countv2 'proxyProtocol: { version: V2 }'
}

manifest() {
    manifest_secrets
    manifest_workloads
    manifest_policies
    manifest_gateways
    manifest_routes
}
