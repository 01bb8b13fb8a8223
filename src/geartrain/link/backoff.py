"""Growing, jittered pauses between attempts at something that fails.

Many clients that lose one server at the same moment must not come back at the same moment; so each pause is drawn at
random from the upper half of a range that doubles with every failure, up to a longest one.
"""

from __future__ import annotations

import random
from typing import Protocol


class RandomSource(Protocol):
    """What is needed of ``random.Random``; a test passes one with a seed."""

    def uniform(self, a: float, b: float, /) -> float: ...


class Backoff:
    """The pauses after failures in a row; all times are in seconds.

    The first pause lies between ``first / 2`` and ``first``, each further one in a range ``factor`` times as long,
    none above ``longest``.
    """

    def __init__(
        self, first: float = 0.2, longest: float = 30.0, factor: float = 2.0, source: RandomSource = random
    ) -> None:
        if not (0 < first <= longest and factor >= 1):
            raise ValueError(f"pauses can't grow from {first} s to {longest} s by a factor of {factor}")
        self.first = first
        self.longest = longest
        self.factor = factor
        self.failures = 0  # in a row
        self._ceiling = first
        self._source = source

    def failed(self) -> float:
        """Count a failure; returns how long to pause before the next attempt."""
        self.failures += 1
        pause = self._source.uniform(self._ceiling / 2, self._ceiling)
        self._ceiling = min(self._ceiling * self.factor, self.longest)
        return pause

    def succeeded(self) -> None:
        """Start again with the shortest pause."""
        self.failures = 0
        self._ceiling = self.first

    def __repr__(self) -> str:
        return f"<Backoff after {self.failures} failures, next at most {self._ceiling:g} s>"
