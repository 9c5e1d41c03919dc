#!/usr/bin/env python3
"""soak.py [--weir FILE] [--minutes 30]: a node under traffic and under change, watched for what grows and for what is lost.

Clients that behave speak HTTP/1 (kept and new connections), HTTP/2, both over TLS, and bytes through a TCPRoute, to the service `steady`. Not one of
their requests may fail, whatever happens around them:

    endpoints come and go (`steady` is scaled and rolled), routes change, the certificate is replaced; beside them others read slowly or not at
    all, reset and half-close connections, give up streams, and break the protocol.

One client speaks to `killed`, whose replicas are killed with SIGKILL; what fails there (an answer cut, 502, 503, 504 while none is ready) is the kill's
own doing: it is counted and not judged. The engine's memory, descriptors and accounts are sampled. The run passes when no judged request failed, the
engine is still the same process, and the median of RSS and of descriptors in the last third is not above that of the first third (without the first
tenth, when everything warms up) by more than RSS_BOUND and FDS_BOUND. As root, or where namespaces may be made.
"""
import argparse
import base64
import json
import os
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from wire import *

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RSS_BOUND = 1 << 20  # bytes, and 3 % more
FDS_BOUND = 32
TIMEOUT = 15


def free_ports(n):
    held = []
    while len(held) < n:
        s = socket.socket()
        try:
            s.bind(('127.0.0.1', random.randrange(20000, 21000)))
            held.append(s)
        except OSError:
            s.close()
    return [s.getsockname()[1] for s in held]


# ---- clients that behave -----------------------------------------------------------------------------------------------------

class Client:
    """A process that asks again and again, and writes a line to its pipe each second: asked, failed, the latest reasons."""

    def __init__(self, name, judged, ask):
        self.name, self.judged, self.asked, self.failed, self.slowest, self.why, self.rest = name, judged, 0, 0, 0.0, [], b''
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                self.run(theirs, ask)
            finally:
                os._exit(0)
        theirs.close()
        self.ours.setblocking(False)

    def run(self, pipe, ask):
        asked = failed = 0
        slowest, why, told = 0.0, [], time.monotonic()
        state, parent = {}, os.getppid()
        while os.getppid() == parent:
            began = time.monotonic()
            try:
                error = ask(state)
            except (OSError, ValueError) as e:
                error = f'{type(e).__name__} {e}'
            asked += 1
            slowest = max(slowest, time.monotonic() - began)
            if error:
                failed += 1
                why.append(f'{time.strftime("%H:%M:%S")} {error}')
                state.clear()
            if time.monotonic() - told > 1:
                pipe.sendall(json.dumps([asked, failed, slowest, why[-5:]]).encode() + b'\n')
                asked, failed, slowest, why, told = 0, 0, 0.0, [], time.monotonic()
            time.sleep(0.01)

    def take(self):
        try:
            while piece := self.ours.recv(1 << 16):
                self.rest += piece
        except BlockingIOError:
            pass
        *lines, self.rest = self.rest.split(b'\n')
        for line in lines:
            asked, failed, slowest, why = json.loads(line)
            self.asked += asked
            self.failed += failed
            self.slowest = max(self.slowest, slowest)
            self.why = (self.why + why)[-20:]

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def h1_answer(s):
    """One answer with a length or chunks: its status and the bytes of its body as they came."""
    got = b''
    while b'\r\n\r\n' not in got:
        piece = s.recv(1 << 16)
        if not piece:
            raise ValueError('the end inside a head')
        got += piece
    head, body = got.split(b'\r\n\r\n', 1)
    m = re.search(rb'\r\ncontent-length: (\d+)', head, re.I)

    def done():
        return len(body) >= int(m.group(1)) if m else body.endswith(b'0\r\n\r\n')
    while not done():
        piece = s.recv(1 << 16)
        if not piece:
            raise ValueError(f'the end inside a body, {len(body)} bytes')
        body += piece
    return int(head[9:12]), body


