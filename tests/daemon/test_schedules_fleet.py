"""Schedules of two members of a fleet: whoever leads, and whatever happens to them, each run is one job.

Both are real daemons in this process. What they share, and who leads, the test decides: ``Seat`` stands in for the
fleet's extension, ``Shared`` for the database.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, cast

import pytest

pytest.importorskip("cronsim")

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.in_process import InProcessConsole
from geartrain.daemon.schedules import Schedules
from geartrain.daemon.transport import choose, loop_factory
from geartrain.jobserver import JobServer
from geartrain.jobserver.records import SHARED_KINDS, Batch, Record
from geartrain.wire.packets import STATUS_RES, pack_response
from servers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from geartrain.daemon.fleet_view import FleetView
    from geartrain.jobserver.elsewhere import Question

HOUR = 3_600_000  # milliseconds


class Shared:
    """What the database of a fleet has."""

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        self.records: dict[tuple[str, bytes], Record] = {}
        self.made: list[str] = []  # the uniques of all jobs that were ever added
        self.jobs: dict[int, bytes] = {}  # uniques of those that are there

    def commit(self, batch: Batch) -> None:
        for job in batch.added:
            self.made.append(job.unique.decode())
            self.jobs[job.number] = job.unique
        for number in batch.removed:
            self.jobs.pop(number, None)
        for record in batch.records:
            assert record.kind in SHARED_KINDS
            if record.value is None:
                self.records.pop((record.kind, record.key), None)
            else:
                self.records[record.kind, record.key] = record

    def tell(self, *seats: Seat) -> None:
        """Have members hear of all that is shared."""
        for seat in seats:
            seat.host.open_iteration()
            seat.server.apply_shared(
                [Record(each.kind, each.key, each.value, each.expires) for each in self.records.values()]
            )
            for call in seat.calls:
                call()

    async def more(self, count: int) -> None:
        """So many more jobs have been made."""
        count += len(self.made)
        await until(lambda: len(self.made) >= count)

    def runs(self, name: str) -> list[tuple[int, dict[str, object]]]:
        """The records of a schedule's runs: times in milliseconds, and what they say."""
        found = [
            (int(key.rpartition(b"\0")[2]), json.loads(record.value or b""))
            for (kind, key), record in self.records.items()
            if kind == "schedule_run" and key.startswith(name.encode() + b"\0")
        ]
        return sorted(found, key=lambda each: each[0])


