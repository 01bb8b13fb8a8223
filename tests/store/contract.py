"""What every store must do, as tests: a test file per engine gives them a ``place`` and runs them on the real service.

class TestThisEngine(StoreContract):
    @pytest.fixture
    def place(self, this_service) -> Place: ...
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import campaign
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from place import (
    NO_LIMIT,
    SECONDS_TO_RECOVER,
    Fields,
    Place,
    batch,
    bytes_like,
    fields,
    insist,
    insist_on_reading,
    is_refused,
    job,
    kept,
    numbers,
    opened,
    records_of,
    until_rebuilt,
    until_up,
)

from geartrain.jobserver.records import POSITION_BITS, Batch, Change, Record, StoredJob
from geartrain.store import (
    JobTooLargeError,
    Store,
    StoreDownError,
    StoreError,
    StoreFullError,
    StoreInUseError,
    Unreadable,
    engine,
)
from geartrain.store.record import LAST_NUMBER, LATEST, NUMBERS_END
from servers import wait_until

SECONDS_TO_REFUSE = 15  # a store that can't be reached says so within this time

any_bytes = st.binary(max_size=300) | st.sampled_from(
    [b"", b"-", b"\0", b"\0\0\0", b"'", b"\\", b"\\'", b'"', b"%s", b"%%", b":name", b"\r\n", b"\xff\xfe", b"\xc3",
     b"NULL", b"\xf0\x9f\x9a\x82", bytes(range(256))]
)  # fmt: skip
times = st.floats(min_value=0, max_value=LATEST) | st.sampled_from([0.0, 5e-324, 0.1, LATEST])
large_number = st.integers(1, 2**63 - 1) | st.integers(2**53, 2**53 + 64) | st.integers(2**63 - 64, 2**63 - 1)
jobs = st.builds(
    job,
    number=st.integers(1, 5) | st.integers(1, LAST_NUMBER),
    position=st.integers(0, 5) | large_number,
    workload=any_bytes,
    function=any_bytes,
    unique=any_bytes,
    priority=st.integers(0, 2),
    due=times,
    reducer=any_bytes,
    attempts=st.integers(0, 2**31 - 1),
    created=times,
)
changes = st.tuples(st.integers(0, 5) | large_number, times, st.integers(0, 2), st.integers(0, 2**31 - 1))
names = st.tuples(st.sampled_from(["policy", "schedule", "dead_letter"]), any_bytes)
expiries = st.just(0.0) | st.floats(4e9, LATEST)
several_jobs = st.lists(jobs, max_size=12, unique_by=(lambda each: each.number, lambda each: each.position))


class StoreContract:
    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError("each engine's tests say where their place is")

    @pytest.fixture
    def store(self, place: Place) -> Iterator[Store]:
        with opened(place.url) as store:
            yield store

    # What is kept

    def test_a_new_position_is_empty(self, store: Store) -> None:
        assert kept(store) == []
        assert store.count() == 0
        assert store.next_number() == 1

    def test_every_field_comes_back_as_it_was(self, store: Store) -> None:
        @settings(max_examples=25)
        @given(several_jobs)
        def comes_back(some: list[StoredJob]) -> None:
            store.commit(batch(*some))
            expected = [fields(each) for each in sorted(some, key=lambda each: each.position)]
            found = kept(store)
            read = {each.number: store.read(each.number) for each in some}
            store.commit(batch(removed=tuple(each.number for each in some)))
            assert found == expected
            assert [list(map(type, each)) for each in found] == [list(map(type, each)) for each in expected]
            assert read == {each.number: each.workload for each in some}
            assert kept(store) == []

        comes_back()

    def test_long_names_come_back_whole(self, store: Store) -> None:
        long = job(1, b"", function=bytes_like(8190), unique=bytes_like(8000), reducer=bytes_like(4096))
        store.commit(batch(long))
        assert kept(store) == [fields(long)]

    def test_workloads_of_many_sizes_come_back_whole(self, store: Store) -> None:
        sizes = [0, 1, 255, 256, 4095, 65535, 65536, 300_000, 1_000_000]
        some = [job(n, bytes_like(size)) for n, size in enumerate(sizes, 1)]
        store.commit(batch(*some))
        assert kept(store) == [fields(each) for each in some]
        assert [store.read(each.number) for each in some] == [each.workload for each in some]

    def test_jobs_that_share_everything_but_their_number_are_all_kept(self, store: Store) -> None:
        some = [job(n, b"same", unique=unique) for n, unique in enumerate([b"", b"", b"-", b"-", b"u", b"u"], 1)]
        store.commit(batch(*some))
        assert kept(store) == [fields(each) for each in some]

    def test_it_is_all_there_after_closing_and_opening(self, place: Place) -> None:
        some = [job(n, b"%d" % n, function=b"f%d" % (n % 3)) for n in range(1, 10)]
        with opened(place.url) as store:
            store.commit(batch(*some, next_number=100))
            store.commit(batch(removed=(4,), moved=((1, 50 << POSITION_BITS, 2),)))
            expected = kept(store)
        with opened(place.url) as store:
            assert kept(store) == expected
            assert [each[0] for each in expected] == [2, 3, 5, 6, 7, 8, 9, 1]
            assert store.next_number() == 100
            store.commit(batch(removed=(1, 2, 3)))
            assert numbers(store) == [5, 6, 7, 8, 9]

    def test_twenty_thousand_jobs(self, store: Store) -> None:
        for first in range(1, 20_001, 1000):
            store.commit(batch(*[job(n, b"%d" % n) for n in range(first, first + 1000)], next_number=first + 1000))
        assert store.count() == 20_000
        assert [(each[0], each[4]) for each in kept(store)] == [(n, b"%d" % n) for n in range(1, 20_001)]
        odd = list(range(1, 20_001, 2))
        random.Random(1).shuffle(odd)
        store.commit(batch(removed=tuple(odd)))
        store.commit(batch(removed=tuple(range(2, 10_001))))
        assert store.count() == 5000
        assert numbers(store) == list(range(10_002, 20_001, 2))

    def test_batches_of_many_sizes_are_kept_whole(self, store: Store) -> None:
        first = 1
        for size in (*range(1, 20), 31, 63, 127, 255, 256, 257, 511, 512, 513, 1023):
            store.commit(batch(*[job(n, b"%d" % n) for n in range(first, first + size)]))
            first += size
        assert [(each[0], each[4]) for each in kept(store)] == [(n, b"%d" % n) for n in range(1, first)]

    # The order

    def test_jobs_come_in_the_order_of_their_places(self, store: Store) -> None:
        positions = list(range(500))
        random.Random(2).shuffle(positions)
        store.commit(batch(*[job(n, position=position) for n, position in enumerate(positions, 1)]))
        assert [each[1] for each in kept(store)] == list(range(500))

    def test_places_that_differ_in_the_last_bit_are_told_apart(self, store: Store) -> None:
        top = 2**63 - 1
        store.commit(batch(*[job(n, position=top - n) for n in range(1, 100)], job(100, position=2**53 + 1)))
        store.commit(batch(job(101, position=2**53)))
        assert numbers(store) == [101, 100, *range(99, 0, -1)]

    def test_a_moved_job_is_found_at_its_new_position(self, store: Store) -> None:
        first, second, third = job(1, b"one", unique=b"u"), job(2), job(3)
        store.commit(batch(first, second, third))
        store.commit(batch(moved=((1, (3 << POSITION_BITS) + 1, 7), (2, (3 << POSITION_BITS) + 2, 1))))
        found = kept(store)
        assert [(each[0], each[9]) for each in found] == [(3, 0), (1, 7), (2, 1)]
        first.position, first.attempts = (3 << POSITION_BITS) + 1, 7
        assert found[1] == fields(first)
        store.commit(batch(moved=((1, 1 << POSITION_BITS, 8),)))
        assert numbers(store) == [1, 3, 2]

    def test_many_jobs_move_at_once(self, store: Store) -> None:
        store.commit(batch(*[job(n) for n in range(1, 601)]))
        store.commit(batch(moved=tuple((n, (600 << POSITION_BITS) + 1000 - n, n) for n in range(1, 501))))
        assert [(each[0], each[9]) for each in kept(store)] == [
            *((n, 0) for n in range(501, 601)),
            *((n, n) for n in range(500, 0, -1)),
        ]

    def test_a_change_brings_all_that_may_change(self, store: Store) -> None:
        @settings(max_examples=25)
        @given(jobs, st.lists(changes, min_size=1, max_size=3))
        def comes_back(one: StoredJob, some: list[tuple[int, float, int, int]]) -> None:
            store.commit(batch(one))
            for position, due, priority, attempts in some:
                store.commit(batch(changed=(Change(one.number, position, due, priority, attempts),)))
            one.position, one.due, one.priority, one.attempts = some[-1]
            found = kept(store)
            store.commit(batch(removed=(one.number,)))
            assert found == [fields(one)]

        comes_back()

    def test_a_change_is_there_after_closing_and_opening(self, place: Place) -> None:
        one = job(1, b"w" * 20_000)
        with opened(place.url) as store:
            store.commit(batch(one, job(2)))
            store.commit(batch(changed=(Change(1, 7, 1.8e9, 2, 3),)))
        one.position, one.due, one.priority, one.attempts = 7, 1.8e9, 2, 3
        with opened(place.url) as store:
            assert kept(store) == [fields(one), fields(job(2))]

    # Records

    def test_a_record_comes_back_as_it_was(self, store: Store) -> None:
        @settings(max_examples=25)
        @given(st.dictionaries(names, st.tuples(any_bytes, expiries), max_size=8))
        def comes_back(some: dict[tuple[str, bytes], tuple[bytes, float]]) -> None:
            store.commit(batch(records=tuple(Record(*name, *what) for name, what in some.items())))
            found = records_of(store)
            of_a_kind = records_of(store, "policy")
            store.commit(batch(records=tuple(Record(*name, None) for name in some)))
            assert found == some
            assert of_a_kind == {name: what for name, what in some.items() if name[0] == "policy"}
            assert records_of(store) == {}

        comes_back()

    def test_records_are_there_after_closing_and_opening(self, place: Place) -> None:
        many = tuple(Record("result", b"%d" % n, b"r" * n, 4e9 + n) for n in range(1200))
        with opened(place.url) as store:
            store.commit(batch(job(1), records=(Record("policy", b"f", b"one"), *many)))
            store.commit(batch(removed=(1,), records=(Record("result", b"7", None), Record("result", b"8", b"other"))))
        expected = {("result", each.key): (each.value, each.expires) for each in many if each.key != b"7"}
        expected["result", b"8"] = (b"other", 0.0)
        for _ in range(2):
            with opened(place.url) as store:
                assert kept(store) == []
                assert records_of(store, "policy") == {("policy", b"f"): (b"one", 0.0)}
                assert records_of(store, "result") == expected

    def test_the_last_record_of_a_name_counts(self, store: Store) -> None:
        store.commit(batch(records=(Record("a", b"k", b"1"), Record("a", b"k", b"2", 4e9), Record("b", b"k", b"3"))))
        assert records_of(store) == {("a", b"k"): (b"2", 4e9), ("b", b"k"): (b"3", 0.0)}
        again = batch(records=(Record("a", b"k", None), Record("a", b"k", b"4"), Record("b", b"k", None)))
        for _ in range(2):
            store.commit(again)
            assert records_of(store) == {("a", b"k"): (b"4", 0.0)}
        store.commit(batch(records=(Record("a", b"nobody", None),)))
        assert records_of(store) == {("a", b"k"): (b"4", 0.0)}

    def test_what_has_expired_is_not_given_out_and_goes(self, place: Place) -> None:
        past, soon, later = 1.7e9, time.time() + 1, 4e9
        some = tuple(
            Record("x", name, name, when) for name, when in ((b"past", past), (b"soon", soon), (b"later", later))
        )
        with opened(place.url) as store:
            store.commit(batch(records=some))
            assert (("x", b"past") in records_of(store)) is False
            wait_until(lambda: len(records_of(store)) == 1, "it expires")
        with opened(place.url) as store:
            assert records_of(store) == {("x", b"later"): (b"later", later)}
            assert place.records_kept(store) == 1

    def test_a_long_name_and_a_large_value(self, store: Store) -> None:
        large = Record("dead_letter", bytes_like(8000), bytes_like(300_000))
        store.commit(batch(records=(large,)))
        assert records_of(store) == {("dead_letter", bytes_like(8000)): (bytes_like(300_000), 0.0)}

    # One batch

    def test_a_batch_adds_then_moves_then_removes(self, store: Store) -> None:
        store.commit(batch(job(1), job(2)))
        store.commit(
            batch(job(3), job(4), job(5), moved=((3, 0, 1), (4, 9 << POSITION_BITS, 2), (1, 8 << POSITION_BITS, 3)),
                  removed=(4, 2))
        )  # fmt: skip
        assert [(each[0], each[9]) for each in kept(store)] == [(3, 1), (5, 0), (1, 3)]
        assert store.count() == 3

    def test_the_same_batch_again_changes_nothing(self, store: Store) -> None:
        store.commit(batch(job(1), job(2), job(3)))
        again = batch(
            job(4, b"x" * 5000), job(5), job(6), moved=((1, 99 << POSITION_BITS, 1), (5, 0, 2)), removed=(2, 6),
            next_number=7,
        )  # fmt: skip
        store.commit(again)
        expected = kept(store)
        for _ in range(3):
            store.commit(again)
            assert kept(store) == expected
            assert store.count() == 4
        assert store.next_number() == 7

    def test_a_batch_that_is_there_in_part_is_completed(self, store: Store) -> None:
        store.commit(batch(job(2, b"two"), job(4, b"four")))
        store.commit(batch(*[job(n, b"%d" % n) for n in (1, 3, 5)], job(2, b"two"), job(4, b"four")))
        assert [(each[0], each[4]) for each in kept(store)] == [(1, b"1"), (2, b"two"), (3, b"3"), (4, b"four"),
                                                                 (5, b"5")]  # fmt: skip

    def test_a_batch_may_be_taken_back(self, store: Store) -> None:
        store.commit(batch(job(1)))
        store.commit(batch(job(2), job(3)))
        store.commit(batch(removed=(2, 3)))
        store.commit(batch(removed=(2, 3)))
        assert numbers(store) == [1]

    def test_numbers_nobody_knows_are_no_error(self, store: Store) -> None:
        store.commit(batch(removed=(1, 77, 2**63 - 1), moved=((5, 5, 5), (2**63 - 1, 1, 1))))
        assert kept(store) == []
        store.commit(batch(job(1), job(2)))
        store.commit(batch(removed=(3, 4, 2, 2), moved=((3, 1, 1),)))
        assert numbers(store) == [1]

    def test_an_empty_batch_is_no_error(self, store: Store) -> None:
        store.commit(batch(job(1)))
        store.commit(batch())
        assert numbers(store) == [1]

    def test_the_next_number_never_goes_back(self, place: Place) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), next_number=100_001))
            assert store.next_number() == 100_001
            store.commit(batch(job(2), next_number=3))
            assert store.next_number() == 100_001
            store.commit(batch(next_number=NUMBERS_END))
            store.commit(batch(removed=(1, 2)))
        with opened(place.url) as store:
            assert store.next_number() == NUMBERS_END
            store.commit(batch(next_number=5))
            assert store.next_number() == NUMBERS_END

    # Large workloads

    def test_large_workloads_may_be_left_in_the_store(self, store: Store) -> None:
        store.commit(batch(job(1, b"x" * 1001), job(2, b"y" * 1000), job(3, b""), job(4, b"z" * 70_000)))
        found = {each[0]: (each[4], each[5]) for each in kept(store, leave_above=1000)}
        assert found == {1: (None, 1001), 2: (b"y" * 1000, 1000), 3: (b"", 0), 4: (None, 70_000)}
        assert store.read(1) == b"x" * 1001
        assert store.read(4) == b"z" * 70_000
        assert {each[0]: each[4] for each in kept(store, leave_above=0)} == {1: None, 2: None, 3: b"", 4: None}

    def test_what_is_left_may_be_read_while_the_others_are_loaded(self, store: Store) -> None:
        store.commit(batch(*[job(n, bytes_like(10_000 + n)) for n in range(1, 1201)]))
        for found in store.load(leave_above=10_600):
            assert isinstance(found, StoredJob)
            assert (found.workload is None) == (found.number > 600)
            if found.workload is None or found.number % 100 == 0:
                assert store.read(found.number) == bytes_like(10_000 + found.number)

    def test_a_workload_that_is_also_the_unique_is_never_left(self, store: Store) -> None:
        store.commit(batch(job(1, b"x" * 5000, unique=b"-"), job(2, b"x" * 5000, unique=b"--")))
        assert [each[4] for each in kept(store, leave_above=100)] == [b"x" * 5000, None]

    def test_reading_what_is_not_there(self, store: Store) -> None:
        store.commit(batch(job(1, b"here"), job(2, b"gone")))
        store.commit(batch(removed=(2,)))
        for number in (2, 3, 2**63 - 1):
            with pytest.raises(KeyError):
                store.read(number)
        assert store.read(1) == b"here"

    def test_one_thread_reads_while_another_commits(self, store: Store) -> None:
        store.commit(batch(*[job(n, b"%d" % n * 1000) for n in range(1, 21)]))
        failures: list[BaseException] = []
        done = threading.Event()

        def read() -> None:
            try:
                for n in itertools.cycle(range(1, 21)):
                    assert store.read(n) == b"%d" % n * 1000
                    if done.is_set():
                        return
            except BaseException as failure:
                failures.append(failure)

        reader = threading.Thread(target=read)
        reader.start()
        for first in range(100, 3100, 100):
            store.commit(batch(*[job(n, b"w" * 500) for n in range(first, first + 50)]))
            store.commit(batch(removed=tuple(range(first, first + 50))))
        done.set()
        reader.join(30)
        assert not failures
        assert store.count() == 20

    # What can't be kept or read

    def test_the_largest_workload_is_kept_and_one_byte_more_is_refused(self, store: Store) -> None:
        limit = store.abilities.max_workload
        if not 0 < limit <= 64 << 20:
            limit = 5 << 20
            store.commit(batch(job(1, b"\xff" * limit)))
            assert store.read(1) == b"\xff" * limit
            return
        store.commit(batch(job(1, b"\xff" * limit), job(2), job(3, b"'" * limit)))
        assert store.read(1) == b"\xff" * limit
        assert store.read(3) == b"'" * limit
        with pytest.raises(JobTooLargeError) as refusal:
            store.commit(batch(job(4), job(5, b"\0" * (limit + 1)), job(6), removed=(1,)))
        assert refusal.value.number == 5
        assert str(limit) in str(refusal.value)
        assert numbers(store) == [1, 2, 3]
        store.commit(batch(job(4), job(6)))
        assert numbers(store) == [1, 2, 3, 4, 6]

    def test_a_job_may_be_quarantined(self, place: Place) -> None:
        with opened(place.url) as store:
            store.commit(batch(*[job(n, b"%d" % n) for n in range(1, 6)]))
            store.quarantine(3, "looked odd")
            store.quarantine(3, "and again")
            store.quarantine(99, "was never there")
            assert numbers(store) == [1, 2, 4, 5]
            assert store.count() == 4
            with pytest.raises(KeyError):
                store.read(3)
            store.commit(batch(removed=(3, 4), moved=((3, 1, 1),)))
            assert list(store.quarantined()) == [Unreadable(3, "looked odd")]
        with opened(place.url) as store:
            assert numbers(store) == [1, 2, 5]
            assert list(store.quarantined()) == [Unreadable(3, "looked odd")]
            store.quarantine(1, "looks odd as well, and its reason is a line\nand another")
            assert {each.number: each.reason.partition("\n")[0] for each in store.quarantined()} == {
                3: "looked odd",
                1: "looks odd as well, and its reason is a line",
            }

    def test_a_job_that_cannot_be_read_stops_nothing(self, place: Place) -> None:
        with opened(place.url) as store:
            store.commit(batch(*[job(n, b"%d" % n) for n in range(1, 301)], next_number=301))
        spoilt = (1, 2, 150, 300)
        for number in spoilt:
            place.spoil(number)
        with opened(place.url) as store:
            found = list(store.load(NO_LIMIT))
            unreadable = [each for each in found if isinstance(each, Unreadable)]
            assert sorted(each.number for each in unreadable) == list(spoilt)
            assert all(each.reason for each in unreadable)
            healthy = [n for n in range(1, 301) if n not in spoilt]
            aside = {each.number: each.reason for each in store.quarantined()}
            assert aside == {each.number: each.reason for each in unreadable}
            assert [each.number for each in found if isinstance(each, StoredJob)] == healthy
            assert numbers(store) == healthy
            assert store.count() == len(healthy)
            store.commit(batch(job(301), removed=(1, 3)))
        with opened(place.url) as store:
            assert numbers(store) == [n for n in [*healthy, 301] if n != 3]
            assert store.next_number() == 301

    # Who uses it

    def test_namespaces_know_nothing_of_each_other(self, place: Place) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1, b"mine"), job(2), next_number=50))
        with opened(place.other_url) as other:
            assert kept(other) == []
            assert other.next_number() == 1
            other.commit(batch(job(2, b"theirs"), removed=(1,), next_number=9))
        with opened(place.url) as store:
            assert [(each[0], each[4]) for each in kept(store)] == [(1, b"mine"), (2, b"")]
            assert store.next_number() == 50
        with opened(place.other_url) as other:
            assert [(each[0], each[4]) for each in kept(other)] == [(2, b"theirs")]

    def test_a_second_user_is_refused(self, place: Place, store: Store) -> None:
        store.commit(batch(job(1)))
        second = engine(place.url)
        with place.impatient(), pytest.raises(StoreInUseError) as refusal:
            second.open()
        second.close()
        self._shows_no_secret(place, str(refusal.value))
        store.commit(batch(job(2)))
        assert numbers(store) == [1, 2]
        store.close()
        with opened(place.url) as second:
            assert numbers(second) == [1, 2]

    def test_a_user_that_was_killed_is_no_hindrance(self, place: Place) -> None:
        with self._committing(place, 1) as user:
            self._acknowledged(user, at_least=1)
            user.kill()
            user.wait()
            with opened(place.url) as store:
                assert store.count() > 0

    def test_it_is_held_under_every_name(self, place: Place, store: Store) -> None:
        store.commit(batch(job(1)))
        for url in place.aliases():
            second = engine(url)
            with place.impatient(), pytest.raises(StoreInUseError):
                second.open()
            second.close()
        store.commit(batch(job(2)))
        assert numbers(store) == [1, 2]

    def test_a_hold_that_another_one_has_taken_takes_nothing_more(self, place: Place) -> None:
        store = engine(place.url)
        store.open()
        store.commit(batch(job(1), records=(Record("a", b"k", b"kept"),), next_number=2))
        place.steal()
        for what in (
            batch(job(2)),
            batch(),
            batch(removed=(1,)),
            batch(moved=((1, 5, 5),)),
            batch(next_number=50),
            batch(records=(Record("a", b"k", None),)),
        ):
            for _ in range(2):
                with pytest.raises(StoreInUseError):
                    store.commit(what)
        with pytest.raises(StoreError):
            store.rebuild([job(1), job(2)], 3)
        store.close()
        with opened(place.url) as store:
            assert [(each[0], each[9]) for each in kept(store)] == [(1, 0)]
            assert store.next_number() == 2
            assert records_of(store) == {("a", b"k"): (b"kept", 0.0)}

    def test_an_emptied_place_takes_nothing_more_until_it_is_told(self, place: Place) -> None:
        known = [job(1, b"one"), job(2, b"large" * 5000)]
        with opened(place.url) as store:
            store.commit(batch(*known, next_number=7))
            place.empty()
            wait_until(lambda: is_refused(store, batch(job(3)), "send SIGHUP"), "it is noticed", SECONDS_TO_RECOVER)
            assert is_refused(store, batch(), "send SIGHUP")
            assert until_rebuilt(store, known, 7) == 2
            insist(store, batch(job(4, b"four")))
            assert [(each[0], each[4]) for each in kept(store)] == [(1, b"one"), (2, b"large" * 5000), (4, b"four")]
            assert store.read(2) == b"large" * 5000
            with place.impatient(), pytest.raises(StoreInUseError):
                engine(place.url).open()
        with opened(place.url) as store:
            assert [(each[0], each[4]) for each in kept(store)] == [(1, b"one"), (2, b"large" * 5000), (4, b"four")]
            assert store.next_number() == 7

    # Crashes

    def test_a_killed_user_leaves_each_batch_whole_or_not_at_all(self, place: Place) -> None:
        moment = random.Random(4)
        first = 1
        for _ in range(4):
            with self._committing(place, first) as user:
                self._acknowledged(user, at_least=first + moment.randrange(3, 25))
                user.kill()
                acknowledged = self._acknowledged(user)
            with opened(place.url) as store:
                found = kept(store)
                candidates = {i: [fields(each) for each in campaign.after(i)] for i in (acknowledged, acknowledged + 1)}
                assert found in candidates.values(), f"{len(found)} jobs after {acknowledged} acknowledged batches"
                first = next(i for i, expected in candidates.items() if found == expected) + 1
                assert store.next_number() == first * campaign.STEP

    def test_a_service_that_dies_and_comes_back_loses_nothing(self, place: Place, store: Store) -> None:
        committed = 0
        enough = threading.Event()
        failures: list[BaseException] = []

        def commit() -> None:
            nonlocal committed
            try:
                while not enough.is_set():
                    insist(store, campaign.batch(committed + 1))
                    committed += 1
            except BaseException as failure:
                failures.append(failure)

        def commits_come() -> None:
            wanted = committed + 15
            wait_until(lambda: committed >= wanted or bool(failures), "commits", SECONDS_TO_RECOVER)

        writer = threading.Thread(target=commit)
        writer.start()
        try:
            for _ in range(2):
                commits_come()
                place.crash()
                place.revive()
            commits_come()
        finally:
            enough.set()
            writer.join(SECONDS_TO_RECOVER + 10)
        assert not failures
        expected = [fields(each) for each in campaign.after(committed)]
        assert kept(store) == expected
        store.close()
        with opened(place.url) as store:
            assert kept(store) == expected
            assert store.next_number() == (committed + 1) * campaign.STEP

    # Connections

    def test_a_cut_connection_comes_back(self, place: Place, store: Store) -> None:
        store.commit(batch(job(1, b"one"), next_number=2))
        assert store.read(1) == b"one"
        for number in (2, 3, 4):
            place.cut()
            insist(store, batch(job(number, b"%d" % number), next_number=number + 1))
            place.cut()
            assert insist_on_reading(store, number) == b"%d" % number
        place.cut()
        until_up(lambda: store.quarantine(4, "after a cut"), "it is quarantined")
        assert numbers(store) == [1, 2, 3]
        assert store.next_number() == 5

    def test_a_load_that_is_cut_is_not_taken_for_the_end(self, place: Place, store: Store) -> None:
        for first in range(1, 20_001, 2000):
            store.commit(batch(*[job(n, b"x" * 500) for n in range(first, first + 2000)]))
        load = store.load(NO_LIMIT)
        found = [next(load)]
        place.cut()
        try:
            found.extend(load)
        except StoreDownError:
            pass
        else:
            assert len(found) == 20_000
        assert len(numbers(store)) == 20_000

    def test_while_the_service_is_down_it_says_so(self, place: Place, store: Store) -> None:
        store.commit(batch(job(1, b"one")))
        place.crash()
        try:
            for act in (lambda: store.commit(batch(job(2))), lambda: store.read(1)):
                with self._in_time(), contextlib.suppress(StoreDownError):  # a cluster may survive it
                    act()
        finally:
            place.revive()
        insist(store, batch(job(2)))
        assert insist_on_reading(store, 1) == b"one"
        assert numbers(store) == [1, 2]

    def test_a_service_that_is_not_there_is_named(self, place: Place) -> None:
        url = place.nowhere()
        store = engine(url)
        with self._in_time(), pytest.raises(StoreDownError) as refusal:
            store.open()
        store.close()
        assert "127.0.0.1" in str(refusal.value)
        self._shows_no_secret(place, str(refusal.value))

    # Room

    def test_a_full_store_says_so_and_goes_on_when_there_is_room(self, place: Place) -> None:
        with place.cramped() as (url, make_room), opened(url) as store:
            acknowledged: list[Fields] = []
            refused = None
            for first in range(1, 500, 5):
                tried = batch(*[job(n, os.urandom(65_536)) for n in range(first, first + 5)], next_number=first + 5)
                try:
                    store.commit(tried)
                except StoreFullError as full:
                    refused = tried
                    self._shows_no_secret(place, str(full))
                    break
                acknowledged.extend(fields(each) for each in tried.added)
            assert refused is not None, "it was never full"
            more = [
                batch(*[job(n, os.urandom(65_536)) for n in range(number, number + 10)])
                for number in range(1000, 1600, 10)
            ]
            with pytest.raises(StoreFullError):
                self._commit_all(store, more)
            for known in acknowledged:
                assert store.read(known[0]) == known[4]  # type: ignore[arg-type]
            with contextlib.suppress(StoreFullError):
                store.commit(batch(removed=(1,)))
            make_room()
            insist(store, refused)
            insist(store, batch(removed=(1, *range(1000, 1600))))
            assert kept(store) == [*acknowledged[1:], *(fields(each) for each in refused.added)]

    # What it says

    def test_no_text_shows_the_password(self, place: Place, store: Store) -> None:
        self._shows_no_secret(place, repr(store))
        wrong = engine(place.wrong_password())
        self._shows_no_secret(place, repr(wrong))
        with self._in_time(), pytest.raises(StoreError) as refusal:
            wrong.open()
        wrong.close()
        assert "guessed" not in str(refusal.value), "even a wrong password is a secret"
        self._shows_no_secret(place, str(refusal.value))

    def test_it_describes_itself(self, place: Place, store: Store) -> None:
        abilities = store.abilities
        assert abilities.name
        assert abilities.survives
        assert abilities.durable  # or it would not be here: what does not keep jobs has no contract
        assert abilities.max_workload >= 0

    def test_closing_twice_or_unopened_is_no_error(self, place: Place) -> None:
        engine(place.url).close()
        store = engine(place.url)
        store.open()
        store.close()
        store.close()

    # Parts

    @staticmethod
    def _commit_all(store: Store, batches: list[Batch]) -> None:
        for each in batches:
            store.commit(each)

    @contextlib.contextmanager
    def _committing(self, place: Place, first: int) -> Iterator[subprocess.Popen[bytes]]:
        """A process that commits the campaign's batches from the ``first``-th on until it is killed."""
        command = [sys.executable, str(Path(campaign.__file__)), place.url, str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    @staticmethod
    def _acknowledged(user: subprocess.Popen[bytes], at_least: int = sys.maxsize) -> int:
        """The last batch that ``user`` said was kept, once it is ``at_least`` that one, or the user is gone."""
        assert user.stdout is not None
        last = getattr(user, "last_acknowledged", 0)
        while last < at_least and (line := user.stdout.readline()):
            last = int(line)
        user.last_acknowledged = last  # type: ignore[attr-defined]
        assert at_least == sys.maxsize or last >= at_least, "the process ended by itself"
        return last

    @staticmethod
    def _shows_no_secret(place: Place, text: str) -> None:
        for secret in place.secrets:
            assert secret not in text

    @staticmethod
    @contextlib.contextmanager
    def _in_time() -> Iterator[None]:
        """The body must not take longer than a refusal may."""
        before = time.monotonic()
        yield
        assert time.monotonic() - before < SECONDS_TO_REFUSE
