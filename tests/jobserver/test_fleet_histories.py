"""Random histories of two members of a fleet: whatever happens, what was acknowledged is not lost, and is one's alone.

Batches, their answers, leases, judgements, claims and moves come in any order that the contract of the store allows.
"""

from __future__ import annotations

from typing import cast

from fleet_desk import FencedError, Member, Place
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from structure import check

from geartrain.jobserver.kept import cost
from geartrain.jobserver.model import DEAD, MOVING, STORED, TALLY_COST, WRITING, function_cost
from geartrain.jobserver.records import Batch
from geartrain.store.writer import taken_back

FUNCTIONS = (b"plain", b"keyed", b"tried")
POLICIES = ("tried attempts=2 delay=1s retry_on=lost dead=1h", "keyed key_separator=: key_concurrency=1")
UNIQUES = (b"", b"", b"a", b"a:1", b"-")
KINDS = ("SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_LOW_BG")

COMMANDS = ("cancel job", "dead retry", "retry", "priority")
ACTIONS = {
    "submit": 14, "submit_for_later": 3, "submit_and_wait": 2, "client_leaves": 1, "grab": 8, "report": 5, "fail": 6,
    "workers_leave": 1, "order": 5, "wait": 3, "hand_over": 5, "answer": 4, "come_back": 2, "tell_begun": 1,
    "stand_still": 6, "lapse": 2, "renew": 3, "judge": 1, "hear_of_it": 2, "claim": 4, "give_away": 8,
    "give_away_all": 4, "receive": 5,
}  # fmt: skip

numbers = st.integers(0, 30)
often = st.sampled_from([name for name, weight in ACTIONS.items() for _ in range(weight)])


class Host:
    """A member with its workers, and how far its batch has come."""

    def __init__(self, place: Place) -> None:
        self.member = Member(place)
        self.batch: Batch | None = None
        self.down: Batch | None = None  # was refused, and is to be taken back before the store takes others
        self.is_judged = False
        self.runs: list[tuple[str, bytes]] = []  # at which worker
        self.has_worked = 0

    @property
    def server(self):  # type: ignore[no-untyped-def]
        return self.member.server


