"""The thread that renews the lease twice a second, and sees the fleet as the database knows it.

What else has to be asked of the database at leisure is done here too, between two pulses, so that it takes no
connection of its own. The lease counts from before it was asked for: what the answer's way takes is not ours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

from geartrain.redaction import redacted
from geartrain.store.base import StoreError
from geartrain.store.fleet import LEASE, FencedError

if TYPE_CHECKING:
    from geartrain.store.fleet import FleetStore, View

log = logging.getLogger("geartrain.fleet")

EVERY: Final = 0.5  # seconds
MARGIN: Final = 0.5  # seconds before its end in which a lease is none any more, for clocks that run differently
SAID_EVERY: Final = 10.0  # seconds between lines about a database that does not answer


class Listener(Protocol):
    """Who is told, in the daemon's loop."""

    def on_view(self, view: View, lease_ends: float, seconds: float) -> None:
        """The lease holds until then (monotonic); the pulse took so long."""

    def on_silence(self, reason: str) -> None:
        """The database does not answer."""

    def on_fenced(self) -> None:
        """The others have taken us for dead; this was the last pulse."""


class Pulse:
    """Renews the lease of one incarnation until it is stopped, or fenced."""

    def __init__(self, store: FleetStore, listener: Listener, post: Callable[..., object]) -> None:
        self._store = store
        self._listener = listener
        self._post = post
        self._orders: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], object]] | None] = SimpleQueue()
        self._woken = threading.Event()
        self._stopping = False
        self._said = 0.0
        self._thread = threading.Thread(target=self._run, name="fleet pulse", daemon=True)
        self._thread.start()

    def order(self, act: Callable[[], Any], then: Callable[[Any], object] = lambda _: None) -> None:
        """Have this done in the pulse's thread; ``then`` gets its result, or the StoreError, in the daemon's loop."""
        self._orders.put((act, then))
        self._woken.set()

    def stop(self, seconds: float) -> None:
        """Make an end, when what was ordered is done; it is waited for so many seconds."""
        self._stopping = True
        self._woken.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            if time.monotonic() >= due:
                due = time.monotonic() + EVERY
                if not self._beat():
                    return
            self._obey()
            self._woken.wait(max(due - time.monotonic(), 0.0))
            self._woken.clear()
        self._obey()

    def _beat(self) -> bool:
        asked = time.monotonic()
        try:
            view = self._store.pulse()
        except FencedError:
            self._post(self._listener.on_fenced)
            return False
        except Exception as error:
            self._post(self._listener.on_silence, redacted(str(error) or repr(error)))
            if asked > self._said + SAID_EVERY:
                self._said = asked
                log.error("fleet_silent", extra={"fields": {"reason": redacted(str(error) or repr(error))}})
                if not isinstance(error, StoreError):
                    log.exception("pulse_failed")
            return True
        if self._said:
            self._said = 0.0
            log.info("fleet_back", extra={"fields": {"store": repr(self._store)}})
        self._post(self._listener.on_view, view, asked + LEASE - MARGIN, time.monotonic() - asked)
        return True

    def _obey(self) -> None:
        while not self._orders.empty():
            order = self._orders.get()
            if order is None:
                return
            act, then = order
            try:
                result = act()
            except Exception as error:
                if not isinstance(error, StoreError):
                    log.exception("order_failed")
                result = error
            self._post(then, result)
