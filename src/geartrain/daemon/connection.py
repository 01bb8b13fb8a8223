"""One socket, for asyncio: hands what comes to the job server and writes what the turn left, once.

The output of all connections is written by ``Daemon.settle`` at the end of the turn. A connection whose output piles
up is not read any further (its own requests made most of it), nor is one whose messages wait for the job server. One
whose output piles up beyond the limit, since it does not read what others send it, is cut off; a packet that is larger
than the limit by itself still passes.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from typing import TYPE_CHECKING, Final, cast

from geartrain.jobserver.outbox import MAX_UNREAD_OUTPUT

if TYPE_CHECKING:
    from geartrain.daemon.daemon import Daemon
    from geartrain.jobserver import Peer

PAUSE_AT: Final = 1024 * 1024  # unsent bytes at which a connection is not read any further
LINGER_SECONDS: Final = 2.0  # a connection closed by us is drained so long, so that the last words arrive

_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)
_UNACKNOWLEDGED: Final = getattr(termios, "TIOCOUTQ", None)  # asks how many bytes sent are not acknowledged yet


class Connection(asyncio.Protocol):
    """The shell around one peer."""

    __slots__ = ("daemon", "ending", "full", "lingering", "peer", "piled", "socket", "transport")

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.peer: Peer | None = None
        self.full = False  # the transport holds more than PAUSE_AT
        self.piled = 0  # bytes that came to it at once and may wait beyond the limit
        self.lingering = False  # we have closed our side
        self.ending = False  # the peer has closed its side
        self.socket: socket.socket | None = None  # borrowed from the transport, for TCP_QUICKACK

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        daemon = self.daemon
        self.peer = daemon.welcome(self)
        if self.peer is None:
            return
        self.transport.set_write_buffer_limits(high=PAUSE_AT)
        family = transport.get_extra_info("socket").family
        if family != socket.AF_UNIX:
            descriptor = transport.get_extra_info("socket").fileno()
            self.socket = socket.socket(family, socket.SOCK_STREAM, 0, fileno=descriptor)
            daemon.tune(self.socket)

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        peer = self.peer
        assert peer is not None
        daemon = self.daemon
        if not daemon.turn_open:
            daemon.open_turn()
        daemon.receive(peer, data)
        if peer.stalled:
            self.transport.pause_reading()
        if not peer.pieces and self.socket is not None and _QUICKACK is not None:
            # Nothing will be written back that could carry the acknowledgement, and a peer that left Nagle's
            # algorithm on sends its next packet only when this one has been acknowledged.
            self.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def eof_received(self) -> bool:
        """The peer sends no more: it gets the answers to what it has asked, then the connection is closed."""
        self.ending = True
        peer = self.peer
        return peer is not None and (peer.stalled or peer.unsent > 0)

    def connection_lost(self, error: Exception | None) -> None:
        if self.socket is not None:
            self.socket.detach()
            self.socket = None
        peer = self.peer
        if peer is not None:
            self.daemon.farewell(self, peer, error)

    def write(self, peer: Peer) -> None:
        """Write what the turn left for this connection."""
        buffers = peer.take()
        if buffers and not self.lingering:
            if self.full:
                if self.transport.get_write_buffer_size() > self.daemon.max_unsent + self.piled:
                    self.cut_off()
                    return
                self.piled = max(self.piled, *map(len, buffers))
            if len(buffers) == 1:
                self.transport.write(buffers[0])
            else:
                self.transport.writelines(buffers)
        if peer.closing:
            if not peer.unsent:
                self.linger()
        elif peer.stalled:
            # Else it goes on when the socket, or the store, has caught up.
            if not self.full and peer.unsent < MAX_UNREAD_OUTPUT:
                self.daemon.loop.call_soon(self.go_on)
        elif self.ending and not peer.unsent:
            self.transport.close()

    def go_on(self) -> None:
        """Go on with messages that waited, and read again when there are none left."""
        peer = self.peer
        if peer is None or self.full or self.transport.is_closing():
            return
        if peer.stalled and not self.lingering:
            self.daemon.open_turn()
            self.daemon.receive(peer, b"")
        if not peer.stalled or self.lingering:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.full = True
        self.piled = self.transport.get_write_buffer_size()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        self.go_on()

    def cut_off(self) -> None:
        """The peer does not read: drop it together with what it was to get."""
        if self.transport.is_closing():
            return
        unsent = self.transport.get_write_buffer_size()
        self.daemon.log_event("peer_cut_off", self.peer, {"unsent": unsent, "limit": self.daemon.max_unsent})
        self.transport.abort()

    def linger(self, seconds: float = LINGER_SECONDS) -> None:
        """Close from our side: say the last words, then read and forget for a moment, lest a reset destroys them."""
        if self.lingering or self.transport.is_closing():
            return
        self.lingering = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.daemon.loop.call_later(seconds, self.transport.abort)

    def is_delivered(self) -> bool:
        """Whether all that was written has arrived at the peer's machine, as far as ours can tell."""
        if self.transport.get_write_buffer_size():
            return False
        if self.socket is None or _UNACKNOWLEDGED is None:
            return True
        return not any(fcntl.ioctl(self.socket.fileno(), _UNACKNOWLEDGED, bytes(4)))
