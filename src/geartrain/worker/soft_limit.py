"""The soft time limit: an exception raised in a job that runs too long, so that it can tidy up and leave.

In a coroutine the event loop sees to it: the job is cancelled. In a thread it is raised by the interpreter, between two
steps of Python code; a call that waits outside of Python (a sleep, a query) is not cut short by it. That is what the
hard limit is for.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from geartrain.errors import SoftTimeLimitError

R = TypeVar("R")


async def limited(seconds: float, job: Awaitable[R]) -> R:
    """Await ``job`` for at most ``seconds``; then cancel it and raise SoftTimeLimitError."""
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await job
    except TimeoutError:
        if scope.expired():
            raise SoftTimeLimitError from None
        raise


class Alarms:
    """Rings in threads: one clock of its own for all of them, which runs while any of them is set."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._numbers = itertools.count()
        self._set: list[tuple[float, int, _Alarm]] = []
        self._clock: threading.Thread | None = None

    def call(self, seconds: float, job: Callable[[], R]) -> R:
        """Call ``job`` in this thread; if it takes longer than ``seconds``, SoftTimeLimitError is raised in it."""
        alarm = _Alarm()
        with self._condition:
            if self._clock is None:
                clock = threading.Thread(target=self._run, name="geartrain soft limits", daemon=True)
                clock.start()  # where no thread can be had this raises, and the next call tries again
                self._clock = clock
            heapq.heappush(self._set, (time.monotonic() + seconds, next(self._numbers), alarm))
            self._condition.notify()
        try:
            try:
                return job()
            finally:
                alarm.stop()
        except SoftTimeLimitError:  # it may have come in the middle of stopping
            alarm.stop()
            raise

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._set and self._set[0][2].is_over:
                    heapq.heappop(self._set)
                if not self._set:
                    self._clock = None  # the next call starts another
                    return
                left = self._set[0][0] - time.monotonic()
                if left > 0:
                    self._condition.wait(left)
                    continue
                _, _, alarm = heapq.heappop(self._set)
            alarm.ring()


class _Alarm:
    """One call's alarm, for the thread that made it."""

    def __init__(self) -> None:
        self.is_over = False
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._has_rung = False

    def ring(self) -> None:
        with self._lock:
            if not self.is_over:
                self._has_rung = True
                _raise_in(self._thread, SoftTimeLimitError)

    def stop(self) -> None:
        """From here on it does not ring; if it rang and was not heard yet, it will not be heard."""
        with self._lock:
            self.is_over = True
            if self._has_rung:
                self._has_rung = False
                _raise_in(self._thread, None)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have ``error`` raised in a thread soon; None takes it back."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)
