"""Many callers of both clients on two job servers whose connections are cut, closed and held up all the while."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from faults import Proxy, proxied
from hands import working

from geartrain.client import AsyncClient, Client
from servers import running_gearmand, running_geartrain

SECONDS = 3
SIZES = (3, 50, 5000, 200_000)


@contextmanager
def stormy() -> Iterator[list[str]]:
    """The addresses of two job servers behind proxies that do their worst."""
    over = threading.Event()
    chance = random.Random(11)

    def storm(proxies: list[Proxy]) -> None:
        while not over.wait(chance.uniform(0, 0.2)):
            proxy = chance.choice(proxies)
            match chance.choice(("hang up", "cut", "freeze")):
                case "hang up":
                    proxy.hang_up()
                case "cut":
                    proxy.cut_after = chance.randrange(2000)
                case "freeze":
                    proxy.is_frozen = True
                    over.wait(chance.uniform(0, 0.3))
                    proxy.is_frozen = False

    with ExitStack() as stack:
        servers = [stack.enter_context(running_geartrain()), stack.enter_context(running_gearmand())]
        proxies = [stack.enter_context(proxied(server)) for server in servers]
        for server in servers:
            stack.enter_context(working(server, "reverse"))
        thread = threading.Thread(target=storm, args=(proxies,))
        thread.start()
        try:
            yield [proxy.address for proxy in proxies]
        finally:
            over.set()
            thread.join()


def test_no_job_is_lost_and_nobody_hangs_in_a_storm() -> None:
    stop_at = time.monotonic() + SECONDS
    done = 0
    errors: list[BaseException] = []

    def call(client: Client, chance: random.Random) -> None:
        nonlocal done
        try:
            while time.monotonic() < stop_at:
                workload = os.urandom(chance.choice(SIZES))
                unique = chance.choice((None, workload[:10].hex()))
                assert client.run("reverse", workload, unique=unique, timeout=30) == workload[::-1]
                workloads = [os.urandom(20) for _ in range(20)]
                assert list(client.map("reverse", workloads, window=8, timeout=30)) == [
                    item[::-1] for item in workloads
                ]
                client.submit_background("background", workload, timeout=30)
                done += 1
        except BaseException as error:
            errors.append(error)

    async def await_all(addresses: list[str]) -> None:
        async with AsyncClient(addresses, resend=100) as client:

            async def call(chance: random.Random) -> None:
                nonlocal done
                while time.monotonic() < stop_at:
                    workload = os.urandom(chance.choice(SIZES))
                    assert await client.run("reverse", workload, timeout=30) == workload[::-1]
                    done += 1

            await asyncio.gather(*(call(random.Random(number)) for number in range(4)))

    with stormy() as addresses, Client(addresses, resend=100) as client:
        threads = [threading.Thread(target=call, args=(client, random.Random(number))) for number in range(4)]
        for thread in threads:
            thread.start()
        asyncio.run(await_all(addresses))
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert not errors
    assert done > 20
