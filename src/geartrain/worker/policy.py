"""The policy that a worker declares for a function.

A policy is kept by the job server: it tries again, limits and keeps results, whoever the worker is. So the worker only
says it, as the words of the text command ``policy set``, and only to a job server that knows policies.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict, Unpack

from geartrain.units import read_size, seconds_of, shown_seconds, shown_size

Duration = float | str | datetime.timedelta  # seconds, or a text such as "30s"
Reason = Literal["fail", "exception", "timeout", "lost"]


class PolicyOptions(TypedDict, total=False):
    """What a worker may declare of a function for its job servers to keep to; what is left out is as it was there.

    A time is a number of seconds, a timedelta or a text such as ``"30s"``, ``"5m"`` or ``"7d"``; a rate is a text such
    as ``"10/s"``, ``"100/min"`` or ``"5/h"``; a size is a number of bytes or a text such as ``"64KiB"``.

    ``retries``, ``attempts``
        How often a job is tried again, 0 to 999, or how often it is tried in all: ``retries=5`` is ``attempts=6``.
    ``retry_on``
        After what: some of ``fail``, ``exception``, ``timeout`` and ``lost`` (a worker that died); otherwise all four.
    ``backoff``, ``delay``, ``max_delay``, ``jitter``
        How the pause between two attempts grows (``constant``, ``linear`` or ``exponential``), the first pause, the
        longest one, and which share of it differs from job to job, 0 to 1.
    ``expires``
        A job that has not begun within this time goes to the dead letters.
    ``total_concurrency``
        How many jobs of the function run at once over all workers there are. (``concurrency`` is for this worker.)
    ``key_concurrency``, ``key_separator``
        The same for jobs of one key, which is the part of the unique before the separator.
    ``rate``, ``burst``, ``key_rate``, ``key_burst``
        How many start in a time, and how many of those at once; also for each key.
    ``queue``, ``when_full``
        How many jobs there may be, and what happens to one more: ``refuse`` it, or ``drop-oldest``.
    ``weight``, ``ageing``
        The function's share of a worker among others of equal priority, 1 to 1000; how long a low job waits until it
        counts as a normal one.
    ``results``, ``result_size``, ``stale``
        How long a result is kept and answers equal submissions, up to what size, and for how much longer it is given
        while a fresh one is made.
    """

    retries: int
    attempts: int
    retry_on: Reason | Iterable[Reason]
    backoff: Literal["constant", "linear", "exponential"]
    delay: Duration
    max_delay: Duration
    jitter: float
    expires: Duration
    total_concurrency: int
    key_concurrency: int
    key_separator: str
    rate: str
    burst: int
    key_rate: str
    key_burst: int
    queue: int
    when_full: Literal["refuse", "drop-oldest"]
    weight: int
    ageing: Duration
    results: Duration
    result_size: int | str
    stale: Duration


@dataclass(frozen=True, init=False)
class Policy:
    """``words`` are what the text command ``policy set`` takes: ``attempts=6 backoff=exponential``; empty: no policy.

    Raises TypeError for what is no option, ValueError for a value that can't be one; the text says which.
    """

    words: str

    def __init__(self, **options: Unpack[PolicyOptions]) -> None:
        values: dict[str, Any] = dict(options)
        unknown = [name for name in values if name not in _OPTIONS]
        if unknown:
            raise TypeError(f"a function has no option {unknown[0]!r}; for its policy there are {', '.join(_OPTIONS)}")
        if "retries" in values and "attempts" in values:
            raise ValueError("retries and attempts say the same: give one of them")
        words = []
        for name, value in values.items():
            key, written = _OPTIONS[name]
            try:
                text = written(value)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}={value!r}: {error}") from None
            words.append(f"{key}={text}")
        object.__setattr__(self, "words", " ".join(words))


def _count(least: int, most: int, more: int = 0) -> Callable[[Any], str]:
    """Writes a whole number, with ``more`` added."""

    def written(value: Any) -> str:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError("give a whole number")
        if not least <= value <= most:
            raise ValueError(f"give a whole number, {least} to {most}")
        return str(value + more)

    return written


def _time(*, may_be_zero: bool = False) -> Callable[[Any], str]:
    def written(value: Any) -> str:
        seconds = seconds_of(value)
        if seconds == 0 and not may_be_zero:
            raise ValueError("give a time above 0; leave it out for none")
        return shown_seconds(seconds)

    return written


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def written(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"give one of {', '.join(allowed)}")
        return str(value)

    return written


def _reasons(value: Any) -> str:
    allowed = ("fail", "exception", "timeout", "lost")
    given = tuple(value.split(",")) if isinstance(value, str) else tuple(value)
    if not given or not set(given) <= set(allowed):
        raise ValueError(f"give some of {', '.join(allowed)}")
    return ",".join(dict.fromkeys(given))


def _share(value: Any) -> str:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError("give a number, 0 to 1")
    if not 0 <= value <= 1:
        raise ValueError("give a number, 0 to 1")
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _separator(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("give a text")
    if not 1 <= len(value.encode("utf-8", "surrogateescape")) <= 8 or not value.isprintable() or " " in value:
        raise ValueError("give 1 to 8 characters that are no blanks")
    return value


def _rate(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("give a text such as '10/s', '100/min' or '5/h'")
    if not re.fullmatch(r"0*[1-9][0-9]{0,6}/(s|min|h)", value, re.ASCII):
        raise ValueError("give a whole number and a time, such as '10/s', '100/min' or '5/h'")
    return value


def _size(value: Any) -> str:
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise TypeError("give a number of bytes or a text such as '64KiB'")
    size = read_size(value) if isinstance(value, str) else value
    if not 0 < size <= 2**32:
        raise ValueError("give a size above 0, at most 4GiB")
    return shown_size(size)


_LIMIT: Final = _count(1, 10**6)
_OPTIONS: Final[dict[str, tuple[str, Callable[[Any], str]]]] = {
    "retries": ("attempts", _count(0, 999, 1)),
    "attempts": ("attempts", _count(1, 1000)),
    "retry_on": ("retry_on", _reasons),
    "backoff": ("backoff", _one_of("constant", "linear", "exponential")),
    "delay": ("delay", _time(may_be_zero=True)),
    "max_delay": ("max_delay", _time(may_be_zero=True)),
    "jitter": ("jitter", _share),
    "expires": ("expires", _time()),
    "total_concurrency": ("concurrency", _LIMIT),
    "key_concurrency": ("key_concurrency", _LIMIT),
    "key_separator": ("key_separator", _separator),
    "rate": ("rate", _rate),
    "burst": ("burst", _LIMIT),
    "key_rate": ("key_rate", _rate),
    "key_burst": ("key_burst", _LIMIT),
    "queue": ("queue", _count(1, 2**32)),
    "when_full": ("when_full", _one_of("refuse", "drop-oldest")),
    "weight": ("weight", _count(1, 1000)),
    "ageing": ("ageing", _time()),
    "results": ("results", _time()),
    "result_size": ("result_size", _size),
    "stale": ("stale", _time()),
}
"""Each option: the policy's key, and what writes its value."""
