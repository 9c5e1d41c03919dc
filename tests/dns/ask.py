#!/usr/bin/env python3
"""Asks for the address of NAME by UDP, one question after the other, until STOP is there; each has to be answered within 3 s, at its first try.

usage: ask.py ADDRESS PORT NAME STOP
"""
import os
import socket
import struct
import sys

ADDRESS, PORT, NAME, STOP = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
QUESTION = b''.join(bytes([len(p)]) + p.encode() for p in NAME.split('.')) + b'\0\0\1\0\1'


def main():
    asked = bad = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(3)
        while not os.path.exists(STOP):
            asked = asked + 1 & 0xffff
            s.sendto(struct.pack('>HHHHHH', asked, 0x0100, 1, 0, 0, 0) + QUESTION, (ADDRESS, PORT))
            try:
                ident, flags, _, count = struct.unpack('>HHHH', s.recv(65535)[:8])
                bad += (ident, flags & 15, count) != (asked, 0, 1)
            except TimeoutError:
                bad += 1
            if asked == 1:
                print('asking', flush=True)
    print('bad', bad, 'of many' if asked > 20 else asked)


main()
