"""wire.py - bytes that no library would send: sockets, TLS, and just enough HTTP/2 to break its rules.

H2 writes frames by hand and fields as HPACK literals without indexing or Huffman, so that any bytes can stand in names and values. Of what
comes back it reads frames, and of heads the status alone.
"""
import re
import socket
import ssl
import struct
import time
import urllib.request

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
NO_ERROR, PROTOCOL_ERROR, CALM = 0, 1, 11
PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
STATIC = [200, 204, 206, 304, 400, 404, 500]  # RFC 7541 appendix A, from index 8


def connect(port, tls=None, alpn=None, seconds=10, rcvbuf=0):
    s = socket.socket()
    if rcvbuf:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    s.settimeout(seconds)
    s.connect(('127.0.0.1', port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not tls:
        return s
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols([alpn])
    return context.wrap_socket(s, server_hostname=tls)


def read_all(s, seconds, until=None):
    """What comes until the end, or until a text came; and how it ended: 'end', 'reset', 'time', 'until'."""
    got, end = b'', time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        if left <= 0:
            return got, 'time'
        s.settimeout(left)
        try:
            piece = s.recv(1 << 16)
        except (TimeoutError, ssl.SSLWantReadError):
            return got, 'time'
        except OSError:
            return got, 'reset'
        if not piece:
            return got, 'end'
        got += piece
        if until and until(got):
            return got, 'until'


def try_send(s, data):
    """Sends what the other end takes; it may have closed."""
    try:
        s.sendall(data)
        return True
    except OSError:
        return False


def statuses(answer):
    return [int(m) for m in re.findall(rb'(?:^|\n|\r\n|.)HTTP/1\.1 (\d{3}) ', b'\n' + answer)]


def frame(kind, flags, stream, payload=b''):
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload


def integer(n, bits, first=0):
    top = (1 << bits) - 1
    if n < top:
        return bytes([first | n])
    out, n = bytes([first | top]), n - top
    while n >= 128:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def literal(name, value):
    return b'\0' + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields):
    return b''.join(literal(n if isinstance(n, bytes) else n.encode(), v if isinstance(v, bytes) else v.encode()) for n, v in fields)


def status_of(p):
    """Of a head as nghttp2 writes it: :status is its first field. None: it is in the dynamic table."""
    while p and p[0] & 0xe0 == 0x20:
        p = p[1:]
    if p[0] & 0x80:
        return STATIC[(p[0] & 0x7f) - 8] if 8 <= p[0] & 0x7f < 15 else None
    text = p[2:2 + (p[1] & 0x7f)]
    if not p[1] & 0x80:
        return int(text)
    bits, digits = ''.join(f'{b:08b}' for b in text), ''
    while len(digits) < 3:  # appendix B: the digits
        n = 5 if bits[:5] < '00011' else 6
        digits += str(int(bits[:5], 2) if n == 5 else int(bits[:6], 2) - 0b011001 + 3)
        bits = bits[n:]
    return int(digits)


class H2:
    """A client's end. stream(id) is what came on it: {'status', 'data', 'end', 'rst'}."""

    def __init__(self, port, tls=None, settings=b'', greet=True, rcvbuf=0):
        self.s = connect(port, tls, 'h2', rcvbuf=rcvbuf)
        self.streams, self.goaway, self.over, self.rest, self.pings, self.settings_seen = {}, None, None, b'', 0, False
        self.next = 1
        if greet:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        return try_send(self.s, data)

    def stream(self, n):
        return self.streams.setdefault(n, {'status': None, 'data': b'', 'end': False, 'rst': None})

    def request(self, fields, body=None, end=True):
        """Sends a request; body: a list of DATA payloads. Returns its stream."""
        n, self.next = self.next, self.next + 2
        out = frame(HEADERS, END_HEADERS | (END_STREAM if body is None and end else 0), n, block(fields))
        for i, p in enumerate(body or []):
            out += frame(DATA, END_STREAM if end and i == len(body) - 1 else 0, n, p)
        self.send(out)
        return n

    def take(self, kind, flags, n, p):
        st = self.stream(n)
        if kind == HEADERS:
            st['status'] = status_of(p) if (st['status'] or 0) < 200 else st['status']
        elif kind == DATA:
            st['data'] += p
            if p:
                self.send(frame(WINDOW_UPDATE, 0, 0, struct.pack('>I', len(p))) + frame(WINDOW_UPDATE, 0, n, struct.pack('>I', len(p))))
        elif kind == RST_STREAM:
            st['rst'] = struct.unpack('>I', p)[0]
        elif kind == GOAWAY:
            self.goaway = struct.unpack('>I', p[4:8])[0]
        elif kind == SETTINGS and not flags & ACK:
            self.settings_seen = True
            self.send(frame(SETTINGS, ACK, 0))
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            st['end'] = True

    def read(self, done, seconds=5):
        """Takes frames until done() or the end."""
        end = time.monotonic() + seconds
        while not done() and not self.over:
            while len(self.rest) >= 9:
                length = int.from_bytes(self.rest[:3], 'big')
                if len(self.rest) < 9 + length:
                    break
                head, p = self.rest[:9], self.rest[9:9 + length]
                self.rest = self.rest[9 + length:]
                self.take(head[3], head[4], struct.unpack('>I', head[5:9])[0] & 0x7fffffff, p)
            if done():
                return True
            self.s.settimeout(max(0.01, end - time.monotonic()))
            try:
                piece = self.s.recv(1 << 16)
                self.over = None if piece else 'end'
                self.rest += piece
            except TimeoutError:
                return False
            except OSError:
                self.over = 'reset'
        return done()

    def answer(self, n, seconds=5):
        st = self.stream(n)
        self.read(lambda: st['end'] or st['rst'] is not None or self.goaway is not None, seconds)
        return st

    def close(self):
        self.s.close()


def fields(method='GET', path='/', host='a.test', *more, scheme='http'):
    return [(':method', method), (':scheme', scheme), (':path', path), (':authority', host), *more]


def metrics(admin):
    """{name{labels}: value} of /metrics."""
    with urllib.request.urlopen(f'http://127.0.0.1:{admin}/metrics', timeout=10) as r:
        return {line.rsplit(' ', 1)[0]: float(line.rsplit(' ', 1)[1]) for line in r.read().decode().splitlines() if line and line[0] != '#'}


def refusals(admin, reason):
    return metrics(admin).get('weir_requests_refused_total{reason="%s"}' % reason, 0)


def rss_bytes(pid):
    with open(f'/proc/{pid}/status') as f:
        return int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1)) << 10


def say(name, good, why=''):
    print(('ok ' if good else 'not ok ') + name + ('' if good else f' ({str(why)[:400]})'), flush=True)
