"""All that one job server knows, for its rules to read and change.

The rules are functions that read and change a ``State``; ``JobServer`` is a State with a border. A State decides
nothing about jobs: it holds, counts and bounds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from geartrain.jobserver.agenda import Agenda
from geartrain.jobserver.changes import Changes
from geartrain.jobserver.chores import Chores
from geartrain.jobserver.commits import Commits
from geartrain.jobserver.counters import Counters
from geartrain.jobserver.deadlines import Deadlines
from geartrain.jobserver.elsewhere import Elsewhere
from geartrain.jobserver.ended import EndedJobs
from geartrain.jobserver.gate_timers import GateTimers
from geartrain.jobserver.gates import fit_gate, has_memory
from geartrain.jobserver.handles import Handles
from geartrain.jobserver.kept import KeptRecords
from geartrain.jobserver.letters import DeadLetters
from geartrain.jobserver.model import (
    DELAYED,
    EXPIRING,
    HIGH,
    LOW,
    NORMAL,
    REVOKED_COST,
    RUNNING,
    TALLY_COST,
    Function,
    Job,
    Peer,
    function_cost,
)
from geartrain.jobserver.outbox import Outbox, Output
from geartrain.jobserver.policies import Policies
from geartrain.jobserver.policy import Policy
from geartrain.jobserver.records import Record
from geartrain.jobserver.results import Results
from geartrain.jobserver.roll import Roll
from geartrain.jobserver.settings import Settings
from geartrain.jobserver.store_link import StoreLink
from geartrain.jobserver.table import JobTable
from geartrain.jobserver.watching import Watcher
from geartrain.native import i64
from geartrain.wire.packets import LAYOUTS
from geartrain.wire.text import as_text

MAX_EVENTS: Final = 1000  # kept for one iteration
NEVER: Final = 1e300  # a time beyond all others
_TRIES: Final = 10  # functions that are looked at for one to forget
MAX_REVOKED: Final = 1000  # jobs taken from a worker that it may still report on


class State:
    """Functions, jobs and peers, with what is counted about them, and the tools that every rule needs."""

    def __init__(self, settings: Settings) -> None:
        self.settings: Settings = settings
        # Options that the rules read at every packet.
        self.worker_wakeup: i64 = settings.worker_wakeup
        self.wake_timeout: float = settings.wake_timeout
        self.listed_order: bool = settings.listed_order
        self.max_unique: i64 = settings.max_unique
        self.max_function: i64 = settings.max_function
        self.max_memory: i64 = settings.max_memory
        self.max_unsent: i64 = settings.max_unsent

        self.durable: bool = settings.durable
        self.changes: Changes = Changes()
        self.commits: Commits = Commits()
        self.store: StoreLink = StoreLink(settings.store_timeout)
        self.records: KeptRecords = KeptRecords()
        self.largest_record: i64 = settings.max_body  # bytes of key and value; the store may take less

        # Of a fleet, see rules.lease.
        self.is_member: bool = settings.fleet
        self.lease_ends: float = NEVER  # monotonic
        self.lapsed: bool = False  # what is stored is handed out no more
        self.withholding: bool = False  # nothing is
        self.lease_turn: i64 = 0  # how often the lease has ended or come back
        self.forsaking: bool = False
        self.adoptions: i64 = 0
        self.elsewhere: Elsewhere | None = Elsewhere() if settings.fleet else None

        self.now: float = 0.0  # monotonic, seconds
        self.wall: float = 0.0  # Unix time
        self.time_base: float = 0.0  # of a fleet: what makes its time of day out of ``now``; 0: nobody has said
        self.handles: Handles = Handles(settings.handle_prefix)
        self.functions: dict[bytes, Function] = {}
        self.function_roll: Roll[Function] = Roll()  # the same, for those who go through them
        # An ordered dict: its front is found at once, however many have been taken from there.
        self.idle: OrderedDict[Function, None] = (
            OrderedDict()
        )  # functions without jobs, workers and limits, longest idle first
        # What was counted for functions that are known no more, by priority.
        self.forgotten: tuple[Counters, Counters, Counters] = (Counters(), Counters(), Counters())
        self.jobs: JobTable = JobTable()
        self.next_number: i64 = 1
        self.numbers_end: i64 = 1 << 62  # behind the last number that may be given out
        self.next_block: i64 = 0  # where to go on then, at once; 0: nowhere yet
        self.block_size: i64 = 0
        self.memory: i64 = 0  # bytes that peers have made the server keep
        self.foreign: i64 = 0  # connections that spoke another protocol
        self.draining: bool = False  # refuse submissions; set by drain()
        self.cost: i64 = 0  # what this iteration's work has cost so far, see chores

        self.peers: dict[Peer, None] = {}
        self.peer_roll: Roll[Peer] = Roll()  # the same, for those who go through them
        self.abilities_registered: i64 = 0
        self.losses: i64 = 0  # workers that were lost with a job
        self.running: i64 = 0  # jobs assigned to workers
        self.blocked: i64 = 0  # jobs that wait for others of their key
        self.workers: i64 = 0  # peers that can do something
        self.busy: i64 = 0  # peers that run something
        self.asleep: i64 = 0  # peers that can do something, and sleep
        self.iterations: i64 = 0
        self.output: Output = Output()
        self.touched: list[Outbox] = self.output.touched
        self.first_woken: Peer | None = None
        self.last_woken: Peer | None = None
        self.delayed: Deadlines = Deadlines(self._is_delayed)  # in Unix time
        self.expiries: Deadlines = Deadlines(self._is_expiring)  # in Unix time
        self.timeouts: Deadlines = Deadlines(self._is_timed)  # in monotonic time
        self.policies: Policies = Policies(settings.policies)
        self.gate_timers: GateTimers = GateTimers()
        self.dead: DeadLetters = DeadLetters()
        self.displaced: dict[int, Job] = {}  # while a store is loaded: whose key a job of this number has taken
        self.results: Results = Results()
        self.waits: i64 = 0  # for results that are not there yet, of all peers
        self.watchers: dict[int, tuple[Watcher, ...]] = {}  # by the job's number
        self.watches: i64 = 0  # pairs of a job and one of its watchers
        self.traces: dict[int, bytes] = {}  # the traceparent of jobs, by number
        self.end_watcher: Watcher | None = None  # of all jobs whose policy names a webhook
        self.ended: EndedJobs = EndedJobs()
        self.ends_wanted: i64 = 0  # how many of each function may have been noted by now; 0: none are
        self.failures_wanted: i64 = 0
        self.half_sent: dict[Peer, None] = {}  # peers with a half-sent packet
        self.half_sent_checked_at: float = 0.0
        self.half_sent_size: i64 = 0  # bytes of half-sent packets, all peers together
        self.chores: Chores = Chores()
        self.agenda: Agenda = Agenda()
        self.commands: dict[bytes, tuple[Callable[[Peer, list[bytes]], None], int]] = {}  # answered by extensions
        self.heirs: dict[str, Callable[[Record], object]] = {}  # of a fleet: who is told of others' records, by kind

        self.events: list[tuple[str, Peer | None, dict[str, object]]] = []  # what an operator may want to know

    # ── functions ───────────────────────────────────────────────────────────────────────────────────────────────

    def function_for(self, peer: Peer, name: bytes) -> Function | None:
        """The function with this name, made if need be; None if a limit forbids it, and ``peer`` got the ERROR."""
        function = self.functions.get(name)
        if function is not None:
            return function
        if len(name) > self.max_function:
            peer.send_error(b"ARGUMENT_TOO_LARGE", b"Function name above the limit of %d bytes" % self.max_function)
            return None
        if not self.make_room_for_function():
            peer.send_error(b"QUEUE_ERROR", b"The job server has %d functions and takes no more" % len(self.functions))
            return None
        if not self.has_room(function_cost(name)):
            self.refuse_for_memory(peer)
            return None
        return self.create_function(name)

    def make_room_for_function(self) -> bool:
        """Whether one more function may be made; if there are as many as may be, the longest idle one is forgotten."""
        if len(self.functions) < self.settings.max_functions:
            return True
        for _ in range(_TRIES):
            function = next(iter(self.idle), None)
            if function is None:
                break
            if function.gate is None or not has_memory(function.gate, self.now):
                self.forget_function(function)
                return True
            self.note_idle(function)
        return False

    def may_create(self, name: bytes) -> bool:
        """Whether the limits let a function of this name be made."""
        return len(name) <= self.max_function and self.make_room_for_function() and self.has_room(function_cost(name))

    def create_function(self, name: bytes) -> Function:
        """The function with this name, made if need be, whatever the limits say."""
        function = self.functions.get(name)
        if function is None:
            function = Function(name)
            self.functions[name] = function
            function.place = self.function_roll.enter(function)
            self.memory += function_cost(name)
            function.policy = self.policy_for(name)
            if function.policy is not None:
                fit_gate(function, self.now)
            self.note_idle(function)
        return function

    def policy_for(self, function: bytes) -> Policy | None:
        """The policy that a function of this name should have; patterns take their time."""
        self.cost += self.policies.pattern_bytes // 2
        return self.policies.policy_for(function)

    def note_idle(self, function: Function) -> None:
        """A function may have become idle: then it is forgotten some time from now."""
        if (
            function.workers == 0
            and function.total == 0
            and not function.is_kept
            and not function.forgotten
            and self.dead.count(function) == 0
        ):
            self.idle.pop(function, None)
            function.idle_since = self.now if self.now > 0 else 1e-9
            self.idle[function] = None

    def note_busy(self, function: Function) -> None:
        """A function that was idle has something again."""
        function.idle_since = 0.0
        self.idle.pop(function, None)

    def forget_function(self, function: Function) -> None:
        """Know a function no more; its counters go into the sum of those that are forgotten."""
        function.forgotten = True
        self.idle.pop(function, None)
        del self.functions[function.name]
        self.function_roll.leave(function.place)
        self.memory -= function.cost()
        high, normal, low = self.forgotten  # where its last jobs are counted as well
        normal.add(function.counters)
        function.counters = normal
        if function.high_counters is not None:
            high.add(function.high_counters)
        function.high_counters = high
        if function.low_counters is not None:
            low.add(function.low_counters)
        function.low_counters = low

    def tally(self, function: Function, priority: i64) -> Counters:
        """Where it is counted what happens to jobs of this priority, made if need be.

        While there is no room for that, they count as normal ones.
        """
        if priority == NORMAL:
            return function.counters
        if priority == HIGH and function.high_counters is None and self.has_room(TALLY_COST):
            self.memory += TALLY_COST
            function.high_counters = Counters()
        elif priority == LOW and function.low_counters is None and self.has_room(TALLY_COST):
            self.memory += TALLY_COST
            function.low_counters = Counters()
        return function.tally(priority)

    # ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────

    def has_room(self, cost: i64) -> bool:
        """Whether so many bytes more may be kept."""
        return self.max_memory <= 0 or self.memory + cost <= self.max_memory

    def refuse_for_memory(self, peer: Peer) -> None:
        """Tell a peer that there is no room for what it sent."""
        peer.send_error(b"QUEUE_ERROR", b"The job server's memory is full")
        self.event("memory_full", peer, {"memory": self.memory, "limit": self.max_memory})

    def note_number(self) -> None:
        """The next number has been given out; the one after it may be another block's."""
        self.next_number += 1
        if self.next_number >= self.numbers_end:
            self.begin_block()

    def begin_block(self) -> None:
        """Of a fleet: go on with the numbers of the next block, if there is one."""
        number: i64 = self.next_block
        if number > 0:
            self.next_block = 0
            self.next_number = number
            self.numbers_end = number + self.block_size

    def set_due(self, job: Job, due: float) -> None:
        """A job is to wait until ``due``, a Unix time."""
        self.memory -= job.cost()
        job.due = due
        self.memory += job.cost()

    def revoke(self, peer: Peer, number: i64) -> None:
        """The job with this number was taken from this worker: late reports on it are no error."""
        if peer.gone or peer.closing:
            return
        revoked = peer.revoked
        if revoked is None:
            revoked = {}
            peer.revoked = revoked
        if number not in revoked:
            if len(revoked) >= MAX_REVOKED:
                for oldest in revoked:
                    del revoked[oldest]
                    break
            else:
                self.memory += REVOKED_COST
        revoked[number] = None

    def unrevoke(self, peer: Peer, number: i64) -> None:
        """The worker has been given the job with this number again."""
        revoked = peer.revoked
        if revoked is not None and number in revoked:
            del revoked[number]
            self.memory -= REVOKED_COST

    def _is_delayed(self, number: int, assignment: int) -> bool:
        job = self.jobs.get(number)
        return job is not None and job.state == DELAYED and job.assignments == assignment

    def _is_expiring(self, number: int, assignment: int) -> bool:
        job = self.jobs.get(number)
        return job is not None and job.marks & EXPIRING != 0 and job.assignments == assignment

    def _is_timed(self, number: int, assignment: int) -> bool:
        job = self.jobs.get(number)
        return job is not None and job.state == RUNNING and job.assignments == assignment

    # ── words ───────────────────────────────────────────────────────────────────────────────────────────────────

    def event(self, name: str, peer: Peer | None, fields: dict[str, object]) -> None:
        """Leave a word for the operator; the names are those of the table in ``events``."""
        if len(self.events) < MAX_EVENTS:
            self.events.append((name, peer, fields))

    def shown_handle(self, job: Job) -> str:
        """The handle as text, for events."""
        return as_text(self.handles.make(job.number))

    def too_few_arguments(self, peer: Peer, type: i64) -> None:
        """The answer to a packet whose body lacks arguments; its length is known, so the stream goes on."""
        name, _, arguments = LAYOUTS[type]
        text = f"{name} carries {len(arguments)} arguments ({', '.join(arguments)}), each but the last ended by a NUL"
        peer.send_error(b"INVALID_PACKET", text.encode())
        self.event("malformed_packet", peer, {"type": name})
