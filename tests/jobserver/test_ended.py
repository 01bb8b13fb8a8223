"""Of the jobs that end some are noted, for whoever looks: as many as are wanted, and no more than there is room for."""

from __future__ import annotations

import pytest
from desk import Desk

from geartrain.jobserver import ended
from geartrain.jobserver.ended import (
    ENDS_A_SECOND,
    FAILURES_A_SECOND,
    KEPT,
    LONGEST_TEXT,
    MAX_ERRORS,
    MOST_A_SECOND,
    EndedJob,
    EndedJobs,
    EndedOfFunction,
)
from geartrain.jobserver.error_line import LONGEST_LINE, error_line
from geartrain.jobserver.letters import unpack_attempts


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.works("w", b"f")
    desk.server.want_ends()
    return desk


def number(handle: bytes) -> int:
    return int(handle.partition(b":")[2])


def run(desk: Desk, packet: str = "WORK_COMPLETE", *arguments: bytes) -> bytes:
    handle = desk.submit(b"f", b"u")
    assert desk.grab("w") == handle
    desk.send("w", packet, handle, *arguments)
    return handle


def of(desk: Desk, function: bytes = b"f") -> EndedOfFunction:
    return desk.server.ended.functions[function]


def test_nothing_is_noted_until_it_is_wanted() -> None:
    desk = Desk()
    desk.works("w", b"f")
    run(desk)
    run(desk, "WORK_EXCEPTION", b"oops")
    assert not desk.server.ended.functions


def test_a_job_that_has_completed(desk: Desk) -> None:
    begun = desk.wall
    handle = desk.submit(b"f", b"u")
    desk.wait(2)
    assert desk.grab("w") == handle
    desk.wait(3)
    desk.send("w", "WORK_COMPLETE", handle, b"result")
    job = desk.server.ended.by_number[number(handle)]
    assert list(of(desk).jobs) == [job]
    assert (job.function, job.unique, job.how, job.attempts, job.text) == (b"f", b"u", "completed", 0, b"")
    assert (job.priority, job.background, job.size) == (1, True, 1)
    assert [job.created, job.queued, job.started, job.ended] == pytest.approx([begun, begun, begun + 2, begun + 5])
    assert job.worker == b"- 127.0.0.1"


@pytest.mark.parametrize("policy", ["", "results=1h", "attempts=1", "attempts=1 dead=0"])
@pytest.mark.parametrize(
    ("report", "how", "text"),
    [
        (("WORK_FAIL",), "failed", b""),
        (("WORK_EXCEPTION", b"oops\nmore"), "exception", b"oops\nmore"),
        (("WORK_EXCEPTION",), "exception", b""),
    ],
)
def test_a_job_that_has_failed(desk: Desk, policy: str, report: tuple[object, ...], how: str, text: bytes) -> None:
    if policy:
        assert desk.text("admin", f"policy set f {policy}").startswith("OK")
    packet, *arguments = report
    handle = run(desk, str(packet), *[each for each in arguments if isinstance(each, bytes)])
    (job,) = of(desk).failures
    assert (job.number, job.how, job.text, job.worker) == (number(handle), how, text, b"- 127.0.0.1")
    assert job.started > 0
    (kind,) = of(desk).errors.values()
    assert (kind.how, kind.line, kind.count, kind.newest) == (how, text.partition(b"\n")[0], 1, number(handle))
    assert not of(desk).jobs


def test_a_report_that_is_too_large() -> None:
    desk = Desk(max_body=1000)
    desk.works("w", b"f")
    desk.server.want_ends()
    run(desk, "WORK_COMPLETE", b"x" * 1001)
    (job,) = of(desk).failures
    assert job.how == "exception"
    assert b"--max-packet" in job.text


