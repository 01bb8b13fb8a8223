"""The administrator's client: what job servers are doing, as typed rows (section 4 of the protocol).

Every command connects again to each job server it asks, so an ``AdminClient`` holds nothing open, may be used by many
threads, and always speaks to the server that answers now.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from geartrain.client.command import Command, Form, Name, ask, unreadable, word, worse
from geartrain.client.dead_letter import DeadLetter
from geartrain.client.fleet import FleetHistory, FleetMember
from geartrain.client.function_details import FunctionDetails
from geartrain.client.job_details import JobDetails
from geartrain.client.policy import FunctionPolicy, PolicyValue, policy_word
from geartrain.client.result import ResultQuestion, fetch
from geartrain.client.schedule import KnownSchedule, ScheduleDetails, ScheduleValue, schedule_word
from geartrain.client.submission import JobHandle, Priority
from geartrain.errors import ConnectError, GeartrainError, ServerError, UnknownJobError
from geartrain.link import Address, parse_addresses
from geartrain.link.address import ServerList
from geartrain.link.blocking import CONNECT_SECONDS
from geartrain.wire.text import as_text


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """A line of ``status``: the jobs of a function, queued and running together, and the workers able to do them."""

    function: str
    total: int
    running: int
    workers: int

    @property
    def queued(self) -> int:
        """Jobs that wait for a worker or for their time."""
        return max(self.total - self.running, 0)


@dataclass(frozen=True, slots=True)
class PriorityStatus:
    """A line of ``prioritystatus``: the queued jobs of a function by priority, and the workers able to do them."""

    function: str
    high: int
    normal: int
    low: int
    workers: int


@dataclass(frozen=True, slots=True)
class ConnectedPeer:
    """A line of ``workers``: one connection of a job server, which may be a worker's, a client's or an administrator's.

    ``id`` is what the worker called itself, ``-`` if it did not.
    """

    server: Address
    fd: int
    host: str
    id: str
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A line of ``show jobs``. An ``is_ignored`` job has been cancelled or abandoned and will not be run."""

    handle: JobHandle
    retries: int
    is_ignored: bool
    is_background: bool


Row = TypeVar("Row", FunctionStatus, PriorityStatus)
Read = TypeVar("Read")


