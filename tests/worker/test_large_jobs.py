"""Jobs, results and parts of results that are larger than one of the two sides takes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from caller import Caller, until, working

from geartrain.client import AdminClient
from geartrain.wire.packets import WORK_EXCEPTION
from geartrain.worker import AssignedJob, AsyncWorker, Worker
from servers import RunningServer, running_geartrain

KINDS: dict[str, type[Worker | AsyncWorker]] = {"Worker": Worker, "AsyncWorker": AsyncWorker}

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain("--max-packet", "64KiB") as server:
        yield server


def test_a_job_above_the_limit_fails_and_the_connection_goes_on(server: RunningServer, kind: str) -> None:
    """If it only ended the connection, the job would come back for ever."""
    worker = KINDS[kind](server.address, max_packet=1000, middleware=[])
    worker.function("small")(lambda job: job.workload)
    with working(worker), Caller(server) as caller:
        assert caller.run("small", b"x" * 900) == b"x" * 900
        handle = caller.submit("small", b"x" * 2000)
        [end] = caller.follow()
        assert end.type == WORK_EXCEPTION
        assert re.fullmatch(
            rb"the worker can't take this job: JOB_ASSIGN_UNIQ of \d+ bytes for " + handle + rb" is above the limit "
            rb"of 1000 \(max_packet\)",
            end.arguments[1],
        )
        assert caller.run("small", b"y") == b"y"
        assert len(AdminClient(server.address).workers()) == 3, "the worker, the caller and this"


def test_a_result_above_the_servers_limit_fails_its_job_once(
    server: RunningServer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = KINDS[kind](server.address, middleware=[])
    runs = []

    @worker.function("big")
    def big(job: AssignedJob) -> bytes:
        runs.append(job.handle)
        return b"x" * 3_000_000

    @worker.function("parts")
    def parts(job: AssignedJob) -> bytes:
        job.send(b"x" * 100_000)
        return b"the end"

    worker.function("small")(lambda job: job.workload)
    with working(worker), Caller(server) as caller:
        handle = caller.submit("big")
        [end] = caller.follow()
        assert end.type == WORK_EXCEPTION
        assert b"WORK_COMPLETE of %d bytes for %b (big)" % (3_000_001 + len(handle), handle) in end.arguments[1]
        assert b"limit of 65536" in end.arguments[1]
        caller.submit("parts")
        [end] = caller.follow()
        assert end.type == WORK_EXCEPTION
        assert b"WORK_DATA of" in end.arguments[1]
        assert caller.run("small", b"y") == b"y"
        until(lambda: caplog.text.count("the job has failed") == 2)
    assert runs == [handle]
    assert "lost" not in caplog.text
