"""The fleet's protocol, played by hypothesis: it holds as it is designed, and each of its protections is needed.

Servers are frozen, killed, cut off and stopped as planned, the database goes away and comes back as another, and
transactions arrive late, or are done without an answer, in as many orders as hypothesis can think of. What must be true
is in ``ownership_model.World``. With any one protection left out a history is found that breaks it, which also shows
that the histories go where the danger is.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ownership_model import (
    CLOCK_RATES,
    LEASE,
    PROTECTIONS,
    Broken,
    Claim,
    Commit,
    Process,
    Protocol,
    Pulse,
    Request,
    Server,
    State,
    World,
)

HOLDS = settings(max_examples=200, stateful_step_count=40, derandomize=True, database=None)
BREAKS = settings(
    HOLDS,
    max_examples=5000,
    phases=[Phase.generate],  # the first history that is found will do
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

HOUR = 3600.0
some = st.integers(0, 5)
clocks = st.tuples(st.sampled_from(CLOCK_RATES), st.sampled_from([0.0, HOUR, -HOUR]))
some_time = st.sampled_from([1.0, 2.0, LEASE / 2, LEASE])
changes = st.sampled_from(["submitted", "done", "moved"])
kinds: st.SearchStrategy[type[Request]] = st.sampled_from([Pulse, Commit, Claim])
far = st.sampled_from(["answered", "answered", "arrived", "sent"])  # how far a transaction gets for now
not_answered = st.sampled_from(["arrived", "sent"])
an_absence = st.sampled_from([2.0, LEASE])


class Histories(RuleBasedStateMachine):
    """Two or three servers are there at any time."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self.world = World(protocol, stored=12)
        self.is_sound = True

    def server(self, number: int) -> Server:
        servers = [server for server in self.world.servers if server.process is not Process.ENDED]
        return servers[number % len(servers)]

    def member(self, number: int) -> int:
        """The id of some member of whom there may be something left, the newest first; 0: there is none."""
        ids = [id for id, row in self.world.database.members.items() if row.state is not State.GONE]
        return ids[-1 - number % len(ids)] if ids else 0

    def owners(self) -> list[int]:
        return sorted(set(self.world.database.owners.values()))

    @invariant()
    def all_is_well(self) -> None:
        try:
            self.world.check()
        except Broken:
            self.is_sound = False
            raise

    def teardown(self) -> None:
        if self.is_sound:
            self.world.come_to_rest()

    # ── the world ───────────────────────────────────────────────────────────────────────────────────────────────

    @initialize(clocks=st.lists(clocks, min_size=2, max_size=3))
    def servers_start(self, clocks: list[tuple[float, float]]) -> None:
        for rate, offset in clocks:
            self.world.start(rate, offset)
        self.time_passes_with_pulses(LEASE)

    @rule(seconds=some_time)
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(seconds=some_time)
    def time_passes_with_pulses(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.world.wait(1.0)
            for server in self.world.servers:
                self.world.pulse(server)

    @rule(seconds=some_time)
    def everybody_does_all_they_should(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.world.wait(1.0)
            for server in self.world.servers:
                self.world.one_round(server)

    @rule(who=some, is_planned=st.booleans(), clock=clocks)
    def a_server_ends(self, who: int, is_planned: bool, clock: tuple[float, float]) -> None:
        """And another is started in its place."""
        server = self.server(who)
        (self.world.leave if is_planned else self.world.kill)(server)
        if server.process is Process.ENDED:
            self.world.start(*clock)

    @rule(
        who=some, kind=kinds, far=not_answered, change=changes, whom=some, is_frozen=st.booleans(), seconds=an_absence
    )
    def a_server_is_away(
        self, who: int, kind: type[Request], far: str, change: str, whom: int, is_frozen: bool, seconds: float
    ) -> None:
        """In the middle of something, and the others do all they should."""
        server = self.server(who)
        if kind is Commit:
            self.a_job_changes(who, far, change, whom)
        else:
            self.something_is_sent(who, kind, far, whom)
        if is_frozen:
            self.world.freeze(server)
        else:
            server.cut = True
            self.world.break_session(server)
        self.everybody_does_all_they_should(seconds)
        self.world.come_back(server)

    @rule(who=some, is_frozen=st.booleans())
    def a_server_goes_away(self, who: int, is_frozen: bool) -> None:
        server = self.server(who)
        if is_frozen:
            self.world.freeze(server)
        else:
            server.cut = True

    @rule(who=some)
    def a_server_comes_back(self, who: int) -> None:
        self.world.come_back(self.server(who))

    @precondition(lambda self: not self.world.protocol.locks_fall_with_processes_only)
    @rule(who=some)
    def a_lock_is_dropped(self, who: int) -> None:
        self.world.drop_lock(self.server(who))

    @rule(is_promoted=st.booleans(), ahead=st.sampled_from([0.0, LEASE, -LEASE]), seconds=st.sampled_from([0.0, LEASE]))
    def the_database_goes_away_and_comes_back(self, is_promoted: bool, ahead: float, seconds: float) -> None:
        self.world.database_goes_down()
        self.world.wait(seconds)
        self.world.database_comes_up(is_promoted, ahead)

    @rule(number=some)
    def something_arrives_late(self, number: int) -> None:
        if self.world.under_way:
            self.world.arrive(self.world.under_way[number % len(self.world.under_way)])

    # ── servers ─────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(who=some, kind=kinds, far=far, estate=some)
    def something_is_sent(self, who: int, kind: type[Request], far: str, estate: int) -> None:
        """If there is a reason; or what was sent before gets on."""
        server = self.server(who)
        if kind is Pulse:
            self.world.begin_pulse(server)
        elif kind is Commit:
            self.world.begin_commit(server)
        elif estates := [owner for owner in self.owners() if self.world.may_claim(server, owner)]:
            self.world.begin_claim(server, estates[estate % len(estates)])
        flight = server.sent.get(kind)
        if far != "sent" and flight in self.world.under_way:
            self.world.arrive(flight)
        if far == "answered":
            self.world.read(server, kind)

    @rule(who=some)
    def a_server_takes_its_lock_again(self, who: int) -> None:
        self.world.relock(self.server(who))

    @rule(who=some, kind=kinds, far=far, reconnects=st.booleans())
    def a_session_breaks(self, who: int, kind: type[Request], far: str, reconnects: bool) -> None:
        self.something_is_sent(who, kind, far, 0)
        self.world.break_session(self.server(who))
        if reconnects:
            self.world.reconnect(self.server(who))

    @rule(who=some, whom=some)
    def a_server_judges(self, who: int, whom: int) -> None:
        self.world.judge(self.server(who), self.member(whom))

    @rule(who=some)
    def a_server_does_all_it_should(self, who: int) -> None:
        self.world.one_round(self.server(who))

    # ── clients and workers ─────────────────────────────────────────────────────────────────────────────────────

    @rule(who=some, far=far, change=changes, whom=some)
    def a_job_changes(self, who: int, far: str, change: str, whom: int) -> None:
        server = self.server(who)
        if change == "submitted":
            self.world.submit(server)
        elif change == "done":
            self.world.hand_out(server)
            self.world.complete(server)
        else:
            ids = list(self.world.database.members)  # the newest first, and those that are gone
            self.world.move(server, ids[-1 - whom % len(ids)])
        self.something_is_sent(who, Commit, far, 0)


def play(protocol: Protocol, settings: settings) -> None:
    """Let hypothesis look for a history that breaks what must be true."""

    class HistoriesOfIt(Histories):
        def __init__(self) -> None:
            super().__init__(protocol)

    run_state_machine_as_test(HistoriesOfIt, settings=settings)


def test_the_protocol_holds() -> None:
    play(Protocol(), HOLDS)


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_each_protection_is_needed(protection: str) -> None:
    with pytest.raises(Broken):
        play(Protocol(**{protection: False}), BREAKS)
