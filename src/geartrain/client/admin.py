"""The administrator's client: what job servers are doing, as typed rows (section 4 of the protocol).

Every command connects again to each job server it asks, so an ``AdminClient`` holds nothing open, may be used by many
threads, and always speaks to the server that answers now.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from geartrain.client.submission import JobHandle
from geartrain.errors import ConnectionLostError, LocalProtocolError, RemoteProtocolError, ServerError, TimedOutError
from geartrain.link import Address, BlockingLink, parse_addresses
from geartrain.link.address import ServerList
from geartrain.link.blocking import CONNECT_SECONDS
from geartrain.wire.text import as_text

Name = str | bytes


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
                    raise _unreadable(address, line) from None
        return peers

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
        self._order(server, b"create function", _word(function))

    def drop_function(self, function: Name, server: Address | str | None = None) -> None:
        """Forget a function; ServerError if it has workers or running jobs, or is not known."""
        self._order(server, b"drop function", _word(function))

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
        self._order(server, b"maxqueue", _word(function), *(b"%d" % value for value in limits))

    def cancel_job(self, handle: JobHandle | Name) -> bool:
        """Cancel a job; False if no job server knows it (any more).

        A queued job is dropped; of a running one only its clients are told. A handle that does not say its server is
        asked for at all of them.
        """
        if isinstance(handle, str):
            handle = JobHandle.parse(handle)
        address = handle.address if isinstance(handle, JobHandle) else None
        is_cancelled = False
        for known in self._asked(address):
            try:
                self._ask(known, b"cancel job " + _word(bytes(handle)))
                is_cancelled = True
            except ServerError as error:
                if error.code != "UNKNOWN_JOB":
                    raise
        return is_cancelled

    def _asked(self, server: Address | str | None) -> tuple[Address, ...]:
        if server is None:
            return self.addresses
        return (Address.parse(server) if isinstance(server, str) else server,)

    def _order(self, server: Address | str | None, *words: bytes) -> None:
        for address in self._asked(server):
            self._ask(address, b" ".join(words))

    def _value(self, address: Address, command: bytes) -> str:
        answer = self._ask(address, command)
        if answer.startswith(b"v") and command == b"version":  # the Perl server says no OK
            return as_text(answer.strip())
        if not answer.startswith(b"OK "):
            raise _unreadable(address, answer)
        return as_text(answer[3:].strip())

    def _rows(
        self, command: bytes, columns: int, server: Address | str | None
    ) -> Iterable[tuple[Address, list[bytes]]]:
        """Lines of columns between TABs; the first may hold TABs itself, as functions of the Perl library do."""
        for address in self._asked(server):
            for line in self._lines(address, command):
                row = line.rsplit(b"\t", columns - 1)
                if len(row) != columns or not all(value.isdigit() for value in row[1:]):
                    raise _unreadable(address, line)
                yield address, row

    def _lines(self, address: Address, command: bytes) -> list[bytes]:
        """The lines of a long answer, without the dot at its end."""
        return self._ask(address, command, is_long=True).split(b"\n")[:-2]

    def _ask(self, address: Address, command: bytes, *, is_long: bool = False) -> bytes:
        deadline = time.monotonic() + self._timeout
        with BlockingLink.connect(address, timeout=self._connect_timeout, tls=self._tls) as link:
            link.send(command + b"\r\n", self._timeout)
            answer = bytearray()
            while True:
                try:
                    data = link.receive(max(deadline - time.monotonic(), 0))
                except TimedOutError:
                    raise TimedOutError(
                        f"{address} did not answer {command.decode('utf-8', 'replace')!r} within {self._timeout:g} s"
                    ) from None
                if not data:
                    raise ConnectionLostError(f"{address} closed the connection instead of an answer")
                answer += data
                # Rows end in a bare newline, refusals in CR LF.
                if answer.startswith(b"ERR ") and b"\t" not in answer and answer.endswith(b"\r\n"):
                    raise _refusal(bytes(answer[4:]))
                if answer == b".\n" or answer.endswith(b"\n.\n" if is_long else b"\n"):
                    return bytes(answer)

    def __repr__(self) -> str:
        return f"<AdminClient of {', '.join(map(str, self.addresses))}>"


def _added_up(kind: type[Row], rows: Iterable[tuple[Address, list[bytes]]]) -> list[Row]:
    sums: dict[bytes, list[int]] = {}
    for _, (function, *values) in rows:
        known = sums.setdefault(function, [0] * len(values))
        for place, value in enumerate(values):
            known[place] += int(value)
    return [kind(as_text(function), *sums[function]) for function in sorted(sums)]


def _word(name: Name) -> bytes:
    """A name as it may stand in a line of text."""
    word = name.encode() if isinstance(name, str) else name
    if not word or any(byte <= 32 for byte in word):
        raise LocalProtocolError(f"{name!r} can't be told to a job server in text: it is empty or holds white space")
    return word


def _refusal(text: bytes) -> ServerError:
    """``ERR CODE Some+words`` or ``ERR some words``; the Perl server writes its codes small."""
    code, _, words = as_text(text.strip()).partition(" ")
    if code.isupper() or "_" in code:
        return ServerError(code, words.replace("+", " "))
    return ServerError("ERR", f"{code} {words}".strip())


def _unreadable(address: Address, line: bytes) -> RemoteProtocolError:
    return RemoteProtocolError(f"{address} answered what can't be read: {line[:200]!r}")
