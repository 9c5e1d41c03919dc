"""bytes_stop.py PORT - an echo through a TCPRoute that goes on for two seconds while the node stops."""
import socket
import sys
import time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
try:
    for i in range(40):
        m = b"line %d\n" % i
        s.sendall(m)
        got = b""
        while len(got) < len(m) and (piece := s.recv(100)):
            got += piece
        if got != m:
            raise AssertionError("wanted %r, got %r" % (m, got))
        print("# begun", flush=True) if i == 0 else time.sleep(0.05)
    s.shutdown(socket.SHUT_WR)
    if s.recv(100):
        raise AssertionError("more than was sent")
    print("ok stop: bytes go on to their end")
except Exception as e:  # noqa: BLE001
    print("not ok stop: bytes go on to their end\n#   %r" % e)
