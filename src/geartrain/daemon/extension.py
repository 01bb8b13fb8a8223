"""What can be attached to the daemon: the store's keeper, the service manager's notifier, and whatever comes later.

The daemon knows extensions by these methods alone, and calls them in the order in which they were attached. All run in
the daemon's loop and return soon. An extension that wants to touch the job server from outside an iteration, such as
from a timer of its own, calls ``Host.open_iteration`` first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from geartrain.daemon.flow import UnreadOutput
    from geartrain.jobserver import JobServer, Peer


class Host(Protocol):
    """What an extension is given of the daemon."""

    server: JobServer
    loop: asyncio.AbstractEventLoop
    addresses: list[str]
    unread: UnreadOutput

    def open_iteration(self) -> None:
        """Tell the job server the time, and have what comes of this iteration written at its end."""

    def relieve(self) -> None:
        """Drop the worst readers if all peers together leave too much unread."""

    def on_abort(self, peer: Peer | None, unread: int) -> None:
        """An outlet of the extension's own has been dropped, with so much that was not read."""


class Extension:
    """Something attached to the daemon; each method may be left as it is."""

    def start(self, host: Host) -> None:
        """The addresses are bound, and connections are accepted when all extensions have started."""

    def reload(self) -> None:
        """The operator has sent SIGHUP."""

    def flush(self) -> None:
        """The end of an iteration: hand on what it has left."""

    def next_deadline(self) -> float:
        """When ``flush`` wants to be called again, on the job server's clock; 0: not before something happens."""
        return 0.0

    @property
    def is_drained(self) -> bool:
        """Whether nothing is owed to anybody; on leaving the daemon waits for it before it closes connections."""
        return True

    def leave(self) -> None:
        """The daemon begins to stop: it takes no more connections and submissions."""

    def give_up(self) -> None:
        """The time to drain is over: what is still owed is to be refused."""

    def stop(self, seconds: float) -> None:
        """All connections are closed: let go of everything, within so many seconds."""
