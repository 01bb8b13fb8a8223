"""Clients, workers and administrators do anything in any order, to the real job server and to the naive one.

``World`` compares what everybody gets and checks the insides after each step. So no job is lost, none is given to two
workers, the order of each line and the turns of a worker's functions are kept, sleepers are woken as they should, and
every counter adds up, for as many histories as hypothesis can think of.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from world import World, request

FUNCTIONS = [b"f", b"f", b"g", b"h"]
PLAIN = ["SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_LOW", "SUBMIT_JOB_LOW_BG"]
GRABS = ["GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL"]
REPORTS = ["WORK_STATUS", "WORK_DATA", "WORK_WARNING", "WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"]
QUESTIONS = ["status", "prioritystatus", "workers", "show jobs", "show unique jobs", "version", "nonsense"]

names = st.integers(0, 5)
functions = st.sampled_from(FUNCTIONS)
uniques = st.sampled_from([b"", b"", b"-", b"u", b"v" * 64, b"w" * 65])
workloads = st.sampled_from([b"", b"x", b"y\0z", b"a longer workload"])
cuts = st.lists(st.integers(0, 60), max_size=3)
some_time = st.sampled_from([0.0, 0.3, 0.999, 1.0, 1.5, 5.0, 70.0])


class Histories(RuleBasedStateMachine):
    """Six connections at most; each may be client, worker and administrator at once."""

    options: dict[str, Any] = {}  # noqa: RUF012 - set by the subclasses below
    max_body = 1000

    @initialize(
        workers=st.lists(st.tuples(st.lists(functions, max_size=4), st.booleans()), min_size=2, max_size=4),
        jobs=st.lists(st.tuples(st.sampled_from(PLAIN), functions), max_size=6),
    )
    def begin(self, workers: list[tuple[list[bytes], bool]], jobs: list[tuple[str, bytes]]) -> None:
        """Some connections, most of which can do something, some of them asleep already, and some jobs."""
        self.world = World(max_body=self.max_body, **self.options)
        for number, (abilities, sleeps) in enumerate(workers):
            self.world.connect(f"peer {number}")
            can_do = [request("CAN_DO", function) for function in abilities]
            self.send(number, *can_do, *([request("PRE_SLEEP")] if sleeps else []))
        self.send(0, *(request(kind, function, b"", b"w") for kind, function in jobs))

    def name(self, number: int) -> str:
        """One of the connections that are there."""
        return list(self.world.peers)[number % len(self.world.peers)]

    def send(self, number: int, *packets: bytes, cuts: list[int] | None = None) -> None:
        self.world.send(self.name(number), b"".join(packets), cuts or [])

    def number(self, number: int) -> bytes:
        """The handle of a job that was, is, or (one in a while) never has been."""
        return b"H:t:%d" % (number % (self.world.naive.next_number + 1))

    # ── connections ─────────────────────────────────────────────────────────────────────────────────────────────

    @rule()
    def somebody_connects(self) -> None:
        if len(self.world.peers) < 6:
            self.world.connect(f"peer {self.world.next_fd}")

    @precondition(lambda self: len(self.world.peers) > 1)
    @rule(who=names)
    def somebody_leaves(self, who: int) -> None:
        self.world.disconnect(self.name(who))

    @rule(who=names, garbage=st.sampled_from([b"\0ABCdefghijk", b"a b c d e f\n", b"\0REQ\0\0\0\x10\xff\xff\xff\xff"]))
    def somebody_is_hung_up_on(self, who: int, garbage: bytes) -> None:
        self.send(who, garbage)

    @rule(seconds=some_time)
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)

    # ── clients ─────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(who=names, kind=st.sampled_from(PLAIN), function=functions, unique=uniques, workload=workloads, cuts=cuts)
    def somebody_submits(
        self, who: int, kind: str, function: bytes, unique: bytes, workload: bytes, cuts: list[int]
    ) -> None:
        self.send(who, request(kind, function, unique, workload), cuts=cuts)

    @rule(who=names, jobs=st.lists(st.tuples(st.sampled_from(PLAIN), functions), min_size=2, max_size=5), cuts=cuts)
    def somebody_submits_many(self, who: int, jobs: list[tuple[str, bytes]], cuts: list[int]) -> None:
        self.send(who, *(request(kind, function, b"", b"w") for kind, function in jobs), cuts=cuts)

    @rule(who=names, function=functions, unique=uniques, delay=st.integers(-5, 80), workload=workloads)
    def somebody_submits_for_later(self, who: int, function: bytes, unique: bytes, delay: int, workload: bytes) -> None:
        at = b"%d" % (self.world.wall + delay)
        self.send(who, request("SUBMIT_JOB_EPOCH", function, unique, at, workload))

    @rule(who=names, function=functions, minute=st.sampled_from([b"*", b"", b"1", b"30", b"60", b"x"]))
    def somebody_schedules(self, who: int, function: bytes, minute: bytes) -> None:
        self.send(who, request("SUBMIT_JOB_SCHED", function, b"", minute, b"*", b"*", b"*", b"*", b"scheduled"))

    @rule(
        who=names,
        kind=st.sampled_from(["SUBMIT_REDUCE_JOB", "SUBMIT_REDUCE_JOB_BACKGROUND"]),
        function=functions,
        unique=uniques,
        reducer=st.sampled_from([b"", b"sum", b"r" * 513]),
        rest=st.sampled_from([[b"", b"w"], [b"w"], [b"agg", b"w\0w"], []]),
    )
    def somebody_submits_to_reduce(
        self, who: int, kind: str, function: bytes, unique: bytes, reducer: bytes, rest: list[bytes]
    ) -> None:
        self.send(who, request(kind, function, unique, reducer, *rest))

    @rule(who=names, about=names, unique=uniques, option=st.sampled_from([b"exceptions", b"EXCEPTIONS", b"other"]))
    def somebody_asks(self, who: int, about: int, unique: bytes, option: bytes) -> None:
        self.send(
            who,
            request("GET_STATUS", self.number(about)),
            request("GET_STATUS_UNIQUE", unique),
            request("OPTION_REQ", option),
        )

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(who=names, function=functions)
    def a_worker_can_do(self, who: int, function: bytes) -> None:
        self.send(who, request("CAN_DO", function))

    @rule(who=names, function=functions, milliseconds=st.sampled_from([b"0", b"-1", b"500", b"1500", b"x", b"9" * 20]))
    def a_worker_can_do_in_time(self, who: int, function: bytes, milliseconds: bytes) -> None:
        self.send(who, request("CAN_DO_TIMEOUT", function, milliseconds))

    @rule(who=names, function=functions)
    def a_worker_can_not_do(self, who: int, function: bytes) -> None:
        self.send(who, request("CANT_DO", function))

    @rule(who=names)
    def a_worker_can_do_nothing_any_more(self, who: int) -> None:
        self.send(who, request("RESET_ABILITIES"))

    @rule(who=names, how=st.sampled_from(GRABS), times=st.integers(1, 4), sleep=st.booleans(), cuts=cuts)
    def a_worker_grabs(self, who: int, how: str, times: int, sleep: bool, cuts: list[int]) -> None:
        self.send(who, *[request(how)] * times, *([request("PRE_SLEEP")] if sleep else []), cuts=cuts)

    @rule(who=names)
    def a_worker_sleeps(self, who: int) -> None:
        self.send(who, request("PRE_SLEEP"))

    @rule(who=names, what=st.sampled_from(REPORTS), data=workloads, grab=st.booleans(), cuts=cuts)
    def a_worker_reports_on_its_job(self, who: int, what: str, data: bytes, grab: bool, cuts: list[int]) -> None:
        held = self.world.naive.running(self.world.naive.peers[self.name(who)]) if self.is_open(who) else []
        if held:
            report = request(what, b"H:t:%d" % held[0].number, *([] if what == "WORK_FAIL" else [data]))
            self.send(who, report, *([request("GRAB_JOB_ALL"), request("PRE_SLEEP")] if grab else []), cuts=cuts)
            self.send(who, request("GET_STATUS", b"H:t:%d" % held[0].number))

    @rule(who=names, what=st.sampled_from(REPORTS), about=st.integers(0, 100), data=workloads, whole=st.booleans())
    def a_worker_reports_on_any_job(self, who: int, what: str, about: int, data: bytes, whole: bool) -> None:
        self.send(who, request(what, self.number(about), *([data] if whole else [])))

    @rule(who=names, what=st.sampled_from(REPORTS), about=st.integers(0, 100), own=st.booleans(), cuts=cuts)
    def a_worker_reports_too_much(self, who: int, what: str, about: int, own: bool, cuts: list[int]) -> None:
        held = self.world.naive.running(self.world.naive.peers[self.name(who)]) if self.is_open(who) else []
        handle = b"H:t:%d" % held[0].number if own and held else self.number(about)
        too_much = request(what, handle, b"1", bytes(self.max_body))
        self.send(who, too_much, request("ECHO_REQ", b"behind"), cuts=cuts)

    @rule(who=names)
    def a_worker_works_till_it_may_sleep(self, who: int) -> None:
        self.work_off(self.name(who))

    def is_open(self, who: int) -> bool:
        return self.name(who) in self.world.naive.peers

    def work_off(self, name: str) -> None:
        """What a good worker does once it is woken."""
        naive = self.world.naive
        while (peer := naive.peers.get(name)) is not None:
            for job in naive.running(peer):
                self.world.send(name, request("WORK_COMPLETE", naive.handle(job), b"done"))
            self.world.send(name, request("GRAB_JOB_UNIQ"))
            if not naive.running(peer):
                self.world.send(name, request("PRE_SLEEP"))
                if peer.asleep is not None:
                    break

    # ── administrators ──────────────────────────────────────────────────────────────────────────────────────────

    @rule(who=names, question=st.sampled_from(QUESTIONS))
    def an_administrator_asks(self, who: int, question: str) -> None:
        self.send(who, question.encode() + b"\r\n")

    @rule(who=names, function=functions, limits=st.sampled_from([b"", b" 1", b" 3", b" 2 0 1", b" 2 1", b" x"]))
    def an_administrator_limits(self, who: int, function: bytes, limits: bytes) -> None:
        self.send(who, b"maxqueue " + function + limits + b"\n")

    @rule(who=names, about=st.integers(0, 100))
    def an_administrator_cancels(self, who: int, about: int) -> None:
        self.send(who, b"cancel job " + self.number(about) + b"\n")

    @rule(who=names, what=st.sampled_from([b"create", b"drop"]), function=functions)
    def an_administrator_creates_or_drops(self, who: int, what: bytes, function: bytes) -> None:
        self.send(who, what + b" function " + function + b"\n")

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        """In the end sleeping workers that do as they should are enough for every job: nobody has to poll."""
        if not hasattr(self, "world"):
            return
        world = self.world
        able = [name for name, peer in world.naive.peers.items() if peer.asleep is not None or peer.woken_for]
        wanted = {function for name in able for function in world.naive.peers[name].abilities}
        # Workers that do nothing any more hold back nobody for longer than the server's patience.
        for seconds in [1.0] * 10 + [0.0] * 3:
            world.wait(seconds)
            for name in able:
                if world.naive.peers[name].asleep is None:
                    self.work_off(name)
        left = [job for job in world.naive.jobs if job.state == "queued" and job.function in wanted]
        assert not left, f"sleeping workers were not woken for {left}"
        for name in list(world.peers):
            world.disconnect(name)
        assert all(job.background for job in world.naive.jobs)


class GearmanOneHistories(Histories):
    """Each function in the order of registration, jobs that fail when their second worker is lost."""

    options = {"listed_order": True, "job_retries": 2, "exceptions": True}  # noqa: RUF012


class WakeAllHistories(Histories):
    options = {"worker_wakeup": 0, "job_retries": 1, "max_memory": 2900}  # noqa: RUF012


class WakeTwoHistories(Histories):
    options = {"worker_wakeup": 2, "forget_after": 0.7, "wake_timeout": 0.5}  # noqa: RUF012


class LooseHistories(Histories):
    """Functions whose policy has only limits that nobody reaches are as those without one."""

    options = {  # noqa: RUF012
        "policy": "concurrency=1000000 rate=1000000/s burst=1000000 key_concurrency=1000000 ageing=3650d weight=1 "
        "queue=4294967296 timeout=3650d expires=3650d dead=0",
    }


class DurableHistories(Histories):
    """Background jobs are acknowledged when the store has them."""

    options = {"durable": True}  # noqa: RUF012

    @rule()
    def the_store_begins_to_write(self) -> None:
        self.world.hand_over()

    @rule()
    def the_store_answers(self) -> None:
        self.world.commit()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "world"):
            self.world.commit()


for machine in (Histories, GearmanOneHistories, WakeAllHistories, WakeTwoHistories, LooseHistories, DurableHistories):
    machine.TestCase.settings = settings(max_examples=150, stateful_step_count=50)

TestHistories = Histories.TestCase
TestGearmanOneHistories = GearmanOneHistories.TestCase
TestWakeAllHistories = WakeAllHistories.TestCase
TestWakeTwoHistories = WakeTwoHistories.TestCase
TestLooseHistories = LooseHistories.TestCase
TestDurableHistories = DurableHistories.TestCase
