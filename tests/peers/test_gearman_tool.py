"""Debian's ``gearman`` command, option by option."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest
from peer import ClientOf, Outcome, WorkerOf

from servers import RunningServer, needs

Gearman = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def gearman(job_server: RunningServer) -> Gearman:
    """Runs the gearman command to its end."""
    program = needs("gearman", "gearman-tools")

    def gearman(*options: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [program, "-h", job_server.host, "-p", str(job_server.port), *options]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=10)

    return gearman


def test_it_prints_data_result_and_progress_and_warns_on_stderr(
    gearman: Gearman, worker_of: WorkerOf, function: str
) -> None:
    worker_of("c", {function: "talk"})
    done = gearman("-f", function, "-s")
    assert done.stdout == b"firstlast75% Complete\n"  # into a pipe, it prints the progress at its end
    assert (done.stderr, done.returncode) == (b"careful", 0)


def test_each_argument_is_a_job_for_each_function(gearman: Gearman, worker_of: WorkerOf, function: str) -> None:
    worker_of("perl", {function: "reverse", f"{function}-too": "reverse"})
    done = gearman("-f", function, "-f", f"{function}-too", "-P", "abc", "def")
    outputs = re.findall(rb"(test-\d+(?:-too)?): (cba|fed)", done.stdout)
    names = [function.encode(), f"{function}-too".encode()]
    assert sorted(outputs) == sorted((name, text) for name in names for text in (b"cba", b"fed"))


@pytest.mark.parametrize(("option", "result"), [("-n", b"\neno\nowt"), ("-N", b"enoowt")])
def test_each_line_is_a_job(option: str, result: bytes, gearman: Gearman, worker_of: WorkerOf, function: str) -> None:
    worker_of("php", {function: "reverse"})
    assert gearman("-f", function, option, stdin=b"one\ntwo\n").stdout == result


def test_background_jobs_are_told_by_their_handles(
    gearman: Gearman, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    done = gearman("-f", function, "-b", "-v", "-n", stdin=b"one\ntwo\n")
    handles = re.fullmatch(rb"Task created: (\S+)\nTask created: (\S+)\n", done.stdout)
    assert handles is not None
    assert {row.split("\t")[0].encode() for row in job_server.ask("show jobs")} >= set(handles.groups())
    worker = worker_of("gear", {function: "reverse"})
    assert [worker.taken(), worker.taken()] == [b"one\n", b"two\n"]


def test_the_hash_of_the_workload_can_be_the_unique_key(
    gearman: Gearman, worker_of: WorkerOf, function: str, job_server: RunningServer
) -> None:
    for text in ("hello", "hello", "world"):
        gearman("-f", function, "-b", "-u", "#", text)
    assert job_server.jobs_of(function) == (2, 0)
    worker = worker_of("c", {function: "reverse"})
    assert [worker.taken(), worker.taken()] == [b"hello", b"world"]


def test_a_failed_job_is_an_exit_status(gearman: Gearman, worker_of: WorkerOf, function: str) -> None:
    worker_of("c", {function: "fail"})
    done = gearman("-f", function, "-P", "-s")
    assert (done.stderr, done.returncode) == (f"{function}: Job failed\n".encode(), 1)


def test_it_stops_waiting_after_its_timeout(gearman: Gearman, worker_of: WorkerOf, function: str) -> None:
    done = gearman("-f", function, "-t", "100", "-s")
    assert b"GEARMAN_TIMEOUT" in done.stderr
    worker_of("c", {function: "reverse"})  # gearmand forgets the job only when a worker asks for it


@pytest.mark.parametrize(("option", "data"), [("-n", b"a line\n"), ("-N", b"a line")])
def test_a_worker_can_send_each_line_as_data(
    option: str, data: bytes, client_of: ClientOf, function: str, job_server: RunningServer
) -> None:
    program = needs("gearman", "gearman-tools")
    command = [program, "-h", job_server.host, "-p", str(job_server.port), "-w", "-c", "1", option]
    with subprocess.Popen([*command, "-f", function, "echo", "a line"]) as worker:
        client = client_of("c")
        client.submit(function, b"go on")
        assert client.outcome() == Outcome("complete", b"", [("data", data)])
        assert worker.wait(10) == 0  # -c 1: it leaves after one job


def test_what_a_failing_command_printed_is_data(client_of: ClientOf, worker_of: WorkerOf, function: str) -> None:
    worker_of("tool", {function: "fail"})
    client = client_of("gear")
    client.submit(function, b"try this")
    assert client.outcome() == Outcome("fail", b"", [("data", b"so far")])


def test_a_worker_without_a_command_prints_the_workload(
    client_of: ClientOf, function: str, job_server: RunningServer
) -> None:
    program = needs("gearman", "gearman-tools")
    command = [program, "-h", job_server.host, "-p", str(job_server.port), "-w", "-c", "1", "-f", function]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        client = client_of("perl")
        client.submit(function, b"print this")
        assert client.outcome() == Outcome("complete", b"")
        assert worker.communicate(timeout=10)[0] == b"print this"
