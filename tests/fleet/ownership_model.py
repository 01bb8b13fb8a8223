"""The protocol by which a fleet's job servers own jobs, and nothing else of them: a model to be played with.

The idea of the protocol: *the database alone says who owns a job, by its own clock; a job server hands out what it owns
only as long as it can be sure that nobody has taken it away.*

- Each member of the fleet has an ``id`` that is never used again, and whatever it writes is conditional on the row of
  that id being LIVE (the id is its *epoch*). Who judges a member DEAD thereby ends its writing, those on their way too.
- The row's lease says until when others let it be. The member counts the same lease from *before* it asked for it, less
  a margin, on whatever clock it has: its own lease ends first.
- A member's session lock falls with its process, so that a death is seen before the lease is over. It also falls when
  the database goes away, which kills nobody: so whoever judges must have held its own lock for a whole lease, and a
  lease that was given without the lock does not count.
- The rows of an ended member are taken over by compare-and-set of their owner. Who dies having taken some has an estate
  like any other.
- A live member gives jobs to a target by writing ``-target`` as their owner; the target takes them from there.
- After a broken session nobody knows what became of the last transaction. It is ended before it is asked again, and a
  claim without an answer is looked up.

``Protocol`` names each of these protections, and any of them can be left out: the histories in which that does harm are
what it is for. The ``Database`` is abstract: each of its methods is one transaction. A ``Server`` is a process that may
be frozen, cut off and killed; its transactions are ``Flight``s, which arrive, and whose answers are read, whenever it
may be. ``World`` holds them all and says what must be true.

A hand-out is one step here. A server that freezes between its look at the clock and the bytes' way out may still hand
out one job that another has by now. Jobs are done at least once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import Enum

LEASE = 8.0
MARGIN = 1.0
CLOCK_RATES = (1.0, 7 / 8, 9 / 8)  # how fast a server's clock may run beside the database's: the margin covers it
BATCH = 2  # rows that one claim takes


@dataclass(frozen=True)
class Protocol:
    """The protections; and, below, what the world is trusted with."""

    acknowledges_after_commit: bool = True
    checks_epoch: bool = True
    """Every write is conditional on its writer's row being LIVE, in the same transaction."""
    pulse_checks_epoch: bool = True
    """A member that is not LIVE any more gets no lease."""
    writes_only_own_rows: bool = True
    """A change of a job's row is conditional on the owner that the writer knows."""
    stops_at_its_lease: bool = True
    """A member whose lease is over by its own count hands out no job."""
    counts_lease_from_before_asking: bool = True
    leaves_a_margin: bool = True
    counts_only_a_locked_lease: bool = True
    """A lease given while the member's lock was free does not count: it takes the lock and asks again."""
    judges_by_the_databases_clock: bool = True
    judges_before_claiming: bool = True
    """Nobody claims from a member for its lease alone: its row is first made DEAD, which ends its writing."""
    waits_a_lease_after_outage: bool = True
    outage_is_a_lost_session: bool = True
    """Who judges has had its lock for a lease. The database's uptime tells less: a promoted standby is up for long."""
    claims_conditionally: bool = True
    """A claim takes rows for what their owner is now, not for what it was when somebody looked."""
    target_must_be_live: bool = True
    buries_only_empty: bool = True
    ignores_answers_to_its_former_self: bool = True
    looks_again_after_lost_claim: bool = True
    """A claim whose answer was lost may have been done: the rows that we own and do not know are looked up."""
    ends_its_broken_session: bool = True
    """Before a new session does anything, the one that broke has ended: nothing of it arrives later."""

    locks_fall_with_processes_only: bool = True
    """While the database is up, a lock is free only if its process has ended."""
    clocks_count_stops: bool = True
    """The clock that a lease is counted by goes on while the process, or its machine, is stopped."""


PROTECTIONS = tuple(protection.name for protection in fields(Protocol))


class Broken(AssertionError):
    """Something that must be true is not."""


class FencedError(Exception):
    """The member that asked is not LIVE any more."""


class State(Enum):
    """Of a member's row; LEFT: a planned stop; GONE: nothing of it is left to claim."""

    LIVE = "live"
    LEFT = "left"
    DEAD = "dead"
    GONE = "gone"


ENDED = (State.LEFT, State.DEAD)


# ── what is sent to the database ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Pulse:
    asked: float  # by the server's clock


