"""Batches in memory: how their room opens and closes, whatever job servers, the network and the clock do."""

from __future__ import annotations

import traceback
from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from geartrain.wire.packets import (
    CAN_DO_TIMEOUT,
    ECHO_REQ,
    ECHO_RES,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    WORK_COMPLETE,
    WORK_EXCEPTION,
    pack_response,
)
from geartrain.wire.parser import Packet, Parser
from geartrain.worker import AssignedJob, Middleware, Worker, WorkerSession
from geartrain.worker.attempt import Attempt
from geartrain.worker.batch import Batch, Run
from geartrain.worker.batch_function import BatchFunction
from geartrain.worker.slots import Slots


def declared(
    size: int, wait: float, name: str = "batch", **options: Any
) -> tuple[Worker, BatchFunction[Any, Any, Any]]:
    worker = Worker(middleware=[])
    return worker, worker.batch(name, size=size, wait=wait, **options)(lambda jobs: [job.workload for job in jobs])


def packets(data: bytes) -> list[Packet]:
    parser = Parser()
    parser.feed(data)
    found = []
    while (packet := parser.next_packet()) is not None:
        found.append(packet)
    return found


class Line:
    """One session of a worker and its job server, with what is underway between them."""

    def __init__(self, world: World, server: int, function: str, slots: Slots) -> None:
        self.world = world
        self.server = server
        self.function = function
        self.session = WorkerSession({function.encode(): None}, slots)
        self.connect()

    def connect(self) -> None:
        self.is_asleep = False
        self.answers = bytearray()
        self.assigned: dict[bytes, bytes] = {}
        self.server_reads()

    def server_reads(self) -> None:
        """The job server reads all that was said, and answers."""
        queue = self.world.queues[self.server, self.function]
        for packet in packets(self.session.take()):
            if packet.type == ECHO_REQ:
                self.answers += pack_response(ECHO_RES, *packet.arguments)
            elif packet.type == GRAB_JOB_UNIQ:
                self.is_asleep = False
                if queue:
                    handle = queue.popleft()
                    self.assigned[handle] = self.function.encode()
                    self.answers += pack_response(JOB_ASSIGN_UNIQ, handle, self.function.encode(), b"", handle)
                else:
                    self.answers += pack_response(NO_JOB)
            elif packet.type == PRE_SLEEP:
                self.is_asleep = True
                self.wake()
            elif packet.type == WORK_COMPLETE:
                handle, result = packet.arguments
                assert result == handle
                del self.assigned[handle]
                self.world.done.append(handle)

    def wake(self) -> None:
        if self.is_asleep and self.world.queues[self.server, self.function]:
            self.is_asleep = False
            self.answers += pack_response(NOOP)

    def worker_reads(self) -> None:
        data, self.answers = bytes(self.answers), bytearray()
        for job in self.session.receive(data):
            assert isinstance(job, AssignedJob)
            attempt = Attempt(self.world.worker, self.session, job, self.session.post)
            batch = self.world.batch_of.get(self.function)
            if batch is None:
                self.world.begun.append(self.function)
                self.world.held.append(attempt)
            else:
                batch.add(attempt)

    def lose(self) -> None:
        self.world.queues[self.server, self.function].extend(self.assigned)
        self.session.lost()
        self.connect()


class World:
    """A worker with a plain function and two batches, at two job servers, without any I/O."""

    def __init__(self, room: int) -> None:
        self.worker = Worker(middleware=[])
        self.worker.function("plain")(lambda job: job.workload)
        self.now = 0.0
        self.done: list[bytes] = []
        self.queues: dict[tuple[int, str], deque[bytes]] = {
            (server, function): deque() for server in range(2) for function in ("plain", "red", "blue")
        }
        self.held: list[Attempt] = []
        self.begun: list[str] = []
        self.running: list[tuple[Batch, list[Attempt]]] = []
        self.outer = Slots(room)
        self.batch_of: dict[str, Batch] = {}
        for name, size, wait in (("red", 5, 10.0), ("blue", 3, 0.0)):
            function = self.worker.batch(name, size=size, wait=wait)(lambda jobs: [job.workload for job in jobs])
            self.batch_of[name] = Batch(function, self.outer)
        self.batches = list(self.batch_of.values())
        slots = {"plain": self.outer, **{name: batch.slots for name, batch in self.batch_of.items()}}
        self.lines = [Line(self, server, name, slots[name]) for server in range(2) for name in slots]
        self.submitted = 0

    def submit(self, number: int) -> None:
        line = self.lines[number % len(self.lines)]
        for _ in range(1 + number // 8):
            self.queues[line.server, line.function].append(b"%s %d" % (line.function.encode(), self.submitted))
            self.submitted += 1
        for line in self.lines:
            line.wake()

    def server_reads(self, number: int) -> None:
        self.lines[number % len(self.lines)].server_reads()

    def worker_reads(self, number: int) -> None:
        self.lines[number % len(self.lines)].worker_reads()

    def time_passes(self, number: int) -> None:
        self.now += number

    def one_job_ends(self, number: int) -> None:
        if self.held:
            attempt = self.held.pop(number % len(self.held))
            if attempt.begin():
                with attempt:
                    attempt.result = attempt.job.workload
                attempt.end()

    def one_batch_ends(self, number: int) -> None:
        if self.running:
            batch, attempts = self.running.pop(number % len(self.running))
            with Run(self.worker, batch.function, attempts) as run:
                if run.jobs:
                    run.call()
            for attempt in run.attempts:
                attempt.end()

    def lose(self, number: int) -> None:
        self.lines[number % len(self.lines)].lose()

    def look(self) -> None:
        """As the worker does after each step: begin what is due. And see that all is as it must be."""
        for batch in self.batches:
            first, waiting = batch._since, len(batch._attempts)
            batch.tick(self.now)
            if batch.is_due:
                attempts = batch.take()
                assert 0 < len(attempts) <= batch.slots.count
                is_full = len(attempts) == batch.slots.count
                assert is_full or self.now >= (self.now if first is None else first) + batch.function.wait
                assert {attempt.job.function for attempt in attempts} == {batch.function.name}
                self.begun.append(batch.function.name)
                self.running.append((batch, attempts))
            elif waiting and first is not None and self.now >= first + batch.function.wait:
                assert self.grabs(batch.slots), "it waits for nothing but the answers to its grabs"
            assert batch.slots.used <= batch.slots.count
        busy = [batch for batch, _ in self.running]
        for batch in busy:
            assert not self.grabs(batch.slots)
            assert not batch._attempts
        assert self.outer.used <= self.outer.count
        assert self.outer.used == len(self.held) + self.grabs(self.outer) + sum(
            batch.slots.used > 0 for batch in self.batches
        )

    def grabs(self, slots: Slots) -> int:
        return sum(line.session._grabs for line in self.lines if line.session.slots is slots)

    def finish(self) -> None:
        """Go on until nothing happens any more."""
        for _ in range(40 + 10 * self.submitted):
            for line in self.lines:
                line.server_reads()
                line.worker_reads()
                self.look()
            self.one_job_ends(0)
            self.one_batch_ends(0)
            self.now += 5
            self.look()


STEPS = (
    World.submit,
    World.server_reads,
    World.worker_reads,
    World.time_passes,
    World.one_job_ends,
    World.one_batch_ends,
    World.lose,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1, 2, 10]), st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 31)), max_size=60))
