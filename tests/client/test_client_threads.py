"""One client for many threads, and for a forked child."""

from __future__ import annotations

import os
import random
import threading
import traceback
from collections.abc import Callable

import pytest
from hands import Hands, working

from geartrain.client import Client
from geartrain.errors import ConnectionLostError, TimedOutError
from servers import PATIENCE, RunningServer, wait_until


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run ``work(number)`` in so many threads; the first error of any is raised here."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def test_many_threads_run_jobs_of_one_client(server: RunningServer) -> None:
    def work(number: int) -> None:
        for turn in range(25):
            workload = b"%d of %d" % (turn, number)
            assert client.run("reverse", workload, timeout=60) == workload[::-1]

    with Client(server.address) as client, working(server, "reverse"), working(server, "reverse"):
        in_threads(20, work)
        assert len(client._driver._sleepers) == 0


def test_threads_do_different_things_at_once(server: RunningServer) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            match number % 5:
                case 0:
                    assert client.echo(b"%d" % turn, timeout=60) == b"%d" % turn
                case 1:
                    handle = client.submit_background("later", timeout=60)
                    assert client.status(handle, timeout=60).known
                case 2:
                    assert list(client.map("reverse", [b"ab"] * 5, timeout=60, ordered=bool(turn % 2))) == [b"ba"] * 5
                case 3:
                    with pytest.raises(TimedOutError):
                        client.run("nobody", timeout=0.01)
                case 4:
                    workload = random.randbytes(200_000)
                    assert client.submit("reverse", workload).result(60) == workload[::-1]

    with Client(server.address) as client, working(server, "reverse"), working(server, "reverse"):
        in_threads(15, work)


def test_several_threads_wait_for_one_job(server: RunningServer) -> None:
    with Client(server.address) as client, Hands(server, "shared") as hands:
        job = client.submit("shared")
        assigned = hands.take()
        results: list[bytes] = []

        def work(number: int) -> None:
            if number == 9:
                wait_until(lambda: len(client._driver._sleepers) == 8, "all others wait")
                hands.complete(assigned, b"result")
            else:
                results.append(job.result(60))

        in_threads(10, work)
        assert results == [b"result"] * 9


def test_a_thread_waits_while_another_reads_and_leaves(server: RunningServer) -> None:
    """The one that reads for all has its answer first, and another must read on."""
    with Client(server.address) as client, Hands(server, "first") as first, Hands(server, "second") as second:
        jobs = [client.submit("first"), client.submit("second")]
        assigned = [first.take(), second.take()]

        def work(number: int) -> None:
            if number == 2:
                wait_until(lambda: len(client._driver._sleepers) == 1, "both wait")
                first.complete(assigned[0], b"1")
                wait_until(lambda: jobs[0]._submission.done, "the first has its result")
                wait_until(lambda: client._driver._is_led, "the second reads now")
                second.complete(assigned[1], b"2")
            else:
                assert jobs[number].result(60) == b"%d" % (number + 1)

        in_threads(3, work)


def test_a_look_leaves_no_waiting_thread_behind(server: RunningServer) -> None:
    """A thread that begins to wait during another's short look must read on its own afterwards."""
    with Client(server.address) as client, Hands(server, "looked") as hands:
        job = client.submit("looked")
        assigned = hands.take()
        client.echo()  # reads all there is, so that the look finds nothing
        looking, may_end, ended = threading.Event(), threading.Event(), threading.Event()
        real = client._driver._poll

        class SlowLook:
            register, unregister, modify = real.register, real.unregister, real.modify

            def poll(self, milliseconds: int) -> list[tuple[int, int]]:
                if milliseconds == 0:
                    looking.set()
                    assert may_end.wait(PATIENCE)
                return real.poll(milliseconds)

        client._driver._poll = SlowLook()  # type: ignore[assignment]

        def work(number: int) -> None:
            if number == 0:
                assert not job.done
                ended.set()
            else:
                assert looking.wait(PATIENCE)
                waiter = threading.Thread(target=job.result)
                waiter.start()
                wait_until(lambda: len(client._driver._sleepers) == 1, "the other thread waits")
                may_end.set()
                assert ended.wait(PATIENCE)
                wait_until(lambda: client._driver._is_led, "it reads now")
                hands.complete(assigned, b"")
                waiter.join(PATIENCE)
                assert not waiter.is_alive()

        in_threads(2, work)


def test_closing_ends_all_waits(server: RunningServer) -> None:
    client = Client(server.address)

    def work(number: int) -> None:
        if number == 5:
            wait_until(lambda: len(client._driver._sleepers) == 4, "all others wait")
            client.close()
        else:
            with pytest.raises(ConnectionLostError, match="the client was closed"):
                client.run("nobody", timeout=60)

    in_threads(6, work)


def test_threads_begin_together_on_a_new_client(server: RunningServer) -> None:
    for _ in range(5):
        with Client(server.address) as client:
            in_threads(8, lambda number: client.echo(b"", timeout=60))


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child, which must end well."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_has_connections_of_its_own(server: RunningServer) -> None:
    with Client(server.address) as client, working(server, "reverse"):
        parents_job = client.submit("nobody")
        parents_other = client.submit("reverse", b"ab")

        def work() -> None:
            assert client.run("reverse", b"cd", timeout=20) == b"dc"
            with pytest.raises(ConnectionLostError, match="forked"):
                parents_job.result()
            client.close()

        in_child(work)
        assert parents_other.result(20) == b"ba"
        assert client.run("reverse", b"ef", timeout=20) == b"fe"
        assert not parents_job.done


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_fork_while_another_thread_waits(server: RunningServer) -> None:
    with Client(server.address) as client, Hands(server, "held") as hands, working(server, "reverse"):
        job = client.submit("held")
        assigned = hands.take()
        waiter = threading.Thread(target=job.result)
        waiter.start()
        wait_until(lambda: client._driver._is_led, "the other thread reads")
        in_child(lambda: _must(client.run("reverse", b"cd", timeout=20) == b"dc"))
        hands.complete(assigned, b"")
        waiter.join(20)
        assert not waiter.is_alive()


def _must(truth: bool) -> None:
    assert truth
