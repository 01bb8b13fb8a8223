"""What the job server looks like: frozen views of functions, jobs and peers, a page at a time, its totals, and changes.

Every listing reads these and nothing else, so the model may change without them. A view holds what was true when it
was made; a page is made when it is asked for, so a long listing takes no copy of everything. What comes or goes
between two pages may be missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from geartrain.jobserver.counters import SUM_COUNT, Counters
from geartrain.jobserver.links import find_ability, registered_abilities
from geartrain.jobserver.model import DEAD, RUNNING, STATES, Ability, Function, Job, Peer
from geartrain.jobserver.policy import reason_name
from geartrain.native import i64, mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.letters import DeadLetter
    from geartrain.jobserver.state import State

_PAGE: Final = 100  # functions or peers
_ABILITIES: Final = 2000  # in a page, since each begins with a search
_SLEEPERS: Final = 200  # that are looked at
_NO_SUMS: Final = [0] * SUM_COUNT

# Jobs that wait whose time has come, jobs that run, workers, those that are busy, and the Unix second since which
# the job has waited that has waited longest; 0: none has for a second. So it stays the same while that job waits.
Gauges = tuple[int, int, int, int, int]
NO_GAUGES: Final[Gauges] = (0, 0, 0, 0, 0)
_CLIENTS: Final = 100
_JOBS: Final = 1000  # of which a page has views


@final
class FunctionView:
    """One function: jobs by where they stand, workers, limits (0: none) and counters.

    ``dead`` are dead letters; of ``workers`` that can do it ``busy`` run a job of it, and ``idle`` sleep.
    ``oldest_waiting``: seconds that a queued job has waited at most. What costs more than a number (``idle``, and the
    copies of counters) is as it is when asked.
    """

    def __init__(self, state: State, function: Function) -> None:
        gate = function.gate
        self.blocked: int = function.blocked
        self.paused: bool = gate is not None and gate.paused
        self.policy: str = "" if function.policy is None else function.policy.text
        self.name: bytes = function.name
        self.shown: bytes = function.shown
        self.high: int = function.high.count
        self.normal: int = function.normal.count
        self.low: int = function.low.count
        self.delayed: int = function.delayed
        self.running: int = function.running
        self.total: int = function.total
        self.ready: int = function.ready
        self.workers: int = function.workers
        self.limits: tuple[int, int, int] = (function.max_high, function.max_normal, function.max_low)
        self.busy: int = function.busy
        self.dead: int = int(state.dead.count(function))
        self.place: int = int(function.place)  # another function of the same name has another
        self.oldest_waiting: float = state.now - oldest_of(function, state.now)
        self.function: Function = function

    @property
    def idle(self) -> int:
        """Workers that could do it and sleep; of very many that have got up by themselves some count as well."""
        function = self.function
        up: i64 = 0
        looked: i64 = 0
        sleeper = function.first_sleeper
        while sleeper is not None and looked < _SLEEPERS:
            if not sleeper.peer.sleeping:
                up += 1
            looked += 1
            sleeper = sleeper.next_sleeper
        return function.sleepers - up

    @property
    def by_priority(self) -> tuple[Counters | None, Counters | None, Counters | None]:
        """The counters of high, normal and low jobs; None: there never was one."""
        high, low = self.function.high_counters, self.function.low_counters
        return (
            None if high is None else high.copy(),
            self.function.counters.copy(),
            None if low is None else low.copy(),
        )

    @property
    def counters(self) -> Counters:
        """The counters of all priorities together."""
        function = self.function
        counters = function.counters.copy()
        if function.high_counters is not None:
            counters.add(function.high_counters)
        if function.low_counters is not None:
            counters.add(function.low_counters)
        return counters


@final
class Totals:
    """The job server as a whole: connections, workers among them, jobs by where they stand, memory in bytes.

    Of ``workers``, which can do something, ``busy`` run a job, ``idle`` sleep; one that could run another is in both.
    """

    def __init__(self, state: State) -> None:
        self.connections: int = len(state.peers)
        self.workers: int = state.workers
        self.busy: int = state.busy
        self.idle: int = state.asleep
        self.functions: int = len(state.functions)
        self.running: int = state.running
        self.delayed: int = state.delayed.live
        self.blocked: int = state.blocked
        self.dead: int = len(state.dead.all)
        self.queued: int = len(state.jobs) - self.running - self.delayed - self.blocked - self.dead
        self.memory: int = state.memory


@final
class JobView:
    """One job; times are Unix times, 0 where there is none."""

    def __init__(self, state: State, job: Job) -> None:
        ago = state.wall - state.now  # from the monotonic clock to the time of day
        self.handle: bytes = state.handles.make(job.number)
        self.function: bytes = job.function.name
        self.unique: bytes = job.unique
        self.priority: int = job.priority
        self.state: str = STATES[job.state]
        self.background: bool = job.background
        self.size: int = len(job.workload)
        self.clients: int = job.subscriber_count
        self.attempts: int = job.attempts
        self.numerator: int = int(job.numerator) % 0x100000000
        self.denominator: int = int(job.denominator) % 0x100000000
        self.created: float = job.created
        self.due: float = job.due
        self.queued_at: float = job.queued_at + ago if job.queued_at else 0.0
        self.started_at: float = job.started_at + ago if job.state == RUNNING else 0.0
        self.is_unwanted: bool = job.state == RUNNING and not job.background and job.subscribers is None
        self.number: int = int(job.number)
        self.job: Job = job

    @property
    def worker(self) -> PeerView | None:
        """Where it runs now."""
        worker = self.job.worker
        return None if worker is None else PeerView(worker)

    def is_wanted_by(self, who: bytes) -> bool:
        """Whether one of its clients has this in its id or host; of very many the last ones are asked."""
        left = _CLIENTS
        subscriber = self.job.subscribers
        while subscriber is not None and left > 0:
            if who in subscriber.peer.shown_name:
                return True
            subscriber = subscriber.next_of_job
            left -= 1
        return False


@final
class PeerView:
    """One connection; what it can do is told by ``abilities``."""

    def __init__(self, peer: Peer) -> None:
        self.fd: int = peer.fd
        self.host: str = peer.host
        self.shown_id: bytes = peer.shown_id
        self.place: int = int(peer.place)
        self.ability_count: int = peer.ability_count
        self.sleeping: bool = peer.sleeping
        self.since: float = peer.since  # monotonic seconds, as all times here
        self.heard_at: float = peer.heard_at
        self.runs_ended: int = int(peer.runs_ended)
        self.peer: Peer = peer

    @property
    def shown_name(self) -> bytes:
        """What it calls itself, and its host."""
        return self.peer.shown_name

    def can_do(self, function: bytes) -> bool:
        """Whether it has registered a function."""
        return find_ability(self.peer, function) is not None


def abilities(state: State, view: PeerView) -> Iterator[bytes]:
    """What a peer can do: function names as shown, last registered first."""
    peer = view.peer
    if peer.abilities is None:
        for ability in reversed(registered_abilities(peer)):
            yield ability.function.shown
        return
    before = state.abilities_registered + 1
    while True:
        page: list[Ability] = []
        passed: i64 = 0
        for ability in reversed((peer.abilities or {}).values()):
            passed += 1
            if ability.order < before:
                page.append(ability)
                if len(page) == _ABILITIES:
                    break
        state.cost += passed // 4
        if not page:
            return
        before = page[-1].order
        for ability in page:
            yield ability.function.shown


def totals(state: State) -> Totals:
    """The job server as a whole."""
    return Totals(state)


def running(state: State, view: PeerView) -> Iterator[bytes]:
    """The handles of the jobs that a peer has, latest first."""
    job = view.peer.running
    while job is not None:
        yield state.handles.make(job.number)
        job = job.next


def functions(state: State) -> Iterator[FunctionView]:
    """Every function, in the order in which they became known."""
    at: i64 = 0
    until = state.function_roll.last_place
    while page := state.function_roll.page(at, until, _PAGE):
        at = page[-1].place
        for function in page:
            if not function.forgotten:
                yield FunctionView(state, function)


def jobs(state: State) -> Iterator[JobView]:
    """Every job that waits or runs, by number."""
    for job in state.jobs:
        if job.state != DEAD:
            yield JobView(state, job)


def job_page(
    state: State, behind: i64, count: i64, stand: str = "", function: bytes | None = None
) -> tuple[list[JobView], int]:
    """The jobs behind a number, dead ones too, as far as ``count`` numbers go, and how far these went; -1: no more.

    Of these only those in the state ``stand`` and of this function: to leave a job out costs far less than its view.
    After very many views the page ends.
    """
    jobs, until = state.jobs.page(behind, count)
    return _views(state, jobs, until, stand, function)


@final
class LetterView:
    """One dead letter; ``died`` is a Unix time, ``text`` that with which its last attempt failed."""

    def __init__(self, state: State, letter: DeadLetter, place: i64) -> None:
        job = letter.job
        self.place: int = int(place)
        self.handle: bytes = state.handles.make(job.number)
        self.function: bytes = job.function.name
        self.unique: bytes = job.unique
        self.died: float = letter.died
        self.reason: str = reason_name(letter.reason)
        self.group: int = 0 if letter.group is None else letter.group.number
        self.attempts: int = int(job.attempts)
        self.size: int = len(job.workload)
        self.text: bytes = letter.text


def letter_page(state: State, function: bytes | None, behind: i64, count: int) -> list[LetterView]:
    """The dead letters behind a place, of all or of one function, the longest dead first. None: there are no more."""
    if function is None:
        roll = state.dead.roll
        return [LetterView(state, each, each.place) for each in roll.page(behind, roll.last_place, count)]
    known = state.functions.get(function)
    its = None if known is None else state.dead.of_function.get(known)
    if its is None:
        return []
    return [LetterView(state, each, each.place_of_function) for each in its.page(behind, its.last_place, count)]


def job_page_back(
    state: State, before: i64, count: i64, stand: str = "", function: bytes | None = None
) -> tuple[list[JobView], int]:
    """The same from the newest one to the oldest: those before a number."""
    jobs, until = state.jobs.page_back(before, count)
    return _views(state, jobs, until, stand, function)


def _views(state: State, jobs: list[Job], until: int, stand: str, function: bytes | None) -> tuple[list[JobView], int]:
    views: list[JobView] = []
    for job in jobs:
        if (not stand or STATES[job.state] == stand) and (function is None or job.function.name == function):
            views.append(JobView(state, job))
            if len(views) == _JOBS and job is not jobs[-1]:
                return views, int(job.number)
    return views, until


def function_page(state: State, behind: i64, count: int) -> list[FunctionView]:
    """The functions behind a place; the view tells its own. None: there are no more."""
    page = state.function_roll.page(behind, state.function_roll.last_place, count)
    return [FunctionView(state, function) for function in page]


def peer_page(state: State, behind: i64, count: int) -> list[PeerView]:
    """The same for connections, also those that are about to be closed."""
    return [PeerView(peer) for peer in state.peer_roll.page(behind, state.peer_roll.last_place, count)]


@mypyc_attr(allow_interpreted_subclasses=True)
class Seen:
    """A function's numbers as they were when it was looked at last."""

    def __init__(self) -> None:
        self.place: i64 = 0  # of the function on the roll; 0: it has none
        self.look: i64 = 0  # at which one it was there last
        self.moved: i64 = 0  # of its counters: as long as that is the same, nothing has happened
        self.sums: list[int] = _NO_SUMS  # all priorities together
        self.gauges: Gauges = NO_GAUGES
        self.folded: bool = False  # whether it is told together with others
        self.traffic: float = 0.0  # jobs submitted and started

    def begin(self, place: i64) -> None:
        """Another function has this name, of which nothing has been counted; 0: none has."""
        self.place = place
        self.moved = 0
        self.sums = _NO_SUMS

    def catch_up(self, function: Function) -> None:
        """What a function has counted up to now is no change."""
        self.place = function.place
        self.moved = moved_of(function)
        self.sums = sums_of(function)


