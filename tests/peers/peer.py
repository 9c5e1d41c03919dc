"""An origin that misbehaves, by the path of the request. Raw sockets, one thread for each connection.

usage: peer.py PORT BANNER_PORT

On PORT each path below is one kind of misbehaviour; /count?KEY tells how many requests carried ?KEY so far. On BANNER_PORT an
answer is sent at once to whoever connects, before any request.
"""
import collections
import socket
import struct
import sys
import threading
import time

seen = collections.Counter()
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'


class Connection:
    def __init__(self, s):
        self.s, self.buffer = s, b''

    def head(self):
        while b'\r\n\r\n' not in self.buffer:
            piece = self.s.recv(65536)
            if not piece:
                return None
            self.buffer += piece
        head, self.buffer = self.buffer.split(b'\r\n\r\n', 1)
        return head

    def body(self, head):
        """Reads it and returns its length and its trailers."""
        low = head.lower()
        if b'transfer-encoding: chunked' in low:
            n = 0
            while True:
                size = int(self.line().split(b';')[0], 16)
                if size == 0:
                    break
                self.skip(size + 2)
                n += size
            trailers = []
            while line := self.line():
                trailers.append(line)
            return n, trailers
        if b'content-length: ' in low:
            n = int(low.split(b'content-length: ')[1].split(b'\r\n')[0])
            self.skip(n)
            return n, []
        return 0, []

    def line(self):
        while b'\r\n' not in self.buffer:
            piece = self.s.recv(65536)
            if not piece:
                raise OSError('closed')
            self.buffer += piece
        line, self.buffer = self.buffer.split(b'\r\n', 1)
        return line

    def skip(self, n):
        take = min(n, len(self.buffer))
        self.buffer = self.buffer[take:]
        n -= take
        while n:
            piece = self.s.recv(min(n, 1 << 20))
            if not piece:
                raise OSError('closed')
            n -= len(piece)

    def send(self, b):
        self.s.sendall(b)

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))

    def endless(self, first, again):
        self.send(first)
        time.sleep(0.1)  # so that first is read alone
        end = time.monotonic() + 20
        while time.monotonic() < end:
            self.send(again * 100)

    def text(self, body):
        self.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(body) + body)


def behave(c, path, query, head):
    """True: the connection goes on."""
    if path == '/ok':
        c.body(head)
        c.send(OK)
        return True
    if path == '/sink':
        n, trailers = c.body(head)
        c.text(b'%d %s' % (n, b'|'.join(trailers)))
        return True
    if path == '/head':
        c.body(head)
        c.text(head + b'\r\n')
        return True
    if path == '/count':
        c.text(b'%d' % seen[query])
        return True
    if path == '/big':
        n, block = int(query), b'x' * (1 << 20)
        c.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % n)
        while n:
            c.send(block[:min(n, len(block))])
            n -= min(n, len(block))
        return True
    if path == '/drip':
        c.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        for b in b'1\r\nd\r\n' * 20 + b'0\r\n\r\n':
            c.send(bytes([b]))
            time.sleep(0.005)
        return True
    if path == '/twice':
        c.send(OK + b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil')
        return True
    if path == '/twice-late':
        c.send(OK)
        time.sleep(0.1)
        c.send(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil')
        return True
    if path == '/silent':
        return False
    if path == '/hang' or path == '/never-read':
        time.sleep(8)
        return False
    if path == '/cut-head':
        c.send(b'HTTP/1.1 200 OK\r\nContent-Le')
        return False
    if path == '/cut-body':
        c.send(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789')
        return False
    if path == '/cut-chunk':
        c.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n')
        return False
    if path == '/cut-open':
        c.send(b'HTTP/1.0 200 OK\r\n\r\n0123456789')
        time.sleep(0.1)
        c.reset()
        return False
    if path == '/flood':
        c.endless(b'', b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n')
    if path == '/hints':
        c.send(b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n' * 3 + OK)
        return True
    if path == '/huge-head':
        c.endless(b'HTTP/1.1 200 OK\r\n', b'X-Header: ' + b'y' * 1000 + b'\r\n')
    if path == '/big-head':
        c.send(b'HTTP/1.1 200 OK\r\nX: ' + b'y' * int(query) + b'\r\nContent-Length: 2\r\n\r\nok')
        return True
    if path == '/extensions':
        c.endless(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1;', b'name=value;')
    if path == '/trailers':
        c.endless(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n', b'X-Trailer: yes\r\n')
    if path == '/good-trailers':
        c.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\nVia: x\r\n\r\n')
        return True
    if path == '/early':
        c.send(b'HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig')
        time.sleep(0.2)
        return False
    if path == '/early-open':
        c.send(b'HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig')
        time.sleep(3)
        return False
    if path == '/continue':
        c.send(b'HTTP/1.1 100 Continue\r\n\r\n')
        n, _ = c.body(head)
        c.text(b'%d' % n)
        return True
    if path == '/garbage':
        c.send(b'SSH-2.0-OpenSSH_9.2\r\n')
    if path == '/two-lengths':
        c.send(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!')
    if path == '/both-lengths':
        c.send(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n')
    if path == '/switch':
        c.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n')
    if path == '/control':
        c.send(b'HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok')
    time.sleep(0.2)
    return False


def serve(s):
    c = Connection(s)
    try:
        while (head := c.head()) is not None:
            target = head.split(b' ')[1].decode('latin-1')
            path, _, query = target.partition('?')
            if path != '/count':
                seen[query] += 1
            if not behave(c, path, query, head):
                break
    except (OSError, ValueError, IndexError):
        pass
    s.close()


def greet(s):
    try:
        s.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbanner')
        s.settimeout(5)
        while s.recv(65536):
            pass
    except OSError:
        pass
    s.close()


def listen(port, fn):
    ln = socket.create_server(('127.0.0.1', port), backlog=256)

    def loop():
        while True:
            s, _ = ln.accept()
            threading.Thread(target=fn, args=(s,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()


listen(int(sys.argv[1]), serve)
listen(int(sys.argv[2]), greet)
threading.Event().wait()
