"""Pauses grow, have a longest one, and differ between clients."""

from __future__ import annotations

import random

import pytest

from geartrain.link import Backoff


class Highest:
    """A source that always draws the upper end."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


def test_the_upper_end_doubles_up_to_the_longest() -> None:
    backoff = Backoff(first=0.5, longest=3, source=Highest())
    assert [backoff.failed() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    assert backoff.failures == 5


def test_success_starts_again() -> None:
    backoff = Backoff(first=0.5, longest=3, source=Highest())
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.failed() == 0.5


def test_each_pause_lies_in_the_upper_half_of_its_range() -> None:
    backoff = Backoff(first=1, longest=8, source=random.Random(7))
    for upper in (1, 2, 4, 8, 8, 8):
        assert upper / 2 <= backoff.failed() <= upper


def test_two_clients_do_not_come_back_together() -> None:
    one, other = (Backoff(source=random.Random(seed)) for seed in (1, 2))
    assert [one.failed() for _ in range(4)] != [other.failed() for _ in range(4)]


def test_pauses_that_can_not_grow_are_refused() -> None:
    with pytest.raises(ValueError, match="from 5 s to 1 s"):
        Backoff(first=5, longest=1)
