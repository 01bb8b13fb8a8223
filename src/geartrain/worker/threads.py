"""Threads for plain functions beside an event loop.

They are daemons, unlike those of ``concurrent.futures``: a function that never ends must not keep a worker from leaving
when it was told to leave now.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import queue
import threading
from collections.abc import Callable
from typing import Any


class Threads:
    """As many threads as there are calls at once; none is started while one is free."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._free = 0  # threads without a call
        self._count = 0

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Call ``function`` in a thread, with the context variables of here; to be called in the loop."""
        future = self._loop.create_future()
        self._calls.put((future, functools.partial(contextvars.copy_context().run, function)))
        if self._free:
            self._free -= 1
        else:
            self._count += 1
            threading.Thread(target=self._run, name=f"geartrain job {self._count}", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end when their calls have."""
        for _ in range(self._count):
            self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            try:
                result = function()
            except StopIteration as error:  # which no future carries; a coroutine turns it into the same
                told = RuntimeError("function raised StopIteration").with_traceback(error.__traceback__)
                self._tell(future, told, None)
            except BaseException as error:
                self._tell(future, error, None)
            else:
                self._tell(future, None, result)
            del call, future, function

    def _tell(self, future: asyncio.Future[Any], error: BaseException | None, result: Any) -> None:
        def deliver() -> None:
            self._free += 1
            if future.done():  # given up meanwhile
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(deliver)
        except RuntimeError:  # the loop has ended
            return
