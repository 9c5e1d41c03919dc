"""load.py - steady load that tells every failure. load.py PORT [--address 127.0.0.1] [--paths /,/a] [--host NAME] [--conns 4] [--method GET] [--body-bytes N] [--began FILE]

Each connection makes one request after the other, over kept connections; a new one is opened every tenth time.
A request has failed when it could not be sent, when its answer did not come whole within 10 s, or was neither 2xx nor 3xx.
Nothing is ever tried again, except that a failure costs its connection. It runs until SIGTERM or SIGINT, then prints

    REQUESTS FAILED SLOWEST_MS LONGEST_GAP_MS P99_MS
    then one line for each of the first 20 failures: seconds since the start, path, what happened

LONGEST_GAP_MS is the longest time without any good answer. FILE is made when the first request is over.
"""
import argparse
import signal
import socket
import threading
import time

TIMEOUT = 10.0


class Load:
    def __init__(self, conf):
        self.conf = conf
        self.paths = conf.paths.split(",")
        self.stop, self.begun = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.started = time.monotonic()
        self.requests = self.failed = 0
        self.slowest = self.gap = 0.0
        self.last_good = self.started
        self.why = []
        self.times = []

    def good(self, began):
        now = time.monotonic()
        with self.lock:
            self.requests += 1
            self.slowest = max(self.slowest, now - began)
            self.times.append(now - began)
            self.gap = max(self.gap, now - self.last_good)
            self.last_good = now

    def bad(self, path, why):
        with self.lock:
            self.requests += 1
            self.failed += 1
            if len(self.why) < 20:
                self.why.append("%.3f %s %s" % (time.monotonic() - self.started, path, why))

    def exchange(self, file, path):
        """One request on an open connection; True when the connection can be used again."""
        body = b"x" * self.conf.body_bytes
        head = "%s %s HTTP/1.1\r\nHost: %s\r\n" % (self.conf.method, path, self.conf.host)
        if body:
            head += "Content-Length: %d\r\n" % len(body)
        file.write(head.encode() + b"\r\n" + body)
        file.flush()
        line = file.readline()
        if not line:
            raise OSError("closed before an answer")
        status = int(line.split()[1])
        length, keep = None, True
        while True:
            line = file.readline()
            if line in (b"\r\n", b""):
                break
            name, _, value = line.decode("latin-1").partition(":")
            name, value = name.lower(), value.strip().lower()
            if name == "content-length":
                length = int(value)
            elif name == "transfer-encoding":
                length = -1
            elif name == "connection" and "close" in value:
                keep = False
        if line == b"":
            raise OSError("closed inside the head")
        text = self.body(file, length)
        if not 200 <= status < 400:
            raise ValueError("%d %s" % (status, text[:200].decode("latin-1").strip()))
        return keep

    @staticmethod
    def body(file, length):
        if length is None:
            raise OSError("an answer without a length")
        if length >= 0:
            text = file.read(length)
            if len(text) < length:
                raise OSError("closed inside the body")
            return text
        text = b""
        while True:
            line = file.readline()
            if not line.endswith(b"\r\n"):
                raise OSError("closed inside a chunk")
            size = int(line.split(b";")[0], 16)
            part = file.read(size + 2)
            if len(part) < size + 2:
                raise OSError("closed inside a chunk")
            if size == 0:
                return text
            text += part[:-2]

    def run(self, number):
        file, turn = None, number
        while not self.stop.is_set():
            path = self.paths[turn % len(self.paths)]
            turn += 1
            began = time.monotonic()
            try:
                if not file or turn % 10 == 0:
                    file = socket.create_connection((self.conf.address, self.conf.port), TIMEOUT).makefile("rwb")
                if not self.exchange(file, path):
                    file = None
                self.good(began)
            except ValueError as e:
                self.bad(path, str(e))
            except OSError as e:
                file = None
                self.bad(path, "%s after %.0f ms" % (e, (time.monotonic() - began) * 1000))
                time.sleep(0.02)
            if self.conf.began and not self.begun.is_set():
                self.begun.set()
                open(self.conf.began, "w").close()
            if self.conf.pause_ms:
                time.sleep(self.conf.pause_ms / 1000)

    def main(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(self.conf.conns)]
        for t in threads:
            t.start()
        while not self.stop.wait(0.1):
            pass
        for t in threads:
            t.join(TIMEOUT + 1)
        print(self.requests, self.failed, round(self.slowest * 1000), round(self.gap * 1000),
              round(sorted(self.times)[len(self.times) * 99 // 100] * 1000, 1) if self.times else 0)
        print("\n".join(self.why))


if __name__ == "__main__":
    args = argparse.ArgumentParser()
    args.add_argument("port", type=int)
    args.add_argument("--address", default="127.0.0.1")
    args.add_argument("--paths", default="/")
    args.add_argument("--host", default="load.test")
    args.add_argument("--conns", type=int, default=4)
    args.add_argument("--method", default="GET")
    args.add_argument("--body-bytes", type=int, default=0)
    args.add_argument("--pause-ms", type=float, default=2)
    args.add_argument("--began")
    Load(args.parse_args()).main()
