"""What happens to single jobs, kept for a while for those who follow them: one stream of numbered events for each job.

A stream begins when somebody asks for it, or with the submission, so that whoever connects a moment later has missed
nothing. Readers hold a place in it and nothing else: a slow one costs no more than a fast one, and is told by a ``gap``
what fell out before it came. An event is known by its stream and its number there, so that a reader may come back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, final

from geartrain.jobserver import watching
from geartrain.jobserver.model import DEAD, RUNNING
from geartrain.jobserver.results import COMPLETED

if TYPE_CHECKING:
    from collections.abc import Callable

    from geartrain.jobserver import JobServer

KEPT: Final = 60.0  # seconds for which the stream of a job that has ended is there for readers
MAX_EVENTS: Final = 1000  # of one job
MAX_SIZE: Final = 256 * 1024  # bytes of them; data that alone is larger is left out
MAX_TOTAL: Final = 64 * 1024 * 1024  # bytes of all streams
MAX_STREAMS: Final = 50_000
MAX_READERS: Final = 500
EVENT_COST: Final = 200  # bytes that an event takes beside its data
STREAM_COST: Final = 1000
TIDY_EVERY: Final = 5.0  # seconds
GAP: Final = b"gap"  # events fell out before they were read
PAUSE: Final = 0.1  # seconds between two calls of all who wait for a job's events; the first comes at once
_SHARE: Final = 64 * 1024  # bytes that a reader is given at once

T = TypeVar("T")


class TooManyError(Exception):
    """There are as many readers or streams as there may be."""


class Told(NamedTuple):
    """One event as a reader gets it."""

    id: str
    event: bytes
    data: bytes
    size: int
    """How long the data was: more than there is of it where it was too large to be kept; of a ``gap``, how many events
    fell out, -1 if nobody knows."""


@final
class Stream:
    """The last events of one job; ``first`` is the number of the oldest one kept."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.mark = f"{random.getrandbits(32):08x}"  # tells it from an earlier one of this job, also after a restart
        self.events: deque[tuple[bytes, bytes, int]] = deque()
        self.first = 1
        self.size = STREAM_COST
        self.readers = 0
        self.ended = False
        self.until = 0.0
        self.news: asyncio.Future[None] | None = None  # for those who wait for the next event
        self.written: tuple[object, int, int, Any] | None = None  # what a reader was given last, for others beside it
        self._timer: asyncio.TimerHandle | None = None
        self._woken_at = 0.0  # the loop's time

    @property
    def next(self) -> int:
        """The number of the event that comes next."""
        return self.first + len(self.events)

    def add(self, event: bytes, data: bytes) -> None:
        """One more event; the oldest ones go as far as there are too many."""
        kept = data if len(data) + EVENT_COST + STREAM_COST <= MAX_SIZE else b""
        self.events.append((event, kept, len(data)))
        self.size += len(kept) + EVENT_COST
        self.ended = event in watching.ENDS
        while len(self.events) > MAX_EVENTS or self.size > MAX_SIZE:
            self.drop()

    def drop(self) -> None:
        """The oldest event falls out."""
        self.size -= len(self.events.popleft()[1]) + EVENT_COST
        self.first += 1

    def announce(self) -> None:
        """There is news: those who wait are woken together, and not for every word of a busy job."""
        if self.news is None or self._timer is not None:
            return
        loop = self.news.get_loop()
        left = self._woken_at + PAUSE - loop.time()
        if left <= 0:
            self.wake()
        else:
            self._timer = loop.call_later(left, self.wake)

    def wake(self) -> None:
        """Wake those who wait, at once."""
        news = self.news
        self.news = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if news is not None and not news.done():
            self._woken_at = news.get_loop().time()
            news.set_result(None)


