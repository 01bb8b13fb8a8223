"""When a job was stored: exact, or said not to be known."""

from __future__ import annotations

import pytest
from desk import WALL, Desk

from geartrain.jobserver import commits as module
from geartrain.jobserver.commits import Commits
from geartrain.jobserver.model import STORED, UNSTORED, Function, Job

FUNCTION = Function(b"f")


def jobs(*numbers: int) -> list[Job]:
    found = [Job(number, FUNCTION, b"", b"", 1, True, 0.0) for number in numbers]
    for job in found:
        job.stored = STORED
    return found


def times(commits: Commits, *numbers: int) -> list[float]:
    return [commits.time_of(job) for job in jobs(*numbers)]


def test_jobs_have_the_time_of_their_commit_and_others_have_none() -> None:
    commits = Commits()
    commits.begin(5)
    commits.note([], 1.0)
    commits.note(jobs(5, 6), 2.0)
    commits.note(jobs(7), 3.0)
    commits.note(jobs(9, 10), 4.0)  # 8 is a foreground job
    assert times(commits, 4, 5, 6, 7, 9, 10, 11) == [0, 2.0, 2.0, 3.0, 4.0, 4.0, 0]
    (job,) = jobs(7)
    job.stored = UNSTORED
    assert commits.time_of(job) == 0


def test_jobs_that_are_stored_behind_newer_ones_have_times_of_their_own() -> None:
    commits = Commits()
    commits.note(jobs(4, 2, 5), 1.0)
    commits.note(jobs(3), 2.0)
    commits.note(jobs(1, 6), 3.0)
    assert times(commits, 1, 2, 3, 4, 5, 6) == [3.0, 1.0, 2.0, 1.0, 1.0, 3.0]


def test_so_many_commits_are_known_and_no_wrong_time_of_those_before() -> None:
    commits = Commits()
    last = 5 * module.MOST // 2
    for number in range(1, last + 1):
        commits.note(jobs(2 * number), float(number))
    known = [time for number in range(1, last + 1) for time in times(commits, 2 * number)]
    first = known.index(next(time for time in known if time))
    assert module.MOST <= last - first <= 2 * module.MOST
    assert known == [0.0] * first + [float(number) for number in range(first + 1, last + 1)]
    assert len(commits.before.times) + len(commits.recent.times) == last - first


def test_late_ones_are_bounded_and_those_that_are_forgotten_get_no_wrong_time() -> None:
    commits = Commits()
    newest = module.MOST_LATE + 10
    commits.note(jobs(1, newest), 1.0)
    for number in range(2, module.MOST_LATE + 3):
        commits.note(jobs(number), float(number))
    assert len(commits.late) == module.MOST_LATE
    assert times(commits, 1, 2, 3, newest) == [0, 0, 3.0, 1.0]


@pytest.fixture
def desk() -> Desk:
    desk = Desk(durable=True)
    desk.text("admin", "policy set f attempts=1 dead=1h")
    return desk


def stored_at(desk: Desk, handle: bytes) -> float | None:
    """As ``show job`` tells it, in seconds since the desk was set up."""
    rows = dict(row.split("\t", 1) for row in desk.text("admin", f"show job {handle.decode()}").splitlines()[:-1])
    return round(float(rows["stored_at"]) - WALL, 3) if "stored_at" in rows else None


def test_a_job_tells_when_the_store_had_it_also_when_it_is_dead_and_tried_again(desk: Desk) -> None:
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"w")
    batch = desk.server.take_batch()
    assert batch is not None
    desk.wait(2)
    desk.server.written(batch)
    desk.settle()
    ((_, handle),) = desk.take("client")
    assert isinstance(handle, bytes)
    assert stored_at(desk, handle) == 2.0
    desk.works("worker", b"f")
    desk.wait(1)
    assert desk.grab("worker") == handle
    desk.send("worker", "WORK_FAIL", handle)
    desk.commit()
    assert "state\tdead" in desk.text("admin", f"show job {handle.decode()}")
    assert stored_at(desk, handle) == 2.0
    desk.wait(1)
    desk.text("admin", f"retry {handle.decode()}")
    assert stored_at(desk, handle) == 2.0


def test_a_foreground_job_is_stored_when_a_background_submission_joins_it(desk: Desk) -> None:
    desk.send("waiting", "SUBMIT_JOB", b"g", b"u", b"w")
    ((_, handle),) = desk.take("waiting")
    assert isinstance(handle, bytes)
    desk.submit(b"g")
    assert stored_at(desk, handle) is None
    desk.wait(3)
    assert desk.submit(b"g", b"u") == handle
    assert stored_at(desk, handle) == 3.0


def test_of_a_job_from_before_a_restart_it_is_not_known(desk: Desk) -> None:
    old = desk.submit(b"g")
    desk.restart()
    desk.wait(1)
    new = desk.submit(b"g")
    assert stored_at(desk, old) is None
    assert stored_at(desk, new) == 1.0


def test_without_a_store_no_job_has_been_stored() -> None:
    desk = Desk()
    assert stored_at(desk, desk.submit(b"g")) is None


def test_one_that_has_ended_lately_tells_it_too(desk: Desk) -> None:
    desk.server.want_ends()
    desk.works("worker", b"g")
    desk.wait(1)
    handle = desk.submit(b"g")
    desk.wait(1)
    assert desk.grab("worker") == handle
    desk.send("worker", "WORK_COMPLETE", handle, b"")
    (ended,) = desk.server.ended.by_number.values()
    assert ended.stored_at == WALL + 1
