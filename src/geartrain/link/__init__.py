"""The link: one byte pipe to one job server, once for blocking code and once for asyncio.

A link knows addresses, sockets, TLS and pauses, and nothing of packets; the sessions above it know packets and nothing
of sockets. It needs the standard library alone.
"""

from geartrain.link.address import Address, parse_addresses
from geartrain.link.asynchronous import AsyncLink
from geartrain.link.backoff import Backoff
from geartrain.link.blocking import BlockingLink

__all__ = ["Address", "AsyncLink", "Backoff", "BlockingLink", "parse_addresses"]
