"""Plays a service and its clients on both sides of the gateway, of whom one leaves; prints "ok NAME" or "not ok NAME (WHY)".

usage: checks.py GATEWAY_PORT TCP_PORT ORIGIN_PORT RAW_PORT ADMIN_PORT
"""
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

GATEWAY, TCP, ORIGIN, RAW, ADMIN = map(int, sys.argv[1:6])
REST_S = 0.12  # the origin closes connections that rest for so long
ended = threading.Event()  # the gateway gave up the request that is held
began = threading.Event()  # it came
heard = []  # bodies of POSTs, in the order in which they came


def say(name, good, why=''):
    print(('ok ' if good else 'not ok ') + name + ('' if good else f' ({str(why)[:300]})'), flush=True)


def head_of(s, got=b''):
    while b'\r\n\r\n' not in got:
        piece = s.recv(65536)
        if not piece:
            return None, b''
        got += piece
    return got.split(b'\r\n\r\n', 1)


def rest_of(s, text, length):
    """text, and what is missing of length bytes; an OSError when the other side ends before."""
    while len(text) < length:
        piece = s.recv(65536)
        if not piece:
            raise ConnectionResetError(f'closed {length - len(text)} bytes before the end')
        text += piece
    return text


def hold(s, first):
    """Says first, and no more until the other side ends the connection."""
    if first:
        s.sendall(first)
    began.set()
    try:
        while s.recv(65536):
            pass
    except OSError:
        pass
    ended.set()


def serve(s):
    s.settimeout(20)
    rest = b''
    try:
        while True:
            head, rest = head_of(s, rest)
            if head is None:
                return
            path = head.split()[1].decode()
            length = int((re.search(rb'(?i)content-length: *(\d+)', head) or [0, 0])[1])
            rest = rest_of(s, rest, length)
            body, rest = rest[:length], rest[length:]
            if path == '/hold':
                return hold(s, b'')
            if path == '/stream':
                return hold(s, b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata:\n\r\n')
            if head.startswith(b'POST'):
                heard.append(body)
            s.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
            if path == '/rest':
                s.settimeout(REST_S)
                try:
                    rest = s.recv(65536)
                except TimeoutError:
                    return
                s.settimeout(20)
                if not rest:
                    return
    except OSError:
        pass
    finally:
        s.close()


def talk(s):
    """Bytes: takes all until the client's end, then answers."""
    got = b''
    while piece := s.recv(65536):
        got += piece
    time.sleep(0.3)
    s.sendall(b'heard ' + got)
    s.close()


def listen(port, fn):
    ln = socket.socket()
    ln.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ln.bind(('127.0.0.1', port))
    ln.listen(100)

    def run():
        while True:
            s, _ = ln.accept()
            threading.Thread(target=fn, args=(s,), daemon=True).start()
    threading.Thread(target=run, daemon=True).start()


def connect(port=GATEWAY):
    s = socket.create_connection(('127.0.0.1', port), timeout=10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def metric(name, part=''):
    with urllib.request.urlopen(f'http://127.0.0.1:{ADMIN}/metrics', timeout=5) as r:
        lines = r.read().decode().splitlines()
    return sum(float(line.rsplit(' ', 1)[1]) for line in lines if re.match(name + r'[{ ]', line) and part in line)


def left(name, go):
    """go() begins a request that is held, and leaves: the service sees its connection end, and it counts as DC."""
    before = metric('istio_requests_total', 'response_flags="DC"')
    began.clear()
    ended.clear()
    go()
    say(name, ended.wait(5))
    end = time.monotonic() + 5
    while (now := metric('istio_requests_total', 'response_flags="DC"')) == before and time.monotonic() < end:
        time.sleep(0.05)
    say('... counted as DC', now == before + 1, (before, now))


def request(path):
    s = connect()
    s.sendall(f'GET {path} HTTP/1.1\r\nHost: a\r\n\r\n'.encode())
    began.wait(5)
    return s


def go_close():
    request('/hold').close()


def go_reset():
    s = request('/hold')
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()


def go_half():
    s = request('/hold')
    s.shutdown(socket.SHUT_WR)
    say('... and its connection ends without an answer', s.recv(100) == b'')
    s.close()


def go_stream():
    s = request('/stream')
    got = b''
    while b'data:' not in got and (piece := s.recv(4096)):
        got += piece
    say('... in the middle of an answer', b'data:' in got, got)
    s.close()


def go_http2():
    subprocess.run(['curl', '-s', '--http2-prior-knowledge', '-m', '0.7', '-o', '/dev/null', f'http://127.0.0.1:{GATEWAY}/hold'], check=False)


def stale():
    """The service closes its kept connection at the very time at which the next request is sent: until that was met a few times, or has been tried for long enough. When the request
    lies in the service's kernel as it closes, nobody can know that it was not read: only those may be answered 502."""
    sent, refused = 0, 0
    s = connect()
    while (met := metric('weir_upstream_stale_connections_total')) < 2 and sent < 90:
        body = b'%d ' % sent * (1 + sent % 3 * 700)
        s.sendall(b'POST /rest HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
        head, text = head_of(s)
        text = rest_of(s, text, int(re.search(rb'Content-Length: (\d+)', head)[1]))
        refused += text != b'ok'
        at = time.monotonic() + REST_S - 0.0006 + (sent % 12) * 0.0001
        sent += 1
        while (now := time.monotonic()) < at:
            time.sleep(max(0, at - now - 0.001) if at - now > 0.002 else 0)
    if met:
        say('POSTs on connections that their service has just closed go out again', True)
    else: # it depends on who is first; test_stale in proxy_sim_test meets it in every run
        print('skip POSTs on connections that their service has just closed: the moment was not met')
    say('... and none is heard twice, or refused though it was heard', len(heard) == sent - refused, (len(heard), sent, refused))
    say('... few are refused', refused <= sent / 5, (refused, sent))


listen(ORIGIN, serve)
listen(RAW, talk)
end = time.monotonic() + 10
while time.monotonic() < end:
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{GATEWAY}/', timeout=2):
            break
    except OSError:
        time.sleep(0.1)
left('a client that closes cancels its request', go_close)
left('one that resets', go_reset)
left('one that ends its own direction has left as well', go_half)
left('one that leaves', go_stream)
left('one that resets its stream of HTTP/2', go_http2)
with connect(TCP) as c:
    c.sendall(b'one')
    c.shutdown(socket.SHUT_WR)
    got = b''
    while piece := c.recv(100):
        got += piece
say('bytes: who ended its direction still gets what comes back', got == b'heard one', got)
stale()
