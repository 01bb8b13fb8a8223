"""A client as plain as can be, for tests of workers: one socket and the wire's own words."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from geartrain.wire.packets import (
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    WORK_EXCEPTION,
    WORK_FAIL,
    pack_request,
)
from geartrain.wire.parser import Packet, Parser
from geartrain.worker import AsyncWorker, Worker
from servers import RunningServer

ENDS = (WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION)


class Caller:
    """A client that asks for exceptions and submits jobs."""

    def __init__(self, server: RunningServer) -> None:
        self.address = server.address
        self.handle = b""
        self.socket = socket.create_connection((server.host, server.port), timeout=20)
        self.parser = Parser()
        self.heard: deque[Packet] = deque()  # of other jobs, while one was submitted
        self.socket.sendall(pack_request(OPTION_REQ, b"exceptions"))
        assert self.hear().type == OPTION_RES

    def hear(self) -> Packet:
        """The next packet."""
        return self.heard.popleft() if self.heard else self._receive()

    def _receive(self) -> Packet:
        while (packet := self.parser.next_packet()) is None:
            data = self.socket.recv(65536)
            assert data, "the job server ended the connection"
            self.parser.feed(data)
        return packet

    def submit(self, function: str, workload: bytes = b"", unique: bytes = b"", type: int = SUBMIT_JOB) -> bytes:
        """Submit a job; its handle."""
        self.socket.sendall(pack_request(type, function.encode(), unique, workload))
        while (answer := self._receive()).type != JOB_CREATED:
            self.heard.append(answer)
        self.handle = answer.arguments[0]
        return self.handle

    def submit_background(self, function: str, workload: bytes = b"") -> bytes:
        return self.submit(function, workload, type=SUBMIT_JOB_BG)

    def follow(self) -> list[Packet]:
        """All packets of the job that runs, to its end."""
        packets = [self.hear()]
        while packets[-1].type not in ENDS:
            packets.append(self.hear())
        return packets

    def packets(self, function: str, workload: bytes = b"") -> list[Packet]:
        """Run a job; all packets about it."""
        self.submit(function, workload)
        return self.follow()

    def run(self, function: str, workload: bytes = b"") -> bytes:
        """Run a job; its result."""
        last = self.packets(function, workload)[-1]
        assert last.type == WORK_COMPLETE, last
        return last.arguments[1]

    def error(self, function: str, workload: bytes = b"") -> str:
        """Run a job that raises; what it says."""
        last = self.packets(function, workload)[-1]
        assert last.type == WORK_EXCEPTION, last
        return last.arguments[1].decode()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def until(condition: Callable[[], Any], what: str = "", seconds: float = 15) -> Any:
    """Wait until ``condition`` holds and give what it gave; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not come about in {seconds} s: {what or condition}"
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def working(worker: Worker | AsyncWorker, **options: int) -> Iterator[None]:
    """Have either kind work in the background; ``options`` are those of its ``start``."""
    if isinstance(worker, Worker):
        worker.start(**options)
        try:
            yield
        finally:
            worker.stop()
            worker.join()
        return
    started, done = threading.Event(), threading.Event()

    async def main() -> None:
        await worker.start(**options)
        started.set()
        await asyncio.to_thread(done.wait)
        worker.stop()
        await worker.join()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join(30)
        assert not thread.is_alive()
