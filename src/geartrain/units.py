"""Times and sizes as people write them: 30s, 500ms, 5m, 2h, 1d, or plain seconds; 4096, 64KiB, 1.5MB."""

from __future__ import annotations

import datetime
import re
from typing import Final

_SECONDS_PER: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME: Final = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|m|h|d|)\s*", re.ASCII)
_BYTES_PER: Final = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_SIZE: Final = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([kmg]i?b|b|)\s*", re.ASCII | re.IGNORECASE)

LONGEST: Final = 3650 * 86400.0  # seconds; ten years
FORMS: Final = "write a time such as 2.5, 30s, 5m or 500ms"
SIZE_FORMS: Final = "write a size such as 4096, 64KiB or 1MiB"


def read_seconds(text: str) -> float:
    """The seconds that are meant. Raises ValueError, with a remedy, for what is no time."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(FORMS)
    return float(match[1]) * _SECONDS_PER[match[2]]


def seconds_of(time: float | str | datetime.timedelta) -> float:
    """The seconds of a number of them, of a timedelta or of such a text.

    Raises ValueError for what is no time to wait, or more than ten years, and TypeError for what is none of these.
    """
    if isinstance(time, str):
        seconds = read_seconds(time)
    elif isinstance(time, datetime.timedelta):
        seconds = time.total_seconds()
    elif isinstance(time, (int, float)) and not isinstance(time, bool):
        seconds = time
    else:
        raise TypeError(f"{time!r} is no time: give seconds, a timedelta or a text such as '30s'")
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"{time!r} is no time to wait: give 0 seconds or more, and at most 3650d")
    return float(seconds)


def read_size(text: str) -> int:
    """The bytes that are meant. Raises ValueError, with a remedy, for what is no size."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(SIZE_FORMS)
    return round(float(match[1]) * _BYTES_PER[match[2].lower()])


def shown_seconds(seconds: float) -> str:
    """As ``read_seconds`` reads it, in the largest unit that leaves it whole: 90 is 90s, 120 is 2m."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _SECONDS_PER[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    milliseconds = round(seconds * 1000, 3)
    return "0s" if milliseconds == 0 else f"{seconds:.12g}s" if seconds >= 1 else f"{milliseconds:.12g}ms"


def shown_size(size: int) -> str:
    """As ``read_size`` reads it, in the largest unit that leaves it whole: 2048 is 2KiB, 2000 is 2000."""
    for unit, bytes_per in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= bytes_per and size % bytes_per == 0:
            return f"{size // bytes_per}{unit}"
    return str(size)
