"""A job server whose functions have policies, beside ``NaivePolicies``: whatever is done, its promises must hold.

Each action takes some numbers and does something that fits them, or nothing; so a history is a list of names and
numbers. After each action it is seen that clients have heard exactly what they must, that nothing which could start
waits beside an idle worker, and that dead letters, results and counters are right; ``Desk`` checks the server's
insides.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from desk import Desk
from naive_policies import NEAR, PRIORITIES, NaiveJob, NaivePolicies, NaiveResult, NaiveWorker

from geartrain.jobserver.model import DEAD, RUNNING
from geartrain.jobserver.results import COMPLETED
from geartrain.jobserver.watching import ENDS

FUNCTIONS = ("f", "f", "g")
NAMES = ("f", "f", "f", "g", "*")
UNIQUES = ("", "-", "a:1", "a:2", "a:3/x", "b:1/x", "b:2", "c")
KINDS = (
    ("SUBMIT_JOB", 1, False), ("SUBMIT_JOB_BG", 1, True), ("SUBMIT_JOB_HIGH", 0, False),
    ("SUBMIT_JOB_HIGH_BG", 0, True), ("SUBMIT_JOB_LOW", 2, False), ("SUBMIT_JOB_LOW_BG", 2, True),
)  # fmt: skip
POLICIES = (
    "attempts=1", "attempts=3 delay=2s", "attempts=2 retry_on=fail,lost",
    "attempts=4 backoff=linear delay=3s jitter=0.5",
    "attempts=3 backoff=constant delay=0", "attempts=5 delay=4s max_delay=10s jitter=0", "attempts=", "timeout=5s",
    "timeout=", "expires=7s", "expires=", "dead=20s", "dead=0", "dead=", "dead_count=2", "dead_count=", "concurrency=1",
    "concurrency=2", "concurrency=", "key_concurrency=1", "key_concurrency=2", "key_concurrency= key_separator=",
    "key_separator=/", "key_separator=", "rate=1/s", "rate=30/min burst=3", "rate=10/h", "rate= burst=", "key_rate=1/s",
    "key_rate=30/min key_burst=2", "key_rate= key_burst=", "queue=3", "queue=4 when_full=drop-oldest", "when_full=",
    "queue= when_full=", "weight=3", "weight=", "ageing=5s", "ageing=",
    "results=20s", "results=20s", "results=4s stale=6s", "results=2s stale=1m", "results=",
    "results= stale= result_size=", "stale=5s", "stale=", "result_size=3", "result_size=",
)  # fmt: skip
NEEDS = (("burst", ("rate",)), ("key_burst", ("key_rate",)), ("key_separator", ("key_concurrency", "key_rate")),
         ("when_full", ("queue",)), ("result_size", ("results",)), ("stale", ("results",)))  # fmt: skip
DATA = (b"done", b"", b"more")
MOMENTS = (0.25, 0.25, 0.5, 1.0, 1.5, 3.0, 8.0, 30.0)
COUNTERS = ("submitted", "started", "lost", "completed", "failed", "timed_out", "cancelled", "abandoned", "retried",
            "expired", "dropped", "buried", "revived", "result_hits", "result_misses", "result_bytes", "results_kept",
            "results_too_large")  # fmt: skip
WAKE_TIMEOUT = 1.0


class PolicyWorld:
    """The real one on a desk, and the naive one."""

    def __init__(self) -> None:
        self.desk = Desk(durable=True, forget_after=1e9)
        self.naive = NaivePolicies()
        self.log: list[str] = []
        self.told: dict[int, list[tuple[bytes, bytes]]] = {}  # of the jobs that are watched
        self._tell_time()

    def act(self, action: str, *numbers: int) -> None:
        """Do one of ``ACTIONS``, and see that all is well."""
        self.log.append(f"{action} {' '.join(map(str, numbers))}")
        getattr(self, action)(*numbers)
        self.desk.commit()
        self.check()

    # ── time and connections ────────────────────────────────────────────────────────────────────────────────────

    def wait(self, a: int, b: int, c: int) -> None:
        self._wait(MOMENTS[a % len(MOMENTS)])

    def _wait(self, seconds: float) -> None:
        end = self.desk.now + seconds
        while self.desk.now < end:
            left = end - self.desk.now
            soon = [max(at, 0.0) + 0.004 for at in self.naive.deadlines() if at < left + 0.003]
            self.desk.wait(min(soon, default=left))  # never to the very moment, on which two may not agree
            self._tell_time()
            self.desk.commit()
            self.check()

    def _tell_time(self) -> None:
        self.naive.pass_time(self.desk.now, self.desk.wall)

    def connect_worker(self, a: int, b: int, c: int) -> None:
        name = f"worker {a % 3}"
        if name not in self.naive.workers:
            self.naive.workers[name] = NaiveWorker(verdicts=b % 2 == 1)
            if b % 2:
                self.desk.send(name, "OPTION_REQ", b"policies")
                assert self.desk.take(name) == [("OPTION_RES", b"policies")]
        self._can_do(name, FUNCTIONS[c % 3], b)
        if b % 3 == 0:
            self._can_do(name, "g", 0)

    def _can_do(self, name: str, function: str, limit: int) -> None:
        self.naive.function(function)
        seconds = 3.0 if limit % 5 == 4 else 0.0
        self.naive.workers[name].abilities[function] = seconds
        if seconds:
            self.desk.send(name, "CAN_DO_TIMEOUT", function.encode(), b"3000")
        else:
            self.desk.send(name, "CAN_DO", function.encode())

    def leave(self, a: int, b: int, c: int) -> None:
        name = (f"worker {a % 3}", f"worker {a % 3}", f"client {a % 2}", f"asker {a % 2}")[b % 4]
        if name in self.desk.peers:
            self._hear()
            self.desk.leave(name)
            self.naive.leave(name)

    def restart(self, a: int, b: int, c: int) -> None:
        if a % 4 == 0:
            self._hear()
            self.desk.restart()
            self.naive.restart()
            self.told.clear()

    # ── clients ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _client(self, number: int) -> str:
        name = f"client {number % 2}"
        if name not in self.naive.heard:
            self.naive.heard[name] = []
            if number % 2:
                self.desk.send(name, "OPTION_REQ", b"exceptions")
                self.desk.take(name)
                self.naive.exceptions.add(name)
        return name

    def submit(self, a: int, b: int, c: int) -> None:
        self._submit(FUNCTIONS[a % 3], UNIQUES[b % len(UNIQUES)], a, c)

    def submit_again(self, a: int, b: int, c: int) -> None:
        """What a result is kept of, perhaps as a job for later, which is run."""
        kept = list(self.naive.results.values())
        if kept:
            self._submit(kept[b % len(kept)].function, kept[b % len(kept)].unique, a, c)

    def _submit(self, function: str, unique: str, a: int, c: int) -> None:
        kind, priority, background = KINDS[c % len(KINDS)]
        arguments, due = [function.encode(), unique.encode()], 0.0
        if a % 7 == 6:
            due = float(int(self.desk.wall) - 1 + c % 9)
            kind, priority, background = "SUBMIT_JOB_EPOCH", 1, True
            arguments.append(b"%d" % due)
            due = due if due > self.desk.wall else 0.0
        self._pass_ends_of_results()
        client = self._client(a)
        full = self._fullness(function, priority)
        result = None if due else self.naive.answer(function, unique)
        next_number = int(self.desk.server.next_number)
        self._hear()
        self.desk.send(client, kind, *arguments, b"work")
        self.desk.commit()
        answers = self.desk.take(client)
        (answer,) = [one for one in answers if one[0] in ("JOB_CREATED", "ERROR")]
        answers.remove(answer)
        if result is not None:
            self.naive.function(function)
            counted = self.naive.counters[function]
            counted[priority, "result_hits"] += 1
            counted[priority, "result_bytes"] += len(result.data)
            self._take_result(result, client, answer, next_number, background)
        elif answer[0] == "ERROR":
            assert answer[1] == b"QUEUE_ERROR"
            assert full is not None
            assert not full or self.naive.function(function).had_keys, f"one of {full} could have been dropped"
        elif (number := self._number(answer[1])) in self.naive.jobs:
            job = self.naive.jobs[number]
            assert job.lives
            assert (job.function, job.unique) == (function, unique) != (function, "")
            job.background |= background
            if background:
                job.is_refresh = False
            else:
                job.listeners.append(client)
        else:
            job = NaiveJob(number, function, unique, priority, background, due=due)
            owners = [one for one in self.naive.jobs.values() if one.lives and one.owns_unique and unique]
            assert (function, unique) not in [(one.function, one.unique) for one in owners], f"{job} is there already"
            if full is not None:
                self._drop_one(function, full)
            self.naive.submit(job, client)
        self._hear({client: answers})

    def _take_result(
        self, result: NaiveResult, client: str, answer: tuple[Any, ...], next_number: int, background: bool
    ) -> None:
        """A submission must have been answered with a result that is kept; perhaps a fresh one is made."""
        assert answer[0] == "JOB_CREATED", answer
        naive, number = self.naive, self._number(answer[1])
        if naive.wall >= result.fresh_until:
            self._refresh(result.function, result.unique, next_number)
        if background:
            assert number == result.number
        else:
            assert number not in naive.jobs
            naive.heard[client].append(("WORK_COMPLETE", number, result.data))

    def _refresh(self, function: str, unique: str, number: int) -> None:
        """A fresh result must be made by a job of this number, unless a job makes it already or there is no place."""
        naive = self.naive
        alike = [job for job in naive.jobs.values() if job.lives and (job.function, job.unique) == (function, unique)]
        is_made = bool(self._show(number))
        if any(job.owns_unique for job in alike):
            assert not is_made, f"{alike} make a fresh result already"
        elif not alike:
            assert is_made == (self._fullness(function, 0) is None)
        if is_made:
            naive.submit(NaiveJob(number, function, unique, 1, True, is_refresh=True), "")

    def _fullness(self, function: str, priority: int) -> list[NaiveJob] | None:
        """None: the queue is not full. Else the jobs that may be dropped, the one that should be first."""
        policy = self.naive.policy(function)
        if "queue" not in policy or self.naive.total(function) < int(policy["queue"]):
            return None
        if policy.get("when_full") != "drop-oldest":
            return []
        able = [job for job in self.naive.of(function, "waiting") if job.priority >= priority]
        return sorted(able, key=lambda job: (-job.priority, job.attempts > 0, job.order))

    def _drop_one(self, function: str, able: list[NaiveJob]) -> None:
        """Something was dropped for a new job: which of these?"""
        gone = [job for job in able if self._show(job.number).get("state") in (None, "dead", "ended")]
        assert len(gone) == 1, f"of {able} {gone} are gone"
        if not self.naive.function(function).had_keys and not any(job.was_moved for job in able):
            assert gone[0] is able[0]
        self.naive.count(gone[0], "dropped")
        self.naive.fail(gone[0], "dropped", b"")

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def grab(self, a: int, b: int, c: int) -> None:
        name = f"worker {a % 3}"
        worker = self.naive.workers.get(name)
        if worker is None:
            return
        self._hear()
        worker.asleep, worker.woken_until = False, 0.0
        must = [job for function in worker.abilities for job in self.naive.startable(function, NEAR)]
        handle = self.desk.grab(name)
        if handle is None and must and any(self.naive.function(one).has_keys for one in worker.abilities):
            handle = self.desk.grab(name)  # jobs that are older than the limits of keys are put aside first
        if handle is None:
            assert not must, f"{name} got nothing, and there is {must}"
        else:
            job = self.naive.jobs[self._number(handle)]
            self._check_order(worker, job)
            self.naive.start(job, name)
        if b % 3 == 0:
            self.sleep(a, b, c)

    def _check_order(self, worker: NaiveWorker, job: NaiveJob) -> None:
        naive = self.naive
        function = naive.function(job.function)
        waiting = naive.of(job.function, "waiting")
        if not (function.had_keys or function.had_ageing or any(one.was_moved for one in waiting)):
            assert naive.startable(job.function, -NEAR)[0] is job, f"{job} went before others of its function"
        if not any(naive.function(name).had_keys or naive.function(name).had_ageing for name in worker.abilities):
            best = [one.priority for name in worker.abilities for one in naive.startable(name, NEAR)]
            assert job.priority <= min(best, default=2), f"{job} went before better ones"
        era = function.key_era
        same = [
            one for one in waiting
            if naive.key(one) == naive.key(job) and one.priority == job.priority
            and one.attempts == 0 and one.queue_era == era and not one.was_moved
        ]  # fmt: skip
        if job in same and naive.key(job):
            assert min(same, key=lambda one: one.order) is job, f"{job} went before others of its key"

    def sleep(self, a: int, b: int, c: int) -> None:
        name = f"worker {a % 3}"
        worker = self.naive.workers.get(name)
        if worker is not None:
            self._hear()
            worker.asleep, worker.woken_until = True, 0.0
            self.desk.send(name, "PRE_SLEEP")

    def report(self, a: int, b: int, c: int) -> None:
        name = f"worker {a % 3}"
        running = self.naive.running_on(name)
        if not running:
            return
        job = running[b % len(running)]
        handle = b"H:%d" % job.number
        verdicts = self.naive.workers[name].verdicts
        match c % 6:
            case 0 | 1:
                data = DATA[(a + b) % len(DATA)]
                self.desk.send(name, "WORK_COMPLETE", handle, data)
                self.naive.complete(job, data)
            case 2:
                self.desk.send(name, "WORK_EXCEPTION", handle, b"oops")
                self.naive.end_attempt(job, "exception", b"oops")
            case 3 if verdicts:
                self.desk.send(name, "WORK_FAIL", handle, b"reject", b"bad")
                self.naive.end_attempt(job, "reject", b"bad")
            case 4 if verdicts:
                after = (-1.0, 0.0, 3.0)[b % 3]
                self.desk.send(name, "WORK_FAIL", handle, b"retry" if after < 0 else b"retry=%d" % after, b"later")
                self.naive.end_attempt(job, "retry", b"later", after)
            case _:
                self.desk.send(name, "WORK_FAIL", handle)
                self.naive.end_attempt(job, "fail")

    def work(self, a: int, b: int, c: int) -> None:
        """What a good worker does: its job, then the next one."""
        self.report(a, b, c)
        self.grab(a, b, c)

    # ── results ─────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, a: int, b: int, c: int) -> None:
        name, waits = f"asker {a % 2}", c % 2 == 1
        self._pass_ends_of_results()
        naive = self.naive
        if c % 3:
            number = 1 + b % int(self.desk.server.next_number)
            words, job, result = f"H:{number}", naive.jobs.get(number), naive.results.get(number)
        else:
            function, unique = FUNCTIONS[a % 3], UNIQUES[2 + b % (len(UNIQUES) - 2)]
            alike = [
                one for one in naive.jobs.values() if one.lives and (one.function, one.unique) == (function, unique)
            ]
            if not all(one.owns_unique for one in alike):
                return  # after a restart it may be another that has it
            words = f"unique {function} {unique}"
            job, result = next(iter(alike), None), next(reversed(naive.found(function, unique)), None)
        naive.ask(name, job, result, waits)
        self.desk.write(name, f"result {words}{' wait' if waits else ''}\n".encode())

    def _pass_ends_of_results(self) -> None:
        """The model is told the time a little late: have no result change just now."""
        while any(abs(at - self.desk.wall) < 2 * NEAR for at in self.naive.ends_of_results()):
            self._wait(0.05)

    def _check_results(self) -> None:
        """Whoever asked has been told what they must, and what is kept is right."""
        for name, answers in self.naive.asked.items():
            peer = self.desk.peer(name)
            got, self.desk.got[peer] = self.desk.got[peer], b""
            while answers and isinstance(answer := answers[0], bytes):
                assert got.startswith(answer), f"{name} was told {got!r} in place of {answer!r}"
                got = got.partition(b"\r\n")[2] if answer.startswith(b"ERR") else got.removeprefix(answer)
                del answers[0]
            assert not got, f"{name} was told {got!r}"
        kept = {result.number: result for result in self.naive.results.values()}
        real = self.desk.server.results.by_number
        going = {number for number, result in kept.items() if abs(result.expires - self.desk.wall) < 2 * NEAR}
        assert set(real) - going == set(kept) - going
        for number in set(real) & set(kept):
            assert (real[number].outcome == COMPLETED, real[number].data) == (kept[number].completed, kept[number].data)
            assert abs(real[number].record.expires - kept[number].expires) < NEAR

    # ── administrators ──────────────────────────────────────────────────────────────────────────────────────────

    def policy(self, a: int, b: int, c: int) -> None:
        name, words = NAMES[a % len(NAMES)], POLICIES[b % len(POLICIES)]
        answer = self.text(f"policy set {name} {words}")
        given = dict(word.split("=", 1) for word in words.split())
        merged = {**self.naive.policies.get(name, {}), **given}
        merged = {key: value for key, value in merged.items() if value}
        if any(key in merged and not any(one in merged for one in needed) for key, needed in NEEDS):
            assert answer.startswith("ERR INVALID_POLICY"), answer
        else:
            assert answer == "OK\r\n"
            self.naive.set_policy(name, given)

    def unset(self, a: int, b: int, c: int) -> None:
        name = NAMES[a % len(NAMES)]
        answer = self.text(f"policy unset {name}")
        assert answer.startswith("OK" if name in self.naive.policies else "ERR UNKNOWN_POLICY")
        self.naive.set_policy(name, dict.fromkeys(self.naive.policies.get(name, {}), ""))

    def pause(self, a: int, b: int, c: int) -> None:
        function = FUNCTIONS[a % 3]
        if b % 3 == 0:
            assert self.text(f"pause {function}") == "OK\r\n"
            self.naive.function(function).paused = True
        else:
            known = self.naive.functions.get(function)
            was = known is not None and known.paused
            assert self.text(f"resume {function}").startswith("OK" if was else "ERR NOT_PAUSED")
            if known is not None:
                known.paused = False

    def _some_job(self, number: int, *states: str) -> NaiveJob | None:
        jobs = [job for job in self.naive.jobs.values() if job.state in states]
        return jobs[number % len(jobs)] if jobs else None

    def cancel(self, a: int, b: int, c: int) -> None:
        job = self._some_job(a, "waiting", "delayed", "running", "dead", "done")
        if job is not None:
            answer = self.text(f"cancel job H:{job.number}")
            assert answer.startswith("OK" if job.lives else "ERR UNKNOWN_JOB")
            if job.lives:
                self.naive.cancel(job)

    def retry(self, a: int, b: int, c: int) -> None:
        job = self._some_job(a, "delayed", "dead", "running", "waiting")
        if job is not None:
            answer = self.text(f"retry H:{job.number}")
            assert answer.startswith("OK" if job.state in ("delayed", "dead") else "ERR NOT_WAITING")
            if job.state == "dead":
                self.naive.revive(job)
            elif job.state == "delayed":
                self.naive.hurry(job)

    def priority(self, a: int, b: int, c: int) -> None:
        job = self._some_job(a, "delayed", "running", "waiting")
        if job is not None:
            answer = self.text(f"priority H:{job.number} {PRIORITIES[b % 3]}")
            assert answer.startswith("OK" if job.state != "running" else "ERR NOT_WAITING")
            if job.state != "running":
                self.naive.prioritize(job, b % 3)

    def letters(self, a: int, b: int, c: int) -> None:
        what = "retry" if a % 2 else "purge"
        dead = sorted(self.naive.dead(), key=lambda job: job.order)
        if b % 2:
            dead = [job for job in dead if job.function == "f"]
        assert self.text(f"dead {what} all{' function=f' if b % 2 else ''}") == f"OK {len(dead)}\n"
        for job in dead:
            (self.naive.revive if a % 2 else self.naive.purge)(job)

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────────────────

    def text(self, line: str) -> str:
        return self.desk.text("administrator", line)

    def _number(self, handle: Any) -> int:
        return int(cast(bytes, handle).removeprefix(b"H:"))

    def _show(self, number: int) -> dict[str, str]:
        answer = self.text(f"show job H:{number}")
        rows = [line.split("\t") for line in answer.splitlines()]
        return {} if answer.startswith("ERR") else {row[0]: row[1] for row in rows if len(row) == 2}

    def _hear(self, taken: dict[str, Any] | None = None) -> None:
        """Clients have heard what they must, and nothing else; workers that were woken are no sleepers any more."""
        for name in self.naive.heard:
            got = [*(taken or {}).get(name, []), *self.desk.take(name)]
            heard = [(one[0], self._number(one[1]), one[2] if len(one) > 2 else b"") for one in got]
            assert sorted(heard) == sorted(self.naive.heard[name]), f"{name} heard {heard}"
            self.naive.heard[name].clear()
        for name, worker in self.naive.workers.items():
            got = self.desk.take(name)
            assert got in ([], [("NOOP",)]), got
            if got:
                assert worker.asleep
                worker.asleep, worker.woken_until = False, self.desk.now + WAKE_TIMEOUT

    def tell(self, number: int, event: bytes, data: bytes) -> None:
        """What whoever watches a job is told of it."""
        self.told[number].append((event, data))

    def _check_watches(self) -> None:
        """Each live job is watched; each that has ended or died has had one last event, and nothing behind it."""
        server = self.desk.server
        for number, told in list(self.told.items()):
            job = server.jobs.get(number)
            lives = job is not None and job.state != DEAD
            events = [event for event, _ in told]
            assert [event in ENDS for event in events] == [False] * (len(events) - (not lives)) + [True] * (not lives)
            assert lives or (events[-1] == b"dead") == (job is not None), f"{number} is told {events}"
            assigned = [int(data) for event, data in told if event == b"assigned"]
            assert assigned == sorted(set(assigned))
            turns = [event for event in events if event in (b"assigned", b"retry")]
            assert all(one != other for one, other in pairwise(turns))
            if job is not None and job.state == RUNNING and assigned:
                assert assigned[-1] == job.attempts + 1
            if not lives:
                del self.told[number]
        for job in server.jobs:
            if job.state != DEAD and int(job.number) not in self.told:
                assert server.watch(int(job.number), self)
                self.told[int(job.number)] = []

    def check(self) -> None:
        self._hear()
        self._check_watches()
        self._check_results()
        naive = self.naive
        for job in naive.jobs.values():
            if job.state == "delayed" and job.earliest:
                due = float(self._show(job.number)["due"])
                assert job.earliest - NEAR <= due <= job.due + NEAR, f"{job} is due at {due}"
                job.due, job.earliest = due, 0.0
        for function in naive.functions:
            able = [worker for worker in naive.workers.values() if function in worker.abilities]
            if naive.startable(function, NEAR) and any(worker.asleep for worker in able):
                assert any(worker.woken_until >= self.desk.now for worker in able), f"a job of {function} waits"
            real = self.desk.server.functions[function.encode()]
            for priority, name in enumerate(PRIORITIES):
                counters = (real.high_counters, real.counters, real.low_counters)[priority]
                for counter in COUNTERS if self.desk.is_first_life else ():
                    counted = 0 if counters is None else getattr(counters, counter)
                    assert counted == naive.counters[function][priority, counter], f"{name} {counter} of {function}"
        rows = [line.split("\t") for line in self.text("dead list").splitlines()[:-1]]
        # The model is told the time a little late, so one whose time is over just now may be in either list.
        going = {f"H:{job.number}" for job in naive.dead() if abs(job.until - self.desk.wall) < 2 * NEAR}
        kept = [(f"H:{job.number}", job.reason, str(job.attempts)) for job in naive.dead()]
        assert sorted((row[0], row[4], row[5]) for row in rows if row[0] not in going) == sorted(
            row for row in kept if row[0] not in going
        )
        status = {row[0]: row[1:3] for row in (line.split("\t") for line in self.text("status").splitlines()[:-1])}
        for function in naive.functions:
            running = len(naive.of(function, "running"))
            assert status[function] == [str(naive.total(function)), str(running)]

    def end(self) -> None:
        """Without policies and pauses a good worker is enough for every job that lives; each has one end."""
        for name in list(self.naive.policies):
            self.text(f"policy unset {name}")
            self.naive.set_policy(name, dict.fromkeys(self.naive.policies[name], ""))
        for name, function in self.naive.functions.items():
            if function.paused:
                self.text(f"resume {name}")
                function.paused = False
        for name in list(self.naive.workers):
            self.desk.leave(name)
            self.naive.leave(name)
        self.connect_worker(0, 0, 0)
        self._can_do("worker 0", "f", 0)
        for _ in range(400):
            self.act("work", 0, 1, 0)
            if not any(job.lives for job in self.naive.jobs.values()):
                break
            if not self.naive.running_on("worker 0"):
                self._wait(20.0)
        self._pass_ends_of_results()
        for job in self.naive.jobs.values():
            assert not job.lives, f"{job} never ends"
            state = "dead" if job.state == "dead" else "ended" if job.number in self.naive.results else None
            assert self._show(job.number).get("state") == state


ACTIONS = {
    "wait": 8, "connect_worker": 4, "leave": 1, "restart": 1, "submit": 16, "submit_again": 8, "grab": 10, "sleep": 3,
    "report": 6, "work": 10, "policy": 8, "unset": 1, "pause": 2, "cancel": 2, "retry": 2, "priority": 2, "letters": 2,
    "ask": 5,
}  # fmt: skip
"""What may happen, and how often."""
