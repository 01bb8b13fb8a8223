"""How a second job server is kept out of a place that has no locks: a lease, and a mark of the owner.

The *lease* is a value that goes away by itself unless its holder renews it. It tells a newcomer that somebody is there.
The *owner* is a value that stays, and each write checks in the same step that it is still the writer's. So a holder
that was away for longer than its lease, and whose place another one has taken, writes nothing more.

A newcomer that finds a lease watches it: it is renewed (its holder lives), or it runs out. On the same machine it need
not wait: each holder binds a name in the kernel (an abstract Unix socket), which goes with its process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from geartrain.store.base import StoreInUseError

LASTS: Final = 10  # seconds that a lease lasts
RENEWED_EVERY: Final = 3  # seconds


class LockHolder:
    """This process, as the holder of one place."""

    def __init__(self) -> None:
        since = time.strftime("%Y-%m-%dT%H:%M:%S")
        self.token = f"{socket.gethostname()} {os.getpid()} {since} {_machine()} {secrets.token_hex(8)}".encode()
        self._beats = 0
        self._name: socket.socket | None = None
        with contextlib.suppress(OSError):  # no such names here: newcomers must wait
            self._name = socket.socket(socket.AF_UNIX)
            self._name.bind(_name(self.token))

    def lease(self) -> bytes:
        """The value of the lease, another one at each call, so that one sees it renewed."""
        self._beats += 1
        return self.token + b" %d" % self._beats

    def holds(self, lease: bytes) -> bool:
        """Whether the lease is ours."""
        return lease.rpartition(b" ")[0] == self.token

    def close(self) -> None:
        if self._name is not None:
            self._name.close()


def claim(take: Callable[[bytes], bytes], shown: str) -> None:
    """Get the lease, or raise StoreInUseError when its holder turns out to live.

    ``take(gone)`` takes it if it is free or has the value ``gone``, and returns b"", or another's lease. ``shown`` is
    the place.
    """
    first = gone = b""
    give_up_at = time.monotonic() + LASTS + 1
    while found := take(gone):
        lives = _lives(found)
        if lives is False and found != gone:
            gone = found
            continue
        first = first or found
        if lives or found != first or time.monotonic() > give_up_at:
            raise in_use(found, shown)
        time.sleep(0.1)


def in_use(token: bytes, shown: str) -> StoreInUseError:
    """The error that names whose token or lease it is."""
    host, pid, since, *_ = [*token.decode(errors="replace").split(" "), "?", "?", "?"]
    return StoreInUseError(
        f"the store {shown} is in use by another job server (process {pid} on {host}, since {since}):"
        " stop that one, or give this one a namespace of its own"
    )


def _lives(token: bytes) -> bool | None:
    """Whether the process that made the token lives; None if it can't be told from here."""
    parts = token.decode(errors="replace").split(" ")
    machine = _machine()
    if len(parts) < 5 or machine == "-" or parts[3] != machine:
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(_name(" ".join(parts[:5]).encode()))
        except OSError:
            return True
    return False


def _name(token: bytes) -> bytes:
    return b"\0geartrain store " + token.rpartition(b" ")[2]


def _machine() -> str:
    """What is the same for all processes that see each other's names in the kernel, and for no others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/net').st_ino}"
    except OSError:
        return "-"
