"""Jobs without a job server: run at once, and otherwise as over the network."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from geartrain import AssignedJob, AsyncWorker, Worker
from geartrain.client import DataEvent, StatusEvent, WarningEvent
from geartrain.contrib.eager import EagerAsyncClient, EagerClient
from geartrain.errors import GeartrainError, JobFailedError, JobRaisedError, LocalProtocolError, UnknownJobError
from geartrain.worker import Middleware

Eager = Callable[..., EagerClient]

worker = Worker(namespace="shop.")


@worker.function()
def add(x: int, y: int) -> int:
    return x + y


@worker.function()
def divide(x: int, y: int) -> float:
    return x / y


@worker.function()
def give_up() -> None:
    raise JobFailedError


@worker.function()
def count(n: int) -> Iterator[int]:
    yield from range(n)


@worker.function()
async def add_later(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@worker.function()
async def count_later(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@worker.function("reverse")
def reverse(job: AssignedJob) -> bytes:
    job.progress(1, 2)
    job.warn(b"careful")
    job.send(job.unique)
    return job.workload[::-1]


def test_declared_functions_need_nothing_but_the_fixture(geartrain_eager: Eager) -> None:
    geartrain_eager(worker)
    assert add.submit(2, 3).result() == 5
    assert add.submit_background(2, 3).startswith(b"H:eager:")


def test_after_the_test_they_are_as_before() -> None:
    assert worker.client is None
    assert worker.async_client is None


def test_a_job_looks_as_over_the_network(geartrain_eager: Eager) -> None:
    client = EagerClient(worker)
    job = client.submit("shop.reverse", b"a\0b", unique="u")
    assert job.done
    assert job.progress == (1, 2)
    assert list(job.events()) == [StatusEvent(1, 2), WarningEvent(b"careful"), DataEvent(b"u")]
    assert job.result() == b"b\0a"
    assert client.run("shop.reverse", b"a\0b", unique="u") == b"ub\0a"


def test_a_failure_carries_the_text_and_its_cause() -> None:
    client = EagerClient(worker)
    job = client.submit("shop.divide", b"[1, 0]")
    assert isinstance(job.exception, JobRaisedError)
    with pytest.raises(JobRaisedError, match="ZeroDivisionError") as caught:
        job.result()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "contrib/eager.py" not in str(caught.value)
    with pytest.raises(JobFailedError):
        client.run("shop.give_up")


def test_a_background_job_that_fails_is_not_overlooked() -> None:
    with pytest.raises(JobRaisedError, match="ZeroDivisionError"):
        EagerClient(worker).submit_background("shop.divide", b"[1, 0]")


def test_the_result_of_a_background_job_is_kept(geartrain_eager: Eager) -> None:
    geartrain_eager(worker)
    assert add.result(add.submit_background(2, 3)) == 5
    client = EagerClient(worker)
    handle = client.submit_background("shop.add", b"[2, 4]", unique="two four")
    assert client.result(handle) == client.result(function="shop.add", unique="two four", timeout=1) == b"6"
    with pytest.raises(UnknownJobError):
        client.result("H:eager:99")

    async def ask() -> bytes:
        async with EagerAsyncClient(worker) as client:
            return await client.result(await client.submit_background("shop.add", b"[2, 5]"))

    assert asyncio.run(ask()) == b"7"


def test_arguments_are_checked_as_ever() -> None:
    with pytest.raises(JobRaisedError, match="add"):
        EagerClient(worker).run("shop.add", b'["2", 3]')
    with pytest.raises(LocalProtocolError):
        EagerClient(worker).submit("shop.add", b"[2, 3]", unique="u" * 65)


def test_a_job_for_later_runs_now() -> None:
    ran = []
    later = Worker()
    later.function("note")(lambda job: ran.append(job.workload))
    EagerClient(later).submit_background("note", b"a\0b", when=datetime.timedelta(days=1))
    assert ran == [b"a\0b"]


def test_generators_and_coroutines(geartrain_eager: Eager) -> None:
    geartrain_eager(worker)
    job = count.submit(3)
    assert [count.decode_part(event.data) for event in job.job.events()] == [0, 1, 2]  # type: ignore[attr-defined]
    assert add_later.submit(2, 3).result() == 5
    assert len(list(count_later.submit(3).job.events())) == 3  # type: ignore[attr-defined]


def test_coroutines_run_even_within_a_loop(geartrain_eager: Eager) -> None:
    geartrain_eager(worker)

    async def within() -> int:
        return add_later.submit(2, 3).result()

    assert asyncio.run(within()) == 5


def test_maps(geartrain_eager: Eager) -> None:
    client = geartrain_eager(worker)
    arguments = [b"[%d, 1]" % n for n in range(200)]
    assert list(client.map("shop.add", arguments, window=7)) == [b"%d" % (n + 1) for n in range(200)]
    assert sorted(client.map("shop.add", arguments, ordered=False)) == sorted(b"%d" % (n + 1) for n in range(200))
    assert len(list(client.map_background("shop.add", arguments))) == 200


def test_what_is_not_about_a_job() -> None:
    with EagerClient(worker) as client:
        assert client.echo(b"still there?") == b"still there?"
        assert not client.status(client.submit_background("shop.add", b"[2, 3]")).known
        assert not client.status(unique="u").known


def test_a_function_that_nobody_declares() -> None:
    with pytest.raises(GeartrainError, match=r"no worker declares a function 'ad'; there are: add, "):
        EagerClient(worker).submit("ad", b"")


def test_middleware_is_told() -> None:
    told = []

    class Told(Middleware):
        def before(self, job: AssignedJob) -> None:
            told.append(job.function)

    watched = Worker(middleware=[Told()])
    watched.function("any")(lambda job: b"")
    EagerClient(watched).run("any")
    assert told == ["any"]


def test_the_asyncio_client(geartrain_eager: Eager) -> None:
    async def main() -> None:
        other = AsyncWorker()

        @other.function()
        async def fetch(n: int) -> int:
            await asyncio.sleep(0)
            return n

        geartrain_eager(worker, other)
        assert await add.run_async(2, 3) == 5
        assert await fetch.run_async(7) == 7
        async with EagerAsyncClient(worker, other) as client:
            job = await client.submit("fetch", b"[1]")
            assert job.done
            assert await job == b"1"
            assert [result async for result in client.map("fetch", [b"[%d]" % n for n in range(100)])] == [
                b"%d" % n for n in range(100)
            ]
            with pytest.raises(JobRaisedError, match="ZeroDivisionError"):
                await client.run("shop.divide", b"[1, 0]")
            assert await client.echo(b"hello") == b"hello"

    asyncio.run(main())
