"""/api/v1/functions/{name}/latest, and what is told of a single job that has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

pytest.importorskip("httptools")

from api_place import Place, place

from geartrain.wire.packets import WORK_EXCEPTION, WORK_FAIL, pack_request
from servers import wait_until

TRACEBACK = b'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    1 / 0\nZeroDivisionError: by zero\n'


@pytest.fixture
def at() -> Iterator[Place]:
    with place() as it:
        yield it


def run(at: Place, report: int | None = None, *arguments: bytes) -> str:
    handle = at.api.submit("f", unique="u\\xff")
    job = at.worker.await_job()
    if report is None:
        at.worker.complete(job, b"result")
    else:
        at.worker.send(pack_request(report, job.arguments[0], *arguments))
    at.worker.fence()
    return handle


def test_jobs_that_have_completed_and_failed(at: Place) -> None:
    assert at.api.get("/functions/f/latest") == {"jobs": [], "errors": [], "failures": 0}
    completed = run(at)
    failed = run(at, WORK_FAIL)
    raised = [run(at, WORK_EXCEPTION, TRACEBACK), run(at, WORK_EXCEPTION, TRACEBACK)]
    latest = at.api.get("/functions/f/latest")
    assert [job["handle"] for job in latest["jobs"]] == [*raised[::-1], failed, completed]
    assert [job["state"] for job in latest["jobs"]] == ["exception", "exception", "failed", "completed"]
    first = latest["jobs"][-1]
    assert first.pop("submitted") <= first.pop("queued") <= first.pop("started") <= first.pop("ended") < time.time() + 1
    assert first == {
        "handle": completed, "unique": "u\\xff", "state": "completed", "attempts": 0, "error": "",
        "worker": "- 127.0.0.1",
    }  # fmt: skip
    assert latest["jobs"][0]["error"] == TRACEBACK.decode()
    assert [(kind["state"], kind["error"], kind["count"], kind["handle"]) for kind in latest["errors"]] == [
        ("exception", "ZeroDivisionError: by zero", 2, raised[1]),
        ("failed", "", 1, failed),
    ]
    assert latest["failures"] == 3
    assert len(at.api.get("/functions/f/latest?limit=2")["jobs"]) == 2
    assert at.api.refusal(404, "GET", "/functions/nothing/latest")[0] == "unknown-function"
    assert at.api.refusal(422, "GET", "/functions/f/latest?limit=101")[0] == "invalid"


def test_more_are_noted_in_each_second(at: Place) -> None:
    def is_noted() -> bool:
        handle = run(at)
        return bool(at.api.get("/functions/f/latest")["jobs"][0]["handle"] == handle)

    for _ in range(10):
        run(at)
    assert len(at.api.get("/functions/f/latest")["jobs"]) < 10 or is_noted()
    wait_until(is_noted, "another one is noted")


def test_a_single_job_that_has_completed(at: Place) -> None:
    job = at.api.get(f"/jobs/{run(at)}")
    assert (job["state"], job["outcome"], job["function"], job["unique"]) == ("ended", "completed", "f", "u\\xff")
    assert job["created"] <= job["queued"] <= job["started"] <= job["ended"]
    assert (job["worker"], job["attempts"], job["text"], job["reason"]) == ("- 127.0.0.1", 0, None, None)
    assert (job["priority"], job["background"], job["size"]) == ("normal", True, 0)


def test_a_single_job_whose_result_is_kept(at: Place) -> None:
    at.api.do("PUT", "/functions/f/policy", {"keys": {"results": "1h"}})
    job = at.api.get(f"/jobs/{run(at)}")
    assert (job["state"], job["outcome"], job["function"], job["result_size"]) == ("ended", "completed", "f", 6)
    assert job["created"] <= job["queued"] <= job["started"] <= job["ended"] < job["kept_until"]


def test_a_single_job_that_has_failed_with_its_attempts(at: Place) -> None:
    at.api.do("PUT", "/functions/f/policy", {"keys": {"attempts": 2, "delay": "0", "dead": "0"}})
    handle = at.api.submit("f")
    for text in (b"first", b"second"):
        at.worker.send(pack_request(WORK_EXCEPTION, at.worker.await_job().arguments[0], text))
        at.worker.fence()
    job = at.api.get(f"/jobs/{handle}")
    assert (job["state"], job["outcome"], job["reason"], job["text"]) == ("ended", "failed", "exception", "second")
    assert [(each["number"], each["reason"], each["text"]) for each in job["history"]] == [
        (1, "exception", "first"),
        (2, "exception", "second"),
    ]
    assert job["attempts"] == 2


def test_a_dead_letter_and_a_job_that_runs_have_their_times(at: Place) -> None:
    at.api.do("PUT", "/functions/f/policy", {"keys": {"attempts": 1}})
    handle = at.api.submit("f")
    waiting = at.api.get(f"/jobs/{handle}")
    assert (waiting["started"], waiting["ended"]) == (None, None)
    assert waiting["queued"] > 0
    job = at.worker.await_job()
    assert at.api.get(f"/jobs/{handle}")["started"] > 0
    at.worker.send(pack_request(WORK_EXCEPTION, job.arguments[0], b"oops"))
    at.worker.fence()
    dead = at.api.get(f"/jobs/{handle}")
    assert (dead["state"], dead["text"], dead["worker"]) == ("dead", "oops", "- 127.0.0.1")
    assert dead["queued"] <= dead["started"] <= dead["ended"]
    (shown,) = at.api.get("/functions/f/latest")["jobs"]
    assert (shown["state"], shown["error"]) == ("exception", "oops")


def test_a_job_that_was_cancelled(at: Place) -> None:
    handle = at.api.submit("f")
    at.api.do("DELETE", f"/jobs/{handle}")
    job = at.api.get(f"/jobs/{handle}")
    assert (job["state"], job["outcome"], job["started"], job["worker"]) == ("ended", "cancelled", None, None)
