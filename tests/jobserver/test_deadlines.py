"""The heap of what will happen: soonest first, and dead entries swept out in time."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from world import World, request

from geartrain.jobserver import Origin
from geartrain.jobserver.deadlines import Deadlines


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=200))
def test_what_is_due_comes_up_soonest_first_and_the_dead_never(entries: list[tuple[int, bool]]) -> None:
    alive: set[tuple[int, int]] = set()
    deadlines = Deadlines(lambda number, assignment: (number, assignment) in alive)
    for number, (at, dies) in enumerate(entries):
        alive.add((number, 7))
        deadlines.add(float(at), number, 7)
        if dies:
            alive.discard((number, 7))
            deadlines.drop()
    assert deadlines.live == len(alive)
    assert len(deadlines.heap) <= 2 * deadlines.live + 65
    expected = [number for at, number in sorted((at, number) for number, (at, dies) in enumerate(entries) if not dies)]
    came = []
    for now in range(51):
        while (number := deadlines.pop_due(float(now))) >= 0:
            assert entries[number][0] == now
            came.append(number)
    assert came == expected
    assert deadlines.live == 0
    assert deadlines.next_at() == 0.0


def test_a_million_jobs_with_a_time_limit_that_end_early_leave_a_small_heap() -> None:
    """Each assignment puts a timer into the heap; almost all jobs end long before it."""
    world = World()
    server = world.real
    peer = server.connect(Origin("127.0.0.1", 1))
    server.receive(peer, request("CAN_DO_TIMEOUT", b"f", b"3600000"))
    one = request("SUBMIT_JOB_BG", b"f", b"", b"x") + request("GRAB_JOB")
    for number in range(1, 20_001):
        server.receive(peer, one + request("WORK_COMPLETE", b"H:t:%d" % number, b""))
        peer.take()
        assert len(server.timeouts.heap) <= 65
    assert server.timeouts.live == 0


def test_later_jobs_that_are_cancelled_leave_a_small_heap(world: World) -> None:
    server = world.real
    peer = server.connect(Origin("127.0.0.1", 1))
    at = b"%d" % (world.wall + 1000)
    server.receive(peer, request("SUBMIT_JOB_EPOCH", b"f", b"", at, b"x") * 5000)
    assert len(server.delayed.heap) == 5000
    numbers = list(range(1, 5001))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        server.receive(peer, b"cancel job H:t:%d\n" % number)
    peer.take()
    assert server.delayed.live == 0
    assert len(server.delayed.heap) <= 65


def test_time_limits_are_kept_while_all_that_live_stand_in_the_heap_that_is_left() -> None:
    """The latest of 200 jobs end, then the worker hangs: the other 67 fail when their time is up."""
    world = World()
    server = world.real
    peer = server.connect(Origin("127.0.0.1", 1))
    server.receive(peer, request("CAN_DO_TIMEOUT", b"f", b"10000"))
    server.receive(peer, (request("SUBMIT_JOB_BG", b"f", b"", b"x") + request("GRAB_JOB")) * 200)
    for number in range(200, 67, -1):
        server.receive(peer, request("WORK_COMPLETE", b"H:t:%d" % number, b""))
    assert server.timeouts.old
    assert not server.timeouts.heap
    assert server.running == 67
    server.tick(server.now + 11, server.wall + 11)
    assert server.running == 0


def test_later_jobs_come_up_while_all_that_live_stand_in_the_heap_that_is_left(world: World) -> None:
    server = world.real
    peer = server.connect(Origin("127.0.0.1", 1))
    server.receive(peer, request("SUBMIT_JOB_EPOCH", b"f", b"", b"%d" % (world.wall + 10), b"x") * 200)
    for number in range(200, 67, -1):
        server.receive(peer, b"cancel job H:t:%d\n" % number)
    assert server.delayed.old
    assert not server.delayed.heap
    server.tick(server.now + 11, server.wall + 11)
    assert server.functions[b"f"].queued == 67
