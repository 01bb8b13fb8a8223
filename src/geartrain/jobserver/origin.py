"""Where a connection comes from, as the driver knows it: what a listener finds out about a peer goes in here."""

from __future__ import annotations

from typing import final

from geartrain.jobserver.rights import EVERYTHING


@final
class Origin:
    """The ``host`` that connected, the number by which the text command `workers` shows it, and what it may do."""

    def __init__(self, host: str, fd: int = -1, rights: int = EVERYTHING) -> None:
        self.host: str = host
        self.fd: int = fd
        self.rights: int = rights
