"""Debian's ``gearadmin`` command, every operation of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from peer import PEERS, ClientOf, WorkerOf

from servers import KnownDifference, RunningServer, needs, wait_until

GearAdmin = Callable[..., str]


@pytest.fixture
def gearadmin(job_server: RunningServer) -> GearAdmin:
    """Runs gearadmin; returns what it printed, to either side: it exits with 0 even when the server said no."""
    program = needs("gearadmin", "gearman-tools")

    def gearadmin(*options: str) -> str:
        command = [program, "-h", job_server.host, "-p", str(job_server.port), *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return gearadmin


def row(table: str, first: str) -> list[str]:
    """The cells of the row that begins with ``first``, in a table that ends as it should."""
    *rows, dot = table.splitlines()
    assert dot == "."
    (found,) = [cells for cells in (line.split("\t") for line in rows) if cells[0] == first]
    return found[1:]


def test_what_the_server_is(gearadmin: GearAdmin, job_server: RunningServer) -> None:
    (version,) = job_server.ask("version")
    assert gearadmin("--server-version") == version.removeprefix("OK ") + "\n"
    assert gearadmin("--getpid") == f"{job_server.process.pid}\n"
    levels = ["FATAL", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"]
    assert gearadmin("--server-verbose").rstrip("\n") in levels


def test_functions_come_and_go(gearadmin: GearAdmin, function: str) -> None:
    assert gearadmin("--create-function", function) == "OK\n"
    assert row(gearadmin("--status"), function) == ["0", "0", "0"]
    assert gearadmin("--drop-function", function) == "OK\n"
    assert function not in gearadmin("--status")
    assert gearadmin("--drop-function", function) == "Error: function not found\n"


def test_jobs_are_listed_and_cancelled(
    gearadmin: GearAdmin, client_of: ClientOf, function: str, known_difference: KnownDifference
) -> None:
    client = client_of("c")
    high, normal, low = (
        client.background(function, b"", unique=f"{function}-{priority}", priority=priority)
        for priority in ("high", "normal", "low")
    )
    assert row(gearadmin("--status"), function) == ["3", "0", "0"]
    assert row(gearadmin("--priority-status"), function) == ["1", "1", "1", "0"]
    jobs = gearadmin("--show-jobs")
    assert [row(jobs, handle) for handle in (high, normal, low)] == [["0", "0", "1"]] * 3
    uniques = gearadmin("--show-unique-jobs").splitlines()
    assert {f"{function}-{priority}" for priority in ("high", "normal", "low")} <= set(uniques)
    for handle in (high, normal, low):
        assert gearadmin("--cancel-job", handle) == "OK\n"
    assert gearadmin("--cancel-job", "H:nowhere:99") == "Error: UNKNOWN_JOB\n"
    known_difference("gearmand", "keeps a cancelled job in its lists until a worker comes by")
    assert gearadmin("--cancel-job", high) == "Error: UNKNOWN_JOB\n"
    assert row(gearadmin("--status"), function) == ["0", "0", "0"]


def test_a_waiting_client_is_told_that_its_job_was_cancelled(
    gearadmin: GearAdmin, client_of: ClientOf, worker_of: WorkerOf, function: str
) -> None:
    for peer in PEERS:
        client = client_of(peer)
        handle = client.submit(function, b"never mind")
        assert gearadmin("--cancel-job", handle) == "OK\n"
        assert client.outcome().end == "fail"
    worker_of("c", {function: "reverse"})  # gearmand forgets the jobs only when a worker asks for one


@pytest.mark.parametrize("peer", PEERS)
def test_workers_are_listed_with_their_name_and_functions(
    peer: str, gearadmin: GearAdmin, worker_of: WorkerOf, function: str
) -> None:
    worker_of(peer, {function: "reverse"})
    name = "-" if peer == "tool" else f"test-{peer}"

    def listed() -> bool:
        return any(line.endswith(f" 127.0.0.1 {name} : {function}") for line in gearadmin("--workers").splitlines())

    wait_until(listed, f"{peer}'s worker is listed as {name}")
    assert row(gearadmin("--status"), function) == ["0", "0", "1"]


def test_a_function_with_a_worker_cannot_be_dropped(gearadmin: GearAdmin, worker_of: WorkerOf, function: str) -> None:
    worker_of("perl", {function: "reverse"})
    wait_until(lambda: function in gearadmin("--status"), "the worker is there")
    refusal = "Error: there are still connected workers or executing clients\n"
    assert gearadmin("--drop-function", function) == refusal


def test_several_operations_run_on_one_connection_the_last_first(gearadmin: GearAdmin, function: str) -> None:
    answer = gearadmin("--status", "--server-version", "--create-function", function)
    version = gearadmin("--server-version")
    assert answer.startswith(f"OK\n{version}")
    assert answer.endswith(".\n")
    assert f"\n{function}\t0\t0\t0\n" in answer
