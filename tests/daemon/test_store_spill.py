"""Large workloads leave memory once the store has them, and are read again, bit by bit, when workers ask for jobs."""

from __future__ import annotations

import random
import socket
import struct

import pytest
from good_pair import memory_of
from lives import FilePlace, Place, ServicePlace, kill, life, on, tells, told_by

from geartrain.wire import Packet, pack_request
from geartrain.wire import packets as p
from servers import wait_until
from wire_caller import Caller

SPILL = "--spill-above=1KiB"
PATIENCE = "--store-timeout=200ms"
MEGABYTE = 1 << 20


def _workload(number: int, size: int = 100_000) -> bytes:
    return random.Random(number).randbytes(size)


def test_more_than_memory_is_meant_for_may_wait(sqlite: FilePlace) -> None:
    count = 300
    handles = []
    with life(sqlite) as server, Caller(server) as client:
        before = memory_of(server)
        for number in range(count):
            client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", _workload(number, MEGABYTE)))
            if number >= 4:
                handles.append(client.receive().arguments[0])
        handles += [client.receive().arguments[0] for _ in range(4)]
        assert memory_of(server) - before < 80 * MEGABYTE
        kill(server)
    with life(sqlite) as server, Caller(server) as worker:
        worker.can_do(b"f")
        for number, handle in enumerate(handles):
            assert worker.call(p.GRAB_JOB) == Packet(p.JOB_ASSIGN, (handle, b"f", _workload(number, MEGABYTE)))
            worker.send(pack_request(p.WORK_COMPLETE, handle, b""))
        worker.fence()
        assert memory_of(server) - before < 80 * MEGABYTE
        assert server.jobs_of("f") == (0, 0)


def test_they_are_given_whole_by_each_kind_of_grab_in_this_life_and_the_next(place: Place) -> None:
    with life(place, SPILL) as server, Caller(server) as client:
        handles = [client.submit(b"f", _workload(number), b"u%d" % number) for number in (0, 1, 2)]
        reduced = client.call(p.SUBMIT_REDUCE_JOB_BACKGROUND, b"f", b"u3", b"red", b"", _workload(3))
        handles += [reduced.arguments[0], client.submit(b"f", b"small"), client.submit(b"f", _workload(5), b"-")]
        assert client.submit(b"f", _workload(5), b"-") == handles[5]
        with Caller(server) as worker:
            _take_by_each_kind_of_grab(worker, handles)
            kill(server)
    with life(place, SPILL) as server, Caller(server) as worker:
        _take_by_each_kind_of_grab(worker, handles)


def _take_by_each_kind_of_grab(worker: Caller, handles: list[bytes]) -> None:
    worker.can_do(b"f")
    grabs = (p.GRAB_JOB, p.GRAB_JOB_UNIQ, p.GRAB_JOB_ALL, p.GRAB_JOB_ALL, p.GRAB_JOB, p.GRAB_JOB, p.GRAB_JOB)
    worker.send(b"".join(map(pack_request, grabs)) + pack_request(p.ECHO_REQ, b"behind"))
    assert [worker.receive() for _ in range(8)] == [
        Packet(p.JOB_ASSIGN, (handles[0], b"f", _workload(0))),
        Packet(p.JOB_ASSIGN_UNIQ, (handles[1], b"f", b"u1", _workload(1))),
        Packet(p.JOB_ASSIGN_UNIQ, (handles[2], b"f", b"u2", _workload(2))),
        Packet(p.JOB_ASSIGN_ALL, (handles[3], b"f", b"u3", b"red", _workload(3))),
        Packet(p.JOB_ASSIGN, (handles[4], b"f", b"small")),
        Packet(p.JOB_ASSIGN, (handles[5], b"f", _workload(5))),
        Packet(p.NO_JOB, ()),
        Packet(p.ECHO_RES, (b"behind",)),
    ]


# What may happen while a workload is read


@on("redis")
@pytest.mark.parametrize("suddenly", [True, False])
def test_the_worker_dies(place: Place, suddenly: bool) -> None:
    with life(place, SPILL) as server, Caller(server) as client, Caller(server) as second:
        handle = client.submit(b"f", _workload(1))
        with place.held_back():
            with Caller(server) as first:
                first.can_do(b"f")
                first.send(pack_request(p.GRAB_JOB))
                wait_until(lambda: server.jobs_of("f") == (1, 1), "it is the first worker's")
                if suddenly:
                    first.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # One that has said goodbye might still read what it has asked for.
            wait_until(lambda: server.jobs_of("f") == (1, 0) or not suddenly, "it has lost its worker")
            second.can_do(b"f")
        assert second.await_job(p.GRAB_JOB) == Packet(p.JOB_ASSIGN, (handle, b"f", _workload(1)))


@on("postgresql")
def test_the_job_is_cancelled(place: Place) -> None:
    with life(place, SPILL) as server, Caller(server) as client, Caller(server) as worker:
        handle = client.submit(b"f", _workload(1))
        worker.can_do(b"f")
        with place.held_back():
            worker.send(pack_request(p.GRAB_JOB) + pack_request(p.ECHO_REQ, b"behind"))
            wait_until(lambda: server.jobs_of("f") == (1, 1), "it is the worker's")
            assert server.ask(f"cancel job {handle.decode()}") == ["OK"]
            assert worker.hears_nothing()
        assert worker.receive() == Packet(p.NO_JOB, ())
        assert worker.receive() == Packet(p.ECHO_RES, (b"behind",))
        other = client.submit(b"f", _workload(2))
        kill(server)
    with life(place, SPILL) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert [job.arguments[0] for job in worker.take_all()] == [other]


@pytest.mark.parametrize(
    ("place", "trouble"),
    [("postgresql", "down"), ("redis", "held_back"), ("memcached", "held_back")],
    indirect=["place"],
)
def test_the_store_does_not_answer(place: ServicePlace, trouble: str) -> None:
    with life(place, SPILL, PATIENCE) as server, Caller(server) as client, Caller(server) as worker:
        handle = client.submit(b"f", _workload(1))
        worker.can_do(b"f")
        with getattr(place, trouble)():
            assert worker.call(p.GRAB_JOB) == Packet(p.NO_JOB, ())
            assert server.jobs_of("f") == (1, 0)
            client.submit(b"f", b"small", type=p.SUBMIT_JOB)
            assert worker.await_job().arguments[3] == b"small"
        said = ("read_failed", "store_hangs")
        wait_until(lambda: any(event in told_by(server) for event in said), "the log says why")
        assert worker.await_job(p.GRAB_JOB) == Packet(p.JOB_ASSIGN, (handle, b"f", _workload(1)))


@on("sqlite")
def test_it_can_not_be_made_sense_of(place: Place) -> None:
    with life(place, SPILL) as server, Caller(server) as client, Caller(server) as worker:
        handles = [client.submit(b"f", _workload(number)) for number in range(3)]
        place.spoil(int(handles[1].rpartition(b":")[2]))
        worker.can_do(b"f")
        assert worker.call(p.GRAB_JOB).arguments[0] == handles[0]
        assert worker.call(p.GRAB_JOB) == Packet(p.NO_JOB, ())
        assert worker.call(p.GRAB_JOB).arguments[0] == handles[2]
        tells(server, "workload_unreadable")
        kill(server)
    with life(place, SPILL) as server:
        assert server.jobs_of("f") == (2, 0)
        assert "job_quarantined" not in told_by(server)  # it has been before