def h1_ask(port, tls, host, each):
    """A request; the connection is kept for `each` of them."""
    def ask(state):
        s = state.get('s')
        if not s:
            s = state['s'] = connect(port, tls, 'http/1.1', TIMEOUT)
            state['left'] = each
        n = random.choice([0, 0, 0, 1000, 20000, 300000])
        body = b'b' * random.choice([0, 0, 100, 70000])
        path = f'/big/{n}' if n else '/echo' if body else '/small'
        s.settimeout(TIMEOUT)
        if body and not n:
            s.sendall(b'POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n' % (host, len(body)) + body)
        else:
            s.sendall(b'GET %s HTTP/1.1\r\nHost: %s\r\n\r\n' % (path.encode(), host))
        status, got = h1_answer(s)
        state['left'] -= 1
        if state['left'] == 0:
            s.close()
            state.clear()
        return '' if status == 200 else f'{status} {got[:80]}'
    return ask


def h2_ask(port, tls, host, each):
    def ask(state):
        k = state.get('k')
        if not k or k.goaway is not None or k.next > 2 * each:
            if k:
                k.close()
            k = state['k'] = H2(port, tls, struct.pack('>HI', 1, 0))  # no dynamic table: wire.py reads static statuses
        ids = [k.request(fields('GET', f'/big/{random.choice([10, 5000, 100000])}', host, scheme='https' if tls else 'http')) for _ in range(5)]
        bad = []
        for n in ids:
            st = k.answer(n, TIMEOUT)
            if st['status'] != 200 or not st['end']:
                bad.append(f'{st["status"]} rst {st["rst"]} goaway {k.goaway} {k.over} {len(st["data"])} bytes')
            k.streams.pop(n)
        return '; '.join(bad)
    return ask


def tcp_ask(port):
    def ask(state):
        s = connect(port, seconds=TIMEOUT)
        data = random.randbytes(random.choice([10, 1000, 100000]))
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        got, how = read_all(s, TIMEOUT)
        s.close()
        return '' if got == data else f'{len(got)} of {len(data)} bytes came back, {how}'
    return ask


# ---- those who do not ------------------------------------------------------------------------------------------------------------

