"""What is to be written: in few buffers, large pieces without a copy, and never more than a bounded amount at once."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import go_on, request

from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.chores import REQUEST_COST
from geartrain.jobserver.outbox import (
    BIG_PIECE,
    MAX_FRESH,
    MAX_UNREAD_OUTPUT,
    SHARED_PIECE,
    SOCKET_TAKES,
    WRITTEN_PEERS,
    Outbox,
    Output,
    take_first,
    take_ready,
)


@pytest.fixture
def server() -> JobServer:
    server = JobServer()
    server.tick(1000.0, 1_800_000_000.0)
    return server


def connect(server: JobServer, fd: int = 1) -> Peer:
    return server.connect(Origin("127.0.0.1", fd))


def take_all(server: JobServer, peer: Peer) -> bytes:
    """Everything that a peer is to get, as a shell would write it; checks that it never is much at once."""
    parts = peer.take()
    while peer.stalled:
        go_on(server, peer)
        assert peer.unsent == sum(map(len, peer.pieces))
        parts += peer.take()
    return b"".join(parts)


sizes = st.sampled_from([1, 2, 100, BIG_PIECE - 1, BIG_PIECE, BIG_PIECE + 1])


@given(st.lists(sizes, max_size=12))
def test_take_gives_all_bytes_in_order_in_few_buffers(sizes: list[int]) -> None:
    server = JobServer()
    peer = connect(server)
    pieces = [bytes([place]) * size for place, size in enumerate(sizes)]
    for piece in pieces:
        peer.send(piece)
    assert peer.unsent == sum(sizes)
    buffers = peer.take()
    assert b"".join(buffers) == b"".join(pieces)
    assert all(buffers), "an empty buffer"
    least = SHARED_PIECE if any(size >= BIG_PIECE for size in sizes) else BIG_PIECE
    big = {id(piece) for piece in pieces if len(piece) >= least}
    assert {id(buffer) for buffer in buffers} >= big, "a large piece was copied"
    for one, next_one in pairwise(buffers):
        assert id(one) in big or id(next_one) in big, "two small buffers"
    assert peer.take() == []
    assert peer.unsent == 0
    peer.send(b"more")
    assert peer.take() == [b"more"]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from([1, 1000, 40_000, 3_000_000, 9_000_000, 17_000_000]), max_size=9),
    st.lists(st.integers(0, 8), max_size=3, unique=True),
)
def test_much_is_taken_bit_by_bit(sizes: list[int], deferred: list[int]) -> None:
    peer = connect(JobServer())
    whole = bytes(range(256)) * 70_000
    pieces = [whole[place : place + size] for place, size in enumerate(sizes)]
    replies = []
    for place, piece in enumerate(pieces):
        peer.send(piece)
        if place in deferred:
            replies.append((place, peer.defer()))
    taken = bytearray()
    while True:
        while peer.has_more:
            buffers = peer.take()
            assert all(buffers), "an empty buffer"
            assert 0 < sum(map(len, buffers)) <= 2 * SOCKET_TAKES
            taken += b"".join(buffers)
            assert peer.unsent == sum(sizes) - len(taken)
            assert peer.held >= peer.unsent
        assert peer.take() == []
        until = replies[0][0] if replies else len(sizes)
        assert taken == b"".join(pieces[:until]), "all up to the first reply that waits, and no more"
        if not replies:
            break
        replies.pop(0)[1].open = True
    assert peer.unsent == peer.held == 0


def test_who_makes_much_output_waits_until_it_is_written(server: JobServer) -> None:
    """Those who ask for little go on meanwhile."""
    worker = connect(server)
    server.receive(worker, request("CAN_DO", b"f"))
    clients = [connect(server, fd) for fd in range(2, 1002)]
    for client in clients:
        server.receive(client, request("SUBMIT_JOB", b"f", b"u", b""))
    server.receive(worker, request("GRAB_JOB"))
    report = request("WORK_DATA", b"H:localhost:1", bytes(1000))
    echo = request("ECHO_REQ", b"x")
    server.receive(worker, report * 15)
    while server.output.fresh < MAX_FRESH:
        server.tick(1000.0, 1_800_000_000.0)
        server.receive(worker, b"")
        server.receive(worker, report * 15)
    made = server.output.fresh
    for _ in range(5):
        server.tick(1000.0, 1_800_000_000.0)
        server.receive(worker, report)
        assert worker.stalled
        server.receive(clients[0], echo)
        assert not clients[0].stalled
    assert server.output.fresh == made + 5 * len(echo)
    for client in clients:
        client.full = True
    while server.touched:
        for outbox in take_first(server.output):
            outbox.touched = False
    server.receive(worker, b"")
    assert server.output.fresh > 1000 * 1000


def test_a_peer_is_touched_once_until_it_is_taken(server: JobServer) -> None:
    peer = connect(server)
    server.receive(peer, request("ECHO_REQ", b"x") * 3)
    assert server.touched == [peer]
    server.touched.clear()
    peer.take()
    server.receive(peer, request("ECHO_REQ", b"x"))
    assert server.touched == [peer]


def test_a_large_workload_passes_through_without_a_copy(server: JobServer) -> None:
    peer = connect(server)
    workload = bytes(5_000_000)
    data = request("SUBMIT_JOB", b"f", b"", workload)
    server.receive(peer, request("CAN_DO", b"f") + data)
    assert len(take_all(server, peer)) < 100
    tracemalloc.start()
    try:
        server.receive(peer, request("GRAB_JOB"))
        buffers = peer.take()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(buffer) for buffer in buffers[1:]] == [len(workload)]
    assert peak < 100_000


def test_a_large_result_goes_to_many_clients_without_copies(server: JobServer) -> None:
    worker = connect(server)
    server.receive(worker, request("CAN_DO", b"f"))
    clients = [connect(server, fd) for fd in range(2, 22)]
    for client in clients:
        server.receive(client, request("SUBMIT_JOB", b"f", b"u", b"x"))
    server.receive(worker, request("GRAB_JOB"))
    data = request("WORK_COMPLETE", b"H:localhost:1", bytes(1_000_000))
    tracemalloc.start()
    try:
        server.receive(worker, data[:500_000])
        server.receive(worker, data[500_000:])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for client in clients:
        assert take_all(server, client).endswith(data[12:])
    assert peak < 3_000_000


# ── back-pressure ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_listing_of_100_000_functions_is_made_as_it_is_read(server: JobServer) -> None:
    peer = connect(server)
    count = 100_000
    for number in range(0, count, 1000):
        server.receive(peer, b"".join(b"create function f%06d\n" % name for name in range(number, number + 1000)))
        take_all(server, peer)
    server.receive(peer, b"status\n" * 3 + request("ECHO_REQ", b"end"))
    got = 0
    tail = b""
    while True:
        assert peer.unsent < MAX_UNREAD_OUTPUT + 100_000
        data = b"".join(peer.take())
        got += len(data)
        tail = (tail + data)[-200:]
        if not peer.stalled:
            break
        go_on(server, peer)
    assert got == 3 * (count * len(b"f000000\t0\t0\t0\n") + len(b".\n")) + 12 + 3
    assert tail.endswith(b"f099999\t0\t0\t0\n.\n\0RES\0\0\0\x11\0\0\0\x03end")


def test_the_listing_of_workers_with_long_lines_is_no_larger(server: JobServer) -> None:
    """A line may be long: each of these workers can do 500 functions with long names."""
    for fd in range(300):
        worker = connect(server, fd)
        server.receive(worker, b"".join(request("CAN_DO", b"%0400d" % number) for number in range(500)))
    peer = connect(server, 1000)
    server.receive(peer, b"workers\n")
    lines = 0
    while True:
        assert peer.unsent < 2 * MAX_UNREAD_OUTPUT
        data = b"".join(peer.take())
        lines += data.count(b"\n")
        if not peer.stalled:
            break
        go_on(server, peer)
    assert lines == 302


def test_a_line_of_workers_is_made_as_it_is_read() -> None:
    """A worker with 100,000 functions has a line of 10 MB; what it learns and forgets meanwhile does no harm."""
    settings = Settings()
    settings.max_abilities = 1_000_000
    server = JobServer(settings)
    server.tick(1000.0, 1_800_000_000.0)
    worker = connect(server, 7)
    count = 100_000
    for start in range(0, count, 1000):
        server.receive(worker, b"".join(request("CAN_DO", b"%099d" % number) for number in range(start, start + 1000)))
        server.tick(1000.0, 1_800_000_000.0)
    peer = connect(server, 8)
    server.receive(peer, b"workers\n")
    assert peer.stalled
    first = b"".join(peer.take())
    server.receive(worker, request("CAN_DO", b"new") + request("CANT_DO", b"%099d" % (count - 1)))
    server.receive(worker, request("CANT_DO", b"%099d" % 5))
    parts = [first]
    while peer.stalled:
        go_on(server, peer)
        assert peer.unsent < MAX_UNREAD_OUTPUT + 20_000
        parts += peer.take()
    names = b" ".join(b"%099d" % number for number in range(count - 1, -1, -1) if number != 5)
    assert b"".join(parts) == b"7 127.0.0.1 - : %b\n8 127.0.0.1 - :\n.\n" % names


@pytest.mark.parametrize("size", [10, 1000, 100_000])
def test_requests_wait_while_their_answers_are_not_taken(server: JobServer, size: int) -> None:
    peer = connect(server)
    count = 4 * MAX_UNREAD_OUTPUT // size
    server.receive(peer, request("ECHO_REQ", b"e" * size) * count)
    assert peer.stalled
    while server.cost >= REQUEST_COST and peer.unsent < MAX_UNREAD_OUTPUT:
        go_on(server, peer)
    assert MAX_UNREAD_OUTPUT <= peer.unsent < MAX_UNREAD_OUTPUT + size + 12
    server.receive(peer, request("ECHO_REQ", b"last"))
    assert peer.unsent < MAX_UNREAD_OUTPUT + size + 12
    answers = take_all(server, peer)
    assert answers.count(b"\0RES\0\0\0\x11") == count + 1
    assert answers.endswith(b"last")


def test_a_worker_that_grabs_much_at_once_gets_it_bit_by_bit(server: JobServer) -> None:
    client = connect(server)
    for _ in range(20):
        server.receive(client, request("SUBMIT_JOB_BG", b"f", b"", bytes(400_000)))
    worker = connect(server, 2)
    server.receive(worker, request("CAN_DO", b"f") + request("GRAB_JOB") * 20)
    assert worker.unsent < MAX_UNREAD_OUTPUT + 500_000
    assert server.functions[b"f"].running == 3
    assert len(take_all(server, worker)) > 8_000_000
    assert server.functions[b"f"].running == 20


def test_jobs_that_go_while_they_are_listed_do_no_harm(server: JobServer) -> None:
    peer = connect(server)
    for _ in range(100):
        server.receive(peer, request("SUBMIT_JOB_BG", b"f", b"", b"x") * 1000)
        take_all(server, peer)
    reader = connect(server, 2)
    server.receive(reader, b"show jobs\n")
    data = b"".join(reader.take())
    assert reader.stalled
    server.receive(peer, b"drop function f\n")
    assert len(server.jobs) > 90_000, "all at once"
    take_all(server, peer)
    assert len(server.jobs) == 0
    data += take_all(server, reader)
    assert data.endswith(b".\n")
    assert all(line.endswith(b"\t0\t0\t1") for line in data.splitlines()[:-1])


def test_functions_and_peers_that_go_while_they_are_listed_do_no_harm(server: JobServer) -> None:
    peers = [connect(server, fd) for fd in range(60_000)]
    reader = connect(server, 70_000)
    server.receive(reader, b"workers\n")
    data = b"".join(reader.take())
    assert reader.stalled
    for peer in peers:
        server.lost(peer)
    data += take_all(server, reader)
    assert data.endswith(b".\n")


def test_a_peer_that_leaves_in_the_middle_of_its_listing(server: JobServer) -> None:
    reader = connect(server)
    for number in range(0, 100_000, 1000):
        server.receive(reader, b"".join(b"create function %d\n" % name for name in range(number, number + 1000)))
        take_all(server, reader)
    server.receive(reader, b"status\n")
    assert reader.stalled
    server.lost(reader)
    server.receive(reader, b"")
    assert reader.take() == []


# ── bounded turns ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_settings_reach_the_parser() -> None:
    settings = Settings()
    settings.max_body = 100
    settings.max_line = 10
    server = JobServer(settings)
    for message in (request("ECHO_REQ", b"x" * 101), b"x" * 10):
        peer = connect(server)
        server.receive(peer, message)
        assert peer.closing


def test_a_large_request_is_not_kept_beside_its_answer(server: JobServer) -> None:
    peer = connect(server)
    tracemalloc.start()
    try:
        data = request("ECHO_REQ", bytes(5_000_000))
        for start in range(0, len(data), 100_000):
            server.receive(peer, data[start : start + 100_000])
        del data
        assert peer.stalled
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5_500_000


# ── whom to write to ────────────────────────────────────────────────────────────────────────────────────────────────


def outboxes(*sizes: int) -> Output:
    output = Output()
    pieces = {size: bytes(size) for size in set(sizes)}
    for size in sizes:
        Outbox(output).send_shared(pieces[size])
    return output


def test_a_few_bytes_for_many_go_out_at_once() -> None:
    output = outboxes(*[100] * 1000)
    all_of_them = output.touched[:]
    assert take_first(output) == all_of_them
    assert output.touched == []


def test_much_goes_out_some_at_a_time_and_in_order() -> None:
    output = outboxes(*[1_000_000] * 50)
    all_of_them = output.touched[:]
    turns = []
    while output.touched:
        turns.append(take_first(output))
    assert [each for turn in turns for each in turn] == all_of_them
    assert [len(turn) for turn in turns] == [9, 9, 9, 9, 9, 5]


def test_very_many_go_out_some_at_a_time() -> None:
    output = outboxes(*[10] * (2 * WRITTEN_PEERS + 1))
    assert [len(take_first(output)) for _ in range(4)] == [WRITTEN_PEERS, WRITTEN_PEERS, 1, 0]


def test_small_answers_do_not_wait_behind_large_ones() -> None:
    output = outboxes(*[5_000_000] * 10, 100, 5_000_000, 100)
    small = [output.touched[10], output.touched[12]]
    first = take_first(output)
    assert first[-2:] == small
    assert len(first) == 4, "of the large ones two: a socket takes a part of each at once"


@given(st.lists(st.sampled_from([0, 10, 5000, 100_000, 3_000_000, 9_000_000]), max_size=200))
def test_everybody_has_a_turn(sizes: list[int]) -> None:
    output = outboxes(*sizes)
    waiting = output.touched[:]
    while waiting:
        first = take_first(output)
        assert first
        assert first == [each for each in waiting if each in first]
        waiting = [each for each in waiting if each not in first]
        assert output.touched == waiting


class Outlet:
    """Stands where the driver's outlet does."""


