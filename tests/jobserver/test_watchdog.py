"""The watchdog says it, and wakes the worker, when a job waits beside one that sleeps."""

from __future__ import annotations

from desk import Desk


def stuck(desk: Desk) -> list[dict[str, object]]:
    return [fields for name, _, fields in desk.server.take_events() if name == "job_stuck"]


def test_a_breach_is_said_counted_and_mended() -> None:
    desk = Desk()
    desk.works("w", b"f")
    desk.text("admin", "pause f")
    desk.submit(b"f")
    desk.send("w", "PRE_SLEEP")
    for _ in range(3):
        desk.server.look_for_stuck_jobs()
    assert not stuck(desk)
    gate = desk.server.functions[b"f"].gate
    assert gate is not None
    gate.paused = False  # as a fault in the rules would, which forgets to wake
    desk.server.functions[b"f"].gate = None
    for _ in range(2):
        desk.server.look_for_stuck_jobs()
    (fields,) = stuck(desk)
    assert (fields["function"], fields["ready"], fields["workers"]) == ("f", 1, 1)
    assert desk.server.functions[b"f"].counters.stuck == 1
    desk.wait(0.1)
    assert desk.take("w") == [("NOOP",)]
    for _ in range(3):
        desk.server.look_for_stuck_jobs()
    assert not stuck(desk)
