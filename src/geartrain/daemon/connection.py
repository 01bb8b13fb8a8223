"""One socket, for asyncio: hands what comes to the job server and writes what the iteration left, once.

The output of all connections is written at the end of the iteration. A connection whose output piles up is not read any
further (its own requests made most of it), nor is one whose messages wait for the job server.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from geartrain.daemon.flow import DRAIN, END, FULL, GO_ON, Flow, UnreadOutput
from geartrain.jobserver.server import COLLECTING, STALLED, UNANSWERED

if TYPE_CHECKING:
    from geartrain.jobserver import Peer

UNIX: Final = "unix"  # the host of a peer at a Unix socket
CLOSE_SECONDS: Final = 2.0  # a connection closed by us is read and forgotten so long, so that the last words arrive

_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)
_UNACKNOWLEDGED: Final = getattr(termios, "TIOCOUTQ", None)  # asks how many bytes sent are not acknowledged yet


class Iteration:
    """Whether one is open: the time has been told, and what comes of it is written at its end."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = False


class Switchboard(Protocol):
    """What a connection needs of the daemon, which is what it gives to extensions (``Host``), and more."""

    loop: asyncio.AbstractEventLoop
    iteration: Iteration
    unread: UnreadOutput

    @property
    def receive(self) -> Callable[[Peer, bytes], int]: ...

    def open_iteration(self) -> None: ...

    def on_connect(self, connection: Connection, connected: socket.socket) -> Peer | None: ...

    def on_disconnect(self, connection: Connection, peer: Peer, error: Exception | None) -> None: ...

    def relieve(self) -> None: ...

    def on_abort(self, peer: Peer | None, unread: int) -> None: ...

    def tune(self, connected: socket.socket) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Connection(Flow, asyncio.Protocol):
    """The driver of one peer."""

    __slots__ = ("counted", "daemon", "peer", "socket", "transport", "watched")

    def __init__(self, daemon: Switchboard) -> None:
        super().__init__()
        self.daemon = daemon
        self.peer: Peer | None = None
        self.counted = False  # among the unread output
        self.watched = False  # there is more to do at a read, or after a write, than most need
        self.socket: socket.socket | None = None  # borrowed from the transport, for TCP_QUICKACK

    # ── what the loop tells ─────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        its = transport.get_extra_info("socket")
        borrowed = socket.socket(its.family, socket.SOCK_STREAM, 0, fileno=its.fileno())
        try:
            if self.begin(transport, borrowed) and its.family != socket.AF_UNIX:
                self.socket = borrowed
        except Exception:
            transport.abort()
            raise
        finally:
            if self.socket is None:
                borrowed.detach()

    def begin(self, transport: asyncio.Transport, connected: socket.socket) -> bool:
        """The connection has come about; False if it is not wanted, and has been closed."""
        self.transport = transport
        self.peer = self.daemon.on_connect(self, connected)
        if self.peer is None:
            return False
        transport.set_write_buffer_limits(high=FULL)
        if connected.family != socket.AF_UNIX:
            self.daemon.tune(connected)
        return True

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        daemon = self.daemon
        if not daemon.iteration.open:
            daemon.open_iteration()
        peer = self.peer
        assert peer is not None
        came_to = daemon.receive(peer, data)
        if came_to == STALLED:
            self.transport.pause_reading()
        elif came_to in (UNANSWERED, COLLECTING) and self.socket is not None and _QUICKACK is not None:
            # Nothing will be written back that could carry the acknowledgement, and a peer that left Nagle's
            # algorithm on sends its next packet only when this one has been acknowledged.
            self.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def eof_received(self) -> bool:
        """The peer sends no more: it gets the answers to what it has asked, then the connection is closed."""
        self.ending = True
        self.watch()
        return self.peer is not None and self.has_more(self.peer)

    def pause_writing(self) -> None:
        assert self.peer is not None
        self.full = self.peer.full = True
        self._count()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        peer = self.peer
        assert peer is not None
        self.full = peer.full = False
        if not peer.unsent:
            peer.largest = 0
        self._count()
        self.go_on()
        self._write_on()

    def connection_lost(self, error: Exception | None) -> None:
        if self.socket is not None:
            self.socket.detach()
            self.socket = None
        self.daemon.unread.forget(self)
        peer = self.peer
        if peer is not None:
            self.daemon.on_disconnect(self, peer, error)

    # ── what the daemon asks ────────────────────────────────────────────────────────────────────────────────────

    @property
    def unread(self) -> int:
        peer = self.peer
        if peer is None:
            return 0
        # A transport may hold all that it was given last until the last byte of it is out.
        return (max(peer.given, FULL) if self.full else 0) + peer.held

    def write(self) -> None:
        peer = self.peer
        assert peer is not None
        if self.full:
            self._leave(peer)
            return
        buffers = peer.take()
        if buffers and not self.closing:
            if len(buffers) == 1:
                self.transport.write(buffers[0])
            else:
                self.transport.writelines(buffers)
        if peer.is_unsettled or self.watched:
            self.look_after(peer)

    def look_after(self, peer: Peer) -> None:
        """What most writes need not do."""
        if self.transport.is_closing():
            return
        if self.counted or peer.unsent > FULL:
            if peer.overflown:
                self.abort()
                return
            self._count()
            self.daemon.relieve()
        if peer.has_more and not self.full:
            self.daemon.loop.call_soon(self._write_on)
        self._do(self.after_write(peer))

    def _leave(self, peer: Peer) -> None:
        """What has come for a peer that does not read waits where it is, unless it is too much."""
        peer.touched = False
        if self.transport.is_closing():
            return
        unread = self.daemon.unread
        if peer.overflown or unread.is_too_much(self, unread.noted(self), peer.largest):
            self.abort()
            return
        self._count()
        self.daemon.relieve()
        self._do(self.after_write(peer))

    def _write_on(self) -> None:
        """Have the rest written with the output of the next iteration."""
        peer = self.peer
        if peer is not None and peer.has_more and not self.transport.is_closing():
            peer.touch()
            self.daemon.open_iteration()

    def _do(self, step: int) -> None:
        if step == GO_ON:
            self.daemon.loop.call_soon(self.go_on)
        elif step == DRAIN:
            self.drain_close()
        elif step == END:
            self.transport.close()

    def go_on(self) -> None:
        """Go on with messages that waited, and read again when there are none left."""
        peer = self.peer
        if peer is None or self.transport.is_closing():
            return
        if self.may_go_on(peer):
            self.daemon.open_iteration()
            self.daemon.receive(peer, b"")
        if self.may_read(peer):
            self.transport.resume_reading()

    def _count(self) -> None:
        """Have what is not read counted, while it is much."""
        assert self.peer is not None
        self.counted = self.full or self.peer.unsent > FULL
        self.watch()
        if self.counted:
            self.daemon.unread.note(self, self.unread)
        else:
            self.daemon.unread.forget(self)

    def watch(self) -> None:
        """Note whether anything is out of the ordinary."""
        self.watched = self.counted or self.ending or self.closing

    def abort(self) -> None:
        if not self.transport.is_closing():
            self.daemon.on_abort(self.peer, self.unread)
            self.transport.abort()
        self.daemon.unread.forget(self)

    def drain_close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Close from our side: say the last words, then read and forget for a moment, since a reset would undo them."""
        if self.closing or self.transport.is_closing():
            return
        while self.peer is not None and (buffers := self.peer.take()):
            self.transport.writelines(buffers)
        self.closing = True
        self.watch()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.daemon.loop.call_later(seconds, self.transport.abort)

    def is_delivered(self) -> bool:
        """Whether all that was written has arrived at the peer's machine, as far as ours can tell."""
        if self.transport.get_write_buffer_size():
            return False
        peer = self.peer
        if peer is None or peer.host == UNIX or _UNACKNOWLEDGED is None:
            return True
        return not any(fcntl.ioctl(peer.fd, _UNACKNOWLEDGED, bytes(4)))
