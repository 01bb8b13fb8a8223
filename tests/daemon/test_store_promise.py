"""An acknowledgement is a promise: what was acknowledged is there in the next life, however this one ends."""

from __future__ import annotations

import contextlib
import signal
import time

from lives import Place, kill, life, on, told_by

from geartrain.wire import Packet, pack_request
from geartrain.wire import packets as p
from servers import running_geartrain, wait_until
from wire_caller import Caller


def test_an_acknowledgement_leaves_after_the_commit_and_nothing_behind_it_before(place: Place) -> None:
    with life(place) as server, Caller(server) as client, Caller(server) as other, Caller(server) as worker:
        first = client.submit(b"g", b"first")
        worker.can_do(b"f")
        with place.held_back():
            client.send(pack_request(p.SUBMIT_JOB_BG, b"g", b"u", b"x") + pack_request(p.ECHO_REQ, b"behind"))
            wait_until(lambda: server.jobs_of("g") == (2, 0), "the job is queued")
            # Other connections go on, and so do jobs that somebody waits for.
            foreground = other.submit(b"f", b"hello", type=p.SUBMIT_JOB)
            worker.complete(worker.await_job(), b"olleh")
            assert other.receive() == Packet(p.WORK_COMPLETE, (foreground, b"olleh"))
            assert client.hears_nothing(0.2)
        created = client.receive()
        kill(server)  # the moment it is acknowledged
        assert created.type == p.JOB_CREATED
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"g")
        assert [job.arguments[0] for job in worker.take_all()] == [first, created.arguments[0]]


def test_every_acknowledged_job_comes_back_as_it_was(place: Place) -> None:
    big = bytes(range(256)) * 4096
    far = int(time.time()) + 3600
    with life(place, "--job-retries=2") as server, Caller(server) as client:
        unlucky = client.submit(b"f", b"unlucky")
        with Caller(server) as worker:
            worker.can_do(b"f")
            assert worker.call(p.GRAB_JOB).type == p.JOB_ASSIGN
            one = client.submit(b"f", b"one", b"u1")
        wait_until(lambda: server.jobs_of("f") == (2, 0), "the worker is missed")
        low = client.submit(b"f", b"low", type=p.SUBMIT_JOB_LOW_BG)
        empty = client.submit(b"f", b"", b"u2")
        nuls = client.submit(b"f", b"\0a\0\0b\0", b"u3")
        large = client.submit(b"f", big, b"u4")
        high = client.submit(b"f", b"high", type=p.SUBMIT_JOB_HIGH_BG)
        hyphen = client.submit(b"f", b"alike", b"-")
        reduced = client.call(p.SUBMIT_REDUCE_JOB_BACKGROUND, b"f", b"u5", b"red", b"", b"map").arguments[0]
        many = _submit_many(client)
        client.call(p.SUBMIT_JOB_EPOCH, b"later", b"u7", b"%d" % far, b"far")
        due = int(time.time()) + 2
        later = client.call(p.SUBMIT_JOB_EPOCH, b"later", b"u6", b"%d" % due, b"due").arguments[0]
        kill(server)
    with life(place, "--job-retries=2") as server, Caller(server) as client, Caller(server) as worker:
        worker.can_do(b"later")
        for unique, handle in ((b"u1", one), (b"u2", empty), (b"u4", large), (b"u6", later)):
            assert client.submit(b"later" if unique == b"u6" else b"f", b"other", unique) == handle
        assert client.submit(b"f", b"alike", b"-") == hyphen
        alike = client.submit(b"f", b"alike")
        assert alike not in many  # numbers are never used twice
        assert client.call(p.GET_STATUS, large).arguments == (large, b"1", b"0", b"0", b"0")
        job = worker.await_job()
        assert time.time() >= due
        assert job == Packet(p.JOB_ASSIGN_UNIQ, (later, b"later", b"u6", b"due"))
        worker.complete(job)

        worker.send(pack_request(p.RESET_ABILITIES))
        worker.can_do(b"f")
        assert worker.call(p.GRAB_JOB_UNIQ) == Packet(p.JOB_ASSIGN_UNIQ, (high, b"f", b"", b"high"))
        worker.send(pack_request(p.WORK_FAIL, high))
        with Caller(server) as second:
            second.can_do(b"f")
            in_order = [second.call(p.GRAB_JOB_ALL) for _ in range(8)]
            assert in_order == [
                Packet(p.JOB_ASSIGN_UNIQ, (one, b"f", b"u1", b"one")),
                Packet(p.JOB_ASSIGN_UNIQ, (empty, b"f", b"u2", b"")),
                Packet(p.JOB_ASSIGN_UNIQ, (nuls, b"f", b"u3", b"\0a\0\0b\0")),
                Packet(p.JOB_ASSIGN_UNIQ, (large, b"f", b"u4", big)),
                Packet(p.JOB_ASSIGN_UNIQ, (hyphen, b"f", b"-", b"alike")),
                Packet(p.JOB_ASSIGN_ALL, (reduced, b"f", b"u5", b"red", b"map")),
                Packet(p.JOB_ASSIGN_UNIQ, (alike, b"f", b"", b"alike")),
                Packet(p.JOB_ASSIGN_UNIQ, (unlucky, b"f", b"", b"unlucky")),  # behind all that lost no worker
            ]
            for job in in_order[1:-2]:
                second.complete(job)
            second.fence()
        wait_until(lambda: "retries_used_up" in told_by(server), "the second lost worker is one too many")
        assert server.jobs_of("f") == (3, 0)
        worker.send(pack_request(p.WORK_EXCEPTION, worker.call(p.GRAB_JOB).arguments[0], b"an exception ends it too"))
        assert server.ask(f"cancel job {one.decode()}") == ["OK"]
        assert [job.arguments[3] for job in worker.take_all()] == [b"low"]
        worker.send(pack_request(p.RESET_ABILITIES))
        worker.can_do(b"many")
        assert [job.arguments[0] for job in worker.take_all()] == many
        assert low not in many
    with life(place) as server:
        assert server.ask("status") == ["later\t1\t0\t0"]  # the one whose time has not come; nothing that has ended


