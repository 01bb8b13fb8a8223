"""``geartrain submit`` and ``geartrain work``, each through the other."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

from cli.conftest import Command, environment_of, working
from geartrain.client import Client
from geartrain.worker import AssignedJob, Worker
from servers import RunningServer, wait_until


def test_a_workload_from_the_standard_input_comes_back_byte_for_byte(geartrain: Command, server: RunningServer) -> None:
    data = bytes(range(256)) * 5000
    with working(server, "cat", "--", "cat"):
        done = geartrain("submit", "cat", input=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_each_argument_is_a_job_and_results_keep_their_order(geartrain: Command, server: RunningServer) -> None:
    with working(server, "slow-first", "-j", "3", "--", "sh", "-c", 'read x; [ "$x" = a ] && sleep 0.3; printf "$x"'):
        done = geartrain("submit", "slow-first", "a\n", "b\n", "c\n")
    assert (done.returncode, done.stdout) == (0, b"a\nb\nc\n")


def test_each_line_is_a_job(geartrain: Command, server: RunningServer) -> None:
    with working(server, "rev", "--", "rev"):
        done = geartrain("submit", "--lines", "rev", input=b"one\n\ntwo")
    assert (done.returncode, done.stdout) == (0, b"eno\n\nowt\n")


def test_a_command_finds_its_job_in_the_environment(geartrain: Command, server: RunningServer) -> None:
    script = 'echo "$GEARMAN_FUNCTION $GEARMAN_UNIQUE $GEARMAN_HANDLE"'
    with working(server, "whoami", "--", "sh", "-c", script):
        words = geartrain("submit", "whoami", "", "-u", "key").stdout.split()
    assert words[:2] == [b"whoami", b"key"]
    assert words[2].startswith(b"H:t:")


def test_an_exit_status_makes_the_job_fail(geartrain: Command, server: RunningServer) -> None:
    with working(server, "fail", "--", "sh", "-c", "echo so far; echo why >&2; exit 3") as worker:
        done = geartrain("submit", "fail", "")
        assert (done.returncode, done.stdout) == (1, b"so far\n")
        assert b"job failed" in done.stderr
        worker.terminate()
        assert worker.stderr is not None
        log = worker.stderr.read()
    assert b"why\n" in log
    assert b"sh ended with status 3" in log


def test_of_many_jobs_those_that_fail_are_told(geartrain: Command, server: RunningServer) -> None:
    with working(server, "even", "--", "sh", "-c", "read x; echo $x; exit $((x % 2))"):
        done = geartrain("submit", "-n", "even", input=b"2\n3\n4\n")
    assert done.returncode == 1
    assert done.stdout == b"2\n\n3\n4\n\n"
    assert done.stderr.startswith(b"geartrain: job 2: ")


def test_a_command_that_takes_too_long_is_killed(geartrain: Command, server: RunningServer) -> None:
    with working(server, "sleep", "--timeout", "300ms", "--", "sh", "-c", "sleep 60; echo never"):
        began = time.monotonic()
        done = geartrain("submit", "sleep", "")
        assert done.returncode == 1
        assert time.monotonic() - began < 10


def test_lines_are_sent_as_they_are_printed(server: RunningServer) -> None:
    with (
        working(server, "drip", "--lines", "--", "sh", "-c", "echo 1; read x < /dev/null; echo 2"),
        Client(server.address) as client,
    ):
        events = list(client.submit("drip").events())
    assert [getattr(event, "data", None) for event in events] == [b"1\n", b"2\n"]


def test_a_signal_lets_the_job_at_hand_end(geartrain: Command, server: RunningServer) -> None:
    command = ["sh", "-c", "sleep 0.5; echo done"]
    with working(server, "patient", "--", *command) as worker, Client(server.address) as client:
        job = client.submit("patient")
        wait_until(lambda: server.jobs_of("patient") == (1, 1), "the job runs")
        worker.terminate()
        assert job.result(timeout=10) == b"done\n"
        assert worker.wait(10) == 0


def test_what_does_not_end_in_time_is_given_up_and_killed(server: RunningServer) -> None:
    with (
        working(server, "stubborn", "--grace", "200ms", "--", "sh", "-c", "sleep 61") as worker,
        Client(server.address) as client,
    ):
        client.submit_background("stubborn")
        wait_until(lambda: server.jobs_of("stubborn") == (1, 1), "the job runs")
        children = subprocess.run(["pgrep", "-P", str(worker.pid)], capture_output=True, text=True).stdout.split()
        assert len(children) == 1
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 1
        wait_until(lambda: server.jobs_of("stubborn") == (1, 0), "the job is queued again")
        wait_until(lambda: not os.path.exists(f"/proc/{children[0]}"), "the command is killed")


def test_background_jobs_are_told_by_their_handles(geartrain: Command, server: RunningServer) -> None:
    one = geartrain("submit", "--background", "bg", "x").stdout.decode()
    assert one.startswith(f"{server.address}//H:t:")
    several = geartrain("submit", "-b", "-n", "bg", input=b"1\n2\n3\n").stdout.decode().splitlines()
    assert len({one.strip(), *several}) == 4
    assert server.jobs_of("bg") == (4, 0)


def test_a_time_in_the_future_is_kept(geartrain: Command, server: RunningServer) -> None:
    for when in ("1h", "23:59:59", "2100-01-31T18:30", "4102444800"):
        assert geartrain("submit", "later", "x", "--when", when).returncode == 0
    assert server.jobs_of("later") == (4, 0)
    done = geartrain("submit", "later", "x", "--when", "soon")
    assert done.returncode == 2
    assert b"'soon' is no time: write 5m, 18:30, 2030-01-31T18:30, or Unix time" in done.stderr


def test_priorities_are_passed_on(geartrain: Command, server: RunningServer) -> None:
    for flag in ("-H", "-I", "--low", "-u x"):
        geartrain("submit", "-b", "ranks", "x", *flag.split())
    assert "ranks\t2\t1\t1\t0" in server.ask("prioritystatus")
    assert geartrain("submit", "ranks", "x", "-H", "-L").returncode == 2


def test_nobody_there_is_a_matter_of_time(geartrain: Command) -> None:
    done = geartrain("submit", "nobody", "x", "--timeout", "200ms")
    assert (done.returncode, done.stderr) == (4, b"geartrain: no result within 0.2 s; the job itself goes on\n")


def test_the_text_of_an_exception_is_shown(geartrain: Command, server: RunningServer) -> None:
    worker = Worker(server.address)

    @worker.function("raises")
    def raises(job: AssignedJob) -> bytes:
        job.warn(b"careful\n")
        raise ValueError("no such \x1b[2Jthing")

    with worker:
        done = geartrain("submit", "raises", "x")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"careful\n")
    assert done.stderr.endswith(b"ValueError: no such \\x1b[2Jthing\n")


def test_progress_is_a_bar_on_a_terminal(server: RunningServer) -> None:
    worker = Worker(server.address)
    ours, terminal = pty.openpty()
    shown = bytearray()

    @worker.function("bar")
    def bar(job: AssignedJob) -> bytes:
        for done in range(4):
            job.progress(done, 4)
        while b"3/4" not in shown:
            shown.extend(os.read(ours, 100_000))
        return b"result"

    with worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "geartrain", "submit", "bar", "x"],
            stdout=subprocess.PIPE,
            stderr=terminal,
            env={**environment_of(server), "TERM": "xterm"},
        )
        os.close(terminal)
        output, _ = process.communicate(timeout=30)
        os.close(ours)
    assert (process.returncode, output) == (0, b"result")


def test_work_needs_a_command(geartrain: Command) -> None:
    for arguments, told in (
        (["f"], b"write the command after --, as in: geartrain work reverse -- rev"),
        (["f", "--", "no-such-command"], b"there is no command 'no-such-command' here"),
        (["--", "rev"], b"Missing argument"),
    ):
        done = geartrain("work", *arguments)
        assert done.returncode == 2
        assert told in done.stderr
