"""What somebody should look at: the functions and the states of the job server that are not as they should be.

All functions, and the jobs that run, are looked at every few seconds while somebody wants to know, some at a time. What
a look finds is told until the next one: the worst first, and of each kind some, so that one kind does not hide others.

    lease_lapsed      of a fleet: the database can't be asked, and nothing that is stored is handed out
    store_down        the store takes no jobs
    memory_short      little is left of the memory that jobs may take
    draining          the job server is about to stop
    no_worker         jobs wait, and nobody can do them
    queue_full        a function has as many jobs as it may have
    stuck             a job runs far longer than nearly all others did, and tells nothing
    retry_storm       much of what starts was tried before
    dead_growing      jobs become dead letters
    paused_with_jobs  jobs wait, and somebody has paused their function

**Stuck** is only a job whose function has done many: it runs ten times as long as 99 % of them, and a minute at least.
It is watched from then on, and while it tells of data or progress it is not.
"""

from __future__ import annotations

import heapq
from operator import add
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args
from urllib.parse import quote

from pydantic import BaseModel, Field

from geartrain.jobserver import watching
from geartrain.jobserver.histogram import quantile
from geartrain.jobserver.rules.explaining import span
from geartrain.jobserver.shown import show_name
from geartrain.jobserver.snapshot import oldest_of
from geartrain.web.names import to_text
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from geartrain.daemon.extension import Host
    from geartrain.jobserver.model import Function, Gate, Job

Kind = Literal[
    "lease_lapsed",
    "store_down",
    "memory_short",
    "draining",
    "no_worker",
    "queue_full",
    "stuck",
    "retry_storm",
    "dead_growing",
    "paused_with_jobs",
]
_Began = dict[Kind, dict[bytes, float | None]]  # by function; b"" for the job server
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)  # the worst first

LOOK_EVERY: Final = 5.0  # seconds
MOST: Final = 50  # that are told
GRACE: Final = 5.0  # seconds that a job may wait without a worker: one may be about to come
MEMORY: Final = 0.8  # the share of --max-memory above which it is short
WINDOW: Final = 30.0  # seconds over which tries and deaths are counted, at least
STORM: Final = 1 / 3  # the share of starts that were tried before
STORM_COUNT: Final = 10  # tries again within the window, at least
KNOWN_JOBS: Final = 20  # that a function must have done for it to be known how long its jobs run
STUCK_TIMES: Final = 10  # as long as 99 % of them
STUCK_SECONDS: Final = 60.0  # at least
SILENT_BEFORE: Final = 10.0  # seconds that a job is watched before it is said to tell nothing
SILENT_SINCE: Final = 120.0  # seconds without a word from one that has told something
MAX_SUSPECTS: Final = 500  # jobs that are watched
_PAGE: Final = 100  # functions or connections
_JOBS: Final = 1000  # of one connection that are looked at
_EACH: Final = 5  # of each kind, before there is a second helping of any


class Remedy(BaseModel):
    """Where something can be done about it."""

    text: str = Field(description="What to do, as a button says it", examples=["Resume the function"])
    path: str = Field(description="Of the page, on this server", examples=["/dashboard/functions/resize"])


class Wrong(BaseModel):
    """One thing that is wrong."""

    kind: Kind
    function: str | None = Field(description="null: it concerns the whole job server")
    count: int = Field(description="Of the jobs that are concerned")
    since: float | None = Field(description="Since when, as a Unix time; null: it was so when it was looked at first")
    text: str = Field(
        description="What is wrong, as a sentence",
        examples=["12 jobs of resize wait, the longest for 3 min, and no worker can do them."],
    )
    remedy: Remedy


class _Words(NamedTuple):
    """What is told of something: a sentence, and what can be done on which page."""

    text: str
    remedy: str
    path: str


class _Sight(NamedTuple):
    """Something that was seen; of one kind those with the most jobs count most."""

    jobs: int
    name: bytes  # of the function
    since: float | None
    words: _Words


class _Suspect:
    """A job that runs for very long."""

    def __init__(self, assignment: int, now: float) -> None:
        self.assignment = assignment
        self.since = now  # monotonic
        self.sign = 0.0  # when it has told something; 0: never since it is watched
        self.seen = 0  # at which look it was there last

    def is_silent(self, now: float) -> bool:
        """Whether it has told nothing for so long that it may be stuck."""
        return now - self.sign > SILENT_SINCE if self.sign else now - self.since >= SILENT_BEFORE


