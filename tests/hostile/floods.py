"""floods.py GATEWAY TLS ADMIN ENGINE_PID ORIGIN_LOG DEAF: attackers that cost more than they pay.

For each: the engine's memory grows by less than a stated bound while it lasts, the attacker is closed (or bounded) as src/http/README.md says, a
counter says why, and a request beside it is answered within a second.
"""
import gzip
import sys

from watch import *

GATEWAY, TLS, ADMIN, ENGINE = map(int, sys.argv[1:5])
LOG, DEAF = sys.argv[5], int(sys.argv[6])
GET = b'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n'


def flood(name, attack, bound, reason=None, closed=True):
    """attack() returns the sockets that it used. reason: the counter that has to move."""
    before, watch = refusals(ADMIN, reason) if reason else 0, Watch(ENGINE)
    why = ''
    try:
        socks = attack()
    except OSError as e:
        socks, why = [], str(e)
    n = until_closed(socks, 5) if closed else len(socks)
    grown = watch.end()
    counted = refusals(ADMIN, reason) - before if reason else 1
    for s in socks:
        s.close()
    say(f'{name}: under {bound / MIB:g} MiB' + (', closed' if closed else '') + (f', counted as {reason}' if reason else ''),
        not why and n == len(socks) and socks and counted >= 1 and grown < bound, f'{why} {n} of {len(socks)} closed, {grown >> 10} KiB, counted {counted}')


# ---- floods -----------------------------------------------------------------------------------------------------------------------

def pour(k, data, n, deaf=True):
    """Sends data n times, or until the peer has closed."""
    k.s.settimeout(5)
    for _ in range(n):
        if not k.send(data):
            break
    return [k.s]


def frames_flood(one, many, open_stream=True, greet=b''):
    def attack():
        k = H2(GATEWAY)
        k.send(greet)
        if open_stream:
            k.request(fields('POST'), None, end=False)
        return pour(k, one * 1000, many // 1000)
    return attack


def rapid_reset():
    k = H2(GATEWAY)
    head = block(fields(path='/rapid'))
    for n in range(1, 4001, 2):
        if not k.send(frame(HEADERS, END_HEADERS | END_STREAM, n, head) + frame(RST_STREAM, 0, n, struct.pack('>I', 8))):
            break
    return [k.s]


def made_you_reset():
    """CVE-2025-8671: the peer is made to reset the streams itself, here by a window that overflows."""
    k = H2(GATEWAY)
    head = block(fields(path='/rapid'))
    for n in range(1, 4001, 2):
        if not k.send(frame(HEADERS, END_HEADERS | END_STREAM, n, head) + frame(WINDOW_UPDATE, 0, n, struct.pack('>I', 0x7fffffff))):
            break
    return [k.s]


def continuation_flood():
    k = H2(GATEWAY)
    k.send(frame(HEADERS, END_STREAM, 1, block(fields())))
    return pour(k, frame(CONTINUATION, 0, 1, literal(b'x-a', b'v' * 8000)) * 8, 2000)


def empty_continuations():
    k = H2(GATEWAY)
    k.send(frame(HEADERS, END_STREAM, 1, block(fields())))
    return pour(k, frame(CONTINUATION, 0, 1) * 1000, 1000)


def header_bomb():
    """One entry of 4,000 bytes in the table, named 16,000 times by one byte each: 64 MiB out of 16 KiB."""
    k = H2(GATEWAY)
    entry = b'\x40' + integer(3, 7) + b'x-a' + integer(4000, 7) + b'v' * 4000
    k.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(fields()) + entry))
    for n in range(3, 41, 2):
        k.send(frame(HEADERS, END_HEADERS | END_STREAM, n, block(fields()) + b'\xbe' * 12000))
    return [k.s]


def heads_held():
    """As many requests as may be open, each with as large a head as may be, made of references: what they hold is bounded by both."""
    k = H2(GATEWAY)
    entry = b'\x40' + integer(3, 7) + b'x-a' + integer(3900, 7) + b'v' * 3900
    k.send(frame(HEADERS, END_HEADERS, 1, block(fields('POST')) + entry))
    for n in range(3, 513, 2):
        k.send(frame(HEADERS, END_HEADERS, n, block(fields('POST')) + b'\xbe' * 14))
    time.sleep(0.5)
    return [k.s]


