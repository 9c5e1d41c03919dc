"""product.py - a service as people write them: its port and its database come from the environment."""
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        text = json.dumps({"db": os.environ["DB_HOST"], "pod": os.environ["HOSTNAME"], "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("", int(os.environ["SERVICE_PORT"])), Handler).serve_forever()
