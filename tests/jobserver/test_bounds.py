"""Limits on what peers may keep here, a server that takes no more, and what the operator is told."""

from __future__ import annotations

import gc
import re
import sys
import tracemalloc

import pytest
from world import World, request

from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.model import (
    ABILITY_COST,
    FUNCTION_COST,
    JOB_COST,
    KEY_COST,
    LOW,
    NORMAL,
    SUBSCRIBER_COST,
    Function,
    Job,
)
from geartrain.jobserver.roll import Roll
from geartrain.jobserver.rules.submission import MAX_SUBSCRIBERS
from geartrain.jobserver.state import MAX_EVENTS

CREATED = b"\0RES\0\0\0\x08"


def ask(server: JobServer, peer: Peer, data: bytes) -> bytes:
    server.tick(server.now, server.wall)
    server.receive(peer, data)
    return b"".join(peer.take())


F = FUNCTION_COST + 1  # what the function f takes


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
    room = F + 3 * cost
    server = server_with(max_memory=room)
    peer = server.connect(Origin("127.0.0.1", 1))
    job = request("SUBMIT_JOB_BG", b"f", b"", b"x" * 100)
    assert ask(server, peer, job * 3).count(CREATED) == 3
    assert server.memory == room
    assert b"QUEUE_ERROR\0The job server's memory is full" in ask(server, peer, job)
    assert server.take_events() == [("memory_full", peer, {"memory": room, "limit": room})]
    ask(server, peer, b"cancel job H:localhost:2\n")
    assert ask(server, peer, request("SUBMIT_JOB_BG", b"f", b"", b"x" * 101)).count(CREATED) == 0
    assert ask(server, peer, job).count(CREATED) == 1
    assert server.functions[b"f"].counters.refused == 2


def test_half_sent_packets_of_all_peers_together_are_bounded() -> None:
    server = server_with(max_half_sent=1_000_000)
    head = b"\0REQ" + (18).to_bytes(4, "big") + (900_000).to_bytes(4, "big") + b"f\0\0"
    peers = [server.connect(Origin("127.0.0.1", number)) for number in range(3)]
    for peer in peers[:2]:
        assert ask(server, peer, head + b"x" * 450_000) == b""
    assert b"QUEUE_ERROR" in ask(server, peers[2], head + b"x" * 450_000)
    assert peers[2].closing
    assert not peers[0].closing
    server.lost(peers[2])
    assert server.half_sent_size == 2 * (len(head) + 450_000)
    server.lost(peers[1])
    assert ask(server, peers[0], b"x" * (900_000 - 3 - 450_000)).startswith(CREATED)
    assert server.half_sent_size == 0


def test_clients_that_wait_cost_memory_too() -> None:
    server = server_with(max_memory=F + JOB_COST + KEY_COST + 1 + 3 * SUBSCRIBER_COST)
    peer = server.connect(Origin("127.0.0.1", 1))
    job = request("SUBMIT_JOB", b"f", b"u", b"")
    assert ask(server, peer, job * 5).count(CREATED) == 3
    assert server.functions[b"f"].counters.coalesced == 2
    assert server.functions[b"f"].counters.refused == 2
    server.lost(peer)
    assert server.memory == F


def test_running_jobs_count_until_they_end() -> None:
    server = server_with(max_memory=F + ABILITY_COST + JOB_COST)
    peer = server.connect(Origin("127.0.0.1", 1))
    job = request("SUBMIT_JOB_BG", b"f", b"", b"")
    ask(server, peer, request("CAN_DO", b"f") + job + request("GRAB_JOB"))
    assert b"QUEUE_ERROR" in ask(server, peer, job)
    assert CREATED in ask(server, peer, request("WORK_COMPLETE", b"H:localhost:1", b"") + job)