def rude(gw, tls, tcp):
    """One rude act after the other; what comes of them nobody looks at."""
    held = []

    def reset(s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        s.close()

    def slow_reader():
        s = connect(random.choice([gw, gw, tcp]), rcvbuf=4096)
        s.sendall(b'GET /big/3000000 HTTP/1.1\r\nHost: s.test\r\n\r\n')
        held.append(s)

    def reset_inside():
        s = connect(gw)
        s.sendall(b'GET /big/3000000 HTTP/1.1\r\nHost: s.test\r\n\r\n')
        s.recv(1000)
        reset(s)

    def reset_upload():
        s = connect(random.choice([gw, tcp]))
        s.sendall(b'POST /echo HTTP/1.1\r\nHost: s.test\r\nContent-Length: 1000000\r\n\r\n' + b'x' * 50000)
        reset(s)

    def half_close():
        s = connect(gw)
        s.sendall(b'GET /big/50000 HTTP/1.1\r\nHost: s.test\r\n\r\n' if random.random() < 0.5 else b'GET /')
        s.shutdown(socket.SHUT_WR)
        held.append(s)

    def tls_stop():
        s = connect(tls)
        s.sendall(b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + b'r' * 40)
        held.append(s)

    def tls_reset():
        reset(connect(tls, 's.test', random.choice(['h2', 'http/1.1'])))

    def h2_give_up():
        k = H2(gw)
        for _ in range(20):
            n = k.request(fields('GET', '/big/1000000', 's.test'))
            if random.random() < 0.5:
                k.send(frame(RST_STREAM, 0, n, struct.pack('>I', 8)))
        held.append(k.s) if random.random() < 0.5 else reset(k.s)

    def h2_flood():
        k = H2(gw)
        head = block(fields('GET', '/small', 's.test'))
        k.send(b''.join(frame(HEADERS, END_HEADERS | END_STREAM, n, head) + frame(RST_STREAM, 0, n, struct.pack('>I', 8)) for n in range(1, 601, 2)))
        held.append(k.s)

    def nonsense():
        s = connect(random.choice([gw, tls]))
        s.sendall(random.choice([b'\0' * 100, b'GET / HTTP/1.1\r\nHost: s.test\r\nContent-Length: +1\r\n\r\n', PREFACE + frame(DATA, 0, 1, b'x')]))
        held.append(s)

    parent = os.getppid()
    acts = [slow_reader, reset_inside, reset_upload, half_close, tls_stop, tls_reset, h2_give_up, h2_flood, nonsense]
    while os.getppid() == parent:
        try:
            random.choice(acts)()
        except OSError:
            pass
        for s in held[:]:
            try:
                s.setblocking(False)
                s.recv(2000)
            except OSError:
                pass
        while len(held) > 60:
            s = held.pop(random.randrange(len(held)))
            reset(s) if random.random() < 0.5 else s.close()
        time.sleep(0.03)


# ---- the node and its changes --------------------------------------------------------------------------------------------------------

class Node:
    def __init__(self, weir, folder):
        self.weir, self.folder, self.data = weir, folder, tempfile.mkdtemp(prefix='weir-soak-')
        self.gw, self.tls, self.tcp, self.admin = free_ports(4)
        self.replicas, self.routes, self.certificate, self.roll = 3, 0, 0, 0
        shutil.copy(os.path.join(HERE, 'soak_app.js'), folder)
        self.cert_new()
        self.log = open(os.path.join(folder, 'node.log'), 'w')
        self.process = subprocess.Popen([weir, 'up', '--data', self.data, '--admin', f'127.0.0.1:{self.admin}', '--kafka', 'off', '--etcd', 'off', '--access-log', '/dev/null', self.write()],
                                        stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        self.wait_ready()
        self.engine = int(subprocess.run(['ps', '-o', 'pid=', '--ppid', str(self.process.pid)], capture_output=True, text=True).stdout.split()[0])

    def wait_ready(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                s = connect(self.gw)
                s.sendall(b'GET /small HTTP/1.1\r\nHost: s.test\r\n\r\n')
                if h1_answer(s)[0] == 200:
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.2)
        sys.exit('soak: the node does not answer; see ' + self.log.name)

    def cert_new(self):
        self.certificate += 1
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', f'{self.folder}/key.pem', '-out',
                        f'{self.folder}/cert.pem', '-days', '2', '-subj', f'/CN=s{self.certificate}.test', '-addext', 'subjectAltName=DNS:s.test'], check=True, capture_output=True)

    def deployment(self, name, replicas):
        return f'''
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
        - name: main
          command: [ node, soak_app.js ]
          workingDir: {self.folder}
          env: [ {{ name: ROLL, value: "{self.roll if name == 'steady' else self.roll // 3}" }} ]
          ports: [ {{ containerPort: 8080 }}, {{ containerPort: 8081 }} ]
          readinessProbe: {{ httpGet: {{ path: /, port: 8080 }}, periodSeconds: 1 }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec: {{ selector: {{ app: {name} }}, ports: [ {{ name: http, port: 80, targetPort: 8080 }}, {{ name: bytes, port: 81, targetPort: 8081 }} ] }}
---'''

    def write(self):
        def b64(f):
            with open(f'{self.folder}/{f}', 'rb') as h:
                return base64.b64encode(h.read()).decode()
        rules = ''.join(f'\n    - matches: [ {{ path: {{ value: /extra-{i} }} }} ]\n      backendRefs: [ {{ name: steady, port: 80, weight: {1 + self.routes % 5} }} ]'
                        for i in range(self.routes % 20))
        text = self.deployment('steady', self.replicas) + self.deployment('killed', 3) + f'''
apiVersion: v1
kind: Secret
metadata: {{ name: cert }}
type: kubernetes.io/tls
data: {{ tls.crt: {b64('cert.pem')}, tls.key: {b64('key.pem')} }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: gw }}
spec:
  gatewayClassName: weir
  listeners:
    - {{ name: http, protocol: HTTP, port: {self.gw} }}
    - {{ name: https, protocol: HTTPS, port: {self.tls}, tls: {{ certificateRefs: [ {{ name: cert }} ] }} }}
    - {{ name: tcp, protocol: TCP, port: {self.tcp} }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: steady }}
spec:
  parentRefs: [ {{ name: gw, sectionName: http }}, {{ name: gw, sectionName: https }} ]
  hostnames: [ s.test ]
  rules:
    - backendRefs: [ {{ name: steady, port: 80 }} ]{rules}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: killed }}
spec:
  parentRefs: [ {{ name: gw, sectionName: http }} ]
  hostnames: [ k.test ]
  rules: [ {{ backendRefs: [ {{ name: killed, port: 80 }} ] }} ]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{ name: bytes }}
spec: {{ parentRefs: [ {{ name: gw, sectionName: tcp }} ], rules: [ {{ backendRefs: [ {{ name: steady, port: 81 }} ] }} ] }}
'''
        path = f'{self.folder}/m.yaml'
        with open(path, 'w') as f:
            f.write(text)
        return path

    def command(self, *args):
        return subprocess.run([self.weir, args[0], '--data', self.data, *args[1:]], capture_output=True, text=True, timeout=60)

    def apply(self):
        r = self.command('apply', self.write())
        return '' if r.returncode == 0 else (r.stdout + r.stderr)[-300:]

    def kill_one(self):
        items = json.loads(self.command('get', 'replicas', '-o', 'json').stdout)['items']
        pids = [i['pid'] for i in items if i.get('pid', 0) > 0 and i['name'].startswith('killed')]
        if pids:
            os.kill(random.choice(pids), signal.SIGKILL)

    def change(self):
        """One change; returns what it was, and what went wrong."""
        what = random.choice(['scale', 'scale', 'routes', 'routes', 'certificate', 'roll', 'kill', 'kill'])
        if what == 'kill':
            self.kill_one()
            return what, ''
        if what == 'scale':
            self.replicas = random.choice([r for r in (2, 3, 4) if r != self.replicas])
        elif what == 'routes':
            self.routes += random.randrange(1, 7)
        elif what == 'certificate':
            self.cert_new()
        else:
            self.roll += 1
        return what, self.apply()

    def sample(self):
        m = metrics(self.admin)
        return {'rss': rss_bytes(self.engine), 'fds': len(os.listdir(f'/proc/{self.engine}/fd')),
                'tags': {k[len('weir_memory_bytes{tag="'):-2]: v for k, v in m.items() if k.startswith('weir_memory_bytes{')}}

    def same_engine(self):
        try:
            with open(f'/proc/{self.engine}/stat') as f:
                return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
        except OSError:
            return False

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.data, ignore_errors=True)


