"""What is counted and measured of the jobs of a function, by priority, and of all of them, with a known clock.

That the counts are right in any history is seen by ``world`` and ``policy_world``.
"""

from __future__ import annotations

import pytest
from desk import Desk

from geartrain.jobserver.model import TALLY_COST
from geartrain.jobserver.snapshot import FunctionView, peer_page, totals


def test_what_is_measured_of_jobs() -> None:
    desk = Desk()
    desk.works("worker", b"f")
    desk.submit(b"f", workload=b"12345", kind="SUBMIT_JOB_HIGH")
    desk.submit(b"f", workload=b"123")
    desk.wait(0.3)
    view = FunctionView(desk.server, desk.server.functions[b"f"])
    assert view.oldest_waiting == pytest.approx(0.3)
    assert (view.busy, view.idle, view.workers) == (0, 0, 1)
    handle = desk.grab("worker")
    assert handle is not None
    desk.wait(7.0)
    desk.send("worker", "WORK_DATA", handle, b"12")
    desk.send("worker", "WORK_COMPLETE", handle, b"3456")
    handle = desk.grab("worker")
    assert handle is not None
    desk.send("worker", "WORK_FAIL", handle)
    desk.send("worker", "PRE_SLEEP")
    view = FunctionView(desk.server, desk.server.functions[b"f"])
    assert (view.oldest_waiting, view.busy, view.idle) == (0.0, 0, 1)
    high, normal, low = view.by_priority
    assert high is not None
    assert normal is not None
    assert low is None
    assert (high.submitted, high.completed, high.bytes_in, high.bytes_out) == (1, 1, 5, 6)
    assert (normal.submitted, normal.failed, normal.bytes_in, normal.bytes_out) == (1, 1, 3, 0)
    for histogram, sum_ in ((high.waiting, 0.3), (high.running, 7.0), (high.total, 7.3), (normal.waiting, 7.3),
                            (normal.running, 0.0), (normal.total, 7.3)):  # fmt: skip
        assert histogram.count == 1
        assert histogram.sum == pytest.approx(sum_)
    both = view.counters
    assert (both.submitted, both.waiting.count) == (2, 2)
    assert both.waiting.sum == pytest.approx(7.6)
    shown = dict(row.split("\t") for row in desk.text("admin", "show function f").splitlines()[:-1])
    assert (shown["waited"], shown["ran"], shown["bytes_in"], shown["idle"]) == ("7.600000", "7.000000", "8", "1")
    assert 0.25 <= float(shown["waiting_p50"]) <= 0.5 < 5.0 <= float(shown["waiting_p99"]) <= 10.0
    assert {f"{name}_p{q}" for name in ("waiting", "running", "total") for q in (50, 95, 99)} <= shown.keys()
    assert shown["oldest_waiting"] == "0.000"


def test_only_a_priority_that_is_used_is_paid_for() -> None:
    desk = Desk(durable=False)
    server = desk.server
    desk.submit(b"f")
    before = server.memory
    desk.submit(b"f", kind="SUBMIT_JOB_LOW_BG")
    one = server.memory - before
    desk.submit(b"f", kind="SUBMIT_JOB_LOW_BG")
    another = server.memory - before - one
    assert one == another + TALLY_COST
    for handle in (b"H:1", b"H:2", b"H:3"):
        desk.text("admin", f"cancel job {handle.decode()}")
    assert desk.text("admin", "drop function f") == "OK\r\n"
    assert server.memory == 0
    assert [counters.cancelled for counters in server.forgotten] == [0, 1, 2]


def test_without_room_for_more_counters_jobs_are_counted_with_the_normal_ones() -> None:
    desk = Desk(durable=False)
    desk.submit(b"f")
    desk.server.max_memory = desk.server.memory + TALLY_COST - 1
    desk.submit(b"f", kind="SUBMIT_JOB_HIGH_BG")
    function = desk.server.functions[b"f"]
    assert function.high_counters is None
    assert function.counters.submitted == 2
    desk.works("worker", b"f")
    handle = desk.grab("worker")
    assert handle is not None
    desk.send("worker", "WORK_COMPLETE", handle, b"")
    assert function.counters.completed == 1


def test_totals_of_a_job_server() -> None:
    desk = Desk()
    desk.works("a", b"f")
    desk.works("b", b"f", b"g")
    for _ in range(3):
        desk.submit(b"f")
    desk.grab("a")
    desk.send("a", "PRE_SLEEP")
    desk.take("a")
    desk.send("b", "CANT_DO", b"f")
    desk.send("b", "PRE_SLEEP")
    found = totals(desk.server)
    assert (found.connections, found.workers, found.busy, found.idle) == (3, 2, 1, 1)
    assert (found.queued, found.running, found.delayed, found.blocked, found.dead) == (2, 1, 0, 0, 0)
    assert found.memory == desk.server.memory


def test_what_is_known_of_a_connection() -> None:
    desk = Desk()
    desk.wait(5)
    desk.works("worker", b"f")
    desk.wait(10)
    for packet in ("WORK_COMPLETE", "WORK_FAIL", "WORK_COMPLETE"):
        handle = desk.submit(b"f")
        assert desk.grab("worker") == handle
        desk.wait(1)
        desk.send("worker", packet, handle)
    handle = desk.submit(b"f")
    assert desk.grab("worker") == handle
    desk.wait(7)
    (worker, client) = peer_page(desk.server, 0, 10)
    assert (worker.since, worker.heard_at, worker.runs_ended) == pytest.approx((1005, 1018, 3))
    assert (client.since, client.heard_at, client.runs_ended) == pytest.approx((1015, 1018, 0))


def test_a_worker_that_runs_several_jobs_is_one_that_is_busy_with_each_of_their_functions() -> None:
    desk = Desk()
    desk.works("one", b"f")
    desk.works("many", b"f", b"g")

    def busy() -> tuple[int, int, int]:
        functions = desk.server.functions
        return (
            FunctionView(desk.server, functions[b"f"]).busy,
            FunctionView(desk.server, functions[b"g"]).busy,
            totals(desk.server).busy,
        )

    handles = []
    for name, expected in ((b"f", (1, 0, 1)), (b"f", (1, 0, 1)), (b"g", (1, 1, 1)), (b"g", (1, 1, 1))):
        handles.append(desk.submit(name))
        assert desk.grab("many") == handles[-1]
        assert busy() == expected
    desk.submit(b"f")
    assert desk.grab("one")
    assert busy() == (2, 1, 2)
    for at, expected in ((0, (2, 1, 2)), (2, (2, 1, 2)), (3, (2, 0, 2)), (1, (1, 0, 1))):
        desk.send("many", "WORK_COMPLETE", handles[at], b"")
        assert busy() == expected
    desk.leave("one")
    assert busy() == (0, 0, 0)
