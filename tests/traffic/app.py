"""A service that says which version of it answered, over HTTP/1.1. X-Want: the status to give. /gz...: 128 KiB of text."""
import http.server
import os


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        line = f"{os.environ['VERSION']} {self.path} {self.headers.get('X-Forwarded-Proto', '-')}\n".encode()
        body = line * (131072 // len(line)) if self.path.startswith('/gz') else line
        self.send_response(int(self.headers.get('X-Want', '200')))
        self.send_header('Content-Type', 'text/plain')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer.request_queue_size = 128  # h2load opens many connections at once
http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Handler).serve_forever()
