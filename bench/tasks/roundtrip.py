#!/usr/bin/env python3
"""How much longer a blocking ``client.run`` takes than a bare socket: the same job, job server and worker for both.

The worker is a bare socket in a process of its own. Both clients take turns, a few hundred jobs each; of each turn the
median is taken, and of each pair of turns the ratio.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from geartrain import Client

sys.path.append(str(Path(__file__).resolve().parents[1]))
from server import Server

CAN_DO, PRE_SLEEP, NOOP, SUBMIT_JOB, JOB_CREATED = 1, 4, 6, 7, 8
GRAB_JOB, NO_JOB, JOB_ASSIGN, WORK_COMPLETE = 9, 10, 11, 13
TARGET = 1.5


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


def work(port: int) -> None:
    wire = Wire(port)
    wire.socket.sendall(request(CAN_DO, b"echo") + request(GRAB_JOB))
    while True:
        type, body = wire.packet()
        if type == JOB_ASSIGN:
            handle, _, workload = body.split(b"\0", 2)
            wire.socket.sendall(request(WORK_COMPLETE, handle, workload) + request(GRAB_JOB))
        elif type == NO_JOB:
            wire.socket.sendall(request(PRE_SLEEP))
        elif type == NOOP:
            wire.socket.sendall(request(GRAB_JOB))


def times(run: Callable[[bytes], bytes], count: int) -> float:
    """The median of ``count`` round trips, in microseconds."""
    taken = []
    for number in range(count):
        workload = b"%d" % number
        started = time.perf_counter()
        result = run(workload)
        taken.append(time.perf_counter() - started)
        assert result == workload
    return median(taken) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20, help="pairs of turns (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=500, help="jobs in a turn (default: %(default)s)")
    options = parser.parse_args()
    command = f"{sys.executable} -m geartrain serve --listen 127.0.0.1 --port {{port}} --store memory:"
    with Server(command) as server:
        worker = multiprocessing.Process(target=work, args=(server.port,), daemon=True)
        worker.start()
        wire = Wire(server.port)

        def bare(workload: bytes) -> bytes:
            wire.socket.sendall(request(SUBMIT_JOB, b"echo", b"", workload))
            while True:
                type, body = wire.packet()
                if type == WORK_COMPLETE:
                    return body.split(b"\0", 1)[1]

        with Client(f"127.0.0.1:{server.port}") as client:
            ways = [bare, lambda workload: client.run("echo", workload)]
            for way in ways:
                times(way, options.jobs)
            pairs = [[times(way, options.jobs) for way in ways] for _ in range(options.turns)]
        worker.terminate()
    ratio = median(ours / theirs for theirs, ours in pairs)
    print(f"bare socket  {median(pair[0] for pair in pairs):6.0f} us")
    print(f"client.run   {median(pair[1] for pair in pairs):6.0f} us")
    print(f"ratio        {ratio:6.2f}    {'reached' if ratio <= TARGET else 'MISSED'}: at most {TARGET}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
