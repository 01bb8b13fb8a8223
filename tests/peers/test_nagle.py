"""A peer that forgets TCP_NODELAY, as ``gear`` does, must not be slow for it.

Its worker sends a result and then asks for the next job, in two small writes. The kernel holds the second back
until the first is acknowledged, and the other end's kernel takes 40 ms to acknowledge what no reply goes with,
unless the server asks for TCP_QUICKACK: 25 jobs a second then become thousands.
"""

from __future__ import annotations

import time

from peer import ClientOf, WorkerOf

from servers import KnownDifference

JOBS = 300
SECONDS = 5.0
"""A generous bound: well below the 12 s of 300 delayed acknowledgements, far above the time of the work itself."""


def test_a_peer_without_nodelay_is_not_slow(
    client_of: ClientOf, worker_of: WorkerOf, function: str, known_difference: KnownDifference
) -> None:
    known_difference("gearmand", "leaves acknowledgements to the kernel")
    worker_of("gear", {function: "reverse"})
    client = client_of("gear")
    start = time.monotonic()
    for _ in range(JOBS):
        client.submit(function, b"one after the other")
        assert client.outcome().end == "complete"
    assert time.monotonic() - start < SECONDS
