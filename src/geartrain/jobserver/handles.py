"""Job handles: ``<prefix>:<number>`` (section 3.1). Inside the job server a job is its number."""

from __future__ import annotations

from typing import Final, final

from geartrain.native import i64
from geartrain.wire.primitives import parse_handle

_THREE_DIGITS: Final[list[bytes]] = [b"%03d" % n for n in range(1000)]


@final
class Handles:
    """Makes and reads the handles of one job server."""

    def __init__(self, prefix: bytes) -> None:
        self.start: bytes = prefix + b":"
        self._thousand: i64 = -1  # handles share all but their last three digits with the previous one
        self._stem: bytes = b""

    def make(self, number: i64) -> bytes:
        """The handle of the job with this number."""
        thousand: i64 = number // 1000
        if thousand == 0:
            return self.start + b"%d" % number
        if thousand != self._thousand:
            self._thousand = thousand
            self._stem = self.start + b"%d" % thousand
        return self._stem + _THREE_DIGITS[number % 1000]

    def parse(self, data: bytes, start: i64, end: i64) -> i64:
        """The number of the job whose handle is ``data[start:end]``, or -1 if it is no handle of this server."""
        return parse_handle(data, start, end, self.start)

    def number(self, handle: bytes) -> i64:
        """The number of the job with this handle, or -1 if it is no handle of this server."""
        return parse_handle(handle, 0, len(handle), self.start)
