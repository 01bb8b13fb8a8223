"""A store that says nothing for a while: answers are held back, and nothing else suffers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from good_pair import GoodPair

from daemon_peer import DaemonPeer
from geartrain.wire.packets import JOB_CREATED, SUBMIT_JOB_BG, pack_request
from servers import RunningServer, running_geartrain, wait_until
from services import Redis, running

JOB = pack_request(SUBMIT_JOB_BG, b"f", b"", b"x")


class SilentStore:
    """A job server whose store can be told to hold its breath."""

    def __init__(self, service: Redis, server: RunningServer) -> None:
        self.service = service
        self.server = server

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.speaks()

    def speaks(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.service.process is not None
        os.kill(self.service.process.pid, number)

    def seconds_of_work(self) -> float:
        """How long the server's process has kept a processor busy."""
        with open(f"/proc/{self.server.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def store() -> Iterator[SilentStore]:
    with running(Redis) as service, running_geartrain("--store-timeout=30s", store=service.url("silent")) as server:
        server.ask("version")  # it has loaded what the store kept
        yield SilentStore(service, server)


def read_all(peer: DaemonPeer) -> bytes:
    data = b""
    while more := peer.socket.recv(1 << 20):
        data += more
    return data


def test_foreground_jobs_do_not_wait_for_it(store: SilentStore) -> None:
    with store.silent(), DaemonPeer(store.server.port) as client:
        client.send(JOB)
        with GoodPair(store.server) as pair:
            pair.await_jobs(20)
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.receive()
        client.socket.settimeout(10)
        store.speaks()
        assert client.receive().type == JOB_CREATED


def test_many_answers_that_are_held_back_keep_nobody_busy(store: SilentStore) -> None:
    """A client has more held back than a peer may have unsent: its requests wait, and so does the server."""
    count = 100_000
    with DaemonPeer(store.server.port) as client:
        with store.silent():
            sender = threading.Thread(target=lambda: client.send(JOB * count))
            sender.start()

            def seconds_in_a_while() -> float:
                before = store.seconds_of_work()
                time.sleep(0.5)
                return store.seconds_of_work() - before

            wait_until(lambda: seconds_in_a_while() < 0.1, "the server has nothing to do", 20)
        got = 0
        while got < count:
            assert client.receive().type == JOB_CREATED
            got += 1
        sender.join()


def test_who_has_said_all_still_gets_what_is_held_back(store: SilentStore) -> None:
    with DaemonPeer(store.server.port) as client:
        with store.silent():
            client.send(JOB + b"version\n")
            client.socket.shutdown(socket.SHUT_WR)
            store.server.ask("version")  # who asks later is answered later: now all of that has been read
        answer = read_all(client)
        assert answer.startswith(b"\0RES\0\0\0\x08")
        assert b"OK " in answer


def test_the_last_words_come_behind_what_is_held_back(store: SilentStore) -> None:
    with DaemonPeer(store.server.port) as client:
        with store.silent():
            client.send(JOB + b"\0ABCdefghijk")
            store.server.ask("version")  # as above
        answer = read_all(client)
        assert answer.startswith(b"\0RES\0\0\0\x08")
        assert b"INVALID_MAGIC" in answer
