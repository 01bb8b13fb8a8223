"""Programs that end by kill -9 in the middle of a job: no job is lost, none is left lying about."""

from __future__ import annotations

import pytest
from peer import PEERS, TALKING_PEERS, ClientOf, WorkerOf

from servers import KnownDifference, RunningServer, wait_until

OTHER = dict(zip(PEERS, [*PEERS[1:], PEERS[0]], strict=True))
"""For each peer another one: every pair of neighbours meets."""


@pytest.mark.parametrize("peer", PEERS)
def test_jobs_whose_worker_is_killed_are_done_by_another(
    peer: str, client_of: ClientOf, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    client = client_of(peer)
    client.submit(function, b"wait for me")
    first = worker_of(peer, {function: "stall"})
    assert first.taken() == b"wait for me"
    client_of(OTHER[peer]).background(function, b"me too")
    second = worker_of(peer, {function: "stall"})
    assert second.taken() == b"me too"
    assert job_server.jobs_of(function) == (2, 2)
    first.kill()
    second.kill()
    rescuer = worker_of(OTHER[peer], {function: "reverse"})
    assert {rescuer.taken(), rescuer.taken()} == {b"wait for me", b"me too"}
    outcome = client.outcome()
    assert (outcome.end, outcome.result) == ("complete", b"em rof tiaw")


def test_a_crowd_in_all_languages_does_every_job_though_some_are_killed(
    client_of: ClientOf, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    texts = {peer: [f"{peer} {number}".encode() for number in range(40)] for peer in TALKING_PEERS}
    for peer in TALKING_PEERS:
        client = client_of(peer)
        for text in texts[peer]:
            client.background(function, text)
        client.kill()
    doomed = [worker_of(peer, {function: "stall"}) for peer in PEERS]
    in_their_hands = {worker.taken() for worker in doomed}
    workers = [worker_of(peer, {function: "reverse"}) for peer in TALKING_PEERS]
    wait_until(lambda: job_server.jobs_of(function) == (5, 5), "all jobs are done but those of the doomed")
    for worker in doomed:
        worker.kill()
    wait_until(lambda: job_server.jobs_of(function) == (0, 0), "those are done too")
    done = [text for worker in workers for text in worker.all_taken()]
    assert len(in_their_hands) == len(doomed)
    assert sorted(done) == sorted(text for peer in TALKING_PEERS for text in texts[peer])


def test_a_worker_can_give_a_job_back(client_of: ClientOf, worker_of: WorkerOf, function: str) -> None:
    client = client_of("php")
    client.submit(function, b"try twice")
    worker = worker_of("c", {function: "giveback"})
    assert [worker.taken(), worker.taken()] == [b"try twice"] * 2
    assert client.outcome().result == b"eciwt yrt"


@pytest.mark.parametrize("peer", PEERS)
def test_a_queued_job_whose_client_is_killed_is_dropped(
    peer: str,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    job_server: RunningServer,
    known_difference: KnownDifference,
) -> None:
    known_difference("gearmand", "counts the dropped job until a worker comes by")
    client = client_of(peer)
    client.submit(function, b"never mind")
    assert job_server.jobs_of(function) == (1, 0)
    client.kill()
    wait_until(lambda: job_server.jobs_of(function) == (0, 0), "the job is dropped", seconds=3)


@pytest.mark.parametrize("peer", PEERS)
def test_a_job_is_not_run_again_when_its_client_was_killed_before_its_worker(
    peer: str, client_of: ClientOf, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    client = client_of(peer)
    client.submit(function, b"never mind")
    worker = worker_of(peer, {function: "stall"})
    assert worker.taken() == b"never mind"
    client.kill()
    worker.kill()
    wait_until(lambda: job_server.jobs_of(function)[1] == 0, "the job runs no more")
    survivor = worker_of(peer, {function: "reverse"})
    another = client_of(peer)
    another.submit(function, b"mind")
    assert another.outcome().result == b"dnim"
    assert survivor.taken() == b"mind"
