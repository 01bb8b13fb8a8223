"""What one connection is to get, in order, and the replies in it that wait for the store.

Packets are appended as pieces and taken once an iteration, joined. A *deferred reply* is a piece that must not be
written before the store has answered; neither is anything behind it, since replies carry no number and are told apart
by their order alone.
"""

from __future__ import annotations

from typing import Any, Final, final

from geartrain.native import i64
from geartrain.wire.packets import ERROR, response_head

BIG_PIECE: Final = 32 * 1024  # pieces from this size on are written as they are, without another copy
SHARED_PIECE: Final = 2 * 1024  # the same for a piece that several connections get: it is held once
MAX_UNREAD_OUTPUT: Final = 1024 * 1024  # a peer's own requests wait while so many bytes are to be written to it

# What is written in one iteration, so that nobody waits long for it.
WRITTEN_PEERS: Final = 1000
WRITTEN_BYTES: Final = 8 * 1024 * 1024
SOCKET_TAKES: Final = 4 * 1024 * 1024  # at most at once; what is beyond that costs nothing to keep
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
        self.next_of_job: DeferredReply | None = None
        self.next_of_outbox: DeferredReply | None = None


class Outbox:
    """The output of one connection; ``all_touched`` is the list of those that the driver has to look at."""

    def __init__(self, all_touched: list[Outbox]) -> None:
        self.outlet: Any = None  # for the driver: what writes this output
        self.pieces: list[bytes] = []
        self.unsent: i64 = 0  # bytes in pieces
        self.first_deferred: DeferredReply | None = None  # nothing from it on may be written yet
        self.last_deferred: DeferredReply | None = None
        self.taken: i64 = 0  # pieces ever taken: the index of pieces[0]
        self.all_touched: list[Outbox] = all_touched
        self.touched: bool = False
        self.big: bool = False  # whether one of the pieces is written as it is
        self.busy: bool = False  # a chore is under way, before which the peer's next request can't be read
        self.closing: bool = False  # to be closed once what take() gives has been written
        self.overflown: bool = False  # it was to get more than it may leave unread: to be dropped as it is
        self.gone: bool = False

    def send(self, piece: bytes) -> None:
        """Add a whole packet, or a part of one, to what is to be written."""
        size: i64 = len(piece)
        self.pieces.append(piece)
        self.unsent += size
        if size >= BIG_PIECE:
            self.big = True
        if not self.touched:
            self.touched = True
            self.all_touched.append(self)

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
            self.all_touched.append(self)

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
            self.big = True

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
        self.unsent = 0

    def take(self) -> list[bytes]:
        """What is to be written now: a few buffers, none of them empty; small pieces are joined."""
        self.touched = False
        pieces = self.pieces
        if self.overflown:
            return []
        if self.first_deferred is not None:
            pieces = self._free_pieces()
        if not pieces:
            return []
        if pieces is self.pieces:
            self.taken += len(pieces)
            self.unsent = 0
        if not self.big:
            joined = [b"".join(pieces)] if len(pieces) > 1 else [pieces[0]]
            pieces.clear()
            return joined
        if pieces is self.pieces:
            self.pieces = []
            self.big = False
        buffers: list[bytes] = []
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

    def _free_pieces(self) -> list[bytes]:
        """The pieces before the first deferred reply that is not open, taken out."""
        reply = self.first_deferred
        while reply is not None and reply.open:
            reply = reply.next_of_outbox
        self.first_deferred = reply
        if reply is None:
            self.last_deferred = None
            return self.pieces
        count: i64 = reply.index - self.taken
        free = self.pieces[:count]
        self.pieces = self.pieces[count:]
        self.taken += count
        for piece in free:
            self.unsent -= len(piece)
        return free


def take_first(touched: list[Outbox]) -> list[Outbox]:
    """Take out whom to write to in this iteration: all, or as many as it may take, those with small answers first."""
    total: i64 = 0
    for outbox in touched:
        total += outbox.unsent if outbox.unsent < SOCKET_TAKES else SOCKET_TAKES
    if total <= WRITTEN_BYTES and len(touched) <= WRITTEN_PEERS:
        first = touched[:]
        touched.clear()
        return first
    first = []
    later: list[Outbox] = []
    left: i64 = WRITTEN_BYTES
    for outbox in touched:
        size: i64 = outbox.unsent if outbox.unsent < SOCKET_TAKES else SOCKET_TAKES
        if len(first) < WRITTEN_PEERS and (size <= SMALL_ANSWER or left > 0):
            first.append(outbox)
            left -= size
        else:
            later.append(outbox)
    touched[:] = later
    return first