def test_no_limit_is_no_limit() -> None:
    server = server_with(max_memory=0)
    peer = server.connect(Origin("127.0.0.1", 1))
    assert ask(server, peer, request("SUBMIT_JOB_BG", b"f", b"", b"x" * 10_000) * 100).count(CREATED) == 100


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("packet", ["CAN_DO", "SUBMIT_JOB_BG", "SUBMIT_REDUCE_JOB", "create"])
def test_functions_have_a_limited_name_and_a_limited_number(packet: str) -> None:
    server = server_with(max_functions=3, max_function=10)
    peer = server.connect(Origin("127.0.0.1", 1))
    ask(server, peer, b"".join(b"maxqueue %b 100\n" % name for name in (b"x" * 10, b"b", b"c")))  # not idle

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
    peer = server.connect(Origin("127.0.0.1", 1))
    for number in range(3):
        assert ask(server, peer, b"maxqueue f%d 1\n" % number) == b"OK\r\n"
    assert ask(server, peer, b"maxqueue f3 1\n").startswith(b"ERR MAXQUEUE ")
    assert ask(server, peer, b"maxqueue f3 0\n") == b"OK\r\n", "it has no limit, as asked"
    assert ask(server, peer, b"maxqueue %b 1\n" % (b"x" * 513)).startswith(b"ERR MAXQUEUE ")
    job = request("SUBMIT_JOB_BG", b"f0", b"", b"x")
    assert ask(server, peer, job + job).count(CREATED) == 1
    assert list(server.functions) == [b"f0", b"f1", b"f2"]


# ── what is forgotten ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_function_is_forgotten_after_a_time() -> None:
    server = server_with(forget_after=60.0)
    peer = server.connect(Origin("127.0.0.1", 1))
    ask(server, peer, b"create function idle\nmaxqueue limited 5\n")
    ask(server, peer, request("CAN_DO", b"worked") + request("SUBMIT_JOB_BG", b"queued", b"", b"x"))
    ask(server, peer, request("SUBMIT_JOB", b"done", b"", b"x") + b"cancel job H:localhost:2\n")
    assert server.next_deadline() == 1060.0
    server.tick(1059.9, 1_800_000_059.9)
    assert len(server.functions) == 5
    server.tick(1060.0, 1_800_000_060.0)
    assert set(server.functions) == {b"limited", b"worked", b"queued"}
    normal = server.forgotten[NORMAL]
    assert (normal.submitted, normal.cancelled) == (1, 1)
    assert server.next_deadline() == 0
    server.lost(peer)
    ask(server, server.connect(Origin("127.0.0.1", 2)), b"cancel job H:localhost:1\nmaxqueue limited 0\n")
    server.tick(1120.0, 1_800_000_120.0)
    assert server.functions == {}
    assert server.memory == 0


def test_the_function_that_is_idle_for_longest_makes_room() -> None:
    server = server_with(max_functions=3)
    peer = server.connect(Origin("127.0.0.1", 1))
    for number in range(1000):  # people name the function of a reply after its request
        name = b"reply to %d" % number
        answer = ask(server, peer, request("CAN_DO", name) + request("SUBMIT_JOB_BG", name, b"", b"x"))
        assert answer.startswith(CREATED)
        ask(server, peer, request("GRAB_JOB") + request("WORK_COMPLETE", b"H:localhost:%d" % (number + 1), b""))
        ask(server, peer, request("CANT_DO", name))
    assert list(server.functions) == [b"reply to 997", b"reply to 998", b"reply to 999"]
    assert server.forgotten[NORMAL].completed == 997


def test_a_table_of_keys_that_was_large_does_not_stay_so() -> None:
    server = server_with()
    peer = server.connect(Origin("127.0.0.1", 1))
    for start in range(0, 50_000, 500):
        jobs = [request("SUBMIT_JOB_BG", b"f", b"u%d" % number, b"") for number in range(start, start + 500)]
        ask(server, peer, b"".join(jobs))
    function = server.functions[b"f"]
    assert sys.getsizeof(function.uniques) > 1_000_000
    for number in range(1, 50_001):
        ask(server, peer, b"cancel job H:localhost:%d\n" % number)
    assert sys.getsizeof(function.uniques) < 100_000
    assert function.uniques == {}


# ── what else a peer can make the server keep ───────────────────────────────────────────────────────────────────────


def test_a_connection_has_a_limited_number_of_functions() -> None:
    server = server_with(max_abilities=3)
    peer = server.connect(Origin("127.0.0.1", 1))
    for number in range(3):
        assert ask(server, peer, request("CAN_DO", b"%d" % number) * 2) == b""
    assert b"QUEUE_ERROR\0A connection may have 3 functions" in ask(server, peer, request("CAN_DO", b"3"))
    assert ask(server, peer, request("CANT_DO", b"0") + request("CAN_DO", b"3")) == b""


