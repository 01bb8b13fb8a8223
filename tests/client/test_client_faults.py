"""The blocking client when job servers die, freeze, come back, or are cut off in the middle of a packet."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from faults import proxied, silent_host
from hands import Assigned, Hands, working

from geartrain.client import Client, DataEvent, SentAgainEvent
from geartrain.client.driver import IDLE_SECONDS
from geartrain.errors import ConnectError, ConnectionLostError, TimedOutError
from geartrain.wire.packets import WORK_DATA
from servers import RunningServer, running_gearmand, running_geartrain, wait_until


@contextlib.contextmanager
def two_servers() -> Iterator[tuple[RunningServer, RunningServer]]:
    with running_gearmand() as one, running_gearmand() as other:
        yield one, other


def connect(client: Client) -> None:
    """Returns when each server has answered all that was asked before."""
    for address in client.addresses:
        client.echo(server=address, timeout=20)


def test_a_connection_cut_anywhere_in_the_answers_costs_nothing(server: RunningServer) -> None:
    """OPTION_RES, JOB_CREATED, WORK_DATA and WORK_COMPLETE, each cut at every byte."""
    with working(server, "cut", _in_parts), proxied(server) as proxy:
        answers = len(b"...OPTION_RES+JOB_CREATED+WORK_DATA+WORK_COMPLETE") + 80
        for cut in range(0, answers, 3):
            with Client(proxy.address) as client:
                proxy.cut_after = cut
                assert client.run("cut", b"workload", timeout=20) == b"part rest of workload"
        assert proxy.connections > answers // 3


def _in_parts(hands: Hands, job: Assigned) -> None:
    hands.send(WORK_DATA, job.handle, b"part ")
    hands.complete(job, b"rest of " + job.workload)


def test_without_resends_a_cut_is_an_error_that_says_what_it_means(server: RunningServer) -> None:
    with proxied(server) as proxy, Client(proxy.address, resend=0) as client:
        client.echo()
        proxy.cut_after = 5
        with pytest.raises(ConnectionLostError, match="may or may not have run"):
            client.run("nobody", timeout=20)
        assert client.echo(b"again", timeout=20) == b"again"


def test_a_connection_closed_while_idle_is_made_again(server: RunningServer) -> None:
    with proxied(server) as proxy, Client(proxy.address, resend=0) as client, working(server, "reverse"):
        assert client.run("reverse", b"ab", timeout=20) == b"ba"
        proxy.hang_up()
        time.sleep(IDLE_SECONDS)
        assert client.run("reverse", b"cd", timeout=20) == b"dc"


def test_a_job_moves_on_when_its_server_is_killed() -> None:
    with (
        two_servers() as (one, other),
        working(one, "reverse"),
        working(other, "reverse"),
        Client([one.address, other.address]) as client,
    ):
        connect(client)
        jobs = [client.submit("waits", b"%d" % number) for number in range(20)]
        connect(client)
        assert {str(job.handle.address) for job in jobs if job.handle} == {one.address, other.address}
        one.process.kill()
        one.process.wait()
        assert [client.run("reverse", b"ab", timeout=20) for _ in range(10)] == [b"ba"] * 10
        with working(other, "waits"):
            assert [job.result(20) for job in jobs] == [(b"%d" % number)[::-1] for number in range(20)]


def test_a_consumer_of_events_is_told_that_the_job_begins_again() -> None:
    with two_servers() as (one, other), Client([one.address, other.address]) as client:
        job = client.submit("parts")
        wait_until(lambda: job.handle is not None, "the job has its handle")
        assert job.handle is not None
        first, second = (one, other) if str(job.handle.address) == one.address else (other, one)
        events = job.events(timeout=20)
        with Hands(first, "parts") as hands:
            hands.send(WORK_DATA, hands.take().handle, b"half")
            assert next(events) == DataEvent(b"half")
            first.process.kill()
            first.process.wait()
            event = next(events)
            assert isinstance(event, SentAgainEvent)
            assert str(event.lost) == first.address
        with working(second, "parts"):
            assert list(events) == []
            assert job.result() == b""


def test_a_job_survives_the_restart_of_the_only_server() -> None:
    with running_geartrain() as server, Client(server.address, patience=20) as client:
        job = client.submit("reverse", b"ab")
        client.echo()
        server.process.kill()
        server.process.wait()
        results: list[bytes] = []
        waiter = threading.Thread(target=lambda: results.append(job.result(60)))
        waiter.start()
        with restarted(server) as reborn, working(reborn, "reverse"):
            waiter.join(60)
            assert results == [b"ba"]


@contextlib.contextmanager
def restarted(server: RunningServer) -> Iterator[RunningServer]:
    """The same program on the same port."""
    process = subprocess.Popen(server.process.args, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(server), "the server is back")
        yield RunningServer(server.kind, server.port, process, server.log)
    finally:
        process.terminate()
        process.wait(20)


def _listens(server: RunningServer) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((server.host, server.port)) == 0


def test_patience_runs_out() -> None:
    with running_gearmand() as server, Client(server.address, patience=0.5) as client:
        job = client.submit("nobody")
        client.echo()
        server.process.kill()
        server.process.wait()
        began = time.monotonic()
        with pytest.raises(ConnectionLostError):
            job.result(20)
        with pytest.raises(ConnectError):
            client.echo(timeout=20)
        assert 0.5 < time.monotonic() - began < 10


def test_a_frozen_server_is_left_after_its_time() -> None:
    with two_servers() as (one, other), Client([one.address, other.address], answer_timeout=0.5) as client:
        connect(client)
        with working(other, "reverse"):
            one.process.send_signal(signal.SIGSTOP)
            try:
                # One of two goes to the frozen server, which owes its JOB_CREATED.
                assert [client.run("reverse", b"ab", timeout=20) for _ in range(6)] == [b"ba"] * 6
            finally:
                one.process.send_signal(signal.SIGCONT)


def test_a_server_that_freezes_with_a_job_is_left_too() -> None:
    with two_servers() as (one, other), Client([one.address, other.address], answer_timeout=0.5) as client:
        connect(client)
        jobs = [client.submit("reverse", b"ab") for _ in range(2)]
        connect(client)
        one.process.send_signal(signal.SIGSTOP)
        try:
            with working(other, "reverse"):
                assert [job.result(20) for job in jobs] == [b"ba", b"ba"]
        finally:
            one.process.send_signal(signal.SIGCONT)


def test_a_short_freeze_does_no_harm(server: RunningServer) -> None:
    with proxied(server) as proxy, Client(proxy.address, resend=0) as client, working(server, "reverse"):
        client.echo()
        proxy.is_frozen = True
        thaw = threading.Timer(0.3, setattr, (proxy, "is_frozen", False))
        thaw.start()
        assert client.run("reverse", b"ab", timeout=20) == b"ba"
        thaw.join()


def test_a_slow_network_is_not_taken_for_a_silent_server(server: RunningServer) -> None:
    workload = b"ab" * 750_000
    with (
        working(server, "reverse"),
        proxied(server, is_slow=True) as proxy,
        Client(proxy.address, resend=0, answer_timeout=0.3) as client,
    ):
        assert client.run("reverse", workload, timeout=60) == workload[::-1]


def test_a_host_that_does_not_answer_the_call_delays_only_its_own_keys_and_once() -> None:
    with (
        running_gearmand() as server,
        working(server, "reverse"),
        silent_host() as silent,
        Client([silent, server.address], connect_timeout=0.5) as client,
    ):
        began = time.monotonic()
        for _ in range(20):
            assert client.run("reverse", b"ab", timeout=20) == b"ba"
        assert time.monotonic() - began < 0.5
        for number in range(50):
            assert client.run("reverse", b"ab", unique=f"key {number}", timeout=20) == b"ba"
        assert time.monotonic() - began < 3


def test_half_of_the_servers_down_under_load() -> None:
    with (
        two_servers() as (one, other),
        working(one, "reverse"),
        working(other, "reverse"),
        Client([one.address, other.address]) as client,
    ):
        killer = threading.Timer(0.05, one.process.kill)
        killer.start()
        workloads = [b"%d" % number for number in range(3000)]
        assert list(client.map("reverse", workloads, window=100, timeout=60)) == [item[::-1] for item in workloads]
        killer.join()
        one.process.wait()


def test_a_time_out_holds_while_the_server_does_not_take_the_job(server: RunningServer) -> None:
    with proxied(server) as proxy, Client(proxy.address) as client:
        client.echo()
        proxy.is_frozen = True
        began = time.monotonic()
        with pytest.raises(TimedOutError):
            client.run("reverse", bytes(30_000_000), timeout=0.3)
        assert time.monotonic() - began < 10
        proxy.is_frozen = False
        assert client.echo(b"in step", timeout=30) == b"in step"


def test_a_server_that_speaks_something_else_is_told_from_a_lost_one() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as peer:
                    peer.sendall(b"220 mail.example ESMTP\r\n")
                    peer.recv(1000)

    greeter = threading.Thread(target=greet)
    greeter.start()
    client = Client(f"127.0.0.1:{listener.getsockname()[1]}", patience=0.3)
    with client, pytest.raises(ConnectionLostError, match="text line instead of a packet: b'220 mail"):
        client.run("f", timeout=20)
    listener.shutdown(socket.SHUT_RDWR)
    greeter.join()
    listener.close()
