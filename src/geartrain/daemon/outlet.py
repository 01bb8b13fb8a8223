"""What the output of a peer goes through: a socket's connection, or a place within this process."""

from __future__ import annotations

from typing import Protocol


class Holder(Protocol):
    """Whoever holds bytes for somebody who does not take them."""

    @property
    def unread(self) -> int:
        """How many."""

    def abort(self) -> None:
        """They are not taken: drop them, and whom they are for."""


class Outlet(Holder, Protocol):
    """One way out; the daemon has it as ``peer.outlet``."""

    def write(self) -> None:
        """Write what the iteration has left for the peer; go on with requests of it that waited; close in time."""

    def drain_close(self, seconds: float) -> None:
        """Close from our side: nothing more is executed, and what was written may be taken, for so many seconds."""
