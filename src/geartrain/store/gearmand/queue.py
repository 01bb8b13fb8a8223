"""What gearmand keeps of a job, in each of its layouts (section 6.2), and what it makes of it.

It keeps function, unique, workload, priority and the time before which the job must not run. It does not keep handle,
reducer, attempts, or when the job was submitted, and no layout but the relational ones keeps an order.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator

from geartrain.jobserver.records import StoredJob
from geartrain.store.base import Unreadable


class GearmandQueue(ABC):
    """The jobs that one gearmand has kept.

    ``notes`` are what a person should know about the queue, complete after ``jobs`` has come to its end.
    """

    def __init__(self, url: str, functions: Collection[bytes]) -> None:
        self.functions = functions
        self.notes: list[str] = []
        self.created = time.time()

    @abstractmethod
    def count(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def jobs(self) -> Iterator[StoredJob | Unreadable]:
        """Each row: a job without a number, or why it is none. Raises StoreError if the place fails."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the place."""

    def job(self, function: object, unique: object, workload: object, priority: object, when: object) -> StoredJob:
        """The job of a row. Raises ValueError, with the reason, if the row makes none."""
        if type(function) is not bytes:
            raise ValueError(f"its function is {function!r:.60}")
        if unique is None:
            unique = b""
        if type(unique) is not bytes:
            raise ValueError(f"its unique is {unique!r:.60}")
        if workload is None:
            workload = b""  # what gearmand makes of an empty one
        if type(workload) is not bytes:
            raise ValueError(f"its workload is {workload!r:.60}")
        if type(priority) is not int or not 0 <= priority <= 2:
            raise ValueError(f"its priority is {priority!r:.60}, where 0, 1 or 2 was expected")
        if when is None:
            when = 0
        if type(when) is not int or when < 0:
            raise ValueError(f"its time to run is {when!r:.60}")
        return StoredJob(0, 0, function, unique, workload, len(workload), priority, float(when), b"", 0, self.created)


def about(function: object, unique: object, reason: Exception) -> Unreadable:
    """A row that makes no job."""
    shown = [part.decode("utf-8", "backslashreplace") if type(part) is bytes else part for part in (function, unique)]
    return Unreadable(0, f"the job of {shown[0]!r:.100} with unique {shown[1]!r:.100}: {reason}")
