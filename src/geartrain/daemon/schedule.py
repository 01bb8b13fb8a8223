"""One schedule: when a job is made, and which one. It is read from words ``key=value``, and written as such.

A run is named by its own time, which is none of the jitter: the same run has the same name after a restart.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes
from zoneinfo import ZoneInfo

from geartrain.daemon.cron import Cron
from geartrain.units import LONGEST, read_seconds, shown_seconds

SHORTEST: Final = 0.1  # seconds between two runs
LONGEST_NAME: Final = 128
PRIORITIES: Final = ("high", "normal", "low")
MISSED: Final = ("none", "one", "all")
OVERLAP: Final = ("allow", "skip")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {"priority": PRIORITIES, "missed": MISSED, "overlap": OVERLAP}
KEYS: Final = ("cron", "every", "zone", "function", "workload", "priority", "jitter", "missed", "overlap")
_PLAIN: Final = b"!\"#$&'()*+,/:;<=>?@[\\]^`{|}~"  # what needs no escape in a word, beside letters and digits


@dataclass(frozen=True)
class Schedule:
    """What a schedule says; ``given`` are its keys as they were written, ``zone`` what they mean."""

    name: bytes
    given: Mapping[str, bytes]
    cron: Cron | None
    every_ms: int  # 0: it goes by ``cron``
    zone: tzinfo
    function: bytes
    workload: bytes
    priority: str
    jitter: float  # seconds
    missed: str
    overlap: str

    @property
    def words(self) -> str:
        """It, as the words of a command."""
        return " ".join(self.word(key) for key in KEYS if key in self.given)

    def word(self, key: str) -> str:
        """One key and its value, as a word of a command."""
        return f"{key}={quote_from_bytes(self.given[key], _PLAIN)}"

    @property
    def times(self) -> str:
        """What the times of its runs follow from; another text means other times."""
        return " ".join(self.word(key) for key in ("cron", "every", "zone") if key in self.given)

    @property
    def zone_name(self) -> str:
        return str(getattr(self.zone, "key", None) or self.zone)

    def next_after(self, moment: float) -> float:
        """The Unix time of the first run after ``moment``. Intervals are counted from the beginning of 1970, in UTC."""
        if self.cron is not None:
            return self.cron.next_after(moment)
        return (_ms(moment) // self.every_ms + 1) * self.every_ms / 1000

    def delay(self, run: float) -> float:
        """How much later than its time this run is made, by its jitter."""
        if not self.jitter:
            return 0.0
        digest = hashlib.sha256(b"%b\0%d" % (self.name, _ms(run))).digest()
        return int.from_bytes(digest[:6]) / 2**48 * self.jitter

    def unique(self, run: float, longest: int) -> bytes:
        """The unique of this run's job: ``schedule:NAME:TIME``, cut to what a unique may be long."""
        time = run_name(run).encode()
        unique = b"schedule:%b:%b" % (self.name, time)
        if len(unique) <= longest:
            return unique
        mark = hashlib.sha256(self.name).hexdigest()[:12].encode()
        room = longest - len(time) - len(mark) - len(b"schedule:~:")
        if room >= 0:
            return b"schedule:%b~%b:%b" % (self.name[:room], mark, time)
        return hashlib.sha256(unique).hexdigest().encode()[:longest]


def run_name(run: float) -> str:
    """The time of a run in UTC, as ISO 8601 has it: 2026-11-28T06:30:00Z."""
    written = datetime.fromtimestamp(run, UTC)
    return written.isoformat(timespec="milliseconds" if _ms(run) % 1000 else "seconds").replace("+00:00", "Z")


def in_zone(run: float, zone: tzinfo) -> str:
    """The same time as the clocks of a zone show it."""
    return datetime.fromtimestamp(run, zone).isoformat(timespec="milliseconds" if _ms(run) % 1000 else "seconds")


