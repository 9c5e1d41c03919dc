"""Sends bytes that no client library would, and prints what comes back.

usage: raw.py PORT [--seconds S] [--drip MS] [--statuses] BYTES...

BYTES are joined; backslash escapes (\\r \\n \\x00) mean what they mean in Python. Prints the whole answer, or with --statuses
only the status of each answer in it, one a line. Ends when the peer closes or after S seconds (3).
"""
import argparse
import re
import socket
import sys
import time

ap = argparse.ArgumentParser()
ap.add_argument('port', type=int)
ap.add_argument('--seconds', type=float, default=3)
ap.add_argument('--drip', type=float, default=0, help='milliseconds between single bytes')
ap.add_argument('--statuses', action='store_true')
ap.add_argument('bytes', nargs='+')
args = ap.parse_args()

data = ''.join(args.bytes).encode('latin-1').decode('unicode_escape').encode('latin-1')
s = socket.create_connection(('127.0.0.1', args.port), timeout=args.seconds)
answer, end = b'', time.monotonic() + args.seconds
try:
    if args.drip:
        for i in range(len(data)):
            s.sendall(data[i:i + 1])
            time.sleep(args.drip / 1000)
    else:
        s.sendall(data)
    while time.monotonic() < end:
        s.settimeout(max(0.01, end - time.monotonic()))
        piece = s.recv(65536)
        if not piece:
            break
        answer += piece
except OSError:  # reset or time over: what came before counts
    pass
if args.statuses:
    for m in re.finditer(rb'HTTP/1\.1 (\d{3})', answer):
        print(m.group(1).decode())
else:
    sys.stdout.write(answer.decode('latin-1'))
