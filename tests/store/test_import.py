"""Taking over the queues that the real gearmand has kept, and moving jobs between stores."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from databases import NewNamespace
from place import batch, fields, job, kept, opened

from geartrain.jobserver.letters import pack_letter
from geartrain.jobserver.policy import FAIL
from geartrain.jobserver.records import Batch, Record, StoredJob, number_key, number_of
from geartrain.store import StoreError, Unreadable
from geartrain.store.gearmand import names, open_queue
from geartrain.store.import_ import Importer
from geartrain.wire import Packet, Parser, pack_request
from geartrain.wire.packets import (
    CAN_DO,
    ERROR,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW_BG,
    WORK_COMPLETE,
)
from servers import RunningServer, running_gearmand, running_geartrain
from services import PASSWORD, SECRETS, USER, MariaDB, Memcached, PostgreSQL, Redis, running

UUID = b"9725d56a-e705-11f1-9544-02fc00000001"
NASTY = b"nul\0inside \xff\xfe \\' \" %s"
LATER = 4_000_000_000

# What clients submit: (type, function, unique, workload), the time of an epoch job before its workload.
SUBMISSIONS: list[tuple[int, tuple[bytes, ...]]] = [
    (SUBMIT_JOB_BG, (b"resize", b"first", b"1")),
    (SUBMIT_JOB_LOW_BG, (b"resize", b"low", b"a low one")),
    (SUBMIT_JOB_HIGH_BG, (b"resize", b"high", b"a high one")),
    (SUBMIT_JOB_BG, (b"resize", b"second", b"2")),
    (SUBMIT_JOB_BG, (b"resize", b"empty", b"")),
    (SUBMIT_JOB_BG, (b"resize", b"", b"no unique")),
    (SUBMIT_JOB_BG, (b"resize", b"-", b"its workload is its unique")),
    (SUBMIT_JOB_BG, (b"resize", UUID, NASTY)),
    (SUBMIT_JOB_BG, (b"two-words", UUID, b"x" * 300_000)),
    (SUBMIT_JOB_BG, ("grün".encode(), "schlüssel".encode(), b"umlauts")),
    (SUBMIT_JOB_EPOCH, (b"later", b"future", b"%d" % LATER, b"not yet")),
    (SUBMIT_JOB_BG, (b"resize", b"a-b-c", b"hyphens in its unique")),
]
Job = tuple[bytes, bytes, bytes, int]  # function, unique, workload, priority


@dataclass
class Layout:
    """One of gearmand's queues: how it is told to keep one, and how we are told where it is."""

    name: str
    options: tuple[str, ...]
    source: str
    keeps_order: bool = True
    reads_hyphens: bool = True  # names of functions and uniques are kept apart

    def __str__(self) -> str:
        return self.name


LAYOUTS = ("sqlite", "mariadb", "postgresql", "redis", "memcached")


@pytest.fixture
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Layout]:
    """An empty place for a gearmand's queue."""
    name = request.param
    options: tuple[str, ...]
    quoted = quote(PASSWORD, safe="")
    if name == "sqlite":
        file = tmp_path / "gearmand.db"
        yield Layout(name, ("-q", "libsqlite3", f"--libsqlite3-db={file}"), f"gearmand+sqlite:///{file}")
    elif name == "mariadb":
        service: MariaDB = request.getfixturevalue("mariadb")
        table = f"table_{request.node.name.partition('[')[0][-40:]}"
        options = (
            "-q", "MySQL", "--mysql-host=127.0.0.1", f"--mysql-port={service.port}", f"--mysql-user={USER}",
            f"--mysql-password={PASSWORD}", "--mysql-db=geartrain", f"--mysql-table={table}",
        )  # fmt: skip
        place = f"{USER}:{quoted}@127.0.0.1:{service.port}/geartrain?table={table}"
        yield Layout(name, options, f"gearmand+mysql://{place}")
        service.sql(f"DROP TABLE IF EXISTS {table}")
    elif name == "postgresql":
        database: PostgreSQL = request.getfixturevalue("postgresql")
        place = f"host=127.0.0.1 port={database.port} user={USER} password={PASSWORD} dbname=geartrain"
        source = f"gearmand+postgresql://{USER}:{quoted}@127.0.0.1:{database.port}/geartrain"
        yield Layout(name, ("-q", "Postgres", f"--libpq-conninfo={place}"), source)
        database.sql("DROP TABLE IF EXISTS queue")
    elif name == "redis":
        with running(Redis) as redis:
            options = ("-q", "redis", "--redis-server=127.0.0.1", f"--redis-port={redis.port}",
                       f"--redis-password={PASSWORD}")  # fmt: skip
            source = f"gearmand+redis://:{quoted}@127.0.0.1:{redis.port}/0"
            yield Layout(name, options, source, keeps_order=False, reads_hyphens=False)
    else:
        with running(Memcached) as one, running(Memcached) as two:
            servers = f"127.0.0.1:{one.port},127.0.0.1:{two.port}"
            options = ("-q", "libmemcached", f"--libmemcached-servers={servers}")
            yield Layout(name, options, f"gearmand+memcached://{servers}", keeps_order=False, reads_hyphens=False)


