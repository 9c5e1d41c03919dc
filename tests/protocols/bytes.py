"""bytes.py ECHO COUNT COUNT1 COUNT2 BEHIND HTTP BEHIND_TLS ENDED CA-FILE - bytes through TCPRoutes, PROXY headers towards services (COUNT1, COUNT2) and from clients (BEHIND, also ahead of TLS)."""
import hashlib
import json
import select
import socket
import ssl
import struct
import sys
import threading
import time

ECHO, COUNT, COUNT1, COUNT2, BEHIND, HTTP, BEHIND_TLS, ENDED = map(int, sys.argv[1:9])
CA = sys.argv[9]


def check(name, f):
    try:
        f()
        print("ok bytes:", name, flush=True)
    except Exception as e:  # noqa: BLE001
        print("not ok bytes: %s\n#   %r" % (name, e), flush=True)


def same(want, got):
    if want != got:
        raise AssertionError("wanted %r, got %r" % (want, got))


def connect(port):
    return socket.create_connection(("127.0.0.1", port), 10)


def read_all(s):
    parts = []
    while True:
        d = s.recv(65536)
        if not d:
            return b"".join(parts)
        parts.append(d)


def counted(port, data):
    """What the counting service says of data, which it does after our end: the other direction must still be open then."""
    s = connect(port)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    time.sleep(0.05)  # its answer comes behind our FIN
    return json.loads(read_all(s)), s


def read_exactly(s, n):
    """n bytes, or what came before the end."""
    got = b""
    while len(got) < n and (piece := s.recv(n - len(got))):
        got += piece
    return got


def half_close():
    data = bytes(range(256)) * 16384
    got, _ = counted(COUNT, data)
    same((len(data), hashlib.sha256(data).hexdigest()), (got["n"], got["sha256"]))
    got, _ = counted(COUNT, b"")
    same(0, got["n"])


def echo():
    s = connect(ECHO)
    data = hashlib.sha256(b"x").digest() * 500000
    got = []
    t = threading.Thread(target=lambda: got.append(read_all(s)))
    t.start()
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    t.join(20)
    same(True, got[0] == data)


def small():
    s = connect(ECHO)
    for i in range(50):
        m = b"m%d" % i
        s.sendall(m)
        same(m, read_exactly(s, len(m)))


def slow_reader():
    s = connect(ECHO)
    data = b"y" * 8000000
    t = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
    t.start()
    time.sleep(0.3)
    same(len(data), len(read_all(s)))
    t.join(20)


def out_v1():
    got, s = counted(COUNT1, b"GET / ...")
    line = "PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (s.getsockname()[1], COUNT1)
    same((line + "GET / ...")[:64], got["head"])


def out_v2():
    got, s = counted(COUNT2, b"abc")
    head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + socket.inet_aton("127.0.0.1") * 2 + struct.pack("!HH", s.getsockname()[1], COUNT2) + b"abc"
    same(head.hex(), got["hex"])


def http_headers(port, before=b"", pause=None, host=b"ws.test"):
    s = connect(port)
    req = b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
    if pause:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for b in before:
            s.sendall(bytes([b]))
            time.sleep(pause)
        s.sendall(req)
    else:
        s.sendall(before + req)
    answer = read_all(s)
    if not answer:
        return None
    body = answer.split(b"\r\n\r\n", 1)[1]
    return json.loads(body[body.index(b"{"):body.rindex(b"}") + 1])["headers"]


SIG = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, payload):
    return SIG + struct.pack("!BBH", 0x20 | command, family, len(payload)) + payload


def in_headers():
    ip4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 1234, 443)
    ip6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack("!HH", 1, 2)
    for name, head, want in (
            ("v1 TCP4", b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n", "192.0.2.7"),
            ("v1 TCP6", b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", "2001:db8::7"),
            ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n", "127.0.0.1"),
            ("v2 TCP4", v2(1, 0x11, ip4), "192.0.2.7"),
            ("v2 TCP6", v2(1, 0x21, ip6), "2001:db8::7"),
            ("v2 TCP4 with TLVs", v2(1, 0x11, ip4 + b"\x04\0\x10" + b"\0" * 16 + b"\x01\0\x02h2"), "192.0.2.7"),
            ("v2 LOCAL", v2(0, 0, b""), "127.0.0.1")):
        check("a PROXY header %s tells the client" % name, lambda: same(want, http_headers(BEHIND, head)["x-forwarded-for"]))
    check("... also byte by byte", lambda: same("192.0.2.7", http_headers(BEHIND, v2(1, 0x11, ip4), 0.002)["x-forwarded-for"]))
    for name, head in (("none", b""), ("a wrong one", b"PROXY TCP4 192.0.2.999 1.2.3.4 1 2\r\n"), ("v3", SIG + b"\x31\x11\0\0"), ("too long", b"PROXY " + b"A" * 200)):
        def refused():
            try:
                same(None, http_headers(BEHIND, head))
            except ConnectionResetError:
                pass
        check("a PROXY header, %s: no service" % name, refused)


def tls_ended():
    """Both directions at once, by one thread: Python before 3.13 has no lock on a TLS connection that two threads use, and breaks it."""
    t = ssl.create_default_context(cafile=CA).wrap_socket(connect(ENDED), server_hostname="ws.test")
    t.setblocking(False)
    data = bytes(range(256)) * 8192
    left, got = memoryview(data), b""
    while len(got) < len(data):
        blocked = 0  # the ways that can't go on
        try:
            left = left[t.send(left[:65536]):] if left else left
            blocked += not left
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            blocked += 1
        try:
            d = t.recv(65536)
            if not d:
                break
            got += d
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            blocked += 1
        if blocked == 2 and not any(select.select([t], [t] if left else [], [], 10)[:2]):
            break
    same((len(data), True), (len(got), got == data))


def ahead_of_tls():
    s = connect(BEHIND_TLS)
    s.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n")
    t = ssl.create_default_context(cafile=CA).wrap_socket(s, server_hostname="ws.test")
    t.sendall(b"GET /x HTTP/1.1\r\nHost: ws.test\r\nConnection: close\r\n\r\n")
    answer = read_all(t)
    same(True, b'"x-forwarded-for":"192.0.2.7"' in answer and b'"x-forwarded-proto":"https"' in answer)


def ahead_of_clear():
    s = connect(BEHIND_TLS)
    s.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\nGET /x HTTP/1.1\r\nHost: ws.test\r\n\r\n")
    same(b"HTTP/1.1 400 ", read_all(s)[:13])


def from_client_to_service():
    for line in ("PROXY TCP4 192.0.2.7 198.51.100.1 1234 443", "PROXY TCP6 2001:db8::7 2001:db8::1 1 2"):
        same(line + "\r\n", http_headers(BEHIND, line.encode() + b"\r\n", host=b"pphttp.test")["x-seen-proxy"])


check("half-close: the answer comes after the client's end", half_close)
check("16 MB, both ways at once", echo)
check("50 small messages there and back", small)
check("8 MB to a client that reads late", slow_reader)
check("2 MB over TLS that ends at the gateway, to a service without", tls_ended)
check("a PROXY header v1 goes to the service", out_v1)
check("a PROXY header v2 goes to the service", out_v2)
in_headers()
check("a PROXY header goes before HTTP too", lambda: same("127.0.0.1", http_headers(HTTP, host=b"pphttp.test")["x-seen-proxy"].split(" ")[2]))
check("a PROXY header passes through, both addresses of it", from_client_to_service)
check("a PROXY header ahead of TLS", ahead_of_tls)
check("a PROXY header ahead of plain HTTP on an HTTPS port: 400", ahead_of_clear)
