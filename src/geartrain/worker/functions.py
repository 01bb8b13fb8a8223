"""Declared functions: what a worker can do, and how a job becomes a call and a result becomes bytes.

A function may be a plain one, an ``async def`` or a generator of either kind; what a generator yields is sent as it
comes (WORK_DATA), what it returns ends the job.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from geartrain.worker.job import AssignedJob


class Function(ABC):
    """A declared function under its ``name``.

    ``timeout`` is how long the job server waits for a job before it gives it up (CAN_DO_TIMEOUT, section 3.6);
    ``soft_limit`` how long a job may run before SoftTimeLimit is raised in it; ``hard_limit`` how long before its
    process is killed, so that the job goes back to the job server. All are in seconds; None means for ever.
    ``concurrency`` is how many jobs of the function all processes and threads of a worker may run at once.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        timeout: float | None = None,
        concurrency: int | None = None,
        soft_limit: float | None = None,
        hard_limit: float | None = None,
    ) -> None:
        if not name or "\0" in name:
            raise ValueError(f"{name!r} can't be a function's name: it must not be empty or hold a NUL")
        limits = {"timeout": timeout, "concurrency": concurrency, "soft_limit": soft_limit, "hard_limit": hard_limit}
        for title, limit in limits.items():
            if limit is not None and limit <= 0:
                raise ValueError(f"{name}: {title} must be above 0, not {limit!r}; leave it out for no limit")
        self.name = name
        self.timeout = timeout
        self.concurrency = concurrency
        self.soft_limit = soft_limit
        self.hard_limit = hard_limit
        self.original = function
        self.is_async = _is_async(function)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__wrapped__ = function

    @abstractmethod
    def start(self, job: AssignedJob) -> Any:
        """Call the function for ``job``; returns what it returns: a value, a coroutine, or a generator."""

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """The bytes that stand for a result, or for a part of it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class RawFunction(Function):
    """A function from a job to bytes."""

    def start(self, job: AssignedJob) -> Any:
        return self.original(job)

    def encode(self, value: Any) -> bytes:
        if value is None:
            return b""
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise TypeError(f"{self.name} gave {type(value).__name__} {value!r:.80}; a raw function gives bytes, or None")

    def __call__(self, job: AssignedJob) -> Any:
        """Call it as the ordinary function it is."""
        return self.original(job)


def _is_async(function: Callable[..., Any]) -> bool:
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004 - an object that can be called
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            return True
    return False
