"""The asyncio client against real job servers, healthy and not."""

from __future__ import annotations

import asyncio
import datetime
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from faults import proxied, silent_host
from hands import Assigned, Hands, working

from geartrain.client import (
    AsyncClient,
    DataEvent,
    JobStatus,
    SentAgainEvent,
    StatusEvent,
    WarningEvent,
)
from geartrain.errors import (
    ConnectError,
    ConnectionLostError,
    GeartrainError,
    JobFailedError,
    JobRaisedError,
    LocalProtocolError,
    TimedOutError,
)
from geartrain.wire.packets import WORK_DATA, WORK_EXCEPTION, WORK_FAIL, WORK_STATUS, WORK_WARNING
from servers import RunningServer, free_port, running_gearmand, running_geartrain


def with_client(servers: str | list[str], work: Callable[[AsyncClient], Awaitable[None]], **options: float) -> None:
    """Run ``work`` with a client on a loop of its own, in which nothing may be left over."""

    async def main() -> None:
        async with AsyncClient(servers, **options) as client:  # type: ignore[arg-type]
            await asyncio.wait_for(work(client), 60)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + 20
    while not await condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.01)


async def take(hands: Hands) -> Assigned:
    return await asyncio.to_thread(hands.take)


def test_a_job_is_run(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        assert await client.run("reverse", b"hello") == b"olleh"
        assert await client.run(b"reverse", b"\0\1\2", unique="u", priority="high", timeout=20) == b"\2\1\0"
        workload = os.urandom(3 * 1024 * 1024)
        assert await client.run("reverse", workload) == workload[::-1]
        job = await client.submit("reverse", b"abc")
        assert await job == b"cba"
        assert await job.result() == b"cba"
        assert job.done
        assert repr(job) == f"<AsyncJob reverse {job.handle}, done>"

    with working(server, "reverse") as taken:
        with_client(server.address, work)
    assert taken[1].unique == b"u"


def test_a_failed_job_and_one_that_raised(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        with pytest.raises(JobFailedError):
            await client.run("fail")
        with pytest.raises(JobRaisedError, match="out of paper"):
            await client.run("fail", b"out of paper")

    def fail(hands: Hands, job: Assigned) -> None:
        hands.send(*((WORK_EXCEPTION, job.handle, job.workload) if job.workload else (WORK_FAIL, job.handle)))

    with working(server, "fail", fail):
        with_client(server.address, work)


def test_events_arrive_as_the_worker_sends_them(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        job = await client.submit("parts")
        assigned = await take(hands)
        events = aiter(job.events(timeout=20))
        hands.send(WORK_DATA, assigned.handle, b"one")
        assert await anext(events) == DataEvent(b"one")
        hands.send(WORK_STATUS, assigned.handle, b"1", b"3")
        assert await anext(events) == StatusEvent(1, 3)
        assert job.progress == (1, 3)
        hands.send(WORK_WARNING, assigned.handle, b"slow")
        assert await anext(events) == WarningEvent(b"slow")
        assert (job.done, job.exception, job.handle) == (False, None, assigned.handle)
        hands.send(WORK_DATA, assigned.handle, b"two ")
        hands.complete(assigned, b"three")
        assert await job.wait(20)
        assert await job == b"two three"
        assert [event async for event in job.events()] == []

    with Hands(server, "parts") as hands:
        with_client(server.address, work)


def test_a_time_out_frees_the_job(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        job = await client.submit("slow", b"x" * 1000)
        assigned = await take(hands)
        hands.send(WORK_DATA, assigned.handle, b"part")
        assert not await job.wait(0.01)
        with pytest.raises(TimedOutError, match=r"no result of 'slow' within 0\.05 s"):
            await job.result(timeout=0.05)
        assert isinstance(job.exception, TimedOutError)
        assert (job._submission.packet, len(job._submission.events)) == (b"", 0)
        hands.complete(assigned, b"late")
        assert await client.echo(b"still in step", timeout=20) == b"still in step"
        for late in (client.run("nobody", timeout=0.02), anext(aiter((await client.submit("nobody")).events(0.02)))):
            with pytest.raises(TimedOutError):
                await late

    with Hands(server, "slow") as hands:
        with_client(server.address, work)


def test_a_cancelled_caller_gives_its_job_up(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        running = asyncio.create_task(client.run("slow"))
        assigned = await take(hands)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        hands.complete(assigned, b"late")
        assert await client.echo(b"x", timeout=20) == b"x"

    with Hands(server, "slow") as hands:
        with_client(server.address, work)


def test_background_jobs_and_their_status(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        handle = await client.submit_background("background", b"x", unique="key 1", priority="low")
        assert await client.status(handle) == JobStatus(known=True, running=False)
        assert (await client.status(unique="key 1")).clients == 0
        await client.submit_background("later", when=datetime.timedelta(hours=1))
        with Hands(server, "background") as hands:
            assigned = await take(hands)
            assert assigned == Assigned(handle, b"background", b"key 1", b"x")
            hands.complete(assigned, b"")

            async def is_gone() -> bool:
                return not (await client.status(str(handle), timeout=20)).known

            await until(is_gone, "the job's end is known")

    with_client(server.address, work)


def test_map_gives_results_in_order_or_as_they_come(server: RunningServer) -> None:
    workloads = [b"%d" % number for number in range(300)]
    results = [workload[::-1] for workload in workloads]

    async def slowly() -> AsyncIterator[bytes]:
        for workload in workloads[:30]:
            await asyncio.sleep(0.001)
            yield workload

    async def work(client: AsyncClient) -> None:
        assert [result async for result in client.map("reverse", workloads, window=16)] == results
        assert sorted([result async for result in client.map("reverse", workloads, ordered=False)]) == sorted(results)
        assert [result async for result in client.map("reverse", slowly())] == results[:30]
        assert sorted([result async for result in client.map("reverse", slowly(), ordered=False, window=3)]) == sorted(
            results[:30]
        )
        assert [result async for result in client.map("reverse", [])] == []
        handles = [handle async for handle in client.map_background("bulk", workloads, window=50)]
        assert len(set(handles)) == 300

    with working(server, "reverse"), working(server, "reverse"):
        with_client(server.address, work)


def test_a_workload_that_does_not_come_holds_back_no_result(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        may_go_on = asyncio.Event()

        async def workloads() -> AsyncIterator[bytes]:
            yield b"ab"
            await may_go_on.wait()
            yield b"cd"

        results = client.map("reverse", workloads())
        assert await anext(results) == b"ba"
        may_go_on.set()
        assert [result async for result in results] == [b"dc"]

    with working(server, "reverse"):
        with_client(server.address, work)


def test_map_takes_no_more_than_its_window_and_can_be_left(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        asked = 0

        def workloads() -> Iterator[bytes]:
            nonlocal asked
            while True:
                asked += 1
                yield b"%d" % asked

        async def endless() -> AsyncIterator[bytes]:
            for workload in workloads():
                yield workload

        for source in (workloads(), endless()):
            asked = 0
            results = client.map("reverse", source, window=10)
            assert await anext(results) == b"1"
            assert asked <= 21
            await results.aclose()  # type: ignore[attr-defined]
        assert await client.echo(timeout=20) == b"geartrain"

    with working(server, "reverse"):
        with_client(server.address, work)


def test_map_raises_for_the_first_failure_and_map_jobs_for_none(server: RunningServer) -> None:
    def picky(hands: Hands, job: Assigned) -> None:
        if job.workload == b"bad":
            hands.send(WORK_FAIL, job.handle)
        else:
            hands.complete(job, job.workload)

    async def work(client: AsyncClient) -> None:
        results = client.map("picky", [b"a", b"bad", b"c"])
        assert await anext(results) == b"a"
        with pytest.raises(JobFailedError):
            await anext(results)
        jobs = [job async for job in client.map_jobs("picky", [b"a", b"bad", b"c"])]
        assert [type(job.exception) for job in jobs] == [type(None), JobFailedError, type(None)]
        late = [job async for job in client.map_jobs("nobody", [b"1", b"2", b"3"], window=2, timeout=0.05)]
        assert [type(job.exception) for job in late] == [TimedOutError] * 3

    with working(server, "picky", picky):
        with_client(server.address, work)


def test_thousands_of_jobs_underway(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        jobs = [await client.submit("crowd", b"%d" % number) for number in range(3000)]
        with working(server, "crowd"):
            assert await asyncio.gather(*jobs) == [(b"%d" % number)[::-1] for number in range(3000)]

    with_client(server.address, work)


def test_a_sender_of_much_waits_for_the_server(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        await client.echo()
        proxy.is_frozen = True
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(100):
                await client.submit("bulk", bytes(1_000_000))
                sent += 1

        sending = asyncio.create_task(send())

        async def is_full() -> bool:
            return any(one.link is not None and one.link.is_full for one in client._driver._connections.values())

        await until(is_full, "no more is taken")
        assert sent < 50
        proxy.is_frozen = False
        await sending
        assert await client.echo(b"x", timeout=30) == b"x"

    with proxied(server) as proxy:
        with_client(proxy.address, work)


def test_mistakes_are_told_at_once(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        with pytest.raises(LocalProtocolError):
            await client.run("f\0g")
        with pytest.raises(TypeError, match="either"):
            await client.status()
        await client.close()
        with pytest.raises(GeartrainError, match="the client is closed"):
            await client.echo()

    with_client(server.address, work)


def test_no_server_is_an_error_at_once() -> None:
    async def work(client: AsyncClient) -> None:
        with pytest.raises(ConnectError, match="no job server at"):
            await client.run("f")
        job = await client.submit("f")
        assert isinstance(job.exception, ConnectError)

    began = time.monotonic()
    with_client([f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"], work)
    assert time.monotonic() - began < 5


def test_closing_fails_what_is_open(server: RunningServer) -> None:
    async def main() -> None:
        client = AsyncClient(server.address)
        job = await client.submit("nobody")
        waiting = asyncio.create_task(job.result())
        await asyncio.sleep(0)
        await client.close()
        await client.close()
        with pytest.raises(ConnectionLostError, match="the client was closed"):
            await waiting

    asyncio.run(main())


def test_a_second_loop_begins_again(server: RunningServer) -> None:
    client = AsyncClient(server.address)

    async def first() -> None:
        assert await client.echo(b"1") == b"1"

    async def second() -> None:
        assert await client.echo(b"2") == b"2"
        await client.close()
        gc.collect()

    asyncio.run(first())
    with pytest.warns(ResourceWarning, match="unclosed transport"):  # the first loop left its connection behind
        asyncio.run(second())


def test_a_job_moves_on_when_its_server_is_killed() -> None:
    async def work(client: AsyncClient) -> None:
        for server in (one, other):
            await client.echo(server=server.address)
        jobs = [await client.submit("reverse", b"%d" % number) for number in range(20)]
        events = [aiter(job.events(timeout=20)) for job in jobs]
        for server in (one, other):
            await client.echo(server=server.address)
        moved = [job for job in jobs if job.handle and str(job.handle.address) == one.address]
        assert len(moved) == 10
        one.process.kill()
        told = [asyncio.ensure_future(anext(event)) for event, job in zip(events, jobs, strict=True) if job in moved]
        assert all(isinstance(event, SentAgainEvent) for event in await asyncio.gather(*told))
        with working(other, "reverse"):
            assert await asyncio.gather(*jobs) == [(b"%d" % number)[::-1] for number in range(20)]

    with running_gearmand() as one, running_gearmand() as other:
        with_client([one.address, other.address], work)


def test_a_connection_cut_anywhere_in_the_answers_costs_nothing(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        for cut in range(0, 120, 3):
            async with AsyncClient(proxy.address) as client:
                proxy.cut_after = cut
                assert await client.run("reverse", b"workload", timeout=20) == b"daolkrow"

    with working(server, "reverse"), proxied(server) as proxy:
        with_client(proxy.address, work)


def test_without_resends_a_cut_is_an_error(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        await client.echo()
        proxy.cut_after = 5
        with pytest.raises(ConnectionLostError, match="may or may not have run"):
            await client.run("nobody", timeout=20)
        assert await client.echo(b"again", timeout=20) == b"again"

    with proxied(server) as proxy:
        with_client(proxy.address, work, resend=0)


def test_frozen_servers_are_left() -> None:
    async def work(client: AsyncClient) -> None:
        for server in (one, other):
            await client.echo(server=server.address)
        held = [await client.submit("reverse", b"ab") for _ in range(2)]
        for server in (one, other):
            await client.echo(server=server.address)
        one.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            with working(other, "reverse"):
                assert await asyncio.gather(*held) == [b"ba"] * 2
                assert [await client.run("reverse", b"ab", timeout=20) for _ in range(6)] == [b"ba"] * 6
            assert time.monotonic() - began < 4
        finally:
            one.process.send_signal(signal.SIGCONT)

    with running_gearmand() as one, running_gearmand() as other:
        with_client([one.address, other.address], work, answer_timeout=0.3)


def test_a_slow_network_is_not_taken_for_a_silent_server(server: RunningServer) -> None:
    workload = b"ab" * 750_000

    async def work(client: AsyncClient) -> None:
        assert await client.run("reverse", workload, timeout=60) == workload[::-1]

    with working(server, "reverse"), proxied(server, is_slow=True) as proxy:
        with_client(proxy.address, work, resend=0, answer_timeout=0.3)


def test_a_host_that_does_not_answer_the_call_delays_only_its_own_keys_and_once(server: RunningServer) -> None:
    async def work(client: AsyncClient) -> None:
        began = time.monotonic()
        assert [await client.run("reverse", b"ab") for _ in range(20)] == [b"ba"] * 20
        assert time.monotonic() - began < 0.5
        for number in range(50):
            assert await client.run("reverse", b"ab", unique=f"key {number}", timeout=20) == b"ba"
        assert time.monotonic() - began < 3

    with working(server, "reverse"), silent_host() as silent:
        with_client([silent, server.address], work, connect_timeout=0.5)


def test_patience_bridges_a_restart_and_runs_out() -> None:
    with running_geartrain() as first:

        async def work(client: AsyncClient) -> None:
            job = await client.submit("nobody")
            await client.echo()
            first.process.kill()
            began = time.monotonic()
            with pytest.raises(ConnectionLostError, match="may or may not have run"):
                await job
            assert 0.4 < time.monotonic() - began < 10

        with_client(first.address, work, patience=0.5)