@dataclass(frozen=True)
class Commit:
    added: frozenset[int]
    removed: frozenset[int]
    moved: tuple[tuple[int, int], ...]  # job, target


@dataclass(frozen=True)
class Claim:
    estate: int
    seen: tuple[int, ...]  # what was there when it was sent


Request = Pulse | Commit | Claim


@dataclass(eq=False)
class Flight:
    """A transaction on its way: ``answer`` is there once it has arrived."""

    sender: int
    request: Request
    answer: bool | frozenset[int] | FencedError | None = None


# ── the database ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Row:
    """A member's row, with its lock: since when it is held."""

    lease_end: float
    locked_since: float | None
    state: State = State.LIVE


@dataclass
class Database:
    """Each method is one transaction, done when it arrives."""

    protocol: Protocol
    clock: float = 1000.0
    started: float = 0.0
    up: bool = True
    members: dict[int, Row] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)
    """Of each job that is in the table: a member's id; 0: nobody yet; -id: on its way to that member."""

    def is_live(self, id: int) -> bool:
        return id in self.members and self.members[id].state is State.LIVE

    def rows_of(self, owner: int) -> list[int]:
        return [job for job, its_owner in self.owners.items() if its_owner == owner]

    def join(self) -> int:
        self.members[len(self.members) + 1] = Row(self.clock + LEASE, self.clock)
        return len(self.members)

    def pulse(self, id: int) -> bool:
        """Renews the lease; whether the member's lock is held."""
        row = self.members[id]
        if self.protocol.pulse_checks_epoch and row.state is not State.LIVE:
            raise FencedError
        row.lease_end = self.clock + LEASE
        return row.locked_since is not None

    def lock(self, id: int) -> None:
        row = self.members[id]
        if row.state is State.LIVE and row.locked_since is None:
            row.locked_since = self.clock

    def judge(self, judge: int, id: int, judges_clock: float) -> None:
        """LIVE -> DEAD, if its lock is free or its lease over, and if that says something about the member."""
        row = self.members[id]
        clock = self.clock if self.protocol.judges_by_the_databases_clock else judges_clock
        if not (self.is_live(judge) and self._has_seen_a_lease(judge)) or row.state is not State.LIVE:
            return
        if row.locked_since is None or row.lease_end <= clock:
            row.state, row.locked_since = State.DEAD, None

    def _has_seen_a_lease(self, judge: int) -> bool:
        """Whether there was no outage for so long that who still counts on a lease has got it, and its lock, since."""
        if not self.protocol.waits_a_lease_after_outage:
            return True
        since: float | None = self.started
        if self.protocol.outage_is_a_lost_session:
            since = self.members[judge].locked_since
        return since is not None and self.clock - since >= LEASE

    def leave(self, id: int) -> None:
        row = self.members[id]
        if row.state is State.LIVE:
            row.state, row.locked_since = State.LEFT, None

    def bury(self, id: int) -> None:
        is_empty = not self.rows_of(id) and not self.rows_of(-id)
        if self.members[id].state in ENDED and (is_empty or not self.protocol.buries_only_empty):
            self.members[id].state = State.GONE

    def commit(self, sender: int, batch: Commit) -> frozenset[int]:
        """The jobs that were to move, and did not.

        Done twice it is the same as done once, as long as nothing of the sender has come in between.
        """
        self._admit(sender)
        for job in batch.added:
            if job not in self.owners:
                self._write(sender, job, None, sender)
        for job in batch.removed:
            if self._is_to_be_written(sender, job):
                self._write(sender, job, sender, None)
        for job, target in batch.moved:
            can_go = not self.protocol.target_must_be_live or self.is_live(target)
            if can_go and self._is_to_be_written(sender, job):
                self._write(sender, job, sender, -target)
        return frozenset(job for job, _ in batch.moved if self.owners.get(job) == sender)

    def claim(self, sender: int, claim: Claim) -> frozenset[int]:
        self._admit(sender)
        there = self.rows_of(claim.estate) if self.protocol.claims_conditionally else list(claim.seen)
        claimed = [job for job in there if job in self.owners][:BATCH]
        for job in claimed:
            self._write(sender, job, claim.estate, sender)
        return frozenset(claimed)

    def _admit(self, sender: int) -> None:
        if self.protocol.checks_epoch and not self.is_live(sender):
            raise FencedError

    def _is_to_be_written(self, sender: int, job: int) -> bool:
        return job in self.owners and (not self.protocol.writes_only_own_rows or self.owners[job] == sender)

    def _write(self, sender: int, job: int, owner: int | None, heir: int | None) -> None:
        """Change a job's row from ``owner`` to ``heir``; None: there is no row."""
        if not self.is_live(sender):
            raise Broken(f"a write of the ended member {sender} was accepted")
        if self.owners.get(job) != owner:
            raise Broken(f"member {sender} wrote the row of job {job}, whose owner {self.owners.get(job)} is another")
        if owner not in (None, sender, 0, -sender) and self.is_live(abs(owner or 0)):
            raise Broken(f"member {sender} took job {job} from the live member {owner}")
        if heir is None:
            del self.owners[job]
        else:
            self.owners[job] = heir


