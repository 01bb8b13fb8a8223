"""One HTTP connection: uvicorn's, with bounds on what it may send and how long that may take.

uvicorn takes any number of headers of any length and waits for them for ever. Here a head has a size and a time, a
connection that is idle ends, and there are so many connections at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from geartrain.web.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    import asyncio

    from geartrain.web.face import Face

MAX_HEAD: Final = 64 * 1024  # bytes of the request line and the headers
MAX_HEADERS: Final = 100
HEAD_SECONDS: Final = 10.0  # from the connection, or the first byte, to the end of the head
MAX_JOINED: Final = 64 * 1024  # bytes that wait for others to be written with them
MAX_PIPELINED: Final = 32  # requests that came before the answer to one

Name = tuple[Any, Any]  # the addresses of both ends, as a socket tells them


class JoinedWrites:
    """A transport that writes once in a turn of the loop: uvicorn writes head and body one after the other."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, name: Name | None = None) -> None:
        self._transport = transport
        self._loop = loop
        self._name = name
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_JOINED:  # so that a reader who is slow is noticed
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if self._name is None:
            return self._transport.get_extra_info(name, default)
        return {"peername": self._name[0], "sockname": self._name[1]}.get(name, default)

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            if not self._transport.is_closing():
                self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """A connection to the HTTP face."""

    face: Face  # of the class that the extension makes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self.head_since = 0.0  # the loop's time when a head began to be waited for; 0: none is
        self.is_whole = False  # the last request has come to its end
        self._head = 0
        self._ended = 0  # requests
        self._is_in_head = True
        self._leave: Callable[[], None] = _nothing
        self._is_lost = False

    @property
    def has_answered(self) -> bool:
        """Whether the answer to the request at hand has begun."""
        return self.cycle.response_started

    def on_lost(self, leave: Callable[[], None]) -> None:
        """Call ``leave`` when the client goes away, at once if it has gone."""
        self._leave = leave
        if self._is_lost:
            leave()

    @property
    def is_stuck(self) -> bool:
        """Whether the client does not read what it was sent."""
        return self.flow.write_paused

    def push(self, data: bytes) -> None:
        """Send more of an answer that has begun and whose length was not told, at once, from outside of its task."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    @property
    def unread(self) -> int:
        """Bytes of answers that the client has not read."""
        return int(self.transport.get_write_buffer_size())

    def abort(self) -> None:
        """The client does not read."""
        self.face.host.on_abort(None, self.unread)
        self.transport.abort()

    def begin(self, transport: asyncio.Transport, name: Name | None) -> None:
        """Serve a connection that has come about; ``name`` is that of its two ends if the transport knows none."""
        self.connection_made(cast("asyncio.Transport", JoinedWrites(transport, self.loop, name)))
        self.head_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.head_since = 0.0
        self.face.host.unread.forget(self)
        self._is_lost = True
        self._leave()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        host = self.face.host
        host.unread.note(self, self.unread)
        host.relieve()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.face.host.unread.forget(self)

    def data_received(self, data: bytes) -> None:
        if self.head_since == 0 and self._is_in_head:
            self.head_since = self.loop.time()
        has_ended = self._ended
        super().data_received(data)
        if self._is_in_head:
            # Behind the end of another request it is a part of what came, which is not much.
            self._head = self._head + len(data) if self._ended == has_ended else 1
            if self._head > MAX_HEAD:
                self._break_off(431, "head-too-large", f"The head of a request has {MAX_HEAD} bytes at most")
        if len(self.pipeline) > MAX_PIPELINED:
            self._break_off(400, "too-many-requests", f"{MAX_PIPELINED} requests may come before an answer is read")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self.is_whole = False
        self.scope["geartrain.protocol"] = self  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) == MAX_HEADERS:
            self._break_off(431, "too-many-headers", f"A request has {MAX_HEADERS} headers at most")

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head = 0
        self.head_since = 0.0
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.is_whole = True
        self._is_in_head = True
        self._ended += 1
        if self.cycle is not None:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        self._break_off(400, "not-http", "This request is not HTTP/1.1 as RFC 9112 has it; the connection is closed")

    def break_off_late(self) -> None:
        """The head of a request has not come in time."""
        if self._head > 0:
            detail = f"The head of the request has not come within {HEAD_SECONDS:g} s"
            self._break_off(408, "too-slow", detail)
        else:
            self.transport.close()

    def _break_off(self, status: int, slug: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        problem = Problem(status, slug, detail)
        body = problem.body()
        head = (
            f"HTTP/1.1 {status} {problem.members()['title']}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def _nothing() -> None:
    pass
