"""The transports: which one there is, and what each has to get right whatever the other does."""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from good_pair import GoodPair, memory_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_peer import DaemonPeer
from geartrain.daemon.transport import choose, has_epoll
from geartrain.wire import packets as p
from geartrain.wire.packets import pack_request
from servers import RunningServer, running_geartrain, wait_until

KIB = 1024
MIB = 1024 * KIB
# Around what is read at once, what is collected in pieces, and what is read into place.
SIZES = st.sampled_from([0, 1, 100, 16 * KIB, 20 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, MIB]).flatmap(
    lambda size: st.integers(max(size - 40, 0), size + 40)
)

USED = choose("asyncio" if os.environ.get("GEARTRAIN_TRANSPORT") == "asyncio" else "auto")

only_epoll = pytest.mark.skipif(not has_epoll(), reason="it is not compiled here")


@pytest.fixture(scope="module")
def echoing() -> Iterator[DaemonPeer]:
    with running_geartrain() as server, DaemonPeer(server.port) as peer:
        yield peer


def geartrain(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "geartrain", *arguments], capture_output=True, text=True, timeout=30)


def test_the_version_and_the_log_say_which_it_is() -> None:
    said = geartrain("version").stdout
    assert f"transport: {'epoll, compiled' if has_epoll() else 'asyncio'}" in said
    with running_geartrain() as server:
        wait_until(lambda: "starting" in server.log.read_text(), "it says what it is")
        assert f"transport={USED} " in server.log.read_text()


@pytest.mark.skipif(has_epoll(), reason="it is compiled here")
def test_one_that_is_not_there_is_named_with_what_it_needs() -> None:
    done = geartrain("serve", "--check-args", "--transport", "epoll")
    assert done.returncode == 1
    assert "--transport is 'epoll': needs Linux, and a C compiler" in done.stderr


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(SIZES, min_size=1, max_size=3), cuts=st.lists(st.integers(1, 400 * KIB), max_size=8))
def test_packets_of_any_size_arrive_however_they_are_cut(
    echoing: DaemonPeer, sizes: list[int], cuts: list[int]
) -> None:
    bodies = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    stream = b"".join(pack_request(p.ECHO_REQ, body) for body in bodies)
    for cut in cuts:
        echoing.send(stream[:cut])
        stream = stream[cut:]
    echoing.send(stream)
    for body in bodies:
        assert echoing.receive().arguments == ((body,) if body else ())


@given(size=SIZES, cut=st.integers(1, 300 * KIB), type=st.sampled_from([p.SUBMIT_JOB_BG, p.SUBMIT_JOB_HIGH_BG]))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_workload_is_the_same_at_the_worker(echoing: DaemonPeer, size: int, cut: int, type: int) -> None:
    workload = bytes(range(1, 256)) * (size // 255) + b"x" * (size % 255)
    request = pack_request(type, b"f", b"", workload)
    echoing.send(request[:cut])
    echoing.send(request[cut:])
    handle = echoing.receive().arguments[0]
    echoing.send(pack_request(p.CAN_DO, b"f") + pack_request(p.GRAB_JOB))
    assert echoing.receive().arguments == (handle, b"f", workload)
    echoing.send(pack_request(p.WORK_COMPLETE, handle, b"") + pack_request(p.ECHO_REQ, b"end"))
    assert echoing.receive().arguments == (b"end",)


def test_what_is_announced_and_never_sent_takes_no_memory() -> None:
    """However many packets are begun, what is kept is what has come; whoever sends all of it is served."""
    size = 4 * MIB
    body = b"y" * size
    head = struct.pack(">4sII", b"\0REQ", p.ECHO_REQ, size)
    with running_geartrain() as server, GoodPair(server) as pair, contextlib.ExitStack() as stack:
        before = memory_of(server)
        peers = [stack.enter_context(DaemonPeer(server.port)) for _ in range(100)]
        for peer in peers:
            peer.send(head + body[: 200 * KIB])
        pair.await_jobs(20)
        assert memory_of(server) < before + 100 * MIB
        for peer in peers[::10]:
            peer.send(body[200 * KIB :])
            assert peer.receive().arguments == (body,)
        for peer in peers[1::10]:  # these give up in the middle; others have their room then
            peer.socket.close()
        for peer in peers[2::10]:
            peer.send(body[200 * KIB :])
            assert peer.receive().arguments == (body,)
        pair.await_jobs(20)


def test_the_server_serves_on_when_it_has_run_out_of_files() -> None:
    with running_geartrain() as server, GoodPair(server) as pair, contextlib.ExitStack() as stack:
        pair.await_jobs(1)
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (_files_of(server) + 5, hard))
        peers = [stack.enter_context(DaemonPeer(server.port)) for _ in range(30)]
        pair.await_jobs(50)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        served = [peer for peer in peers if _is_served(peer)]
        assert served, "there was room for some"
        with DaemonPeer(server.port) as late:
            assert _is_served(late)
        pair.await_jobs(50)


@only_epoll
def test_it_says_that_it_has_run_out_of_files() -> None:
    with running_geartrain("--transport=epoll") as server, contextlib.ExitStack() as stack:
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[1]
        end = _files_of(server)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (end, hard))
        peers = [stack.enter_context(DaemonPeer(server.port)) for _ in range(end)]
        wait_until(lambda: "accept_failed" in server.log.read_text(), "it can accept nothing")
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (1000, hard))
        assert all(_is_served(peer) for peer in peers), "they waited, and none was lost"


def test_a_server_that_waits_takes_no_processor_time() -> None:
    with running_geartrain() as server:
        with GoodPair(server) as pair:
            pair.await_jobs(100)
        before = _processor_seconds(server)
        time.sleep(1)  # the time in which nothing is to happen
        assert _processor_seconds(server) - before < 0.1


def _is_served(peer: DaemonPeer) -> bool:
    try:
        peer.send(pack_request(p.ECHO_REQ, b"there?"))
        return peer.receive().arguments == (b"there?",)
    except (OSError, AssertionError):
        return False


def _files_of(server: RunningServer) -> int:
    """The highest descriptor that the server has open, and one more."""
    return max(int(name) for name in os.listdir(f"/proc/{server.process.pid}/fd")) + 1


def _processor_seconds(server: RunningServer) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
