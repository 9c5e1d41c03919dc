#!/usr/bin/python3
"""users.py - makes a user as Kafka's own tools do: AlterUserScramCredentials (API 51, KIP-554), written by hand because no Debian client has it.

usage: users.py HOST:PORT NAME PASSWORD [MECHANISM...]      SCRAM-SHA-256 and SCRAM-SHA-512 unless said
"""
import hashlib
import os
import socket
import struct
import sys

MECHANISMS = {'SCRAM-SHA-256': (1, 'sha256'), 'SCRAM-SHA-512': (2, 'sha512')}


def compact(data):
    """Length and bytes, as in flexible versions; shorter than 127 bytes."""
    return bytes([len(data) + 1]) + data


def upsertion(name, password, mechanism):
    number, digest = MECHANISMS[mechanism]
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, 4096)
    return compact(name.encode()) + struct.pack('>bi', number, 4096) + compact(salt) + compact(salted) + b'\0'


def receive(s, n):
    data = b''
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            sys.exit('users: the connection ended')
        data += more
    return data


def main():
    host, port = sys.argv[1].split(':')
    name, password = sys.argv[2:4]
    wanted = sys.argv[4:] or list(MECHANISMS)
    body = b'\x01' + bytes([len(wanted) + 1]) + b''.join(upsertion(name, password, m) for m in wanted) + b'\0'
    head = struct.pack('>hhih', 51, 0, 1, 5) + b'users' + b'\0'
    with socket.create_connection((host, int(port)), 10) as s:
        s.sendall(struct.pack('>i', len(head) + len(body)) + head + body)
        answer = receive(s, struct.unpack('>i', receive(s, 4))[0])
    # correlation id 4, tags 1, throttle 4, results: count 1, user, error
    at = 4 + 1 + 4
    if answer[at] != 2:
        sys.exit('users: no result')
    at += 1 + 1 + answer[at + 1] - 1
    error = struct.unpack('>h', answer[at:at + 2])[0]
    if error:
        sys.exit(f'users: error {error}')


main()
