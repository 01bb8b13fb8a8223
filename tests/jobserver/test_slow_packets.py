"""Half-sent packets have a time limit; peers that go on sending whole ones do not."""

from __future__ import annotations

import struct

import pytest
from world import request

from geartrain.jobserver import JobServer, Origin, Peer, Settings


class Clock:
    """A job server whose time limit is ten seconds, and its time."""

    def __init__(self) -> None:
        settings = Settings()
        settings.packet_timeout = 10.0
        self.server = JobServer(settings)
        self.now = 500.0
        self.server.tick(self.now, self.now)

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < (at := self.server.next_deadline()) <= end:
            self.now = at
            self.server.tick(at, at)
        self.now = end
        self.server.tick(end, end)

    def connect(self) -> Peer:
        return self.server.connect(Origin("127.0.0.1", 9))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("half", [b"\0", b"\0REQ\0\0\0", request("ECHO_REQ", b"abc")[:-1], b"stat"])
def test_half_a_message_is_waited_for_so_long_and_no_longer(clock: Clock, half: bytes) -> None:
    peer = clock.connect()
    clock.server.receive(peer, half)
    clock.wait(9.9)
    assert not peer.closing
    clock.wait(1.2)
    assert peer.closing
    assert b"TIMEOUT\0The packet did not come whole within 10 seconds" in b"".join(peer.take())
    assert [event for event, _, _ in clock.server.take_events()] == ["packet_too_slow"]
    assert peer not in clock.server.peers


def test_a_message_that_comes_whole_in_time_is_answered(clock: Clock) -> None:
    peer = clock.connect()
    message = request("ECHO_REQ", b"abc")
    clock.server.receive(peer, message[:-1])
    clock.wait(9)
    clock.server.receive(peer, message[-1:])
    clock.wait(100)
    assert not peer.closing
    assert b"".join(peer.take()).endswith(b"abc")
    assert clock.server.next_deadline() == 0


def test_a_peer_that_never_pauses_is_not_slow(clock: Clock) -> None:
    """Reads end in the middle of packets; that there is always half a packet does not mean that one is late."""
    peer = clock.connect()
    message = request("ECHO_REQ", b"x" * 100)
    clock.server.receive(peer, message[:50])
    for _ in range(60):
        clock.wait(1)
        clock.server.receive(peer, message[50:] + message + message[:50])
        peer.take()
    assert not peer.closing
    clock.wait(11.2)
    assert peer.closing


def test_a_trickle_does_not_buy_time(clock: Clock) -> None:
    peer = clock.connect()
    message = request("ECHO_REQ", b"x" * 1000)
    for at in range(15):
        clock.server.receive(peer, message[at : at + 1])
        clock.wait(1)
    assert peer.closing


def test_a_large_packet_has_a_second_for_each_64_kib(clock: Clock) -> None:
    peer = clock.connect()
    size = 40 * 64 * 1024
    message = request("ECHO_REQ", b"x" * size)
    for at in range(0, len(message), 64 * 1024):
        assert not peer.closing, at
        clock.server.receive(peer, message[at : at + 64 * 1024])
        clock.wait(1)
    assert sum(map(len, peer.take())) == 12 + size
    clock.server.receive(peer, struct.pack(">4sII", b"\0REQ", 16, 1 << 24) + b"x" * (5 * 64 * 1024))
    clock.wait(14)
    assert not peer.closing
    clock.wait(3)
    assert peer.closing


def test_a_peer_that_is_hung_up_on_gets_one_error(clock: Clock) -> None:
    peer = clock.connect()
    clock.server.receive(peer, b"\0RE")
    clock.server.receive(peer, b"\xff" * 9)
    assert peer.closing
    clock.wait(60)
    assert b"".join(peer.take()).count(b"\0RES") == 1
    assert clock.server.next_deadline() == 0


def test_a_peer_whose_output_is_full_is_not_slow(clock: Clock) -> None:
    """Its messages wait for us, not we for them."""
    peer = clock.connect()
    message = request("ECHO_REQ", b"x" * 600_000)
    clock.server.receive(peer, message * 3 + message[:20])
    assert peer.stalled
    clock.wait(100)
    assert not peer.closing
    peer.take()
    clock.server.receive(peer, b"")
    assert not peer.stalled
    clock.wait(9)
    assert not peer.closing
    clock.wait(3)
    assert peer.closing


def test_those_that_leave_are_forgotten(clock: Clock) -> None:
    peer = clock.connect()
    clock.server.receive(peer, b"\0")
    clock.server.lost(peer)
    assert clock.server.next_deadline() == 0
    clock.wait(100)
