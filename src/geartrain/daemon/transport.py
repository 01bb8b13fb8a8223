"""What carries bytes between the sockets and the job server: compiled code around epoll, or a transport of asyncio's.

``epoll`` is made for this job server and the faster one; it is there where it could be compiled, on Linux. ``asyncio``
is there everywhere, and runs on uvloop where that is installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    import asyncio

Transport = Literal["auto", "epoll", "asyncio"]

EPOLL: Final = "epoll"
ASYNCIO: Final = "asyncio"


class Listener(Protocol):
    """A bound socket at which connections are accepted, once it is told to."""

    async def start_serving(self) -> None: ...

    def close(self) -> None: ...


def has_epoll() -> bool:
    """Whether the transport around epoll has been compiled."""
    return importlib.util.find_spec("geartrain.daemon._epoll") is not None


def has_uvloop() -> bool:
    """Whether asyncio's transport runs on uvloop."""
    return importlib.util.find_spec("uvloop") is not None


def choose(wanted: Transport) -> str:
    """The transport that ``wanted`` means here."""
    if wanted == "auto":
        return EPOLL if has_epoll() else ASYNCIO
    return wanted


def loop_factory(transport: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop for a transport; None means asyncio's usual one."""
    if transport == EPOLL:
        from geartrain.daemon.epoll import EpollLoop

        return EpollLoop
    if has_uvloop():
        import uvloop

        return uvloop.new_event_loop
    return None
