"""route_latency.py SOCKET ADDRESS:PORT CHANGES - from an apply at one node to a changed route at another.

An HTTPRoute with a redirect for the host route.test is applied again and again at the node whose Unix socket is SOCKET, each time to another path.
Meanwhile a client asks the gateway at ADDRESS:PORT (another node's, whose network this process is in) over one kept connection, one request after the other. A
change's time is from just before the apply is sent until the first answer that redirects there has come. An answer must never be older than one before. Prints

    CHANGES MEDIAN_MS P90_MS P99_MS MAX_MS APPLY_MEDIAN_MS POLLS_PER_CHANGE
"""
import http.client
import json
import select
import socket
import sys
import time

PAUSE = 0.02  # between two changes, so that none rides on the last one's batch
LIMIT = 10.0

TEXT = """apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: route }}
spec:
  parentRefs: [ {{ name: gw }} ]
  hostnames: [ route.test ]
  rules: [ {{ filters: [ {{ type: RequestRedirect, requestRedirect: {{ statusCode: 302, path: {{ type: ReplaceFullPath, replaceFullPath: /{} }} }} }} ] }} ]
"""


def main(path, at, changes):
    host, port = at.rsplit(':', 1)
    gateway = http.client.HTTPConnection(host, int(port), timeout=LIMIT)
    gateway.connect()
    gateway.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    node = socket.socket(socket.AF_UNIX)
    node.connect(path)
    first = time.time_ns() // 1000000  # also behind what an earlier run left
    last, times, applies, polls = -1, [], [], 0

    def ask():
        nonlocal last
        gateway.request('GET', '/', headers={'Host': 'route.test'})
        answer = gateway.getresponse()
        answer.read()
        if answer.status != 302:
            return -1
        n = int(answer.headers['Location'].rsplit('/', 1)[1])
        if n < last:
            raise SystemExit(f'{n} after {last}')
        last = n
        return n

    def answered():
        """The answer to an apply, whole; None: nothing is there yet."""
        if not select.select([node], [], [], 0)[0]:
            return None
        r = http.client.HTTPResponse(node)
        r.begin()
        text = r.read()
        if r.status != 200:
            raise SystemExit(f'the apply failed: {r.status} {text[:300]}')
        return time.monotonic()

    for i in range(-3, changes):  # three for warming up
        body = json.dumps({'files': [{'file': 'route.yaml', 'dir': '/', 'text': TEXT.format(first + i)}], 'namespace': 'default', 'manager': 'weir'}).encode()
        began = time.monotonic()
        node.sendall(b'POST /v1/apply HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
        seen = applied = None
        while seen is None or applied is None:
            if seen is None:
                polls += 1
                if ask() == first + i:
                    seen = time.monotonic()
            applied = applied or answered()
            if time.monotonic() - began > LIMIT:
                raise SystemExit(f'change {i} is not there after {LIMIT} s')
        if i >= 0:
            times.append((seen - began) * 1000)
            applies.append((applied - began) * 1000)
        time.sleep(PAUSE)
    times.sort()
    applies.sort()
    rank = lambda p: times[min(len(times) - 1, int(len(times) * p))]
    print(changes, *(f'{x:.1f}' for x in (rank(.5), rank(.9), rank(.99), times[-1], applies[len(applies) // 2], polls / (changes + 3))))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
