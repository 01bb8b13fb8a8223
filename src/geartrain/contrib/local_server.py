"""A job server within this process, for tests: on a thread and an event loop of its own, in memory, on a free port.

It is the very daemon that ``geartrain serve`` runs, with a clock that stands still until a test advances it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self, TypeVar

from geartrain.client import AdminClient, AsyncClient, Client
from geartrain.contrib.virtual_clock import VirtualClock
from geartrain.errors import GeartrainError, TimedOutError
from geartrain.link.address import parse_addresses
from geartrain.worker import AsyncWorker, Worker

try:
    from geartrain.daemon.config import Config
    from geartrain.daemon.daemon import Daemon
    from geartrain.daemon.extension import Extension
except ImportError as error:
    text = f"a job server needs more than a plain install ({error}): pip install 'geartrain[server]'"
    raise ImportError(text) from error

Answer = TypeVar("Answer")

# How often the loop must go round until what was sent before has been read: a connection that is only now accepted
# takes five rounds until its first bytes are applied.
_ROUNDS = 10


class LocalServer:
    """A job server to test with; use it as a context manager.

        with LocalServer(job_retries=2) as server:
            server.client().submit_background("report", when=datetime.timedelta(hours=1))
            server.clock.advance(3600)
            with server.run_worker(worker):
                server.wait_idle()

    ``options`` are those of ``geartrain serve``, with underscores. The job server goes by ``clock``: for delayed jobs,
    schedules, and the time limits that workers gave for their functions.
    """

    def __init__(self, **options: Any) -> None:
        self.clock = VirtualClock(self._iterate)
        self._options = options
        self._thread = threading.Thread(target=self._run, name="geartrain test server", daemon=True)
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._clients: list[Client] = []

    @property
    def address(self) -> str:
        """Where it listens, as ``host:port``."""
        return self._daemon.addresses[0]

    def client(self, **options: Any) -> Client:
        """A client of it, closed when the job server ends; ``options`` are those of ``Client``."""
        self._clients.append(Client(self.address, **options))
        return self._clients[-1]

    def async_client(self, **options: Any) -> AsyncClient:
        """An asyncio client of it, to be used with ``async with``."""
        return AsyncClient(self.address, **options)

    def admin(self) -> AdminClient:
        """To ask what waits and what runs."""
        return AdminClient(self.address)

    @contextlib.contextmanager
    def run_worker(self, worker: Worker | AsyncWorker, *, concurrency: int = 1) -> Iterator[None]:
        """Have ``worker`` work here, whatever its job servers are otherwise, until the context is left.

        It does up to ``concurrency`` jobs at once; it has threads of its own. Meanwhile its declared functions are
        submitted here too, unless it has a ``client`` of its own.
        """
        before = worker.addresses, worker.client
        worker.addresses = parse_addresses(self.address)
        worker.client = worker.client or self.client(namespace=worker.function_prefix)
        try:
            if isinstance(worker, AsyncWorker):
                with _running_async(worker, concurrency):
                    yield
            else:
                worker.start(threads=concurrency)
                try:
                    yield
                finally:
                    worker.stop()
                    worker.join()
        finally:
            worker.addresses, worker.client = before

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Wait until no job is queued or running; jobs for later do not count before their time.

        What this process has sent before counts, even if the job server had no time to read it yet. Raises
        TimedOutError, with what is left, after ``timeout`` seconds of real time.
        """
        try:
            self._call(lambda: asyncio.wait_for(self._idle(), timeout))
        except TimeoutError:
            left = "; ".join(self._call(self._busy))
            raise TimedOutError(f"the job server was not idle within {timeout:g} s: {left}") from None

    def start(self) -> None:
        """Begin to listen. Raises ConfigError for an option that can't be used."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End, and close the clients that were made here."""
        for client in self._clients:
            client.close()
        if self._error is None:
            self._loop.call_soon_threadsafe(self._daemon.stop, "the test is over")
        self._thread.join()

    def _run(self) -> None:
        # The plain loop, since ``_ROUNDS`` are counted in it.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._flushed = asyncio.Event()
            config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": "memory:", **self._options})
            self._daemon = Daemon(config, extensions=[_Watcher(self._flushed.set)], clock=self.clock)
            await self._daemon.start(config.sockets())
        except BaseException as error:
            self._error = error
            return
        finally:
            self._started.set()
        await self._daemon.run()

    def _call(self, what: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call ``what`` in the job server's loop, and await what it gives."""
        if not self._thread.is_alive():
            raise GeartrainError("the job server is not running: start it, or use it as a context manager")

        async def awaited() -> Answer:
            return await what()

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()

    def _iterate(self) -> None:
        async def iterate() -> None:
            self._daemon.flush()  # the iteration that was told the time before, if one is open
            self._daemon.open_iteration()
            self._daemon.flush()

        self._call(iterate)

    async def _idle(self) -> None:
        while True:
            self._flushed.clear()
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
            if not await self._busy():
                return
            await self._flushed.wait()

    async def _busy(self) -> list[str]:
        """A sentence for each function that has something to do."""
        return [
            f"{name.decode('utf-8', 'replace')} has {function.queued} jobs waiting and {function.running} running, "
            f"with {function.workers} workers"
            for name, function in self._daemon.server.functions.items()
            if function.queued or function.running
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Watcher(Extension):
    """Tells of the end of each iteration."""

    def __init__(self, flushed: Callable[[], None]) -> None:
        self._flushed = flushed

    def flush(self) -> None:
        self._flushed()


@contextlib.contextmanager
def _running_async(worker: AsyncWorker, concurrency: int) -> Iterator[None]:
    """An asyncio worker in a thread with a loop of its own."""
    started = threading.Event()
    errors: list[BaseException] = []

    async def work() -> None:
        await worker.start(concurrency=concurrency)
        started.set()
        await worker.join()

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="geartrain test worker", daemon=True)
    thread.start()
    started.wait()
    try:
        if not errors:
            yield
    finally:
        if not errors:
            worker.stop()
        thread.join()
    if errors:
        raise errors[0]
