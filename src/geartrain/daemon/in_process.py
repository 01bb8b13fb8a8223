"""A peer within this process: what an extension submits and hears goes through the same rules as all packets."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from geartrain.jobserver.outbox import MAX_UNREAD_OUTPUT
from geartrain.wire.parser import Packet, Parser

if TYPE_CHECKING:
    from geartrain.daemon.extension import Host

HOST = "in-process"


class InProcessPeer:
    """One connection without a socket, for use in the daemon's own loop.

    ``send`` takes packets as bytes, ``receive`` gives the packets that come, one by one. While so much is not received
    that a socket's peer would not be read any further, what was sent waits too.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._parser = Parser()
        self._packets: deque[Packet] = deque()
        self._unread = 0  # bytes of them, about
        self._came = asyncio.Event()
        self.closed = False
        self.peer = host.server.connect(HOST, -1)
        self.peer.outlet = self

    def send(self, data: bytes) -> None:
        """Give the job server one packet or several, whole or in parts. Raises ConnectionError once it is closed."""
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
        packet = self._packets.popleft()
        self._unread -= _size(packet)
        if self.peer.stalled and self._unread < MAX_UNREAD_OUTPUT:
            self._host.loop.call_soon(self._go_on)
        return packet

    def close(self) -> None:
        """Leave, as a client that closes its connection."""
        if not self.closed:
            self._host.open_iteration()
            self._host.server.lost(self.peer)
            self._end()

    def write(self) -> None:
        for buffer in self.peer.take():
            self._parser.feed(buffer)
            while (packet := self._parser.next_packet()) is not None:
                self._packets.append(packet)
                self._unread += _size(packet)
        if self.peer.closing and not self.peer.unsent:
            self._host.server.lost(self.peer)
            self._end()
        elif self.peer.stalled and self._unread < MAX_UNREAD_OUTPUT:
            self._host.loop.call_soon(self._go_on)
        self._came.set()

    def cut_off(self) -> None:
        self.close()

    def _go_on(self) -> None:
        if self.peer.stalled and not self.closed:
            self._host.open_iteration()
            self._host.server.receive(self.peer, b"")

    def _end(self) -> None:
        self.closed = True
        self.peer.outlet = None
        self._came.set()


def _size(packet: Packet) -> int:
    return sum(map(len, packet.arguments)) + 12
