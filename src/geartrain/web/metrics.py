"""``/metrics``: what the job server counts, for Prometheus and whatever else reads its text or OpenMetrics.

The functions are gone through some at a time, so that the job server goes on meanwhile. Whoever asks while the text is
made, or within a second after, gets the same one; only so many answers are under way at once, since each keeps its text
until its client has read it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

from geartrain.daemon.fleet_view import STATES
from geartrain.daemon.gauges import SIZES
from geartrain.jobserver import snapshot
from geartrain.jobserver.histogram import BOUNDS
from geartrain.version import VERSION
from geartrain.web import families
from geartrain.web.exposition import Exposition, histogram, labels, line, media_type
from geartrain.web.families import COUNTERS, GAUGES, HISTOGRAMS, WAITING, Family
from geartrain.web.names import to_text
from geartrain.web.problems import Problem
from geartrain.web.seats import OTHER, PRIORITIES, Numbers, Seats
from geartrain.wire.primitives import COMPILED

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from geartrain.daemon.fleet_view import FleetView
    from geartrain.daemon.gauges import Sizes
    from geartrain.jobserver.histogram import Histogram
    from geartrain.jobserver.snapshot import FunctionView
    from geartrain.web.face import Face

AT_ONCE: Final = 50  # functions
LOOKED_AT_ONCE: Final = 500
GOOD_FOR: Final = 1.0  # seconds
MAX_ANSWERS: Final = 5  # under way
WRITTEN_AT_ONCE: Final = 256 * 1024  # bytes
LONGEST_ACCEPT: Final = 1000  # letters that are looked at; Prometheus sends some 300
READ_WITHIN: Final = 30.0  # seconds, else the client is dropped
_BOUNDS: Final = [repr(bound) for bound in BOUNDS]
_SIZES: Final = [repr(float(size)) for size in SIZES]
_SPLIT: Final = len(COUNTERS)
_TIMES: Final = len(BOUNDS) + 2  # numbers of a histogram: its buckets and its sum


class Metrics:
    """Makes the text, and answers with it."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._seats = Seats(face.config.metrics_functions)
        self._started = time.time()
        self._made: Exposition | None = None
        self._making: asyncio.Task[Exposition] | None = None
        self.answers = 0  # under way

    def routes(self) -> list[Route]:
        return [Route("/metrics", self._answer)]

    async def _answer(self, request: Request) -> Response:
        request.scope["identity"].need("read")
        if self.answers >= MAX_ANSWERS:
            detail = f"{self.answers} others read the metrics at the moment: try again"
            raise Problem(503, "too-much", detail, headers={"Retry-After": "1"})
        return _Text(self, media_type(",".join(request.headers.getlist("accept"))[:LONGEST_ACCEPT]))

    async def exposition(self) -> Exposition:
        """The metrics as they are now, or were a second ago."""
        if self._made is not None:
            return self._made
        if self._making is None:
            self._making = asyncio.create_task(self._make())
        return await asyncio.shield(self._making)  # others wait for it as well

    async def _make(self) -> Exposition:
        try:
            self._made = await self._collect()
            self._face.host.loop.call_later(GOOD_FOR, self._forget)
            return self._made
        finally:
            self._making = None

    def _forget(self) -> None:
        self._made = None

    # ── what is told ────────────────────────────────────────────────────────────────────────────────────────────

    async def _collect(self) -> Exposition:
        made = Exposition()
        self._add_server(made)
        server, seats = self._face.server, self._seats
        until = int(server.function_roll.last_place)
        seats.begin(server.functions, server.forgotten, until)
        all_fit = len(server.functions) <= seats.limit
        if not all_fit:
            walk = snapshot.functions(server)
            while page := list(islice(walk, LOOKED_AT_ONCE)):
                for view in page:
                    seats.look(view)
                await asyncio.sleep(0)
            seats.choose()
        folded = _Folded()
        walk = snapshot.functions(server)
        while page := list(islice(walk, AT_ONCE)):
            told: list[tuple[str, FunctionView, list[Numbers | None]]] = []
            for view in page:
                if view.place > until:  # it has come meanwhile
                    continue
                rows = seats.take(view, all_fit)
                if rows is None:
                    folded.add(view)
                else:
                    told.append((to_text(view.name), view, rows))
            if told:
                _add_functions(made, told)
            await asyncio.sleep(0)
        others = seats.others()
        if folded.count or any(others):
            _add_functions(made, [(OTHER, folded, others)])
        return made

    def _add_server(self, made: Exposition) -> None:
        """What is told of the job server as a whole."""
        face = self._face
        server, config, gauges = face.server, face.config, face.host.gauges
        totals = snapshot.totals(server)
        build = labels(version=VERSION, core="compiled" if COMPILED else "interpreted")
        made.add(families.BUILD, [line(families.BUILD, 1, build)])
        of_workers = {"all": totals.workers, "busy": totals.busy, "idle": totals.idle}
        jobs = {name: getattr(totals, name) for name in ("queued", "running", "delayed", "blocked")}
        for family, by_state in ((families.CONNECTED_WORKERS, of_workers), (families.JOBS, jobs)):
            made.add(family, [line(family, count, labels(state=state)) for state, count in by_state.items()])
        calls = {name: getattr(face.webhooks, name) for name in ("delivered", "failed", "dropped")}
        made.add(
            families.WEBHOOKS, [line(families.WEBHOOKS, count, labels(outcome=name)) for name, count in calls.items()]
        )
        values: dict[Family, float] = {
            families.CONNECTIONS: totals.connections,
            families.CONNECTIONS_LIMIT: config.max_connections,
            families.FUNCTIONS: totals.functions,
            families.MEMORY: totals.memory,
            families.DRAINING: int(server.draining),
            families.ITERATIONS: int(server.iterations),
            families.WEBHOOKS_PENDING: face.webhooks.pending,
            families.EVENT_READERS: face.events.readers,
            families.LIVE_STREAMS: face.live.streams,
            families.HTTP_REFUSED: face.refused,
            families.START_TIME: self._started,
            families.CPU: time.process_time(),
        }
        if config.max_memory:
            values[families.MEMORY_LIMIT] = int(config.max_memory)
        if server.durable:
            values[families.STORE_UP] = int(not server.store.trouble)
            values[families.STORE_COMMITS] = gauges.commits
            values[families.STORE_REFUSALS] = gauges.commits_refused
        if face.host.fleet is not None:
            values |= _add_fleet(made, face.host.fleet)
        with suppress(OSError), open("/proc/self/statm", "rb") as file:
            values[families.RESIDENT] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for family, value in values.items():
            made.add(family, [line(family, value)])
        histograms: list[tuple[Family, list[str], Histogram | Sizes]] = [(families.LOOP_LAG, _BOUNDS, gauges.loop_lag)]
        if server.durable:
            histograms.append((families.STORE_COMMIT_SECONDS, _BOUNDS, gauges.commit_seconds))
            histograms.append((families.STORE_BATCH, _SIZES, gauges.batch_jobs))
        for family, bounds, each in histograms:
            made.add(family, histogram(family.name, bounds, each.counts, each.sum))