class _Tally(NamedTuple):
    """What had been counted for a function at some time."""

    started: int
    again: int  # tries of what had been tried
    buried: int


class _Count:
    """What had been counted for all functions at some time, by their places on the roll."""

    def __init__(self, now: float) -> None:
        self.at = now
        self.tallies: dict[int, _Tally] = {}


class Lookout:
    """Looks for what is wrong; a ``Watcher`` of jobs that may be stuck."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._server = host.server
        self.found: list[Wrong] = []
        self.more = 0  # how much more there is than is told
        self._looks = 0
        self._suspects: dict[int, _Suspect] = {}  # by the job's number
        self._before = self._latest = _Count(0.0)
        # Of the look before: since when what was seen is so.
        self._began: _Began = {kind: {} for kind in KINDS}
        # Of the look that is under way.
        self._seen: _Began = {kind: {} for kind in KINDS}
        self._best: dict[Kind, list[_Sight]] = {}
        self._counted = 0

    def forget(self) -> None:
        """Nobody wants to know any more."""
        self._host.open_iteration()
        for number in list(self._suspects):
            self._drop(number)
        self.found = []
        self.more = self._looks = 0
        self._began = {kind: {} for kind in KINDS}
        self._before = self._latest = _Count(0.0)

    def look(self) -> Iterator[None]:
        """Look at everything once; a generator, which may be left alone for a moment."""
        self._host.open_iteration()
        self._best = {kind: [] for kind in KINDS}
        self._seen = {kind: {} for kind in KINDS}
        self._counted = 0
        self._looks += 1
        self._look_at_server()
        yield from self._look_at_functions()
        yield from self._look_at_running()
        self._began = self._seen
        chosen = sorted(
            (place // _EACH, KINDS.index(kind), place, sight)
            for kind, sights in self._best.items()
            for place, sight in enumerate(sorted(sights, reverse=True))
        )[:MOST]
        chosen.sort(key=lambda one: one[1:3])
        self.found = [_told(KINDS[rank], sight) for _, rank, _, sight in chosen]
        self.more = self._counted - len(chosen)

    def _see(
        self,
        kind: Kind,
        count: int,
        words: _Words | Callable[[], _Words],
        name: bytes = b"",
        since: float | None = None,
    ) -> None:
        """Something is wrong; ``since``, a Unix time, where it is known when it began.

        Of that of which there may be very much the words are only made where they are told.
        """
        if since is None:
            since = self._began[kind].get(name, None if self._looks == 1 else self._server.wall)
            self._seen[kind][name] = since
        self._counted += 1
        best = self._best[kind]
        if len(best) == MOST and count <= best[0].jobs:
            return
        sight = _Sight(count, name, since, words if isinstance(words, _Words) else words())
        if len(best) < MOST:
            heapq.heappush(best, sight)
        else:
            heapq.heapreplace(best, sight)

    # ── the job server ──────────────────────────────────────────────────────────────────────────────────────────

    def _look_at_server(self) -> None:
        server = self._server
        fleet = self._host.fleet
        if fleet is not None and fleet.state != "live":
            text = (
                "The lease lapsed: this job server could not tell its fleet's database in time that it lives, and "
                "hands out nothing that is stored; the log says why."
                if fleet.state == "lapsed"
                else "The fleet has taken this job server for dead, and its jobs over; it comes back as a new member."
            )
            lapsed = _Words(text, "Look at the settings", "/dashboard/settings")
            self._see("lease_lapsed", 0, lapsed)
        elif server.durable and server.store.trouble:
            text = "The store takes nothing at the moment, and background jobs are refused; the log says why."
            store = _Words(text, "Look at the settings", "/dashboard/settings")
            self._see("store_down", 0, store)
        memory, most = int(server.memory), int(server.max_memory)
        if most and memory > MEMORY * most:
            text = (
                f"Jobs and functions take {100 * memory // most} % of the memory that they may have (--max-memory); "
                "when all is taken, jobs are refused."
            )
            short = _Words(text, "Look at the functions with the most jobs", "/dashboard/functions?sort=total")
            self._see("memory_short", len(server.jobs), short)
        if server.draining:
            running = int(server.running)
            still = "None of its jobs runs any more" if not running else f"It waits for {_jobs(running)} to end"
            text = f"The job server is about to stop, and takes no jobs. {still}."
            draining = _Words(text, "Look at what still runs", "/dashboard/jobs?state=running")
            self._see("draining", running, draining)

    # ── functions ───────────────────────────────────────────────────────────────────────────────────────────────

    def _look_at_functions(self) -> Iterator[None]:
        server = self._server
        now = server.now
        latest = _Count(now)
        behind, until = 0, server.function_roll.last_place
        while page := server.function_roll.page(behind, until, _PAGE):
            behind = page[-1].place
            for function in page:
                if function.queued or function.blocked:
                    self._look_at_waiting(function)
                if function.limited or (function.policy is not None and function.policy.queue > 0):
                    self._look_at_queue(function)
                tally = _tally_of(function)
                if tally is not None:
                    latest.tallies[int(function.place)] = tally
                    self._look_at_outcomes(function, tally, now)
            yield
        if self._looks == 1:
            self._before = self._latest = latest
        elif now - self._latest.at >= WINDOW:
            self._before, self._latest = self._latest, latest

    def _look_at_waiting(self, function: Function) -> None:
        server = self._server
        waiting = int(function.queued + function.blocked)
        gate = function.gate
        if gate is not None and gate.paused:
            paused = span(server.wall - gate.paused_since)
            self._see(
                "paused_with_jobs",
                waiting,
                lambda: _Words(
                    f"{_name(function)} is paused since {paused} by {_who(gate)}, and {_wait(waiting)}.",
                    "Resume it",
                    _page(function),
                ),
                function.name,
                gate.paused_since,
            )
        elif function.workers == 0 and not server.draining:
            waited = server.now - oldest_of(function, server.now)
            if waited >= GRACE:
                self._see("no_worker", waiting, lambda: _no_worker(function, waiting, waited), function.name)

    def _look_at_queue(self, function: Function) -> None:
        total = int(function.total)
        policy = function.policy
        limits = [
            (limit, f"new ones of {priority} priority are refused")
            for limit, priority in (
                (function.max_high, "high"),
                (function.max_normal, "normal"),
                (function.max_low, "low"),
            )
            if 0 < limit <= total
        ]
        if policy is not None and 0 < policy.queue <= total:
            limits.append((policy.queue, "the oldest make room" if policy.drops_oldest else "new ones are refused"))
        if limits:
            limit, what = max(limits)
            text = f"{_name(function)} has {_jobs(total)} where {limit} may be: {what}."
            words = _Words(text, "Look at its workers and its limits", _page(function))
            self._see("queue_full", total, words, function.name)

    def _look_at_outcomes(self, function: Function, tally: _Tally, now: float) -> None:
        if self._looks == 1:
            return
        # What had none then is not there; that it had started none makes it no storm too early.
        before = self._before.tallies.get(int(function.place), _Tally(0, 0, 0))
        again = tally.again - before.again
        started = max(tally.started - before.started, again)
        if again >= STORM_COUNT and again >= STORM * started:
            text = (
                f"{again} of the {started} starts of {_name(function)} in the last {span(now - self._before.at)} "
                f"{_failed(function)}, and the jobs are tried again."
            )
            storm = _Words(text, "Look at its errors", _page(function))
            self._see("retry_storm", again, storm, function.name)
        buried = tally.buried - before.buried
        kept = int(self._server.dead.count(function))
        if buried > 0 and kept:
            text = (
                f"{_jobs(buried)} of {_name(function)} became dead letters in the last {span(now - self._before.at)}; "
                f"{kept} are kept."
            )
            dead = _Words(text, "Look at the dead letters", f"/dashboard/dead?function={_quoted(function)}")
            self._see("dead_growing", buried, dead, function.name)

    # ── jobs that run ───────────────────────────────────────────────────────────────────────────────────────────

    def _look_at_running(self) -> Iterator[None]:
        server = self._server
        usual: dict[int, float | None] = {}  # what nearly all jobs of a function have run at most, by its place
        stuck: dict[Function, tuple[int, Job]] = {}  # how many, and the longest
        behind, until = 0, server.peer_roll.last_place
        while page := server.peer_roll.page(behind, until, _PAGE):
            behind = page[-1].place
            for peer in page:
                left = _JOBS
                job = peer.running
                while job is not None and left:
                    left -= 1
                    function = job.function
                    if server.now - job.started_at > STUCK_SECONDS:
                        if function.place not in usual:
                            usual[int(function.place)] = _usual_of(function)
                        longest = usual[int(function.place)]
                        if longest is not None and self._is_stuck(job, longest):
                            count, oldest = stuck.get(function, (0, job))
                            stuck[function] = (count + 1, min(oldest, job, key=_started))
                    job = job.next
                yield
        for number in [number for number, suspect in self._suspects.items() if suspect.seen != self._looks]:
            self._drop(number)
        ago = server.wall - server.now
        for function, (count, job) in stuck.items():
            handle = as_text(server.handles.make(job.number))
            which = (
                f"A job of {_name(function)} runs"
                if count == 1
                else f"{count} jobs of {_name(function)} run, the longest"
            )
            text = (
                f"{which} for {span(server.now - job.started_at)}, where 99 % took "
                f"{span(max(usual[int(function.place)] or 0.0, 0.1))} at most, and tells nothing."
            )
            words = (
                _Words(text, "Look at the job", f"/dashboard/jobs/{quote(handle, safe='')}")
                if count == 1
                else _Words(text, "Look at the jobs", f"/dashboard/jobs?state=running&function={_quoted(function)}")
            )
            self._see("stuck", count, words, function.name, job.started_at + ago)

    def _is_stuck(self, job: Job, longest: float) -> bool:
        server = self._server
        if server.now - job.started_at <= max(STUCK_TIMES * longest, STUCK_SECONDS):
            return False
        number = int(job.number)
        suspect = self._suspects.get(number)
        if suspect is None or suspect.assignment != job.assignments:
            if suspect is None and len(self._suspects) >= MAX_SUSPECTS:
                return False
            self._host.open_iteration()
            if not server.watch(number, self):
                return False
            suspect = self._suspects[number] = _Suspect(int(job.assignments), server.now)
        suspect.seen = self._looks
        return suspect.is_silent(server.now)

    def tell(self, number: int, event: bytes, data: bytes) -> None:
        """What a suspect does."""
        suspect = self._suspects.get(number)
        if suspect is None:
            return
        if event in (watching.DATA, watching.WARNING, watching.STATUS):
            suspect.sign = self._server.now
        elif event in watching.ENDS:
            del self._suspects[number]

    def _drop(self, number: int) -> None:
        del self._suspects[number]
        self._server.unwatch(number, self)


def _tally_of(function: Function) -> _Tally | None:
    """What counts for tries and deaths; None: it has had none."""
    policy = function.policy
    is_policed = policy is not None and policy.attempts > 0
    started = again = buried = 0
    for counters in (function.counters, function.high_counters, function.low_counters):
        if counters is not None:
            started += counters.started
            again += counters.retried if is_policed else counters.lost
            buried += counters.buried
    return _Tally(started, again, buried) if again or buried or is_policed else None


def _usual_of(function: Function) -> float | None:
    """What 99 % of the runs of a function took at most; None: there were too few, or they were too long to tell."""
    counts: list[int] = []
    for counters in (function.counters, function.high_counters, function.low_counters):
        if counters is not None:
            more = counters.running.counts
            counts = list(map(add, counts, more)) if counts else more
    total = sum(counts)
    if total < KNOWN_JOBS or counts[-1] > total // 100:
        return None
    return quantile(counts, 0.99)


def _told(kind: Kind, sight: _Sight) -> Wrong:
    words = sight.words
    return Wrong(
        kind=kind,
        function=to_text(sight.name) if sight.name else None,
        count=sight.jobs,
        since=None if sight.since is None else round(sight.since, 3),
        text=words.text,
        remedy=Remedy(text=words.remedy, path=words.path),
    )


def _no_worker(function: Function, waiting: int, waited: float) -> _Words:
    text = (
        f"A job of {_name(function)} has waited {span(waited)}, and no worker can do it."
        if waiting == 1
        else f"{waiting} jobs of {_name(function)} wait, the longest for {span(waited)}, and no worker can do them."
    )
    return _Words(text, "See how to start a worker", _page(function))


def _started(job: Job) -> float:
    return job.started_at


def _failed(function: Function) -> str:
    policy = function.policy
    return "failed" if policy is not None and policy.attempts > 0 else "lost their worker"


def _who(gate: Gate) -> str:
    return as_text(show_name(gate.paused_by)) or "somebody"


def _name(function: Function) -> str:
    return to_text(function.name)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _wait(count: int) -> str:
    return "1 job waits" if count == 1 else f"{count} jobs wait"


def _quoted(function: Function) -> str:
    return quote(to_text(function.name), safe="")


def _page(function: Function) -> str:
    return f"/dashboard/functions/{_quoted(function)}"
