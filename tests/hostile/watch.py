"""watch.py - what is looked at while somebody attacks: the engine's memory, and a client that behaves.
"""
import json
import os
import select
import threading

from wire import *

MIB = 1 << 20


class Beside:
    """A client that behaves, all the while, in a process of its own: every 20 ms a request over HTTP/1 and one over HTTP/2."""

    def __init__(self, port):
        self.port, self.n, self.slowest, self.why = port, 0, 0.0, []
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            self.run(theirs)
            theirs.sendall(json.dumps([self.n, self.slowest, self.why[:3]]).encode())
            os._exit(0)
        theirs.close()

    def end(self, seconds):
        """It stops; none of its answers may have come later than that."""
        self.ours.shutdown(socket.SHUT_WR)
        self.n, self.slowest, self.why = json.loads(read_all(self.ours, 20)[0])
        os.waitpid(self.pid, 0)
        say(f'beside all that, every request was answered, none later than {seconds:g} s', not self.why and self.n > 20 and self.slowest < seconds,
            f'{self.n} asked, slowest {self.slowest:.2f} s, {self.why}')

    def run(self, stop):
        k = H2(self.port)
        while not select.select([stop], [], [], 0.02)[0]:
            began = time.monotonic()
            try:
                s = connect(self.port)
                s.sendall(b'GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n')
                got = statuses(read_all(s, 5)[0])
                s.close()
                st = k.answer(k.request(fields('GET', '/', 'b.test')))
                if got != [200] or st['status'] not in (200, None) or not st['end']:
                    self.why.append(f'{got} {st} {k.goaway}')
                    k = H2(self.port)
            except OSError as e:
                self.why.append(str(e))
            self.n += 1
            self.slowest = max(self.slowest, time.monotonic() - began)


class Watch:
    """The engine's memory at its largest, from here on."""

    def __init__(self, pid):
        self.pid = pid
        self.before = self.peak = rss_bytes(self.pid)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop.wait(0.01):
            self.peak = max(self.peak, rss_bytes(self.pid))

    def grown(self):
        self.peak = max(self.peak, rss_bytes(self.pid))
        return self.peak - self.before

    def end(self):
        self.stop.set()
        self.thread.join()
        return self.grown()


def until_closed(socks, seconds):
    """How many of them are closed before the time is over."""
    end, left = time.monotonic() + seconds, list(socks)
    while left and time.monotonic() < end:
        still = []
        for s in left:
            s.setblocking(False)
            try:
                while s.recv(1 << 16):
                    pass
            except (BlockingIOError, ssl.SSLWantReadError):
                still.append(s)
            except OSError:
                pass
        left = still
        if left:
            time.sleep(0.05)
    return len(socks) - len(left)