def test_whatever_happens_every_job_is_done_and_no_room_is_lost(room: int, steps: list[tuple[Any, int]]) -> None:
    world = World(room)
    for step, number in steps:
        step(world, number)
        world.look()
    world.finish()
    assert not any(world.queues.values())
    assert len(set(world.done)) == world.submitted
    assert world.outer.used == 0
    assert world.outer.free == room
    assert all(batch.slots.free == batch.slots.count for batch in world.batches)


def test_no_function_is_kept_waiting_by_the_others() -> None:
    """Where there is room for one job, and all have many."""
    world = World(1)
    for line in range(len(world.lines)):
        for _ in range(10):
            world.submit(line + 8 * 6)
    world.finish()
    assert len(world.done) == world.submitted
    calls = {function: world.begun.count(function) for function in ("plain", "red", "blue")}
    assert calls["red"] <= calls["blue"] <= calls["plain"], "the larger the batches, the fewer"
    for first in range(3 * calls["red"] - 6):
        assert set(world.begun[first : first + 6]) == {"plain", "red", "blue"}


def filled(size: int, *, timeout: float | None = None) -> tuple[WorkerSession, Batch, list[Attempt]]:
    """A session, and a batch that is due."""
    worker, function = declared(size, 0.0, timeout=timeout)
    batch = Batch(function, Slots(1))
    session = worker.new_session([function], batch.slots)
    session.take()
    session.receive(pack_response(ECHO_RES, b"geartrain"))
    handles = iter(range(size))
    while len(batch._attempts) < size:
        grabs = [packet for packet in packets(session.take()) if packet.type == GRAB_JOB_UNIQ]
        answers = (pack_response(JOB_ASSIGN_UNIQ, b"%d" % next(handles), b"batch", b"", b"") for _ in grabs)
        for job in session.receive(b"".join(answers)):
            assert isinstance(job, AssignedJob)
            batch.add(Attempt(worker, session, job, session.post))
    assert batch.is_due
    return session, batch, batch.take()


def test_all_results_leave_with_the_next_grabs_in_one_write() -> None:
    session, batch, attempts = filled(64)
    assert session.take() == b""
    for attempt in attempts:
        attempt.end()
    assert [packet.type for packet in packets(session.take())] == [WORK_COMPLETE] * 64 + [GRAB_JOB_UNIQ] * 64
    assert batch.slots.used == 64


def test_the_job_server_is_told_the_wait_besides_the_time_limit() -> None:
    worker, function = declared(10, 0.5, timeout=2.0)
    registration = packets(worker.new_session([function], Batch(function, Slots(1)).slots).take())
    assert Packet(CAN_DO_TIMEOUT, (b"batch", b"2500")) in registration


def test_one_exception_for_many_jobs_is_told_the_same_of_each() -> None:
    """Each raise of it adds a frame to its traceback; of one job nobody is told those of the others."""
    session, batch, attempts = filled(3)
    frames: list[int] = []

    class Ear(Middleware):
        def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
            frames.append(len(traceback.extract_tb(error.__traceback__)))

    worker = Worker(middleware=[Ear()])
    worker.function("batch")(lambda job: b"")
    with Run(worker, batch.function, attempts):
        raise ValueError("for all")
    for attempt in attempts:
        attempt.end()
    texts = {packet.arguments[1] for packet in packets(session.take()) if packet.type == WORK_EXCEPTION}
    assert len(texts) == 1
    assert len(frames) == 3
    assert len(set(frames)) == 1
