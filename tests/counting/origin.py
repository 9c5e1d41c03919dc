"""A service for the scenario that counts: answers as its paths say.

usage: origin.py PORT

    /status/NNN   that status                 /until/FILE    answers when that file is there, in the folder where this was started
    /grpc/N       a gRPC answer that ends with status N in its trailers
    /refuse/N     one that is nothing but a head with status N
    /cert         the X-Forwarded-Client-Cert fields of the request
    anything else: 200, two bytes
"""
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, format, *args):
        pass

    def act(self):
        _, what, *rest = self.path.split('/')
        self.rfile.read(int(self.headers.get('Content-Length') or 0))
        while what == 'until' and not os.path.exists(rest[0]):
            time.sleep(0.02)
        if what == 'grpc':
            self.send_response(200)
            self.send_header('Content-Type', 'application/grpc')
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            self.wfile.write(b'5\r\n\0\0\0\0\0\r\n0\r\nGrpc-Status: ' + rest[0].encode() + b'\r\n\r\n')
            return
        self.send_response(int(rest[0]) if what == 'status' else 200)
        if what == 'refuse':
            self.send_header('Content-Type', 'application/grpc')
            self.send_header('Grpc-Status', rest[0])
        body = b'|'.join(v.encode() for v in self.headers.get_all('X-Forwarded-Client-Cert', [])) if what == 'cert' else b'ok'
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = act


ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
