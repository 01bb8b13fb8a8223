"""Peers that read slowly, not at all, or have stopped sending: nobody else notices, and the memory stays bounded."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from good_pair import GoodPair, memory_of

from daemon_peer import DaemonPeer
from geartrain.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    GET_STATUS_UNIQUE,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    WORK_DATA,
    pack_request,
)
from servers import RunningServer, running_geartrain, wait_until

MIB = 1 << 20


def read_all(connection: socket.socket) -> bytearray:
    """All that comes until the server closes the connection in good order."""
    data = bytearray()
    while more := connection.recv(MIB):
        data += more
    return data


def has_piled_up(peer: DaemonPeer) -> bool:
    """Whether output has come, and no more comes for a tenth of a second."""
    before = peer.unread()
    time.sleep(0.1)
    return 0 < before == peer.unread()


def read_large(peer: DaemonPeer, number: int) -> bytearray:
    """The body of the next packet, which must be of this type."""
    body = bytearray()
    header = peer.socket.recv(12)
    assert struct.unpack(">4sI", header[:8]) == (b"\0RES", number)
    size = int.from_bytes(header[8:], "big")
    while len(body) < size:
        more = peer.socket.recv(min(MIB, size - len(body)))
        assert more, "cut off"
        body += more
    return body


def send_until_stuck(peer: DaemonPeer, data: bytes, most: int) -> int:
    """Send ``data`` again and again until nobody takes it any more, or ``most`` bytes; how many went out."""
    peer.socket.settimeout(1)
    sent = 0
    try:
        while sent < most:
            sent += peer.socket.send(data[sent % len(data) :])
    except (TimeoutError, ConnectionError):
        pass
    return sent


def create_functions(server: RunningServer, count: int) -> None:
    with DaemonPeer(server.port) as admin:
        admin.send(b"".join(b"create function function-%06d\n" % number for number in range(count)))
        left = count * len(b"OK\r\n")
        while left:
            left -= len(admin.socket.recv(MIB))


@pytest.fixture(scope="module")
def crowded() -> Iterator[RunningServer]:
    """A server that knows 50,000 functions."""
    with running_geartrain() as server:
        create_functions(server, 50_000)
        yield server


# ── not reading ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "message",
    [pack_request(ECHO_REQ, b"x" * 1000), b"status\n", b"workers\n" * 100 + b"status\n"],
    ids=["echo", "status", "workers"],
)
def test_a_flood_of_requests_without_reading_stops_by_itself(crowded: RunningServer, message: bytes) -> None:
    """What a peer asks for waits in its own socket until it takes the answers."""
    before = memory_of(crowded)
    with GoodPair(crowded), DaemonPeer(crowded.port) as peer:
        sent = send_until_stuck(peer, message * (MIB // len(message)), 300 * MIB)
        assert sent < 100 * MIB, "the server goes on taking requests whose answers nobody takes"
        assert memory_of(crowded) < before + 40 * MIB
        if message.startswith(b"\0"):  # once it reads, everything is there
            peer.socket.settimeout(10)
            answers = 0
            while answers < sent // len(message) * len(message):
                answers += len(peer.socket.recv(MIB))


def test_many_that_do_not_read_are_no_worse(crowded: RunningServer) -> None:
    before = memory_of(crowded)
    with GoodPair(crowded) as pair:
        peers = [DaemonPeer(crowded.port, receive_buffer=4096) for _ in range(30)]
        for peer in peers:
            peer.socket.setblocking(False)
            peer.send(b"status\n" * 2000)
        pair.await_jobs(100)
        assert memory_of(crowded) < before + 30 * 5 * MIB
        for peer in peers:
            peer.socket.close()


def test_a_client_that_does_not_read_its_results_is_cut_off() -> None:
    with (
        running_geartrain("--max-unsent=8MiB") as server,
        GoodPair(server),
        DaemonPeer(server.port, receive_buffer=4096) as client,
        DaemonPeer(server.port) as worker,
    ):
        client.send(pack_request(SUBMIT_JOB, b"f", b"", b""))
        worker.send(pack_request(CAN_DO, b"f") + pack_request(GRAB_JOB))
        assert client.receive().type == JOB_CREATED
        job = worker.receive()
        before = memory_of(server)
        data = pack_request(WORK_DATA, job.arguments[0], b"x" * 100_000)
        sent = 0
        while "peer_aborted" not in server.log.read_text():
            worker.send(data)
            sent += len(data)
            assert sent < 200 * MIB
            assert memory_of(server) < before + 50 * MIB
        assert re.search(
            r"WARN +peer_aborted host=127.0.0.1 fd=\d+ unread=\d+ limit=8388608 ",
            server.log.read_text(),
        )
        wait_until(lambda: len(server.ask("workers")) == 4, "it is gone: the pair, the worker and the one who asks")
        worker.send(pack_request(WORK_COMPLETE, job.arguments[0], b""))
        wait_until(lambda: server.jobs_of("f") == (0, 0), "its job ended")


def test_a_slow_reader_of_much_is_not_cut_off() -> None:
    """Far more than may pile up goes to a client that takes it slowly, but steadily, and asks for it bit by bit."""
    with running_geartrain("--max-unsent=2MiB") as server, DaemonPeer(server.port, receive_buffer=65536) as peer:
        message = pack_request(ECHO_REQ, b"x" * 100_000)
        sender = threading.Thread(target=lambda: peer.send(message * 100))
        sender.start()
        got = 0
        while got < 100 * len(message):
            got += len(peer.socket.recv(200_000))
            time.sleep(0.001)
        sender.join()
        assert "peer_aborted" not in server.log.read_text()


@pytest.mark.parametrize("size", [70 * MIB, 200 * MIB])
def test_one_packet_larger_than_what_may_pile_up_still_arrives(size: int) -> None:
    """Else a large job would cut off one worker after the other."""
    with running_geartrain("--max-memory=1GiB") as server, GoodPair(server), DaemonPeer(server.port) as peer:
        workload = bytes(size)
        peer.socket.settimeout(30)
        peer.send(pack_request(CAN_DO, b"f") + pack_request(SUBMIT_JOB, b"f", b"", workload))
        assert peer.receive().type == JOB_CREATED
        peer.send(pack_request(GRAB_JOB))
        body = read_large(peer, JOB_ASSIGN)
        assert len(body) > size
        peer.send(pack_request(WORK_COMPLETE, bytes(body[:100]).partition(b"\0")[0], workload))
        # Smaller ones that follow while it is on its way do not harm it either.
        with DaemonPeer(server.port) as admin:
            admin.send(b"create function g\n")
        assert len(read_large(peer, WORK_COMPLETE)) > size
        assert "peer_aborted" not in server.log.read_text()


# ── asking for much ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_list_of_200_000_jobs_while_others_work(job_server: RunningServer) -> None:
    count = 200_000
    with DaemonPeer(job_server.port) as client:
        created = 0
        sender = threading.Thread(target=lambda: client.send(pack_request(SUBMIT_JOB_BG, b"many", b"", b"x") * count))
        sender.start()
        while created < count:
            assert client.receive().type == JOB_CREATED
            created += 1
        sender.join()
        with GoodPair(job_server), DaemonPeer(job_server.port) as admin:
            for command in (b"show jobs\n", b"show unique jobs\n"):
                admin.send(command)
                listing = bytearray()
                while not listing.endswith(b"\n.\n"):
                    listing += admin.socket.recv(MIB)
                assert listing.count(b"\n") >= count + 1
        with GoodPair(job_server):
            client.send(b"drop function many\n")
            assert client.socket.recv(4, socket.MSG_WAITALL) == b"OK\r\n"


def test_dear_questions_do_not_keep_others_waiting(crowded: RunningServer) -> None:
    with GoodPair(crowded) as pair, DaemonPeer(crowded.port) as peer:
        sender = threading.Thread(
            target=send_until_stuck, args=(peer, pack_request(GET_STATUS_UNIQUE, b"u") * 50_000, 4 * MIB)
        )
        sender.start()
        pair.await_jobs(50)
        peer.socket.shutdown(socket.SHUT_RDWR)
        sender.join()


# ── half-closed ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reads_late", [False, True])
def test_who_has_said_all_gets_the_whole_answer(crowded: RunningServer, reads_late: bool) -> None:
    """As ``printf 'status\\n' | nc -N`` does."""
    with DaemonPeer(crowded.port, receive_buffer=65536) as peer:
        peer.send(b"status\n" * 3 + b"version\n")
        peer.socket.shutdown(socket.SHUT_WR)
        if reads_late:
            wait_until(lambda: has_piled_up(peer), "as much has come as finds room")
        answer = read_all(peer.socket)
        assert answer.count(b"function-") == 150_000
        assert re.search(rb"\n\.\nOK [^\n]+\n\Z", answer)


def test_who_has_said_all_has_submitted_all(job_server: RunningServer) -> None:
    with DaemonPeer(job_server.port) as peer:
        peer.send(pack_request(SUBMIT_JOB_BG, b"last will", b"", b"x") * 5000)
        peer.socket.shutdown(socket.SHUT_WR)
        assert read_all(peer.socket).count(b"\0RES\0\0\0\x08") == 5000
    assert job_server.jobs_of("last will") == (5000, 0)


def test_who_has_said_all_waits_for_nothing_more(job_server: RunningServer) -> None:
    """As gearmand: a client that closes its side gets what was said so far, and its foreground job is dropped."""
    with DaemonPeer(job_server.port) as peer:
        peer.send(pack_request(SUBMIT_JOB, b"nobody", b"", b"x"))
        peer.socket.shutdown(socket.SHUT_WR)
        assert read_all(peer.socket).startswith(b"\0RES\0\0\0\x08")
    wait_until(lambda: job_server.jobs_of("nobody") == (0, 0), "the job is dropped")