def large_heads():
    """Literal heads beyond the limit: 431 each, and nothing kept."""
    k = H2(GATEWAY)
    big = b''.join(literal(b'x-%d' % i, b'v' * 1000) for i in range(70))
    for n in range(1, 100, 2):
        whole = block(fields()) + big
        k.send(frame(HEADERS, END_STREAM, n, whole[:16000]) + b''.join(frame(CONTINUATION, END_HEADERS if i + 16000 >= len(whole) else 0, n, whole[i:i + 16000]) for i in range(16000, len(whole), 16000)))
    k.read(lambda: k.stream(99)['end'], 5)
    return [k.s] if k.stream(1)['status'] == 431 and k.stream(99)['end'] else []


def window_closed():
    """Answers of 4 MiB each, and no window for them."""
    socks = []
    for _ in range(4):
        k = H2(GATEWAY, settings=struct.pack('>HI', 4, 0))
        for _ in range(50):
            k.request(fields(path='/big/4000000'))
        socks.append(k.s)
    time.sleep(1)
    return socks


def never_read():
    socks = []
    for _ in range(100):
        s = connect(GATEWAY, rcvbuf=4096)
        s.sendall(b'GET /big/8000000 HTTP/1.1\r\nHost: a.test\r\n\r\n')
        socks.append(s)
    time.sleep(1)
    return socks


def pipeline():
    """Ten thousand requests on each connection, and no answer is read."""
    socks = []
    for _ in range(20):
        s = connect(GATEWAY, rcvbuf=4096)
        s.settimeout(0.3)
        try_send(s, GET * 10000)
        socks.append(s)
    return socks


def h2_pipeline():
    """Streams one after the other; answers wait in the socket that nobody reads."""
    k = H2(GATEWAY, rcvbuf=4096)
    k.s.settimeout(1)
    head = block(fields())
    for n in range(1, 200001, 200):
        if not k.send(b''.join(frame(HEADERS, END_HEADERS | END_STREAM, n + i, head) for i in range(0, 200, 2))):
            break
    return [k.s]


def zip_bomb(path):
    """1 GiB of zeros in 1 MiB, to where bodies are looked into. Weir does not inflate: it is passed on or refused as it is."""
    bomb = gzip.compress(bytes(64 * MIB), 9) * 16

    def attack():
        socks = []
        for _ in range(4):
            s = connect(GATEWAY)
            try_send(s, b'POST %s HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\nConnection: close\r\n\r\n' % (path, len(bomb)) + bomb)
            read_all(s, 5)
            socks.append(s)
        return socks
    return attack


def json_nested():
    """A million brackets to where JSON is looked into."""
    socks = []
    for _ in range(4):
        s = connect(GATEWAY)
        body = b'[' * 500000 + b']' * 500000
        try_send(s, b'POST /edited HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n' % len(body) + body)
        if statuses(read_all(s, 5)[0]) != [413]:
            return []
        socks.append(s)
    return socks


def half_closed():
    """Half a request, or a whole one, and the end of the sending side: both have left, and get an answer or none."""
    socks = []
    for i in range(400):
        s = connect(GATEWAY)
        s.sendall(b'GET / HTTP/1.1\r\nHost: a.te' if i % 2 else GET)
        s.shutdown(socket.SHUT_WR)
        if not set(statuses(read_all(s, 5)[0])) <= {200}:
            return []
        socks.append(s)
    return socks


def body_drip():
    """A body byte by byte to a route with a time for the whole request (3 s)."""
    socks = []
    for _ in range(100):
        s = connect(GATEWAY)
        s.sendall(b'POST /upload HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n')
        socks.append(s)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        for s in socks:
            try_send(s, b'x')
        time.sleep(0.2)
    return socks


def idle(n, tls):
    def attack():
        socks = []
        for _ in range(n):
            s = connect(TLS, 'a.test') if tls else connect(GATEWAY)
            s.sendall(GET)
            socks.append(s)
        for s in socks:
            while not read_all(s, 5, lambda g: g.endswith(b'}'))[1] == 'until':
                return []
        return socks
    return attack