def _add_fleet(made: Exposition, fleet: FleetView) -> dict[Family, float]:
    """What is told of a fleet by state; the rest, which has one value each."""
    counts = dict.fromkeys(("live", "left", "dead"), 0)
    for member in fleet.members:
        counts[member.state] = counts.get(member.state, 0) + 1
    is_in = {state: int(state == fleet.state) for state in STATES}
    for family, by_state in ((families.FLEET_STATE, is_in), (families.FLEET_MEMBERS, counts)):
        made.add(family, [line(family, count, labels(state=state)) for state, count in by_state.items()])
    return {
        families.FLEET_EPOCH: fleet.me,
        families.FLEET_LEASE: round(fleet.lease_ends - time.monotonic(), 3),
        families.FLEET_LEADER: int(fleet.leader),
        families.FLEET_ADOPTED: fleet.adopted_jobs,
        families.FLEET_MOVED: fleet.moved_away,
        families.FLEET_FENCED: fleet.fenced,
        families.FLEET_PULSES: fleet.pulses,
        families.FLEET_PULSE_SECONDS: round(fleet.pulse_seconds, 6),
    }


class _Folded:
    """What is true now of the functions that are told together."""

    def __init__(self) -> None:
        self.count = 0
        self.high = self.normal = self.low = 0
        self.delayed = self.blocked = self.running = self.dead = self.workers = self.busy = self.idle = 0
        self.oldest_waiting = 0.0
        self.paused = False

    def add(self, view: FunctionView) -> None:
        self.count += 1
        self.high += view.high
        self.normal += view.normal
        self.low += view.low
        self.delayed += view.delayed
        self.blocked += view.blocked
        self.running += view.running
        self.dead += view.dead
        self.workers += view.workers
        self.busy += view.busy
        self.idle += view.idle
        self.oldest_waiting = max(self.oldest_waiting, view.oldest_waiting)
        self.paused = self.paused or view.paused


def _add_functions(made: Exposition, told: Sequence[tuple[str, FunctionView | _Folded, list[Numbers | None]]]) -> None:
    """All metrics of some functions."""
    counted: list[tuple[str, Numbers]] = []
    waiting: list[str] = []
    gauges: dict[str, list[str]] = {name: [] for name in GAUGES}
    for name, view, rows in told:
        for priority, row, queued in zip(PRIORITIES, rows, (view.high, view.normal, view.low), strict=True):
            labelled = labels(function=name, priority=priority)
            if row is not None:
                counted.append((labelled, row))
            if row is not None or queued or priority == "normal":
                waiting.append(line(WAITING, queued, labelled))
        labelled = labels(function=name)
        for key, family in GAUGES.items():
            gauges[key].append(line(family, float(getattr(view, key)), labelled))
    for at, family in enumerate(COUNTERS.values()):
        made.add(family, [line(family, row[at], labelled) for labelled, row in counted])
    for at, family in enumerate(HISTOGRAMS.values()):
        made.add(family, _histograms(family, _SPLIT + at * _TIMES, counted))
    made.add(WAITING, waiting)
    for key, family in GAUGES.items():
        made.add(family, gauges[key])


def _histograms(family: Family, begin: int, counted: list[tuple[str, Numbers]]) -> Iterator[str]:
    end = begin + _TIMES - 1
    for labelled, row in counted:
        yield from histogram(family.name, _BOUNDS, row[begin:end], row[end], labelled)


class _Text(Response):
    """The answer: its text is made when it is sent, and counts as long as it is read."""

    def __init__(self, metrics: Metrics, media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"cache-control": "no-store", "vary": "Accept"})
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics.answers += 1
        try:
            pieces = (await self._metrics.exposition()).pieces(str(self.media_type))
            self.headers["content-length"] = str(sum(map(len, pieces)))
            async with asyncio.timeout(READ_WITHIN):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                sent = 0
                for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    sent += len(piece)
                    if sent >= WRITTEN_AT_ONCE:  # what is sent in one turn is joined, whoever reads how slowly
                        sent = 0
                        await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            scope["geartrain.protocol"].transport.abort()
        finally:
            self._metrics.answers -= 1
