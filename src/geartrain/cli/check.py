"""``geartrain check``: whether all is well, for Nagios, Icinga and other monitors that run plugins.

It asks by the text commands that every Gearman job server knows; what a geartrain tells besides is judged as well.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from geartrain.cli.amounts import span_text
from geartrain.cli.printable import printable
from geartrain.cli.servers import asking_options
from geartrain.cli.themes import ThemedCommand, ThemedOption
from geartrain.client import AdminClient, FunctionDetails
from geartrain.errors import (
    ConnectError,
    ConnectionLostError,
    GeartrainError,
    LocalProtocolError,
    ServerError,
    TimedOutError,
)
from geartrain.link import Address
from geartrain.redaction import redacted
from geartrain.units import read_seconds

OK: Final = 0
WARNING: Final = 1
CRITICAL: Final = 2
UNKNOWN: Final = 3
STATES: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_RANKS: Final = (OK, UNKNOWN, WARNING, CRITICAL)  # the worst is the last

_SHOWN_PROBLEMS: Final = 10
_SHOWN_FUNCTIONS: Final = 50  # in the numbers behind the text
_OTHERS: Final = ("UNKNOWN_COMMAND", "UNKNOWN_SHOW_ARGUMENTS")  # what another job server answers to our commands
_JUDGED, _OUTPUT = "What is judged", "Output"

_ABOUT = """Judge job servers, as a plugin of Nagios, Icinga and the like.

Jobs that wait where no worker can do them are critical, and so is a job server that does not answer. All else is judged
where a limit is given, of each function by itself: a number that is a warning, and behind a comma one that is critical;
either may be left out (100, 100,1000 or ,1000).

Every Gearman job server tells of queued jobs and workers. The age of jobs, failures, pauses, and which jobs are only
for later, a geartrain tells besides; where such a limit can't be judged, the state is UNKNOWN.

\b
Examples:
  geartrain check --queued 100,1000
  geartrain check -f resize --oldest 5m,1h --workers 2,1
  geartrain check --failures 5%,20% --state /var/lib/nagios/geartrain.json

\b
Exit codes:
  0  OK
  1  WARNING
  2  CRITICAL
  3  UNKNOWN: a limit can't be judged, or the command was not understood
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """What is a warning, and what is critical; None: nothing is."""

    warning: float | None = None
    critical: float | None = None

    def state(self, value: float, *, below: bool = False) -> int:
        """What a value is; ``below``: if it is below a limit, not if it has come up to one."""
        for state, limit in ((CRITICAL, self.critical), (WARNING, self.warning)):
            if limit is not None and (value < limit if below else value >= limit):
                return state
        return OK

    def shown(self, suffix: str = "") -> str:
        """As a plugin's numbers have it."""
        return ";".join("" if limit is None else f"{limit:g}{suffix}" for limit in (self.warning, self.critical))


NO_LIMIT: Final = Limit()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not well; without a ``function`` it is the server's."""

    state: int
    server: str
    function: str
    what: str


@dataclass(slots=True)
class Function:
    """One function at all job servers together; None: nobody tells. Jobs for later are not among the queued ones of a
    job server that tells them apart."""

    name: str
    queued: int = 0
    running: int = 0
    workers: int = 0
    oldest: float | None = None  # seconds
    ended: int | None = None  # jobs that succeeded or failed, since the check before
    failed: int = 0
    paused: bool = False

    @property
    def failures(self) -> float | None:
        """The share of jobs that failed, in percent."""
        return 100 * self.failed / self.ended if self.ended else None


@dataclass(slots=True)
class Limits:
    """What is judged."""

    queued: Limit = NO_LIMIT
    oldest: Limit = NO_LIMIT
    failures: Limit = NO_LIMIT
    workers: Limit = NO_LIMIT
    least: int = 10
    no_workers: int = CRITICAL


