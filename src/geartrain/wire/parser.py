"""The one door for bytes from the network: a cursor over a stream of packets and text lines.

Bytes go in with ``feed``; ``advance`` steps to the next whole message and says what it is. The cursor makes no object
for a packet: the job server's rules read ``type``, ``body`` and ``end`` and cut what they need from ``data``.
``next_packet`` is the comfortable way for everybody else.

A body longer than ``LARGE`` is collected in the pieces in which it arrived and put together once, when its last
argument is asked for. An announced length allocates nothing: only bytes that came are kept. A driver that bounds what
it allocates may read the last argument into place instead: while ``wanted`` is not 0 it puts ``begun`` and what follows
into one object of that size, tells of what has come by ``came``, and in the end gives it by ``complete``.

A body above the limit ends the stream, unless the packet is about a job: then its first arguments are given out, so
that the job can be failed by name, and ``skip`` drops the rest as it comes.

Sections 1.2 to 1.6 of the protocol.
"""

from __future__ import annotations

from typing import Final, final

from geartrain.errors import PacketTooLargeError, RemoteProtocolError
from geartrain.native import i64
from geartrain.wire.packets import (
    ABOUT_A_JOB,
    FROM_SERVER,
    HEADER_SIZE,
    LAYOUTS,
    LENIENT,
    REQUEST_MAGIC,
    RESPONSE_MAGIC,
    TO_SERVER,
    packet_name,
)
from geartrain.wire.primitives import find_nul, read_u32

MORE: Final = -1  # no whole message yet
LINE: Final = -2  # a text line: data[body:end], without its line end
BROKEN: Final = -3  # the stream can't be followed any more: see trouble_code and trouble
TOO_LARGE: Final = -4  # the same, unless skip() is called: a packet about a job, all but its last argument is here

LARGE: Final = 16 * 1024  # all arguments but the last fit in this; only larger bodies are collected in pieces
WORTH_A_PLACE: Final = 128 * 1024  # bytes of a last argument from which on it may be read into place
_SMALL_PIECE: Final = 64 * 1024  # smaller pieces are joined, so that a trickle costs no more than its bytes

DEFAULT_MAX_BODY: Final = 256 * 1024 * 1024
# What comes from a job server may be longer than what was sent to it, by a handle and a function's name.
DEFAULT_MAX_RECEIVED: Final = DEFAULT_MAX_BODY + LARGE
# A job server that takes longer bodies could not pass them on: with the handle they no longer fit in 32 bits.
LARGEST_BODY: Final = 0xFFFFFFFF - LARGE
DEFAULT_MAX_LINE: Final = 8192


@final
class Packet:
    """A whole packet: its ``type`` and its ``arguments`` in the order of the layout table."""

    def __init__(self, type: int, arguments: tuple[bytes, ...]) -> None:
        self.type = type
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"{packet_name(self.type)}{self.arguments!r}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Packet):
            return NotImplemented
        return self.type == other.type and self.arguments == other.arguments

    def __hash__(self) -> int:
        return hash((self.type, self.arguments))


