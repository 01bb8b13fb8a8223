"""``geartrain admin``: tables for people, JSON for machines, and the few things that change something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from cli.conftest import Command, environment_of
from daemon_peer import DaemonPeer
from geartrain.wire.packets import CAN_DO, ECHO_REQ, SET_CLIENT_ID, SUBMIT_JOB_BG, SUBMIT_JOB_HIGH_BG, pack_request
from servers import RunningServer, running_geartrain


def submit(server: RunningServer, *jobs: tuple[int, bytes, bytes]) -> list[str]:
    """Submit background jobs (type, function, unique); their handles."""
    with DaemonPeer(server.port) as peer:
        peer.send(b"".join(pack_request(type, function, unique, b"x") for type, function, unique in jobs))
        return [peer.receive().arguments[0].decode() for _ in jobs]


def test_status_is_a_table_or_json(geartrain: Command, server: RunningServer) -> None:
    submit(server, (SUBMIT_JOB_BG, b"table", b""), (SUBMIT_JOB_HIGH_BG, b"table", b""))
    submit(server, (SUBMIT_JOB_BG, b"another", b""))
    lines = geartrain("admin", "status", "table", "another").stdout.decode().splitlines()
    assert [line.split() for line in lines] == [
        ["function", "queued", "running", "total", "workers"],
        ["another", "1", "0", "1", "0"],
        ["table", "2", "0", "2", "0"],
    ]
    assert json.loads(geartrain("admin", "status", "table", "--json").stdout) == [
        {"function": "table", "queued": 2, "running": 0, "total": 2, "workers": 0}
    ]
    assert json.loads(geartrain("admin", "priorities", "table", "--json").stdout) == [
        {"function": "table", "high": 1, "normal": 1, "low": 0, "workers": 0}
    ]


def test_a_hostile_name_can_not_reach_the_terminal(geartrain: Command, server: RunningServer) -> None:
    submit(server, (SUBMIT_JOB_BG, b"evil\x1b[2J", b""))
    done = geartrain("admin", "status")
    assert b"\x1b" not in done.stdout
    assert rb"evil\x1b[2J" in done.stdout


def test_long_names_are_whole_in_a_pipe(geartrain: Command, server: RunningServer) -> None:
    name = "long" * 100
    submit(server, (SUBMIT_JOB_BG, name.encode(), b""))
    assert name in geartrain("admin", "status").stdout.decode()


def test_jobs_and_uniques_are_listed_and_cancelled(geartrain: Command, server: RunningServer) -> None:
    first, second = submit(server, (SUBMIT_JOB_BG, b"listed", b"key-2"), (SUBMIT_JOB_BG, b"listed", b"key-1"))
    uniques = [row["unique"] for row in json.loads(geartrain("admin", "uniques", "--json").stdout)]
    assert uniques == sorted(uniques)
    assert {"key-1", "key-2"} <= set(uniques)
    assert {
        "handle": first,
        "server": server.address,
        "background": True,
        "lost_workers": 0,
        "abandoned": False,
    } in json.loads(geartrain("admin", "jobs", "--json").stdout)
    done = geartrain("admin", "cancel", first, f"{server.address}//{second}", "H:t:999999")
    assert done.returncode == 1
    assert b"no job server knows the job H:t:999999" in done.stderr
    assert server.jobs_of("listed") == (0, 0)


def test_workers_are_listed_with_their_functions(geartrain: Command, server: RunningServer) -> None:
    with DaemonPeer(server.port) as peer:
        peer.send(
            pack_request(SET_CLIENT_ID, b"me")
            + pack_request(CAN_DO, b"b")
            + pack_request(CAN_DO, b"a")
            + pack_request(ECHO_REQ, b"")
        )
        peer.receive()
        [worker] = json.loads(geartrain("admin", "workers", "--json").stdout)
        assert (worker["id"], worker["host"], worker["functions"]) == ("me", "127.0.0.1", ["a", "b"])
        connections = json.loads(geartrain("admin", "connections", "--json").stdout)
        assert worker in connections
        assert len(connections) > 1


def test_a_function_is_shown(geartrain: Command, server: RunningServer) -> None:
    submit(server, (SUBMIT_JOB_BG, b"one-function", b""))
    lines = [line.split() for line in geartrain("admin", "function", "one-function").stdout.decode().splitlines()]
    assert lines[:3] == [["server", server.address], ["function", "one-function"], ["normal", "1"]]
    assert (lines[3][:2], lines[4:]) == (["oldest", "waiting"], [["submitted", "1"], ["bytes", "in", "1"]])
    [row] = json.loads(geartrain("admin", "function", "one-function", "--json").stdout)
    assert (row["server"], row["normal"], row["paused"], row["result_hits"]) == (server.address, 1, False, 0)
    unknown = geartrain("admin", "function", "nobody")
    assert unknown.returncode == 1
    assert b"no job server knows the function nobody" in unknown.stderr


def test_a_value_is_told_plainly_or_by_server(geartrain: Command, server: RunningServer) -> None:
    assert geartrain("admin", "pid").stdout == b"%d\n" % server.process.pid
    assert json.loads(geartrain("admin", "verbose", "--json").stdout) == {server.address: "INFO"}
    with running_geartrain() as other:
        rows = geartrain("admin", "pid", "-s", server.address, "-s", other.address).stdout.decode().splitlines()
    assert [row.split() for row in rows] == [
        ["server", "pid"],
        [server.address, str(server.process.pid)],
        [other.address, str(other.process.pid)],
    ]


def test_functions_are_created_limited_and_dropped(geartrain: Command, server: RunningServer) -> None:
    assert geartrain("admin", "create", "made").returncode == 0
    assert "made\t0\t0\t0" in server.ask("status")
    assert geartrain("admin", "limit", "made", "1").returncode == 0
    assert geartrain("submit", "-b", "made", "x").returncode == 0
    refused = geartrain("submit", "-b", "made", "x")
    assert (refused.returncode, refused.stdout) == (5, b"")
    assert b"QUEUE_ERROR" in refused.stderr
    assert geartrain("admin", "limit", "made", "--high", "2").returncode == 0
    assert geartrain("submit", "-b", "made", "x").returncode == 0
    assert geartrain("admin", "drop", "made").returncode == 0
    again = geartrain("admin", "drop", "made")
    assert (again.returncode, again.stderr) == (5, b"geartrain: ERR: function not found\n")


def test_a_connection_is_closed(geartrain: Command, server: RunningServer) -> None:
    with DaemonPeer(server.port) as peer:
        peer.send(pack_request(SET_CLIENT_ID, b"to be closed") + pack_request(ECHO_REQ, b""))
        peer.receive()
        rows = json.loads(geartrain("admin", "connections", "--json").stdout)
        (fd,) = [str(row["fd"]) for row in rows if row["id"] == "to be closed"]
        done = geartrain("admin", "disconnect", fd, "another")
        assert (done.returncode, done.stderr.startswith(b"geartrain: there is no connection")) == (1, True)
        assert geartrain("admin", "disconnect", fd, "to be closed").returncode == 0
        assert peer.socket.recv(1) == b""
    assert geartrain("admin", "disconnect", "999999").returncode == 1
    twice = geartrain("admin", "disconnect", fd, "--server", f"{server.address},127.0.0.1:1")
    assert twice.returncode == 3


def test_a_job_server_is_drained() -> None:
    with running_geartrain() as server:
        assert (
            subprocess.run(
                [sys.executable, "-m", "geartrain", "admin", "drain"], env=environment_of(server), timeout=30
            ).returncode
            == 0
        )
        assert server.process.wait(10) == 0
        assert "drain_ordered host=127.0.0.1" in server.log.read_text()
        assert 'draining reason="the command drain"' in server.log.read_text()


def test_a_watch_looks_again_until_it_is_interrupted(server: RunningServer) -> None:
    watch = subprocess.Popen(
        [sys.executable, "-m", "geartrain", "admin", "status", "--watch", "0.1", "--json"],
        stdout=subprocess.PIPE,
        env=environment_of(server),
        # A shell that runs the tests in the background lets them ignore this signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert watch.stdout is not None
    with watch.stdout:
        assert isinstance(json.loads(watch.stdout.readline()), list)
        submit(server, (SUBMIT_JOB_BG, b"watched", b""))
        while not any(row["function"] == "watched" for row in json.loads(watch.stdout.readline())):
            pass
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 130


def test_a_server_that_is_not_there_is_told(geartrain: Command) -> None:
    done = geartrain("admin", "status", "--server", "localhost:1")
    assert done.returncode == 3
    assert done.stderr.startswith(b"geartrain: no job server at localhost:1: ")


def test_what_is_no_address_is_told(geartrain: Command) -> None:
    done = geartrain("admin", "status", "--server", "tcp://localhost")
    assert done.returncode == 2
    assert b"leave out tcp://" in done.stderr


def test_a_reader_that_has_had_enough_is_no_error(server: RunningServer) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "geartrain", "admin", "status"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment_of(server),
        timeout=30,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
