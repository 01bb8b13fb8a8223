"""``geartrain check_gearman``: what mod_gearman's plugin prints, with its exit codes, at gearmand and at ours.

The texts are those that check_gearman 5.2.4 printed at a gearmand 1.1.20 with the same queues.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from daemon_peer import DaemonPeer
from geartrain.wire.packets import CAN_DO, ECHO_REQ, SUBMIT_JOB_BG, pack_request
from servers import RunningServer, free_port, running_gearmand, running_geartrain, wait_until


@pytest.fixture(scope="module", params=[running_gearmand, running_geartrain], ids=["gearmand", "geartrain"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """With 2 jobs of ``alone``, which has no worker, and 12 of ``busy``, whose worker asks for none."""
    with request.param() as server, DaemonPeer(server.port) as client, DaemonPeer(server.port) as worker:
        for function, count in ((b"alone", 2), (b"busy", 12)):
            client.send(pack_request(SUBMIT_JOB_BG, function, b"", b"x") * count)
            for _ in range(count):
                client.receive()
        worker.send(pack_request(CAN_DO, b"busy") + pack_request(CAN_DO, b"calm") + pack_request(ECHO_REQ, b"here"))
        worker.receive()
        yield server


@pytest.fixture(scope="module")
def echo(server: RunningServer) -> Iterator[None]:
    """Workers that give back what they get, and one that fails."""
    environment = {**os.environ, "GEARMAN_SERVERS": server.address}
    commands = {"echo": ["cat"], "bad": ["false"]}
    workers = [
        subprocess.Popen([sys.executable, "-m", "geartrain", "work", name, "--", *command], env=environment, stderr=-3)
        for name, command in commands.items()
    ]
    try:
        wait_until(lambda: all(f"{name}\t0\t0\t1" in server.ask("status") for name in commands), "two workers", 30)
        yield
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait(10)


def check(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "geartrain", "check_gearman", *arguments], capture_output=True, timeout=60
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode()


CALM = "'calm_waiting'=0;10;100;0 'calm_running'=0 'calm_worker'=1;25;50;0 \n"
BUSY = "'busy_waiting'=12;10;100;0 'busy_running'=0 'busy_worker'=1;25;50;0 \n"


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["-q", "calm"], 0, "OK - 0 jobs running and 0 jobs waiting. Version: VERSION|" + CALM),
        (["-q", "calm", "-x"], 0, "OK - 0 jobs running and 0 jobs waiting. Version: VERSION|" + CALM),
        (["-q", "busy"], 1, "WARNING - Queue busy has 12 waiting jobs. |" + BUSY),
        (["-q", "busy", "-c", "12"], 2, "CRITICAL - Queue busy has 12 waiting jobs. |" + BUSY.replace("100", "12")),
        (
            ["-q", "busy", "-w", "0", "-c", "0"],
            0,
            "OK - 0 jobs running and 12 jobs waiting. Version: VERSION|" + BUSY.replace("10;100", "0;0"),
        ),
        (
            ["-q", "alone"],
            2,
            "CRITICAL - Queue alone has 2 jobs without any worker. |"
            "'alone_waiting'=2;10;100;0 'alone_running'=0 'alone_worker'=0;25;50;0 \n",
        ),
        (["-q", "none"], 1, "WARNING - Queue none not found|\n"),
        (["-q", "calm", "-C", "1"], 2, "CRITICAL - Queue calm has 1 worker. |" + CALM.replace("50", "1")),
        (["-q", "calm", "-W", "1"], 1, "WARNING - Queue calm has 1 worker. |" + CALM.replace("25", "1")),
    ],
)
def test_queues_are_judged(server: RunningServer, options: list[str], code: int, text: str) -> None:
    version = server.ask("version")[0].removeprefix("OK ")
    assert check("-H", server.address, *options) == (code, f"check_gearman {text}".replace("VERSION", version))


def test_the_worst_queue_decides(server: RunningServer) -> None:
    code, text = check("-H", "nowhere.invalid", "-H", server.address)
    assert code == 2
    assert text.startswith(
        "check_gearman CRITICAL - Queue alone has 2 jobs without any worker. Queue busy has 12 waiting jobs. |"
        "'alone_waiting'=2;10;100;0 'alone_running'=0 'alone_worker'=0;25;50;0 "
    )
    assert "'busy_waiting'=12;10;100;0" in text


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["-q", "echo", "-s", "x"], 0, "check_gearman OK - x\n"),
        (["-q", "echo", "-s", "2:down|a=1"], 2, "down|a=1\n"),
        (["-q", "echo", "-s", "hello", "-e", "ell"], 0, "check_gearman OK - send worker 'hello' response: 'hello'\n"),
        (
            ["-q", "echo", "-s", "hello", "-e", "zz"],
            2,
            "check_gearman CRITICAL - send worker: 'hello' response: 'hello', expected 'zz'\n",
        ),
        (["-q", "echo", "-s", "x", "-a"], 0, "check_gearman OK - sending background job succeeded\n"),
    ],
)
def test_a_job_is_sent(server: RunningServer, options: list[str], code: int, text: str) -> None:
    assert check("-H", server.address, *options) == (code, text)


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("options", [["-q", "bad", "-s", "x"], ["-q", "alone", "-s", "x", "-t", "1", "-u", "mine"]])
def test_a_job_that_fails_or_takes_too_long(server: RunningServer, options: list[str]) -> None:
    code, text = check("-H", server.address, *options)
    assert (code, text.count("\n")) == (2, 1)
    assert text.startswith("check_gearman CRITICAL - job failed: ")


def test_a_server_that_is_not_there() -> None:
    code, text = check("-H", f"127.0.0.1:{free_port()}")
    assert (code, text.startswith("check_gearman CRITICAL - ")) == (2, True)


def test_a_fault_is_unknown() -> None:
    code, text = check("-H", f"127.0.0.1:{free_port()}", "-t", "1" + "0" * 20)
    assert (code, text.startswith("check_gearman UNKNOWN - OverflowError: ")) == (3, True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "Error - no hostname given\n\nUsage: geartrain check_gearman "),
        (["-H", "localhost", "-s", "x"], "Error - need queue (-q) when sending job\n\nUsage: geartrain check_gearman "),
        (["-z"], "Error - No such option"),
        (["-H", "localhost", "-w", "many"], "Error - "),
        (["-h"], "Usage: geartrain check_gearman "),
        (["-V"], "check_gearman: version "),
    ],
)
def test_usage_is_unknown(options: list[str], text: str) -> None:
    code, told = check(*options)
    assert (code, told.startswith(text)) == (3, True), told