def test_attempts_are_kept_with_the_job(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=2 delay=0 dead=0 retry_on=exception")
    handle = run(desk, "WORK_EXCEPTION", b"first")
    assert desk.grab("w") == handle
    assert not desk.server.ended.functions
    desk.send("w", "WORK_EXCEPTION", handle, b"second")
    (job,) = of(desk).failures
    assert (job.attempts, job.text) == (2, b"second")
    assert [attempt.text for attempt in unpack_attempts(job.history)] == [b"first", b"second"]


def test_jobs_that_end_otherwise(desk: Desk) -> None:
    desk.text("admin", "policy set f timeout=1s attempts=1 expires=10s")
    handle = desk.submit(b"f")
    assert desk.grab("w") == handle
    desk.wait(2)
    desk.submit(b"f")
    desk.wait(20)
    cancelled = desk.submit(b"f")
    assert desk.text("admin", f"cancel job {cancelled.decode()}") == "OK\r\n"
    desk.submit(b"f", kind="SUBMIT_JOB")
    desk.leave("client")
    assert [(job.how, job.worker, job.started > 0) for job in of(desk).failures] == [
        ("timeout", b"- 127.0.0.1", True),
        ("expired", b"", False),
    ]
    assert [job.how for job in of(desk).jobs] == ["cancelled", "abandoned"]


def test_as_many_of_each_function_as_are_wanted(desk: Desk) -> None:
    for _ in range(ENDS_A_SECOND + 3):
        run(desk)
    for _ in range(FAILURES_A_SECOND + 3):
        run(desk, "WORK_FAIL")
    assert (len(of(desk).jobs), len(of(desk).failures)) == (ENDS_A_SECOND, FAILURES_A_SECOND)
    for _ in range(100):
        desk.server.want_ends()
    for _ in range(ENDS_A_SECOND + 3):
        run(desk)
    assert len(of(desk).jobs) == 2 * ENDS_A_SECOND, "seconds that are over give nothing"


def test_as_many_of_all_functions_as_are_wanted() -> None:
    desk = Desk()
    desk.is_checked = False
    functions = [b"f%d" % at for at in range(MOST_A_SECOND // ENDS_A_SECOND + 2)]
    desk.works("w", *functions)
    desk.server.want_ends()
    for function in functions:
        for _ in range(ENDS_A_SECOND):
            desk.submit(function)
    for _ in range(len(functions) * ENDS_A_SECOND):
        handle = desk.grab("w")
        assert handle is not None
        desk.send("w", "WORK_COMPLETE", handle, b"")
    assert len(desk.server.ended.by_number) == MOST_A_SECOND
    desk.is_checked = True
    desk.server.want_ends()
    handle = desk.submit(b"f1")
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"")
    assert number(handle) in desk.server.ended.by_number


def test_a_function_keeps_the_last_ones(desk: Desk) -> None:
    handles = []
    for _ in range(2 * KEPT):
        desk.server.want_ends()
        handles.append(run(desk))
    assert [job.number for job in of(desk).jobs] == [number(handle) for handle in handles[-KEPT:]]
    assert set(desk.server.ended.by_number) == {number(handle) for handle in handles[-KEPT:]}


def test_errors_are_grouped_and_the_kinds_that_came_last_are_kept(desk: Desk) -> None:
    for at in range(MAX_ERRORS + 5):
        desk.server.want_ends()
        run(desk, "WORK_EXCEPTION", b"error %d" % at)
        run(desk, "WORK_EXCEPTION", b"common\nat %d" % at)
    kinds = of(desk).errors
    assert len(kinds) == MAX_ERRORS
    assert kinds["exception", b"common"].count == MAX_ERRORS + 5
    assert ("exception", b"error 0") not in kinds
    assert of(desk).failure_count == 2 * (MAX_ERRORS + 5)


def counted(jobs: EndedJobs) -> int:
    return sum(
        ended.FUNCTION_COST
        + len(each.name)
        + sum(job.cost() for job in (*each.jobs, *each.failures))
        + sum(ended.ERROR_COST + len(kind.line) for kind in each.errors.values())
        for each in jobs.functions.values()
    )


def test_memory_is_bounded_and_the_functions_go_that_have_moved_longest_ago() -> None:
    jobs = EndedJobs()
    at = 0
    while jobs.bytes < ended.MOST_BYTES - 10_000:
        at += 1
        text = b"%d " % at + b"x" * 2000
        job = EndedJob(
            at, b"u" * 1000, 1, True, 0, "exception", 1.0, 1.0, 1.0, 1.0, 1.0, b"w" * 1000, 0, text, b"h" * 4096
        )
        jobs.note(b"f%d" % (at % 300), job, True, text)
    assert jobs.bytes == counted(jobs)
    assert max(map(len, (job.text for job in jobs.by_number.values()))) == LONGEST_TEXT
    first = next(iter(jobs.functions))
    jobs.note(
        first, EndedJob(at + 1, b"", 1, True, 0, "completed", 1.0, 1.0, 1.0, 1.0, 1.0, b"", 0, b"", b""), False, b""
    )
    for more in range(3):
        job = EndedJob(at + 2 + more, b"", 1, True, 0, "completed", 1.0, 1.0, 1.0, 1.0, 1.0, b"", 0, b"", b"h" * 4096)
        jobs.note(b"new", job, False, b"")
    assert jobs.bytes == counted(jobs) <= ended.MOST_BYTES
    assert list(jobs.functions)[-2:] == [first, b"new"]
    assert len(jobs.functions) < 301
    assert set(jobs.by_number) == {
        job.number for each in jobs.functions.values() for job in (*each.jobs, *each.failures)
    }


def test_a_dead_letter_that_is_tried_again_and_dies_again(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    handle = run(desk, "WORK_EXCEPTION", b"once")
    desk.text("admin", f"retry {handle.decode()}")
    assert desk.grab("w") == handle
    desk.send("w", "WORK_EXCEPTION", handle, b"twice")
    assert desk.server.ended.by_number[number(handle)].text == b"twice"
    assert [job.text for job in of(desk).failures] == [b"once", b"twice"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", b""),
        (b"oops", b"oops"),
        (b"\n\r\n oops \r\nmore", b"oops"),
        (b"Traceback (most recent call last):\n  File x, line 1, in f\n    1 / 0\nZeroDivisionError: by zero\n",
         b"ZeroDivisionError: by zero"),
        (b"Traceback (most recent call last):\n  File x\nKeyError: 1\n\nDuring handling of the above exception, "
         b"another exception occurred:\n\nTraceback (most recent call last):\n  File x\nm.Error: a\nb\n",
         b"m.Error: a"),
        (b"Traceback (most recent call last):", b"Traceback (most recent call last):"),
        (b"x" * 1000, b"x" * LONGEST_LINE),
        (b"x" * (LONGEST_LINE - 1) + "ß".encode() + b"y", b"x" * (LONGEST_LINE - 1)),
        (b"x" * (LONGEST_LINE - 2) + "ß".encode() + b"y", b"x" * (LONGEST_LINE - 2) + "ß".encode()),
        (b"x" * (LONGEST_LINE - 3) + "😀".encode() + b"y", b"x" * (LONGEST_LINE - 3)),
        (b"\x80" * 1000, b"\x80" * LONGEST_LINE),
    ],
)  # fmt: skip
def test_the_line_by_which_an_error_is_told_from_others(text: bytes, line: bytes) -> None:
    assert error_line(text) == line
