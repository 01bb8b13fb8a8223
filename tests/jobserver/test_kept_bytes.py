"""All that a peer can make the server keep is counted: each field of each request is filled until the server refuses.

What the interpreter really took is then compared with what the server has counted.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from world import go_on, request

from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.model import function_cost
from geartrain.jobserver.outbox import Outbox, Output

LIMIT = 8_000_000
MOST = 200_000  # requests; a kind that is not refused until then would be kept without bound, or not at all


def fill(server: JobServer, peer: Peer, make: Callable[[int], bytes], is_refused: Callable[[bytes], bool]) -> int:
    """Send what ``make`` gives for 0, 1, 2 and so on until it is refused; how many were not."""
    for start in range(0, MOST, 100):
        server.tick(server.now, server.wall)
        server.receive(peer, b"".join(map(make, range(start, start + 100))))
        answer = b"".join(peer.take())
        while peer.stalled:
            go_on(server, peer)
            answer += b"".join(peer.take())
        server.touched.clear()
        peer.touched = False
        server.take_events()
        if is_refused(answer):
            return start
    raise AssertionError("it was never refused")


def error(answer: bytes) -> bool:
    return b"\0RES\0\0\0\x13" in answer or b"ERR " in answer


def submission(kind: str, *arguments: Callable[[int], bytes]) -> Callable[[int], bytes]:
    return lambda number: request(kind, *(argument(number) for argument in arguments))


def fixed(value: bytes) -> Callable[[int], bytes]:
    return lambda _: value


def numbered(size: int) -> Callable[[int], bytes]:
    return lambda number: b"%0*d" % (size, number)


LATER = fixed(b"2000000000")
KINDS: dict[str, Callable[[int], bytes]] = {
    "small jobs": submission("SUBMIT_JOB_BG", fixed(b"f"), fixed(b""), fixed(b"")),
    "workloads": submission("SUBMIT_JOB_BG", fixed(b"f"), fixed(b""), numbered(3000)),
    "uniques": submission("SUBMIT_JOB_BG", fixed(b"f"), numbered(64), fixed(b"")),
    "jobs by their workload": submission("SUBMIT_JOB_BG", fixed(b"f"), fixed(b"-"), numbered(20)),
    "waiting clients": submission("SUBMIT_JOB", fixed(b"f"), fixed(b""), fixed(b"")),
    "clients that join": submission("SUBMIT_JOB", fixed(b"f"), fixed(b"u"), fixed(b"")),
    "jobs for later": submission("SUBMIT_JOB_EPOCH", fixed(b"f"), fixed(b""), LATER, fixed(b"")),
    "schedules": submission(
        "SUBMIT_JOB_SCHED", fixed(b"f"), fixed(b""), *[fixed(b"*")] * 3, fixed(b"5"), fixed(b"*"), fixed(b"")
    ),
    "reducers": submission("SUBMIT_REDUCE_JOB_BACKGROUND", fixed(b"f"), fixed(b""), numbered(500), fixed(b"")),
    "functions of jobs": submission("SUBMIT_JOB_BG", numbered(500), fixed(b""), fixed(b"")),
    "functions of high jobs": submission("SUBMIT_JOB_HIGH_BG", numbered(500), fixed(b""), fixed(b"")),
    "functions that are created": lambda number: b"create function %0500d\n" % number,
    "functions with a limit": lambda number: b"maxqueue %0500d 1\n" % number,
    "abilities": submission("CAN_DO", numbered(30)),
    "abilities with a time limit": submission("CAN_DO_TIMEOUT", numbered(300), fixed(b"5000")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_is_counted(kind: str) -> None:
    settings = Settings()
    settings.max_memory = LIMIT
    settings.max_abilities = 10**9
    settings.max_functions = 10**9
    settings.durable = False
    server = JobServer(settings)
    server.tick(1000.0, 1_800_000_000.0)
    peer = server.connect(Origin("127.0.0.1", 1))
    tracemalloc.start()
    try:
        taken = fill(server, peer, KINDS[kind], error)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken >= 100
    assert server.memory <= LIMIT
    assert server.memory > LIMIT * 9 // 10, "it was refused for another reason"
    # An interpreted object is larger than a compiled one; compiled, what is kept stays near what is counted.
    assert kept < 6 * LIMIT, f"{kept / taken:.0f} bytes each, counted as {server.memory / taken:.0f}"


@pytest.mark.parametrize("left", [0, 5])
def test_abilities_that_are_forgotten_leave_nothing_behind(left: int) -> None:
    server = JobServer()
    server.tick(1000.0, 1_800_000_000.0)
    peer = server.connect(Origin("127.0.0.1", 1))
    names = [b"%d" % number for number in range(20_000)]
    others = server.connect(Origin("127.0.0.1", 2))  # knows them too, so that the functions stay
    for each in (others, peer):
        tracemalloc.start()
        for start in range(0, len(names), 500):
            server.tick(server.now, server.wall)
            server.receive(each, b"".join(request("CAN_DO", name) for name in names[start : start + 500]))
        if each is others:
            tracemalloc.stop()
    try:
        for start in range(left, len(names), 500):
            server.tick(server.now, server.wall)
            server.receive(peer, b"".join(request("CANT_DO", name) for name in names[start : start + 500]))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peer.ability_count == left
    assert kept < 50_000


def test_jobs_taken_from_a_worker_are_counted() -> None:
    server = JobServer()
    peer = server.connect(Origin("127.0.0.1", 1))
    server.tick(1000.0, 1_800_000_000.0)
    before = server.memory
    for number in range(1, 3001):
        server.tick(server.now, server.wall)
        message = [request("CAN_DO", b"f"), request("SUBMIT_JOB_BG", b"f", b"", b""), request("GRAB_JOB")]
        server.receive(peer, b"".join(message) + b"cancel job H:localhost:%d\n" % number)
        peer.take()
    assert len(peer.revoked or ()) == 1000
    assert server.memory > before + 1000 * 100
    server.lost(peer)
    server.tick(server.now, server.wall)
    assert server.memory == sum(map(function_cost, server.functions))


def test_a_touched_list_does_not_grow_with_what_is_sent() -> None:
    output = Output()
    outbox = Outbox(output)
    for _ in range(100):
        outbox.send(b"x")
    assert output.touched == [outbox]