@given(
    kinds=st.lists(st.sampled_from(["socket", "outlet", "gone"]), max_size=40),
    pieces=st.lists(st.sampled_from([1, 100, SHARED_PIECE, BIG_PIECE]), max_size=5),
)
def test_a_driver_gets_all_that_is_ready_in_one_list(kinds: list[str], pieces: list[int]) -> None:
    output = Output()
    boxes = [Outbox(output) for _ in kinds]
    for kind, box in zip(kinds, boxes, strict=True):
        box.outlet = None if kind == "gone" else Outlet()
        box.socket = object() if kind == "socket" else None
        for size in pieces:
            box.send(bytes(size))
        box.touch()
    ready = take_ready(output)
    assert not output.touched
    triples = list(zip(ready[::3], ready[1::3], ready[2::3], strict=True))
    expected = [box for kind, box in zip(kinds, boxes, strict=True) if kind != "gone"]
    assert len(triples) == len(expected)
    for box, (where, what, unsettled) in zip(expected, triples, strict=True):
        if box.socket is None:
            assert (where, what, unsettled) == (box.outlet, None, None)
            assert box.unsent == sum(pieces), "it takes by itself"
        else:
            assert where is box.socket
            assert unsettled is None
            assert b"".join([what] if isinstance(what, bytes) else what) == bytes(sum(pieces))
            assert box.unsent == 0
    assert not any(box.touched for kind, box in zip(kinds, boxes, strict=True) if kind != "outlet")


def test_who_is_not_settled_is_looked_after() -> None:
    output = Output()
    closing, waiting = Outbox(output), Outbox(output)
    for box in (closing, waiting):
        box.socket = object()
        box.send(b"last words")
    closing.close()
    waiting.defer()
    assert take_ready(output) == [closing.socket, b"last words", closing, waiting.socket, [], waiting]
