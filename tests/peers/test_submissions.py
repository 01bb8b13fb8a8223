"""The ways to submit, from every peer: in the background, by priority, joined by a unique key."""

from __future__ import annotations

import pytest
from peer import PEERS, TALKING_PEERS, ClientOf, ProgramClient, WorkerOf

from servers import RunningServer, wait_until


@pytest.mark.parametrize("peer", PEERS)
def test_background_jobs_wait_for_a_worker_and_are_served_by_priority(
    peer: str, client_of: ClientOf, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    client = client_of(peer)
    for priority in ("low", "normal", "high"):
        for number in "12":
            client.background(function, f"{priority} {number}".encode(), priority=priority)
    client.close()  # nobody waits for them any more, and yet:
    assert job_server.jobs_of(function) == (6, 0)
    worker = worker_of(peer, {function: "reverse"})
    order = [worker.taken() for _ in range(6)]
    assert order == [b"high 1", b"high 2", b"normal 1", b"normal 2", b"low 1", b"low 2"]


@pytest.mark.parametrize("peer", PEERS)
def test_foreground_jobs_are_served_by_priority(
    peer: str, client_of: ClientOf, worker_of: WorkerOf, function: str
) -> None:
    clients = {priority: client_of(peer) for priority in ("low", "normal", "high")}
    for priority, client in clients.items():
        client.submit(function, priority.encode(), priority=priority)
    worker = worker_of(peer, {function: "reverse"})
    assert [worker.taken() for _ in range(3)] == [b"high", b"normal", b"low"]
    for priority, client in clients.items():
        assert client.outcome().result == priority[::-1].encode()


@pytest.mark.parametrize("peer", PEERS)
def test_a_sleeping_worker_is_woken(
    peer: str, client_of: ClientOf, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    worker = worker_of(peer, {function: "reverse"})
    client = client_of(peer)
    for text in (b"one", b"two", b"three"):
        client.background(function, text)
        assert worker.taken() == text
        wait_until(lambda: job_server.jobs_of(function) == (0, 0), "the worker is idle again")


def test_clients_that_share_a_unique_key_share_a_job_whatever_their_language(
    client_of: ClientOf, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    clients = [client_of(peer) for peer in PEERS]
    handles = {client.submit(function, b"only once", unique="one") for client in clients}
    assert len(handles) == 1
    other = client_of("c")
    assert other.submit(function, b"another", unique="two") not in handles
    assert job_server.jobs_of(function) == (2, 0)
    worker = worker_of("php", {function: "reverse"})
    assert [worker.taken(), worker.taken()] == [b"only once", b"another"]
    assert [client.outcome().result for client in clients] == [b"ecno ylno"] * len(PEERS)
    assert other.outcome().result == b"rehtona"


@pytest.mark.parametrize("peer", PEERS)
def test_background_submissions_that_share_a_unique_key_share_a_job(
    peer: str, client_of: ClientOf, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    client = client_of(peer)
    first = client.background(function, b"only once", unique="one")
    assert client.background(function, b"not this", unique="one") == first
    assert job_server.jobs_of(function) == (1, 0)
    worker = worker_of(peer, {function: "reverse"})
    assert worker.taken() == b"only once"


@pytest.mark.parametrize("peer", TALKING_PEERS)
def test_a_client_can_ask_for_the_status_of_its_background_job(
    peer: str, client_of: ClientOf, worker_of: WorkerOf, function: str
) -> None:
    client = client_of(peer)
    assert isinstance(client, ProgramClient)
    handle = client.background(function, b"wait and see")
    assert client.status(handle) == (1, 0, 0, 0)
    worker = worker_of(peer, {function: "stall"})
    assert worker.taken() == b"wait and see"
    wait_until(lambda: client.status(handle) == (1, 1, 1, 9), "the job runs and tells how far it is")
    worker.kill()
    worker_of(peer, {function: "reverse"}).taken()
    wait_until(lambda: client.status(handle) == (0, 0, 0, 0), "the job is done and forgotten")


@pytest.mark.parametrize("peer", TALKING_PEERS)
def test_a_worker_serves_all_its_functions(peer: str, client_of: ClientOf, worker_of: WorkerOf, function: str) -> None:
    names = [function, f"{function}-b", f"{function}-c"]
    worker_of(peer, dict.fromkeys(names, "reverse"))
    client = client_of(peer)
    for name in (*names, *reversed(names)):
        client.submit(name, name.encode())
        assert client.outcome().result == name[::-1].encode()