def test_clients_of_one_job_are_limited() -> None:
    server = server_with()
    peer = server.connect(Origin("127.0.0.1", 1))
    job = request("SUBMIT_JOB", b"f", b"u", b"")
    for _ in range(MAX_SUBSCRIBERS // 1000):
        assert ask(server, peer, job * 1000).count(CREATED) == 1000
    assert b"QUEUE_ERROR\x00100000 clients wait for this job already" in ask(server, peer, job)
    assert server.functions[b"f"].counters.refused == 1


@pytest.mark.parametrize("limit", [1, 64, 1000])
def test_the_limit_of_a_unique_is_exact(limit: int) -> None:
    server = server_with(max_unique=limit)
    peer = server.connect(Origin("127.0.0.1", 1))
    assert CREATED in ask(server, peer, request("SUBMIT_JOB_BG", b"f", b"u" * limit, b"x"))
    assert b"ARGUMENT_TOO_LARGE\0Unique value too large" in ask(
        server, peer, request("SUBMIT_JOB_BG", b"f", b"u" * (limit + 1), b"x")
    )


def test_a_name_of_a_client_is_cut() -> None:
    server = server_with()
    peer = server.connect(Origin("10.0.0.1", 7))
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
    client = server.connect(Origin("127.0.0.1", 1))
    worker = server.connect(Origin("127.0.0.1", 2))
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
    peer = server.connect(Origin("127.0.0.1", 1))
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


def test_those_who_go_through_all_functions_keep_none_of_them() -> None:
    """Of a hundred thousand functions and a thousand who ask, a list each would be memory that nobody counts."""
    server = server_with()
    peer = server.connect(Origin("127.0.0.1", 1))
    count = 100_000
    for start in range(0, count, 200):
        server.tick(server.now, server.wall)
        ask(server, peer, b"".join(b"create function %d\n" % number for number in range(start, start + 200)))
    readers = [server.connect(Origin("127.0.0.1", fd)) for fd in range(2, 7)]
    gc.collect()
    tracemalloc.start()
    try:
        for reader in readers:
            server.tick(server.now, server.wall)
            server.receive(reader, b"status\n")
            assert reader.stalled
            ask(server, peer, b"drop function %d\ncreate function new%d\n" % (reader.fd, reader.fd))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    output = sum(int(reader.held) for reader in readers)
    assert kept < 1.5 * output + len(readers) * 20_000
    reader = readers[0]
    answer = b""
    while reader.stalled:
        answer += b"".join(reader.take())
        server.tick(server.now, server.wall)
        server.receive(reader, b"")
    lines = (answer + b"".join(reader.take())).splitlines()
    assert len(lines) == len(set(lines))
    assert lines[-2:] == [b"99999\t0\t0\t0", b"."], "what has come since is not listed"


def test_a_roll_tells_all_in_order_whoever_leaves_meanwhile() -> None:
    roll: Roll[int] = Roll()
    places = {number: roll.enter(number) for number in range(1000)}
    until, left = roll.last_place, set[int]()
    seen: list[int] = []
    while page := roll.page(places[seen[-1]] if seen else 0, until, 7):
        assert len(page) <= 7
        seen += page
        roll.enter(1000 + len(seen))
        for number in range(3 * len(seen), min(3 * len(seen) + 20, 1000)):
            if number % 5 and number not in left:
                roll.leave(places[number])
                left.add(number)
    assert seen == sorted(set(seen)), "in order, none twice, and nobody who has come since"
    assert set(range(0, 1000, 5)) <= set(seen), "whoever stayed"
    assert len(seen) < 500
    assert len(roll.items) <= 2 * roll.count + 100
    assert roll.first() == 0


def test_a_roll_knows_who_has_been_there_longest() -> None:
    roll: Roll[int] = Roll()
    assert roll.first() is None
    places = [roll.enter(number) for number in range(500)]
    left = set(range(500))
    for number in (*range(0, 500, 2), *range(1, 500, 2)):
        roll.leave(places[number])
        left.remove(number)
        assert roll.count == len(left)
        assert roll.first() == min(left, default=None)
