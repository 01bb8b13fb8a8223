"""Everything that is timed: sources that say when they want to run next, and are run when it is time."""

from __future__ import annotations

from typing import final


class Source:
    """One thing that happens at known times."""

    def __init__(self) -> None:
        self.following: Source | None = None  # in the agenda

    def next_at(self) -> float:
        """When it wants to run, in monotonic seconds; 0: nothing is planned."""
        return 0.0

    def run(self) -> None:
        """Do what is due by the server's clock; called at each tick, and to return at once if nothing is."""


@final
class Agenda:
    """The sources in their order, linked through themselves: each iteration of the driver goes through all of them."""

    def __init__(self) -> None:
        self.first: Source | None = None
        self.last: Source | None = None

    def add(self, source: Source) -> None:
        """Put a source behind the others."""
        last = self.last
        if last is None:
            self.first = source
        else:
            last.following = source
        self.last = source

    def run(self) -> None:
        """Run each source."""
        source = self.first
        while source is not None:
            source.run()
            source = source.following

    def next_at(self) -> float:
        """When the first of the sources wants to run; 0: none does."""
        first = 0.0
        source = self.first
        while source is not None:
            at = source.next_at()
            if at > 0 and (first == 0 or at < first):
                first = at
            source = source.following
        return first
