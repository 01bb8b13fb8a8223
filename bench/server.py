"""A job server as a child process, and what Linux says about it: its processor time and its memory."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType

START_LIMIT = 15.0  # seconds until a server must accept connections
_TICKS = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """A job server did not start; the text says what it printed."""


def machine_cpu_seconds() -> float:
    """Processor time that everything on this machine has used, all cores together."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / _TICKS


def find_program(name: str) -> str:
    """The whole path of a program, so that it is found from any folder; raises ServerFailed if there is none."""
    found = shutil.which(name)
    if not found:
        raise ServerFailed(f"there is no program {name}")
    return os.path.abspath(found)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A freshly started job server; ``{port}`` and ``{dir}`` (an empty folder) in ``command`` are filled in.

    Used as a context manager: on leaving, the process and all it started are killed and the folder is removed.
    """

    def __init__(self, command: str) -> None:
        words = shlex.split(command)
        words[0] = find_program(words[0])
        self._folder = tempfile.TemporaryDirectory(prefix="geartrain-bench-")
        self.port = _free_port()
        fill = {"{port}": str(self.port), "{dir}": self._folder.name}
        for placeholder, value in fill.items():
            words = [word.replace(placeholder, value) for word in words]
        self._command = shlex.join(words)
        self._log = Path(self._folder.name, "output.log")
        with self._log.open("wb") as output:
            # In a folder of its own, so that `python -m` finds the installed package and no checkout beside us.
            self._process = subprocess.Popen(
                words,
                cwd=self._folder.name,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """The server's folder, ``{dir}``."""
        return Path(self._folder.name)

    def output(self) -> str:
        """The last lines of what the server printed."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerFailed(f"{self._command}\nended with {self._process.returncode}:\n{self.output()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise ServerFailed(f"{self._command}\ndid not listen within {START_LIMIT:.0f} s:\n{self.output()}")

    def _pids(self) -> list[int]:
        """The server and its living descendants."""
        found: list[int] = []
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        return found

    def cpu_seconds(self) -> float:
        """Processor time in user and system mode: all threads, living descendants and ended children."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime and those of ended children
        return ticks / _TICKS

    def cpu_exactly(self) -> float:
        """Processor time of all living threads, as the scheduler counts it: to less than a millisecond."""
        tasks = (task for pid in self._pids() for task in Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> int:
        """Resident memory in bytes, of the server and its living descendants."""
        total = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def peak_memory(self) -> int:
        """The most resident memory so far in bytes, of the server and its living descendants."""
        total = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
        return total
