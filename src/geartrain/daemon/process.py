"""From a configuration to a running process: event loop, signals, log, limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon, keep_freed_memory


def serve(config: Config) -> int:
    """Run a job server until a signal ends it; the process's exit code."""
    logging.basicConfig(level=config.verbose, format="%(asctime)s %(levelname)s %(message)s %(fields)s")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    keep_freed_memory()
    try:
        import uvloop
    except ImportError:
        asyncio.run(_main(config))
    else:
        uvloop.run(_main(config))
    return 0


async def _main(config: Config) -> None:
    daemon = Daemon(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop, signal.Signals(number).name)
    loop.add_signal_handler(signal.SIGUSR1, daemon.drain, "SIGUSR1")
    await daemon.run()