def read_words(words: Iterable[bytes]) -> dict[str, bytes]:
    """The keys of ``key=value`` words, whose values may have escapes such as %20. Raises ValueError."""
    given: dict[str, bytes] = {}
    for word in words:
        key, equals, value = word.partition(b"=")
        name = key.decode("ascii", "replace").lower()
        if not equals or name not in KEYS:
            shown = word.decode("utf-8", "replace")[:80]
            raise ValueError(f"{shown!r}: write key=value, with a key of {', '.join(KEYS)}")
        given[name] = unquote_to_bytes(value)
    return given


def read_keys(keys: Mapping[str, object]) -> dict[str, bytes]:
    """The keys of a table in the configuration file. Raises ValueError for one that is none."""
    for key in keys:
        if key not in KEYS:
            raise ValueError(f"{key!r} is no key: write {', '.join(KEYS)}")
    return {key: str(value).encode() for key, value in keys.items() if value != ""}


def merge(given: Mapping[str, bytes], before: Mapping[str, bytes]) -> dict[str, bytes]:
    """These keys, and those from before that they leave as they were; an empty value takes a key away."""
    merged = {**before, **given}
    for key, other in (("cron", "every"), ("every", "cron")):
        if given.get(key) and other not in given:
            merged.pop(other, None)
    return {key: value for key, value in merged.items() if value}


def read_schedule(name: bytes, given: Mapping[str, bytes], zone: tzinfo) -> Schedule:
    """The schedule that these keys mean, in ``zone`` if they name none.

    Raises ValueError with the key, its value and what is allowed.
    """
    if not 0 < len(name) <= LONGEST_NAME or any(byte <= 32 or byte == 127 for byte in name):
        raise ValueError(f"a schedule's name has 1 to {LONGEST_NAME} bytes, and no blanks or control characters")
    texts = {key: _text(key, value) for key, value in given.items() if key not in ("function", "workload")}
    if not given.get("function"):
        raise ValueError("function= is missing: name the function whose job is to be made")
    if (given.get("cron") is None) == (given.get("every") is None):
        raise ValueError("write either cron= or every=, such as every=10m")
    for key, choices in _CHOICES.items():
        if key in texts and texts[key] not in choices:
            raise ValueError(f"{key}={texts[key]}: it is one of {', '.join(choices)}")
    if "zone" in texts:
        zone = read_zone(texts["zone"])
    cron = None
    every = 0.0
    if "cron" in texts:
        try:
            cron = Cron(texts["cron"], zone)
        except ValueError as error:
            raise ValueError(f"cron: {error}") from None
    else:
        every = _seconds("every", texts["every"], SHORTEST)
        if _ms(every) / 1000 != every:
            raise ValueError(f"every={texts['every']}: whole milliseconds")
    jitter = _seconds("jitter", texts["jitter"], 0.0) if "jitter" in texts else 0.0
    if every and jitter > every:
        raise ValueError(f"jitter={texts['jitter']}: it is at most as long as every={texts['every']}")
    return Schedule(
        name,
        dict(given),
        cron,
        _ms(every),
        zone,
        given["function"],
        given.get("workload", b""),
        texts.get("priority", "normal"),
        jitter,
        texts.get("missed", "one"),
        texts.get("overlap", "allow"),
    )


def read_zone(name: str) -> tzinfo:
    """The time zone of this name. Raises ValueError, and says if this machine knows none at all."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # zoneinfo's own error is a KeyError
        pass
    try:
        ZoneInfo("Etc/UTC")
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"zone={name}: this machine has no time zone data: install the package tzdata, or pip install tzdata"
        ) from None
    raise ValueError(f"zone={name}: no such time zone is known here: write a name such as Europe/Berlin or UTC")


def _text(key: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{key}={value!r}: it is no text in UTF-8") from None


def _seconds(key: str, text: str, least: float) -> float:
    try:
        seconds = read_seconds(text)
    except ValueError as error:
        raise ValueError(f"{key}={text}: {error}") from None
    if not least <= seconds <= LONGEST:
        raise ValueError(f"{key}={text}: it is {shown_seconds(least)} to {shown_seconds(LONGEST)}")
    return seconds


def _ms(moment: float) -> int:
    # A moment that was made of milliseconds is a hair below or above them.
    return math.floor(moment * 1000 + 1e-3)
