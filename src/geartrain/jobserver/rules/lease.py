"""Of a fleet: what is stored may be handed out only while the other members can't have taken it over.

Whoever drives the job server tells it how long that is certain (``renew``). When that time is over without another
word, all that is stored is *held*, and nothing is given to the store; what is not stored goes on: foreground jobs have
no other owner. If the others have not taken over, all goes on as it was. If they have, the job server *forsakes* what
is theirs now: it forgets it without a word to the store, and comes back as a new member.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.changes import Changes
from geartrain.jobserver.chores import Chore
from geartrain.jobserver.model import (
    BLOCKED,
    DEAD,
    ELSEWHERE,
    ENDED,
    HELD,
    MOVING,
    QUEUED,
    STORED,
    UNSTORED,
    WAITING,
    WRITING,
)
from geartrain.jobserver.records import RESULT_KIND, SHARED_KINDS, Record, number_of
from geartrain.jobserver.rules.answers import not_stored, refusal
from geartrain.jobserver.rules.keeping import put_in_memory
from geartrain.jobserver.rules.long_work import begin
from geartrain.jobserver.rules.moving import vanish
from geartrain.jobserver.rules.outcome import forget_key
from geartrain.jobserver.rules.queueing import hold, leave_queue, release_held
from geartrain.jobserver.rules.storage import put_back, refuse_job
from geartrain.jobserver.rules.waking import wake
from geartrain.native import i64, u8

if TYPE_CHECKING:
    from geartrain.jobserver.state import State

LAPSED: Final = "this job server has lost touch with its fleet's database, and takes jobs again when it has found it"
FORSAKEN: Final = "the fleet has taken this job server for dead, and it comes back in a moment"
_AT_ONCE: Final = 500  # jobs or functions in one slice


def lapse(state: State) -> None:
    """It is not certain any more that what is stored is ours."""
    state.lapsed = True
    state.lease_turn += 1
    state.withholding = True
    state.store.set_lapse(LAPSED)
    state.event("lease_over", None, {"stored_jobs": int(state.jobs.count)})
    begin(state, Holding(state))


def renew(state: State, until: float) -> None:
    """What is stored is ours until then, in monotonic seconds."""
    state.lease_ends = until
    if state.lapsed and until > state.now and not state.forsaking:
        state.lapsed = False
        state.lease_turn += 1
        state.withholding = True  # until all is back in its queue
        state.store.set_lapse("")
        state.event("lease_holds", None, {})
        begin(state, LettingGo(state))


@final
class LeaseEnd(Source):
    """Has it noticed that the lease is over, also while nothing else happens."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        return 0.0 if self.state.lapsed else self.state.lease_ends

    def run(self) -> None:
        if self.state.now >= self.state.lease_ends and not self.state.lapsed:
            lapse(self.state)


@final
class Holding(Chore):
    """What is stored, or being stored, leaves its queues, some at a time; meanwhile nothing is handed out."""

    def __init__(self, state: State) -> None:
        super().__init__(None)
        self.state: State = state
        self.turn: i64 = state.lease_turn
        self.at: int = -1

    def step(self) -> bool:
        state = self.state
        if state.lease_turn != self.turn:
            return True  # another chore goes through all jobs anew
        jobs, self.at = state.jobs.page(self.at, _AT_ONCE)
        for job in jobs:
            if job.stored >= WRITING and job.state in (QUEUED, BLOCKED):
                leave_queue(state, job)
                hold(job)
        state.cost += 20 * _AT_ONCE
        if self.at >= 0:
            return False
        _hand_out(state)
        return True


@final
class LettingGo(Chore):
    """What was held waits in its queues again, some at a time."""

    def __init__(self, state: State) -> None:
        super().__init__(None)
        self.state: State = state
        self.turn: i64 = state.lease_turn
        self.at: int = -1

    def step(self) -> bool:
        state = self.state
        if state.lease_turn != self.turn:
            return True
        jobs, self.at = state.jobs.page(self.at, _AT_ONCE)
        for job in jobs:
            if job.state == HELD and job.stored >= STORED and job.flags & MOVING == 0:
                release_held(state, job)
        state.cost += 20 * _AT_ONCE
        if self.at >= 0:
            return False
        _hand_out(state)
        return True


def _hand_out(state: State) -> None:
    """Whatever waits in the queues may be handed out."""
    state.withholding = False
    begin(state, WakingAll(state))


@final
class WakingAll(Chore):
    """Wakes the workers of each function that has jobs, some functions at a time."""

    def __init__(self, state: State) -> None:
        super().__init__(None)
        self.state: State = state
        self.at: i64 = 0
        self.until: i64 = state.function_roll.last_place

    def step(self) -> bool:
        state = self.state
        functions = state.function_roll.page(self.at, self.until, _AT_ONCE)
        for function in functions:
            self.at = function.place
            if function.first_sleeper is not None:
                wake(state, function)
        state.cost += 10 + 5 * len(functions)
        return not functions


def forsake(state: State) -> None:
    """Others have taken over all that is stored: forget it, some at a time; ``forsaking`` says whether that goes on.

    Whoever waits for the store is refused. A job that a foreground client waits for as well goes on for it.
    """
    if not state.lapsed:
        lapse(state)
    state.forsaking = True
    store = state.store
    store.set_down("")  # it may be down for who we were
    store.set_lapse(FORSAKEN)
    store.set_down("")  # whoever would say that it is up again has no part in what comes
    changes = state.changes
    waiting = changes.writing + changes.new
    elsewhere = state.elsewhere
    if elsewhere is not None:
        waiting += elsewhere.doubts.values()
        elsewhere.doubts = {}
    changes.writing = []
    changes.new = []
    for job in waiting:
        if job.stored in (WAITING, WRITING):  # else it is of a batch that is stored
            refuse_job(state, job, FORSAKEN)
    changes.break_promises(not_stored(FORSAKEN), refusal(FORSAKEN), all_of_them=True)
    for read in store.give_up_reads() + store.wanted:
        put_back(state, read)
    store.wanted = []
    store.under_way = None
    store.late = None
    store.answer_due = 0.0
    store.set_down("")  # who would say that it is up again is not heard any more
    begin(state, Forsaking(state))


@final
class Forsaking(Chore):
    """Forgets what is stored; of the records those remain that all members have, and those that are in memory alone."""

    def __init__(self, state: State) -> None:
        super().__init__(None)
        self.state: State = state
        self.at: int = -1

    def step(self) -> bool:
        state = self.state
        jobs, self.at = state.jobs.page(self.at, _AT_ONCE)
        for job in jobs:
            if job.stored != UNSTORED:
                vanish(state, job)
            if job.state not in (DEAD, ENDED):
                job.flags = u8(job.flags | ELSEWHERE)
                forget_key(job.function, job)
        state.cost += 40 * _AT_ONCE
        if self.at >= 0:
            return False
        for kind in state.records.kinds.keys() - SHARED_KINDS:
            for record in list(state.records.kinds[kind].values()):
                if not record.in_memory:
                    put_in_memory(state, Record(kind, record.key, None))
                    if kind == RESULT_KIND:
                        state.results.drop(number_of(record.key))
        state.changes = Changes()
        state.forsaking = False
        return True