@final
class Reader:
    """A place in a stream; ``close`` it in the end."""

    def __init__(self, events: Events, stream: Stream, last: str) -> None:
        self._events = events
        self._stream = stream
        self._is_open = True
        mark, number = _read_id(last)
        self._at = 1
        self._lost = bool(last)  # whether what it has read last is not of this stream
        if mark == stream.mark:
            self._at = min(number + 1, stream.next)
            self._lost = False

    @property
    def is_over(self) -> bool:
        """Whether it has been given the last event, or the server is about to stop."""
        return self._events.stopped or (self._stream.ended and self._at >= self._stream.next)

    def take(self, write: Callable[[list[Told]], T]) -> T | None:
        """What ``write`` makes of the events that have not been given yet, or of the first of them; None: of none.

        Readers that stand at the same place are given the same object.
        """
        stream = self._stream
        if self._lost or self._at < stream.first:
            missed = -1 if self._lost else stream.first - self._at
            self._at = stream.first
            self._lost = False
            return write([Told(f"{stream.mark}-{stream.first - 1}", GAP, b"", missed)])
        if self._at >= stream.next:
            return None
        begin = self._at
        written = stream.written
        if written is None or written[:3] != (write, begin, stream.next):
            told: list[Told] = []
            left = _SHARE
            for event, data, size in islice(stream.events, begin - stream.first, None):
                end = "-end" if event in watching.ENDS else ""
                told.append(Told(f"{stream.mark}-{begin + len(told)}{end}", event, data, size))
                left -= len(data) + EVENT_COST
                if left <= 0:
                    break
            self._at += len(told)
            written = stream.written = (write, begin, self._at, write(told))
        self._at = written[2]
        result: T = written[3]
        return result

    async def wait(self, seconds: float) -> bool:
        """Wait until there is something to take or it is over; False: not within so many seconds."""
        stream = self._stream
        if self._lost or self._at < stream.next or self.is_over:
            return True
        if stream.news is None:
            stream.news = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([stream.news], timeout=seconds)
        return bool(done)

    def close(self) -> None:
        """It reads no more."""
        if self._is_open:
            self._is_open = False
            self._events.leave(self._stream)


