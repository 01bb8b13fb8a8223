"""Telling systemd how the service is: the notify protocol, a datagram to a socket named in the environment."""

from __future__ import annotations

import os
import socket


class Systemd:
    """The service manager, if there is one that wants to be told.

    ``watchdog_seconds`` is how long it waits for a sign of life before it restarts the service; None: it does not.
    ``untold`` is what it had no room for; the next ``tell`` says that too.
    """

    def __init__(self, environment: os._Environ[str] | dict[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.untold: dict[str, object] = {}
        self.watchdog_seconds: float | None = None
        microseconds = environment.get("WATCHDOG_USEC", "")
        if microseconds.isdecimal() and environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog_seconds = int(microseconds) / 1e6

    def __bool__(self) -> bool:
        return bool(self._address)

    def tell(self, **state: object) -> None:
        """Tell some state, such as ``READY=1``, without waiting; says nothing if nobody listens."""
        if not self._address:
            return
        self.untold.update(state)
        text = "\n".join(f"{name}={value}" for name, value in self.untold.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address.replace("@", "\0", 1))
        except BlockingIOError:  # the manager has much to read
            return
        except OSError:
            pass
        self.untold.clear()
