"""Peers that leave, or are hung up on, have no part in anything from that moment on."""

from __future__ import annotations

import pytest
from world import World, go_on, request

from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.model import NORMAL

LAST_WORDS = {
    "unknown magic": b"\0ABCdefghijk",
    "packet too large": b"\0REQ\0\0\0\x10\xff\xff\xff\xff",
    "line too long": b"x" * 8192,
    "too many words": b"a b c d e f\n",
}
HUNG_UP_ON = pytest.mark.parametrize("last_word", LAST_WORDS.values(), ids=LAST_WORDS)


@HUNG_UP_ON
def test_the_jobs_of_a_worker_that_is_hung_up_on_come_back_at_once(world: World, last_word: bytes) -> None:
    for name in ("client", "bad", "good"):
        world.connect(name)
    world.send("bad", request("CAN_DO", b"f"))
    world.send("client", request("SUBMIT_JOB_BG", b"f", b"", b"x"))
    world.send("bad", request("GRAB_JOB"))
    world.send("good", request("CAN_DO", b"f") + request("PRE_SLEEP"))
    world.send("bad", last_word)
    assert world.real.peers.keys() == {world.peers["client"], world.peers["good"]}
    world.send("good", request("GRAB_JOB"))
    assert world.naive.running(world.naive.peers["good"])


@HUNG_UP_ON
def test_a_sleeping_worker_that_is_hung_up_on_is_not_woken(world: World, last_word: bytes) -> None:
    for name in ("client", "bad", "good"):
        world.connect(name)
    for name in ("bad", "good"):
        world.send(name, request("CAN_DO", b"f") + request("PRE_SLEEP"))
    world.send("bad", last_word)
    world.send("client", request("SUBMIT_JOB_BG", b"f", b"", b"x"))
    assert world.naive.peers["good"].woken_for == b"f"


def test_nobody_is_woken_for_the_jobs_of_the_client_that_leaves(world: World) -> None:
    """It was woken for its own job; nobody needs to take its place."""
    world.connect("both")
    world.connect("other")
    for name in ("both", "other"):
        world.send(name, request("CAN_DO", b"f") + request("PRE_SLEEP"))
    world.send("both", request("SUBMIT_JOB", b"f", b"", b"x"))
    assert world.real.functions[b"f"].woken == 1
    world.disconnect("both")
    assert world.naive.peers["other"].asleep


def test_what_is_sent_to_a_peer_that_is_hung_up_on_ends_with_its_error(world: World) -> None:
    world.connect("client")
    world.connect("worker")
    world.send("client", request("SUBMIT_JOB", b"f", b"u", b"x"))
    world.send("client", request("SUBMIT_JOB", b"f", b"u", b"x"))
    world.send("worker", request("CAN_DO", b"f") + request("GRAB_JOB"))
    world.send("client", LAST_WORDS["unknown magic"])
    world.send("worker", request("WORK_COMPLETE", b"H:t:1", b"too late"))
    world.send("client", request("ECHO_REQ", b"too late as well"))
    world.disconnect("client")


def test_a_peer_may_be_lost_twice(world: World) -> None:
    world.connect("client")
    peer = world.peers["client"]
    world.send("client", request("SUBMIT_JOB", b"f", b"", b"x"))
    world.disconnect("client")
    world.real.lost(peer)
    world.real.receive(peer, request("ECHO_REQ", b"x"))
    assert peer.take() == []
    world.compare()


def test_a_function_is_dropped_to_its_end_when_the_one_who_asked_leaves() -> None:
    """The drop waits until the WORK_FAILs are read, and their reader is gone: the jobs of others go all the same."""
    server = JobServer(Settings())
    leaving, other = server.connect(Origin("127.0.0.1", 1)), server.connect(Origin("127.0.0.1", 2))

    def pass_time(count: int) -> None:
        for _ in range(count):
            server.tick(server.now + 0.001, server.wall)

    def submit(peer: Peer, kind: str, function: bytes) -> None:
        for _ in range(100):
            server.receive(peer, request(kind, function, b"", b"x") * 300)
            go_on(server, peer)

    submit(leaving, "SUBMIT_JOB", b"f")
    submit(other, "SUBMIT_JOB_BG", b"f")
    leaving.take()
    while leaving.unsent < 900_000:  # what it does not read
        server.receive(leaving, request("ECHO_REQ", b"x" * 10_000))
        go_on(server, leaving)
    server.receive(leaving, b"drop function f\n")
    pass_time(100)
    assert server.chores.parked
    server.lost(leaving)
    pass_time(400)
    assert len(server.jobs) == 0
    counters = server.forgotten[NORMAL]
    assert counters.cancelled == counters.submitted - counters.abandoned


# ── text command disconnect ─────────────────────────────────────────────────────────────────────────────────────


def with_admin() -> tuple[JobServer, Peer, Peer]:
    server = JobServer()
    server.tick(1.0, 1.8e9)
    worker = server.connect(Origin("10.0.0.7", 7))
    server.receive(worker, request("SET_CLIENT_ID", b"bad one") + request("CAN_DO", b"f"))
    return server, worker, server.connect(Origin("127.0.0.1", 8))


def answer(server: JobServer, peer: Peer, line: bytes) -> bytes:
    server.receive(peer, line + b"\n")
    return b"".join(peer.take())


@pytest.mark.parametrize("named", [b"7", b"7 10.0.0.7", b"7 10.0.0.7 bad one"])
def test_a_worker_is_disconnected(named: bytes) -> None:
    server, worker, admin = with_admin()
    server.receive(admin, request("SUBMIT_JOB_BG", b"f", b"", b"x"))
    server.receive(worker, request("GRAB_JOB"))
    admin.take(), worker.take()
    assert server.running == 1
    assert answer(server, admin, b"disconnect " + named) == b"OK\r\n"
    assert worker.closing
    assert (server.running, server.functions[b"f"].queued, server.functions[b"f"].workers) == (0, 1, 0)
    assert ("peer_disconnected", admin, {"connection": "7 bad one 10.0.0.7"}) in server.take_events()
    assert answer(server, admin, b"disconnect " + named).startswith(b"ERR UNKNOWN_CONNECTION ")


@pytest.mark.parametrize("named", [b"9", b"-1", b"x", b"7 10.0.0.8", b"7 10.0.0.7 bad", b"7 10.0.0.7 bad one more"])
def test_a_connection_that_is_another_one_is_left_alone(named: bytes) -> None:
    server, worker, admin = with_admin()
    server.connect(Origin("in-process"))
    assert answer(server, admin, b"disconnect " + named).startswith(b"ERR UNKNOWN_CONNECTION There+is+no+connection")
    assert not worker.closing
    assert len(server.peers) == 3


def test_who_disconnects_itself_is_answered_before() -> None:
    server, _, admin = with_admin()
    assert answer(server, admin, b"disconnect 8") == b"OK\r\n"
    assert admin.closing
