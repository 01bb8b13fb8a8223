"""A dead letter as a job server lists it."""

from __future__ import annotations

from dataclasses import dataclass

from geartrain.client.submission import JobHandle
from geartrain.link import Address
from geartrain.wire.text import as_text


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that did not succeed and is kept: when it died (Unix time), why, after how many attempts.

    ``text`` is the end of that with which the last attempt failed, on one line; ``size`` is that of the workload.
    """

    handle: JobHandle
    function: str
    unique: str
    died: float
    reason: str
    attempts: int
    size: int
    text: str

    @classmethod
    def read(cls, server: Address, row: bytes) -> DeadLetter:
        """From a row of ``dead list``; raises ValueError."""
        handle, *values = row.split(b"\t")
        function, unique, died, reason, attempts, size, text = map(as_text, values)
        return cls(JobHandle(handle, server), function, unique, float(died), reason, int(attempts), int(size), text)
