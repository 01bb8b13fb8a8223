"""Middleware, and what is written with it: the log of jobs and the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from caller import Caller

from geartrain.errors import JobFailedError
from geartrain.worker import AssignedJob, AsyncWorker, JobLog, Middleware, Worker
from geartrain.worker.metrics import Metrics
from servers import RunningServer, running_geartrain


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


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
    server: RunningServer, caplog: pytest.LogCaptureFixture, kind: type[Worker | AsyncWorker]
) -> None:
    seen: list[str] = []
    worker = kind(server.address, middleware=[Notes("outer", seen), Notes("inner", seen, b"refused")])

    @worker.function()
    def maybe(job: AssignedJob) -> bytes:
        seen.append("runs")
        if job.workload == b"bad":
            raise ValueError("no")
        return b"fine"

    def play() -> None:
        with Caller(server) as caller:
            assert caller.run("maybe", b"good") == b"fine"
            assert caller.error("maybe", b"bad").endswith("ValueError: no")
            assert caller.error("maybe", b"refused").endswith("PermissionError: not you")

    async def main() -> None:
        async with worker:
            await asyncio.to_thread(play)

    with caplog.at_level(logging.ERROR):
        if isinstance(worker, AsyncWorker):
            asyncio.run(main())
        else:
            with worker:
                play()
    assert seen == [
        *("outer before good", "inner before good", "runs", "inner after good", "outer after good"),
        *("outer before bad", "inner before bad", "runs", "inner failed bad: no", "outer failed bad: no"),
        *("outer before refused", "inner before refused", "outer failed refused: not you"),
    ]
    assert "a bad middleware" in caplog.text


def test_the_log_of_jobs(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(server.address, middleware=[JobLog(level=logging.INFO)])

    @worker.function()
    def maybe(job: AssignedJob) -> None:
        if job.workload == b"bad":
            raise ValueError("no")
        if job.workload == b"fails":
            raise JobFailedError

    with caplog.at_level(logging.INFO, logger="geartrain.jobs"), worker, Caller(server) as caller:
        caller.submit("maybe", b"good", unique=b"u1")
        caller.follow()
        caller.packets("maybe", b"bad")
        caller.packets("maybe", b"fails")
    done, raised, failed = [record for record in caplog.records if record.name == "geartrain.jobs"]
    assert done.getMessage().startswith("maybe H:")
    assert "(u1) done in 0.0" in done.getMessage()
    assert (raised.levelname, raised.getMessage()[-4:]) == ("ERROR", ": no")
    assert raised.exc_info is not None
    assert failed.exc_info is None


def test_metrics(server: RunningServer) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    worker = Worker(server.address, middleware=[Metrics(registry)])
    running: list[float | None] = []

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"function": "maybe", **labels})

    @worker.function()
    def maybe(job: AssignedJob) -> bytes:
        running.append(value("geartrain_worker_jobs_running"))
        if job.workload == b"bad":
            raise ValueError("no")
        return b""

    with worker, Caller(server) as caller:
        caller.run("maybe")
        caller.run("maybe")
        caller.error("maybe", b"bad")
    assert running == [1, 1, 1]
    assert value("geartrain_worker_jobs_running") == 0
    assert value("geartrain_worker_jobs_total", outcome="done") == 2
    assert value("geartrain_worker_jobs_total", outcome="failed") == 1
    assert value("geartrain_worker_job_seconds_count") == 3
