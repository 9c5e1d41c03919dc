"""workload.py - the process that scenarios run as a workload: an HTTP server that does what it is told.

  GET  /...              {"name", "version", "pid", "path", "headers"}: which replica answered, and what it was sent
  GET  /slow?ms=N        the same after N ms
  GET  /status/N         that status
  GET  /ready, /live     200, or 503 while it is sick
  POST /sick?what=S      S (ready or live) is 503 from now on, until=FILE is there if given; {"name"} tells which replica
  POST /sh               runs the body with sh -c; {"status", "out"}
  POST /eat?mb=N         holds N MiB of touched memory more
  POST /exit?status=N    ends at once

It says on standard output what happens to it ("listening", "signal SIGTERM", "answered PATH", "stopped") and one line on standard
error. VERSION, PORT, START_S (seconds before it listens) and TERM_S (seconds from SIGTERM to its end; -1: never) come from the environment.
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

NAME = os.environ.get("HOSTNAME", "")
VERSION = os.environ.get("VERSION", "1")
sick = {}
eaten = []


def say(*words):
    print("%.3f" % time.time(), *words, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        if not self.path.startswith(("/ready", "/live")):
            say("answered", self.path)

    def query(self, name, default):
        return parse_qs(urlsplit(self.path).query).get(name, [default])[0]

    def me(self):
        return {"name": NAME, "version": VERSION, "pid": os.getpid(), "path": self.path,
                "headers": {k.lower(): v for k, v in self.headers.items()}}

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/slow":
            time.sleep(int(self.query("ms", "0")) / 1000)
        if path in ("/ready", "/live"):
            well = path[1:] not in sick or os.path.exists(sick[path[1:]])
            self.answer(200 if well else 503, {"well": well})
        elif path.startswith("/status/"):
            self.answer(int(path[8:]), self.me())
        else:
            self.answer(200, self.me())

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path = urlsplit(self.path).path
        if path == "/sick":
            sick[self.query("what", "ready")] = self.query("until", "")
            self.answer(200, self.me())
        elif path == "/sh":
            done = subprocess.run(["sh", "-c", body.decode()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            self.answer(200, {"status": done.returncode, "out": done.stdout.decode("utf-8", "replace")})
        elif path == "/eat":
            eaten.append(b"x" * (int(self.query("mb", "1")) << 20))
            self.answer(200, self.me())
        elif path == "/exit":
            os._exit(int(self.query("status", "0")))
        else:
            self.answer(200, self.me())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        pass


def main():
    stopping = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        def on(number, _):
            say("signal", signal.Signals(number).name)
            if number == signal.SIGTERM:
                stopping.set()
        signal.signal(s, on)
    time.sleep(float(os.environ.get("START_S", "0")))
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
    say("listening, version", VERSION)
    print("a line on standard error", file=sys.stderr, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while not stopping.wait(0.1):
        pass
    term_s = float(os.environ.get("TERM_S", "0"))
    while term_s < 0:
        time.sleep(1)
    time.sleep(term_s)
    say("stopped")


if __name__ == "__main__":
    main()
