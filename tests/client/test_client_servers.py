"""Which job server takes a request, and what happens when one is lost; in memory, with a clock of our own."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from geartrain.client.request import EchoRequest, HandleStatusRequest, Request
from geartrain.client.servers import Server, Servers
from geartrain.client.session import ClientSession
from geartrain.client.submission import SentAgainEvent, Submission
from geartrain.errors import AddressError, ConnectError, ConnectionLostError, RemoteProtocolError
from geartrain.link import Address
from geartrain.wire.packets import ECHO_RES, JOB_CREATED, WORK_DATA, pack_response

PROBE = EchoRequest(b"")
A, B, C = (Address(name) for name in "abc")


class Network:
    """Does by hand what a driver does; ``now`` is set by the test."""

    def __init__(self, *addresses: Address, patience: float = 5) -> None:
        self.now = 0.0
        self.servers = Servers(
            addresses, lambda: ClientSession(exceptions=False), patience=patience, source=random.Random(3)
        )
        self.known = {server.address: server for server in self.servers}

    def dialed(self) -> set[Address]:
        dialed = {server.address for server in self.servers.to_dial}
        self.servers.to_dial.clear()
        return dialed

    def connect(self, *addresses: Address) -> None:
        """Each is connected and, if it was asked whether it lives, answers."""
        for address in addresses:
            server = self.known[address]
            server.is_dialing = True
            self.servers.connected(server, self.now)
            if server.is_down:
                assert server.session is not None
                assert server.session.take() == PROBE.packet
                self.servers.received(server, pack_response(ECHO_RES, b""), self.now)

    def refuse(self, *addresses: Address) -> None:
        for address in addresses:
            self.servers.refused(self.known[address], ConnectError(f"no job server at {address}"), self.now)

    def lose(self, address: Address) -> None:
        self.servers.lost(self.known[address], ConnectionLostError(f"{address} is gone"), self.now)

    def place(self, *requests: Request[Any]) -> None:
        for request in requests:
            self.servers.place(request, self.now)

    def sent_to(self, address: Address) -> bytes:
        session = self.known[address].session
        return session.take() if session is not None else b""


def job(unique: bytes = b"", **options: Any) -> Submission:
    return Submission(b"f", b"x", unique=unique, **options)


def test_the_first_request_dials_all_and_goes_to_the_first_that_answers() -> None:
    network = Network(A, B, C)
    assert network.dialed() == set()
    one = job()
    network.place(one)
    assert network.dialed() == {A, B, C}
    network.connect(B)
    assert network.sent_to(B) == one.packet
    assert one.sent_to == B
    network.place(job())
    assert network.dialed() == set()


def test_requests_without_a_key_take_the_servers_in_turn() -> None:
    network = Network(A, B, C)
    network.connect(A, B, C)
    jobs = [job() for _ in range(30)]
    network.place(*jobs)
    assert Counter(job.sent_to for job in jobs) == {A: 10, B: 10, C: 10}


def test_a_key_has_one_server_for_all_who_ask_in_whatever_order() -> None:
    keys = [b"key %d" % number for number in range(300)]
    homes = []
    for addresses in ((A, B, C), (C, A, B)):
        network = Network(*addresses)
        network.connect(*addresses)
        jobs = [job(key) for key in keys]
        network.place(*jobs)
        homes.append([job.sent_to for job in jobs])
    assert homes[0] == homes[1]
    assert all(70 <= count <= 130 for count in Counter(homes[0]).values())


def test_only_the_keys_of_a_lost_server_move_and_they_come_back() -> None:
    network = Network(A, B, C)
    network.connect(A, B, C)

    def homes() -> dict[bytes, Address | None]:
        jobs = [job(b"%d" % number) for number in range(100)]
        network.place(*jobs)
        return {job.unique: job.sent_to for job in jobs}

    before = homes()
    network.lose(B)
    during = homes()
    assert B not in during.values()
    assert {key for key in before if before[key] != during[key]} == {key for key in before if before[key] == B}
    network.connect(B)
    assert homes() == before


def test_a_key_waits_for_its_server_while_that_is_dialed_for_the_first_time() -> None:
    network = Network(A, B)
    network.connect(A, B)
    one = job(b"one")
    network.place(one)
    home, other = (A, B) if one.sent_to == A else (B, A)

    network = Network(A, B)
    network.place(one := job(b"one"))
    network.connect(other)
    assert one.sent_to is None
    network.refuse(home)
    assert one.sent_to == other


def test_a_server_that_is_down_is_tried_again_after_growing_pauses_and_delays_nobody() -> None:
    network = Network(A, B)
    network.place(job())
    network.dialed()
    network.connect(A)
    pauses = []
    for _ in range(9):
        network.refuse(B)
        refused_at = network.now
        while not network.dialed():
            network.now += 0.05
            network.place(one := job(b"any key"))
            assert one.sent_to == A
        pauses.append(network.now - refused_at)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.2
    assert 12 < pauses[-1] < 31


def test_without_any_server_each_is_tried_once_and_the_error_names_them() -> None:
    network = Network(A, B)
    one = job()
    network.place(one)
    network.dialed()
    network.refuse(A)
    assert not one.done
    network.refuse(B)
    with pytest.raises(ConnectError, match="no job server at a:4730; no job server at b:4730"):
        one.outcome()
    assert one in network.servers.touched
    # A later request does not sit out the pauses.
    network.place(two := job())
    assert network.dialed() == {A, B}
    network.connect(A)
    assert two.sent_to == A


def test_patience_bridges_a_restart() -> None:
    network = Network(A, patience=5)
    network.connect(A)
    network.lose(A)
    one = job()
    network.place(one)
    assert network.dialed() == {A}
    network.refuse(A)
    deadline = network.servers.tick(network.now)
    assert deadline is not None
    assert 0.1 <= deadline <= 0.2
    network.now = deadline
    network.servers.tick(network.now)
    assert network.dialed() == {A}
    network.connect(A)
    assert one.sent_to == A


def test_patience_ends() -> None:
    network = Network(A, patience=5)
    network.connect(A)
    network.place(sent := job())
    network.lose(A)
    network.place(new := job(), HandleStatusRequest(b"H:a:1", A))
    for _ in range(100):
        if network.dialed():
            network.refuse(A)
        deadline = network.servers.tick(network.now)
        if deadline is None:
            break
        network.now = deadline
    assert 5 <= network.now <= 8
    with pytest.raises(ConnectError):
        new.outcome()
    with pytest.raises(ConnectionLostError, match="may or may not have run"):
        sent.outcome()


def test_a_job_moves_once_when_its_server_is_lost() -> None:
    network = Network(A, B, C)
    network.connect(A, B, C)
    one = job()
    network.place(one)
    first = one.sent_to
    assert first is not None
    network.servers.received(network.known[first], pack_response(JOB_CREATED, b"H:1"), network.now)
    network.servers.received(network.known[first], pack_response(WORK_DATA, b"H:1", b"half"), network.now)
    network.lose(first)
    assert one.sent_to not in (None, first)
    assert list(one.events) == [SentAgainEvent(first)]
    assert (one.handle, one.progress, one.done) == (None, None, False)
    assert [server.address for server in network.servers.to_hang_up] == [first]
    second = one.sent_to
    assert second is not None
    network.lose(second)
    with pytest.raises(ConnectionLostError, match=f"{second} is gone; the job may or may not have run"):
        one.outcome()


def test_resends_can_be_forbidden_or_allowed_more_often() -> None:
    for resends in (0, 3):
        network = Network(A, B)
        network.connect(A, B)
        one = job(resends=resends)
        network.place(one)
        losses = 0
        while not one.done:
            home = one.sent_to
            assert home is not None
            network.lose(home)
            losses += 1
            network.connect(home)
        assert losses == resends + 1


def test_a_background_job_with_a_handle_is_safe() -> None:
    network = Network(A)
    network.connect(A)
    one = job(background=True)
    network.place(one)
    network.servers.received(network.known[A], pack_response(JOB_CREATED, b"H:1"), network.now)
    network.lose(A)
    assert one.outcome() == b"H:1"
    assert one.handle is not None
    assert one.handle.address == A


def test_questions_about_a_handle_go_to_its_server_alone() -> None:
    network = Network(A, B)
    network.connect(A)
    network.place(question := HandleStatusRequest(b"H:1", B))
    assert network.dialed() == {B}
    network.connect(B)
    assert network.sent_to(B) == question.packet
    network.place(stranger := HandleStatusRequest(b"H:1", C))
    with pytest.raises(AddressError, match="c:4730 is not one of this client's job servers: a:4730, b:4730"):
        stranger.outcome()


def test_a_server_that_is_silent_or_talks_nonsense_is_hung_up_on() -> None:
    network = Network(A, B)
    network.connect(A, B)
    network.place(*(job(resends=0) for _ in range(2)))
    assert network.servers.tick(0) == 30
    network.servers.received(network.known[A], b"what?\n", 1)
    assert [server.address for server in network.servers.to_hang_up] == [A]
    network.servers.to_hang_up.clear()
    assert network.servers.tick(31) is None
    assert [server.address for server in network.servers.to_hang_up] == [B]
    errors = [request.error for request in network.servers.touched]
    assert [type(error) for error in errors] == [ConnectionLostError, ConnectionLostError]
    assert "text line" in str(errors[0])
    assert "silent for 30 s" in str(errors[1])


def test_a_server_that_was_down_gets_nothing_before_it_answers() -> None:
    network = Network(A)
    network.connect(A)
    network.place(one := job())
    packet = network.sent_to(A)
    network.lose(A)
    assert network.dialed() == {A}
    server = network.known[A]
    for _ in range(3):  # it accepts connections and dies, or is dying
        network.servers.connected(server, network.now)
        assert network.sent_to(A) == PROBE.packet
        network.lose(A)
        network.now = server.retry_at
        network.servers.tick(network.now)
        assert network.dialed() == {A}
    assert not one.done
    network.servers.connected(server, network.now)
    network.servers.received(server, pack_response(ECHO_RES, b""), network.now)
    assert network.sent_to(A) == PROBE.packet + packet


def test_what_is_given_up_is_not_sent_later() -> None:
    network = Network(A)
    network.place(one := job(), two := job())
    network.servers.give_up(one, RemoteProtocolError("enough"))
    network.connect(A)
    assert network.sent_to(A) == two.packet


def test_the_end_fails_all_that_is_open() -> None:
    network = Network(A, B)
    network.place(waiting := EchoRequest(b"", B), sent := job())
    network.connect(A)
    network.servers.end(ConnectionLostError("closed"))
    for request in (waiting, sent):
        with pytest.raises(ConnectionLostError, match="closed"):
            request.outcome()
    assert [server.address for server in network.servers.to_hang_up] == [A]


def test_a_server_shows_its_state() -> None:
    server = Server(A, random.Random())
    assert repr(server) == "<Server a:4730, new>"