class Seat(Extension):
    """A member: keeps its job server's jobs in what is shared, and leads if the test says so."""

    def __init__(self, shared: Shared, number: int) -> None:
        config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": "memory:", "stop_timeout": "0.1"})
        self.settings = config.rules()
        self.settings.durable = self.settings.fleet = True
        self.settings.handle_prefix = b"H:fleet"
        self.config = config
        self.shared = shared
        self.server = JobServer(self.settings)
        self.number = number
        self.blocks = 0
        self.leader = False
        self.has_jobs_done = False  # as soon as they are there
        self.is_held_back = False  # nothing that is given from now on is committed
        self.held_back: list[Batch] = []
        self.calls: list[Callable[[], None]] = []
        shared.seats.append(self)

    def join(self) -> None:
        self.blocks += 1
        self.server.give_numbers((self.blocks * 10 + self.number) << 22, 1 << 22)
        self.server.begin_block()
        self.server.renew_lease(float("inf"))

    def start(self, host: Host) -> None:
        self.host = host
        host.fleet = cast("FleetView", self)
        for record in self.shared.records.values():
            self.server.restore_record(Record(record.kind, record.key, record.value))
        self.join()

    def on_shared_change(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def flush(self) -> None:
        while (batch := self.server.take_batch()) is not None:
            if self.is_held_back:
                self.held_back.append(batch)
            else:
                self.host.loop.call_soon(self.commit, batch)
        elsewhere = self.server.elsewhere
        assert elsewhere is not None
        for question in elsewhere.take():
            self.host.loop.call_soon(self.answer, question)

    def commit(self, batch: Batch) -> None:
        if self.is_held_back:
            self.held_back.append(batch)
            return
        self.shared.commit(batch)
        self.host.open_iteration()
        self.server.written(batch)
        if self.has_jobs_done:
            for job in batch.added:
                self.server.cancel(job.number)
        if batch.records:
            self.shared.tell(*(seat for seat in self.shared.seats if seat is not self))

    async def has_stored_all(self) -> None:
        """All is stored, and nobody is still to hear of that, who would then have more to store."""
        await until(lambda: self.server.is_stored and not self.server.touched)

    async def held_run(self) -> Batch:
        """The batch that is not committed, with the job of a run."""
        await until(lambda: bool(self.held_back))
        (batch,) = self.held_back
        return batch

    def answer(self, question: Question) -> None:
        self.host.open_iteration()
        is_live = any(seat.server.jobs.get(question.number) is not None for seat in self.shared.seats)
        known = b"1" if is_live else b"0"
        elsewhere = self.server.elsewhere
        assert elsewhere is not None
        elsewhere.answer(question, pack_response(STATUS_RES, question.handle, known, b"0", b"0", b"0"))

    async def fence(self) -> None:
        """Others have taken this member for dead: it forgets all."""
        self.leader = False
        self.host.open_iteration()
        self.server.forsake()
        await until(lambda: not self.server.forsaking)
        self.is_held_back = False
        self.held_back.clear()

    def come_back(self) -> None:
        """Join again."""
        self.host.open_iteration()
        self.join()
        self.shared.tell(self)

    async def stop_leading(self) -> None:
        """Lead no more; all that was made is committed, and known to all."""
        self.leader = False
        await self.has_stored_all()
        self.shared.tell(*self.shared.seats)

    async def ask(self, line: str) -> list[str]:
        console = InProcessConsole(self.host)
        console.send(line.encode() + b"\r\n")
        answer = b""
        while not (answer == b".\n" or answer.endswith(b"\n.\n" if not answer.startswith((b"OK", b"ERR")) else b"\n")):
            answer += await console.read()
        console.close()
        return [each for each in answer.decode().splitlines() if each != "."]

    async def order(self, line: str) -> None:
        answer = await self.ask(line)
        assert answer == ["OK"], (line, answer)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(seat: Seat, given: Mapping[str, Mapping[str, object]]) -> AsyncIterator[None]:
    daemon = Daemon(seat.config, seat.server, [seat, Schedules(given, 100)])
    sockets: list[socket.socket] = seat.config.sockets()
    await daemon.start(sockets)
    running = asyncio.create_task(daemon.run())
    try:
        yield
    finally:
        daemon.stop("the test is over")
        await asyncio.wait_for(running, 10)


def fleet(
    act: Callable[[Shared, Seat, Seat], Awaitable[None]],
    shared: Shared | None = None,
    given: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Two members, of which none leads, and what is to be done with them."""

    async def run() -> None:
        place = shared or Shared()
        one, other = Seat(place, 1), Seat(place, 2)
        async with AsyncExitStack() as stack:
            for seat in (one, other):
                await stack.enter_async_context(serving(seat, given or {}))
            await asyncio.wait_for(act(place, one, other), 30)

    with asyncio.Runner(loop_factory=loop_factory(choose("asyncio"))) as runner:
        runner.run(run())


def check_runs(made: list[str], name: str, every: float) -> None:
    """Each run from the first to the last was one job."""
    times = [datetime.fromisoformat(unique.removeprefix(f"schedule:{name}:")).timestamp() for unique in made]
    steps = [round(each / every) for each in times]
    assert steps == list(range(steps[0], steps[0] + len(steps)))


async def check_shown(*names: str, seats: list[Seat]) -> None:
    """All show the same of all schedules, which are these."""
    rows = [await seat.ask("schedule list") for seat in seats]
    assert [row.partition("\t")[0] for row in rows[0]] == list(names)
    assert rows[1] == rows[0]
    for name in names:
        assert await seats[0].ask(f"schedule show {name}") == await seats[1].ask(f"schedule show {name}")


def test_the_leader_makes_the_runs_and_all_show_them() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        await other.order("schedule set tock every=100ms function=tick workload=x")
        await other.order("schedule set daily cron=30%202%20*%20*%20* function=report zone=Europe/Berlin")
        await check_shown("daily", "tock", seats=shared.seats)
        assert not shared.made
        one.leader = True
        await shared.more(6)
        assert {number >> 22 for number in shared.jobs} == {11}
        check_runs(shared.made, "tock", 0.1)
        await other.order("schedule pause tock")
        await one.has_stored_all()
        await check_shown("daily", "tock", seats=shared.seats)
        assert [len(shared.runs(name)) for name in ("daily", "tock")] == [1, 1]

    fleet(act)


def test_each_run_is_one_job_whoever_leads() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        chance = random.Random(12)
        one.has_jobs_done = other.has_jobs_done = True  # so that no unique hides a second job of a run
        await one.order("schedule set tock every=100ms function=tick missed=none")
        for turn in range(8):
            leader = chance.choice((one, other))
            leader.leader = True
            await shared.more(chance.randint(1, 4))
            await leader.stop_leading()
            if turn % 3 == 0:
                await asyncio.sleep(0.3)  # nobody leads for some runs, which are late then and not missed
        check_runs(shared.made, "tock", 0.1)
        await check_shown("tock", seats=shared.seats)

    fleet(act)


@pytest.mark.parametrize("has_arrived", [False, True])
def test_a_leader_that_is_fenced_leaves_a_run_whole_or_not_at_all(has_arrived: bool) -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        one.has_jobs_done = other.has_jobs_done = True
        await other.order("schedule set tock every=100ms function=tick missed=all")
        one.leader = True
        await shared.more(3)
        for _ in range(3):
            await one.has_stored_all()
            one.is_held_back = True
            batch = await one.held_run()
            runs = {record.key for record in batch.records if record.kind == "schedule_run" and record.value}
            assert len(runs) == len(batch.added) == 1
            if has_arrived:  # and its answer is lost
                shared.commit(batch)
            await one.fence()
            shared.tell(other)
            other.leader = True
            await shared.more(3)
            one.come_back()
            await shared.more(2)
            check_runs(shared.made, "tock", 0.1)
            one, other = other, one
        await one.stop_leading()
        await check_shown("tock", seats=shared.seats)
        assert len(shared.runs("tock")) == 1

    fleet(act)


def test_a_run_that_the_store_refuses_is_not_taken_for_made() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        one.has_jobs_done = True
        await one.order("schedule set tock every=100ms function=tick")
        one.leader = True
        await shared.more(2)
        await one.has_stored_all()
        before = shared.runs("tock")
        one.is_held_back = True
        batch = await one.held_run()
        shared.tell(one)  # which has it look at its records
        one.is_held_back = False
        one.host.open_iteration()
        one.server.refused(batch, "it is full", False)
        await one.has_stored_all()
        assert shared.runs("tock") == before
        shared.tell(one, other)
        await check_shown("tock", seats=shared.seats)
        await shared.more(8)
        check_runs(shared.made, "tock", 0.1)

    fleet(act)


def test_a_leader_whose_lease_is_over_makes_nothing_until_it_is_renewed() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        one.has_jobs_done = True
        one.leader = True
        await one.order("schedule set tock every=100ms function=tick")
        await shared.more(3)
        one.host.open_iteration()
        one.server.end_lease()
        await until(lambda: one.server.store.under_way is None)
        count = len(shared.made)
        await asyncio.sleep(0.3)
        assert len(shared.made) == count
        one.host.open_iteration()
        one.server.renew_lease(float("inf"))
        await shared.more(9)
        check_runs(shared.made, "tock", 0.1)

    fleet(act)


def test_overlap_is_skipped_while_the_last_job_lives_at_another_member() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        await one.order("schedule set tock every=100ms function=tick overlap=skip")
        one.leader = True
        await until(lambda: len(shared.made) == 1)
        await one.stop_leading()
        (job,) = shared.jobs
        (before,) = shared.runs("tock")
        other.leader = True
        await until(lambda: shared.runs("tock")[-1][0] >= before[0] + 500)
        assert len(shared.made) == 1
        one.host.open_iteration()
        assert one.server.cancel(job)
        await until(lambda: len(shared.made) == 2)
        assert {number >> 22 for number in shared.jobs} <= {11, 12}

    fleet(act)


def test_a_run_by_command_is_made_where_it_is_asked_for_and_counts_for_overlap() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        one.leader = True
        await one.order("schedule set tock every=1h function=tick overlap=skip")
        (answer,) = await other.ask("schedule run tock")
        (number,) = shared.jobs
        assert number >> 22 == 12
        assert answer == f"OK H:fleet:{number}"
        await until(lambda: shared.runs("tock")[-1][1]["job"] == number)
        await check_shown("tock", seats=shared.seats)
        await one.order("schedule set tock every=100ms")
        before = shared.runs("tock")[-1][0]
        await until(lambda: shared.runs("tock")[-1][0] >= before + 300)
        assert list(shared.jobs) == [number]

    fleet(act)


def test_what_is_changed_at_one_member_counts_at_all() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        one.has_jobs_done = True
        one.leader = True
        await one.order("schedule set tock every=1h function=tick")
        await other.order("schedule set tock every=100ms")
        await shared.more(3)
        await other.order("schedule set tock function=tack priority=high")
        await other.order("schedule pause tock")
        await one.has_stored_all()
        await check_shown("tock", seats=shared.seats)
        count = len(shared.made)
        await asyncio.sleep(0.3)
        assert len(shared.made) == count
        await other.order("schedule resume tock")
        await shared.more(3)
        check_runs(shared.made[count:], "tock", 0.1)  # those of the pause were left out
        await other.order("schedule unset tock")
        await one.has_stored_all()
        assert await one.ask("schedule list") == await other.ask("schedule list") == []
        assert not shared.records
        count = len(shared.made)
        await asyncio.sleep(0.3)
        assert len(shared.made) == count

    fleet(act)


@pytest.mark.parametrize(("missed", "made"), [("none", 0), ("one", 1), ("all", 5)])
def test_runs_that_all_have_missed_follow_the_schedules_rule(missed: str, made: int) -> None:
    shared = Shared()
    last = int(time.time() * 1000) // HOUR * HOUR - 5 * HOUR
    words = f"every=1h function=tick missed={missed}".encode()
    known = json.dumps({"job": 0, "made": 0.0, "times": "every=1h"}).encode()
    shared.records["schedule", b"tock"] = Record("schedule", b"tock", words)
    shared.records["schedule_run", b"tock\0%d" % last] = Record("schedule_run", b"tock\0%d" % last, known)

    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        await check_shown("tock", seats=shared.seats)
        one.leader = True
        await until(lambda: one.server.is_stored and len(shared.runs("tock")) == 1 and shared.runs("tock")[0][0] > last)
        await until(lambda: len(shared.made) >= made)
        await one.has_stored_all()
        await one.stop_leading()
        other.leader = True
        await other.order("schedule set other every=100ms function=tick")
        await until(lambda: any("other" in unique for unique in shared.made))
        assert len([unique for unique in shared.made if "tock" in unique]) == made
        (run,) = shared.runs("tock")
        assert run[0] >= int(time.time() * 1000) // HOUR * HOUR

    fleet(act, shared)


def test_schedules_of_the_file_are_run_by_the_leader() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        assert not shared.runs("tock")  # who does not lead notes nothing
        other.leader = True
        await shared.more(3)
        assert {number >> 22 for number in shared.jobs} == {12}
        await one.order("schedule set tock every=1h")
        await other.has_stored_all()
        await check_shown("tock", seats=shared.seats)
        await one.order("schedule unset tock")
        count = len(shared.made)
        await shared.more(3)
        check_runs(shared.made[count:], "tock", 0.1)

    fleet(act, given={"tock": {"every": "100ms", "function": "tick"}})


def test_two_changes_at_once_end_the_same_for_all() -> None:
    async def act(shared: Shared, one: Seat, other: Seat) -> None:
        one.leader = True
        await asyncio.gather(
            one.order("schedule set tock every=1h function=tick"),
            other.order("schedule set tock every=2h function=tick"),
            other.order("schedule set tack every=3h function=tick"),
        )
        shared.tell(one, other)
        await one.has_stored_all()
        await other.has_stored_all()
        shared.tell(one, other)
        await check_shown("tack", "tock", seats=shared.seats)
        assert len(shared.runs("tock")) == 1

    fleet(act)
