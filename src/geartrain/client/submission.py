"""A job as the client holds it, as plain state: what was submitted, what came of it so far, and how it ended.

``ClientSession`` writes it. Users see it through a ``SubmittedJob`` or an ``AsyncJob``, whose methods wait.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from geartrain.client.request import MAX_UNIQUE, Request
from geartrain.errors import GeartrainError, JobError, LocalProtocolError
from geartrain.link import Address
from geartrain.wire.packets import (
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    pack_request,
)

Priority = Literal["high", "normal", "low"]
When = datetime.datetime | datetime.timedelta | float

_FOREGROUND: Mapping[str, int] = {"high": SUBMIT_JOB_HIGH, "normal": SUBMIT_JOB, "low": SUBMIT_JOB_LOW}
_BACKGROUND: Mapping[str, int] = {"high": SUBMIT_JOB_HIGH_BG, "normal": SUBMIT_JOB_BG, "low": SUBMIT_JOB_LOW_BG}


class JobHandle(bytes):
    """A job server's name for a job; ``address`` says which server, since it means nothing to another.

    It is written ``host:port//H:host:1``, as the Perl library does it, and read again by ``parse``.
    """

    address: Address | None

    def __new__(cls, name: bytes, address: Address | None = None) -> JobHandle:
        self = super().__new__(cls, name)
        self.address = address
        return self

    @classmethod
    def parse(cls, text: str) -> JobHandle:
        """Read what ``str`` wrote; a handle without a server is fine too."""
        server, mark, name = text.rpartition("//")
        return cls(name.encode(), Address.parse(server) if mark else None)

    @classmethod
    def of(cls, handle: JobHandle | str | bytes) -> JobHandle:
        """A handle as it is given: text is read, mere bytes say no server."""
        if isinstance(handle, JobHandle):
            return handle
        return cls.parse(handle) if isinstance(handle, str) else cls(handle)

    def __str__(self) -> str:
        name = self.decode("utf-8", "replace")
        return f"{self.address}//{name}" if self.address else name

    def __repr__(self) -> str:
        return f"<JobHandle {self}>"


@dataclass(frozen=True, slots=True)
class DataEvent:
    """The worker sent a part of the result (WORK_DATA)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class WarningEvent:
    """The worker sent a warning (WORK_WARNING)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """The worker said how far it is (WORK_STATUS): ``numerator`` of ``denominator``."""

    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class SentAgainEvent:
    """The job's server was lost and the job starts again on another: what came before does not count any more."""

    lost: Address


JobEvent = DataEvent | WarningEvent | StatusEvent | SentAgainEvent


class Submission(Request[bytes]):
    """One submission of a job; the answer is the result of a foreground job, the handle of a background job.

    ``progress`` is the last status the worker sent; ``events`` are those that nobody has taken yet.
    """

    __slots__ = ("events", "function", "handle", "is_background", "progress", "traceparent", "unique")

    expects = JOB_CREATED

    def __init__(
        self,
        function: bytes,
        workload: bytes,
        *,
        unique: bytes = b"",
        priority: Priority = "normal",
        background: bool = False,
        when: When | None = None,
        resends: int = 1,
    ) -> None:
        if not function:
            raise LocalProtocolError("a job needs the name of a function")
        if len(unique) > MAX_UNIQUE:
            raise LocalProtocolError(f"the unique {unique!r} is longer than {MAX_UNIQUE} bytes")
        if isinstance(workload, str):
            raise TypeError("a workload is bytes: encode the text, as in text.encode()")
        if priority not in _FOREGROUND:
            raise LocalProtocolError(f"there is no priority {priority!r}: it is 'high', 'normal' or 'low'")
        if when is None:
            packet = pack_request((_BACKGROUND if background else _FOREGROUND)[priority], function, unique, workload)
        elif priority != "normal":
            raise LocalProtocolError(f"a job with a time has normal priority, not {priority} (SUBMIT_JOB_EPOCH)")
        else:
            packet = pack_request(SUBMIT_JOB_EPOCH, function, unique, str(epoch_of(when)).encode(), workload)
        # "-" makes the workload itself the key, at the server too (section 3.4).
        key = (hashlib.blake2b(workload).digest() if unique == b"-" else unique) or None
        super().__init__(packet, key=key, resends=resends)
        self.function = function
        self.unique = unique
        self.is_background = background
        self.traceparent = b""
        self.handle: JobHandle | None = None
        self.progress: tuple[int, int] | None = None
        self.events: deque[JobEvent] = deque()

    def answered(self, arguments: tuple[bytes, ...]) -> None:
        self.handle = JobHandle(arguments[0], self.sent_to)
        if self.is_background:
            self.resolve(self.handle)

    def add_event(self, event: JobEvent) -> None:
        """Keep an event until somebody takes it."""
        if isinstance(event, StatusEvent):
            self.progress = event.numerator, event.denominator
            # Without a reader only the last of many statuses is worth its memory.
            if self.events and isinstance(self.events[-1], StatusEvent):
                self.events.pop()
        self.events.append(event)

    def outcome(self) -> bytes:
        """The result: the data that nobody took from the events, and what ended the job behind it."""
        answer = super().outcome()
        if self.events:
            parts = [event.data for event in self.events if isinstance(event, DataEvent)]
            answer = self.answer = b"".join([*parts, answer])
            self.events.clear()
        return answer

    def fail(self, error: GeartrainError) -> None:
        if isinstance(error, JobError) and error.handle is None:
            error.handle = self.handle
        super().fail(error)

    def restart(self) -> None:
        """Forget what a lost server told."""
        if self.sent_to is not None and self.handle is not None:
            self.events.clear()
            self.events.append(SentAgainEvent(self.sent_to))
        self.handle = None
        self.progress = None

    def told(self) -> str:
        """Its short state, for a ``repr``."""
        state = "underway" if not self.done else f"failed with {self.error!r}" if self.error else "done"
        return f"{self.function.decode('utf-8', 'replace')} {self.handle or 'without handle'}, {state}"

    def __repr__(self) -> str:
        return f"<Submission {self.told()}>"


def epoch_of(when: When) -> int:
    """The Unix time, in whole seconds rounded up, that is meant by ``when``.

    A datetime without a time zone is local time; a timedelta counts from now; a number is Unix time already. Raises
    LocalProtocolError for a time that the protocol can't carry.
    """
    if isinstance(when, datetime.timedelta):
        when = time.time() + when.total_seconds()
    elif isinstance(when, datetime.datetime):
        when = when.timestamp()
    if not 0 <= when < 2**62:
        raise LocalProtocolError(f"{when!r} is no Unix time in seconds")
    return math.ceil(when)
