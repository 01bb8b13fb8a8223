"""``geartrain why``, ``show``, ``result``, ``retry``, ``priority`` and ``dead``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.conftest import Command, environment_of, working
from daemon_peer import DaemonPeer
from geartrain.client import AdminClient, Client
from geartrain.wire.packets import CAN_DO, GRAB_JOB, WORK_EXCEPTION, WORK_FAIL, pack_request
from servers import RunningServer, running_geartrain, wait_until


def submitted(geartrain: Command, function: str, *data: str) -> list[str]:
    """Background jobs; their handles, without their server."""
    lines = geartrain("submit", "-b", function, *data).stdout.decode().split()
    return [line.partition("//")[2] for line in lines]


def bury(server: RunningServer, geartrain: Command, function: str, *data: str) -> list[str]:
    """Have jobs with these workloads die, the first ones of their function."""
    assert geartrain("policy", "set", function, "dead=1d").returncode == 0
    handles = submitted(geartrain, function, *data)
    admin = AdminClient(server.address)
    with working(server, function, "--", "sh", "-c", "exit 3"):
        wait_until(lambda: len(admin.dead_letters(function)) == len(data), "the jobs are dead")
    return handles


def rows(geartrain: Command, *arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(geartrain(*arguments, "--json").stdout)
    return found


def test_a_waiting_job_says_why(geartrain: Command, server: RunningServer) -> None:
    [handle] = submitted(geartrain, "waits", "x")
    for written in (handle, f"{server.address}//{handle}"):
        done = geartrain("why", written)
        assert done.returncode == 0
        assert done.stdout.startswith(b"waiting ")
        assert done.stdout.endswith(b": no worker is registered for waits\n")
    told = json.loads(geartrain("why", handle, "--json").stdout)
    assert told["handle"] == handle
    assert told["why"].endswith("no worker is registered for waits")


def test_a_job_is_shown(geartrain: Command, server: RunningServer) -> None:
    [handle] = submitted(geartrain, "looked-at", "12345")
    lines = dict(line.split(maxsplit=1) for line in geartrain("show", handle).stdout.decode().splitlines())
    assert lines["handle"] == f"{server.address}//{handle}"
    assert (lines["function"], lines["state"], lines["workload"]) == ("looked-at", "queued", "5 B")
    assert lines["priority"] == "normal, background"
    assert "no worker is registered for looked-at" in lines["why"]
    assert geartrain("priority", handle, "high").returncode == 0
    told = json.loads(geartrain("show", handle, "--json").stdout)
    assert (told["handle"], told["server"], told["priority"]) == (handle, server.address, "high")
    assert (told["size"], told["background"], told["worker"], told["history"]) == (5, True, None, [])


def test_the_attempts_of_a_dead_job_are_shown(geartrain: Command, server: RunningServer) -> None:
    [handle] = bury(server, geartrain, "dies", "\x1b[2Jevil")
    done = geartrain("dead", "show", handle)
    assert b"\x1b" not in done.stdout
    text = done.stdout.decode()
    assert "state         dead\n" in text
    assert "reason        fail\n" in text
    head, row = (line.split() for line in text.splitlines() if line.startswith(("attempt ", "      1 ")))
    assert head == ["attempt", "began", "took", "ended", "by", "worker", "text"]
    assert (row[0], row[5]) == ("1", "fail")
    assert text.endswith("\n\n  \\x1b[2Jevil\n")
    assert geartrain("dead", "show", handle, "--workload").stdout == b"\x1b[2Jevil"
    told = json.loads(geartrain("dead", "show", handle, "--json").stdout)
    assert (told["state"], told["reason"], told["workload"]) == ("dead", "fail", "G1sySmV2aWw=")
    assert told["history"][0]["reason"] == "fail"
    assert geartrain("dead", "purge", handle).returncode == 0


def test_a_dead_letter_whose_workload_is_in_the_store_alone_is_shown(geartrain: Command, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jobs.db"
    with running_geartrain("--job-handle-prefix=H:s", store=store) as server:
        assert geartrain("policy", "set", "large", "dead=1d", "--server", server.address).returncode == 0
        with working(server, "large", "--", "sh", "-c", "exit 3"), Client(server.address) as client:
            handle = bytes(client.submit_background("large", bytes(200_000))).decode()
            wait_until(lambda: AdminClient(server.address).show_job(handle).state == "dead", "the job is dead")
    with running_geartrain("--job-handle-prefix=H:s", store=store) as server:
        where = ["--server", server.address]
        done = geartrain("dead", "show", handle, *where)
        assert done.returncode == 0
        assert b"reason        fail\n" in done.stdout
        assert b"\n\n  The workload is large and in the store alone; it is read when" in done.stdout
        assert json.loads(geartrain("dead", "show", handle, "--json", *where).stdout)["workload"] is None
        alone = geartrain("dead", "show", handle, "--workload", *where)
        assert alone.returncode == 5
        assert b"IN_STORE" in alone.stderr


def test_a_text_of_many_lines_is_shown_as_lines(geartrain: Command, server: RunningServer) -> None:
    assert geartrain("policy", "set", "raises", "dead=1d").returncode == 0
    [handle] = submitted(geartrain, "raises", "x")
    with DaemonPeer(server.port) as peer:
        peer.send(pack_request(CAN_DO, b"raises") + pack_request(GRAB_JOB))
        peer.receive()
        peer.send(pack_request(WORK_EXCEPTION, handle.encode(), b"Traceback:\n  line 1\n\x1b[2JKeyError"))
        peer.send(pack_request(WORK_FAIL, handle.encode()))
        wait_until(lambda: AdminClient(server.address).show_job(handle).state == "dead", "the job is dead")
    done = geartrain("show", handle)
    assert b"\x1b" not in done.stdout
    assert "reason        exception\n  Traceback:\n    line 1\n  \\x1b[2JKeyError\n\n" in done.stdout.decode()
    assert done.stdout.decode().endswith("exception  - 127.0.0.1  \\x1b[2JKeyError\n")
    assert geartrain("dead", "list", "--function", "raises").stdout.decode().endswith("  \\x1b[2JKeyError\n")
    assert geartrain("dead", "purge", handle).returncode == 0


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"C:\\new\\table\tof\nlines", "C:\\new\\table\tof\nlines"),
        ("grün".encode("latin-1"), {"base64": "Z3L8bg=="}),
    ],
)
def test_a_text_is_told_to_machines_as_it_was_said(
    geartrain: Command, server: RunningServer, said: bytes, text: object
) -> None:
    assert geartrain("policy", "set", "says", "dead=1d").returncode == 0
    [handle] = submitted(geartrain, "says", "x")
    with DaemonPeer(server.port) as peer:
        peer.send(pack_request(CAN_DO, b"says") + pack_request(GRAB_JOB))
        peer.receive()
        peer.send(pack_request(WORK_EXCEPTION, handle.encode(), said))
        wait_until(lambda: AdminClient(server.address).show_job(handle).state == "dead", "the job is dead")
    told = json.loads(geartrain("show", handle, "--json").stdout)
    assert (told["text"], told["history"][0]["text"]) == (text, text)
    assert rows(geartrain, "dead", "list", "--function", "says")[0]["text"] == text
    shown = geartrain("show", handle).stdout.decode()
    assert ("\n  C:\\new\\table\tof\n  lines\n" in shown) == isinstance(text, str)
    assert geartrain("dead", "purge", handle).returncode == 0


def test_a_result_is_printed_and_waited_for(geartrain: Command, server: RunningServer) -> None:
    assert geartrain("policy", "set", "kept", "results=1h").returncode == 0
    handle = geartrain("submit", "-b", "-u", "a key", "kept", "a\xffb").stdout.decode().strip()
    early = geartrain("result", handle)
    assert early.returncode == 4
    assert b"has not ended yet; it goes on at the job server" in early.stderr
    late = geartrain("result", handle, "--wait", "50ms")
    assert late.returncode == 4
    assert b"has not ended within 0.05 s" in late.stderr
    waiting = subprocess.Popen(
        [sys.executable, "-m", "geartrain", "result", handle, "--wait", "20"],
        stdout=subprocess.PIPE,
        env=environment_of(server),
    )
    with working(server, "kept", "--", "cat"):
        assert waiting.communicate(timeout=20)[0] == "a\xffb".encode()
    assert waiting.returncode == 0
    assert geartrain("result", "--function", "kept", "--unique", "a key").stdout == "a\xffb".encode()
    assert json.loads(geartrain("result", handle, "--json").stdout) == {
        "handle": handle,
        "ended": "completed",
        "data": "a\xffb",
    }


def test_a_result_that_failed_or_is_not_kept(geartrain: Command, server: RunningServer) -> None:
    assert geartrain("policy", "set", "lost", "results=1h").returncode == 0
    [handle] = submitted(geartrain, "lost", "x")
    with working(server, "lost", "--", "sh", "-c", "exit 3"):
        failed = geartrain("result", handle, "--wait", "20s")
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert b"the job failed" in failed.stderr
    done = geartrain("result", handle, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"handle": handle, "ended": "failed", "data": ""}
    gone = geartrain("result", "H:t:999999")
    assert gone.returncode == 5
    assert b"to have results kept set a policy: geartrain policy set FUNCTION results=1h" in gone.stderr
    for words in ([], [handle, "--function", "f", "--unique", "u"], ["--function", "f"], [handle, "--unique", "u"]):
        wrong = geartrain("result", *words)
        assert wrong.returncode == 2
        assert b"say which job: a HANDLE, or --function and --unique" in wrong.stderr


def test_a_result_that_is_no_text_is_base64_in_json(geartrain: Command, server: RunningServer) -> None:
    assert geartrain("policy", "set", "bytes", "results=1h").returncode == 0
    with working(server, "bytes", "--", "printf", r"\377\000"), Client(server.address) as client:
        handle = client.submit_background("bytes")
        assert client.result(handle, timeout=20) == b"\xff\0"
    assert json.loads(geartrain("result", str(handle), "--json").stdout)["data"] == {"base64": "/wA="}


def test_dead_letters_are_listed(geartrain: Command, server: RunningServer) -> None:
    first, second = bury(server, geartrain, "listed", "a", "bcd")
    table = geartrain("dead", "list", "--function", "listed").stdout.decode().splitlines()
    assert table[0].split() == ["handle", "function", "unique", "died", "reason", "attempts", "size", "text"]
    assert [line.split()[0] for line in table[1:]] == [first, second]
    found = rows(geartrain, "dead", "list", "--function", "listed")
    assert [(row["handle"], row["size"], row["reason"], row["server"]) for row in found] == [
        (first, 1, "fail", server.address),
        (second, 3, "fail", server.address),
    ]
    assert isinstance(found[0]["died"], float)
    assert len(rows(geartrain, "dead", "list", "--count", "1")) == 1
    assert rows(geartrain, "dead", "list", "--reason", "timeout") == []
    wrong = geartrain("dead", "list", "--reason", "tired")
    assert wrong.returncode == 5
    assert b"reason=tired: the reasons are fail, exception" in wrong.stderr
    assert geartrain("dead", "purge", first, second).returncode == 0


def test_dead_letters_are_tried_again(geartrain: Command, server: RunningServer) -> None:
    first, second, third, fourth = bury(server, geartrain, "revived", "a", "b", "c", "d")
    assert geartrain("dead", "retry", first).returncode == 0
    assert geartrain("retry", second).returncode == 0
    again = geartrain("dead", "retry", first, third)
    assert again.returncode == 5
    assert again.stderr == f"geartrain: UNKNOWN_JOB: No dead letter {first} is kept\n".encode()
    done = geartrain("dead", "retry", "--function", "revived", "--rate", "100/s")
    assert done.stdout == b"1 jobs will wait again, 100 each second\n"
    wait_until(lambda: server.jobs_of("revived") == (4, 0), "all wait")
    assert geartrain("dead", "retry", "--function", "revived", "--reason", "fail").stdout == b"0 jobs wait again\n"
    assert geartrain("admin", "cancel", first, second, third, fourth).returncode == 0


def test_dead_letters_are_thrown_away(geartrain: Command, server: RunningServer) -> None:
    [first, *_] = bury(server, geartrain, "purged", "a", "b", "c")
    assert geartrain("dead", "purge", first).returncode == 0
    asked = geartrain("dead", "purge", "--function", "purged", input=b"n\n")
    assert asked.returncode == 1
    assert b"Throw 2 dead letters away for good?" in asked.stderr
    assert asked.stdout == b"nothing was thrown away\n"
    assert len(rows(geartrain, "dead", "list", "--function", "purged")) == 2
    asked = geartrain("dead", "purge", "--function", "purged", "--reason", "timeout")
    assert asked.stdout == b"no such dead letters\n"
    done = geartrain("dead", "purge", "--all", "--yes")
    assert (done.returncode, done.stdout) == (0, b"2 dead letters were thrown away\n")
    assert rows(geartrain, "dead", "list") == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dead", "purge"], b"say which dead letters: name HANDLEs, give --function or --reason, or say --all"),
        (["dead", "retry", "H:t:1", "--all"], b"say which dead letters"),
        (["dead", "retry", "H:t:1", "--rate", "5/s"], b"--rate is for many"),
        (["dead", "retry", "--all", "--rate", "5/h"], b"'5/h' is no rate: write a whole number a second, such as 10/s"),
        (["dead", "retry", "--all", "--rate", "0/s"], b"'0/s' is no rate"),
        (["priority", "H:t:1", "urgent"], b"'urgent' is not one of 'high', 'normal', 'low'"),
        (["why", "http://a//H:t:1"], b"leave out http://"),
    ],
)
def test_what_can_not_be_meant_is_told(geartrain: Command, arguments: Sequence[str], told: bytes) -> None:
    done = geartrain(*arguments)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.parametrize("command", ["why", "show", "retry", "priority", "result", "dead show", "dead retry"])
def test_a_job_that_is_not_known_is_told(geartrain: Command, command: str) -> None:
    done = geartrain(*command.split(), "H:t:999999", *(["low"] if command == "priority" else []))
    assert done.returncode == 5
    assert b"UNKNOWN_JOB: No" in done.stderr
    assert b"H:t:999999" in done.stderr
