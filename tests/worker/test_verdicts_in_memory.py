"""Verdicts in memory: each job is tried as often and ends as it should, whatever the network and the clock do.

Real sessions of a worker speak with the real rules of a job server.
"""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from geartrain.errors import JobFailedError, Reject, Retry
from geartrain.jobserver import JobServer, Origin
from geartrain.jobserver.model import Peer
from geartrain.wire.packets import (
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    SUBMIT_JOB,
    WORK_COMPLETE,
    WORK_EXCEPTION,
    WORK_FAIL,
    pack_request,
)
from geartrain.wire.parser import Packet, Parser
from geartrain.worker import AssignedJob, Worker
from geartrain.worker.attempt import Attempt
from geartrain.worker.slots import Slots

ATTEMPTS = 3
ENDS: dict[str, tuple[int, bytes]] = {
    "done": (WORK_COMPLETE, b"done"),
    "fail": (WORK_FAIL, b""),
    "raise": (WORK_EXCEPTION, b"ValueError: no"),
    "retry": (WORK_FAIL, b""),
    "retry in 5": (WORK_EXCEPTION, b"busy"),
    "reject": (WORK_EXCEPTION, b"bad input"),
}
RAISED = {
    "fail": JobFailedError(),
    "raise": ValueError("no"),
    "retry": Retry(),
    "retry in 5": Retry(5, "busy"),
    "reject": Reject("bad input"),
}


def expected(plan: list[str], function: str) -> int:
    """How many attempts a job has whose attempts go by this plan."""
    for number, outcome in enumerate(plan, 1):
        if outcome in ("done", "reject"):
            return number
        if function != "plain" and number == ATTEMPTS:
            return number
        if function == "plain" and not outcome.startswith("retry"):
            return number
    return len(plan) + 1  # which is done


class Line:
    """A session and its connection to the job server, with the bytes underway in both directions."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.session = world.worker.new_session(world.worker.functions.values(), Slots(3))
        self.peer = world.server.connect(Origin("127.0.0.1", 1))
        self.to_worker = b""

    def server_reads(self) -> None:
        self.world.server.receive(self.peer, self.session.take())
        self.world.collect()

    def worker_reads(self, most: int) -> None:
        data, self.to_worker = self.to_worker[:most], self.to_worker[most:]
        for job in self.session.receive(data):
            assert isinstance(job, AssignedJob)
            attempt = Attempt(self.world.worker, self.session, job, self.session.post)
            assert attempt.begin()
            self.world.began(job)
            self.world.running.append(attempt)


class World:
    """A job server, two sessions and a client."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.server = JobServer()
        self.worker = Worker(middleware=[])
        self.worker.function("paused", attempts=ATTEMPTS, delay=2, backoff="linear", jitter=0)(lambda job: b"")
        self.worker.function("at-once", attempts=ATTEMPTS, delay=0)(lambda job: b"")
        self.worker.function("plain")(lambda job: b"")
        self.server.tick(self.now, self.now)
        self.lines = [Line(self), Line(self)]
        self.client = self.server.connect(Origin("127.0.0.1", 2))
        self.parser = Parser()
        self.heard: list[Packet] = []
        self.running: list[Attempt] = []
        self.plans: dict[bytes, tuple[str, list[str]]] = {}  # by workload: the function, what its attempts say
        self.tries: dict[bytes, int] = {}
        self.not_before: dict[bytes, float] = {}
        self.workloads: list[bytes] = []
        self.say(pack_request(OPTION_REQ, b"exceptions"))

    def say(self, packet: bytes) -> None:
        self.server.receive(self.client, packet)
        self.collect()

    def collect(self) -> None:
        """What the job server has to say is underway."""
        lines = {line.peer: line for line in self.lines}
        while self.server.touched:
            touched = cast(list[Peer], self.server.touched[:])
            self.server.touched.clear()
            for peer in touched:
                assert not peer.closing
                said = b"".join(peer.take())
                if peer in lines:
                    lines[peer].to_worker += said
                else:
                    self.parser.feed(said)
                if peer.stalled:
                    self.server.receive(peer, b"")
        while (packet := self.parser.next_packet()) is not None:
            self.heard.append(packet)

    def submit(self, function: str, plan: list[str]) -> None:
        workload = b"%d" % len(self.plans)
        self.plans[workload] = (function, plan)
        self.tries[workload] = 0
        self.workloads.append(workload)
        self.say(pack_request(SUBMIT_JOB, function.encode(), b"", workload))

    def began(self, job: AssignedJob) -> None:
        assert self.now >= self.not_before.pop(job.workload, 0.0)
        self.tries[job.workload] += 1

    def end(self, number: int) -> None:
        """One of the running attempts has its end."""
        if not self.running:
            return
        attempt = self.running.pop(number % len(self.running))
        workload = attempt.job.workload
        function, plan = self.plans[workload]
        tried = self.tries[workload]
        outcome = plan[tried - 1] if tried <= len(plan) else "done"
        if outcome == "retry in 5":
            self.not_before[workload] = self.now + 5
        elif outcome != "done" and function == "paused":
            self.not_before[workload] = self.now + 2 * tried
        attempt.result = b"done"
        with attempt:
            if outcome in RAISED:
                raise RAISED[outcome].with_traceback(None)
        attempt.end()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.server.tick(self.now, self.now)
        self.collect()

    def settle(self) -> None:
        """Let all jobs come to their end."""
        for _ in range(10_000):
            for line in self.lines:
                line.server_reads()
                line.worker_reads(1 << 20)
            while self.running:
                self.end(0)
            if len(self.ends()) == len(self.plans):
                return
            self.pass_time(0.5)
        raise AssertionError(f"still {len(self.plans) - len(self.ends())} jobs")

    def ends(self) -> list[Packet]:
        return [packet for packet in self.heard if packet.type in (WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION)]

    def check(self) -> None:
        assert self.heard[0].type == OPTION_RES
        handles = [packet.arguments[0] for packet in self.heard if packet.type == JOB_CREATED]
        ends = {packet.arguments[0]: packet for packet in self.ends()}
        assert len(ends) == len(self.ends()) == len(handles)
        for workload, handle in zip(self.workloads, handles, strict=True):
            function, plan = self.plans[workload]
            tries = expected(plan, function)
            assert self.tries[workload] == tries, (function, plan)
            kind, text = ENDS[plan[tries - 1] if tries <= len(plan) else "done"]
            packet = ends[handle]
            assert packet.type == kind, (function, plan)
            assert text in packet.arguments[-1]
        for line in self.lines:
            assert line.session.slots.used <= 3


OUTCOME = st.sampled_from(["done", "fail", "raise", "retry", "retry in 5", "reject"])
STEP = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(["paused", "at-once", "plain"]), st.lists(OUTCOME, max_size=5)),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("server reads"), st.integers(0, 1)),
    st.tuples(st.just("worker reads"), st.integers(0, 1), st.integers(1, 300)),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, 1.0, 5.0])),
)


@settings(max_examples=200)
@given(st.lists(STEP, max_size=60))
def test_each_job_is_tried_and_ends_as_it_should(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for name, *what in steps:
        if name == "submit":
            world.submit(*what)
        elif name == "end":
            world.end(*what)
        elif name == "server reads":
            world.lines[what[0]].server_reads()
        elif name == "worker reads":
            world.lines[what[0]].worker_reads(what[1])
        else:
            world.pass_time(what[0])
    world.settle()
    world.check()
