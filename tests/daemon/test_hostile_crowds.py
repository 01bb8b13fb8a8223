"""Very many connections: at once, idle, more than allowed, and more than there are open files."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from good_pair import QUICK, GoodPair, memory_of

from daemon_peer import DaemonPeer
from geartrain.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    GRAB_JOB,
    JOB_CREATED,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    pack_request,
)
from servers import RunningServer, running_geartrain, wait_until

IDLE = 10_000


@contextlib.contextmanager
def many_open_files(wanted: int) -> Iterator[None]:
    """Let this process open so many files; skips the test where that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files: raise the hard limit of {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connections_of(server: RunningServer) -> int:
    return len(server.ask("workers")) - 1


def test_a_thousand_connect_while_the_server_is_held_up(job_server: RunningServer) -> None:
    """They wait in its backlog, all of them, and are served when it comes back."""
    with many_open_files(2000), contextlib.ExitStack() as stack:
        sockets = []
        job_server.ask("version")  # it has bound its address before it listens with all its backlog
        os.kill(job_server.process.pid, signal.SIGSTOP)
        try:
            for _ in range(1000):
                one = stack.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex((job_server.host, job_server.port))
                sockets.append(one)
            deadline = time.monotonic() + 10
            waiting = set(sockets)
            while waiting and time.monotonic() < deadline:
                _, connected, _ = _select([], list(waiting))
                waiting -= set(connected)
            assert not waiting, f"{len(waiting)} of 1000 were not let in"
            for one in sockets:
                one.send(pack_request(ECHO_REQ, b"me too"))
        finally:
            os.kill(job_server.process.pid, signal.SIGCONT)
        for one in sockets:
            one.settimeout(10)
            assert one.recv(100).endswith(b"me too")


def _select(readers: list[socket.socket], writers: list[socket.socket]) -> tuple[list[socket.socket], ...]:
    """As select(), for any number of sockets."""
    poll = select.poll()
    by_number = {one.fileno(): one for one in (*readers, *writers)}
    for one in readers:
        poll.register(one, select.POLLIN)
    for one in writers:
        poll.register(one, select.POLLOUT)
    ready = poll.poll(1000)
    return (
        [by_number[number] for number, event in ready if event & select.POLLIN],
        [by_number[number] for number, event in ready if event & select.POLLOUT],
        [],
    )


def test_ten_thousand_idle_workers() -> None:
    with running_geartrain() as server, many_open_files(IDLE + 500), contextlib.ExitStack() as stack:
        before = memory_of(server)
        sleepers = [stack.enter_context(DaemonPeer(server.port)) for _ in range(IDLE)]
        for sleeper in sleepers:
            sleeper.send(pack_request(CAN_DO, b"f") + pack_request(PRE_SLEEP))
        wait_until(lambda: server.ask("status") == [f"f\t0\t0\t{IDLE}"], "they all sleep", 30)
        each = (memory_of(server) - before) / IDLE
        assert each < 8000, f"an idle worker takes {each:.0f} bytes"
        with GoodPair(server):
            # One job wakes one of them, the one that has slept longest, and nobody else.
            client = stack.enter_context(DaemonPeer(server.port))
            for sleeper in sleepers[:20]:
                client.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"x"))
                assert client.receive().type == JOB_CREATED
                assert sleeper.receive().type == NOOP
                sleeper.send(pack_request(GRAB_JOB))
                job = sleeper.receive()
                sleeper.send(pack_request(WORK_COMPLETE, job.arguments[0], b"") + pack_request(PRE_SLEEP))
            assert not _select([sleeper.socket for sleeper in sleepers], [])[0]
        began = time.monotonic()
        for sleeper in sleepers:
            sleeper.socket.close()
        wait_until(lambda: server.ask("status")[0].startswith("f\t0\t0\t0"), "they all are gone", 30)
        assert time.monotonic() - began < 10 * QUICK


def test_more_connections_than_allowed_are_closed_and_told_once() -> None:
    with running_geartrain("--max-connections=50") as server, many_open_files(2000), contextlib.ExitStack() as stack:
        with GoodPair(server) as pair:
            pair.await_jobs(1)
            peers = [stack.enter_context(DaemonPeer(server.port)) for _ in range(47)]
            for peer in peers:
                peer.send(pack_request(ECHO_REQ, b"in"))
                assert peer.receive().arguments == (b"in",)
            assert connections_of(server) == 49
            for _ in range(1000):
                with DaemonPeer(server.port) as peer:
                    with contextlib.suppress(ConnectionError):
                        peer.send(b"version\n")
                    peers.append(stack.enter_context(DaemonPeer(server.port)))
        assert server.log.read_text().count("connection_refused") < 100
        for peer in peers:
            peer.socket.close()
        wait_until(lambda: connections_of(server) <= 3, "there is room again")
        assert server.ask("version")


def test_more_connections_than_open_files() -> None:
    """Not even the default limit of connections lets the server run out of files."""
    with running_geartrain("--file-descriptors=100") as server, contextlib.ExitStack() as stack:
        with GoodPair(server) as pair:
            pair.await_jobs(1)
            for _ in range(400):
                stack.enter_context(DaemonPeer(server.port))
            pair.await_jobs(50)
        stack.close()
        wait_until(lambda: connections_of(server) <= 3, "there is room again")
        log = server.log.read_text()
        assert re.search(r"connection_refused host=127.0.0.1 limit=\d\d\n", log)
        assert "Too many open files" not in log


def test_comers_and_goers(job_server: RunningServer) -> None:
    """Thousands of short connections leave nothing behind."""
    before = None
    with GoodPair(job_server):
        for number in range(3000):
            with DaemonPeer(job_server.port) as peer:
                peer.send(pack_request(CAN_DO, b"f%d" % (number % 50)) + pack_request(PRE_SLEEP))
                if number % 3:
                    peer.send(pack_request(ECHO_REQ, b"x"))
                    peer.receive()
            if number == 500:
                before = memory_of(job_server)
        assert before is not None
        assert memory_of(job_server) < before + 10_000_000
    wait_until(lambda: connections_of(job_server) <= 3, "they all are gone")
