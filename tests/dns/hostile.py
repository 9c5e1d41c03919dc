#!/usr/bin/env python3
"""Messages that no client would send, by UDP and TCP, and then a good one that must be answered.

usage: hostile.py ADDRESS PORT NAME
"""
import random
import socket
import struct
import sys

ADDRESS, PORT, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3]
GOOD = struct.pack('>HHHHHH', 77, 0x0100, 1, 0, 0, 0) + b''.join(bytes([len(p)]) + p.encode() for p in NAME.split('.')) + b'\0\0\1\0\1'


def bad_messages(rng):
    yield b''
    yield GOOD[:11]
    yield GOOD + b'x'
    yield GOOD[:2] + b'\x81\x80' + GOOD[4:]                           # an answer
    yield GOOD[:12] + b'\xc0\x0c\0\1\0\1'                             # a name that points to itself
    yield GOOD[:4] + b'\xff\xff\xff\xff\xff\xff\xff\xff' + GOOD[12:]  # counts without records
    yield GOOD[:12] + b'\x3f' * 500
    yield GOOD[:10] + b'\0\1' + GOOD[12:] + b'\0\0\x29\x04\xd0\0\0\0\0\xff\xff'
    for _ in range(300):
        message = bytearray(GOOD)
        for _ in range(rng.randrange(1, 6)):
            message[rng.randrange(len(message))] = rng.randrange(256)
        yield bytes(message[:rng.randrange(len(message) + 1)])


def good_by_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        for _ in range(10):                                            # as clients do: what came before may still fill the socket
            s.sendto(GOOD, (ADDRESS, PORT))
            try:
                return s.recv(65535)
            except TimeoutError:
                pass
    raise TimeoutError


def read_all(s, n):
    data = b''
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            return data
        data += more
    return data


def good_by_tcp():
    with socket.create_connection((ADDRESS, PORT), 5) as s:
        framed = struct.pack('>H', len(GOOD)) + GOOD
        for i in range(len(framed)):                                   # in the smallest pieces
            s.sendall(framed[i:i + 1])
        return read_all(s, struct.unpack('>H', read_all(s, 2))[0])


def main():
    rng = random.Random(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for message in bad_messages(rng):
            s.sendto(message, (ADDRESS, PORT))
    for message in list(bad_messages(rng))[:60]:
        with socket.create_connection((ADDRESS, PORT), 5) as s:
            try:
                s.sendall(struct.pack('>H', rng.choice([len(message), len(message) + 5, 0, 65535])) + message)
            except ConnectionError:
                pass                                                   # it was told to go before it had said all
    for how in good_by_udp, good_by_tcp:
        message = how()
        flags, count = struct.unpack('>HxxH', message[2:8])
        print(how.__name__, 'ok' if message[:2] == GOOD[:2] and flags & 0x800f == 0x8000 and count == 1 else message)


main()
