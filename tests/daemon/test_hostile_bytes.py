"""Bytes that no good peer would send, at any pace, while good ones go on without a hiccup."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time

import pytest
from good_pair import GoodPair, memory_of

from conversation import PACKETS
from daemon_peer import DaemonPeer
from geartrain.daemon.config import Config
from geartrain.errors import ConfigError
from geartrain.wire.packets import ECHO_REQ, ECHO_RES, ERROR, SET_CLIENT_ID, SUBMIT_JOB_BG, pack_request
from servers import RunningServer, running_geartrain, wait_until

LAST_WORDS = {
    "unknown magic": (b"\0ABCdefghijk", b"INVALID_MAGIC\0"),
    "packet too large": (struct.pack(">4sII", b"\0REQ", ECHO_REQ, 2**32 - 1), b"ARGUMENT_TOO_LARGE\0"),
    "line too long": (b"x" * 9000, b"ERR LINE_TOO_LONG "),
    "too many words": (b"a b c d e f\n", b"ERR TOO_MANY_WORDS "),
}
HUNG_UP_ON = pytest.mark.parametrize(("broken", "told"), LAST_WORDS.values(), ids=LAST_WORDS)


def read_to_the_end(peer: DaemonPeer) -> bytes:
    """All that comes until the server closes the connection in good order; a reset is an error."""
    data = b""
    while more := peer.socket.recv(1 << 20):
        data += more
    return data


def test_random_bytes_and_damaged_packets(job_server: RunningServer) -> None:
    chance = random.Random(1)
    with GoodPair(job_server):
        for _ in range(300):
            body = chance.randbytes(chance.choice((0, 5, 300)))
            number = chance.choice((*[number for number, _ in PACKETS.values()], 0, 99, 2**31))
            damaged = bytearray(struct.pack(">4sII", b"\0REQ", number, len(body)) + body)
            for _ in range(chance.choice((0, 1, 5))):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            with DaemonPeer(job_server.port) as peer:
                peer.send(chance.choice((chance.randbytes(chance.randrange(1, 2000)), bytes(damaged))))
                if chance.random() < 0.5:
                    peer.socket.shutdown(socket.SHUT_WR)
                    peer.socket.settimeout(10)
                    read_to_the_end(peer)


@HUNG_UP_ON
def test_the_last_words_arrive_although_more_comes_than_is_read(
    job_server: RunningServer, broken: bytes, told: bytes
) -> None:
    """Closing a socket with unread input resets it, and the reset would destroy the words that are on their way."""
    with GoodPair(job_server), DaemonPeer(job_server.port) as peer:

        def send_on() -> None:
            try:
                for _ in range(100):
                    peer.send(bytes(100_000))
            except OSError:
                pass  # the server has closed the connection meanwhile

        peer.send(broken)
        sender = threading.Thread(target=send_on)
        sender.start()
        wait_until(lambda: not sender.is_alive() or peer.is_stuck(), "as much has piled up as the server lets")
        data = read_to_the_end(peer)
        sender.join()
        assert told in data
        assert data.count(told) == 1


def test_what_was_asked_before_the_broken_bytes_is_answered_first(job_server: RunningServer) -> None:
    with DaemonPeer(job_server.port) as peer:
        large = pack_request(ECHO_REQ, b"x" * 3_000_000)
        peer.send(pack_request(ECHO_REQ, b"one") + b"version\n" + large + b"\0ABC" * 3)
        data = read_to_the_end(peer)
        assert data.startswith(b"\0RES\0\0\0\x11\0\0\0\x03oneOK ")
        assert data.count(b"x" * 3_000_000) == 1
        assert b"INVALID_MAGIC" in data[-200:]


def test_a_trickle_has_a_time_limit_and_does_not_disturb() -> None:
    with running_geartrain("--packet-timeout=300ms") as server, GoodPair(server):
        peers = [DaemonPeer(server.port) for _ in range(20)]
        message = pack_request(SUBMIT_JOB_BG, b"f", b"", b"x" * 5000)
        began = time.monotonic()
        sent = 0
        open_peers = list(peers)
        while open_peers and time.monotonic() < began + 10:
            for peer in list(open_peers):
                try:
                    peer.send(message[sent : sent + 1])
                except OSError:
                    open_peers.remove(peer)
            sent += 1
            time.sleep(0.02)
        assert not open_peers, "a trickle went on for ten seconds"
        wait_until(lambda: "packet_too_slow" in server.log.read_text(), "a line in the log")
        for peer in peers:
            peer.socket.close()


def test_whole_packets_byte_by_byte_are_answered_while_they_are_quick_enough() -> None:
    with running_geartrain("--packet-timeout=1s") as server, DaemonPeer(server.port) as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = pack_request(ECHO_REQ, b"abc")
        began = time.monotonic()
        while time.monotonic() < began + 3:  # longer than the limit of one packet
            for at in range(len(message)):
                peer.send(message[at : at + 1])
            assert peer.receive().type == ECHO_RES


def test_an_announced_packet_costs_nothing_until_it_comes() -> None:
    with running_geartrain("--max-packet=4095MiB", "--max-memory=0") as server, GoodPair(server) as pair:
        before = memory_of(server)
        peers = [DaemonPeer(server.port) for _ in range(50)]
        for peer in peers:
            peer.send(struct.pack(">4sII", b"\0REQ", SUBMIT_JOB_BG, 4095 * 1024 * 1024) + b"f\0u\0" + bytes(20_000))
        pair.await_jobs(20)
        assert memory_of(server) < before + 30_000_000
        for peer in peers:
            peer.socket.close()


def test_names_from_peers_make_no_lines_of_their_own_in_the_log() -> None:
    with running_geartrain() as server, DaemonPeer(server.port) as peer:
        name = b"f\r\n2027-01-01 00:00:00.000 INFO  stopping\x1b[2J"
        short = struct.pack(">4sII", b"\0REQ", SUBMIT_JOB_BG, 0)
        peer.send(pack_request(SET_CLIENT_ID, name) + short + b"\0\n\r\x1b" + bytes(8))
        read_to_the_end(peer)
        wait_until(lambda: "malformed_packet" in server.log.read_text(), "a line in the log")
        log = server.log.read_bytes()
        assert b"\r" not in log
        assert b"\x1b" not in log
        assert b"\n2027" not in log


def test_a_flood_of_mistakes_does_not_flood_the_log(job_server: RunningServer) -> None:
    before = job_server.log.stat().st_size
    with GoodPair(job_server), DaemonPeer(job_server.port) as peer:
        one = struct.pack(">4sII", b"\0REQ", SUBMIT_JOB_BG, 0)
        peer.send(one * 20_000)
        for _ in range(20_000):
            assert peer.receive().type == ERROR
    assert job_server.log.stat().st_size - before < 100_000


@pytest.mark.parametrize("option", ["max_packet=4294967295", "max_function=5000", "max_unique=5000"])
def test_limits_that_could_not_be_kept_are_refused(option: str) -> None:
    """Such a packet could not be passed on, or such a name not be found: better said at the start."""
    name, _, value = option.partition("=")
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        Config.load({name: value})
