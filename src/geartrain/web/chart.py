"""What a chart shows of a history: a value for each interval, from the columns of points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from geartrain.jobserver.histogram import quantile
from geartrain.web.series import BUCKETS, FIRST_BUCKET, FIRST_GAUGE, GAUGES, PERCENTILES, SUMS, TIMES


def columns_of(name: str) -> Sequence[int]:
    """The columns of a point that a series is made of. Raises KeyError for a name that there is not."""
    if name in SUMS:
        return (SUMS.index(name),)
    if name in GAUGES:
        return (FIRST_GAUGE + GAUGES.index(name),)
    time, _, percentile = name.rpartition("_")
    if time not in TIMES or percentile not in PERCENTILES:
        raise KeyError(name)
    first = FIRST_BUCKET[time]
    return range(first, first + BUCKETS)


def longer(values: Sequence[int | None], every: int) -> Sequence[int]:
    """A column of whole numbers in intervals that are so many times longer."""
    whole = cast("Sequence[int]", values)
    return whole if every == 1 else [sum(whole[at : at + every]) for at in range(0, len(whole), every)]


def of_known(sums: Sequence[int], known: bytes | bytearray, every: int) -> list[float | None]:
    """The sums of those intervals in which somebody has looked."""
    return [total if any(known[at * every : (at + 1) * every]) else None for at, total in enumerate(sums)]


def last_known(values: Sequence[int | None], known: bytes | bytearray, every: int) -> list[float | None]:
    """The gauge at the end of each interval, or when somebody has looked last in it."""
    found: list[float | None] = []
    for at in range(0, len(values), every):
        last = known.rfind(1, at, at + every)
        found.append(values[last] if last >= 0 else None)
    return found


def ages(since: Sequence[float | None], first: int, step: int) -> list[float | None]:
    """How many seconds it is at the end of each interval since the times that a gauge tells; 0 stays 0."""
    ends = range(first + step, first + step * (len(since) + 1), step)
    return [began and max(end - began, 0) for began, end in zip(since, ends, strict=True)]


def percentiles(buckets: Sequence[Sequence[int] | None], count: int, share: float) -> list[float | None]:
    """The percentile of each interval, from the buckets that are not all zero; None where there were no jobs."""
    found: list[float | None] = [None] * count
    places = [place for place, column in enumerate(buckets) if column is not None]
    counts = [0] * BUCKETS
    for at, row in enumerate(zip(*[column for column in buckets if column is not None], strict=True)):
        if any(row):
            for place, value in zip(places, row, strict=True):
                counts[place] = value
            found[at] = quantile(counts, share)
    return found


def share_of(name: str) -> float:
    """Of how many jobs a percentile is the longest time."""
    return PERCENTILES[name.rpartition("_")[2]]