@dataclass(slots=True)
class Report:
    """What was found."""

    problems: list[Problem] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)

    @property
    def state(self) -> int:
        return worst(problem.state for problem in self.problems)

    def text(self, limits: Limits, is_chosen: bool) -> str:
        """A plugin's line: the state, what is wrong or how much there is, and the numbers."""
        queued = sum(function.queued for function in self.functions)
        running = sum(function.running for function in self.functions)
        problems = sorted(self.problems, key=lambda problem: -_RANKS.index(problem.state))
        told = [f"{problem.function or problem.server}: {problem.what}" for problem in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > _SHOWN_PROBLEMS:
            told.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
        if not told:
            told = [f"{_count(queued, 'job')} queued, {running} running, {_count(len(self.functions), 'function')}"]
        line = f"GEARTRAIN {STATES[self.state]} - {_in_line('; '.join(told))}"
        numbers = [f"queued={queued};;;0", f"running={running};;;0", f"functions={len(self.functions)};;;0"]
        if is_chosen or len(self.functions) <= _SHOWN_FUNCTIONS:
            numbers += [number for function in self.functions for number in _numbers(function, limits)]
        return f"{line} | {' '.join(numbers)}"

    def as_json(self) -> str:
        problems = [
            {"state": STATES[each.state], "server": each.server, "function": each.function, "what": each.what}
            for each in self.problems
        ]
        functions = [
            {
                "function": each.name,
                "queued": each.queued,
                "running": each.running,
                "workers": each.workers,
                "oldest": each.oldest,
                "ended": each.ended,
                "failed": each.failed,
                "paused": each.paused,
            }
            for each in self.functions
        ]
        return json.dumps({"state": STATES[self.state], "problems": problems, "functions": functions})


def worst(states: Iterable[int]) -> int:
    """The state of all together."""
    return max(states, default=OK, key=_RANKS.index)


# ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Question:
    """Asks the job servers, all of them within ``timeout`` seconds."""

    def __init__(self, servers: Sequence[Address], timeout: float, names: Sequence[str], limits: Limits) -> None:
        self._servers = servers
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._names = names
        self._limits = limits
        self._known: dict[str, Function] = {name: Function(name) for name in names}
        self._met: set[str] = set()
        self.counted: dict[str, dict[str, list[int]]] = {}  # by server and function: jobs that succeeded, and failed
        self.report = Report()

    def ask(self, before: Mapping[str, Mapping[str, Sequence[int]]]) -> Report:
        """What there is to say; failures are counted from what was counted ``before``."""
        for address in self._servers:
            try:
                self._ask(address, before.get(str(address), {}))
            except (ConnectError, ConnectionLostError, TimedOutError) as error:
                self._problem(CRITICAL, address, "", str(error))
            except GeartrainError as error:
                self._problem(UNKNOWN, address, "", str(error))
        self.report.functions = sorted(self._known.values(), key=lambda function: function.name)
        for function in self.report.functions:
            self._judge(function)
        return self.report

    def _ask(self, address: Address, before: Mapping[str, Sequence[int]]) -> None:
        wants_all = self._limits.failures != NO_LIMIT
        ours = True
        for row in self._client().status(address):
            if self._names and row.function not in self._names:
                continue
            self._met.add(row.function)
            function = self._known.setdefault(row.function, Function(row.function))
            function.queued += row.queued
            function.running += row.running
            function.workers += row.workers
            if ours and (wants_all or row.queued > 0):
                try:
                    details = self._client().show_function(row.function, address)
                except ServerError as error:
                    if error.code.upper() not in _OTHERS:
                        raise
                    ours = False
                except LocalProtocolError:
                    pass  # a name that can't be told in a line
                else:
                    for each in details:
                        self._add(function, address, each, before.get(row.function, (0, 0)))
        if not ours:
            self._doubt(address)

    def _add(self, function: Function, address: Address, details: FunctionDetails, before: Sequence[int]) -> None:
        """What a geartrain tells of a function."""
        counters = details.counters
        succeeded, failed = int(counters["completed"]), int(counters["failed"])
        self.counted.setdefault(str(address), {})[function.name] = [succeeded, failed]
        if before[0] <= succeeded and before[1] <= failed:  # else it has been started anew since
            succeeded, failed = succeeded - before[0], failed - before[1]
        function.ended = (function.ended or 0) + succeeded + failed
        function.failed += failed
        function.queued = max(function.queued - details.delayed, 0)
        function.paused = function.paused or details.paused
        function.oldest = max(function.oldest or 0.0, details.oldest_waiting)

    def _doubt(self, address: Address) -> None:
        """The job server is none of ours: what it does not tell can't be judged."""
        for name, limit in (("oldest", self._limits.oldest), ("failures", self._limits.failures)):
            if limit != NO_LIMIT:
                what = f"--{name} can't be judged: the job server does not tell"
                self._problem(UNKNOWN, address, "", what)

    def _client(self) -> AdminClient:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimedOutError(f"the job servers did not answer within {self._timeout:g} s")
        return AdminClient(self._servers, timeout=left, connect_timeout=left)

    # ── judging ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self, function: Function) -> None:
        limits = self._limits
        if function.name not in self._met:
            if not self.report.problems:  # else it may be at the one that did not answer
                state = limits.workers.state(0, below=True) or WARNING
                self._problem(state, None, function.name, "no job server knows it")
            return
        queued = _count(function.queued, "job")
        if function.queued > 0 and function.workers == 0 and not function.paused:
            verb = "waits" if function.queued == 1 else "wait"
            self._problem(limits.no_workers, None, function.name, f"{queued} {verb} without any worker")
        self._problem(limits.queued.state(function.queued), None, function.name, f"{queued} queued")
        state = limits.workers.state(function.workers, below=True)
        self._problem(state, None, function.name, _count(function.workers, "worker"))
        if function.oldest is not None:
            state = limits.oldest.state(function.oldest)
            self._problem(state, None, function.name, f"a job has waited {span_text(function.oldest)}")
        if function.failures is not None and function.ended is not None and function.ended >= limits.least:
            state = limits.failures.state(function.failures)
            what = f"{function.failures:.1f}% of {_count(function.ended, 'job')} failed"
            self._problem(state, None, function.name, what)

    def _problem(self, state: int, address: Address | None, function: str, what: str) -> None:
        if state != OK:
            self.report.problems.append(Problem(state, str(address or ""), function, redacted(what)))


# ── what is kept from one check to the next ─────────────────────────────────────────────────────────────────────────


def read_counts(path: Path | None) -> dict[str, dict[str, list[int]]]:
    """What was counted at the check before; nothing, if it can't be read."""
    if path is None:
        return {}
    try:
        kept = json.loads(path.read_text())
        return {
            str(server): {str(name): [int(pair[0]), int(pair[1])] for name, pair in functions.items()}
            for server, functions in kept.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        return {}


def write_counts(path: Path, counted: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """Keep them for the next check, whole or not at all. Raises OSError."""
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(counted, file)
        os.replace(made, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(made)
        raise


# ── a plugin's form ─────────────────────────────────────────────────────────────────────────────────────────────────


def _numbers(function: Function, limits: Limits) -> Iterable[str]:
    """What a monitor may draw, each as 'label'=value;warning;critical;least;most."""
    name = function.name
    yield f"{_label(name, 'queued')}={function.queued};{limits.queued.shown()};0"
    yield f"{_label(name, 'running')}={function.running};;;0"
    yield f"{_label(name, 'workers')}={function.workers};{limits.workers.shown(':')};0"
    if function.oldest is not None:
        yield f"{_label(name, 'oldest')}={function.oldest:.3f}s;{limits.oldest.shown()};0"
    if function.failures is not None:
        yield f"{_label(name, 'failures')}={function.failures:.2f}%;{limits.failures.shown()};0;100"


def _label(function: str, what: str) -> str:
    return "'" + _in_line(f"{function} {what}").replace("'", "''").replace("=", "_") + "'"


def _in_line(text: str) -> str:
    """The text as a plugin may print it: behind a | it would be taken for numbers."""
    return printable(text).replace("|", "_").replace("\t", " ")


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class Plugin(ThemedCommand):
    """A command whose errors are the UNKNOWN of a plugin, told on the standard output, where monitors read.

    Else the exit code of click would say CRITICAL, and that of a fault WARNING.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            self.misused(error.format_message())

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            self.give_up(f"{type(error).__name__}: {error}")

    def misused(self, why: str) -> NoReturn:
        """End for options that are not understood."""
        self.give_up(why)

    def give_up(self, why: str) -> NoReturn:
        """End as UNKNOWN."""
        click.echo(f"GEARTRAIN UNKNOWN - {_in_line(redacted(why))}")
        raise click.exceptions.Exit(UNKNOWN)


def _limit(what: str, read: Any) -> Any:
    """The callback of an option that takes a warning and a critical limit."""

    def callback(ctx: click.Context, parameter: click.Parameter, written: str | None) -> Limit:
        if written is None:
            return NO_LIMIT
        parts = [part.strip() for part in written.split(",")]
        try:
            if len(parts) > 2 or not any(parts):
                raise ValueError("write a warning and a critical limit, such as 10,20; either may be left out")
            return Limit(*(read(part) if part else None for part in parts))
        except ValueError as error:
            raise click.BadParameter(f"{written!r}: {error}", ctx, parameter) from None

    return callback


def _read_count(text: str) -> float:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("write whole numbers, such as 100,1000")
    return int(text)


def _read_percent(text: str) -> float:
    number = float(text.removesuffix("%"))
    if not 0 < number <= 100:
        raise ValueError("write percents, such as 5%,20%")
    return number


def _judged(name: str, metavar: str, read: Any, help: str) -> ThemedOption:
    return ThemedOption([name], metavar=metavar, callback=_limit(name, read), theme=_JUDGED, help=help)


def _check(
    servers: tuple[Address, ...],
    timeout: float,
    functions: Sequence[str],
    queued: Limit,
    oldest: Limit,
    workers: Limit,
    failures: Limit,
    least: int,
    no_workers: str,
    state: Path | None,
    as_json: bool,
) -> NoReturn:
    limits = Limits(queued, oldest, failures, workers, least, STATES.index(no_workers.upper()))
    question = Question(servers, timeout, functions, limits)
    before = read_counts(state)
    report = question.ask(before)
    if state is not None:
        counted = question.counted
        if functions:  # another check may keep others there
            counted = {server: {**before.get(server, {}), **known} for server, known in counted.items()}
        write_counts(state, {**before, **counted})
    click.echo(report.as_json() if as_json else report.text(limits, bool(functions)))
    raise click.exceptions.Exit(report.state)


command = Plugin(
    "check",
    callback=_check,
    help=_ABOUT,
    params=[
        ThemedOption(
            ["-f", "--function", "functions"],
            metavar="NAME",
            multiple=True,
            theme=_JUDGED,
            help="Judge this function alone; repeat the option for several. One that no job server knows is a warning.",
        ),
        _judged("--queued", "JOBS", _read_count, "So many queued jobs of a function, or more."),
        _judged("--oldest", "TIME", read_seconds, "A job that has waited so long, such as 5m,1h."),
        _judged("--workers", "WORKERS", _read_count, "Fewer workers of a function than these, such as 2,1."),
        _judged("--failures", "PERCENT", _read_percent, "So much of the jobs that ended failed, such as 5%,20%."),
        ThemedOption(
            ["--least"],
            type=click.IntRange(1),
            default=10,
            show_default=True,
            metavar="JOBS",
            theme=_JUDGED,
            help="Failures among fewer jobs than these are not judged.",
        ),
        ThemedOption(
            ["--state"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            theme=_JUDGED,
            help="Keep there what was counted, so that failures are those since the check before. Without it they are "
            "those since the job server was started.",
        ),
        ThemedOption(
            ["--no-workers"],
            type=click.Choice([name.lower() for name in STATES[:3]]),
            default="critical",
            show_default=True,
            theme=_JUDGED,
            help="What jobs are that wait without any worker.",
        ),
        ThemedOption(["--json", "as_json"], is_flag=True, theme=_OUTPUT, help="A JSON object, for machines."),
        *asking_options(),
    ],
)
