"""No peer's bytes keep the job server busy for long: a read that asks for much work is done bit by bit.

Each test sends what fits into one read of a socket, asking again and again for the dearest thing there is, and looks
how much of it one call does.
"""

from __future__ import annotations

import time

import pytest
from world import go_on, request

from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.chores import ITERATION_COST, REQUEST_COST
from geartrain.jobserver.model import ABILITY_COST

READ = 64 * 1024
PATIENCE = 2.0  # CPU seconds for a call, on the slowest machine, without a compiler; it should take a hundredth of that


@pytest.fixture
def server() -> JobServer:
    server = JobServer()
    server.tick(1000.0, 1_800_000_000.0)
    return server


def send(server: JobServer, peer: Peer, *messages: bytes) -> None:
    """Send without bounds, for the preparations."""
    for start in range(0, len(messages), 500):
        server.receive(peer, b"".join(messages[start : start + 500]))
        while peer.stalled:
            peer.take()
            go_on(server, peer)
        peer.take()


def flood(server: JobServer, peer: Peer, message: bytes) -> int:
    """Send a read full of a message; how many calls it took to deal with it all, given that it takes some."""
    calls = 0
    data = message * (READ // len(message))
    while True:
        began = time.thread_time()
        server.tick(server.now, server.wall)
        server.receive(peer, data)
        assert time.thread_time() - began < PATIENCE
        calls += 1
        server.touched.clear()
        assert server.cost < ITERATION_COST + 110_000
        peer.touched = False
        peer.take()
        if not peer.stalled or calls > 20:
            return calls
        data = b""


def test_an_ordinary_read_is_done_at_once(server: JobServer) -> None:
    peer = server.connect(Origin("127.0.0.1", 1))
    job = request("SUBMIT_JOB_BG", b"f", b"", b"x" * 100)
    grab = request("CAN_DO", b"f") + request("CAN_DO", b"g") + request("GRAB_JOB")
    assert flood(server, peer, job + grab) <= 2


@pytest.mark.parametrize("kind", ["GET_STATUS", "GET_STATUS_UNIQUE"])
def test_small_questions_that_take_longer_than_others(server: JobServer, kind: str) -> None:
    peer = server.connect(Origin("127.0.0.1", 1))
    assert flood(server, peer, request(kind, b"H:x:1")) > 2


@pytest.mark.parametrize("command", [b"status\n", b"prioritystatus\n"])
def test_listings_of_100_000_functions(server: JobServer, command: bytes) -> None:
    peer = server.connect(Origin("127.0.0.1", 1))
    send(server, peer, *(b"create function f%d\n" % number for number in range(100_000)))
    server.receive(peer, command)
    assert peer.stalled
    assert b"".join(peer.take()).count(b"\n") < REQUEST_COST


def test_questions_about_a_unique_among_100_000_functions(server: JobServer) -> None:
    peer = server.connect(Origin("127.0.0.1", 1))
    send(server, peer, *(b"create function f%d\n" % number for number in range(100_000)))
    assert flood(server, peer, request("GET_STATUS_UNIQUE", b"u")) > 20


@pytest.mark.parametrize(
    "message", [request("GRAB_JOB"), request("PRE_SLEEP"), request("GRAB_JOB") + request("PRE_SLEEP")]
)
def test_a_worker_of_20_000_functions(server: JobServer, message: bytes) -> None:
    peer = server.connect(Origin("127.0.0.1", 1))
    send(server, peer, *(request("CAN_DO", b"%d" % number) for number in range(20_000)))
    assert flood(server, peer, message) > 20


@pytest.mark.parametrize(
    "message", [request("RESET_ABILITIES"), request("PRE_SLEEP"), b""], ids=["reset", "sleep", "leave"]
)
def test_a_worker_of_100_000_functions_goes_through_them_bit_by_bit(message: bytes) -> None:
    server = busy_server()
    worker = able_worker(server, 100_000)
    server.tick(server.now, server.wall)
    if message:
        server.receive(worker, message)
        assert worker.stalled
    else:
        server.lost(worker)
    calls = 1
    while server.chores.line:
        assert server.cost < ITERATION_COST + 2 * REQUEST_COST
        server.tick(server.now, server.wall)
        calls += 1
    assert calls > 1
    server.receive(worker, b"")
    assert not worker.stalled
    assert worker.sleeping == (message == request("PRE_SLEEP"))
    assert worker.ability_count == (100_000 if worker.sleeping else 0)


def busy_server() -> JobServer:
    settings = Settings()
    settings.max_abilities = 1_000_000
    server = JobServer(settings)
    server.tick(1000.0, 1_800_000_000.0)
    return server


def able_worker(server: JobServer, count: int) -> Peer:
    worker = server.connect(Origin("127.0.0.1", 1))
    send(server, worker, *(request("CAN_DO", b"%d" % number) for number in range(count)))
    return worker


@pytest.mark.parametrize("asleep", [False, True])
def test_who_resets_its_abilities_gets_nothing_of_the_old_ones_meanwhile(asleep: bool) -> None:
    """What it sends behind waits, and is effective then."""
    server = busy_server()
    worker = able_worker(server, 100_000)
    client = server.connect(Origin("127.0.0.1", 2))
    if asleep:
        send(server, worker, request("PRE_SLEEP"))
        assert worker.sleeping
    server.tick(server.now, server.wall)
    server.receive(worker, request("RESET_ABILITIES") + request("CAN_DO", b"0") + request("ECHO_REQ", b"done"))
    assert 0 < worker.ability_count < 100_000
    for function in (b"0", b"50000", b"99999"):
        server.receive(client, request("SUBMIT_JOB_BG", function, b"", b""))
    assert worker.take() == []
    while worker.stalled:
        go_on(server, worker)
    assert worker.ability_count == 1
    answers = b"".join(worker.take())
    assert answers == (request("NOOP").replace(b"REQ", b"RES") if asleep else b"") + b"\0RES\0\0\0\x11\0\0\0\x04done"
    server.receive(worker, request("GRAB_JOB") + request("GRAB_JOB"))
    assigned, _, none = b"".join(worker.take()).partition(b"H:localhost:1\x000\0")
    assert assigned.startswith(b"\0RES\0\0\0\x0b")
    assert none == b"\0RES\0\0\0\x0a\0\0\0\0"


@pytest.mark.parametrize("number", [0, 50_000, 99_999])
def test_who_falls_asleep_bit_by_bit_is_woken_once_whenever_the_job_comes(number: int) -> None:
    server = busy_server()
    worker = able_worker(server, 100_000)
    client = server.connect(Origin("127.0.0.1", 2))
    server.tick(server.now, server.wall)
    server.receive(worker, request("PRE_SLEEP"))
    assert worker.stalled
    server.receive(client, request("SUBMIT_JOB_BG", b"%d" % number, b"", b"") * 2)
    while worker.stalled:
        go_on(server, worker)
    assert b"".join(worker.take()) == request("NOOP").replace(b"REQ", b"RES")
    assert not worker.sleeping
    assert worker.woken_for is server.functions[b"%d" % number]


@pytest.mark.parametrize("message", [request("RESET_ABILITIES"), request("PRE_SLEEP")], ids=["reset", "sleep"])
def test_who_leaves_while_it_goes_through_its_functions(message: bytes) -> None:
    server = busy_server()
    worker = able_worker(server, 100_000)
    client = server.connect(Origin("127.0.0.1", 2))
    before = server.memory - 100_000 * ABILITY_COST
    send(server, client, request("SUBMIT_JOB_BG", b"7", b"", b""))
    send(server, worker, request("GRAB_JOB"))
    server.tick(server.now, server.wall)
    server.receive(worker, message)
    assert worker.stalled
    server.lost(worker)
    send(server, client, request("SUBMIT_JOB_BG", b"50000", b"", b""))
    while server.chores.line:
        server.tick(server.now, server.wall)
    assert all(function.workers == 0 and function.first_sleeper is None for function in server.functions.values())
    assert server.functions[b"7"].queued == server.functions[b"50000"].queued == 1
    assert server.memory == before + sum(job.cost() for job in server.jobs)


def test_a_worker_that_holds_20_000_jobs_and_forgets_another_function(server: JobServer) -> None:
    peer = server.connect(Origin("127.0.0.1", 1))
    job = request("SUBMIT_JOB_BG", b"f", b"", b"")
    send(server, peer, request("CAN_DO", b"f"), *[job + request("GRAB_JOB")] * 20_000)
    assert server.functions[b"f"].running == 20_000
    assert flood(server, peer, request("CAN_DO", b"g") + request("CANT_DO", b"g")) > 20


@pytest.mark.parametrize("report", ["WORK_DATA", "WORK_STATUS", "WORK_EXCEPTION"])
def test_reports_to_20_000_listeners(server: JobServer, report: str) -> None:
    """A small packet becomes a large output, for a client that may not read."""
    worker = server.connect(Origin("127.0.0.1", 1))
    client = server.connect(Origin("127.0.0.1", 2))
    again = [request("SUBMIT_JOB", b"f", b"u", b"")] * 20_000
    if report == "WORK_EXCEPTION":  # it ends the job
        for number in range(30):
            send(server, client, *[request("SUBMIT_JOB", b"f", b"u%d" % number, b"")] * 5000)
    else:
        send(server, client, *again)
    send(server, worker, request("CAN_DO", b"f"), *[request("GRAB_JOB")] * 30)
    before = len(client.pieces)
    message = b"".join(request(report, b"H:localhost:%d" % number, b"d") for number in range(1, 31))
    server.receive(worker, message * 10)
    assert worker.stalled
    assert len(client.pieces) - before < REQUEST_COST + 20_001


@pytest.mark.parametrize("later", [False, True])
def test_functions_dropped_beside_100_000_jobs(server: JobServer, later: bool) -> None:
    peer = server.connect(Origin("127.0.0.1", 1))
    at = b"%d" % (server.wall + 1000)
    job = request("SUBMIT_JOB_EPOCH", b"f", b"", at, b"") if later else request("SUBMIT_JOB_BG", b"f", b"", b"")
    send(server, peer, *[job] * 100_000)
    one = job.replace(b"f\0", b"g\0", 1) + b"drop function g\n"
    assert flood(server, peer, one) < 20, "a function's own jobs are at hand"
    assert server.functions[b"f"].total == 100_000


def test_a_function_is_dropped_with_all_its_jobs(server: JobServer) -> None:
    peer = server.connect(Origin("127.0.0.1", 1))
    at = b"%d" % (server.wall + 1000)
    for function in (b"f", b"g"):
        for kind in ("SUBMIT_JOB", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_LOW_BG"):
            send(server, peer, request(kind, function, b"", b"x"))
        send(server, peer, request("SUBMIT_JOB_EPOCH", function, b"", at, b"x"))
    server.receive(peer, b"drop function f\nshow jobs\n")
    answer = b"".join(peer.take())
    assert answer.count(b"\0RES\0\0\0\x0e") == 2
    assert [line.split(b"\t")[0] for line in answer.partition(b"OK\r\n")[2].splitlines()] == [
        *(b"H:localhost:%d" % number for number in (5, 6, 7, 8)),
        b".",
    ]
    assert server.delayed.live == 1


def test_a_peer_that_was_interrupted_is_touched_even_if_it_gets_nothing(server: JobServer) -> None:
    """So that the shell comes back to it."""
    peer = server.connect(Origin("127.0.0.1", 1))
    server.touched.clear()
    peer.touched = False
    server.receive(peer, request("CANT_DO", b"never said") * (REQUEST_COST // 2))
    assert peer.stalled
    assert server.touched == [peer]


@pytest.mark.parametrize("kind", ["later jobs", "time limits"])
def test_very_many_jobs_that_are_due_at_once(server: JobServer, kind: str) -> None:
    """Everybody likes to schedule for midnight; the others' turns come in between."""
    count = 20_000
    peer = server.connect(Origin("127.0.0.1", 1))
    if kind == "later jobs":
        at = b"%d" % (server.wall + 10)
        send(server, peer, *[request("SUBMIT_JOB_EPOCH", b"f", b"", at, b"%d" % number) for number in range(count)])
    else:
        job = request("SUBMIT_JOB_BG", b"f", b"", b"x") + request("GRAB_JOB")
        send(server, peer, request("CAN_DO_TIMEOUT", b"f", b"10000"), *[job] * count)
    function = server.functions[b"f"]
    now, wall = server.now + 10, server.wall + 10
    ticks = 0
    while function.delayed + function.running:
        before = function.delayed + function.running
        server.tick(now, wall)
        ticks += 1
        done = before - function.delayed - function.running
        assert 0 < done <= ITERATION_COST // 20
        if function.delayed + function.running:
            assert 0 < server.next_deadline() <= now, "it must ask to be called again at once"
    assert ticks >= count // (ITERATION_COST // 20)
    if kind == "later jobs":  # in their order
        send(server, peer, request("CAN_DO", b"f"))
        server.receive(peer, request("GRAB_JOB"))
        assert peer.take()[0].endswith(b"\0f\0" + b"0")
        assert function.queued == count - 1
