"""Where calls to the outside may go: to public addresses of the internet, at the ports of web servers.

A URL tells little: its host may be a name that means another address a moment later. So the guard stands where a socket
is made, and looks at the very address that is about to be connected to; what it says of a URL is only to tell early.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import threading
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from geartrain.jobserver.policy import LONGEST_URL

if TYPE_CHECKING:
    from collections.abc import Sequence

PORTS: Final = (80, 443, 8080, 8443)
MAX_LOOKUPS: Final = 64  # at once; those that hang count
ALLOW: Final = "--webhook-private allows it"

# The Internet's addresses of version 6, and those in it and beside it that stand for one of version 4.
_UNICAST: Final = ipaddress.ip_network("2000::/3")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_RESERVED: Final = [ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")]
"""For protocols and documents, which not every Python knows."""


def is_public(host: str) -> bool:
    """Whether this numeric address is one that everybody on the internet may reach; what is no address is not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        if address not in _UNICAST or address.sixtofour is not None or address.teredo is not None:
            return False
    if any(address in network for network in _RESERVED):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


@lru_cache(1000)  # a policy's URL is asked for at each job's end
def check_url(url: str, private: bool) -> URL:
    """The URL of a call. Raises ValueError, with what is wrong with it; ``private`` allows any host and port."""
    if len(url) > LONGEST_URL or any(not "!" <= letter <= "~" for letter in url):
        raise ValueError(f"write a URL of {LONGEST_URL} letters at most, with %-escapes for what is not ASCII")
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
    except ValueError:
        raise ValueError("this is no URL: write one such as https://example.org/hook") from None
    if parsed.scheme not in ("http", "https") or not host:
        raise ValueError("write a URL that begins with http:// or https:// and names a host")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise ValueError("a URL must hold no user and password: calls are signed instead")
    last = host.rstrip(".").rpartition(".")[2].lower()
    is_number = ":" in host or last.isdigit() or (last.startswith("0x") and last[2:].isalnum())
    if is_number:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{host} is no address: write four numbers, such as 192.0.2.1, or a name") from None
    if not private:
        if is_number and not is_public(host):
            raise ValueError(f"{host} is no public address; {ALLOW}")
        if port not in PORTS:
            raise ValueError(f"the port must be one of {', '.join(map(str, PORTS))}; {ALLOW}")
    return parsed


def guarded_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an entry of getaddrinfo's, for aiohttp. Raises PermissionError if its address is not public."""
    family, kind, protocol, _, name = address
    if not is_public(name[0]):
        raise PermissionError(errno.EACCES, f"{name[0]} is no public address; {ALLOW}")
    return socket.socket(family, kind, protocol)


class Resolver(AbstractResolver):
    """Asks the system for the addresses of names, each in a thread of its own that no end of the process waits for."""

    def __init__(self) -> None:
        self._under_way = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if self._under_way >= MAX_LOOKUPS:
            raise OSError(errno.EAGAIN, "too many names are being looked up: the system's resolver hangs")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[tuple[Any, ...]]] = loop.create_future()
        self._under_way += 1
        threading.Thread(target=self._ask, args=(loop, found, host, port, family), daemon=True).start()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=its_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for its_family, _, protocol, _, address in await found
        ]

    def _ask(
        self,
        loop: asyncio.AbstractEventLoop,
        found: asyncio.Future[Sequence[tuple[Any, ...]]],
        host: str,
        port: int,
        family: int,
    ) -> None:
        answer: Sequence[tuple[Any, ...]] | OSError
        try:
            answer = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        except OSError as error:
            answer = error
        except UnicodeError:
            answer = OSError(errno.EINVAL, f"{host} can't be a name")
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(self._answer, found, answer)

    def _answer(
        self, found: asyncio.Future[Sequence[tuple[Any, ...]]], answer: Sequence[tuple[Any, ...]] | OSError
    ) -> None:
        self._under_way -= 1
        if found.done():
            return
        if isinstance(answer, OSError):
            found.set_exception(answer)
        else:
            found.set_result(answer)

    async def close(self) -> None:
        pass
