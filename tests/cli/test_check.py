"""``geartrain check`` and ``check_gearman``: real job servers, ours and gearmand, judged as a monitor does it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.conftest import environment_of
from daemon_peer import DaemonPeer
from geartrain.cli.check import CRITICAL, OK, UNKNOWN, WARNING, Limit, worst
from geartrain.wire.packets import (
    CAN_DO,
    GRAB_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    WORK_COMPLETE,
    WORK_FAIL,
    pack_request,
)
from servers import RunningServer, free_port, running_gearmand, running_geartrain, running_perl_server


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


class Monitor:
    """Runs plugins against a job server."""

    def __init__(self, server: RunningServer) -> None:
        self._environment = environment_of(server)

    def run(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and what a monitor would read."""
        done = subprocess.run(
            [sys.executable, "-m", "geartrain", *arguments], capture_output=True, timeout=60, env=self._environment
        )
        assert b"Traceback" not in done.stderr
        return done.returncode, done.stdout.decode().rstrip("\n")

    def check(self, *arguments: str) -> tuple[int, str]:
        return self.run("check", *arguments)


def submit(server: RunningServer, function: bytes, count: int = 1) -> None:
    with DaemonPeer(server.port) as peer:
        peer.send(pack_request(SUBMIT_JOB_BG, function, b"", b"x") * count)
        for _ in range(count):
            peer.receive()


def work(worker: DaemonPeer, function: bytes, *outcomes: int) -> None:
    """A worker that gives these outcomes to as many jobs, and stays."""
    worker.send(pack_request(CAN_DO, function))
    for outcome in outcomes:
        worker.send(pack_request(GRAB_JOB))
        handle = worker.receive().arguments[0]
        worker.send(pack_request(outcome, handle, *([b"done"] if outcome == WORK_COMPLETE else [])))
    worker.send(pack_request(GRAB_JOB))
    worker.receive()  # all before it has been read


def test_all_is_well(server: RunningServer) -> None:
    with DaemonPeer(server.port) as worker:
        work(worker, b"well")
        code, text = Monitor(server).check()
    assert code == OK
    assert text == (
        "GEARTRAIN OK - 0 jobs queued, 0 running, 1 function | queued=0;;;0 running=0;;;0 functions=1;;;0 "
        "'well queued'=0;;;0 'well running'=0;;;0 'well workers'=0;;;0".replace("workers'=0", "workers'=1")
    )


def test_jobs_without_a_worker_are_critical(server: RunningServer) -> None:
    submit(server, b"alone", 2)
    code, text = Monitor(server).check()
    assert code == CRITICAL
    assert text.startswith("GEARTRAIN CRITICAL - alone: 2 jobs wait without any worker | queued=2;;;0 ")
    assert "'alone oldest'=0." in text
    code, text = Monitor(server).check("--no-workers=warning")
    assert (code, text.partition(":")[0]) == (WARNING, "GEARTRAIN WARNING - alone")
    assert Monitor(server).check("--no-workers=ok")[0] == OK
    assert Monitor(server).check("-f", "another-one")[0] == WARNING


def test_jobs_for_later_and_of_a_paused_function_need_no_worker_yet(server: RunningServer) -> None:
    monitor = Monitor(server)
    with DaemonPeer(server.port) as peer:
        peer.send(pack_request(SUBMIT_JOB_EPOCH, b"later", b"", b"4000000000", b"x"))
        peer.receive()
    assert monitor.check("--queued=1")[0] == OK
    submit(server, b"held")
    assert monitor.check()[0] == CRITICAL
    assert monitor.run("pause", "held")[0] == 0
    assert monitor.check()[0] == OK


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (["--queued=10,20"], OK, ""),
        (["--queued=3,20"], WARNING, "many: 3 jobs queued"),
        (["--queued=1,3"], CRITICAL, "many: 3 jobs queued"),
        (["--queued=,3"], CRITICAL, "many: 3 jobs queued"),
        (["--queued=3"], WARNING, "many: 3 jobs queued"),
        (["--workers=2,1"], WARNING, "many: 1 worker"),
        (["--workers=3,2"], CRITICAL, "many: 1 worker"),
        (["--workers=1,1"], OK, ""),
        (["--oldest=1ms,1h"], WARNING, "many: a job has waited "),
        (["--oldest=1h,2h"], OK, ""),
        (["-f", "other", "--workers=,1"], CRITICAL, "other: no job server knows it"),
    ],
)
def test_limits(server: RunningServer, options: list[str], code: int, what: str) -> None:
    with DaemonPeer(server.port) as worker:
        work(worker, b"many")
        submit(server, b"many", 3)
        got, text = Monitor(server).check(*options)
    assert (got, what) == (code, what if what in text else text)


