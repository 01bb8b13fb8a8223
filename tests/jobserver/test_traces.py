"""Where a job belongs in a trace: told by its client, held, and told to the worker that asks."""

from __future__ import annotations

import pytest
from desk import Desk

from geartrain.jobserver.rules.tracing import TRACE_COST

ONE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TWO = b"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00"


def option(desk: Desk, name: str, text: bytes) -> None:
    desk.send(name, "OPTION_REQ", text)
    assert desk.take(name) == [("OPTION_RES", text)]


def traced(desk: Desk, traceparent: bytes, **how: str) -> bytes:
    option(desk, "client", b"traceparent=" + traceparent)
    return desk.submit(b"f", **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("grab", ["GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL"])
@pytest.mark.parametrize("kind", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_worker_that_asks_is_told_ahead_of_the_job(grab: str, kind: str) -> None:
    desk = Desk()
    desk.works("w", b"f")
    option(desk, "w", b"traces")
    handles = [traced(desk, ONE, kind=kind), desk.submit(b"f"), traced(desk, TWO, kind=kind)]
    for handle, traceparent in zip(handles, (ONE, b"", TWO), strict=True):
        desk.send("w", grab)
        *before, job = desk.take("w")
        assert before == ([("OPTION_RES", b"traceparent=" + traceparent)] if traceparent else [])
        assert job[1] == handle
        desk.send("w", "WORK_COMPLETE", handle, b"")
    assert desk.server.traces == {}


def test_a_worker_that_does_not_is_told_nothing() -> None:
    desk = Desk()
    desk.works("w", b"f")
    handle = traced(desk, ONE)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_FAIL", handle)
    assert desk.server.traces == {}


def test_it_is_of_one_submission_whatever_becomes_of_that() -> None:
    desk = Desk()
    option(desk, "client", b"traceparent=" + ONE)
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"x" * 100, b"")
    assert desk.take("client")[0][0] == "ERROR"
    desk.submit(b"f")
    assert desk.server.traces == {}
    first = traced(desk, ONE, unique=b"u")  # type: ignore[arg-type]
    assert traced(desk, TWO, unique=b"u") == first  # type: ignore[arg-type]
    assert list(desk.server.traces.values()) == [ONE], "a submission that joins a job changes nothing"
    desk.text("admin", f"cancel job {first.decode()}")
    assert desk.server.traces == {}


def test_it_lasts_as_long_as_the_job() -> None:
    desk = Desk()
    desk.works("w", b"f")
    option(desk, "w", b"traces")
    desk.text("admin", "policy set f attempts=2 delay=0")
    handle = traced(desk, ONE)
    for _ in range(2):
        desk.send("w", "GRAB_JOB")
        assert desk.take("w")[0] == ("OPTION_RES", b"traceparent=" + ONE)
        desk.send("w", "WORK_FAIL", handle)
    assert list(desk.server.traces.values()) == [ONE], "a dead letter may be tried again"
    desk.text("admin", f"dead purge {handle.decode()}")
    assert desk.server.traces == {}


def test_it_is_bounded() -> None:
    desk = Desk()
    desk.submit(b"f")
    desk.server.max_memory = int(desk.server.memory) + 2 * 300 + TRACE_COST + 100
    traced(desk, ONE)
    assert len(desk.server.traces) == 1
    traced(desk, TWO)
    assert len(desk.server.traces) == 1, "there is room for the job, and not for this"


@pytest.mark.parametrize(
    "text", [b"", ONE[:-1], ONE + b"0", ONE.replace(b"-", b"0"), b"x" + ONE[1:], ONE[:30] + b" " + ONE[31:]]
)
def test_what_is_none_is_an_option_that_nobody_knows(text: bytes) -> None:
    desk = Desk()
    desk.send("client", "OPTION_REQ", b"traceparent=" + text)
    assert desk.take("client") == [("ERROR", b"UNKNOWN_OPTION", b"Server does not recognize given option")]
    desk.submit(b"f")
    assert desk.server.traces == {}