Known = TypeVar("Known", bound=Seen)


@final
class Look(Generic[Known]):
    """One look at all functions, a page of them at a time: what has changed since they were seen last."""

    def __init__(self, state: State, known: dict[bytes, Known], number: int) -> None:
        self.state: State = state
        self.known: dict[bytes, Known] = known
        self.number: i64 = number
        self.found: i64 = 0  # functions that are known
        self.sums: list[int] = [0] * SUM_COUNT  # what all of them have counted
        self.oldest: int = 0  # the last of the gauges, of all of them
        self.folded_oldest: int = 0  # and of those that are folded

    def strangers(self, page: list[Function]) -> list[Function]:
        """Functions that are not known; also where another one of the same name is."""
        found: list[Function] = []
        for function in page:
            seen = self.known.get(function.name)
            if seen is None or seen.place != function.place:
                found.append(function)
        return found

    def changes(self, page: list[Function]) -> list[tuple[Known, bool, list[int], Gauges | None]]:
        """The known ones that have changed: whether they have counted, what, and their gauges before.

        Behind what they have counted stand the gauges as they are now. None: they are as before.
        """
        found: list[tuple[Known, bool, list[int], Gauges | None]] = []
        for function in page:
            seen = self.known.get(function.name)
            if seen is None:
                continue
            seen.look = self.number
            self.found += 1
            moved = moved_of(function)
            before = seen.gauges
            gauges = gauges_of(self.state, function)
            if gauges[4] > 0:
                self.oldest = _earlier(self.oldest, gauges[4])
                if seen.folded:
                    self.folded_oldest = _earlier(self.folded_oldest, gauges[4])
            stay = gauges == before
            if stay and moved == seen.moved:
                continue
            row = [0] * SUM_COUNT
            has_counted = False
            if moved != seen.moved:
                seen.moved = moved
                has_counted = self._count(seen, sums_of(function), row)
            seen.gauges = gauges
            row.extend(gauges)
            found.append((seen, has_counted, row, None if stay else before))
        return found

    def _count(self, seen: Known, now: list[int], row: list[int]) -> bool:
        then = seen.sums
        has_counted = False
        for at in range(SUM_COUNT):
            before: i64 = then[at]
            change: i64 = now[at] - before
            if change > 0:
                has_counted = True
                row[at] = int(change)
                self.sums[at] += int(change)
            elif change < 0:  # a job that was refused by the store is taken off those submitted
                now[at] = int(before)
        seen.sums = now
        seen.traffic += row[0] + row[1]
        return has_counted


