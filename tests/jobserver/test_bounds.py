"""Limits on what peers may keep here, a server that takes no more, and what the operator is told."""

from __future__ import annotations

import re

import pytest
from world import World, request

from geartrain.jobserver import JobServer, Peer, Settings
from geartrain.jobserver.model import JOB_COST, LOW, SUBSCRIBER_COST, Function, Job
from geartrain.jobserver.state import MAX_EVENTS

CREATED = b"\0RES\0\0\0\x08"


def ask(server: JobServer, peer: Peer, data: bytes) -> bytes:
    server.receive(peer, data)
    return b"".join(peer.take())


def server_with(**options: object) -> JobServer:
    settings = Settings()
    for name, value in options.items():
        setattr(settings, name, value)
    server = JobServer(settings)
    server.tick(1000.0, 1_800_000_000.0)
    return server


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_memory_for_jobs_is_bounded_to_the_byte() -> None:
    cost = JOB_COST + 100
    server = server_with(max_memory=3 * cost)
    peer = server.connect("127.0.0.1", 1)
    job = request("SUBMIT_JOB_BG", b"f", b"", b"x" * 100)
    assert ask(server, peer, job * 3).count(CREATED) == 3
    assert server.memory == 3 * cost
    assert b"QUEUE_ERROR\0The job server's memory for jobs is full" in ask(server, peer, job)
    assert server.take_events() == [("memory_full", peer, {"memory": 3 * cost, "limit": 3 * cost})]
    ask(server, peer, b"cancel job H:localhost:2\n")
    assert ask(server, peer, request("SUBMIT_JOB_BG", b"f", b"", b"x" * 101)).count(CREATED) == 0
    assert ask(server, peer, job).count(CREATED) == 1
    assert server.functions[b"f"].refused == 2


def test_half_sent_packets_of_all_peers_together_are_bounded() -> None:
    server = server_with(max_half_sent=1_000_000)
    head = b"\0REQ" + (18).to_bytes(4, "big") + (900_000).to_bytes(4, "big") + b"f\0\0"
    peers = [server.connect("127.0.0.1", number) for number in range(3)]
    for peer in peers[:2]:
        assert ask(server, peer, head + b"x" * 450_000) == b""
    assert b"QUEUE_ERROR" in ask(server, peers[2], head + b"x" * 450_000)
    assert peers[2].closing
    assert not peers[0].closing
    server.lost(peers[2])
    assert server.partials_size == 2 * (len(head) + 450_000)
    server.lost(peers[1])
    assert ask(server, peers[0], b"x" * (900_000 - 3 - 450_000)).startswith(CREATED)
    assert server.partials_size == 0


def test_clients_that_wait_cost_memory_too() -> None:
    server = server_with(max_memory=JOB_COST + 1 + 3 * SUBSCRIBER_COST)
    peer = server.connect("127.0.0.1", 1)
    job = request("SUBMIT_JOB", b"f", b"u", b"")
    assert ask(server, peer, job * 5).count(CREATED) == 3
    assert server.functions[b"f"].coalesced == 2
    assert server.functions[b"f"].refused == 2
    server.lost(peer)
    assert server.memory == 0


def test_running_jobs_count_until_they_end() -> None:
    server = server_with(max_memory=JOB_COST)
    peer = server.connect("127.0.0.1", 1)
    job = request("SUBMIT_JOB_BG", b"f", b"", b"")
    ask(server, peer, request("CAN_DO", b"f") + job + request("GRAB_JOB"))
    assert b"QUEUE_ERROR" in ask(server, peer, job)
    assert CREATED in ask(server, peer, request("WORK_COMPLETE", b"H:localhost:1", b"") + job)


def test_no_limit_is_no_limit() -> None:
    server = server_with(max_memory=0)
    peer = server.connect("127.0.0.1", 1)
    assert ask(server, peer, request("SUBMIT_JOB_BG", b"f", b"", b"x" * 10_000) * 100).count(CREATED) == 100


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("packet", ["CAN_DO", "SUBMIT_JOB_BG", "SUBMIT_REDUCE_JOB", "create"])
def test_functions_have_a_limited_name_and_a_limited_number(packet: str) -> None:
    server = server_with(max_functions=3, max_function=10)
    peer = server.connect("127.0.0.1", 1)

    def use(name: bytes) -> bytes:
        if packet == "create":
            return ask(server, peer, b"create function " + name + b"\n")
        rest = {"CAN_DO": (), "SUBMIT_JOB_BG": (b"", b"x"), "SUBMIT_REDUCE_JOB": (b"", b"r", b"", b"x")}[packet]
        return ask(server, peer, request(packet, name, *rest))

    assert re.search(rb"ARGUMENT_TOO_LARGE\0Function name above the limit of 10 bytes|CREATE_FUNCTION", use(b"x" * 11))
    for name in (b"x" * 10, b"b", b"c"):
        answer = use(name)
        assert b"RES\0\0\0\x13" not in answer
        assert b"ERR" not in answer
    assert re.search(rb"QUEUE_ERROR\0The job server has 3 functions and takes no more|CREATE_FUNCTION", use(b"d"))
    assert list(server.functions) == [b"x" * 10, b"b", b"c"]
    assert b"ERR" not in use(b"b")


