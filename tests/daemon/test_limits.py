"""The bounds that keep one peer from harming the others, set low and overstepped."""

from __future__ import annotations

from daemon_peer import DaemonPeer
from geartrain.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_DATA,
    pack_request,
)
from servers import RunningServer, running_geartrain, wait_until


def still_serves(server: RunningServer) -> bool:
    with DaemonPeer(server.port) as peer:
        peer.send(pack_request(ECHO_REQ, b"hello"))
        return peer.receive().type == ECHO_RES


def test_a_packet_above_the_limit_ends_its_connection_at_its_header() -> None:
    with running_geartrain("--max-packet=64KiB") as server:
        with DaemonPeer(server.port) as peer:
            peer.send(pack_request(ECHO_REQ, b"x" * 65536))
            assert peer.receive().arguments == (b"x" * 65536,)
            peer.send(b"\0REQ" + ECHO_REQ.to_bytes(4, "big") + (65537).to_bytes(4, "big"))
            assert peer.receive().type == ERROR
            assert peer.is_closed()
        assert still_serves(server)


def test_connections_above_the_limit_are_closed_and_the_others_stay() -> None:
    with running_geartrain("--max-connections=2") as server, DaemonPeer(server.port) as one:
        one.send(pack_request(ECHO_REQ, b"1"))
        assert one.receive().arguments == (b"1",)
        with DaemonPeer(server.port) as two:
            two.send(pack_request(ECHO_REQ, b"2"))
            assert two.receive().arguments == (b"2",)
            with DaemonPeer(server.port) as three:
                assert three.is_closed()
        one.send(pack_request(ECHO_REQ, b"still here"))
        assert one.receive().arguments == (b"still here",)
        wait_until(lambda: "connection_refused host=127.0.0.1 limit=2" in server.log.read_text(), "a line in the log")


def test_memory_for_jobs_is_bounded() -> None:
    with running_geartrain("--max-memory=100KiB") as server, DaemonPeer(server.port) as peer:
        answers = []
        for _ in range(4):
            peer.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"x" * 40_000))
            answers.append(peer.receive())
        assert [answer.type for answer in answers[:2]] == [JOB_CREATED, JOB_CREATED]
        assert answers[3].type == ERROR
        assert answers[3].arguments[0] == b"QUEUE_ERROR"
        wait_until(lambda: "memory_full" in server.log.read_text(), "a line in the log")


def test_a_peer_that_does_not_read_is_cut_off() -> None:
    with (
        running_geartrain("--max-unsent=1MiB") as server,
        DaemonPeer(server.port, receive_buffer=4096) as client,
        DaemonPeer(server.port) as worker,
    ):
        client.send(pack_request(SUBMIT_JOB, b"f", b"", b""))
        worker.send(pack_request(CAN_DO, b"f") + pack_request(GRAB_JOB))
        assert client.receive().type == JOB_CREATED
        job = worker.receive()
        assert job.type == JOB_ASSIGN
        data = pack_request(WORK_DATA, job.arguments[0], b"x" * 500_000)

        def is_cut_off() -> bool:
            worker.send(data)
            return "peer_aborted" in server.log.read_text()

        wait_until(is_cut_off, "the client is cut off")
        wait_until(lambda: still_serves(server), "the others are served")


def test_a_half_sent_packet_has_a_time_limit() -> None:
    with running_geartrain("--packet-timeout=200ms") as server:
        with DaemonPeer(server.port) as peer:
            peer.send(pack_request(ECHO_REQ, b"whole") + pack_request(ECHO_REQ, b"half")[:13])
            assert peer.receive().arguments == (b"whole",)
            assert peer.receive().type == ERROR
            assert peer.is_closed()
        wait_until(lambda: "packet_too_slow" in server.log.read_text(), "a line in the log")


def test_many_connections_at_once_are_all_accepted() -> None:
    with running_geartrain() as server:
        peers = [DaemonPeer(server.port) for _ in range(1000)]
        try:
            for peer in peers:
                peer.send(pack_request(ECHO_REQ, b"me too"))
            assert all(peer.receive().type == ECHO_RES for peer in peers)
        finally:
            for peer in peers:
                peer.socket.close()


def test_names_have_limits() -> None:
    with (
        running_geartrain("--max-function=8", "--max-unique=4", "--max-functions=2", "--max-line=64") as server,
        DaemonPeer(server.port) as peer,
    ):
        for function, unique, is_taken in [
            (b"f" * 8, b"u" * 4, True),
            (b"f" * 9, b"", False),
            (b"g", b"u" * 5, False),
            (b"g", b"", True),
            (b"h", b"", False),
        ]:
            peer.send(pack_request(SUBMIT_JOB_BG, function, unique, b""))
            assert peer.receive().type == (JOB_CREATED if is_taken else ERROR), (function, unique)
        peer.send(b"status " + b" " * 100)
        assert peer.socket.recv(100).startswith(b"ERR LINE_TOO_LONG")
        assert peer.is_closed()
