"""A job that loses its workers must not keep the others waiting, nor wait for ever itself."""

from __future__ import annotations

from typing import cast

import pytest
from world import World, request

from geartrain.jobserver.links import MAX_PASSED
from geartrain.jobserver.model import MAX_ATTEMPTS
from geartrain.jobserver.rules.attempts import LONGEST_PAUSE


def lose(world: World, *functions: bytes) -> None:
    """A worker that has just come takes a job and dies."""
    world.connect("victim")
    world.send("victim", b"".join(request("CAN_DO", function) for function in functions) + request("GRAB_JOB"))
    assert world.naive.running(world.naive.peers["victim"])
    world.disconnect("victim")


def submit(world: World, function: bytes, kind: str = "SUBMIT_JOB_BG") -> None:
    world.send("client", request(kind, function, b"", b"x"))


def done(world: World) -> int:
    """The number of the job that the worker gets next, and completes; 0 if it gets none."""
    world.send("worker", request("GRAB_JOB"))
    held = world.naive.running(world.naive.peers["worker"])
    if not held:
        return 0
    world.send("worker", request("WORK_COMPLETE", world.naive.handle(held[0]), b""))
    return held[0].number


@pytest.fixture
def crowd(world: World) -> World:
    for name in ("client", "worker"):
        world.connect(name)
    return world


def test_it_is_passed_by_so_many_and_then_has_its_turn(crowd: World) -> None:
    submit(crowd, b"f")
    lose(crowd, b"f")
    crowd.send("worker", request("CAN_DO", b"f"))
    got = []
    for _ in range(MAX_PASSED + 10):
        submit(crowd, b"f")
        got.append(done(crowd))
    assert got.index(1) == MAX_PASSED
    assert sorted(got) == list(range(1, MAX_PASSED + 11))


def test_what_passed_a_job_that_is_gone_does_not_count_for_the_next(crowd: World) -> None:
    submit(crowd, b"f")
    lose(crowd, b"f")
    crowd.send("worker", request("CAN_DO", b"f"))
    for _ in range(MAX_PASSED - 1):
        submit(crowd, b"f")
        done(crowd)
    crowd.send("client", b"cancel job H:t:1\n")
    submit(crowd, b"f")
    crowd.send("worker", request("CANT_DO", b"f"))
    lose(crowd, b"f")
    for _ in range(2):
        submit(crowd, b"f")
    crowd.send("worker", request("CAN_DO", b"f"))
    assert [done(crowd) for _ in range(3)] == [MAX_PASSED + 2, MAX_PASSED + 3, MAX_PASSED + 1]


def test_a_count_of_lost_workers_at_its_end_stays_there(crowd: World) -> None:
    submit(crowd, b"f")
    job = crowd.real.jobs.get(1)
    assert job is not None
    job.attempts = crowd.naive.jobs[0].attempts = MAX_ATTEMPTS
    crowd.connect("victim")
    crowd.real.receive(crowd.peers["victim"], request("CAN_DO", b"f") + request("GRAB_JOB"))
    crowd.real.lost(crowd.peers["victim"])
    assert job.attempts == MAX_ATTEMPTS


def test_pauses_grow_and_the_operator_is_told(crowd: World) -> None:
    submit(crowd, b"bad")
    lose(crowd, b"bad")
    assert not crowd.real.take_events(), "a lost worker is nothing unusual"
    pauses: list[float] = []
    for count in range(2, 11):
        lose(crowd, b"bad")
        [(event, _, fields)] = crowd.real.take_events()
        assert (event, fields["function"], fields["handle"]) == ("worker_lost", "bad", "H:t:1")
        assert fields["lost_workers"] == count
        pauses.append(cast(float, fields["next_try_in"]))
        crowd.send("worker", request("CAN_DO", b"bad") + request("GRAB_JOB"))
        assert not crowd.naive.running(crowd.naive.peers["worker"])
        crowd.send("worker", request("CANT_DO", b"bad"))
        crowd.wait(pauses[-1] + 0.01)
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_a_client_that_leaves_takes_its_pausing_job_along(crowd: World) -> None:
    submit(crowd, b"bad", "SUBMIT_JOB")
    lose(crowd, b"bad")
    lose(crowd, b"bad")
    crowd.disconnect("client")
    assert not len(crowd.real.jobs)


@pytest.mark.parametrize("kind", ["SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH_BG"])
def test_each_new_worker_begins_with_another_function(crowd: World, kind: str) -> None:
    """As the processes of a pool do, each of which the next bad job ends."""
    for _ in range(4):
        submit(crowd, b"bad", kind)
        submit(crowd, b"worse", kind)
        submit(crowd, b"good", kind)
    lost = []
    for _ in range(6):
        lose(crowd, b"good", b"worse", b"bad")
        [job] = [job for job in crowd.naive.jobs if job.attempts and job.number not in lost]
        lost.append(job.number)
    names = {job.number: job.function for job in crowd.naive.jobs}
    assert [names[number] for number in lost] == [b"bad", b"worse", b"good"] * 2
