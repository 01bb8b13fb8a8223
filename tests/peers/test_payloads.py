"""Every peer's client with every peer's worker: what goes in comes out, whatever the bytes."""

from __future__ import annotations

import pytest
from peer import PEERS, ClientOf, WorkerOf

from servers import KnownDifference

ALL_BYTES = bytes(range(256))
PAYLOADS = {
    "all-bytes": ALL_BYTES,
    "nuls": b"\0\0two in front, two behind\0\0",
    "lines": b"\nhello\r\n\n",
    "mebibyte": ALL_BYTES * 4096,
    "nothing": b"",
}


@pytest.mark.parametrize("client", PEERS)
@pytest.mark.parametrize("worker", PEERS)
def test_payloads_arrive_whole(
    worker: str,
    client: str,
    client_of: ClientOf,
    worker_of: WorkerOf,
    function: str,
    known_difference: KnownDifference,
) -> None:
    worker_of(worker, {function: "reverse"})
    submitter = client_of(client)
    for name, payload in PAYLOADS.items():
        if name == "nothing" and client == "php":
            continue  # php-gearman cannot: it hands libgearman an address of no bytes, which that refuses
        if name == "nothing" and worker == "perl":
            known_difference("gearmand", "waits for the NUL that a Perl worker leaves out before an empty result")
        submitter.submit(function, payload)
        outcome = submitter.outcome()
        assert (outcome.end, outcome.events) == ("complete", []), name
        assert outcome.result == payload[::-1], name


@pytest.mark.parametrize("client", PEERS)
def test_many_jobs_at_once_all_come_back(client: str, client_of: ClientOf, worker_of: WorkerOf, function: str) -> None:
    for worker in ("c", "php", "perl", "gear"):
        worker_of(worker, {function: "reverse"})
    assert client_of(client).many(function, 200) == 200
