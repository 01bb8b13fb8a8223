"""A blocking link as the driver holds it: with the bytes it had no room for, and the time it was last read."""

from __future__ import annotations

from collections import deque

from geartrain.client.servers import Server
from geartrain.link import BlockingLink


class Connection:
    """The connection to a ``server``."""

    __slots__ = ("_confirmed", "link", "read_at", "server", "unsent")

    def __init__(self, server: Server, link: BlockingLink) -> None:
        self.server = server
        self.link = link
        self.unsent: deque[memoryview] = deque()
        self.read_at = 0.0
        self._confirmed = 0

    def write(self, data: bytes) -> int:
        """Send ``data`` behind what is unsent, as far as there is room; returns the count of bytes that left.

        Raises ConnectionLostError.
        """
        if not self.unsent:
            sent = self.link.send_now(data)
            if sent < len(data):
                self.unsent.append(memoryview(data)[sent:])
            return sent
        if data:
            self.unsent.append(memoryview(data))
        sent = self.link.send_now(self.unsent[0])
        self.unsent[0] = self.unsent[0][sent:]
        if not self.unsent[0]:
            self.unsent.popleft()
        return sent

    def notice_sending(self) -> None:
        """Count it as a sign of life that bytes have arrived over there."""
        confirmed = self.link.confirmed
        if confirmed != self._confirmed and self.server.session is not None:
            self._confirmed = confirmed
            self.server.session.moved()