class FleetHistories(RuleBasedStateMachine):
    """Two members; clients and workers at each, who know nothing of the other."""

    @initialize()
    def begin(self) -> None:
        self.place = Place()
        self.hosts = [Host(self.place), Host(self.place)]
        self.ended_members: list[int] = []
        self.acknowledged: set[int] = set()
        self.done: set[int] = set()
        for words in POLICIES:
            assert self.hosts[0].member.text("admin", f"policy set {words}").startswith("OK")
        self.hosts[1].server.apply_shared(self.place.shared_records())
        for host in self.hosts:
            self._hire(host)

    def _hire(self, host: Host) -> None:
        host.has_worked += 1
        for n in range(2):
            host.member.works(f"worker {n} {host.has_worked}", *FUNCTIONS)

    @rule(action=often, m=st.integers(0, 1), a=numbers, b=numbers)
    def something_happens(self, action: str, m: int, a: int, b: int) -> None:
        getattr(self, action)(m, a, b)

    # ── clients and workers ─────────────────────────────────────────────────────────────────────────────────────

    def submit(self, m: int, a: int, b: int) -> None:
        member = self.hosts[m].member
        member.send("background", KINDS[a % len(KINDS)], FUNCTIONS[a % 3], UNIQUES[b % len(UNIQUES)], b"w")
        self._hear(self.hosts[m])

    def submit_for_later(self, m: int, a: int, b: int) -> None:
        member = self.hosts[m].member
        due = b"%d" % (member.wall + b % 11 - 1)
        member.send("background", "SUBMIT_JOB_EPOCH", FUNCTIONS[a % 3], UNIQUES[b % len(UNIQUES)], due, b"w")
        self._hear(self.hosts[m])

    def submit_and_wait(self, m: int, a: int, b: int) -> None:
        self.hosts[m].member.send("foreground", "SUBMIT_JOB", FUNCTIONS[a % 3], UNIQUES[b % len(UNIQUES)], b"w")

    def client_leaves(self, m: int, a: int, b: int) -> None:
        if "foreground" in self.hosts[m].member.peers:
            self.hosts[m].member.leave("foreground")

    def _hear(self, host: Host) -> None:
        for packet in host.member.take("background"):
            if packet[0] == "JOB_CREATED":
                self.acknowledged.add(host.member.number(cast(bytes, packet[1])))

    def grab(self, m: int, a: int, b: int) -> None:
        self._grab(m, a % 2)

    def _grab(self, m: int, n: int) -> bool:
        host = self.hosts[m]
        member = host.member
        name = f"worker {n} {host.has_worked}"
        handle = member.grab(name)
        if handle is None:
            return False
        job = host.server.jobs.get(member.number(handle))
        assert job is not None
        assert not host.server.lapsed or job.stored < WRITING, "it may be another's"
        assert job.stored < STORED or self.place.owner(int(job.number)) == member.me, "it is another's"
        host.runs.append((name, handle))
        return True

    def report(self, m: int, a: int, b: int) -> None:
        what = "WORK_FAIL" if a % 2 else "WORK_COMPLETE"
        host = self.hosts[m]
        if not host.runs:
            return
        name, handle = host.runs.pop(0)
        number = host.member.number(handle)
        job = host.server.jobs.get(number)
        is_its = job is not None and job.worker is host.member.peer(name)
        host.member.send(name, what, handle, *([b"result"] if what == "WORK_COMPLETE" else []))
        if is_its and (what == "WORK_COMPLETE" or host.server.jobs.get(number) is None):
            self.done.add(number)
        self._hear(host)

    def fail(self, m: int, a: int, b: int) -> None:
        """A job of the function that keeps dead letters becomes one."""
        member = self.hosts[m].member
        member.works("failing", b"tried")
        handle = member.grab("failing")
        if handle is not None:
            member.send("failing", "WORK_FAIL", handle)
        member.leave("failing")
        self._hear(self.hosts[m])

    def workers_leave(self, m: int, a: int, b: int) -> None:
        host = self.hosts[m]
        for n in range(2):
            host.member.leave(f"worker {n} {host.has_worked}")
        host.runs = []
        self._hire(host)

    def order(self, m: int, a: int, b: int) -> None:
        command = COMMANDS[b % len(COMMANDS)]
        numbers = sorted(self.acknowledged)
        if not numbers:
            return
        number = numbers[a % len(numbers)]
        line = f"{command} H:{number}" + (" high" if command == "priority" else "")
        member = self.hosts[m].member
        answer = member.text_now("admin", line)
        for question in member.questions():
            assert not answer
            other = self.hosts[1 - m].member
            there = other.text_now("other member", "local " + line)
            member.answer(question, there.encode())
            answer = member.text_now("admin", "")
        if command == "cancel job" and answer.startswith("OK"):
            self.done.add(number)
        for name in ("admin", "other member"):  # what waits for the store is of no use here
            for host in self.hosts:
                if name in host.member.peers:
                    host.member.leave(name)

    def wait(self, m: int, a: int, b: int) -> None:
        self.hosts[m].member.wait((0.5, 2, 15)[a % 3])
        self.hosts[m].member.settle_doubts()

    # ── the place ───────────────────────────────────────────────────────────────────────────────────────────────

    def hand_over(self, m: int, a: int = 0, b: int = 0) -> None:
        host = self.hosts[m]
        if host.batch is None and host.down is None:
            host.batch = host.server.take_batch()

    def answer(self, m: int, a: int = 0, b: int = 0) -> None:
        """The batch has arrived, or has not; and the answer to that is one, or is lost."""
        arrives, fails = a % 2 == 0, b % 4 == 3
        host = self.hosts[m]
        batch = host.batch
        if batch is None:
            return
        host.batch = None
        is_fenced = False
        if arrives or not fails:
            try:
                self.place.commit(host.member.me, batch)
            except FencedError:
                is_fenced = True
        if fails or is_fenced:
            host.server.refused(batch, "no answer", True)
            host.down = batch
        else:
            host.server.written(batch)
        host.member.settle()
        self._hear(host)

    def come_back(self, m: int, a: int = 0, b: int = 0) -> None:
        host = self.hosts[m]
        if host.down is not None and not host.is_judged:
            self.place.commit(host.member.me, taken_back(host.down))
            host.down = None
            host.server.back()
            host.member.settle()

    def tell_begun(self, m: int, a: int = 0, b: int = 0) -> None:
        self.hosts[m].server.tell_begun()

    def stand_still(self, m: int, a: int = 0, b: int = 0) -> None:
        """All that is under way comes to its end."""
        self.come_back(m)
        for _ in range(4):
            self.hand_over(m)
            self.answer(m)

    # ── leases ──────────────────────────────────────────────────────────────────────────────────────────────────

    def lapse(self, m: int, a: int = 0, b: int = 0) -> None:
        self.hosts[m].member.lapse()

    def renew(self, m: int, a: int = 0, b: int = 0) -> None:
        if not self.hosts[m].is_judged:
            self.hosts[m].member.renew()

    def judge(self, m: int, a: int = 0, b: int = 0) -> None:
        """Whose lease is over for the place has known that it is for a while."""
        host = self.hosts[m]
        if host.is_judged or self.hosts[1 - m].is_judged:
            return
        host.member.lapse()
        self.place.judge(host.member.me)
        self.ended_members.append(host.member.me)
        host.is_judged = True

    def hear_of_it(self, m: int, a: int = 0, b: int = 0) -> None:
        host = self.hosts[m]
        if not host.is_judged:
            return
        for n in range(2):
            host.member.leave(f"worker {n} {host.has_worked}")
        host.runs = []
        host.member.forsake()
        self._hear(host)
        assert not [job for job in host.server.jobs if job.stored]
        assert host.server.take_batch() is None
        assert not host.server.changes.waiting
        host.member.join()
        if host.batch is not None:  # an answer that was posted before
            host.server.refused(host.batch, "fenced", True)
        host.batch = host.down = None
        host.is_judged = False
        self._hire(host)

    def claim(self, m: int, a: int, b: int) -> None:
        count = 1 + a
        host = self.hosts[m]
        if host.is_judged:
            return
        for estate in self.ended_members:
            host.member.claim(estate, count)
            host.member.claim(-estate, count)

    def give_away(self, m: int, a: int, b: int) -> None:
        host = self.hosts[m]
        for name in FUNCTIONS:
            host.server.give_away(name, self.hosts[1 - m].member.me, 1 + b % 3)
        host.member.settle()
        if a % 2:
            self.stand_still(m)

    def give_away_all(self, m: int, a: int = 0, b: int = 0) -> None:
        self.stand_still(m)
        self.hosts[m].server.give_away_all(-1, self.hosts[1 - m].member.me)
        self.hosts[m].member.settle()
        if a % 2:
            self.stand_still(m)

    def receive(self, m: int, a: int = 0, b: int = 0) -> None:
        if not self.hosts[m].is_judged:
            self.hosts[m].member.receive()

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def what_is_acknowledged_is_kept(self) -> None:
        if hasattr(self, "place"):
            lost = self.acknowledged - self.done - self.place.rows.keys()
            assert not lost, f"{lost} are in nobody's hands"

    @invariant()
    def what_a_member_takes_for_its_own_is(self) -> None:
        for host in getattr(self, "hosts", ()):
            if not host.server.lapsed:
                for job in host.server.jobs:
                    if job.stored >= STORED and job.flags & MOVING == 0:
                        assert self.place.owner(int(job.number)) == host.member.me, f"{job} is another's"

    def teardown(self) -> None:
        if not hasattr(self, "place"):
            return
        for m, host in enumerate(self.hosts):
            self.hear_of_it(m)
            self.stand_still(m)
            host.member.renew()
        for _ in range(10):
            for m, host in enumerate(self.hosts):
                self.claim(m, 1000, 0)
                self.receive(m)
                while host.runs or self._grab(m, 0):
                    self.report(m, 0, 0)
                self.stand_still(m)
                host.member.settle_doubts()
                self.stand_still(m)
                host.member.wait(30)
        self.what_is_acknowledged_is_kept()
        for host in self.hosts:
            server = host.server
            host.member.works("last worker", b"last")
            last = host.member.submit(b"last", client="last client")
            assert host.member.grab("last worker") == last
            host.member.send("last worker", "WORK_COMPLETE", last, b"")
            host.member.commit()
            dead = {int(job.number) for job in server.jobs if job.state == DEAD}
            assert dead == {int(job.number) for job in server.jobs}, "a job has been forgotten"
            stored = {int(job.number) for job in server.jobs if job.stored}  # else it has died without the place
            assert stored == {n for n, row in self.place.rows.items() if row.owner == host.member.me}
            if dead:
                host.member.text("last", "dead purge all")
            for name in list(host.member.peers):
                host.member.leave(name)
            host.member.commit()
            check(server, is_first_life=False)
            tallies = sum(
                TALLY_COST * ((each.high_counters is not None) + (each.low_counters is not None))
                for each in server.functions.values()
            )
            assert server.memory == tallies + sum(map(function_cost, server.functions)) + sum(
                int(cost(record)) for record in server.stored_records()
            )
            assert {record.kind for record in server.stored_records()} <= {"policy"}
            assert (server.running, server.blocked, server.busy, server.workers) == (0, 0, 0, 0)
            assert server.delayed.live == server.expiries.live == server.timeouts.live == 0
            assert server.elsewhere.open == 0
            assert not server.changes.waiting
        assert self.place.rows == {}
        assert {kind for kind, _ in self.place.records} == {"policy"}


FleetHistories.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestFleetHistories = FleetHistories.TestCase
