"""What came over HTTP, as the parts below the API see it: headers once, the body within bounds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

PACE: Final = 64 * 1024  # bytes a second, at which a body has to come at least, as with half-sent packets


class Bodies:
    """Reads bodies. ``most`` bounds one, ``most_of_all`` what is read of all at once, in bytes."""

    def __init__(self, most: int, most_of_all: int, seconds: float) -> None:
        self.most = most
        self.most_of_all = most_of_all
        self.seconds = seconds
        self.held = 0

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request. Raises Problem if it is too large or too slow, ConnectionError if the client went."""
        length = header(scope, b"content-length")
        if length.isdigit() and int(length) > self.most:
            raise self.too_large(int(length))
        message = await receive() if _is_here(scope) else await self._wait(receive, self.seconds)
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client has gone")
            return body
        return await self._collect(body, receive)

    async def _collect(self, first: bytes, receive: Receive) -> bytes:
        parts = [first]
        size = len(first)
        self._hold(size)
        deadline = asyncio.get_running_loop().time() + self.seconds
        try:
            while True:
                left = deadline + size / PACE - asyncio.get_running_loop().time()
                message = await self._wait(receive, left)
                if message["type"] == "http.disconnect":
                    raise ConnectionError("the client has gone")
                part: bytes = message.get("body", b"")
                if size + len(part) > self.most:
                    raise self.too_large(size + len(part))
                self._hold(len(part))
                size += len(part)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        finally:
            self.held -= size

    async def _wait(self, receive: Receive, seconds: float) -> Any:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                return await receive()
        except TimeoutError:
            detail = f"The body came too slowly: at least {PACE} bytes a second are to come (--packet-timeout)"
            raise Problem(408, "too-slow", detail, headers={"Connection": "close"}) from None

    def _hold(self, size: int) -> None:
        if self.held + size > self.most_of_all:
            detail = "Too much is being sent at the moment by all together: try again"
            raise Problem(503, "too-much", detail, headers={"Retry-After": "1", "Connection": "close"})
        self.held += size

    def too_large(self, size: int) -> Problem:
        """The refusal of a body of this size."""
        detail = f"A body of {size} bytes is above the limit of {self.most} (--max-packet)"
        return Problem(413, "too-large", detail, headers={"Connection": "close"})


def header(scope: Scope, name: bytes) -> str:
    """The first header of this name, in small letters; empty if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


def _is_here(scope: Scope) -> bool:
    """Whether nothing of the request has still to come, so that no clock is needed."""
    protocol = scope.get("geartrain.protocol")
    return protocol is not None and protocol.is_whole
