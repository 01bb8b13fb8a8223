"""What the job server knows, on one page: jobs, who waits for them, functions, abilities and peers. Fields only.

The objects are linked through themselves into lists, which ``links`` keeps:

    Function.high, normal, low   Queue of the jobs that wait, by priority       Job.previous, next
    Function.later               Queue of the jobs whose time has not come      Job.previous, next
    Function.held                Queue of the jobs that the store decides about Job.previous, next
    Peer.running                 jobs assigned to it, latest first              Job.previous, next
    Job.subscribers              submissions whose client waits for the job     Subscriber.…_of_job
    Peer.subscriptions           the same, by client                            Subscriber.…_of_peer
    Peer.first_ability           what it can do, in rotation                    Ability.previous, next
    Function.first_sleeper       abilities of sleeping peers, in wake order,    Ability.…_sleeper
                                 and of some that have got up since
    State.first_woken            peers that got a NOOP and have not grabbed     Peer.…_woken
    KeySlot.high, normal, low    Queue of the jobs that wait for their key      Job.previous, next
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.bucket import Bucket
from geartrain.jobserver.counters import Counters
from geartrain.jobserver.outbox import Outbox, Output
from geartrain.jobserver.shown import show_name
from geartrain.native import i16, i32, i64, mypyc_attr, u8

if TYPE_CHECKING:
    from geartrain.jobserver.origin import Origin
    from geartrain.jobserver.outbox import DeferredReply
    from geartrain.jobserver.policy import Policy
    from geartrain.wire.parser import Parser

HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2

QUEUED: Final = 0  # in a queue of its function: a worker may grab it
RUNNING: Final = 1  # assigned to a worker
DELAYED: Final = 2  # its time has not come
ENDED: Final = 3  # completed, failed, cancelled or dropped: the server knows it no more
BLOCKED: Final = 4  # as many of its key as may run do or will: it stands in its key's queue
DEAD: Final = 5  # it did not succeed, and is kept for somebody to look at
HELD: Final = 6  # of a fleet: the store has still to say whose it is
STATES: Final = ("queued", "running", "delayed", "ended", "blocked", "dead", "held")

# Job.marks: two bits, and above them a number.
EXPIRING: Final = 1  # has a deadline by which it must have begun
REMEMBERED: Final = 2  # its attempts are recorded
COUNTED: Final = 4  # what a gate's generation is multiplied by: whether the gate counts the job in its key
MAX_GENERATION: Final = 63

# Where a background job stands with the store.
UNSTORED: Final = 0  # not in the store and not meant to be: a foreground job, or no store
WAITING: Final = 1  # to be written with the next batch
WRITING: Final = 2  # in the batch under way
STORED: Final = 3
SPILLED: Final = 4  # in the store, and its workload is there alone

MAX_ATTEMPTS: Final = 2**31 - 1  # more lost workers of a job than these are not counted

# What a job's flags tell.
TIMED: Final = 1  # it has a timer for the running assignment
WATCHED: Final = 2
MOVING: Final = 4  # it is held, since it is to be another member's of the fleet
ELSEWHERE: Final = 8  # it may be another member's as well: it goes on for foreground clients, and is never stored

# What things take of the memory limit beside the bytes that a peer chose, in bytes.
JOB_COST: Final = 200
KEY_COST: Final = 100  # a job that can be found by its unique or workload
REDUCER_COST: Final = 50
DELAYED_COST: Final = 150  # a job for later
SUBSCRIBER_COST: Final = 100
FUNCTION_COST: Final = 1600
TALLY_COST: Final = 800  # counters of a priority that few functions use
ABILITY_COST: Final = 250
KEY_SLOT_COST: Final = 600
REVOKED_COST: Final = 100


@final
@mypyc_attr(acyclic=True)
class Job:
    """One request to run a function.

    There may be millions, so each field is a pointer or a small number, and neither a job nor a subscriber takes part
    in garbage collection: every way out of a list unlinks, and every list is linked both ways (compiled code can't
    free a long chain of such objects that is linked one way).
    """

    def __init__(
        self,
        number: i64,
        function: Function,
        unique: bytes,
        workload: bytes,
        priority: u8,
        background: bool,
        created: float,
    ) -> None:
        self.number: i64 = number  # the handle is "<prefix>:<number>"
        self.function: Function = function
        self.unique: bytes = unique
        self.workload: bytes = workload
        self.reducer: bytes = b""  # empty: not a reduce job
        self.previous: Job | None = None
        self.next: Job | None = None
        self.worker: Peer | None = None  # set exactly while RUNNING
        self.subscribers: Subscriber | None = None  # the clients that wait for the result
        self.deferred: DeferredReply | None = None  # replies that wait for the store
        self.created: float = created  # Unix time
        self.due: float = 0.0  # Unix time; 0: at once
        self.queued_at: float = 0.0  # monotonic seconds: when it came into its queue last
        self.started_at: float = 0.0  # monotonic seconds: when it was assigned last
        self.numerator: i32 = 0  # as WORK_STATUS last said, unsigned 32 bit kept in a signed field
        self.denominator: i32 = 0
        self.attempts: i32 = 0  # assignments that did not succeed, and were followed or may be by another
        self.subscriber_count: i32 = 0
        self.assignments: i16 = 0  # counts all assignments, and wraps; tells a timer whether it still means this one
        self.priority: u8 = priority
        self.state: u8 = QUEUED
        self.stored: u8 = UNSTORED
        self.background: bool = background  # lives on without clients
        self.flags: u8 = 0  # TIMED, WATCHED, MOVING, ELSEWHERE
        self.marks: u8 = 0  # EXPIRING, REMEMBERED, and COUNTED by which generation of its function's gate

    def cost(self) -> i64:
        """What it takes of the memory limit, its subscribers aside; the same from its beginning to its end."""
        return job_cost(len(self.workload), len(self.unique), len(self.reducer), self.due > 0)

    def __repr__(self) -> str:
        state = STATES[self.state]
        kind = "background" if self.background else "foreground"
        return f"<Job {self.number} {self.function.name!r} {state} {kind}>"


@final
@mypyc_attr(acyclic=True)
class Subscriber:
    """One foreground submission: ``peer`` waits for ``job`` and gets every packet about it."""

    def __init__(self, job: Job, peer: Peer) -> None:
        self.job: Job = job
        self.peer: Peer = peer
        self.previous_of_job: Subscriber | None = None
        self.next_of_job: Subscriber | None = None
        self.previous_of_peer: Subscriber | None = None
        self.next_of_peer: Subscriber | None = None


@final
class Queue:
    """Jobs in the order in which they will be assigned.

    A job that has lost a worker may be what ended it, so it stands behind all that have not, also behind those that
    come later; but not for ever, since it may be a good job whose worker was stopped.
    """

    def __init__(self) -> None:
        self.first: Job | None = None
        self.last: Job | None = None
        self.first_lost: Job | None = None  # of those that have lost a worker
        self.passed: i64 = 0  # how often those were passed over since one was taken
        self.count: i64 = 0


NO_JOBS: Final = Queue()  # stands where there is none yet, and stays empty


@final
class KeySlot:
    """The jobs of one key of a function: those that run, those that may, and those that wait for one of these to end.

    In the queues of the function stand no more of them than may start; the others stand here (``blocked``).
    """

    def __init__(self, key: bytes) -> None:
        self.key: bytes = key
        self.running: i64 = 0
        self.ready_high: i64 = 0  # in the queues of the function, by priority
        self.ready_normal: i64 = 0
        self.ready_low: i64 = 0
        self.startable: i64 = 0  # how many of the ready ones may start now; what the gate counts of them
        self.high: Queue = NO_JOBS  # one of its own as soon as a job stands there
        self.normal: Queue = NO_JOBS
        self.low: Queue = NO_JOBS
        self.bucket: Bucket | None = None  # the rate of the key
        self.timer: float = 0.0  # monotonic: when it is looked at again, since there will be a token; 0: it is not
        self.timer_number: i64 = 0

    @property
    def ready(self) -> i64:
        """Jobs in the queues of the function."""
        return self.ready_high + self.ready_normal + self.ready_low

    @property
    def blocked(self) -> i64:
        """Jobs that stand here."""
        return self.high.count + self.normal.count + self.low.count


@final
class Gate:
    """Which of a function's waiting jobs may start: pause, concurrency, rate, limits of each key, ageing.

    ``generation`` numbers the ways in which jobs are counted by keys; it changes with the separator, and what was
    counted before counts no more. A function's next gate goes on from that of the one before.
    """

    def __init__(self, generation: u8) -> None:
        self.paused: bool = False
        self.paused_since: float = 0.0  # Unix time
        self.paused_by: bytes = b""  # who has paused it, and why
        self.concurrency: i64 = 0  # 0: no limit
        self.bucket: Bucket | None = None
        self.tokens: i64 = 0  # in the bucket when it was last looked at; there may be more by now, not fewer
        self.timer: float = 0.0  # monotonic: when the bucket is looked at again; 0: it is not
        self.timer_number: i64 = 0
        self.ageing: float = 0.0
        self.keys: dict[bytes, KeySlot] | None = None  # None: it has no limits by key
        self.key_concurrency: i64 = 0
        self.key_per_second: float = 0.0
        self.key_burst: i64 = 1
        self.separator: bytes = b":"
        self.generation: u8 = generation
        self.counted: i64 = 0  # jobs in the queues of the function that their key counts
        self.startable: i64 = 0  # how many of those may start, all keys together
        self.blocked_high: i64 = 0  # jobs in the queues of keys, by priority
        self.blocked_normal: i64 = 0
        self.blocked_low: i64 = 0
        self.leaving: dict[bytes, KeySlot] | None = None  # keys of the generation before, whose jobs move back
        self.leaving_separator: bytes = b""
        self.moving: bool = False  # jobs move, or keys get their new limits: the policy may not change meanwhile

    @property
    def blocked(self) -> i64:
        """Jobs in the queues of keys."""
        return self.blocked_high + self.blocked_normal + self.blocked_low

    def ready(self, queued: i64, running: i64) -> i64:
        """How many of the function's queued jobs may start while so many run."""
        if self.paused:
            return 0
        count: i64 = queued
        if self.keys is not None:
            count += self.startable - self.counted  # what is not counted yet is looked at when its turn comes
        if self.concurrency > 0 and self.concurrency - running < count:
            count = self.concurrency - running
        if self.bucket is not None and self.tokens < count:
            count = self.tokens
        return count if count > 0 else 0


