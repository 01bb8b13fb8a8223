"""What systemd and a service tell each other: how the service is, and which sockets have been opened for it.

The notify protocol is a datagram to a socket that the environment names. The sockets of socket activation are inherited
as descriptors from 3 on, which the environment counts and names.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from geartrain.errors import ConfigError

GEARMAN: Final = "gearman"
HTTP: Final = "http"
_UNNAMED: Final = ("", "unknown", "geartrain.socket")  # FileDescriptorName= is left out: systemd gives the unit's name
_FIRST: Final = 3  # descriptor that is passed
_TCP: Final = (socket.IPPROTO_TCP, 262)  # 262: multipath TCP, which Python 3.11 has no name for


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


def sockets(name: str = GEARMAN, environment: os._Environ[str] | dict[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets of this name that systemd has opened for this process; to be asked for once.

    A socket without a name is for Gearman. Raises ConfigError for what can't be served, whatever its name.
    """
    found = []
    for descriptor, its_name in enumerate(names(environment), _FIRST):
        try:
            passed = socket.socket(fileno=descriptor)
            flaw = _flaw(passed, its_name)
        except OSError as error:
            flaw = error.strerror or str(error)
        if flaw:
            raise ConfigError(f"systemd has passed socket {its_name!r} as descriptor {descriptor}, of no use: {flaw}")
        if its_name == name or (name == GEARMAN and its_name in _UNNAMED):
            passed.set_inheritable(False)
            found.append(passed)
        else:
            passed.detach()
    return found


def names(environment: os._Environ[str] | dict[str, str] = os.environ) -> list[str]:
    """The names of all sockets that systemd has opened for this process."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    written = environment.get("LISTEN_FDS", "")
    count = int(written) if written.isascii() and written.isdigit() else 0
    given = environment.get("LISTEN_FDNAMES", "").split(":")
    return [*given, *[""] * (count - len(given))][:count]


def hand_over(parent: int) -> None:
    """What systemd has told the process ``parent`` is for this one, its child, from now on."""
    for name in ("LISTEN_PID", "WATCHDOG_PID"):
        if os.environ.get(name) == str(parent):
            os.environ[name] = str(os.getpid())


def _flaw(passed: socket.socket, name: str) -> str:
    """Why a passed socket can't be served, and the remedy; empty: it can."""
    if name not in (GEARMAN, HTTP, *_UNNAMED):
        return f"its unit should say FileDescriptorName={GEARMAN} or {HTTP}"
    if passed.type != socket.SOCK_STREAM:
        return "it is no stream: its unit should say ListenStream="
    if passed.family != socket.AF_UNIX and not (
        passed.family in (socket.AF_INET, socket.AF_INET6) and passed.proto in _TCP
    ):
        return "it is neither TCP nor a Unix socket"
    if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "it is a connection, and not what accepts them: its unit should say Accept=no"
    return ""
