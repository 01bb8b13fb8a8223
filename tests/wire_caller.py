"""A peer that says packets and is told what comes of them, one by one."""

from __future__ import annotations

import select
import time

from daemon_peer import DaemonPeer
from geartrain.wire import Packet, Parser, pack_request
from geartrain.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GRAB_JOB_ALL,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
)
from servers import RunningServer

READS = 1 << 20  # bytes at once


class Caller(DaemonPeer):
    """A connection that knows how the arguments of each packet are told apart, so that any bytes pass."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server.port)
        self.parser = Parser()

    def receive(self) -> Packet:
        while (packet := self.parser.next_packet()) is None:
            data = self.socket.recv(READS)
            assert data, "the server hung up"
            self.parser.feed(data)
        return packet

    def hears_nothing(self, seconds: float = 0.0) -> bool:
        """Whether nothing comes within so many seconds."""
        return not self.parser.waiting and not select.select([self.socket], [], [], seconds)[0]

    def call(self, type: int, *arguments: bytes) -> Packet:
        """Send one packet; the next one that comes."""
        self.send(pack_request(type, *arguments))
        return self.receive()

    def fence(self) -> None:
        """Return when the job server has dealt with all that was sent."""
        assert self.call(ECHO_REQ, b"fence") == Packet(ECHO_RES, (b"fence",))

    def submit(self, function: bytes, workload: bytes, unique: bytes = b"", type: int = SUBMIT_JOB_BG) -> bytes:
        """Submit a job that must be taken; its handle."""
        created = self.call(type, function, unique, workload)
        assert created.type == JOB_CREATED, created
        return created.arguments[0]

    def refusal(self, function: bytes, workload: bytes = b"", type: int = SUBMIT_JOB_BG) -> str:
        """Submit a job that must be refused; why it was."""
        error = self.call(type, function, b"", workload)
        assert error.type == ERROR, error
        assert error.arguments[0] == b"QUEUE_ERROR"
        return error.arguments[1].decode()

    def insist(self, function: bytes, workload: bytes, seconds: float = 20) -> bytes:
        """Submit a job again and again until it is taken; its handle."""
        deadline = time.monotonic() + seconds
        while (answer := self.call(SUBMIT_JOB_BG, function, b"", workload)).type != JOB_CREATED:
            assert time.monotonic() < deadline, f"refused for {seconds} s: {answer}"
            time.sleep(0.05)
        return answer.arguments[0]

    def can_do(self, *functions: bytes) -> None:
        self.send(b"".join(pack_request(CAN_DO, name) for name in functions))

    def complete(self, job: Packet, result: bytes = b"") -> None:
        self.send(pack_request(WORK_COMPLETE, job.arguments[0], result))

    def take_all(self) -> list[Packet]:
        """Take and complete jobs until there are no more."""
        jobs = []
        while (job := self.call(GRAB_JOB_ALL)).type != NO_JOB:
            jobs.append(job)
            self.complete(job)
        return jobs

    def await_job(self, grab: int = GRAB_JOB_ALL) -> Packet:
        """The next job, slept for as well behaved workers do."""
        while (answer := self.call(grab)).type == NO_JOB:
            woken = self.call(PRE_SLEEP)
            assert woken.type == NOOP, woken
        return answer
