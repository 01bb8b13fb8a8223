"""Pairs of runs: a fresh server under a load, the processor time and memory it took, and the figure that results."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from server import Server, ServerFailed, machine_cpu_seconds
from workloads import Workload

DISTURBED = 0.15  # a run is disturbed when other processes used so much of one core


def number(value: float) -> str:
    """A number as people read it: 1.2M, 75.9k, 912."""
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    if value >= 1e4:
        return f"{value / 1e3:.1f}k"
    return f"{value:.0f}"


class RunFailed(Exception):
    """A run gave no figure, because something was wrong with what the server did."""


@dataclass
class Run:
    """One server process under one load."""

    server: str
    value: float  # jobs a second, or bytes a job or connection
    jobs: int
    seconds: float
    server_cpu: float  # seconds
    load_cpu: float
    others_cpu: float  # of everything else on the machine, during the run
    latency_us: dict[str, float] | None

    @property
    def disturbed(self) -> bool:
        return self.others_cpu > DISTURBED * self.seconds and self.others_cpu > 0.05

    @property
    def jobs_a_cpu_second(self) -> float:
        return self.jobs / self.server_cpu if self.server_cpu else 0.0


@dataclass
class Result:
    """All pairs of a workload."""

    workload: Workload
    pairs: list[tuple[Run, Run]] = field(default_factory=list)
    failure: str = ""

    def ratios(self) -> list[float]:
        return [second.value / first.value for first, second in self.pairs if first.value]

    @property
    def reached(self) -> float:
        """What is compared with the target: the median ratio, or our median size."""
        if self.workload.is_size:
            return median(second.value for _, second in self.pairs)
        return median(self.ratios())

    def verdict(self) -> str:
        target = self.workload.target
        if target is None:
            return "-"
        good = self.reached <= target if self.workload.is_size else self.reached >= target
        return "reached" if good else "MISSED"


class Bench:
    """Two servers, the load generator, and how carefully to compare."""

    def __init__(self, servers: dict[str, str], load: Path, pairs: int, quick: bool, patience: float) -> None:
        """``servers`` names two commands (see ``Server``): the one compared with, then ours.

        ``patience`` is how many seconds to wait for a quiet machine before each run; 0 also takes disturbed pairs.
        """
        self._servers = list(servers.items())
        self._load = str(load.resolve())
        self._pairs = pairs
        self._quick = quick
        self._patience = patience

    def measure(self, workload: Workload, progress: str) -> Result:
        """Measures pair by pair. As many pairs as asked for are measured again if other processes disturbed them."""
        result = Result(workload)
        spare = self._pairs if self._patience and not workload.is_size else 0
        while len(result.pairs) < self._pairs:
            try:
                first = self._run(workload, 0, progress)
                second = self._run(workload, 1, progress)
            except (RunFailed, ServerFailed) as error:
                result.failure = str(error)
                break
            if spare and (first.disturbed or second.disturbed):
                spare -= 1
                continue
            result.pairs.append((first, second))
        return result

    def _run(self, workload: Workload, side: int, progress: str) -> Run:
        own_base = bool(workload.base_load)
        contender = 1 if own_base else side
        options = workload.options(self._quick, base=side == 0)
        name, command = self._servers[contender]
        label = f"{name} (base)" if own_base and side == 0 else name
        if not workload.is_size:
            self._wait_for_quiet()
        processors = os.sched_getaffinity(0)  # the server and the load generator inherit them
        if workload.one_core:
            os.sched_setaffinity(0, {min(processors)})
        try:
            with Server(command) as server:
                run = self._drive(server, label, options, workload.units(self._quick))
        finally:
            os.sched_setaffinity(0, processors)
        note = ""
        if run.disturbed and not workload.is_size:
            note = f"  (others used {run.others_cpu:.2f} s of processor time)"
        print(f"{progress} {workload.name:18} {label:18} {number(run.value)}{note}", file=sys.stderr, flush=True)
        return run

    def _wait_for_quiet(self) -> None:
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            before = machine_cpu_seconds()
            time.sleep(0.3)
            if machine_cpu_seconds() - before < 0.03:
                return

    def _drive(self, server: Server, name: str, options: list[str], units: int) -> Run:
        command = [self._load, "--port", str(server.port), "--marks", *options]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        ) as load:
            assert load.stdin
            assert load.stdout
            try:
                self._await_mark(load, "start")
                others = machine_cpu_seconds()
                cpu, memory, start = server.cpu_seconds(), server.memory(), time.monotonic()
                load.stdin.write("\n")
                self._await_mark(load, "stop")
                elapsed = time.monotonic() - start
                cpu, memory = server.cpu_seconds() - cpu, server.memory() - memory
                others = machine_cpu_seconds() - others
                load.stdin.write("\n")
                report: dict[str, Any] = json.loads(load.stdout.readline() or self._failed(load))
            except RunFailed as error:
                raise RunFailed(f"{shlex.join(command)}\n{error}\n{name} printed: {server.output()}") from None
        return Run(
            server=name,
            value=memory / units if units else report["jobs_per_second"],
            jobs=report["jobs"],
            seconds=elapsed,
            server_cpu=cpu,
            load_cpu=report["load_cpu_seconds"],
            others_cpu=max(0.0, others - cpu - report["load_cpu_seconds"]),
            latency_us=report["latency_us"],
        )

    def _await_mark(self, load: subprocess.Popen[str], mark: str) -> None:
        assert load.stdout
        if load.stdout.readline() != f"{mark}\n":
            self._failed(load)

    def _failed(self, load: subprocess.Popen[str]) -> str:
        assert load.stderr
        raise RunFailed(load.stderr.read().strip() or f"load ended with {load.wait()}")