# ── a job server ────────────────────────────────────────────────────────────────────────────────────────────────────


class Process(Enum):
    RUNS = "runs"
    FROZEN = "frozen"
    ENDED = "ended"


@dataclass(eq=False)
class Server:
    """A process; of its jobs it knows what it may not know of the others'."""

    rate: float
    clock: float
    process: Process = Process.RUNS
    cut: bool = False

    id: int = 0  # its incarnation's; 0: it has none
    lease_until: float = 0.0  # by its clock
    in_session: bool = True
    claim_is_lost: bool = False
    sent: dict[type[Request], Flight] = field(default_factory=dict)
    batch: Commit | None = None  # what is being stored; it is sent again until it is answered

    submitted: set[int] = field(default_factory=set)
    queued: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    leaving: dict[int, int] = field(default_factory=dict)  # job -> target

    @property
    def runs(self) -> bool:
        return self.process is Process.RUNS

    @property
    def known(self) -> set[int]:
        return self.submitted | self.queued | self.running | self.done | self.leaving.keys()

    def forget(self) -> None:
        """Become nobody, with no job."""
        self.id, self.batch, self.in_session, self.claim_is_lost = 0, None, True, False
        self.submitted, self.queued, self.running, self.done, self.leaving = set(), set(), set(), set(), {}


# ── all of it ───────────────────────────────────────────────────────────────────────────────────────────────────────


