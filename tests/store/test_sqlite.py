"""The store in SQLite."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from databases import NewNamespace, SqlitePlace, disk_over
from place import NO_LIMIT, batch, fields, job, kept, numbers, opened, records_of
from sql_contract import SqlContract

from geartrain.jobserver.records import Record, StoredJob
from geartrain.store import Store, StoreDownError, StoreError, StoreFullError, StoreInUseError, Unreadable, engine
from geartrain.store.sql import SqlStore, file_lock, sqlite
from geartrain.store.sql.database import COMMITTED, UNTOUCHED

HOLDS = """
import sys
from geartrain.store import StoreInUseError, engine
store = engine("sqlite:///" + sys.argv[1])
try:
    store.open()
    print("held", flush=True)
except StoreInUseError:
    print("in use", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(file: Path) -> Iterator[int | None]:
    """The store at ``file`` opened by another process: its number, or None if it could not have it."""
    command = [sys.executable, "-c", HOLDS, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        yield other.pid if other.stdout.readline() == "held\n" else None
        other.communicate("")


# Compiled, plain batches are committed in one go (sqlite_commit.c).
one_go = pytest.mark.skipif(find_spec("geartrain.store.sql.sqlite_commit") is None, reason="it is not compiled")


def numbers_at(url: str) -> list[int]:
    with opened(url) as store:
        return numbers(store)


class TestSQLite(SqlContract):
    @pytest.fixture
    def place(self, tmp_path: Path, new_namespace: NewNamespace) -> SqlitePlace:
        return SqlitePlace(tmp_path / "jobs.sqlite", new_namespace)

    def test_once_closed_it_has_no_file_open(self, place: SqlitePlace) -> None:
        """What a failed commit leaves is freed at some time later, and must not hold the file until then."""
        gc.disable()
        try:
            with place.cramped() as (url, _):
                folder = url.removeprefix("sqlite:///").rpartition("/")[0]
                with opened(url) as store, pytest.raises(StoreFullError):
                    store.commit(batch(*[job(n, bytes(65_536)) for n in range(1, 200)]))
                left = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
                gc.collect()
                assert not [name for name in left if name.startswith(folder)]
        finally:
            gc.enable()

    @pytest.mark.parametrize(
        "change",
        ["function = 'text'", "workload = 1234", "workload = 'other'", "place = 'abc'", "place = x'00'", "place = 1e99",
         "place = 2097152.5", "priority = 1.5", "size = '5 bytes'", "due = 'soon'", "due = 9e999", "created = x''"],
    )  # fmt: skip
    def test_a_value_of_a_wrong_type_is_quarantined(self, place: SqlitePlace, change: str) -> None:
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

    @pytest.mark.parametrize(
        "change",
        ["kind = x'ff'", "kind = 'No Kind'", "key = 'text'", "value = 7", "value = 'text'",
         "expires = 'soon'", "expires = -1", "expires = 9e999"],
    )  # fmt: skip
    def test_a_record_that_makes_no_sense_is_passed_over(
        self, place: SqlitePlace, change: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(place.url) as store:
            store.commit(batch(records=tuple(Record("a", key, b"v") for key in (b"1", b"2", b"3"))))
        place.sql(f"UPDATE {{records}} SET {change} WHERE key = x'32'")
        with opened(place.url) as store:
            assert records_of(store) == {("a", b"1"): (b"v", 0.0), ("a", b"3"): (b"v", 0.0)}
        assert [each.message for each in caplog.records] == ["record_unreadable"]

    @pytest.mark.parametrize("version", ["'x'", "1.5"])
    def test_a_version_that_is_no_number_is_named(self, place: SqlitePlace, version: str) -> None:
        with opened(place.url):
            pass
        place.sql(f"UPDATE {{meta}} SET version = {version}")
        with pytest.raises(StoreError, match=f"has version {version}, which no geartrain has written"):
            engine(place.url).open()

    @pytest.mark.parametrize(("option", "synchronous"), [("", 2), ("&synchronous=full", 2), ("&synchronous=normal", 1)])
    def test_it_waits_for_the_disk_as_it_was_told(self, place: SqlitePlace, option: str, synchronous: int) -> None:
        with opened(place.url + option) as store:
            assert isinstance(store, SqlStore)
            assert store._writer.use(lambda it: it.exec_driver_sql("PRAGMA synchronous").scalar()) == synchronous
            assert store._writer.use(lambda it: it.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"
            assert ("take the last moments" in store.abilities.survives) == (synchronous == 1)

    @one_go
    @pytest.mark.parametrize(("option", "synchronous"), [("", 2), ("&synchronous=full", 2), ("&synchronous=normal", 1)])
    def test_what_commits_in_one_go_waits_for_the_disk_as_well(
        self, place: SqlitePlace, option: str, synchronous: int
    ) -> None:
        with opened(place.url + option) as store:
            assert isinstance(store, SqlStore)
            store._database.open_committer(
                "SELECT synchronous || journal_mode, ? FROM pragma_synchronous, pragma_journal_mode"
            )
            assert store._database.commit_alone([], [], "another", None, False)[0] == UNTOUCHED
            assert store._database.commit_alone([], [], f"{synchronous}wal", None, False)[0] == COMMITTED

    @one_go
    def test_plain_batches_are_committed_in_one_go(self, place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), next_number=1000))  # numbers are put by, and that goes the ordinary way
            monkeypatch.setattr(SqlStore, "_commit", None)
            store.commit(batch(*[job(n) for n in range(2, 100)]))
            gone = [5, 1, 7, 6, 3, 99, 3, 500]  # ranges, alone, twice, never there
            store.commit(batch(job(100), removed=tuple(gone)))
            store.commit(batch(removed=(100,)))
            assert numbers(store) == [n for n in range(1, 100) if n not in gone]
            store.commit(batch(removed=tuple(range(1, 100))))
            last = job(
                101,
                b"w\0\xff",
                position=7,
                function=b"f\xff",
                unique=b"",
                priority=2,
                due=1.5,
                reducer=b"r",
                attempts=3,
            )
            store.commit(batch(last))
            assert kept(store) == [fields(last)]

    @one_go
    def test_what_fails_in_one_go_is_done_the_ordinary_way(self, place: SqlitePlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1), next_number=1000))
            both = batch(job(1), job(2))
            store.commit(both)  # of which one is there
            assert numbers(store) == [1, 2]
            with contextlib.closing(sqlite3.connect(place.file, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreDownError, match="locked"):
                    store.commit(batch(job(3)))
            store.commit(batch(job(3)))
            assert numbers(store) == [1, 2, 3]

    def test_two_servers_on_one_file_are_too_many(self, place: SqlitePlace, store: Store) -> None:
        with pytest.raises(StoreInUseError):
            engine(place.other_url).open()

    @pytest.mark.parametrize("name", ["the same", "symbolic link", "link to the folder", "hard link"])
    @pytest.mark.parametrize("whose", ["another process", "this process"])
    def test_the_file_is_held_under_every_name(self, tmp_path: Path, name: str, whose: str) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        file = folder / "jobs.sqlite"
        with held(file) if whose == "another process" else opened(f"sqlite:///{file}"):
            other = tmp_path / "other.sqlite"
            if name == "the same":
                other = file
            elif name == "symbolic link":
                other.symlink_to(file)
            elif name == "hard link":
                other.hardlink_to(file)
            else:
                (tmp_path / "other").symlink_to(folder)
                other = tmp_path / "other" / "jobs.sqlite"
            with pytest.raises(StoreInUseError, match=r"process \d+"):
                engine(f"sqlite:///{other}").open()

    def test_a_second_hard_link_is_refused(self, place: SqlitePlace, tmp_path: Path) -> None:
        """The write-ahead log goes by the name: what is in it would be lost under another one."""
        with opened(place.url) as store:
            store.commit(batch(job(1)))
        (tmp_path / "other").hardlink_to(place.file)
        with pytest.raises(StoreError, match="one of 2 hard links"):
            engine(place.url).open()

    def test_the_hold_outlives_other_descriptors_of_the_file(self, tmp_path: Path) -> None:
        """An ordinary lock would go when any descriptor of the file is closed in the process that holds it."""
        file = tmp_path / "jobs.sqlite"
        with opened(f"sqlite:///{file}"):
            file.read_bytes()
            with held(file) as other:
                assert other is None, "another process got it"

    @pytest.mark.parametrize("how", ["removed", "replaced", "replaced by a copy", "log removed"])
    def test_a_file_that_is_taken_away_takes_nothing_more(self, place: SqlitePlace, how: str) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1, b"one")))
            log = place.file.with_name(place.file.name + "-wal")
            away = place.file.with_name("away")
            taken = log if how == "log removed" else place.file
            taken.rename(away)
            if how == "replaced":
                taken.touch()
            elif how == "replaced by a copy":
                taken.write_bytes(away.read_bytes())
            for number in (2, 3):
                with pytest.raises(StoreError, match="removed, replaced or mounted over: put it back"):
                    store.commit(batch(job(number)))
            assert store.read(1) == b"one"
            away.rename(taken)
            store.commit(batch(job(4)))
        assert set(numbers_at(place.url)) >= {1, 4}

    @pytest.mark.parametrize("suffix", ["", "-wal"])
    def test_a_file_that_is_emptied_takes_nothing_more(self, place: SqlitePlace, suffix: str) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1, b"one"), next_number=2))
            os.truncate(place.file.with_name(place.file.name + suffix), 0)
            for number in (2, 3):
                with pytest.raises(StoreError, match="has been emptied"):
                    store.commit(batch(job(number)))
            place.empty()
            assert store.rebuild([job(1, b"one")], 2) == 1
            store.commit(batch(job(4)))
        assert numbers_at(place.url) == [1, 4]

    @pytest.mark.parametrize("left", [1, 31, 32, 5000])
    def test_a_log_that_is_cut_short_takes_nothing_more(self, place: SqlitePlace, left: int) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1, b"one"), job(2, b"x" * 20_000), next_number=3))
            log = place.file.with_name(place.file.name + "-wal")
            assert log.stat().st_size > left
            os.truncate(log, left)
            for number in (3, 4):
                with pytest.raises(StoreError, match="has been emptied or cut short"):
                    store.commit(batch(job(number)))

    def test_what_is_made_again_on_another_disk_is_not_removed_when_the_old_file_is_closed(
        self, tmp_path: Path
    ) -> None:
        """SQLite tells a file that was moved by its inode alone, and new disks number theirs alike."""
        url = f"sqlite:///{tmp_path}/jobs.sqlite"
        beside = [tmp_path / f"jobs.sqlite{suffix}" for suffix in ("", "-shm", "-wal")]
        with contextlib.ExitStack() as disks:
            disks.enter_context(disk_over(tmp_path, 8))
            with opened(url) as store:
                store.commit(batch(job(1), job(2), next_number=3))
                before = beside[0].stat()
                disks.enter_context(disk_over(tmp_path, 8))
                with pytest.raises(StoreError, match="mounted over"):
                    store.commit(batch(job(3)))
                assert store.rebuild([job(1), job(2)], 3) == 2
                after = beside[0].stat()
                assert (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino)
                assert before.st_ino == after.st_ino, "else this test shows nothing"
                assert sorted(tmp_path.iterdir()) == beside
                store.commit(batch(job(4)))
            assert numbers_at(url) == [1, 2, 4]
            with opened(url) as store:
                store.commit(batch(job(5)))
                disks.enter_context(disk_over(tmp_path, 8))
                for each in beside:
                    each.write_bytes(b"of another one")
            assert [each.read_bytes() for each in beside] == [b"of another one"] * 3

    def test_a_log_that_another_program_has_written_back_is_not_taken_for_emptied(self, place: SqlitePlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1)))
            assert place.sql("PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]
            assert place.file.with_name(place.file.name + "-wal").stat().st_size == 0
            store.commit(batch())
            store.commit(batch(job(2)))
            assert numbers(store) == [1, 2]
        assert numbers_at(place.url) == [1, 2]

    def test_a_log_that_begins_again_is_not_taken_for_emptied(self, place: SqlitePlace) -> None:
        with opened(place.url) as store:
            for number in range(1, 6):
                store.commit(batch(job(number, b"x" * (2 << 20))))  # more than a checkpoint waits for
                store.commit(batch(removed=(number - 1,)))
        assert numbers_at(place.url) == [5]

    def test_it_is_made_again_from_what_is_known(self, place: SqlitePlace) -> None:
        with opened(place.url) as store:
            store.commit(batch(job(1, b"one"), job(2, b"large" * 1000), next_number=7))
            known = [job(1, b"one"), job(2, b"large" * 1000)]
            known[1].workload = None  # it is in the store alone
            for suffix in ("", "-wal", "-shm"):
                file = place.file.with_name(place.file.name + suffix)
                with pytest.raises(StoreError, match=f"there is still a file {file}: move it away first"):
                    store.rebuild(known, 7)
                file.unlink()
            with pytest.raises(StoreError, match="removed"):
                store.commit(batch(job(3)))
            assert store.rebuild(known, 7) == 2
            store.commit(batch(job(4, b"four")))
            assert store.read(2) == b"large" * 1000
            with pytest.raises(StoreInUseError):
                engine(place.other_url).open()
        with opened(place.url) as store:
            assert [(each[0], each[4]) for each in kept(store)] == [
                (1, b"one"), (2, b"large" * 1000), (4, b"four"),
            ]  # fmt: skip
            assert store.next_number() == 7

    def test_workloads_that_are_read_to_be_written_again_are_not_kept_in_memory(self, place: SqlitePlace) -> None:
        size = 1 << 20
        known = [job(number, b"%d" % number * size) for number in range(1, 10)]
        known += [job(number, b"x" * size) for number in range(10, 40)]
        with opened(place.url) as store:
            store.commit(batch(*known, next_number=40))
            for each in known:
                each.workload = None  # it is in the store alone
            place.empty()
            assert store.rebuild(known, 40) == 39
            assert sum(each.size for each in known if each.workload is not None) <= 16 * size
            assert store.read(9) == b"9" * size

    def test_a_new_file_that_could_not_be_filled_is_not_in_the_way(self, place: SqlitePlace) -> None:
        def failing() -> Iterator[StoredJob]:
            yield job(1)
            raise OSError("the disk is full")

        with opened(place.url) as store:
            store.commit(batch(job(1), next_number=2))
            place.empty()
            with pytest.raises(OSError, match="full"):
                store.rebuild(failing(), 2)
            assert list(place.file.parent.glob("jobs.sqlite*")) == []
            assert store.rebuild([job(1)], 2) == 1
            store.commit(batch(job(2)))
        assert numbers_at(place.url) == [1, 2]

    def test_nobody_else_may_read_it(self, place: SqlitePlace, caplog: pytest.LogCaptureFixture) -> None:
        before = os.umask(0o022)
        try:
            with opened(place.url) as store:
                store.commit(batch(job(1)))
                files = sorted(place.file.parent.glob("jobs.sqlite*"))
                assert len(files) == 3
                assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3
        finally:
            os.umask(before)
        assert "readable" not in caplog.text
        place.file.chmod(0o644)
        with opened(place.url):
            pass
        assert [record.message for record in caplog.records] == ["store_readable_by_others"]

    def test_another_program_that_has_the_file_locked_is_waited_for(
        self, place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
        with opened(place.url) as store:
            store.commit(batch(job(1, b"one")))
            with contextlib.closing(sqlite3.connect(place.file, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                for _ in range(2):
                    with pytest.raises(StoreDownError, match="locked"):
                        store.commit(batch(job(2), removed=(1,)))
                    assert store.read(1) == b"one"
            store.commit(batch(job(2), removed=(1,)))
            assert numbers(store) == [2]

    def test_a_file_system_without_locks_is_not_taken_for_another_user(
        self, place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_descriptor: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(file_lock, "_lock", refuse)
        with pytest.raises(StoreError, match=os.strerror(errno.ENOLCK)) as refusal:
            engine(place.url).open()
        assert not isinstance(refusal.value, StoreInUseError)

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


@one_go
class TestSQLiteStatementByStatement(SqlContract):
    """As where nothing is compiled."""

    @pytest.fixture
    def place(self, tmp_path: Path, new_namespace: NewNamespace, monkeypatch: pytest.MonkeyPatch) -> SqlitePlace:
        monkeypatch.setattr(sqlite.SQLite, "open_committer", lambda self, question: None)
        return SqlitePlace(tmp_path / "jobs.sqlite", new_namespace)
