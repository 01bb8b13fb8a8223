"""A client and a worker that behave, to see how they fare while others do not."""

from __future__ import annotations

import threading
import time

from daemon_peer import DaemonPeer
from geartrain.wire.packets import (
    CAN_DO,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB,
    WORK_COMPLETE,
    pack_request,
)
from servers import RunningServer

QUICK = 3.0
"""Seconds within which a job must be done; two busy cores need a hundredth of that, as long as nobody is in the way."""


class GoodPair:
    """Does one job after the other while it is entered; at the end each must have been done well, and quickly."""

    def __init__(self, server: RunningServer, function: bytes = b"good") -> None:
        self.server = server
        self.function = function
        self.seconds: list[float] = []  # that each job took
        self.trouble: list[BaseException] = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(role,)) for role in (self._work, self._submit)]

    def __enter__(self) -> GoodPair:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.await_jobs(5)
        self.ending.set()
        for thread in self.threads:
            thread.join(20)
        if kind is None:
            assert not self.trouble, f"the good ones had trouble: {self.trouble}"
            assert max(self.seconds) < QUICK, f"a job took {max(self.seconds):.2f} s"

    def await_jobs(self, count: int) -> None:
        """Return when so many more jobs have been done (or something is wrong already)."""
        wanted = len(self.seconds) + count
        deadline = time.monotonic() + 20
        while len(self.seconds) < wanted and not self.trouble and time.monotonic() < deadline:
            time.sleep(0.005)

    def _run(self, role: object) -> None:
        try:
            with DaemonPeer(self.server.port) as peer:
                role(peer)  # type: ignore[operator]
        except BaseException as error:
            self.trouble.append(error)

    def _submit(self, peer: DaemonPeer) -> None:
        while not self.ending.is_set():
            began = time.monotonic()
            workload = b"job %d" % len(self.seconds)
            peer.send(pack_request(SUBMIT_JOB, self.function, b"", workload))
            created = peer.receive()
            assert created.type == JOB_CREATED, created
            done = peer.receive()
            assert done.type == WORK_COMPLETE, done
            assert done.arguments == (*created.arguments, workload[::-1])
            self.seconds.append(time.monotonic() - began)

    def _work(self, peer: DaemonPeer) -> None:
        peer.send(pack_request(CAN_DO, self.function) + pack_request(GRAB_JOB))
        peer.socket.settimeout(1)
        while True:
            try:
                packet = peer.receive()
            except TimeoutError:
                if self.ending.is_set():
                    return
                continue
            if packet.type == NO_JOB:
                peer.send(pack_request(PRE_SLEEP))
            elif packet.type == NOOP:
                peer.send(pack_request(GRAB_JOB))
            else:
                assert packet.type == JOB_ASSIGN, packet
                handle, _, workload = packet.arguments
                peer.send(pack_request(WORK_COMPLETE, handle, workload[::-1]) + pack_request(GRAB_JOB))


def memory_of(server: RunningServer) -> int:
    """The bytes of memory that the server's process takes."""
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024
