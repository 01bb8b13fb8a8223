"""What is asked of stores in relational databases beyond the contract."""

from __future__ import annotations

import pytest
from contract import StoreContract
from databases import DatabasePlace, SqlitePlace, SqlPlace
from place import NO_LIMIT, batch, is_refused, job, kept, numbers, opened, records_of
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from geartrain.jobserver.records import Record
from geartrain.store import Store, StoreDownError, StoreError, StoreFullError, StoreInUseError, Unreadable, engine
from geartrain.store.sql import mysql, postgresql, tables


class SqlContract(StoreContract):
    """The contract, and what else is asked of relational databases."""

    # What can't be read

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ("priority = 3", "priority 3"),
            ("priority = -1", "priority -1"),
            ("place = -1", "position -1"),
            ("size = 6", "5 bytes, where 6"),
            ("size = -5", "5 bytes, where -5"),
            ("attempts = -1", "attempts -1"),
            ("due = -0.5", "due -0.5"),
            ("created = -1e300", "created -1e+300"),
            ("number = -7", "number -7"),
            ("function = NULL", "function is None"),
            ('"unique" = NULL', "unique is None"),
            ("workload = NULL", "workload is None"),
            ("reducer = NULL", "reducer is None"),
            ("due = NULL", "due is None"),
            ("place = NULL", "position is None"),
            ("attempts = NULL", "attempts is None"),
        ],
    )
    def test_a_row_that_makes_no_sense_is_quarantined_as_it_is(self, place: SqlPlace, change: str, reason: str) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), job(2, b"other", function=b"f\xff", unique=b"u"), job(3)))
        column = change.partition(" ")[0]
        if "NULL" in change:
            place.allow_null(column)
        place.sql(f"UPDATE {{jobs}} SET {change} WHERE number = 2")
        with opened(place.url) as store:
            (unreadable,) = (each for each in store.load(NO_LIMIT) if isinstance(each, Unreadable))
            assert unreadable.number == (-7 if column == "number" else 2)
            assert reason in unreadable.reason
            assert numbers(store) == [1, 3]
        ((number, function, workload, said),) = place.sql(
            "SELECT number, function, workload, reason FROM {set_aside} WHERE number IN (2, -7)"
        )
        assert number == unreadable.number
        assert said == unreadable.reason
        assert column == "function" or function == b"f\xff"
        assert column == "workload" or workload == b"other"

    def test_a_workload_left_in_the_store_is_checked_when_it_is_read(self, place: SqlPlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1, b"x" * 100)))
            assert kept(store, leave_above=10)[0][4] is None
            place.sql("UPDATE {jobs} SET size = 99 WHERE number = 1")
            with pytest.raises(KeyError):
                store.read(1)

    @pytest.mark.parametrize("number", [2**63 - 1, 0, -5])
    def test_a_next_number_that_makes_no_sense_follows_from_the_jobs(self, place: SqlPlace, number: int) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(7), next_number=8))
        place.sql(f"UPDATE {{meta}} SET next_number = {number}")
        with opened(place.url) as store:
            assert store.next_number() == 1
            store.commit(batch(job(8), next_number=9))
        with opened(place.url) as store:
            assert store.next_number() == 9

    # What is taken away

    @pytest.mark.parametrize("how", ["DELETE FROM {jobs}", "TRUNCATE TABLE {jobs}", "DELETE FROM {meta}"])
    def test_a_table_that_was_emptied_is_noticed(self, place: SqlPlace, how: str) -> None:
        if "TRUNCATE" in how and isinstance(place, SqlitePlace):
            pytest.skip("SQLite knows no TRUNCATE")
        known = [job(1, b"one"), job(2, b"two")]
        with opened(place.url) as store:
            store.commit(batch(*known, next_number=3))
            place.sql(how)
            for what in (batch(job(3)), batch(removed=(1,)), batch(), batch(moved=((1, 5, 5),))):
                assert is_refused(store, what, "was emptied")
            with pytest.raises(StoreError, match=f"the table {place.namespace}_(jobs|meta) was emptied.*send SIGHUP"):
                store.commit(batch(job(3)))
            place.make_way()
            assert store.rebuild(known, 3) == 2
            store.commit(batch(job(3)))
            assert numbers(store) == [1, 2, 3]
        with opened(place.url) as store:
            assert numbers(store) == [1, 2, 3]
            assert store.next_number() == 3

    def test_an_emptied_table_is_noticed_also_after_jobs_have_gone(self, place: SqlPlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), job(2), job(3)))
            store.commit(batch(removed=(3,)))
            store.quarantine(2, "looked odd")
            place.sql("DELETE FROM {jobs}")
            assert is_refused(store, batch(job(4)), "was emptied")
        with opened(place.url) as store:
            store.commit(batch(job(5), removed=(5,)))
            store.commit(batch(job(6)))
            assert numbers(store) == [6]
            store.commit(batch(removed=(6,)))
            place.sql("DELETE FROM {jobs}")  # of which there are none
            store.commit(batch(job(7)))
        with opened(place.url) as store:
            place.sql("DELETE FROM {jobs}")
            assert is_refused(store, batch(job(8)), "was emptied")

    def test_an_emptied_table_that_is_put_back_is_used_again(self, place: SqlPlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1)))
            place.sql("CREATE TABLE {jobs}_copy AS SELECT * FROM {jobs}", "DELETE FROM {jobs}")
            assert is_refused(store, batch(job(2)), "was emptied")
            place.sql("INSERT INTO {jobs} SELECT * FROM {jobs}_copy", "DROP TABLE {jobs}_copy")
            store.commit(batch(job(2)))
            assert numbers(store) == [1, 2]

    def test_a_table_may_be_empty_at_the_start(self, place: SqlPlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), next_number=2))
        place.sql("DELETE FROM {jobs}")
        with opened(place.url) as store:
            assert store.count() == 0
            store.commit(batch(job(2)))
            assert store.count() == 1
            assert numbers(store) == [2]

    def test_several_rows_of_the_meta_table(self, place: SqlPlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), next_number=2))
        place.sql("INSERT INTO {meta} VALUES (0, 99, 99, 'another'), (2, 77, 77, 'a third')")
        with opened(place.url) as store:
            assert store.next_number() == 2
            store.commit(batch(job(2), next_number=3))
            assert numbers(store) == [1, 2]
            assert store.next_number() == 3

    # Versions

    def test_tables_of_the_first_version_are_brought_up(self, place: SqlPlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), next_number=3))
        place.sql("DROP TABLE {records}", "UPDATE {meta} SET version = 1")
        with opened(place.url) as store:
            assert numbers(store) == [1]
            store.commit(batch(records=(Record("a", b"k", b"v"),)))
        with opened(place.url) as store:
            assert records_of(store) == {("a", b"k"): (b"v", 0.0)}
            assert store.next_number() == 3

    def test_tables_of_an_older_version_are_brought_up(self, place: SqlPlace, monkeypatch: pytest.MonkeyPatch) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), job(2), next_number=3))
            before = kept(store)

        def add_a_column(connection: Connection, here: tables.Tables) -> None:
            connection.exec_driver_sql(f"ALTER TABLE {here.jobs.name} ADD COLUMN colour INTEGER")

        def fill_it(connection: Connection, here: tables.Tables) -> None:
            connection.exec_driver_sql(f"UPDATE {here.jobs.name} SET colour = number * 10")

        monkeypatch.setattr(tables, "VERSION", tables.VERSION + 2)
        monkeypatch.setitem(tables.MIGRATIONS, tables.VERSION - 2, add_a_column)
        monkeypatch.setitem(tables.MIGRATIONS, tables.VERSION - 1, fill_it)
        for _ in range(2):
            with opened(place.url) as store:
                assert kept(store) == before
                assert store.next_number() == 3
            assert place.sql("SELECT number, colour FROM {jobs} ORDER BY number")[:2] == [(1, 10), (2, 20)]
            assert place.sql("SELECT version FROM {meta}") == [(tables.VERSION,)]
        with opened(place.url) as store:
            store.commit(batch(job(3)))

    def test_a_migration_that_fails_is_done_again(self, place: SqlPlace, monkeypatch: pytest.MonkeyPatch) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1)))

        def fail(connection: Connection, here: tables.Tables) -> None:
            connection.exec_driver_sql(f"UPDATE {here.jobs.name} SET priority = 2")
            connection.exec_driver_sql("SELECT 1 FROM nowhere")

        version = tables.VERSION
        monkeypatch.setattr(tables, "VERSION", version + 1)
        monkeypatch.setitem(tables.MIGRATIONS, version, fail)
        with pytest.raises(StoreError, match="nowhere"):
            engine(place.url).open()
        assert place.sql("SELECT version FROM {meta}") == [(version,)]
        assert place.sql("SELECT priority FROM {jobs}") == [(1,)]
        monkeypatch.setitem(tables.MIGRATIONS, version, lambda connection, here: None)
        with opened(place.url) as store:
            assert numbers(store) == [1]

    def test_tables_of_a_newer_version_are_left_alone(self, place: SqlPlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1)))
        place.sql("UPDATE {meta} SET version = 99")
        with pytest.raises(StoreError, match=r"version 99.*newer"):
            engine(place.url).open()
        assert place.sql("SELECT version FROM {meta}") == [(99,)]
        place.sql(f"UPDATE {{meta}} SET version = {tables.VERSION}")
        with opened(place.url) as store:
            assert numbers(store) == [1]

    @pytest.mark.parametrize("version", ["0", "-1"])
    def test_a_version_that_makes_no_sense_is_named(self, place: SqlPlace, version: str) -> None:
        with opened(place.url):
            pass
        place.sql(f"UPDATE {{meta}} SET version = {version}")
        with pytest.raises(StoreError, match=f"has version {version}, which no geartrain has written"):
            engine(place.url).open()

    def test_a_start_that_was_cut_short_is_made_good(self, place: SqlPlace) -> None:
        with opened(place.url):
            pass
        place.sql("DELETE FROM {meta}", "DROP TABLE {set_aside}")
        with opened(place.url) as store:
            store.commit(batch(job(1)))
            store.quarantine(1, "to see the table")
            assert store.count() == 0

    # Errors

    @pytest.mark.parametrize("others", [1, 700])
    def test_nothing_of_a_batch_that_fails_in_the_end_is_kept(self, store: Store, others: int) -> None:
        store.commit(batch(job(1000)))
        some = [job(n, b"w" * 200) for n in range(1, others + 1)]
        with pytest.raises((StoreError, OverflowError)):
            store.commit(batch(*some, moved=((1000, 5, 2**80),), removed=(1000,), next_number=5000))
        assert numbers(store) == [1000]
        assert store.next_number() == 1
        with pytest.raises((StoreError, OverflowError)):
            store.commit(batch(*some, job(999, attempts=2**80), next_number=5000))
        assert numbers(store) == [1000]
        store.commit(batch(*some, next_number=5000))
        assert numbers(store) == [*range(1, others + 1), 1000]
        assert store.next_number() == 5000

    @pytest.mark.parametrize("namespace", ["Upper", "9lives", "a-b", "x" * 41, "a;drop", "a%20b"])
    def test_a_namespace_that_cannot_name_a_table(self, place: SqlPlace, namespace: str) -> None:
        with pytest.raises(StoreError, match="namespace"):
            engine(place.url.partition("?")[0] + f"?namespace={namespace}")

    def test_an_option_nobody_knows(self, place: SqlPlace) -> None:
        with pytest.raises(StoreError, match="colour"):
            engine(place.url + "&colour=red").open()

    def test_the_second_user_is_told_who_the_first_is(self, place: SqlPlace, store: Store) -> None:
        with place.impatient(), pytest.raises(StoreInUseError, match=place.who) as refusal:
            engine(place.url).open()
        assert place.namespace in str(refusal.value)


