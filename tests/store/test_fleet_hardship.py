"""What may go wrong in a fleet's place: members that stand still or die in the middle, and two that do the same."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from databases import TABLES, DatabasePlace, NewNamespace
from fleet_place import FLEET, FleetPlace, about, claimed, database_place, fleet_in, id_of, is_fenced, member
from place import NO_LIMIT, batch, insist, job, numbers, until_up

from geartrain.jobserver.records import Record
from geartrain.store import StoreDownError, StoreError, StoreFullError
from geartrain.store.fleet import DEAD, LIVE, FencedError, FleetStore, fleet_engine
from geartrain.store.sql import fleet_mysql, fleet_postgresql
from servers import wait_until

CLAIMER = """
import sys
from geartrain.store.fleet import fleet_engine
store = fleet_engine(sys.argv[1])
store.open()
print(store.join(sys.argv[2], "claimer:1"), flush=True)
sys.stdin.readline()
store.claim(1, 1000, 1 << 30)
"""


@pytest.fixture(params=["postgresql", "mariadb"])
def place(request: pytest.FixtureRequest, new_namespace: NewNamespace) -> DatabasePlace:
    return database_place(request, new_namespace)


@pytest.fixture
def fleet(place: DatabasePlace) -> Iterator[FleetPlace]:
    with fleet_in(place) as made:
        yield made


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def begin_and_stand_still(fleet: FleetPlace, store: FleetStore, statement: str) -> None:
    """The member's writer is in the middle of a commit, and nothing more comes from it."""
    asking = f"SELECT state FROM {{members}} WHERE id = {id_of(store)} {fleet.sharing()}"
    for each in ("BEGIN", asking, statement):
        named = each.format(members=f"{fleet.place.namespace}_members", jobs=f"{fleet.place.namespace}_jobs")
        store._writer.use(lambda connection, named=named: connection.exec_driver_sql(named))  # type: ignore[attr-defined]