@final
class Events:
    """The streams of all jobs that are followed. The sizes of all are bounded; what nobody reads goes first."""

    def __init__(self, server: JobServer, now: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._now = now
        self._streams: dict[int, Stream] = {}
        # The longest quiet first.
        self._unread: OrderedDict[Stream, None] = OrderedDict()
        self._read: OrderedDict[Stream, None] = OrderedDict()
        self._ended: OrderedDict[Stream, None] = OrderedDict()
        self._size = 0
        self._readers = 0
        self._timer: asyncio.TimerHandle | None = None
        self.stopped = False

    def start(self) -> None:
        """Begin to forget, in the running loop, the streams of jobs that have ended."""
        self.tidy()
        self._timer = asyncio.get_running_loop().call_later(TIDY_EVERY, self.start)

    def stop(self) -> None:
        """End all readers; they may come back to the next server."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for stream in self._streams.values():
            stream.wake()

    @property
    def size(self) -> int:
        """About how many bytes all streams take."""
        return self._size

    @property
    def readers(self) -> int:
        """How many readers there are."""
        return self._readers

    def follow(self, number: int) -> bool:
        """Keep what happens to the job of this number from now on.

        False: there is no such job that waits or runs, or it can't be watched.
        """
        is_followed = self._follow(number) is not None
        self._make_room()
        return is_followed

    def open(self, number: int, last: str = "") -> Reader | None:
        """A reader of a job's events, from behind the one with the id ``last`` on; None if nothing is known of the job.

        Of a job that has ended unseen, and has left a result or a dead letter, it is given its end alone. Raises
        TooManyError.
        """
        stream = self._follow(number) or self._streams.get(number) or self._end_of(number)
        if stream is None:
            if self._server.jobs.get(number) is not None:
                raise TooManyError
            if not last.endswith("-end"):
                return None
            stream = Stream(number)
            stream.ended = True
        if last.endswith("-end") and not last.startswith(stream.mark):  # it has missed nothing of this life of the job
            last = f"{stream.mark}-{stream.next}" if stream.ended else ""
        if self._readers >= MAX_READERS:
            raise TooManyError
        self._readers += 1
        stream.readers += 1
        if self._streams.get(number) is stream:
            self._unread.pop(stream, None)
            self._read[stream] = None
            self._make_room()
        return Reader(self, stream, last)

    def knows(self, number: int) -> bool:
        """Whether there is anything to be read of a job, or may be."""
        server = self._server
        return number in self._streams or server.jobs.get(number) is not None or number in server.results.by_number

    def tell(self, number: int, event: bytes, data: bytes) -> None:
        """What the job server says of a job that is followed."""
        stream = self._streams.get(number)
        if stream is None:
            return
        self._add(stream, event, data)
        order = self._read if stream.readers else self._unread
        order.move_to_end(stream)
        if stream.ended:
            stream.until = self._now() + KEPT
            self._ended[stream] = None
        self._make_room()
        stream.announce()

    def leave(self, stream: Stream) -> None:
        """A stream has one reader less."""
        self._readers -= 1
        stream.readers -= 1
        if stream.readers == 0:
            stream.written = None
            if stream in self._read:
                del self._read[stream]
                self._unread[stream] = None

    def tidy(self) -> None:
        """Forget the streams whose time is over, unless somebody still reads them."""
        now = self._now()
        for stream in list(self._ended):
            if stream.until > now:
                break
            if stream.readers:
                stream.until = now + KEPT
                self._ended.move_to_end(stream)
            else:
                self._forget(stream)

    def _follow(self, number: int) -> Stream | None:
        stream = self._streams.get(number)
        if stream is not None and not stream.ended:
            return stream
        if not self._server.watch(number, self):
            return None
        if stream is not None:  # a dead letter that is tried again
            self._forget(stream)
        stream = self._streams[number] = Stream(number)
        self._unread[stream] = None
        self._size += stream.size
        job = self._server.jobs.get(number)
        if job is not None and job.state == RUNNING:
            self._add(stream, watching.ASSIGNED, b"%d" % (job.attempts + 1))
            if job.denominator:
                self._add(stream, watching.STATUS, b"%d/%d" % (job.numerator % 2**32, job.denominator % 2**32))
        return stream

    def _add(self, stream: Stream, event: bytes, data: bytes) -> None:
        self._size -= stream.size
        stream.add(event, data)
        self._size += stream.size

    def _make_room(self) -> None:
        """What is longest quiet goes: whole streams that nobody reads, and then events of the others."""
        while self._unread and (self._size > MAX_TOTAL or len(self._streams) > MAX_STREAMS):
            self._forget(next(iter(self._unread)))
        while self._size > MAX_TOTAL and self._read:
            stream = next(iter(self._read))
            self._size -= stream.size
            if stream.events:
                stream.drop()
            else:
                self._read.move_to_end(stream)
            self._size += stream.size

    def _forget(self, stream: Stream) -> None:
        if not stream.ended:
            self._server.unwatch(stream.number, self)
        del self._streams[stream.number]
        self._unread.pop(stream, None)
        self._read.pop(stream, None)
        self._ended.pop(stream, None)
        self._size -= stream.size

    def _end_of(self, number: int) -> Stream | None:
        """A stream of the one event that is still known of a job that has ended."""
        stream = Stream(number)
        letter = self._server.dead.all.get(number)
        result = self._server.results.by_number.get(number)
        job = self._server.jobs.get(number)
        if letter is not None:
            stream.add(watching.DEAD, letter.text)
        elif result is not None and (job is None or job.state == DEAD):
            stream.add(watching.COMPLETED if result.outcome == COMPLETED else watching.FAILED, result.data)
        else:
            return None
        return stream


def _read_id(text: str) -> tuple[str, int]:
    mark, _, rest = text.partition("-")
    number = rest.removesuffix("-end")
    return (mark, int(number)) if number.isascii() and number.isdigit() and len(number) < 20 else ("", 0)
