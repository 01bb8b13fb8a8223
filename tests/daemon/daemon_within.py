"""A daemon in the test's own process, for what can't be seen from outside."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.extension import Extension
from geartrain.daemon.transport import choose, loop_factory
from geartrain.jobserver import JobServer


def within(
    act: Callable[[Daemon, int], Awaitable[None]], *extensions: Extension, durable: bool = False, **options: str
) -> None:
    """A daemon at a port, and what is to be done with it. If ``durable``, it waits for a store that never answers."""
    config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": "memory:", "stop_timeout": "0.1"} | options)
    settings = config.rules()
    settings.durable = durable
    within_with(JobServer(settings), config, act, *extensions)


def within_with(
    server: JobServer, config: Config, act: Callable[[Daemon, int], Awaitable[None]], *extensions: Extension
) -> None:
    """As ``within``, with this job server."""

    async def run() -> None:
        daemon = Daemon(config, server, extensions)
        sockets: list[socket.socket] = config.sockets()
        await daemon.start(sockets)
        serving = asyncio.create_task(daemon.run())
        try:
            await asyncio.wait_for(act(daemon, sockets[0].getsockname()[1]), 20)
        finally:
            daemon.stop("the test is over")
            await asyncio.wait_for(serving, 10)

    with asyncio.Runner(loop_factory=loop_factory(choose(config.transport))) as runner:
        runner.run(run())
