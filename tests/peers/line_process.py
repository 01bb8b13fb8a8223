"""A child process that talks in lines of words, tab between words, each line awaited with a deadline."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence

from servers import PATIENCE


class LineProcess:
    """A running child. It gets a session of its own, so that whatever it started can be ended with it."""

    def __init__(self, command: Sequence[str], stderr_too: bool = False) -> None:
        self.command = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if stderr_too else None,
            start_new_session=True,
        )
        self._unread = bytearray()

    def write(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(words).encode() + b"\n")
        self._process.stdin.flush()

    def read(self, seconds: float = PATIENCE) -> list[str]:
        """The words of the next line. Raises AssertionError if none comes in time, or the child has ended."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._process.stdout], [], [], left)[0], f"{self} was silent for {seconds} s"
            piece = os.read(self._process.stdout.fileno(), 1 << 20)
            assert piece, f"{self} ended in the middle of its answer"
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode().split("\t")

    def rest(self) -> list[list[str]]:
        """All lines not read yet, of a child that has ended."""
        assert self._process.stdout is not None
        self._unread += self._process.stdout.read()
        lines, self._unread = self._unread.decode().splitlines(), bytearray()
        return [line.split("\t") for line in lines]

    def kill(self) -> None:
        """kill -9, for this process alone: what it started lives on until ``close``."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __repr__(self) -> str:
        return f"<{' '.join(os.path.basename(word) for word in self.command[:6])}>"
