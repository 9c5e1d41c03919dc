"""origin.py PORT LOG - an origin that writes down what it was sent, byte for byte, and answers as badly as it is asked to.

Each request becomes one line of JSON in LOG: {"conn", "head", "body", "bad"}. bad says what a strict reader would not take: then the connection ends.
The path decides on the answer: /answer/NAME one of ANSWERS, sent as it stands; /big/N N bytes; anything else {"target": ...}.
"""
import json
import os
import re
import socket
import sys
import threading

POISON = b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'
OK = b'HTTP/1.1 200 OK\r\n'
ANSWERS = {
    'lengths': OK + b'Content-Length: 2\r\nContent-Length: 40\r\n\r\nok' + POISON,
    'lengths-list': OK + b'Content-Length: 2, 40\r\n\r\nok' + POISON,
    'length-and-chunked': OK + b'Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n' + POISON,
    'length-plus': OK + b'Content-Length: +2\r\n\r\nok' + POISON,
    'length-negative': OK + b'Content-Length: -1\r\n\r\nok' + POISON,
    'length-huge': OK + b'Content-Length: 99999999999999999999\r\n\r\nok' + POISON,
    'chunked-twice': OK + b'Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n' + POISON,
    'chunked-1.0': b'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n' + POISON,
    'coding-unknown': OK + b'Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n' + POISON,
    'bare-lf': OK + b'X-A: 1\nSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok',
    'bare-cr': OK + b'X-A: 1\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok',
    'nul': OK + b'X-A: 1\0evil\r\nContent-Length: 2\r\n\r\nok',
    'fold': OK + b'X-A: 1\r\n Set-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok',
    'space-colon': OK + b'Content-Length : 2\r\n\r\nok',
    'no-colon': OK + b'evil\r\nContent-Length: 2\r\n\r\nok',
    'status-099': b'HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok',
    'status-1000': b'HTTP/1.1 1000 Odd\r\nContent-Length: 2\r\n\r\nok',
    'status-word': b'HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok',
    'version-2': b'HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
    'switching': b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n' + POISON,
    'interim-flood': b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n' * 20000,
    'head-endless': OK + b''.join(b'X-%d: %s\r\n' % (i, b'v' * 1000) for i in range(2000)),
    # a body that is longer than was said, or where none may be: what follows belongs to nobody
    'tail': OK + b'Content-Length: 2\r\n\r\nok' + POISON,
    'tail-204': b'HTTP/1.1 204 No Content\r\n\r\n' + POISON,
    'tail-304': b'HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n' + POISON,
    'tail-chunked': OK + b'Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n' + POISON,
    'chunk-bad': OK + b'Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n+5\r\npoiso\r\n0\r\n\r\n' + POISON,
    'chunk-lf': OK + b'Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n' + POISON,
}
lock = threading.Lock()
log = None
conns = 0


def note(conn, head, body, bad):
    line = json.dumps({'conn': conn, 'head': head.decode('latin-1'), 'body': body.decode('latin-1'), 'bad': bad})
    with lock:
        log.write(line + '\n')
        log.flush()


class Broken(Exception):
    pass


class Reader:
    def __init__(self, s):
        self.s, self.rest = s, bytearray()  # grows in place: bodies are large

    def until(self, mark, what):
        while mark not in self.rest:
            piece = self.s.recv(1 << 16)
            if not piece:
                if self.rest:
                    raise Broken('the end inside ' + what)
                return None
            self.rest += piece
        head, _, self.rest = self.rest.partition(mark)
        return bytes(head)

    def exact(self, n, what):
        while len(self.rest) < n:
            piece = self.s.recv(1 << 16)
            if not piece:
                raise Broken('the end inside ' + what)
            self.rest += piece
        p = bytes(self.rest[:n])
        del self.rest[:n]
        return p

    def chunked(self):
        body = b''
        while True:
            line = self.until(b'\r\n', 'a chunk size') or b''
            if not re.fullmatch(rb'[0-9a-fA-F]+', line):
                raise Broken('chunk size ' + repr(line))
            n = int(line, 16)
            if n == 0:
                while self.until(b'\r\n', 'trailers'):
                    pass
                return body
            body += self.exact(n, 'a chunk')
            if self.exact(2, 'a chunk end') != b'\r\n':
                raise Broken('chunk end')


def fields_of(head):
    fields = {}
    for line in head.split(b'\r\n')[1:]:
        m = re.fullmatch(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*)", line)
        if not m:
            raise Broken('field line ' + repr(line))
        fields.setdefault(m.group(1).lower(), []).append(m.group(2).rstrip())
    return fields


def body_of(r, fields):
    coding, length = fields.get(b'transfer-encoding', []), fields.get(b'content-length', [])
    if len(coding) + len(length) > 1 or (coding and coding[0].lower() != b'chunked') or (length and not length[0].isdigit()):
        raise Broken(f'framing {coding} {length}')
    return r.chunked() if coding else r.exact(int(length[0]), 'a body') if length else b''


def answer(s, target):
    if target.startswith('/answer/'):
        s.sendall(ANSWERS[target.split('/')[2].split('?')[0]])
    elif target.startswith('/big/'):
        n = int(target.split('/')[2])
        s.sendall(OK + b'Content-Length: %d\r\n\r\n' % n)
        while n:
            s.sendall(b'x' * min(n, 65536))
            n -= min(n, 65536)
    else:
        body = json.dumps({'target': target}).encode()
        s.sendall(OK + b'Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body))


def serve(s, conn):
    r, head = Reader(s), b''
    try:
        while True:
            head = b''
            head = r.until(b'\r\n\r\n', 'a head')
            if head is None:
                return
            m = re.fullmatch(rb'[A-Za-z-]+ (\S+) HTTP/1\.1', head.split(b'\r\n')[0])
            if not m:
                raise Broken('request line')
            body = body_of(r, fields_of(head))
            note(conn, head, body, None)
            answer(s, m.group(1).decode())
    except Broken as e:
        note(conn, head or r.rest, b'', str(e))
    except OSError:
        pass
    finally:
        s.close()


def main():
    global conns, log
    log = open(sys.argv[2], 'w')
    ln = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=1024)
    while True:
        s, _ = ln.accept()
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conns += 1
        threading.Thread(target=serve, args=(s, conns), daemon=True).start()


if __name__ == '__main__':
    main()
