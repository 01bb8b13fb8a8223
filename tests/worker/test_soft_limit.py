"""The soft time limit, in threads and in coroutines."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from caller import Caller

from geartrain.errors import SoftTimeLimitError
from geartrain.worker import AssignedJob, AsyncWorker, Worker
from geartrain.worker.soft_limit import Alarms, limited
from servers import RunningServer, running_geartrain, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


def spin(seconds: float = 10) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


def test_a_call_that_takes_too_long_is_interrupted() -> None:
    alarms = Alarms()
    started = time.monotonic()
    with pytest.raises(SoftTimeLimitError):
        alarms.call(0.05, spin)
    assert time.monotonic() - started < 5


def test_a_call_in_time_is_not() -> None:
    alarms = Alarms()
    assert alarms.call(60, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        alarms.call(60, lambda: 1 / 0)


def test_the_thread_of_the_alarms_ends_with_the_last_of_them() -> None:
    before = set(threading.enumerate())
    Alarms().call(0.01, lambda: None)
    wait_until(lambda: not set(threading.enumerate()) - before, "it has ended")


def test_alarms_close_to_the_end_of_a_call_hit_nothing_but_the_call() -> None:
    """The limit and the end of the call race: whoever wins, nothing is raised after the call."""
    alarms = Alarms()
    outcomes = set()

    def work() -> None:
        for number in range(300):
            # Mostly a race that either may win; now and then a call that the limit is sure to catch.
            seconds = 5.0 if number % 100 == 0 else 0.0005 + number % 10 * 0.0001
            try:
                outcomes.add(alarms.call(0.001, functools.partial(spin, seconds)))
            except SoftTimeLimitError:
                outcomes.add("limit")
            for _ in range(100):  # it would be raised here
                pass

    threads = [threading.Thread(target=work) for _ in range(2)]
    failures: list[object] = []
    before, threading.excepthook = threading.excepthook, failures.append
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = before
    assert not failures
    assert outcomes == {"done", "limit"}


def test_a_coroutine_is_cancelled() -> None:
    async def outer_timeout_is_its_own() -> None:
        with pytest.raises(TimeoutError) as raised:
            await limited(60, asyncio.wait_for(asyncio.sleep(60), 0.01))
        assert not isinstance(raised.value, SoftTimeLimitError)

    with pytest.raises(SoftTimeLimitError):
        asyncio.run(limited(0.01, asyncio.sleep(60)))
    asyncio.run(outer_timeout_is_its_own())


def declare(worker: Worker | AsyncWorker) -> None:
    @worker.function(soft_limit=0.05)
    def plain(job: AssignedJob) -> bytes:
        try:
            spin()
        except SoftTimeLimitError:
            job.warn(b"tidied up")
            raise
        return b""

    @worker.function(soft_limit=0.05)
    def parts(job: AssignedJob) -> Iterator[bytes]:
        yield b"a"
        spin()

    @worker.function(soft_limit=0.05)
    async def later(job: AssignedJob) -> bytes:
        await asyncio.sleep(60)
        return b""

    @worker.function(soft_limit=0.05)
    async def later_parts(job: AssignedJob) -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(60)

    @worker.function(soft_limit=60)
    def quick(job: AssignedJob) -> bytes:
        return b"quick"


def play(server: RunningServer) -> None:
    with Caller(server) as caller:
        for function in ("plain", "parts", "later", "later_parts"):
            said = caller.packets(function)
            assert b"SoftTimeLimitError" in said[-1].arguments[1]
            if function != "later":
                assert said[0].arguments[1] in (b"a", b"tidied up")
            assert caller.run("quick") == b"quick"


def test_jobs_of_every_kind_in_a_blocking_worker(server: RunningServer) -> None:
    worker = Worker(server.address, middleware=[])
    declare(worker)
    with worker:
        play(server)


def test_jobs_of_every_kind_in_an_asyncio_worker(server: RunningServer) -> None:
    worker = AsyncWorker(server.address, middleware=[])
    declare(worker)

    async def main() -> None:
        async with worker:
            await asyncio.to_thread(play, server)

    asyncio.run(asyncio.wait_for(main(), 30))
