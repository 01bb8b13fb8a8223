"""What is kept of the history over a restart: its blocks, as records of the job server.

    key      the seconds of an interval, the second at which the block begins, and which series it is of
    value    the block itself, the same object, so that memory has it once
    expires  when its level keeps none of its intervals any more: so nobody has to remove it

Blocks of the coarser levels are kept when they are complete, and those of the coarsest one each half hour as well,
since they take a day. When the job server is stopped all are kept as they are, and with them the seconds: these as one
record for each series, where each block stands behind its second and its size.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from geartrain.jobserver.records import Record
from geartrain.web.series import LEVELS, Series, check
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.daemon.extension import Host

log: Final = logging.getLogger("geartrain.web")

KIND: Final = "history"
# Which series: all functions together, those that are folded into one, or the function whose name follows.
WHOLE, OTHER, FUNCTION = b"s", b"o", b"f"
_SAVED_EVERY: Final = 1800  # seconds
_COARSEST: Final = len(LEVELS) - 1
_PIECE: Final = struct.Struct("<QI")

Pieces = list[tuple[int, bytes]]


class Archive:
    """The records of one job server's history."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._server = host.server

    def load(self) -> Iterator[tuple[bytes, int, Pieces]]:
        """What was kept: which series, the level, and blocks with the seconds at which they begin."""
        for record in self._server.kept_of(KIND):
            value = record.value or b""
            try:
                number, start, key = _read_key(record.key)
                pieces = [(start, value)] if number else _read_pieces(value)
                for begins, packed in pieces:
                    if begins % LEVELS[number].span:
                        raise ValueError("no block begins at that time")
                    check(packed)
            except ValueError as error:
                log.error("history_unreadable", extra={"fields": {"record": as_text(record.key), "reason": str(error)}})
                self._keep(Record(KIND, record.key, None))
            else:
                yield key, number, pieces

    def save(self, key: bytes, series: Series, second: int) -> None:
        """Keep what has become complete, or has changed since the half hour before."""
        late = is_late(series, second)
        for number, start in list(series.unsaved):
            is_complete = start + LEVELS[number].span <= second
            if is_complete or (number == _COARSEST and late):
                self._save(key, series, number, start)
        series.saved_at = second

    def save_all(self, key: bytes, series: Series) -> None:
        """Keep all, as it is."""
        for number, start in list(series.unsaved):
            self._save(key, series, number, start)
        seconds = series.blocks[0]
        if seconds:
            value = b"".join(_PIECE.pack(start, len(packed)) + packed for start, packed in seconds.items())
            self._keep(Record(KIND, _key(key, 0, 0), value, _expires(0, max(seconds))))

    def forget(self, key: bytes, number: int, start: int) -> None:
        """A block is not held any more, before its time: its record, if it has one, is removed."""
        name = _key(key, number, start)
        if number > 0 and self._server.kept(KIND, name) is not None:
            self._keep(Record(KIND, name, None))

    def _save(self, key: bytes, series: Series, number: int, start: int) -> None:
        packed = series.blocks[number][start]
        if self._server.durable and self._keep(Record(KIND, _key(key, number, start), packed, _expires(number, start))):
            series.unsaved.discard((number, start))

    def _keep(self, record: Record) -> bool:
        self._host.open_iteration()
        return self._server.keep(record)


def is_late(series: Series, second: int) -> bool:
    """Whether a half hour has ended since it was saved: blocks may be complete, so no point may be missing."""
    return series.saved_at > 0 and series.saved_at // _SAVED_EVERY != second // _SAVED_EVERY


def _expires(number: int, start: int) -> int:
    level = LEVELS[number]
    return start + level.span + level.kept


def _key(key: bytes, number: int, start: int) -> bytes:
    return b"%d %d %b" % (LEVELS[number].step, start, key)


def _read_key(name: bytes) -> tuple[int, int, bytes]:
    """The level, the second and the series in the name of a record. Raises ValueError."""
    step, _, rest = name.partition(b" ")
    start, _, key = rest.partition(b" ")
    number = next((at for at, level in enumerate(LEVELS) if b"%d" % level.step == step), -1)
    if number < 0 or not start.isdigit() or not (key in (WHOLE, OTHER) or key.startswith(FUNCTION)):
        raise ValueError("its name is none of a block")
    return number, int(start), key


def _read_pieces(value: bytes) -> Pieces:
    """The blocks of a record of seconds. Raises ValueError."""
    pieces: Pieces = []
    at = 0
    while at < len(value):
        if len(value) - at < _PIECE.size:
            raise ValueError("it is too short")
        start, size = _PIECE.unpack_from(value, at)
        at += _PIECE.size
        pieces.append((start, value[at : at + size]))
        at += size
    return pieces
