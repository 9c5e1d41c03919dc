"""Opens connections that have carried one request, keeps them, prints how much the engine has grown for each, in bytes.

idle.py ENGINE_PID PORT HOW_MANY [tls]: the path answered is /, by the gateway itself; any status will do.
"""
import resource
import socket
import ssl
import sys
import time

pid, port, many, tls = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), len(sys.argv) > 4


def resident():
    with open(f'/proc/{pid}/status', encoding='ascii') as f:
        return next(int(line.split()[1]) for line in f if line.startswith('VmRSS')) * 1024


def open_one():
    s = socket.create_connection(('127.0.0.1', port), timeout=10)
    if tls:
        s = context.wrap_socket(s, server_hostname='a.test')
    s.sendall(b'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
    got = b''
    while b'\r\n\r\n' not in got:
        piece = s.recv(4096)
        if not piece:
            sys.exit(f'closed behind {got!r}')
        got += piece
    return s


context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
warm = [open_one() for _ in range(50)]
time.sleep(0.3)
before = resident()
kept = [open_one() for _ in range(many)]
time.sleep(0.5)
print((resident() - before) // many)
