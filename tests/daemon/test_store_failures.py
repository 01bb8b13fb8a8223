"""Every way in which a store may fail has its answer: what can't be kept is refused, all else goes on, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lives import Caller, FilePlace, Place, ServicePlace, administrator, kill, life, on, refused_start, told_by

from geartrain.wire import Packet, pack_request
from geartrain.wire import packets as p
from servers import RunningServer, free_port, missing, wait_until
from services import PASSWORD, MariaDB, Memcached, Redis, running

PATIENCE = "--store-patience=500ms"
LONGEST_WAIT = 6.0  # seconds until a submission is refused: twice the patience and one more, and a busy machine
TROUBLES = [
    *((store, "held_back") for store in ("sqlite", "postgresql", "mariadb", "redis", "memcached")),
    *((store, "down") for store in ("postgresql", "mariadb", "redis")),
    *((store, "read_only") for store in ("postgresql", "mariadb")),
]


@pytest.mark.parametrize(("place", "trouble"), TROUBLES, indirect=["place"])
def test_all_else_goes_on_and_nothing_is_lost(place: Place, trouble: str) -> None:
    with life(place, PATIENCE) as server, Caller(server) as client, Caller(server) as worker:
        running, queued = client.submit(b"f", b"running"), client.submit(b"f", b"queued")
        worker.can_do(b"f")
        job = worker.call(p.GRAB_JOB)
        assert job.arguments[0] == running
        with getattr(place, trouble)():
            began = time.monotonic()
            assert "could not be stored" in client.refusal(b"f")
            assert time.monotonic() - began < LONGEST_WAIT
            assert _causes(server), "the log tells why"
            # Jobs end, and others begin.
            worker.complete(job)
            foreground = client.submit(b"f", b"hello", type=p.SUBMIT_JOB_HIGH)
            worker.complete(worker.await_job(), b"olleh")
            assert client.receive() == Packet(p.WORK_COMPLETE, (foreground, b"olleh"))
            job = worker.await_job()
            assert job.arguments[0] == queued
            worker.complete(job)
            worker.fence()
            assert "could not be stored" in client.refusal(b"f")
            _is_idle(server)
        again = client.insist(b"f", b"again")
        kill(server)
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert [job.arguments[0] for job in worker.take_all()] == [again]


def _causes(server: RunningServer) -> list[str]:
    return [line for line in told_by(server).splitlines() if " ERROR store_" in line and " reason=" in line]


def _is_idle(server: RunningServer) -> None:
    """Nobody is kept busy by trying again and again."""

    def cpu() -> float:
        fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, lines = cpu(), len(told_by(server).splitlines())
    time.sleep(0.5)
    assert cpu() - before < 0.1
    assert len(told_by(server).splitlines()) - lines < 10
