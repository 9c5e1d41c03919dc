#!/usr/bin/env python3
"""A server of the domain name system that misbehaves by the name it is asked for; by UDP and TCP on 127.0.0.1:PORT.

usage: upstream.py PORT

    nope.*     NXDOMAIN          silent.*  no answer       forged.*  wrong id, wrong question and junk, then 192.0.2.77
    big.*      300 addresses by TCP, by UDP none and TC    any other 192.0.2.77
"""
import socket
import struct
import sys
import threading


def answer(query, udp):
    """The messages that answer this query, in order."""
    ident, _, _ = struct.unpack('>HHH', query[:6])
    end = query.index(b'\0', 12) + 5
    question = query[12:end]
    name = question[1:1 + question[0]].decode().lower()
    flags, count = 0x8180, 1
    if name == 'silent':
        return []
    if name == 'nope':
        flags, count = 0x8183, 0
    if name == 'big':
        flags, count = (0x8380, 0) if udp else (0x8180, 300)
    record = b'\xc0\x0c' + struct.pack('>HHIH', 1, 1, 60, 4) + bytes([192, 0, 2, 77])
    good = struct.pack('>HHHHHH', ident, flags, 1, count, 0, 0) + question + record * count
    if name != 'forged':
        return [good]
    poison = good[:-4] + bytes([6, 6, 6, 6])
    other = bytearray(poison)
    other[14] ^= 0x20 # another letter's case
    return [struct.pack('>H', ident ^ 1) + poison[2:], bytes(other), poison[:20], good]


def serve_tcp(listener):
    while True:
        client = listener.accept()[0]
        with client, client.makefile('rb') as lines:
            while len(head := lines.read(2)) == 2:
                for message in answer(lines.read(struct.unpack('>H', head)[0]), False):
                    client.sendall(struct.pack('>H', len(message)) + message)


def main():
    port = int(sys.argv[1])
    listener = socket.create_server(('127.0.0.1', port))
    threading.Thread(target=serve_tcp, args=(listener,), daemon=True).start()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(('127.0.0.1', port))
    print('ready', flush=True)
    while True:
        query, client = udp.recvfrom(65535)
        for message in answer(query, True):
            udp.sendto(message, client)


main()
