"""Requests of the plainest form, read without a parser of HTTP: a whole small POST with few headers, all of them known.

Whoever submits much sends the same lines again and again, so what a line means is looked up, not worked out. A request
that says anything else, or says it in another way, is left to a real parser together with all that follows it; so what
is read here is a narrow part of RFC 9112 about which no two parsers differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from geartrain.native import i64
from geartrain.wire.packets import (
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
)

MORE: Final = 0  # it has not come whole
OTHER: Final = -1  # it is none of these

MAX_PLAIN: Final = 64 * 1024  # bytes of a request
MAX_LINES: Final = 20
_KNOWN: Final = 1000  # lines, or targets, whose meaning is kept ...
_SHORT: Final = 200  # ... of at most so many bytes

# What a header is about; each may stand in a request once.
_NOTHING: Final = 0
_HOST: Final = 1
_LENGTH: Final = 2
_UNIQUE: Final = 4
_BACKGROUND: Final = 8
_PRIORITY: Final = 16
_AUTHORIZATION: Final = 32
_CONNECTION: Final = 64
_KINDS: Final = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"x-gearman-unique": _UNIQUE,
    b"x-gearman-background": _BACKGROUND,
    b"x-gearman-priority": _PRIORITY,
    b"authorization": _AUTHORIZATION,
    b"connection": _CONNECTION,
    # What changes nothing here.
    b"user-agent": _NOTHING,
    b"accept": _NOTHING,
    b"accept-encoding": _NOTHING,
    b"accept-language": _NOTHING,
    b"cache-control": _NOTHING,
    b"content-type": _NOTHING,
    b"pragma": _NOTHING,
}
_TYPES: Final = {
    (b"high", False): SUBMIT_JOB_HIGH,
    (b"normal", False): SUBMIT_JOB,
    (b"low", False): SUBMIT_JOB_LOW,
    (b"high", True): SUBMIT_JOB_HIGH_BG,
    (b"normal", True): SUBMIT_JOB_BG,
    (b"low", True): SUBMIT_JOB_LOW_BG,
}


@final
class _Line:
    """A header line that has been understood."""

    def __init__(self, kind: i64, value: bytes, number: i64) -> None:
        self.kind: i64 = kind
        self.value: bytes = value
        self.number: i64 = number  # of Content-Length


@final
class PlainReader:
    """Reads requests of this form; the one that was read last stands in its fields.

    ``function_of`` gives the function that a target submits to, or nothing. ``is_ours`` says whether a Host means this
    server whatever the address. ``may_submit`` is asked for each request: the host of the client, the Authorization or
    nothing, and the function.
    """

    def __init__(
        self,
        function_of: Callable[[bytes], bytes],
        is_ours: Callable[[bytes], bool],
        may_submit: Callable[[str, bytes, bytes], bool],
    ) -> None:
        self._function_of = function_of
        self._is_ours = is_ours
        self._may_submit = may_submit
        self._functions: dict[bytes, bytes] = {}  # by request line
        self._lines: dict[bytes, _Line] = {}
        self.function = b""
        self.unique = b""
        self.workload = b""
        self.type: i64 = 0
        self.background: bool = False

    def read(self, data: bytes, host: str) -> i64:
        """Read the request with which ``data`` from a client at ``host`` begins: its size, MORE or OTHER."""
        head_end: i64 = data.find(b"\r\n\r\n")
        if head_end < 0:
            return MORE if len(data) < MAX_PLAIN else OTHER
        lines = data[:head_end].split(b"\r\n")
        if len(lines) > MAX_LINES:
            return OTHER
        function = self._functions.get(lines[0])
        if function is None:
            function = self._learn_target(lines[0])
        if not function:
            return OTHER
        seen: i64 = 0
        length: i64 = 0
        unique = b"-"  # gearmand's: equal workloads are one job while it lives
        priority = b"normal"
        authorization = b""
        background = False
        at: i64 = 1
        while at < len(lines):
            text = lines[at]
            line = self._lines.get(text)
            if line is None:
                line = self._learn_line(text)
                if line is None:
                    return OTHER
            kind: i64 = line.kind
            if kind != _NOTHING:
                if seen & kind:
                    return OTHER
                seen |= kind
                if kind == _LENGTH:
                    length = line.number
                elif kind == _UNIQUE:
                    unique = line.value
                elif kind == _BACKGROUND:
                    background = line.number == 1
                elif kind == _PRIORITY:
                    priority = line.value
                elif kind == _AUTHORIZATION:
                    authorization = line.value
            at += 1
        if not seen & _HOST or not seen & _LENGTH:
            return OTHER
        size: i64 = head_end + 4 + length
        if size > MAX_PLAIN:
            return OTHER
        if len(data) < size:
            return MORE
        if not self._may_submit(host, authorization, function):
            return OTHER
        self.function = function
        self.unique = unique
        self.workload = data[head_end + 4 : size]
        self.background = background
        self.type = _TYPES[(priority, background)]
        return size

    def _learn_target(self, line: bytes) -> bytes:
        """The function of a request line, or nothing."""
        words = line.split(b" ")
        if len(words) != 3 or words[0] not in (b"POST", b"PUT") or words[2] != b"HTTP/1.1":
            return b""
        target = words[1]
        if target[:1] != b"/" or target[:2] == b"//" or not _is_printable(target) or b"?" in target or b"#" in target:
            return b""
        function = self._function_of(target)
        if b"\0" in function:
            return b""
        if function and len(line) <= _SHORT:
            if len(self._functions) >= _KNOWN:
                self._functions.clear()
            self._functions[line] = function
        return function

    def _learn_line(self, text: bytes) -> _Line | None:
        """What a header line means, if it is a plain one."""
        name, colon, value = text.partition(b":")
        kind = _KINDS.get(name.lower())
        if kind is None or not colon or not _is_printable(value):
            return None
        value = value.strip(b" ")
        number: i64 = 0
        if kind == _LENGTH:
            if not value.isdigit() or len(value) > 6:
                return None
            number = int(value)
        elif kind == _HOST:
            if not self._is_ours(value):
                return None
        elif kind == _BACKGROUND:
            number = 1 if value.lower() == b"true" else 0
        elif kind == _PRIORITY:
            value = value.lower()
            if value not in (b"high", b"normal", b"low"):
                return None
        elif kind == _CONNECTION and value.lower() != b"keep-alive":
            return None
        line = _Line(kind, value, number)
        if kind != _UNIQUE and kind != _AUTHORIZATION and len(text) <= _SHORT:  # each unique is another
            if len(self._lines) >= _KNOWN:
                self._lines.clear()
            self._lines[text] = line
        return line


def _is_printable(text: bytes) -> bool:
    """Whether it holds nothing but visible ASCII and spaces."""
    return text.isascii() and text.decode("ascii").isprintable()
