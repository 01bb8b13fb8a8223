"""``geartrain work``: a worker whose functions are a shell command, run once for each job."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence

import click

from geartrain.cli.servers import seconds_above_0, server_option
from geartrain.cli.themes import ThemedCommand, ThemedOption
from geartrain.errors import JobFailedError
from geartrain.link import Address
from geartrain.worker import AssignedJob, JobLog, Worker

_JOBS = "Jobs"

_ABOUT = """Do jobs with a shell command.

For each job of one of the FUNCTIONs the COMMAND is run: the workload is its standard input, what it prints is the
result, and an exit status other than 0 makes the job fail. Its standard error is left to the terminal. It finds the
job in the environment: GEARMAN_FUNCTION, GEARMAN_HANDLE and GEARMAN_UNIQUE.

\b
Examples:
  geartrain work reverse -- rev
  geartrain work -j 4 thumbnail -- convert - -resize 128x128 png:-
  geartrain work deploy -- sh -c 'git pull && make install'

SIGTERM and Ctrl-C let the jobs at hand end (--grace); a second one gives them up, so that other workers get them.
"""


class WorkCommand(ThemedCommand):
    """Keeps what stands behind ``--`` from being read as options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta["command"] = args[cut + 1 :]
        return super().parse_args(ctx, args[:cut])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "--", "COMMAND", "[ARGUMENT]..."]


class ShellFunction:
    """A function that runs ``command`` for each job, for ``timeout`` seconds at most.

    With ``lines`` each line that the command prints is sent at once, and the result is empty.
    """

    def __init__(self, command: Sequence[str], *, timeout: float | None = None, lines: bool = False) -> None:
        self.command = list(command)
        self.timeout = timeout
        self.lines = lines
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, job: AssignedJob) -> bytes:
        """The result of a job. Raises JobFailedError for a command that fails."""
        with tempfile.TemporaryFile() as workload:
            workload.write(job.workload)
            workload.seek(0)
            process = subprocess.Popen(
                self.command,
                stdin=workload,
                stdout=subprocess.PIPE,
                # In a session of its own, so that Ctrl-C reaches the worker and not the jobs that it lets end.
                start_new_session=True,
                env={
                    **os.environ,
                    "GEARMAN_FUNCTION": job.function,
                    "GEARMAN_HANDLE": os.fsdecode(job.handle),
                    "GEARMAN_UNIQUE": os.fsdecode(job.unique),
                },
            )
        alarm = threading.Timer(self.timeout or 0, _kill, [process])
        with self._lock:
            self._running.add(process)
        try:
            if self.timeout:
                alarm.start()
            result = self._read(process, job)
            status = process.wait()
        finally:
            alarm.cancel()
            with self._lock:
                self._running.discard(process)
        if status:
            if result:
                job.send(result)
            raise JobFailedError(f"{self.command[0]} ended with {_ending(status)}")
        return result

    def kill(self) -> None:
        """End the commands that still run, with all that they started."""
        with self._lock:
            for process in self._running:
                _kill(process)

    def _read(self, process: subprocess.Popen[bytes], job: AssignedJob) -> bytes:
        assert process.stdout is not None
        with process.stdout as output:
            if not self.lines:
                return output.read()
            for line in output:
                job.send(line)
            return b""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ending(status: int) -> str:
    return f"status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"


def _work(
    servers: tuple[Address, ...],
    functions: Sequence[str],
    jobs: int,
    lines: bool,
    timeout: float | None,
    grace: float,
    quiet: bool,
) -> None:
    command: list[str] = click.get_current_context().meta["command"]
    if not command:
        raise click.UsageError("write the command after --, as in: geartrain work reverse -- rev")
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"there is no command {command[0]!r} here")
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    shell = ShellFunction(command, timeout=timeout, lines=lines)
    worker = Worker(servers, middleware=[JobLog(level=logging.INFO)])
    for name in functions:
        worker.function(name, raw=True, timeout=timeout)(shell.run)
    try:
        worker.run(threads=jobs, grace=grace)
    finally:
        shell.kill()


command = WorkCommand(
    "work",
    callback=_work,
    help=_ABOUT,
    params=[
        click.Argument(["functions"], nargs=-1, required=True, metavar="FUNCTION..."),
        ThemedOption(
            ["-j", "--jobs"],
            metavar="N",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            theme=_JOBS,
            help="Do so many jobs at once.",
        ),
        ThemedOption(
            ["-n", "--lines"], is_flag=True, theme=_JOBS, help="Send each line as soon as the command prints it."
        ),
        ThemedOption(
            ["--timeout"],
            metavar="SECONDS",
            callback=seconds_above_0,
            theme=_JOBS,
            help="A job that takes longer fails, and its command is killed.  [default: none]",
        ),
        ThemedOption(
            ["--grace"],
            metavar="SECONDS",
            default="30",
            show_default=True,
            callback=seconds_above_0,
            theme=_JOBS,
            help="How long the jobs at hand may take when the worker is to leave.",
        ),
        ThemedOption(["-q", "--quiet"], is_flag=True, theme=_JOBS, help="Log only what went wrong, not each job."),
        server_option(),
    ],
)