class World:
    """What may happen; and, in ``check`` and ``come_to_rest``, what must be true."""

    def __init__(self, protocol: Protocol, stored: int = 0) -> None:
        """``stored`` jobs are in the table already, of a job server that had it alone before the fleet."""
        self.protocol = protocol
        self.database = Database(protocol, owners=dict.fromkeys(range(1, stored + 1), 0))
        self.servers: list[Server] = []
        self.under_way: list[Flight] = []
        self.submitted = stored
        self.acknowledged = set(self.database.owners)
        self.completed: set[int] = set()

    # ── what must be true ───────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """What is true at any moment; ``Database`` checks by itself that nobody writes what it may not."""
        if lost := self.acknowledged - self.database.owners.keys() - self.completed:
            raise Broken(f"jobs {lost} were acknowledged and are lost")
        for server in filter(lambda server: server.runs and server.id, self.servers):
            if self.may_hand_out(server):
                if not self.database.is_live(server.id):
                    raise Broken(f"the ended member {server.id} may hand out jobs")
                for job in server.queued:
                    if self.database.owners.get(job) != server.id:
                        raise Broken(f"{server.id} may hand out job {job} of {self.database.owners.get(job)}")
            unknown = set(self.database.rows_of(server.id)) - server.known
            if unknown and server.in_session and Claim not in server.sent:
                raise Broken(f"jobs {unknown} of {server.id} stay behind: it has them and will never hear of them")

    def come_to_rest(self) -> None:
        """Everything heals and who can does what it should: then somebody who lives has each job, and knows it."""
        self.database.up = True
        for flight in list(self.under_way):
            self.arrive(flight)
        for server in self.servers:
            self.come_back(server)
        if not any(server.runs for server in self.servers):
            self.start(1.0, 0.0)
        for _ in range(int(LEASE) * 2 + self.submitted):
            self.wait(1.0)
            for server in filter(lambda server: server.runs, self.servers):
                self.one_round(server)
                self.check()
        for job, owner in self.database.owners.items():
            if not any(server.id == owner and job in server.known for server in self.servers if server.runs):
                raise Broken(f"job {job} of {owner} stays behind: nobody ever claims it")
        if waiting := [server.id for server in self.servers if server.runs and not self.may_hand_out(server)]:
            raise Broken(f"members {waiting} did not get well")

    def one_round(self, server: Server) -> None:
        """What a server does twice a second."""
        self.relock(server)
        self.pulse(server)
        for kind in list(server.sent):
            self.finish(server, kind)
        self.break_session(server)
        self.reconnect(server)
        self.begin_commit(server)
        self.finish(server, Commit)
        for id in (0, *self.database.members):
            if id and id != server.id:
                self.judge(server, id)
            for estate in {id, -id}:
                self.begin_claim(server, estate)
                self.finish(server, Claim)
            if id:
                self.bury(server, id)

    # ── the world ───────────────────────────────────────────────────────────────────────────────────────────────

    def wait(self, seconds: float) -> None:
        self.database.clock += seconds
        for server in self.servers:
            if server.process is not Process.FROZEN or self.protocol.clocks_count_stops:
                server.clock += seconds * server.rate

    def start(self, rate: float, offset: float) -> None:
        """A new process, whose clock runs at ``rate`` and is ``offset`` ahead of the database's."""
        self.servers.append(Server(rate, self.database.clock + offset))

    def freeze(self, server: Server) -> None:
        if server.runs:
            server.process = Process.FROZEN

    def come_back(self, server: Server) -> None:
        """From being frozen, or cut off."""
        server.cut = False
        if server.process is Process.FROZEN:
            server.process = Process.RUNS

    def kill(self, server: Server) -> None:
        """The process ends. Its lock falls, if the database hears of it; what it sent is still on its way."""
        if server.process is not Process.ENDED:
            server.process = Process.ENDED
            if self.database.up and not server.cut and server.id:
                self.database.members[server.id].locked_since = None

    def database_goes_down(self) -> None:
        self.database.up = False
        self.under_way.clear()
        for row in self.database.members.values():
            row.locked_since = None

    def database_comes_up(self, is_promoted: bool, ahead: float) -> None:
        """Again, or a standby in its place that has been up for long; its clock may differ."""
        if not self.database.up:
            self.database.up = True
            self.database.clock += ahead
            self.database.started = 0.0 if is_promoted else self.database.clock

    def drop_lock(self, server: Server) -> None:
        """Somebody, or an impatient network, ends the lock's session of a process that lives on."""
        if not self.protocol.locks_fall_with_processes_only and server.id:
            self.database.members[server.id].locked_since = None

    def arrive(self, flight: Flight) -> None:
        """A transaction comes to the database and is done, whatever has become of its sender."""
        self.under_way.remove(flight)
        try:
            match flight.request:
                case Pulse():
                    flight.answer = self.database.pulse(flight.sender)
                case Commit() as batch:
                    flight.answer = self.database.commit(flight.sender, batch)
                case Claim() as claim:
                    flight.answer = self.database.claim(flight.sender, claim)
        except FencedError as error:
            flight.answer = error

    # ── what a server does ──────────────────────────────────────────────────────────────────────────────────────

    def reaches(self, server: Server) -> bool:
        """Whether a server can talk with the database."""
        return server.runs and not server.cut and self.database.up

    def may_hand_out(self, server: Server) -> bool:
        return bool(server.id) and (server.clock < server.lease_until or not self.protocol.stops_at_its_lease)

    def send(self, server: Server, request: Request) -> None:
        if self.reaches(server) and server.id and server.in_session and type(request) not in server.sent:
            flight = server.sent[type(request)] = Flight(server.id, request)
            self.under_way.append(flight)

    def read(self, server: Server, kind: type[Request]) -> None:
        """Read an answer, if it has come."""
        flight = server.sent.get(kind)
        if flight is None or flight.answer is None or not server.runs or server.cut:
            return
        del server.sent[kind]
        match flight.request, flight.answer:
            case _, FencedError():
                self.forsake(server)
            case Pulse(asked), bool(is_locked):
                if is_locked or not self.protocol.counts_only_a_locked_lease:
                    since = asked if self.protocol.counts_lease_from_before_asking else server.clock
                    self.count_lease(server, since)
            case Commit() as batch, frozenset(kept):
                self.committed(server, batch, kept)
            case Claim(), frozenset(jobs):
                server.queued |= jobs

    def finish(self, server: Server, kind: type[Request]) -> None:
        """Let what a server has sent arrive, and its answer be read."""
        flight = server.sent.get(kind)
        if flight is not None and flight in self.under_way and self.database.up:
            self.arrive(flight)
        self.read(server, kind)

    def count_lease(self, server: Server, since: float) -> None:
        server.lease_until = since + LEASE - (MARGIN if self.protocol.leaves_a_margin else 0.0)

    def begin_pulse(self, server: Server) -> None:
        """Ask for a lease; who is nobody joins first."""
        if not server.id and self.reaches(server):
            server.id = self.database.join()
            self.count_lease(server, server.clock)
        else:
            self.send(server, Pulse(server.clock))

    def pulse(self, server: Server) -> None:
        self.begin_pulse(server)
        self.finish(server, Pulse)

    def relock(self, server: Server) -> None:
        """Take the lock again, if it was lost."""
        if self.reaches(server) and server.id:
            self.database.lock(server.id)

    def forsake(self, server: Server) -> None:
        """Others have the jobs now: forget them, and whatever was asked."""
        server.forget()
        former = server.sent if not self.protocol.ignores_answers_to_its_former_self else {}
        server.sent = {kind: flight for kind, flight in former.items() if kind is Claim}

    def break_session(self, server: Server) -> None:
        """A server gives up waiting for answers; what it has sent may still arrive."""
        if server.runs and server.in_session and server.sent:
            server.in_session = False
            server.claim_is_lost |= Claim in server.sent
            server.sent = {}

    def reconnect(self, server: Server) -> None:
        """A new session, that begins with what became of the one that broke."""
        if server.in_session or not self.reaches(server):
            return
        server.in_session = True
        if self.protocol.ends_its_broken_session:
            self.under_way = [flight for flight in self.under_way if flight.sender != server.id]
        if server.claim_is_lost and self.protocol.looks_again_after_lost_claim:
            server.queued |= set(self.database.rows_of(server.id)) - server.known
        server.claim_is_lost = False

    def judge(self, server: Server, id: int) -> None:
        if self.reaches(server) and server.id and id != server.id:
            self.database.judge(server.id, id, server.clock)

    def bury(self, server: Server, id: int) -> None:
        if self.reaches(server):
            self.database.bury(id)

    def leave(self, server: Server) -> None:
        """A planned stop: everything is handed over at once."""
        if self.reaches(server) and server.id:
            self.database.leave(server.id)
            server.process = Process.ENDED

    # ── jobs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, server: Server) -> None:
        """A client submits a job, with a number that no other will have."""
        if server.runs and server.id:
            self.submitted += 1
            server.submitted.add(self.submitted)
            if not self.protocol.acknowledges_after_commit:
                self.acknowledged.add(self.submitted)

    def begin_commit(self, server: Server) -> None:
        """Send what has changed, or again what has not been answered."""
        if server.batch is None and (server.submitted or server.done or server.leaving):
            moved = tuple(server.leaving.items())
            server.batch = Commit(frozenset(server.submitted), frozenset(server.done), moved)
        if server.batch is not None:
            self.send(server, server.batch)

    def committed(self, server: Server, batch: Commit, kept: Iterable[int]) -> None:
        server.batch = None
        server.submitted -= batch.added
        server.queued |= batch.added
        self.acknowledged |= batch.added
        server.done -= batch.removed
        for job, _ in batch.moved:
            del server.leaving[job]
        server.queued |= set(kept)

    def begin_claim(self, server: Server, estate: int) -> None:
        """Ask for jobs of a member that has ended, of nobody, or of those that were sent here."""
        seen = tuple(self.database.rows_of(estate))[:BATCH]
        if seen and self.reaches(server) and self.may_claim(server, estate):
            self.send(server, Claim(estate, seen))

    def may_claim(self, server: Server, estate: int) -> bool:
        if estate in (0, -server.id):
            return True
        row = self.database.members[abs(estate)]
        is_over = row.lease_end <= self.database.clock and abs(estate) != server.id
        return row.state in ENDED or (is_over and not self.protocol.judges_before_claiming)

    def hand_out(self, server: Server) -> None:
        """A worker takes a job."""
        if server.runs and self.may_hand_out(server) and server.queued:
            job = min(server.queued)
            server.queued.remove(job)
            server.running.add(job)

    def complete(self, server: Server) -> None:
        """A worker has done its job."""
        if server.runs and server.running:
            job = min(server.running)
            server.running.remove(job)
            server.done.add(job)
            self.completed.add(job)

    def move(self, server: Server, target: int) -> None:
        """A job is to go where a worker for it is."""
        if server.runs and server.queued and target and target != server.id:
            job = min(server.queued)
            server.queued.remove(job)
            server.leaving[job] = target
