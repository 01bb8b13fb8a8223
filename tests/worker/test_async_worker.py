"""The asyncio worker on real job servers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest
from caller import Caller, until

from geartrain.errors import GeartrainError
from geartrain.wire.packets import WORK_COMPLETE, WORK_DATA, WORK_FAIL, WORK_STATUS
from geartrain.worker import AssignedJob, AsyncWorker
from servers import RunningServer, free_port, running_gearmand, running_geartrain, running_perl_server

SERVERS = {"geartrain": running_geartrain, "gearmand": running_gearmand, "perl": running_perl_server}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with SERVERS[request.param]() as server:
        yield server


@pytest.fixture(scope="module")
def our_server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


@pytest.fixture
def caller(server: RunningServer) -> Iterator[Caller]:
    with Caller(server) as caller:
        yield caller


def make_worker(*servers: RunningServer | str, **options: Any) -> AsyncWorker:
    return AsyncWorker([str(getattr(server, "address", server)) for server in servers], middleware=[], **options)


def while_working(worker: AsyncWorker, play: Any, **options: Any) -> Any:
    """Call ``play`` in a thread while ``worker`` works; give what it gives."""

    async def main() -> Any:
        await worker.start(**options)
        try:
            return await asyncio.to_thread(play)
        finally:
            worker.stop()
            await asyncio.wait_for(worker.join(), 20)

    return asyncio.run(main())


def test_functions_of_every_kind(server: RunningServer, caller: Caller) -> None:
    worker = make_worker(server)

    @worker.function()
    async def later(job: AssignedJob) -> bytes:
        await asyncio.sleep(0)
        return job.workload[::-1]

    @worker.function()
    def in_a_thread(job: AssignedJob) -> bytes:
        job.progress(1, 2)
        return threading.current_thread().name.encode()

    @worker.function()
    async def add(x: int, y: int) -> int:
        return x + y

    @worker.function()
    async def boom(job: AssignedJob) -> bytes:
        raise ValueError("no such thing")

    @worker.function()
    def in_vain(job: AssignedJob) -> bytes:
        return next(iter(()))  # StopIteration, which no future carries

    def play() -> None:
        for workload in (b"", b"hel\0lo", bytes(range(256)) * 4096):
            assert caller.run("later", workload) == workload[::-1]
        said = caller.packets("in_a_thread")
        assert [packet.type for packet in said] == [WORK_STATUS, WORK_COMPLETE]
        assert said[1].arguments[1].startswith(b"geartrain job")
        assert caller.run("add", b"[2,3]") == b"5"
        for function, told in (("boom", "ValueError: no such thing"), ("in_vain", "StopIteration")):
            error = caller.error(function)
            assert error.endswith(told)
            assert "geartrain" not in error
            if server.kind == "perl":
                assert caller.hear().type == WORK_FAIL

    while_working(worker, play)


def test_generators(our_server: RunningServer) -> None:
    worker = make_worker(our_server)

    @worker.function()
    async def parts(to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @worker.function()
    def plain_parts(to: int) -> Iterator[int]:
        yield from range(to)

    def play() -> None:
        with Caller(our_server) as caller:
            for function in ("parts", "plain_parts"):
                said = caller.packets(function, b"[3]")
                assert [packet.type for packet in said] == [WORK_DATA] * 3 + [WORK_COMPLETE]
                assert [packet.arguments[1] for packet in said] == [b"0\n", b"1\n", b"2\n", b"null"]

    while_working(worker, play)


def test_many_jobs_are_underway_but_never_more_than_allowed(server: RunningServer, caller: Caller) -> None:
    worker = make_worker(server)
    running = most = 0
    full = threading.Event()

    @worker.function()
    async def wait(job: AssignedJob) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 10:
            full.set()
        await asyncio.to_thread(released.wait, 10)
        running -= 1

    released = threading.Event()

    def play() -> None:
        for _ in range(25):
            caller.submit("wait")
        assert full.wait(10)
        with Caller(server) as other:
            other.submit("wait")
            released.set()
            other.follow()
        for _ in range(25):
            caller.follow()

    while_working(worker, play, concurrency=10)
    assert most == 10


def test_concurrency_limits_one_function(our_server: RunningServer) -> None:
    worker = make_worker(our_server)
    running = most = 0
    released = threading.Event()

    @worker.function(concurrency=2)
    async def narrow(job: AssignedJob) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.to_thread(released.wait, 10)
        running -= 1

    @worker.function()
    async def wide(job: AssignedJob) -> None:
        pass

    def play() -> None:
        with Caller(our_server) as caller, Caller(our_server) as other:
            for _ in range(6):
                caller.submit("narrow")
            until(lambda: running == 2)
            assert other.run("wide") == b""
            released.set()
            for _ in range(6):
                caller.follow()

    while_working(worker, play)
    assert most == 2


def test_it_takes_from_whichever_server_has_work(our_server: RunningServer) -> None:
    with running_gearmand() as other:
        worker = make_worker(f"127.0.0.1:{free_port()}", our_server, other)

        @worker.function()
        async def echo(job: AssignedJob) -> bytes:
            return job.workload

        def play() -> None:
            with Caller(our_server) as first, Caller(other) as second:
                for number in range(20):
                    assert first.run("echo", b"%d" % number) == b"%d" % number
                    assert second.run("echo", b"%d" % number) == b"%d" % number

        while_working(worker, play)


def test_it_outlives_its_server() -> None:
    port = free_port()
    worker = make_worker(f"127.0.0.1:{port}")
    jobs: list[AssignedJob] = []

    @worker.function()
    async def echo(job: AssignedJob) -> bytes:
        return job.workload

    @worker.function()
    async def long(job: AssignedJob) -> None:
        jobs.append(job)
        while not job.lost:  # noqa: ASYNC110 - this is how a job finds out
            await asyncio.sleep(0.01)

    def play() -> None:
        for _ in range(2):
            with running_geartrain(port=port) as server, Caller(server) as caller, Caller(server) as other:
                assert caller.run("echo", b"hello") == b"hello"
                other.submit("long")
                until(lambda: jobs and not jobs[-1].lost)
                server.process.kill()
                server.process.wait()
            until(lambda: jobs[-1].lost)

    while_working(worker, play)
    assert len(jobs) == 2


def test_a_frozen_server_delays_nobody(our_server: RunningServer) -> None:
    with running_geartrain() as frozen:
        worker = make_worker(frozen, our_server, answer_within=0.5, regrab_after=0.2)

        @worker.function()
        async def echo(job: AssignedJob) -> bytes:
            return job.workload

        def play() -> None:
            with Caller(our_server) as caller, Caller(frozen) as other:
                assert other.run("echo", b"a") == b"a"
                os.kill(frozen.process.pid, signal.SIGSTOP)
                try:
                    until(lambda: not worker.connections[0].session.is_registered)
                    for number in range(50):
                        started = time.monotonic()
                        assert caller.run("echo", b"%d" % number) == b"%d" % number
                        assert time.monotonic() - started < 0.4
                finally:
                    os.kill(frozen.process.pid, signal.SIGCONT)
                assert other.run("echo", b"b") == b"b"

        while_working(worker, play, concurrency=1)


def test_a_generator_is_no_faster_than_its_reader(our_server: RunningServer) -> None:
    """A frozen job server takes no more bytes: the generator waits, and after a while the connection is given up."""
    with running_geartrain() as frozen:
        worker = make_worker(frozen, answer_within=0.5)
        yielded = 0
        jobs: list[AssignedJob] = []

        @worker.function()
        async def flood(job: AssignedJob) -> AsyncIterator[bytes]:
            nonlocal yielded
            jobs.append(job)
            os.kill(frozen.process.pid, signal.SIGSTOP)
            while not job.lost:
                yielded += 1
                yield bytes(65536)

        def play() -> None:
            with Caller(frozen) as caller:
                caller.submit("flood")
                until(lambda: jobs and jobs[0].lost)
                os.kill(frozen.process.pid, signal.SIGCONT)

        while_working(worker, play)
        assert yielded * 65536 < 64 * 1024 * 1024


def test_sigterm_lets_the_jobs_at_hand_finish(our_server: RunningServer) -> None:
    worker = make_worker(our_server)
    started, go_on = threading.Event(), threading.Event()

    @worker.function()
    async def slow(job: AssignedJob) -> bytes:
        started.set()
        await asyncio.to_thread(go_on.wait, 10)
        return b"finished"

    outcome: list[bytes] = []

    def play() -> None:
        with Caller(our_server) as caller:
            caller.submit("slow")
            started.wait(10)
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: worker.is_leaving)
            go_on.set()
            outcome.append(caller.follow()[-1].arguments[1])

    thread = threading.Thread(target=play)
    thread.start()
    worker.run()
    thread.join()
    assert outcome == [b"finished"]


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("how", ["a second signal", "the end of the time limit"])
def test_a_job_that_does_not_finish_goes_back(our_server: RunningServer, how: str, is_plain: bool) -> None:
    worker = make_worker(our_server)
    started, go_on = threading.Event(), threading.Event()

    def stubborn(job: AssignedJob) -> None:
        started.set()
        go_on.wait(10)

    async def stubborn_later(job: AssignedJob) -> None:
        started.set()
        await asyncio.sleep(60)

    worker.function("stubborn")(stubborn if is_plain else stubborn_later)

    def play() -> None:
        started.wait(10)
        os.kill(os.getpid(), signal.SIGTERM)
        if how == "a second signal":
            until(lambda: worker.is_leaving)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=play)
    thread.start()
    with Caller(our_server) as caller:
        caller.submit("stubborn", b"again")
        with pytest.raises(SystemExit):
            worker.run(grace=0.1 if how == "the end of the time limit" else 60)
        thread.join()
        other = make_worker(our_server)
        other.function("stubborn")(lambda job: job.workload)
        assert while_working(other, caller.follow)[-1].arguments[1] == b"again"
    go_on.set()


def test_mistakes_are_told_kindly() -> None:
    async def main() -> None:
        worker = make_worker("127.0.0.1:1")
        with pytest.raises(GeartrainError, match="no function"):
            await worker.start()
        worker.function("f")(lambda job: None)
        with pytest.raises(ValueError, match="room for at least one job, not 0"):
            await worker.start(concurrency=0)
        async with worker:
            with pytest.raises(GeartrainError, match="running already"):
                await worker.start()

    run_briefly(main())


def run_briefly(what: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(what, 20))
