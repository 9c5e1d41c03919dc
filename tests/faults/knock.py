"""knock.py - connects to 127.0.0.1:PORT every 2 ms and sends nothing. On SIGTERM prints: CONNECTS REFUSED SLOWEST_MS.

A connect that takes a second or is refused means that for a moment nobody listened."""
import signal
import socket
import sys
import time

stop = False


def on_term(*_):
    global stop
    stop = True


signal.signal(signal.SIGTERM, on_term)
connects = refused = 0
slowest = 0.0
while not stop:
    began = time.monotonic()
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
    except OSError:
        refused += 1
    connects += 1
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.002)
print(connects, refused, round(slowest * 1000))
