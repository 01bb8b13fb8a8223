"""A worker by hand, for tests of clients: one socket, and each packet sent when the test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from geartrain.wire.packets import (
    CAN_DO,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    WORK_COMPLETE,
    pack_request,
)
from geartrain.wire.parser import Packet, Parser
from servers import RunningServer


class Assigned(NamedTuple):
    """A job in the worker's hands."""

    handle: bytes
    function: bytes
    unique: bytes
    workload: bytes


class Hands:
    """A worker that can do some functions and waits for the test to tell it what to send."""

    def __init__(self, server: RunningServer, *functions: str) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = Parser()
        for function in functions:
            self.send(CAN_DO, function.encode())

    def send(self, type: int, *arguments: bytes) -> None:
        self.socket.sendall(pack_request(type, *arguments))

    def hear(self) -> Packet:
        while (packet := self.parser.next_packet()) is None:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError
            self.parser.feed(data)
        return packet

    def take(self) -> Assigned:
        """Sleep until there is a job, and take it."""
        self.send(GRAB_JOB_UNIQ)
        while (packet := self.hear()).type != JOB_ASSIGN_UNIQ:
            if packet.type == NO_JOB:
                self.send(PRE_SLEEP)
            elif packet.type == NOOP:
                self.send(GRAB_JOB_UNIQ)
        return Assigned(*packet.arguments)

    def look(self) -> Assigned | None:
        """Take a job if there is one now."""
        self.send(GRAB_JOB_UNIQ)
        packet = self.hear()
        return Assigned(*packet.arguments) if packet.type == JOB_ASSIGN_UNIQ else None

    def complete(self, job: Assigned, result: bytes) -> None:
        self.send(WORK_COMPLETE, job.handle, result)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that works with these hands
        self.socket.close()

    def __enter__(self) -> Hands:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def working(
    server: RunningServer, function: str, work: Callable[[Hands, Assigned], None] | None = None
) -> Iterator[list[Assigned]]:
    """A worker that does every job of ``function``: by ``work``, else the workload comes back reversed.

    Gives the jobs it has taken.
    """
    taken: list[Assigned] = []
    hands = Hands(server, function)

    def serve() -> None:
        with contextlib.suppress(OSError, EOFError):  # the test or the job server is through with it
            while True:
                job = hands.take()
                taken.append(job)
                if work is None:
                    hands.complete(job, job.workload[::-1])
                else:
                    work(hands, job)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield taken
    finally:
        hands.close()
        thread.join(20)
        assert not thread.is_alive()
