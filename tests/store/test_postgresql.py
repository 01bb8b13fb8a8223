"""The store in PostgreSQL."""

from __future__ import annotations

from contextlib import suppress

import pytest
from databases import NewNamespace, PostgreSQLPlace
from place import NO_LIMIT, batch, job, numbers, opened
from sql_contract import DatabaseContract
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from geartrain.store import StoreError, StoreFullError, StoreInUseError, Unreadable, engine
from services import PostgreSQL


class TestPostgreSQL(DatabaseContract):
    @pytest.fixture
    def place(self, postgresql: PostgreSQL, new_namespace: NewNamespace) -> PostgreSQLPlace:
        return PostgreSQLPlace(postgresql, new_namespace)

    @pytest.mark.parametrize("change", ["due = 'NaN'", "due = 'Infinity'", "created = '-Infinity'", "created = 'NaN'"])
    def test_a_time_that_is_none_is_quarantined(self, place: PostgreSQLPlace, change: str) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), job(2)))
            place.sql(f"UPDATE {{jobs}} SET {change} WHERE number = 1")
            assert [each.number for each in store.load(NO_LIMIT) if isinstance(each, Unreadable)] == [1]
            assert numbers(store) == [2]

    def test_a_session_that_a_pooler_handed_on_takes_nothing_more(self, place: PostgreSQLPlace) -> None:
        """DISCARD ALL frees the lock, and nobody is told."""
        with opened(place.url) as store:
            store.commit(batch(job(1)))
            store._writer.use(lambda connection: connection.exec_driver_sql("DISCARD ALL"))  # type: ignore[attr-defined]
            store.commit(batch(job(2)))
            with opened(place.url) as second:
                for what in (batch(job(3)), batch(removed=(1,)), batch()):
                    with pytest.raises(StoreInUseError):
                        store.commit(what)
                second.commit(batch(job(4)))
            with pytest.raises(StoreInUseError):
                store.commit(batch(job(5)))
        with opened(place.url) as store:
            assert numbers(store) == [1, 2, 4]

    def test_a_session_that_ended_when_there_was_no_room_is_made_again(self, place: PostgreSQLPlace) -> None:
        """As when PostgreSQL can't extend its log: the whole server ends."""

        def fill(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")
            try:
                connection.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$")
            except DBAPIError:
                place.service.drop_connections()
                with suppress(DBAPIError):
                    connection.exec_driver_sql("ROLLBACK")
                raise

        with opened(place.url) as store:
            with pytest.raises(StoreFullError):
                store._writer.use(fill)  # type: ignore[attr-defined]
            store.commit(batch(job(1)))
            assert numbers(store) == [1]

    def test_a_database_that_does_not_exist_is_named(self, place: PostgreSQLPlace) -> None:
        with pytest.raises(StoreError, match=r"missing.*check the user, the password and the database") as refusal:
            engine(place.service.url(database="missing")).open()
        assert type(refusal.value) is StoreError

    def test_a_user_without_rights_is_told(self, place: PostgreSQLPlace) -> None:
        place.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "ALTER SCHEMA public OWNER TO postgres")
        try:
            with pytest.raises(StoreError, match=r"permission denied.*right to make"):
                engine(place.url).open()
        finally:
            place.sql("ALTER SCHEMA public OWNER TO pg_database_owner")
