"""A fake origin for the gateway's scenario: echoes what it was sent, and misbehaves where it is asked to.

usage: origin.py PORT NAME

    /status/NNN      that status                        /slow/MS       answers after MS milliseconds
    /bytes/N         N bytes, with Content-Length       /chunked/N     N bytes in chunks, with a trailer
    /close           closes without an answer           /half          closes in the middle of a body
    /hop             hop-by-hop fields in the answer    /bad           bytes that are not HTTP
    /sum             {"bytes", "sha256"} of the body    anything else  {"name", "method", "target", "headers", "body"}
"""
import hashlib
import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[2]
CHUNK = b'0123456789abcdef' * 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format, *args):
        pass

    def body(self):
        """The body piece by piece, whatever its framing."""
        if 'chunked' in self.headers.get('Transfer-Encoding', ''):
            while n := int(self.rfile.readline().split(b';')[0], 16):
                yield self.rfile.read(n)
                self.rfile.readline()
            while self.rfile.readline() not in (b'\r\n', b''):
                pass
            return
        left = int(self.headers.get('Content-Length') or 0)
        while left:
            piece = self.rfile.read(min(left, 65536))
            if not piece:
                raise ConnectionResetError
            left -= len(piece)
            yield piece

    def reply(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status >= 200 and status not in (204, 304):
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD' and status not in (204, 304):
            self.wfile.write(body)

    def echo(self):
        body = b''.join(self.body())
        headers = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        text = json.dumps({'name': NAME, 'method': self.command, 'target': self.path, 'headers': headers, 'body': body.decode('latin-1')})
        self.reply(200, text.encode(), [('Content-Type', 'application/json'), ('X-Origin', NAME), ('X-Secret', 'inside'), ('X-Count', '1')])

    def act(self):
        what, _, rest = self.path.split('?')[0].strip('/').partition('/')
        act = getattr(self, 'do_' + what + '_', None)
        if act:
            act(rest)
        else:
            self.echo()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = act

    def do_status_(self, rest):
        b''.join(self.body())
        self.reply(int(rest), b'status\n')

    def do_slow_(self, rest):
        time.sleep(int(rest) / 1000)
        self.reply(200, b'slow\n')

    def do_bytes_(self, rest):
        n = int(rest)
        self.send_response(200)
        self.send_header('Content-Length', str(n))
        self.end_headers()
        while n and self.command != 'HEAD':
            self.wfile.write(CHUNK[:n])
            n -= min(n, len(CHUNK))

    def do_chunked_(self, rest):
        n = int(rest)
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.send_header('Trailer', 'X-End')
        self.end_headers()
        while n:
            piece = CHUNK[:min(n, 1000)]
            self.wfile.write(b'%x\r\n%s\r\n' % (len(piece), piece))
            n -= len(piece)
        self.wfile.write(b'0\r\nX-End: yes\r\n\r\n')

    def do_close_(self, rest):
        self.close_connection = True

    def do_half_(self, rest):
        self.send_response(200)
        self.send_header('Content-Length', '1000')
        self.end_headers()
        self.wfile.write(b'half')
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def do_hop_(self, rest):
        self.reply(200, b'hop\n', [('Connection', 'X-Gone, keep-alive'), ('X-Gone', '1'), ('Keep-Alive', 'timeout=5'), ('X-Stays', '1')])

    def do_bad_(self, rest):
        self.wfile.write(b'this is not HTTP\r\n\r\n')
        self.close_connection = True

    def do_sum_(self, rest):
        digest, n = hashlib.sha256(), 0
        for piece in self.body():
            digest.update(piece)
            n += len(piece)
        self.reply(200, json.dumps({'bytes': n, 'sha256': digest.hexdigest()}).encode())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


Server(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
