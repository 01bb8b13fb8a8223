"""What the output of a peer goes through: a socket's connection, or a place within this process."""

from __future__ import annotations

from typing import Protocol


class Outlet(Protocol):
    """One way out; the daemon has it as ``peer.outlet``."""

    @property
    def unread(self) -> int:
        """Bytes that it holds and the peer has not taken."""

    def write(self) -> None:
        """Write what the iteration has left for the peer; go on with requests of it that waited; close in time."""

    def abort(self) -> None:
        """The peer does not read: drop it together with what it was to get."""

    def drain_close(self, seconds: float) -> None:
        """Close from our side: nothing more is executed, and what was written may be taken, for so many seconds."""
