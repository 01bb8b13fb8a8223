"""The store in MariaDB."""

from __future__ import annotations

import os

import pytest
from databases import MariaDBPlace, NewNamespace
from place import Place, batch, fields, insist, job, kept, opened
from sql_contract import DatabaseContract

from geartrain.store import JobTooLargeError, Store, StoreDownError, StoreFullError, StoreInUseError, engine
from geartrain.store.sql.mysql import ROOM_FOR_NAMES
from services import MariaDB, running


class TestMariaDB(DatabaseContract):
    @pytest.fixture
    def place(self, mariadb: MariaDB, new_namespace: NewNamespace) -> MariaDBPlace:
        return MariaDBPlace(mariadb, new_namespace)

    def test_capital_letters_do_not_make_another_place(self) -> None:
        """As on a server for Windows or macOS."""
        with running(MariaDB, "--lower-case-table-names=1") as service, opened(service.url()):
            second = engine(service.url(database="GEARTRAIN"))
            with pytest.raises(StoreInUseError):
                second.open()

    def test_a_full_store_says_so_and_goes_on_when_there_is_room(self, place: Place) -> None:
        """Where MariaDB can't undo a job for want of room, it stops. It is started again when there is room."""
        assert isinstance(place, MariaDBPlace)
        with place.cramped() as (url, make_room), opened(url) as store:
            acknowledged = []
            refused = batch()
            try:
                for number in range(1, 500):
                    refused = batch(job(number, os.urandom(65_536)))
                    store.commit(refused)
                    acknowledged += refused.added
            except (StoreFullError, StoreDownError):
                pass
            assert 10 < len(acknowledged) < 499
            make_room()
            if place.service.has_ended():
                place.revive()
            insist(store, refused)
            assert kept(store) == [fields(each) for each in [*acknowledged, *refused.added]]

    def test_a_batch_larger_than_a_packet_is_one_transaction_all_the_same(self, store: Store) -> None:
        some = [job(n, bytes([n]) * 1_500_000) for n in range(1, 7)]
        store.commit(batch(*some, removed=(3,)))
        assert kept(store) == [fields(each) for each in some if each.number != 3]

    def test_the_largest_workload_follows_the_servers_packet(self, place: MariaDBPlace) -> None:
        ((before,),) = place.sql("SELECT @@max_allowed_packet")
        place.sql("SET GLOBAL max_allowed_packet = 1048576")
        try:
            with opened(place.url) as store:
                assert store.abilities.max_workload == (1048576 - ROOM_FOR_NAMES) // 2
                with pytest.raises(JobTooLargeError, match="491520"):
                    store.commit(batch(job(1, b"x" * 500_000)))
                with pytest.raises(JobTooLargeError) as refusal:
                    store.commit(batch(job(2), job(3, b"x" * 400_000, function=b"f" * 150_000)))
                assert refusal.value.number == 3
                assert store.count() == 0
        finally:
            place.sql(f"SET GLOBAL max_allowed_packet = {before}")

    def test_a_server_that_is_out_of_connections_is_down(self, place: MariaDBPlace, store: Store) -> None:
        store.commit(batch(job(1)))
        place.sql("SET GLOBAL max_connections = 10")
        try:
            with place.all_connections(), pytest.raises(StoreDownError):
                engine(place.other_url).open()
            store.commit(batch(job(2)))
        finally:
            place.sql("SET GLOBAL max_connections = 151")
