"""What is done to the fleet. Each fault heals what it broke, and tells what was to be seen meanwhile."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hosts import Database, Member
from load import Load, worker_host
from network import BASE, FRONT, Network
from recorder import Recorder

LEASE = 4.0
CRASHED, SILENT = 2.0, 6.0  # seconds in which a job runs elsewhere
BURST, BURST_MS = 60, 40
OWN, OWN_MS = 6, 300
FEW = 10
LARGE, LARGE_BYTES = 20, 50_000
LONG_BURST = 120  # the worker of one that is cut off goes on while the lease lasts, and some are to be left then
BULK = 10_000
UNDER_WAY = 5000
PATIENCE = 30.0


@dataclass
class Round:
    """What came of one round."""

    fault: str
    victims: list[Member] = field(default_factory=list)
    at: float = 0.0  # when jobs of the first victim could not run there any more (monotonic)
    jobs: list[str] = field(default_factory=list)  # those that the first victim had just acknowledged
    limit: float = 0.0  # seconds in which one of them is to run elsewhere; 0: there is none
    quiet: list[tuple[Member, float, float]] = field(default_factory=list)
    """A member that may hand nothing out from then to then."""
    away: list[tuple[Member, float, float]] = field(default_factory=list)
    """A member that can't work from then to then."""
    cut_workers: list[tuple[Member, float, float]] = field(default_factory=list)
    silent: list[tuple[float, float]] = field(default_factory=list)
    """When a member did not answer though it was connected."""
    faults: list[str] = field(default_factory=list)


