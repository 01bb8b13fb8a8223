"""What a client is told of one job (section 3.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geartrain.jobserver.job import RUNNING
from geartrain.wire.packets import STATUS_RES, STATUS_RES_UNIQUE, pack_response
from geartrain.wire.primitives import parse_handle

if TYPE_CHECKING:
    from geartrain.jobserver.job import Job
    from geartrain.jobserver.peer import Peer
    from geartrain.jobserver.server import JobServer


def send_status(server: JobServer, peer: Peer, asked: bytes) -> None:
    """GET_STATUS: STATUS_RES with the handle that was asked for, up to its first NUL."""
    handle = asked.partition(b"\0")[0]
    number = parse_handle(handle, 0, len(handle), server.handle_start)
    job = server.jobs.get(number) if number >= 0 else None
    peer.send(pack_response(STATUS_RES, handle, *_state(job)))


def send_status_of_unique(server: JobServer, peer: Peer, asked: bytes) -> None:
    """GET_STATUS_UNIQUE: of several functions' jobs with this unique, the most recent one.

    Each function keeps its own uniques, so this asks every function.
    """
    unique = asked.partition(b"\0")[0]
    server.effort += len(server.functions)
    latest: Job | None = None
    for function in server.functions.values():
        job = function.uniques.get(unique)
        if job is not None and (latest is None or job.number > latest.number):
            latest = job
    clients = 0
    if latest is not None:
        listener = latest.listeners
        while listener is not None:
            clients += 1
            server.effort += 1
            listener = listener.next_of_job
    peer.send(pack_response(STATUS_RES_UNIQUE, unique, *_state(latest), b"%d" % clients))


def _state(job: Job | None) -> tuple[bytes, bytes, bytes, bytes]:
    if job is None:
        return b"0", b"0", b"0", b"0"
    running = b"1" if job.state == RUNNING else b"0"
    return b"1", running, b"%d" % unsigned(job.numerator), b"%d" % unsigned(job.denominator)


def unsigned(value: int) -> int:
    """The unsigned 32-bit number that a job keeps in a signed field."""
    return value % 0x100000000