def test_failures_are_counted_since_the_check_before(server: RunningServer, tmp_path: Path) -> None:
    monitor = Monitor(server)
    state = f"--state={tmp_path / 'state.json'}"
    with DaemonPeer(server.port) as worker:
        submit(server, b"mixed", 12)
        work(worker, b"mixed", *[WORK_COMPLETE] * 9, *[WORK_FAIL] * 3)
        code, text = monitor.check("--failures=10%,50%", state)
        assert code == WARNING
        assert "mixed: 25.0% of 12 jobs failed" in text
        assert "'mixed failures'=25.00%;10;50;0;100" in text
        assert monitor.check("--failures=10%,50%", state)[0] == OK  # none has ended since
        assert monitor.check("--failures=10%,50%", "--least=13")[0] == OK
        submit(server, b"mixed", 10)
        work(worker, b"mixed", *[WORK_FAIL] * 10)
        assert monitor.check("--failures=10%,50%", state)[0] == CRITICAL
        assert monitor.check("--failures=60%")[0] == OK  # 13 of 22 since the start
    (tmp_path / "state.json").write_text("no json")
    assert monitor.check("--failures=60%", state)[0] == OK
    code, text = monitor.check("--failures=60%", f"--state={tmp_path}/nowhere/state.json")
    assert (code, text.partition(":")[0]) == (UNKNOWN, "GEARTRAIN UNKNOWN - FileNotFoundError")


def test_counters_that_have_begun_anew_are_whole(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with running_geartrain() as server, DaemonPeer(server.port) as worker:
        state.write_text(json.dumps({server.address: {"again": [1000, 1000]}}))
        submit(server, b"again", 10)
        work(worker, b"again", *[WORK_FAIL] * 10)
        assert Monitor(server).check("--failures=,50%", f"--state={state}")[0] == CRITICAL


def test_checks_of_different_functions_may_keep_their_state_together(server: RunningServer, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with DaemonPeer(server.port) as worker:
        for function in (b"one", b"two"):
            submit(server, function, 10)
            work(worker, function, *[WORK_FAIL] * 10)
        for name in ("one", "two", "one", "two"):
            Monitor(server).check("-f", name, "--failures=50%", f"--state={state}")
    assert json.loads(state.read_text()) == {server.address: {"one": [0, 10], "two": [0, 10]}}


def test_a_name_that_can_not_be_told_in_a_line_is_judged_as_far_as_it_goes(server: RunningServer) -> None:
    submit(server, b"two words")
    code, text = Monitor(server).check("--oldest=1h")
    assert code == CRITICAL
    assert text.startswith("GEARTRAIN CRITICAL - two words: 1 job waits without any worker | queued=1")


def test_json_for_machines(server: RunningServer) -> None:
    submit(server, b"one")
    code, text = Monitor(server).check("--json")
    told = json.loads(text)
    assert (code, told["state"]) == (CRITICAL, "CRITICAL")
    assert told["problems"] == [
        {"state": "CRITICAL", "server": "", "function": "one", "what": "1 job waits without any worker"}
    ]
    (function,) = told["functions"]
    assert function.pop("oldest") >= 0
    assert function == {
        "function": "one", "queued": 1, "running": 0, "workers": 0, "ended": 0, "failed": 0, "paused": False
    }  # fmt: skip


def test_a_server_that_is_not_there_is_critical(server: RunningServer) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    code, text = Monitor(server).check("-s", nowhere)
    assert code == CRITICAL
    assert text.startswith(f"GEARTRAIN CRITICAL - {nowhere}: ")
    code, text = Monitor(server).check("-s", f"{nowhere},{server.address}", "-f", "any")
    assert (code, text.count("any")) == (CRITICAL, 3)  # in the numbers alone


@pytest.mark.parametrize("options", [["--queued=much"], ["--nonsense"], ["--failures=0"], ["--oldest=1,2,3"]])
def test_what_is_not_understood_is_unknown(server: RunningServer, options: list[str]) -> None:
    code, text = Monitor(server).check(*options)
    assert (code, text.startswith("GEARTRAIN UNKNOWN - ")) == (UNKNOWN, True)


def test_names_can_not_forge_numbers(server: RunningServer) -> None:
    submit(server, b"evil|x=1\x1b'q'=3")
    code, text = Monitor(server).check()
    assert code == CRITICAL
    assert text.count("|") == 1
    assert "\x1b" not in text
    assert r"'evil_x_1\x1b''q''_3 queued'=1;;;0" in text


@pytest.mark.parametrize("running", [running_gearmand, running_perl_server])
def test_other_job_servers(running: object) -> None:
    with running() as server:  # type: ignore[operator]
        monitor = Monitor(server)
        submit(server, b"theirs", 3)
        code, text = monitor.check("--queued=1,10")
        assert code == CRITICAL
        assert "theirs: 3 jobs wait without any worker; theirs: 3 jobs queued |" in text
        with DaemonPeer(server.port) as worker:
            work(worker, b"theirs", WORK_COMPLETE)
            assert monitor.check("--queued=2,10")[0] == OK
            code, text = monitor.check("--oldest=5m")
        assert code == UNKNOWN
        assert f"{server.address}: --oldest can't be judged" in text


def test_the_worst_state_is_that_of_all() -> None:
    assert worst([]) == OK
    assert worst([OK, UNKNOWN]) == UNKNOWN
    assert worst([UNKNOWN, WARNING, OK]) == WARNING
    assert worst([CRITICAL, UNKNOWN]) == CRITICAL
    assert Limit(None, 5).state(5) == CRITICAL
    assert Limit(2, 1).state(1, below=True) == WARNING
    assert Limit(2, 1).state(2, below=True) == OK
