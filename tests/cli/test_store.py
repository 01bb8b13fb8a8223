"""``geartrain store``: looking into stores, moving jobs, tidying up."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geartrain.jobserver.records import POSITION_BITS, Batch, Record, StoredJob
from geartrain.store import engine
from servers import running_geartrain

Store = Callable[..., subprocess.CompletedProcess[str]]

NOW = time.time()


def job(number: int, function: bytes, workload: bytes = b"", **fields: Any) -> StoredJob:
    given: dict[str, Any] = {
        "unique": b"",
        "priority": 1,
        "due": 0.0,
        "reducer": b"",
        "attempts": 0,
        "created": NOW - 60,
        **fields,
    }
    return StoredJob(
        number=number,
        position=number << POSITION_BITS,
        function=function,
        workload=workload,
        size=len(workload),
        **given,
    )


JOBS = [
    job(1, b"resize", b"one", unique=b"u1", created=NOW - 3 * 86400),
    job(2, b"resize", b"\x00\x01\xff" * 20, priority=0, attempts=2, reducer=b"sum"),
    job(3, b"resize", b"x" * 100_000, priority=2),
    job(4, b"mail", b"Gr\xc3\xbc\xc3\x9fe\n\x1b[2J", unique=b"-", due=NOW + 7200),
    job(5, b"\xff", b"", unique=b"\xfe"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store with some jobs in it."""
    file = tmp_path / "queue.sqlite"
    store = engine(f"sqlite:///{file}")
    store.open()
    batch = Batch(100)
    batch.added = list(JOBS)
    store.commit(batch)
    store.close()
    return file


def keep(url: str, records: list[Record]) -> None:
    store = engine(url)
    store.open()
    batch = Batch(1)
    batch.records = records
    store.commit(batch)
    store.close()


@pytest.fixture
def store(file: Path) -> Store:
    """Run ``geartrain store`` on it: its place is told by the environment."""

    def run(*arguments: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "geartrain", "store", *arguments],
            env={**os.environ, "GEARTRAIN_STORE": f"sqlite:///{file}", "COLUMNS": "100", **environment},
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return done

    return run


def numbers(store: Store) -> list[int]:
    return [row["number"] for row in json.loads(store("list", "--jobs", "--json").stdout)]


def spoil(file: Path, number: int) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(f"UPDATE geartrain_jobs SET priority = 77 WHERE number = {number}")


# Looking


def test_jobs_are_listed_by_function_and_priority(store: Store) -> None:
    done = store("list")
    assert done.returncode == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["function", "priority", "jobs", "later", "bytes", "oldest"],
        ["mail", "normal", "1", "1", "12", "B", "1m", "0s", "ago"],
        ["resize", "high", "1", "0", "60", "B", "1m", "0s", "ago"],
        ["resize", "normal", "1", "0", "3", "B", "3d", "0h", "ago"],
        ["resize", "low", "1", "0", "100", "kB", "1m", "0s", "ago"],
        ["\\xff", "normal", "1", "0", "0", "B", "1m", "0s", "ago"],
    ] or done.stdout
    rows = json.loads(store("list", "--json", "mail").stdout)
    assert rows == [
        {"function": "mail", "priority": "normal", "jobs": 1, "later": 1, "bytes": 12, "oldest": NOW - 60},
    ]


