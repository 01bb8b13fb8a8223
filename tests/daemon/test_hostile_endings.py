"""Connections that break off in the middle of everything, hosts that die, and a server that is told to stop amid it."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import struct
import threading
import time

import pytest
from good_pair import GoodPair

from daemon_peer import DaemonPeer
from geartrain.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    WORK_DATA,
    pack_request,
)
from servers import RunningServer, running_geartrain, wait_until

MIB = 1 << 20


def reset(peer: DaemonPeer) -> None:
    """Break the connection off without a goodbye: whatever is on its way is lost."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()


# ── resets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_resets_in_the_middle_of_everything(job_server: RunningServer) -> None:
    """Peers of all roles vanish at any byte; what they held comes back, and what only they wanted goes."""
    chance = random.Random(7)
    script = b"".join(
        (
            pack_request(CAN_DO, b"wild"),
            pack_request(SUBMIT_JOB, b"wild", b"", b"x" * 100),
            pack_request(SUBMIT_JOB, b"wild", b"same", b"x" * 70_000),
            pack_request(GRAB_JOB) * 2,
            pack_request(PRE_SLEEP),
            b"status\nshow jobs\n",
            pack_request(SUBMIT_JOB, b"wild", b"", b"y"),
            pack_request(ECHO_REQ, b"z" * 100_000),
        )
    )
    with GoodPair(job_server):
        for _ in range(400):
            peer = DaemonPeer(job_server.port)
            peer.send(script[: chance.randrange(len(script) + 1)])
            if chance.random() < 0.3:
                peer.socket.recv(chance.choice((1, 100, 100_000)))
            reset(peer)
        wait_until(lambda: len(job_server.ask("workers")) == 3, "only the pair and the one who asks are left")
        assert job_server.jobs_of("wild") == (0, 0)


def test_background_jobs_survive_all_of_their_workers(job_server: RunningServer) -> None:
    count = 50
    with DaemonPeer(job_server.port) as client:
        client.send(b"".join(pack_request(SUBMIT_JOB_BG, b"tough", b"", b"%d" % number) for number in range(count)))
        for _ in range(count):
            assert client.receive().type == JOB_CREATED
    with GoodPair(job_server):
        for _ in range(100):
            worker = DaemonPeer(job_server.port)
            worker.send(pack_request(CAN_DO, b"tough") + pack_request(GRAB_JOB) * 3)
            assert worker.receive().type in (JOB_ASSIGN, NO_JOB)  # from the second loss on they pause
            reset(worker)
    wait_until(lambda: job_server.jobs_of("tough") == (count, 0), "they all came back")
    with DaemonPeer(job_server.port) as worker:
        worker.send(pack_request(CAN_DO, b"tough"))
        got: list[tuple[bytes, ...]] = []
        while len(got) < count:
            worker.send(pack_request(GRAB_JOB))
            answer = worker.receive()
            if answer.type == JOB_ASSIGN:
                got.append(answer.arguments)
            else:
                worker.send(pack_request(PRE_SLEEP))
                assert worker.receive().type == NOOP
        assert sorted(int(workload) for _, _, workload in got) == list(range(count))
        worker.send(b"".join(pack_request(WORK_COMPLETE, handle, b"") for handle, _, _ in got))
        wait_until(lambda: job_server.jobs_of("tough") == (0, 0), "they all are done")


# ── SIGTERM, SIGUSR1 ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_is_owed_is_sent_before_the_end(number: int) -> None:
    """The peer has asked for much, reads slowly, and goes on sending: it gets every answer that it was due."""
    with running_geartrain() as server, DaemonPeer(server.port, receive_buffer=65536) as peer:
        message = pack_request(ECHO_REQ, b"x" * 10_000)
        asked = threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError):
                for _ in range(10_000):  # 100 MB: more than all buffers on the way hold, however the kernel is set
                    peer.send(message)
                    asked.set()

        sender = threading.Thread(target=send)
        sender.start()
        asked.wait(10)
        wait_until(peer.is_stuck, "its output has piled up here, and its input there")
        server.process.send_signal(number)
        wait_until(lambda: "stopping" in server.log.read_text(), "the server knows that it is to stop")
        data = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while more := peer.socket.recv(MIB):
                data += more
        assert server.process.wait(10) == 0
        sender.join()
        assert len(data) % len(message) == 0, "an answer was cut short"
        assert len(data) >= MIB


def test_peers_that_do_not_read_do_not_hold_up_the_end() -> None:
    with running_geartrain("--stop-timeout=500ms") as server, contextlib.ExitStack() as stack:
        for _ in range(20):
            peer = stack.enter_context(DaemonPeer(server.port, receive_buffer=4096))
            peer.socket.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                peer.send(pack_request(ECHO_REQ, b"x" * 100_000) * 100)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 3
        assert " stopped " in server.log.read_text()


def test_a_drain_that_is_interrupted(job_server: RunningServer) -> None:
    with running_geartrain() as server, DaemonPeer(server.port) as peer:
        peer.send(pack_request(CAN_DO, b"f") + pack_request(SUBMIT_JOB_BG, b"f", b"", b"x") + pack_request(GRAB_JOB))
        assert [peer.receive().type, peer.receive().type] == [JOB_CREATED, JOB_ASSIGN]
        for _ in range(3):
            server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "draining" in server.log.read_text(), "it drains")
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0


def test_a_drain_ends_when_the_worker_of_the_last_job_vanishes() -> None:
    with running_geartrain("--drain-timeout=30s") as server, DaemonPeer(server.port) as peer:
        peer.send(pack_request(CAN_DO, b"f") + pack_request(SUBMIT_JOB_BG, b"f", b"", b"x") + pack_request(GRAB_JOB))
        assert [peer.receive().type, peer.receive().type] == [JOB_CREATED, JOB_ASSIGN]
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "draining" in server.log.read_text(), "it drains")
        reset(peer)
        assert server.process.wait(10) == 0


def test_a_result_that_comes_in_the_last_moment_of_a_drain_arrives() -> None:
    """The job ends, so the server ends; its client must have been told before."""
    with (
        running_geartrain() as server,
        DaemonPeer(server.port) as client,
        DaemonPeer(server.port) as worker,
    ):
        client.send(pack_request(SUBMIT_JOB, b"f", b"", b"x"))
        assert client.receive().type == JOB_CREATED
        worker.send(pack_request(CAN_DO, b"f") + pack_request(GRAB_JOB))
        handle = worker.receive().arguments[0]
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "draining" in server.log.read_text(), "it drains")
        result = bytes(5 * MIB)
        worker.send(pack_request(WORK_DATA, handle, result) + pack_request(WORK_COMPLETE, handle, b"end"))
        got = 0
        while more := client.socket.recv(MIB):
            got += len(more)
        assert got == 2 * (12 + len(handle) + 1) + len(result) + 3
        assert server.process.wait(10) == 0
