"""Prints a Gateway, 100 ServiceEntries with 100 endpoints each, and 100 VirtualServices with 10 routes each. Argument: the Gateway's port."""
import sys

print(f'''apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: wide }}
spec:
  selector: {{ istio: ingressgateway }}
  servers: [ {{ port: {{ number: {sys.argv[1]}, name: http, protocol: HTTP }}, hosts: [ "*" ] }} ]''')
for i in range(100):
    print(f'''---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{ name: service-{i} }}
spec:
  hosts: [ service-{i}.example ]
  resolution: STATIC
  location: MESH_EXTERNAL
  ports: [ {{ number: 80, name: http, protocol: HTTP, targetPort: 9000 }} ]
  endpoints:''')
    for j in range(100):
        print(f'    - {{ address: 10.{i}.{j}.1 }}')
    print(f'''---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: routes-{i} }}
spec:
  hosts: [ host-{i}.example ]
  gateways: [ wide ]
  http:''')
    for j in range(10):
        print(f'    - {{ match: [ {{ uri: {{ prefix: /api/{j} }} }} ], route: [ {{ destination: {{ host: service-{(i + j) % 100}.example }} }} ] }}')
