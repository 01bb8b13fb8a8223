"""A command that changes something for good is answered when the store has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import Desk

COMMANDS = {
    "policy set f attempts=3": b"OK\r\n",
    "policy unset g": b"OK\r\n",
    "pause f": b"OK\r\n",
    "resume p": b"OK\r\n",
    "dead retry all": b"OK 1\n",
    "dead retry H:1": b"OK 1\n",
    "dead purge all": b"OK 1\n",
    "dead purge H:1": b"OK 1\n",
    "retry H:1": b"OK\r\n",
    "retry H:2": b"OK\r\n",
    "priority H:2 high": b"OK\r\n",
}
DEAD, DELAYED = b"H:1", b"H:2"
NOT_STORED = b"ERR NOT_STORED It+is+in+force,+and+will+be+stored+when+the+store+takes+it:+it+is+away\r\n"


@pytest.fixture
def desk() -> Desk:
    """A job server with a dead letter, a delayed job, a policy and a pause."""
    desk = Desk(durable=True)
    for command in ("policy set g attempts=1", "pause p"):
        assert desk.text("admin", command) == "OK\r\n"
    desk.works("worker", b"g")
    dead = desk.submit(b"g")
    assert desk.grab("worker") == dead
    desk.send("worker", "WORK_FAIL", dead)
    desk.send("client", "SUBMIT_JOB_EPOCH", b"f", b"", b"%d" % (desk.wall + 1000), b"w")
    desk.commit()
    assert dead == DEAD
    assert desk.take("client") == [("JOB_CREATED", DELAYED)]
    return desk


@pytest.fixture
def answer(desk: Desk) -> Callable[[], bytes]:
    def answer() -> bytes:
        desk.settle()
        peer = desk.peer("admin")
        data, desk.got[peer] = desk.got[peer], b""
        return data

    return answer


@pytest.mark.parametrize("command", COMMANDS)
def test_a_change_is_acknowledged_when_it_is_stored(desk: Desk, answer: Callable[[], bytes], command: str) -> None:
    desk.write("admin", command.encode() + b"\n")
    assert answer() == b""
    desk.commit()
    assert answer() == COMMANDS[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_change_that_is_not_stored_is_not_acknowledged(desk: Desk, answer: Callable[[], bytes], command: str) -> None:
    desk.write("admin", command.encode() + b"\n")
    batch = desk.server.take_batch()
    assert batch is not None
    desk.write("admin", b"version\nresume nothing\n")
    assert answer() == b""
    desk.server.refused(batch, "it is away", down=True)
    first, _, rest = answer().partition(b"\n")
    assert first + b"\n" == NOT_STORED
    assert rest.startswith(b"OK ")
    assert b"ERR NOT_PAUSED" in rest
    desk.server.back()
    desk.commit()
    desk.restart()
    assert desk.text("admin", "dead list").count("\n") == (1 if "dead" in command or "H:1" in command else 2)


def test_a_change_beside_a_store_that_is_away(desk: Desk, answer: Callable[[], bytes]) -> None:
    desk.write("admin", b"pause x\n")
    batch = desk.server.take_batch()
    assert batch is not None
    desk.write("admin", b"pause y\n")
    desk.server.refused(batch, "it is away", down=True)
    assert answer() == 2 * NOT_STORED
    desk.write("admin", b"resume p\n")
    assert answer() == NOT_STORED
    desk.write("admin", b"pause z\n")
    assert answer().startswith(b"ERR NO_ROOM")


def test_what_changes_nothing_waits_for_nothing(desk: Desk, answer: Callable[[], bytes]) -> None:
    desk.write("admin", b"policy set g attempts=1\n")
    assert answer() == b"OK\r\n"
    desk.write("admin", b"pause x\n")
    batch = desk.server.take_batch()
    assert batch is not None
    desk.write("admin", b"policy set g attempts=1\n")
    assert answer() == b""
    desk.server.written(batch)
    assert answer() == b"OK\r\nOK\r\n"