def test_jobs_are_listed_one_by_one_in_their_order(store: Store) -> None:
    assert numbers(store) == [1, 2, 3, 4, 5]
    rows = json.loads(store("list", "--jobs", "--limit", "2", "--json", "resize").stdout)
    assert [row["number"] for row in rows] == [1, 2]
    assert rows[1]["attempts"] == 2
    before = time.time()
    table = store("list", "--jobs").stdout
    minutes = {int(NOW + 7200 - at) // 60 for at in (before, time.time())}  # other tests have run since NOW
    assert any(f"in {left // 60}h {left % 60}m" in table for left in minutes)
    assert "u1" in table


def test_a_job_is_shown_by_its_handle(store: Store) -> None:
    shown = store("show", "H:host:4").stdout
    assert "mail" in shown
    assert "Grüße" in shown
    assert "\x1b" not in shown
    binary = store("show", "2").stdout
    assert "00 01 ff" in binary
    assert "lost workers  2" in binary
    assert "reducer       sum" in binary
    large = store("show", "3").stdout
    assert "98,000 bytes more" in large
    assert json.loads(store("show", "3", "--json").stdout)["workload"] == base64.b64encode(b"x" * 100_000).decode()


def test_a_workload_is_given_byte_for_byte(file: Path) -> None:
    command = [sys.executable, "-m", "geartrain", "store", "show", "2", "--workload", "--store", f"sqlite:///{file}"]
    assert subprocess.run(command, capture_output=True, timeout=60).stdout == JOBS[1].workload


def test_what_is_not_there_is_told(store: Store, tmp_path: Path) -> None:
    missing = store("show", "99")
    assert (missing.returncode, missing.stderr) == (
        1,
        "geartrain: the store keeps no job 99: it has ended, or never was\n",
    )
    assert "'x' is no job: write a handle" in store("show", "x").stderr
    nowhere = store("list", "--store", f"sqlite:///{tmp_path}/no/such/folder.sqlite")
    assert (nowhere.returncode, "there is no folder" in nowhere.stderr) == (1, True)
    new = store("list", "--store", f"sqlite:///{tmp_path}/new.sqlite")
    assert (new.returncode, "is new: no job has been kept there" in new.stderr) == (0, True)
    assert "memory: keeps nothing" in store("list", "--store", "memory:").stderr
    assert store("check", "--store", "redis://127.0.0.1:1/0").returncode == 3


def test_the_place_is_that_of_the_job_server(store: Store, tmp_path: Path, file: Path) -> None:
    toml = tmp_path / "geartrain.toml"
    toml.write_text(f'store = "sqlite:///{file}"\n')
    assert "resize" in store("list", "--config", str(toml), GEARTRAIN_STORE="").stdout
    assert "resize" in store("list", GEARTRAIN_STORE="", GEARTRAIN_CONFIG=str(toml)).stdout
    file.rename(tmp_path / "state.sqlite").parent.joinpath("state").mkdir()
    (tmp_path / "state.sqlite").rename(tmp_path / "state" / "queue.sqlite")
    assert "resize" in store("list", GEARTRAIN_STORE="", STATE_DIRECTORY=str(tmp_path / "state")).stdout


def test_while_a_job_server_uses_it_that_is_to_be_asked(store: Store, file: Path) -> None:
    with running_geartrain(store=f"sqlite:///{file}"):
        for command in (["list"], ["check"], ["purge", "--all", "--yes"], ["export"]):
            done = store(*command)
            assert done.returncode == 5
            assert "in use by another job server (process" in done.stderr
            assert "geartrain admin" in done.stderr
    assert numbers(store) == [1, 2, 3, 4, 5]


# Checking


def test_a_sound_store_is_told_with_what_it_promises(store: Store) -> None:
    done = store("check")
    assert done.returncode == 0
    assert "a power cut" in done.stdout
    assert "jobs          5, 100 kB; all of them were read" in done.stdout
    assert "quarantined   none" in done.stdout
    told = json.loads(store("check", "--json").stdout)
    assert (told["jobs"], told["next_number"], told["quarantined"]) == (5, 100, [])


def test_what_can_not_be_read_is_quarantined_and_told_for_ever(store: Store, file: Path) -> None:
    spoil(file, 3)
    first = store("check")
    assert first.returncode == 1
    assert "1 that can't be made sense of" in first.stdout
    assert "priority 77" in first.stdout
    again = store("check", "--json")
    assert again.returncode == 1
    [aside] = json.loads(again.stdout)["quarantined"]
    assert (aside["number"], "priority 77" in aside["reason"]) == (3, True)
    assert numbers(store) == [1, 2, 4, 5]


def test_a_listing_goes_on_after_what_can_not_be_read(store: Store, file: Path) -> None:
    spoil(file, 2)
    done = store("list", "--jobs", "--json")
    assert done.returncode == 1
    assert [row["number"] for row in json.loads(done.stdout)] == [1, 3, 4, 5]
    assert "job 2 can't be read and has been quarantined: " in done.stderr


# Moving


def test_an_export_is_lines_of_json_that_come_back(store: Store, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in store("export").stdout.splitlines()]
    assert lines[0] == {"geartrain": "jobs", "version": 2, "jobs": 5, "next_number": 100}
    assert [(line["number"], line["function"]) for line in lines[1:]] == [
        (1, "resize"), (2, "resize"), (3, "resize"), (4, "mail"), (5, {"base64": "/w=="}),
    ]  # fmt: skip
    target = f"sqlite:///{tmp_path}/target.sqlite"
    written = tmp_path / "jobs.jsonl"
    assert store("export", "resize", "-o", str(written)).returncode == 0
    assert [path.name for path in tmp_path.glob("*.part")] == []
    done = store("import", "--from", str(written), "--to", target)
    assert (done.returncode, "3 jobs were taken" in done.stdout) == (0, True)
    everything = store("export").stdout
    done = store("import", "--from", "-", "--to", target, input=everything)
    assert (done.returncode, "2 jobs were taken" in done.stdout) == (0, True)
    assert "3 are there already" in done.stdout
    assert "2 got new handles" in done.stdout  # the first import told how far handles had been given out
    fresh = f"sqlite:///{tmp_path}/fresh.sqlite"
    assert store("import", "--from", "-", "--to", fresh, input=everything).returncode == 0
    assert store("export", "--store", fresh).stdout == everything


def test_a_line_that_is_no_job_is_left_out_and_told(store: Store, tmp_path: Path) -> None:
    head, first, *rest = store("export").stdout.splitlines()
    spoilt = [first.replace('"priority":1', '"priority":9'), first.replace('"workload":"', '"workload":"?'), "{", "[]"]
    target = f"sqlite:///{tmp_path}/target.sqlite"
    done = store("import", "--from", "-", "--to", target, input="\n".join([head, *spoilt, *rest]))
    assert done.returncode == 1
    assert "4 jobs were taken" in done.stdout
    for number in (2, 3, 4, 5):
        assert f"  line {number}: " in done.stderr
    newer = head.replace('"version":2', '"version":3')
    assert "has version 3" in store("import", "--from", "-", "--to", target, input=newer).stderr


def test_numbers_at_the_edges_are_left_out_and_told(store: Store, tmp_path: Path) -> None:
    head, first, *rest = store("export").stdout.splitlines()
    job = json.loads(first)
    extremes: list[dict[str, object]] = [
        {"number": 2**62}, {"number": 2**63 - 1}, {"number": -5}, {"number": 10**400}, {"position": 2**64},
        {"attempts": 2**40}, {"attempts": -1}, {"priority": 77}, {"due": float("inf")}, {"due": float("nan")},
        {"due": 1e300}, {"created": -1e18}, {"number": float("inf")}, {"created": 10**400},
    ]  # fmt: skip
    lines = [json.dumps(job | extreme) for extreme in extremes]
    for n, next_number in enumerate((100, 2**63 - 1, -1, 10**400, float("inf"))):
        target = f"sqlite:///{tmp_path}/{n}.sqlite"
        told = json.dumps(json.loads(head) | {"next_number": next_number})
        done = store("import", "--from", "-", "--to", target, input="\n".join([told, *lines, *rest]))
        assert "4 jobs were taken" in done.stdout, done.stderr
        assert f"{len(extremes)} could not be taken" in done.stderr
        assert "Traceback" not in done.stderr
        jobs = json.loads(store("list", "--jobs", "--json", "--store", target).stdout)
        assert [0 < row["number"] < 200 for row in jobs] == [True] * 4


def test_an_export_of_before_is_read(store: Store, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in store("export").stdout.splitlines()]
    lines[0]["version"] = 1
    for line in lines[1:]:
        line["place"] = line.pop("position") + 1
    target = f"sqlite:///{tmp_path}/target.sqlite"
    done = store("import", "--from", "-", "--to", target, input="\n".join(map(json.dumps, lines)))
    assert "5 jobs were taken" in done.stdout
    exported = [json.loads(line) for line in store("export", "--store", target).stdout.splitlines()]
    assert [line["position"] for line in exported[1:]] == [line["place"] for line in lines[1:]]


def test_records_go_with_the_jobs(store: Store, tmp_path: Path, file: Path) -> None:
    some = [Record("policy", b"f", b"one"), Record("result", b"\xff", bytes(300), 4e9), Record("result", b"2", b"")]
    keep(f"sqlite:///{file}", some)
    kinds = json.loads(store("check", "--json").stdout)["records"]
    assert kinds == {"policy": 1, "result": 2}
    assert "1 of policy, 2 of result" in store("check").stdout
    written = tmp_path / "jobs.jsonl"
    assert "5 jobs were written, and 3 records" in store("export", "-o", str(written)).stderr
    target = f"sqlite:///{tmp_path}/target.sqlite"
    for source in (str(written), f"sqlite:///{file}"):
        done = store("import", "--from", source, "--to", target)
        assert ("3 records were taken" in done.stdout) == (source == str(written))
    assert store("export", "--store", target).stdout == written.read_text()
    assert "policy" not in store("export", "resize").stdout
    assert "2 records would be removed" in store("purge", "--records", "result", "--dry-run").stdout
    assert "2 records were removed" in store("purge", "--records", "result", "--yes").stdout
    assert json.loads(store("check", "--json").stdout)["records"] == {"policy": 1}
    assert "no such records" in store("purge", "--records", "result", "--yes").stdout
    assert numbers(store) == [1, 2, 3, 4, 5]


def test_an_export_is_for_nobody_else_to_read(store: Store, tmp_path: Path) -> None:
    written = tmp_path / "jobs.jsonl"
    before = os.umask(0)
    try:
        assert store("export", "-o", str(written)).returncode == 0
    finally:
        os.umask(before)
    assert written.stat().st_mode & 0o777 == 0o600


def test_where_an_export_can_not_be_written_is_told(store: Store) -> None:
    done = store("export", "-o", "/nowhere/at/all.jsonl")
    assert done.returncode == 1
    assert "can't be written: No such file or directory" in done.stderr


# Tidying up


def test_jobs_are_removed_by_function_or_age_or_all(store: Store) -> None:
    dry = store("purge", "--older-than", "2d", "--dry-run")
    assert "1 jobs would be removed" in dry.stdout
    assert numbers(store) == [1, 2, 3, 4, 5]
    assert store("purge", "--older-than", "2d", "--yes").returncode == 0
    assert numbers(store) == [2, 3, 4, 5]
    assert store("purge", "resize", "--yes").returncode == 0
    assert numbers(store) == [4, 5]
    assert "no such jobs" in store("purge", "resize", "--yes").stdout
    assert store("purge", "--all", "--yes").returncode == 0
    assert numbers(store) == []


def test_nothing_is_removed_without_a_yes(store: Store) -> None:
    for arguments, answer, code in (("--all", "n\n", 1), ("--all", "", 130), ("", "y\n", 2), ("--all mail", "y\n", 2)):
        assert store("purge", *arguments.split(), input=answer).returncode == code
    assert numbers(store) == [1, 2, 3, 4, 5]
    assert store("purge", "--all", input="y\n").returncode == 0
    assert numbers(store) == []
