"""What is said to be wrong, of a job server in memory, with time as an argument: it is so, and what is so is said."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_site import MemorySite

from geartrain.daemon.extension import Host
from geartrain.daemon.fleet_view import FleetView
from geartrain.jobserver import Origin
from geartrain.web.wrong import LOOK_EVERY, MAX_SUSPECTS, MOST, Lookout, Wrong
from geartrain.wire.packets import (
    CAN_DO,
    CANT_DO,
    GRAB_JOB,
    SUBMIT_JOB_EPOCH,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_FAIL,
    WORK_STATUS,
)


class Site(MemorySite):
    """A job server at which somebody looks every few seconds."""

    def begin(self) -> None:
        super().begin()
        self.lookout = Lookout(cast(Host, self))

    def command(self, line: bytes) -> bytes:
        """What a text command is answered."""
        peer = self.server.connect(Origin("127.0.0.1", 99))
        self.server.receive(peer, line + b"\n")
        self.server.touched.clear()
        answer = b"".join(peer.take())
        self.commit()
        answer += b"".join(peer.take())
        self.server.lost(peer)
        return answer

    def policy(self, name: bytes, words: bytes) -> None:
        assert self.command(b"policy set %b %b" % (name, words)).startswith(b"OK")

    def looks(self, seconds: float = LOOK_EVERY) -> list[Wrong]:
        """What is found after some seconds, in which there are as many looks as there would be."""
        while True:
            step = min(seconds, LOOK_EVERY)
            self.passes(step)
            for _ in self.lookout.look():
                pass
            seconds -= step
            if seconds <= 0:
                return self.lookout.found

    def kinds(self, seconds: float = LOOK_EVERY) -> list[tuple[str, str | None]]:
        return [(wrong.kind, wrong.function) for wrong in self.looks(seconds)]

    def only(self, seconds: float = LOOK_EVERY) -> Wrong:
        (wrong,) = self.looks(seconds)
        return wrong

    def start(self, function: bytes, worker: str = "") -> bytes:
        """A job that runs from now on; its handle."""
        self.submit(function)
        name = worker or function.decode()
        self.send(name, CAN_DO, function)
        self.take(name)
        self.send(name, GRAB_JOB)
        return self.take(name)[12:].split(b"\0")[0]


def test_nothing_is_wrong_where_nothing_is() -> None:
    site = Site()
    assert site.kinds() == []
    site.submit(b"f", 3)
    site.work(b"f", 3)
    site.submit(b"f")
    site.start(b"g")
    assert site.kinds(30) == []  # a worker is there, and a job that runs is no harm


# ── jobs that wait ──────────────────────────────────────────────────────────────────────────────────────────────


def test_jobs_without_a_worker() -> None:
    site = Site()
    site.submit(b"a/b", 2)
    assert site.kinds(4) == []  # one may be about to come
    wrong = site.only(2)
    assert (wrong.kind, wrong.function, wrong.count) == ("no_worker", "a/b", 2)
    assert wrong.text == "2 jobs of a/b wait, the longest for 6.0 s, and no worker can do them."
    assert wrong.remedy.path == "/dashboard/functions/a%2Fb"
    assert wrong.since == site.wall
    since = site.wall
    assert site.only(60).since == since
    site.send("w", CAN_DO, b"a/b")
    assert site.kinds() == []
    site.send("w", CANT_DO, b"a/b")
    assert site.only(5).since == site.wall


def test_since_when_it_is_so_is_unknown_if_it_was_so_before_the_first_look() -> None:
    site = Site()
    site.submit(b"f")
    site.passes(100)
    wrong = site.only(0)
    assert (wrong.kind, wrong.since) == ("no_worker", None)
    assert wrong.text == "A job of f has waited 100 s, and no worker can do it."
    assert site.only().since is None


def test_a_job_for_later_needs_no_worker_yet() -> None:
    site = Site()
    site.send("client", SUBMIT_JOB_EPOCH, b"f", b"", b"%d" % (site.wall + 100), b"")
    site.commit()
    assert site.kinds(60) == []
    assert site.kinds(60) == [("no_worker", "f")]


def test_a_paused_function_with_jobs() -> None:
    site = Site()
    site.command(b"pause f no disk")
    paused = site.wall
    assert site.kinds(10) == []  # nothing waits
    site.submit(b"f")
    wrong = site.only(7200)
    assert (wrong.kind, wrong.function, wrong.count, wrong.since) == ("paused_with_jobs", "f", 1, paused)
    assert re.fullmatch(r"f is paused since 2 h by .*no disk.*, and 1 job waits\.", wrong.text)
    site.command(b"resume f")
    assert site.kinds() == [("no_worker", "f")]


@pytest.mark.parametrize(
    ("words", "told"),
    [(b"queue=3", "new ones are refused"), (b"queue=3 when_full=drop-oldest", "the oldest make room")],
)
def test_a_queue_that_its_policy_lets_grow_no_further(words: bytes, told: str) -> None:
    site = Site()
    site.policy(b"f", words)
    site.send("w", CAN_DO, b"f")
    site.submit(b"f", 2)
    assert site.kinds() == []
    site.submit(b"f", 3)
    wrong = site.looks()[0]  # what is dropped is a dead letter
    assert (wrong.kind, wrong.function, wrong.count) == ("queue_full", "f", 3)
    assert wrong.text == f"f has 3 jobs where 3 may be: {told}."
    site.work(b"f", 1)
    assert ("queue_full", "f") not in site.kinds()


def test_a_queue_that_maxqueue_lets_grow_no_further() -> None:
    site = Site()
    site.send("w", CAN_DO, b"f")
    site.command(b"maxqueue f 0 1 0")
    site.submit(b"f")
    assert site.only().text == "f has 1 job where 1 may be: new ones of normal priority are refused."


# ── jobs that fail ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_tried_again_and_again() -> None:
    site = Site()
    site.policy(b"f", b"attempts=100 delay=0.1s max_delay=0.1s jitter=0")
    site.looks()
    site.submit(b"f", 5)
    for _ in range(4):
        site.work(b"f", 5, WORK_FAIL)
        site.passes(1)
    wrong = site.only()
    assert (wrong.kind, wrong.function, wrong.count) == ("retry_storm", "f", 20)
    assert wrong.text == "20 of the 20 starts of f in the last 9.0 s failed, and the jobs are tried again."
    assert site.kinds(30) == [("retry_storm", "f")]
    site.work(b"f", 5)
    assert site.kinds(60) == []


def test_a_few_tries_among_many_starts_are_no_storm() -> None:
    site = Site()
    site.policy(b"f", b"attempts=100 delay=0.1s max_delay=0.1s jitter=0")
    site.looks()
    site.submit(b"f", 50)
    site.work(b"f", 12, WORK_FAIL)
    site.passes(1)
    site.work(b"f", 50)
    assert site.kinds() == []


def test_workers_that_are_lost_again_and_again() -> None:
    site = Site(job_retries=-1)
    site.looks()
    site.submit(b"f", 12)
    for _ in range(12):
        site.send("w", CAN_DO, b"f")
        site.send("w", GRAB_JOB)
        site.leave("w")
    site.send("w", CAN_DO, b"f")
    wrong = site.only()
    assert (wrong.kind, wrong.count) == ("retry_storm", 12)
    assert "12 of the 12 starts of f in the last 5.0 s lost their worker" in wrong.text


def test_dead_letters_that_become_more() -> None:
    site = Site()
    site.policy(b"a_b", b"attempts=1")
    site.submit(b"a_b", 3)
    site.work(b"a_b", 3, WORK_FAIL)
    assert site.kinds() == []  # nobody knows when that was
    site.submit(b"a_b", 2)
    site.work(b"a_b", 2, WORK_FAIL)
    wrong = site.only()
    assert (wrong.kind, wrong.function, wrong.count) == ("dead_growing", "a_b", 2)
    assert wrong.text == "2 jobs of a_b became dead letters in the last 5.0 s; 5 are kept."
    assert wrong.remedy.path == "/dashboard/dead?function=a_b"
    assert site.kinds(70) == []


def test_dead_letters_of_a_function_that_had_none() -> None:
    site = Site()
    site.looks(100)
    site.policy(b"f", b"expires=1s")
    site.send("w", CAN_DO, b"f")
    site.submit(b"f", 2)
    wrong = site.only()
    assert (wrong.kind, wrong.count) == ("dead_growing", 2)


# ── jobs that run ───────────────────────────────────────────────────────────────────────────────────────────────


def with_history(site: Site, function: bytes = b"f", count: int = 30, seconds: float = 2.0) -> None:
    """A function of which it is known how long its jobs run."""
    for _ in range(count):
        handle = site.start(function)
        site.passes(seconds)
        site.send(function.decode(), WORK_COMPLETE, handle, b"")
        site.commit()


def test_a_job_that_runs_far_longer_than_others_and_tells_nothing() -> None:
    site = Site()
    with_history(site)
    began = site.wall
    handle = site.start(b"f")
    assert site.kinds(55) == []
    wrong = site.only(30)
    assert (wrong.kind, wrong.function, wrong.count, wrong.since) == ("stuck", "f", 1, began)
    assert wrong.text == "A job of f runs for 85 s, where 99 % took 2.5 s at most, and tells nothing."
    assert wrong.remedy.path == f"/dashboard/jobs/{handle.decode().replace(':', '%3A')}"
    second = site.start(b"f", "another")
    wrong = site.only(90)
    assert (wrong.count, wrong.since) == (2, began)
    assert wrong.text.startswith("2 jobs of f run, the longest for 3 min,")
    assert wrong.remedy.path == "/dashboard/jobs?state=running&function=f"
    site.send("f", WORK_COMPLETE, handle, b"")
    site.send("another", WORK_COMPLETE, second, b"")
    assert site.kinds() == []
    assert site.server.watches == 0


@pytest.mark.parametrize(
    ("type", "arguments"), [(WORK_STATUS, (b"1", b"2")), (WORK_DATA, (b"more",))], ids=["status", "data"]
)
def test_a_job_that_tells_something_is_not_stuck(type: int, arguments: tuple[bytes, ...]) -> None:
    site = Site()
    with_history(site)
    handle = site.start(b"f")
    site.looks(65)
    for _ in range(10):
        site.send("f", type, handle, *arguments)
        assert site.kinds(60) == []
    assert site.kinds(120) == [("stuck", "f")]
    site.send("f", type, handle, *arguments)
    assert site.kinds() == []


def test_a_job_of_a_function_of_which_little_is_known_is_not_stuck() -> None:
    site = Site()
    with_history(site, count=10)
    site.start(b"f")
    assert site.kinds(1000) == []


def test_a_function_whose_jobs_may_run_for_very_long_has_none_that_are_stuck() -> None:
    site = Site()
    with_history(site, count=25, seconds=3600)
    site.start(b"f")
    assert site.kinds(100_000) == []


def test_a_job_that_starts_again_is_not_stuck_at_once() -> None:
    site = Site(job_retries=-1)
    with_history(site, count=300)
    site.start(b"f", "w")
    assert site.kinds(90) == [("stuck", "f")]
    site.leave("w")
    site.send("w2", CAN_DO, b"f")
    site.send("w2", GRAB_JOB)
    assert site.kinds(50) == []
    assert site.kinds(40) == [("stuck", "f")]


def test_the_jobs_that_are_watched_are_bounded() -> None:
    site = Site()
    with_history(site)
    count = MAX_SUSPECTS + 100
    site.submit(b"f", count)
    for _ in range(count):
        site.send("f", GRAB_JOB)
        site.take("f")
    site.passes(100)
    assert site.only(20).count == MAX_SUSPECTS
    assert site.server.watches == MAX_SUSPECTS
    memory = site.server.memory
    site.lookout.forget()
    assert site.server.watches == 0
    assert site.server.memory < memory
    assert site.lookout.found == []


# ── the job server ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_store_that_takes_nothing() -> None:
    site = Site(durable=True)
    site.looks()
    site.server.store.trouble = "no route to the secret host"
    wrong = site.only()
    assert (wrong.kind, wrong.function, wrong.since) == ("store_down", None, site.wall)
    assert "secret" not in wrong.text
    site.server.back()
    assert site.kinds() == []


def test_a_lease_that_has_lapsed() -> None:
    site = Site(durable=True)
    site.fleet = cast(FleetView, SimpleNamespace(state="lapsed"))
    site.server.store.trouble = "no route to the secret host"
    wrong = site.only()
    assert (wrong.kind, wrong.function) == ("lease_lapsed", None)
    assert "lapsed" in wrong.text
    site.fleet.state = "forsaking"
    assert "new member" in site.only().text
    site.fleet.state = "live"
    site.server.back()
    assert site.kinds() == []


def test_memory_that_is_nearly_used_up() -> None:
    site = Site(max_memory=100_000)
    site.send("w", CAN_DO, b"f")
    assert site.kinds() == []
    while site.server.memory < 85_000:
        site.submit(b"f")
    wrong = site.only()
    assert wrong.kind == "memory_short"
    assert re.match(r"Jobs and functions take 8[5-9] % of the memory", wrong.text)


def test_a_job_server_that_is_about_to_stop() -> None:
    site = Site()
    site.start(b"f")
    site.submit(b"g")
    site.passes(100)
    site.server.drain()
    wrong = site.only()
    assert (wrong.kind, wrong.count) == ("draining", 1)
    assert wrong.text == "The job server is about to stop, and takes no jobs. It waits for 1 job to end."


# ── much of it ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_kind_does_not_hide_the_others() -> None:
    site = Site()
    site.command(b"pause paused")
    site.submit(b"paused")
    for number in range(300):
        site.submit(b"f%d" % number, 1 + number % 7)
    found = site.looks(10)
    assert len(found) == MOST
    assert found[-1].kind == "paused_with_jobs"
    assert [wrong.count for wrong in found[:-1]] == [7] * 42 + [6] * 7
    assert site.lookout.more == 301 - MOST


def test_a_look_stops_often() -> None:
    site = Site(max_functions=20_000)
    for number in range(5000):
        site.submit(b"f%d" % number)
    site.passes(10)
    assert sum(1 for _ in site.lookout.look()) >= 50
    assert site.lookout.more == 5000 - MOST


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "work", "fail", "lose", "pause", "resume", "come", "go", "limit", "policy", "wait"]),
        st.integers(0, 3),
        st.integers(1, 12),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=_STEPS)
def test_whatever_happens_what_is_said_is_so(steps: list[tuple[str, int, int]]) -> None:
    site = Site()
    for what, which, count in steps:
        name = b"f%d" % which
        _act(site, what, name, count)
        site.looks(count if what == "wait" else 0.1)
        _check(site)
    site.lookout.forget()
    assert site.server.watches == 0


def _act(site: Site, what: str, name: bytes, count: int) -> None:
    worker = name.decode()
    if what == "submit":
        site.submit(name, count)
    elif what in ("work", "fail"):
        jobs = site.server.functions.get(name)
        site.work(name, min(count, int(jobs.ready) if jobs else 0), *([WORK_FAIL] if what == "fail" else []))
    elif what == "lose" and worker in site.peers:
        site.start(name)
        site.leave(worker)
    elif what in ("pause", "resume"):
        site.command(b"%b %b" % (what.encode(), name))
    elif what == "come":
        site.send(worker, CAN_DO, name)
    elif what == "go":
        site.send(worker, CANT_DO, name)
    elif what == "limit":
        site.command(b"maxqueue %b %d" % (name, count))
    elif what == "policy":
        site.command(b"policy set %b attempts=%d" % (name, count))


def _check(site: Site) -> None:
    server = site.server
    found = {(wrong.kind, wrong.function): wrong for wrong in site.lookout.found}
    assert len(found) == len(site.lookout.found)
    for function in server.functions.values():
        name = function.name.decode()
        waiting = function.queued + function.blocked
        is_paused = function.gate is not None and function.gate.paused
        held: dict[Any, bool] = {
            "paused_with_jobs": is_paused and waiting > 0,
            "queue_full": any(0 < limit <= function.total for limit in (function.max_high, function.max_normal)),
        }
        for kind, is_so in held.items():
            assert ((kind, name) in found) == is_so
        if ("no_worker", name) in found:
            assert waiting > 0
            assert function.workers == 0
            assert not is_paused
        if ("dead_growing", name) in found:
            assert server.dead.count(function) > 0
    for wrong in found.values():
        assert wrong.text.endswith(".")
        assert wrong.remedy.path.startswith("/dashboard/")
