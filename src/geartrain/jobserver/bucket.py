"""A token bucket: how many starts a rate allows now, and when the next one."""

from __future__ import annotations

from typing import Final, final

from geartrain.native import i64

_ALMOST: Final = 1e-6  # of a token: sums of times are not exact


@final
class Bucket:
    """``per_second`` tokens come in each second, up to ``burst``; each start takes one."""

    def __init__(self, per_second: float, burst: i64, now: float) -> None:
        self.per_second: float = per_second
        self.burst: i64 = burst
        self.tokens: float = float(burst)
        self.at: float = now  # when it was filled up last

    def fill(self, now: float) -> i64:
        """How many tokens there are now."""
        if now > self.at:
            self.tokens = min(float(self.burst), self.tokens + (now - self.at) * self.per_second)
            self.at = now
        return i64(self.tokens + _ALMOST)

    def take(self) -> None:
        """Use a token, which must be there."""
        self.tokens -= 1.0

    def change(self, per_second: float, burst: i64, now: float) -> None:
        """Another rate from now on."""
        self.fill(now)
        self.per_second = per_second
        self.burst = burst
        self.tokens = min(self.tokens, float(burst))

    def next_at(self) -> float:
        """When there will be one token more, if nobody takes one and it is not full."""
        return self.at + (float(i64(self.tokens + _ALMOST)) + 1.0 - self.tokens) / self.per_second

    def full_at(self) -> float:
        """When it will be full, if nobody takes one."""
        return self.at + (float(self.burst) - self.tokens) / self.per_second
