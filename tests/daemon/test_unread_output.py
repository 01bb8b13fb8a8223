"""What many peers leave unread, wherever it waits, stays within the bounds for one and for all."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import pytest
from daemon_within import within
from good_pair import GoodPair, memory_of

from daemon_peer import DaemonPeer
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.in_process import InProcessPeer
from geartrain.wire import packets as p
from geartrain.wire.packets import pack_request
from servers import running_geartrain, wait_until

MIB = 1 << 20


def subscribe(client: DaemonPeer, count: int) -> bytes:
    """Have a client wait for one job so many times; the job's handle."""
    request = pack_request(p.SUBMIT_JOB, b"f", b"u", b"")
    handle = b""
    while count > 0:
        batch = min(count, 1000)
        client.send(request * batch)
        for _ in range(batch):
            handle = client.receive().arguments[0]
        count -= batch
    return handle


def begin(worker: DaemonPeer) -> bytes:
    """Have a worker begin the job; its handle."""
    worker.send(pack_request(p.CAN_DO, b"f") + pack_request(p.GRAB_JOB))
    return worker.receive().arguments[0]


@pytest.mark.parametrize("size", [100, 1900, 30_000])
def test_who_waits_for_a_job_many_times_has_one_bound(size: int) -> None:
    """The bound is asked while the answer is made, not when it is there."""
    with (
        running_geartrain("--max-unsent=4MiB") as server,
        GoodPair(server) as pair,
        DaemonPeer(server.port) as client,
        DaemonPeer(server.port) as worker,
    ):
        handle = subscribe(client, 50_000)
        assert begin(worker) == handle
        before = memory_of(server)
        worker.send(pack_request(p.WORK_DATA, handle, bytes(size)))
        wait_until(lambda: "peer_aborted" in server.log.read_text(), "it is dropped")
        pair.await_jobs(20)
        assert memory_of(server) < before + 20 * MIB
        worker.send(pack_request(p.WORK_COMPLETE, handle, b""))
        wait_until(lambda: server.jobs_of("f") == (0, 0), "its job ended")


def test_who_reads_gets_all_of_it_many_times() -> None:
    with (
        running_geartrain("--max-unsent=4MiB") as server,
        DaemonPeer(server.port) as client,
        DaemonPeer(server.port) as worker,
    ):
        handle = subscribe(client, 1000)
        begin(worker)
        worker.send(pack_request(p.WORK_DATA, handle, b"d" * 3000))
        for _ in range(1000):
            assert client.receive().arguments == (handle, b"d" * 3000)
        assert "peer_aborted" not in server.log.read_text()


def test_answers_that_nobody_reads_are_bounded_over_all() -> None:
    """Each is above what one peer may leave unread, and passes, since it is one packet."""
    size = 20 * MIB
    with (
        running_geartrain("--max-unsent-total=64MiB") as server,
        GoodPair(server) as pair,
        contextlib.ExitStack() as stack,
    ):
        before = memory_of(server)
        for _ in range(15):
            peer = stack.enter_context(DaemonPeer(server.port, receive_buffer=4096))
            peer.send(pack_request(p.ECHO_REQ, bytes(size)))
        wait_until(lambda: server.log.read_text().count(" peer_aborted ") >= 10, "most are dropped")
        assert memory_of(server) < before + 64 * MIB + 4 * size, "the bound, and the copies of one that is coming"
        pair.await_jobs(20)


REPORTS: dict[str, list[tuple[Any, ...]]] = {
    "1 kB": [(p.WORK_DATA, bytes(1024))],
    "100 bytes": [(p.WORK_DATA, bytes(100))],
    "mixed sizes": [(p.WORK_DATA, bytes(size)) for size in (100, 700, 3000, 30_000)],
    "warnings": [(p.WORK_WARNING, bytes(400))],
    "progress": [(p.WORK_STATUS, b"1", b"2")],
}


