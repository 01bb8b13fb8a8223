"""The watchdog says it, and wakes the worker, when a job waits beside one that sleeps."""

from __future__ import annotations

from desk import Desk

from geartrain.jobserver.rules.watchdog import EVERY


def stuck(desk: Desk) -> list[dict[str, object]]:
    return [fields for name, _, fields in desk.server.take_events() if name == "job_stuck"]


def test_a_breach_is_said_counted_and_mended() -> None:
    desk = Desk()
    desk.works("w", b"f")
    desk.text("admin", "pause f")
    desk.submit(b"f")
    desk.send("w", "PRE_SLEEP")
    desk.wait(3 * EVERY)
    assert not stuck(desk)
    gate = desk.server.functions[b"f"].gate
    assert gate is not None
    gate.paused = False  # as a fault in the rules would, which forgets to wake
    desk.server.functions[b"f"].gate = None
    desk.wait_unchecked(2 * EVERY + 0.1)
    (fields,) = stuck(desk)
    assert (fields["function"], fields["ready"], fields["workers"]) == ("f", 1, 1)
    assert desk.server.functions[b"f"].counters.stuck == 1
    assert desk.take("w") == [("NOOP",)]
    desk.wait(3 * EVERY)
    assert not stuck(desk)


def test_it_does_not_look_where_there_are_no_jobs() -> None:
    desk = Desk()
    desk.works("w", b"f")
    desk.send("w", "PRE_SLEEP")
    assert desk.server.next_deadline() == 0