@final
class Parser:
    """A cursor over the messages in a stream of bytes.

    ``max_body`` and ``max_line`` bound a packet's body and a text line, in bytes.
    """

    def __init__(self, max_body: i64 = DEFAULT_MAX_BODY, max_line: i64 = DEFAULT_MAX_LINE) -> None:
        self.max_body: i64 = max_body
        self.max_line: i64 = max_line
        self.data = b""
        self.size: i64 = 0  # len(data)
        self.at: i64 = 0  # where the next message starts
        self.magic: i64 = 0
        self.type: i64 = 0
        self.body: i64 = 0  # the current message's body is data[body:end] ...
        self.end: i64 = 0  # ... and, if end > size, goes on in the pieces
        self.pieces: list[bytes] | None = None
        self.missing: i64 = 0  # bytes of the packet in pieces that have not come; negative: bytes behind it
        self.wanted: i64 = 0  # bytes of the last argument of the packet in pieces, if it may be read into place ...
        self.start: i64 = 0  # ... and where it starts in data
        self.whole: bytes | None = None  # that argument, read into place
        self.skipping: bool = False  # what comes of the packet in pieces is not kept
        self.trouble_code = ""
        self.trouble = ""

    def feed(self, data: bytes) -> None:
        """Add what the network delivered."""
        pieces = self.pieces
        if pieces is not None and self.at < self.end:
            # What follows the collected packet stays within the last piece.
            if self.skipping and len(data) <= self.missing:
                pass
            elif pieces and (self.missing <= 0 or len(pieces[-1]) + len(data) <= _SMALL_PIECE):
                pieces[-1] = pieces[-1] + data
            else:
                pieces.append(data)
            self.missing -= len(data)
            self.wanted = 0
            return
        if pieces is not None:
            self._leave_pieces()
        if self.at < self.size:
            data = self.data[self.at :] + data
        self.data = data
        self.size = len(data)
        self.at = 0

    @property
    def begun(self) -> bytes:
        """What has come of the last argument that is ``wanted``."""
        return self.data[self.start :]

    def came(self, count: i64) -> None:
        """So many more bytes of the last argument have been read into place."""
        self.missing -= count

    def complete(self, whole: bytes) -> None:
        """All of the last argument has been read into place."""
        self.whole = whole
        self.wanted = 0

    @property
    def waiting(self) -> bool:
        """Whether a part of a message is here that has not been given out."""
        return self.at < self.end if self.pieces is not None else self.at < self.size

    def advance(self) -> i64:
        """Step to the next whole message: its packet type (0 or more), or MORE, LINE or BROKEN."""
        if self.pieces is not None:
            if self.at < self.end:  # the collected packet was not given out yet
                if self.missing > 0:
                    return MORE
                self.at = self.end
                if not self.skipping:
                    return self.type
            self._leave_pieces()
        data = self.data
        at: i64 = self.at
        left: i64 = self.size - at
        if left <= 0:
            if self.size:
                self.data = b""
                self.size = 0
                self.at = 0
            return MORE
        if data[at] != 0:
            return self._line()
        if left < HEADER_SIZE:
            return MORE
        magic: i64 = read_u32(data, at)
        if magic != REQUEST_MAGIC and magic != RESPONSE_MAGIC:
            return self._break("INVALID_MAGIC", f"{data[at : at + 4]!r} does not start a packet")
        type: i64 = read_u32(data, at + 4)
        length: i64 = read_u32(data, at + 8)
        self.magic = magic
        self.type = type
        self.body = at + HEADER_SIZE
        end: i64 = at + HEADER_SIZE + length
        self.end = end
        if length > self.max_body:
            return self._too_large(length)
        if end <= self.size:
            self.at = end
            return type
        if left >= LARGE:
            self.pieces = []
            self.missing = end - self.size
            if length >= WORTH_A_PLACE:
                self._want()
        return MORE

    def _want(self) -> None:
        """Say how much of the packet in pieces may be read into place, if its other arguments are all here."""
        layout = LAYOUTS.get(int(self.type))
        start: i64 = self.body
        if layout is not None:
            names: i64 = len(layout[2]) - 1
            while names > 0:
                nul: i64 = self.argument_end(start)
                if nul < 0:
                    return
                start = nul + 1
                names -= 1
        self.start = start
        self.wanted = self.end - start

    def skip(self) -> None:
        """Go on behind the packet that is TOO_LARGE; what is still to come of it is dropped."""
        self.trouble_code = self.trouble = ""
        if self.end <= self.size:
            self.at = self.end
            return
        self.missing = self.end - self.size
        self.end -= self.at
        self.at = 0
        self.data = b""
        self.size = 0
        self.pieces = []
        self.skipping = True

    def release(self) -> None:
        """Let go of the memory of a packet that has been dealt with, if the next one is not asked for at once."""
        if self.pieces is not None and self.at >= self.end:
            self._leave_pieces()

    def last_argument(self, start: i64) -> bytes:
        """The current packet's body from ``start`` (an index into ``data``) to its end, as bytes of its own."""
        pieces = self.pieces
        if pieces is None:
            return self.data[start : self.end]
        in_place = self.whole
        if in_place is not None:
            if start == self.start:
                return in_place
            return self.data[start : self.start] + in_place if start < self.start else in_place[start - self.start :]
        whole: list[bytes | memoryview] = [memoryview(self.data)[start:]]
        whole.extend(pieces)
        if self.missing < 0:
            whole[-1] = memoryview(pieces[-1])[: self.missing]
        return b"".join(whole)

    def argument_end(self, start: i64) -> i64:
        """The index of the NUL that ends the argument at ``start``, or -1 if none stands where one must.

        It is looked for in the first ``LARGE`` bytes of the packet alone: those are in ``data`` however the network
        cut the packet, so the same bytes always mean the same.
        """
        limit: i64 = self.body - HEADER_SIZE + LARGE
        return find_nul(self.data, start, self.end if self.end < limit else limit)

    def next_packet(self) -> Packet | None:
        """The next packet from a job server, or None until more bytes come.

        Raises RemoteProtocolError for anything that is not a well-formed packet, and PacketTooLargeError for a packet
        about a job that is above the limit: only after that one the stream can be followed further.
        """
        type = self.advance()
        if type == MORE:
            return None
        if type == LINE:
            line = bytes(self.data[self.body : self.end])
            raise RemoteProtocolError(f"the job server sent a text line instead of a packet: {line[:80]!r}")
        if type == BROKEN:
            raise RemoteProtocolError(self.trouble)
        if type == TOO_LARGE:
            size: i64 = self.end - self.body
            self.end = self._known_end()
            packet = self.packet()
            self.end = self.body + size
            self.skip()
            arguments = packet.arguments[:-1]
            raise PacketTooLargeError(packet_name(packet.type), packet.type, arguments, int(size), int(self.max_body))
        return self.packet()

    def next_line(self) -> bytes | None:
        """The text line that comes next, without its line end; None if none is here, whole: see ``next_packet``."""
        self.release()
        if self.pieces is not None or self.at >= self.size or self.data[self.at] == 0 or self.advance() != LINE:
            return None
        return bytes(self.data[self.body : self.end])

    def packet(self) -> Packet:
        """The packet that ``advance`` has just stepped to; raises RemoteProtocolError if it is malformed."""
        type = int(self.type)
        layout = LAYOUTS.get(type)
        if layout is None:
            raise RemoteProtocolError(f"there is no packet type {type}")
        count = len(layout[2])
        if count == 0:
            return Packet(type, ())
        arguments: list[bytes] = []
        start: i64 = self.body
        while len(arguments) < count - 1:
            end = self.argument_end(start)
            if end < 0:
                if type in LENIENT and len(arguments) == count - 2:
                    return Packet(type, (*arguments, self.last_argument(start), b""))
                raise RemoteProtocolError(f"{layout[0]} carries {count} arguments, but only {len(arguments) + 1} came")
            arguments.append(self.data[start:end])
            start = end + 1
        arguments.append(self.last_argument(start))
        return Packet(type, tuple(arguments))

    def _leave_pieces(self) -> None:
        """Go on behind a packet that was collected in pieces."""
        pieces = self.pieces
        assert pieces is not None
        data = pieces[-1][self.missing :] if self.missing < 0 else b""
        self.pieces = None
        self.whole = None
        self.wanted = 0
        self.skipping = False
        self.missing = 0
        self.data = data
        self.size = len(data)
        self.at = 0

    def _too_large(self, length: i64) -> i64:
        """What to make of a body above the limit."""
        type = int(self.type)
        sender = TO_SERVER if self.magic == REQUEST_MAGIC else FROM_SERVER
        is_about_a_job = type in ABOUT_A_JOB and LAYOUTS[type][1] & sender != 0
        if is_about_a_job:
            names: i64 = len(LAYOUTS[type][2]) - 1
            limit: i64 = self._known_end()
            start: i64 = self.body
            nul: i64 = 0
            while names > 0 and nul >= 0:
                nul = find_nul(self.data, start, limit)
                start = nul + 1
                names -= 1
            if nul < 0 and limit == self.size and limit < self.end and limit < self.body - HEADER_SIZE + LARGE:
                return MORE
        self._break("ARGUMENT_TOO_LARGE", f"a packet of {length} bytes is above the limit of {self.max_body}")
        return TOO_LARGE if is_about_a_job else BROKEN

    def _known_end(self) -> i64:
        """Where those bytes of the current packet's first LARGE end that are here."""
        end: i64 = self.body - HEADER_SIZE + LARGE
        if self.end < end:
            end = self.end
        return self.size if self.size < end else end

    def _line(self) -> i64:
        """A text line ends in LF, or CR LF (section 1.4)."""
        data = self.data
        at: i64 = self.at
        limit: i64 = at + self.max_line
        newline: i64 = data.find(b"\n", at, limit)
        if newline < 0:
            if self.size - at >= self.max_line:
                return self._break("LINE_TOO_LONG", f"a text line is above the limit of {self.max_line} bytes")
            return MORE
        self.body = at
        self.end = newline
        if newline > at and data[newline - 1] == 13:
            self.end = newline - 1
        self.at = newline + 1
        return LINE

    def _break(self, code: str, trouble: str) -> i64:
        self.trouble_code = code
        self.trouble = trouble
        return BROKEN
