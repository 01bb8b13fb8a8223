"""Where a job server listens, and the lists of servers that people and libgearman write.

One server is written ``host``, ``host:port``, ``[::1]``, ``[::1]:4730`` or ``unix:/path``; several are joined by commas
or given as a list. A missing host is localhost; a missing port, and port 0, is 4730 (section 9.1 of the protocol).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from geartrain.errors import AddressError

DEFAULT_PORT = 4730
ENVIRONMENT_VARIABLE = "GEARMAN_SERVERS"


@dataclass(frozen=True, slots=True)
class Address:
    """One job server's address: a host and a TCP port, or the path of a Unix socket.

    Raises AddressError if that can't be an address.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str = ""  # of a Unix socket; then host and port mean nothing

    def __post_init__(self) -> None:
        if self.path:
            object.__setattr__(self, "host", "")
            object.__setattr__(self, "port", 0)
            return
        if not 1 <= self.port <= 65535:
            raise AddressError(f"the port {self.port} is not between 1 and 65535")
        odd = next((letter for letter in self.host if letter.isspace() or letter in "/[],@"), None)
        if not self.host or odd is not None:
            raise AddressError(f"{self.host!r} is not the name or number of a host")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read one server as people write it; raises AddressError that says how it should look."""
        text = text.strip()
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path.startswith(("/", ".", "@")):
                raise AddressError(f"{text!r}: a Unix socket is written unix:/path")
            return cls(path=path)
        if "://" in text:
            raise AddressError(f"{text!r}: leave out {text.split('://')[0]}:// and write just host:port")
        if text.startswith("["):
            host, closed, rest = text[1:].partition("]")
            if not closed or (rest and not rest.startswith(":")):
                raise AddressError(f"{text!r}: an IPv6 address is written [::1] or [::1]:4730")
            port = rest[1:]
        elif text.count(":") > 1:
            raise AddressError(f"{text!r}: put an IPv6 address in brackets, as in [::1]:4730")
        else:
            host, _, port = text.partition(":")
        if port and not (port.isascii() and port.isdigit()):
            raise AddressError(f"{text!r}: the port {port!r} is not a number")
        try:
            return cls(host or "localhost", int(port or 0) or DEFAULT_PORT)
        except AddressError as error:
            raise AddressError(f"{text!r}: {error}") from None

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"


ServerList = str | Address | Iterable[str | Address] | None


def parse_addresses(servers: ServerList = None) -> tuple[Address, ...]:
    """The addresses in a list of servers, in order, each once.

    ``servers`` is one address, a text of several joined by commas, or an iterable of such. ``None`` means the
    environment variable GEARMAN_SERVERS and, where that is not set or empty, localhost:4730.

    Raises AddressError for a list without a server, or with one that is none.
    """
    if servers is None:
        servers = os.environ.get(ENVIRONMENT_VARIABLE, "").strip(", ") or str(Address())
    if isinstance(servers, (str, Address)):
        servers = [servers]
    addresses: dict[Address, None] = {}
    for item in servers:
        if isinstance(item, Address):
            addresses[item] = None
        elif isinstance(item, str):
            addresses.update(dict.fromkeys(Address.parse(text) for text in item.split(",") if text.strip()))
        else:
            raise AddressError(f"{item!r} is not an address: write a server as text, such as 'localhost:4730'")
    if not addresses:
        raise AddressError(f"no job server in {servers!r}: write at least one, such as 'localhost:4730'")
    return tuple(addresses)
