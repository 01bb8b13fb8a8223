"""What a worker says about a job reaches the client: data, warnings, progress, failure, exceptions."""

from __future__ import annotations

import pytest
from peer import PEERS, TALKING_PEERS, ClientOf, Outcome, WorkerOf

from servers import KnownDifference

PERL_WORKER_DIES = "answers the WORK_FAIL that Perl sends after a WORK_EXCEPTION by an error: the worker dies of it"


@pytest.mark.parametrize("client", TALKING_PEERS)
@pytest.mark.parametrize("worker", TALKING_PEERS)
def test_data_warnings_and_progress_arrive_in_order(
    worker: str, client: str, client_of: ClientOf, worker_of: WorkerOf, function: str
) -> None:
    worker_of(worker, {function: "talk"})
    submitter = client_of(client)
    submitter.submit(function, b"go on")
    assert submitter.outcome() == Outcome(
        "complete", b"last", [("data", b"first"), ("warning", b"careful"), ("status", (3, 4))]
    )


@pytest.mark.parametrize("client", PEERS)
@pytest.mark.parametrize("worker", PEERS)
def test_failure_arrives(worker: str, client: str, client_of: ClientOf, worker_of: WorkerOf, function: str) -> None:
    worker_of(worker, {function: "fail"})
    submitter = client_of(client)
    for _ in range(2):  # the second time shows that worker and client are still well
        submitter.submit(function, b"try this")
        assert submitter.outcome().end == "fail"


@pytest.mark.parametrize("client", TALKING_PEERS)
@pytest.mark.parametrize("worker", TALKING_PEERS)
def test_exceptions_arrive_where_they_were_asked_for(
    worker: str,
    client: str,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    known_difference: KnownDifference,
) -> None:
    if worker == "perl":
        known_difference("gearmand", PERL_WORKER_DIES)
    worker_of(worker, {function: "raise"})
    submitter = client_of(client, exceptions=True)
    for text in (b"the disk is full", b"the disk is still full"):
        submitter.submit(function, text)
        outcome = submitter.outcome()
        assert outcome.end == "exception"
        assert text in outcome.result  # a Perl worker wraps it


@pytest.mark.parametrize("client", PEERS)
@pytest.mark.parametrize("worker", TALKING_PEERS)
def test_exceptions_are_failures_where_they_were_not_asked_for(
    worker: str,
    client: str,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    known_difference: KnownDifference,
) -> None:
    if worker == "perl":
        known_difference("gearmand", PERL_WORKER_DIES)
    elif client != "gear":
        known_difference("gearmand", "a NUL too many in the WORK_FAIL: libgearman waits past it, Perl dies of it")
    worker_of(worker, {function: "raise"})
    submitter = client_of(client)
    for text in (b"the disk is full", b"the disk is still full"):
        submitter.submit(function, text)
        outcome = submitter.outcome()
        assert (outcome.end, outcome.result) == ("fail", b"")