def _earlier(one: int, other: int) -> int:
    """The earlier of two times, of which the first may be 0: none."""
    return one if 0 < one < other else other


def gauges_of(state: State, function: Function) -> Gauges:
    """How a function stands now."""
    oldest = 0
    if function.queued > 0:
        waited = state.now - oldest_of(function, state.now)
        if waited >= 1.0:
            oldest = -int((waited - state.wall) // 1.0)
    return (
        int(function.queued + function.blocked),
        int(function.running),
        int(function.workers),
        int(function.busy),
        oldest,
    )


def oldest_of(function: Function, now: float) -> float:
    """When the longest waiting job of a function came into its queue, on the job server's clock; now: none waits."""
    for queue in (function.high, function.normal, function.low):
        if queue.count > 0:
            for job in (queue.first, queue.first_lost):
                if job is not None and job.queued_at < now:
                    now = job.queued_at
    return now


def moved_of(function: Function) -> i64:
    """A number that grows whenever one of the function's ``sums_of`` does."""
    moved: i64 = function.counters.moved
    if function.high_counters is not None:
        moved += function.high_counters.moved
    if function.low_counters is not None:
        moved += function.low_counters.moved
    return moved


def sums_of(function: Function) -> list[int]:
    """The ``Counters.sums`` of all priorities together."""
    return sum_up(function.counters, function.high_counters, function.low_counters)


def sum_up(*all_counters: Counters | None) -> list[int]:
    """``Counters.sums`` of several, added up."""
    sums: list[int] = []
    for counters in all_counters:
        if counters is not None:
            more = counters.sums
            sums = [one + another for one, another in zip(sums, more, strict=True)] if sums else more
    return sums


def peers(state: State) -> Iterator[PeerView]:
    """Every connection, oldest first."""
    at: i64 = 0
    until = state.peer_roll.last_place
    while page := state.peer_roll.page(at, until, _PAGE):
        at = page[-1].place
        for peer in page:
            if not (peer.gone or peer.closing):
                yield PeerView(peer)
