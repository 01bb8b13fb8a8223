"""The foreign programs that speak Gearman: libgearman in C, PHP, Perl, gear in Python, and the gearman tool.

Each peer is a client and a worker. Four of them are small programs in ``programs/`` that speak one language of
lines, words parted by tabs, bytes in hexadecimal, so that every test runs with every pair of peers.

A client reads a request from its stdin::

    run         PRIORITY FUNCTION UNIQUE WORKLOAD      a foreground job
    background  PRIORITY FUNCTION UNIQUE WORKLOAD
    many        COUNT FUNCTION                         submits "number 0", "number 1" ... before it waits
    status      HANDLE                                 of a background job of this client

and answers with events::

    created HANDLE | data BYTES | warning BYTES | status N D
    complete BYTES | fail | exception BYTES | error TEXT       one of them ends `run`
    correct COUNT                                              ends `many`: how many came back reversed
    known 0|1 RUNNING N D                                      ends `status`

A worker is started with NAME=BEHAVIOUR for each function and prints ``taken`` with the first 16 bytes of each
job it takes. Behaviours: ``reverse``; ``talk`` (data "first", warning "careful", status 3/4, result "last");
``fail``; ``raise`` (an exception with the workload as text); ``stall`` (status 1/9, and never ends); ``giveback``
(C only: lets its library give the first job back to the server, reverses the next ones); ``late`` (reverses after a
second and a half). ``twice-`` before one of these: the first two jobs go so, the next ones are reversed; so does the
first job itself, if it is tried again.

The gearman tool has the same face: `ToolClient`, and as worker ``gearman -w`` with ``programs/command.py``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from line_process import LineProcess

from servers import PATIENCE, RunningServer, needs

TALKING_PEERS = ("c", "php", "perl", "gear")
"""Those whose workers send data, warnings, status and exceptions, and whose clients tell them apart."""
PEERS = (*TALKING_PEERS, "tool")
ENDS = ("complete", "fail", "exception", "error")


@dataclass
class Outcome:
    """What a client heard about a job: the last event, one of ``ENDS``, its bytes, and the events before it."""

    end: str
    result: bytes
    events: list[tuple[str, object]] = field(default_factory=list)


class Client(Protocol):
    """A client of some peer, with one foreground job at a time."""

    def submit(self, function: str, workload: bytes, unique: str = "", priority: str = "normal") -> str:
        """Submit a foreground job and wait for its handle."""

    def outcome(self) -> Outcome:
        """Wait for the end of the job submitted last."""

    def background(self, function: str, workload: bytes, unique: str = "", priority: str = "normal") -> str:
        """Submit a background job and wait for its handle."""

    def many(self, function: str, count: int) -> int:
        """Submit ``count`` jobs to a function that reverses; returns how many came back right."""

    def kill(self) -> None:
        """kill -9."""

    def close(self) -> None: ...


class ProgramClient:
    """The client in one of the programs."""

    def __init__(self, program: Sequence[str], server: RunningServer, exceptions: bool) -> None:
        options = "exceptions" if exceptions else "plain"
        self._process = LineProcess([*program, "client", server.host, str(server.port), options])

    def submit(self, function: str, workload: bytes, unique: str = "", priority: str = "normal") -> str:
        self._process.write("run", priority, function, unique, workload.hex())
        return self._read("created")[0]

    def background(self, function: str, workload: bytes, unique: str = "", priority: str = "normal") -> str:
        self._process.write("background", priority, function, unique, workload.hex())
        return self._read("created")[0]

    def outcome(self) -> Outcome:
        events: list[tuple[str, object]] = []
        while True:
            kind, *words = self._process.read()
            if kind in ENDS:
                return Outcome(kind, bytes.fromhex(words[0]), events)
            event = tuple(int(word) for word in words) if kind == "status" else bytes.fromhex(words[0])
            events.append((kind, event))

    def many(self, function: str, count: int) -> int:
        self._process.write("many", str(count), function)
        return int(self._read("correct")[0])

    def status(self, handle: str) -> tuple[int, ...]:
        """Known, running, numerator and denominator of a background job that this client submitted."""
        self._process.write("status", handle)
        return tuple(int(number) for number in self._read("known"))

    def _read(self, kind: str) -> list[str]:
        first, *words = self._process.read()
        assert first != "error", bytes.fromhex(words[0])
        assert first == kind, (first, *words)
        return words

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.close()


class ToolClient:
    """Debian's ``gearman`` as a client, one process for each job."""

    def __init__(self, server: RunningServer) -> None:
        self._command = [needs("gearman", "gearman-tools"), "-h", server.host, "-p", str(server.port)]
        self._process: subprocess.Popen[bytes] | None = None

    def submit(self, function: str, workload: bytes, unique: str = "", priority: str = "normal") -> str:
        return self._start(["-f", function], workload, unique, priority)

    def background(self, function: str, workload: bytes, unique: str = "", priority: str = "normal") -> str:
        handle = self._start(["-b", "-f", function], workload, unique, priority)
        outcome = self.outcome()
        assert outcome.end == "complete", outcome
        return handle

    def _start(self, options: list[str], workload: bytes, unique: str, priority: str) -> str:
        self.close()
        options += {"high": ["-I"], "normal": [], "low": ["-L"]}[priority]
        options += ["-u", unique] if unique else []
        # -v prints the handle before the result, but into a buffer that only the end of the program empties.
        command = ["stdbuf", "-o0", *self._command, "-v", *options]
        pipe = subprocess.PIPE
        # Unbuffered here too, or reading the first line would read ahead what communicate() looks for later.
        self._process = process = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        with open(process.stdin.fileno(), "wb", closefd=False) as whole:
            whole.write(workload)
        process.stdin.close()
        process.stdin = None
        word, _, handle = process.stdout.readline().decode().rpartition(": ")
        assert word == "Task created", (word, handle)
        return handle.rstrip("\n")

    def outcome(self) -> Outcome:
        assert self._process is not None
        output, complaints = self._process.communicate(timeout=PATIENCE)
        if self._process.returncode == 0 and not complaints:
            return Outcome("complete", output)
        failed = self._process.returncode == 1 and complaints == b"Job failed\n"
        return Outcome("fail", output) if failed else Outcome("error", complaints)

    def many(self, function: str, count: int) -> int:
        texts = [f"number {i}" for i in range(count)]
        lines = "".join(f"{text}\n" for text in texts)
        command = [*self._command, "-N", "-f", function]
        done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True)
        return count if done.stdout == "".join(text[::-1] for text in texts) else 0

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        if self._process is not None:
            self.kill()
            for pipe in (self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()
            self._process = None


class Worker:
    """A worker of some peer. The gearman tool prints on stderr what the others print on stdout."""

    def __init__(self, command: Sequence[str], stderr_too: bool = False) -> None:
        self._process = LineProcess(command, stderr_too)

    def taken(self) -> bytes:
        """Wait until the worker takes a job; the first 16 bytes of its workload."""
        return self._text(self._process.read())

    def all_taken(self) -> list[bytes]:
        """End the worker; what it took and ``taken`` has not told yet."""
        self._process.kill()
        return [self._text(words) for words in self._process.rest()]

    def _text(self, words: list[str]) -> bytes:
        assert words[0] == "taken", words
        return bytes.fromhex(words[1])

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()

    def close(self) -> None:
        self._process.close()


class ClientOf(Protocol):
    """The fixture ``client_of``: starts a client of a peer."""

    def __call__(self, peer: str, exceptions: bool = False) -> Client: ...


class WorkerOf(Protocol):
    """The fixture ``worker_of``: starts a worker of a peer that serves functions, name to behaviour."""

    def __call__(self, peer: str, functions: dict[str, str]) -> Worker: ...
