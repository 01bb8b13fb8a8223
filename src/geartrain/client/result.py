"""The question for the result of any job, by its handle or by function and unique key, and where to ask it.

Job servers keep results under the policy ``results`` of a function; one that still waits or runs is waited for.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence

from geartrain.client.command import Command, ask, ask_async, worse
from geartrain.errors import (
    ConnectError,
    GeartrainError,
    JobFailedError,
    JobRaisedError,
    RemoteProtocolError,
    ServerError,
    TimedOutError,
    UnknownJobError,
)
from geartrain.link import Address
from geartrain.wire.text import as_text

_REMEDY = "to have results kept set a policy: geartrain policy set FUNCTION results=1h"


class ResultQuestion:
    """Asked at ``addresses`` in turn, until one knows the job; ``words`` are those of the text command.

    With ``timeout`` 0 nothing is waited for but the answer, which may take ``answer_timeout`` seconds. A result above
    ``limit`` bytes is not accepted.
    """

    def __init__(
        self,
        words: Sequence[bytes],
        addresses: Sequence[Address],
        timeout: float | None,
        answer_timeout: float,
        limit: int | None = None,
    ) -> None:
        self.words = tuple(words)
        self.addresses = addresses
        self.trouble: GeartrainError | None = None
        self._timeout = timeout
        self._answer_timeout = answer_timeout
        self._limit = limit
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def command(self) -> Command:
        """The command for one more job server."""
        return Command(
            b"result", *self.words, *([] if self._timeout == 0 else [b"wait"]), form="data", limit=self._limit
        )

    @property
    def left(self) -> float | None:
        """How many seconds the next answer may take."""
        if self._timeout == 0:
            return self._answer_timeout
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0)

    def failed(self, error: GeartrainError) -> None:
        """A job server did not answer, or refused; raises what ends the search."""
        if isinstance(error, TimedOutError) or (isinstance(error, ServerError) and error.code == "NOT_READY"):
            late = f"within {self._timeout:g} s" if self._timeout else "yet"
            raise TimedOutError(f"the job {self._shown} has not ended {late}; it goes on at the job server") from None
        if isinstance(error, UnknownJobError):
            error = UnknownJobError(error.code, f"{error.text}; {_REMEDY}")
        elif not isinstance(error, ConnectError):
            raise error
        self.trouble = worse(self.trouble, error)

    def read(self, command: Command) -> bytes:
        """The result that came; raises JobRaisedError or JobFailedError for a job that failed."""
        outcome, data = command.data()
        if outcome == [b"completed"]:
            return data
        if outcome != [b"failed"]:
            raise RemoteProtocolError(f"the answer to {command!r} can't be read: {command.answer()[:200]!r}")
        handle = self.words[0] if len(self.words) == 1 else None
        if data:
            raise JobRaisedError(data, handle=handle)
        raise JobFailedError(handle=handle)

    def gone(self) -> GeartrainError:
        """The error for a job that none of the job servers knows."""
        assert self.trouble is not None, "there is at least one job server"
        return self.trouble

    @property
    def _shown(self) -> str:
        return " ".join(map(as_text, self.words))

    def __repr__(self) -> str:
        return f"<ResultQuestion {self._shown}>"


def fetch(question: ResultQuestion, connect_timeout: float, tls: ssl.SSLContext | None) -> bytes:
    """Ask it, and wait for the result."""
    for address in question.addresses:
        command = question.command()
        try:
            ask(command, address, connect_timeout=connect_timeout, timeout=question.left, tls=tls)
        except GeartrainError as error:
            question.failed(error)
        else:
            return question.read(command)
    raise question.gone()


async def fetch_async(question: ResultQuestion, connect_timeout: float, tls: ssl.SSLContext | None) -> bytes:
    """The same on asyncio."""
    for address in question.addresses:
        command = question.command()
        try:
            await ask_async(command, address, connect_timeout=connect_timeout, timeout=question.left, tls=tls)
        except GeartrainError as error:
            question.failed(error)
        else:
            return question.read(command)
    raise question.gone()