def job_cost(workload: i64, unique: i64, reducer: i64, delayed: bool) -> i64:
    """What a job takes of the memory limit, from the sizes of what it carries."""
    cost: i64 = workload + JOB_COST
    if unique > 0:
        cost += unique + KEY_COST
    if reducer > 0:
        cost += reducer + REDUCER_COST
    if delayed:
        cost += DELAYED_COST
    return cost


def function_cost(name: bytes) -> int:
    """What a function of this name takes of the memory limit; a name that is shown otherwise is kept twice."""
    shown = show_name(name)
    return FUNCTION_COST + len(name) + (0 if shown == name else len(shown))


@final
class Function:
    """One function: its queues, its workers, its live uniques, its limits and its counters."""

    def __init__(self, name: bytes) -> None:
        self.name: bytes = name
        self.shown: bytes = show_name(name)  # the name as it stands in listings
        self.place: i64 = 0  # on the roll of functions
        self.high: Queue = Queue()
        self.normal: Queue = Queue()
        self.low: Queue = Queue()
        self.later: Queue = Queue()
        self.held: Queue = NO_JOBS  # one of its own as soon as a job stands there
        self.queued: i64 = 0  # jobs in the queues high, normal and low
        self.running: i64 = 0
        self.uniques: dict[bytes, Job] = {}  # live jobs by their unique
        self.workloads: dict[bytes, Job] = {}  # live jobs whose unique is "-", by their workload (section 3.4)
        self.most_keys: i64 = 0  # the most entries that either had since it was made

        self.workers: i64 = 0
        self.busy: i64 = 0  # peers that run a job of it
        self.first_sleeper: Ability | None = None
        self.last_sleeper: Ability | None = None
        self.sleepers: i64 = 0  # in this list
        self.woken: i64 = 0  # workers that got a NOOP for this function and have not grabbed since

        self.max_high: i64 = 0  # maxqueue (section 3.10); 0: no limit
        self.max_normal: i64 = 0
        self.max_low: i64 = 0

        self.policy: Policy | None = None
        self.generation: u8 = 1  # of its gate, also while it has none
        self.marked: i64 = 0  # jobs with the mark of this generation
        self.outdated: i64 = 0  # jobs with that of another
        self.gate: Gate | None = None  # only where a policy or a pause decides which jobs may start
        self.last_lost: i64 = 0  # the last loss of a worker, as a count of all losses at the server; 0: never
        self.idle_since: float = 0.0  # monotonic: since when it has no jobs, workers and limits; 0: it has some
        self.forgotten: bool = False  # the server knows it no more
        self.said_limit: bool = False  # the log has been told of an odd time limit
        self.ends_noted: i64 = 0  # see ``ended``
        self.failures_noted: i64 = 0
        self.counters: Counters = Counters()  # of normal jobs
        self.high_counters: Counters | None = None  # from the first such submission on: see State.tally
        self.low_counters: Counters | None = None

    @property
    def ready(self) -> i64:
        """How many jobs may be handed out now: what waking and assignment ask, and nothing else."""
        gate = self.gate
        return self.queued if gate is None else gate.ready(self.queued, self.running)

    @property
    def blocked(self) -> i64:
        """Jobs that wait for others of their key."""
        return 0 if self.gate is None else self.gate.blocked

    @property
    def delayed(self) -> i64:
        """Jobs whose time has not come."""
        return self.later.count

    @property
    def total(self) -> i64:
        """All jobs of the function: queued, blocked, delayed, held and running."""
        return self.queued + self.blocked + self.later.count + self.held.count + self.running

    @property
    def limited(self) -> bool:
        """Whether maxqueue holds for any priority."""
        return self.max_high > 0 or self.max_normal > 0 or self.max_low > 0

    @property
    def is_paused(self) -> bool:
        """Whether none of its jobs is handed out."""
        return self.gate is not None and self.gate.paused

    @property
    def is_kept(self) -> bool:
        """Whether it is to be known also while it has no jobs and no workers."""
        return self.limited or (self.gate is not None and self.gate.paused)

    def queue(self, priority: i64) -> Queue:
        """The queue of this priority."""
        if priority == NORMAL:
            return self.normal
        return self.high if priority == HIGH else self.low

    def tally(self, priority: i64) -> Counters:
        """Where it is counted what happens to jobs of this priority."""
        if priority == NORMAL:
            return self.counters
        counters = self.high_counters if priority == HIGH else self.low_counters
        return self.counters if counters is None else counters

    def cost(self) -> int:
        """What it takes of the memory limit."""
        tallies = (self.high_counters is not None) + (self.low_counters is not None)
        return function_cost(self.name) + TALLY_COST * tallies

    def best_priority(self) -> i64:
        """The best priority that has a job waiting; the function must have one."""
        if self.high.count > 0:
            return HIGH
        return NORMAL if self.normal.count > 0 else LOW

    def limit(self, priority: i64) -> i64:
        """How many jobs may be here for a submission of this priority to be taken; 0: any number."""
        if priority == NORMAL:
            return self.max_normal
        return self.max_high if priority == HIGH else self.max_low

    def __repr__(self) -> str:
        return f"<Function {self.name!r} queued={self.queued} running={self.running} workers={self.workers}>"