class TestStandingStill:
    def test_one_in_the_middle_of_a_commit_is_judged_and_its_jobs_claimed(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1), job(2)))
        begin_and_stand_still(fleet, two, "UPDATE {jobs} SET attempts = 9 WHERE number = 1")
        fleet.run_out(two)
        assert one.judge(2)
        assert claimed(one, 2) == [1, 2]
        assert is_fenced(lambda: two.commit(batch(removed=(1, 2))))
        assert numbers(one) == [1, 2]

    def test_a_commit_under_way_is_not_kept(self, fleet: FleetPlace, aside: ThreadPoolExecutor) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1)))
        with fleet.locking("SELECT number FROM {jobs} WHERE number = 1 FOR UPDATE"):
            done = aside.submit(two.commit, batch(job(2), removed=(1,)))
            wait_until(fleet.is_waited_for, "the commit is under way")
            fleet.run_out(two)
            wait_until(lambda: judges(one, 2), "it is judged")
            with pytest.raises(FencedError):
                done.result()
        assert claimed(one, 2) == [1]

    def test_a_pulse_that_waits_for_its_judge_renews_nothing(
        self, fleet: FleetPlace, aside: ThreadPoolExecutor
    ) -> None:
        one = fleet.join()
        with fleet.locking("UPDATE {leases} SET lease_end = NULL WHERE id = 1") as judge:
            done = aside.submit(one.pulse)
            wait_until(fleet.is_waited_for, "the pulse waits")
            with judge.cursor() as cursor:
                cursor.execute(f"UPDATE {fleet.place.namespace}_members SET state = '{DEAD}' WHERE id = 1")
            judge.commit()
            with pytest.raises(FencedError):
                done.result()

    def test_the_database_ends_a_transaction_that_stands_still(
        self, fleet: FleetPlace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For nobody may be left to judge."""
        for module in (fleet_postgresql, fleet_mysql):
            monkeypatch.setattr(module, "IDLE_TIMEOUT", 1)
        one = fleet.join()
        one.commit(batch(job(1)))
        begin_and_stand_still(fleet, one, "UPDATE {jobs} SET attempts = 9 WHERE number = 1")
        fleet.sql("UPDATE {jobs} SET attempts = 5")  # waits until it has been ended
        one.commit(batch(job(2)))
        assert numbers(one) == [1, 2]

    def test_a_commit_does_not_hold_up_the_pulse(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        begin_and_stand_still(fleet, one, "UPDATE {jobs} SET attempts = 9")
        assert [each.id for each in one.pulse().members] == [1, 2]
        assert not two.judge(1)

    def test_the_lock_alone_lost_is_seen_and_taken_again(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        one._membership._lock.close()  # type: ignore[attr-defined]
        wait_until(lambda: not member(two, one).locked, "the others see it")
        assert not one.pulse().members[0].locked
        assert one.pulse().members[0].locked
        assert member(two, one).locked


class TestSideBySide:
    def test_two_that_claim_at_once_get_different_jobs(self, fleet: FleetPlace, aside: ThreadPoolExecutor) -> None:
        one, two, dead = fleet.join(), fleet.join(), fleet.join()
        dead.commit(batch(*(job(n, unique=b"%d" % n) for n in range(1, 2001)), records=(about("dead", 7),)))
        dead.leave()

        def all_of(store: FleetStore) -> list[int]:
            found: list[int] = []
            while page := claimed(store, 3, 90):
                found += page
            return found

        first, second = (done.result() for done in [aside.submit(all_of, store) for store in (one, two)])
        assert sorted(first + second) == list(range(1, 2001))
        assert fleet.owners() == dict.fromkeys(first, 1) | dict.fromkeys(second, 2)
        assert sum(each.jobs for each in one.adoptions()) == 2000
        assert one.bury(3)

    def test_what_another_one_is_claiming_is_not_waited_for(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(*(job(n) for n in range(1, 11))))
        two.leave()
        with fleet.locking("SELECT number FROM {jobs} WHERE number = 1 FOR UPDATE"):
            assert claimed(one, 2, 3) == [2, 3, 4]
            assert claimed(one, 2) == [5, 6, 7, 8, 9, 10]
            assert claimed(one, 2) == []
            assert not one.bury(2)
        assert claimed(one, 2) == [1]

    def test_of_two_that_insert_a_twin_at_once_one_is_told(self, fleet: FleetPlace, aside: ThreadPoolExecutor) -> None:
        one, two = fleet.join(), fleet.join()
        for round in range(20):
            first, second = 1000 + round * 10, 5000 + round * 10
            mine = batch(*(job(first + n, unique=b"%d-%d" % (round, n)) for n in range(8)))
            theirs = batch(*(job(second + n, unique=b"%d-%d" % (round, n)) for n in reversed(range(8))))
            together = threading.Barrier(2)

            def commit(store: FleetStore, what: Any, together: threading.Barrier = together) -> None:
                together.wait()
                insist(store, what)

            for done in [aside.submit(commit, one, mine), aside.submit(commit, two, theirs)]:
                done.result()
            for n in range(8):
                twins = (mine.twins.get(first + n), theirs.twins.get(second + n))
                assert twins in ((None, first + n), (second + n, None))
        assert len(fleet.owners()) == 160

    def test_a_twin_that_is_not_committed_yet_is_waited_for(self, fleet: FleetPlace, aside: ThreadPoolExecutor) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1, unique=b"u")))
        two.leave()
        assert claimed(one, 2) == [1]
        fleet.sql("CREATE TABLE {jobs}_copy AS SELECT * FROM {jobs}", "DELETE FROM {jobs}")
        one._witness = None  # type: ignore[attr-defined]
        try:
            what = batch(job(2, unique=b"u"), job(3))
            with fleet.locking("INSERT INTO {jobs} SELECT * FROM {jobs}_copy") as other:
                done = aside.submit(one.commit, what)
                wait_until(fleet.is_waited_for, "the commit waits")
                other.commit()
                done.result()
            assert what.twins == {2: 1}
            assert numbers(one) == [1, 3]
        finally:
            fleet.sql("DROP TABLE {jobs}_copy")

    def test_many_that_join_at_once(self, fleet: FleetPlace, aside: ThreadPoolExecutor) -> None:
        joined = [done.result() for done in [aside.submit(fleet.join) for _ in range(5)]]
        assert sorted(map(id_of, joined)) == [1, 2, 3, 4, 5]
        assert [each.locked for each in joined[0].pulse().members] == [True] * 5
        assert sorted(store.numbers() for store in joined) == [(n + 1) << 22 for n in range(5)]

    def test_records_that_two_write_at_once(self, fleet: FleetPlace, aside: ThreadPoolExecutor) -> None:
        one, two = fleet.join(), fleet.join()

        def write(store: FleetStore) -> None:
            for n in range(30):
                insist(store, batch(records=tuple(Record("policy", b"f%d" % k, b"%d" % n) for k in range(5))))

        for done in [aside.submit(write, store) for store in (one, two)]:
            done.result()
        revision, records = one.shared_records()
        assert [each.value for each in records] == [b"29"] * 5
        assert revision == 61


class TestDeath:
    def test_an_adopter_killed_in_the_middle_leaves_nothing_behind(self, fleet: FleetPlace) -> None:
        dead, heir = fleet.join(), fleet.join()
        dead.commit(batch(*(job(n) for n in range(1, 301)), records=(about("dead", 7),)))
        dead.leave()
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIMER, fleet.place.url, FLEET], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            adopter = int(process.stdout.readline())
            # It writes down what it has taken after it has taken it.
            fleet.sql(f"INSERT INTO {{adoptions}} VALUES (1, {adopter}, 0, 0, 0)")
            with fleet.locking("SELECT jobs FROM {adoptions} WHERE estate = 1 FOR UPDATE"):
                process.stdin.write(b"\n")
                process.stdin.flush()
                wait_until(fleet.is_waited_for, "it has taken them")
                process.send_signal(signal.SIGKILL)
                process.wait()
                # Its session waits for a lock, and the database sees only at the end that nobody is there.
                wait_until(lambda: not heir.pulse().members[-1].locked, "its lock is free")
                assert heir.judge(adopter)
        assert claimed(heir, adopter) == []
        assert claimed(heir, 1) == list(range(1, 301))
        assert heir.bury(adopter)
        assert heir.bury(1)

    def test_a_cut_connection_is_made_again(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1), job(2)))
        two.leave()
        fleet.place.cut()
        assert claimed(one, 2, 1) == [1]
        one.commit(batch(job(3)))
        fleet.place.cut()
        assert one.owners([1, 2, 3]) == {1: 1, 2: 2, 3: 1}
        assert one.pulse().me == 1
        assert [each.number for each in one.claim(2, 1, NO_LIMIT).jobs] == [2]

    def test_a_database_that_is_away_is_down_and_comes_back(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        one.commit(batch(job(1)))
        fleet.place.crash()
        try:
            for act in (one.pulse, lambda: one.commit(batch()), lambda: one.claim(0, 1, 1), lambda: one.judge(2)):
                with pytest.raises(StoreDownError) as refusal:
                    act()
                assert not any(secret in str(refusal.value) for secret in fleet.place.secrets)
        finally:
            fleet.place.revive()
        until_up(lambda: renew(one), "it answers")
        assert one.pulse().uptime < 60
        assert one.pulse().members[0].locked
        assert not member(one, two).locked
        assert fleet.state(two) == LIVE
        assert numbers(one) == [1]

    def test_a_database_that_may_only_be_read_is_full(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        two.commit(batch(job(1)))
        two.leave()
        with fleet.place.read_only():
            with pytest.raises(StoreFullError):
                one.commit(batch(job(2)))
            with pytest.raises(StoreFullError):
                one.claim(2, 1, 1)
            with pytest.raises(StoreFullError):
                one.pulse()
        until_up(lambda: one.commit(batch(job(2))), "it is written")
        assert claimed(one, 2) == [1]

    def test_a_full_disk_is_told_from_a_fence(self, place: DatabasePlace) -> None:
        with place.cramped() as (url, make_room):
            store = fleet_engine(url)
            store.open()
            store.join(FLEET, "a:1")
            try:
                refused = batch()
                with contextlib.suppress(StoreFullError, StoreDownError):
                    for number in range(1, 500):
                        refused = batch(job(number, os.urandom(65_536)))
                        store.commit(refused)
                assert 10 < refused.added[0].number < 499
                make_room()
                if place.service.has_ended():
                    place.revive()
                insist(store, refused)
                assert refused.added[0].number in numbers(store)
            finally:
                store.close()

    @pytest.mark.parametrize("table", ["jobs", "members"])
    def test_an_emptied_table_is_no_fence(self, fleet: FleetPlace, table: str) -> None:
        one = fleet.join()
        one.commit(batch(job(1)))
        fleet.sql(f"DELETE FROM {{{table}}}")
        with pytest.raises(StoreError, match=f"_{table} was emptied") as refusal:
            one.commit(batch(job(2)))
        assert not isinstance(refusal.value, FencedError)
        assert one.rebuild([job(1), job(2)], 1) == 2
        assert numbers(one) == [1, 2]
        assert one.pulse().members[0].state == LIVE

    def test_what_was_taken_away_each_member_brings_again(self, fleet: FleetPlace) -> None:
        one, two = fleet.join(), fleet.join()
        for store, number in ((one, 1), (two, 2)):
            store.commit(batch(job(number, unique=b"%d" % number)))
        given = [one.numbers(), two.numbers()]
        fleet.sql(*(f"DROP TABLE {{{table}}}" for table in TABLES))
        with pytest.raises(StoreError, match=r"send SIGHUP"):
            one.commit(batch(job(3)))
        with pytest.raises(StoreError, match=r"send SIGHUP"):
            one.pulse()
        assert one.rebuild([job(1, unique=b"1"), job(3)], 4, [about("attempts", 1)]) == 2
        given.append(one.numbers())
        three = fleet.join()
        assert two.rebuild([job(2, unique=b"2")], 4) == 1
        given.append(three.numbers())
        assert len({*given}) == 4
        assert len({id_of(store) for store in (one, two, three)}) == 3
        assert [(each.state, each.locked) for each in three.pulse().members] == [(LIVE, True)] * 3
        what = batch(job(4, unique=b"1"), removed=(2,))
        two.commit(what)
        assert what.twins == {4: 1}
        assert (numbers(one), numbers(two)) == ([1, 3], [])
        fleet.run_out(one)
        assert two.judge(1)
        assert is_fenced(lambda: one.rebuild([job(1)], 4))
        assert claimed(two, 1) == [1, 3]


class TestLostAnswer:
    """The database has done it, and the connection is lost before it says so."""

    @pytest.fixture
    def line(self, place: DatabasePlace) -> Iterator[Line]:
        with Line(place.service.port) as line:
            yield line

    @pytest.fixture
    def one(self, fleet: FleetPlace, line: Line) -> FleetStore:
        store = fleet_engine(re.sub(r":\d+/", f":{line.port}/", fleet.place.url))
        fleet.joined.append(store)
        store.open()
        store.join(FLEET, "a:1")
        return store

    def test_of_a_claim(self, fleet: FleetPlace, line: Line, one: FleetStore) -> None:
        two = fleet.join()
        two.commit(batch(*(job(n) for n in range(1, 11)), records=(about("dead", 2), about("result", 99))))
        two.leave()
        one.claim(0, 1, 1)  # the session is there
        line.lose_the_answer_to(b"COMMIT")
        claim = one.claim(2, 3, NO_LIMIT)
        assert line.has_lost
        assert [each.number for each in claim.jobs] == [1, 2, 3]
        assert len(claim.records) == 1
        assert claimed(one, 2) == list(range(4, 11))
        line.lose_the_answer_to(b"COMMIT")
        assert [each.kind for each in one.claim_records(2, 5)] == ["result"]
        assert one.bury(2)

    def test_of_a_commit(self, fleet: FleetPlace, line: Line, one: FleetStore) -> None:
        two = fleet.join()
        two.commit(batch(job(9, unique=b"taken")))
        one.commit(batch(job(5)))
        what = batch(job(1, unique=b"u"), job(2), job(3, unique=b"taken"), records=(about("attempts", 1),))
        what.moved = [(5, 2)]
        line.lose_the_answer_to(b"COMMIT")
        one.commit(what)
        assert line.has_lost
        assert (what.twins, what.moved) == ({3: 9}, [(5, 2)])
        assert fleet.owners() == {1: 1, 2: 1, 5: -2, 9: 2}


class Line:
    """A way to a service that may lose an answer: then both ends find it cut."""

    def __init__(self, port: int) -> None:
        self._service = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._words = b""
        self.has_lost = False

    def lose_the_answer_to(self, words: bytes) -> None:
        """The next answer to a message that has these words."""
        self.has_lost = False
        self._words = words

    def __enter__(self) -> Line:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                service = socket.create_connection(("127.0.0.1", self._service))
                threading.Thread(target=self._carry, args=(client, service), daemon=True).start()

    def _carry(self, client: socket.socket, service: socket.socket) -> None:
        """Whoever speaks is answered before it speaks again."""
        is_cut = threading.Event()
        threading.Thread(target=self._carry_back, args=(service, client, is_cut), daemon=True).start()
        with client, contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if self._words and self._words in data:
                    self._words = b""
                    self.has_lost = True
                    is_cut.set()
                service.sendall(data)
            service.shutdown(socket.SHUT_RDWR)

    def _carry_back(self, service: socket.socket, client: socket.socket, is_cut: threading.Event) -> None:
        with service, contextlib.suppress(OSError):
            while (data := service.recv(1 << 16)) and not is_cut.is_set():
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


def renew(store: FleetStore) -> None:
    store.pulse()


def judges(store: FleetStore, id: int) -> bool:
    try:
        return store.judge(id)
    except StoreDownError:
        return False
