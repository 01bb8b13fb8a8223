"""One random history of a job server: several peers at once, good and bad bytes, and time that passes.

Everything follows from the seed. Each step is done to the real job server and to the naive one (``tests/jobserver``),
which must give everybody the same bytes; the real one's insides are checked as well.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "jobserver")]

from world import World, request  # noqa: E402

from conversation import PACKETS  # noqa: E402

SUBMISSIONS = ("SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_LOW",
               "SUBMIT_JOB_LOW_BG")  # fmt: skip
REPORTS = ("WORK_COMPLETE", "WORK_COMPLETE", "WORK_STATUS", "WORK_FAIL", "WORK_EXCEPTION", "WORK_DATA", "WORK_WARNING")
GRABS = ("GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL")
FUNCTIONS = (b"f", b"f", b"f", b"g", b"g", b"h", b"i", b"a longer name", b"", b"t\tab")
UNIQUES = (b"", b"", b"", b"-", b"u", b"v", b"\xff" * 64, b"w" * 65)
NUMBERS = (b"0", b"1", b"100", b"-7", b" 12", b"x", b"", b"9" * 18, b"9" * 19, b"9" * 40)
COMMANDS = (b"status", b"prioritystatus", b"workers", b"show jobs", b"SHOW UNIQUE JOBS", b"version", b"getpid",
            b"verbose", b"maxqueue f 2", b"maxqueue f", b"maxqueue g 1 2 3", b"maxqueue i 1", b"create function i",
            b"drop function i", b"drop function f", b"drop function g", b"cancel job", b"show", b"", b" ", b"a b c d e",
            b"a b c d e f", b"status\0x", b"GET / HTTP/1.0", b"FOO /x HTTP/1.2", b"PROXY UNKNOWN")  # fmt: skip
MOMENTS = (0.0, 0.01, 0.5, 0.999, 1.0, 1.001, 3.0, 61.0, 3600.0)


class History:
    """A history of about ``steps`` steps; ``log`` tells them, the last one last."""

    def __init__(self, seed: int, steps: int = 400) -> None:
        self.random = random.Random(seed)
        self.steps = steps
        self.log: list[str] = []
        self.world = World(**self._options())
        self.log.append(f"options {self.world.naive.options}")
        self.wild = self.random.choice((0.0, 0.02, 0.3))  # how often a message is spoiled
        for _ in range(self.random.randint(1, 6)):
            self._connect()

    def run(self) -> None:
        """Live it. Raises AssertionError, or whatever the job server raises, where something is wrong."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (8, self._connect),
            (3, self._disconnect),
            (10, self._wait),
            (100, self._talk),
            (25, self._work_off),
            (15, self._let_the_store_answer),
        ]
        weights = [weight for weight, _ in actions]
        for _ in range(self.steps):
            self.random.choices(actions, weights)[0][1]()
        self._end()

    def _options(self) -> dict[str, Any]:
        pick = self.random.choice
        return {
            "durable": pick((False, False, True)),
            "job_retries": pick((-1, -1, 0, 1, 2)),
            "worker_wakeup": pick((1, 1, 1, 0, 2)),
            "listed_order": pick((False, False, True)),
            "exceptions": pick((False, True)),
            "max_body": pick((100, 3000, 200_000)),
            "max_line": pick((20, 100, 8192)),
            "max_function": pick((5, 512)),
            "max_unique": pick((2, 64)),
            "max_abilities": pick((2, 1000)),
            "forget_after": pick((1e9, 1e9, 0.5, 3.0)),
            "exact_timeouts": pick((False, True)),
            "max_memory": pick((0, 0, 12_000, 100_000)),
        }

    # ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> None:
        if len(self.world.peers) < 8:
            name = f"peer {self.world.next_fd + 1}"
            self.log.append(f"{name} connects")
            self.world.connect(name)
            if self.random.random() < 0.7:
                able = self.random.sample(FUNCTIONS, self.random.randint(1, 3))
                self._send(name, b"".join(request("CAN_DO", function) for function in able))

    def _disconnect(self) -> None:
        if len(self.world.peers) > 1:
            name = self.random.choice(list(self.world.peers))
            self.log.append(f"{name} closes")
            self.world.disconnect(name)

    def _wait(self) -> None:
        seconds = self.random.choice(MOMENTS)
        self.log.append(f"wait {seconds}")
        self.world.wait(seconds)

    def _talk(self) -> None:
        name = self.random.choice(list(self.world.peers))
        messages = [self._message(name) for _ in range(self.random.choice((1, 1, 1, 2, 3, 8)))]
        self._send(name, b"".join(messages))

    def _let_the_store_answer(self) -> None:
        """In a history with a store: begin to write, or have it written."""
        if self.world.real.durable:
            if self.random.random() < 0.5:
                self.log.append("the store is busy")
                self.world.hand_over()
            else:
                self.log.append("the store answers")
                self.world.commit()

    def _work_off(self) -> None:
        """A good worker does what there is to do and sleeps; without such ones there would soon be no sleepers."""
        name = self.random.choice(list(self.world.peers))
        naive = self.world.naive
        for _ in range(60):
            peer = naive.peers.get(name)
            if peer is None or peer.asleep is not None:
                break
            for job in naive.running(peer):
                self._send(name, request("WORK_COMPLETE", naive.handle(job), b"done"))
            self._send(name, request("GRAB_JOB_ALL"))
            if not naive.running(peer):
                self._send(name, request("PRE_SLEEP"))

    def _send(self, name: str, data: bytes) -> None:
        cuts = [self.random.randint(0, len(data)) for _ in range(self.random.choice((0, 0, 0, 1, 2, 5)))]
        self.log.append(f"{name} -> {data!r}" + (f" cut at {sorted(cuts)}" if cuts else ""))
        self.world.send(name, data, cuts)

    def _end(self) -> None:
        """The last questions; then everybody goes, and only jobs that somebody may still want are left."""
        self._let_the_store_answer()
        self.world.connect("administrator")
        self._send("administrator", b"".join(request("GET_STATUS", b"H:t:%d" % number) for number in range(1, 200)))
        for name in list(self.world.peers):
            self.world.disconnect(name)
        for job in self.world.naive.jobs:
            assert job.background, f"{job} is kept for nobody"
        self.world.commit()

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────

    def _message(self, name: str) -> bytes:
        kinds = (self._submission, self._work, self._ability, self._question, self._line)
        message = self.random.choices(kinds, (30, 45, 12, 8, 8))[0](name)
        return self._spoil(message) if self.random.random() < self.wild else message

    def _submission(self, name: str) -> bytes:
        pick = self.random.choice
        workload = pick((b"", b"x", b"y\0z", b"0" * 50, b"\0" * 300, b"large" * 10_000 if pick((0, 1)) else b"small"))
        first = (pick(FUNCTIONS), pick(UNIQUES))
        special = self.random.random()
        if special < 0.7:
            return request(pick(SUBMISSIONS), *first, workload)
        if special < 0.85:
            at = pick((b"%d" % (self.world.wall + pick((-5, 0, 1, 2, 60, 1000))), pick(NUMBERS)))
            return request("SUBMIT_JOB_EPOCH", *first, at, workload)
        if special < 0.9:
            fields = [pick((b"*", b"", b"0", b"5", b"59")), pick((b"*", b"7")), pick((b"*", b"29", b"31", b"x"))]
            return request("SUBMIT_JOB_SCHED", *first, *fields, pick((b"", b"2")), pick((b"*", b"3")), workload)
        reduce = pick(("SUBMIT_REDUCE_JOB", "SUBMIT_REDUCE_JOB_BACKGROUND"))
        return request(reduce, *first, pick((b"", b"sum", b"r" * 600)), *pick(((), (b"",), (b"agg",))), workload)

    def _work(self, name: str) -> bytes:
        """Mostly what a good worker would say: on the job it has, or a GRAB, and then it may sleep."""
        pick = self.random.choice
        peer = self.world.naive.peers.get(name)
        held = self.world.naive.running(peer) if peer else []
        if held and self.random.random() < 0.6:
            handle = self.world.naive.handle(pick(held))
        elif self.random.random() < 0.75:
            sleep = request("PRE_SLEEP") if self.random.random() < 0.5 else b""
            return request(pick(GRABS)) + sleep
        elif peer and peer.former and self.random.random() < 0.5:
            handle = b"H:t:%d" % pick(peer.former)
        else:
            handle = self._handle()
        kind = pick(REPORTS)
        data = (pick(NUMBERS), pick(NUMBERS)) if kind == "WORK_STATUS" else (pick((b"", b"r", b"a\0b", b"R" * 40_000)),)
        limit = self.world.naive.options.max_body
        if limit < 10_000 and self.random.random() < 0.1:  # a report that is above it
            return request(kind, handle, *data[:1], bytes(limit + pick((0, 1, 20_000))))
        return request(kind, handle, *data[: self.random.choice((0, 1, 2, 2, 2))])

    def _handle(self) -> bytes:
        """A job's handle, that of one long gone, or nobody's."""
        if self.world.naive.jobs and self.random.random() < 0.5:
            return self.world.naive.handle(self.random.choice(self.world.naive.jobs))
        number = self.random.randint(0, self.world.naive.next_number + 1)
        return self.random.choice((b"H:t:%d", b"H:t:%d", b"H:t:%d", b"H:u:%d", b"H:t:0%d", b"%d")) % number

    def _ability(self, name: str) -> bytes:
        pick = self.random.choice
        function = pick(FUNCTIONS)
        return pick((
            request("CAN_DO", function),
            request("CAN_DO_TIMEOUT", function, pick((b"500", b"1500", pick(NUMBERS)))),
            request("CANT_DO", function),
            request("RESET_ABILITIES"),
            request("PRE_SLEEP"),
            request("ALL_YOURS"),
        ))  # fmt: skip

    def _question(self, name: str) -> bytes:
        pick = self.random.choice
        return pick((
            request("GET_STATUS", self._handle()),
            request("GET_STATUS_UNIQUE", pick(UNIQUES)),
            request("ECHO_REQ", pick((b"", b"\0", b"echo", b"e" * 50_000))),
            request("OPTION_REQ", pick((b"exceptions", b"Exceptions", b"other"))),
            request("SET_CLIENT_ID", pick((b"", b"me", b"m" * 200))),
        ))  # fmt: skip

    def _line(self, name: str) -> bytes:
        pick = self.random.choice
        line = pick((pick(COMMANDS), b"cancel job " + self._handle()))
        return line + pick((b"\n", b"\r\n"))

    def _spoil(self, message: bytes) -> bytes:
        """Make a message into what no good peer would send."""
        at = self.random.randint(0, max(len(message) - 1, 0))
        kind = self.random.randint(0, 8)
        if kind == 0:
            return self.random.randbytes(self.random.randint(1, 30))
        if kind == 1:
            return message[:at] + self.random.randbytes(1) + message[at + 1 :]
        if kind == 2:
            return message[:at]
        if kind == 3:
            return message[at:]
        if kind == 4:
            return message[:at] + b"\0" + message[at:]
        if kind == 5:
            return message.replace(b"\0", b"", 1) if self.random.random() < 0.2 else b"\0RES" + message[4:]
        if kind == 6:
            number = self.random.choice((0, 5, 43, 2**32 - 1, self.random.choice(list(PACKETS.values()))[0]))
            return message[:4] + number.to_bytes(4, "big") + message[8:]
        if kind == 7:
            size = self.random.choice((0, 1, 11, 50, self.world.naive.options.max_body, 2**32 - 1))
            return message[:8] + size.to_bytes(4, "big") + message[12:]
        return message + message[:at]
