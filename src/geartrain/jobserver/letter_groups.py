"""Dead letters that are of one kind: of one function, dead for one reason, with one line of error.

Each letter is in one group, so what many of them have in common is told without going through them, and a group may be
tried again or purged as a whole.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

from geartrain.jobserver.error_line import error_line
from geartrain.native import i64

GROUP_COST: Final = 700
MEMBER_COST: Final = 150


@final
class LetterGroup:
    """One kind; ``number`` is that of no other group, not even after a restart."""

    def __init__(self, number: int, function: bytes, reason: int, line: bytes) -> None:
        self.number: int = number
        self.function: bytes = function
        self.reason: int = reason
        self.line: bytes = line
        self.letters: OrderedDict[int, float] = OrderedDict()  # when each died, by number; the longest dead first


@final
class LetterGroups:
    """All groups that have letters, in the order in which they began."""

    def __init__(self) -> None:
        self.by_number: dict[int, LetterGroup] = {}
        self.by_kind: dict[tuple[bytes, int, bytes], LetterGroup] = {}
        self.last: int = 0
        self.size: i64 = 0  # what they take of the memory limit

    def add(self, number: int, function: bytes, reason: int, text: bytes, died: float, wall: float) -> LetterGroup:
        """There is another letter; the group in which it is. ``wall`` is the Unix time now."""
        line = error_line(text)
        kind = (function, reason, line)
        group = self.by_kind.get(kind)
        if group is None:
            self.last = max(self.last + 1, int(wall * 1_000_000))
            group = LetterGroup(self.last, function, reason, line)
            self.by_kind[kind] = group
            self.by_number[group.number] = group
            self.size += GROUP_COST + len(line)
        group.letters[number] = died
        self.size += MEMBER_COST
        return group

    def drop(self, number: int, group: LetterGroup) -> None:
        """A letter has gone."""
        del group.letters[number]
        self.size -= MEMBER_COST
        if not group.letters:
            del self.by_number[group.number]
            del self.by_kind[group.function, group.reason, group.line]
            self.size -= GROUP_COST + len(group.line)
