"""What the job server looks like: frozen views of functions, jobs and peers, a page at a time.

Every listing reads these and nothing else, so the model may change without them. A view holds what was true when it
was made; a page is made when it is asked for, so a long listing takes no copy of everything. What comes or goes
between two pages may be missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.counters import Counters
from geartrain.jobserver.links import registered_abilities
from geartrain.jobserver.model import DEAD, RUNNING, STATES, Ability, Function, Job, Peer
from geartrain.native import i64

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.state import State

_PAGE: Final = 100  # functions or peers
_ABILITIES: Final = 2000  # in a page, since each begins with a search


@final
class FunctionView:
    """One function: jobs by where they stand, workers, limits (0: none) and counters."""

    def __init__(self, function: Function) -> None:
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
        self.counters: Counters = function.counters.copy()


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


@final
class PeerView:
    """One connection; what it can do is told by ``abilities``."""

    def __init__(self, peer: Peer) -> None:
        self.fd: int = peer.fd
        self.host: str = peer.host
        self.shown_id: bytes = peer.shown_id
        self.peer: Peer = peer


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


def functions(state: State) -> Iterator[FunctionView]:
    """Every function, in the order in which they became known."""
    at: i64 = 0
    until = state.function_roll.last_place
    while page := state.function_roll.page(at, until, _PAGE):
        at = page[-1].place
        for function in page:
            if not function.forgotten:
                yield FunctionView(function)


def jobs(state: State) -> Iterator[JobView]:
    """Every job that waits or runs, by number."""
    for job in state.jobs:
        if job.state != DEAD:
            yield JobView(state, job)


def peers(state: State) -> Iterator[PeerView]:
    """Every connection, oldest first."""
    at: i64 = 0
    until = state.peer_roll.last_place
    while page := state.peer_roll.page(at, until, _PAGE):
        at = page[-1].place
        for peer in page:
            if not (peer.gone or peer.closing):
                yield PeerView(peer)
