"""Everything that is timed: sources that say when they want to run next, and are run when it is time."""

from __future__ import annotations


class Source:
    """One thing that happens at known times."""

    def next_at(self) -> float:
        """When it wants to run, in monotonic seconds; 0: nothing is planned."""
        return 0.0

    def run(self) -> None:
        """Do what is due by the server's clock; called at each tick, and to return at once if nothing is."""


def soonest(sources: list[Source]) -> float:
    """When the first of the sources wants to run; 0: none does."""
    first = 0.0
    for source in sources:
        at = source.next_at()
        if at > 0 and (first == 0 or at < first):
            first = at
    return first