class DatabaseContract(SqlContract):
    """What is asked of databases that are reached over a connection."""

    def test_namespaces_may_be_used_side_by_side(self, place: DatabasePlace) -> None:
        with opened(place.url) as store, opened(place.other_url) as other:
            store.commit(batch(job(1, b"mine")))
            other.commit(batch(job(1, b"theirs")))
            assert (store.read(1), other.read(1)) == (b"mine", b"theirs")

    def test_one_who_came_while_the_connection_was_lost_is_noticed(self, place: DatabasePlace, store: Store) -> None:
        store.commit(batch(job(1)))
        place.cut()
        with opened(place.url) as second:
            with place.impatient(), pytest.raises(StoreInUseError):
                store.commit(batch(job(2)))
            second.commit(batch(job(3), removed=(1,)))
        with pytest.raises(StoreInUseError, match="while the connection was lost"):
            store.commit(batch(job(2)))
        with opened(place.url) as third:
            assert numbers(third) == [3]

    def test_our_own_lost_session_does_not_keep_us_out(self, place: DatabasePlace, store: Store) -> None:
        """As when the network was away: to us the connection is lost, and the database has not noticed."""
        store.commit(batch(job(1)))
        line = store._writer  # type: ignore[attr-defined]
        lost, line._connection = line._connection, None
        store.commit(batch(job(2)))
        assert numbers(store) == [1, 2]
        with pytest.raises(SQLAlchemyError):
            lost.exec_driver_sql("SELECT 1")

    def test_a_database_that_may_only_be_read_is_full(self, place: DatabasePlace, store: Store) -> None:
        store.commit(batch(job(1, b"one")))
        with place.read_only():
            for _ in range(2):
                with pytest.raises(StoreFullError):
                    store.commit(batch(job(2), job(3)))
            assert store.read(1) == b"one"
        store.commit(batch(job(2), job(3)))
        assert numbers(store) == [1, 2, 3]

    def test_a_locked_table_is_waited_for_and_then_given_up(
        self, place: DatabasePlace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (postgresql, mysql):
            monkeypatch.setattr(module, "LOCKED_TIMEOUT", 1)
        with opened(place.url) as store:
            store.commit(batch(job(1)))
            with place.locked():
                with pytest.raises(StoreDownError):
                    store.commit(batch(job(2), removed=(1,)))
                with place.impatient(), pytest.raises(StoreInUseError):  # it goes on holding the place
                    engine(place.url).open()
            store.commit(batch(job(2), removed=(1,)))
            assert numbers(store) == [2]

    def test_it_tells_what_its_settings_promise(self, place: DatabasePlace) -> None:
        for safe in (True, False):
            place.wait_for_disk(safe)
            with opened(place.url) as store:
                assert ("power cut" in store.abilities.survives.partition(";")[0]) == safe, store.abilities
                assert store.abilities.shared

    def test_a_url_that_cannot_be_read_shows_nothing_of_itself(self, place: DatabasePlace) -> None:
        scheme = place.url.partition(":")[0]
        for rest in (
            "//user:pass/guessed@host:port/db",
            "//user:pa:guessed@[::1/db",
            "guessed",
            "//u:guessed@h:70000/d",
        ):
            with pytest.raises(StoreError) as refusal:
                engine(f"{scheme}:{rest}").open()
            assert "guessed" not in str(refusal.value)
            assert "pass" not in str(refusal.value).replace("password", "")
