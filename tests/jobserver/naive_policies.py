"""What the job server promises about functions with policies, kept in plain lists and counted anew for each question.

``NaivePolicies`` is told what clients, workers and administrators do, and which job a worker was given. From that it
knows what everybody must hear, when a job is due again, how each job ends, and which results are kept; of a start it
knows whether a limit forbids it, and of a job that waits whether it could start. It is written from docs/ and
``policy.KEYS``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

PRIORITIES = ("high", "normal", "low")
REASONS = ("fail", "exception", "timeout", "lost")
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
NEAR = 0.01  # of a token, or of a second: so near to a limit nothing is promised


@dataclass
class NaiveJob:
    number: int
    function: str
    unique: str
    priority: int
    background: bool
    state: str = "waiting"  # delayed, running, dead, or how it ended
    order: int = 0  # when it began to wait, as a count of all that happened
    attempts: int = 0
    allowed: int = 0  # attempts, as the policy was when it was put back
    created: float = 0.0
    due: float = 0.0
    earliest: float = 0.0  # bounds of ``due`` until the real one is known
    expires: float = 0.0  # 0: not any more
    timer: float = 0.0
    worker: str = ""
    key_era: int = -1  # in which way of counting by keys it was started
    queue_era: int = -1  # the same, when it began to wait
    listeners: list[str] = field(default_factory=list)
    reason: str = ""
    text: bytes = b""
    died: float = 0.0
    until: float = 0.0
    owns_unique: bool = True
    was_moved: bool = False  # by a restart, or to another priority
    is_refresh: bool = False  # the store has nothing of it

    @property
    def lives(self) -> bool:
        return self.state in ("waiting", "delayed", "running")


@dataclass
class NaiveResult:
    number: int
    function: str
    unique: str
    completed: bool
    data: bytes
    fresh_until: float
    expires: float
    is_latest: bool = True  # so it is found by its unique: the last that completed, and what failed after that


@dataclass
class NaiveRate:
    """Starts under one rate since it was set."""

    per_second: float
    burst: int
    tokens: float
    at: float
    starts: list[float] = field(default_factory=list)

    def now(self, now: float) -> float:
        return min(self.burst, self.tokens + (now - self.at) * self.per_second)

    def start(self, now: float) -> None:
        self.tokens, self.at = self.now(now) - 1, now
        self.starts.append(now)
        for first, since in enumerate(self.starts):
            most = self.burst + (now - since) * self.per_second
            assert len(self.starts) - first <= most + NEAR, f"{self} had too many starts since {since}"

    def change(self, per_second: float, burst: int, now: float) -> None:
        if (per_second, burst) != (self.per_second, self.burst):
            self.tokens, self.at = min(self.now(now), burst), now
            self.per_second, self.burst, self.starts = per_second, burst, []


@dataclass
class NaiveFunction:
    paused: bool = False
    rate: NaiveRate | None = None
    key_rates: dict[str, NaiveRate] = field(default_factory=dict)
    has_keys: bool = False
    separator: str = ":"
    key_era: int = 0
    had_keys: bool = False  # at any time: then the order among keys is not promised
    had_ageing: bool = False


@dataclass
class NaiveWorker:
    abilities: dict[str, float] = field(default_factory=dict)  # and their time limits
    verdicts: bool = False
    asleep: bool = False
    woken_until: float = 0.0


def seconds(text: str) -> float:
    unit = text.lstrip("0123456789.")
    return float(text[: len(text) - len(unit)]) * TIMES[unit or "s"]


def size(text: str) -> int:
    unit = text.lstrip("0123456789")
    return int(text[: len(text) - len(unit)]) * SIZES[unit or "B"]


def told(completed: bool, data: bytes) -> bytes:
    """What is told as the result of a job."""
    return b"OK %b %d\n%b" % (b"completed" if completed else b"failed", len(data), data)


def per_second(text: str) -> float:
    count, _, unit = text.partition("/")
    return int(count) / UNITS[unit]


class NaivePolicies:
    def __init__(self) -> None:
        self.now = self.wall = 0.0
        self.events = 0
        self.jobs: dict[int, NaiveJob] = {}
        self.policies: dict[str, dict[str, str]] = {}
        self.functions: dict[str, NaiveFunction] = {}
        self.workers: dict[str, NaiveWorker] = {}
        self.heard: dict[str, list[tuple[str, int, bytes]]] = {}  # what each client must have heard
        self.exceptions: set[str] = set()  # clients that know exceptions
        self.counters: dict[str, Counter[tuple[int, str]]] = {}  # by priority too
        self.results: dict[int, NaiveResult] = {}  # by the job's number, in the order in which they were kept
        self.asked: dict[str, list[bytes | int]] = {}  # what each who asks must be told; a number: when that job ends

    # ── policies ────────────────────────────────────────────────────────────────────────────────────────────────

    def policy(self, function: str) -> dict[str, str]:
        """The most exact one: by name, or that of the only pattern."""
        return self.policies.get(function) or self.policies.get("*") or {}

    def count_of(self, function: str, key: str, default: int = 0) -> int:
        return int(self.policy(function).get(key, default))

    def time_of(self, function: str, key: str, default: str = "0") -> float:
        return seconds(self.policy(function).get(key, default))

    def keeps_dead(self, function: str) -> float:
        policy = self.policy(function)
        buries = "attempts" in policy or "expires" in policy or policy.get("when_full") == "drop-oldest"
        return self.time_of(function, "dead", "7d" if buries else "0")

    def function(self, name: str) -> NaiveFunction:
        if name not in self.functions:
            self.functions[name] = NaiveFunction()
            self.counters[name] = Counter()
            self._fit(name)
        return self.functions[name]

    def set_policy(self, name: str, given: dict[str, str]) -> None:
        policy = {**self.policies.get(name, {}), **given}
        policy = {key: value for key, value in policy.items() if value}
        self.policies.pop(name, None)
        if policy:
            self.policies[name] = policy
        for function in self.functions:
            self._fit(function)

    def _fit(self, name: str) -> None:
        policy, function = self.policy(name), self.functions[name]
        function.had_ageing |= "ageing" in policy
        rate = policy.get("rate")
        burst = int(policy.get("burst", 1))
        if rate is None:
            function.rate = None
        elif function.rate is None:
            function.rate = NaiveRate(per_second(rate), burst, burst, self.now)
        else:
            function.rate.change(per_second(rate), burst, self.now)
        has_keys = "key_concurrency" in policy or "key_rate" in policy
        separator = policy.get("key_separator", ":")
        if has_keys != function.has_keys or (has_keys and separator != function.separator):
            function.key_era += 1
            function.key_rates = {}
        function.has_keys = has_keys
        function.had_keys |= has_keys
        function.separator = separator
        if "key_rate" not in policy:
            function.key_rates = {}
        for one in function.key_rates.values():
            one.change(per_second(policy["key_rate"]), int(policy.get("key_burst", 1)), self.now)

    def key(self, job: NaiveJob) -> str:
        return "" if job.unique == "-" else job.unique.partition(self.functions[job.function].separator)[0]

    def key_rate(self, job: NaiveJob) -> NaiveRate | None:
        policy, key = self.policy(job.function), self.key(job)
        if "key_rate" not in policy or not key:
            return None
        burst = int(policy.get("key_burst", 1))
        rates = self.functions[job.function].key_rates
        return rates.setdefault(key, NaiveRate(per_second(policy["key_rate"]), burst, burst, self.now))

    # ── questions ───────────────────────────────────────────────────────────────────────────────────────────────

    def of(self, function: str, *states: str) -> list[NaiveJob]:
        return [job for job in self.jobs.values() if job.function == function and job.state in states]

    def total(self, function: str) -> int:
        return len(self.of(function, "waiting", "delayed", "running"))

    def running_on(self, worker: str) -> list[NaiveJob]:
        """The latest first."""
        jobs = [job for job in self.jobs.values() if job.state == "running" and job.worker == worker]
        return sorted(jobs, key=lambda job: -job.order)

    def dead(self) -> list[NaiveJob]:
        return [job for job in self.jobs.values() if job.state == "dead"]

    def may_start(self, job: NaiveJob, margin: float) -> bool:
        """Whether all limits let it start now; the margin is how many tokens there must be beyond one."""
        function = self.function(job.function)
        concurrency = self.count_of(job.function, "concurrency")
        if job.state != "waiting" or function.paused:
            return False
        if concurrency and len(self.of(job.function, "running")) >= concurrency:
            return False
        if function.rate is not None and function.rate.now(self.now) < 1 + margin:
            return False
        of_key = self.count_of(job.function, "key_concurrency")
        key = self.key(job)
        running = [one for one in self.of(job.function, "running") if self.key(one) == key]
        if of_key and key and sum(one.key_era == function.key_era for one in running) >= of_key:
            return False
        rate = self.key_rate(job)
        return rate is None or rate.now(self.now) >= 1 + margin

    def startable(self, function: str, margin: float) -> list[NaiveJob]:
        waiting = sorted(self.of(function, "waiting"), key=lambda job: (job.priority, job.attempts > 0, job.order))
        return [job for job in waiting if self.may_start(job, margin)]

    def deadlines(self) -> list[float]:
        """When something will happen by itself, in seconds from now."""
        jobs = self.jobs.values()
        return [
            *(job.timer - self.now for job in jobs if job.state == "running" and job.timer),
            *(job.due - self.wall for job in jobs if job.state == "delayed"),
            *(job.expires - self.wall for job in jobs if job.state in ("waiting", "delayed") and job.expires),
            *(job.until - self.wall for job in jobs if job.state == "dead"),
            *(at - self.wall for at in self.ends_of_results() if at > self.wall),
        ]

    # ── results ─────────────────────────────────────────────────────────────────────────────────────────────────

    def found(self, function: str, unique: str) -> list[NaiveResult]:
        """The results that are found by this unique: one that completed, one that has failed since."""
        of_unique = [one for one in self.results.values() if (one.function, one.unique) == (function, unique)]
        return [one for one in of_unique if one.is_latest and unique]

    def answer(self, function: str, unique: str) -> NaiveResult | None:
        """The result that answers a submission."""
        for one in self.found(function, unique):
            if one.completed and "results" in self.policy(function):
                return one if self.wall < one.fresh_until + self.time_of(function, "stale") else None
        return None

    def _put(self, result: NaiveResult) -> None:
        for other in self.found(result.function, result.unique):
            other.is_latest = other.completed and not result.completed
        self.results[result.number] = result

    def ends_of_results(self) -> list[float]:
        """When results become stale, answer nothing any more, and are kept no longer."""
        ends = [(one.fresh_until, self.time_of(one.function, "stale"), one.expires) for one in self.results.values()]
        return [at for fresh_until, stale, expires in ends for at in (fresh_until, fresh_until + stale, expires)]

    def keep(self, job: NaiveJob, completed: bool, data: bytes) -> None:
        """The job has ended so: that is kept if the policy says so, and told to those who wait for it."""
        if "results" in self.policy(job.function):
            if len(data) > size(self.policy(job.function).get("result_size", "1MiB")):
                self.count(job, "results_too_large")
            else:
                self.count(job, "results_kept")
                fresh_until = self.wall + self.time_of(job.function, "results")
                expires = fresh_until + self.time_of(job.function, "stale")
                self._put(NaiveResult(job.number, job.function, job.unique, completed, data, fresh_until, expires))
        self._answer(job, told(completed, data))

    def _answer(self, job: NaiveJob, answer: bytes) -> None:
        for name, answers in self.asked.items():
            self.asked[name] = [answer if one == job.number else one for one in answers]

    def ask(self, name: str, job: NaiveJob | None, result: NaiveResult | None, waits: bool) -> None:
        """Somebody asks for the result of a job, of which there may be one that is kept."""
        answers = self.asked.setdefault(name, [])
        if job is not None and job.lives:
            answers.append((b"ERR NO_ROOM" if job.number in answers else job.number) if waits else b"ERR NOT_READY")
        elif result is not None:
            answers.append(told(result.completed, result.data))
        elif job is not None and job.state == "dead":
            answers.append(told(False, self.last_words(job.reason, job.text)))
        else:
            answers.append(b"ERR UNKNOWN_JOB")

    def last_words(self, reason: str, text: bytes) -> bytes:
        """What a job that failed has for a result."""
        return text or (b"" if reason in ("fail", "exception") else reason.encode())

    # ── what happens ────────────────────────────────────────────────────────────────────────────────────────────

    def count(self, job: NaiveJob, what: str, number: int = 1) -> None:
        self.counters[job.function][job.priority, what] += number

    def submit(self, job: NaiveJob, client: str) -> None:
        function = self.function(job.function)
        self.jobs[job.number] = job
        job.created = self.wall
        job.key_era = function.key_era
        if not job.background:
            job.listeners.append(client)
        self.count(job, "submitted")
        self.count(job, "result_misses", "results" in self.policy(job.function) and not job.is_refresh)
        self._begin_expiring(job)
        if job.due > self.wall:
            job.state = "delayed"
        else:
            self._wait(job)

    def _begin_expiring(self, job: NaiveJob) -> None:
        expires = self.time_of(job.function, "expires")
        job.expires = max(job.created, job.due) + expires if expires else 0.0

    def _wait(self, job: NaiveJob) -> None:
        self.events += 1
        job.state = "waiting"
        job.order = self.events
        job.queue_era = self.function(job.function).key_era
        job.was_moved = False

    def start(self, job: NaiveJob, worker: str) -> None:
        """A worker has been given this job: no limit may be broken by that."""
        function = self.function(job.function)
        assert job.function in self.workers[worker].abilities, f"{worker} can't do {job}"
        assert self.may_start(job, -NEAR), f"{job} must not start"
        assert not job.allowed or job.attempts < job.allowed, f"{job} has had all its attempts"
        if function.rate is not None:
            function.rate.start(self.now)
        rate = self.key_rate(job)
        if rate is not None:
            rate.start(self.now)
        job.state, job.worker, job.expires = "running", worker, 0.0
        self.events += 1
        job.order = self.events
        job.key_era = function.key_era
        limit = self.workers[worker].abilities[job.function] or self.time_of(job.function, "timeout")
        job.timer = self.now + limit if limit else 0.0
        self.count(job, "started")

    def complete(self, job: NaiveJob, data: bytes) -> None:
        self._tell(job, "WORK_COMPLETE", data)
        self.keep(job, True, data)
        self._end(job, "done")
        self.count(job, "completed")

    def end_attempt(self, job: NaiveJob, reason: str, text: bytes = b"", after: float = -1.0) -> None:
        """An attempt did not succeed."""
        policy = self.policy(job.function)
        job.attempts += 1
        job.worker, job.timer = "", 0.0
        self.count(job, "lost", reason == "lost")
        is_wanted = job.background or bool(job.listeners)
        retry_on = policy.get("retry_on", ",".join(REASONS)).split(",")
        if "attempts" in policy:
            again = job.attempts < int(policy["attempts"]) and (reason == "retry" or reason in retry_on)
        else:
            again = reason in ("retry", "lost")
        if not is_wanted and (again or reason == "lost"):
            self._end(job, "abandoned")
            self.count(job, "abandoned")
        elif again:
            self.count(job, "retried", "attempts" in policy)
            job.allowed = int(policy.get("attempts", 0))
            low, high = self._pause(job, reason, after)
            if high > 0:
                job.state = "delayed"
                job.earliest, job.due = self.wall + low, self.wall + high
            else:
                self._wait(job)
        else:
            self.count(job, "timed_out", reason == "timeout")
            self.fail(job, reason, text)

    def _pause(self, job: NaiveJob, reason: str, after: float) -> tuple[float, float]:
        """The bounds of the pause before the next attempt."""
        policy, attempt = self.policy(job.function), job.attempts
        if after >= 0:
            return after, after
        if "attempts" not in policy:
            doubled = min(2.0 ** (attempt - 1 if reason == "retry" else attempt - 2), 60.0)
            return (0.0, 0.0) if reason == "lost" and attempt == 1 else (doubled, doubled)
        factor = {"constant": 1, "linear": attempt, "exponential": 2 ** (attempt - 1)}
        pause = self.time_of(job.function, "delay", "1s") * factor[policy.get("backoff", "exponential")]
        pause = min(pause, self.time_of(job.function, "max_delay", "1h"))
        return pause * (1 - float(policy.get("jitter", "0.1"))), pause

    def fail(self, job: NaiveJob, reason: str, text: bytes) -> None:
        """The end of a job that did not succeed."""
        if text:
            self._tell(job, "WORK_EXCEPTION", text)
        else:
            self._tell(job, "WORK_FAIL")
        self.count(job, "failed")
        self.keep(job, False, self.last_words(reason, text))
        dead = self.keeps_dead(job.function)
        self._end(job, "dead" if dead else "failed")
        if not dead:
            return
        self.count(job, "buried")
        self.events += 1
        job.order, job.reason, job.text = self.events, reason, text
        job.died, job.until = self.wall, self.wall + dead
        job.background, job.is_refresh = True, False
        most = self.count_of(job.function, "dead_count", 10_000)
        for old in sorted(self.of(job.function, "dead"), key=lambda one: one.order)[:-most]:
            self._end(old, "forgotten")

    def cancel(self, job: NaiveJob) -> None:
        self._tell(job, "WORK_FAIL")
        self._end(job, "cancelled")
        self.count(job, "cancelled")

    def revive(self, job: NaiveJob) -> None:
        owners = [one for one in self.jobs.values() if one.lives and one.function == job.function]
        job.owns_unique = not any(one.unique == job.unique for one in owners)
        job.attempts = job.allowed = 0
        self.results.pop(job.number, None)
        job.due = self.wall
        job.reason, job.text, job.until = "", b"", 0.0
        self._begin_expiring(job)
        self._wait(job)
        self.count(job, "revived")

    def hurry(self, job: NaiveJob) -> None:
        """A delayed job is due now."""
        job.due = 0.0
        self._wait(job)

    def purge(self, job: NaiveJob) -> None:
        self._end(job, "forgotten")

    def prioritize(self, job: NaiveJob, priority: int) -> None:
        if job.priority != priority:
            job.priority = priority
            if job.state == "waiting":
                self._wait(job)
            job.was_moved = True

    def leave(self, name: str) -> None:
        """A connection is gone."""
        for job in list(self.jobs.values()):
            job.listeners = [listener for listener in job.listeners if listener != name]
            if job.state in ("waiting", "delayed") and not job.background and not job.listeners:
                self._end(job, "abandoned")
                self.count(job, "abandoned")
        running = self.running_on(name)
        self.workers.pop(name, None)
        self.heard.pop(name, None)
        self.exceptions.discard(name)
        self.asked.pop(name, None)
        for job in running:
            self.end_attempt(job, "lost")

    def pass_time(self, now: float, wall: float) -> None:
        """What happens by itself until now; in this order where it does at once."""
        self.now, self.wall = now, wall
        for job in sorted(self.jobs.values(), key=lambda job: (job.timer, job.number)):
            if job.state == "running" and 0 < job.timer <= now:
                self.end_attempt(job, "timeout")
        for job in sorted(self.jobs.values(), key=lambda job: (job.due, job.number)):
            if job.state == "delayed" and job.due <= wall:
                self._wait(job)
        for job in sorted(self.jobs.values(), key=lambda job: (job.expires, job.number)):
            if job.state in ("waiting", "delayed") and 0 < job.expires <= wall:
                self.count(job, "expired")
                self.fail(job, "expired", b"")
        for job in self.dead():
            if job.until <= wall:
                self._end(job, "forgotten")
        self.results = {number: one for number, one in self.results.items() if one.expires > wall}

    def restart(self) -> None:
        """As after kill -9: what the store had is there; who was connected is not."""
        self.workers.clear()
        self.heard.clear()
        self.exceptions.clear()
        self.asked.clear()
        results, self.results = self.results, {}
        for result in results.values():
            result.is_latest = True
            self._put(result)
        for job in list(self.jobs.values()):
            job.listeners.clear()
            if job.lives and (job.is_refresh or not job.background):
                self._end(job, "abandoned")
            elif job.lives:
                if job.attempts == 0:
                    self._begin_expiring(job)
                job.timer, job.worker = 0.0, ""
                if job.state == "running" or job.due <= self.wall:
                    self._wait(job)
                job.was_moved = True
            elif job.state == "dead":
                job.until = job.died + (self.keeps_dead(job.function) or 7 * 86400.0)
        paused = {name for name, function in self.functions.items() if function.paused}
        self.functions = {}
        for name in {*paused, *(job.function for job in self.jobs.values() if job.lives or job.state == "dead")}:
            self.function(name).paused = name in paused

    def _end(self, job: NaiveJob, outcome: str) -> None:
        assert job.lives or job.state == "dead", f"{job} ends twice"
        job.state, job.worker, job.timer, job.expires = outcome, "", 0.0, 0.0
        job.listeners.clear()
        self._answer(job, told(False, b""))  # unless there was more to tell

    def _tell(self, job: NaiveJob, what: str, data: bytes = b"") -> None:
        for listener in job.listeners:
            if what == "WORK_EXCEPTION" and listener not in self.exceptions:
                self.heard[listener].append(("WORK_FAIL", job.number, b""))
            else:
                self.heard[listener].append((what, job.number, data))
