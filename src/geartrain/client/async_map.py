"""The map of the asyncio client: workloads in, at most a window of jobs underway, ended jobs out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import Any

from geartrain.client.async_driver import AsyncDriver
from geartrain.client.job import too_late
from geartrain.client.request import Request
from geartrain.client.submission import Submission
from geartrain.client.window import GATHER_SECONDS, Window
from geartrain.errors import ConnectionLostError

Workloads = Iterable[bytes] | AsyncIterable[bytes]


class AsyncWindow(Window):
    """A window that one task watches: ``changed`` is set when a submission has ended or a workload has come."""

    def __init__(self, size: int, *, ordered: bool, timeout: float | None) -> None:
        super().__init__(size, ordered=ordered, timeout=timeout)
        self.changed = asyncio.Event()

    def touched(self, request: Request[Any]) -> None:
        super().touched(request)
        if request.done:
            self.changed.set()


class Plain:
    """Workloads from an ordinary iterable: the next one is always there at once."""

    def __init__(self, workloads: Iterable[bytes]) -> None:
        self._iterator = iter(workloads)
        self.is_exhausted = False
        self.is_ready = True

    def take(self) -> bytes | None:
        workload = next(self._iterator, None)
        self.is_exhausted = workload is None
        return workload

    async def close(self) -> None:
        pass


class Awaited:
    """Workloads from an asynchronous iterable: one is awaited while jobs are underway, and told by ``changed``."""

    def __init__(self, workloads: AsyncIterable[bytes], changed: asyncio.Event) -> None:
        self._iterator = aiter(workloads)
        self._changed = changed
        self._next: asyncio.Task[bytes] | None = None
        self.is_exhausted = False
        self.is_ready = False

    def take(self) -> bytes | None:
        workload: bytes | None = None
        if self._next is not None and self._next.done():
            try:
                workload = self._next.result()
            except StopAsyncIteration:
                self.is_exhausted = True
                return None
            self._next = None
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._await_next())
            self._next.add_done_callback(lambda _: self._changed.set())
        return workload

    async def _await_next(self) -> bytes:
        return await anext(self._iterator)

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await self._next


async def mapped(
    driver: AsyncDriver, workloads: Workloads, make: Callable[[bytes], Submission], window: AsyncWindow
) -> AsyncGenerator[Submission, None]:
    """Submit what ``make`` makes of each workload; gives the submissions that have ended."""
    source = Awaited(workloads, window.changed) if isinstance(workloads, AsyncIterable) else Plain(workloads)
    try:
        while not window.is_over:
            window.changed.clear()
            _fill(driver, source, make, window)
            if window.has_room and source.is_ready:
                await asyncio.sleep(0)  # the workloads come slowly: do not let results wait for them
            elif not window.is_over and not window.has_ready():
                try:
                    async with asyncio.timeout_at(window.deadline):
                        await window.changed.wait()
                except TimeoutError:
                    driver.give_up(window.oldest, too_late(window.oldest, window.timeout))
            for submission in window.take_ready():
                yield submission
    finally:
        await source.close()
        for submission in window.underway:
            driver.give_up(submission, ConnectionLostError("the map was left before the job's end"))


def _fill(
    driver: AsyncDriver, source: Plain | Awaited, make: Callable[[bytes], Submission], window: AsyncWindow
) -> None:
    batch: list[Submission] = []
    began = now = driver.now()
    while window.has_room and now - began < GATHER_SECONDS:
        workload = source.take()
        if workload is None:
            window.is_exhausted = source.is_exhausted
            break
        now = driver.now()
        submission = make(workload)
        window.add(submission, now)
        batch.append(submission)
    if batch:
        driver.place(*batch, follower=window)
