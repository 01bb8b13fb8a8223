"""What the store sees: jobs and small records as it keeps them, and the batch of changes that one commit brings.

This is all that a store knows of the job server; it imports nothing else from here.
"""

from __future__ import annotations

from typing import Final, final

# A job's position among all jobs: its number, then how often a job came back to the end of a queue since that number.
POSITION_BITS: Final = 20
LONGEST_KIND: Final = 64
# Records about one job; their key is its number.
DEAD_KIND: Final = "dead"
ATTEMPTS_KIND: Final = "attempts"
RESULT_KIND: Final = "result"
# What all members of a fleet have; each other record is its owner's.
SHARED_KINDS: Final = frozenset({"policy", "pause", "schedule", "schedule_pause", "schedule_run"})
# The most that a limit of names may allow: a packet's names must stand in its first 16 KiB, all of them.
LONGEST_NAME: Final = 4096


@final
class StoredJob:
    """A job as the store keeps it.

    ``position`` orders all jobs; ``due`` and ``created`` are Unix times, ``due`` 0 means at once; ``priority`` is 0
    high, 1 normal, 2 low. ``workload`` is None where it was left in the store (``size`` bytes).
    """

    def __init__(
        self,
        number: int,
        position: int,
        function: bytes,
        unique: bytes,
        workload: bytes | None,
        size: int,
        priority: int,
        due: float,
        reducer: bytes,
        attempts: int,
        created: float,
        begun: int = 0,
    ) -> None:
        self.number = number
        self.position = position
        self.function = function
        self.unique = unique
        self.workload = workload
        self.size = size
        self.priority = priority
        self.due = due
        self.reducer = reducer
        self.attempts = attempts
        self.created = created
        self.begun = begun  # attempts that have begun, as far as the store of a fleet is told

    def __repr__(self) -> str:
        return f"<StoredJob {self.number} {self.function!r} {self.size} bytes>"


@final
class Change:
    """What of a stored job has changed: all the fields that may change, as they are now."""

    def __init__(self, number: int, position: int, due: float, priority: int, attempts: int) -> None:
        self.number = number
        self.position = position
        self.due = due
        self.priority = priority
        self.attempts = attempts

    def __repr__(self) -> str:
        return f"<Change {self.number} due={self.due:g} priority={self.priority} attempts={self.attempts}>"


@final
class Record:
    """A small thing to keep that is no job, such as a policy, a schedule, a result or a dead letter.

    ``kind`` and ``key`` name it; a later record of the same name replaces it. ``value`` None removes it. ``expires``
    is a Unix time after which it is not kept; 0: it is kept until it is removed. A kind has small letters, digits and
    underscores; a key may be any bytes; a value is no larger than a workload may be.
    """

    def __init__(self, kind: str, key: bytes, value: bytes | None, expires: float = 0.0) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.expires = expires
        self.in_memory = False  # the store is not to have it

    def __repr__(self) -> str:
        size = "removed" if self.value is None else f"{len(self.value)} bytes"
        return f"<Record {self.kind} {self.key!r} {size}>"


def is_kind(kind: str) -> bool:
    """Whether a record may be of this kind."""
    letters = kind.replace("_", "0")
    return len(kind) <= LONGEST_KIND and kind == kind.lower() and letters.isascii() and letters.isalnum()


def number_key(number: int) -> bytes:
    """The key of a record about the job of this number."""
    return number.to_bytes(8, "big")


def number_of(key: bytes) -> int:
    """The number in the key of a record; 0 if it has none."""
    return int.from_bytes(key, "big") if len(key) == 8 and key[0] < 0x80 else 0


def restore_order(record: Record) -> bytes:
    """Sorts records for ``JobServer.restore_record``: dead letters and results by their times, which begin at a byte.

    For of those the oldest stand first, and make room first.
    """
    return (record.value or b"")[1:9] if record.kind in (DEAD_KIND, RESULT_KIND) else b""


@final
class Batch:
    """What one commit brings to the store: all of it or nothing.

    ``added`` jobs, ``changed`` jobs, ``removed`` numbers, ``records``, and the first number that has not been given
    out (``next_number``; 0 in a fleet, where numbers come in blocks). They take effect in this order. Committing a
    batch twice is the same as once.

    In a fleet also: of jobs that run, how many attempts have ``begun``, by number; jobs that are to be another member's
    (``moved``: number and member), of which the store strikes out those that can't be; and, filled by the store,
    ``twins``: for jobs that it has not added the number of the one that has the same function and unique.
    """

    def __init__(self, next_number: int) -> None:
        self.added: list[StoredJob] = []
        self.changed: list[Change] = []
        self.removed: list[int] = []
        self.records: list[Record] = []
        self.begun: dict[int, int] = {}
        self.moved: list[tuple[int, int]] = []
        self.twins: dict[int, int] = {}
        self.next_number = next_number

    @property
    def is_members(self) -> bool:
        """Whether it is of a member of a fleet.

        What it has added may have been found by others, so that jobs with a unique stay if it is refused.
        """
        return self.next_number == 0

    def __repr__(self) -> str:
        return (
            f"<Batch added={len(self.added)} changed={len(self.changed)} removed={len(self.removed)}"
            f" records={len(self.records)}>"
        )
