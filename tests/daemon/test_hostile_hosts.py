"""Hosts that die without a word: no reset, no goodbye, packets into nothing. Their jobs must come back.

Two network namespaces of this machine, joined by a virtual cable that can be pulled, are the two hosts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_peer import DaemonPeer
from geartrain.daemon.config import Config
from geartrain.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_DATA,
    pack_request,
)
from servers import wait_until

SERVER, OTHER = "10.213.77.1", "10.213.77.2"
PORT = 4730  # a namespace of its own has all ports free
PATIENCE = ("--keepalive-idle=1", "--keepalive-interval=1", "--keepalive-count=2")
_NEW_NETWORK = 0x40000000


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Hosts:
    """Two hosts, the server's and another one, and the cable between them."""

    def __init__(self) -> None:
        self.server = f"geartrain-{os.getpid()}-a"
        self.other = f"geartrain-{os.getpid()}-b"

    def set_up(self) -> None:
        for name in (self.server, self.other):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.server, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", self.other)
        for name, address in ((self.server, SERVER), (self.other, OTHER)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")

    def pull_the_cable(self) -> None:
        """From now on nothing that is sent arrives, and nobody is told."""
        ip("-n", self.other, "link", "set", "cable", "down")

    def tear_down(self) -> None:
        for name in (self.server, self.other):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)

    def connect(self, host: str) -> DaemonPeer:
        """A connection to the server from this host."""
        peers: list[DaemonPeer] = []

        def within() -> None:
            with open(f"/run/netns/{host}") as namespace:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK) == 0
            peer = DaemonPeer.__new__(DaemonPeer)
            peer.socket = socket.create_connection((SERVER, PORT), timeout=10)
            peers.append(peer)

        thread = threading.Thread(target=within)  # a namespace is a thread's own
        thread.start()
        thread.join()
        return peers[0]

    def ask(self, command: bytes) -> list[bytes]:
        """The lines of a listing, asked for at the server's own host."""
        with self.connect(self.server) as admin:
            admin.send(command + b"\n")
            answer = b""
            while not answer.endswith(b".\n"):
                answer += admin.socket.recv(65536)
            return answer.splitlines()[:-1]


@pytest.fixture
def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    hosts = Hosts()
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip (package iproute2), to make network namespaces")
    try:
        try:
            hosts.set_up()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces, which can't be made here: {error.stderr.decode().strip()}")
        log = tmp_path / "log"
        command = [sys.executable, "-m", "geartrain", "serve", f"--listen={SERVER}", f"--port={PORT}", *PATIENCE]
        command += getattr(request, "param", ())
        process = subprocess.Popen(
            ["ip", "netns", "exec", hosts.server, *command, "--store=memory:", f"--log-file={log}"],
            stdin=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: log.exists() and " listening " in log.read_text(), "the server listens", 20)
            yield hosts
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    finally:
        hosts.tear_down()


def test_the_jobs_of_a_dead_host_come_back(hosts: Hosts) -> None:
    """A worker that runs a job is silent: only keepalive finds out."""
    with hosts.connect(hosts.server) as client, hosts.connect(hosts.other) as worker:
        client.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"x"))
        assert client.receive().type == JOB_CREATED
        worker.send(pack_request(CAN_DO, b"f") + pack_request(GRAB_JOB))
        assert worker.receive().type == JOB_ASSIGN
        assert hosts.ask(b"status") == [b"f\t1\t1\t1"]
        hosts.pull_the_cable()
        began = time.monotonic()
        wait_until(lambda: hosts.ask(b"status") == [b"f\t1\t0\t0"], "the job waits again", 20)
        assert time.monotonic() - began > 1, "the cable was not what ended it"


def test_a_dead_host_is_found_while_much_is_sent_to_it(hosts: Hosts) -> None:
    """Unacknowledged data keeps the system from probing; it must not keep a dead client for a quarter of an hour."""
    with hosts.connect(hosts.server) as worker, hosts.connect(hosts.other) as client:
        client.send(pack_request(SUBMIT_JOB, b"f", b"", b"x"))
        assert client.receive().type == JOB_CREATED
        worker.send(pack_request(CAN_DO, b"f") + pack_request(GRAB_JOB))
        handle = worker.receive().arguments[0]
        hosts.pull_the_cable()
        before = len(hosts.ask(b"workers"))

        def is_gone() -> bool:
            worker.send(pack_request(WORK_DATA, handle, b"progress" * 100))
            return len(hosts.ask(b"workers")) < before

        wait_until(is_gone, "the client is gone", 30)


@pytest.mark.parametrize("hosts", [("--max-connections=6", "--reserved-connections=2")], indirect=True)
def test_when_all_connections_are_taken_some_are_left_for_the_own_machine(hosts: Hosts) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            other = stack.enter_context(hosts.connect(hosts.other))
            other.send(pack_request(ECHO_REQ, b"in"))
            assert other.receive().arguments == (b"in",)
        with hosts.connect(hosts.other) as fifth:
            assert fifth.is_closed()
        for _ in range(2):
            operator = stack.enter_context(hosts.connect(hosts.server))
            operator.send(pack_request(ECHO_REQ, b"in"))
            assert operator.receive().arguments == (b"in",)
        with hosts.connect(hosts.server) as seventh:
            assert seventh.is_closed()


def test_by_default_it_takes_less_than_a_minute() -> None:
    config = Config.load({})
    assert config.keepalive
    assert config.keepalive_idle + config.keepalive_interval * config.keepalive_count < 60
