"""Middleware, and what is written with it: the log of jobs and the metrics."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

from geartrain.client import Client
from geartrain.contrib.local_server import LocalServer
from geartrain.errors import GeartrainError, JobFailedError, JobRaisedError, Reject, Retry
from geartrain.worker import AssignedJob, AsyncWorker, JobLog, Middleware, Worker
from geartrain.worker.metrics import Metrics


def error(client: Client, function: str, workload: bytes) -> str:
    """The text with which a job fails."""
    with pytest.raises(JobRaisedError) as caught:
        client.run(function, workload, timeout=20)
    return str(caught.value)


class Notes(Middleware):
    """Notes what it is told; refuses one workload."""

    def __init__(self, name: str, seen: list[str], refused: bytes = b"") -> None:
        self.name = name
        self.seen = seen
        self.refused = refused

    def before(self, job: AssignedJob) -> None:
        self.seen.append(f"{self.name} before {job.workload.decode()}")
        if job.workload == self.refused:
            raise PermissionError("not you")

    def after(self, job: AssignedJob, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append(f"{self.name} after {job.workload.decode()}")
        raise RuntimeError("a bad middleware")

    def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
        self.seen.append(f"{self.name} failed {job.workload.decode()}: {error}")


@pytest.mark.parametrize("kind", [Worker, AsyncWorker])
def test_it_sees_every_job(
    geartrain_server: LocalServer, caplog: pytest.LogCaptureFixture, kind: type[Worker | AsyncWorker]
) -> None:
    seen: list[str] = []
    worker = kind(middleware=[Notes("outer", seen), Notes("inner", seen, b"refused")])

    @worker.function()
    def maybe(job: AssignedJob) -> bytes:
        seen.append("runs")
        if job.workload == b"bad":
            raise ValueError("no")
        return b"fine"

    client = geartrain_server.client()
    with caplog.at_level(logging.ERROR), geartrain_server.run_worker(worker):
        assert client.run("maybe", b"good") == b"fine"
        assert error(client, "maybe", b"bad").endswith("ValueError: no")
        assert error(client, "maybe", b"refused").endswith("PermissionError: not you")
    assert seen == [
        *("outer before good", "inner before good", "runs", "inner after good", "outer after good"),
        *("outer before bad", "inner before bad", "runs", "inner failed bad: no", "outer failed bad: no"),
        *("outer before refused", "inner before refused", "outer failed refused: not you"),
    ]
    assert "a bad middleware" in caplog.text


def test_the_log_of_jobs(geartrain_server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(middleware=[JobLog(level=logging.INFO)])

    @worker.function()
    def maybe(job: AssignedJob) -> None:
        if job.workload == b"bad":
            raise ValueError("no")
        if job.workload == b"fails":
            raise JobFailedError

    client = geartrain_server.client()
    with caplog.at_level(logging.INFO, logger="geartrain.jobs"), geartrain_server.run_worker(worker):
        client.submit_background("maybe", b"good", unique="u1")
        client.submit_background("maybe", b"bad")
        client.submit_background("maybe", b"fails")
        geartrain_server.wait_idle()
    done, raised, failed = [record for record in caplog.records if record.name == "geartrain.jobs"]
    assert done.getMessage().startswith("maybe H:")
    assert "(u1) done in 0.0" in done.getMessage()
    assert (raised.levelname, raised.getMessage()[-4:]) == ("ERROR", ": no")
    assert raised.exc_info is not None
    assert failed.exc_info is None


@pytest.mark.parametrize(
    ("verdict", "level", "text"),
    [
        (Retry(30, "busy"), "WARNING", r"maybe H:\S+ is to be tried again in 30s, after \d\.\d+ s: busy"),
        (Retry(), "WARNING", r"maybe H:\S+ is to be tried again, after \d\.\d+ s: The job is to be tried again\."),
        (Reject("bad input"), "ERROR", r"maybe H:\S+ failed after \d\.\d+ s: bad input"),
    ],
)
def test_the_log_of_verdicts(
    geartrain_eager: Callable[..., Client], caplog: pytest.LogCaptureFixture, verdict: Exception, level: str, text: str
) -> None:
    worker = Worker()

    @worker.function()
    def maybe(job: AssignedJob) -> None:
        raise verdict

    with pytest.raises(GeartrainError):
        geartrain_eager(worker).run("maybe")
    (record,) = [record for record in caplog.records if record.name == "geartrain.jobs"]
    assert (record.levelname, record.exc_info) == (level, None)
    assert re.fullmatch(text, record.getMessage())


def test_metrics(geartrain_server: LocalServer) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    worker = Worker(middleware=[Metrics(registry)])
    running: list[float | None] = []

    def value(name: str, **labels: str) -> float | None:
        sample: float | None = registry.get_sample_value(name, {"function": "maybe", **labels})
        return sample

    @worker.function()
    def maybe(job: AssignedJob) -> bytes:
        running.append(value("geartrain_worker_jobs_running"))
        if job.workload == b"bad":
            raise ValueError("no")
        if job.workload == b"busy" and len(running) == 4:
            raise Retry(60)
        return b""

    client = geartrain_server.client()
    with geartrain_server.run_worker(worker):
        client.run("maybe")
        client.run("maybe")
        error(client, "maybe", b"bad")
        client.submit_background("maybe", b"busy")
        geartrain_server.wait_idle()
    assert running == [1, 1, 1, 1]
    assert value("geartrain_worker_jobs_total", outcome="retry") == 1
    assert value("geartrain_worker_jobs_running") == 0
    assert value("geartrain_worker_jobs_total", outcome="done") == 2
    assert value("geartrain_worker_jobs_total", outcome="failed") == 1
    assert value("geartrain_worker_job_seconds_count") == 4