def test_limits_of_functions_not_seen_yet_are_kept_within_bounds() -> None:
    server = server_with(max_functions=3)
    peer = server.connect("127.0.0.1", 1)
    for number in range(10):
        assert ask(server, peer, b"maxqueue f%d 1\n" % number) == b"OK\r\n"
    assert list(server.limits) == [b"f0", b"f1", b"f2"]
    job = request("SUBMIT_JOB_BG", b"f0", b"", b"x")
    assert ask(server, peer, job + job).count(CREATED) == 1
    assert list(server.limits) == [b"f1", b"f2"]


@pytest.mark.parametrize("limit", [1, 64, 1000])
def test_the_limit_of_a_unique_is_exact(limit: int) -> None:
    server = server_with(max_unique=limit)
    peer = server.connect("127.0.0.1", 1)
    assert CREATED in ask(server, peer, request("SUBMIT_JOB_BG", b"f", b"u" * limit, b"x"))
    assert b"ARGUMENT_TOO_LARGE\0Unique value too large" in ask(
        server, peer, request("SUBMIT_JOB_BG", b"f", b"u" * (limit + 1), b"x")
    )


def test_a_name_of_a_client_is_cut() -> None:
    server = server_with()
    peer = server.connect("10.0.0.1", 7)
    ask(server, peer, request("SET_CLIENT_ID", b"n" * 1000))
    assert ask(server, peer, b"workers\n") == b"7 10.0.0.1 " + b"n" * 127 + b" :\n.\n"


def test_a_worker_remembers_so_many_jobs_that_were_taken_from_it(world: World) -> None:
    """Late reports on the last thousand are no error; on older ones they are."""
    world.connect("worker")
    job = request("SUBMIT_JOB_BG", b"f", b"", b"x")
    for _ in range(1001):
        world.real.receive(world.peers["worker"], job + request("CAN_DO", b"f") + request("GRAB_JOB"))
        world.naive.receive("worker", job + request("CAN_DO", b"f") + request("GRAB_JOB"))
    world.compare()
    world.send("worker", request("RESET_ABILITIES"))
    world.send("worker", request("WORK_COMPLETE", b"H:t:1001", b""))  # taken away first, forgotten first
    world.send("worker", request("WORK_COMPLETE", b"H:t:1000", b""))
    world.send("worker", request("WORK_COMPLETE", b"H:t:1", b""))


# ── a server that takes no more ─────────────────────────────────────────────────────────────────────────────────────


def test_a_draining_server_refuses_new_jobs_and_lets_the_others_end() -> None:
    server = server_with()
    client = server.connect("127.0.0.1", 1)
    worker = server.connect("127.0.0.1", 2)
    ask(server, client, request("SUBMIT_JOB", b"f", b"u", b"x"))
    ask(server, worker, request("CAN_DO", b"f") + request("GRAB_JOB"))
    assert server.running == 1
    server.drain()
    refusal = ask(server, client, request("SUBMIT_JOB", b"f", b"", b"x"))
    assert b"QUEUE_ERROR\0The job server is shutting down and takes no more jobs" in refusal
    assert CREATED in ask(server, client, request("SUBMIT_JOB", b"f", b"u", b"x")), "one that joins is no new job"
    ask(server, worker, request("WORK_COMPLETE", b"H:localhost:1", b"done"))
    assert b"".join(client.take()).count(b"done") == 2
    assert server.running == 0


# ── what the operator is told ───────────────────────────────────────────────────────────────────────────────────────


def test_notices_are_bounded_and_taken_once() -> None:
    server = server_with()
    peer = server.connect("127.0.0.1", 1)
    server.receive(peer, request("SUBMIT_JOB", b"f") * (MAX_EVENTS + 500))
    notices = server.take_events()
    assert len(notices) == MAX_EVENTS
    assert notices[0] == ("malformed_packet", peer, {"type": "SUBMIT_JOB"})
    assert server.take_events() == []
    server.receive(peer, b"\0XYZ" + bytes(8))
    assert [event for event, _, _ in server.take_events()] == ["stream_broken"]


# ── what is seen in a debugger ──────────────────────────────────────────────────────────────────────────────────────


def test_what_the_objects_show_of_themselves(world: World) -> None:
    function = Function(b"f")
    assert repr(function) == "<Function b'f' queued=0 running=0 workers=0>"
    job = Job(7, function, b"u", b"x", LOW, False, 0.0)
    assert repr(job) == "<Job 7 b'f' queued foreground>"
    world.connect("peer")
    peer = world.peers["peer"]
    assert repr(peer) == "<Peer 11 127.0.0.1 ->"
    world.send("peer", request("SET_CLIENT_ID", b"m\xff"))
    assert repr(peer) == "<Peer 11 127.0.0.1 m\N{REPLACEMENT CHARACTER}>"
