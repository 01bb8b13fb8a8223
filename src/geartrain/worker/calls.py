"""A declared function as its callers see it: submitted through a client, with its own types.

The client is the user's: anything that has the methods of ``geartrain.Client`` or ``geartrain.AsyncClient``.
"""

from __future__ import annotations

import copy
import datetime
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, ParamSpec, Protocol, Self, TypeVar

from geartrain.errors import GeartrainError

P = ParamSpec("P")
R = TypeVar("R")

Priority = Literal["high", "normal", "low"]
When = datetime.datetime | datetime.timedelta | float


class JobLike(Protocol):
    """What a blocking client's ``submit`` gives."""

    def result(self, timeout: float | None = None) -> bytes: ...

    def wait(self, timeout: float | None = None) -> bool: ...

    @property
    def done(self) -> bool: ...

    @property
    def exception(self) -> GeartrainError | None: ...


class ClientLike(Protocol):
    """What is needed of a blocking client."""

    def submit(
        self, function: str, workload: bytes, *, unique: str | bytes | None = None, priority: Priority = "normal"
    ) -> JobLike: ...

    def submit_background(
        self,
        function: str,
        workload: bytes,
        *,
        unique: str | bytes | None = None,
        priority: Priority = "normal",
        when: When | None = None,
    ) -> bytes: ...


class AsyncClientLike(Protocol):
    """What is needed of an asyncio client."""

    def run(
        self, function: str, workload: bytes, *, unique: str | bytes | None = None, priority: Priority = "normal"
    ) -> Awaitable[bytes]: ...


class ClientHolder(Protocol):
    """Who knows the clients to submit through: the worker."""

    client: ClientLike | None
    async_client: AsyncClientLike | None


class TypedJob(Generic[R]):
    """A submitted job whose result has the function's own type; ``job`` is what the client gave, with all it can."""

    def __init__(self, job: JobLike, decode: Callable[[bytes], R]) -> None:
        self.job = job
        self._decode = decode

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result, at most ``timeout`` seconds; raises as the client's job does."""
        return self._decode(self.job.result(timeout))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended, at most ``timeout`` seconds; returns whether it has."""
        return self.job.wait(timeout)

    @property
    def done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.job.done

    @property
    def exception(self) -> GeartrainError | None:
        """The error that ``result`` would raise, if it is known by now."""
        return self.job.exception

    def __repr__(self) -> str:
        return f"<TypedJob of {self.job!r}>"


class Submittable(ABC, Generic[P, R]):
    """A function that can be submitted with arguments ``P`` and gives ``R``."""

    name: str
    holder: ClientHolder
    _options: dict[str, Any]

    def options(
        self,
        *,
        priority: Priority | None = None,
        unique: str | bytes | None = None,
        when: When | None = None,
        client: ClientLike | None = None,
        async_client: AsyncClientLike | None = None,
    ) -> Self:
        """The same function, to be submitted in a certain way: ``add.options(priority="high").submit(2, 3)``.

        ``when`` is for ``submit_background``. The clients are used instead of the worker's.
        """
        other = copy.copy(self)
        given = {"priority": priority, "unique": unique, "when": when, "client": client, "async_client": async_client}
        other._options = {**self._options, **{name: value for name, value in given.items() if value is not None}}
        return other

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TypedJob[R]:
        """Submit a job through the worker's ``client``."""
        job = self._client("client").submit(self.name, self.encode_arguments(args, kwargs), **self._how())
        return TypedJob(job, self.decode_result)

    def submit_background(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        """Submit a job that nobody waits for, through the worker's ``client``; returns its handle."""
        workload = self.encode_arguments(args, kwargs)
        when = self._options.get("when")
        how = {**self._how(), **({} if when is None else {"when": when})}
        handle: bytes = self._client("client").submit_background(self.name, workload, **how)
        return handle

    def result(self, handle: bytes, timeout: float | None = None) -> R:
        """Wait for the result of a job of this function, by its handle, through the worker's ``client``.

        The function needs a policy ``results``, by which the job server keeps it; raises as ``Client.result``.
        """
        data: bytes = self._client("client").result(handle, timeout=timeout)
        return self.decode_result(data)

    async def run_async(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a job through the worker's ``async_client``; gives its result."""
        client = self._client("async_client")
        return self.decode_result(await client.run(self.name, self.encode_arguments(args, kwargs), **self._how()))

    @abstractmethod
    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """The workload for a call with these arguments; raises ArgumentsError if the function does not take them."""

    @abstractmethod
    def decode_result(self, data: bytes) -> R:
        """The result that came as ``data``."""

    def _how(self) -> dict[str, Any]:
        return {name: value for name, value in self._options.items() if name in ("priority", "unique")}

    def _client(self, which: Literal["client", "async_client"]) -> Any:
        client = self._options.get(which) or getattr(self.holder, which)
        if client is None:
            kind = "Client" if which == "client" else "AsyncClient"
            raise GeartrainError(f"{self.name} has no client to go through: say worker.{which} = {kind}() first")
        return client
