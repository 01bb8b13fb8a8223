"""A day of retries, and very many of everything, with time as an argument and cost counted by the server itself."""

from __future__ import annotations

import struct
from typing import cast

import pytest
from desk import Desk

from conversation import PACKETS
from geartrain.jobserver import Peer
from geartrain.jobserver.chores import ITERATION_COST
from geartrain.wire.primitives import COMPILED

DAY = 86400.0


class FastDesk(Desk):
    """Does not check the server's insides after each step, which counts everything."""

    def settle(self) -> None:
        while self.server.touched:
            touched = cast(list[Peer], self.server.touched[:])
            self.server.touched.clear()
            for peer in touched:
                self.got[peer] = self.got.get(peer, b"") + b"".join(peer.take())
                if peer.stalled:
                    self.server.tick(self.now, self.wall)
                    self.server.receive(peer, b"")


def packed(name: str, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return struct.pack(">4sII", b"\0REQ", PACKETS[name][0], len(body)) + body


@pytest.mark.parametrize("backoff", ["constant", "linear", "exponential"])
def test_a_day_of_retries_with_restarts_in_between(backoff: str) -> None:
    """Each job has all its attempts, each after its pause, whenever the server was restarted; then it is dead."""
    desk = FastDesk(durable=True)
    count, attempts = 1000, 6
    words = f"attempts={attempts} backoff={backoff} delay=30m max_delay=4h jitter=0.2"
    assert desk.text("admin", f"policy set f {words}") == "OK\r\n"
    for _ in range(count):
        desk.submit(b"f")
    factors = {"constant": (1, 1, 1, 1, 1), "linear": (1, 2, 3, 4, 5), "exponential": (1, 2, 4, 8, 16)}[backoff]
    failed_at: dict[bytes, list[float]] = {}
    end = desk.now + DAY
    step = 0
    while desk.now < end:
        if step % 20 == 10:
            desk.restart()
        desk.works("worker", b"f")
        while (handle := desk.grab("worker")) is not None:
            times = failed_at.setdefault(handle, [])
            if times:
                pause = min(1800.0 * factors[len(times) - 1], 4 * 3600.0)
                assert 0.8 * pause <= desk.now - times[-1] + 0.001
                assert desk.now - times[-1] <= pause + 600 + 1
            times.append(desk.now)
            desk.send("worker", "WORK_FAIL", handle)
        desk.take("worker")
        desk.wait(600)
        step += 1
    assert len(failed_at) == count
    assert {len(times) for times in failed_at.values()} == {attempts}
    assert desk.text("admin", "dead list count=1").count(f"\tfail\t{attempts}\t") == 1
    assert len(desk.server.dead.all) == count
    desk.restart()
    assert len(desk.server.dead.all) == count
    desk.wait(7 * DAY)
    desk.commit()
    assert not desk.jobs
    assert {kind for kind, _ in desk.records} == {"policy"}


def cost_of(desk: FastDesk, name: str, data: bytes) -> int:
    """What the server reckons that some packets cost, in an iteration of their own."""
    desk.server.tick(desk.now, desk.wall)
    before = int(desk.server.cost)
    desk.write(name, data)
    return int(desk.server.cost) - before


def round_of_one(desk: FastDesk, function: bytes, unique: bytes) -> list[int]:
    """The costs of a submission, a grab and a failure."""
    costs = [cost_of(desk, "client", packed("SUBMIT_JOB_BG", function, unique, b""))]
    desk.take("client")
    costs.append(cost_of(desk, "worker", packed("GRAB_JOB")))
    (answer,) = [one for one in desk.take("worker") if one[0] == "JOB_ASSIGN"]
    costs.append(cost_of(desk, "worker", packed("WORK_FAIL", answer[1])))  # type: ignore[arg-type]
    return costs


@pytest.mark.parametrize("what", ["delayed jobs", "functions with limits", "keys with limits"])
def test_a_step_costs_the_same_beside_very_many(what: str) -> None:
    """By the server's own count, which is what it bounds its iterations by; a scan would also take minutes here."""
    desk = FastDesk(forget_after=1e9)
    assert desk.text("admin", "policy set f* attempts=3 delay=10h concurrency=1000000 key_concurrency=1") == "OK\r\n"
    desk.works("worker", b"f")
    alone = round_of_one(desk, b"f", b"first:1")
    count = 0
    if what == "delayed jobs":
        count, later = 1_000_000 if COMPILED else 50_000, b"%d" % (desk.wall + DAY)
        packets = [packed("SUBMIT_JOB_EPOCH", b"f", b"", later, b"")] * 1000
        for _ in range(count // 1000):
            desk.write("client", b"".join(packets))
            desk.take("client")
        assert desk.server.functions[b"f"].delayed == count + 1
    elif what == "functions with limits":
        for n in range(10_000):
            desk.write("client", packed("SUBMIT_JOB_BG", b"f%d" % n, b"a:1", b""))
        desk.take("client")
        assert sum(function.gate is not None for function in desk.server.functions.values()) == 10_001
    else:
        for start in range(0, 100_000, 1000):
            uniques = [b"%d:1" % n for n in range(start, start + 1000)]
            uniques += [b"%d:2" % n for n in range(start, start + 1000, 10)]
            desk.write("client", b"".join(packed("SUBMIT_JOB_BG", b"f", unique, b"") for unique in uniques))
            desk.take("client")
        gate = desk.server.functions[b"f"].gate
        assert gate is not None
        assert len(gate.keys or ()) == 100_000
        assert gate.blocked == 10_000
    beside = round_of_one(desk, b"f", b"last:1")
    assert (
        max(now - before for before, now in zip(alone, beside, strict=True)) <= 4
    )  # a blocked job that is let through
    if what != "delayed jobs":
        return
    desk.wait(10 * 3600.0)
    desk.now, desk.wall = desk.now + DAY, desk.wall + DAY
    ticks = 0
    while desk.server.functions[b"f"].delayed:
        desk.server.tick(desk.now, desk.wall)  # each does its share of what is due
        assert desk.server.cost < 2 * ITERATION_COST
        ticks += 1
    assert ticks > count // 10_000