def mirrored(path):
    """Bodies of 16 MB whose copy goes to somebody who reads nothing: the copy is given up, not kept."""
    def attack():
        socks = []
        for _ in range(2):
            s = connect(GATEWAY)
            s.sendall(b'POST %s HTTP/1.1\r\nHost: a.test\r\nContent-Length: 16000000\r\nConnection: close\r\n\r\n' % path)
            for _ in range(160):
                s.sendall(b'm' * 100000)
            if statuses(read_all(s, 10)[0]) != [200]:
                return []
            socks.append(s)
        return socks
    return attack


def lines_of(path):
    with open(LOG) as f:
        return sum(path in line for line in f)


def main():
    beside = Beside(GATEWAY)
    window = struct.pack('>I', 1)
    flood('PING flood', frames_flood(frame(PING, 0, 0, b'12345678'), 2000000), 4 * MIB, 'h2_flood')
    flood('SETTINGS flood', frames_flood(frame(SETTINGS, 0, 0, struct.pack('>HI', 1, 4096)), 2000000), 4 * MIB, 'h2_flood')
    flood('empty DATA', frames_flood(frame(DATA, 0, 1), 3000000), 4 * MIB, 'h2_flood')
    flood('PRIORITY flood', frames_flood(frame(PRIORITY, 0, 1, b'\0\0\0\0\1'), 2000000), 4 * MIB, 'h2_flood')
    flood('WINDOW_UPDATE flood', frames_flood(frame(WINDOW_UPDATE, 0, 0, window), 2000000), 4 * MIB, 'h2_flood')
    flood('frames of unknown kinds', frames_flood(frame(0xbe, 0, 0, b'x'), 3000000), 4 * MIB, 'h2_flood')
    flood('rapid reset', rapid_reset, 4 * MIB, 'h2_resets')
    flood('the peer made to reset', made_you_reset, 4 * MIB, 'h2_resets')
    say('of 4,000 requests that were reset, few reached the origin', lines_of('/rapid') < 1000, lines_of('/rapid'))
    flood('CONTINUATION flood', continuation_flood, 4 * MIB, 'h2_connection')
    flood('empty CONTINUATIONs', empty_continuations, 4 * MIB, 'h2_connection')
    flood('header bomb', header_bomb, 8 * MIB, 'h2_flood')
    flood('256 open requests with heads of 60 KiB', heads_held, 40 * MIB, None, closed=False)
    flood('heads beyond the limit', large_heads, 8 * MIB, 'head_size', closed=False)
    flood('200 answers of 4 MB without a window', window_closed, 40 * MIB, None, closed=False)
    flood('100 answers of 8 MB that nobody reads', never_read, 40 * MIB, None, closed=False)
    flood('200,000 requests in a row, answers not read', pipeline, 8 * MIB, None, closed=False)
    flood('100,000 streams, answers not read', h2_pipeline, 8 * MIB, None, closed=False)
    flood('zip bomb to a service', zip_bomb(b'/'), 16 * MIB)
    flood('zip bomb to a transformation', zip_bomb(b'/edited'), 16 * MIB)
    flood('JSON nested a million deep', json_nested, 16 * MIB)
    flood('requests and halves of them, half closed', half_closed, 4 * MIB)
    flood('bodies byte by byte, the request has 3 s', body_drip, 4 * MIB)
    flood('9,000 idle connections, under 5 KiB each', idle(9000, False), 9000 * 5120, None, closed=False)
    flood('500 idle TLS connections, under 20 KiB each', idle(500, True), 500 * 20480 + 2 * MIB, None, closed=False)

    deaf = socket.create_server(('127.0.0.1', DEAF))  # never accepts, so nothing is read
    flood('a mirror that reads nothing, HTTP/1', mirrored(b'/mirrored'), 4 * MIB)
    flood('a mirror that reads nothing, HTTP/2', mirrored(b'/mirrored-h2'), 4 * MIB)
    deaf.close()
    beside.end(2.0)


main()
