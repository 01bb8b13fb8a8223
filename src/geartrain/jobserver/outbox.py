"""What one connection is to get, in order, and the replies in it that wait for the store.

Packets are appended as pieces and taken once an iteration, joined. While a peer does not read they are not taken: a
piece that several peers get is joined, and so copied for each of them, only when it is written. A *deferred reply* is a
piece that must not be written before the store has answered; neither is anything behind it, since replies carry no
number and are told apart by their order alone.
"""

from __future__ import annotations

from typing import Any, Final, final

from geartrain.native import i64
from geartrain.wire.packets import ERROR, response_head

BIG_PIECE: Final = 32 * 1024  # pieces from this size on are written as they are, without another copy
SHARED_PIECE: Final = 2 * 1024  # the same for a piece that several connections get: it is held once
PIECE_COST: Final = 64  # bytes that a piece takes beside its own
MAX_UNREAD_OUTPUT: Final = 1024 * 1024  # a peer's own requests wait while so many bytes are to be written to it

FEW: Final = 16  # outboxes that are taken without a look at how much it is

# What is written in one iteration, so that nobody waits long for it.
WRITTEN_PEERS: Final = 1000
WRITTEN_BYTES: Final = 8 * 1024 * 1024
SOCKET_TAKES: Final = 4 * 1024 * 1024  # at most at once; what is beyond that is not taken from the outbox
MAX_FRESH: Final = 2 * WRITTEN_BYTES  # who makes more than small answers waits while so much is to be written
SMALL_ANSWER: Final = 4 * 1024  # does not wait behind large ones


@final
class DeferredReply:
    """A piece of an outbox that nothing may pass until it is ``open``.

    They stand in chains linked one way, so they take part in garbage collection: the compiled code frees a chain of
    objects that do not by recursion, which overflows the stack when the chain is long.
    """

    def __init__(self, outbox: Outbox, index: i64) -> None:
        self.outbox: Outbox = outbox
        self.index: i64 = index  # of the piece, counted from the outbox's first one ever
        self.open: bool = False
        self.is_packet: bool = False  # else it is a line, of the text protocol
        self.next_of_job: DeferredReply | None = None
        self.next_of_outbox: DeferredReply | None = None


@final
class Output:
    """The output of all connections."""

    def __init__(self) -> None:
        self.touched: list[Outbox] = []  # those that the driver has to look at
        self.fresh: i64 = 0  # bytes that the driver has not looked at yet


