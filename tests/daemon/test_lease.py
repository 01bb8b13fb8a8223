"""A lease that ends while the process stands still: nothing that was decided before is written after it."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.transport import Transport, choose, has_epoll, loop_factory
from geartrain.jobserver.records import StoredJob
from geartrain.wire.packets import CAN_DO, GRAB_JOB_UNIQ, JOB_ASSIGN_UNIQ, NO_JOB, pack_request

ASK = pack_request(CAN_DO, b"mill") + pack_request(GRAB_JOB_UNIQ)


def stored(number: int) -> StoredJob:
    return StoredJob(number, number << 20, b"mill", b"", b"grain", 5, 1, 0.0, b"", 0, time.time())


async def member() -> tuple[Daemon, socket.socket]:
    """A daemon as in a fleet, with a job that is its own while it holds the lease, and where it listens."""
    daemon = Daemon(Config.load({"store": "memory:", "fleet": "t"}))
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    listener.setblocking(False)
    await daemon.start([listener])
    daemon.open_iteration()
    daemon.server.give_numbers(1, 1000)
    daemon.server.adopt(stored(7))
    worker = socket.create_connection(address)
    worker.setblocking(False)
    return daemon, worker


async def read(worker: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(worker, 1000), 10)


@pytest.mark.parametrize("transport", ["epoll", "asyncio"])
@pytest.mark.parametrize("holds", [True, False])
def test_what_comes_after_the_lease_is_given_no_stored_job(transport: Transport, holds: bool) -> None:
    if transport == "epoll" and not has_epoll():
        pytest.skip("the transport in C is not there: an interpreted install")

    async def story() -> None:
        daemon, worker = await member()
        daemon.hold_lease(time.monotonic() + (30 if holds else 0.05))
        if not holds:
            time.sleep(0.1)  # noqa: ASYNC251 - as a process that is frozen
        await asyncio.get_running_loop().sock_sendall(worker, ASK)
        answer = await read(worker)
        assert int.from_bytes(answer[4:8], "big") == (JOB_ASSIGN_UNIQ if holds else NO_JOB)
        assert daemon.server.lapsed is not holds
        worker.close()
        daemon.stop("the test is over")
        await daemon.run()

    with asyncio.Runner(loop_factory=loop_factory(choose(transport))) as runner:
        runner.run(story())


@pytest.mark.parametrize("transport", ["epoll", "asyncio"])
def test_an_assignment_is_not_written_when_the_lease_has_ended_meanwhile(transport: Transport) -> None:
    if transport == "epoll" and not has_epoll():
        pytest.skip("the transport in C is not there: an interpreted install")

    async def story() -> None:
        daemon, worker = await member()
        await asyncio.get_running_loop().sock_sendall(worker, ASK[: len(ASK) // 2])
        while not daemon.server.peers:  # noqa: ASYNC110 - the job server knows no events
            await asyncio.sleep(0)
        (peer,) = daemon.server.peers
        daemon.hold_lease(time.monotonic() + 0.05)
        daemon.server.receive(peer, ASK[len(ASK) // 2 :])
        assert peer.running is not None, "it was assigned in time"
        time.sleep(0.1)  # noqa: ASYNC251 - as a process that is frozen
        try:
            answer = await read(worker)
        except ConnectionError:
            answer = b""
        assert not answer, "its connection is closed"
        worker.close()
        daemon.stop("the test is over")
        await daemon.run()

    with asyncio.Runner(loop_factory=loop_factory(choose(transport))) as runner:
        runner.run(story())
