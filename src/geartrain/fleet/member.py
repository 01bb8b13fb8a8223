"""This job server as a member of its fleet: a keeper of its store whose place others share.

    joining    it has no id yet
    live       the lease is renewed; it judges, adopts, and lets go of jobs
    lapsed     the database has not answered for too long: nothing that is stored is handed out
    forsaking  others have taken it for dead: it forgets what is theirs, and joins again with another id
    left       it has stopped, and what it had is for the others

The database's word decides all of it; see ``store.fleet``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from geartrain.daemon.fleet_view import AdoptionView, MemberView, leader_of
from geartrain.daemon.keeper import FIRST_KINDS, Keeper
from geartrain.errors import GeartrainError
from geartrain.fleet import links
from geartrain.fleet.adoption import Adopter
from geartrain.fleet.asking import Asking
from geartrain.fleet.commands import Commands
from geartrain.fleet.moves import Moves
from geartrain.fleet.pulse import MARGIN, Pulse
from geartrain.jobserver.records import StoredJob, restore_order
from geartrain.store.base import StoreError
from geartrain.store.fleet import BLOCK, DEAD, LEASE, LEFT, LIVE, FleetStore, View
from geartrain.store.fleet import Member as StoredMember
from geartrain.store.writer import Writer
from geartrain.version import VERSION
from geartrain.wire.parser import LARGEST_BODY

if TYPE_CHECKING:
    from geartrain.daemon.config import Config
    from geartrain.daemon.extension import Host
    from geartrain.jobserver import JobServer
    from geartrain.jobserver.elsewhere import Question
    from geartrain.jobserver.records import Record
    from geartrain.store.fleet import Claim

log = logging.getLogger("geartrain.fleet")

NOBODY: Final = 0  # owns the jobs of a lone job server that had the place before
MOVES_EVERY: Final = 1.0  # seconds
JOIN_AGAIN: Final = 1.0  # seconds
SILENT: Final = 0.65  # seconds without a pulse after which a session that has ended means the end of a member
FULL: Final = 0.9  # of the memory limit: beyond it nothing more is taken over
FEW_NUMBERS: Final = BLOCK // 2
WARNED_CLOCK: Final = 5.0  # seconds by which our clock may differ from the database's

_Found = tuple[int, int, int, "list[Record]", "list[Record]"]
"""Our id, the first of our numbers, the revision and the records that all members share, and our own."""

JOINING, LAPSED, FORSAKING = "joining", "lapsed", "forsaking"


class Member(Keeper):
    """Keeps a job server's jobs in a place that its fleet shares."""

    def __init__(self, config: Config, server: JobServer, make: Callable[[], FleetStore], address: str) -> None:
        self.fleet_store = make()
        super().__init__(server, self.fleet_store, config.store_timeout)
        self.name = config.fleet
        self.address = address
        self.me = 0
        self.state = JOINING
        self.lease_ends = 0.0
        self.members: tuple[MemberView, ...] = ()
        self.adopted_jobs = 0
        self.moved_away = 0
        self.fenced = 0
        self.pulses = 0
        self.pulse_seconds = 0.0
        self._make = make
        self._host: Host | None = None
        self._pulse: Pulse | None = None
        self._adopter: Adopter | None = None
        self._arrivals = 0
        self._shared = -1
        self._shared_known = -1  # the revision that is here, and the one that must be before we lead
        self._shared_needed = 0
        self._judged: set[int] = set()
        self._trusted_from = 0.0  # monotonic: nobody is judged before
        self._asked_numbers = False
        self._cursor = -1  # of the drain
        self._turn = 0
        self._moves = Moves(server)
        self._asking = Asking(self._address_of, self._other_addresses)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._mover: asyncio.Task[None] | None = None
        self._said_clock = False
        self._is_leaving = False
        self._on_shared: list[Callable[[], None]] = []

    # ── the fleet, for other layers ─────────────────────────────────────────────────────────────────────────────

    @property
    def leader(self) -> bool:
        """Whether we run the schedules: of the live members the one that came first does, also while it is drained.

        That can't be two at a time: what the first one still commits is committed before the database says that it is
        dead or has left, and the next one leads when it knows all that members shared at that time.
        """
        return self.state == LIVE and self._is_first() and self._shared_known >= self._shared_needed

    def _is_first(self) -> bool:
        return self.me == leader_of(self.members)

    def on_shared_change(self, call: Callable[[], None]) -> None:
        """Have this called when others have changed what all members share."""
        self._on_shared.append(call)

    def drain(self, id: int, on: bool) -> Awaitable[str]:
        """Have a member give away what it has, or end that; empty, or why that can't be."""
        return self._order(lambda store: "" if store.drain(id, on) else f"no member {id} is live")

    def forget(self, id: int) -> Awaitable[str]:
        """Know no more of a member that has ended, or take one for dead whose lease is over; empty, or why not."""
        return self._order(
            lambda store: (
                "" if store.forget(id) else f"there is no member {id}, or it is live, or its jobs are not adopted yet"
            )
        )

    async def history(self) -> tuple[list[MemberView], list[AdoptionView]]:
        """The newest members, also those that have gone, and who has taken over what. Raises StoreError."""
        stored: tuple[list[StoredMember], list[Any]] | str = await self._order(
            lambda store: (store.members(), store.adoptions())
        )
        if isinstance(stored, str):
            raise StoreError(stored)
        members, adoptions = stored
        return (
            [self._shown(each) for each in members],
            [AdoptionView(each.estate, each.heir, each.jobs, each.first, each.last) for each in adoptions],
        )

    async def ask_all(self, line: bytes) -> dict[int, bytes | str]:
        """What each live member answers to a text command, ours included; a str says why there is no answer."""
        live = {each.id: each.address for each in self.members if each.state == LIVE}
        answers = await asyncio.gather(*(_asked(address, line) for address in live.values()))
        return dict(zip(live, answers, strict=True))

    def _order(self, act: Callable[[FleetStore], Any]) -> asyncio.Future[Any]:
        """Have something done by the pulse's thread; what came of it, or in words why nothing did."""
        assert self._host is not None
        done: asyncio.Future[Any] = self._host.loop.create_future()
        store = self.fleet_store

        def then(result: Any) -> None:
            if not done.done():
                done.set_result(str(result) if isinstance(result, Exception) else result)

        if self._pulse is None:
            then(StoreError("this job server is about to join its fleet: try again in a moment"))
        else:
            self._pulse.order(lambda: act(store), then)
        return done

    def _shown(self, each: StoredMember) -> MemberView:
        return MemberView(
            each.id, each.address, each.state, each.id == self.me, each.draining, each.lease, each.joined, each.ended,
            each.version, each.jobs_adopted,
        )  # fmt: skip

    def _address_of(self, member: int) -> str:
        return next((each.address for each in self.members if each.id == member and each.state == LIVE), "")

    def _other_addresses(self) -> list[str]:
        return [each.address for each in self.members if each.state == LIVE and not each.is_me]

    # ── joining ─────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, progress: Callable[[str], None] = lambda words: None) -> int:
        """Join the fleet. What others have left is taken over when the daemon runs. Raises StoreError."""
        progress(f"Joining the fleet {self.name}")
        store = self.fleet_store
        store.open()
        asked = time.monotonic()
        me, first, revision, shared, own = _join(store, self.name, self.address)
        server = self.server
        server.largest_record = min(server.settings.max_body, store.abilities.max_workload or LARGEST_BODY)
        for kind in FIRST_KINDS:
            for record in shared:
                if record.kind == kind:
                    server.restore_record(record)
        for record in [each for each in shared if each.kind not in FIRST_KINDS] + own:
            server.restore_record(record)
        server.restored()
        server.give_numbers(first, BLOCK)
        server.renew_lease(asked + LEASE - MARGIN)
        self._joined(me, revision)
        return 0

    def _joined(self, me: int, revision: int) -> None:
        self.me = me
        self._shared = self._shared_known = revision
        self._arrivals = 0
        self._judged = set()
        # The database may be one that has just taken over from another, where nobody else holds a lock yet.
        self._trusted_from = time.monotonic() + LEASE
        fields = {"fleet": self.name, "member": me, "address": self.address, "store": repr(self.fleet_store)}
        log.info("fleet_joined", extra={"fields": {**fields, "version": VERSION}})

    def start(self, host: Host) -> None:
        """Begin to write, to renew the lease, and to take over."""
        super().start(host)
        self._host = host
        host.fleet = self
        Commands(self, host, self.begin)
        self._go_live()
        self._mover = host.loop.create_task(self._keep_moving())

    def _go_live(self) -> None:
        assert self._host is not None
        self.state = LIVE
        self._pulse = Pulse(self.fleet_store, self, self.post)
        self._adopter = Adopter(self.fleet_store, self, self.post, self.server.settings.spill_above)
        self._adopter.claim(NOBODY)

    # ── pulses ──────────────────────────────────────────────────────────────────────────────────────────────────

    def on_view(self, view: View, lease_ends: float, seconds: float) -> None:
        """The lease holds, and the fleet is like this."""
        host = self._host
        assert host is not None
        if view.me != self.me:
            return  # of an incarnation before
        self.pulses += 1
        self.pulse_seconds = seconds
        if not self._is_first():
            self._shared_needed = view.shared
        self.members = tuple(sorted((self._shown(each) for each in view.members), key=lambda each: each.id))
        self._compare_clocks(view.at)
        asked = lease_ends - LEASE + MARGIN
        self.server.keep_time(view.at - asked - seconds, view.at - asked)
        if any(each.id == self.me and not each.locked for each in view.members):
            return  # while our lock is lost others may judge us in spite of the lease; the store takes it again
        host.hold_lease(lease_ends)
        self.lease_ends = lease_ends
        self.state = LIVE
        if self._is_leaving:
            return
        self.server.tell_begun()
        self._judge(view)
        self._adopt(view)
        self._see_to_numbers()
        if self.is_draining:
            self._drain_on()
        else:
            self._cursor = -1

    def on_silence(self, reason: str) -> None:
        """The database does not answer: when it does, all get the time to say that they live."""
        self._trusted_from = time.monotonic() + LEASE
        if self.state == LIVE and time.monotonic() >= self.lease_ends:
            self.state = LAPSED

    def _judge(self, view: View) -> None:
        """Have those taken for dead whose lease is over or whose session has ended, if they could have renewed it."""
        if time.monotonic() < self._trusted_from or view.uptime < LEASE:
            return
        assert self._pulse is not None
        for each in view.members:
            if each.id == self.me or each.state != LIVE or each.id in self._judged:
                continue
            # A session may have been ended by somebody else; who lives renews its lease all the same.
            is_silent = LEASE - each.lease > SILENT
            if each.lease >= 0 and (each.locked or not is_silent):
                continue
            self._judged.add(each.id)
            why = "its lease is over" if each.lease < 0 else "its session has ended"
            log.warning("member_judged", extra={"fields": {"member": each.id, "address": each.address, "reason": why}})
            self._pulse.order(lambda id=each.id: (id, self.fleet_store.judge(id)), self._on_judged)  # type: ignore[misc]

    def _on_judged(self, result: tuple[int, bool] | Exception) -> None:
        if isinstance(result, Exception):
            self._judged.clear()
            return
        id, has_ended = result
        if not has_ended:
            self._judged.discard(id)  # it has renewed its lease after all
        elif self._adopter is not None:
            self._claim(id)

    def _adopt(self, view: View) -> None:
        adopter = self._adopter
        if adopter is None:
            return  # we stop
        for each in view.members:
            if each.state in (DEAD, LEFT):
                self._claim(each.id)
        if view.arrivals != self._arrivals:
            self._arrivals = view.arrivals
            adopter.claim(-self.me)
        if view.shared != self._shared:
            self._shared = view.shared
            adopter.look_at_shared()

    def _claim(self, estate: int) -> None:
        """Claim what a member had, and what was on its way to it; when nothing is left, it is gone."""
        if self._adopter is not None and not self.is_draining:
            self._adopter.claim(estate)
            self._adopter.claim(-estate)

    def _see_to_numbers(self) -> None:
        if self.server.numbers_left < FEW_NUMBERS and not self._asked_numbers and self._pulse is not None:
            self._asked_numbers = True
            self._pulse.order(self.fleet_store.numbers, self._on_numbers)

    def _on_numbers(self, first: int | Exception) -> None:
        self._asked_numbers = False
        if not isinstance(first, Exception):
            self.enter()
            self.server.give_numbers(first, BLOCK)

    def _compare_clocks(self, theirs: float) -> None:
        differs = time.time() - theirs
        if abs(differs) > WARNED_CLOCK and not self._said_clock:
            self._said_clock = True
            log.warning("clock_differs", extra={"fields": {"seconds": f"{differs:.1f}", "from": "the database's"}})

    # ── taking over ─────────────────────────────────────────────────────────────────────────────────────────────

    def has_room(self) -> bool:
        """Whether more may be taken over."""
        limit = self.server.settings.max_memory
        return limit <= 0 or int(self.server.memory) < FULL * limit

    def take_over(self, estate: int, claim: Claim) -> None:
        """These jobs are ours."""
        self.enter()
        server = self.server
        if server.forsaking or self.state == FORSAKING:
            return  # they were; the next adopter has them
        count = 0
        for found in claim.jobs:
            if isinstance(found, StoredJob):
                server.adopt(found)
                count += 1
            else:
                log.error("job_quarantined", extra={"fields": {"number": found.number, "reason": found.reason}})
        self.take_records(claim.records)
        if estate != -self.me:
            self.adopted_jobs += count

    def take_records(self, records: list[Record]) -> None:
        """And these records."""
        self.enter()
        for record in sorted(records, key=restore_order):
            self.server.restore_record(record)

    def on_claimed(self, estate: int, jobs: int) -> None:
        """Nothing more of it can be claimed at the moment; if nothing is left at all, it is gone."""
        if estate not in (NOBODY, -self.me) and self._pulse is not None:
            self._pulse.order(lambda: self.fleet_store.bury(abs(estate)))

    def on_shared(self, revision: int, records: list[Record]) -> None:
        """What all members share is this."""
        self.enter()
        self._shared = self._shared_known = revision
        self.server.apply_shared(records)
        for call in self._on_shared:
            call()

    # ── being taken for dead ────────────────────────────────────────────────────────────────────────────────────

    def on_fenced(self) -> None:
        """The others have what we had: forget it, and come back as another member."""
        if self.state in (FORSAKING, LEFT) or self._is_leaving:
            return
        log.error("fenced", extra={"fields": {"member": self.me, "jobs": len(self.server.jobs)}})
        self.state = FORSAKING
        self.fenced += 1
        self.members = ()
        assert self._host is not None
        self._host.open_iteration()
        self._host.drop_workers()
        self.server.forsake()
        self._let_threads_go()
        self.begin(self._come_back())

    def _let_threads_go(self) -> None:
        """What is under way for this incarnation can't take effect any more, and may hang: don't wait for it."""
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.abandon()
        if self._adopter is not None:
            self._adopter.close(0.0)
        if self._pulse is not None:
            self._pulse.stop(0.0)
        self._pulse = self._adopter = None

    async def _come_back(self) -> None:
        assert self._host is not None
        loop = self._host.loop
        while self.server.forsaking:  # noqa: ASYNC110 - the job server knows no events
            await asyncio.sleep(0.01)
        loop.run_in_executor(None, self.fleet_store.close)
        while not self._is_leaving:
            store = self._make()
            asked = time.monotonic()
            try:
                found = await loop.run_in_executor(None, _opened_and_joined, store, self.name, self.address)
            except StoreError as error:
                log.error("not_joined", extra={"fields": {"reason": str(error)}})
                loop.run_in_executor(None, store.close)
                await asyncio.sleep(JOIN_AGAIN)
                continue
            self._come_in(store, asked, found)
            return

    def _come_in(self, store: FleetStore, asked: float, found: _Found) -> None:
        me, first, revision, shared, own = found
        self.fleet_store = self.store = store
        self.enter()
        server = self.server
        server.apply_shared(shared)
        for record in own:
            server.restore_record(record)
        server.give_numbers(first, BLOCK)
        server.begin_block()
        self.writer = Writer(store, self, self.post, self.timeout)
        self._joined(me, revision)
        assert self._host is not None
        self._host.hold_lease(asked + LEASE - MARGIN)
        for call in self._on_shared:
            call()
        self._go_live()

    # ── giving away ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_draining(self) -> bool:
        """Whether we are to give away what we have."""
        return any(each.draining for each in self.members if each.is_me)

    def _heirs(self) -> dict[int, str]:
        """Other live members that jobs may go to."""
        return {
            each.id: each.address
            for each in self.members
            if each.state == LIVE and not each.is_me and not each.draining and each.lease > 0
        }

    def _drain_on(self) -> None:
        heirs = list(self._heirs())
        if not heirs:
            return
        self.enter()
        for _ in range(10):
            self._turn += 1
            self._cursor = self.server.give_away_all(self._cursor, heirs[self._turn % len(heirs)])
            if self._cursor < 0:
                return

    async def _keep_moving(self) -> None:
        while True:
            await asyncio.sleep(MOVES_EVERY)
            if self.state != LIVE or self.is_draining or self.server.lapsed:
                continue
            try:
                await self._moves.round(self._heirs(), self.enter)
            except Exception:
                log.exception("moves_failed")

    # ── as a keeper ─────────────────────────────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Hand over what has gathered, and the questions about others' jobs."""
        if self.writer is not None:
            super().flush()
        elsewhere = self.server.elsewhere
        if elsewhere is not None and elsewhere.asked:
            self.begin(self._answer(elsewhere.take()))

    async def _answer(self, questions: list[Question]) -> None:
        await self._asking.answer(self.fleet_store, questions, self._give)

    def _give(self, question: Question, answer: bytes | None) -> None:
        self.enter()
        self.server.answer_question(question, answer)

    def begin(self, work: Any) -> None:
        """Have a coroutine run on, until we stop."""
        assert self._host is not None
        task = self._host.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def written(self, batch: Any) -> None:
        self.moved_away += len(batch.moved)
        super().written(batch)

    def leave(self) -> None:
        """We stop: nothing more is taken over."""
        self._is_leaving = True
        if self._mover is not None:
            self._mover.cancel()
        if self._adopter is not None:
            self._adopter.close(0.0)
            self._adopter = None

    def let_go(self) -> None:
        """All is written: what we had is the others' from now on."""
        for task in self._tasks:
            task.cancel()
        if self._pulse is not None:
            self._pulse.stop(self.timeout)
        try:
            if self.state in (LIVE, LAPSED):
                self.fleet_store.leave()
                self.state = LEFT
                log.info("fleet_left", extra={"fields": {"fleet": self.name, "member": self.me}})
        except (StoreError, GeartrainError) as error:
            log.error("not_left", extra={"fields": {"reason": str(error)}})
        self.fleet_store.close()


def _join(store: FleetStore, name: str, address: str) -> _Found:
    me = store.join(name, address)
    revision, shared = store.shared_records()
    return me, store.numbers(), revision, shared, list(store.own_records())


def _opened_and_joined(store: FleetStore, name: str, address: str) -> _Found:
    store.open()
    return _join(store, name, address)


async def _asked(address: str, line: bytes) -> bytes | str:
    try:
        return await links.ask(address, line)
    except GeartrainError as error:
        return str(error)