def _submit_many(client: Caller) -> list[bytes]:
    """Jobs that differ by nothing but their workload."""
    for number in range(200):
        client.send(pack_request(p.SUBMIT_JOB_BG, b"many", b"-" if number % 2 else b"", b"%d" % number))
    return [client.receive().arguments[0] for _ in range(200)]


@on("postgresql")
def test_a_log_may_be_moved_while_the_jobs_are_still_awaited(place: Place) -> None:
    with contextlib.ExitStack() as stack:
        with place.held_back():
            server = stack.enter_context(running_geartrain(store=place.url, answers=False))
            wait_until(lambda: "starting" in told_by(server), "it starts")
            server.process.send_signal(signal.SIGHUP)
        assert server.ask("version")[0].startswith("OK")
        wait_until(lambda: "log_reopened" in told_by(server), "the log is opened again")


def test_a_server_killed_amid_a_burst_loses_nothing_that_it_acknowledged(place: Place) -> None:
    with life(place) as server, Caller(server) as client:
        client.send(b"".join(pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"%d" % number) for number in range(3000)))
        acknowledged = [client.receive().arguments[0] for _ in range(300)]
        kill(server)
        with contextlib.suppress(AssertionError, ConnectionResetError):  # what was sent before, and has not been read
            while True:
                acknowledged.append(client.receive().arguments[0])
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        jobs = worker.take_all()
        found = [job.arguments[0] for job in jobs]
        assert found[: len(acknowledged)] == acknowledged
        assert [job.arguments[3] for job in jobs] == [b"%d" % number for number in range(len(jobs))]


@on("sqlite")
def test_a_job_that_runs_at_the_end_comes_back_and_no_loss_is_counted(place: Place) -> None:
    handle = b""
    for _ in range(2):
        with life(place, "--job-retries=1") as server, Caller(server) as client, Caller(server) as worker:
            handle = handle or client.submit(b"f", b"x")
            worker.can_do(b"f")
            assert worker.call(p.GRAB_JOB).arguments[0] == handle
            server.process.terminate()
            assert server.process.wait(10) == 0
            assert "retries_used_up" not in told_by(server)


@on("sqlite", "postgresql")
def test_what_is_owed_at_the_end_is_waited_for(place: Place) -> None:
    with life(place) as server, Caller(server) as client:
        with place.held_back():
            client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"x") + pack_request(p.ECHO_REQ, b"behind"))
            wait_until(lambda: server.jobs_of("f") == (1, 0), "the job is queued")
            server.process.terminate()
            wait_until(lambda: "stopping" in told_by(server), "it stops")
            assert client.hears_nothing(0.2)
        created = client.receive()
        assert created.type == p.JOB_CREATED
        assert client.receive() == Packet(p.ECHO_RES, (b"behind",))
        assert server.process.wait(10) == 0
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert [job.arguments[0] for job in worker.take_all()] == [created.arguments[0]]


@on("sqlite", "postgresql")
def test_what_is_owed_at_the_end_and_can_not_be_kept_is_refused(place: Place) -> None:
    with life(place, "--stop-timeout=500ms") as server, Caller(server) as client:
        kept = client.submit(b"f", b"kept")
        with place.held_back():
            client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"x") + pack_request(p.ECHO_REQ, b"behind"))
            wait_until(lambda: server.jobs_of("f") == (2, 0), "the job is queued")
            server.process.terminate()
            error = client.receive()
            assert (error.type, error.arguments[0]) == (p.ERROR, b"QUEUE_ERROR")
            assert client.receive() == Packet(p.ECHO_RES, (b"behind",))
            assert client.is_closed()
            assert server.process.wait(10) == 0
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert worker.take_all()[0].arguments[0] == kept


@on("sqlite")
def test_a_drain_ends_what_runs_and_leaves_what_waits_in_the_store(place: Place) -> None:
    with life(place) as server, Caller(server) as client, Caller(server) as worker:
        running = client.submit(b"f", b"running")
        waiting = [client.submit(b"f", b"%d" % number) for number in range(3)]
        worker.can_do(b"f")
        job = worker.call(p.GRAB_JOB)
        assert job.arguments[0] == running
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "draining" in told_by(server), "it drains")
        assert "shutting down" in client.refusal(b"f")
        worker.complete(job)
        assert server.process.wait(10) == 0
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert [job.arguments[0] for job in worker.take_all()] == waiting


@on("sqlite")
def test_what_ends_during_a_drain_is_forgotten_though_the_store_is_slow(place: Place) -> None:
    with life(place) as server, Caller(server) as client, Caller(server) as worker:
        for _ in range(2):
            client.submit(b"f", b"x")
        worker.can_do(b"f")
        first, second = (worker.call(p.GRAB_JOB) for _ in range(2))
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "draining" in told_by(server), "it drains")
        worker.fence()  # at this moment nothing is owed to the store
        with place.held_back():
            worker.complete(first)
            worker.fence()  # so that they end in two turns
            worker.complete(second)
            wait_until(lambda: "stopping" in told_by(server), "it stops")
            assert worker.hears_nothing(0.2)  # nobody is sent away yet
        assert server.process.wait(10) == 0
    with life(place) as server:
        assert server.jobs_of("f") == (0, 0)
