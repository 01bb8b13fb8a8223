"""A member of a fleet that others have taken for dead forgets what it had, and comes back as another."""

from __future__ import annotations

import pytest
from desk import Desk

LEASE = 3.5


@pytest.fixture
def desk() -> Desk:
    made = Desk(durable=True, fleet=True)
    made.server.give_numbers(100, 100)
    made.server.renew_lease(made.now + LEASE)
    return made


def come_back(desk: Desk) -> None:
    desk.server.forsake()
    while desk.server.forsaking:
        desk.wait(0.1)
    desk.server.give_numbers(200, 100)
    desk.server.begin_block()
    desk.server.renew_lease(desk.now + LEASE)
    desk.settle()


def test_whose_store_did_not_answer_before_takes_jobs_as_another_member(desk: Desk) -> None:
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"")
    assert desk.server.take_batch() is not None  # and nothing is ever heard of it
    desk.wait(desk.server.store.longest_wait + 1)
    assert [packet[:2] for packet in desk.take("client")] == [("ERROR", b"QUEUE_ERROR")]

    come_back(desk)

    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"")
    desk.commit()
    assert desk.take("client") == [("JOB_CREATED", b"H:200")]


def test_whose_store_was_down_takes_jobs_as_another_member(desk: Desk) -> None:
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"")
    batch = desk.server.take_batch()
    assert batch is not None
    desk.server.refused(batch, "down", True)
    desk.settle()
    assert [packet[:2] for packet in desk.take("client")] == [("ERROR", b"QUEUE_ERROR")]

    come_back(desk)

    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"")
    desk.commit()
    assert desk.take("client") == [("JOB_CREATED", b"H:200")]