@final
class Ability:
    """A function that a peer said it can do, with its time limit in seconds (0: none).

    ``order`` counts up with each registration.
    """

    def __init__(self, peer: Peer, function: Function, timeout: float, order: i64) -> None:
        self.peer: Peer = peer
        self.function: Function = function
        self.timeout: float = timeout
        self.order: i64 = order
        self.previous: Ability | None = None
        self.next: Ability | None = None
        self.previous_sleeper: Ability | None = None
        self.next_sleeper: Ability | None = None


@final
class Peer(Outbox):
    """One connection: what it can do, what it runs, what it waits for; it may be client, worker and admin at once."""

    def __init__(self, output: Output, origin: Origin, parser: Parser, exceptions: bool) -> None:
        super().__init__(output)
        self.host: str = origin.host
        self.fd: int = origin.fd
        self.rights: i64 = origin.rights  # see dispatch
        self.client_id: bytes = b""
        self.shown_id: bytes = b"-"  # as it stands in listings
        self.place: i64 = 0  # on the roll of peers
        self.parser: Parser = parser
        self.since: float = 0.0  # monotonic seconds: when it came
        self.heard_at: float = 0.0  # monotonic seconds: when it last sent something

        # As worker.
        self.first_ability: Ability | None = None  # the one whose turn it is
        self.last_ability: Ability | None = None
        self.ability_count: i64 = 0
        self.runs_ended: i64 = 0  # jobs that it has run, well or not
        self.turns: i64 = 0  # jobs in a row that the function at the front has given it, see Policy.weight
        self.abilities: dict[bytes, Ability] | None = None  # by function name, once there are more than a few
        self.running: Job | None = None
        self.runs: dict[Function, int] | None = None  # jobs of each function, while it runs or has run several at once
        self.revoked: dict[int, None] | None = None  # numbers of jobs that were taken from it
        self.woken_for: Function | None = None  # got a NOOP for this function and has not grabbed since
        self.woken_until: float = 0.0  # when the next worker is woken in its place
        self.previous_woken: Peer | None = None
        self.next_woken: Peer | None = None

        # As client.
        self.subscriptions: Subscriber | None = None
        self.last_function: Function | None = None  # the function it used last
        self.traceparent: bytes = b""  # of its next submission

        # Input that waits.
        self.half_sent_since: float = 0.0  # when the half-sent packet began; 0: there is none
        self.half_sent: i64 = 0  # bytes of it that have come

        self.produced: i64 = 0  # bytes of output that it has made since there was too much fresh output

        # Flags stand together, since one between pointers takes the room of a pointer.
        self.exceptions: bool = exceptions  # wants WORK_EXCEPTION; else it gets WORK_FAIL
        self.had_turn: bool = False  # whether it has been given a job in turn
        self.sleeping: bool = False
        self.traces: bool = False  # wants to know where its jobs belong in a trace
        self.verdicts: bool = False  # may say in WORK_FAIL whether its job is to be tried again
        self.greeted: bool = False  # its first bytes have been those of this protocol
        self.stalled: bool = False  # whole messages wait in the parser

    @property
    def is_unsettled(self) -> bool:
        """Whether there is more to do, once what may be written has been: more to write, to read, or its end."""
        return self.unsent > 0 or self.stalled or self.closing

    @property
    def shown_name(self) -> bytes:
        """Who it is, for histories: what it calls itself, and its host."""
        return b"%b %b" % (self.shown_id, self.host.encode())

    def __repr__(self) -> str:
        name = self.client_id.decode("utf-8", "replace") or "-"
        return f"<Peer {self.fd} {self.host} {name}>"
