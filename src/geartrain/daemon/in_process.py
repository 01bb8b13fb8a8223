"""A peer within this process: what an extension submits and hears goes through the same rules as all packets."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from geartrain.daemon.flow import DRAIN, FULL, GO_ON, Flow
from geartrain.errors import RemoteProtocolError
from geartrain.jobserver import Origin
from geartrain.jobserver.outbox import MAX_UNREAD_OUTPUT
from geartrain.wire.packets import HEADER_SIZE
from geartrain.wire.parser import LARGEST_BODY, Packet, Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from geartrain.daemon.extension import Host

HOST = "in-process"
PACKET_COST = 300  # bytes that a packet takes beside those that came


class InProcessPeer(Flow):
    """One connection without a socket, for use in the daemon's own loop.

    ``send`` takes packets as bytes, ``receive`` gives the packets that come, one by one. While so much is not received
    that a socket's peer would not be read any further, what was sent waits too; beyond the bounds on unread output it
    is closed, as a socket's peer is. When the daemon stops it is closed as well, and its jobs stay in the store.

    ``origin`` says for whom it speaks: rights and listings go by it. ``on_lost`` is called soon after the job server
    has closed or dropped the connection, not after ``close``; what has come may still be received. Raises
    ConnectionRefusedError if the daemon takes no more connections, or an extension refuses this one.
    """

    def __init__(self, host: Host, origin: Origin | None = None, on_lost: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.closed = False
        self.peer = host.connect(self, origin or Origin(HOST))
        self._host = host
        self._on_lost = on_lost
        self._parser = Parser(LARGEST_BODY)
        self._packets: deque[Packet] = deque()
        self._unread = 0  # bytes of them, about
        self._unparsed = 0  # bytes in the parser, about
        self._kept = 0
        self._came = asyncio.Event()

    # ── for the extension ───────────────────────────────────────────────────────────────────────────────────────

    def send(self, data: bytes) -> None:
        """Give the job server one packet or several, whole or in parts. Raises ConnectionError once it is closed.

        The answer to a text command is no packet: it closes the connection. ``InProcessConsole`` takes those.
        """
        if self.closed:
            raise ConnectionError("the job server has closed this connection")
        self._host.open_iteration()
        self._host.server.receive(self.peer, data)

    async def receive(self) -> Packet:
        """The next packet. Raises ConnectionError when there is none left and the connection is closed."""
        while not self._packets:
            if self.closed:
                raise ConnectionError("the job server has closed this connection")
            self._came.clear()
            await self._came.wait()
        packet = self.take_packet()
        assert packet is not None
        return packet

    def take_packet(self) -> Packet | None:
        """The next packet, if one has come."""
        if not self._packets:
            return None
        packet = self._packets.popleft()
        self._unread -= _size(packet)
        was_full = self.full
        self._parse()
        if not self.closed:
            self._count()
            if was_full and not self.full:
                self._write_on()
            self._go_on()
        return packet

    def keep(self, size: int) -> None:
        """Have so many bytes of what was received counted as if they were not: whoever received them keeps them."""
        self._kept = size
        if not self.closed:
            self._count()
            self._host.relieve()

    def close(self) -> None:
        """Leave, as a client that closes its connection."""
        if not self.closed:
            self.closed = True
            self._host.lost(self.peer)
            self._host.unread.forget(self)
            self._came.set()

    # ── for the daemon ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def unread(self) -> int:
        return self._unread + self._unparsed + self._kept + (0 if self.closed else self.peer.held)

    def write(self) -> None:
        peer = self.peer
        if peer.overflown:
            self.abort()
            return
        peer.touched = False
        unread = self._host.unread
        if self.full and unread.is_too_much(self, unread.noted(self), peer.largest):
            self.abort()
            return
        if not self.full:
            self._feed(peer.take())
        if self.closed:
            return
        self._count()
        self._host.relieve()
        if peer.has_more and not self.full:
            self._host.loop.call_soon(self._write_on)
        step = self.after_write(peer)
        if step == GO_ON:
            self._host.loop.call_soon(self._go_on)
        elif step == DRAIN:
            self.drain_close()
        self._came.set()

    def abort(self) -> None:
        if not self.closed:
            self._host.on_abort(self.peer, self.unread)
            self._packets.clear()
            self._parser = Parser(LARGEST_BODY)
            self._unread = self._unparsed = 0
            self._leave()

    def drain_close(self, seconds: float = 0.0) -> None:
        if not self.closed:
            while buffers := self.peer.take():
                self._feed(buffers)
        if not self.closed:
            self._leave()

    def _leave(self) -> None:
        self.close()
        self._host.loop.call_soon(self._on_lost)

    def _feed(self, buffers: Iterable[bytes]) -> None:
        for buffer in buffers:
            if self.closed:
                return
            self._parser.feed(bytes(buffer))
            self._unparsed += len(buffer)
            self._parse()

    def _write_on(self) -> None:
        """Have what waits in the outbox written with the output of the next iteration."""
        if not self.closed and self.peer.has_more:
            self._host.open_iteration()
            self.peer.touch()

    def _parse(self) -> None:
        """Make packets of what was written, as long as they are not too many; closes where an answer is none."""
        try:
            while self._unread < MAX_UNREAD_OUTPUT and (packet := self._parser.next_packet()) is not None:
                self._packets.append(packet)
                self._unread += _size(packet)
                self._unparsed -= _size(packet) - PACKET_COST
        except RemoteProtocolError:  # an answer to a text command
            self.abort()

    def _count(self) -> None:
        """Have what is not received counted, while it is much."""
        self.full = self.peer.full = self._unread >= MAX_UNREAD_OUTPUT
        if not self.full:
            self.peer.largest = 0
        if self.unread > FULL:
            self._host.unread.note(self, self.unread)
        else:
            self._host.unread.forget(self)

    def _go_on(self) -> None:
        if self.may_go_on(self.peer) and not self.closed:
            self._host.open_iteration()
            self._host.server.receive(self.peer, b"")


class InProcessConsole(InProcessPeer):
    """The same for text commands: what is sent are lines, and what comes is read as bytes."""

    def __init__(self, host: Host, origin: Origin | None = None) -> None:
        super().__init__(host, origin)
        self._text: list[bytes] = []

    async def read(self) -> bytes:
        """What has come, at least a byte. Raises ConnectionError when there is none and the connection is closed."""
        while not self._text:
            if self.closed:
                raise ConnectionError("the job server has closed this connection")
            self._came.clear()
            await self._came.wait()
        data = b"".join(self._text)
        self._text.clear()
        self._unread = 0
        was_full = self.full
        if not self.closed:
            self._count()
            if was_full and not self.full:
                self._write_on()
            self._go_on()
        return data

    def _feed(self, buffers: Iterable[bytes]) -> None:
        for buffer in buffers:
            self._text.append(bytes(buffer))
            self._unread += len(buffer)


def _size(packet: Packet) -> int:
    return sum(map(len, packet.arguments)) + max(len(packet.arguments) - 1, 0) + HEADER_SIZE + PACKET_COST