class Outbox:
    """The output of one connection, in that of all."""

    def __init__(self, output: Output) -> None:
        self.output: Output = output
        self.outlet: Any = None  # for the driver: what writes this output
        self.socket: Any = None  # set by the driver: what take_ready gives it for this one, if that may take for it
        self.pieces: list[bytes] = []
        self.unsent: i64 = 0  # bytes in pieces that have not been taken
        self.first_deferred: DeferredReply | None = None  # nothing from it on may be written yet
        self.last_deferred: DeferredReply | None = None
        self.taken: i64 = 0  # pieces ever taken: the index of pieces[0]
        self.cut: i64 = 0  # bytes of the first piece that have been taken
        self.given: i64 = 0  # bytes that were taken last
        self.largest: i64 = 0  # bytes of the largest piece that is big, since the driver last set it to 0
        self.awaited: dict[int, None] | None = None  # numbers of jobs whose results it waits for
        self.touched: bool = False
        self.full: bool = False  # set by the driver: the outlet takes nothing now
        self.big: bool = False  # whether one of the pieces is written as it is
        self.busy: bool = False  # a chore is under way, before which the peer's next request can't be read
        self.closing: bool = False  # to be closed once what take() gives has been written
        self.overflown: bool = False  # it was to get more than it may leave unread: to be dropped as it is
        self.gone: bool = False

    def send(self, piece: bytes) -> None:
        """Add a whole packet, or a part of one, to what is to be written."""
        size: i64 = len(piece)
        output = self.output
        self.pieces.append(piece)
        self.unsent += size
        output.fresh += size
        if size >= BIG_PIECE:
            self._note_big(size)
        if not self.touched:
            self.touched = True
            output.touched.append(self)

    def send_shared(self, piece: bytes) -> None:
        """As ``send``, for a piece that others get too."""
        if len(piece) >= SHARED_PIECE:
            self.big = True
        self.send(piece)

    def overflow(self) -> None:
        """Give the peer up: others send it more than it may leave unread."""
        self.overflown = True
        self.touch()

    def touch(self) -> None:
        """Have the driver look at this peer at the end of the iteration."""
        if not self.touched:
            self.touched = True
            self.output.touched.append(self)

    @property
    def is_unsettled(self) -> bool:
        """Whether there is more to do once what may be written has been."""
        return self.unsent > 0 or self.closing

    @property
    def held(self) -> i64:
        """Bytes of memory that the pieces take, as if nobody else got them."""
        return self.unsent + PIECE_COST * len(self.pieces)

    def _note_big(self, size: i64) -> None:
        self.big = True
        if size > self.largest:
            self.largest = size

    def defer(self) -> DeferredReply:
        """Make the piece sent last a deferred reply: it, and all behind it, waits until that is open."""
        reply = DeferredReply(self, self.taken + len(self.pieces) - 1)
        last = self.last_deferred
        if last is None:
            self.first_deferred = reply
        else:
            last.next_of_outbox = reply
        self.last_deferred = reply
        return reply

    def replace(self, index: i64, piece: bytes) -> None:
        """Another piece in the place of one that is deferred."""
        at: i64 = index - self.taken
        if self.gone or at < 0:
            return
        self.unsent += len(piece) - len(self.pieces[at])
        self.pieces[at] = piece
        if len(piece) >= BIG_PIECE:
            self._note_big(len(piece))

    def send_error(self, code: bytes, text: bytes) -> None:
        """Answer with an ERROR packet (section 1.7)."""
        self.send(b"%b%b\0%b" % (response_head(ERROR, len(code) + 1 + len(text)), code, text))

    def close(self) -> None:
        """Have the connection closed after what is still to be written."""
        self.closing = True
        self.touch()

    def forget(self) -> None:
        """The connection is gone: nothing is written any more."""
        self.gone = True
        self.pieces = []
        self.cut = 0
        self.unsent = 0

    def take(self) -> list[Any]:
        """What is to be written now: a few buffers, none of them empty; small pieces are joined.

        Much is taken bit by bit, as far as it may be written: then ``has_more`` says so.
        """
        self.touched = False
        pieces = self.pieces
        if self.overflown or not pieces:
            return []
        if self.first_deferred is None and self.unsent <= 2 * SOCKET_TAKES and self.cut == 0:
            self.taken += len(pieces)
            self.given = self.unsent
            self.unsent = 0
            if not self.big:
                joined: list[Any] = [b"".join(pieces)] if len(pieces) > 1 else [pieces[0]]
                pieces.clear()
                return joined
            self.pieces = []
            self.big = False
            return _joined(pieces)
        return self._take_some()

    @property
    def has_more(self) -> bool:
        """Whether more may be taken."""
        if not self.pieces:
            return False
        first = self.first_deferred
        return first is None or first.open or first.index > self.taken

    def _take_some(self) -> list[Any]:
        """As much as a socket takes of what stands before the first deferred reply that is not open."""
        pieces = self.pieces
        reply = self.first_deferred
        while reply is not None and reply.open:
            reply = reply.next_of_outbox
        self.first_deferred = reply
        free: i64 = len(pieces)
        if reply is None:
            self.last_deferred = None
        else:
            free = reply.index - self.taken
        count: i64 = 0
        cut: i64 = self.cut
        size: i64 = -cut
        while count < free and size < SOCKET_TAKES:
            size += len(pieces[count])
            count += 1
        if count == 0:
            return []
        part: Any = None  # of the last piece, if that is too large to be taken whole
        first: Any = None
        if size > 2 * SOCKET_TAKES:
            count -= 1
            last = pieces[count]
            size -= len(last)
            start: i64 = cut if count == 0 else 0
            part = memoryview(last)[start : start + SOCKET_TAKES]
            size += start + SOCKET_TAKES
            self.cut = start + SOCKET_TAKES
        else:
            self.cut = 0
        taken = pieces[:count]
        del pieces[:count]
        if cut > 0 and taken:
            first = memoryview(taken.pop(0))[cut:]
        self.taken += count
        self.given = size
        self.unsent -= size
        buffers: list[Any] = []
        if self.big:
            buffers = _joined(taken)
        elif taken:
            buffers.append(b"".join(taken))
        if not pieces:
            self.big = False
        if first is not None:
            buffers.insert(0, first)
        if part is not None:
            buffers.append(part)
        return buffers


def _joined(pieces: list[bytes]) -> list[Any]:
    """The pieces, those that are small joined."""
    buffers: list[Any] = []
    run: list[bytes] = []
    for piece in pieces:
        if len(piece) < SHARED_PIECE:
            run.append(piece)
            continue
        if run:
            buffers.append(b"".join(run))
            run = []
        buffers.append(piece)
    if run:
        buffers.append(b"".join(run))
    return buffers


def take_first(output: Output) -> list[Outbox]:
    """Take out whom to write to in this iteration: all, or as many as it may take, those with small answers first."""
    touched = output.touched
    total: i64 = 0
    for outbox in touched:
        total += _writable(outbox)
    output.fresh = 0
    if total <= WRITTEN_BYTES and len(touched) <= WRITTEN_PEERS:
        first = touched[:]
        touched.clear()
        return first
    first = []
    later: list[Outbox] = []
    left: i64 = WRITTEN_BYTES
    for outbox in touched:
        size = _writable(outbox)
        if len(first) < WRITTEN_PEERS and (size <= SMALL_ANSWER or left > 0):
            first.append(outbox)
            left -= size
        else:
            later.append(outbox)
            output.fresh += size
    touched[:] = later
    return first


def take_ready(output: Output) -> list[Any]:
    """What is to be written in this iteration, three items for each outbox: where to, what, and whom to look after.

    Where the driver has set a ``socket`` these are that, a buffer or a list of them, and the outbox if it is not
    settled, else None. Otherwise they are the outlet, which is to write by itself, and twice None.
    """
    ready: list[Any] = []
    touched = output.touched
    if len(touched) > FEW:
        touched = take_first(output)
    for outbox in touched:
        socket = outbox.socket
        if socket is not None:
            ready.append(socket)
            buffers = outbox.take()
            ready.append(buffers[0] if len(buffers) == 1 else buffers)
            ready.append(outbox if outbox.is_unsettled else None)
        elif outbox.outlet is not None:
            ready.append(outbox.outlet)
            ready.append(None)
            ready.append(None)
        else:  # its connection is gone
            outbox.touched = False
    touched.clear()
    return ready


def _writable(outbox: Outbox) -> i64:
    """How many bytes are written at most if it is this one's turn."""
    if outbox.full:
        return 0
    return outbox.unsent if outbox.unsent < SOCKET_TAKES else SOCKET_TAKES
