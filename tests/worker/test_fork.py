"""Functions that fork: no child goes on as a second worker, and none holds a connection of its parent's."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from caller import Caller, until, working

from geartrain.client import AdminClient, Client
from geartrain.worker import AssignedJob, AsyncWorker, Worker
from servers import RunningServer, running_geartrain

KINDS: dict[str, type[Worker | AsyncWorker]] = {"Worker": Worker, "AsyncWorker": AsyncWorker}

pytestmark = [
    pytest.mark.parametrize("kind", KINDS),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """What all processes log."""
    path = tmp_path / "log"
    handler = logging.FileHandler(path)
    logging.getLogger("geartrain.worker").addHandler(handler)
    yield path
    logging.getLogger("geartrain.worker").removeHandler(handler)
    handler.close()


def declare(worker: Worker | AsyncWorker, ended: Path) -> None:
    """Functions that fork in every way; ``ended`` gets the wait status of each child."""

    def result(pid: int) -> bytes:
        if pid == 0:
            return b"from the child"
        ended.write_text(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        return b"from the parent"

    @worker.function()
    def returns(job: AssignedJob) -> bytes:
        return result(os.fork())

    @worker.function()
    async def returns_later(job: AssignedJob) -> bytes:
        pid = os.fork()
        if pid:
            await asyncio.sleep(0)
        return result(pid)

    @worker.function()
    def raises(job: AssignedJob) -> bytes:
        pid = os.fork()
        if pid == 0:
            raise ValueError("in the child")
        return result(pid)

    @worker.function()
    def speaks(job: AssignedJob) -> bytes:
        pid = os.fork()
        if pid == 0:
            job.send(b"from the child")
        return result(pid)

    @worker.function()
    def leaves(job: AssignedJob) -> bytes:
        pid = os.fork()
        if pid == 0:
            raise SystemExit(7)
        return result(pid)

    @worker.function()
    def yields(job: AssignedJob) -> Iterator[bytes]:
        pid = os.fork()
        if pid:
            result(pid)
        yield b"from the child" if pid == 0 else b"from the parent"

    @worker.function()
    async def yields_later(job: AssignedJob) -> AsyncIterator[bytes]:
        pid = os.fork()
        if pid:
            result(pid)
        yield b"from the child" if pid == 0 else b"from the parent"


@pytest.mark.parametrize(
    "function", ["returns", "returns_later", "raises", "speaks", "leaves", "yields", "yields_later"]
)
def test_a_child_that_comes_back_ends(
    server: RunningServer, kind: str, function: str, tmp_path: Path, log: Path
) -> None:
    ended = tmp_path / "ended"
    worker = KINDS[kind](server.address, middleware=[])
    declare(worker, ended)
    with working(worker), Caller(server) as caller:
        packets = caller.packets(function)
        assert b"".join(packet.arguments[1] for packet in packets) == b"from the parent"
        assert ended.read_text() == ("7" if function == "leaves" else "1")
        assert caller.packets(function)[-1].arguments[0] != packets[0].arguments[0], "the connection goes on"
    assert ("end such a child with os._exit()" in log.read_text()) == (function != "leaves")


def test_a_child_that_lives_on_does_not_keep_the_workers_connection_open(server: RunningServer, kind: str) -> None:
    """Else the job server would not notice that the parent has died, and its job would wait for ever."""
    ready, ours = os.pipe()

    def work() -> None:
        worker = KINDS[kind](server.address, middleware=[])

        @worker.function("forks")
        def forks(job: AssignedJob) -> bytes:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            os.write(ours, b"%d" % pid)
            threading.Event().wait()
            return b""

        worker.run()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    child = 0
    try:
        with Caller(server) as caller:
            caller.submit_background("forks")
            child = int(os.read(ready, 20))
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            admin = AdminClient(server.address)
            until(lambda: [row.running for row in admin.status() if row.function == "forks"] == [0])
            os.kill(child, 0)
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.join()


def test_a_function_may_use_multiprocessing(server: RunningServer, kind: str) -> None:
    worker = KINDS[kind](server.address, middleware=[])

    @worker.function("squares")
    def squares(job: AssignedJob) -> bytes:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return b",".join(b"%d" % square for square in pool.map(_square, [1, 2, 3]))

    with working(worker), Caller(server) as caller:
        assert caller.run("squares") == b"1,4,9"
        assert caller.run("squares") == b"1,4,9"


def _square(number: int) -> int:
    return number * number


def test_a_client_used_within_a_forking_function(server: RunningServer, kind: str) -> None:
    """Parent and child share a client; each gets its own answers."""
    worker = KINDS[kind](server.address, middleware=[])
    client = Client(server.address)

    @worker.function("asks")
    def asks(job: AssignedJob) -> bytes:
        client.echo(b"before")
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(all(client.echo(b"child %d" % at) == b"child %d" % at for at in range(50)))
            finally:
                os._exit(9)
        answers = all(client.echo(b"parent %d" % at) == b"parent %d" % at for at in range(50))
        return b"%d %d" % (answers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with working(worker), Caller(server) as caller, client:
        assert caller.run("asks") == b"1 1"
