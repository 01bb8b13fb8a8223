"""The place that a fleet shares: who is a member, whose each row is, and how it becomes another one's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from databases import DatabasePlace, NewNamespace
from fleet_place import FleetPlace, about, claimed, database_place, fleet_in, id_of, is_fenced, member, vanish
from place import NO_LIMIT, batch, fields, job, kept, numbers, opened, records_of

from geartrain.jobserver.records import Record, StoredJob, number_key
from geartrain.store import StoreError, StoreInUseError, Unreadable, engine
from geartrain.store.fleet import BLOCK, DEAD, GONE, LEASE, LEFT, LIVE, FleetStore, fleet_engine
from servers import wait_until


@pytest.fixture(params=["postgresql", "mariadb"])
def place(request: pytest.FixtureRequest, new_namespace: NewNamespace) -> DatabasePlace:
    return database_place(request, new_namespace)


@pytest.fixture
def fleet(place: DatabasePlace) -> Iterator[FleetPlace]:
    with fleet_in(place) as made:
        yield made


class TestMembers:
    def test_each_incarnation_has_an_id_of_its_own(self, fleet: FleetPlace) -> None:
        first = fleet.join("a:1")
        vanish(first)
        second, third = fleet.join("a:1"), fleet.join("b:1")
        assert [id_of(store) for store in (first, second, third)] == [1, 2, 3]
        assert [(each.id, each.address) for each in third.members()] == [(3, "b:1"), (2, "a:1"), (1, "a:1")]

    def test_a_pulse_renews_the_lease_and_shows_the_others(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        fleet.sql("UPDATE {leases} SET lease_end = lease_end - 1")
        view = one.pulse()
        assert view.me == 1
        assert view.uptime > 0
        mine, other = view.members
        assert mine.lease > LEASE - 1 > other.lease
        assert (other.id, other.address, other.state, other.locked, other.draining) == (
            2,
            "host2:4730",
            LIVE,
            True,
            False,
        )
        assert abs(other.joined - view.at) < 60
        assert other.ended == 0
        assert two.pulse().members[1].lease > LEASE - 1

    def test_a_member_whose_lease_holds_and_whose_lock_is_held_is_not_judged(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        assert not one.judge(2)
        assert one.judge(77)  # nobody
        assert fleet.state(two) == LIVE
        two.pulse()

    def test_a_process_that_has_ended_is_seen_by_its_lock(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        vanish(two)
        wait_until(lambda: not member(one, two).locked, "its lock is free")
        assert member(one, two).lease > 0
        assert one.judge(2)
        assert member(one, two).state == DEAD
        assert member(one, two).ended > 0

    def test_a_host_that_stands_still_is_seen_by_its_lease(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        fleet.run_out(two)
        assert member(one, two).lease < 0
        assert member(one, two).locked
        assert one.judge(2)
        wait_until(lambda: not member(one, two).locked, "its sessions are ended")
        for act in (
            two.pulse,
            lambda: two.commit(batch()),
            lambda: two.claim(0, 1, 1),
            lambda: two.claim_records(0, 1),
        ):
            assert is_fenced(act)
            assert is_fenced(act)

    def test_a_lock_that_was_lost_is_taken_again(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        fleet.place.cut()
        wait_until(lambda: two.pulse().members[1].locked, "it is held again")
        assert member(one, two).locked
        assert one.pulse().uptime < 60  # as if the database had just come

    def test_one_that_leaves_is_not_judged(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1)))
        two.leave()
        assert member(one, two).state == LEFT
        assert not member(one, two).locked
        assert one.judge(2)
        assert member(one, two).state == LEFT
        assert is_fenced(lambda: two.commit(batch(job(2))))
        assert is_fenced(two.pulse)
        assert claimed(one, 2) == [1]

    def test_one_is_gone_when_nothing_of_it_is_left(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1), records=(about("result", 7), Record("history", b"k", b"v"))))
        assert not one.bury(2)
        two.leave()
        assert not one.bury(2)
        assert claimed(one, 2) == [1]
        assert not one.bury(2)
        assert [each.kind for each in one.claim_records(2, 10)] == ["result"]
        assert one.bury(2)
        assert one.bury(2)
        assert [each.id for each in one.pulse().members] == [1]
        assert [(each.id, each.state, each.jobs_adopted) for each in one.members()] == [(2, GONE, 1), (1, LIVE, 0)]

    def test_drain_is_asked_of_live_members(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        assert one.drain(2, True)
        assert one.drain(2, True)
        assert member(two, two).draining
        assert one.drain(2, False)
        assert not member(two, two).draining
        two.leave()
        assert not one.drain(2, True)
        assert not one.drain(77, True)

    def test_forget_takes_away_what_is_gone_and_judges_what_may_be(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        assert not one.forget(2)
        fleet.run_out(two)
        assert one.forget(2)
        assert fleet.state(two) == DEAD
        assert not one.forget(2)  # it is to be claimed first
        assert one.bury(2)
        assert one.forget(2)
        assert [each.id for each in one.members()] == [1]
        assert not one.forget(2)
        assert is_fenced(two.pulse)

    def test_numbers_are_given_once(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        given = [one.numbers(), two.numbers(), one.numbers()]
        assert given == [BLOCK, 2 * BLOCK, 3 * BLOCK]
        assert two.born_at() == {BLOCK: 1, 2 * BLOCK: 2, 3 * BLOCK: 1}


class TestPlace:
    def test_a_fleet_and_a_job_server_that_is_alone_keep_each_other_out(self, fleet: FleetPlace) -> None:
        place = fleet.place
        with opened(place.url), place.impatient(), pytest.raises(StoreInUseError, match=place.who):
            fleet.join()
        one = fleet.join()
        for _ in range(2):
            with pytest.raises(StoreInUseError, match="start this job server with --fleet trains"):
                engine(place.url).open()
            one.leave()  # and when nobody is there

    def test_another_fleets_place_is_left_alone(self, fleet: FleetPlace) -> None:
        fleet.join()
        with pytest.raises(StoreInUseError, match="of the fleet trains: start this job server with --fleet trains"):
            fleet.join(name="planes")

    def test_tables_of_a_newer_fleet_are_left_alone(self, fleet: FleetPlace) -> None:
        fleet.join()
        fleet.sql("UPDATE {fleet} SET version = 99")
        with pytest.raises(StoreError, match=r"version 99.*newer"):
            fleet.join()

    @pytest.mark.parametrize("name", ["", "a b", "x" * 51, "it's", "ü"])
    def test_a_name_that_is_none(self, fleet: FleetPlace, name: str) -> None:
        with pytest.raises(StoreError, match="can't be called"):
            fleet.join(name=name)

    def test_the_jobs_of_a_job_server_that_was_alone_are_nobodys(self, fleet: FleetPlace) -> None:
        some = [
            job(1, b"w", unique=b"u"), job(2, b"x", unique=b"u"), job(3, b"same", unique=b"-"), job(4, b"y"),
            job(5, b"z", unique=b"dead", priority=0),
        ]  # fmt: skip
        records = [
            about("dead", 5),
            about("result", 9),
            Record("policy", b"resize", b"p"),
            Record("history", b"h" * 8, b""),
        ]
        with opened(fleet.place.url) as alone:
            alone.commit(batch(*some, records=tuple(records), next_number=3 * BLOCK))
        one, two = fleet.join("a:1"), fleet.join("b:1")
        assert one.numbers() == 3 * BLOCK
        assert one.count() == 0
        claim = one.claim(0, 100, NO_LIMIT)
        assert [fields(each) for each in claim.jobs if isinstance(each, StoredJob)] == [
            fields(some[n]) for n in (4, 0, 1, 2, 3)
        ]
        assert [each.kind for each in claim.records] == ["dead"]
        assert [each.kind for each in one.claim_records(0, 10)] == ["result"]
        assert [each.kind for each in two.own_records()] == ["history"]
        assert [each.kind for each in one.shared_records()[1]] == ["policy"]
        # One of the equals is found from now on, and no dead letter.
        fresh = batch(
            job(101, b"w", unique=b"u"), job(102, b"same", unique=b"-"), job(103, b"z", unique=b"dead"), job(104)
        )
        two.commit(fresh)
        assert fresh.twins == {101: 1, 102: 3}
        assert numbers(two) == [103, 104]

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("sqlite:///jobs.sqlite", "file"),
            ("redis://localhost/0", "replicas"),
            ("memcached://localhost", "no transactions"),
            ("memory:", "nobody else"),
            ("other://x:secret@y", "only PostgreSQL"),
        ],
    )
    def test_what_no_fleet_can_share(self, url: str, reason: str) -> None:
        with pytest.raises(StoreError, match=f"can't be a fleet's.*{reason}") as refusal:
            fleet_engine(url)
        assert "secret" not in str(refusal.value)


class TestCommit:
    def test_a_member_writes_its_own_jobs_alone(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        one.commit(batch(job(1), job(2)))
        two.commit(batch(job(3), removed=(1,), moved=((2, 99, 7),)))
        assert fleet.owners() == {1: 1, 2: 1, 3: 2}
        assert kept(one) == [fields(job(1)), fields(job(2))]
        one.commit(batch(job(4), job(5), removed=(1, 4), moved=((2, 99, 7),)))
        assert kept(one) == [fields(job(2, position=99, attempts=7)), fields(job(5))]
        assert (one.count(), two.count()) == (2, 1)
        assert two.owners([1, 2, 3, 77]) == {2: 1, 3: 2}
        assert one.read(3) == b""

    def test_a_batch_that_comes_twice_is_kept_once(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(9, unique=b"taken")))
        what = batch(
            job(1, b"a", unique=b"u"), job(2, b"b"), job(3), job(4, unique=b"taken"), job(5),
            removed=(3,), records=(about("attempts", 1), Record("policy", b"f", b"p")),
        )  # fmt: skip
        what.begun = {1: 1}
        what.moved = [(5, 2)]
        for _ in range(2):
            one.commit(what)
            assert fleet.owners() == {1: 1, 2: 1, 5: -2, 9: 2}
            assert what.twins == {4: 9}
            assert what.moved == [(5, 2)]
            assert records_of(one) == {
                ("attempts", number_key(1)): (b"v", 0.0), ("policy", b"f"): (b"p", 0.0)
            }  # fmt: skip

    def test_a_twin_elsewhere_is_found(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        one.commit(
            batch(job(1, unique=b"u"), job(2, b"work", unique=b"-"), job(3, unique=b"u", function=b"other"), job(4))
        )
        what = batch(
            job(11, unique=b"u"), job(12, b"work", unique=b"-"), job(13, b"more", unique=b"-"), job(14, unique=b"u2"),
            job(15, unique=b"work"), job(16),
        )  # fmt: skip
        two.commit(what)
        assert what.twins == {11: 1, 12: 2}
        assert numbers(two) == [13, 14, 15, 16]
        assert kept(two)[0][4] == b"more"

    def test_a_twin_that_ends_makes_room_within_the_batch(self, fleet: FleetPlace) -> None:
        one = fleet.join()
        one.commit(batch(job(1, unique=b"u"), job(2, unique=b"d")))
        what = batch(job(3, unique=b"u"), job(4, unique=b"d"), removed=(1,), records=(about("dead", 2),))
        one.commit(what)
        assert what.twins == {}
        assert numbers(one) == [2, 3, 4]
        what = batch(
            job(5, unique=b"v"), job(6, unique=b"v"), job(7, unique=b"v"), removed=(5,), records=(about("dead", 6),)
        )
        one.commit(what)
        assert what.twins == {}
        assert numbers(one) == [2, 3, 4, 6, 7]

    def test_shared_records_have_a_revision(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        before = one.pulse().shared
        one.commit(batch(records=(Record("policy", b"f", b"1"), about("result", 7))))
        assert two.pulse().shared == before + 1
        two.commit(batch(records=(Record("policy", b"f", b"2"), Record("pause", b"f", b""))))
        revision, records = one.shared_records()
        assert revision == one.pulse().shared == before + 2
        assert {each.kind: each.value for each in records} == {"policy": b"2", "pause": b""}
        one.commit(batch(records=(Record("policy", b"f", None), about("result", 7, None))))
        assert [each.kind for each in two.shared_records()[1]] == ["pause"]
        assert fleet.record_owners() == {"pause": 0}
        two.commit(batch(records=(about("result", 8),)))
        assert two.pulse().shared == before + 3

    def test_a_record_is_removed_by_its_owner_alone(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        one.commit(batch(records=(about("result", 7),)))
        two.commit(batch(records=(about("result", 7, None),)))
        assert fleet.record_owners() == {"result": 1}
        two.commit(batch(records=(about("result", 7, b"again"),)))
        assert fleet.record_owners() == {"result": 2}

    def test_expired_records_of_others_stay(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(records=(Record("a", b"k", b""),)))
        fleet.sql("UPDATE {records} SET expires = 5")
        one.commit(batch(records=(Record("b", b"k", b"", 5.0), Record("c", b"k", b""))))
        assert fleet.record_owners() == {"a": 2, "c": 1}

    def test_what_can_not_be_read_is_set_aside(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1, b"w"), job(2), job(3)))
        fleet.place.spoil(2)
        two.quarantine(3, "looked odd")
        two.leave()
        claim = one.claim(2, 10, NO_LIMIT)
        assert [each.number for each in claim.jobs] == [2, 1]
        assert isinstance(claim.jobs[0], Unreadable)
        assert [each.number for each in one.quarantined()] == [3, 2]
        assert fleet.owners() == {1: 1}


class TestMoves:
    def test_jobs_go_to_a_live_member_with_their_records(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        one.commit(batch(job(1, b"w"), job(2), job(3), records=(about("attempts", 1), about("attempts", 2))))
        what = batch()
        what.moved = [(1, 2), (3, 2)]
        assert two.pulse().arrivals == 0
        one.commit(what)
        assert what.moved == [(1, 2), (3, 2)]
        assert fleet.owners() == {1: -2, 2: 1, 3: -2}
        assert two.pulse().arrivals == 1
        assert one.pulse().arrivals == 0
        with pytest.raises(StoreError, match="is live"):
            one.claim(-2, 10, NO_LIMIT)
        claim = two.claim(-2, 10, NO_LIMIT)
        assert [each.number for each in claim.jobs] == [1, 3]
        assert [each.key[-1] for each in claim.records] == [1]
        assert two.adoptions() == []
        assert numbers(one) == [2]

    def test_jobs_stay_when_the_other_does_not_live(self, fleet: FleetPlace) -> None:
        one, two, three = fleet.join(), fleet.join(), fleet.join()
        two.leave()
        one.commit(batch(job(1), job(2)))
        what = batch()
        what.moved = [(1, 2), (2, 3)]
        one.commit(what)
        assert what.moved == [(2, 3)]
        assert fleet.owners() == {1: 1, 2: -3}
        # The answer was lost and the other one died meanwhile: what has been sent is sent.
        fleet.run_out(three)
        assert one.judge(3)
        one.commit(what)
        assert what.moved == [(2, 3)]
        assert not one.bury(3)
        assert claimed(one, -3) == [2]
        assert one.bury(3)
        assert [(each.estate, each.heir, each.jobs) for each in one.adoptions()] == [(3, 1, 1)]


class TestClaims:
    def test_the_best_come_first_with_all_that_is_theirs(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        some = [
            job(1, b"one" * 50, priority=2), job(2, b"\x00\xff", priority=1, due=2e9, attempts=3, unique=b"u"),
            job(3, priority=0, position=5 << 21, reducer=b"r"), job(4, priority=0), job(5, b"x" * 200, unique=b"-"),
        ]  # fmt: skip
        two.commit(batch(*some, records=(about("dead", 1), about("attempts", 2), about("result", 99))))
        two.leave()
        first, second = one.claim(2, 3, 100), one.claim(2, 3, 100)
        found = [each for each in [*first.jobs, *second.jobs] if isinstance(each, StoredJob)]
        assert [each.number for each in found] == [4, 3, 2, 5, 1]
        some[0].workload = None  # it was left in the store
        assert [fields(each) for each in found] == [fields(some[n - 1]) for n in (4, 3, 2, 5, 1)]
        assert [each.kind for each in first.records] == ["attempts"]
        assert [each.kind for each in second.records] == ["dead"]
        assert one.claim(2, 3, 100).is_empty
        assert one.read(1) == b"one" * 50
        assert [each.kind for each in one.claim_records(2, 10)] == ["result"]
        assert one.claim_records(2, 10) == []
        assert [(each.estate, each.heir, each.jobs) for each in one.adoptions()] == [(2, 1, 5)]
        assert set(fleet.owners().values()) == {1}

    def test_attempts_that_had_begun_count_only_for_a_crash(self, fleet: FleetPlace) -> None:
        one, two, three = fleet.join(), fleet.join(), fleet.join()
        for store, first in ((two, 10), (three, 20)):
            store.commit(batch(job(first), job(first + 1, attempts=4), job(first + 2)))
            begun = batch()
            begun.begun = {first: 1, first + 1: 5}
            store.commit(begun)
        two.leave()
        fleet.run_out(three)
        assert one.judge(3)
        assert counts(one, 2) == {10: (0, 0), 11: (4, 0), 12: (0, 0)}
        assert counts(one, 3) == {20: (1, 1), 21: (5, 5), 22: (0, 0)}
        one.leave()
        four = fleet.join()
        assert counts(four, 1) == {10: (0, 0), 11: (4, 0), 12: (0, 0), 20: (1, 0), 21: (5, 0), 22: (0, 0)}

    def test_a_live_member_leaves_no_estate(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1)))
        with pytest.raises(StoreError, match="the member 2 is live"):
            one.claim(2, 10, NO_LIMIT)
        with pytest.raises(StoreError, match="the member 2 is live"):
            one.claim_records(2, 10)
        assert one.claim(77, 10, NO_LIMIT).is_empty

    def test_records_wait_for_their_jobs(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1), records=(about("dead", 1), about("result", 2), Record("hook", b"x" * 16, b""))))
        two.leave()
        assert [each.kind for each in one.claim_records(2, 1)] != ["dead"]
        assert len(one.claim_records(2, 10)) == 1
        assert [each.kind for each in one.claim(2, 10, NO_LIMIT).records] == ["dead"]

    def test_what_a_job_server_keeps_for_itself_is_for_the_next_one_at_its_address(self, fleet: FleetPlace) -> None:
        one, other = fleet.join("a:1"), fleet.join("b:1")
        for store, value in ((one, b"of a"), (other, b"of b")):
            store.commit(batch(records=(Record("history", b"k", value),)))
        again = fleet.join("a:1")
        assert list(again.own_records()) == []
        one.leave()
        assert [each.value for each in again.own_records()] == [b"of a"]
        assert list(again.own_records()) == []
        again.commit(batch(records=(Record("history", b"k", b"newer"),)))
        assert records_of(again) == {("history", b"k"): (b"newer", 0.0)}
        assert records_of(other) == {("history", b"k"): (b"of b", 0.0)}


def counts(store: FleetStore, estate: int) -> dict[int, tuple[int, int]]:
    """The attempts of each job claimed, and how many have begun."""
    jobs = store.claim(estate, 100, NO_LIMIT).jobs
    return {each.number: (each.attempts, each.begun) for each in jobs if isinstance(each, StoredJob)}
