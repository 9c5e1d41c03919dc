"""A node that answers from a script, for the tests of the command line.

usage: fake_node.py DATA

Listens on DATA/weir.sock and answers a few endpoints with fixed content. Every request is appended to DATA/requests as
"METHOD TARGET BODY". GET /quit ends it.
"""
import json
import os
import socket
import sys
import time

DATA = sys.argv[1]
META = {'namespace': 'default', 'creationTimestamp': '2020-01-01T00:00:00Z', 'generation': 1}


def replica(name, ready, restarts, why):
    return {'name': name, 'phase': 'Running' if ready else 'BackOff', 'ready': ready, 'upToDate': True, 'pid': 4711 if ready else 0,
            'restarts': restarts, 'startedAt': '2020-01-01T00:00:00Z', 'why': why}


WEB = {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': dict(META, name='web'),
       'spec': {'replicas': 2, 'template': {'spec': {'containers': [{'name': 'web', 'args': ['yes', '8080', 'a: b', 'one\ntwo\n', '', 'plain text']}]}}},
       'status': {'readyReplicas': 1, 'updatedReplicas': 2, 'availableReplicas': 1, 'revision': 3, 'complete': False, 'why': '',
                  'replicaStatuses': [replica('web-3-a', True, 0, ''), replica('web-3-b', False, 5, 'liveness probe:\nHTTP 500')]}}
SERVICE = {'apiVersion': 'v1', 'kind': 'Service', 'metadata': dict(META, name='web'), 'spec': {'selector': {'app': 'web'}, 'ports': [{'port': 80}, {'port': 81}]},
           'status': {'address': '127.128.0.1', 'endpoints': [{'port': 80, 'endpoints': [{'name': 'web-3-a', 'address': '127.0.0.1:80'}]}]}}
ROUTE = {'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': dict(META, name='r'),
         'spec': {'rules': [{'matches': [{'path': {'value': '/api'}}], 'backendRefs': [{'name': 'web', 'port': 80}]}]},
         'status': {'parents': [{'parentRef': {'name': 'gw'}, 'conditions': [{'type': 'Accepted', 'status': 'False', 'reason': 'NoMatchingParent'}]}]}}
LISTS = {'/v1/workloads': [WEB], '/v1/services': [SERVICE], '/v1/routes': [ROUTE], '/v1/gateways': [], '/v1/configmaps': [], '/v1/secrets': [],
         '/v1/namespaces': [], '/v1/objects': []}
DIAG = {'level': 'error', 'file': 'bad.yaml', 'line': 3, 'column': 7, 'where': 'Service/default/s', 'reason': 'the port is wrong', 'remedy': 'mend it'}
BUCKETS = [1, 10, 100]


def top():
    ticks = time.monotonic_ns() // 40_000_000  # 4 requests each, one of them an error, all in the second bucket, of 5 ms
    row = {'namespace': 'default', 'name': 'web', 'requests': 4 * ticks, 'errors': ticks, 'duration_us_sum': 4 * ticks * 5000, 'duration': [0, 4 * ticks, 0, 0]}
    return {'mono_ns': ticks * 40_000_000, 'wall_ns': 0, 'engine': 1, 'bounds_ms': BUCKETS, 'services': [dict(row, endpoints=2)],
            'workloads': [dict(row, wanted=2, ready=1, restarts=5, memory_bytes=3 << 20, why='1 of 2 ready')],
            'log': {'partitions': 7, 'offline': 1, 'records_in': 40 * ticks, 'bytes_in': 40960 * ticks, 'bytes_out': 1048576 * ticks, 'sync_us': [0] * 11 + [ticks] + [0] * 12,
                    'groups': [{'name': 'slow', 'lag': 4711}, {'name': 'quick', 'lag': 0}]}}


def answer(method, target, body):
    """(status, body text or a list of chunks)"""
    path = target.split('?')[0]
    if path in LISTS:
        items = [] if 'namespace=empty' in target else LISTS[path]
        return 200, json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': items})
    if path == '/v1/apply':
        if 'wrong' in body:
            return 422, json.dumps({'diagnostics': [DIAG], 'changes': []})
        return 200, json.dumps({'diagnostics': [dict(DIAG, level='warning')], 'changes': [{'kind': 'Service', 'namespace': 'shop', 'name': 's', 'change': 'created'}]})
    if path == '/v1/delete':
        if 'absent' in body:
            return 404, json.dumps({'error': 'Service default/absent: not found', 'remedy': 'look'})
        return 200, json.dumps({'diagnostics': [], 'changes': [{'kind': 'Service', 'namespace': 'default', 'name': 's', 'change': 'deleted'}]})
    if path == '/v1/logs':
        return 200, ['one\n', 'two\n', 'three\n'] if 'follow' in target else 'one\ntwo\n'
    if path == '/v1/rollout/status':
        line = {'namespace': 'default', 'name': 'web', 'revision': 4, 'wanted': 2, 'updated': 1, 'ready': 2, 'complete': False, 'why': ''}
        if 'stuck' in target:
            return 200, [json.dumps(line) + '\n', None]
        done = json.dumps(dict(line, complete=True)) + '\n'
        return 200, [json.dumps(line) + '\n', done[:9], done[9:]]
    if path == '/v1/rollout/restart':
        return 202, '{}'
    if path == '/v1/top':
        return 200, json.dumps(top())
    if path == '/v1/down':
        return 202, '{}'
    return 404, json.dumps({'error': 'no endpoint', 'remedy': 'none'})


def serve(conn):
    """One request on a connection; False to end."""
    head, _, body = b'', b'', b''
    while b'\r\n\r\n' not in head:
        more = conn.recv(65536)
        if not more:
            return True
        head += more
    head, _, body = head.partition(b'\r\n\r\n')
    lines = head.decode().split('\r\n')
    method, target, _ = lines[0].split()
    length = next((int(l.split(':')[1]) for l in lines if l.lower().startswith('content-length')), 0)
    while len(body) < length:
        more = conn.recv(65536)
        if not more:
            return True
        body += more
    text = body.decode()
    with open(os.path.join(DATA, 'requests'), 'a', encoding='utf-8') as f:
        f.write(f'{method} {target} {text}\n')
    if target == '/quit':
        return False
    status, out = answer(method, target, text)
    if isinstance(out, str):
        conn.sendall(f'HTTP/1.1 {status} x\r\nContent-Length: {len(out.encode())}\r\nConnection: close\r\n\r\n{out}'.encode())
        return True
    conn.sendall(f'HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\n'.encode())
    for chunk in out:
        if chunk is None:  # never ends: the client has to give up
            conn.settimeout(10)
            conn.recv(1)
            return True
        conn.sendall(f'{len(chunk.encode()):x}\r\n{chunk}\r\n'.encode())
    conn.sendall(b'0\r\n\r\n')
    return True


def main():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(DATA, 'weir.sock'))
    listener.listen(16)
    print('ready', flush=True)
    going = True
    while going:
        conn, _ = listener.accept()
        with conn:
            going = serve(conn)


main()
