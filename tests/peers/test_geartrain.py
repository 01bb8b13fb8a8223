"""Our client with every foreign worker, and our worker with every foreign client, on our server and on gearmand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from peer import PEERS, TALKING_PEERS, ClientOf, Outcome, WorkerOf

from geartrain import AssignedJob, Client, Worker
from geartrain.client import DataEvent, StatusEvent, WarningEvent
from geartrain.errors import JobFailedError, JobRaisedError
from servers import PATIENCE, RunningServer, running_gearmand, running_geartrain

EVERY_BYTE = bytes(range(256))
MEGABYTE = EVERY_BYTE * 4096


@pytest.fixture(scope="module", params=[running_geartrain, running_gearmand], ids=["geartrain", "gearmand"])
def job_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """Both job servers, whatever the other tests of foreign peers run against."""
    with request.param() as server:
        yield server


@pytest.fixture
def client(job_server: RunningServer) -> Iterator[Client]:
    with Client(job_server.address) as client:
        yield client


@pytest.fixture
def our_worker(job_server: RunningServer, function: str) -> Iterator[str]:
    """Our worker at work in a thread; it does what the workload's first word says. Its function's name."""
    worker = Worker(job_server.address)

    @worker.function(function)
    def behave(job: AssignedJob) -> bytes:
        if job.workload == b"talk":
            job.send(b"first")
            job.warn(b"careful")
            job.progress(3, 4)
            return b"last"
        if job.workload == b"raise":
            raise ValueError("no such luck")
        return job.workload[::-1]

    worker.start()
    yield function
    worker.stop()
    worker.join()


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("workload", [EVERY_BYTE, MEGABYTE], ids=["every byte", "1 MiB"])
def test_our_client_gets_results_of(
    peer: str, workload: bytes, client: Client, worker_of: WorkerOf, function: str
) -> None:
    worker_of(peer, {function: "reverse"})
    assert client.run(function, workload, timeout=PATIENCE) == workload[::-1]


@pytest.mark.parametrize("peer", TALKING_PEERS)
def test_our_client_hears_progress_of(peer: str, client: Client, worker_of: WorkerOf, function: str) -> None:
    worker_of(peer, {function: "talk"})
    job = client.submit(function, b"go on")
    assert list(job.events()) == [DataEvent(b"first"), WarningEvent(b"careful"), StatusEvent(3, 4)]
    assert job.result(timeout=PATIENCE) == b"last"


@pytest.mark.parametrize("peer", PEERS)
def test_our_client_hears_of_failures_of(peer: str, client: Client, worker_of: WorkerOf, function: str) -> None:
    worker_of(peer, {function: "fail"})
    with pytest.raises(JobFailedError):
        client.run(function, b"try this", timeout=PATIENCE)


@pytest.mark.parametrize("peer", TALKING_PEERS)
def test_our_client_hears_exceptions_of(peer: str, client: Client, worker_of: WorkerOf, function: str) -> None:
    worker_of(peer, {function: "raise"})
    with pytest.raises(JobRaisedError) as raised:
        client.run(function, b"its text", timeout=PATIENCE)
    assert b"its text" in raised.value.data


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("workload", [EVERY_BYTE, MEGABYTE], ids=["every byte", "1 MiB"])
def test_our_worker_gives_results_to(peer: str, workload: bytes, our_worker: str, client_of: ClientOf) -> None:
    theirs = client_of(peer)
    theirs.submit(our_worker, workload)
    assert theirs.outcome() == Outcome("complete", workload[::-1])


@pytest.mark.parametrize("peer", TALKING_PEERS)
def test_our_worker_tells_its_progress_to(peer: str, our_worker: str, client_of: ClientOf) -> None:
    theirs = client_of(peer)
    theirs.submit(our_worker, b"talk")
    events: list[tuple[str, object]] = [("data", b"first"), ("warning", b"careful"), ("status", (3, 4))]
    assert theirs.outcome() == Outcome("complete", b"last", events)


@pytest.mark.parametrize("peer", TALKING_PEERS)
def test_our_worker_tells_its_exceptions_to(peer: str, our_worker: str, client_of: ClientOf) -> None:
    theirs = client_of(peer, exceptions=True)
    theirs.submit(our_worker, b"raise")
    outcome = theirs.outcome()
    assert outcome.end == "exception"
    assert b"no such luck" in outcome.result
