"""A dead letter as a job server lists it."""

from __future__ import annotations

from dataclasses import dataclass

from geartrain.client.command import read_back
from geartrain.client.submission import JobHandle
from geartrain.link import Address
from geartrain.wire.text import as_text


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that did not succeed and is kept: when it died (Unix time), why, after how many attempts.

    ``data`` is the end of that with which the last attempt failed; ``size`` is that of the workload.
    """

    handle: JobHandle
    function: str
    unique: str
    died: float
    reason: str
    attempts: int
    size: int
    data: bytes

    @property
    def text(self) -> str:
        """The ``data`` as text."""
        return as_text(self.data)

    @classmethod
    def read(cls, server: Address, row: bytes) -> DeadLetter:
        """From a row of ``dead list``; raises ValueError."""
        handle, *values = row.split(b"\t")
        function, unique, died, reason, attempts, size, data = map(read_back, values)
        return cls(
            JobHandle(handle, server),
            as_text(function),
            as_text(unique),
            float(died),
            as_text(reason),
            int(attempts),
            int(size),
            data,
        )
