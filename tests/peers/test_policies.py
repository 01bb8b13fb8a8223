"""Policies of functions, for workers and clients that know nothing of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from peer import PEERS, TALKING_PEERS, ClientOf, Outcome, WorkerOf

from servers import KnownDifference, RunningServer, wait_until

Policy = Callable[[str], None]


@pytest.fixture
def policy(job_server: RunningServer, function: str, known_difference: KnownDifference) -> Iterator[Policy]:
    """Sets the policy of this test's function."""
    known_difference("gearmand", "knows no policies")

    def policy(words: str) -> None:
        assert job_server.ask(f"policy set {function} {words}") == ["OK"]

    yield policy
    job_server.ask(f"policy unset {function}")
    job_server.ask(f"dead purge all function={function}")


def letters(server: RunningServer, function: str) -> list[list[str]]:
    """Handle, unique, reason, attempts and text of each dead letter."""
    rows = [line.split("\t") for line in server.ask(f"dead list function={function}")]
    return [[handle, unique, reason, attempts, text] for handle, _, unique, _, reason, attempts, _, text in rows]


def history(server: RunningServer, handle: str) -> list[tuple[str, str, str]]:
    """Worker, reason and text of each attempt."""
    rows = [line.split("\t") for line in server.ask(f"show job {handle}")]
    return [(row[5].split(" ")[0], row[4], row[6]) for row in rows if row[0] == "attempt"]


@pytest.mark.parametrize("how", ["fail", "raise", "late"])
@pytest.mark.parametrize("worker", TALKING_PEERS)
def test_the_third_attempt_succeeds_and_waiting_clients_hear_of_nothing_else(
    worker: str,
    how: str,
    policy: Policy,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    job_server: RunningServer,
) -> None:
    policy("attempts=3 backoff=constant delay=50ms jitter=0" + (" timeout=1s" if how == "late" else ""))
    clients = [client_of(peer, exceptions=peer != "tool") for peer in PEERS]
    for client in clients:
        client.submit(function, b"all join this one", unique="one")
    assert job_server.jobs_of(function) == (1, 0)
    foreign = worker_of(worker, {function: f"twice-{how}"})
    assert [client.outcome() for client in clients] == [Outcome("complete", b"eno siht nioj lla")] * len(PEERS)
    assert [foreign.taken() for _ in range(3)] == [b"all join this on"] * 3
    clients[0].submit(function, b"it is well")
    assert clients[0].outcome().result == b"llew si ti"
    assert letters(job_server, function) == []


@pytest.mark.parametrize("worker", PEERS)
def test_workers_that_die_are_attempts(
    worker: str,
    policy: Policy,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    job_server: RunningServer,
) -> None:
    policy("attempts=3 delay=50ms")
    client = client_of("php")
    handle = client.submit(function, b"mind your head")
    for attempts in (1, 2):
        doomed = worker_of(worker, {function: "stall"})
        assert doomed.taken() == b"mind your head"
        doomed.close()
        wait_until(lambda n=attempts: len(history(job_server, handle)) == n, "the loss is noticed")  # type: ignore[misc]
    assert [reason for _, reason, _ in history(job_server, handle)] == ["lost", "lost"]
    worker_of(worker, {function: "reverse"})
    outcome = client.outcome()
    assert (outcome.end, outcome.result) == ("complete", b"daeh ruoy dnim")


@pytest.mark.parametrize("worker", PEERS)
def test_the_last_worker_that_dies_is_the_end(
    worker: str,
    policy: Policy,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    job_server: RunningServer,
) -> None:
    policy("attempts=2 delay=50ms")
    client = client_of("perl")
    handle = client.submit(function, b"mind your head", unique="one")
    for _ in range(2):
        doomed = worker_of(worker, {function: "stall"})
        assert doomed.taken() == b"mind your head"
        doomed.close()
    assert client.outcome().end == "fail"
    assert letters(job_server, function) == [[handle, "one", "lost", "2", ""]]


