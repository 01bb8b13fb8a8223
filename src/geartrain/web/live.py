"""The live overview: one snapshot a second, made and written once for all who listen, and none while nobody does.

A stream is a connection whose answer has begun; nothing waits for it, and each second the same bytes are given to all
of them. One whose client does not read is passed over, since the next snapshot says all that this one would have said;
if it goes on so, it is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from geartrain.jobserver import snapshot
from geartrain.web.access import SESSION_SECONDS
from geartrain.web.overview import overview_of
from geartrain.web.turns import in_turns
from geartrain.web.wrong import LOOK_EVERY, Lookout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.daemon.config import Config
    from geartrain.daemon.extension import Host
    from geartrain.web.history import History

log: Final = logging.getLogger("geartrain.web")

MAX_STREAMS: Final = 200
LONGEST: Final = SESSION_SECONDS  # that a stream lasts: who comes back shows anew that it may read
STUCK_SECONDS: Final = 30.0  # that a client may leave unread what it was sent
EVERY: Final = 1.0  # seconds
PARTING: Final = 30.0  # seconds for which it is remembered what was wrong, for who comes back
_AFTER: Final = 0.15  # seconds behind a whole one, when the history has looked at the one before
_PAGE: Final = 200  # functions that are looked at in one go
_BEGIN: Final = b"retry: 1000\n\n"  # milliseconds after which a browser comes back


class TooManyError(Exception):
    """There are as many streams as there may be."""


class Connection(Protocol):
    """What a stream goes over."""

    @property
    def is_stuck(self) -> bool:
        """Whether the client does not read."""

    def push(self, data: bytes) -> None:
        """Send more of the answer."""

    def abort(self) -> None:
        """Drop it."""


class Stream:
    """One who listens; ``ended`` is done when the stream is to end."""

    def __init__(self, connection: Connection, ended: asyncio.Future[None]) -> None:
        self.connection = connection
        self.ended = ended
        self.has_begun = False  # its answer
        self.stuck_since = 0.0
        self.until = ended.get_loop().time() + LONGEST

    def end(self) -> None:
        """Let go of it."""
        if not self.ended.done():
            self.ended.set_result(None)


class Live:
    """All who listen."""

    def __init__(self, host: Host, config: Config, history: History) -> None:
        self._host = host
        self._config = config
        self._history = history
        self._streams: dict[Stream, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._newest = b""  # the last snapshot as an event, while somebody listens
        self._seen: tuple[object, ...] = ()
        self._revision = 0
        self._oldest = 0.0  # seconds that a job has waited at most
        self._lookout = Lookout(host)
        self._looked = -LOOK_EVERY  # the loop's time of its last look
        self._parting: asyncio.TimerHandle | None = None

    @property
    def streams(self) -> int:
        """How many listen."""
        return len(self._streams)

    def enter(self, connection: Connection) -> Stream:
        """One more listens, and is told the newest at once. Raises TooManyError."""
        if len(self._streams) >= MAX_STREAMS:
            raise TooManyError
        loop = self._host.loop
        stream = Stream(connection, loop.create_future())
        self._streams[stream] = None
        if self._parting is not None:
            self._parting.cancel()
            self._parting = None
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
            self._parting = self._host.loop.call_later(PARTING, self._lookout.forget)

    def stop(self) -> None:
        """The daemon stops: end all streams."""
        for stream in list(self._streams):
            stream.end()
        if self._task is not None:
            self._task.cancel()
        if self._parting is not None:
            self._parting.cancel()

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
        host, loop = self._host, self._host.loop
        host.open_iteration()
        if loop.time() - self._looked >= LOOK_EVERY:
            self._looked = loop.time()
            await in_turns(self._lookout.look())
        await in_turns(self._find_oldest())
        host.open_iteration()
        overview = overview_of(host.server, self._config, self._history, self._oldest, self._lookout, self._revise())
        return b"event: overview\ndata: " + overview.model_dump_json().encode() + b"\n\n"

    def _revise(self) -> int:
        """The revision, which grows when something is not as it was at the last look."""
        server = self._host.server
        totals = snapshot.totals(server)
        seen = (
            self._history.counted, int(server.next_number), int(server.abilities_registered),
            int(server.function_roll.last_place), int(server.peer_roll.last_place),
            totals.functions, totals.connections, totals.workers, totals.busy, totals.idle,
            totals.queued, totals.blocked, totals.delayed, totals.running, totals.dead,
        )  # fmt: skip
        if seen != self._seen:
            self._seen = seen
            self._revision += 1
        return self._revision

    def _find_oldest(self) -> Iterator[None]:
        """Find out how long the longest waiting job has waited."""
        server = self._host.server
        oldest = server.now
        behind, until = 0, server.function_roll.last_place
        while page := server.function_roll.page(behind, until, _PAGE):
            behind = page[-1].place
            for function in page:
                if function.queued:
                    oldest = min(oldest, snapshot.oldest_of(function, oldest))
            yield
        self._oldest = server.now - oldest

    def _tell(self) -> None:
        newest = self._newest
        now = self._host.loop.time()
        for stream in list(self._streams):
            connection = stream.connection
            if not connection.is_stuck:
                stream.stuck_since = 0.0
                if stream.has_begun:
                    connection.push(newest)
                if now > stream.until:
                    stream.end()
            elif not stream.stuck_since:
                stream.stuck_since = now
            elif now - stream.stuck_since > STUCK_SECONDS:
                connection.abort()
