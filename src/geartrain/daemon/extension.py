"""What can be attached to the daemon: the store's keeper, the service manager's notifier, and whatever comes later.

The daemon knows extensions by these methods alone. All run in the daemon's loop and return soon, since nobody is served
meanwhile. They are called in the order in which the extensions were attached, ``stop`` in the reverse order. What one
of them raises is logged with the extension's name, and the others have their turn all the same; but if ``start``
raises, the daemon does not begin to serve.

    start             once, before any connection is accepted
    admit             for each connection, before the job server knows of it
    flush             at the end of each iteration, when all peers have been written to
    hear              for each event of the job server, before it is in the log
    next_deadline     after it, to set the timer
    reload            at each SIGHUP, between two iterations, when the log has been opened again
    leave, give_up, stop    once each, in this order; ``stop`` alone where a ``start`` has failed

**Touching the job server.** Its time is that of the iteration. In ``flush`` an extension may read it, and take what it
has left to be taken. Whatever else is done to it, in ``flush`` or ``reload`` or from a timer or task of the
extension's own, comes after ``Host.open_iteration``, and is written at the end of the iteration that this opens. An
``InProcessPeer`` does so by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geartrain.daemon.fleet_view import FleetView
    from geartrain.daemon.flow import UnreadOutput
    from geartrain.daemon.gauges import Gauges
    from geartrain.daemon.outlet import Outlet
    from geartrain.jobserver import JobServer, Origin, Peer


class Host(Protocol):
    """What an extension is given of the daemon.

    An extension that needs peers makes an ``InProcessPeer`` for each; one that has an outlet of another kind (the last
    four methods) does what that does.
    """

    server: JobServer
    loop: asyncio.AbstractEventLoop
    addresses: list[str]
    unread: UnreadOutput
    gauges: Gauges
    fleet: FleetView | None  # what is known of the fleet, if there is one

    def open_iteration(self) -> None:
        """Tell the job server the time, and have what comes of this iteration written at its end."""

    def hold_lease(self, until: float) -> None:
        """What is stored is this job server's until then (``time.monotonic``), unless that is said again before."""

    def drop_workers(self) -> None:
        """Drop the connections of those who run something."""

    def connect(self, outlet: Outlet, origin: Origin) -> Peer:
        """A new peer, whose output goes to ``outlet`` until it is ``lost``.

        No limit of connections counts it: what an extension takes from the network it bounds itself.

        Raises ConnectionRefusedError if the job server is about to stop, or if an extension does not admit it.
        """

    def lost(self, peer: Peer) -> None:
        """The connection of this peer is gone, whichever side has ended it.

        The job server gives its jobs to others, but not while the daemon leaves: then they stay in the store.
        """

    def relieve(self) -> None:
        """Drop the worst readers if all peers together leave too much unread."""

    def on_abort(self, peer: Peer | None, unread: int) -> None:
        """An outlet of the extension's own has been dropped, with so much that was not read."""


class Extension:
    """Something attached to the daemon; each method may be left as it is."""

    def start(self, host: Host) -> None:
        """The addresses are bound, and connections are accepted when all extensions have started."""

    def admit(self, origin: Origin) -> bool:
        """Whether a connection may be made, over a socket or by an extension; it may take rights from ``origin``.

        A connection that one extension refuses is closed, and the others are not asked. What raises refuses it.
        """
        return True

    def reload(self) -> None:
        """The operator has sent SIGHUP: read again what may have changed outside."""

    def flush(self) -> None:
        """The end of an iteration: take what the job server has left, and hand it on."""

    def hear(self, event: str, peer: Peer | None, fields: Mapping[str, object]) -> None:
        """Something has happened that an operator may want to know (``jobserver.events``), by ``peer`` if by any."""

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