every_layout = pytest.mark.parametrize("layout", LAYOUTS, indirect=True)


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/target.sqlite"


@contextlib.contextmanager
def connected(port: int) -> Iterator[Callable[[bytes], Packet]]:
    """Ask a job server: send bytes, get the next packet."""
    parser = Parser()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:

        def ask(data: bytes) -> Packet:
            connection.sendall(data)
            while (packet := parser.next_packet()) is None:
                more = connection.recv(1 << 20)
                assert more, "the job server hung up"
                parser.feed(more)
            return packet

        yield ask


def accepted_by(gearmand: RunningServer) -> list[Job]:
    """Submit everything, kill the server, and tell which jobs it had acknowledged."""
    accepted = []
    with connected(gearmand.port) as ask:
        for type, arguments in SUBMISSIONS:
            answer = ask(pack_request(type, *arguments))
            assert answer.type in (JOB_CREATED, ERROR)
            if answer.type == JOB_CREATED:
                priority = {SUBMIT_JOB_HIGH_BG: 0, SUBMIT_JOB_LOW_BG: 2}.get(type, 1)
                accepted.append((arguments[0], arguments[1], arguments[-1], priority))
    gearmand.process.kill()
    gearmand.process.wait()
    return accepted


def geartrain(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``geartrain store``; no text of it may show a password."""
    done = subprocess.run(
        [sys.executable, "-m", "geartrain", "store", *arguments], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    return done


def taken_by(target: str, *options: str) -> dict[str, Any]:
    done = geartrain("import", "--to", target, "--json", *options)
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if told["left_out"] else 0)
    return told


def jobs_in(url: str) -> list[StoredJob]:
    with opened(url) as store:
        return [each for each in store.load(1 << 40) if isinstance(each, StoredJob)]


def as_jobs(stored: list[StoredJob]) -> list[Job]:
    return [(each.function, each.unique, each.workload or b"", each.priority) for each in stored]


def done_by_ours(target: str) -> list[tuple[bytes, bytes, bytes]]:
    """Serve the store and do all that can be done: (function, unique, workload) in the order they came."""
    came = []
    functions = {arguments[0] for _, arguments in SUBMISSIONS}
    with running_geartrain(store=target) as server, connected(server.port) as ask:
        data = b"".join(pack_request(CAN_DO, function) for function in functions)
        while (packet := ask(data + pack_request(GRAB_JOB_UNIQ))).type == JOB_ASSIGN_UNIQ:
            handle, *rest = packet.arguments
            came.append((rest[0], rest[1], rest[2]))
            data = pack_request(WORK_COMPLETE, handle, b"")
    return came


# What gearmand wrote


@every_layout
def test_the_jobs_of_a_killed_gearmand_are_done_by_ours(layout: Layout, target: str) -> None:
    with running_gearmand(*layout.options) as gearmand:
        accepted = accepted_by(gearmand)
    assert len(accepted) >= 11
    readable = [each for each in accepted if layout.reads_hyphens or each[1] != b"a-b-c"]
    told = taken_by(target, "--from", layout.source)
    assert len(told["left_out"]) == len(accepted) - len(readable)
    stored = jobs_in(target)
    assert sorted(as_jobs(stored)) == sorted(readable)
    if layout.keeps_order:
        assert as_jobs(stored) == readable
    assert [each.number for each in stored] == list(range(1, len(stored) + 1))
    assert {each.due for each in stored if each.function == b"later"} <= {LATER}
    assert all(each.due == 0 for each in stored if each.function != b"later")
    came = done_by_ours(target)
    assert sorted(came) == sorted(each[:3] for each in readable if each[0] != b"later")
    if layout.keeps_order:
        assert [unique for function, unique, _ in came if function == b"resize"] == [
            b"high", b"first", b"second", b"empty", b"", b"-", UUID, b"a-b-c", b"low",
        ]  # fmt: skip
    assert {each.function for each in jobs_in(target)} <= {b"later"}


@every_layout
def test_a_dry_run_takes_nothing_and_a_second_run_nothing_twice(layout: Layout, target: str) -> None:
    with running_gearmand(*layout.options) as gearmand:
        accepted = accepted_by(gearmand)
    dry = taken_by(target, "--from", layout.source, "--dry-run")
    assert jobs_in(target) == []
    assert taken_by(target, "--from", layout.source) == {**dry, "dry_run": False}
    after = [fields(each) for each in jobs_in(target)]
    again = taken_by(target, "--from", layout.source)
    assert again["taken"] == []
    assert again["there"] == len(accepted) - len(again["left_out"])
    assert [fields(each) for each in jobs_in(target)] == after
    # gearmand's own queue is as it was
    queue = open_queue(layout.source, [b"resize", b"two-words"])
    with contextlib.closing(queue):
        assert queue.count() == len(accepted)
        found = [each for each in queue.jobs() if isinstance(each, StoredJob)]
    assert sorted(as_jobs(found)) == sorted(accepted)


@pytest.mark.parametrize("layout", ["redis", "memcached"], indirect=True)
def test_a_key_that_can_be_read_in_several_ways_is_left_until_a_function_is_named(layout: Layout, target: str) -> None:
    with running_gearmand(*layout.options) as gearmand:
        accepted = accepted_by(gearmand)
    first = geartrain("import", "--to", target, "--from", layout.source)
    assert first.returncode == 1
    assert "1 could not be taken" in first.stderr
    assert "--function resize or up to --function resize-a-b" in first.stderr
    second = taken_by(target, "--from", layout.source, "--function", "resize", "--function", "two-words")
    assert [row["jobs"] for row in second["taken"]] == [1]
    assert sorted(as_jobs(jobs_in(target))) == sorted(accepted)


def test_a_row_that_makes_no_job_is_told_and_stops_nothing(tmp_path: Path, target: str) -> None:
    file = tmp_path / "gearmand.db"
    with running_gearmand("-q", "libsqlite3", f"--libsqlite3-db={file}") as gearmand:
        accepted = accepted_by(gearmand)
    spoilt = {"first": "priority = 7", "low": "priority = 'x'", "high": "function_name = NULL", "second": "data = 12",
              "empty": "when_to_run = -5"}  # fmt: skip
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for unique, change in spoilt.items():
            connection.execute(f"UPDATE gearman_queue SET {change} WHERE unique_key = '{unique}'")
    told = taken_by(target, "--from", f"gearmand+sqlite:///{file}")
    assert len(told["left_out"]) == len(spoilt)
    for unique, reason in {"first": "priority is 7", "low": "priority is b'x'", "high": "function is None",
                           "second": "workload is 12", "empty": "time to run is -5"}.items():  # fmt: skip
        assert any(f"unique '{unique}'" in each and reason in each for each in told["left_out"]), told["left_out"]
    assert len(jobs_in(target)) == len(accepted) - len(spoilt)


EXTREMES = {
    "function-null": (None, "u", b"w", 1, 0),
    "function-number": (5, "u", b"w", 1, 0),
    "function-nul": (b"f\0g", "u", b"w", 1, 0),
    "function-long": (b"f" * 5000, "u", b"w", 1, 0),
    "unique-nul": ("f", b"u\0v", b"w", 1, 0),
    "unique-long": ("f", b"u" * 5000, b"w", 1, 0),
    "unique-real": ("f", 1.5, b"w", 1, 0),
    "priority-null": ("f", "u", b"w", None, 0),
    "priority-negative": ("f", "u", b"w", -1, 0),
    "priority-huge": ("f", "u", b"w", 2**63 - 1, 0),
    "when-text": ("f", "u", b"w", 1, "soon"),
    "when-real": ("f", "u", b"w", 1, 1.5),
    "when-infinite": ("f", "u", b"w", 1, 9e999),
    "when-huge": ("f", "u", b"w", 1, 2**63 - 1),
}


@pytest.mark.parametrize("row", EXTREMES.values(), ids=EXTREMES)
def test_a_row_with_extreme_values_is_told_and_stops_nothing(
    tmp_path: Path, target: str, row: tuple[object, ...]
) -> None:
    file = tmp_path / "gearmand.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE gearman_queue (function_name, unique_key, data, priority, when_to_run)")
        for each in (("f", "first", b"1", 1, 0), row, ("f", "last", b"2", 1, 0)):
            connection.execute("INSERT INTO gearman_queue VALUES (?, ?, ?, ?, ?)", each)
    told = taken_by(target, "--from", f"gearmand+sqlite:///{file}")
    (left_out,) = told["left_out"]
    assert left_out.startswith("the job of ")
    assert [each[1] for each in as_jobs(jobs_in(target))] == [b"first", b"last"]


GOOD_JOB = {
    "number": 1, "function": "f", "unique": "u", "priority": 1, "due": 0.0, "created": 1.0, "attempts": 0,
    "reducer": "", "position": 1 << 20, "workload": "dw==",
}  # fmt: skip
GOOD_RECORD = {"record": "a", "key": "k", "expires": 0.0, "value": "dw=="}
BAD_JOBS: list[dict[str, object]] = [
    {"number": -1}, {"number": 2**64}, {"number": None}, {"number": 1e400}, {"number": [1]}, {"number": 1.5},
    {"priority": 3}, {"priority": "x"}, {"due": -1}, {"due": "soon"}, {"due": float("nan")}, {"due": 1e400},
    {"attempts": 2**40}, {"function": None}, {"function": 5}, {"function": {"base64": 5}},
    {"function": {"base64": "!"}}, {"function": "a\0b"}, {"function": "f" * 5000}, {"unique": "u\0"},
    {"unique": "\ud800"}, {"workload": None}, {"workload": "!"}, {"workload": 7}, {"reducer": "r" * 5000},
]  # fmt: skip
BAD_RECORDS: list[dict[str, object]] = [
    {"record": ""}, {"record": None}, {"record": "No Kind"}, {"record": "x" * 100}, {"record": "a\0b"},
    {"key": None}, {"key": {}}, {"value": None}, {"value": "!"}, {"expires": -1}, {"expires": "never"},
    {"expires": float("inf")}, {"expires": None},
]  # fmt: skip
BAD_LINES = [
    b"", b"[]", b"null", b"1", b'"record"', b"[" * 100_000, b"9" * 5000, b"\xff", b'{"record": {}}',
    *(json.dumps({**GOOD_JOB, **change}).encode() for change in BAD_JOBS),
    *(json.dumps({**GOOD_RECORD, **change}).encode() for change in BAD_RECORDS),
]  # fmt: skip


def test_a_line_with_extreme_values_is_told_and_stops_nothing(tmp_path: Path, target: str) -> None:
    file = tmp_path / "export"
    head = {"geartrain": "jobs", "version": 2, "jobs": 2, "next_number": 5}
    good = json.dumps(GOOD_JOB).encode(), json.dumps(GOOD_RECORD).encode()
    file.write_bytes(b"\n".join((json.dumps(head).encode(), *BAD_LINES, *good)) + b"\n")
    told = taken_by(target, "--from", str(file))
    lines = {int(each.split()[1].rstrip(":")) for each in told["left_out"] if each.startswith("line ")}
    others = [each for each in told["left_out"] if not each.startswith("line ")]
    assert all(each.startswith("job 1: the job of ") for each in others)
    assert len(lines) + len(others) == len(BAD_LINES), told["left_out"]
    assert (as_jobs(jobs_in(target)), told["records"]) == ([(b"f", b"u", b"w", 1)], 1)


@pytest.mark.parametrize(
    "head",
    [b"", b"[]", b"null", b"[" * 100_000, b"9" * 5000, b'{"geartrain": "jobs"}', b'{"geartrain": ["jobs"]}',
     b'{"geartrain": "jobs", "version": "2", "jobs": 1, "next_number": 2}',
     b'{"geartrain": "jobs", "version": null, "jobs": 1, "next_number": 2}',
     b'{"geartrain": "jobs", "version": 2, "jobs": 1e400, "next_number": 2}'],
)  # fmt: skip
def test_a_file_that_begins_otherwise_is_no_export(tmp_path: Path, target: str, head: bytes) -> None:
    file = tmp_path / "export"
    file.write_bytes(head + b"\n" + json.dumps(GOOD_JOB).encode() + b"\n")
    done = geartrain("import", "--to", target, "--from", str(file))
    assert done.returncode == 1
    assert f"{file} is no export of a store" in done.stderr


def test_a_table_from_before_there_were_times_is_read(tmp_path: Path, target: str) -> None:
    file = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TABLE jobs (unique_key TEXT, function_name TEXT, priority INTEGER, data BLOB,"
            " PRIMARY KEY (unique_key, function_name))"
        )
        connection.execute("INSERT INTO jobs VALUES ('u', 'f', 2, x'00ff')")
    told = taken_by(target, "--from", f"gearmand+sqlite:///{file}?table=jobs")
    assert told["left_out"] == []
    assert as_jobs(jobs_in(target)) == [(b"f", b"u", b"\x00\xff", 2)]


def test_what_gearmand_2_keeps_in_redis_needs_no_reading_of_keys(target: str) -> None:
    import redis

    with running(Redis) as service:
        source = service.url().partition("?")[0]
        with redis.Redis.from_url(source) as client:
            names = {"function": "two-words", "unique": "a-b-c"}
            client.hset("_gear_-two-words-a-b-c", mapping={"data": b"\0x", "priority": 2, **names})
            client.set("_gear_-a-string", "no hash")
            client.hset("_gear_-no-data", mapping={"priority": 1})
            client.hset("other-key", mapping={"data": b"", "priority": 1})
        told = taken_by(target, "--from", f"gearmand+{source}")
    assert as_jobs(jobs_in(target)) == [(b"two-words", b"a-b-c", b"\0x", 2)]
    assert len(told["left_out"]) == 2
    assert any("no hash" in each for each in told["left_out"])
    assert any("no field data" in each for each in told["left_out"])


def test_extreme_values_in_redis_are_told_and_stop_nothing(target: str) -> None:
    import redis

    good: dict[str | bytes, bytes | float | int | str] = {"data": b"w", "priority": 1, "function": "f", "unique": "u"}
    changes: list[dict[str | bytes, bytes | float | int | str]] = [
        {"function": b"f\0g"}, {"function": b"f" * 5000}, {"unique": b"u\0v"}, {"unique": b"u" * 5000},
        {"priority": -1}, {"priority": 3}, {"priority": "9" * 5000}, {"priority": ""}, {"priority": "\xb2"},
        {"priority": 1.5},
    ]  # fmt: skip
    with running(Redis) as service:
        source = service.url().partition("?")[0]
        with redis.Redis.from_url(source) as client:
            client.hset("_gear_-f-u", mapping=good)
            for number, change in enumerate(changes):
                client.hset(b"_gear_-\xff%d" % number, mapping={**good, **change})
        told = taken_by(target, "--from", f"gearmand+{source}")
    assert len(told["left_out"]) == len(changes), told["left_out"]
    assert all(each.startswith("the job of ") for each in told["left_out"])
    assert as_jobs(jobs_in(target)) == [(b"f", b"u", b"w", 1)]


def test_what_memcached_has_thrown_away_is_told(target: str) -> None:
    from pymemcache.client.base import Client  # type: ignore[import-untyped]

    with running(Memcached, "-m", "4") as service:
        with contextlib.closing(Client(("127.0.0.1", service.port))) as client:
            for n in range(200):
                client.set(f"gear_resize-{n}", b"x" * 50_000, flags=1)
        told = taken_by(target, "--from", f"gearmand+memcached://127.0.0.1:{service.port}")
    assert 0 < len(jobs_in(target)) < 200
    assert "thrown away" in told["notes"][0]


@pytest.mark.parametrize(
    ("name", "functions", "read"),
    [
        (b"resize-photo", [], (b"resize", b"photo")),
        (b"resize-", [], (b"resize", b"")),
        (b"resize--", [], (b"resize", b"-")),
        (b"resize-" + UUID, [], (b"resize", UUID)),
        (b"two-words-" + UUID, [], (b"two-words", UUID)),
        (b"a-b-c", [b"a"], (b"a", b"b-c")),
        (b"a-b-c", [b"a", b"a-b"], (b"a-b", b"c")),
        (b"a-b-c", [b"a-b-c"], None),
        (b"a-b-c", [], None),
        (b"plain", [], None),
    ],
)
def test_how_keys_are_read(name: bytes, functions: list[bytes], read: tuple[bytes, bytes] | None) -> None:
    if read is None:
        with pytest.raises(ValueError, match="hyphen"):
            names.split(name, functions)
    else:
        assert names.split(name, functions) == read


# What can't be


def test_a_store_in_use_is_not_touched(tmp_path: Path, target: str) -> None:
    file = tmp_path / "gearmand.db"
    with running_gearmand("-q", "libsqlite3", f"--libsqlite3-db={file}") as gearmand:
        accepted_by(gearmand)
    with running_geartrain(store=target):
        done = geartrain("import", "--from", f"gearmand+sqlite:///{file}", "--to", target)
    assert done.returncode == 5
    assert "in use by another job server" in done.stderr
    assert jobs_in(target) == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("gearmand+sqlite:////nowhere/at/all.db", "there is no file /nowhere/at/all.db"),
        ("gearmand+sqlite:///{tmp}/empty.db", "there is no table gearman_queue: name it by ?table="),
        ("gearmand+sqlite:///{tmp}/other.db?table=letters", "has no column data, function_name, priority, unique_key"),
        ("gearmand+oracle://somewhere", "its scheme must be one of gearmand+sqlite"),
        (f"gearmand+redis://:{quote(PASSWORD, safe='')}@127.0.0.1:1/0", "redis://:***@127.0.0.1:1/0: "),
        (f"gearmand+mysql://u:{quote(PASSWORD, safe='')}@127.0.0.1:1/db", "mysql://u:***@127.0.0.1:1/db: "),
        (f"gearmand+postgresql://u:{quote(PASSWORD, safe='')}@127.0.0.1:1/db", "postgresql://u:***@127.0.0.1:1/db: "),
        ("gearmand+memcached://127.0.0.1:1", "127.0.0.1:1: "),
        ("gearmand+redis://127.0.0.1:1/0?colour=red", "the option colour is not known"),
        ("{tmp}/missing.jsonl", "can't be read: No such file"),
        ("{tmp}/other.db", "is no export of a store"),
        ("nope://x", "no store is known"),
    ],
)
def test_a_source_that_can_not_be_used_is_named(source: str, told: str, tmp_path: Path, target: str) -> None:
    (tmp_path / "empty.db").touch()
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE letters (text TEXT)")
        connection.commit()
    done = geartrain("import", "--to", target, "--from", source.replace("{tmp}", str(tmp_path)))
    assert done.returncode == 1
    assert told in done.stderr


def test_a_job_too_large_for_the_store_is_left_out_and_told(mariadb: MariaDB, new_namespace: NewNamespace) -> None:
    url = mariadb.url(new_namespace())
    with opened(url) as store:
        importer = Importer(store, 1, 0.0, dry=False)
        limit = store.abilities.max_workload
        some = [job(0, b"x" * size, unique=b"u%d" % size) for size in (10, limit, limit + 1, 20)]
        assert list(importer.look()) == []
        assert list(importer.take(some)) == [1, 2, 3, 4]
        assert [each[5] for each in kept(store)] == [10, limit, 20]
    (told,) = importer.report.too_large
    assert f"unique 'u{limit + 1}'" in told
    assert f"{limit:,}" in told
    assert sum(importer.report.jobs.values()) == 3


# Between stores


@pytest.fixture(params=["mariadb", "postgresql", "redis", "memcached"])
def elsewhere(request: pytest.FixtureRequest, new_namespace: NewNamespace) -> Iterator[str]:
    """The URL of an empty store that is no file."""
    if request.param in ("mariadb", "postgresql"):
        yield request.getfixturevalue(request.param).url(new_namespace())
    elif request.param == "redis":
        with running(Redis) as redis:
            yield redis.url()
    else:
        with running(Memcached, "-M") as one, running(Memcached, "-M") as two:
            yield f"memcached://127.0.0.1:{one.port},127.0.0.1:{two.port}"


def test_jobs_move_from_store_to_store_and_keep_their_handles(elsewhere: str, target: str, tmp_path: Path) -> None:
    some = [
        job(7, NASTY, function=b"f\xff", unique=b"\xfe", priority=0, created=1.75e9),
        job(8, b"", due=4e9, reducer=b"r", attempts=3),
        job(12, os.urandom(200_000), unique=b"-", priority=2),
        job(9, b"moved to the end", unique=b"u", position=13 << 20),
        *[job(n, b"%d" % n) for n in range(20, 1500)],
    ]
    with opened(target) as store:
        store.commit(batch(*some, next_number=100_001))
        before = kept(store)
    told = taken_by(elsewhere, "--from", target)
    assert (told["left_out"], told["new_handles"], told["there"]) == ([], 0, 0)
    file = tmp_path / "jobs.jsonl"
    assert geartrain("export", "--store", elsewhere, "-o", str(file)).returncode == 0
    back = f"sqlite:///{tmp_path}/back.sqlite"
    assert taken_by(back, "--from", str(file))["left_out"] == []
    for url in (elsewhere, back):
        with opened(url) as store:
            assert kept(store) == before
            assert store.next_number() == 100_001
    assert taken_by(back, "--from", elsewhere)["there"] == len(some)


def take(target: str, some: Sequence[StoredJob | Record | Unreadable], numbers_end: int) -> Importer:
    with opened(target) as store:
        importer = Importer(store, numbers_end, 0.0, dry=False)
        for _ in (*importer.look(), *importer.take(some)):
            pass
    return importer


def test_a_handle_that_was_given_out_is_not_given_out_again(target: str) -> None:
    with opened(target) as store:
        store.commit(batch(job(3, b"mine"), next_number=10))
    theirs = [(3, b"theirs"), (9, b"ended here"), (10, b"free"), (14, b"free too")]
    importer = take(target, [job(number, workload, created=1.6e9) for number, workload in theirs], 15)
    assert importer.report.renumbered == 2
    assert [(each.number, each.workload) for each in jobs_in(target)] == [
        (3, b"mine"), (10, b"free"), (14, b"free too"), (15, b"theirs"), (16, b"ended here"),
    ]  # fmt: skip
    with opened(target) as store:
        assert store.next_number() == 17


def test_what_is_kept_of_a_job_goes_with_it_to_its_new_number(target: str) -> None:
    """Or another job there would be dead from the next start on."""
    with opened(target) as store:
        store.commit(batch(job(3, b"mine"), job(4, b"u", unique=b"u"), next_number=10))

    def theirs() -> list[StoredJob | Record | Unreadable]:
        return [
            *[job(number, b"theirs %d" % number, created=1.6e9) for number in (3, 12)],
            job(4, b"u", unique=b"u", created=1.6e9),  # another job of this unique is there
            *[Record("dead", number_key(number), b"why %d" % number) for number in (3, 4, 7, 12)],
            Record("policy", b"f", b"attempts=1"),
        ]

    expected = {
        ("dead", number_key(20)): b"why 3",
        ("dead", number_key(12)): b"why 12",
        ("policy", b"f"): b"attempts=1",
    }
    for _ in range(2):  # the second time it is there
        importer = take(target, theirs(), 20)
        with opened(target) as store:
            assert {(record.kind, record.key): record.value for record in store.records()} == expected
    assert importer.report.records == 0
    with opened(target) as store:
        letter = Batch(store.next_number())
        letter.records = [Record("dead", number_key(20), None)]
        store.commit(letter)  # as if the first time had come to its end before the records
    take(target, theirs(), 20)
    with opened(target) as store:
        assert {(record.kind, record.key): record.value for record in store.records()} == expected


@pytest.mark.parametrize("form", ["store", "file"])
def test_a_dead_letter_and_a_live_job_of_one_unique_are_two_jobs(form: str, target: str, tmp_path: Path) -> None:
    def letters(*numbers: int) -> tuple[Record, ...]:
        value = pack_letter(FAIL, time.time(), b"why")
        return tuple(Record("dead", number_key(number), value) for number in numbers)

    source = f"sqlite:///{tmp_path}/source.sqlite"
    with opened(source) as store:
        theirs = [
            job(1, b"died there", unique=b"lives here", created=1.0),
            job(2, b"died again", unique=b"lives here", created=2.0),
            job(3, b"lives there", unique=b"died here", created=3.0),
            job(4, b"died there too", unique=b"died", created=4.0),
            job(5, b"lives there too", unique=b"lives", created=5.0),
            job(6, b"moved", unique=b"moved", created=6.0),
        ]
        store.commit(batch(*theirs, records=letters(1, 2, 4, 6), next_number=7))
    with opened(target) as store:
        mine = [
            job(1, b"lives", unique=b"lives here", created=11.0),
            job(2, b"died", unique=b"died here", created=12.0),
            job(3, b"died as well", unique=b"died", created=13.0),
            job(4, b"lives as well", unique=b"lives", created=14.0),
            job(5, b"moved", unique=b"moved", created=6.0),  # by an import that ended before the records
        ]
        store.commit(batch(*mine, records=letters(2, 3), next_number=6))
    if form == "file":
        file = tmp_path / "jobs.jsonl"
        assert geartrain("export", "--store", source, "-o", str(file)).returncode == 0
        source = str(file)
    for taken in (4, 0):
        told = taken_by(target, "--from", source)
        assert sum(row["jobs"] for row in told["taken"]) == taken
        with opened(target) as store:
            dead = {number_of(record.key) for record in store.records("dead")}
        found = jobs_in(target)
        assert sorted((each.workload, each.number in dead) for each in found) == [
            (b"died", True), (b"died again", True), (b"died as well", True), (b"died there", True),
            (b"died there too", True), (b"lives", False), (b"lives as well", False), (b"lives there", False),
            (b"moved", True),
        ]  # fmt: skip
    live = {each.unique: each.number for each in found if each.number not in dead}
    with running_geartrain("--job-handle-prefix=H:t", store=target) as server, connected(server.port) as ask:
        for unique, number in live.items():  # which it joins
            answer = ask(pack_request(SUBMIT_JOB_BG, b"resize", unique, b"x"))
            assert answer.arguments == (b"H:t:%d" % number,), unique


def test_equal_jobs_without_a_unique_are_as_many_as_before(target: str) -> None:
    """From gearmand, which keeps no moment, one stands for one of the same workload."""
    with opened(target) as store:
        store.commit(batch(job(1, b"same"), job(2, b"same"), job(3, b"other"), next_number=4))
    same = [job(0, b"same", created=5.0) for _ in range(3)]
    importer = take(target, [*same, job(0, b"new"), job(0, b"same", unique=b"-")], 1)
    assert importer.report.there == 2
    assert sorted(each.workload or b"" for each in jobs_in(target)) == [b"new", b"other", *[b"same"] * 4]
    # Where the moment is known, it tells equal jobs apart.
    importer = take(target, [job(1, b"same"), job(2, b"same", created=6.0)], 4)
    assert importer.report.there == 1
    assert len(jobs_in(target)) == 7


def test_an_import_that_was_cut_short_is_completed_by_the_next(target: str) -> None:
    some = [job(0, b"%d" % n, unique=b"u%d" % n) for n in range(2000)]

    def cut_short() -> Iterator[StoredJob]:
        yield from some[:1300]
        raise StoreError("the source is gone")

    with opened(target) as store:
        importer = Importer(store, 1, 0.0, dry=False)
        with pytest.raises(StoreError, match="gone"):
            list(importer.take(cut_short()))
        assert store.count() == 1000
    assert take(target, list(some), 1).report.there == 1000
    assert [each.workload for each in jobs_in(target)] == [b"%d" % n for n in range(2000)]
