"""The live overview: one snapshot a second, made and written once for all who listen, and none while nobody does.

A stream is a connection whose answer has begun; nothing waits for it, and each second the same bytes are given to all
of them. One whose client does not read is passed over, since the next snapshot says all that this one would have said;
if it goes on so, it is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from geartrain.web.overview import overview_of
from geartrain.web.protocol import framed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.web.face import Face
    from geartrain.web.protocol import Protocol

log: Final = logging.getLogger("geartrain.web")

MAX_STREAMS: Final = 200
STUCK_SECONDS: Final = 30.0  # that a client may leave unread what it was sent
EVERY: Final = 1.0  # seconds
_AFTER: Final = 0.15  # seconds behind a whole one, when the history has looked at the one before
_PAGE: Final = 200  # functions that are looked at in one go
_BEGIN: Final = b"retry: 1000\n\n"  # milliseconds after which a browser comes back


class TooManyError(Exception):
    """There are as many streams as there may be."""


class Stream:
    """One who listens; ``ended`` is done when the stream is to end."""

    def __init__(self, protocol: Protocol, ended: asyncio.Future[None]) -> None:
        self.protocol = protocol
        self.ended = ended
        self.has_begun = False  # its answer
        self.stuck_since = 0.0

    def end(self) -> None:
        """Let go of it."""
        if not self.ended.done():
            self.ended.set_result(None)


class Live:
    """All who listen."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._streams: dict[Stream, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._newest = b""  # the last snapshot as an event, while somebody listens
        self._seen: tuple[object, ...] = ()
        self._revision = 0

    @property
    def streams(self) -> int:
        """How many listen."""
        return len(self._streams)

    def enter(self, protocol: Protocol) -> Stream:
        """One more listens, and is told the newest at once. Raises TooManyError."""
        if len(self._streams) >= MAX_STREAMS:
            raise TooManyError
        loop = self._face.host.loop
        stream = Stream(protocol, loop.create_future())
        self._streams[stream] = None
        if self._task is None:
            self._task = loop.create_task(self._run())
        return stream

    @property
    def beginning(self) -> bytes:
        """What a stream begins with."""
        return _BEGIN + self._newest

    def leave(self, stream: Stream) -> None:
        """One listens no more."""
        self._streams.pop(stream, None)
        if not self._streams and self._task is not None:
            self._task.cancel()
            self._task = None
            self._newest = b""

    def stop(self) -> None:
        """The daemon stops: end all streams."""
        for stream in list(self._streams):
            stream.end()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                self._newest = await self._make()
                self._tell()
            except Exception:  # the next second may be better
                log.exception("extension_failed", extra={"fields": {"extension": "Live", "method": "make"}})
            await asyncio.sleep(EVERY + _AFTER - time.time() % EVERY)

    async def _make(self) -> bytes:
        """The snapshot as an event."""
        oldest = 0.0
        for waited in self._oldest_waiting():
            oldest = waited
            await asyncio.sleep(0)
        self._face.host.open_iteration()
        overview = overview_of(self._face, time.time(), oldest, (), 0, self._look())
        return b"event: overview\ndata: " + overview.model_dump_json().encode() + b"\n\n"

    def _look(self) -> int:
        """The revision, which grows when something is not as it was at the last look."""
        server = self._face.server
        seen = (
            int(server.next_number),
            int(server.peer_roll.last_place),
        )
        if seen != self._seen:
            self._seen = seen
            self._revision += 1
        return self._revision

    def _oldest_waiting(self) -> Iterator[float]:
        """How long the longest waiting job has waited, of more and more functions."""
        server = self._face.server
        at, until = 0, server.function_roll.last_place
        first = server.now
        while page := server.function_roll.page(at, until, _PAGE):
            at = page[-1].place
            for function in page:
                for queue in (function.high, function.normal, function.low):
                    if queue.count:
                        for job in (queue.first, queue.first_lost):
                            if job is not None and job.queued_at < first:
                                first = job.queued_at
            yield max(server.now - first, 0.0)

    def _tell(self) -> None:
        piece = framed(self._newest)
        now = self._face.host.loop.time()
        for stream in list(self._streams):
            protocol = stream.protocol
            if not protocol.is_stuck:
                stream.stuck_since = 0.0
                if stream.has_begun:
                    protocol.push(piece)
            elif not stream.stuck_since:
                stream.stuck_since = now
            elif now - stream.stuck_since > STUCK_SECONDS:
                protocol.transport.abort()