# ---- the run ------------------------------------------------------------------------------------------------------------------------------

def row(cells):
    print('  '.join(f'{c:>{w}}' for c, w in zip(cells, (9, 9, 6, 10, 9, 9, 7, 8, 30))), flush=True)


def table(samples, minutes):
    """A line for each tenth of the run."""
    row(['minutes', 'rss KiB', 'fds', 'tags KiB', 'requests', 'failed', 'slow ms', 'killed-', 'largest tags KiB'])
    for i in range(10):
        part = [s for s in samples if i <= s['at'] / (minutes * 6) < i + 1]
        if not part:
            continue
        tags = {t: statistics.median(s['tags'].get(t, 0) for s in part) for t in part[-1]['tags']}
        largest = sorted(tags, key=tags.get, reverse=True)[:3]
        row([f'{(i + 1) * minutes / 10:.1f}', int(statistics.median(s['rss'] for s in part)) >> 10, int(statistics.median(s['fds'] for s in part)), int(sum(tags.values())) >> 10,
             sum(s['asked'] for s in part), sum(s['failed'] for s in part), int(max(s['slowest'] for s in part) * 1000), sum(s['killed'] for s in part),
             ' '.join(f'{t} {int(tags[t]) >> 10}' for t in largest)])


def third(samples, minutes, key, last):
    low, high = (2 / 3, 1.01) if last else (0.1, 0.1 + 1 / 3)
    return statistics.median(s[key] for s in samples if low <= s['at'] / (minutes * 60) < high)