@pytest.mark.parametrize("kind", REPORTS)
def test_reports_to_many_that_do_not_read_are_bounded_over_all(kind: str) -> None:
    """What piles up is counted while it grows, and small pieces take no more than what is counted for them."""
    limit = 32 * MIB
    with running_geartrain(f"--max-unsent-total={limit}") as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(DaemonPeer(server.port, receive_buffer=4096)) for _ in range(100)]
        for client in clients:
            client.socket.settimeout(30)
            handle = subscribe(client, 1)
        worker = stack.enter_context(DaemonPeer(server.port))
        worker.socket.settimeout(60)
        assert begin(worker) == handle
        before, most = memory_of(server), 0
        batch = b"".join(pack_request(type, handle, *rest) for type, *rest in REPORTS[kind])
        batch *= max(100_000 // len(batch), 1)
        # The system keeps some megabytes for each.
        while server.log.read_text().count(" peer_aborted ") == 0 or most == 0:
            worker.send(batch)
            most = max(most, memory_of(server))
        for _ in range(3 * limit // len(batch) // len(clients) + 1):
            worker.send(batch)
            most = max(most, memory_of(server))
        worker.send(pack_request(p.ECHO_REQ, b""))
        worker.receive()
        most = max(most, memory_of(server))
        assert most < before + limit + 24 * MIB, "the bound, and a part of what comes in one iteration"


def test_of_all_that_do_not_read_the_worst_goes_first() -> None:
    with running_geartrain("--max-unsent-total=32MiB") as server, contextlib.ExitStack() as stack:
        worker = stack.enter_context(DaemonPeer(server.port))
        clients = [stack.enter_context(DaemonPeer(server.port, receive_buffer=4096)) for _ in range(3)]
        handles = []
        for number, client in enumerate(clients):
            client.send(pack_request(p.SET_CLIENT_ID, b"client-%d" % number))
            client.send(pack_request(p.SUBMIT_JOB, b"f", b"%d" % number, b""))
            handles.append(client.receive().arguments[0])
        for handle in handles:
            assert begin(worker) == handle
        # Beyond what the system keeps for each, 4 MiB or so: 12, 16 and 8 MiB, then 16 more for the third.
        for handle, sizes in zip(handles, (16, 20, 12), strict=True):
            for _ in range(sizes):
                worker.send(pack_request(p.WORK_DATA, handle, bytes(MIB)))
        wait_until(lambda: server.log.read_text().count(" peer_aborted ") == 1, "one is dropped")
        (line,) = (line for line in server.log.read_text().splitlines() if " peer_aborted " in line)
        assert " id=client-1 " in line  # its end reaches the client only behind what the system has kept for it
        assert f" limit_of_all={32 * MIB}" in line
        for client, sizes in ((clients[0], 16), (clients[2], 12)):
            for _ in range(sizes):
                header = client._read(12)
                assert struct.unpack(">4sI", header[:8]) == (b"\0RES", p.WORK_DATA)
                left = int.from_bytes(header[8:], "big")
                while left:
                    left -= len(client.socket.recv(min(left, MIB)))


# ── within this process ─────────────────────────────────────────────────────────────────────────────────────────────


async def started_job(daemon: Daemon, client: InProcessPeer | None = None) -> tuple[InProcessPeer, bytes]:
    """A worker that has begun a job of this client's, or of somebody else's, and the job's handle."""
    if client is not None:
        client.send(pack_request(p.SUBMIT_JOB, b"f", b"", b""))
        await client.receive()
    worker = InProcessPeer(daemon)
    worker.send(pack_request(p.CAN_DO, b"f") + pack_request(p.GRAB_JOB))
    return worker, (await worker.receive()).arguments[0]


@pytest.mark.parametrize("bound", [{"max_unsent": "1MiB"}, {"max_unsent_total": "1MiB"}], ids=["one", "all"])
def test_what_waits_behind_an_acknowledgement_is_counted(bound: dict[str, str]) -> None:
    async def act(daemon: Daemon, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(pack_request(p.SUBMIT_JOB, b"f", b"", b""))
        await reader.readexactly(12)
        worker, handle = await started_job(daemon)
        acknowledged_never = pack_request(p.SUBMIT_JOB_BG, b"g", b"", b"")
        writer.write(acknowledged_never + pack_request(p.CAN_DO, b"seen"))
        while b"seen" not in daemon.server.functions:  # noqa: ASYNC110
            await asyncio.sleep(0)
        connection = next(iter(daemon.connections))
        sent = 0
        while connection in daemon.connections:
            assert daemon.unread.total <= connection.unread < 2 * MIB
            worker.send(pack_request(p.WORK_DATA, handle, bytes(100_000)))
            sent += 100_000
            await asyncio.sleep(0)
            assert sent < 10 * MIB
        assert sent > 900_000
        assert daemon.unread.total == 0
        writer.close()

    within(act, durable=True, **bound)


@pytest.mark.parametrize("bound", [{"max_unsent": "1MiB"}, {"max_unsent_total": "1MiB"}], ids=["one", "all"])
def test_a_peer_in_this_process_that_does_not_receive_is_closed(bound: dict[str, str]) -> None:
    async def act(daemon: Daemon, port: int) -> None:
        client = InProcessPeer(daemon)
        worker, handle = await started_job(daemon, client)
        sent = 0
        while not client.closed:
            worker.send(pack_request(p.WORK_DATA, handle, bytes(100_000)))
            sent += 100_000
            await asyncio.sleep(0)
            assert sent < 10 * MIB
        assert sent > 900_000
        assert daemon.unread.total == 0
        with pytest.raises(ConnectionError):
            await client.receive()

    within(act, durable=True, **bound)


def test_what_is_too_much_for_one_iteration_is_written_before_the_end() -> None:
    async def act(daemon: Daemon, port: int) -> None:
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(120)]
        for reader, writer in pairs:
            writer.write(pack_request(p.ECHO_REQ, b""))
            await reader.readexactly(12)
        words = bytes(MIB)
        for peer in daemon.server.peers:
            peer.send(words)
        daemon.stop("the test wants it")
        for reader, writer in pairs:
            assert len(await reader.read(-1)) == MIB
            writer.close()

    within(act, durable=True, stop_timeout="5")
