"""What the segments that are kept amount to: which jobs live, where each is, and what may be thrown away.

Segments are deleted from the front alone, so that those that are kept are numbered without a gap and can be found again
without a list of keys. What keeps an old one from being deleted is written again at the end (``sparse`` says when that
is worth it). A removal or a move is only about earlier segments, so nothing is lost with a segment without living jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Set
from typing import Final

from geartrain.jobserver.records import Record
from geartrain.store.memcached.segment import Segment
from geartrain.store.record import apart_size, sound_next_number

FULL_SEGMENT: Final = 64 << 10  # bytes; with fewer, segments are worth to be joined
SPARE_SEGMENTS: Final = 256  # that may be more than needed
SPARE_BYTES: Final = 8 << 20
MOST_SESSIONS: Final = 100


class Kept:
    """A segment that is kept: its ``n`` and ``size``, how many jobs and entries it brought and how many ``live``."""

    __slots__ = ("count", "live", "n", "size")

    def __init__(self, n: int, size: int, count: int) -> None:
        self.n = n
        self.size = size
        self.count = count
        self.live = 0

    @property
    def share(self) -> int:
        """About how many bytes of it are one job's."""
        return self.size // (self.count or 1)


class Log:
    """The segments from the first that is kept to the last one.

    ``home``: each living job's segment; ``changed``: the beginning of the records of jobs that have changed since;
    ``large``: the size of workloads that are items of their own; ``quarantined``: why jobs were, which live here, but
    not for the job server; ``entries``: the small records, and the segment that each is in.
    """

    def __init__(self, first: int, next_number: int) -> None:
        self.segments: deque[Kept] = deque()
        self.next = first
        self.next_number = next_number
        self.home: dict[int, Kept] = {}
        self.changed: dict[int, bytes] = {}
        self.entries: dict[bytes, tuple[Kept, Record]] = {}
        self.large: dict[int, int] = {}
        self.quarantined: dict[int, bytes] = {}
        self.lost = 0  # jobs and entries that were lost while the job server ran
        self._bytes = 0
        self._live_bytes = 0

    @property
    def first(self) -> int:
        return self.segments[0].n if self.segments else self.next

    def append(self, segment: Segment, size: int) -> dict[int, int]:
        """Take in the next segment; the large workloads (number: size) that nobody needs any more."""
        entries = {name: entry for name, entry in segment.entries.items() if entry.value is not None}
        kept = Kept(self.next, size, len(segment.numbers) + len(entries))
        self.segments.append(kept)
        self.next += 1
        self._bytes += size
        self.next_number = max(self.next_number, sound_next_number(segment.next_number))
        for number, record in zip(segment.numbers, segment.records, strict=True):
            self._leave_home(number)
            self.home[number] = kept
            kept.live += 1
            self._live_bytes += kept.share
            if large := apart_size(record):
                self.large[number] = large
        for number, part in segment.changed:
            if number in self.home:
                self.changed[number] = part
        ended = {}
        for number in segment.removed:
            if number in self.home:
                if number in self.large:
                    ended[number] = self.large[number]
                self._leave_home(number)
        self.quarantined.update((number, reason) for number, reason in segment.quarantined if number in self.home)
        for name in segment.entries:
            self._leave_entry(name)
        for name, entry in entries.items():
            self.entries[name] = (kept, entry)
            kept.live += 1
            self._live_bytes += kept.share
        return ended

    def expire(self, now: float) -> None:
        """Forget the entries that have expired."""
        for name in [name for name, (_, entry) in self.entries.items() if 0 < entry.expires <= now]:
            self._leave_entry(name)

    def lose(self, segments: Set[Kept]) -> None:
        """Forget the jobs and entries of segments that are lost."""
        for number in [number for number, home in self.home.items() if home in segments]:
            self._leave_home(number)
            self.lost += 1
        for name in [name for name, (home, _) in self.entries.items() if home in segments]:
            self._leave_entry(name)
            self.lost += 1

    def lose_workloads(self, numbers: Set[int]) -> None:
        """Forget the jobs whose workloads are lost."""
        for number in numbers:
            if number in self.home:
                self._leave_home(number)
                self.lost += 1

    def _leave_entry(self, name: bytes) -> None:
        home, _ = self.entries.pop(name, (None, None))
        if home is not None:
            home.live -= 1
            self._live_bytes -= home.share

    def _leave_home(self, number: int) -> None:
        home = self.home.pop(number, None)
        if home is not None:
            home.live -= 1
            self._live_bytes -= home.share
            self.changed.pop(number, None)
            self.large.pop(number, None)
            self.quarantined.pop(number, None)

    def serves(self, number: int) -> bool:
        """Whether the job is there for the job server."""
        return number in self.home and number not in self.quarantined

    # What may go

    def dead(self) -> Iterator[Kept]:
        """The segments at the front that may be deleted."""
        for kept in self.segments:
            if kept.live:
                return
            yield kept

    def drop(self, count: int) -> None:
        """Forget so many segments at the front."""
        for _ in range(count):
            self._bytes -= self.segments.popleft().size

    def sparse(self) -> bool:
        """Whether so little of it lives that the oldest segments should be written again."""
        needed = self._live_bytes // FULL_SEGMENT
        return len(self.segments) > SPARE_SEGMENTS + 2 * needed or self._bytes > SPARE_BYTES + 2 * self._live_bytes

    def oldest(self) -> list[Kept]:
        """Segments at the front whose living jobs are to be written again together."""
        found: list[Kept] = []
        total = 0
        for kept in self.segments:
            total += kept.live * kept.share
            if found and (total > 4 * FULL_SEGMENT or len(found) == SPARE_SEGMENTS):
                break
            found.append(kept)
        return found
