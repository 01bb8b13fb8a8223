"""Gearman over HTTP as gearmand speaks it, and where ours is right instead (section 5 of the protocol)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from http_client import Answer, Http

from wire_caller import Caller

pytest.importorskip("httptools")

from geartrain.wire.packets import WORK_DATA, WORK_EXCEPTION, WORK_FAIL, WORK_STATUS, WORK_WARNING, pack_request
from servers import RunningServer, running_geartrain, wait_until


class Place:
    """A job server with HTTP, a client of that, and a worker."""

    def __init__(self, server: RunningServer, worker: Caller) -> None:
        self.server = server
        self.http = Http(server.http_port)
        self.worker = worker


@contextlib.contextmanager
def place(*options: str) -> Iterator[Place]:
    with running_geartrain("--http=127.0.0.1:0", *options) as server, Caller(server) as worker:
        worker.can_do(b"f")
        yield Place(server, worker)


@pytest.fixture
def at() -> Iterator[Place]:
    with place() as it:
        yield it


def test_the_body_is_the_workload_and_the_result_is_the_answer(at: Place) -> None:
    at.http.begin("POST", "/f", b"hello")
    job = at.worker.await_job()
    assert job.arguments[3] == b"hello"
    at.worker.complete(job, b"olleh")
    answer = at.http.end()
    assert (answer.status, answer.body) == (200, b"olleh")
    assert answer.headers["x-gearman-command"] == "WORK_COMPLETE"
    assert answer.headers["x-gearman-job-handle"] == job.arguments[0].decode()


def test_data_comes_before_the_result_and_warnings_and_status_do_not_spoil_it(at: Place) -> None:
    at.http.begin("POST", "/f", b"x")
    job = at.worker.await_job()
    for type, data in ((WORK_DATA, b"one "), (WORK_WARNING, b"!"), (WORK_DATA, b"two ")):
        at.worker.send(pack_request(type, job.arguments[0], data))
    at.worker.send(pack_request(WORK_STATUS, job.arguments[0], b"1", b"2"))
    at.worker.complete(job, b"three")
    answer = at.http.end()
    assert (answer.status, answer.body) == (200, b"one two three")
    assert answer.headers["x-gearman-warnings"] == "1"


def test_a_background_job_is_answered_with_its_handle_at_once(at: Place) -> None:
    answer = at.http.ask("POST", "/f", b"x", {"X-Gearman-Background": "TRUE", "X-Gearman-Priority": "high"})
    assert (answer.status, answer.body, answer.headers["x-gearman-command"]) == (200, b"", "JOB_CREATED")
    assert at.worker.await_job().arguments[0].decode() == answer.headers["x-gearman-job-handle"]


def fail(at: Place, type: int) -> Answer:
    at.http.begin("POST", "/f", b"x")
    job = at.worker.await_job()
    more = [b"division by zero"] if type == WORK_EXCEPTION else []
    at.worker.send(pack_request(type, job.arguments[0], *more))
    return at.http.end()


@pytest.mark.parametrize(
    ("type", "command", "detail"),
    [
        (WORK_FAIL, "WORK_FAIL", "The job has failed; its worker said nothing about it"),
        (WORK_EXCEPTION, "WORK_EXCEPTION", "division by zero"),
    ],
)
def test_a_failed_job_is_no_success(at: Place, type: int, command: str, detail: str) -> None:
    answer = fail(at, type)
    assert (answer.status, answer.headers["x-gearman-command"]) == (500, command)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert (problem["type"], problem["detail"]) == ("/problems#job-failed", detail)
    assert problem["handle"] == answer.headers["x-gearman-job-handle"]


@pytest.mark.parametrize("type", [WORK_FAIL, WORK_EXCEPTION])
def test_as_gearmand_answers_it_is_200(type: int) -> None:
    with place("--http-gearmand") as at:
        answer = fail(at, type)
        assert (answer.status, answer.body, answer.headers["x-gearman-command"]) == (200, b"", "WORK_FAIL")


def test_unique_and_priority(at: Place) -> None:
    for unique in ("one", "one", "two"):
        answer = at.http.ask("PUT", "/f", b"x", {"X-Gearman-Background": "true", "X-Gearman-Unique": unique})
        assert answer.status == 200
    at.http.ask("POST", "/f", b"first", {"X-Gearman-Background": "true", "X-Gearman-Priority": "high"})
    workloads = [at.worker.await_job().arguments[3] for _ in range(3)]
    assert workloads == [b"first", b"x", b"x"]
    answer = at.http.ask("POST", "/f", b"x", {"X-Gearman-Priority": "urgent"})
    assert (answer.status, answer.json["detail"]) == (400, "X-Gearman-Priority is 'urgent': write high or low")


def test_a_name_may_be_encoded_or_stand_below_gearman(at: Place) -> None:
    at.worker.can_do(b"a b/c")
    at.worker.can_do(b"metrics")
    for path, name in (("/a%20b/c?x=1", b"a b/c"), ("/gearman/metrics", b"metrics")):
        at.http.begin("POST", path, b"x")
        job = at.worker.await_job()
        assert job.arguments[1] == name
        at.worker.complete(job, b"")
        assert at.http.end().status == 200


def test_a_client_that_goes_away_takes_its_job_with_it(at: Place) -> None:
    at.http.begin("POST", "/g", b"x")
    wait_until(lambda: at.server.jobs_of("g") == (1, 0), "the job waits")
    at.http.close()
    wait_until(lambda: at.server.jobs_of("g") == (0, 0), "it is gone")


def test_a_job_that_takes_too_long() -> None:
    with place("--http-timeout=0.2") as at:
        answer = at.http.ask("POST", "/g", b"x")
        assert answer.status == 504
        assert "0.2 s (--http-timeout)" in answer.json["detail"]
        wait_until(lambda: at.server.jobs_of("g") == (0, 0), "the job that nobody waits for is gone")


def test_a_full_queue_is_told(at: Place) -> None:
    assert at.server.ask("maxqueue g 1") == ["OK"]
    headers = {"X-Gearman-Background": "true", "X-Gearman-Unique": ""}
    assert at.http.ask("POST", "/g", b"x", headers).status == 200
    answer = at.http.ask("POST", "/g", b"x", headers)
    assert (answer.status, answer.headers["x-gearman-command"]) == (503, "ERROR")
    assert answer.json["type"] == "/problems#queue-error"


def test_methods(at: Place) -> None:
    answer = at.http.ask("GET", "/f")
    assert (answer.status, answer.headers["allow"]) == (405, "POST, PUT")
    assert at.http.ask("POST", "//").json["type"] == "/problems#no-function"
