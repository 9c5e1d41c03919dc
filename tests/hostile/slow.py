"""slow.py GATEWAY TLS ADMIN ENGINE_PID: those who begin and never come to the point.

Each kind holds many connections, which cost little, and is closed when the time for a head is over (head_timeout_ms and linger_ms, src/http/README.md).
"""
import sys

from watch import *

GATEWAY, TLS, ADMIN, ENGINE = map(int, sys.argv[1:5])
HEAD_SECONDS, LINGER_SECONDS, SLACK_SECONDS = 10, 2, 2
CONN_BYTES = 32 << 10  # of an attacker's connection; a TLS handshake that has begun costs most

SLOW = [
    # name, how many, what is sent at once, what follows byte by byte, port, reason
    ('a head, byte by byte', 300, b'GET / HTTP/1.1\r\nHost: a.test\r\nX-A: ', b'a' * 40, GATEWAY, 'slow_head'),
    ('nothing at all', 300, b'', b'', GATEWAY, 'slow_head'),
    ('a request line that stops', 200, b'GET /', b'', GATEWAY, 'slow_head'),
    ('a TLS handshake that never begins', 200, b'', b'', TLS, 'slow_head'),
    ('a TLS handshake that stops', 200, b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + b'r' * 40, b'', TLS, 'slow_head'),
    ('a ClientHello, byte by byte', 100, b'\x16\x03\x01\x02\x00\x01\x00', b'\x01\xfc\x03\x03' + b'r' * 40, TLS, 'slow_head'),
    ("HTTP/2's preface, byte by byte", 200, b'P', b'RI * HTTP/2.0\r\n\r\nS', GATEWAY, 'slow_head'),
    ('the preface without SETTINGS', 200, PREFACE, b'', GATEWAY, 'slow_head'),
    ('HEADERS without their end', 200, PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_STREAM, 1, block(fields())), b'', GATEWAY, 'slow_head'),
    ('a frame that stops', 200, PREFACE + frame(SETTINGS, 0, 0)[:7], b'', GATEWAY, 'slow_head'),
]


class Slow:
    def __init__(self, name, n, at_once, drip, port, reason):
        self.name, self.n, self.drip, self.reason = name, n, drip, reason
        self.socks = [connect(port) for _ in range(n)]
        for s in self.socks:
            s.sendall(at_once)

    def more(self, i):
        """Its next byte."""
        if i < len(self.drip):
            for s in self.socks:
                try_send(s, self.drip[i:i + 1])


def drip_all(slows, began):
    i = 0
    while time.monotonic() < began + HEAD_SECONDS - 1:
        for s in slows:
            s.more(i)
        i += 1
        time.sleep(0.5)


def main():
    watch, before, began = Watch(ENGINE), refusals(ADMIN, 'slow_head'), time.monotonic()
    beside = Beside(GATEWAY)
    slows = [Slow(*x) for x in SLOW]
    all_there = time.monotonic()  # its time is each connection's own
    drip_all(slows, began)
    for s in slows:
        closed = until_closed(s.socks, max(1.0, all_there + HEAD_SECONDS + LINGER_SECONDS + SLACK_SECONDS - time.monotonic()))
        say(f'{s.name}: closed within {HEAD_SECONDS + LINGER_SECONDS} s', closed == s.n, f'{closed} of {s.n}')
    held, n = watch.end(), sum(s.n for s in slows)
    say(f'{n} slow connections cost less than {CONN_BYTES >> 10} KiB each', held < n * CONN_BYTES, f'{held >> 10} KiB')
    counted = refusals(ADMIN, 'slow_head') - before
    say('each of them was counted as slow_head', counted >= n, f'{counted} of {n}')
    beside.end(2.0)


main()
