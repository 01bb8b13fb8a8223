"""A bare socket, and the loop of a worker on it: what no worker or client in Python can be faster than.

As a program it is the worker for geartrain's tasks: one receive, one send, the arguments and the result as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable

import trivial

CAN_DO, PRE_SLEEP, NOOP, SUBMIT_JOB, JOB_CREATED = 1, 4, 6, 7, 8
GRAB_JOB, NO_JOB, JOB_ASSIGN, WORK_COMPLETE = 9, 10, 11, 13


def request(type: int, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return struct.pack(">4sII", b"\0REQ", type, len(body)) + body


class Wire:
    """A bare socket and the packets that come over it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""

    def packet(self) -> tuple[int, bytes]:
        while True:
            if len(self.unread) >= 12:
                type, size = struct.unpack_from(">II", self.unread, 4)
                if len(self.unread) >= 12 + size:
                    body, self.unread = self.unread[12 : 12 + size], self.unread[12 + size :]
                    return type, body
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the job server ended the connection")
            self.unread += data


def work(port: int, function: bytes, perform: Callable[[bytes], bytes]) -> None:
    wire = Wire(port)
    wire.socket.sendall(request(CAN_DO, function) + request(GRAB_JOB))
    while True:
        type, body = wire.packet()
        if type == JOB_ASSIGN:
            handle, _, workload = body.split(b"\0", 2)
            wire.socket.sendall(request(WORK_COMPLETE, handle, perform(workload)) + request(GRAB_JOB))
        elif type == NO_JOB:
            wire.socket.sendall(request(PRE_SLEEP))
        elif type == NOOP:
            wire.socket.sendall(request(GRAB_JOB))


def add(workload: bytes) -> bytes:
    return json.dumps(trivial.add(*json.loads(workload))).encode()


if __name__ == "__main__":
    work(int(os.environ["GEARMAN_SERVERS"].rpartition(":")[2]), b"add", add)