@dataclass
class Arena:
    """Where it happens."""

    net: Network
    members: list[Member]
    database: Database
    load: Load
    recorder: Recorder
    chance: random.Random

    def victim(self) -> Member:
        """One of the members, by chance."""
        return self.chance.choice(self.members)

    def give(self, found: Round, member: Member, count: int = BURST) -> None:
        """Let this member have jobs of its own: for other workers too, and for the one that it alone has."""
        self.load.burst(member, f"own-{member}", OWN, OWN_MS)
        found.victims.append(member)
        found.jobs = self.load.burst(member, "burst", count, BURST_MS)
        if not found.jobs:
            found.faults.append(f"{member} acknowledged nothing before the fault")

    @contextlib.contextmanager
    def busy(self, member: Member) -> Iterator[None]:
        """Submit to this member meanwhile, so that it is about to write when something happens to it."""
        thread = threading.Thread(target=self.load.burst, args=(member, "bulk", UNDER_WAY, 0))
        thread.start()
        time.sleep(0.2)
        try:
            yield
        finally:
            thread.join()

    def ids(self) -> dict[str, int]:
        """The newest member at each address."""
        newest: dict[str, int] = {}
        for id, (address, _, _) in sorted(self.database.joined().items()):
            newest[address] = id
        return newest

    def back(self, found: Round, member: Member, before: int, seconds: float = PATIENCE) -> float:
        """When this member joined with another id than before (monotonic); waits for it."""
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            for id, (address, _, joined) in self.database.joined().items():
                if address == member.address and id > before:
                    return joined - time.time() + time.monotonic()
            time.sleep(0.05)
        found.faults.append(f"{member} did not join again within {seconds:g} s")
        return time.monotonic()

    def wait_until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Whether the condition came to hold within so many seconds."""
        give_up_at = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.05)
        return True


def crash(arena: Arena, found: Round) -> None:
    """kill -9 of one member, which is started again."""
    _crash(arena, found, [arena.victim()])


def crash_two(arena: Arena, found: Round) -> None:
    """kill -9 of two members at once: one is left."""
    _crash(arena, found, arena.chance.sample(arena.members, 2))


def _crash(arena: Arena, found: Round, victims: list[Member]) -> None:
    for victim in reversed(victims):  # few of the others, which may come first to the one worker that is left
        arena.give(found, victim, BURST if victim is victims[0] else FEW)
    found.victims.reverse()
    before = arena.ids()
    for victim in victims:
        victim.kill()
    found.at, found.limit = time.monotonic(), CRASHED
    time.sleep(arena.chance.uniform(2.0, 4.0))
    for victim in victims:
        victim.start()
    for victim in victims:
        found.away.append((victim, found.at, arena.back(found, victim, before.get(victim.address, 0))))


def freeze(arena: Arena, found: Round) -> None:
    """SIGSTOP for longer than a lease, and SIGCONT: a zombie."""
    _freeze(arena, found, arena.chance.uniform(9.0, 12.0))


def freeze_long(arena: Arena, found: Round) -> None:
    """The same for half a minute."""
    _freeze(arena, found, 30.0)


def _freeze(arena: Arena, found: Round, seconds: float) -> None:
    victim = arena.victim()
    arena.give(found, victim)
    before = arena.ids()
    with arena.busy(victim):
        victim.signal(signal.SIGSTOP)
        found.at, found.limit = time.monotonic(), SILENT
    time.sleep(max(found.at + seconds - time.monotonic(), 0.0))
    woken = time.monotonic()
    victim.signal(signal.SIGCONT)
    joined = arena.back(found, victim, before.get(victim.address, 0))
    found.quiet.append((victim, woken, joined))
    found.silent.append((found.at, woken + 1.0))
    found.away.append((victim, found.at, joined))


def freeze_briefly(arena: Arena, found: Round) -> None:
    """SIGSTOP for less than a lease."""
    victim = arena.victim()
    arena.give(found, victim)
    victim.signal(signal.SIGSTOP)
    time.sleep(arena.chance.uniform(0.5, 2.5))
    victim.signal(signal.SIGCONT)
    time.sleep(2.0)


def cut_off(arena: Arena, found: Round) -> None:
    """No way to the database for longer than a lease."""
    victim = arena.victim()
    arena.give(found, victim, LONG_BURST)
    before = arena.ids()
    with arena.busy(victim):
        arena.net.cut(victim.name, BASE)
        found.at, found.limit = time.monotonic(), SILENT
    time.sleep(max(found.at + arena.chance.uniform(8.0, 11.0) - time.monotonic(), 0.0))
    arena.net.mend(victim.name, BASE)
    joined = arena.back(found, victim, before.get(victim.address, 0))
    found.quiet.append((victim, found.at + LEASE, joined))
    found.away.append((victim, found.at, joined))


def cut_off_briefly(arena: Arena, found: Round) -> None:
    """The same for less than a lease."""
    victim = arena.victim()
    arena.give(found, victim)
    arena.net.cut(victim.name, BASE)
    time.sleep(arena.chance.uniform(0.5, 2.5))
    arena.net.mend(victim.name, BASE)
    time.sleep(3.0)


def cut_worker(arena: Arena, found: Round) -> None:
    """No way between a member and the workers that it alone has."""
    victim = arena.victim()
    arena.give(found, victim)
    host = worker_host(victim)
    arena.net.cut(host, FRONT)
    began = time.monotonic()
    time.sleep(arena.chance.uniform(8.0, 10.0))
    arena.net.mend(host, FRONT)
    # What was on the wire is sent again by TCP, later from time to time, and they connect again.
    found.cut_workers.append((victim, began, time.monotonic() + 10.0))


def stop_database(arena: Arena, found: Round) -> None:
    """The database is stopped by its administrator, and started again."""
    _restart_database(arena, found, now=False)


def crash_database(arena: Arena, found: Round) -> None:
    """The database crashes, and is started again."""
    _restart_database(arena, found, now=True)


def _restart_database(arena: Arena, found: Round, now: bool) -> None:
    arena.give(found, arena.victim())
    with arena.database.outage():
        arena.database.stop(now)
        time.sleep(arena.chance.choice((0.0, 1.0, 6.0)))
        arena.database.service.start()
    time.sleep(LEASE)


def fill_disk(arena: Arena, found: Round) -> None:
    """There is no room on the database's disk for a while, and large jobs come."""
    arena.give(found, arena.victim())
    with arena.database.outage():
        arena.database.fill()
        if arena.chance.random() < 0.5:
            arena.database.ask("SELECT pg_switch_wal()")  # the next file of its log needs room
        give_up_at = time.monotonic() + arena.chance.uniform(4.0, 6.0)
        before = sum(map(_refusals, arena.members))
        while time.monotonic() < give_up_at:
            arena.load.burst(arena.victim(), "burst", LARGE, 1, padding=LARGE_BYTES)
            time.sleep(0.2)
        if sum(map(_refusals, arena.members)) == before:
            found.faults.append("the disk was full, and the database took everything")
        arena.database.free()
    time.sleep(LEASE)


