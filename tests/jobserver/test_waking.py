"""Who is woken for a job, and that no worker keeps a job from the others (section 3.5)."""

from __future__ import annotations

import pytest
from world import World, request

SLEEP = request("CAN_DO", b"f") + request("PRE_SLEEP")
JOB = request("SUBMIT_JOB_BG", b"f", b"", b"x")


def sleeping(world: World, *names: str) -> None:
    for name in names:
        world.connect(name)
        world.send(name, SLEEP)


def woken(world: World) -> list[str]:
    return [name for name, peer in world.naive.peers.items() if peer.woken_for is not None]


def test_a_woken_worker_that_does_not_grab_is_passed_over_after_a_second(world: World) -> None:
    sleeping(world, "a", "b", "c")
    world.connect("client")
    world.send("client", JOB)
    assert woken(world) == ["a"]
    world.wait(0.99)
    assert woken(world) == ["a"]
    world.wait(0.02)
    assert woken(world) == ["b"]
    world.wait(1)
    assert woken(world) == ["c"]
    world.wait(1)
    assert woken(world) == []
    assert world.real.next_deadline() == 0


def test_a_worker_that_never_grabs_but_sleeps_again_and_again_keeps_no_job_from_others(world: World) -> None:
    sleeping(world, "lazy", "good")
    world.connect("client")
    world.send("client", JOB)
    for _ in range(4):
        world.wait(0.5)
        world.send("lazy", request("PRE_SLEEP"))
    assert "good" in woken(world) or world.naive.peers["good"].asleep is None


def test_one_noop_a_sleep_however_many_jobs_come(world: World) -> None:
    sleeping(world, "a")
    world.connect("client")
    peer = world.peers["a"]
    world.real.receive(world.peers["client"], JOB * 10)
    assert b"".join(peer.take()).count(b"\0RES\0\0\0\x06") == 1


@pytest.mark.parametrize(("wakeups", "expected"), [(0, 5), (1, 2), (2, 4), (3, 5), (100, 5)])
def test_so_many_are_woken_for_each_job(wakeups: int, expected: int) -> None:
    world = World(worker_wakeup=wakeups)
    sleeping(world, *"abcde")
    world.connect("client")
    world.send("client", JOB * 2)
    assert len(woken(world)) == expected


def test_a_woken_worker_that_takes_another_functions_job_leaves_nobody_waiting(world: World) -> None:
    """``both`` is woken for g and takes f's job, which is of higher priority: g's is offered to the next."""
    world.connect("both")
    world.send("both", request("CAN_DO", b"f") + request("CAN_DO", b"g") + request("PRE_SLEEP"))
    world.connect("other")
    world.send("other", request("CAN_DO", b"g") + request("PRE_SLEEP"))
    world.connect("client")
    world.send("client", request("SUBMIT_JOB_LOW_BG", b"g", b"", b"x"))
    world.send("client", request("SUBMIT_JOB_HIGH_BG", b"f", b"", b"x"))
    world.send("both", request("GRAB_JOB"))
    assert woken(world) == ["other"]


def test_no_patience_at_all_still_ends() -> None:
    world = World(wake_timeout=0.0)
    sleeping(world, *"abc")
    world.connect("client")
    world.send("client", JOB)
    world.wait(0)
    assert woken(world) == []


def test_a_thousand_sleepers_of_many_functions_are_found_in_their_order(world: World) -> None:
    """Sleepers that got up in any order have left no gap in the others' lists."""
    world = World()
    world.connect("client")
    names = [str(number) for number in range(60)]
    for number, name in enumerate(names):
        world.connect(name)
        world.send(name, b"".join(request("CAN_DO", b"f%d" % (number % k)) for k in (2, 3, 5)) + request("PRE_SLEEP"))
    for name in names[::7]:
        world.send(name, request("RESET_ABILITIES"))
    for name in names[::11]:
        world.disconnect(name)
    for name in names[1::13]:
        world.send(name, request("GRAB_JOB"))
    for function in (b"f0", b"f1", b"f2", b"f4"):
        world.send("client", request("SUBMIT_JOB_BG", function, b"", b"x") * 20)
