"""The time of day of a fleet is its database's, whatever a member's own machine says."""

from __future__ import annotations

import pytest
from desk import WALL, Desk

HOUR = 3600.0


@pytest.mark.parametrize("wrong", [-HOUR, HOUR])
def test_a_job_is_due_by_the_time_of_the_fleet(wrong: float) -> None:
    desk = Desk(fleet=True)
    desk.wall = WALL + wrong
    desk.server.keep_time(WALL - desk.now - 0.01, WALL - desk.now)
    desk.wait(0.0)
    desk.works("worker", b"f")
    desk.send("client", "SUBMIT_JOB_EPOCH", b"f", b"", b"%d" % (WALL + 5), b"")
    desk.wait(4.0)
    assert desk.grab("worker") is None
    desk.wall = WALL  # somebody has put it right
    desk.wait(1.1)
    assert desk.grab("worker") is not None


def test_the_time_of_the_fleet_is_put_right_by_no_more_than_is_known() -> None:
    desk = Desk(fleet=True)
    base = WALL - desk.now
    desk.server.keep_time(base - 0.5, base)
    first = desk.server.time_base
    desk.server.keep_time(base - 0.7, base + 0.1)
    assert desk.server.time_base == first
    desk.server.keep_time(base + 1.0, base + 1.1)
    assert desk.server.time_base == base + 1.0