class AdminClient:
    """Asks job servers what they do, and tells them what to do.

    ``servers`` is written as for a ``Client``. Where a method takes ``server`` it asks just that one; else it asks them
    all, and adds up their numbers or joins their rows. A server has ``timeout`` seconds for an answer.

    Every method raises ConnectError if a job server can't be reached, ConnectionLostError or TimedOutError if it
    does not answer, ServerError if it refuses, and RemoteProtocolError if its answer can't be read.
    """

    def __init__(
        self,
        servers: ServerList = None,
        *,
        timeout: float = 10.0,
        connect_timeout: float = CONNECT_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.addresses = parse_addresses(servers)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._tls = tls

    def status(self, server: Address | str | None = None) -> list[FunctionStatus]:
        """Each function's jobs and workers, by name."""
        return _added_up(FunctionStatus, self._rows(b"status", 4, server))

    def priority_status(self, server: Address | str | None = None) -> list[PriorityStatus]:
        """Each function's queued jobs by priority, by name."""
        return _added_up(PriorityStatus, self._rows(b"prioritystatus", 5, server))

    def workers(self, server: Address | str | None = None) -> list[ConnectedPeer]:
        """Every connection: workers with their functions, and the others without."""
        peers = []
        for address in self._asked(server):
            for line in self._lines(address, b"workers"):
                try:
                    head, _, functions = line.partition(b" :")
                    fd, host, id = head.split(b" ", 2)
                    peers.append(
                        ConnectedPeer(
                            address, int(fd), as_text(host), as_text(id), tuple(map(as_text, functions.split()))
                        )
                    )
                except ValueError:
                    raise unreadable(address, line) from None
        return peers

    def disconnect(self, peer: ConnectedPeer) -> bool:
        """Close a connection of ``workers``; False if it has gone. Jobs that it ran wait again."""
        words = (b"%d" % peer.fd, peer.host.encode(), *peer.id.encode("utf-8", "surrogateescape").split())
        return self._order_unless("UNKNOWN_CONNECTION", peer.server, b"disconnect", *words)

    def drain(self, server: Address | str | None = None) -> None:
        """Have job servers take no more connections and jobs, let those that run end, and stop."""
        self._order(server, b"drain")

    def show_jobs(self, server: Address | str | None = None) -> list[KnownJob]:
        """Every job that is queued or running."""
        return [
            KnownJob(JobHandle(handle, address), int(retries), ignored != b"0", background != b"0")
            for address, (handle, retries, ignored, background) in self._rows(b"show jobs", 4, server)
        ]

    def show_unique_jobs(self, server: Address | str | None = None) -> list[str]:
        """The unique key of every job that has one."""
        lines = (self._lines(address, b"show unique jobs") for address in self._asked(server))
        return [as_text(line) for answer in lines for line in answer if line]

    def version(self, server: Address | str | None = None) -> dict[Address, str]:
        """The version of each job server."""
        return {address: self._value(address, b"version") for address in self._asked(server)}

    def getpid(self, server: Address | str | None = None) -> dict[Address, int]:
        """The process id of each job server."""
        return {address: int(self._value(address, b"getpid")) for address in self._asked(server)}

    def verbose(self, server: Address | str | None = None) -> dict[Address, str]:
        """How much each job server logs, such as ``ERROR`` or ``INFO``."""
        return {address: self._value(address, b"verbose") for address in self._asked(server)}

    def create_function(self, function: Name, server: Address | str | None = None) -> None:
        """Make a function known before any worker or job names it."""
        self._order(server, b"create function", word(function))

    def drop_function(self, function: Name, server: Address | str | None = None) -> None:
        """Forget a function; ServerError if it has workers, running jobs or dead letters, or is not known."""
        self._order(server, b"drop function", word(function))

    def max_queue(
        self,
        function: Name,
        limit: int | None = None,
        *,
        high: int | None = None,
        normal: int | None = None,
        low: int | None = None,
        server: Address | str | None = None,
    ) -> None:
        """Limit the jobs of a function: to ``limit``, or by priority; 0, and nothing said, is no limit."""
        limits = [value or limit or 0 for value in (high, normal, low)]
        if min(limits) < 0:
            raise ValueError(f"a limit of {min(limits)} jobs makes no sense: it is 0 (none) or more")
        self._order(server, b"maxqueue", word(function), *(b"%d" % value for value in limits))

    def cancel_job(self, handle: JobHandle | Name) -> bool:
        """Cancel a job; False if no job server knows it (any more).

        A queued job is dropped; of a running one only its clients are told. A dead letter has ended: ``dead_purge``
        throws it away. A handle that does not say its server is
        asked for at all of them.
        """
        handle = JobHandle.of(handle)
        return self._order_unless("UNKNOWN_JOB", handle.address, b"cancel job", word(bytes(handle)))

    # ── policies and pauses ─────────────────────────────────────────────────────────────────────────────────────────

    def policy_set(
        self,
        name: Name,
        keys: Mapping[str, PolicyValue] | None = None,
        /,
        *,
        server: Address | str | None = None,
        **more_keys: PolicyValue,
    ) -> None:
        """Set keys of the policy of a function, or of a pattern with ``*``: ``policy_set("resize", attempts=5)``.

        Keys that are not named stay as they are, and one that is None is taken away. Raises ServerError
        INVALID_POLICY, which says what is allowed, and then nothing has changed.
        """
        pairs = {**(keys or {}), **more_keys}
        self._order(server, b"policy set", word(name), *(policy_word(key, value) for key, value in pairs.items()))

    def policy_unset(self, name: Name, server: Address | str | None = None) -> bool:
        """Take away what commands have set for exactly this name; False if that is nothing."""
        return self._order_unless("UNKNOWN_POLICY", server, b"policy unset", word(name))

    def policies(self, server: Address | str | None = None) -> list[FunctionPolicy]:
        """All policies, by server and name."""
        return [
            policy
            for address in self._asked(server)
            for policy in self._read(address, self._lines(address, b"policy show"), FunctionPolicy.read)
        ]

    def policy_of(self, function: Name, server: Address | str | None = None) -> list[FunctionPolicy]:
        """The policy in force for a function: one for each server that has any, be it by a pattern."""
        return [
            policy
            for address in self._asked(server)
            for policy in self._read(address, self._lines(address, b"policy show", word(function)), FunctionPolicy.read)
        ]

    def pause(self, function: Name, reason: str = "", *, who: str = "", server: Address | str | None = None) -> None:
        """Hand out no more jobs of a function; submissions are kept. ``why`` tells who did it and the reason."""
        for address in self._asked(server):
            self._ask(address, b"pause", word(function), *map(word, reason.split()), who=word(who) if who else b"")

    def resume(self, function: Name, server: Address | str | None = None) -> bool:
        """Hand out jobs of a function again; False if it was not paused."""
        return self._order_unless("NOT_PAUSED", server, b"resume", word(function))

    def show_function(self, function: Name, server: Address | str | None = None) -> list[FunctionDetails]:
        """The jobs, the policy and the counters of a function: one for each job server that knows it."""
        found = []
        for address in self._asked(server):
            try:
                lines = self._lines(address, b"show function", word(function))
            except ServerError as error:
                if error.code != "UNKNOWN_FUNCTION":
                    raise
                continue
            try:
                found.append(FunctionDetails.read(address, lines))
            except (ValueError, KeyError):
                raise unreadable(address, b"\n".join(lines)) from None
        return found

    # ── one job ─────────────────────────────────────────────────────────────────────────────────────────────────────
    # Of several job servers the first one that knows the job is asked, or the one that the handle names. A job that
    # none of them knows raises UnknownJobError.

    def why(self, handle: JobHandle | Name) -> str:
        """Why a job waits, or what else is the matter with it, as a sentence."""
        address, command = self._of_job(handle, b"why", _of(handle))
        return _value_of(address, command.answer())

    def show_job(self, handle: JobHandle | Name) -> JobDetails:
        """All that is known of a job, with its attempts; of one that has ended, whether its result is kept."""
        address, command = self._of_job(handle, b"show job", _of(handle), form="listing")
        try:
            return JobDetails.read(_of(handle), address, command.lines())
        except (ValueError, KeyError):
            raise unreadable(address, command.answer()) from None

    def result(self, handle: JobHandle | Name, wait: float | None = 0) -> bytes:
        """The result of a job, kept under a policy; waits ``wait`` seconds, or for ever, for a job still to end.

        Raises as ``Client.result``.
        """
        address = JobHandle.of(handle).address
        question = ResultQuestion([_of(handle)], self._asked(address), wait, self._timeout)
        return fetch(question, self._connect_timeout, self._tls)

    def retry(self, handle: JobHandle | Name) -> None:
        """Have a dead job wait again, with all its attempts before it, or a delayed one be due now.

        Raises ServerError NOT_WAITING for any other job.
        """
        self._of_job(handle, b"retry", _of(handle))

    def priority(self, handle: JobHandle | Name, priority: Priority) -> None:
        """Change the priority of a job that waits; it goes to the end of that queue. ServerError if it runs already."""
        self._of_job(handle, b"priority", _of(handle), word(priority))

    # ── dead letters ────────────────────────────────────────────────────────────────────────────────────────────────

    def dead_letters(
        self,
        function: Name = "",
        reason: str = "",
        count: int | None = None,
        server: Address | str | None = None,
    ) -> list[DeadLetter]:
        """The dead letters, or those of a function or a reason, the longest dead first; at most ``count``."""
        words = [*_selection(function, reason), *([] if count is None else [b"count=%d" % count])]
        letters = [
            letter
            for address in self._asked(server)
            for letter in self._read(address, self._lines(address, b"dead list", *words), DeadLetter.read)
        ]
        return sorted(letters, key=lambda letter: letter.died)[:count]

    def dead_workload(self, handle: JobHandle | Name) -> bytes:
        """The workload of a dead letter; ServerError IN_STORE if it is large, and in the store alone."""
        return self._of_job(handle, b"dead workload", _of(handle), form="data")[1].data()[1]

    def dead_retry(self, handle: JobHandle | Name) -> None:
        """Have one dead letter wait again, with all its attempts before it."""
        self._of_job(handle, b"dead retry", _of(handle))

    def dead_retry_all(
        self,
        function: Name = "",
        reason: str = "",
        *,
        rate: int | None = None,
        server: Address | str | None = None,
    ) -> int:
        """The same for all dead letters, or for those of a function or a reason; how many there are.

        With a ``rate``, in letters a second, this returns at once and the job server goes on by itself.
        """
        paced = [] if rate is None else [b"rate=%d/s" % rate]
        return self._counted(server, b"dead retry all", *_selection(function, reason), *paced)

    def dead_purge(self, handle: JobHandle | Name) -> None:
        """Throw one dead letter away."""
        self._of_job(handle, b"dead purge", _of(handle))

    def dead_purge_all(self, function: Name = "", reason: str = "", *, server: Address | str | None = None) -> int:
        """Throw all dead letters away, or those of a function or a reason; how many there were."""
        return self._counted(server, b"dead purge all", *_selection(function, reason))

    # ── schedules ───────────────────────────────────────────────────────────────────────────────────────────────────
    # Each job server makes jobs by itself: of several, name the one that is to make them.

    def schedule_set(
        self,
        name: Name,
        keys: Mapping[str, ScheduleValue] | None = None,
        /,
        *,
        server: Address | str | None = None,
        **more_keys: ScheduleValue,
    ) -> None:
        """Make a schedule, or change keys of one: ``schedule_set("nightly", cron="30 2 * * *", function="report")``.

        Keys that are not named stay as they are, and one that is None is taken away. Raises ServerError
        INVALID_SCHEDULE, which says what is allowed, and then nothing has changed.
        """
        pairs = {**(keys or {}), **more_keys}
        self._order(server, b"schedule set", word(name), *(schedule_word(key, value) for key, value in pairs.items()))

    def schedule_unset(self, name: Name, server: Address | str | None = None) -> bool:
        """Forget a schedule that commands have set; False if there is none. One of the file counts again."""
        return self._order_unless("UNKNOWN_SCHEDULE", server, b"schedule unset", word(name))

    def schedule_pause(self, name: Name, server: Address | str | None = None) -> bool:
        """Make no runs of a schedule until it is resumed; False if there is none."""
        return self._order_unless("UNKNOWN_SCHEDULE", server, b"schedule pause", word(name))

    def schedule_resume(self, name: Name, server: Address | str | None = None) -> bool:
        """Make a schedule's runs again, from now on; False if there is none."""
        return self._order_unless("UNKNOWN_SCHEDULE", server, b"schedule resume", word(name))

    def schedule_run(self, name: Name, server: Address | str | None = None) -> list[JobHandle]:
        """Submit a schedule's job now, at each job server that has it. ServerError UNKNOWN_SCHEDULE if none has."""
        handles = []
        for address, command in self._of_schedule(b"schedule run", name, server):
            handles.append(JobHandle(_value_of(address, command.answer()).encode(), address))
        return handles

    def schedules(self, server: Address | str | None = None) -> list[KnownSchedule]:
        """All schedules, by server and name."""
        return [
            schedule
            for address in self._asked(server)
            for schedule in self._read(address, self._lines(address, b"schedule list"), KnownSchedule.read)
        ]

    def show_schedule(self, name: Name, server: Address | str | None = None) -> list[ScheduleDetails]:
        """All about a schedule and its next runs, from each job server that has it; ServerError if none has."""
        found = []
        for address, command in self._of_schedule(b"schedule show", name, server, form="listing"):
            try:
                found.append(ScheduleDetails.read(address, command.lines()))
            except (ValueError, KeyError):
                raise unreadable(address, command.answer()) from None
        return found

    def _of_schedule(
        self, what: bytes, name: Name, server: Address | str | None, form: Form = "line"
    ) -> list[tuple[Address, Command]]:
        """The answers of those job servers that have a schedule of this name. Raises ServerError if none has."""
        answers = []
        unknown: ServerError | None = None
        for address in self._asked(server):
            try:
                answers.append((address, self._ask(address, what, word(name), form=form)))
            except ServerError as error:
                if error.code != "UNKNOWN_SCHEDULE":
                    raise
                unknown = error
        if not answers and unknown is not None:
            raise unknown
        return answers

    # ── a fleet ─────────────────────────────────────────────────────────────────────────────────────────────────────
    # Each member knows the whole fleet, so the first one that can be reached is asked. Job servers that are none refuse
    # with ServerError UNKNOWN_COMMAND; what can't be done at the moment is refused with ServerError FLEET.

    def fleet_status(self, server: Address | str | None = None) -> list[FleetMember]:
        """The members of the fleet that have not gone, the oldest first."""
        address, command = self._of_any(server, b"fleet status", form="listing")
        return self._read(address, command.lines(), lambda _, line: FleetMember.read(line))

    def fleet_history(self, server: Address | str | None = None) -> FleetHistory:
        """The latest members and adoptions, as the database has them."""
        address, command = self._of_any(server, b"fleet history", form="listing")
        try:
            return FleetHistory.read(command.lines())
        except ValueError:
            raise unreadable(address, command.answer()) from None

    def fleet_functions(self, server: Address | str | None = None) -> list[FunctionStatus]:
        """The jobs and workers of each function in the whole fleet, by name.

        Raises ServerError INCOMPLETE if a live member does not answer.
        """
        address, command = self._of_any(server, b"fleet functions", form="listing")
        return _added_up(FunctionStatus, self._columns(address, command.lines(), 4))

    def fleet_drain(self, member: int, on: bool = True, server: Address | str | None = None) -> None:
        """Have a live member give away its jobs to the others, until that is turned off; it goes on to serve."""
        self._of_any(server, b"fleet drain", b"%d" % member, *([] if on else [b"off"]))

    def fleet_forget(self, member: int, server: Address | str | None = None) -> None:
        """Take a member for dead whose lease is over, or forget one that has gone."""
        self._of_any(server, b"fleet forget", b"%d" % member)

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _asked(self, server: Address | str | None) -> tuple[Address, ...]:
        if server is None:
            return self.addresses
        return (Address.parse(server) if isinstance(server, str) else server,)

    def _order(self, server: Address | str | None, *words: bytes) -> None:
        for address in self._asked(server):
            self._ask(address, *words)

    def _order_unless(self, code: str, server: Address | str | None, *words: bytes) -> bool:
        """Order it everywhere; whether any job server did it. A refusal with ``code`` says there is nothing to do."""
        is_done = False
        for address in self._asked(server):
            try:
                self._ask(address, *words)
                is_done = True
            except ServerError as error:
                if error.code != code:
                    raise
        return is_done

    def _counted(self, server: Address | str | None, *words: bytes) -> int:
        return sum(int(_value_of(address, self._ask(address, *words).answer())) for address in self._asked(server))

    def _of_job(self, handle: JobHandle | Name, *words: bytes, form: Form = "line") -> tuple[Address, Command]:
        """Ask about a job: the first job server that knows it."""
        trouble: GeartrainError | None = None
        for address in self._asked(JobHandle.of(handle).address):
            try:
                return address, self._ask(address, *words, form=form)
            except (UnknownJobError, ConnectError) as error:
                trouble = worse(trouble, error)
        assert trouble is not None, "there is at least one job server"
        raise trouble

    def _of_any(self, server: Address | str | None, *words: bytes, form: Form = "line") -> tuple[Address, Command]:
        """Ask the first job server that can be reached."""
        trouble: ConnectError | None = None
        for address in self._asked(server):
            try:
                return address, self._ask(address, *words, form=form)
            except ConnectError as error:
                trouble = error
        assert trouble is not None, "there is at least one job server"
        raise trouble

    def _value(self, address: Address, command: bytes) -> str:
        answer = self._ask(address, command).answer()
        if answer.startswith(b"v") and command == b"version":  # the Perl server says no OK
            return as_text(answer.strip())
        return _value_of(address, answer)

    def _rows(
        self, command: bytes, columns: int, server: Address | str | None
    ) -> Iterable[tuple[Address, list[bytes]]]:
        for address in self._asked(server):
            yield from self._columns(address, self._lines(address, command), columns)

    def _columns(self, address: Address, lines: Iterable[bytes], columns: int) -> Iterable[tuple[Address, list[bytes]]]:
        """Lines of columns between TABs; the first may hold TABs itself, as functions of the Perl library do."""
        for line in lines:
            row = line.rsplit(b"\t", columns - 1)
            if len(row) != columns or not all(value.isdigit() for value in row[1:]):
                raise unreadable(address, line)
            yield address, row

    def _lines(self, address: Address, *words: bytes) -> list[bytes]:
        return self._ask(address, *words, form="listing").lines()

    def _read(self, address: Address, lines: Iterable[bytes], read: Callable[[Address, bytes], Read]) -> list[Read]:
        rows = []
        for line in lines:
            try:
                rows.append(read(address, line))
            except ValueError:
                raise unreadable(address, line) from None
        return rows

    def _ask(self, address: Address, *words: bytes, form: Form = "line", who: bytes = b"") -> Command:
        command = Command(*words, form=form, who=who)
        ask(command, address, connect_timeout=self._connect_timeout, timeout=self._timeout, tls=self._tls)
        return command

    def __repr__(self) -> str:
        return f"<AdminClient of {', '.join(map(str, self.addresses))}>"


def _added_up(kind: type[Row], rows: Iterable[tuple[Address, list[bytes]]]) -> list[Row]:
    sums: dict[bytes, list[int]] = {}
    for _, (function, *values) in rows:
        known = sums.setdefault(function, [0] * len(values))
        for place, value in enumerate(values):
            known[place] += int(value)
    return [kind(as_text(function), *sums[function]) for function in sorted(sums)]


def _value_of(address: Address, answer: bytes) -> str:
    """What stands behind ``OK``."""
    if not answer.startswith(b"OK "):
        raise unreadable(address, answer)
    return as_text(answer[3:].strip())


def _of(handle: JobHandle | Name) -> bytes:
    """The handle as a word, without its server."""
    return word(bytes(JobHandle.of(handle)))


def _selection(function: Name, reason: str) -> list[bytes]:
    """Which dead letters are meant, in words."""
    words = [b"function=" + word(function)] if function else []
    return [*words, *([b"reason=" + word(reason)] if reason else [])]