def soak(node, minutes):
    clients = [Client('HTTP/1, kept', True, h1_ask(node.gw, None, b's.test', 500)), Client('HTTP/1, new', True, h1_ask(node.gw, None, b's.test', 1)),
               Client('HTTP/2', True, h2_ask(node.gw, None, 's.test', 500)), Client('TLS, HTTP/1', True, h1_ask(node.tls, 's.test', b's.test', 20)),
               Client('TLS, HTTP/2', True, h2_ask(node.tls, 's.test', 's.test', 50)), Client('TCP', True, tcp_ask(node.tcp)),
               Client('to killed replicas', False, h1_ask(node.gw, None, b'k.test', 50))]
    others = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            try:
                rude(node.gw, node.tls, node.tcp)
            finally:
                os._exit(0)
        others.append(pid)
    began, samples, changes, wrong, due = time.monotonic(), [], {}, [], 3.0
    before = [0, 0, 0]
    try:
        while (now := time.monotonic() - began) < minutes * 60 and node.same_engine():
            if now >= due:
                what, error = node.change()
                changes[what] = changes.get(what, 0) + 1
                wrong += [f'{what}: {error}'] if error else []
                due = time.monotonic() - began + random.uniform(2, 5)
            for c in clients:
                c.take()
            total = [sum(c.asked for c in clients), sum(c.failed for c in clients if c.judged), sum(c.failed for c in clients if not c.judged)]
            s = node.sample()
            s.update(at=now, asked=total[0] - before[0], failed=total[1] - before[1], killed=total[2] - before[2], slowest=max(c.slowest for c in clients if c.judged))
            before = total
            for c in clients:
                c.slowest_ever = max(getattr(c, 'slowest_ever', 0), c.slowest)
                c.slowest = 0.0
            samples.append(s)
            time.sleep(1)
        alive = node.same_engine()
    finally:
        for pid in others:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for c in clients:
            c.end()
    return clients, samples, changes, wrong, alive


def report(clients, samples, changes, wrong, alive, minutes):
    table(samples, minutes)
    print('changes:', ', '.join(f'{k} {v}' for k, v in sorted(changes.items())))
    for c in clients:
        print(f'{c.name}: {c.asked} requests, {c.failed} failed{"" if c.judged else " (not judged)"}, slowest {c.slowest_ever * 1000:.0f} ms')
        for w in c.why if c.judged else c.why[-3:]:
            print('   ', w)
    say('the engine is still the same process', alive)
    say('every change was taken', not wrong, wrong[:3])
    say('no request failed but of what the kills did', all(c.asked and not c.failed for c in clients if c.judged))
    good = alive and not wrong and all(c.asked and not c.failed for c in clients if c.judged)
    for key, bound in (('rss', RSS_BOUND), ('fds', FDS_BOUND)):
        first, last = third(samples, minutes, key, False), third(samples, minutes, key, True)
        limit = bound + (first * 0.03 if key == 'rss' else 0)
        say(f'{key}: {first:.0f} in the first third, {last:.0f} in the last', last - first <= limit, f'more than {limit:.0f} above')
        good = good and last - first <= limit
    return good


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--weir', default=f'{ROOT}/build/weir')
    ap.add_argument('--minutes', type=float, default=30)
    ap.add_argument('--seed', type=int, default=int.from_bytes(os.urandom(4), 'big'))
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print('seed', args.seed)
    random.seed(args.seed)
    os.makedirs(f'{ROOT}/build', exist_ok=True)
    folder = tempfile.mkdtemp(prefix='soak.', dir=f'{ROOT}/build')
    os.chmod(folder, 0o755)
    node = Node(os.path.abspath(args.weir), folder)
    try:
        good = report(*soak(node, args.minutes), args.minutes)
    finally:
        node.end()
    if good:
        shutil.rmtree(folder)
    else:
        print('what the node said is in', node.log.name)
    sys.exit(0 if good else 1)


main()