def _refusals(member: Member) -> int:
    """How often it has said that the database takes nothing."""
    log = member.log.read_text(errors="replace")
    return log.count("store_full") + log.count("store_down")


def wrong_clocks(arena: Arena, found: Round) -> None:
    """One or two members have a time of day that is wrong by an hour, and one is killed."""
    wrong = arena.chance.sample(arena.members, arena.chance.choice((1, 2)))
    for member in wrong:
        member.set_clock(arena.chance.choice((-3600.0, 3600.0)))
    time.sleep(1.5)
    crash(arena, found)
    for member in wrong:
        member.set_clock(0.0)


def kill_adopter(arena: Arena, found: Round) -> None:
    """kill -9 of one with many jobs, and of the one that is about to take them over."""
    victim = arena.victim()
    arena.load.burst(victim, "bulk", BULK, 0)
    arena.give(found, victim)
    before = arena.ids()
    estate = before.get(victim.address, 0)
    victim.kill()
    found.at, found.limit = time.monotonic(), CRASHED
    heirs = {id: address for address, id in before.items()}
    adopter: list[Member] = []

    def has_begun() -> bool:
        for (heir,) in arena.database.ask(f"SELECT heir FROM geartrain_adoptions WHERE estate = {estate}"):
            adopter[:] = [member for member in arena.members if member.address == heirs.get(heir)]
        return bool(adopter)

    give_up_at = time.monotonic() + 8.0
    while not has_begun() and time.monotonic() < give_up_at:
        time.sleep(0.002)
    if adopter:
        adopter[0].kill()
    else:
        found.faults.append(f"nobody began to take over what {victim} had")
    killed = time.monotonic()
    time.sleep(arena.chance.uniform(2.0, 4.0))
    for member, at in ((victim, found.at), *((each, killed) for each in adopter)):
        member.start()
        found.away.append((member, at, arena.back(found, member, before.get(member.address, 0))))


def restart_in_turn(arena: Arena, found: Round) -> None:
    """Each member is stopped as planned and started again before the next one is."""
    for member in arena.chance.sample(arena.members, len(arena.members)):
        is_first = not found.victims
        if is_first:
            arena.give(found, member)
        before = arena.ids()
        member.signal(signal.SIGTERM)
        told = time.monotonic()
        if is_first:
            found.at, found.limit = told, CRASHED
        if not arena.wait_until(member.has_died):
            found.faults.append(f"{member} did not stop")
            member.kill()
        member.start()
        joined = arena.back(found, member, before.get(member.address, 0))
        found.away.append((member, told, joined))
        time.sleep(0.5)


FAULTS: dict[str, Callable[[Arena, Round], None]] = {
    "crash": crash,
    "crash of two": crash_two,
    "frozen": freeze,
    "frozen for 30 s": freeze_long,
    "frozen briefly": freeze_briefly,
    "cut off": cut_off,
    "cut off briefly": cut_off_briefly,
    "workers cut off": cut_worker,
    "database stopped": stop_database,
    "database crashed": crash_database,
    "disk full": fill_disk,
    "wrong clocks": wrong_clocks,
    "adopter killed": kill_adopter,
    "restart in turn": restart_in_turn,
}