@pytest.mark.parametrize("worker", TALKING_PEERS)
def test_the_last_exception_reaches_its_clients_and_is_kept(
    worker: str,
    policy: Policy,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    job_server: RunningServer,
) -> None:
    """Perl's workers send WORK_FAIL after WORK_EXCEPTION, and live on."""
    policy("attempts=3 delay=50ms")
    clients = [client_of(peer, exceptions=True) for peer in TALKING_PEERS]
    handle = {client.submit(function, b"no luck", unique="one") for client in clients}.pop()
    foreign = worker_of(worker, {function: "raise"})
    for client in clients:
        outcome = client.outcome()
        assert (outcome.end, outcome.events) == ("exception", [])
        assert b"no luck" in outcome.result  # a Perl worker wraps it
    assert [foreign.taken() for _ in range(3)] == [b"no luck"] * 3
    ((dead, unique, reason, attempts, text),) = letters(job_server, function)
    assert (dead, unique, reason, attempts) == (handle, "one", "exception", "3")
    assert "no luck" in text
    told = history(job_server, handle)
    assert [(who, reason) for who, reason, _ in told] == [(f"test-{worker}", "exception")] * 3
    assert all("no luck" in text for _, _, text in told)
    foreign.close()
    assert job_server.ask(f"dead retry {handle}") == ["OK 1"]
    rescuer = worker_of(worker, {function: "reverse"})
    assert rescuer.taken() == b"no luck"
    wait_until(lambda: job_server.jobs_of(function) == (0, 0), "it is done")
    assert letters(job_server, function) == []


@pytest.mark.parametrize("worker", TALKING_PEERS)
def test_a_policy_limits_the_time_of_workers_that_have_set_no_limit(
    worker: str,
    policy: Policy,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    job_server: RunningServer,
) -> None:
    policy("timeout=300ms dead=1h")
    client = client_of("c")
    worker_of(worker, {function: "stall"})
    handle = client.submit(function, b"for ever", unique="one")
    assert client.outcome() == Outcome("fail", b"", [("status", (1, 9))])
    assert letters(job_server, function) == [[handle, "one", "timeout", "1", ""]]
    assert [reason for _, reason, _ in history(job_server, handle)] == ["timeout"]


@pytest.mark.parametrize("client", PEERS)
def test_a_job_that_nobody_begins_expires(
    client: str,
    policy: Policy,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    job_server: RunningServer,
) -> None:
    policy("expires=200ms")
    waiting, background = client_of(client), client_of(client)
    handles = [
        waiting.submit(function, b"soon, please", unique="one"),
        background.background(function, b"whenever", unique="two"),
    ]
    assert waiting.outcome().end == "fail"
    wait_until(lambda: job_server.jobs_of(function) == (0, 0), "both have expired")
    assert letters(job_server, function) == [
        [handles[0], "one", "expired", "0", ""],
        [handles[1], "two", "expired", "0", ""],
    ]
    policy("expires=1h")
    assert job_server.ask(f"dead retry all function={function} reason=expired") == ["OK 2"]
    worker = worker_of("c", {function: "reverse"})
    assert [worker.taken(), worker.taken()] == [b"soon, please", b"whenever"]
    wait_until(lambda: job_server.jobs_of(function) == (0, 0), "both are done")


@pytest.mark.parametrize("client", PEERS)
def test_a_function_is_paused_and_its_workers_woken_when_it_is_resumed(
    client: str,
    policy: Policy,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    job_server: RunningServer,
) -> None:
    policy("concurrency=1")
    workers = [worker_of(peer, {function: "reverse"}) for peer in TALKING_PEERS]
    assert job_server.ask(f"pause {function} new disk") == ["OK"]
    submitter = client_of(client)
    handle = submitter.submit(function, b"wait a little")
    (why,) = job_server.ask(f"why {handle}")
    assert "is paused" in why
    assert "new disk" in why
    assert job_server.jobs_of(function) == (1, 0)
    assert job_server.ask(f"resume {function}") == ["OK"]
    assert submitter.outcome().result == b"elttil a tiaw"
    wait_until(lambda: job_server.jobs_of(function) == (0, 0), "it is done")
    assert sum(len(worker.all_taken()) for worker in workers) == 1
