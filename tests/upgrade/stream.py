"""stream.py - a workload that is quick, and takes its time when asked to: GET / is answered at once, GET /N with N bytes, in pieces, over about
N/100000 s."""
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = bytes(range(250)) * 40  # 10,000 bytes: 10 pieces a tenth of a second apart


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body leave together
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/":
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"ok\n")
            return
        left = int(self.path.strip("/"))
        self.send_response(200)
        self.send_header("Content-Length", str(left))
        self.end_headers()
        self.wfile.flush()
        while left > 0:
            self.wfile.write(PIECE[:left])
            self.wfile.flush()
            left -= len(PIECE)
            time.sleep(0.1)


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
