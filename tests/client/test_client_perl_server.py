"""The client against the older job server in Perl, which knows less of the protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hands import Assigned, Hands

from geartrain.client import AdminClient, Client
from geartrain.errors import JobFailedError, JobRaisedError, ServerError
from geartrain.wire.packets import GRAB_JOB, JOB_ASSIGN, NO_JOB, NOOP, PRE_SLEEP, WORK_EXCEPTION, WORK_FAIL
from servers import RunningServer, running_perl_server


@pytest.fixture(scope="module")
def perl_server() -> Iterator[RunningServer]:
    with running_perl_server() as server:
        yield server


class PlainHands(Hands):
    """Grabs by GRAB_JOB, the only way this server knows."""

    def take(self) -> Assigned:
        self.send(GRAB_JOB)
        while (packet := self.hear()).type != JOB_ASSIGN:
            if packet.type == NO_JOB:
                self.send(PRE_SLEEP)
            elif packet.type == NOOP:
                self.send(GRAB_JOB)
        handle, function, workload = packet.arguments
        return Assigned(handle, function, b"", workload)


def test_jobs_end_in_every_way(perl_server: RunningServer) -> None:
    with Client(perl_server.address) as client, PlainHands(perl_server, "f") as hands:
        good, bad, raised = (client.submit("f", b"%d" % number) for number in range(3))
        hands.complete(hands.take(), b"result")
        hands.send(WORK_FAIL, hands.take().handle)
        last = hands.take()
        hands.send(WORK_EXCEPTION, last.handle, b"out of paper")
        hands.send(WORK_FAIL, last.handle)
        assert good.result(20) == b"result"
        with pytest.raises(JobFailedError):
            bad.result(20)
        with pytest.raises(JobRaisedError, match="out of paper"):
            raised.result(20)
        assert client.echo(b"in step", timeout=20) == b"in step"


def test_equal_uniques_are_one_job(perl_server: RunningServer) -> None:
    with Client(perl_server.address) as client, PlainHands(perl_server, "shared") as hands:
        jobs = [client.submit("shared", unique="u") for _ in range(2)]
        hands.complete(hands.take(), b"result")
        assert [job.result(20) for job in jobs] == [b"result"] * 2


def test_background_jobs_and_what_the_server_does_not_know(perl_server: RunningServer) -> None:
    with Client(perl_server.address) as client:
        handle = client.submit_background("background")
        assert client.status(handle, timeout=20).known
        with pytest.raises(ServerError):
            client.status(unique="u", timeout=20)
        assert client.status(handle, timeout=20).known


def test_administration(perl_server: RunningServer) -> None:
    admin = AdminClient(perl_server.address)
    with PlainHands(perl_server, "able") as hands:
        hands.send(GRAB_JOB)
        hands.hear()
        assert [row.workers for row in admin.status() if row.function == "able"] == [1]
        assert any("able" in peer.functions for peer in admin.workers())
    assert next(iter(admin.version().values())).startswith("v")
    with pytest.raises(ServerError) as caught:
        admin.show_jobs()
    assert caught.value.code == "unknown_command"
