"""Schedules, as the text commands ``schedule list`` and ``schedule show`` tell them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from geartrain.client.command import quoted, word
from geartrain.link import Address
from geartrain.wire.text import as_text

ScheduleValue = str | bytes | int | float | None
_TOLD: Final = ("name", "source", "paused", "last", "job", "workload")  # what is no key of the schedule, or is bytes


@dataclass(frozen=True, slots=True)
class KnownSchedule:
    """A schedule with its next run, and the one that was made last: Unix times, None where there is none.

    ``keys`` are those that were set, without the workload.
    """

    server: Address
    name: str
    is_paused: bool
    next_run: float | None
    last_run: float | None
    function: str
    keys: dict[str, str]

    @classmethod
    def read(cls, server: Address, line: bytes) -> KnownSchedule:
        """A line of ``schedule list``. Raises ValueError if it is none."""
        name, paused, next_run, last_run, function, words = line.split(b"\t")
        pairs = [word.partition(b"=") for word in words.split(b" ")]
        keys = {as_text(key): as_text(unquote_to_bytes(value)) for key, _, value in pairs}
        return cls(server, as_text(name), paused == b"1", _moment(next_run), _moment(last_run), as_text(function), keys)


@dataclass(frozen=True, slots=True)
class ScheduleDetails:
    """All about one schedule. Its next runs are told as the clocks of its time zone show them, without its jitter.

    ``source`` is ``command`` or ``file``, ``last_run`` a Unix time, ``job`` the handle of the last job.
    """

    server: Address
    name: str
    source: str
    is_paused: bool
    last_run: float | None
    job: str | None
    keys: dict[str, str]
    workload: bytes
    next_runs: tuple[datetime.datetime, ...]

    @classmethod
    def read(cls, server: Address, lines: Iterable[bytes]) -> ScheduleDetails:
        """The lines of ``schedule show``. Raises ValueError or KeyError if they are none."""
        known: dict[str, bytes] = {}
        runs = []
        for line in lines:
            key, _, value = line.partition(b"\t")
            if key == b"next":
                runs.append(datetime.datetime.fromisoformat(as_text(value.partition(b"\t")[2])))
            else:
                known[as_text(key)] = value
        return cls(
            server,
            as_text(known["name"]),
            as_text(known["source"]),
            known["paused"] == b"1",
            _moment(known.get("last", b"0")),
            as_text(known["job"]) if "job" in known else None,
            {key: as_text(unquote_to_bytes(value)) for key, value in known.items() if key not in _TOLD},
            unquote_to_bytes(known.get("workload", b"")),
            tuple(runs),
        )


def _moment(text: bytes) -> float | None:
    moment = float(text)
    return moment if 0 < moment < math.inf else None


def schedule_word(key: str, value: ScheduleValue) -> bytes:
    """A key and its value as they stand in a command; None takes the key away. Raises LocalProtocolError."""
    given = b"" if value is None else value if isinstance(value, bytes) else str(value).encode()
    return word(key) + b"=" + quoted(given)
