"""The store in SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from databases import NewNamespace, SqlitePlace
from place import NO_LIMIT, batch, job, kept, numbers, opened
from sql_contract import SqlContract

from geartrain.jobserver.records import StoredJob
from geartrain.store import Store, StoreDown, StoreError, StoreInUse, Unreadable, engine
from geartrain.store.sql import SqlStore, sqlite


class TestSQLite(SqlContract):
    @pytest.fixture
    def place(self, tmp_path: Path, new_namespace: NewNamespace) -> SqlitePlace:
        return SqlitePlace(tmp_path / "jobs.sqlite", new_namespace)

    @pytest.mark.parametrize(
        "change",
        ["function = 'text'", "workload = 1234", "workload = 'other'", "place = 'abc'", "place = x'00'", "place = 1e99",
         "place = 2097152.5", "priority = 1.5", "size = '5 bytes'", "due = 'soon'", "due = 9e999", "created = x''"],
    )  # fmt: skip
    def test_a_value_of_a_wrong_type_is_set_aside(self, place: SqlitePlace, change: str) -> None:
        """SQLite keeps any type in any column."""
        with opened(place.url) as store:
            store.commit(batch(job(1), job(2, b"other"), job(3)))
        place.sql(f"UPDATE {{jobs}} SET {change} WHERE number = 2")
        with opened(place.url) as store:
            found = list(store.load(NO_LIMIT))
            assert [each.number for each in found if isinstance(each, StoredJob)] == [1, 3]
            assert [each.number for each in found if isinstance(each, Unreadable)] == [2]
            assert numbers(store) == [1, 3]
        column, _, value = change.partition(" = ")
        assert place.sql(f"SELECT {column} = {value} FROM {{set_aside}}") == [(1,)]

    @pytest.mark.parametrize(("option", "synchronous"), [("", 2), ("&synchronous=full", 2), ("&synchronous=normal", 1)])
    def test_it_waits_for_the_disk_as_it_was_told(self, place: SqlitePlace, option: str, synchronous: int) -> None:
        with opened(place.url + option) as store:
            assert isinstance(store, SqlStore)
            assert store._writer.use(lambda it: it.exec_driver_sql("PRAGMA synchronous").scalar()) == synchronous
            assert store._writer.use(lambda it: it.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"
            assert ("take the last moments" in store.abilities.survives) == (synchronous == 1)

    def test_two_servers_on_one_file_are_too_many(self, place: SqlitePlace, store: Store) -> None:
        with pytest.raises(StoreInUse):
            engine(place.other_url).open()

    def test_another_program_that_has_the_file_locked_is_waited_for(
        self, place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
        with opened(place.url) as store:
            store.commit(batch(job(1, b"one")))
            with contextlib.closing(sqlite3.connect(place.file, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                for _ in range(2):
                    with pytest.raises(StoreDown, match="locked"):
                        store.commit(batch(job(2), removed=(1,)))
                    assert store.read(1) == b"one"
            store.commit(batch(job(2), removed=(1,)))
            assert numbers(store) == [2]

    def test_a_relative_path_is_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with opened("sqlite:///here.sqlite") as store:
            store.commit(batch(job(1)))
        with opened(f"sqlite:///{tmp_path}/here.sqlite") as store:
            assert numbers(store) == [1]

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
            ("sqlite:////nowhere/at/all/jobs.sqlite", "no folder /nowhere/at/all"),
            ("sqlite:///x.sqlite?synchronous=off", "full or normal"),
            ("sqlite:////proc/jobs.sqlite", "/proc"),
        ],
    )
    def test_a_place_that_cannot_be(self, url: str, words: str) -> None:
        with pytest.raises(StoreError, match=words):
            engine(url).open()

    def test_a_file_that_is_something_else_is_left_alone(self, tmp_path: Path) -> None:
        file = tmp_path / "letter.txt"
        file.write_text("Dear store, " * 1000)
        with pytest.raises(StoreError, match="no SQLite database"):
            engine(f"sqlite:///{file}").open()
        assert file.read_text() == "Dear store, " * 1000

    def test_a_damaged_file_is_named_with_a_remedy(self, place: SqlitePlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(*[job(n, b"x" * 1000) for n in range(1, 200)]))
        with place.file.open("r+b") as file:
            file.seek(20 * 4096)
            file.write(b"\x55" * 40 * 4096)
        with opened(place.url) as store, pytest.raises(StoreError, match="recover"):
            kept(store)

    def test_the_file_may_be_used_again_after_a_failed_open(self, place: SqlitePlace) -> None:
        with opened(place.url):
            pass
        place.sql("UPDATE {meta} SET version = 99")
        failed = engine(place.url)
        with pytest.raises(StoreError):
            failed.open()
        place.sql("UPDATE {meta} SET version = 1")
        with opened(place.url) as store:
            assert kept(store) == []
